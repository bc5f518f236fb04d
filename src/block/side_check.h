/* side_check.h: the invariants of side.c, verified by looking at everything. */
#ifndef QUIRE_SIDE_CHECK_H
#define QUIRE_SIDE_CHECK_H

#include "block/state.h"

/* QUIRE_ECORRUPT: the text names the invariant. Writes the book's scratch only. */
quire_status quire__side_check(const quire__book *book);

#endif
