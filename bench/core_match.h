/* core_match.h: finding a prompt, with everything in the CPU's caches and with nothing there; and what else is done to a
 * long sequence that was found. */
#ifndef BENCH_CORE_MATCH_H
#define BENCH_CORE_MATCH_H

#include "core_world.h"

void bench_core_match(bench_world *world);

#endif
