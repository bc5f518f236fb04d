/* evict_priority.h: what the engine says: priorities with durations, pins with a budget, lifetimes by domain. */
#ifndef QUIRE_EVICT_PRIORITY_H
#define QUIRE_EVICT_PRIORITY_H

#include "block/evict.h"

extern const quire_policy quire__evict_priority;

/* What pins keep. The policy's state begins with it, so that a test can break it. */
typedef struct quire__pins {
    uint32_t *holds;      /* [blocks]: 1 if it is pinned, and 1 for each child with holds */
    uint32_t held, stuck; /* blocks with holds; those of them that are in the order */
    uint32_t most;        /* the budget: of held */
} quire__pins;

/* QUIRE_ECORRUPT: pins are miscounted, or deadlines out of order. `scratch` [blocks] is written. */
quire_status quire__priority_check(const void *state, uint32_t blocks, uint32_t *scratch);

#endif
