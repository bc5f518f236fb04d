/* log.h: lines to the caller's function, or to stderr. Off by default above errors. */
#ifndef QUIRE_LOG_H
#define QUIRE_LOG_H

#include "quire/quire.h"

typedef struct quire__log {
    quire_log_level level;
    quire_log_fn fn; /* NULL: stderr, "quire: warn: ..." */
    void *user;
} quire__log;

#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
void quire__log_line(const quire__log *log, quire_log_level level, const char *format, ...);

#endif
