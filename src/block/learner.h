/* learner.h: how soon blocks of a kind come back, learned while it happens. Integers and floats in a fixed order: the
 * same touches give the same tables. */
#ifndef QUIRE_LEARNER_H
#define QUIRE_LEARNER_H

#include <stdbool.h>

#include "base/memory.h"

enum {
    QUIRE__LEARNER_BINS = 56,     /* of age: 16 ms, then two an octave; the last begins at 18 days */
    QUIRE__LEARNER_LEVELS = 7,
    QUIRE__LEARNER_ENDED = 2,     /* the features of a kind, in the order in which it is put together */
    QUIRE__LEARNER_TURNS = 5,
    QUIRE__LEARNER_PLACES = 3,
    QUIRE__LEARNER_GAPS = 9,
    QUIRE__LEARNER_GROWTHS = 5,
    QUIRE__LEARNER_KINDS = 2 * 5 * 3 * 5 * 9,
    QUIRE__LEARNER_ROWS = 1 + 2 + 10 + 30 + 150 + 270 + QUIRE__LEARNER_KINDS,
    QUIRE__LEARNER_CELLS = QUIRE__LEARNER_KINDS * QUIRE__LEARNER_BINS,
    QUIRE__LEARNER_SAMPLES = 16384 /* blocks followed at a time */
};

typedef struct quire__sample {
    uint64_t key;
    uint32_t since; /* ms */
    uint32_t next, older, newer; /* of its bucket; in its bin */
    uint16_t kind;
    uint8_t bin;
} quire__sample;

typedef struct quire__learner {
    float (*back)[QUIRE__LEARNER_BINS];  /* [rows]: came back at that age */
    float (*alive)[QUIRE__LEARNER_BINS]; /* [rows]: reached that age, or were let go then */
    float (*hazard)[QUIRE__LEARNER_BINS];
    float weight;   /* uses counted since the last halving */
    float together; /* samples of a path, on average */
    uint64_t *order;
    uint32_t *rank, *at; /* of a cell among those of kinds seen, the first to go first; and back */
    uint32_t ranked;
    bool seen[QUIRE__LEARNER_KINDS];
    uint64_t rising[(QUIRE__LEARNER_CELLS + 63) / 64]; /* by cell: worth more in the next bin than in this one */

    quire__sample *samples;
    uint32_t *buckets, free, count;
    uint32_t oldest[QUIRE__LEARNER_BINS], newest[QUIRE__LEARNER_BINS];
    uint32_t shift; /* a block in 2^shift is followed */
} quire__learner;

quire_status quire__learner_open(quire__learner *learner, const quire__allocator *allocator);
void quire__learner_close(quire__learner *learner, const quire__allocator *allocator);

/* Which bin an age falls into, and where a bin begins; ms. */
uint32_t quire__learner_bin(uint32_t age);
uint32_t quire__learner_edge(uint32_t bin);

/* Whether a block of that key is followed. */
static inline bool quire__learner_follows(const quire__learner *learner, uint64_t key)
{
    return (key & ((UINT64_C(1) << learner->shift) - 1)) == 0;
}
/* A followed block has been used, and is of that kind from now on. */
void quire__learner_use(quire__learner *learner, uint64_t key, uint32_t kind, uint32_t now);
/* So many followed blocks were used as one path. */
void quire__learner_path(quire__learner *learner, uint32_t followed);
void quire__learner_advance(quire__learner *learner, uint32_t now);
/* Ranks the cells of the kinds seen anew. */
void quire__learner_rank(quire__learner *learner);

#endif
