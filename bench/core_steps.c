/* core_steps.c: races of the bookkeeping around a step. Each beside a copy of the bytes that the operation cannot
 * avoid writing:
 *
 *   decode step       a sequence's entries in the arrays that kernels read, and its token
 *   reserve, commit   the block's tokens
 *   fork, truncate,   the sequence's block table
 *   close
 */
#include "core_steps.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SEQUENCES = 256,
    STEPS = 16, /* in one timed run: a default block, so that sealing has its part */
    ROLLBACK = 8,
    PROMPT = 8 * 1024,  /* of reserve, commit and evict */
    CONTEXT = 32 * 1024, /* of fork, truncate and close */
    HANDLES = 16,
    ROW_BYTES = 32 /* length, start, slot (8), position, row, decode list; and the token */
};

/* A copy of `bytes`, `count` times: the limit of everything here. */
typedef struct stream {
    unsigned char *from, *to;
    size_t bytes, count;
} stream;

static void stream_open(stream *stream, size_t bytes, size_t count)
{
    *stream = (struct stream){bench_alloc(bytes * count), bench_alloc(bytes * count), bytes, count};
    memset(stream->from, 1, bytes * count);
    memset(stream->to, 2, bytes * count);
}

static void stream_close(stream *stream)
{
    free(stream->from);
    free(stream->to);
}

static void stream_body(void *arg)
{
    stream *stream = arg;

    for (size_t i = 0; i < stream->count; i++)
        memcpy(stream->to + i * stream->bytes, stream->from + i * stream->bytes, stream->bytes);
    __asm__ volatile("" ::: "memory");
}

static bench_racer stream_racer(stream *stream, double operations)
{
    return bench_enter(stream_body, stream_body, NULL, stream, operations);
}

typedef struct world {
    const bench_options *options;
    bench_report *report;
    quire_cache *cache;
    uint32_t block_tokens;
    uint64_t seed;
    int32_t tokens[CONTEXT + 1];
    quire_seq seqs[SEQUENCES];
    quire_step *step;
    uint64_t evictions; /* that the last reserve caused */
} world;

static void race_and_report(world *world, bench_racer *racer, stream *stream, const char *name, const char *size,
                            const char *unit, const char *limit)
{
    bench_racer racers[] = {*racer, stream_racer(stream, racer->operations)};

    bench_race(&world->options->effort, racers, 2);
    bench_figure figure = {.unit = unit,
                           .value = bench_scale(racers[0].sample, 1e9),
                           .limit = bench_scale(racers[1].sample, 1e9),
                           .limit_name = limit};
    snprintf(figure.name, sizeof figure.name, "%s", name);
    snprintf(figure.size, sizeof figure.size, "%s", size);
    bench_report_figure(world->report, &figure);
}

static void cache_open(world *world, uint64_t tokens, uint32_t longest)
{
    quire_options options;
    quire_group group;

    bench_bookkeeping(&options, &group, 1);
    bench_bookkeeping(&options, &group, tokens / options.block_tokens + 1);
    options.max_sequences = SEQUENCES + 1;
    options.max_seq_tokens = longest;
    options.max_step_tokens = PROMPT;
    bench_must(quire_cache_open(&world->cache, &options));
    world->block_tokens = options.block_tokens;
}

static void expect_length(world *world, quire_seq seq, size_t length)
{
    quire_seq_info info;

    bench_must(quire_seq_get(world->cache, seq, &info));
    if (info.length != length)
        bench_die("a sequence has %zu tokens and should have %zu", info.length, length);
}

/* ---- decode steps ------------------------------------------------------------------------------------------ */

static void step_all(world *world, size_t count)
{
    bench_must(quire_step_begin(world->cache, NULL, &world->step));
    for (int i = 0; i < SEQUENCES; i++)
        bench_must(quire_step_add(world->step, world->seqs[i], world->tokens + i, count));
    bench_must(quire_step_submit(world->step));
    bench_must(quire_step_commit(world->step));
}

static void decode_prepare(void *arg)
{
    world *world = arg;

    bench_random_tokens(&world->seed, world->tokens, SEQUENCES + ROLLBACK);
    step_all(world, 1);
}

static void decode_body(void *arg)
{
    for (int i = 0; i < STEPS; i++)
        step_all(arg, 1);
}

static void rollback_prepare(void *arg)
{
    world *world = arg;

    bench_random_tokens(&world->seed, world->tokens, SEQUENCES + ROLLBACK);
    step_all(world, ROLLBACK);
}

static void rollback_body(void *arg)
{
    world *world = arg;

    for (int i = 0; i < SEQUENCES; i++) {
        quire_seq_info info;
        bench_must(quire_seq_get(world->cache, world->seqs[i], &info));
        bench_must(quire_seq_truncate(world->cache, world->seqs[i], info.length - ROLLBACK));
    }
}

static void decode_steps(world *world, uint32_t context)
{
    const bench_effort *effort = &world->options->effort;
    uint64_t growth = (uint64_t)(effort->runs + effort->warmups) * (STEPS + 1 + ROLLBACK) + world->block_tokens;
    uint32_t longest = (uint32_t)(context + 2 * growth);
    char size[40], count[16];
    stream rows;

    cache_open(world, (uint64_t)SEQUENCES * longest, longest);
    for (int i = 0; i < SEQUENCES; i++) {
        /* Not all at a block's edge at once. */
        size_t length = context + (size_t)i % world->block_tokens;
        bench_random_tokens(&world->seed, world->tokens, length);
        bench_must(quire_seq_open(world->cache, NULL, &world->seqs[i]));
        bench_prefill(world->cache, world->seqs[i], world->tokens, length);
        expect_length(world, world->seqs[i], length);
    }
    stream_open(&rows, ROW_BYTES * SEQUENCES, STEPS);
    snprintf(size, sizeof size, "%d of %s tokens", SEQUENCES, bench_count(count, sizeof count, context));
    bench_racer steps = bench_enter(decode_prepare, decode_body, NULL, world, SEQUENCES * STEPS);
    race_and_report(world, &steps, &rows, "append, per sequence and step", size, "ns", "copy of its table row");
    stream_close(&rows);

    stream_open(&rows, ROLLBACK * sizeof(int32_t), SEQUENCES);
    bench_racer rollback = bench_enter(rollback_prepare, rollback_body, NULL, world, SEQUENCES);
    snprintf(size, sizeof size, "%d tokens back", ROLLBACK);
    race_and_report(world, &rollback, &rows, "truncate, speculative", size, "ns", "copy of the tokens");
    stream_close(&rows);
    quire_cache_close(world->cache);
}

/* ---- reserve, commit, evict -------------------------------------------------------------------------------- */

static uint64_t evictions(world *world)
{
    quire_stats stats = {.size = sizeof stats};

    bench_must(quire_cache_stats(world->cache, &stats));
    return stats.evictions_device;
}

static void reserve_prepare(void *arg)
{
    world *world = arg;

    bench_random_tokens(&world->seed, world->tokens, PROMPT);
    bench_must(quire_seq_open(world->cache, NULL, &world->seqs[0]));
    bench_must(quire_step_begin(world->cache, NULL, &world->step));
    world->evictions = evictions(world);
}

static void reserve_body(void *arg)
{
    world *world = arg;

    bench_must(quire_step_add(world->step, world->seqs[0], world->tokens, PROMPT));
}

static void close_prompt(world *world)
{
    expect_length(world, world->seqs[0], PROMPT);
    bench_must(quire_seq_close(world->cache, world->seqs[0]));
}

/* The prompt is forgotten, so that the next one finds free blocks. */
static void reserve_finish(void *arg)
{
    world *world = arg;

    if (evictions(world) != world->evictions)
        bench_die("a reserve that should find free blocks evicted some");
    bench_must(quire_step_submit(world->step));
    bench_must(quire_step_commit(world->step));
    close_prompt(world);
    bench_must(quire_cache_clear(world->cache));
}

/* The prompt stays cached, so that the next one must evict. */
static void evict_finish(void *arg)
{
    world *world = arg;

    if (evictions(world) - world->evictions != PROMPT / world->block_tokens)
        bench_die("a reserve that should evict %u blocks evicted %llu", PROMPT / world->block_tokens,
                  (unsigned long long)(evictions(world) - world->evictions));
    bench_must(quire_step_submit(world->step));
    bench_must(quire_step_commit(world->step));
    close_prompt(world);
}

static void commit_prepare(void *arg)
{
    world *world = arg;

    reserve_prepare(world);
    reserve_body(world);
    bench_must(quire_step_submit(world->step));
}

static void commit_body(void *arg)
{
    world *world = arg;

    bench_must(quire_step_commit(world->step));
}

static void commit_finish(void *arg)
{
    world *world = arg;

    close_prompt(world);
    bench_must(quire_cache_clear(world->cache));
}

static void prefill_steps(world *world)
{
    uint64_t arena_tokens = world->options->tree_tokens / 8;
    stream blocks;
    char count[16], size[40];

    arena_tokens = arena_tokens < 4 * PROMPT ? 4 * PROMPT : arena_tokens / PROMPT * PROMPT;
    cache_open(world, arena_tokens, CONTEXT);
    stream_open(&blocks, world->block_tokens * sizeof(int32_t), PROMPT / world->block_tokens);
    double operations = PROMPT / world->block_tokens;
    snprintf(size, sizeof size, "%s tokens", bench_count(count, sizeof count, PROMPT));
    bench_racer reserve = bench_enter(reserve_prepare, reserve_body, reserve_finish, world, operations);
    race_and_report(world, &reserve, &blocks, "reserve, per free block", size, "ns", "copy of its tokens");
    bench_racer commit = bench_enter(commit_prepare, commit_body, commit_finish, world, operations);
    race_and_report(world, &commit, &blocks, "commit, per block", size, "ns", "copy of its tokens");

    for (uint64_t filled = 0; filled <= arena_tokens; filled += PROMPT) { /* once round: all are cached */
        reserve_prepare(world);
        reserve_body(world);
        bench_must(quire_step_submit(world->step));
        commit_body(world);
        close_prompt(world);
    }
    snprintf(size, sizeof size, "of %s cached tokens", bench_count(count, sizeof count, arena_tokens));
    bench_racer evict = bench_enter(reserve_prepare, reserve_body, evict_finish, world, operations);
    race_and_report(world, &evict, &blocks, "reserve, per evicted block", size, "ns", "copy of its tokens");
    stream_close(&blocks);
    quire_cache_close(world->cache);
}

/* ---- fork, truncate, close --------------------------------------------------------------------------------- */

static void fork_body(void *arg)
{
    world *world = arg;

    for (int i = 1; i <= HANDLES; i++)
        bench_must(quire_seq_fork(world->cache, world->seqs[0], &world->seqs[i]));
}

static void fork_finish(void *arg)
{
    world *world = arg;

    for (int i = 1; i <= HANDLES; i++) {
        expect_length(world, world->seqs[i], CONTEXT);
        bench_must(quire_seq_close(world->cache, world->seqs[i]));
    }
}

static void matched_prepare(void *arg)
{
    world *world = arg;
    quire_hit hit;

    bench_must(quire_seq_open(world->cache, NULL, &world->seqs[1]));
    bench_must(quire_seq_match(world->cache, world->seqs[1], world->tokens, CONTEXT + 1, &hit));
    if (hit.tokens != CONTEXT)
        bench_die("a match of %d tokens found %zu", CONTEXT, hit.tokens);
}

static void truncate_body(void *arg)
{
    world *world = arg;

    bench_must(quire_seq_truncate(world->cache, world->seqs[1], CONTEXT / 2));
}

static void close_body(void *arg)
{
    world *world = arg;

    bench_must(quire_seq_close(world->cache, world->seqs[1]));
}

static void truncate_finish(void *arg)
{
    world *world = arg;

    expect_length(world, world->seqs[1], CONTEXT / 2);
    close_body(world);
}

static void holders(world *world)
{
    size_t entry = sizeof(int32_t), blocks;
    stream table;

    cache_open(world, 2 * CONTEXT, 2 * CONTEXT);
    blocks = CONTEXT / world->block_tokens;
    bench_random_tokens(&world->seed, world->tokens, CONTEXT + 1);
    bench_must(quire_seq_open(world->cache, NULL, &world->seqs[0]));
    bench_prefill(world->cache, world->seqs[0], world->tokens, CONTEXT);

    stream_open(&table, blocks * entry, HANDLES);
    bench_racer fork = bench_enter(NULL, fork_body, fork_finish, world, (double)HANDLES * (double)blocks);
    race_and_report(world, &fork, &table, "fork, per block", "32k tokens", "ns", "copy of the table");
    stream_close(&table);

    bench_must(quire_seq_close(world->cache, world->seqs[0]));
    stream_open(&table, blocks / 2 * entry, 1);
    bench_racer truncate = bench_enter(matched_prepare, truncate_body, truncate_finish, world, (double)(blocks / 2));
    race_and_report(world, &truncate, &table, "truncate, per block", "32k to 16k tokens", "ns", "copy of the table");
    stream_close(&table);

    stream_open(&table, blocks * entry, 1);
    bench_racer close = bench_enter(matched_prepare, close_body, NULL, world, (double)blocks);
    race_and_report(world, &close, &table, "close, per block", "32k tokens", "ns", "copy of the table");
    stream_close(&table);
    quire_cache_close(world->cache);
}

void bench_core_steps(const bench_options *options, bench_report *report)
{
    world *world = bench_alloc(sizeof *world);

    *world = (struct world){.options = options, .report = report, .seed = 2};
    decode_steps(world, 1024);
    decode_steps(world, 16 * 1024);
    prefill_steps(world);
    holders(world);
    free(world);
}
