/* fences.h: proves that a fence is needed. Without it some seed of the random server reads wrong bytes, and with it that
 * seed reads the right ones. */
#ifndef QUIRE_TESTS_FENCES_H
#define QUIRE_TESTS_FENCES_H

#include "world.h"

/* What is switched off. `fence` completes the sentence 'without ...'. */
typedef struct missing_fence {
    const char *fence;
    uint32_t book_holes, mover_holes, cache_holes;
    bool staging_hole;
} missing_fence;

/* Fails the test when none of the seeds 1..most fails without the fence, or when one that does fails with it too. */
void some_seed_must_fail(world_options (*world_of)(uint64_t seed), uint64_t most, missing_fence without);

#endif
