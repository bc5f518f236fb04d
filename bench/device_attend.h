/* device_attend.h: new KV into its blocks, and decode attention over them. */
#ifndef BENCH_DEVICE_ATTEND_H
#define BENCH_DEVICE_ATTEND_H

#include "bytes.h"

void bench_device_attend(bench_bed *bed);

#endif
