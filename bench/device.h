/* device.h: what moving and reading KV costs, beside a plain copy on the same device. */
#ifndef BENCH_DEVICE_H
#define BENCH_DEVICE_H

#include "kit.h"

void bench_device(const bench_options *options);

#endif
