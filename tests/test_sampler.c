/* The sampler: ties, seeds, and the distribution that it draws from. */
#include "support/testing.h"

#include "sampler.h"

#include <math.h>
#include <string.h>

enum { VOCABULARY = 6, DRAWS = 20000 };

static const float logits[VOCABULARY] = { 0.0f, 2.0f, -1.0f, 2.0f, 1.0f, -30.0f };

static int32_t pick(sampler *s, const float *row, double *log_probability)
{
    double work[VOCABULARY];
    return sampler_pick(s, row, VOCABULARY, work, log_probability);
}

static void draw(const sampler_options *options, uint32_t branch, int32_t *out, size_t count)
{
    sampler s;
    double log_probability;
    sampler_init(&s, options, branch);
    for (size_t i = 0; i < count; i++) out[i] = pick(&s, logits, &log_probability);
}

static void test_temperature_zero_takes_the_largest_and_the_lowest_id_of_a_tie(void **state)
{
    (void)state;
    sampler s;
    double log_probability, total = 0;
    sampler_init(&s, &(sampler_options){ .top_p = 1 }, 0);
    for (int i = 0; i < VOCABULARY; i++) total += exp((double)logits[i]);
    for (int i = 0; i < 3; i++) assert_int_equal(pick(&s, logits, &log_probability), 1);
    assert_true(fabs(log_probability - (2.0 - log(total))) < 1e-6);
}

static void test_a_seed_repeats_and_branches_differ(void **state)
{
    (void)state;
    int32_t a[64], b[64];
    sampler_options options = { .temperature = 1.5f, .top_p = 1, .seed = 42 };
    draw(&options, 0, a, 64);
    draw(&options, 0, b, 64);
    assert_memory_equal(a, b, sizeof a);
    draw(&options, 1, b, 64);
    assert_memory_not_equal(a, b, sizeof a);
    options.seed = 43;
    draw(&options, 0, b, 64);
    assert_memory_not_equal(a, b, sizeof a);
}

/* Each frequency within five standard deviations of its probability. */
static void assert_distribution(const sampler_options *options, const double *probability)
{
    static int32_t ids[DRAWS];
    int counts[VOCABULARY] = { 0 };
    draw(options, 0, ids, DRAWS);
    for (int i = 0; i < DRAWS; i++) counts[ids[i]]++;
    for (int i = 0; i < VOCABULARY; i++) {
        double p = probability[i], deviation = sqrt(p * (1 - p) * DRAWS);
        assert_true(fabs(counts[i] - p * DRAWS) <= 5 * deviation + 1e-9);
    }
}

static void test_tokens_are_drawn_by_their_probability(void **state)
{
    (void)state;
    sampler_options options = { .temperature = 0.7f, .top_p = 1, .seed = 1 };
    double p[VOCABULARY], total = 0;
    for (int i = 0; i < VOCABULARY; i++) total += p[i] = exp((double)logits[i] / 0.7);
    for (int i = 0; i < VOCABULARY; i++) p[i] /= total;
    assert_distribution(&options, p);
}

static void test_top_p_keeps_the_smallest_set_that_sums_to_it(void **state)
{
    (void)state;
    /* e^2, e^2, e^1, e^0, e^-1: 0.386, 0.386, 0.142, 0.052, 0.019 */
    sampler_options options = { .temperature = 1, .top_p = 0.8f, .seed = 1 };
    double total = 2 * exp(2) + exp(1);
    double p[VOCABULARY] = { 0, exp(2) / total, 0, exp(2) / total, exp(1) / total, 0 };
    assert_distribution(&options, p);
    options.top_p = 0.01f; /* one is enough, but a tie is not broken by chance */
    double tied[VOCABULARY] = { 0, 0.5, 0, 0.5, 0, 0 };
    assert_distribution(&options, tied);
}

static void test_a_tiny_temperature_is_the_largest(void **state)
{
    (void)state;
    float row[VOCABULARY];
    sampler s;
    double log_probability;
    memcpy(row, logits, sizeof row);
    row[3] = 1.99f;
    sampler_init(&s, &(sampler_options){ .temperature = 1e-6f, .top_p = 0.5f, .seed = 9 }, 0);
    for (int i = 0; i < 100; i++) assert_int_equal(pick(&s, row, &log_probability), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_temperature_zero_takes_the_largest_and_the_lowest_id_of_a_tie),
        cmocka_unit_test(test_a_seed_repeats_and_branches_differ),
        cmocka_unit_test(test_tokens_are_drawn_by_their_probability),
        cmocka_unit_test(test_top_p_keeps_the_smallest_set_that_sums_to_it),
        cmocka_unit_test(test_a_tiny_temperature_is_the_largest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
