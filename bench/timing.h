/* timing.h: how long something takes, and how sure that is.
 *
 * Things that are compared race: every round times each of them once, so that a machine that slows down or is shared
 * slows all of them. A figure is the median of the rounds, with the least and the most. */
#ifndef BENCH_TIMING_H
#define BENCH_TIMING_H

#include <stddef.h>
#include <stdint.h>

typedef struct bench_sample {
    double median, least, most;
    uint32_t runs; /* 0: not measured */
    double p99;    /* of operations, where each was timed (series.h); else 0 */
} bench_sample;

typedef struct bench_effort {
    uint32_t warmups, runs; /* rounds */
    double seconds;         /* a race ends after this long with rounds left, but not before it has 5 */
} bench_effort;

typedef struct bench_clock bench_clock;

/* One thing to time. `prepare` and `finish` are outside the time; NULL where there is nothing to do. */
typedef struct bench_racer {
    void (*prepare)(void *arg);
    void (*body)(void *arg);
    void (*finish)(void *arg);
    void *arg;
    double operations;   /* that one body does; the sample is of one */
    bench_clock *clock;  /* NULL: the CPU's */
    bench_sample sample; /* out: seconds */
} bench_racer;

/* A clock for bodies whose work outlives the calls that enqueue it: clock_cuda.c. `ready` runs once before a race and
 * returns what the clock keeps for that racer, `time` takes the seconds of one body, `done` ends it. */
struct bench_clock {
    void *(*ready)(bench_clock *clock, const bench_racer *racer);
    double (*time)(bench_clock *clock, const bench_racer *racer, void *kept);
    void (*done)(bench_clock *clock, void *kept);
};

double bench_now(void); /* seconds, monotonic */
bench_racer bench_enter(void (*prepare)(void *), void (*body)(void *), void (*finish)(void *), void *arg,
                        double operations);
void bench_race(const bench_effort *effort, bench_racer *racers, size_t count);
/* Seconds to other units: every member times `factor`. */
bench_sample bench_scale(bench_sample sample, double factor);
/* Seconds for `amount` to amount a second; the least time is the most speed. */
bench_sample bench_rate(bench_sample sample, double amount);

#endif
