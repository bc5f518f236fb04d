/* test_host_pin.c: a host tier whose memory is pinned piece by piece behind the cache's back. The sim device holds pieces back
 * until the test lets them come, and breaks when a copy meets memory that is not pinned yet. */
#include "support/testing.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "cache/cache.h"
#include "device/device_sim.h"
#include "support/small_cache.h"

enum { WAIT_US = 20 * 1000 * 1000, DEVICE_BLOCKS = 8, HOST_BLOCKS = 30, PIECE_BLOCKS = 4, PIECES = 8, PROMPT = 24 };

static void pinned_in_pieces(quire_options *options, quire_group *group, const char *device)
{
    small_options(options, group, DEVICE_BLOCKS, HOST_BLOCKS);
    options->host_pin = QUIRE_HOST_PIN_BACKGROUND;
    options->device = device;
    options->host_pin_bytes = PIECE_BLOCKS * SMALL_BLOCK_BYTES;
}

static quire_cache *open_held(const char *device, uint32_t pieces)
{
    quire_options options;
    quire_group group;
    quire_cache *cache = NULL;

    quire__device_sim_set_pins(pieces, UINT32_MAX);
    pinned_in_pieces(&options, &group, device);
    assert_int_equal(quire_cache_open(&cache, &options), QUIRE_OK);
    return cache;
}

/* Until the tier has so many blocks: pieces that are allowed come, sooner or later. */
static void wait_for_blocks(quire_cache *cache, uint32_t blocks)
{
    uint64_t deadline = quire__clock_us() + WAIT_US;

    while (small_stats(cache).host_total < blocks && quire__clock_us() < deadline) {
        assert_int_equal(quire_cache_poll(cache), QUIRE_OK);
        quire__clock_sleep_us(200);
    }
    assert_int_equal(small_stats(cache).host_total, blocks);
}

/* A prompt is computed, or comes back, and has the right bytes; then the tier is at rest. Returns the tokens that came back. */
static uint64_t prompt_is_right(quire_cache *cache, int32_t first)
{
    int32_t tokens[PROMPT + 1];
    uint32_t blocks, changed;
    quire_hit hit;

    small_tokens(tokens, PROMPT + 1, first);
    quire_seq seq = small_open(cache, 0);
    assert_int_equal(quire_seq_match(cache, seq, tokens, PROMPT + 1, &hit), QUIRE_OK);
    assert_int_equal(quire_seq_wait(cache, seq, WAIT_US), QUIRE_OK);
    if (hit.tokens < PROMPT)
        assert_int_equal(small_append(cache, seq, tokens + hit.tokens, PROMPT - hit.tokens), QUIRE_OK);
    small_sweep(cache);
    const int32_t *table = quire__book_seq_table(cache->book, (uint32_t)seq - 1, &blocks, &changed, false);
    assert_true(blocks * SMALL_BLOCK_TOKENS >= PROMPT);
    for (uint32_t t = 0; t < PROMPT; t++) {
        float value;
        memcpy(&value, cache->arena + (size_t)table[t / SMALL_BLOCK_TOKENS] * SMALL_BLOCK_BYTES +
                           t % SMALL_BLOCK_TOKENS * 8 * sizeof(float), sizeof value);
        assert_true(value == (float)tokens[t]);
    }
    assert_int_equal(quire_seq_close(cache, seq), QUIRE_OK);
    assert_int_equal(quire_cache_drain(cache, WAIT_US), QUIRE_OK);
    assert_int_equal(quire_cache_check(cache), QUIRE_OK);
    return hit.host;
}

static void the_first_piece_serves_while_the_others_are_being_pinned(void **state)
{
    (void)state;
    for (int seed = 1; seed <= 20; seed++) {
        char device[32];
        snprintf(device, sizeof device, "sim:%d", seed);
        quire_cache *cache = open_held(device, 1); /* returns, with seven pieces to come */
        uint64_t back = 0;
        assert_int_equal(small_stats(cache).host_total, PIECE_BLOCKS);
        for (int i = 0; i < 4; i++)
            back += prompt_is_right(cache, i % 2 ? 1000 : 1);
        assert_true(small_stats(cache).offloads > 0 && small_stats(cache).host_total == PIECE_BLOCKS);
        quire__device_sim_allow_pins(4);
        wait_for_blocks(cache, 4 * PIECE_BLOCKS);
        for (int i = 0; i < 4; i++)
            back += prompt_is_right(cache, i % 2 ? 1000 : 1);
        quire__device_sim_allow_pins(UINT32_MAX);
        wait_for_blocks(cache, HOST_BLOCKS);
        for (int i = 0; i < 8; i++)
            back += prompt_is_right(cache, 1000 * (i % 4));
        assert_true(back > 0);
        quire_cache_close(cache);
    }
}

static bool missing_memory_is_seen(void)
{
    quire_cache *cache = open_held("sim:1", 1);
    int32_t tokens[PROMPT];
    quire__book_host_grow(cache->book, HOST_BLOCKS); /* what the growth in take_in keeps from happening */
    small_tokens(tokens, PROMPT, 1);
    if (small_append(cache, small_open(cache, 0), tokens, PROMPT) != QUIRE_OK)
        return false;
    (void)quire_cache_drain(cache, WAIT_US);
    return quire__device_stream_synchronize(cache->device, cache->stream) == QUIRE_EDEVICE &&
           strstr(quire_error_text(), "memory") != NULL;
}

/* In a child, for a simulated stream that has failed cannot be waited for any more, so nothing of it can be taken down. */
static void a_slot_before_its_memory_would_be_seen(void **state)
{
    (void)state;
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        _exit(missing_memory_is_seen() ? 0 : 1);
    }
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void *let_go(void *arg)
{
    (void)arg;
    quire__clock_sleep_us(2000);
    quire__device_sim_allow_pins(UINT32_MAX);
    return NULL;
}

static void a_cache_closes_in_the_middle(void **state)
{
    (void)state;
    for (uint32_t pieces = 1; pieces < PIECES; pieces++) {
        pthread_t thread;
        quire_cache *cache = open_held("sim:2", pieces);
        (void)prompt_is_right(cache, 1);
        assert_int_equal(pthread_create(&thread, NULL, let_go, NULL), 0);
        quire_cache_close(cache); /* waits for the piece that is held */
        assert_int_equal(pthread_join(thread, NULL), 0);
    }
    for (int i = 0; i < 20; i++) { /* wherever it is */
        quire_cache *cache = open_held(i % 2 ? "host" : "sim:3", UINT32_MAX);
        if (i % 4 > 1)
            (void)prompt_is_right(cache, 1);
        quire_cache_close(cache);
    }
}

/* ---- what cannot be pinned ----------------------------------------------------------------------------------- */

typedef struct diary {
    quire_cache *cache;
    int lines;
    char last[256];
} diary;

static void write_line(void *user, quire_log_level level, const char *line)
{
    diary *diary = user;
    if (level != QUIRE_LOG_WARN || strstr(line, "host tier") == NULL)
        return;
    diary->lines++;
    snprintf(diary->last, sizeof diary->last, "%s", line);
    assert_int_equal(quire_cache_poll(diary->cache), QUIRE_OK); /* without the lock, so that it may */
}

static void a_piece_that_cannot_be_pinned_leaves_a_smaller_tier(void **state)
{
    quire_options options;
    quire_group group;
    diary diary = {0};

    (void)state;
    quire__device_sim_set_pins(UINT32_MAX, 3);
    pinned_in_pieces(&options, &group, "sim:4");
    options.log_level = QUIRE_LOG_WARN;
    options.log = write_line;
    options.log_user = &diary;
    assert_int_equal(quire_cache_open(&diary.cache, &options), QUIRE_OK);
    wait_for_blocks(diary.cache, 3 * PIECE_BLOCKS);
    while (quire__host_tier_fault(quire__mover_host_tier(diary.cache->mover)) == NULL)
        quire__clock_sleep_us(100);
    for (int i = 0; i < 6; i++)
        (void)prompt_is_right(diary.cache, 1000 * (i % 3));
    assert_int_equal(small_stats(diary.cache).host_total, 3 * PIECE_BLOCKS);
    assert_int_equal(diary.lines, 1);
    assert_non_null(strstr(diary.last, "stays at 12 of 30 blocks: device sim:4: no more memory can be pinned"));
    quire_cache_close(diary.cache);
    quire__device_sim_set_pins(UINT32_MAX, UINT32_MAX);
}

static void pinned_at_open_there_is_all_of_it_or_an_error(void **state)
{
    quire_options options;
    quire_group group;
    quire_cache *cache = NULL;

    (void)state;
    for (uint32_t good = 0; good <= PIECES; good++) {
        quire__device_sim_set_pins(UINT32_MAX, good);
        pinned_in_pieces(&options, &group, "sim:5");
        options.host_pin = QUIRE_HOST_PIN_OPEN;
        assert_int_equal(quire_cache_open(&cache, &options), good == PIECES ? QUIRE_OK : QUIRE_ENOMEM);
    }
    assert_int_equal(small_stats(cache).host_total, HOST_BLOCKS);
    quire_cache_close(cache);
    quire__device_sim_set_pins(UINT32_MAX, 0);
    options.host_pin = QUIRE_HOST_PIN_BACKGROUND; /* not even the first piece */
    assert_int_equal(quire_cache_open(&cache, &options), QUIRE_ENOMEM);
    quire__device_sim_set_pins(UINT32_MAX, UINT32_MAX);
}

/* ---- decisions ----------------------------------------------------------------------------------------------- */

enum { EVENTS = 4096 };

/* What a cache says of a made-up day, once its tier is all there. */
static size_t a_day(quire_host_pin pin, uint64_t piece_bytes, quire_event *events, quire_stats *stats)
{
    quire_options options;
    quire_group group;
    quire_cache *cache = NULL;
    size_t count = 0;

    pinned_in_pieces(&options, &group, "host");
    options.host_pin = pin;
    options.host_pin_bytes = piece_bytes;
    options.event_capacity = EVENTS;
    options.policy = "lru"; /* which asks for no time */
    assert_int_equal(quire_cache_open(&cache, &options), QUIRE_OK);
    wait_for_blocks(cache, HOST_BLOCKS);
    for (int i = 0; i < 60; i++)
        (void)prompt_is_right(cache, 1000 * (i * 7 % 5 + i * i % 3));
    assert_int_equal(quire_cache_events(cache, events, EVENTS, &count), QUIRE_OK);
    *stats = small_stats(cache);
    stats->restore_block_us = 0; /* a measurement, and no decision */
    quire_cache_close(cache);
    return count;
}

static void a_tier_that_is_all_there_decides_as_one_that_was_from_the_start(void **state)
{
    static quire_event whole[EVENTS], grown[EVENTS];
    quire_stats whole_stats, grown_stats;

    (void)state;
    size_t count = a_day(QUIRE_HOST_PIN_OPEN, UINT64_MAX >> 20, whole, &whole_stats);
    assert_int_equal(a_day(QUIRE_HOST_PIN_BACKGROUND, SMALL_BLOCK_BYTES, grown, &grown_stats), count);
    assert_true(count > 100 && whole_stats.hit_tokens_host > 0 && whole_stats.evictions_host > 0);
    assert_memory_equal(whole, grown, count * sizeof *whole);
    assert_memory_equal(&whole_stats, &grown_stats, sizeof whole_stats);
}

static void a_recorded_cache_is_pinned_at_open(void **state)
{
    quire_options options;
    quire_group group;
    quire_cache *cache = NULL;
    char path[] = "/tmp/quire-pin-XXXXXX";

    (void)state;
    int file = mkstemp(path);
    assert_true(file >= 0);
    (void)close(file);
    pinned_in_pieces(&options, &group, "host");
    options.trace = path;
    assert_int_equal(quire_cache_open(&cache, &options), QUIRE_OK);
    assert_int_equal(quire_cache_options(cache)->host_pin, QUIRE_HOST_PIN_OPEN);
    assert_int_equal(small_stats(cache).host_total, HOST_BLOCKS);
    quire_cache_close(cache);
    (void)unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_piece_serves_while_the_others_are_being_pinned),
        cmocka_unit_test(a_slot_before_its_memory_would_be_seen),
        cmocka_unit_test(a_cache_closes_in_the_middle),
        cmocka_unit_test(a_piece_that_cannot_be_pinned_leaves_a_smaller_tier),
        cmocka_unit_test(pinned_at_open_there_is_all_of_it_or_an_error),
        cmocka_unit_test(a_tier_that_is_all_there_decides_as_one_that_was_from_the_start),
        cmocka_unit_test(a_recorded_cache_is_pinned_at_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
