/* series.h: what an operation costs at its worst, told apart from what the machine does meanwhile.
 *
 * A series is the same row of operations, repeated. Whatever interrupts a program hits some repetition of an operation,
 * seldom every one; what an operation does itself, it does in each. So the time of operation i is the least of its
 * repetitions, and median, 99th percentile and worst are taken over the operations. The clock's own time is taken
 * off. */
#ifndef BENCH_SERIES_H
#define BENCH_SERIES_H

#include "timing.h"

typedef struct bench_series {
    void (*begin)(void *arg);             /* before each repetition of the row */
    void (*prepare)(void *arg, uint32_t i); /* before operation i */
    void (*body)(void *arg, uint32_t i);
    void (*finish)(void *arg, uint32_t i);
    void *arg;           /* any but body may be NULL */
    double operations;   /* that one body does; the sample is of one */
    bench_sample sample; /* out: seconds */
} bench_series;

/* Series that race: operation i of each in turn. At most 4 of 1024 operations. */
void bench_series_run(bench_series *series, size_t count, uint32_t operations, uint32_t repetitions);

#endif
