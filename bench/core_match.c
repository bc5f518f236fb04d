/* core_match.c: a tree of long random prompts, and matches of their beginnings.
 *
 *   prompts   [count][LONGEST + 1]   what is asked for; the last token is left to compute
 *   copies    the same once more     what memcmp compares the prompts with
 *   table     the chained-hash alternative, over the same prompts
 *
 * Three race: the match, memcmp of the same bytes, and the chained hash. Cold, each of them starts after its own walk
 * over a large buffer. */
#define _GNU_SOURCE 1
#include "core_match.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/hash.h"
#include "chained.h"

enum {
    LONGEST = 128 * 1024,
    MOST_CALLS = 8, /* of one timed run */
    FLUSH_LEAST = 128 << 20
};

typedef struct world {
    quire_cache *cache;
    int32_t *prompts, *copies, *found;
    size_t count;
    bench_chained *table;
    unsigned char *flush;
    size_t flush_bytes;
    uint64_t seed;
} world;

typedef enum heat {
    HOT,        /* the same prompt again; no sequence has it */
    HOT_SHARED, /* the same, while another sequence has it */
    COLD        /* a random prompt of the tree, from memory; no sequence has it */
} heat;

typedef struct race {
    world *world;
    size_t tokens, prompt;
    uint32_t calls;
    heat heat;
    quire_seq seqs[MOST_CALLS];
    quire_hit hits[MOST_CALLS];
    int differences;
    size_t found;
} race;

static int32_t *prompt_of(const world *world, size_t index)
{
    return world->prompts + index * (LONGEST + 1);
}

/* Huge pages, so that what is measured is the structures and not the TLB of our own arrays. */
static void *take_pages(size_t bytes)
{
    void *memory = NULL;

    if (posix_memalign(&memory, 2 << 20, bytes) != 0)
        bench_die("no memory for %zu bytes; ask for a smaller --tree", bytes);
    (void)madvise(memory, bytes, MADV_HUGEPAGE);
    return memory;
}

/* ---- the world --------------------------------------------------------------------------------------------- */

static void fill_tree(world *world)
{
    for (size_t i = 0; i < world->count; i++) {
        quire_seq seq;
        bench_random_tokens(&world->seed, prompt_of(world, i), LONGEST + 1);
        bench_must(quire_seq_open(world->cache, NULL, &seq));
        bench_prefill(world->cache, seq, prompt_of(world, i), LONGEST);
        bench_must(quire_seq_close(world->cache, seq));
        bench_chained_insert(world->table, prompt_of(world, i), LONGEST);
    }
    memcpy(world->copies, world->prompts, world->count * (LONGEST + 1) * sizeof(int32_t));
}

static void world_open(world *world, const bench_options *options)
{
    quire_options cache_options;
    quire_group group;
    long cache_bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);

    *world = (struct world){.seed = 1, .count = (size_t)(options->tree_tokens / LONGEST)};
    if (world->count == 0)
        bench_die("--tree is %llu tokens; give at least one prompt of %d", (unsigned long long)options->tree_tokens,
                  LONGEST);
    bench_bookkeeping(&cache_options, &group, 1);
    size_t blocks = world->count * (LONGEST / cache_options.block_tokens);
    bench_bookkeeping(&cache_options, &group, blocks + 1);
    cache_options.max_sequences = MOST_CALLS + 2;
    cache_options.max_seq_tokens = LONGEST + cache_options.block_tokens;
    cache_options.max_step_tokens = LONGEST;
    bench_must(quire_cache_open(&world->cache, &cache_options));

    size_t prompt_bytes = world->count * (LONGEST + 1) * sizeof(int32_t);
    world->prompts = take_pages(prompt_bytes);
    world->copies = take_pages(prompt_bytes);
    world->found = bench_alloc((LONGEST / cache_options.block_tokens + 1) * sizeof(int32_t));
    world->table = bench_chained_open(blocks, cache_options.block_tokens);
    world->flush_bytes = cache_bytes > 0 ? (size_t)cache_bytes * BENCH_FLUSH_FACTOR : FLUSH_LEAST;
    world->flush_bytes = world->flush_bytes < FLUSH_LEAST ? FLUSH_LEAST : world->flush_bytes;
    world->flush = take_pages(world->flush_bytes);
    memset(world->flush, 1, world->flush_bytes);
    fill_tree(world);
}

static void world_close(world *world)
{
    quire_cache_close(world->cache);
    bench_chained_close(world->table);
    free(world->found);
    free(world->flush);
    free(world->copies);
    free(world->prompts);
}

/* ---- the racers -------------------------------------------------------------------------------------------- */

static void choose(race *race)
{
    world *world = race->world;

    if (race->heat != COLD)
        return;
    race->prompt = (size_t)(quire__random(&world->seed) % world->count);
    for (size_t i = 0; i < world->flush_bytes; i += 64)
        world->flush[i]++;
}

static void match_once(race *race, quire_seq seq, quire_hit *hit)
{
    bench_must(quire_seq_match(race->world->cache, seq, prompt_of(race->world, race->prompt), race->tokens + 1, hit));
}

static void match_prepare(void *arg)
{
    race *race = arg;
    quire_hit hit;
    quire_seq seq;

    choose(race);
    if (race->heat != COLD) {
        bench_must(quire_seq_open(race->world->cache, NULL, &seq));
        match_once(race, seq, &hit);
        bench_must(quire_seq_close(race->world->cache, seq));
    }
    for (uint32_t i = 0; i < race->calls; i++)
        bench_must(quire_seq_open(race->world->cache, NULL, &race->seqs[i]));
}

static void match_body(void *arg)
{
    race *race = arg;

    for (uint32_t i = 0; i < race->calls; i++)
        match_once(race, race->seqs[i], &race->hits[i]);
}

static void match_finish(void *arg)
{
    race *race = arg;

    for (uint32_t i = 0; i < race->calls; i++) {
        if (race->hits[i].tokens != race->tokens || race->hits[i].device != race->tokens || !race->hits[i].ready)
            bench_die("a match of %zu tokens found %zu", race->tokens, race->hits[i].tokens);
        bench_must(quire_seq_close(race->world->cache, race->seqs[i]));
    }
}

static void compare_body(void *arg)
{
    race *race = arg;
    const int32_t *prompt = prompt_of(race->world, race->prompt);
    const int32_t *copy = race->world->copies + (prompt - race->world->prompts);

    for (uint32_t i = 0; i < race->calls; i++) {
        race->differences |= memcmp(prompt, copy, race->tokens * sizeof(int32_t));
        __asm__ volatile("" ::: "memory"); /* else one comparison would do for all */
    }
}

static void compare_prepare(void *arg)
{
    race *race = arg;

    choose(race);
    if (race->heat != COLD)
        compare_body(race);
}

static void compare_finish(void *arg)
{
    race *race = arg;

    if (race->differences != 0)
        bench_die("the copy of prompt %zu is none", race->prompt);
}

static void chained_body(void *arg)
{
    race *race = arg;
    world *world = race->world;

    for (uint32_t i = 0; i < race->calls; i++)
        race->found =
            bench_chained_match(world->table, prompt_of(world, race->prompt), race->tokens, world->found);
}

static void chained_prepare(void *arg)
{
    race *race = arg;

    choose(race);
    if (race->heat != COLD)
        chained_body(race);
}

static void chained_finish(void *arg)
{
    race *race = arg;

    if (race->found != race->tokens / quire_cache_options(race->world->cache)->block_tokens)
        bench_die("the chained hash found %zu blocks of %zu tokens", race->found, race->tokens);
}

static void run(world *world, const bench_options *options, bench_report *report, size_t tokens, heat heat)
{
    static const char *const names[] = {"match, hot", "match, hot, shared", "match, cold"};
    race races[3];
    char size[16];

    for (int i = 0; i < 3; i++)
        races[i] = (race){.world = world, .tokens = tokens, .calls = heat == HOT_SHARED ? MOST_CALLS : 1, .heat = heat};
    quire_seq holder = 0;
    if (heat == HOT_SHARED) {
        bench_must(quire_seq_open(world->cache, NULL, &holder));
        match_once(&races[0], holder, &races[0].hits[0]);
    }
    double calls = races[0].calls;
    bench_racer racers[] = {
        bench_enter(match_prepare, match_body, match_finish, &races[0], calls),
        bench_enter(compare_prepare, compare_body, compare_finish, &races[1], calls),
        bench_enter(chained_prepare, chained_body, chained_finish, &races[2], calls),
    };
    bench_race(&options->effort, racers, 3);
    bench_figure figure = {.unit = "us",
                           .value = bench_scale(racers[0].sample, 1e6),
                           .limit = bench_scale(racers[1].sample, 1e6),
                           .baseline = bench_scale(racers[2].sample, 1e6),
                           .limit_name = "memcmp of the tokens",
                           .baseline_name = "chained hash"};
    snprintf(figure.name, sizeof figure.name, "%s", names[heat]);
    snprintf(figure.size, sizeof figure.size, "%s tokens", bench_count(size, sizeof size, tokens));
    bench_report_figure(report, &figure);
    if (heat == HOT_SHARED)
        bench_must(quire_seq_close(world->cache, holder));
}

void bench_core_match(const bench_options *options, bench_report *report)
{
    static const size_t lengths[] = {4 * 1024, 32 * 1024, LONGEST};
    world world;

    world_open(&world, options);
    for (heat heat = HOT; heat <= COLD; heat++)
        for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
            run(&world, options, report, lengths[i], heat);
    world_close(&world);
}
