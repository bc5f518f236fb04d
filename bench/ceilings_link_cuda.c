/* ceilings_link_cuda.c: one large piece, by whatever of a GPU may move it: its copy engines (plain asynchronous copies)
 * and its multiprocessors (gpu_kernels.cu), which reach host memory by loads and stores. */
#include "ceilings_link_cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ceilings_link.h"
#include "gpu_kernels.h"
#ifdef BENCH_CUBLAS
#include "matmul_cuda.h"
#endif

enum {
    LARGE = 512 << 20, /* of what the copy engines move */
    SMALL = 64 << 20,  /* of what the multiprocessors move across the link */
    PIECE = 1 << 20    /* of a check */
};

static void report(bench_bed *bed, const char *name, size_t bytes, const bench_racer *racer, double counted,
                   bench_sample limit, double limit_counted, const char *limit_name)
{
    char size[40];

    snprintf(size, sizeof size, "%zu MiB", bytes >> 20);
    bench_bed_report(bed, name, size, racer->sample, counted, limit, limit_counted, limit_name);
}

static const unsigned thread_blocks[] = {1, 4, 16, 64, 132, 528, 2112};
enum { GRIDS = sizeof thread_blocks / sizeof thread_blocks[0] };

/* Both directions at once: `back` on a stream of its own, which forks from the bed's and joins it again. */
typedef struct both_ways {
    bench_copy in, back;
    quire__stream *stream;
    quire__event *fork, *join;
} both_ways;

static void both_body(void *arg)
{
    both_ways *both = arg;
    bench_bed *bed = both->in.bed;
    quire__copy in = {both->in.to, both->in.from, both->in.bytes};
    quire__copy back = {both->back.to, both->back.from, both->back.bytes};

    bench_must(quire__device_event_record(bed->device, both->fork, bed->stream));
    bench_must(quire__device_stream_wait(bed->device, both->stream, both->fork));
    bench_must(quire__device_copy(bed->device, bed->stream, &in, 1));
    bench_must(quire__device_copy(bed->device, both->stream, &back, 1));
    bench_must(quire__device_event_record(bed->device, both->join, both->stream));
    bench_must(quire__device_stream_wait(bed->device, bed->stream, both->join));
    bench_bed_finish(bed);
}

typedef struct kernel_copy {
    bench_copy copy;
    unsigned thread_blocks;
} kernel_copy;

static void kernel_copy_body(void *arg)
{
    kernel_copy *kernel = arg;
    bench_copy *copy = &kernel->copy;

    if (bench_gpu_copy(copy->to, copy->from, copy->bytes, kernel->thread_blocks, copy->bed->stream) != 0)
        bench_die("the launch of a copy by %u thread blocks failed", kernel->thread_blocks);
    bench_bed_finish(copy->bed);
}

static void kernel_copy_check(kernel_copy *kernel)
{
    bench_bed *bed = kernel->copy.bed;
    unsigned char *from = bench_alloc(PIECE), *to = bench_alloc(PIECE);
    size_t at = kernel->copy.bytes - PIECE;

    kernel_copy_body(kernel);
    bench_bed_move(bed, from, (const unsigned char *)kernel->copy.from + at, PIECE, false);
    bench_bed_move(bed, to, (unsigned char *)kernel->copy.to + at, PIECE, false);
    if (memcmp(from, to, PIECE) != 0)
        bench_die("a copy by %u thread blocks is no copy", kernel->thread_blocks);
    free(to);
    free(from);
}

/* Within the device; the limit is what its memory's clock and width say. */
static void device_copies(bench_bed *bed, unsigned char *memory)
{
    bench_copy plain = {bed, memory + LARGE, memory, LARGE};
    kernel_copy kernel = {plain, 16 * (unsigned)bed->gpu.multiprocessors};
    double counted = 2.0 * LARGE;

    kernel_copy_check(&kernel);
    bench_racer racers[] = {bench_enter(NULL, bench_copy_body, NULL, &plain, 1),
                            bench_enter(NULL, kernel_copy_body, NULL, &kernel, 1)};
    bench_bed_race(bed, racers, 2);
    bench_sample memory_rate = {.median = counted * 1e-9 / bed->gpu.memory_rate, .runs = 1};
    memory_rate.least = memory_rate.most = memory_rate.median;
    bool told = bed->gpu.memory_rate > 0;
    report(bed, "copy within the device", LARGE, &racers[0], counted, memory_rate, counted,
           told ? "the memory's clock times its width" : NULL);
    report(bed, "the same by a kernel", LARGE, &racers[1], counted, racers[0].sample, counted,
           "copy within the device");
}

/* Plain copies each way and both at once. */
static void link_copies(bench_bed *bed, unsigned char *memory, unsigned char *host)
{
    bench_copy in = {bed, memory, host, LARGE}, back = {bed, host + LARGE, memory + LARGE, LARGE};
    both_ways both = {.in = in, .back = back};

    bench_must(quire__device_stream_open(bed->device, &both.stream));
    bench_must(quire__device_event_open(bed->device, &both.fork));
    bench_must(quire__device_event_open(bed->device, &both.join));
    bench_racer racers[] = {bench_enter(NULL, bench_copy_body, NULL, &in, 1),
                            bench_enter(NULL, bench_copy_body, NULL, &back, 1),
                            bench_enter(NULL, both_body, NULL, &both, 1)};
    bench_bed_race(bed, racers, 3);
    bench_sample none = {0};
    report(bed, "copy from the host", LARGE, &racers[0], LARGE, none, 1, NULL);
    report(bed, "copy to the host", LARGE, &racers[1], LARGE, none, 1, NULL);
    bench_sample sum = {.median = racers[0].sample.median + racers[1].sample.median,
                        .least = racers[0].sample.least + racers[1].sample.least,
                        .most = racers[0].sample.most + racers[1].sample.most,
                        .runs = racers[0].sample.runs};
    /* alone, one after the other, 2 * LARGE would take the sum; at best both at once take half of it */
    report(bed, "copies both ways at once", LARGE, &racers[2], 2.0 * LARGE, sum, 4.0 * LARGE,
           "both links at their rate alone");
    quire__device_event_close(bed->device, both.join);
    quire__device_event_close(bed->device, both.fork);
    quire__device_stream_close(bed->device, both.stream);
}

/* Loads from host memory, or stores to it, by ever more thread blocks; rates[] in GB/s. */
static void kernel_link(bench_bed *bed, const char *name, void *to, const void *from, const char *limit, double *rates)
{
    bench_copy plain = {bed, to, from, SMALL};
    kernel_copy kernels[GRIDS];
    bench_racer racers[GRIDS + 1] = {bench_enter(NULL, bench_copy_body, NULL, &plain, 1)};
    char text[40];

    for (size_t i = 0; i < GRIDS; i++) {
        kernels[i] = (kernel_copy){plain, thread_blocks[i]};
        racers[i + 1] = bench_enter(NULL, kernel_copy_body, NULL, &kernels[i], 1);
    }
    kernel_copy_check(&kernels[GRIDS - 1]);
    bench_bed_race(bed, racers, GRIDS + 1);
    for (size_t i = 0; i < GRIDS; i++) {
        snprintf(text, sizeof text, "%u thread blocks", thread_blocks[i]);
        bench_bed_report(bed, name, text, racers[i + 1].sample, SMALL, racers[0].sample, SMALL, limit);
        rates[i] = SMALL * 1e-9 / racers[i + 1].sample.median;
    }
}

#ifdef BENCH_CUBLAS
static void matrix_product(bench_bed *bed)
{
    bench_figure figure = {.name = "bf16 matrix product", .unit = "TFLOP/s", .rate = true};
    bench_matmul matmul;

    bench_matmul_open(&matmul, bed);
    bench_racer racer = bench_enter(NULL, bench_matmul_body, NULL, &matmul, 1);
    bench_bed_race_calls(bed, &racer, 1);
    bench_matmul_close(&matmul);
    snprintf(figure.size, sizeof figure.size, "%d x %d x %d", BENCH_MATMUL_SIDE, BENCH_MATMUL_SIDE,
             BENCH_MATMUL_SIDE);
    figure.value = bench_rate(racer.sample, bench_matmul_work());
    bench_report_figure(bed->report, &figure);
}
#endif

bench_verdict bench_ceilings_link_cuda(bench_bed *bed)
{
    double rates[GRIDS];
    unsigned char *memory = bench_bed_take(bed, QUIRE__MEMORY_DEVICE, 2 * (size_t)LARGE);
    unsigned char *host = bench_bed_take(bed, QUIRE__MEMORY_PINNED, 2 * (size_t)LARGE);

    bench_ceilings_fill(bed, memory, 2 * (size_t)LARGE);
    bench_ceilings_fill(bed, host, 2 * (size_t)LARGE);
#ifdef BENCH_CUBLAS
    matrix_product(bed);
#endif
    device_copies(bed, memory);
    link_copies(bed, memory, host);
    kernel_link(bed, "loads from the host", memory, host, "copy from the host", rates);
    kernel_link(bed, "stores to the host", host, memory, "copy to the host", rates);
    bench_bed_give(bed, QUIRE__MEMORY_PINNED, host);
    bench_bed_give(bed, QUIRE__MEMORY_DEVICE, memory);
    return bench_verdict_stores(rates, GRIDS);
}
