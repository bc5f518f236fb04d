/* report.h: figures, to stdout as they come and to a JSON file at the end. */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include <stdbool.h>

#include "timing.h"

/* One line of the table. `limit` is what the machine could do at best, measured in the same race, and `baseline` what
 * one would otherwise use; both in the figure's unit. */
typedef struct bench_figure {
    char name[40], size[40];
    const char *unit;
    bool rate; /* more is better, and the limit is given in percent; else the figure is a multiple of the limit */
    bench_sample value, limit, baseline;
    const char *limit_name, *baseline_name; /* NULL: none */
    bench_sample launch; /* microseconds of one launch, where that is a figure of its own */
    /* Another limit than `limit`, in the unit named with it, and the figure's part of it. NULL: none. */
    const char *also_name, *also_unit;
    bench_sample also;
    double of_also;
} bench_figure;

typedef struct bench_report bench_report;

bench_report *bench_report_open(const char *program, const char *device);
/* What the figures hold for; shown above the table. */
void bench_report_setting(bench_report *report, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Prints what is expected of a figure beside it (targets.h): on the machines that this holds for. */
void bench_report_targets(bench_report *report, bool on);
void bench_report_figure(bench_report *report, const bench_figure *figure);
/* What a reader must know; shown below the table. */
void bench_report_note(bench_report *report, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* From here on the file is written after every figure too, with "complete": false: what is cut off has left what it
 * measured. NULL: no file. */
void bench_report_keep(bench_report *report, const char *json);
/* Ends the table; `json` NULL: no file. */
void bench_report_close(bench_report *report, const char *json);

#endif
