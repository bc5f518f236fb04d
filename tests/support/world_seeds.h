/* world_seeds.h: worlds of many seeds, one after another. */
#ifndef QUIRE_TESTS_WORLD_SEEDS_H
#define QUIRE_TESTS_WORLD_SEEDS_H

#include "world.h"

/* Adds up every count of the two. */
void add_up(world_result *sum, const world_result *one);
/* What a copy may come to, beside the trouble that the options name. */
typedef enum world_trouble { NO_TROUBLE, FAILING_COPIES, LATE_COPIES, CORRUPT_HOST } world_trouble;

/* Runs `count` seeds from QUIRE_TEST_SEED on, 1 where that is not set, and prints what they did. Fails the test at the first
 * that sees a wrong byte. */
void run_seeds(uint32_t count, world_options (*make)(uint64_t seed), world_trouble trouble,
               world_result *sum);

#endif
