/* core_steps.h: what a step, a fork, a rollback and an eviction cost. */
#ifndef BENCH_CORE_STEPS_H
#define BENCH_CORE_STEPS_H

#include "kit.h"
#include "report.h"

void bench_core_steps(const bench_options *options, bench_report *report);

#endif
