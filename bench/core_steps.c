/* core_steps.c: blocks are taken, sealed, evicted, and given back. Each row beside a copy of the bytes that the operation
 * cannot avoid writing: the tokens of its blocks; of a decode step, a sequence's entries in the arrays that kernels
 * read, and its token. */
#include "core_steps.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/book.h"

enum {
    PROMPTS = 12,
    REPETITIONS = 3,
    STEPS = 64,
    ROLLBACK = 4,
    CONTEXT = 1024,
    ROW_BYTES = 32 /* length, start, slot (8), position, row, decode list; and the token */
};

/* ---- long prompts ---------------------------------------------------------------------------------------------- */

typedef struct growth {
    bench_world *world;
    bool evicting;
    uint64_t evictions;
    quire_seq seq;
} growth;

static void take_prepare(void *arg, uint32_t i)
{
    growth *growth = arg;
    bench_world *world = growth->world;

    (void)i;
    bench_random_tokens(&world->seed, world->tokens, world->length);
    bench_must(quire_seq_open(world->cache, NULL, &growth->seq));
    bench_must(quire_step_begin(world->cache, NULL, &world->step));
    growth->evictions = bench_world_evictions(world);
}

static void take_body(void *arg, uint32_t i)
{
    growth *growth = arg;

    (void)i;
    bench_must(quire_step_add(growth->world->step, growth->seq, growth->world->tokens, growth->world->length));
}

static void submit(growth *growth)
{
    uint64_t evicted = bench_world_evictions(growth->world) - growth->evictions;

    if (evicted != (growth->evicting ? growth->world->path : 0))
        bench_die("%u blocks were taken, and %llu evicted", growth->world->path, (unsigned long long)evicted);
    bench_must(quire_step_submit(growth->world->step));
}

static void commit_body(void *arg, uint32_t i)
{
    growth *growth = arg;

    (void)i;
    bench_must(quire_step_commit(growth->world->step));
}

static void close_prompt(growth *growth)
{
    quire_seq_info info;

    bench_must(quire_seq_get(growth->world->cache, growth->seq, &info));
    if (info.length != growth->world->length)
        bench_die("a sequence has %zu tokens of %u", info.length, growth->world->length);
    bench_must(quire_seq_close(growth->world->cache, growth->seq));
}

static void take_finish(void *arg, uint32_t i)
{
    submit(arg);
    commit_body(arg, i);
    close_prompt(arg);
}

static void commit_prepare(void *arg, uint32_t i)
{
    take_prepare(arg, i);
    take_body(arg, i);
    submit(arg);
}

static void commit_finish(void *arg, uint32_t i)
{
    (void)i;
    close_prompt(arg);
}

static void forget(void *arg)
{
    growth *growth = arg;

    if (!growth->evicting)
        bench_must(quire_cache_clear(growth->world->cache));
}

static void race(bench_world *world, bench_series own, const char *name, uint32_t operations)
{
    bench_stream tokens;

    bench_stream_open(&tokens, world->block_tokens * sizeof(int32_t), world->path);
    bench_series series[] = {own, bench_stream_series(&tokens, world->path)};
    bench_series_run(series, 2, operations, REPETITIONS);
    bench_world_report(world, name, "ns/block", 1e9, series, 2, "copy of its tokens");
    bench_stream_close(&tokens);
}

void bench_core_take(bench_world *world)
{
    growth growth = {.world = world};
    uint64_t fit = world->blocks / world->path;
    uint32_t operations = fit < PROMPTS ? (uint32_t)fit : PROMPTS;

    race(world, (bench_series){.begin = forget, .prepare = take_prepare, .body = take_body, .finish = take_finish,
                               .arg = &growth, .operations = world->path},
         "reserve, blocks are free", operations);
    race(world, (bench_series){.begin = forget, .prepare = commit_prepare, .body = commit_body,
                               .finish = commit_finish, .arg = &growth, .operations = world->path},
         "commit", operations);
}

void bench_core_evict(bench_world *world)
{
    growth growth = {.world = world, .evicting = true};

    race(world, (bench_series){.prepare = take_prepare, .body = take_body, .finish = take_finish, .arg = &growth,
                               .operations = world->path},
         "reserve, each block evicts one", PROMPTS);
}

/* ---- short sequences ------------------------------------------------------------------------------------------- */

typedef struct batch {
    bench_world *world;
    uint32_t count; /* sequences */
} batch;

static void step_all(batch *batch, size_t each)
{
    bench_world *world = batch->world;

    bench_must(quire_step_begin(world->cache, NULL, &world->step));
    for (uint32_t i = 0; i < batch->count; i++)
        bench_must(quire_step_add(world->step, world->seqs[i], world->tokens + i, each));
    bench_must(quire_step_submit(world->step));
    bench_must(quire_step_commit(world->step));
}

static void decode_prepare(void *arg, uint32_t i)
{
    batch *batch = arg;

    (void)i;
    bench_random_tokens(&batch->world->seed, batch->world->tokens, batch->count + ROLLBACK);
}

static void decode_body(void *arg, uint32_t i)
{
    (void)i;
    step_all(arg, 1);
}

static void rollback_begin(void *arg)
{
    decode_prepare(arg, 0);
    step_all(arg, ROLLBACK);
}

static uint32_t length_of(bench_world *world, uint32_t i)
{
    quire_seq_info info;

    bench_must(quire_seq_get(world->cache, world->seqs[i], &info));
    return (uint32_t)info.length;
}

static void rollback_prepare(void *arg, uint32_t i)
{
    batch *batch = arg;

    batch->world->path = length_of(batch->world, i) - ROLLBACK;
}

static void rollback_body(void *arg, uint32_t i)
{
    batch *batch = arg;

    bench_must(quire_seq_truncate(batch->world->cache, batch->world->seqs[i], batch->world->path));
}

/* As many sequences, as long, as half of the arena has room for. */
static uint32_t open_batch(batch *batch)
{
    bench_world *world = batch->world;
    uint64_t room = world->blocks * world->block_tokens / 2;
    uint64_t growth = STEPS * REPETITIONS + 2 * ROLLBACK * REPETITIONS + 2 * world->block_tokens;

    batch->count = BENCH_SEQUENCES;
    while (batch->count > 1 && room / batch->count < growth + growth / 4)
        batch->count /= 2;
    uint64_t context = room / batch->count - growth;
    context = context < CONTEXT ? context : CONTEXT;
    context = context < world->length / 2 ? context : world->length / 2;
    for (uint32_t i = 0; i < batch->count; i++) {
        uint32_t length = (uint32_t)context + i % world->block_tokens; /* not all at a block's edge at once */
        bench_random_tokens(&world->seed, world->tokens, length);
        bench_must(quire_seq_open(world->cache, NULL, &world->seqs[i]));
        bench_prefill(world->cache, world->seqs[i], world->tokens, length);
    }
    return (uint32_t)context;
}

void bench_core_decode(bench_world *world)
{
    batch batch = {.world = world};
    bench_stream rows, four;
    char name[40];
    uint32_t path = world->path;

    (void)open_batch(&batch);
    bench_stream_open(&rows, ROW_BYTES, batch.count);
    bench_series decode[] = {{.prepare = decode_prepare, .body = decode_body, .arg = &batch, .operations = 1},
                             bench_stream_series(&rows, 1)};
    bench_series_run(decode, 2, STEPS, REPETITIONS);
    snprintf(name, sizeof name, "decode step, %u sequences", batch.count);
    bench_world_report(world, name, "us", 1e6, decode, 2, "copy of its rows");
    bench_stream_close(&rows);

    bench_stream_open(&four, ROLLBACK * sizeof(int32_t), 1);
    bench_series rollback[] = {{.begin = rollback_begin, .prepare = rollback_prepare, .body = rollback_body,
                                .arg = &batch, .operations = 1},
                               bench_stream_series(&four, 1)};
    bench_series_run(rollback, 2, batch.count, REPETITIONS);
    bench_world_report(world, "roll back 4 tokens", "ns", 1e9, rollback, 2, "copy of the tokens");
    bench_stream_close(&four);
    world->path = path;
    for (uint32_t i = 0; i < batch.count; i++)
        bench_must(quire_seq_close(world->cache, world->seqs[i]));
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

static void *counting_alloc(void *user, size_t bytes)
{
    *(size_t *)user += bytes;
    return malloc(bytes);
}

static void counting_free(void *user, void *memory)
{
    (void)user;
    free(memory);
}

static double book_bytes(const bench_world *world, uint64_t blocks)
{
    size_t taken = 0;
    const quire_options *options = quire_cache_options(world->cache);
    quire__book *book;
    quire__book_config config = {.block_tokens = world->block_tokens,
                                 .device_slots = (uint32_t)blocks,
                                 .max_sequences = 1,
                                 .max_seq_tokens = world->block_tokens,
                                 .max_domains = 1,
                                 .hash_key = 1,
                                 .policy = options->policy,
                                 .allocator = {counting_alloc, counting_free, &taken}};

    bench_must(quire__book_open(&book, &config));
    quire__book_close(book);
    return (double)taken;
}

/* The difference of two arenas, so that what does not grow with the arena is left out. */
void bench_core_memory(bench_world *world)
{
    uint64_t blocks = world->blocks < 1 << 20 ? world->blocks : 1 << 20;
    double each = (book_bytes(world, blocks) - book_bytes(world, blocks / 2)) / ((double)blocks - (double)(blocks / 2));
    double tokens = world->block_tokens * sizeof(int32_t);
    bench_series series[] = {{.sample = {each, each, each, 1, each}}, {.sample = {tokens, tokens, tokens, 1, tokens}}};

    bench_world_report(world, "metadata with tokens", "B/block", 1, series, 2, "its tokens");
}
