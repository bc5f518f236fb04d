/* test_restore_parts.c: steps that run ahead of their restores, layer by layer. Every byte is checked on the sim device; then a
 * link with a speed shows how much of a restore's time is left for a sequence to wait. */
#include "support/testing.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "cache/cache.h"
#include "device/device_sim.h"
#include "support/fences.h"
#include "support/small_cache.h"
#include "support/world_seeds.h"

enum { WAIT_US = 20 * 1000 * 1000 };

static world_options world_of(uint64_t seed)
{
    static const uint32_t block_tokens[] = {4, 1, 8, 16, 2};
    uint32_t tokens = block_tokens[seed % 5];
    return (world_options){.seed = seed,
                           .block_tokens = tokens,
                           .device_blocks = (seed % 2 ? 50 : 150) / tokens + 4,
                           .host_blocks = 400 / tokens + 2,
                           .operations = 200,
                           .two_streams = true,
                           .elastic = seed % 3 == 0,
                           .restore_parts = 2};
}

static void every_byte_is_right_for_steps_that_run_ahead(void **state)
{
    (void)state;
    world_result sum;
    run_seeds(seed_count(120), world_of, NO_TROUBLE, &sum);
    assert_true(sum.ahead > 0 && sum.lost == 0);
}

static void a_restore_that_fails_takes_its_rows_out_of_the_step(void **state)
{
    (void)state;
    world_result failing, late, corrupt;
    run_seeds(seed_count(100), world_of, FAILING_COPIES, &failing);
    run_seeds(seed_count(60), world_of, LATE_COPIES, &late);
    run_seeds(seed_count(40), world_of, CORRUPT_HOST, &corrupt);
    assert_true(failing.ahead > 0 && failing.lost + late.lost > 0);
}

static void removing_a_layers_wait_for_its_part_is_seen(void **state)
{
    (void)state;
    some_seed_must_fail(world_of, 200, (missing_fence){.fence = "a layer's wait for its part",
                                                       .mover_holes = QUIRE__MOVER_HOLE_PARTS});
}

/* ---- with time ----------------------------------------------------------------------------------------------- */

enum { LAYERS = 16, PROMPT = 256, LAYER_US = 2000, LINK_MS = 40 };

typedef struct timing {
    uint64_t total_us; /* from the match to the end of the step's last layer, by the clock of who computes */
    bool ahead;        /* the step was open while blocks were arriving */
} timing;

/* Every block takes so long on the link from here on. */
static void link_of(quire_cache *cache, double block_us)
{
    quire__device_sim_set_link(cache->device, (uint64_t)((double)cache->layout.block_bytes * 1e6 / block_us));
}

/* A submitted step of that one token, as soon as the sequence may have one. */
static quire_step *step_ahead(quire_cache *cache, quire_seq seq, int32_t token)
{
    quire_step *step = NULL;
    quire_status status = QUIRE_EAGAIN;

    while (status == QUIRE_EAGAIN) {
        assert_int_equal(quire_step_begin(cache, NULL, &step), QUIRE_OK);
        status = quire_step_add(step, seq, &token, 1);
        if (status == QUIRE_EAGAIN)
            quire_step_cancel(step);
    }
    assert_int_equal(status, QUIRE_OK);
    assert_int_equal(quire_step_submit(step), QUIRE_OK);
    return step;
}

/* A prompt comes back from the host over a link that needs LINK_MS for it, into a model that needs LAYER_US a layer. */
static timing restored_step(uint32_t parts)
{
    quire_options options;
    quire_group group;
    quire_cache *cache = NULL;
    int32_t prompt[PROMPT + 1];
    timing t = {0};
    quire_hit hit;

    small_options(&options, &group, PROMPT / SMALL_BLOCK_TOKENS + 2, 0);
    group.layers = LAYERS;
    options.device = "sim:5";
    options.device_bytes *= LAYERS;
    options.host_bytes = 3 * options.device_bytes;
    options.restore_parts = parts;
    assert_int_equal(quire_cache_open(&cache, &options), QUIRE_OK);
    small_tokens(prompt, PROMPT + 1, 1);
    assert_int_equal(quire_seq_close(cache, small_prompt(cache, 0, prompt, PROMPT, NULL)), QUIRE_OK);
    small_sweep(cache);
    assert_int_equal(quire_cache_drain(cache, WAIT_US), QUIRE_OK);
    /* Off the device, for it is the host's turn. */
    int32_t other[PROMPT];
    small_tokens(other, PROMPT, 5000);
    assert_int_equal(quire_seq_close(cache, small_prompt(cache, 0, other, PROMPT, NULL)), QUIRE_OK);
    small_sweep(cache);
    assert_int_equal(quire_cache_drain(cache, WAIT_US), QUIRE_OK);
    link_of(cache, LINK_MS * 1e3 / ((double)PROMPT / SMALL_BLOCK_TOKENS));

    quire_seq seq = small_open(cache, 0);
    uint64_t began = quire__clock_us();
    assert_int_equal(quire_seq_match(cache, seq, prompt, PROMPT + 1, &hit), QUIRE_OK);
    assert_true(hit.host > PROMPT * 9 / 10);
    quire_step *step = step_ahead(cache, seq, prompt[PROMPT]);
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        assert_int_equal(quire_step_await_layer(step, layer), QUIRE_OK);
        assert_int_equal(quire__device_stream_synchronize(cache->device, step->stream), QUIRE_OK);
        quire__clock_sleep_us(LAYER_US); /* the layer's kernels */
    }
    t.total_us = quire__clock_us() - began;
    t.ahead = step->restore > 0;
    assert_int_equal(quire_step_commit(step), QUIRE_OK);
    assert_int_equal(quire_cache_check(cache), QUIRE_OK);
    quire_cache_close(cache);
    return t;
}

static void a_step_starts_before_its_restore_has_ended(void **state)
{
    timing whole = restored_step(1), parts = restored_step(8);
    double compute_ms = LAYERS * LAYER_US / 1e3;

    (void)state;
    print_message("restore %d ms, compute %.0f ms; in one piece: %.1f ms, stall %.1f; in 8 parts: %.1f ms, stall %.1f\n",
                  LINK_MS, compute_ms, (double)whole.total_us / 1e3, (double)whole.total_us / 1e3 - compute_ms,
                  (double)parts.total_us / 1e3, (double)parts.total_us / 1e3 - compute_ms);
    assert_false(whole.ahead);
    assert_true(parts.ahead);
}

/* ---- beside a restore that fails ------------------------------------------------------------------------------ */

enum { SLOW_PROMPT = 64, OTHERS = 70, OTHER_TOKENS = 2 * SMALL_BLOCK_TOKENS, STEP_TOKENS = 256 };

/* Two layers in two parts, on a device with a link. */
static quire_cache *cache_in_parts(uint32_t device_blocks)
{
    quire_options options;
    quire_group group;
    quire_cache *cache = NULL;

    small_options(&options, &group, device_blocks, 0);
    group.layers = 2;
    options.policy = "lru";
    options.device = "sim:5";
    options.device_bytes *= 2;
    options.host_bytes = 4 * options.device_bytes;
    options.restore_parts = 2;
    assert_int_equal(quire_cache_open(&cache, &options), QUIRE_OK);
    return cache;
}

/* Into the host tier, and, by prompts that take all of the device, off the device. */
static void to_the_host(quire_cache *cache, uint32_t count, uint32_t tokens, uint32_t device_blocks)
{
    int32_t prompt[STEP_TOKENS];

    for (uint32_t i = 0, others = device_blocks * SMALL_BLOCK_TOKENS / STEP_TOKENS + 1; i < count + others; i++) {
        uint32_t length = i < count ? tokens : STEP_TOKENS;
        small_tokens(prompt, length, 1000 * (int32_t)i);
        assert_int_equal(quire_seq_close(cache, small_prompt(cache, 0, prompt, length, NULL)), QUIRE_OK);
        small_sweep(cache);
        assert_int_equal(quire_cache_drain(cache, WAIT_US), QUIRE_OK);
    }
}

typedef struct victim {
    quire_cache *cache;
    int32_t token; /* the first of the block */
    uint32_t found;
} victim;

static void spoil(void *arg, uint32_t slot)
{
    victim *v = arg;
    float *bytes = quire__host_tier_slot(quire__mover_host_tier(v->cache->mover), slot);

    if (bytes[0] == (float)v->token) {
        bytes[0] += 0.5f;
        v->found++;
    }
}

static void spoil_block_of(quire_cache *cache, int32_t token)
{
    victim v = {cache, token, 0};

    quire__book_each_host_slot(cache->book, spoil, &v);
    assert_int_equal(v.found, 1);
}

/* The keys of layer 0 of the first `count` tokens, as they lie in the arena now. */
static void assert_keys(quire_cache *cache, quire_seq seq, const int32_t *tokens, uint32_t count)
{
    uint32_t blocks, changed;
    const int32_t *slots = quire__book_seq_table(cache->book, (uint32_t)seq - 1, &blocks, &changed, false);

    for (uint32_t i = 0; i < count * 8; i++) {
        uint32_t token = i / 8;
        const unsigned char *block = cache->arena + (size_t)slots[token / SMALL_BLOCK_TOKENS] * cache->layout.block_bytes;
        float key;
        memcpy(&key, block + (token % SMALL_BLOCK_TOKENS * 8 + i % 8) * sizeof key, sizeof key);
        assert_true(key == (float)tokens[token]);
    }
}

/* The end of a prompt is spoiled: its restore fails at once, while what comes before it is on its way. */
static void a_step_waits_for_what_comes_before_a_restore_that_failed(void **state)
{
    enum { WHOLE_TOKENS = SLOW_PROMPT / 2, DEVICE_BLOCKS = SLOW_PROMPT / SMALL_BLOCK_TOKENS + 2 };
    int32_t prompt[SLOW_PROMPT + 1];
    quire_cache *cache = cache_in_parts(DEVICE_BLOCKS * 4);
    quire_hit hit;

    (void)state;
    to_the_host(cache, 1, SLOW_PROMPT, DEVICE_BLOCKS * 4);
    small_tokens(prompt, SLOW_PROMPT + 1, 0);
    spoil_block_of(cache, SLOW_PROMPT - SMALL_BLOCK_TOKENS);
    link_of(cache, 1000);
    assert_int_equal(quire_seq_match(cache, small_open(cache, 0), prompt, SLOW_PROMPT + 1, &hit), QUIRE_OK);
    assert_int_equal(hit.host, SLOW_PROMPT);
    quire_seq seq = small_open(cache, 0);
    assert_int_equal(quire_seq_match(cache, seq, prompt, WHOLE_TOKENS + 1, &hit), QUIRE_OK);
    assert_int_equal(hit.tokens, WHOLE_TOKENS);
    quire_step *step = step_ahead(cache, seq, prompt[WHOLE_TOKENS]);
    assert_int_equal(quire_step_await_layer(step, 0), QUIRE_OK);
    assert_int_equal(quire__device_stream_synchronize(cache->device, step->stream), QUIRE_OK);
    assert_keys(cache, seq, prompt, WHOLE_TOKENS);
    assert_int_equal(quire_step_commit(step), QUIRE_OK);
    quire_cache_close(cache);
}

/* More restores than the mover has batches for, so that the last ones join a batch under way; the very last is spoiled. */
static void a_restore_that_fails_frees_no_slot_that_a_copy_still_writes(void **state)
{
    enum { DEVICE_BLOCKS = 2 * OTHERS + 4 };
    int32_t prompt[STEP_TOKENS];
    quire_cache *cache = cache_in_parts(DEVICE_BLOCKS);
    quire_hit hit;

    (void)state;
    to_the_host(cache, OTHERS, OTHER_TOKENS, DEVICE_BLOCKS);
    spoil_block_of(cache, 1000 * (OTHERS - 1));
    link_of(cache, 1000);
    for (int32_t i = 0; i < OTHERS; i++) {
        quire_seq seq = small_open(cache, 0);
        small_tokens(prompt, OTHER_TOKENS + 1, 1000 * i);
        assert_int_equal(quire_seq_match(cache, seq, prompt, OTHER_TOKENS + 1, &hit), QUIRE_OK);
        assert_int_equal(hit.host, OTHER_TOKENS);
        assert_int_equal(quire_seq_close(cache, seq), QUIRE_OK);
    }
    while (small_stats(cache).restore_failures == 0)
        assert_int_equal(quire_cache_poll(cache), QUIRE_OK);
    small_tokens(prompt, STEP_TOKENS, 1 << 20);
    quire_seq seq = small_prompt(cache, 0, prompt, STEP_TOKENS, NULL);
    small_sweep(cache);
    assert_int_equal(quire_cache_drain(cache, WAIT_US), QUIRE_OK);
    assert_keys(cache, seq, prompt, STEP_TOKENS);
    quire_cache_close(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_is_right_for_steps_that_run_ahead),
        cmocka_unit_test(a_restore_that_fails_takes_its_rows_out_of_the_step),
        cmocka_unit_test(removing_a_layers_wait_for_its_part_is_seen),
        cmocka_unit_test(a_step_starts_before_its_restore_has_ended),
        cmocka_unit_test(a_step_waits_for_what_comes_before_a_restore_that_failed),
        cmocka_unit_test(a_restore_that_fails_frees_no_slot_that_a_copy_still_writes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
