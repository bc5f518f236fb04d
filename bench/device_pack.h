/* device_pack.h: lossless packing of bf16 pages and the way back. */
#ifndef BENCH_DEVICE_PACK_H
#define BENCH_DEVICE_PACK_H

#include "bytes.h"

void bench_device_pack(bench_bed *bed);

#endif
