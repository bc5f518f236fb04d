/* host_limits.h: what a host's attention could reach at best beside a copy: the rate of reading alone, and that of
 * multiply-adds. Racer's bodies, by all threads of the bed. */
#ifndef BENCH_HOST_LIMITS_H
#define BENCH_HOST_LIMITS_H

#include "bytes.h"

/* Reads what a bench_copy copies from, and writes nothing. */
void bench_read_body(void *copy);

/* Multiply-adds of registers by all threads, with the vectors that attention uses. The argument is the bed. */
void bench_multiply_body(void *bed);
/* Floating-point operations of one such body, two for each multiply-add. */
double bench_multiply_flops(const bench_bed *bed);

#endif
