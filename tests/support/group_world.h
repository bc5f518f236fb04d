/* group_world.h: world.h's random inference server for caches of several groups of layers: plain ones, a window, a recurrent
 * state, latent rows. It knows what every byte of every group must be, and checks all that its sequences keep. */
#ifndef QUIRE_TESTS_GROUP_WORLD_H
#define QUIRE_TESTS_GROUP_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "quire/quire.h"

typedef struct world_options {
    uint64_t seed;
    const char *device; /* NULL: "sim:<seed>" */
    uint32_t block_tokens, device_blocks, host_blocks;
    uint32_t operations;
    bool fail_copies;  /* some offloads and restores fail */
    bool late_copies;  /* copies that have not ended at the first look are given up, and end later */
    bool corrupt_host; /* some host blocks change behind the cache's back */
    bool two_streams;  /* steps alternate between two streams */
    uint32_t window, rollback; /* a group beside the first whose layers see so many tokens; 0: none */
    bool state, latent;        /* a group with a recurrent state; one of latent rows */
    const char *policy;        /* NULL: the library's default */
    quire_offload offload;     /* 0: write-through */
    uint32_t book_holes;
} world_options;

typedef struct world_result {
    char failure[256]; /* empty: all bytes were right */
    uint64_t steps, tokens, restored_tokens, evictions, copies_on_write, restore_failures, checksum_failures,
        deduplicated, offload_failures, late;
    uint64_t given_back, side_restores, side_evictions; /* of groups beside the first */
    uint64_t refused;                                   /* truncations */
    uint64_t offloads, missed, declined;                /* of the first group */
} world_result;

/* Runs it to the end or to the first wrong byte. Returns true when nothing was wrong. */
bool world_run(const world_options *options, world_result *result);

#endif
