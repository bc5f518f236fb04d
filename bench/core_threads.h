/* core_threads.h: what threads with distinct sequences of one cache lose to one another. */
#ifndef BENCH_CORE_THREADS_H
#define BENCH_CORE_THREADS_H

#include "kit.h"
#include "report.h"

void bench_core_threads(const bench_options *options, bench_report *report);

#endif
