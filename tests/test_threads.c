/* Many threads, one cache: each with sequences of its own, one of them an engine with steps. What they are told must make
 * sense, and at the end every invariant holds. ThreadSanitizer looks on. */
#include "support/testing.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "support/small_cache.h"

enum {
    CALLERS = 4,
    PROMPTS = 12,
    LONGEST = 100 * SMALL_BLOCK_TOKENS, /* long enough for a match that gives the lock back on its way */
    OWN = 3                             /* sequences of a caller at a time */
};

typedef struct crew {
    quire_cache *cache;
    int32_t prompts[PROMPTS][LONGEST + 1];
    uint32_t rounds;
    uint64_t seed;
    atomic_uint callers; /* that are not done */
    atomic_int line;     /* of the first expectation that failed; 0: none */
    char text[200];      /* what the library said then */
    pthread_mutex_t shared;
    quire_seq common; /* nobody's own */
} crew;

typedef struct caller {
    crew *crew;
    uint64_t random;
    pthread_t thread;
} caller;

/* Assertions of the test library jump, which only its own thread may. */
static void expect(crew *crew, bool fine, int line)
{
    int none = 0;
    if (!fine && atomic_compare_exchange_strong(&crew->line, &none, line))
        snprintf(crew->text, sizeof crew->text, "%s", quire_error_text());
}
#define EXPECT(crew, condition) expect(crew, condition, __LINE__)

/* Prompts share beginnings of all lengths. */
static void write_prompts(crew *crew, uint64_t *random)
{
    for (int p = 0; p < PROMPTS; p++) {
        uint32_t common = p == 0 ? 0 : (uint32_t)(quire__random(random) % LONGEST);
        memcpy(crew->prompts[p], crew->prompts[p / 2], common * sizeof(int32_t));
        for (uint32_t i = common; i <= LONGEST; i++)
            crew->prompts[p][i] = (int32_t)(quire__random(random) % 50);
    }
}

static void match_some(crew *crew, quire_seq seq, uint64_t pick)
{
    quire_hit hit;
    quire_seq_info info;
    size_t count = 1 + (pick >> 8) % LONGEST;
    EXPECT(crew, quire_seq_match(crew->cache, seq, crew->prompts[pick % PROMPTS], count, &hit) == QUIRE_OK);
    EXPECT(crew, hit.tokens < count && hit.device + hit.host == hit.tokens);
    EXPECT(crew, quire_seq_wait(crew->cache, seq, 10000000) == QUIRE_OK);
    EXPECT(crew, quire_seq_get(crew->cache, seq, &info) == QUIRE_OK);
    EXPECT(crew, info.ready && (hit.host == 0 ? info.length == hit.tokens : info.length <= hit.tokens));
}

static void look_around(crew *crew, uint64_t pick)
{
    quire_hit hit;
    quire_stats stats = {.size = sizeof stats};
    quire_event events[16];
    size_t count;
    EXPECT(crew, quire_cache_probe(crew->cache, 0, crew->prompts[pick % PROMPTS], LONGEST, &hit) == QUIRE_OK);
    EXPECT(crew, quire_cache_stats(crew->cache, &stats) == QUIRE_OK);
    EXPECT(crew, stats.device_free + stats.device_open + stats.device_used + stats.device_cached + stats.device_moving ==
                     stats.device_total);
    EXPECT(crew, quire_cache_events(crew->cache, events, 16, &count) == QUIRE_OK);
    int32_t tokens[SMALL_BLOCK_TOKENS];
    for (size_t i = 0; i < count; i++) {
        quire_status status = quire_block_tokens(crew->cache, events[i].block, tokens);
        EXPECT(crew, status == QUIRE_OK || status == QUIRE_ESTALE);
    }
    /* Somebody else's: it may be in a call, or gone; it is never taken for another. */
    pthread_mutex_lock(&crew->shared);
    quire_seq common = crew->common;
    pthread_mutex_unlock(&crew->shared);
    quire_seq_info info;
    quire_status status = quire_seq_get(crew->cache, common, &info);
    EXPECT(crew, status == QUIRE_OK || status == QUIRE_ESTALE || status == QUIRE_ESTATE);
}

static void *call(void *arg)
{
    caller *caller = arg;
    crew *crew = caller->crew;
    quire_seq own[OWN] = {0};
    for (uint32_t i = 0; i < crew->rounds && atomic_load(&crew->line) == 0; i++) {
        uint64_t pick = quire__random(&caller->random);
        quire_seq *seq = &own[pick % OWN], child;
        pick >>= 4;
        if (*seq == 0) {
            EXPECT(crew, quire_seq_open(crew->cache, NULL, seq) == QUIRE_OK);
            pthread_mutex_lock(&crew->shared);
            crew->common = *seq;
            pthread_mutex_unlock(&crew->shared);
            match_some(crew, *seq, pick);
        } else if (pick % 4 == 0) {
            quire_seq_info info;
            EXPECT(crew, quire_seq_get(crew->cache, *seq, &info) == QUIRE_OK);
            EXPECT(crew, quire_seq_truncate(crew->cache, *seq, (pick >> 8) % (info.length + 1)) == QUIRE_OK);
        } else if (pick % 4 == 1) {
            EXPECT(crew, quire_seq_fork(crew->cache, *seq, &child) == QUIRE_OK);
            EXPECT(crew, quire_seq_close(crew->cache, *seq) == QUIRE_OK);
            *seq = child;
        } else if (pick % 4 == 2) {
            look_around(crew, pick >> 8);
        } else {
            EXPECT(crew, quire_seq_close(crew->cache, *seq) == QUIRE_OK);
            *seq = 0;
        }
    }
    for (int i = 0; i < OWN; i++)
        if (own[i] != 0)
            EXPECT(crew, quire_seq_close(crew->cache, own[i]) == QUIRE_OK);
    atomic_fetch_sub(&crew->callers, 1);
    return NULL;
}

/* Computes prompts: so many, and until the others are done. */
static void run_engine(crew *crew, uint64_t *random, int least)
{
    for (int i = 0; (i < least || atomic_load(&crew->callers) > 0) && atomic_load(&crew->line) == 0; i++) {
        const int32_t *prompt = crew->prompts[quire__random(random) % PROMPTS];
        size_t count = 2 + quire__random(random) % (LONGEST - 1);
        quire_seq seq = 0;
        quire_step *step = NULL;
        quire_hit hit;
        EXPECT(crew, quire_seq_open(crew->cache, NULL, &seq) == QUIRE_OK);
        EXPECT(crew, quire_seq_match(crew->cache, seq, prompt, count, &hit) == QUIRE_OK);
        EXPECT(crew, quire_seq_wait(crew->cache, seq, 10000000) == QUIRE_OK);
        EXPECT(crew, hit.tokens < count && quire_step_begin(crew->cache, NULL, &step) == QUIRE_OK);
        quire_seq_info info; /* shorter than the hit where a restore has failed */
        EXPECT(crew, quire_seq_get(crew->cache, seq, &info) == QUIRE_OK && info.length <= hit.tokens);
        hit.tokens = info.length;
        quire_status status = quire_step_add(step, seq, prompt + hit.tokens, count - hit.tokens);
        EXPECT(crew, status == QUIRE_OK || status == QUIRE_EFULL);
        if (status == QUIRE_OK)
            status = quire_step_submit(step);
        if (status == QUIRE_OK && quire__random(random) % 8 > 0)
            EXPECT(crew, quire_step_commit(step) == QUIRE_OK);
        else
            quire_step_cancel(step);
        if (quire__random(random) % 64 == 0)
            EXPECT(crew, quire_cache_clear(crew->cache) == QUIRE_OK);
        EXPECT(crew, quire_seq_close(crew->cache, seq) == QUIRE_OK);
    }
}

static void run_crew(const char *device, uint64_t seed)
{
    static crew crew;
    caller callers[CALLERS];
    quire_options options;
    quire_group group;

    small_options(&options, &group, 420, 200);
    options.device = device;
    options.max_sequences = CALLERS * OWN + CALLERS + 1;
    options.max_step_tokens = LONGEST;
    crew = (struct crew){.rounds = test_is_small() ? 2000 : 20000, .seed = seed, .callers = CALLERS};
    pthread_mutex_init(&crew.shared, NULL);
    write_prompts(&crew, &seed);
    assert_int_equal(quire_cache_open(&crew.cache, &options), QUIRE_OK);
    crew.callers = 0;
    run_engine(&crew, &seed, PROMPTS); /* so that there is something to find */
    crew.callers = CALLERS;
    for (int i = 0; i < CALLERS; i++) {
        callers[i] = (caller){.crew = &crew, .random = quire__random(&seed)};
        assert_int_equal(pthread_create(&callers[i].thread, NULL, call, &callers[i]), 0);
    }
    run_engine(&crew, &seed, 2 * PROMPTS);
    for (int i = 0; i < CALLERS; i++)
        pthread_join(callers[i].thread, NULL);
    if (crew.line != 0)
        fail_msg("device %s: line %d: %s", device, crew.line, crew.text);
    assert_int_equal(quire_cache_drain(crew.cache, 10000000), QUIRE_OK);
    if (quire_cache_check(crew.cache) != QUIRE_OK)
        fail_msg("device %s: %s", device, quire_error_text());
    quire_stats stats = {.size = sizeof stats};
    assert_int_equal(quire_cache_stats(crew.cache, &stats), QUIRE_OK);
    assert_int_equal(stats.sequences, 0);
    assert_int_equal(stats.device_used, 0);
    assert_true(stats.blocks_sealed > 0 && stats.hit_tokens_device > 0);
    quire_cache_close(crew.cache);
    pthread_mutex_destroy(&crew.shared);
}

static void threads_with_their_own_sequences_share_a_cache_on_the_host(void **state)
{
    (void)state;
    run_crew("host", test_seed("threads, host", 41));
}

static void threads_with_their_own_sequences_share_a_cache_on_the_simulated_device(void **state)
{
    (void)state;
    run_crew("sim:5", test_seed("threads, sim", 42));
}

/* ---- errors are the thread's own --------------------------------------------------------------------------------- */

static void *fail_once(void *arg)
{
    (void)arg;
    return quire_cache_poll(NULL) == QUIRE_EINVAL ? (void *)(uintptr_t)strlen(quire_error_text()) : NULL;
}

static void the_error_text_is_the_threads_own(void **state)
{
    (void)state;
    char before[200];
    pthread_t thread;
    void *length;
    assert_int_equal(quire_cache_open(NULL, NULL), QUIRE_EINVAL);
    snprintf(before, sizeof before, "%s", quire_error_text());
    assert_int_equal(pthread_create(&thread, NULL, fail_once, NULL), 0);
    pthread_join(thread, &length);
    assert_non_null(length);
    assert_string_equal(quire_error_text(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_with_their_own_sequences_share_a_cache_on_the_host),
        cmocka_unit_test(threads_with_their_own_sequences_share_a_cache_on_the_simulated_device),
        cmocka_unit_test(the_error_text_is_the_threads_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
