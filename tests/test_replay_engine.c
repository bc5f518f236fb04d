/* The engine of quire-replay --timed: what it must never do to requests, whatever the cache. */
#include "support/replay_kit.h"

#include "base/hash.h"
#include "engine.h"

static const replay_engine_model usual = {.prefill_rate = 20000,
                                          .decode_seconds = 0.02,
                                          .offload_rate = 20e9,
                                          .restore_rate = 20e9,
                                          .speed = 1,
                                          .batch = 256,
                                          .step_tokens = 8192};

static replay_outcome run(const replay_trace *trace, uint32_t device, uint32_t host,
                          const replay_engine_model *model)
{
    replay_outcome outcome;
    replay_error error;
    replay_setup setup = {.geometry = {16, 2 << 20, device, host}, .policy = "lru", .output = true};
    if (replay_engine(trace, &setup, model, &outcome, &error))
        fail_msg("%u blocks, %u on the host, batch %u: %s", device, host, model->batch, error.text);
    return outcome;
}

static void nothing_is_lost_however_short_memory_is(void **state)
{
    (void)state;
    replay_options options;
    replay_job job;
    replay_open_fixture(&job, &options);
    uint64_t seed = test_seed("engine", 3), all = job.trace.input_tokens + job.trace.output_tokens,
             preempted = 0;
    uint32_t longest = job.trace.longest / 16 + 1;
    for (int i = 0; i < (test_is_small() ? 4 : 16); i++) {
        replay_engine_model model = usual;
        model.batch = 1 + (uint32_t)(quire__random(&seed) % 100);
        model.step_tokens = 100 + (uint32_t)(quire__random(&seed) % 10000);
        model.prefill_rate = 5000 + (double)(quire__random(&seed) % 100000);
        model.restore_rate = 1e8 * (double)(1 + quire__random(&seed) % 200);
        model.decode_seconds = 1e-3 * (double)(1 + quire__random(&seed) % 200);
        model.speed = 0.5 + (double)(quire__random(&seed) % 4);
        uint32_t device = longest + (uint32_t)(quire__random(&seed) % longest);
        uint32_t host = quire__random(&seed) % 2 ? (uint32_t)(quire__random(&seed) % 20000) : 0;
        replay_outcome outcome = run(&job.trace, device, host, &model);
        assert_int_equal(outcome.requests, job.trace.request_count);
        assert_int_equal(outcome.refused, 0);
        assert_int_equal(outcome.input_tokens, job.trace.input_tokens);
        assert_true(outcome.most_running <= model.batch);
        if (outcome.preemptions == 0)
            assert_int_equal(outcome.computed + outcome.hit_device + outcome.hit_host, all);
        else
            assert_true(outcome.computed + outcome.hit_device + outcome.hit_host >= all);
        assert_true(outcome.ttft_mean > 0);
        preempted += outcome.preemptions;
    }
    assert_true(preempted > 0);
    replay_job_close(&job);
}

static void the_same_run_comes_to_the_same(void **state)
{
    (void)state;
    replay_options options;
    replay_job job;
    replay_open_fixture(&job, &options);
    replay_outcome first = run(&job.trace, 12000, 30000, &usual),
                   second = run(&job.trace, 12000, 30000, &usual);
    first.book_seconds = second.book_seconds = first.whole_seconds = second.whole_seconds = 0;
    assert_memory_equal(&first, &second, sizeof first);
    replay_job_close(&job);
}

/* Requests so far apart that each is alone: then it is as if they ran one after another. */
static void requests_far_apart_find_what_they_find_one_by_one(void **state)
{
    (void)state;
    replay_options options;
    replay_job job;
    replay_error error;
    replay_open_fixture(&job, &options);
    replay_engine_model slow = usual;
    slow.speed = 1e-4;
    for (size_t i = 0; i < job.trace.request_count; i++) /* they come in batches */
        job.trace.requests[i].time_us = (int64_t)i * 100000;
    replay_setup setup = {.geometry = {16, 2 << 20, 60000, 0}, .policy = "lru", .output = true};
    replay_outcome alone, apart = run(&job.trace, 60000, 0, &slow);
    assert_int_equal(replay_drive(&job.trace, &setup, &alone, &error), 0);
    assert_int_equal(apart.most_running, 1);
    assert_int_equal(apart.hit_device, alone.hit_device);
    assert_int_equal(apart.evictions_device, alone.evictions_device);
    replay_job_close(&job);
}

static void what_never_fits_is_refused_and_the_rest_goes_on(void **state)
{
    (void)state;
    replay_options options;
    replay_job job;
    replay_open_fixture(&job, &options);
    uint32_t device = job.trace.longest / 16 / 4, too_long = 0;
    for (size_t i = 0; i < job.trace.request_count; i++)
        too_long += job.trace.requests[i].input + job.trace.requests[i].output > device * 16;
    replay_outcome outcome = run(&job.trace, device, 0, &usual);
    assert_true(too_long > 0);
    assert_int_equal(outcome.refused, too_long);
    assert_int_equal(outcome.requests, job.trace.request_count);
    replay_job_close(&job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_lost_however_short_memory_is),
        cmocka_unit_test(the_same_run_comes_to_the_same),
        cmocka_unit_test(requests_far_apart_find_what_they_find_one_by_one),
        cmocka_unit_test(what_never_fits_is_refused_and_the_rest_goes_on),
    };
    return cmocka_run_group_tests_name("replay_engine", tests, NULL, NULL);
}
