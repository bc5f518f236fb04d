/* device_tiers.h: blocks to host memory and back, through the cache. */
#ifndef BENCH_DEVICE_TIERS_H
#define BENCH_DEVICE_TIERS_H

#include "bytes.h"

void bench_device_tiers(bench_bed *bed);

#endif
