/* device_prefill.h: figures of prefill attention over a cached prefix. */
#ifndef BENCH_DEVICE_PREFILL_H
#define BENCH_DEVICE_PREFILL_H

#include "bytes.h"

void bench_device_prefill(bench_bed *bed);

#endif
