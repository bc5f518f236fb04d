/* bytes.h: the device under test and plain copies on it, the limit of everything that moves bytes.
 *
 * Within the device a copy counts twice, as what is read and what is written, and so do the figures beside it. Between
 * the device and host memory it counts once. */
#ifndef BENCH_BYTES_H
#define BENCH_BYTES_H

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
} bench_bed;

/* One plain copy, as fast as the device does it: a racer's body. */
typedef struct bench_copy {
    bench_bed *bed;
    void *to;
    const void *from;
    size_t bytes;
} bench_copy;

void *bench_bed_take(bench_bed *bed, quire__memory kind, size_t bytes);
void bench_bed_give(bench_bed *bed, quire__memory kind, void *memory);
void bench_bed_finish(bench_bed *bed); /* waits for what the bed enqueued */
/* Ordinary memory to the device's and back; it has arrived on return. For setting up and checking. */
void bench_bed_move(bench_bed *bed, void *to, const void *from, size_t bytes, bool to_device);
/* Device memory full of random elements in [-1, 1); the same, as the CPU sees it, in `*mirror`, to be freed. */
void *bench_bed_random(bench_bed *bed, quire_dtype dtype, size_t elements, void **mirror);
/* Checksum of the blocks that a row's table names. */
uint64_t bench_bed_checksum(bench_bed *bed, const quire_view *view, uint32_t row, size_t blocks);
void bench_copy_body(void *copy);
/* Adds a figure in GB/s. The samples are in seconds a body; `bytes` is what each of the two moves in that time. */
void bench_bed_report(bench_bed *bed, const char *name, const char *size, bench_sample value, double bytes,
                      bench_sample limit, double limit_bytes, const char *limit_name);

#endif
