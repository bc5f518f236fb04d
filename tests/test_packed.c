/* test_packed.c: blocks that go to the host and back through staging memory, packed or gathered. Worlds whose every byte is
 * known, on the sim device; the fences that only staging needs; what cannot be packed; and what a slow link gains. */
#include "support/testing.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "cache/cache.h"
#include "device/device_sim.h"
#include "support/fences.h"
#include "support/pack_data.h"
#include "support/world_seeds.h"

enum { WAIT_US = 20 * 1000 * 1000 };

/* In all, staging holds one block at a time, two, or what there is room for. */
static world_options packed_world(uint64_t seed)
{
    static const uint32_t block_tokens[] = {8, 16, 8};
    uint32_t tokens = block_tokens[seed % 3];
    return (world_options){.seed = seed,
                           .block_tokens = tokens,
                           .device_blocks = (seed % 2 ? 50 : 150) / tokens + 4,
                           .host_blocks = (seed % 4 < 2 ? 100 : 400) / tokens + 2,
                           .operations = 80,
                           .two_streams = true,
                           .packed = true,
                           .staging_blocks = seed % 7 % 3};
}

static world_options gathered_world(uint64_t seed)
{
    world_options options = packed_world(seed);
    options.packed = false;
    options.gathered = true;
    return options;
}

/* K and V of a layer are units of their own here. */
static world_options packed_parts(uint64_t seed)
{
    world_options options = packed_world(3 * seed + 1);
    options.restore_parts = 2;
    return options;
}

static world_options packed_for_long(uint64_t seed)
{
    world_options options = packed_world(seed);
    options.operations *= 4; /* for what comes seldom */
    return options;
}

static world_options gathered_for_long(uint64_t seed)
{
    world_options options = gathered_world(seed);
    options.operations *= 4;
    return options;
}

static world_options noisy_world(uint64_t seed)
{
    world_options options = packed_world(seed);
    options.noisy = true;
    return options;
}

static world_options noisy_parts(uint64_t seed)
{
    world_options options = packed_parts(seed);
    options.noisy = true;
    return options;
}

static world_options packed_on_host(uint64_t seed)
{
    world_options options = packed_world(seed);
    options.device = "host";
    return options;
}

static world_options gathered_on_host(uint64_t seed)
{
    world_options options = gathered_world(seed);
    options.device = "host";
    return options;
}

static world_result run_worlds(world_options (*make)(uint64_t seed), uint32_t count, world_trouble trouble)
{
    world_result sum;
    run_seeds(count, make, trouble, &sum);
    return sum;
}

static void every_byte_comes_back_from_a_packed_tier(void **state)
{
    (void)state;
    world_result sum = run_worlds(packed_world, seed_count(30), NO_TROUBLE);
    assert_true(sum.restored_tokens > 0 && sum.offload_failures == 0 && sum.restore_failures == 0);
    assert_true(run_worlds(packed_on_host, seed_count(10), NO_TROUBLE).restored_tokens > 0);
}

static void every_byte_comes_back_gathered(void **state)
{
    (void)state;
    world_result sum = run_worlds(gathered_world, seed_count(15), NO_TROUBLE);
    assert_true(sum.restored_tokens > 0 && sum.offload_failures == 0 && sum.restore_failures == 0);
    assert_true(run_worlds(gathered_world, seed_count(10), FAILING_COPIES).offload_failures > 0);
    assert_true(run_worlds(gathered_on_host, seed_count(10), NO_TROUBLE).restored_tokens > 0);
}

static void every_byte_is_right_for_steps_ahead_of_packed_restores(void **state)
{
    (void)state;
    world_result sum = run_worlds(packed_parts, seed_count(20), NO_TROUBLE);
    assert_true(sum.ahead > 0 && sum.lost == 0);
    sum = run_worlds(packed_parts, seed_count(15), FAILING_COPIES);
    assert_true(sum.ahead > 0 && sum.restore_failures > 0);
}

static void what_fails_on_the_way_is_a_miss_and_never_wrong_data(void **state)
{
    (void)state;
    world_result sum = run_worlds(packed_world, seed_count(15), FAILING_COPIES);
    assert_true(sum.offload_failures > 0 && sum.restore_failures > 0);
    assert_true(run_worlds(packed_for_long, seed_count(10), LATE_COPIES).late > 0);
    assert_true(run_worlds(packed_for_long, seed_count(10), CORRUPT_HOST).checksum_failures > 0);
}

static void what_does_not_pack_is_a_miss_and_never_wrong_data(void **state)
{
    (void)state;
    world_result sum = run_worlds(noisy_world, seed_count(15), NO_TROUBLE);
    assert_true(sum.offload_failures > 0 && sum.restored_tokens > 0 && sum.restore_failures == 0);
    sum = run_worlds(noisy_parts, seed_count(10), NO_TROUBLE);
    assert_true(sum.offload_failures > 0 && sum.restored_tokens > 0 && sum.restore_failures == 0);
}

/* ---- removed fences ------------------------------------------------------------------------------------------ */

static void needed(const char *fence, world_options (*make)(uint64_t seed), uint32_t hole)
{
    some_seed_must_fail(make, 400, (missing_fence){.fence = fence, .mover_holes = hole});
}

static void removing_the_wait_for_a_staging_buffer_is_seen(void **state)
{
    (void)state;
    needed("the wait for a staging buffer", packed_for_long, QUIRE__MOVER_HOLE_STAGING);
    needed("the wait for a staging buffer, gathered", gathered_for_long, QUIRE__MOVER_HOLE_STAGING);
}

static void removing_a_kernels_wait_for_its_step_is_seen(void **state)
{
    (void)state;
    needed("the packing kernel's wait for its step", packed_for_long, QUIRE__MOVER_HOLE_OFFLOAD_AFTER_STEP);
    needed("the unpacking kernel's wait for the slot's step", packed_for_long,
           QUIRE__MOVER_HOLE_RESTORE_AFTER_STEP);
    needed("the wait for a packed copy's completion", packed_for_long, QUIRE__MOVER_HOLE_COMPLETION);
}

/* ---- one cache ----------------------------------------------------------------------------------------------- */

enum { LAYERS = 4, BLOCK_TOKENS = 16, BLOCKS = 24, PROMPT = BLOCKS * BLOCK_TOKENS, ROW = 2 * 64 };

static void model_options(quire_options *options, quire_group *group, const char *device)
{
    assert_int_equal(quire_options_init(options, sizeof *options), QUIRE_OK);
    *group = (quire_group){.layers = LAYERS, .kv_heads = 2, .head_dim = 64, .query_heads = 2, .dtype = QUIRE_DTYPE_BF16};
    options->groups = group;
    options->group_count = 1;
    options->device = device;
    options->block_tokens = BLOCK_TOKENS;
    options->max_sequences = 4;
    options->max_seq_tokens = 0;
    options->max_step_tokens = PROMPT + 1;
    options->device_bytes = (uint64_t)(BLOCKS + 1) * LAYERS * 2 * ROW * 2 * BLOCK_TOKENS;
    options->host_bytes = 4 * options->device_bytes;
    options->threads = 1;
    options->log_level = QUIRE_LOG_OFF;
    options->pack = QUIRE_PACK_OFF;
    options->pieces = QUIRE_PIECES_COPY;
}

/* Computes a prompt with K and V of a kind of pack_data.h, or has it back. */
static quire_hit prompt(quire_cache *cache, int32_t first, int kind)
{
    int32_t tokens[PROMPT + 1];
    quire_seq seq;
    quire_step *step;
    quire_hit hit;
    void *memory;
    uint64_t random = 9;

    for (int32_t i = 0; i <= PROMPT; i++)
        tokens[i] = first + i;
    assert_int_equal(quire__device_alloc(cache->device, QUIRE__MEMORY_DEVICE, sizeof(uint16_t) * PROMPT * ROW, &memory), QUIRE_OK);
    pack_data_fill(kind, memory, (size_t)PROMPT * ROW, &random);
    assert_int_equal(quire_seq_open(cache, NULL, &seq), QUIRE_OK);
    assert_int_equal(quire_seq_match(cache, seq, tokens, PROMPT + 1, &hit), QUIRE_OK);
    assert_int_equal(quire_seq_wait(cache, seq, WAIT_US), QUIRE_OK);
    if (hit.tokens < PROMPT) {
        assert_int_equal(quire_step_begin(cache, NULL, &step), QUIRE_OK);
        assert_int_equal(quire_step_add(step, seq, tokens + hit.tokens, PROMPT - hit.tokens), QUIRE_OK);
        assert_int_equal(quire_step_submit(step), QUIRE_OK);
        quire_tensor kv = {memory, QUIRE_DTYPE_BF16, 2, ROW, 64};
        for (uint32_t layer = 0; layer < LAYERS; layer++)
            assert_int_equal(quire_append(quire_step_view(step, 0), layer, &kv, &kv), QUIRE_OK);
        assert_int_equal(quire_step_commit(step), QUIRE_OK);
        assert_int_equal(quire__device_stream_synchronize(cache->device, cache->stream), QUIRE_OK);
    }
    assert_int_equal(quire_seq_close(cache, seq), QUIRE_OK);
    assert_int_equal(quire_cache_drain(cache, WAIT_US), QUIRE_OK);
    assert_int_equal(quire_cache_check(cache), QUIRE_OK);
    quire__device_free(cache->device, QUIRE__MEMORY_DEVICE, memory);
    return hit;
}

static quire_stats stats_of(quire_cache *cache)
{
    quire_stats stats = {.size = sizeof stats};
    assert_int_equal(quire_cache_stats(cache, &stats), QUIRE_OK);
    return stats;
}

static void a_packed_tier_holds_more_blocks(void **state)
{
    quire_options options;
    quire_group group;
    quire_cache *raw = NULL, *packed = NULL;

    (void)state;
    model_options(&options, &group, "host");
    assert_int_equal(quire_cache_open(&raw, &options), QUIRE_OK);
    options.pack = QUIRE_PACK_ON;
    assert_int_equal(quire_cache_open(&packed, &options), QUIRE_OK);
    double more = (double)stats_of(packed).host_total / (double)stats_of(raw).host_total;
    print_message("%.3f times as many blocks\n", more);
    assert_true(more > 1.27);
    assert_true(quire_cache_options(packed)->host_bytes <= options.host_bytes);
    assert_int_equal(quire_cache_options(packed)->pack, QUIRE_PACK_ON);
    assert_int_equal(quire_cache_options(raw)->pack, QUIRE_PACK_OFF);
    quire_cache_close(packed);
    quire_cache_close(raw);
}

static void hostile_numbers_are_missed_and_ordinary_ones_come_back(void **state)
{
    (void)state;
    for (int kind = 0; kind < PACK_DATA_KINDS; kind++) {
        quire_options options;
        quire_group group;
        quire_cache *cache = NULL;
        model_options(&options, &group, kind % 2 ? "host" : "sim:11");
        options.pack = QUIRE_PACK_ON;
        assert_int_equal(quire_cache_open(&cache, &options), QUIRE_OK);
        (void)prompt(cache, 1, kind);
        (void)prompt(cache, 5000, PACK_DATA_NORMAL); /* pushes the other from the device */
        quire_hit hit = prompt(cache, 1, kind);
        if (kind == PACK_DATA_NOISE)
            assert_true(stats_of(cache).offload_failures > 0 && hit.host == 0);
        else if (!pack_data_is_noise(kind))
            assert_true(stats_of(cache).offload_failures == 0 && hit.host >= PROMPT / 2);
        quire_cache_close(cache);
    }
}

static void what_cannot_be_packed_is_refused_where_it_was_asked_for(void **state)
{
    quire_options options;
    quire_group group;
    quire_cache *cache = NULL;

    (void)state;
    model_options(&options, &group, "host");
    options.pack = QUIRE_PACK_ON;
    group.dtype = QUIRE_DTYPE_F16;
    assert_int_equal(quire_cache_open(&cache, &options), QUIRE_EUNSUPPORTED);
    assert_non_null(strstr(quire_error_text(), "only bf16"));
    options.pack = QUIRE_PACK_AUTO;
    assert_int_equal(quire_cache_open(&cache, &options), QUIRE_OK);
    assert_int_equal(quire_cache_options(cache)->pack, QUIRE_PACK_OFF);
    quire_cache_close(cache);

    options.pack = QUIRE_PACK_ON;
    group.dtype = QUIRE_DTYPE_BF16;
    group.layers = options.block_tokens = 1;
    assert_int_equal(quire_cache_open(&cache, &options), QUIRE_EUNSUPPORTED);
    assert_non_null(strstr(quire_error_text(), "too small"));
    group.layers = LAYERS;
    options.block_tokens = 4; /* 512 elements of K or V a layer: a unit takes several */
    assert_int_equal(quire_cache_open(&cache, &options), QUIRE_OK);
    quire_cache_close(cache);
    options.restore_parts = 4;
    assert_int_equal(quire_cache_open(&cache, &options), QUIRE_EUNSUPPORTED);
    assert_non_null(strstr(quire_error_text(), "restore_parts to 1"));
}

/* ---- with time ----------------------------------------------------------------------------------------------- */

/* The time that restoring the prompt takes over a link of so many bytes a second, and the raw bytes that came. */
static double raw_bytes_a_second(uint64_t link, quire_pack pack)
{
    quire_options options;
    quire_group group;
    quire_cache *cache = NULL;
    quire__mover_stats moved;
    double best = 0;

    model_options(&options, &group, "sim:7");
    options.pack = pack;
    assert_int_equal(quire_cache_open(&cache, &options), QUIRE_OK);
    (void)prompt(cache, 1, PACK_DATA_SCALES);
    (void)prompt(cache, 5000, PACK_DATA_SCALES);
    quire__device_sim_set_link(cache->device, link);
    for (int i = 0; i < 4; i++) {
        (void)prompt(cache, i % 2 ? 5000 : 1, PACK_DATA_SCALES);
        quire__mover_stats_get(cache->mover, &moved);
        double rate = (double)cache->layout.block_bytes / moved.restore_block_us * 1e6;
        best = rate > best ? rate : best;
    }
    quire_cache_close(cache);
    return best;
}

static void a_slow_link_moves_more_than_its_rate(void **state)
{
    enum { LINK = 16 * 1000 * 1000 }; /* packing is to it about what it is to PCIe on a GPU */

    (void)state;
    double raw = raw_bytes_a_second(LINK, QUIRE_PACK_OFF), packed = raw_bytes_a_second(LINK, QUIRE_PACK_ON);
    print_message("a link of %.1f MB/s: raw %.2f, packed %.2f MB/s of raw bytes (%.2f of the link's rate)\n", LINK / 1e6,
                  raw / 1e6, packed / 1e6, packed / LINK);
    assert_true(raw <= LINK * 1.001); /* a sleep only gets longer: what arrives faster was packed */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_comes_back_from_a_packed_tier),
        cmocka_unit_test(every_byte_comes_back_gathered),
        cmocka_unit_test(every_byte_is_right_for_steps_ahead_of_packed_restores),
        cmocka_unit_test(what_fails_on_the_way_is_a_miss_and_never_wrong_data),
        cmocka_unit_test(what_does_not_pack_is_a_miss_and_never_wrong_data),
        cmocka_unit_test(removing_the_wait_for_a_staging_buffer_is_seen),
        cmocka_unit_test(removing_a_kernels_wait_for_its_step_is_seen),
        cmocka_unit_test(a_packed_tier_holds_more_blocks),
        cmocka_unit_test(hostile_numbers_are_missed_and_ordinary_ones_come_back),
        cmocka_unit_test(what_cannot_be_packed_is_refused_where_it_was_asked_for),
        cmocka_unit_test(a_slow_link_moves_more_than_its_rate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
