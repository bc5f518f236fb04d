/* device_copy.h: whole blocks to other blocks, as copy-on-write does it. */
#ifndef BENCH_DEVICE_COPY_H
#define BENCH_DEVICE_COPY_H

#include "bytes.h"

void bench_device_copy(bench_bed *bed);

#endif
