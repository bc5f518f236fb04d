/* core.h: what the bookkeeping costs, without any KV. */
#ifndef BENCH_CORE_H
#define BENCH_CORE_H

#include "kit.h"

void bench_core(const bench_options *options);

#endif
