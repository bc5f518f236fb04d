/* world.h: a random inference server on the sim device that knows what every byte must be.
 *
 * The K and V of a token are a function of its domain and of all tokens up to it, as in a real model. Each step appends
 * them with quire_append, reads them back twice on the step's stream - through quire_attend and byte by byte with the
 * gather kernel - and compares with what that function says. Streams are synchronised only now and then, so the
 * scheduler of the sim device has room for every legal order. A test links world.c and one model, world_plain.c or
 * world_groups.c. */
#ifndef QUIRE_TESTS_WORLD_H
#define QUIRE_TESTS_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "quire/quire.h"

typedef struct world_options {
    uint64_t seed;
    const char *device; /* NULL: "sim:<seed>" */
    uint32_t block_tokens, device_blocks, host_blocks;
    uint32_t operations;
    const char *policy; /* NULL: the library's default */
    quire_offload offload; /* 0: write-through */
    bool fail_copies;  /* some offloads and restores fail */
    bool late_copies;  /* copies that have not ended at the first look are given up, and end later */
    bool corrupt_host; /* some host blocks change behind the cache's back */
    bool two_streams;  /* steps alternate between two streams */
    uint32_t restore_parts; /* 0: 1 */
    bool packed, gathered; /* packed: in a world of WORLD_BF16 */
    bool noisy;            /* some tokens' K and V cannot be packed */
    uint32_t staging_blocks; /* that go in a staging buffer; 0: as many as it has room for */
    bool elastic;      /* the arena changes its size, up to twice device_blocks */
    /* Of groups (world_groups.c): */
    uint32_t window, rollback; /* a group beside the first whose layers see so many tokens; 0: none */
    bool state, latent;        /* a group with a recurrent state; one of latent rows */
    uint32_t book_holes, mover_holes, cache_holes;
    bool staging_hole;
} world_options;

typedef struct world_result {
    char failure[256]; /* empty: all bytes were right */
    uint64_t steps, tokens, restored_tokens, evictions, copies_on_write, restore_failures, checksum_failures,
        deduplicated, offload_failures, late, resizes, ahead, lost;
    uint64_t offloads, missed, declined;                /* of the first group */
    uint64_t given_back, side_restores, side_evictions; /* of groups beside the first */
    uint64_t refused;                                   /* truncations */
} world_result;

/* Runs it to the end or to the first wrong byte. Returns true when nothing was wrong. */
bool world_run(const world_options *options, world_result *result);

#endif
