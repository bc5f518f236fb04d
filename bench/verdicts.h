/* verdicts.h: three claims about GPUs that Quire's design rests on, each judged from this machine's figures.
 *
 *   stores    an H100's multiprocessors store to host memory at 8.5 GiB/s at most: so offloads are DMA, and pieces are
 *             gathered on the device first
 *   batches   host-to-device DMA in batches is slow below some 28 KiB a piece: so a block is one piece
 *   pages     attention over pages of all layers costs at most 3% over pools of one layer: so a block is one page */
#ifndef BENCH_VERDICTS_H
#define BENCH_VERDICTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A rate that a piece size reached. */
typedef struct bench_point {
    uint64_t piece_bytes;
    double rate, limit; /* GB/s, of one large copy */
} bench_point;

typedef struct bench_verdict {
    bool known; /* false: not measured here */
    bool holds;
    char text[200]; /* "true: ..." or "false: ..." with the figure */
} bench_verdict;

/* `rates`: GB/s of stores to host memory, one for each number of thread blocks. */
bench_verdict bench_verdict_stores(const double *rates, size_t count);
/* The points ascend in size. Holds when pieces under 28 KiB reach less than 80% of one large copy. */
bench_verdict bench_verdict_batches(const bench_point *points, size_t count);
/* `costs`: time over pages of all layers divided by that over pools, less 1; `spreads`: how far that may be off. */
bench_verdict bench_verdict_pages(const double *costs, const double *spreads, size_t count);

#endif
