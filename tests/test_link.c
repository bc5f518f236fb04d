/* test_link.c: restores and offloads on one link that serves copies in the order in which they were enqueued, which is the worst
 * that a link can do: a restore then waits for whatever was enqueued before it. It must never be more than one batch of offloads,
 * however many blocks wait to be offloaded. And what hangs on a link must not keep what is behind it for ever. */
#include "support/testing.h"

#include <stdio.h>

#include "base/clock.h"
#include "cache/cache.h"
#include "device/device_sim.h"
#include "support/small_cache.h"

enum { DEVICE_BLOCKS = 160, HOST_BLOCKS = 400, PROMPT_BLOCKS = 12, TURNS = 20, TURN_BLOCKS = 6, WAIT_US = 60 * 1000 * 1000 };
enum { PROMPT = PROMPT_BLOCKS * SMALL_BLOCK_TOKENS, BLOCK_US = 1000 }; /* a block's time on the link */

static void evict_everything(quire_cache *cache)
{
    int32_t other[DEVICE_BLOCKS * SMALL_BLOCK_TOKENS];
    small_tokens(other, DEVICE_BLOCKS * SMALL_BLOCK_TOKENS, 100000);
    for (int i = 0; i < 4; i++) { /* the arena, a quarter at a time */
        quire_seq seq = small_prompt(cache, 0, other + i * DEVICE_BLOCKS / 4 * SMALL_BLOCK_TOKENS,
                                     DEVICE_BLOCKS / 4 * SMALL_BLOCK_TOKENS, NULL);
        assert_int_equal(quire_seq_close(cache, seq), QUIRE_OK);
        assert_int_equal(quire_cache_drain(cache, WAIT_US), QUIRE_OK);
    }
}

static quire_cache *cache_with_host_prompt(int32_t *prompt)
{
    quire_options options;
    quire_group group;
    quire_cache *cache = NULL;

    small_options(&options, &group, DEVICE_BLOCKS, HOST_BLOCKS);
    options.device = "sim:3";
    options.policy = "lru";
    options.max_seq_tokens = DEVICE_BLOCKS * SMALL_BLOCK_TOKENS;
    options.max_step_tokens = DEVICE_BLOCKS * SMALL_BLOCK_TOKENS;
    assert_int_equal(quire_cache_open(&cache, &options), QUIRE_OK);
    quire__device_sim_set_link(cache->device, SMALL_BLOCK_BYTES * UINT64_C(1000000) / BLOCK_US);
    quire__device_sim_share_link(cache->device);
    small_tokens(prompt, PROMPT + 1, 1);
    assert_int_equal(quire_seq_close(cache, small_prompt(cache, 0, prompt, PROMPT, NULL)), QUIRE_OK);
    assert_int_equal(quire_cache_drain(cache, WAIT_US), QUIRE_OK);
    evict_everything(cache);
    small_sweep(cache);
    return cache;
}

static quire__mover_stats moved(quire_cache *cache)
{
    quire__mover_stats stats;
    quire__mover_stats_get(cache->mover, &stats);
    return stats;
}

/* Restores the prompt; returns its time, and how many blocks were offloaded while it was under way. */
static uint64_t restore(quire_cache *cache, const int32_t *prompt, uint64_t *offloaded)
{
    quire_hit hit;
    quire_seq seq = small_open(cache, 0);
    uint64_t from = quire__clock_us();

    assert_int_equal(quire_seq_match(cache, seq, prompt, PROMPT + 1, &hit), QUIRE_OK);
    assert_int_equal(hit.host, PROMPT);
    uint64_t before = moved(cache).offloads; /* the restore is planned; what had ended is counted */
    assert_int_equal(quire_seq_wait(cache, seq, WAIT_US), QUIRE_OK);
    uint64_t took = quire__clock_us() - from;
    *offloaded = moved(cache).offloads - before;
    assert_int_equal(quire_seq_close(cache, seq), QUIRE_OK);
    return took;
}

static void a_restore_waits_for_one_batch_of_offloads_at_most(void **state)
{
    int32_t prompt[PROMPT + 1], turn[TURN_BLOCKS * SMALL_BLOCK_TOKENS];
    uint64_t offloaded;

    (void)state;
    quire_cache *cache = cache_with_host_prompt(prompt);
    uint64_t alone = restore(cache, prompt, &offloaded);
    assert_int_equal(offloaded, 0);
    evict_everything(cache);
    for (int i = 0; i < TURNS; i++) { /* steps much faster than the link */
        small_tokens(turn, TURN_BLOCKS * SMALL_BLOCK_TOKENS, 200000 + 1000 * i);
        assert_int_equal(quire_seq_close(cache, small_prompt(cache, 0, turn, TURN_BLOCKS * SMALL_BLOCK_TOKENS, NULL)), QUIRE_OK);
    }
    uint32_t backlog = moved(cache).offloading;
    uint64_t behind = restore(cache, prompt, &offloaded);
    print_message("a restore of %d blocks: %.1f ms alone, %.1f ms with %u blocks to be offloaded (%.1f ms), %llu of them before it\n",
                  PROMPT_BLOCKS, 1e-3 * (double)alone, 1e-3 * (double)behind, backlog, 1e-3 * backlog * BLOCK_US,
                  (unsigned long long)offloaded);
    /* A batch is what the link moves in 10 ms. */
    assert_true(backlog > 10000 / BLOCK_US + TURN_BLOCKS);
    assert_true(offloaded <= 10000 / BLOCK_US);
    small_sweep(cache);
    assert_int_equal(quire_cache_drain(cache, WAIT_US), QUIRE_OK);
    assert_int_equal(moved(cache).offloading, 0);
    assert_int_equal(moved(cache).offload_failures, 0);
    assert_int_equal(quire_cache_check(cache), QUIRE_OK);
    quire_cache_close(cache);
}

static void what_waits_behind_a_copy_that_hangs_is_given_up_in_time_too(void **state)
{
    int32_t turn[TURN_BLOCKS * SMALL_BLOCK_TOKENS];
    int32_t prompt[PROMPT + 1];

    (void)state;
    quire_cache *cache = cache_with_host_prompt(prompt);
    quire__device_sim_set_link(cache->device, SMALL_BLOCK_BYTES * 10); /* a tenth of a second a block: as good as for ever */
    quire__mover_set_timeout(cache->mover, 1000);
    for (int i = 0; i < 3; i++) {
        small_tokens(turn, TURN_BLOCKS * SMALL_BLOCK_TOKENS, 200000 + 1000 * i);
        assert_int_equal(quire_seq_close(cache, small_prompt(cache, 0, turn, TURN_BLOCKS * SMALL_BLOCK_TOKENS, NULL)), QUIRE_OK);
    }
    while (moved(cache).offloading > TURN_BLOCKS) { /* those that are not on the link */
        assert_int_equal(quire_cache_poll(cache), QUIRE_OK);
        quire__clock_sleep_us(100);
    }
    assert_int_equal(moved(cache).late, TURN_BLOCKS);
    assert_int_equal(moved(cache).offload_failures, 2 * TURN_BLOCKS);
    
    assert_int_equal(quire_cache_check(cache), QUIRE_OK);
    small_sweep(cache);
    quire_cache_close(cache);
}

/* Two restores, of which the first hangs: the second's sequence is told as well. */
static void a_restore_behind_one_that_hangs_ends_in_time_too(void **state)
{
    int32_t prompt[PROMPT + 1];
    quire_hit hit;
    quire_seq seqs[2];

    (void)state;
    quire_cache *cache = cache_with_host_prompt(prompt);
    quire__device_sim_set_link(cache->device, SMALL_BLOCK_BYTES * 10);
    quire__mover_set_timeout(cache->mover, 1000);
    for (int i = 0; i < 2; i++) {
        seqs[i] = small_open(cache, 0);
        assert_int_equal(quire_seq_match(cache, seqs[i], prompt, (size_t)(2 * i + 2) * SMALL_BLOCK_TOKENS + 1, &hit), QUIRE_OK);
        assert_int_equal(hit.tokens, (2 * i + 2) * SMALL_BLOCK_TOKENS);
    }
    quire__clock_sleep_us(1000);
    assert_int_equal(quire_cache_poll(cache), QUIRE_OK);
    assert_int_equal(moved(cache).late, 4);
    for (int i = 0; i < 2; i++) {
        quire_seq_info info;
        assert_int_equal(quire_seq_get(cache, seqs[i], &info), QUIRE_OK);
        assert_true(info.ready);
        assert_int_equal(info.length, 0);
        assert_int_equal(quire_seq_close(cache, seqs[i]), QUIRE_OK);
    }
    assert_int_equal(quire_cache_check(cache), QUIRE_OK);
    small_sweep(cache);
    quire_cache_close(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_restore_waits_for_one_batch_of_offloads_at_most),
        cmocka_unit_test(what_waits_behind_a_copy_that_hangs_is_given_up_in_time_too),
        cmocka_unit_test(a_restore_behind_one_that_hangs_ends_in_time_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
