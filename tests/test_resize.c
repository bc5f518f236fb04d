/* test_resize.c: an arena that grows and shrinks under a server that goes on. On the sim device every byte is checked; on the
 * host device the memory is seen to go back to the machine. */
#include "support/testing.h"

#include <stdio.h>
#include <unistd.h>

#include "cache/cache.h"
#include "support/fences.h"
#include "support/small_cache.h"
#include "support/world_seeds.h"

enum { TIMEOUT_US = 10 * 1000 * 1000 };

static world_options elastic_world(uint64_t seed)
{
    static const uint32_t block_tokens[] = {4, 1, 8, 16, 2};
    uint32_t tokens = block_tokens[seed % 5];
    return (world_options){.seed = seed,
                           .block_tokens = tokens,
                           .device_blocks = (seed % 2 ? 50 : 120) / tokens + 4,
                           .host_blocks = seed % 3 ? 200 / tokens + 2 : 0,
                           .operations = 200,
                           .two_streams = true,
                           .elastic = true};
}

static void run_worlds(uint32_t count, world_trouble trouble)
{
    world_result sum;
    run_seeds(count, elastic_world, trouble, &sum);
    assert_true(sum.resizes > count && sum.restored_tokens > 0);
}

static void every_byte_stays_right_while_the_arena_changes_its_size(void **state)
{
    (void)state;
    run_worlds(seed_count(100), NO_TROUBLE);
}

static void failing_and_late_copies_lose_no_block(void **state)
{
    (void)state;
    run_worlds(seed_count(40), FAILING_COPIES);
    run_worlds(seed_count(40), LATE_COPIES);
}

static void removing_the_wait_before_memory_goes_is_seen(void **state)
{
    (void)state;
    some_seed_must_fail(elastic_world, 60, (missing_fence){.fence = "the wait before memory goes",
                                                           .cache_holes = QUIRE__CACHE_HOLE_UNMAP});
}

/* ---- on the host device -------------------------------------------------------------------------------------- */

/* 64 blocks of 64 KiB at most. */
static quire_cache *elastic_cache(uint32_t blocks)
{
    enum { BLOCK = 64 * 1024 };
    quire_options options;
    quire_group group;
    quire_cache *cache = NULL;

    small_options(&options, &group, 1, 0);
    group.head_dim = 256;
    group.kv_heads = group.query_heads = 8;
    options.device_bytes = (uint64_t)blocks * BLOCK;
    options.device_max_bytes = 64 * (uint64_t)BLOCK;
    options.host_bytes = 64 * (uint64_t)BLOCK;
    assert_int_equal(quire_cache_open(&cache, &options), QUIRE_OK);
    assert_int_equal(cache->layout.block_bytes, BLOCK);
    return cache;
}

static size_t resident_bytes(void)
{
    size_t total = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%zu %zu", &total, &resident), 2);
    fclose(file);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

/* Fills the tokens' rows with their ids, as the engine's kernels would; heads and elements alike. */
static void step(quire_cache *cache, quire_seq seq, const int32_t *tokens, size_t count)
{
    float *rows = malloc(count * 8 * 256 * sizeof(float));
    quire_step *open = NULL;

    assert_non_null(rows);
    for (size_t i = 0; i < count * 8 * 256; i++)
        rows[i] = (float)tokens[i / (8 * 256)];
    quire_tensor tensor = {rows, QUIRE_DTYPE_F32, 8, 8 * 256, 256};
    assert_int_equal(quire_step_begin(cache, NULL, &open), QUIRE_OK);
    assert_int_equal(quire_step_add(open, seq, tokens, count), QUIRE_OK);
    assert_int_equal(quire_step_submit(open), QUIRE_OK);
    assert_int_equal(quire_append(quire_step_view(open, 0), 0, &tensor, &tensor), QUIRE_OK);
    assert_int_equal(quire_step_commit(open), QUIRE_OK);
    free(rows);
}

static void assert_holds(quire_cache *cache, quire_seq seq, const int32_t *tokens, size_t count)
{
    uint32_t index = 0, blocks = 0, changed = 0;

    assert_int_equal(quire__cache_find(cache, seq, &index), QUIRE_OK);
    const int32_t *slots = quire__book_seq_table(cache->book, index, &blocks, &changed, false);
    assert_int_equal(blocks, (count + 3) / 4);
    for (size_t t = 0; t < count; t++) {
        const float *k = (const float *)(const void *)(cache->arena + (size_t)slots[t / 4] * cache->layout.block_bytes);
        for (size_t head = 0; head < 8; head++)
            for (size_t kv = 0; kv < 2; kv++)
                assert_true(k[(kv * 8 + head) * 4 * 256 + t % 4 * 256 + head] == (float)tokens[t]);
    }
}

/* Every block of the full arena is written, then half of the arena goes: how many bytes the machine gets back. */
static size_t returned_bytes(quire_cache *cache, uint64_t full)
{
    int32_t tokens[4 * 50];
    quire_seq seq = small_open(cache, 2);

    assert_int_equal(quire_cache_options(cache)->device_bytes, full);
    small_tokens(tokens, 4 * 50, 9000);
    step(cache, seq, tokens, 4 * 50);
    assert_int_equal(quire_seq_close(cache, seq), QUIRE_OK);
    size_t before = resident_bytes();
    assert_int_equal(quire_cache_resize(cache, full / 2, TIMEOUT_US), QUIRE_OK);
    size_t after = resident_bytes();
    assert_int_equal(quire_cache_clear(cache), QUIRE_OK);
    return before > after ? before - after : 0;
}

/* A sequence that goes on for ever, newcomers that come and go, and a size that halves and doubles under them. */
static void a_thousand_halvings_lose_nothing_and_return_the_memory(void **state)
{
    enum { ROUNDS = 1000, LONG = 40 };
    quire_cache *cache = elastic_cache(64);
    uint64_t full = quire_cache_options(cache)->device_bytes;
    int32_t steady[LONG], tokens[LONG];
    void *arena = cache->arena;

    (void)state;
    small_tokens(steady, LONG, 7000);
    quire_seq stays = small_open(cache, 0);
    step(cache, stays, steady, LONG);
    for (int round = 0; round < ROUNDS; round++) {
        quire_hit hit;
        quire_seq guest = small_open(cache, 1);
        small_tokens(tokens, LONG, 100 * (round % 6));
        assert_int_equal(quire_seq_match(cache, guest, tokens, LONG, &hit), QUIRE_OK);
        assert_int_equal(quire_seq_wait(cache, guest, TIMEOUT_US), QUIRE_OK);
        step(cache, guest, tokens + hit.tokens, LONG - hit.tokens);
        assert_int_equal(quire_cache_resize(cache, round % 2 ? full : full / 2, TIMEOUT_US), QUIRE_OK);
        assert_int_equal(quire_cache_options(cache)->device_bytes, round % 2 ? full : full / 2);
        if (round % 50 < 2) {
            assert_holds(cache, stays, steady, LONG);
            assert_holds(cache, guest, tokens, LONG);
            assert_int_equal(quire_cache_check(cache), QUIRE_OK);
        }
        assert_int_equal(quire_seq_close(cache, guest), QUIRE_OK);
        if (round % 200 == 199)
            assert_true(returned_bytes(cache, full) >= full / 2 * 9 / 10);
    }
    assert_holds(cache, stays, steady, LONG);
    assert_ptr_equal(cache->arena, arena);
    quire_cache_close(cache);
}

static void sizes_that_cannot_be_are_refused_and_nothing_changes(void **state)
{
    quire_cache *fixed = small_cache(8, 0), *cache = elastic_cache(16);
    uint64_t block = cache->layout.block_bytes;
    int32_t tokens[40];
    quire_step *open = NULL;

    (void)state;
    assert_int_equal(quire_cache_resize(NULL, 1, 1), QUIRE_EINVAL);
    assert_int_equal(quire_cache_resize(fixed, 1024, 1), QUIRE_EUNSUPPORTED);
    assert_non_null(strstr(quire_error_text(), "device_max_bytes"));
    assert_int_equal(quire_cache_resize(cache, 65 * block, 1), QUIRE_EINVAL);
    assert_non_null(strstr(quire_error_text(), "4194304"));
    assert_int_equal(quire_cache_resize(cache, block, 1), QUIRE_EINVAL);
    assert_int_equal(quire_step_begin(cache, NULL, &open), QUIRE_OK);
    assert_int_equal(quire_cache_resize(cache, 8 * block, 1), QUIRE_ESTATE);
    quire_step_cancel(open);
    small_tokens(tokens, 40, 1);
    quire_seq seq = small_open(cache, 0);
    step(cache, seq, tokens, 40);
    assert_int_equal(quire_cache_resize(cache, 9 * block, 1), QUIRE_EFULL);
    assert_non_null(strstr(quire_error_text(), "hold 10 blocks"));
    assert_int_equal(quire_cache_options(cache)->device_bytes, 16 * block);
    assert_int_equal(quire_cache_resize(cache, 10 * block, TIMEOUT_US), QUIRE_OK);
    assert_holds(cache, seq, tokens, 40);
    assert_int_equal(small_stats(cache).device_total, 10);
    quire_cache_close(cache);
    quire_cache_close(fixed);
}

static void an_arena_too_small_for_its_pieces_is_refused(void **state)
{
    quire_options options;
    quire_group group;
    quire_cache *cache = NULL;

    (void)state;
    small_options(&options, &group, 8, 0);
    options.device_max_bytes = 64 * 1024; /* one piece of the host device's memory */
    assert_int_equal(quire_cache_open(&cache, &options), QUIRE_EINVAL);
    assert_non_null(strstr(quire_error_text(), "at least twice"));
    options.device_max_bytes = options.device_bytes - 1;
    assert_int_equal(quire_cache_open(&cache, &options), QUIRE_EINVAL);
    assert_non_null(strstr(quire_error_text(), "less than device_bytes"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_stays_right_while_the_arena_changes_its_size),
        cmocka_unit_test(failing_and_late_copies_lose_no_block),
        cmocka_unit_test(removing_the_wait_before_memory_goes_is_seen),
        cmocka_unit_test(a_thousand_halvings_lose_nothing_and_return_the_memory),
        cmocka_unit_test(sizes_that_cannot_be_are_refused_and_nothing_changes),
        cmocka_unit_test(an_arena_too_small_for_its_pieces_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
