/* test_bench_kit.c: what quire-bench concludes from figures: medians, verdicts, targets, and the file it writes. */
#include "support/testing.h"

#include <string.h>
#include <stdio.h>
#include <unistd.h>

#include "bench/report.h"
#include "bench/targets.h"
#include "bench/verdicts.h"

static bench_sample sample(double median)
{
    return (bench_sample){.median = median, .least = median * 0.9, .most = median * 1.1, .runs = 7};
}

/* ---- timing ------------------------------------------------------------------------------------------------ */

static double scripted[] = {9, 9, 5, 1, 4, 2, 3}; /* two warm-ups, then five rounds */
static size_t scripted_at, ready_calls, done_calls;

static void *clock_ready(bench_clock *clock, const bench_racer *racer)
{
    (void)clock;
    ready_calls++;
    return racer->arg;
}

static double clock_time(bench_clock *clock, const bench_racer *racer, void *kept)
{
    (void)clock;
    assert_ptr_equal(kept, racer->arg);
    return scripted[scripted_at++];
}

static void clock_done(bench_clock *clock, void *kept)
{
    (void)clock;
    (void)kept;
    done_calls++;
}

static void a_sample_is_the_median_of_the_rounds_after_the_warm_ups(void **state)
{
    bench_clock clock = {clock_ready, clock_time, clock_done};
    bench_effort effort = {.warmups = 2, .runs = 5, .seconds = 1};
    bench_racer racer = bench_enter(NULL, NULL, NULL, &clock, 2);
    (void)state;

    racer.clock = &clock;
    bench_race(&effort, &racer, 1);
    assert_int_equal(scripted_at, 7);
    assert_int_equal(racer.sample.runs, 5);
    assert_true(racer.sample.median == 1.5 && racer.sample.least == 0.5 && racer.sample.most == 2.5);
    assert_int_equal(ready_calls, 1);
    assert_int_equal(done_calls, 1);
}

static void a_rate_turns_least_and_most_around(void **state)
{
    bench_sample seconds = {.median = 0.5, .least = 0.25, .most = 1, .runs = 5}, rate = bench_rate(seconds, 10);
    (void)state;

    assert_true(rate.median == 20 && rate.least == 10 && rate.most == 40 && rate.runs == 5);
}

/* ---- verdicts ---------------------------------------------------------------------------------------------- */

static void the_verdict_on_stores_takes_the_fastest_grid(void **state)
{
    double capped[] = {1.2, 4.8, 9.1, 9.0}, free_of_it[] = {1.2, 4.8, 9.1, 48.0};
    bench_verdict verdict = bench_verdict_stores(capped, 4);
    (void)state;

    assert_true(verdict.known && verdict.holds);
    assert_non_null(strstr(verdict.text, "true: "));
    assert_non_null(strstr(verdict.text, "at most 8.5 GiB/s (9.1 GB/s)"));
    verdict = bench_verdict_stores(free_of_it, 4);
    assert_true(verdict.known && !verdict.holds);
    assert_non_null(strstr(verdict.text, "false: "));
    assert_non_null(strstr(verdict.text, "(48.0 GB/s)"));
    assert_false(bench_verdict_stores(NULL, 0).known);
}

static void the_verdict_on_batches_looks_just_below_28_kib(void **state)
{
    bench_point slow[] = {{4096, 4, 50}, {24 << 10, 30, 50}, {32 << 10, 41, 50}, {1 << 20, 49, 50}};
    bench_point fast[] = {{4096, 4, 50}, {24 << 10, 45, 50}, {32 << 10, 46, 50}};
    bench_point never[] = {{4096, 4, 50}, {1 << 20, 30, 50}};
    bench_verdict verdict = bench_verdict_batches(slow, 4);
    (void)state;

    assert_true(verdict.known && verdict.holds);
    assert_non_null(strstr(verdict.text, "24 KiB reach 60%"));
    assert_non_null(strstr(verdict.text, "80% begin at 32 KiB"));
    verdict = bench_verdict_batches(fast, 3);
    assert_true(verdict.known && !verdict.holds);
    assert_non_null(strstr(verdict.text, "80% begin at 24 KiB"));
    verdict = bench_verdict_batches(never, 2);
    assert_true(verdict.holds);
    assert_non_null(strstr(verdict.text, "no size reaches 80%"));
    assert_false(bench_verdict_batches(fast + 2, 1).known); /* nothing below 28 KiB was measured */
}

static void the_verdict_on_pages_is_of_the_worst_batch_and_says_when_it_is_unsure(void **state)
{
    double good[] = {0.001, 0.021, -0.01}, bad[] = {0.001, 0.08, 0.02}, spreads[] = {0.001, 0.002, 0.5};
    double wide[] = {0.02, 0.02, 0.02};
    bench_verdict verdict = bench_verdict_pages(good, spreads, 3);
    (void)state;

    assert_true(verdict.known && verdict.holds);
    assert_non_null(strstr(verdict.text, "at most 2.1%"));
    assert_null(strstr(verdict.text, "too near"));
    verdict = bench_verdict_pages(bad, spreads, 3);
    assert_true(verdict.known && !verdict.holds);
    assert_non_null(strstr(verdict.text, "at most 8.0%"));
    assert_non_null(strstr(bench_verdict_pages(good, wide, 3).text, "too near"));
    assert_false(bench_verdict_pages(good, spreads, 0).known);
}

/* ---- targets ----------------------------------------------------------------------------------------------- */

static bench_figure figure(const char *name, const char *size)
{
    bench_figure made = {.unit = "GB/s", .rate = true, .value = sample(90), .limit = sample(100), .limit_name = "l"};

    snprintf(made.name, sizeof made.name, "%s", name);
    snprintf(made.size, sizeof made.size, "%s", size);
    return made;
}

static void targets_hold_on_hopper_only(void **state)
{
    (void)state;
    assert_true(bench_targets_hold("NVIDIA H100 80GB HBM3"));
    assert_true(bench_targets_hold("NVIDIA H200"));
    assert_false(bench_targets_hold("NVIDIA A100-SXM4-80GB"));
}

static void a_target_is_met_at_its_value_and_not_below(void **state)
{
    bench_figure limit = figure("gather", "2048 x 64 KiB"), launch = figure("block copy", "1 x 2.00 MiB");
    bench_figure rate = figure("pack", "any"), other = figure("block copy", "8 x 2.00 MiB");
    (void)state;

    limit.value.median = 85;
    assert_true(bench_target_met(bench_target_of(&limit), &limit));
    limit.value.median = 84.9;
    assert_false(bench_target_met(bench_target_of(&limit), &limit));
    assert_false(bench_target_met(bench_target_of(&launch), &launch)); /* no time of a launch was taken */
    launch.launch = sample(5);
    assert_true(bench_target_met(bench_target_of(&launch), &launch));
    launch.launch = sample(5.01);
    assert_false(bench_target_met(bench_target_of(&launch), &launch));
    rate.value = sample(799);
    assert_false(bench_target_met(bench_target_of(&rate), &rate));
    rate.value = sample(801);
    assert_true(bench_target_met(bench_target_of(&rate), &rate));
    assert_null(bench_target_of(&other));
}

/* ---- the report -------------------------------------------------------------------------------------------- */

static char *written_report(bool targets)
{
    char path[] = "/tmp/quire-report-XXXXXX", *text = calloc(1, 1 << 16);
    int file = mkstemp(path);
    bench_report *report = bench_report_open("quire-bench \"test\"", "host");
    bench_figure plain = figure("gather", "a size");

    assert_true(file >= 0);
    close(file);
    plain.launch = sample(3);
    plain.baseline = sample(50);
    plain.baseline_name = "what one would use";
    bench_report_targets(report, targets);
    bench_report_setting(report, "tab", "a\tb");
    bench_report_figure(report, &plain);
    bench_report_note(report, "verdict, stores: %s", "true");
    bench_report_close(report, path);
    FILE *stream = fopen(path, "r");
    assert_non_null(stream);
    assert_true(fread(text, 1, (1 << 16) - 1, stream) > 0);
    fclose(stream);
    unlink(path);
    return text;
}

static void the_file_has_every_figure_with_its_limit_alternative_launch_and_target(void **state)
{
    char *text = written_report(true);
    (void)state;

    assert_non_null(strstr(text, "\"program\": \"quire-bench \\\"test\\\"\""));
    assert_non_null(strstr(text, "\"tab\": \"a\\u0009b\""));
    assert_non_null(strstr(text, "\"value\": {\"median\": 90, "));
    assert_non_null(strstr(text, "\"of_limit\": 0.9"));
    assert_non_null(strstr(text, "\"alternative_is\": \"what one would use\""));
    assert_non_null(strstr(text, "\"us_a_launch\": {\"median\": 3, "));
    assert_non_null(strstr(text, "\"target\": \"85% of the limit\", \"met\": true"));
    assert_non_null(strstr(text, "\"verdict, stores: true\""));
    free(text);
}

static void a_report_that_is_cut_off_has_left_its_figures(void **state)
{
    char path[] = "/tmp/quire-report-XXXXXX", text[4096] = "";
    int file = mkstemp(path);
    bench_report *report = bench_report_open("quire-bench", "host");
    bench_figure plain = figure("gather", "a size");
    (void)state;

    assert_true(file >= 0);
    close(file);
    bench_report_keep(report, path);
    bench_report_figure(report, &plain);
    FILE *stream = fopen(path, "r");
    assert_non_null(stream);
    assert_true(fread(text, 1, sizeof text - 1, stream) > 0);
    fclose(stream);
    assert_non_null(strstr(text, "\"complete\": false"));
    assert_non_null(strstr(text, "\"name\": \"gather\""));
    bench_report_close(report, path);
    stream = fopen(path, "r");
    assert_non_null(stream);
    assert_true(fread(text, 1, sizeof text - 1, stream) > 0);
    fclose(stream);
    unlink(path);
    assert_non_null(strstr(text, "\"complete\": true"));
}

static void targets_are_left_out_where_they_do_not_hold(void **state)
{
    char *text = written_report(false);
    (void)state;

    assert_null(strstr(text, "target"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sample_is_the_median_of_the_rounds_after_the_warm_ups),
        cmocka_unit_test(a_rate_turns_least_and_most_around),
        cmocka_unit_test(the_verdict_on_stores_takes_the_fastest_grid),
        cmocka_unit_test(the_verdict_on_batches_looks_just_below_28_kib),
        cmocka_unit_test(the_verdict_on_pages_is_of_the_worst_batch_and_says_when_it_is_unsure),
        cmocka_unit_test(targets_hold_on_hopper_only),
        cmocka_unit_test(a_target_is_met_at_its_value_and_not_below),
        cmocka_unit_test(the_file_has_every_figure_with_its_limit_alternative_launch_and_target),
        cmocka_unit_test(a_report_that_is_cut_off_has_left_its_figures),
        cmocka_unit_test(targets_are_left_out_where_they_do_not_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
