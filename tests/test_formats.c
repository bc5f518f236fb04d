/* test_formats.c: what the quantised formats promise: codes and scales by their definition, errors within bounds, sizes,
 * and a rotary append that stores what the caller's own turning would. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/hash.h"
#include "device/host_formats.h"
#include "quire/quire.h"
#include "support/testing.h"

enum { MOST = 512 };

/* Pages of one token and one head. */
typedef struct one_row {
    quire__pages pages;
    unsigned char row[4 * MOST], scales[MOST];
} one_row;

static one_row row_of(quire_dtype dtype, int32_t dims)
{
    one_row made = {.pages = {.block_tokens = 1, .kv_heads = 1, .head_dim = dims, .dtype = dtype}};
    quire__pages_set_format(&made.pages, quire__format_of(dtype, dims, false));
    return made;
}

static float normal(uint64_t *random)
{
    double sum = 0;
    for (int i = 0; i < 12; i++)
        sum += (double)(quire__random(random) >> 11) * 0x1p-53;
    return (float)(sum - 6);
}

/* |stored - given| / |given| of a row, as lengths. */
static double row_error(quire_dtype dtype, int which, const float *given, int32_t dims)
{
    one_row r = row_of(dtype, dims);
    float values[MOST];
    double error = 0, length = 0;
    memcpy(values, given, (size_t)dims * sizeof *values);
    quire__row_encode(&r.pages, which, 0, values, r.row, r.scales);
    quire__row_decode(&r.pages, which, 0, r.row, r.scales, values);
    if (which == 0 && r.pages.rotation != 0)
        quire__rotate(values, dims, r.pages.rotation);
    for (int32_t i = 0; i < dims; i++) {
        error += ((double)values[i] - given[i]) * ((double)values[i] - given[i]);
        length += (double)given[i] * given[i];
    }
    return sqrt(error / length);
}

static void e5m2_is_the_upper_half_of_an_f16(void **state)
{
    (void)state;
    for (int code = 0; code < 256; code++) {
        uint8_t byte = (uint8_t)code, again;
        uint16_t half = (uint16_t)(code << 8);
        float value = quire__dtype_load(QUIRE_DTYPE_FP8_E5M2, &byte);
        float expected = quire__dtype_load(QUIRE_DTYPE_F16, &half);
        assert_true(isnan(value) ? isnan(expected) : memcmp(&value, &expected, sizeof value) == 0);
        quire__dtype_store(QUIRE_DTYPE_FP8_E5M2, &again, value);
        if (isnan(value))
            assert_int_equal(again, 0x7f);
        else
            assert_int_equal(again, isinf(value) ? (code & 0x80) | 0x7b : code); /* saturates */
    }
    uint8_t byte;
    quire__dtype_store(QUIRE_DTYPE_FP8_E5M2, &byte, 1.125f); /* a tie: to even */
    assert_int_equal(byte, 0x3c);
    quire__dtype_store(QUIRE_DTYPE_FP8_E5M2, &byte, 1e30f);
    assert_int_equal(byte, 0x7b);
}

static void int8_rows_are_codes_times_the_largest_over_127(void **state)
{
    one_row r = row_of(QUIRE_DTYPE_INT8, 8);
    float values[8] = {12.7f, -12.7f, 0.0f, 0.1f, 0.149f, -0.151f, NAN, 6.35f};
    static const int8_t codes[8] = {127, -127, 0, 1, 1, -2, 0, 63};
    (void)state;
    quire__row_encode(&r.pages, 1, 0, values, r.row, r.scales);
    float scale = quire__dtype_load(QUIRE_DTYPE_F16, r.scales);
    assert_true(fabsf(scale - 0.1f) < 1e-4f);
    for (int i = 0; i < 7; i++)
        assert_int_equal((int8_t)r.row[i], codes[i]);
    quire__row_decode(&r.pages, 1, 0, r.row, r.scales, values);
    assert_true(values[0] == 127 * scale && values[6] == 0);
}

static void int4_words_hold_what_the_definition_says(void **state)
{
    one_row r = row_of(QUIRE_DTYPE_INT4, 16);
    /* a range of 15.5, so the unit is 1; and multiples of 5/8, which only the last part stores as they are */
    static const float given[16] = {-7.5f, 8, -7, -6, -5, -4, -3, -2, 0, 0.625f, 1.25f, -0.625f, 1.875f, 2.5f, -1.25f, 3.125f};
    static const float stored[8] = {-7, 8, -7, -6, -5, -4, -3, -2};
    float values[16];
    uint32_t word;
    (void)state;
    memcpy(values, given, sizeof values);
    quire__row_encode(&r.pages, 1, 0, values, r.row, r.scales);
    memcpy(&word, r.scales, sizeof word);
    assert_int_equal(word, 0x88670c78u); /* zeros of 7 and 6, and of 8 where there is no element */
    memcpy(&word, r.row, sizeof word);
    assert_int_equal(word, 0x531f4200u); /* evens below odds */
    memcpy(&word, r.row + 4, sizeof word);
    assert_int_equal(word, 0xba574986u);
    quire__row_decode(&r.pages, 1, 0, r.row, r.scales, values);
    for (int i = 0; i < 16; i++)
        assert_true(values[i] == (i < 8 ? stored[i] : given[i]));
}

static void a_row_of_zeros_stays_one_and_huge_ones_stay_finite(void **state)
{
    static const quire_dtype types[] = {QUIRE_DTYPE_FP8_E4M3, QUIRE_DTYPE_FP8_E5M2, QUIRE_DTYPE_INT8, QUIRE_DTYPE_INT4};
    (void)state;
    for (size_t t = 0; t < 4; t++)
        for (int huge = 0; huge < 2; huge++) {
            one_row r = row_of(types[t], 64);
            float values[64];
            for (int i = 0; i < 64; i++)
                values[i] = huge ? (i % 2 ? 3e38f : -1.0f) : 0.0f;
            quire__row_encode(&r.pages, 1, 0, values, r.row, r.scales);
            quire__row_decode(&r.pages, 1, 0, r.row, r.scales, values);
            for (int i = 0; i < 64; i++)
                assert_true(huge ? isfinite(values[i]) : values[i] == 0);
        }
}

/* Normal values; and for K one channel 30 times the others, which only a rotation spreads. */
static void errors_of_rows_are_within_their_bounds(void **state)
{
    static const struct {
        quire_dtype dtype;
        double bound, outlier; /* of |error| / |row| */
    } cases[] = {{QUIRE_DTYPE_FP8_E4M3, 0.036, 0.04}, {QUIRE_DTYPE_FP8_E5M2, 0.072, 0.08},
                 {QUIRE_DTYPE_INT8, 0.012, 0.05}, {QUIRE_DTYPE_INT4, 0.08, 0.09}};
    static const int32_t dims[] = {64, 80, 96, 128, 192, 256};
    uint64_t random = test_seed("row errors", 51);
    (void)state;
    for (size_t c = 0; c < 4; c++)
        for (int round = 0; round < 60; round++) {
            float values[MOST];
            int32_t n = dims[round % 6];
            for (int32_t i = 0; i < n; i++)
                values[i] = normal(&random);
            double plain = row_error(cases[c].dtype, round % 2, values, n), outlier;
            values[7] *= 30;
            outlier = row_error(cases[c].dtype, 0, values, n);
            if (!(plain <= cases[c].bound && outlier <= cases[c].outlier))
                fail_msg("%s, %d dims: off by %g, with an outlier by %g", quire_dtype_name(cases[c].dtype), n, plain,
                         outlier);
        }
}

static void a_block_takes_what_its_format_says(void **state)
{
    static const struct {
        quire_dtype dtype;
        uint64_t bytes;
    } cases[] = {{QUIRE_DTYPE_F32, 4 << 20},
                 {QUIRE_DTYPE_BF16, 2 << 20},
                 {QUIRE_DTYPE_FP8_E4M3, (1 << 20) + 512 * 16 * 2},
                 {QUIRE_DTYPE_FP8_E5M2, (1 << 20) + 512 * 16 * 2},
                 {QUIRE_DTYPE_INT8, (1 << 20) + 512 * 16 * 2},
                 {QUIRE_DTYPE_INT4, (1 << 19) + 512 * 16 * 16}};
    static float scales[32 * 2 * 8];
    quire_group group = {.layers = 32, .kv_heads = 8, .head_dim = 128, .query_heads = 32};
    quire_options options;
    uint64_t bytes;
    (void)state;
    assert_int_equal(quire_options_init(&options, sizeof options), QUIRE_OK);
    options.groups = &group;
    options.group_count = 1;
    options.block_tokens = 16;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        options.dtype = cases[i].dtype;
        assert_int_equal(quire_block_bytes(&options, &bytes), QUIRE_OK);
        assert_int_equal(bytes, cases[i].bytes);
    }
    for (size_t i = 0; i < sizeof scales / sizeof scales[0]; i++)
        scales[i] = 1;
    group.scales = scales; /* then none are in the block */
    options.dtype = QUIRE_DTYPE_FP8_E4M3;
    assert_int_equal(quire_block_bytes(&options, &bytes), QUIRE_OK);
    assert_int_equal(bytes, 1 << 20);
    options.dtype = QUIRE_DTYPE_INT8;
    assert_int_equal(quire_block_bytes(&options, &bytes), QUIRE_EINVAL);
    assert_non_null(strstr(quire_error_text(), "group.scales"));
    assert_int_equal(quire_block_bytes(NULL, &bytes), QUIRE_EINVAL);
}

/* ---- a rotary append ----------------------------------------------------------------------------------------- */

enum { TOKENS = 6, DIMS = 16, POSITIONS = 8 };

typedef struct turning {
    quire_cache *cache;
    quire_step *step;
    const quire_view *view;
    float kv[2][TOKENS][DIMS], q[TOKENS][DIMS], table[POSITIONS][DIMS / 2][2];
} turning;

static quire_tensor tensor(void *data)
{
    return (quire_tensor){data, QUIRE_DTYPE_F32, 1, DIMS, DIMS};
}

static void turning_open(turning *t, quire_dtype dtype, uint64_t *random)
{
    quire_group group = {.layers = 1, .kv_heads = 1, .head_dim = DIMS, .dtype = dtype};
    quire_options options;
    quire_seq seq;
    int32_t tokens[TOKENS] = {0};
    assert_int_equal(quire_options_init(&options, sizeof options), QUIRE_OK);
    options.groups = &group;
    options.group_count = 1;
    options.device = "host";
    options.block_tokens = 4;
    options.device_bytes = 1 << 16;
    options.offload = QUIRE_OFFLOAD_NONE;
    assert_int_equal(quire_cache_open(&t->cache, &options), QUIRE_OK);
    assert_int_equal(quire_seq_open(t->cache, NULL, &seq), QUIRE_OK);
    assert_int_equal(quire_step_begin(t->cache, NULL, &t->step), QUIRE_OK);
    assert_int_equal(quire_step_add(t->step, seq, tokens, TOKENS), QUIRE_OK);
    assert_int_equal(quire_step_submit(t->step), QUIRE_OK);
    t->view = quire_step_view(t->step, 0);
    for (int i = 0; i < 2 * TOKENS * DIMS; i++)
        (&t->kv[0][0][0])[i] = normal(random);
    for (int i = 0; i < TOKENS * DIMS; i++)
        (&t->q[0][0])[i] = normal(random);
    for (int i = 0; i < POSITIONS * DIMS; i++)
        (&t->table[0][0][0])[i] = normal(random);
}

static void turn_by_hand(const turning *t, float (*x)[DIMS], int dims, bool interleaved)
{
    for (int token = 0; token < TOKENS; token++)
        for (int i = 0; i < dims / 2; i++) {
            const float *angle = &t->table[0][0][0] + token * dims + 2 * i;
            float *a = &x[token][interleaved ? 2 * i : i], *b = &x[token][interleaved ? 2 * i + 1 : i + dims / 2];
            float first = *a, second = *b;
            *a = first * angle[0] - second * angle[1];
            *b = second * angle[0] + first * angle[1];
        }
}

static void a_rotary_append_stores_k_turned_by_its_positions(void **state)
{
    uint64_t random = test_seed("rotary append", 52);
    (void)state;
    for (int round = 0; round < 8; round++) {
        turning t;
        int dims = round & 1 ? DIMS : 8;
        turning_open(&t, round & 4 ? QUIRE_DTYPE_INT4 : QUIRE_DTYPE_F32, &random);
        float turned[TOKENS][DIMS], q_turned[TOKENS][DIMS], plain[TOKENS][DIMS], rotary[TOKENS][DIMS];
        memcpy(turned, t.kv[0], sizeof turned);
        memcpy(q_turned, t.q, sizeof q_turned);
        turn_by_hand(&t, turned, dims, round & 2);
        turn_by_hand(&t, q_turned, dims, round & 2);
        quire_tensor k = tensor(turned), v = tensor(t.kv[1]), q = tensor(q_turned), out = tensor(plain);
        assert_int_equal(quire_append(t.view, 0, &k, &v), QUIRE_OK);
        assert_int_equal(quire_attend(t.view, 0, &q, &out, 0.5f), QUIRE_OK);

        quire_rope rope = {.size = sizeof rope, .table = &t.table[0][0][0], .positions = POSITIONS};
        rope.dims = (uint32_t)dims;
        rope.interleaved = (round & 2) != 0;
        q = tensor(t.q); /* in place */
        rope.q = rope.q_out = &q;
        k = tensor(t.kv[0]);
        out = tensor(rotary);
        assert_int_equal(quire_append_rope(t.view, 0, &k, &v, &rope), QUIRE_OK);
        assert_int_equal(quire_attend(t.view, 0, &q, &out, 0.5f), QUIRE_OK);
        for (int i = 0; i < TOKENS * DIMS; i++) { /* a product may have been fused here */
            assert_true(fabsf((&t.q[0][0])[i] - (&q_turned[0][0])[i]) < 1e-5f);
            assert_true(fabsf((&rotary[0][0])[i] - (&plain[0][0])[i]) < (round & 4 ? 2e-2f : 1e-5f));
        }
        quire_step_cancel(t.step);
        quire_cache_close(t.cache);
    }
}

static void a_rotary_append_refuses_what_does_not_fit(void **state)
{
    uint64_t random = 53;
    turning t;
    (void)state;
    turning_open(&t, QUIRE_DTYPE_BF16, &random);
    quire_tensor k = tensor(t.kv[0]), v = tensor(t.kv[1]), q = tensor(t.q);
    const quire_rope good = {sizeof good, &t.table[0][0][0], POSITIONS, DIMS, 0, &q, &q};
#define REFUSED(change, said)                                                            \
    do {                                                                                 \
        quire_rope rope = good;                                                          \
        change;                                                                          \
        assert_int_equal(quire_append_rope(t.view, 0, &k, &v, &rope), QUIRE_EINVAL);     \
        assert_non_null(strstr(quire_error_text(), said));                               \
    } while (0)
    REFUSED(rope.size = 8, "rope.size");
    REFUSED(rope.table = NULL, "rope.table");
    REFUSED(rope.dims = 12, "rope.dims");
    REFUSED(rope.dims = DIMS + 8, "rope.dims");
    REFUSED(rope.positions = TOKENS - 1, "rope.positions");
    REFUSED(rope.q_out = NULL, "rope.q_out");
    assert_int_equal(quire_append_rope(t.view, 0, &k, &v, NULL), QUIRE_EINVAL);
    assert_int_equal(quire_append_rope(t.view, 0, &k, &v, &good), QUIRE_OK);
    quire_step_cancel(t.step);
    quire_cache_close(t.cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(e5m2_is_the_upper_half_of_an_f16),
        cmocka_unit_test(int8_rows_are_codes_times_the_largest_over_127),
        cmocka_unit_test(int4_words_hold_what_the_definition_says),
        cmocka_unit_test(a_row_of_zeros_stays_one_and_huge_ones_stay_finite),
        cmocka_unit_test(errors_of_rows_are_within_their_bounds),
        cmocka_unit_test(a_block_takes_what_its_format_says),
        cmocka_unit_test(a_rotary_append_stores_k_turned_by_its_positions),
        cmocka_unit_test(a_rotary_append_refuses_what_does_not_fit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
