/* ceilings_batch.c: what a tier's copies reach, by size of a piece and number of pieces.
 *
 * Both sides hold their pieces in a random order, as a cache's blocks lie. A body is several batches, each of other
 * pieces, until it has moved LEAST_WORK (on the host all the memory, which is more than its caches hold): so a small
 * batch includes what its call costs. Bodies are called, not recorded: batches cannot be. */
#include "ceilings_batch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "ceilings_link.h"
#ifdef QUIRE_HAVE_CUDA
#include "batch_cuda.h"
#endif

enum {
    LEAST_WORK = 8 << 20, /* of a GPU */
    KIB = 1 << 10,
    MIB = 1 << 20,
    KERNEL_MOST = 2 << 20, /* bytes of a piece that the kernel is tried with */
    VERDICT_COUNT = 256    /* pieces of the batches that the verdict looks at */
};

static const size_t sizes[] = {4 * KIB,   8 * KIB,   16 * KIB, 24 * KIB, 32 * KIB, 64 * KIB,
                               128 * KIB, 256 * KIB, MIB,      2 * MIB,  8 * MIB};
static const size_t counts[] = {16, 256, 4096};
enum { SIZES = sizeof sizes / sizeof sizes[0], COUNTS = sizeof counts / sizeof counts[0] };

typedef struct batch {
    bench_bed *bed;
    unsigned char *far, *near; /* host memory and the device's; on the host two parts of its memory */
    size_t room;               /* bytes of each */
    size_t piece, count, batches; /* a body's batches of `count` pieces each, as the arrays hold them */
    void **to;
    const void **from;
    size_t *bytes;
    int64_t *offsets; /* on the device, of the kernel's pieces */
    bool inwards;     /* far to near */
    bench_point points[SIZES];
    size_t point_count;
} batch;

static void shuffle(batch *batch, size_t *order, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t other = (size_t)(quire__random(&batch->bed->seed) % (i + 1));
        order[i] = order[other];
        order[other] = i;
    }
}

/* The pieces of a body; the kernel takes the same places on the device and the far side in order. */
static void lay_out(batch *batch, size_t piece, size_t count, bool inwards)
{
    size_t work = bench_bed_on_gpu(batch->bed) ? LEAST_WORK : batch->room;

    batch->piece = piece;
    batch->count = count;
    batch->inwards = inwards;
    batch->batches = work > piece * count ? work / (piece * count) : 1;
    size_t all = batch->batches * count;
    size_t *near = bench_alloc(all * sizeof *near), *far = bench_alloc(all * sizeof *far);
    int64_t *offsets = bench_alloc(all * sizeof *offsets);
    shuffle(batch, near, all);
    shuffle(batch, far, all);
    for (size_t i = 0; i < all; i++) {
        batch->to[i] = inwards ? batch->near + near[i] * piece : batch->far + far[i] * piece;
        batch->from[i] = inwards ? batch->far + far[i] * piece : batch->near + near[i] * piece;
        batch->bytes[i] = piece;
        offsets[i] = (int64_t)(near[i] * piece);
    }
    bench_bed_move(batch->bed, batch->offsets, offsets, all * sizeof *offsets, true);
    free(offsets);
    free(far);
    free(near);
}

/* One batch of the body, as copy_one sees it. */
typedef struct part {
    const batch *batch;
    size_t first;
} part;

static void copy_one(void *arg, size_t index)
{
    const part *part = arg;
    size_t at = part->first + index;

    memcpy(part->batch->to[at], part->batch->from[at], part->batch->bytes[at]);
}

static void together_body(void *arg)
{
    batch *batch = arg;

    for (size_t first = 0; first < batch->batches * batch->count; first += batch->count) {
#ifdef QUIRE_HAVE_CUDA
        if (bench_bed_on_gpu(batch->bed)) {
            bench_batch_copy(batch->to + first, batch->from + first, batch->bytes + first, batch->count,
                             batch->bed->stream);
            continue;
        }
#endif
        part part = {batch, first};
        quire__parallel_for(batch->bed->parallel, batch->count, copy_one, &part);
    }
    bench_bed_finish(batch->bed);
}

static void each_body(void *arg)
{
    batch *batch = arg;
    size_t all = batch->batches * batch->count;

#ifdef QUIRE_HAVE_CUDA
    if (bench_bed_on_gpu(batch->bed)) {
        bench_batch_copy_each(batch->to, batch->from, batch->bytes, all, batch->bed->stream);
        bench_bed_finish(batch->bed);
        return;
    }
#endif
    part part = {batch, 0};
    for (size_t i = 0; i < all; i++)
        copy_one(&part, i);
}

static void kernel_body(void *arg)
{
    batch *batch = arg;

    for (size_t first = 0; first < batch->batches * batch->count; first += batch->count) {
        quire__kernel_args args = {.pieces = {.arena = batch->near,
                                              .staging = batch->far + first * batch->piece,
                                              .offsets = batch->offsets + first,
                                              .piece_bytes = (int64_t)batch->piece,
                                              .count = (int32_t)batch->count}};
        bench_must(quire__device_launch(batch->bed->device, batch->bed->stream,
                                        batch->inwards ? QUIRE__KERNEL_SCATTER : QUIRE__KERNEL_GATHER, &args));
    }
    bench_bed_finish(batch->bed);
}

/* The first and the last piece of a body have arrived. */
static void check(batch *batch)
{
    bench_bed *bed = batch->bed;
    unsigned char *from = bench_alloc(batch->piece), *to = bench_alloc(batch->piece);
    size_t ends[] = {0, batch->batches * batch->count - 1};

    for (size_t i = 0; i < 2; i++) {
        memset(to, 0x5a, batch->piece);
        bench_bed_move(bed, batch->to[ends[i]], to, batch->piece, true);
    }
    together_body(batch);
    for (size_t i = 0; i < 2; i++) {
        bench_bed_move(bed, from, batch->from[ends[i]], batch->piece, false);
        bench_bed_move(bed, to, batch->to[ends[i]], batch->piece, false);
        if (memcmp(from, to, batch->piece) != 0)
            bench_die("piece %zu of batches of %zu x %zu bytes did not arrive", ends[i], batch->count, batch->piece);
    }
    free(to);
    free(from);
}

static void report(batch *batch, const char *way, const bench_racer *racer, const bench_racer *limit,
                   const bench_racer *each)
{
    double counted = bench_bed_on_gpu(batch->bed) ? 1 : 2, bytes = counted * (double)(batch->piece * batch->count);
    char name[40], size[40], count[16];

    snprintf(name, sizeof name, "%s%s", way,
             !bench_bed_on_gpu(batch->bed) ? "" : batch->inwards ? " from the host" : " to the host");
    snprintf(size, sizeof size, "%s x %zu KiB", bench_count(count, sizeof count, batch->count), batch->piece / KIB);
    bench_figure figure = bench_bed_figure(name, size, racer->sample, bytes, limit->sample, bytes, "one large copy");
    if (each != NULL) {
        figure.baseline = bench_rate(each->sample, bytes * 1e-9);
        figure.baseline_name = bench_bed_on_gpu(batch->bed) ? "a call each" : "one thread";
    }
    bench_report_figure(batch->bed->report, &figure);
}

static void run(batch *batch, bool batches)
{
    bool gpu = bench_bed_on_gpu(batch->bed), kernel = gpu && batch->piece <= KERNEL_MOST;
    double turns = (double)batch->batches;
    bench_copy large = {batch->bed, batch->inwards ? batch->near : batch->far,
                        batch->inwards ? batch->far : batch->near, batch->batches * batch->piece * batch->count};
    bench_racer racers[] = {bench_enter(NULL, bench_copy_body, NULL, &large, turns),
                            bench_enter(NULL, each_body, NULL, batch, turns),
                            bench_enter(NULL, batches ? together_body : each_body, NULL, batch, turns),
                            bench_enter(NULL, kernel_body, NULL, batch, turns)};

    bench_bed_race_calls(batch->bed, racers, kernel ? 4 : 3);
    report(batch, batches ? "batch" : "a call each", &racers[2], &racers[0], batches ? &racers[1] : NULL);
    if (kernel)
        report(batch, "kernel", &racers[3], &racers[0], NULL);
    if (batches && batch->inwards && batch->count == VERDICT_COUNT) {
        double bytes = (double)(batch->piece * batch->count) * 1e-9;
        batch->points[batch->point_count++] = (bench_point){batch->piece, bytes / racers[2].sample.median,
                                                            bytes / racers[0].sample.median};
    }
}

static void open_batch(batch *batch)
{
    bench_bed *bed = batch->bed;

    batch->room = (size_t)(bench_bed_on_gpu(bed) ? 512 : 64) << 20;
    size_t most = batch->room / sizes[0];
    batch->near = bench_bed_take(bed, QUIRE__MEMORY_DEVICE, batch->room);
    batch->far = bench_bed_take(bed, QUIRE__MEMORY_PINNED, batch->room);
    batch->offsets = bench_bed_take(bed, QUIRE__MEMORY_DEVICE, most * sizeof *batch->offsets);
    batch->to = bench_alloc(most * sizeof *batch->to);
    batch->from = bench_alloc(most * sizeof *batch->from);
    batch->bytes = bench_alloc(most * sizeof *batch->bytes);
    bench_ceilings_fill(bed, batch->near, batch->room);
    bench_ceilings_fill(bed, batch->far, batch->room);
}

static void close_batch(batch *batch)
{
    free(batch->bytes);
    free(batch->from);
    free(batch->to);
    bench_bed_give(batch->bed, QUIRE__MEMORY_DEVICE, batch->offsets);
    bench_bed_give(batch->bed, QUIRE__MEMORY_PINNED, batch->far);
    bench_bed_give(batch->bed, QUIRE__MEMORY_DEVICE, batch->near);
}

bench_verdict bench_ceilings_batch(bench_bed *bed)
{
    batch batch = {.bed = bed};
    bool batches = true;

#ifdef QUIRE_HAVE_CUDA
    const char *why;
    if (bench_bed_on_gpu(bed) && !bench_batch_find(&why)) {
        batches = false;
        bench_report_note(bed->report, "No batches: %s; the figures are of a call each.", why);
    }
#endif
    open_batch(&batch);
    for (int direction = 0; direction < (bench_bed_on_gpu(bed) ? 2 : 1); direction++)
        for (size_t c = 0; c < COUNTS; c++)
            for (size_t s = 0; s < SIZES; s++) {
                if (sizes[s] * counts[c] > batch.room)
                    continue;
                lay_out(&batch, sizes[s], counts[c], direction == 0);
                if (batches)
                    check(&batch);
                run(&batch, batches);
            }
    close_batch(&batch);
    return bench_verdict_batches(batch.points, batch.point_count);
}
