/* The public API, promise by promise. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "support/small_cache.h"

static void a_second_request_reuses_the_prefix_of_the_first(void **state)
{
    quire_cache *cache = small_cache(16, 0);
    int32_t tokens[20];
    quire_hit hit;

    (void)state;
    small_tokens(tokens, 20, 100);
    quire_seq first = small_prompt(cache, 0, tokens, 20, &hit);
    assert_int_equal(hit.tokens, 0);
    quire_seq second = small_prompt(cache, 0, tokens, 20, &hit);
    assert_int_equal(hit.tokens, 19); /* one is left to compute */
    assert_int_equal(hit.partial, 3);
    assert_int_equal(hit.device, 19);
    assert_int_equal(hit.ready, 1);
    assert_int_equal(quire_seq_close(cache, first), QUIRE_OK);
    assert_int_equal(quire_seq_close(cache, second), QUIRE_OK);
    assert_int_equal(quire_cache_check(cache), QUIRE_OK);
    quire_cache_close(cache);
}

static void nothing_is_shared_across_domains(void **state)
{
    quire_cache *cache = small_cache(16, 0);
    int32_t tokens[20];
    quire_hit hit;

    (void)state;
    small_tokens(tokens, 20, 100);
    small_prompt(cache, 1, tokens, 20, NULL);
    small_prompt(cache, 2, tokens, 20, &hit);
    assert_int_equal(hit.tokens, 0);
    assert_int_equal(quire_cache_probe(cache, 3, tokens, 20, &hit), QUIRE_OK);
    assert_int_equal(hit.tokens, 0);
    assert_int_equal(quire_cache_probe(cache, 2, tokens, 20, &hit), QUIRE_OK);
    assert_int_equal(hit.tokens, 19);
    quire_cache_close(cache);
}

static void evicted_blocks_come_back_from_the_host(void **state)
{
    quire_cache *cache = small_cache(6, 32);
    int32_t a[16], b[20];
    quire_hit hit;

    (void)state;
    small_tokens(a, 16, 0);
    small_tokens(b, 20, 1000);
    quire_seq_close(cache, small_prompt(cache, 0, a, 16, NULL));
    quire_seq_close(cache, small_prompt(cache, 0, b, 20, NULL)); /* pushes a out */
    quire_seq seq = small_prompt(cache, 0, a, 16, &hit);
    assert_int_equal(hit.tokens, 15);
    assert_true(hit.host > 0);
    quire_stats stats = small_stats(cache);
    assert_true(stats.restores > 0 && stats.evictions_device > 0);
    assert_int_equal(stats.restore_bytes, stats.restores * SMALL_BLOCK_BYTES);
    quire_seq_close(cache, seq);
    assert_int_equal(quire_cache_check(cache), QUIRE_OK);
    quire_cache_close(cache);
}

static void a_full_cache_says_so_and_changes_nothing(void **state)
{
    quire_cache *cache = small_cache(4, 0);
    int32_t tokens[16];

    (void)state;
    small_tokens(tokens, 16, 0);
    quire_seq holder = small_prompt(cache, 0, tokens, 12, NULL);
    small_tokens(tokens, 16, 500);
    quire_seq other = small_open(cache, 0);
    quire_stats before = small_stats(cache);
    assert_int_equal(small_append(cache, other, tokens, 8), QUIRE_EFULL);
    assert_non_null(strstr(quire_error_text(), "block"));
    quire_stats after = small_stats(cache);
    assert_int_equal(before.device_free, after.device_free);
    assert_int_equal(small_append(cache, other, tokens, 4), QUIRE_OK);
    assert_int_equal(quire_seq_close(cache, holder), QUIRE_OK);
    assert_int_equal(small_append(cache, other, tokens + 4, 8), QUIRE_OK);
    assert_int_equal(quire_cache_check(cache), QUIRE_OK);
    quire_cache_close(cache);
}

static void the_watermark_keeps_blocks_for_running_sequences(void **state)
{
    quire_options options;
    quire_group group;
    quire_cache *cache = NULL;
    int32_t tokens[16];

    (void)state;
    small_options(&options, &group, 4, 0);
    options.watermark_blocks = 2;
    assert_int_equal(quire_cache_open(&cache, &options), QUIRE_OK);
    small_tokens(tokens, 16, 0);
    quire_seq running = small_open(cache, 0);
    assert_int_equal(small_append(cache, running, tokens, 4), QUIRE_OK); /* alone, it may have all */
    quire_seq next = small_open(cache, 0);
    assert_int_equal(small_append(cache, next, tokens + 4, 8), QUIRE_EFULL);
    assert_int_equal(small_append(cache, running, tokens + 4, 8), QUIRE_OK);
    quire_cache_close(cache);
}

static void a_sequence_longer_than_the_cache_is_refused(void **state)
{
    quire_cache *cache = small_cache(4, 0);
    int32_t tokens[40];
    quire_hit hit;

    (void)state;
    small_tokens(tokens, 40, 0);
    quire_seq seq = small_open(cache, 0);
    assert_int_equal(quire_seq_match(cache, seq, tokens, 40, &hit), QUIRE_ERANGE);
    assert_non_null(strstr(quire_error_text(), "16"));
    assert_int_equal(small_append(cache, seq, tokens, 17), QUIRE_ERANGE);
    assert_int_equal(small_append(cache, seq, tokens, 16), QUIRE_OK);
    assert_int_equal(small_append(cache, seq, tokens, 1), QUIRE_ERANGE);
    quire_cache_close(cache);
}

static void a_closed_handle_is_stale_for_ever(void **state)
{
    quire_cache *cache = small_cache(8, 0);
    quire_seq_info info;

    (void)state;
    quire_seq seq = small_open(cache, 0);
    assert_int_equal(quire_seq_close(cache, seq), QUIRE_OK);
    quire_seq again = small_open(cache, 0);
    assert_true(again != seq);
    assert_int_equal(quire_seq_get(cache, seq, &info), QUIRE_ESTALE);
    assert_int_equal(quire_seq_close(cache, seq), QUIRE_ESTALE);
    assert_int_equal(quire_seq_close(cache, 0), QUIRE_ESTALE);
    assert_int_equal(quire_seq_close(cache, UINT64_MAX), QUIRE_ESTALE);
    assert_int_equal(quire_seq_get(cache, again, &info), QUIRE_OK);
    quire_cache_close(cache);
}

static void forks_share_until_they_write(void **state)
{
    quire_cache *cache = small_cache(8, 0);
    int32_t tokens[16];
    quire_seq child;

    (void)state;
    small_tokens(tokens, 16, 0);
    quire_seq seq = small_prompt(cache, 0, tokens, 6, NULL);
    assert_int_equal(quire_seq_fork(cache, seq, &child), QUIRE_OK);
    assert_int_equal(small_stats(cache).copies_on_write, 0);
    assert_int_equal(small_append(cache, child, tokens + 6, 1), QUIRE_OK);
    assert_int_equal(small_stats(cache).copies_on_write, 1);
    assert_int_equal(small_append(cache, seq, tokens + 7, 1), QUIRE_OK); /* the last holder writes in place */
    assert_int_equal(small_stats(cache).copies_on_write, 1);
    assert_int_equal(quire_cache_check(cache), QUIRE_OK);
    quire_cache_close(cache);
}

static void equal_blocks_computed_twice_become_one(void **state)
{
    quire_cache *cache = small_cache(8, 0);
    int32_t tokens[8];

    (void)state;
    small_tokens(tokens, 8, 0);
    quire_seq a = small_open(cache, 0), b = small_open(cache, 0);
    assert_int_equal(small_append(cache, a, tokens, 8), QUIRE_OK);
    assert_int_equal(small_append(cache, b, tokens, 8), QUIRE_OK);
    quire_stats stats = small_stats(cache);
    assert_int_equal(stats.blocks_deduplicated, 2);
    assert_int_equal(stats.device_free, 6);
    assert_int_equal(quire_cache_check(cache), QUIRE_OK);
    quire_cache_close(cache);
}

static void a_hint_is_checked_and_an_odd_one_is_refused_by_name(void **state)
{
    quire_cache *cache = small_cache(8, 0);
    int32_t tokens[12];

    (void)state;
    small_tokens(tokens, 12, 0);
    quire_seq seq = small_prompt(cache, 0, tokens, 12, NULL);
    quire_hint hint = {.size = sizeof hint, .flags = QUIRE_HINT_TURN_ENDED, .range_count = 1,
                       .ranges = {{.tokens = 4, .priority = QUIRE_PRIORITY_PIN}}, .next_use_us = 1000};
    assert_int_equal(quire_seq_hint(cache, seq, &hint), QUIRE_OK);
    hint.ranges[0].priority = 101;
    assert_int_equal(quire_seq_hint(cache, seq, &hint), QUIRE_EINVAL);
    assert_non_null(strstr(quire_error_text(), "101"));
    hint.ranges[0].priority = 0;
    hint.range_count = QUIRE_HINT_RANGES + 1;
    assert_int_equal(quire_seq_hint(cache, seq, &hint), QUIRE_EINVAL);
    hint.range_count = 0;
    hint.flags = 64;
    assert_int_equal(quire_seq_hint(cache, seq, &hint), QUIRE_EINVAL);
    hint.flags = 0;
    hint.size = 1;
    assert_int_equal(quire_seq_hint(cache, seq, &hint), QUIRE_EINVAL);
    assert_int_equal(quire_seq_hint(cache, seq, NULL), QUIRE_EINVAL);
    assert_int_equal(quire_domain_ttl(NULL, 1, 1), QUIRE_EINVAL);
    assert_int_equal(quire_domain_ttl(cache, 1, 1000), QUIRE_OK);
    assert_int_equal(quire_seq_close(cache, seq), QUIRE_OK);
    hint.size = sizeof hint;
    assert_int_equal(quire_seq_hint(cache, seq, &hint), QUIRE_ESTALE);
    assert_int_equal(quire_cache_check(cache), QUIRE_OK);
    quire_cache_close(cache);
}

static void truncation_rolls_back_speculation(void **state)
{
    quire_cache *cache = small_cache(8, 0);
    int32_t tokens[12], other[4] = {900, 901, 902, 903};
    quire_seq_info info;

    (void)state;
    small_tokens(tokens, 12, 0);
    quire_seq seq = small_prompt(cache, 0, tokens, 12, NULL);
    assert_int_equal(quire_seq_truncate(cache, seq, 13), QUIRE_EINVAL);
    assert_int_equal(quire_seq_truncate(cache, seq, 6), QUIRE_OK);
    assert_int_equal(quire_seq_get(cache, seq, &info), QUIRE_OK);
    assert_int_equal(info.length, 6);
    assert_int_equal(small_append(cache, seq, other, 4), QUIRE_OK);
    quire_hit hit;
    assert_int_equal(quire_cache_probe(cache, 0, tokens, 12, &hit), QUIRE_OK);
    assert_int_equal(hit.tokens, 11); /* the sealed blocks are still what they were */
    assert_int_equal(quire_cache_check(cache), QUIRE_OK);
    quire_cache_close(cache);
}

static void tokens_may_be_named_late_but_not_never(void **state)
{
    quire_cache *cache = small_cache(8, 0);
    int32_t tokens[4];
    quire_step *step;
    quire_hit hit;

    (void)state;
    small_tokens(tokens, 4, 0);
    quire_seq seq = small_open(cache, 0);
    assert_int_equal(quire_step_begin(cache, NULL, &step), QUIRE_OK);
    assert_int_equal(quire_step_add(step, seq, NULL, 4), QUIRE_OK);
    assert_int_equal(quire_step_commit(step), QUIRE_ESTATE);
    assert_int_equal(quire_step_submit(step), QUIRE_OK);
    assert_int_equal(quire_step_commit(step), QUIRE_ESTATE);
    assert_int_equal(quire_step_name(step, seq, tokens, 3), QUIRE_EINVAL);
    assert_int_equal(quire_step_name(step, seq, tokens, 4), QUIRE_OK);
    assert_int_equal(quire_step_commit(step), QUIRE_OK);
    int32_t longer[5] = {0, 1, 2, 3, 4};
    assert_int_equal(quire_cache_probe(cache, 0, longer, 5, &hit), QUIRE_OK);
    assert_int_equal(hit.tokens, 4);
    quire_cache_close(cache);
}

static void a_cancelled_step_leaves_no_trace(void **state)
{
    quire_cache *cache = small_cache(8, 0);
    int32_t tokens[8];
    quire_step *step;
    quire_seq_info info;
    quire_seq child;

    (void)state;
    small_tokens(tokens, 8, 0);
    quire_seq seq = small_prompt(cache, 0, tokens, 6, NULL);
    assert_int_equal(quire_seq_fork(cache, seq, &child), QUIRE_OK);
    quire_stats before = small_stats(cache);
    for (int submitted = 0; submitted < 2; submitted++) {
        assert_int_equal(quire_step_begin(cache, NULL, &step), QUIRE_OK);
        assert_int_equal(quire_step_add(step, child, tokens, 8), QUIRE_OK);
        if (submitted)
            assert_int_equal(quire_step_submit(step), QUIRE_OK);
        quire_step_cancel(step);
        assert_int_equal(quire_seq_get(cache, child, &info), QUIRE_OK);
        assert_int_equal(info.length, 6);
        assert_int_equal(small_stats(cache).device_free, before.device_free);
        assert_int_equal(quire_cache_check(cache), QUIRE_OK);
    }
    quire_cache_close(cache);
}

static void calls_out_of_order_are_named(void **state)
{
    quire_cache *cache = small_cache(8, 0);
    int32_t tokens[4];
    quire_step *step, *second;
    quire_seq child;

    (void)state;
    small_tokens(tokens, 4, 0);
    quire_seq seq = small_open(cache, 0);
    assert_int_equal(quire_step_begin(cache, NULL, &step), QUIRE_OK);
    assert_int_equal(quire_step_begin(cache, NULL, &second), QUIRE_ESTATE);
    assert_null(quire_step_view(step, 0));
    assert_int_equal(quire_step_add(step, seq, tokens, 0), QUIRE_EINVAL);
    assert_int_equal(quire_step_add(step, seq, tokens, 2), QUIRE_OK);
    assert_int_equal(quire_step_add(step, seq, tokens, 2), QUIRE_ESTATE);
    assert_int_equal(quire_seq_close(cache, seq), QUIRE_ESTATE);
    assert_int_equal(quire_seq_fork(cache, seq, &child), QUIRE_ESTATE);
    assert_int_equal(quire_seq_truncate(cache, seq, 0), QUIRE_ESTATE);
    assert_int_equal(quire_step_submit(step), QUIRE_OK);
    assert_non_null(quire_step_view(step, 0));
    assert_null(quire_step_view(step, 1));
    assert_int_equal(quire_step_add(step, seq, tokens, 2), QUIRE_ESTATE);
    assert_int_equal(quire_append(quire_step_view(step, 0), 7, NULL, NULL), QUIRE_EINVAL);
    assert_int_equal(quire_step_commit(step), QUIRE_OK);
    assert_int_equal(quire_seq_match(cache, seq, tokens, 4, NULL), QUIRE_ESTATE);
    quire_cache_close(cache);
}

static void events_tell_what_came_and_went(void **state)
{
    quire_cache *cache = small_cache(4, 0);
    int32_t tokens[16], read[SMALL_BLOCK_TOKENS];
    quire_event events[32];
    size_t count;

    (void)state;
    small_tokens(tokens, 16, 0);
    quire_seq_close(cache, small_prompt(cache, 7, tokens, 12, NULL));
    assert_int_equal(quire_cache_events(cache, events, 32, &count), QUIRE_OK);
    assert_int_equal(count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(events[i].number, events[0].number + i);
        assert_int_equal(events[i].type, QUIRE_EVENT_STORED);
        assert_int_equal(events[i].first_token, i * SMALL_BLOCK_TOKENS);
        assert_int_equal(events[i].domain, 7);
        assert_true(events[i].parent == (i == 0 ? 0 : events[i - 1].block));
    }
    assert_int_equal(quire_block_tokens(cache, events[1].block, read), QUIRE_OK);
    assert_memory_equal(read, tokens + 4, sizeof read);
    quire_block last = events[2].block;
    assert_int_equal(quire_cache_clear(cache), QUIRE_OK);
    assert_int_equal(quire_cache_events(cache, events, 32, &count), QUIRE_OK);
    assert_int_equal(count, 3);
    assert_int_equal(events[0].type, QUIRE_EVENT_REMOVED);
    assert_true(events[0].block == last); /* leaf first */
    assert_int_equal(quire_block_tokens(cache, last, read), QUIRE_ESTALE);
    quire_cache_close(cache);
}

static void occupancy_adds_up(void **state)
{
    quire_cache *cache = small_cache(10, 10);
    int32_t tokens[16];

    (void)state;
    small_tokens(tokens, 16, 0);
    quire_seq_close(cache, small_prompt(cache, 0, tokens, 9, NULL));
    small_tokens(tokens, 16, 50);
    small_prompt(cache, 0, tokens, 6, NULL);
    quire_stats s = small_stats(cache);
    assert_int_equal(s.device_total, 10);
    assert_int_equal(s.device_free + s.device_open + s.device_used + s.device_cached + s.device_moving, 10);
    assert_int_equal(s.device_open, 1);
    assert_int_equal(s.device_used, 1);
    assert_int_equal(s.device_cached, 2);
    assert_int_equal(s.host_total, 10);
    assert_int_equal(s.computed_tokens, 15);
    assert_int_equal(s.block_bytes, SMALL_BLOCK_BYTES);
    quire_cache_close(cache);
}

/* ---- bad options ------------------------------------------------------------------------------------------- */

static void expect_open(quire_options *options, quire_status status, const char *named)
{
    quire_cache *cache = NULL;

    assert_int_equal(quire_cache_open(&cache, options), status);
    assert_null(cache);
    if (strstr(quire_error_text(), named) == NULL)
        fail_msg("the text does not name %s: %s", named, quire_error_text());
}

static void bad_options_are_named(void **state)
{
    quire_options good, bad;
    quire_group group, wrong;

    (void)state;
    small_options(&good, &group, 8, 8);
#define EXPECT(change, status, named)     \
    do {                                  \
        bad = good;                       \
        wrong = group;                    \
        bad.groups = &wrong;              \
        change;                           \
        expect_open(&bad, status, named); \
    } while (0)
    EXPECT(bad.block_tokens = 0, QUIRE_EINVAL, "block_tokens");
    EXPECT(bad.block_tokens = 24, QUIRE_EINVAL, "block_tokens");
    EXPECT(bad.device_bytes = 1, QUIRE_EINVAL, "device_bytes");
    EXPECT(bad.device_bytes = (uint64_t)1 << 50, QUIRE_ENOMEM, "device_bytes");
    EXPECT(bad.host_bytes = (uint64_t)1 << 50, QUIRE_ENOMEM, "host_bytes");
    EXPECT(bad.device = "floppy", QUIRE_EINVAL, "floppy");
    EXPECT(bad.device = NULL, QUIRE_EINVAL, "device");
    EXPECT(bad.policy = "random", QUIRE_EINVAL, "random");
    EXPECT(bad.group_count = 0, QUIRE_EINVAL, "groups");
    EXPECT(bad.group_count = QUIRE_GROUPS + 1, QUIRE_EUNSUPPORTED, "group");
    EXPECT(bad.max_sequences = 0, QUIRE_EINVAL, "max_sequences");
    EXPECT(bad.size = 3, QUIRE_EINVAL, "size");
    EXPECT(wrong.layers = 0, QUIRE_EINVAL, "layers");
    EXPECT(wrong.kv_heads = 5000, QUIRE_EINVAL, "kv_heads");
    EXPECT(wrong.head_dim = 12, QUIRE_EINVAL, "head_dim");
    EXPECT((wrong.kv_heads = 2, wrong.query_heads = 3), QUIRE_EINVAL, "query_heads");
#undef EXPECT
}

/* ---- allocation failure ------------------------------------------------------------------------------------ */

typedef struct failing {
    int left, living;
} failing;

static void *failing_alloc(void *user, size_t bytes)
{
    failing *f = user;

    if (f->left-- == 0)
        return NULL;
    f->living++;
    return malloc(bytes);
}

static void failing_free(void *user, void *memory)
{
    ((failing *)user)->living--;
    free(memory);
}

static void an_allocation_failure_anywhere_is_clean(void **state)
{
    quire_options options;
    quire_group group;
    int site = 0;

    (void)state;
    small_options(&options, &group, 8, 8);
    for (;; site++) {
        failing f = {.left = site, .living = 0};
        quire_cache *cache = NULL;
        options.alloc = failing_alloc;
        options.free = failing_free;
        options.alloc_user = &f;
        quire_status status = quire_cache_open(&cache, &options);
        if (status == QUIRE_OK) {
            quire_seq_close(cache, small_open(cache, 0));
            quire_cache_close(cache);
            assert_int_equal(f.living, 0);
            break;
        }
        assert_int_equal(status, QUIRE_ENOMEM);
        assert_int_equal(f.living, 0);
        assert_null(cache);
    }
    print_message("%d allocations at open, each failed once\n", site);
    assert_true(site > 10);
}

static void nothing_is_allocated_after_open(void **state)
{
    quire_options options;
    quire_group group;
    quire_cache *cache = NULL;
    failing f = {.left = 1 << 20, .living = 0};
    int32_t tokens[12];

    (void)state;
    small_options(&options, &group, 6, 8);
    options.alloc = failing_alloc;
    options.free = failing_free;
    options.alloc_user = &f;
    assert_int_equal(quire_cache_open(&cache, &options), QUIRE_OK);
    int left = f.left;
    for (int round = 0; round < 20; round++) {
        small_tokens(tokens, 12, round % 3 * 100);
        quire_seq_close(cache, small_prompt(cache, 0, tokens, 12, NULL));
    }
    assert_int_equal(f.left, left);
    quire_cache_close(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_second_request_reuses_the_prefix_of_the_first),
        cmocka_unit_test(nothing_is_shared_across_domains),
        cmocka_unit_test(evicted_blocks_come_back_from_the_host),
        cmocka_unit_test(a_full_cache_says_so_and_changes_nothing),
        cmocka_unit_test(the_watermark_keeps_blocks_for_running_sequences),
        cmocka_unit_test(a_sequence_longer_than_the_cache_is_refused),
        cmocka_unit_test(a_closed_handle_is_stale_for_ever),
        cmocka_unit_test(forks_share_until_they_write),
        cmocka_unit_test(equal_blocks_computed_twice_become_one),
        cmocka_unit_test(a_hint_is_checked_and_an_odd_one_is_refused_by_name),
        cmocka_unit_test(truncation_rolls_back_speculation),
        cmocka_unit_test(tokens_may_be_named_late_but_not_never),
        cmocka_unit_test(a_cancelled_step_leaves_no_trace),
        cmocka_unit_test(calls_out_of_order_are_named),
        cmocka_unit_test(events_tell_what_came_and_went),
        cmocka_unit_test(occupancy_adds_up),
        cmocka_unit_test(bad_options_are_named),
        cmocka_unit_test(an_allocation_failure_anywhere_is_clean),
        cmocka_unit_test(nothing_is_allocated_after_open),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
