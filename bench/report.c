#define _POSIX_C_SOURCE 200809L
#include "report.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kit.h"
#include "targets.h"

enum { MOST_FIGURES = 384, MOST_NOTES = 40, MOST_SETTINGS = 32, TEXT = 240 };

struct bench_report {
    const char *program;
    char machine[TEXT], date[32];
    bench_figure figures[MOST_FIGURES];
    char settings[MOST_SETTINGS][2][TEXT], notes[MOST_NOTES][TEXT];
    size_t figure_count, setting_count, note_count;
    bool targets, complete;
    const char *kept; /* file to write after every figure; NULL: none */
};

/* "Intel(R) Xeon(R) ..., 2 cores" */
static void machine_name(char *text, size_t capacity)
{
    char line[TEXT], model[TEXT] = "unknown CPU";
    FILE *file = fopen("/proc/cpuinfo", "r");

    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon != NULL) {
            colon[1 + strcspn(colon + 1, "\n")] = '\0';
            snprintf(model, sizeof model, "%s", colon + 2);
            break;
        }
    }
    if (file != NULL)
        fclose(file);
    snprintf(text, capacity, "%.200s, %ld cores", model, sysconf(_SC_NPROCESSORS_ONLN));
}

void bench_report_setting(bench_report *report, const char *name, const char *format, ...)
{
    va_list arguments;
    char(*setting)[TEXT] = report->settings[report->setting_count];

    if (report->setting_count == MOST_SETTINGS)
        bench_die("more than %d settings in one report", MOST_SETTINGS);
    report->setting_count++;
    snprintf(setting[0], TEXT, "%s", name);
    va_start(arguments, format);
    vsnprintf(setting[1], TEXT, format, arguments);
    va_end(arguments);
    printf("%-16s %s\n", setting[0], setting[1]);
}

bench_report *bench_report_open(const char *program, const char *device)
{
    bench_report *report = calloc(1, sizeof *report);
    time_t now = time(NULL);
    struct tm utc;

    if (report == NULL)
        bench_die("no memory for a report");
    report->program = program;
    machine_name(report->machine, sizeof report->machine);
    strftime(report->date, sizeof report->date, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    printf("%s, %s\n", program, report->date);
    bench_report_setting(report, "library", "%s", quire_version_string());
    bench_report_setting(report, "machine", "%s", report->machine);
    bench_report_setting(report, "device", "%s", device);
    return report;
}

/* ---- the table --------------------------------------------------------------------------------------------- */

/* Three figures that matter, whatever the size. */
static const char *number(char *text, size_t capacity, double value)
{
    snprintf(text, capacity, value >= 100 ? "%.0f" : value >= 10 ? "%.1f" : value >= 1 ? "%.2f" : "%.3f", value);
    return text;
}

static void print_sample(int width, bench_sample sample)
{
    char median[32], least[32], p99[32], most[32], text[150];

    snprintf(text, sizeof text, sample.p99 > 0 ? "%s (%s..%s, %s)" : "%s (%s..%s)",
             number(median, sizeof median, sample.median), number(least, sizeof least, sample.least),
             number(p99, sizeof p99, sample.p99 > 0 ? sample.p99 : sample.most),
             number(most, sizeof most, sample.most));
    printf(" %*s", width, sample.runs == 0 ? "" : text);
}

static double ratio_of(const bench_figure *figure)
{
    return figure->value.median / figure->limit.median;
}

static void print_target(const bench_figure *figure)
{
    const bench_target *target = bench_target_of(figure);
    char text[48];

    if (target != NULL)
        printf("; target %s: %s", bench_target_text(target, figure->unit, text, sizeof text),
               bench_target_met(target, figure) ? "met" : "MISSED");
}

static void print_figure(const bench_figure *figure, bool targets)
{
    char text[32];

    printf("%-30s %-22s %-8s", figure->name, figure->size, figure->unit);
    print_sample(26, figure->value);
    if (figure->limit_name != NULL) {
        print_sample(26, figure->limit);
        if (figure->rate)
            snprintf(text, sizeof text, "%.0f%%", 100 * ratio_of(figure));
        else
            snprintf(text, sizeof text, "%.2fx", ratio_of(figure));
        printf(" %8s  %s", text, figure->limit_name);
    }
    if (figure->also_name != NULL)
        printf("; %.0f%% of %s: %s %s", 100 * figure->of_also, figure->also_name,
               number(text, sizeof text, figure->also.median), figure->also_unit);
    if (figure->baseline_name != NULL)
        printf("; %s: %s", figure->baseline_name, number(text, sizeof text, figure->baseline.median));
    if (figure->launch.runs > 0)
        printf("; %s us a launch", number(text, sizeof text, figure->launch.median));
    if (targets)
        print_target(figure);
    printf("\n");
    fflush(stdout);
}

void bench_report_targets(bench_report *report, bool on)
{
    report->targets = on;
}

static void json_file(const bench_report *report, const char *path);

void bench_report_keep(bench_report *report, const char *json)
{
    report->kept = json;
}

void bench_report_figure(bench_report *report, const bench_figure *figure)
{
    if (report->figure_count == MOST_FIGURES)
        bench_die("more than %d figures in one report", MOST_FIGURES);
    if (report->figure_count == 0)
        printf("\n%-30s %-22s %-8s %26s %26s %8s  %s\n", "what", "size", "unit", "median (least..most; of series ..p99, most)", "limit",
               "of limit", "limit is; alternative");
    report->figures[report->figure_count++] = *figure;
    print_figure(figure, report->targets);
    if (report->kept != NULL)
        json_file(report, report->kept);
}

void bench_report_note(bench_report *report, const char *format, ...)
{
    va_list arguments;

    if (report->note_count == MOST_NOTES)
        bench_die("more than %d notes in one report", MOST_NOTES);
    va_start(arguments, format);
    vsnprintf(report->notes[report->note_count++], TEXT, format, arguments);
    va_end(arguments);
}

/* ---- JSON -------------------------------------------------------------------------------------------------- */

static void json_text(FILE *file, const char *text)
{
    fputc('"', file);
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            fprintf(file, "\\%c", *text);
        else if ((unsigned char)*text < 0x20)
            fprintf(file, "\\u%04x", (unsigned)*text);
        else
            fputc(*text, file);
    }
    fputc('"', file);
}

static void json_sample(FILE *file, const char *name, bench_sample sample)
{
    fprintf(file, ", \"%s\": {\"median\": %.6g, \"least\": %.6g, \"most\": %.6g, \"runs\": %u", name, sample.median,
            sample.least, sample.most, (unsigned)sample.runs);
    if (sample.p99 > 0)
        fprintf(file, ", \"p99\": %.6g", sample.p99);
    fprintf(file, "}");
}

static void json_target(FILE *file, const bench_figure *figure)
{
    const bench_target *target = bench_target_of(figure);
    char text[48];

    if (target != NULL)
        fprintf(file, ", \"target\": \"%s\", \"met\": %s",
                bench_target_text(target, figure->unit, text, sizeof text),
                bench_target_met(target, figure) ? "true" : "false");
}

static void json_figure(FILE *file, const bench_figure *figure, bool targets)
{
    fprintf(file, "    {\"name\": ");
    json_text(file, figure->name);
    fprintf(file, ", \"size\": ");
    json_text(file, figure->size);
    fprintf(file, ", \"unit\": ");
    json_text(file, figure->unit);
    json_sample(file, "value", figure->value);
    if (figure->limit_name != NULL) {
        fprintf(file, ", \"limit_is\": ");
        json_text(file, figure->limit_name);
        json_sample(file, "limit", figure->limit);
        fprintf(file, ", \"of_limit\": %.4g", ratio_of(figure));
    }
    if (figure->also_name != NULL) {
        fprintf(file, ", \"also_is\": ");
        json_text(file, figure->also_name);
        fprintf(file, ", \"also_unit\": ");
        json_text(file, figure->also_unit);
        json_sample(file, "also", figure->also);
        fprintf(file, ", \"of_also\": %.4g", figure->of_also);
    }
    if (figure->baseline_name != NULL) {
        fprintf(file, ", \"alternative_is\": ");
        json_text(file, figure->baseline_name);
        json_sample(file, "alternative", figure->baseline);
    }
    if (figure->launch.runs > 0)
        json_sample(file, "us_a_launch", figure->launch);
    if (targets)
        json_target(file, figure);
    fprintf(file, "}");
}

static void json_write(const bench_report *report, FILE *file)
{
    fprintf(file, "{\n  \"program\": ");
    json_text(file, report->program);
    fprintf(file, ",\n  \"date\": ");
    json_text(file, report->date);
    fprintf(file, ",\n  \"complete\": %s", report->complete ? "true" : "false");
    fprintf(file, ",\n  \"settings\": {");
    for (size_t i = 0; i < report->setting_count; i++) {
        fprintf(file, i == 0 ? "\n    " : ",\n    ");
        json_text(file, report->settings[i][0]);
        fprintf(file, ": ");
        json_text(file, report->settings[i][1]);
    }
    fprintf(file, "\n  },\n  \"figures\": [\n");
    for (size_t i = 0; i < report->figure_count; i++) {
        json_figure(file, &report->figures[i], report->targets);
        fprintf(file, i + 1 < report->figure_count ? ",\n" : "\n");
    }
    fprintf(file, "  ],\n  \"notes\": [");
    for (size_t i = 0; i < report->note_count; i++) {
        fprintf(file, i == 0 ? "\n    " : ",\n    ");
        json_text(file, report->notes[i]);
    }
    fprintf(file, "\n  ]\n}\n");
}

static void json_file(const bench_report *report, const char *path)
{
    FILE *file = fopen(path, "w");

    if (file == NULL)
        bench_die("cannot write %s; give --json a path in a folder that exists", path);
    json_write(report, file);
    if (ferror(file) != 0 || fclose(file) != 0)
        bench_die("writing %s failed", path);
}

void bench_report_close(bench_report *report, const char *json)
{
    printf("\n");
    for (size_t i = 0; i < report->note_count; i++)
        printf("%s\n", report->notes[i]);
    report->complete = true;
    if (json != NULL)
        json_file(report, json);
    free(report);
}
