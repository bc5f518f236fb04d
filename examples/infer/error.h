/* error.h - how every function of the example reports failure.
 *
 * A function that can fail returns 0 on success and -1 on failure. On failure it has written one line into
 * the caller's infer_error: what was wrong and what would be right. On success the text is untouched. The
 * text travels up unmodified; a caller that adds something (the path, the request) writes its own line
 * around it. A NULL infer_error is allowed and means that the caller does not want the text.
 */
#ifndef INFER_ERROR_H
#define INFER_ERROR_H

typedef struct infer_error {
    char text[512];
} infer_error;

/* Writes the line (cut at 511 bytes, control characters from file contents shown as '?') and returns -1,
 * so that a check reads `return infer_fail(error, "...", ...);`. */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
int infer_fail(infer_error *error, const char *format, ...);

#endif
