/* clock_cuda.h: the clock of a GPU, and which GPU it is. Builds without CUDA leave it out. */
#ifndef BENCH_CLOCK_CUDA_H
#define BENCH_CLOCK_CUDA_H

#include <stdbool.h>

#include "timing.h"

typedef struct bench_gpu {
    char name[96], driver[32], toolkit[16];
    size_t l2_bytes, memory_bytes;
    double memory_rate; /* GB/s by its clock and width; 0: not told */
    int multiprocessors, major, minor;
} bench_gpu;

/* How a body gets to the GPU. */
typedef enum bench_clock_way {
    BENCH_CLOCK_GRAPH, /* recorded once, replayed: no launch costs. What cannot be recorded is enqueued instead */
    BENCH_CLOCK_CALLS  /* called: with what the calls cost where they are slower than the GPU */
} bench_clock_way;

/* Makes a GPU the current one: what is opened here is on it. */
void bench_gpu_use(int ordinal);
bench_gpu bench_gpu_describe(void); /* of the current one */
/* `stream` is a cudaStream_t, on which every body must enqueue all it does. A body must not wait for its work:
 * *enqueue_only is true while one runs. The L2 cache holds other data when a body begins. */
bench_clock *bench_clock_cuda_open(bench_clock_way way, void *stream, bool *enqueue_only);
void bench_clock_cuda_close(bench_clock *clock); /* NULL is allowed */

#endif
