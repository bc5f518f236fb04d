#include "targets.h"

#include <stdio.h>
#include <string.h>

/* Names and sizes as the benchmarks give them to their figures. */
static const bench_target targets[] = {
    {"append, decode", "256 x 1 token", BENCH_TARGET_LAUNCH, 3},
    {"append, prefill", "8k tokens", BENCH_TARGET_OF_LIMIT, 0.85},
    {"block copy", "1 x 2.00 MiB", BENCH_TARGET_LAUNCH, 5},
    {"block copy", "64 x 2.00 MiB", BENCH_TARGET_OF_LIMIT, 0.90},
    {"block copy, first half", NULL, BENCH_TARGET_OF_LIMIT, 0.90},
    {"gather", NULL, BENCH_TARGET_OF_LIMIT, 0.85},
    {"scatter", NULL, BENCH_TARGET_OF_LIMIT, 0.85},
    {"decode attention", "64 x 4k tokens", BENCH_TARGET_OF_LIMIT, 0.88},
    {"decode attention, 8:1", "64 x 4k tokens", BENCH_TARGET_OF_LIMIT, 0.88},
    {"decode attention, 4 kv heads", "1 x 16k tokens", BENCH_TARGET_LAUNCH, 20},
    {"decode attention", "1 x 128k tokens", BENCH_TARGET_OF_LIMIT, 0.85},
    {"prefill attention", "8k after 32k tokens", BENCH_TARGET_OF_LIMIT, 0.50},
    {"shared-prefix decode", "64 x 16k tokens", BENCH_TARGET_TIMES, 3},
    {"quantise fp8", NULL, BENCH_TARGET_OF_LIMIT, 0.85},
    {"quantise int8", NULL, BENCH_TARGET_OF_LIMIT, 0.85},
    {"quantise int4", NULL, BENCH_TARGET_OF_LIMIT, 0.80},
    {"dequantise fp8", NULL, BENCH_TARGET_OF_LIMIT, 0.85},
    {"dequantise int8", NULL, BENCH_TARGET_OF_LIMIT, 0.85},
    {"dequantise int4", NULL, BENCH_TARGET_OF_LIMIT, 0.80},
    {"pack", NULL, BENCH_TARGET_RATE, 800},
    {"unpack", NULL, BENCH_TARGET_RATE, 1500},
    {"pack, 16 multiprocessors", NULL, BENCH_TARGET_RATE, 80},
    {"unpack, 16 multiprocessors", NULL, BENCH_TARGET_RATE, 80},
    {"attention beside copies", NULL, BENCH_TARGET_OF_LIMIT, 0.95},
    {"latent append", NULL, BENCH_TARGET_OF_LIMIT, 0.85},
    {"latent decode", NULL, BENCH_TARGET_OF_LIMIT, 0.85},
};

bool bench_targets_hold(const char *gpu)
{
    return strstr(gpu, "H100") != NULL || strstr(gpu, "H200") != NULL || strstr(gpu, "GH200") != NULL;
}

const bench_target *bench_target_of(const bench_figure *figure)
{
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++)
        if (strcmp(targets[i].name, figure->name) == 0 &&
            (targets[i].size == NULL || strcmp(targets[i].size, figure->size) == 0))
            return &targets[i];
    return NULL;
}

bool bench_target_met(const bench_target *target, const bench_figure *figure)
{
    switch (target->kind) {
    case BENCH_TARGET_OF_LIMIT:
        return figure->limit_name != NULL && figure->value.median >= target->value * figure->limit.median;
    case BENCH_TARGET_LAUNCH:
        return figure->launch.runs > 0 && figure->launch.median <= target->value;
    case BENCH_TARGET_RATE:
        return figure->value.median >= target->value;
    case BENCH_TARGET_TIMES:
        return figure->baseline_name != NULL && figure->value.median >= target->value * figure->baseline.median;
    }
    return false;
}

const char *bench_target_text(const bench_target *target, const char *unit, char *text, size_t capacity)
{
    switch (target->kind) {
    case BENCH_TARGET_OF_LIMIT: snprintf(text, capacity, "%.0f%% of the limit", 100 * target->value); break;
    case BENCH_TARGET_LAUNCH: snprintf(text, capacity, "%g us a launch", target->value); break;
    case BENCH_TARGET_RATE: snprintf(text, capacity, "%g %s", target->value, unit); break;
    case BENCH_TARGET_TIMES: snprintf(text, capacity, "%gx the alternative", target->value); break;
    }
    return text;
}
