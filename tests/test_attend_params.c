/* test_attend_params.c: quire_attend_with through the public interface: what each parameter does, on numbers that can be
 * worked out by hand, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "quire/quire.h"

enum { TOKENS = 21, DIM = 8 };

/* One head on the host device, and one step of TOKENS tokens. K is 0 but for token 20, V of token t is t. */
typedef struct bench {
    quire_cache *cache;
    quire_step *step;
    const quire_view *view;
    float k[TOKENS][DIM], v[TOKENS][DIM], q[TOKENS][DIM], out[TOKENS][DIM];
} bench;

static quire_tensor tensor(void *data)
{
    return (quire_tensor){data, QUIRE_DTYPE_F32, 1, DIM, DIM};
}

static void bench_open(bench *b)
{
    quire_group group = {.layers = 1, .kv_heads = 1, .head_dim = DIM, .dtype = QUIRE_DTYPE_F32};
    quire_options options;
    quire_seq seq;
    int32_t tokens[TOKENS] = {0};

    memset(b, 0, sizeof *b);
    assert_int_equal(quire_options_init(&options, sizeof options), QUIRE_OK);
    options.groups = &group;
    options.group_count = 1;
    options.device = "host";
    options.block_tokens = 4;
    options.device_bytes = 1 << 20;
    options.host_bytes = 0;
    options.offload = QUIRE_OFFLOAD_NONE;
    assert_int_equal(quire_cache_open(&b->cache, &options), QUIRE_OK);
    assert_int_equal(quire_seq_open(b->cache, NULL, &seq), QUIRE_OK);
    assert_int_equal(quire_step_begin(b->cache, NULL, &b->step), QUIRE_OK);
    assert_int_equal(quire_step_add(b->step, seq, tokens, TOKENS), QUIRE_OK);
    assert_int_equal(quire_step_submit(b->step), QUIRE_OK);
    b->view = quire_step_view(b->step, 0);
    for (int t = 0; t < TOKENS; t++)
        for (int d = 0; d < DIM; d++) {
            b->v[t][d] = (float)t;
            b->q[t][d] = 1;
            b->k[t][d] = t == 20 ? 0.5f : 0; /* a score of 4 */
        }
    quire_tensor k = tensor(b->k), v = tensor(b->v);
    assert_int_equal(quire_append(b->view, 0, &k, &v), QUIRE_OK);
}

static void bench_close(bench *b)
{
    quire_step_cancel(b->step);
    quire_cache_close(b->cache);
}

static void expect(bench *b, const quire_attend_params *params, int token, double value)
{
    quire_tensor q = tensor(b->q), out = tensor(b->out);
    memset(b->out, 0xff, sizeof b->out);
    assert_int_equal(quire_attend_with(b->view, 0, &q, &out, params), QUIRE_OK);
    for (int d = 0; d < DIM; d++)
        if (!(fabs((double)b->out[token][d] - value) <= 2e-6 * (1 + value)))
            fail_msg("token %d: %g, not %g", token, (double)b->out[token][d], value);
}

static void a_window_is_the_newest_tokens_with_the_token_itself(void **state)
{
    quire_attend_params params = {.size = sizeof params, .scale = 1, .window = 5};
    bench b;

    (void)state;
    bench_open(&b);
    expect(&b, &params, 2, 1); /* shorter than the window: all of 0 1 2 */
    expect(&b, &params, 4, 2);
    expect(&b, &params, 11, 9); /* 7 8 9 10 11 */
    params.window = 1;
    expect(&b, &params, 11, 11);
    params.window = 0;
    expect(&b, &params, 11, 5.5);
    bench_close(&b);
}

static void a_sink_is_a_key_without_value(void **state)
{
    float sink = 0;
    quire_attend_params params = {.size = sizeof params, .scale = 7, .sinks = &sink};
    bench b;

    (void)state;
    bench_open(&b);
    expect(&b, &params, 3, 6.0 / 5); /* 0 1 2 3 and the sink, all of score 0 */
    sink = logf(4); /* as heavy as four keys, whatever the scale */
    expect(&b, &params, 3, 6.0 / 8);
    params.window = 2;
    expect(&b, &params, 3, 5.0 / 6);
    sink = 80; /* far above every score */
    expect(&b, &params, 3, 0);
    sink = -INFINITY;
    expect(&b, &params, 3, 2.5);
    bench_close(&b);
}

static void a_soft_cap_bends_scores_behind_the_scale(void **state)
{
    quire_attend_params params = {.size = sizeof params, .scale = 2, .soft_cap = 3};
    bench b;

    (void)state;
    bench_open(&b);
    double heavy = exp(3 * tanh(8.0 / 3)); /* token 20: 4 times the scale */
    expect(&b, &params, 20, (190 + 20 * heavy) / (20 + heavy));
    params.window = 3;
    expect(&b, &params, 20, (18 + 19 + 20 * heavy) / (2 + heavy));
    bench_close(&b);
}

static void refused(bench *b, const quire_attend_params *params, const char *named)
{
    quire_tensor q = tensor(b->q), out = tensor(b->out);
    memset(b->out, 0x77, sizeof b->out);
    float before = b->out[0][0];
    assert_int_equal(quire_attend_with(b->view, 0, &q, &out, params), QUIRE_EINVAL);
    if (strstr(quire_error_text(), named) == NULL)
        fail_msg("the text does not name %s: %s", named, quire_error_text());
    assert_true(b->out[0][0] == before);
}

static void bad_parameters_are_named(void **state)
{
    const quire_attend_params good = {.size = sizeof good, .scale = 1};
    quire_attend_params bad;
    bench b;

    (void)state;
    bench_open(&b);
    refused(&b, NULL, "params");
    bad = good, bad.size = 4;
    refused(&b, &bad, "size");
    bad = good, bad.scale = NAN;
    refused(&b, &bad, "scale");
    bad = good, bad.window = 1u << 31;
    refused(&b, &bad, "window");
    bad = good, bad.soft_cap = -1;
    refused(&b, &bad, "soft_cap");
    bad = good, bad.soft_cap = INFINITY;
    refused(&b, &bad, "soft_cap");
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_window_is_the_newest_tokens_with_the_token_itself),
        cmocka_unit_test(a_sink_is_a_key_without_value),
        cmocka_unit_test(a_soft_cap_bends_scores_behind_the_scale),
        cmocka_unit_test(bad_parameters_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
