/* core_match.h: finding a prompt, with everything in the CPU's caches and with nothing there. */
#ifndef BENCH_CORE_MATCH_H
#define BENCH_CORE_MATCH_H

#include "kit.h"
#include "report.h"

enum { BENCH_FLUSH_FACTOR = 4 }; /* memory walked between cold calls, in last-level caches */

void bench_core_match(const bench_options *options, bench_report *report);

#endif
