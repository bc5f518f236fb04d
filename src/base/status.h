/* status.h: statuses and their text. The text is thread-local, set where the fault is seen, and travels up unmodified. */
#ifndef QUIRE_STATUS_H
#define QUIRE_STATUS_H

#include "quire/quire.h"

/* Sets this thread's error text (cut at 511 bytes) and is `status`, so that a fault is one line. A macro, so that the
 * compiler sees which status it is, and knows that what a failed call did not write is not read. */
#define quire__fail(status, ...) (quire__set_error_text(__VA_ARGS__), quire__same_status(status))

#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
void quire__set_error_text(const char *format, ...);

static inline quire_status quire__same_status(quire_status status)
{
    return status;
}

/* One of the two control-flow macros of the library: leave with the status when it is not OK. */
#define QUIRE__TRY(expression)                      \
    do {                                            \
        quire_status quire__try_ = (expression);    \
        if (quire__try_ != QUIRE_OK)                \
            return quire__try_;                     \
    } while (0)

#endif
