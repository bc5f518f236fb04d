/* lanes.h: one forward pass at a time over sequences that the caller leads himself, for searches that the engine's
 * batches do not fit: speculative decoding (speculate.h), beam search (beams.h).
 *
 * Errors: see error.h. A failed step changes no sequence.
 */
#ifndef INFER_LANES_H
#define INFER_LANES_H

#include "forward.h"

#include <stdbool.h>

typedef struct lanes {
    quire_cache *cache;
    const model *model;
    forward *forward;
    uint32_t most_tokens, most_rows;
    size_t longest;     /* sequence that cache and model allow */
    size_t row_floats;  /* from one row of logits to the next */
    int32_t *ids, *wanted;
    float *logits;      /* of the last step: the wanted rows of every lane, lane after lane */
} lanes;

/* What a sequence computes in a step: `count` tokens behind those that it has, with logits of the last `wanted`. */
typedef struct lane {
    quire_seq seq;
    const int32_t *tokens;
    uint32_t count, wanted;
} lane;

/* Work space for steps of up to `most_rows` rows of logits; cache and model must outlive it. */
int lanes_open(lanes *lanes, quire_cache *cache, const model *model, uint32_t most_rows, infer_error *error);
void lanes_close(lanes *lanes); /* a zeroed one is allowed */

int lanes_step(lanes *lanes, const lane *lane, uint32_t count, infer_error *error);

/* Brings an empty sequence to all of the tokens, what the cache has of them first if `reuse`; then the logits of the last
 * token are row 0. */
int lanes_prefill(lanes *lanes, quire_seq seq, const int32_t *tokens, size_t count, bool reuse, infer_error *error);

/* Of row `row` of the last step: the likeliest token, the first of equals. */
int32_t lanes_best(const lanes *lanes, uint32_t row);

#endif
