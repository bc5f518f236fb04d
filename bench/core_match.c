/* core_match.c: a long prompt and what is done with it. What is found is checked after each operation. */
#include "core_match.h"

#include <stdlib.h>
#include <string.h>

enum { HOT = 32, COLD = 8, REPETITIONS = 5, COLD_REPETITIONS = 3, PIECES = 256, MISSES = 64, FORKS = 8 };

/* Long prompts, one behind the other, each with one token more than is ever cached. */
typedef struct prompts {
    bench_world *world;
    uint32_t count;
    bool cold;
    int32_t *tokens, *copies, *found;
    bench_chained *table;
    quire_seq seq, child;
    quire_hit hit;
    int differences;
    size_t blocks_found;
    volatile int32_t same;
} prompts;

static int32_t *prompt_of(const prompts *prompts, uint32_t i)
{
    return prompts->tokens + (size_t)(i % prompts->count) * (prompts->world->length + 1);
}

/* ---- a match and its racers ------------------------------------------------------------------------------------ */

static void match_prepare(void *arg, uint32_t i)
{
    prompts *prompts = arg;
    bench_world *world = prompts->world;

    bench_must(quire_seq_open(world->cache, NULL, &prompts->seq));
    if (prompts->cold) {
        bench_world_flush(world);
        return;
    }
    quire_seq warm;
    bench_must(quire_seq_open(world->cache, NULL, &warm));
    bench_must(quire_seq_match(world->cache, warm, prompt_of(prompts, i), world->length + 1, &prompts->hit));
    bench_must(quire_seq_close(world->cache, warm));
}

static void match_body(void *arg, uint32_t i)
{
    prompts *prompts = arg;
    bench_world *world = prompts->world;

    bench_must(quire_seq_match(world->cache, prompts->seq, prompt_of(prompts, i), world->length + 1, &prompts->hit));
}

static void match_check(const prompts *prompts)
{
    size_t length = prompts->world->length;

    if (prompts->hit.tokens != length || prompts->hit.device != length || !prompts->hit.ready)
        bench_die("a match of %zu tokens found %zu", length, prompts->hit.tokens);
}

static void match_finish(void *arg, uint32_t i)
{
    prompts *prompts = arg;

    (void)i;
    match_check(prompts);
    bench_must(quire_seq_close(prompts->world->cache, prompts->seq));
}

static void compare_body(void *arg, uint32_t i)
{
    prompts *prompts = arg;
    const int32_t *prompt = prompt_of(prompts, i);

    prompts->differences |=
        memcmp(prompt, prompts->copies + (prompt - prompts->tokens), prompts->world->length * sizeof(int32_t));
    __asm__ volatile("" ::: "memory"); /* else one comparison would do for all */
}

static void compare_prepare(void *arg, uint32_t i)
{
    prompts *prompts = arg;

    if (prompts->cold)
        bench_world_flush(prompts->world);
    else
        compare_body(arg, i);
}

static void chained_body(void *arg, uint32_t i)
{
    prompts *prompts = arg;

    prompts->blocks_found =
        bench_chained_match(prompts->table, prompt_of(prompts, i), prompts->world->length, prompts->found);
}

static void chained_prepare(void *arg, uint32_t i)
{
    prompts *prompts = arg;

    if (prompts->cold)
        bench_world_flush(prompts->world);
    else
        chained_body(arg, i);
}

static void race_match(prompts *prompts, const char *name)
{
    uint32_t operations = prompts->cold ? COLD : HOT;
    bench_series series[] = {
        {.prepare = match_prepare, .body = match_body, .finish = match_finish, .arg = prompts, .operations = 1},
        {.prepare = compare_prepare, .body = compare_body, .arg = prompts, .operations = 1},
        {.prepare = chained_prepare, .body = chained_body, .arg = prompts, .operations = 1},
    };

    bench_series_run(series, 3, operations, prompts->cold ? COLD_REPETITIONS : REPETITIONS);
    if (prompts->differences != 0 || prompts->blocks_found != prompts->world->path)
        bench_die("a copy of a prompt is none, or the chained hash found %zu blocks of %u", prompts->blocks_found,
                  prompts->world->path);
    bench_world_report(prompts->world, name, "us", 1e6, series, 3, "memcmp of the tokens");
}

/* ---- prompts --------------------------------------------------------------------------------------------------- */

static void prompts_open(prompts *prompts, bench_world *world, uint32_t count)
{
    size_t each = world->length + 1, bytes = count * each * sizeof(int32_t);

    *prompts = (struct prompts){.world = world, .count = count};
    prompts->tokens = bench_alloc(bytes);
    prompts->copies = bench_alloc(bytes);
    prompts->found = bench_alloc((world->path + 1) * sizeof(int32_t));
    prompts->table = bench_chained_open((size_t)count * world->path, world->block_tokens);
    bench_random_tokens(&world->seed, prompts->tokens, count * each);
    memcpy(prompts->copies, prompts->tokens, bytes);
    for (uint32_t i = 0; i < count; i++)
        bench_chained_insert(prompts->table, prompt_of(prompts, i), world->length);
}

static void prompts_close(prompts *prompts)
{
    bench_chained_close(prompts->table);
    free(prompts->found);
    free(prompts->copies);
    free(prompts->tokens);
}

/* Into an empty arena, which has room for them: in a full one a policy may well evict what has just come, rather than
 * the prompts of before. */
static void cache_all(prompts *prompts)
{
    bench_must(quire_cache_clear(prompts->world->cache));
    for (uint32_t i = 0; i < prompts->count; i++)
        bench_world_ensure(prompts->world, prompt_of(prompts, i), prompts->world->length);
}

/* In an empty arena too, the prompt grows by requests that each add a piece; between them other requests take a block each,
 * so that a piece's blocks do not follow those of the last. */
static void cache_in_pieces(prompts *prompts)
{
    bench_world *world = prompts->world;
    uint32_t piece = (world->path / PIECES > 0 ? world->path / PIECES : 1) * world->block_tokens;

    bench_must(quire_cache_clear(world->cache));
    for (uint32_t done = 0; done < world->length;) {
        int32_t other[256 + 1];
        bench_random_tokens(&world->seed, other, world->block_tokens);
        bench_world_ensure(world, other, world->block_tokens);
        done = world->length - done > piece ? done + piece : world->length;
        bench_world_ensure(world, prompts->tokens, done);
    }
}

/* ---- a miss ---------------------------------------------------------------------------------------------------- */

static void miss_prepare(void *arg, uint32_t i)
{
    prompts *prompts = arg;

    (void)i;
    prompts->tokens[0] = -1 - prompts->tokens[0]; /* a first block that is nowhere */
    bench_must(quire_seq_open(prompts->world->cache, NULL, &prompts->seq));
}

static void miss_finish(void *arg, uint32_t i)
{
    prompts *prompts = arg;

    (void)i;
    prompts->tokens[0] = -1 - prompts->tokens[0];
    if (prompts->hit.tokens != 0)
        bench_die("a match of what was never there found %zu tokens", prompts->hit.tokens);
    bench_must(quire_seq_close(prompts->world->cache, prompts->seq));
}

static void one_block_body(void *arg, uint32_t i)
{
    prompts *prompts = arg;

    (void)i;
    prompts->same = memcmp(prompts->tokens, prompts->copies, prompts->world->block_tokens * sizeof(int32_t));
    __asm__ volatile("" ::: "memory");
}

/* The last row of these prompts. */
static void race_miss(prompts *prompts)
{
    bench_series series[] = {
        {.prepare = miss_prepare, .body = match_body, .finish = miss_finish, .arg = prompts, .operations = 1},
        {.body = one_block_body, .arg = prompts, .operations = 1},
    };

    prompts->count = 1;
    bench_series_run(series, 2, MISSES, REPETITIONS);
    bench_world_report(prompts->world, "miss", "us", 1e6, series, 2, "memcmp of one block");
}

/* ---- what follows a match ---------------------------------------------------------------------------------------- */

static void admit_body(void *arg, uint32_t i)
{
    prompts *prompts = arg;
    bench_world *world = prompts->world;

    match_body(arg, i);
    bench_must(quire_step_begin(world->cache, NULL, &world->step));
    bench_must(quire_step_add(world->step, prompts->seq, prompt_of(prompts, i) + world->length, 1));
}

static void admit_finish(void *arg, uint32_t i)
{
    prompts *prompts = arg;

    quire_step_cancel(prompts->world->step);
    match_finish(arg, i);
}

static void matched_prepare(void *arg, uint32_t i)
{
    match_prepare(arg, i);
    match_body(arg, i);
    match_check(arg);
}

static void close_body(void *arg, uint32_t i)
{
    prompts *prompts = arg;

    (void)i;
    bench_must(quire_seq_close(prompts->world->cache, prompts->seq));
}

static void fork_body(void *arg, uint32_t i)
{
    prompts *prompts = arg;

    (void)i;
    bench_must(quire_seq_fork(prompts->world->cache, prompts->seq, &prompts->child));
}

static void fork_finish(void *arg, uint32_t i)
{
    prompts *prompts = arg;
    quire_seq_info info;

    bench_must(quire_seq_get(prompts->world->cache, prompts->child, &info));
    if (info.length != prompts->world->length)
        bench_die("a fork has %zu tokens of %u", info.length, prompts->world->length);
    bench_must(quire_seq_close(prompts->world->cache, prompts->child));
    close_body(arg, i);
}

static void race_lifetime(prompts *prompts)
{
    bench_stream table;

    bench_series admit[] = {
        {.prepare = match_prepare, .body = admit_body, .finish = admit_finish, .arg = prompts, .operations = 1},
        {.prepare = compare_prepare, .body = compare_body, .arg = prompts, .operations = 1},
    };
    bench_series_run(admit, 2, HOT, REPETITIONS);
    bench_world_report(prompts->world, "admit after a full hit", "us", 1e6, admit, 2, "memcmp of the tokens");

    bench_stream_open(&table, prompts->world->path * sizeof(int32_t), 1);
    bench_series fork[] = {
        {.prepare = matched_prepare, .body = fork_body, .finish = fork_finish, .arg = prompts, .operations = 1},
        bench_stream_series(&table, 1),
    };
    bench_series_run(fork, 2, FORKS, REPETITIONS);
    bench_world_report(prompts->world, "fork", "us", 1e6, fork, 2, "copy of the table");

    bench_series release[] = {
        {.prepare = matched_prepare, .body = close_body, .arg = prompts, .operations = 1},
        bench_stream_series(&table, 1),
    };
    bench_series_run(release, 2, HOT, REPETITIONS);
    bench_world_report(prompts->world, "free", "us", 1e6, release, 2, "copy of the table");
    bench_stream_close(&table);
}

void bench_core_match(bench_world *world)
{
    uint64_t fit = world->blocks / world->path - (world->blocks % world->path > world->path / 8 ? 0 : 1);
    prompts prompts;
    quire_seq holder;

    prompts_open(&prompts, world, fit < 1 ? 1 : fit < COLD ? (uint32_t)fit : COLD);
    cache_all(&prompts);
    race_match(&prompts, "match, hot");
    bench_must(quire_seq_open(world->cache, NULL, &holder));
    bench_must(quire_seq_match(world->cache, holder, prompts.tokens, world->length + 1, &prompts.hit));
    uint32_t all = prompts.count;
    prompts.count = 1; /* the one that is held */
    race_match(&prompts, "match, hot, shared");
    bench_must(quire_seq_close(world->cache, holder));
    prompts.count = all;
    prompts.cold = true;
    race_match(&prompts, "match, cold");
    prompts.cold = false;
    race_lifetime(&prompts);
    race_miss(&prompts);
    prompts_close(&prompts);

    prompts_open(&prompts, world, 1);
    cache_in_pieces(&prompts);
    race_match(&prompts, "match, hot, of 256 requests");
    prompts.cold = true;
    race_match(&prompts, "match, cold, of 256 requests");
    prompts_close(&prompts);
}
