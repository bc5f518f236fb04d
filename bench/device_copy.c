#include "device_copy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "device/host_ops.h"

enum {
    MOST_AT_ONCE = 64,
    LEAST_BYTES = 128 << 20 /* on each side: more than any cache near the device holds */
};

typedef struct race {
    bench_bed *bed;
    unsigned char *arena;
    quire__block_pair *pairs; /* on the device */
    uint32_t blocks, at_once; /* half of the blocks are sources */
    int32_t *tokens;          /* on the device: half of each block's; NULL: whole blocks */
} race;

static void block_copy_body(void *arg)
{
    race *race = arg;

    const quire_group *group = &race->bed->group;
    int64_t token_bytes = (int64_t)(group->head_dim * quire__dtype_bytes(race->bed->cache.dtype));

    for (uint32_t done = 0; done < race->blocks / 2; done += race->at_once) {
        quire__kernel_args args = {.block_copy = {.arena = race->arena,
                                                  .block_stride = (int64_t)race->bed->block_bytes,
                                                  .block_bytes = (int64_t)race->bed->block_bytes,
                                                  .pairs = race->pairs + done,
                                                  .count = (int32_t)race->at_once,
                                                  .tokens = race->tokens,
                                                  .row_stride = token_bytes * race->bed->cache.block_tokens,
                                                  .token_bytes = token_bytes,
                                                  .rows = (int32_t)(2 * group->layers * group->kv_heads),
                                                  .most_tokens = (int32_t)race->bed->cache.block_tokens / 2}};
        bench_must(quire__device_launch(race->bed->device, race->bed->stream, QUIRE__KERNEL_BLOCK_COPY, &args));
    }
    bench_bed_finish(race->bed);
}

/* Destinations in a random order: a cache's free blocks are no run. */
static void make_pairs(race *race)
{
    uint32_t half = race->blocks / 2;
    quire__block_pair *pairs = bench_alloc(half * sizeof *pairs);

    for (uint32_t i = 0; i < half; i++) {
        uint32_t other = (uint32_t)(quire__random(&race->bed->seed) % (i + 1));
        pairs[i].source = (int32_t)i;
        pairs[i].destination = pairs[other].destination;
        pairs[other].destination = (int32_t)(half + i);
    }
    race->pairs = bench_bed_take(race->bed, QUIRE__MEMORY_DEVICE, half * sizeof *pairs);
    bench_bed_move(race->bed, race->pairs, pairs, half * sizeof *pairs, true);
    free(pairs);
}

static void check(const race *race, const unsigned char *expected)
{
    bench_bed *bed = race->bed;
    uint32_t half = race->blocks / 2;
    quire__block_pair *pairs = bench_alloc(half * sizeof *pairs);
    unsigned char *block = bench_alloc(bed->block_bytes);

    bench_bed_move(bed, pairs, race->pairs, half * sizeof *pairs, false);
    for (uint32_t i = 0; i < half; i++) {
        bench_bed_move(bed, block, race->arena + (size_t)pairs[i].destination * bed->block_bytes, bed->block_bytes,
                       false);
        if (memcmp(block, expected + (size_t)pairs[i].source * bed->block_bytes, bed->block_bytes) != 0)
            bench_die("block copy: block %d is no copy of block %d", pairs[i].destination, pairs[i].source);
    }
    free(block);
    free(pairs);
}

/* Blocks, whole or half of each, against a copy of as many bytes. */
static void run_blocks(race *race, const char *name, bench_copy *copy, size_t bytes)
{
    static const uint32_t at_once[] = {1, 8, MOST_AT_ONCE};
    bench_bed *bed = race->bed;
    char size[40];

    for (size_t i = 0; i < sizeof at_once / sizeof at_once[0]; i++) {
        race->at_once = at_once[i];
        bench_racer racers[] = {bench_enter(NULL, block_copy_body, NULL, race, 1),
                                bench_enter(NULL, bench_copy_body, NULL, copy, 1)};
        bench_bed_race(bed, racers, 2);
        snprintf(size, sizeof size, "%u x %.2f MiB", at_once[i], (double)bed->block_bytes / (1 << 20));
        bench_figure figure = bench_bed_figure(name, size, racers[0].sample, 2.0 * (double)bytes, racers[1].sample,
                                               2.0 * (double)copy->bytes, "copy within the device");
        figure.launch = bench_scale(racers[0].sample, 2e6 * at_once[i] / race->blocks);
        bench_report_figure(bed->report, &figure);
    }
}

/* ---- pieces -------------------------------------------------------------------------------------------------- */

typedef struct piece_race {
    bench_bed *bed;
    quire__pieces_args args;
    quire__kernel kernel;
} piece_race;

static void pieces_body(void *arg)
{
    piece_race *race = arg;
    quire__kernel_args args = {.pieces = race->args};

    bench_must(quire__device_launch(race->bed->device, race->bed->stream, race->kernel, &args));
    bench_bed_finish(race->bed);
}

/* Every piece of `bytes` of the arena, in a random order, to staging behind it and back. */
static void run_pieces(bench_bed *bed, unsigned char *arena, size_t bytes, bench_copy *copy)
{
    static const size_t sizes[] = {512, 4096, 65536};
    char size[40];

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        size_t count = bytes / sizes[i];
        int64_t *offsets = bench_alloc(count * sizeof *offsets);
        for (size_t j = 0; j < count; j++) {
            size_t other = (size_t)(quire__random(&bed->seed) % (j + 1));
            offsets[j] = offsets[other];
            offsets[other] = (int64_t)(j * sizes[i]);
        }
        void *on_device = bench_bed_take(bed, QUIRE__MEMORY_DEVICE, count * sizeof *offsets);
        bench_bed_move(bed, on_device, offsets, count * sizeof *offsets, true);
        free(offsets);
        piece_race race = {bed, {arena, arena + bytes, on_device, (int64_t)sizes[i], (int32_t)count}, 0};
        for (int scatter = 0; scatter < 2; scatter++) {
            race.kernel = scatter ? QUIRE__KERNEL_SCATTER : QUIRE__KERNEL_GATHER;
            bench_racer racers[] = {bench_enter(NULL, pieces_body, NULL, &race, 1),
                                    bench_enter(NULL, bench_copy_body, NULL, copy, 1)};
            bench_bed_race(bed, racers, 2);
            snprintf(size, sizeof size, "pieces of %.1f KiB", (double)sizes[i] / 1024);
            bench_bed_report(bed, scatter ? "scatter" : "gather", size, racers[0].sample, 2.0 * (double)bytes,
                             racers[1].sample, 2.0 * (double)copy->bytes, "copy within the device");
        }
        bench_bed_give(bed, QUIRE__MEMORY_DEVICE, on_device);
    }
}

/* What was gathered and scattered back is what it was. */
static void check_pieces(bench_bed *bed, unsigned char *arena, size_t bytes, const unsigned char *expected)
{
    unsigned char *block = bench_alloc(bed->block_bytes);

    for (size_t at = 0; at < bytes; at += bed->block_bytes) {
        bench_bed_move(bed, block, arena + at, bed->block_bytes, false);
        if (memcmp(block, expected + at, bed->block_bytes) != 0)
            bench_die("gather and scatter: byte %zu or one near it has changed", at);
    }
    free(block);
}

void bench_device_copy(bench_bed *bed)
{
    uint32_t half = (uint32_t)((LEAST_BYTES + bed->block_bytes - 1) / bed->block_bytes);
    int32_t tokens[MOST_AT_ONCE];
    race race = {.bed = bed};

    half = (half + MOST_AT_ONCE - 1) / MOST_AT_ONCE * MOST_AT_ONCE;
    race.blocks = 2 * half;
    size_t bytes = half * bed->block_bytes;
    unsigned char *expected = bench_alloc(bytes);
    for (size_t i = 0; i < bytes / sizeof(uint64_t); i++)
        ((uint64_t *)(void *)expected)[i] = quire__random(&bed->seed);
    race.arena = bench_bed_take(bed, QUIRE__MEMORY_DEVICE, 2 * bytes);
    bench_bed_move(bed, race.arena, expected, bytes, true);
    make_pairs(&race);
    race.at_once = MOST_AT_ONCE;
    block_copy_body(&race);
    check(&race, expected);

    bench_copy copy = {bed, race.arena + bytes, race.arena, bytes};
    run_blocks(&race, "block copy", &copy, bytes);
    if (bed->cache.block_tokens > 1) {
        for (int i = 0; i < MOST_AT_ONCE; i++)
            tokens[i] = (int32_t)bed->cache.block_tokens / 2;
        race.tokens = bench_bed_take(bed, QUIRE__MEMORY_DEVICE, sizeof tokens);
        bench_bed_move(bed, race.tokens, tokens, sizeof tokens, true);
        run_blocks(&race, "block copy, first half", &copy, bytes / 2);
        bench_bed_give(bed, QUIRE__MEMORY_DEVICE, race.tokens);
    }
    copy.to = bench_bed_take(bed, QUIRE__MEMORY_DEVICE, bytes); /* not the staging memory, which must last */
    bench_copy_body(&copy);
    run_pieces(bed, race.arena, bytes / 65536 * 65536, &copy);
    bench_bed_give(bed, QUIRE__MEMORY_DEVICE, copy.to);
    check_pieces(bed, race.arena, bytes, expected);
    free(expected);
    bench_bed_give(bed, QUIRE__MEMORY_DEVICE, race.pairs);
    bench_bed_give(bed, QUIRE__MEMORY_DEVICE, race.arena);
}
