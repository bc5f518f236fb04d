/* learner.h: how soon blocks of a kind come back, learned while it happens. Integers and floats in a fixed order: the
 * same touches give the same tables. */
#ifndef QUIRE_LEARNER_H
#define QUIRE_LEARNER_H

#include <stdbool.h>

#include "base/memory.h"

enum {
    QUIRE__LEARNER_BINS = 56,     /* of age: 16 ms, then two an octave; the last begins at 18 days */
    QUIRE__LEARNER_FEATURES = 5,  /* of a kind, each below 16 */
    QUIRE__LEARNER_KINDS = 768,   /* and what kinds have in common, all in one tree */
    QUIRE__LEARNER_TABLE = 2048,
    QUIRE__LEARNER_SAMPLES = 65536 /* blocks followed at a time */
};

/* Blocks of equal features, or of equal first `level` features. Row 0 is all blocks. */
typedef struct quire__kind {
    uint32_t key; /* the features, four bits each, below a 1 */
    uint16_t parent;
    uint16_t halvings;
    float back[QUIRE__LEARNER_BINS];      /* came back at that age */
    float alive[QUIRE__LEARNER_BINS];     /* were at risk then: half of who reached it, half of who left it alive or back */
    float hazard[QUIRE__LEARNER_BINS];    /* the chance to come back in the bin for who has reached it */
    float worth[QUIRE__LEARNER_BINS + 1]; /* Gittins index where a bin begins; per ms */
} quire__kind;

typedef struct quire__sample {
    uint32_t key;
    uint32_t since; /* ms */
    uint32_t next, older, newer; /* of its bucket; in its bin */
    uint16_t kind;
    uint8_t bin, uses;
} quire__sample;

typedef struct quire__learner {
    quire__kind *kinds;
    uint16_t *table; /* by key: 1 + number of a kind, 0: none */
    uint32_t kind_count, turn; /* whose estimate is renewed next */
    float weight;   /* uses counted since the last halving */
    uint16_t halvings;
    float width[QUIRE__LEARNER_BINS]; /* of a bin; ms */
    float tail[QUIRE__LEARNER_BINS]; /* how nearly all who come back have done so at that age; 0..1 */
    float together; /* samples of a path, on average */

    quire__sample *samples;
    uint32_t *buckets, free, count;
    uint32_t oldest[QUIRE__LEARNER_BINS], newest[QUIRE__LEARNER_BINS];
    uint32_t shift; /* a block in 2^shift is followed: whose key ends in so many zero bits */
    uint32_t sweep; /* samples at and after it may be of blocks that are followed no more */
} quire__learner;

quire_status quire__learner_open(quire__learner *learner, const quire__allocator *allocator);
void quire__learner_close(quire__learner *learner, const quire__allocator *allocator);

/* Which bin an age falls into, and where a bin begins; ms. */
uint32_t quire__learner_bin(uint32_t age);
uint32_t quire__learner_edge(uint32_t bin);

/* The kind of those features, the most telling first. When there are as many kinds as there may be, one with fewer. */
uint32_t quire__learner_kind(quire__learner *learner, const uint8_t *features);

/* How often a followed block has been used; 0: it is not known. */
uint32_t quire__learner_uses(const quire__learner *learner, uint32_t key);
/* A followed block has been used, and is of that kind from now on. */
void quire__learner_use(quire__learner *learner, uint32_t key, uint32_t kind, uint32_t now);
/* So many followed blocks were used as one path. */
void quire__learner_path(quire__learner *learner, uint32_t followed);
/* Time has passed: samples grow older, and the estimates of the next few kinds are renewed. Bounded work. */
void quire__learner_advance(quire__learner *learner, uint32_t now);
/* What keeping a block of that kind and age, which is in that bin, brings per ms. */
float quire__learner_worth(const quire__learner *learner, uint32_t kind, uint32_t bin, uint32_t age);

#endif
