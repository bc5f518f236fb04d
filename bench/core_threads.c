/* core_threads.c: threads that each open, match and close their own prompts, and an engine's decode steps beside them.
 *
 * A figure is the rate of all threads over that of one. The limit is the same of threads that share nothing: each compares
 * its prompt with a copy, as often as to take about as long. So a limit of 1.9 says that the machine had 1.9 cores for us. */
#define _GNU_SOURCE 1
#include "core_threads.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_THREADS = 8, ROUNDS = 40, BLOCKS = 128 << 10, ENGINE_SEQUENCES = 64, ENGINE_STEPS = 400, COMPARISONS = 2 };
enum { LONG = 64 * 1024, SHORT = 2 * 1024 };

typedef struct crowd crowd;

typedef struct member {
    crowd *crowd;
    int32_t *prompt, *copy;
    pthread_t thread;
    double began, ended;
    int differences;
} member;

struct crowd {
    quire_cache *cache;
    size_t tokens;
    uint32_t operations; /* of each member; 0: until `stop` */
    void (*operation)(member *member);
    pthread_barrier_t start;
    atomic_bool stop;
    member members[MOST_THREADS];
};

static void match_own(member *member)
{
    crowd *crowd = member->crowd;
    quire_seq seq;
    quire_hit hit;

    bench_must(quire_seq_open(crowd->cache, NULL, &seq));
    bench_must(quire_seq_match(crowd->cache, seq, member->prompt, crowd->tokens + 1, &hit));
    if (hit.tokens != crowd->tokens)
        bench_die("a match of %zu tokens found %zu", crowd->tokens, hit.tokens);
    bench_must(quire_seq_close(crowd->cache, seq));
}

static void compare_own(member *member)
{
    for (int i = 0; i < COMPARISONS; i++) {
        member->differences |= memcmp(member->prompt, member->copy, member->crowd->tokens * sizeof(int32_t));
        __asm__ volatile("" ::: "memory");
    }
}

static void *member_main(void *arg)
{
    member *member = arg;
    crowd *crowd = member->crowd;

    pthread_barrier_wait(&crowd->start);
    member->began = bench_now();
    for (uint32_t i = 0; crowd->operations == 0 ? !atomic_load(&crowd->stop) : i < crowd->operations; i++)
        crowd->operation(member);
    member->ended = bench_now();
    return NULL;
}

static void crowd_start(crowd *crowd, uint32_t threads)
{
    pthread_barrier_init(&crowd->start, NULL, threads + 1);
    atomic_store(&crowd->stop, false);
    for (uint32_t i = 0; i < threads; i++)
        if (pthread_create(&crowd->members[i].thread, NULL, member_main, &crowd->members[i]) != 0)
            bench_die("cannot start a thread");
    pthread_barrier_wait(&crowd->start);
}

static void crowd_join(crowd *crowd, uint32_t threads)
{
    for (uint32_t i = 0; i < threads; i++)
        pthread_join(crowd->members[i].thread, NULL);
    pthread_barrier_destroy(&crowd->start);
}

/* Operations a second, of all, from the first begin to the last end. The best of many short rounds: what else runs on the
 * machine only takes away. */
static double rate(crowd *crowd, uint32_t threads, void (*operation)(member *member))
{
    double best = 0;

    crowd->operation = operation;
    for (int round = 0; round < ROUNDS; round++) {
        crowd_start(crowd, threads);
        crowd_join(crowd, threads);
        double began = crowd->members[0].began, ended = crowd->members[0].ended;
        for (uint32_t i = 1; i < threads; i++) {
            began = crowd->members[i].began < began ? crowd->members[i].began : began;
            ended = crowd->members[i].ended > ended ? crowd->members[i].ended : ended;
        }
        double now = threads * crowd->operations / (ended - began);
        best = now > best ? now : best;
    }
    return best;
}

static bench_sample one(double value)
{
    return (bench_sample){.median = value, .least = value, .most = value, .runs = 1};
}

static void scaling(crowd *crowd, bench_report *report, const char *what, size_t tokens, uint32_t operations)
{
    char count[16];
    double alone, alone_comparing;

    crowd->tokens = tokens;
    crowd->operations = operations;
    alone = rate(crowd, 1, match_own);
    alone_comparing = rate(crowd, 1, compare_own);
    for (uint32_t threads = 2; threads <= MOST_THREADS; threads *= 2) {
        bench_figure figure = {.unit = "x of one",
                               .rate = true,
                               .value = one(rate(crowd, threads, match_own) / alone),
                               .limit = one(rate(crowd, threads, compare_own) / alone_comparing),
                               .limit_name = "threads that share nothing"};
        snprintf(figure.name, sizeof figure.name, "match %s, %s", bench_count(count, sizeof count, tokens), what);
        snprintf(figure.size, sizeof figure.size, "%u threads", threads);
        bench_report_figure(report, &figure);
    }
}

/* Another sequence has each prompt. */
static void hold_all(crowd *crowd, quire_seq *holders)
{
    quire_hit hit;

    for (int i = 0; i < MOST_THREADS; i++) {
        bench_must(quire_seq_open(crowd->cache, NULL, &holders[i]));
        bench_must(quire_seq_match(crowd->cache, holders[i], crowd->members[i].prompt, LONG + 1, &hit));
    }
}

/* ---- an engine beside them --------------------------------------------------------------------------------------- */

typedef struct engine {
    quire_cache *cache;
    quire_seq seqs[ENGINE_SEQUENCES];
    double times[ENGINE_STEPS];
} engine;

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static bench_sample engine_run(engine *engine)
{
    const int32_t token = 7;

    for (int i = 0; i < ENGINE_SEQUENCES; i++)
        bench_must(quire_seq_open(engine->cache, NULL, &engine->seqs[i]));
    for (int s = 0; s < ENGINE_STEPS; s++) {
        quire_step *step;
        double begin = bench_now();
        bench_must(quire_step_begin(engine->cache, NULL, &step));
        for (int i = 0; i < ENGINE_SEQUENCES; i++)
            bench_must(quire_step_add(step, engine->seqs[i], &token, 1));
        bench_must(quire_step_submit(step));
        bench_must(quire_step_commit(step));
        engine->times[s] = bench_now() - begin;
    }
    for (int i = 0; i < ENGINE_SEQUENCES; i++)
        bench_must(quire_seq_close(engine->cache, engine->seqs[i]));
    qsort(engine->times, ENGINE_STEPS, sizeof *engine->times, compare);
    return (bench_sample){.median = engine->times[ENGINE_STEPS / 2],
                          .least = engine->times[0],
                          .most = engine->times[ENGINE_STEPS - 1],
                          .runs = ENGINE_STEPS,
                          .p99 = engine->times[ENGINE_STEPS * 99 / 100]};
}

static void beside_engine(crowd *crowd, bench_report *report, size_t tokens)
{
    static engine engine;
    char count[16];

    engine.cache = crowd->cache;
    crowd->tokens = tokens;
    crowd->operations = 0;
    for (uint32_t threads = 1; threads <= MOST_THREADS; threads *= 2) {
        void (*const operations[])(member *) = {match_own, compare_own};
        bench_sample samples[2];
        for (int i = 0; i < 2; i++) {
            crowd->operation = operations[i];
            crowd_start(crowd, threads);
            samples[i] = bench_scale(engine_run(&engine), 1e6);
            atomic_store(&crowd->stop, true);
            crowd_join(crowd, threads);
        }
        bench_figure figure = {
            .unit = "us", .value = samples[0], .limit = samples[1], .limit_name = "they compare, and share nothing"};
        snprintf(figure.name, sizeof figure.name, "step of %d, others match %s", ENGINE_SEQUENCES,
                 bench_count(count, sizeof count, tokens));
        snprintf(figure.size, sizeof figure.size, "%u other threads", threads);
        bench_report_figure(report, &figure);
    }
}

void bench_core_threads(const bench_options *options, bench_report *report)
{
    quire_seq holders[MOST_THREADS];
    static crowd crowd;
    quire_options cache;
    quire_group group;
    uint64_t seed = 5;
    size_t bytes = (LONG + 1) * sizeof(int32_t);

    (void)options;
    bench_bookkeeping(&cache, &group, BLOCKS);
    cache.max_sequences = 2 * MOST_THREADS + ENGINE_SEQUENCES;
    cache.max_seq_tokens = LONG + cache.block_tokens;
    cache.max_step_tokens = LONG;
    bench_must(quire_cache_open(&crowd.cache, &cache));
    for (int i = 0; i < MOST_THREADS; i++) {
        member *member = &crowd.members[i];
        quire_seq seq;
        *member = (struct member){.crowd = &crowd, .prompt = bench_alloc(bytes), .copy = bench_alloc(bytes)};
        bench_random_tokens(&seed, member->prompt, LONG + 1);
        memcpy(member->copy, member->prompt, bytes);
        bench_must(quire_seq_open(crowd.cache, NULL, &seq));
        bench_prefill(crowd.cache, seq, member->prompt, LONG);
        bench_must(quire_seq_close(crowd.cache, seq));
    }
    scaling(&crowd, report, "cached", SHORT, 1500);
    scaling(&crowd, report, "cached", LONG, 60);
    hold_all(&crowd, holders);
    scaling(&crowd, report, "shared", SHORT, 1500);
    scaling(&crowd, report, "shared", LONG, 60);
    beside_engine(&crowd, report, LONG);
    for (int i = 0; i < MOST_THREADS; i++)
        bench_must(quire_seq_close(crowd.cache, holders[i]));
    bench_must(quire_cache_check(crowd.cache));
    quire_cache_close(crowd.cache);
    for (int i = 0; i < MOST_THREADS; i++) {
        free(crowd.members[i].copy);
        free(crowd.members[i].prompt);
    }
}
