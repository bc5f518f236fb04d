/* match.h: which cached blocks spell a prompt. */
#ifndef QUIRE_MATCH_H
#define QUIRE_MATCH_H

#include "block/state.h"

/* Gives a chain the longest cached prefix of `tokens` that leaves one token to compute. The chain is empty, or has what
 * quire__match_hold gave it. */
void quire__match_take(quire__book *book, quire__chain *chain, const int32_t *tokens, uint32_t count,
                       quire__plan *plan, quire_hit *hit);
/* The next blocks that a match would find on the device: reads only, but for what of the chain's arrays is behind its
 * blocks; and without the lock, if look->departures is the pool's of when it was given back. False: there are none. */
bool quire__match_look(const quire__book *book, const quire__chain *chain, const int32_t *tokens, uint32_t count,
                       quire__look *look);
/* The chain takes what was found, or what is found now where that is out of date. False: it was the last. */
bool quire__match_hold(quire__book *book, quire__chain *chain, const int32_t *tokens, uint32_t count,
                       quire__look *look);
/* What a match would find where there is room for every restore. Changes nothing. The look finds whole blocks, and may run
 * without the lock; the end finds the rest, or all of it where there are several groups. */
quire__probe quire__match_probe_begin(const quire__book *book, uint64_t domain, uint32_t count);
void quire__match_probe_look(const quire__book *book, const int32_t *tokens, quire__probe *probe);
void quire__match_probe_end(const quire__book *book, const int32_t *tokens, quire__probe *probe);

#endif
