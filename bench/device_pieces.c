/* device_pieces.c: small pieces at random places of an arena, side by side into a staging buffer and back. */
#include "device_pieces.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

enum { BYTES = 128 << 20 }; /* on each side: more than any cache near the device holds */

typedef struct race {
    bench_bed *bed;
    unsigned char *arena, *staging;
    int64_t *offsets, *mirror; /* on the device, and as the CPU sees them */
    size_t piece, count;
    quire__kernel kernel;
} race;

static void pieces_body(void *arg)
{
    race *race = arg;
    quire__kernel_args args = {.pieces = {.arena = race->arena,
                                          .staging = race->staging,
                                          .offsets = race->offsets,
                                          .piece_bytes = (int64_t)race->piece,
                                          .count = (int32_t)race->count}};

    bench_must(quire__device_launch(race->bed->device, race->bed->stream, race->kernel, &args));
    bench_bed_finish(race->bed);
}

static void lay_out(race *race, size_t piece)
{
    race->piece = piece;
    race->count = BYTES / piece;
    for (size_t i = 0; i < race->count; i++) {
        size_t other = (size_t)(quire__random(&race->bed->seed) % (i + 1));
        race->mirror[i] = race->mirror[other];
        race->mirror[other] = (int64_t)(i * piece);
    }
    bench_bed_move(race->bed, race->offsets, race->mirror, race->count * sizeof *race->offsets, true);
}

/* After a gather, and so before the scatter that would hide a fault, staging holds the arena's pieces in order. */
static void check(race *race)
{
    unsigned char *piece = bench_alloc(race->piece), *staged = bench_alloc(race->piece);

    race->kernel = QUIRE__KERNEL_GATHER;
    pieces_body(race);
    for (size_t i = 0; i < race->count; i += race->count / 64) {
        bench_bed_move(race->bed, piece, race->arena + race->mirror[i], race->piece, false);
        bench_bed_move(race->bed, staged, race->staging + i * race->piece, race->piece, false);
        if (memcmp(piece, staged, race->piece) != 0)
            bench_die("gather: piece %zu of %zu bytes is not the arena's", i, race->piece);
    }
    free(staged);
    free(piece);
}

static void run(race *race, quire__kernel kernel, const char *name)
{
    bench_copy copy = {race->bed, race->staging, race->arena, BYTES};
    bench_racer racers[] = {bench_enter(NULL, pieces_body, NULL, race, 1),
                            bench_enter(NULL, bench_copy_body, NULL, &copy, 1)};
    char size[40];

    race->kernel = kernel;
    bench_bed_race(race->bed, racers, 2);
    snprintf(size, sizeof size, "%zu x %zu KiB", race->count, race->piece >> 10);
    bench_bed_report(race->bed, name, size, racers[0].sample, 2.0 * BYTES, racers[1].sample, 2.0 * BYTES,
                     "copy within the device");
}

void bench_device_pieces(bench_bed *bed)
{
    static const size_t sizes[] = {4 << 10, 16 << 10, 64 << 10};
    race race = {.bed = bed};
    void *mirror;

    race.arena = bench_bed_random(bed, QUIRE_DTYPE_F32, BYTES / sizeof(float), &mirror);
    free(mirror);
    race.staging = bench_bed_take(bed, QUIRE__MEMORY_DEVICE, BYTES);
    race.mirror = bench_alloc(BYTES / sizes[0] * sizeof *race.mirror);
    race.offsets = bench_bed_take(bed, QUIRE__MEMORY_DEVICE, BYTES / sizes[0] * sizeof *race.offsets);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        lay_out(&race, sizes[i]);
        check(&race);
        run(&race, QUIRE__KERNEL_GATHER, "gather");
        lay_out(&race, sizes[i]);
        run(&race, QUIRE__KERNEL_SCATTER, "scatter");
    }
    bench_bed_give(bed, QUIRE__MEMORY_DEVICE, race.offsets);
    free(race.mirror);
    bench_bed_give(bed, QUIRE__MEMORY_DEVICE, race.staging);
    bench_bed_give(bed, QUIRE__MEMORY_DEVICE, race.arena);
}
