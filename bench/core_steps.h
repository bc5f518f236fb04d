/* core_steps.h: what taking, sealing and evicting blocks costs, and a step of many short sequences. */
#ifndef BENCH_CORE_STEPS_H
#define BENCH_CORE_STEPS_H

#include "core_world.h"

/* Of an empty cache. */
void bench_core_take(bench_world *world);
/* Of a full one. */
void bench_core_evict(bench_world *world);
void bench_core_decode(bench_world *world);
/* Bytes of bookkeeping a block. */
void bench_core_memory(bench_world *world);

#endif
