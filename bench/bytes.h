/* bytes.h: the device under test and plain copies on it, the limit of everything that moves bytes.
 *
 * Within the device a copy counts twice, as what is read and what is written, and so do the figures beside it. Between
 * the device and host memory it counts once.
 *
 * On a GPU, work that the CPU only enqueues is timed by the GPU: bench_bed_race. A body for it enqueues everything on
 * bed->stream (a cache's step: quire_step_begin(cache, bench_bed_stream(bed), ...)) and ends with bench_bed_finish,
 * which waits only where nobody else does. Such a body is recorded into a graph and must do the same work each time.
 * What includes the CPU's part, such as a match and its restore, takes bench_race and the CPU's clock. */
#ifndef BENCH_BYTES_H
#define BENCH_BYTES_H

#include "clock_cuda.h"
#include "device/device.h"
#include "device/parallel.h"
#include "kit.h"
#include "report.h"

/* What the parts of the device benchmark share. */
typedef struct bench_bed {
    const bench_options *options;
    bench_report *report;
    quire_options cache; /* sizes are set by each part */
    quire_group group;
    size_t block_bytes;
    quire__device *device; /* opened beside the cache's own: the same GPU, the same memory */
    quire__stream *stream;
    quire__parallel *parallel; /* of plain copies on the host device */
    uint64_t memory_limit;
    uint64_t arena_bytes, host_bytes; /* that a part may take */
    uint64_t seed;
    bench_gpu gpu;                   /* CUDA only, as the clocks are */
    bench_clock *in_graph, *by_calls; /* NULL: the CPU's clock */
    bool enqueue_only;               /* a clock is running: the body must not wait */
} bench_bed;

/* The device of QUIRE_DEVICE, with the sizes of the variables or this machine's. Dies on the sim device. */
void bench_bed_open(bench_bed *bed, const bench_options *options);
void bench_bed_close(bench_bed *bed);
/* A report that says what the figures hold for. */
void bench_bed_report_open(bench_bed *bed, const char *program);
bool bench_bed_on_gpu(const bench_bed *bed);
void *bench_bed_stream(const bench_bed *bed); /* for quire_step_begin: NULL on the host */
/* A race of bodies that only enqueue work, from a graph where that is possible; on the host the same as bench_race. */
void bench_bed_race(bench_bed *bed, bench_racer *racers, size_t count);
/* The same, with the calls that enqueue it. */
void bench_bed_race_calls(bench_bed *bed, bench_racer *racers, size_t count);

/* One plain copy, as fast as the device does it: a racer's body. */
typedef struct bench_copy {
    bench_bed *bed;
    void *to;
    const void *from;
    size_t bytes;
} bench_copy;

void *bench_bed_take(bench_bed *bed, quire__memory kind, size_t bytes);
void bench_bed_give(bench_bed *bed, quire__memory kind, void *memory);
void bench_bed_finish(bench_bed *bed); /* waits for what the bed enqueued, unless a clock does */
/* Ordinary memory to the device's and back; it has arrived on return. For setting up and checking. */
void bench_bed_move(bench_bed *bed, void *to, const void *from, size_t bytes, bool to_device);
/* Device memory full of random elements in [-1, 1); the same, as the CPU sees it, in `*mirror`, to be freed. */
void *bench_bed_random(bench_bed *bed, quire_dtype dtype, size_t elements, void **mirror);
/* Checksum of the blocks that a row's table names. */
uint64_t bench_bed_checksum(bench_bed *bed, const quire_view *view, uint32_t row, size_t blocks);
void bench_copy_body(void *copy);
/* The parts of a figure in GB/s. The samples are in seconds a body; `bytes` is what each of the two moves in that
 * time. */
bench_figure bench_bed_figure(const char *name, const char *size, bench_sample value, double bytes,
                              bench_sample limit, double limit_bytes, const char *limit_name);
/* Adds such a figure. */
void bench_bed_report(bench_bed *bed, const char *name, const char *size, bench_sample value, double bytes,
                      bench_sample limit, double limit_bytes, const char *limit_name);

#endif
