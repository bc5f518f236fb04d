/* error.h: how the functions of quire-replay report failure. 0 is success; -1 is failure, and then one line
 * says what was wrong and what would be right. */
#ifndef REPLAY_ERROR_H
#define REPLAY_ERROR_H

typedef struct replay_error {
    char text[512];
} replay_error;

/* Writes the line (control characters from files shown as '?') and is -1, so that a check is one line. */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
int replay_fail(replay_error *error, const char *format, ...);

#endif
