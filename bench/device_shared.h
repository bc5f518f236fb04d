/* device_shared.h: decode attention of sequences that share a prefix, beside plain decode attention of the same. */
#ifndef BENCH_DEVICE_SHARED_H
#define BENCH_DEVICE_SHARED_H

#include "bytes.h"

void bench_device_shared(bench_bed *bed);

#endif
