/* book_check.h: every invariant of the deciding half, verified by looking at everything. */
#ifndef QUIRE_BOOK_CHECK_H
#define QUIRE_BOOK_CHECK_H

#include "block/state.h"

#ifdef QUIRE_DEBUG
/* After a mutation: the equation of the slots always, everything when the book is small. */
void quire__book_check_quick(const quire__book *book);
#else
static inline void quire__book_check_quick(const quire__book *book)
{
    (void)book;
}
#endif

#endif
