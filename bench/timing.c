#define _POSIX_C_SOURCE 200809L
#include "timing.h"

#include <stdlib.h>
#include <time.h>

enum { LEAST_RUNS = 5, MOST_RUNS = 1001, MOST_RACERS = 16 };

double bench_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

bench_racer bench_enter(void (*prepare)(void *), void (*body)(void *), void (*finish)(void *), void *arg,
                        double operations)
{
    return (bench_racer){
        .prepare = prepare, .body = body, .finish = finish, .arg = arg, .operations = operations};
}

static double cpu_time(const bench_racer *racer)
{
    double begin = bench_now();

    racer->body(racer->arg);
    return bench_now() - begin;
}

static double run_once(const bench_racer *racer, void *kept)
{
    if (racer->prepare != NULL)
        racer->prepare(racer->arg);
    double seconds = racer->clock != NULL ? racer->clock->time(racer->clock, racer, kept) : cpu_time(racer);
    if (racer->finish != NULL)
        racer->finish(racer->arg);
    return seconds / racer->operations;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static bench_sample summary(double *times, uint32_t runs)
{
    qsort(times, runs, sizeof *times, compare);
    double median = runs % 2 != 0 ? times[runs / 2] : (times[runs / 2 - 1] + times[runs / 2]) / 2;
    return (bench_sample){.median = median, .least = times[0], .most = times[runs - 1], .runs = runs};
}

void bench_race(const bench_effort *effort, bench_racer *racers, size_t count)
{
    static double times[MOST_RACERS][MOST_RUNS];
    uint32_t most = effort->runs < MOST_RUNS ? effort->runs : MOST_RUNS, runs = 0;
    void *kept[MOST_RACERS] = {NULL};

    for (size_t r = 0; r < count; r++)
        if (racers[r].clock != NULL)
            kept[r] = racers[r].clock->ready(racers[r].clock, &racers[r]);
    for (uint32_t i = 0; i < effort->warmups; i++)
        for (size_t r = 0; r < count; r++)
            (void)run_once(&racers[r], kept[r]);
    double deadline = bench_now() + effort->seconds;
    while (runs < most && (runs < LEAST_RUNS || bench_now() < deadline)) {
        for (size_t r = 0; r < count; r++)
            times[r][runs] = run_once(&racers[r], kept[r]);
        runs++;
    }
    for (size_t r = 0; r < count; r++) {
        racers[r].sample = summary(times[r], runs);
        if (racers[r].clock != NULL)
            racers[r].clock->done(racers[r].clock, kept[r]);
    }
}

bench_sample bench_scale(bench_sample sample, double factor)
{
    return (bench_sample){.median = sample.median * factor,
                          .least = sample.least * factor,
                          .most = sample.most * factor,
                          .runs = sample.runs,
                          .p99 = sample.p99 * factor};
}

bench_sample bench_rate(bench_sample sample, double amount)
{
    return (bench_sample){.median = amount / sample.median,
                          .least = amount / sample.most,
                          .most = amount / sample.least,
                          .runs = sample.runs};
}
