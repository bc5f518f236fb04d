/* device_convert.h: figures of quantising blocks and giving them back. */
#ifndef BENCH_DEVICE_CONVERT_H
#define BENCH_DEVICE_CONVERT_H

#include "bytes.h"

void bench_device_convert(bench_bed *bed);

#endif
