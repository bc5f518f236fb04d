/* device_open.c: the wait for a large host tier. Three times from the call of open: until it returns with the tier pinned in
 * the background, until the tier is all there then, and until it returns with all of it pinned at open. */
#include "device_open.h"

#include <stdio.h>

#include "base/clock.h"

typedef struct race {
    bench_bed *bed;
    quire_options options;
    quire_cache *cache;
} race;

static void open_body(void *arg)
{
    race *race = arg;
    bench_must(quire_cache_open(&race->cache, &race->options));
}

static void close_cache(void *arg)
{
    race *race = arg;
    quire_cache_close(race->cache);
}

static void all_body(void *arg)
{
    race *race = arg;
    quire_stats stats = {.size = sizeof stats};

    open_body(race);
    for (;;) {
        bench_must(quire_cache_poll(race->cache));
        bench_must(quire_cache_stats(race->cache, &stats));
        if (stats.host_total == race->options.host_bytes / race->bed->block_bytes)
            return;
        quire__clock_sleep_us(500);
    }
}

void bench_device_open(bench_bed *bed)
{
    race ahead = {.bed = bed, .options = bed->cache};
    size_t block = bed->block_bytes;

    ahead.options.device_bytes = 4 * block;
    ahead.options.max_seq_tokens = 0;
    ahead.options.max_sequences = 2;
    ahead.options.max_step_tokens = 4 * ahead.options.block_tokens;
    ahead.options.host_bytes = bed->host_bytes / block * block;
    ahead.options.host_pin = QUIRE_HOST_PIN_BACKGROUND;
    race at_open = ahead;
    at_open.options.host_pin = QUIRE_HOST_PIN_OPEN;

    bench_racer racers[] = {bench_enter(NULL, open_body, close_cache, &ahead, 1),
                            bench_enter(NULL, all_body, close_cache, &ahead, 1),
                            bench_enter(NULL, open_body, close_cache, &at_open, 1)};
    bench_race(&bed->options->effort, racers, 3);
    for (int i = 0; i < 2; i++) {
        bench_figure figure = {.unit = "ms",
                               .value = bench_scale(racers[i].sample, 1e3),
                               .limit = bench_scale(racers[2].sample, 1e3),
                               .limit_name = "open with all of it pinned"};
        snprintf(figure.name, sizeof figure.name, "%s", i == 0 ? "open" : "open, until all is pinned");
        snprintf(figure.size, sizeof figure.size, "%.2f GiB host tier",
                 (double)ahead.options.host_bytes / (1024.0 * 1024 * 1024));
        bench_report_figure(bed->report, &figure);
    }
}
