/* device_latent.h: append and decode attention of a latent cache (DeepSeek-V2's shape: rows of 576, 512 of them values). */
#ifndef BENCH_DEVICE_LATENT_H
#define BENCH_DEVICE_LATENT_H

#include "bytes.h"

void bench_device_latent(bench_bed *bed);

#endif
