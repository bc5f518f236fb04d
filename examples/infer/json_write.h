/* json_write.h: writes JSON, front to back, to a file. Keys are NULL inside arrays. Text that is no UTF-8 has each stray
 * byte replaced by U+FFFD, since a generated answer may end inside a character. */
#ifndef INFER_JSON_WRITE_H
#define INFER_JSON_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

typedef struct json_writer {
    FILE *file;
    bool comma; /* something stands before, in the innermost object or array */
} json_writer;

void json_begin(json_writer *json, const char *key, char bracket); /* '{' or '[' */
void json_end(json_writer *json, char bracket);                    /* '}' or ']' */
void json_text(json_writer *json, const char *key, const char *text, size_t length);
void json_string(json_writer *json, const char *key, const char *text);
void json_real(json_writer *json, const char *key, double value);  /* not finite: null */
void json_count(json_writer *json, const char *key, unsigned long long value);
void json_bool(json_writer *json, const char *key, bool value);

#endif
