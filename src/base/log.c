#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

static const char *level_name(quire_log_level level)
{
    switch (level) {
    case QUIRE_LOG_ERROR: return "error";
    case QUIRE_LOG_WARN: return "warn";
    case QUIRE_LOG_INFO: return "info";
    case QUIRE_LOG_DEBUG: return "debug";
    case QUIRE_LOG_OFF: break;
    }
    return "log";
}

void quire__log_line(const quire__log *log, quire_log_level level, const char *format, ...)
{
    if (level == QUIRE_LOG_OFF || level > log->level)
        return;

    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);

    if (log->fn)
        log->fn(log->user, level, line);
    else
        fprintf(stderr, "quire: %s: %s\n", level_name(level), line); /* one call: lines of threads do not mix */
}
