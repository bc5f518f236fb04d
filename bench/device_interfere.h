/* device_interfere.h: what blocks that go to the host and come back cost the steps that run meanwhile. */
#ifndef BENCH_DEVICE_INTERFERE_H
#define BENCH_DEVICE_INTERFERE_H

#include "bytes.h"

void bench_device_interfere(bench_bed *bed);

#endif
