/* rank_engine.h: what a rank of a random server does with a step: stores its share of the heads, reads back every byte of every
 * row, and compares with what the tokens say. K and V of a token are a function of its state, which stands for all tokens up
 * to it, of the layer, and of the head's number in the whole model. */
#ifndef QUIRE_TESTS_RANK_ENGINE_H
#define QUIRE_TESTS_RANK_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/hash.h"
#include "cache/cache.h"

enum { LAYERS = 2, HEAD_DIM = 8, BLOCK_TOKENS = 4, LONGEST = 64, SEQUENCES = 6 };

static inline uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t state = a * 0x9e3779b97f4a7c15u ^ b;
    return quire__random(&state);
}

/* One row of a step: the states of all its tokens, of which the last `added` are new. */
typedef struct row {
    uint64_t states[LONGEST];
    uint32_t length, added;
} row;

typedef struct wanted_step {
    row rows[SEQUENCES];
    uint32_t count;
} wanted_step;

typedef struct reading reading;

typedef struct engine {
    quire_cache *cache;
    uint32_t first_head, heads;
    reading *readings;
    uint32_t steps;
    uint64_t random;
    bool wrong;
} engine;

/* Stores and reads back the step of the view. False: the view is not that step's, or a call failed. */
bool engine_run(engine *e, const quire_view *view, const wanted_step *want);
/* Waits for all that was read since the last call; `wrong` is set where a byte was not as expected. */
void engine_sync(engine *e);

#endif
