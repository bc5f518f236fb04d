/* match.h: which cached blocks spell a prompt. */
#ifndef QUIRE_MATCH_H
#define QUIRE_MATCH_H

#include "block/state.h"

/* Gives an empty chain the longest cached prefix of `tokens` that leaves one token to compute. */
void quire__match_take(quire__book *book, quire__chain *chain, const int32_t *tokens, uint32_t count,
                       quire__plan *plan, quire_hit *hit);
/* What a match would find where there is room for every restore. Changes nothing. */
void quire__match_probe(const quire__book *book, uint32_t domain, const int32_t *tokens, uint32_t count,
                        quire_hit *hit);

#endif
