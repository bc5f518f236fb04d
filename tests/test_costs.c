/* test_costs.c: what is cheaper to compute than to fetch is computed. The sim device's link has a speed here, and copies take
 * their time on it, so the cache has to find out what a restore costs as it would on a machine. */
#include "support/testing.h"

#include <stdio.h>
#include <string.h>

#include "block/book.h"
#include "cache/cache.h"
#include "device/device_sim.h"
#include "support/small_cache.h"

/* Each of the two prompts fills the arena. */
enum { BLOCKS = 16, PROMPT = BLOCKS * SMALL_BLOCK_TOKENS, WAIT_US = 20 * 1000 * 1000 };

/* A prompt that is on the host and not on the device. */
static quire_cache *cache_with_host_prompt(uint64_t link_bytes_per_s, int32_t *prompt)
{
    quire_options options;
    quire_group group;
    quire_cache *cache = NULL;
    int32_t other[PROMPT + 1];

    small_options(&options, &group, BLOCKS, 8 * BLOCKS);
    options.max_seq_tokens = 2 * PROMPT;
    options.device = "sim:3";
    assert_int_equal(quire_cache_open(&cache, &options), QUIRE_OK);
    small_tokens(prompt, PROMPT + 1, 1);
    small_tokens(other, PROMPT, 1000);
    assert_int_equal(quire_seq_close(cache, small_prompt(cache, 0, prompt, PROMPT, NULL)), QUIRE_OK);
    assert_int_equal(quire_cache_drain(cache, WAIT_US), QUIRE_OK);
    assert_int_equal(quire_seq_close(cache, small_prompt(cache, 0, other, PROMPT, NULL)), QUIRE_OK);
    small_sweep(cache);
    assert_int_equal(quire_cache_drain(cache, WAIT_US), QUIRE_OK);
    quire__device_sim_set_link(cache->device, link_bytes_per_s);
    return cache;
}

/* Restores the two prompts in turn, each pushing the other out and the second one last, so that the link is measured. */
static void measure(quire_cache *cache)
{
    for (int i = 0; i < 4; i++) {
        int32_t other[PROMPT + 1];
        quire_hit hit;
        small_tokens(other, PROMPT + 1, i % 2 ? 1000 : 1);
        quire_seq seq = small_open(cache, 0);
        assert_int_equal(quire_seq_match(cache, seq, other, PROMPT, &hit), QUIRE_OK);
        assert_int_equal(quire_seq_wait(cache, seq, WAIT_US), QUIRE_OK);
        assert_true(hit.host > 0);
        assert_int_equal(quire_seq_close(cache, seq), QUIRE_OK);
    }
}

static quire_hit match(quire_cache *cache, const int32_t *prompt)
{
    quire_hit hit;
    quire_seq seq = small_open(cache, 0);
    assert_int_equal(quire_seq_match(cache, seq, prompt, PROMPT, &hit), QUIRE_OK);
    assert_int_equal(quire_seq_wait(cache, seq, WAIT_US), QUIRE_OK);
    assert_int_equal(quire_seq_close(cache, seq), QUIRE_OK);
    return hit;
}

/* A block of 256 bytes at this speed takes 256 us; so does computing its 4 tokens at 15,625 tokens a second. */
static const uint64_t link = 1000 * 1000;
static const double even = 15625;

static void a_slow_link_recomputes_and_a_fast_one_restores(void **state)
{
    int32_t prompt[PROMPT + 1];
    quire__mover_stats moved;
    quire_hit hit;

    (void)state;
    quire_cache *cache = cache_with_host_prompt(link, prompt);
    measure(cache);
    quire__mover_stats_get(cache->mover, &moved);
    double break_even = SMALL_BLOCK_TOKENS * 1e6 / moved.restore_block_us;
    print_message("a restored block takes %.0f us; break-even at %.0f tokens a second (the link alone: %.0f)\n",
                  moved.restore_block_us, break_even, even);
    assert_true(moved.copies < (moved.restores + moved.offloads) / 4); /* blocks side by side went as one */
    assert_true(moved.restore_block_us >= 250); /* never less than the link's own time, for a sleep only gets longer */

    assert_int_equal(quire_cache_prefill_rate(cache, break_even * 4), QUIRE_OK); /* computing is four times as fast */
    hit = match(cache, prompt);
    assert_int_equal(hit.host, 0);
    assert_int_equal(small_stats(cache).restores_declined, 1);
    assert_true(small_stats(cache).tokens_declined >= PROMPT / 2);
    assert_true(small_stats(cache).restore_block_us > small_stats(cache).compute_block_us);

    assert_int_equal(quire_cache_prefill_rate(cache, break_even / 4), QUIRE_OK); /* and four times as slow */
    hit = match(cache, prompt);
    assert_true(hit.host >= PROMPT / 2); /* what the other prompt left is on the device */
    assert_int_equal(small_stats(cache).restores_declined, 1);
    assert_true(small_stats(cache).restore_block_us < small_stats(cache).compute_block_us);
    assert_int_equal(small_stats(cache).tokens_busy, 0);
    assert_int_equal(quire_cache_check(cache), QUIRE_OK);
    quire_cache_close(cache);
}

static void a_link_that_became_fast_is_noticed(void **state)
{
    int32_t prompt[PROMPT + 1];
    int declined = 0;

    (void)state;
    quire_cache *cache = cache_with_host_prompt(link, prompt);
    measure(cache);
    assert_int_equal(quire_cache_prefill_rate(cache, even * 1000), QUIRE_OK);
    while (match(cache, prompt).host == 0)
        assert_true(++declined < 100);
    print_message("tried again after %d declined restores\n", declined);
    assert_true(declined > 10);
    quire_cache_close(cache);
}

static void an_unknown_rate_restores_everything(void **state)
{
    int32_t prompt[PROMPT + 1];

    (void)state;
    quire_cache *cache = cache_with_host_prompt(link, prompt);
    measure(cache);
    assert_int_equal(quire_cache_prefill_rate(cache, even * 1000), QUIRE_OK);
    assert_int_equal(quire_cache_prefill_rate(cache, 0), QUIRE_OK);
    assert_true(match(cache, prompt).host >= PROMPT / 2);
    assert_int_equal(quire_cache_prefill_rate(cache, -1), QUIRE_EINVAL);
    assert_int_equal(quire_cache_prefill_rate(cache, 0.0 / (even - even)), QUIRE_EINVAL);
    quire_cache_close(cache);
}

/* ---- the decision itself ------------------------------------------------------------------------------------- */

static void many_blocks_are_worth_a_queue_that_few_are_not(void **state)
{
    int32_t prompt[PROMPT + 1];
    quire__plan plan;
    quire_hit hit;
    uint32_t seq;

    (void)state;
    quire_cache *cache = cache_with_host_prompt(0, prompt);
    quire__book *book = cache->book;
    assert_int_equal(quire__plan_open(&plan, &cache->allocator, BLOCKS), QUIRE_OK);
    for (uint32_t blocks = 1; blocks <= BLOCKS; blocks++) {
        /* Each block gains 10 us, and the queue costs 75: eight are worth it, seven are not. */
        quire__book_set_costs(book, &(quire__costs){.restore_block_us = 10, .restore_wait_us = 75, .compute_block_us = 20});
        assert_int_equal(quire__book_seq_open(book, 0, &seq), QUIRE_OK);
        assert_int_equal(quire__book_seq_match(book, seq, prompt, blocks * SMALL_BLOCK_TOKENS + 1, &plan, &hit), QUIRE_OK);
        assert_int_equal(hit.host, blocks >= 8 ? blocks * SMALL_BLOCK_TOKENS : 0);
        for (uint32_t i = 0; i < plan.count; i++)
            quire__book_complete(book, &plan.moves[i], true);
        quire__book_seq_close(book, seq);
        if (plan.count > 0)
            break; /* they are on the device now */
    }
    assert_int_equal(plan.count, 8);
    quire__plan_close(&plan, &cache->allocator);
    quire_cache_close(cache);
}

/* A prompt that shares `common` tokens of the host prompt's last block, and nothing of the next. */
static quire_hit match_part(quire_cache *cache, const int32_t *prompt, uint32_t blocks, uint32_t common)
{
    int32_t tokens[PROMPT + 1];
    quire_hit hit;
    quire_seq seq = small_open(cache, 0);

    memcpy(tokens, prompt, sizeof tokens);
    for (uint32_t i = blocks * SMALL_BLOCK_TOKENS + common; i < PROMPT; i++)
        tokens[i] += 100000;
    assert_int_equal(quire_seq_match(cache, seq, tokens, (blocks + 1) * SMALL_BLOCK_TOKENS + 1, &hit), QUIRE_OK);
    assert_int_equal(quire_seq_wait(cache, seq, WAIT_US), QUIRE_OK);
    assert_int_equal(quire_seq_close(cache, seq), QUIRE_OK);
    return hit;
}

/* Part of a block: costs decide where they are known, else half of it must be wanted. */
static void part_of_a_block_is_restored_when_that_is_cheaper(void **state)
{
    static const struct { double prefill_rate; uint32_t common; bool restored; } cases[] = {
        {0, 1, false}, {0, 2, true}, {1e-3, 1, true}, {1e12, 3, false}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int32_t prompt[PROMPT + 1];
        quire_cache *cache = cache_with_host_prompt(0, prompt);
        measure(cache);
        /* The other prompt was restored last, and left of this one the first block. */
        assert_int_equal(quire_cache_prefill_rate(cache, cases[i].prefill_rate), QUIRE_OK);
        quire_hit hit = match_part(cache, prompt, 1, cases[i].common);
        assert_int_equal(hit.partial, cases[i].restored ? cases[i].common : 0);
        assert_int_equal(hit.host, hit.partial);
        assert_int_equal(small_stats(cache).tokens_declined, cases[i].restored ? 0 : cases[i].common);
        quire_cache_close(cache);
    }
}

/* What sequences hold leaves no room: the tokens that stay on the host are counted, and why. */
static void tokens_left_on_the_host_for_want_of_room_are_counted(void **state)
{
    enum { HELD = BLOCKS - 4 };
    int32_t prompt[PROMPT + 1], other[PROMPT];

    (void)state;
    quire_cache *cache = cache_with_host_prompt(0, prompt);
    small_tokens(other, PROMPT, 5000);
    quire_seq holder = small_prompt(cache, 0, other, HELD * SMALL_BLOCK_TOKENS, NULL);
    quire_hit hit = match(cache, prompt);
    assert_int_equal(hit.host, (BLOCKS - HELD) * SMALL_BLOCK_TOKENS);
    assert_int_equal(small_stats(cache).tokens_no_room, PROMPT - SMALL_BLOCK_TOKENS - hit.host);
    assert_int_equal(small_stats(cache).tokens_declined + small_stats(cache).tokens_busy, 0);
    assert_int_equal(quire_seq_close(cache, holder), QUIRE_OK);
    small_sweep(cache);
    quire_cache_close(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slow_link_recomputes_and_a_fast_one_restores),
        cmocka_unit_test(a_link_that_became_fast_is_noticed),
        cmocka_unit_test(an_unknown_rate_restores_everything),
        cmocka_unit_test(many_blocks_are_worth_a_queue_that_few_are_not),
        cmocka_unit_test(part_of_a_block_is_restored_when_that_is_cheaper),
        cmocka_unit_test(tokens_left_on_the_host_for_want_of_room_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
