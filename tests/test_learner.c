/* What `learned` learns by: streams whose truth is known. A key is followed when its low bits are zero, which no stream here
 * needs to arrange until the sample is thinned out. */
#include "support/counted_memory.h"
#include "support/testing.h"

#include "base/hash.h"
#include "block/learner.h"
#include "block/worth.h"

enum { TICK = 250, GAP = 10000, STREAM = 3000 }; /* ms, ms, ticks */

static quire__learner *opened(const quire__allocator *allocator)
{
    quire__learner *learner = calloc(1, sizeof(*learner));
    assert_non_null(learner);
    assert_int_equal(quire__learner_open(learner, allocator), QUIRE_OK);
    return learner;
}

static void closed(quire__learner *learner, const quire__allocator *allocator)
{
    quire__learner_close(learner, allocator);
    free(learner);
}

static uint32_t kind_of(quire__learner *learner, uint8_t first)
{
    const uint8_t features[QUIRE__LEARNER_FEATURES] = {first, 1, 2, 3, 4};
    return quire__learner_kind(learner, features);
}

static float sum(const float *counts)
{
    float all = 0;
    for (uint32_t bin = 0; bin < QUIRE__LEARNER_BINS; bin++)
        all += counts[bin];
    return all;
}

static void settle(quire__learner *learner, uint32_t now)
{
    for (uint32_t i = 0; i < 2 * QUIRE__LEARNER_KINDS; i++)
        quire__learner_advance(learner, now);
}

/* A block of kind `often` comes back after ten seconds one time in two, one of kind `once` never. */
static uint32_t run_stream(quire__learner *learner, uint64_t seed, uint32_t often, uint32_t once)
{
    static uint32_t again[STREAM];
    uint32_t now = 0;
    for (uint32_t i = 0; i < STREAM; i++) {
        now += TICK;
        quire__learner_advance(learner, now);
        again[i] = quire__random(&seed) % 2 ? (uint32_t)quire__random(&seed) : 0;
        quire__learner_use(learner, again[i] ? again[i] : (uint32_t)quire__random(&seed), often, now);
        quire__learner_path(learner, 1);
        quire__learner_use(learner, (uint32_t)quire__random(&seed), once, now);
        quire__learner_path(learner, 1);
        if (i >= GAP / TICK && again[i - GAP / TICK])
            quire__learner_use(learner, again[i - GAP / TICK], once, now);
    }
    settle(learner, now);
    return now;
}

static void chances_to_come_back_are_those_of_the_stream(void **state)
{
    (void)state;
    quire__learner *learner = opened(&quire__allocator_default);
    const uint32_t often = kind_of(learner, 0), once = kind_of(learner, 1);
    (void)run_stream(learner, test_seed("learner", 7), often, once);
    const float back = quire__worth_back_within(learner, often, 0, 4 * GAP);
    print_message("one in two comes back: %.3f\n", (double)back);
    assert_true(back > 0.4f && back < 0.6f);
    assert_true(quire__worth_back_within(learner, often, 0, GAP / 2) < 0.05f); /* not before */
    assert_true(quire__worth_back_within(learner, often, 2 * GAP, 10 * GAP) < 0.1f); /* nor after */
    assert_true(quire__worth_back_within(learner, once, 0, 40 * GAP) < 0.1f);
    const uint32_t young = 7 * GAP / 10, old = 2 * GAP;
    assert_true(quire__learner_worth(learner, often, quire__learner_bin(young), young) >
                10 * quire__learner_worth(learner, often, quire__learner_bin(old), old));
    assert_true(quire__learner_worth(learner, often, 0, 0) > 10 * quire__learner_worth(learner, once, 0, 0));
    closed(learner, &quire__allocator_default);
}

static void who_has_not_come_back_counts_for_the_ages_it_has_reached_and_no_more(void **state)
{
    (void)state;
    quire__learner *learner = opened(&quire__allocator_default);
    const uint32_t kind = kind_of(learner, 0), bin = quire__learner_bin(GAP);
    const float *alive = learner->kinds[kind].alive, *back = learner->kinds[kind].back, *root = learner->kinds[0].alive;
    quire__learner_use(learner, 1, kind, 0);
    quire__learner_advance(learner, GAP);
    for (uint32_t i = 0; i < QUIRE__LEARNER_BINS; i++) {
        assert_true(alive[i] == (i < bin ? 1.0f : i == bin ? 0.5f : 0.0f));
        assert_true(root[i] == alive[i]);
    }
    assert_true(sum(back) == 0);
    quire__learner_use(learner, 1, kind, GAP); /* wherever the block was meanwhile */
    assert_true(back[bin] == 1.0f && sum(back) == 1.0f && alive[bin] == 1.0f && alive[0] == 1.5f);
    assert_int_equal(quire__learner_uses(learner, 1), 2);
    closed(learner, &quire__allocator_default);
}

static void memory_is_taken_at_open_and_a_full_sample_is_thinned_out(void **state)
{
    (void)state;
    size_t taken = 0;
    uint64_t seed = test_seed("learner_full", 11);
    const quire__allocator allocator = counted_memory(&taken);
    quire__learner *learner = opened(&allocator);
    const size_t at_open = taken;
    const uint32_t kind = kind_of(learner, 0);
    assert_true(at_open < 3 << 20);
    for (uint32_t i = 0; i < 4 * QUIRE__LEARNER_SAMPLES; i++) {
        quire__learner_use(learner, (uint32_t)quire__random(&seed), kind, i / 64);
        quire__learner_path(learner, 1);
        assert_true(learner->count <= QUIRE__LEARNER_SAMPLES);
    }
    assert_true(taken == at_open);
    assert_in_range(learner->shift, 1, 3);
    assert_true(learner->count > QUIRE__LEARNER_SAMPLES / 4);
    closed(learner, &allocator);
}

static void long_paths_are_followed_more_sparsely(void **state)
{
    (void)state;
    quire__learner *learner = opened(&quire__allocator_default);
    for (uint32_t i = 0; i < 200; i++)
        quire__learner_path(learner, 60);
    assert_int_equal(learner->shift, 0);
    uint64_t seed = test_seed("learner_long", 19);
    const uint32_t kind = kind_of(learner, 0);
    for (uint32_t i = 0; i < 1000; i++) {
        for (uint32_t use = 0; use < 32; use++) /* what the last thinning left is let go meanwhile */
            quire__learner_use(learner, (uint32_t)quire__random(&seed), kind, i);
        quire__learner_path(learner, 8192u >> learner->shift);
    }
    assert_int_equal(learner->shift, 7);
    assert_true(learner->together <= 64);
    closed(learner, &quire__allocator_default);
}

static void one_call_ages_a_bounded_number_of_samples(void **state)
{
    (void)state;
    enum { MANY = 8192, MOST = 1024 };
    uint64_t seed = test_seed("learner_bound", 13);
    quire__learner *learner = opened(&quire__allocator_default);
    const uint32_t kind = kind_of(learner, 0), hour = 3600 * 1000;
    const float *alive = learner->kinds[kind].alive;
    for (uint32_t i = 0; i < MANY; i++)
        quire__learner_use(learner, (uint32_t)quire__random(&seed), kind, 0);
    for (uint32_t call = 1; call <= MANY / MOST; call++) {
        quire__learner_advance(learner, hour);
        assert_true(alive[quire__learner_bin(hour)] == 0.5f * (float)(call * MOST)); /* the rest is as it was */
    }
    closed(learner, &quire__allocator_default);
}

static void the_same_stream_teaches_the_same(void **state)
{
    (void)state;
    quire__learner *one = opened(&quire__allocator_default), *other = opened(&quire__allocator_default);
    const uint64_t seed = test_seed("learner_same", 17);
    (void)run_stream(one, seed, kind_of(one, 0), kind_of(one, 1));
    (void)run_stream(other, seed, kind_of(other, 0), kind_of(other, 1));
    assert_int_equal(one->kind_count, other->kind_count);
    for (uint32_t kind = 0; kind < one->kind_count; kind++)
        assert_memory_equal(one->kinds[kind].worth, other->kinds[kind].worth, sizeof(one->kinds[kind].worth));
    closed(one, &quire__allocator_default);
    closed(other, &quire__allocator_default);
}

static void ages_and_bins_agree(void **state)
{
    (void)state;
    for (uint32_t bin = 1; bin < QUIRE__LEARNER_BINS; bin++) {
        assert_int_equal(quire__learner_bin(quire__learner_edge(bin)), bin);
        assert_int_equal(quire__learner_bin(quire__learner_edge(bin) - 1), bin - 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chances_to_come_back_are_those_of_the_stream),
        cmocka_unit_test(who_has_not_come_back_counts_for_the_ages_it_has_reached_and_no_more),
        cmocka_unit_test(memory_is_taken_at_open_and_a_full_sample_is_thinned_out),
        cmocka_unit_test(long_paths_are_followed_more_sparsely),
        cmocka_unit_test(one_call_ages_a_bounded_number_of_samples),
        cmocka_unit_test(the_same_stream_teaches_the_same),
        cmocka_unit_test(ages_and_bins_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
