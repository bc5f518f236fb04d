#include "series.h"

#include <stdlib.h>

#include "kit.h"

enum { MOST_SERIES = 4, MOST_OPERATIONS = 1024, CLOCK_LOOKS = 200 };

static double clock_cost(void)
{
    double least = 1;

    for (int i = 0; i < CLOCK_LOOKS; i++) {
        double begin = bench_now(), cost = bench_now() - begin;
        least = cost < least ? cost : least;
    }
    return least;
}

static double run_once(const bench_series *series, uint32_t i)
{
    if (series->prepare != NULL)
        series->prepare(series->arg, i);
    double begin = bench_now();
    series->body(series->arg, i);
    double end = bench_now();
    if (series->finish != NULL)
        series->finish(series->arg, i);
    return end - begin;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static bench_sample summary(double *times, uint32_t count)
{
    qsort(times, count, sizeof *times, compare);
    return (bench_sample){.median = times[count / 2],
                          .least = times[0],
                          .most = times[count - 1],
                          .p99 = times[(count - 1) * 99 / 100],
                          .runs = count};
}

void bench_series_run(bench_series *series, size_t count, uint32_t operations, uint32_t repetitions)
{
    static double times[MOST_SERIES][MOST_OPERATIONS];
    double clock = clock_cost();

    if (count > MOST_SERIES || operations > MOST_OPERATIONS)
        bench_die("%zu series of %u operations are more than %d of %d", count, operations, MOST_SERIES,
                  MOST_OPERATIONS);
    for (uint32_t round = 0; round < repetitions; round++) {
        for (size_t s = 0; s < count; s++)
            if (series[s].begin != NULL)
                series[s].begin(series[s].arg);
        for (uint32_t i = 0; i < operations; i++) {
            for (size_t s = 0; s < count; s++) {
                double time = (run_once(&series[s], i) - clock) / series[s].operations;
                time = time > 0 ? time : 0;
                times[s][i] = round == 0 || time < times[s][i] ? time : times[s][i];
            }
        }
    }
    for (size_t s = 0; s < count; s++)
        series[s].sample = summary(times[s], operations);
}
