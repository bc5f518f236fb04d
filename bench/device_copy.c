#include "device_copy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

enum {
    MOST_AT_ONCE = 64,
    LEAST_BYTES = 128 << 20 /* on each side: more than any cache near the device holds */
};

typedef struct race {
    bench_bed *bed;
    unsigned char *arena;
    quire__block_pair *pairs; /* on the device */
    uint32_t blocks, at_once; /* half of the blocks are sources */
} race;

static void block_copy_body(void *arg)
{
    race *race = arg;

    for (uint32_t done = 0; done < race->blocks / 2; done += race->at_once) {
        quire__kernel_args args = {.block_copy = {.arena = race->arena,
                                                  .block_stride = (int64_t)race->bed->block_bytes,
                                                  .block_bytes = (int64_t)race->bed->block_bytes,
                                                  .pairs = race->pairs + done,
                                                  .count = (int32_t)race->at_once}};
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

void bench_device_copy(bench_bed *bed)
{
    static const uint32_t at_once[] = {1, 8, MOST_AT_ONCE};
    uint32_t half = (uint32_t)((LEAST_BYTES + bed->block_bytes - 1) / bed->block_bytes);
    race race = {.bed = bed};
    char size[40];

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
    free(expected);

    bench_copy copy = {bed, race.arena + bytes, race.arena, bytes};
    for (size_t i = 0; i < sizeof at_once / sizeof at_once[0]; i++) {
        race.at_once = at_once[i];
        bench_racer racers[] = {bench_enter(NULL, block_copy_body, NULL, &race, 1),
                                bench_enter(NULL, bench_copy_body, NULL, &copy, 1)};
        bench_bed_race(bed, racers, 2);
        snprintf(size, sizeof size, "%u x %.2f MiB", at_once[i], (double)bed->block_bytes / (1 << 20));
        bench_figure figure = bench_bed_figure("block copy", size, racers[0].sample, 2.0 * (double)bytes,
                                               racers[1].sample, 2.0 * (double)bytes, "copy within the device");
        figure.launch = bench_scale(racers[0].sample, 1e6 * at_once[i] / half);
        bench_report_figure(bed->report, &figure);
    }
    bench_bed_give(bed, QUIRE__MEMORY_DEVICE, race.pairs);
    bench_bed_give(bed, QUIRE__MEMORY_DEVICE, race.arena);
}
