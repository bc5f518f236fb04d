#include "base/check.h"

#ifdef QUIRE_DEBUG

#include <stdio.h>
#include <stdlib.h>

/* A broken invariant of the library's own: its state cannot be trusted any more, so a debug build stops here. */
void quire__assert_failed(const char *expression, const char *file, int line)
{
    fprintf(stderr, "quire: %s:%d: broken invariant: %s\n", file, line, expression);
    abort();
}

#else

/* C wants one declaration in a translation unit. */
typedef int quire__check_is_off;

#endif
