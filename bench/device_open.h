#ifndef BENCH_DEVICE_OPEN_H
#define BENCH_DEVICE_OPEN_H

#include "bytes.h"

/* How long opening a cache with a host tier takes, and when the tier is all there. */
void bench_device_open(bench_bed *bed);

#endif
