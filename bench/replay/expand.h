/* expand.h: token ids for a request. A piece becomes consecutive ids that no other piece has, as far as 32
 * bits go; two pieces under one parent differ in their first token, so that blocks are never shared in part
 * where the trace does not say so. What the trace does not know (the prompt beyond its pieces, the output) is
 * the request's own. */
#ifndef REPLAY_EXPAND_H
#define REPLAY_EXPAND_H

#include "trace.h"

/* Writes tokens [first, first + count) of the request's prompt and output. */
void replay_expand(const replay_trace *trace, uint32_t request, uint32_t first, uint32_t count,
                   int32_t *tokens);
/* Piece by piece: an id is one token, and an id that no request has follows them. Returns how many, that one
 * included. */
uint32_t replay_expand_pieces(const replay_trace *trace, uint32_t request, int32_t *tokens);

#endif
