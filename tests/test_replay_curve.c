/* The curve and what the planner takes for granted, against exact runs of the deciding half. */
#include "support/replay_kit.h"

#include <math.h>

#include "base/config.h"
#include "curve.h"
#include "drive.h"

static replay_outcome exact(const replay_job *job, const char *policy, uint64_t device, uint64_t host)
{
    replay_outcome outcome;
    replay_error error;
    replay_setup setup = {.geometry = {job->block_tokens, job->block_bytes, (uint32_t)device, (uint32_t)host},
                          .policy = policy,
                          .output = true};
    if (replay_drive(&job->trace, &setup, &outcome, &error))
        fail_msg("%s", error.text);
    return outcome;
}

static double points(const replay_job *job, uint64_t found)
{
    return 100.0 * (double)found / (double)job->trace.input_tokens;
}

static void every_policys_curve_is_within_two_points_of_exact_runs(void **state)
{
    (void)state;
    replay_options options;
    replay_job job;
    replay_error error;
    replay_open_fixture(&job, &options);
    const char *const *policies = quire__variable_find("QUIRE_POLICY")->choices;
    for (size_t p = 0; policies[p]; p++) {
        replay_curve curve;
        double worst = 0;
        if (replay_curve_make(&curve, &job, policies[p], 0, &error))
            fail_msg("%s", error.text);
        for (size_t k = test_is_small() ? 7 : 0; k < 8; k++) {
            size_t i = k * (curve.points - 1) / 7;
            double apart = points(&job, curve.hits[i]) -
                           points(&job, exact(&job, policies[p], curve.capacities[i], 0).hit_device);
            worst = fmax(worst, fabs(apart));
        }
        print_message("%s: within %.3f points\n", policies[p], worst);
        assert_true(worst <= 2);
        assert_true(curve.hits[curve.points - 1] > curve.hits[0]);
        replay_curve_close(&curve);
    }
    replay_job_close(&job);
}

static void the_hits_of_requests_add_up_to_those_of_the_curve(void **state)
{
    (void)state;
    replay_options options;
    replay_job job;
    replay_error error;
    replay_curve curve;
    replay_open_fixture(&job, &options);
    assert_int_equal(replay_curve_make(&curve, &job, "lru", 0, &error), 0);
    for (size_t i = 0; i < curve.points; i++) {
        uint64_t sum = 0;
        for (size_t r = 0; r < job.trace.request_count; r++)
            sum += curve.request_hits[r * curve.points + i];
        assert_int_equal(sum, curve.hits[i]);
        if (i > 0) {
            assert_true(curve.capacities[i] > curve.capacities[i - 1]);
            assert_true(curve.hits[i] >= curve.hits[i - 1]);
            double middle = ((double)curve.capacities[i] + (double)curve.capacities[i - 1]) / 2;
            double between = replay_curve_at(&curve, middle);
            assert_true(between >= (double)curve.hits[i - 1] && between <= (double)curve.hits[i]);
        }
    }
    replay_curve_close(&curve);
    replay_job_close(&job);
}

/* What planner.c says of two tiers. */
static void two_tiers_find_what_the_larger_one_finds(void **state)
{
    (void)state;
    replay_options options;
    replay_job job;
    replay_open_fixture(&job, &options);
    static const uint32_t sizes[][2] = {{12000, 40000}, {12000, 120000}, {40000, 120000}, {60000, 30000}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint32_t device = sizes[i][0], host = sizes[i][1], larger = device > host ? device : host;
        replay_outcome both = exact(&job, "lru", device, host);
        double found = points(&job, both.hit_device + both.hit_host);
        assert_true(fabs(found - points(&job, exact(&job, "lru", larger, 0).hit_device)) < 0.2);
        assert_true(fabs(points(&job, both.hit_device) -
                         points(&job, exact(&job, "lru", device, 0).hit_device)) < 0.2);
        assert_true((both.hit_host > 0) == (host > device));
    }
    replay_job_close(&job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_policys_curve_is_within_two_points_of_exact_runs),
        cmocka_unit_test(the_hits_of_requests_add_up_to_those_of_the_curve),
        cmocka_unit_test(two_tiers_find_what_the_larger_one_finds),
    };
    return cmocka_run_group_tests_name("replay_curve", tests, NULL, NULL);
}
