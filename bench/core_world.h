/* core_world.h: a cache of one size, full of prompts, and what the rows of `quire-bench core` share. */
#ifndef BENCH_CORE_WORLD_H
#define BENCH_CORE_WORLD_H

#include "chained.h"
#include "kit.h"
#include "report.h"
#include "series.h"

enum {
    BENCH_FLUSH_FACTOR = 4, /* memory walked between cold operations, in last-level caches */
    BENCH_SEQUENCES = 256,  /* of a decode step */
    BENCH_LONGEST = 128 * 1024
};

typedef struct bench_world {
    const bench_options *options;
    bench_report *report;
    quire_cache *cache;
    quire_group group;
    uint64_t blocks; /* of the arena */
    uint32_t block_tokens;
    uint32_t length, path; /* tokens and blocks of a long prompt: 128k tokens, less where the arena is small */
    uint64_t seed;
    int32_t *tokens; /* [length + 1], scratch */
    unsigned char *flush;
    size_t flush_bytes;
    char size[40];           /* "16 tokens, 1M blocks" */
    char steep[160];         /* rows whose worst is above ten times their median */
    quire_seq seqs[BENCH_SEQUENCES];
    quire_step *step;
} bench_world;

void bench_world_open(bench_world *world, const bench_options *options, bench_report *report, uint64_t blocks,
                      uint32_t block_tokens);
void bench_world_close(bench_world *world);
/* Makes the prompt's blocks cached, computing what is not. */
void bench_world_ensure(bench_world *world, const int32_t *tokens, size_t count);
/* Fills the arena with prompts that nobody will ask for. */
void bench_world_fill(bench_world *world);
/* Nothing of the cache is in the CPU's caches after this. */
void bench_world_flush(bench_world *world);
uint64_t bench_world_evictions(bench_world *world);
/* One line of the table: series[0] beside its limit, series[1], and, when there are three, the alternative. */
void bench_world_report(bench_world *world, const char *name, const char *unit, double scale,
                        const bench_series *series, size_t count, const char *limit);

/* A copy of `bytes`, `count` times: the limit of what writes. */
typedef struct bench_stream {
    unsigned char *from, *to;
    size_t bytes, count;
} bench_stream;

void bench_stream_open(bench_stream *stream, size_t bytes, size_t count);
void bench_stream_close(bench_stream *stream);
bench_series bench_stream_series(bench_stream *stream, double operations);

#endif
