/* seal.h: a step's blocks become the cache's. */
#ifndef QUIRE_SEAL_H
#define QUIRE_SEAL_H

#include "block/state.h"

/* The chain's pending tokens are written: see quire__book_commit. */
void quire__seal_commit(quire__book *book, quire__chain *chain, quire__plan *plan);

#endif
