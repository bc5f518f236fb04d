#define _GNU_SOURCE 1
#include "core_world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { FLUSH_LEAST = 128 << 20, HUGE = 2 << 20, SLACK_BLOCKS = 64, STEEP = 10 };

/* Huge pages, so that what is measured is the structures and not the TLB of our own arrays. */
static void *take_pages(size_t bytes)
{
    void *memory = NULL;

    if (posix_memalign(&memory, HUGE, bytes) != 0)
        bench_die("no memory for %zu bytes", bytes);
    (void)madvise(memory, bytes, MADV_HUGEPAGE);
    return memory;
}

static void take_flush(bench_world *world)
{
    long cache_bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
    size_t bytes = cache_bytes > 0 ? (size_t)cache_bytes * BENCH_FLUSH_FACTOR : FLUSH_LEAST;

    world->flush_bytes = bytes < FLUSH_LEAST ? FLUSH_LEAST : bytes;
    world->flush = take_pages(world->flush_bytes);
    memset(world->flush, 1, world->flush_bytes);
}

void bench_world_open(bench_world *world, const bench_options *options, bench_report *report, uint64_t blocks,
                      uint32_t block_tokens)
{
    quire_options cache;
    char count[16];

    *world = (bench_world){
        .options = options, .report = report, .blocks = blocks, .block_tokens = block_tokens, .seed = 1};
    uint64_t most = blocks * block_tokens / 5 * 4;
    world->length = most < BENCH_LONGEST ? (uint32_t)most / block_tokens * block_tokens : BENCH_LONGEST;
    world->path = world->length / block_tokens;
    world->tokens = bench_alloc((world->length + 1) * sizeof(int32_t));
    snprintf(world->size, sizeof world->size, "%u tokens, %s blocks", block_tokens,
             bench_count(count, sizeof count, blocks));

    bench_bookkeeping(&cache, &world->group, 1);
    cache.block_tokens = block_tokens;
    cache.device_bytes = blocks * bench_block_bytes(&cache);
    cache.max_sequences = BENCH_SEQUENCES + 16;
    cache.max_seq_tokens = world->length + SLACK_BLOCKS * block_tokens;
    cache.max_step_tokens = world->length;
    bench_must(quire_cache_open(&world->cache, &cache));
    take_flush(world);
}

void bench_world_close(bench_world *world)
{
    quire_cache_close(world->cache);
    if (world->steep[0] != '\0')
        bench_report_note(world->report, "%s: worst above %d times the median: %s", world->size, STEEP, world->steep);
    free(world->flush);
    free(world->tokens);
}

void bench_world_ensure(bench_world *world, const int32_t *tokens, size_t count)
{
    quire_seq seq;
    quire_hit hit;

    bench_must(quire_seq_open(world->cache, NULL, &seq));
    bench_must(quire_seq_match(world->cache, seq, tokens, count, &hit));
    bench_prefill(world->cache, seq, tokens + hit.tokens, count - hit.tokens);
    bench_must(quire_seq_close(world->cache, seq));
}

void bench_world_fill(bench_world *world)
{
    quire_stats stats = {.size = sizeof stats};

    do {
        bench_random_tokens(&world->seed, world->tokens, world->length);
        bench_world_ensure(world, world->tokens, world->length);
        bench_must(quire_cache_stats(world->cache, &stats));
    } while (stats.device_free > 0);
}

void bench_world_flush(bench_world *world)
{
    for (size_t i = 0; i < world->flush_bytes; i += 64)
        world->flush[i]++;
}

uint64_t bench_world_evictions(bench_world *world)
{
    quire_stats stats = {.size = sizeof stats};

    bench_must(quire_cache_stats(world->cache, &stats));
    return stats.evictions_device;
}

void bench_world_report(bench_world *world, const char *name, const char *unit, double scale,
                        const bench_series *series, size_t count, const char *limit)
{
    bench_figure figure = {.unit = unit,
                           .value = bench_scale(series[0].sample, scale),
                           .limit = bench_scale(series[1].sample, scale),
                           .limit_name = limit};

    if (count == 3) {
        figure.baseline = bench_scale(series[2].sample, scale);
        figure.baseline_name = "chained hash";
    }
    snprintf(figure.name, sizeof figure.name, "%s", name);
    snprintf(figure.size, sizeof figure.size, "%s", world->size);
    bench_report_figure(world->report, &figure);
    if (figure.value.most > STEEP * figure.value.median) {
        size_t at = strlen(world->steep);
        snprintf(world->steep + at, sizeof world->steep - at, "%s%s (%.0f)", at > 0 ? ", " : "", name,
                 figure.value.most / figure.value.median);
    }
}

void bench_stream_open(bench_stream *stream, size_t bytes, size_t count)
{
    *stream = (bench_stream){bench_alloc(bytes * count), bench_alloc(bytes * count), bytes, count};
    memset(stream->from, 1, bytes * count);
    memset(stream->to, 2, bytes * count);
}

void bench_stream_close(bench_stream *stream)
{
    free(stream->from);
    free(stream->to);
}

static void stream_body(void *arg, uint32_t i)
{
    bench_stream *stream = arg;

    (void)i;
    for (size_t k = 0; k < stream->count; k++)
        memcpy(stream->to + k * stream->bytes, stream->from + k * stream->bytes, stream->bytes);
    __asm__ volatile("" ::: "memory");
}

bench_series bench_stream_series(bench_stream *stream, double operations)
{
    return (bench_series){.body = stream_body, .arg = stream, .operations = operations};
}
