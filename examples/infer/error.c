#include "error.h"

#include <stdarg.h>
#include <stdio.h>

int infer_fail(infer_error *error, const char *format, ...)
{
    if (!error) return -1;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    /* Names and paths come from files: one line must stay one line, and must not drive a terminal. */
    for (char *c = error->text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    return -1;
}
