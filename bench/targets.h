/* targets.h: what a kernel should reach on a GPU of the H100's class; reports print it beside the figure. */
#ifndef BENCH_TARGETS_H
#define BENCH_TARGETS_H

#include "report.h"

typedef enum bench_target_kind {
    BENCH_TARGET_OF_LIMIT, /* at least this part of the limit */
    BENCH_TARGET_LAUNCH,   /* at most this many microseconds a launch */
    BENCH_TARGET_RATE,     /* at least this rate, in the figure's unit */
    BENCH_TARGET_TIMES     /* at least this many times the alternative */
} bench_target_kind;

typedef struct bench_target {
    const char *name, *size; /* of the figure; size NULL: of every size */
    bench_target_kind kind;
    double value;
} bench_target;

/* Is this the name of a GPU that the targets are for? */
bool bench_targets_hold(const char *gpu);
/* NULL: no target for it. */
const bench_target *bench_target_of(const bench_figure *figure);
bool bench_target_met(const bench_target *target, const bench_figure *figure);
/* "85% of the limit", "3 us a launch" */
const char *bench_target_text(const bench_target *target, const char *unit, char *text, size_t capacity);

#endif
