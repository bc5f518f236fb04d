/* test_host_ops.c: the oracle itself. Conversions over every pattern of the small types and around every rounding
 * boundary; append and attention against a second, independent account in the test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <stdio.h>

#include "attend_fixture.h"

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static uint16_t store16(quire_dtype dtype, float value)
{
    uint16_t half;
    quire__dtype_store(dtype, &half, value);
    return half;
}

static uint8_t store8(float value)
{
    uint8_t byte;
    quire__dtype_store(QUIRE_DTYPE_FP8_E4M3, &byte, value);
    return byte;
}

/* What a pattern means: sign, exponent with its bias, mantissa. By arithmetic, not by bits. */
static double meaning(uint32_t pattern, int mantissa_bits, int exponent_bits, int bias)
{
    uint32_t mantissa = pattern & ((1u << mantissa_bits) - 1);
    int exponent = (int)(pattern >> mantissa_bits & ((1u << exponent_bits) - 1));
    double sign = pattern >> (mantissa_bits + exponent_bits) & 1 ? -1 : 1;
    if (exponent == 0)
        return sign * ldexp(mantissa, 1 - bias - mantissa_bits);
    return sign * ldexp((double)((1u << mantissa_bits) + mantissa), exponent - bias - mantissa_bits);
}

static void every_f16_pattern_means_what_it_should(void **state)
{
    (void)state;
    for (uint32_t pattern = 0; pattern < 65536; pattern++) {
        uint16_t half = (uint16_t)pattern;
        float value = quire__dtype_load(QUIRE_DTYPE_F16, &half);
        if ((pattern & 0x7c00) == 0x7c00) {
            assert_true(pattern & 0x3ff ? isnan(value) : isinf(value));
            assert_int_equal(signbit(value) != 0, pattern >> 15);
            assert_int_equal(store16(QUIRE_DTYPE_F16, value), pattern & 0x3ff ? 0x7fff : pattern);
            continue;
        }
        assert_true((double)value == meaning(pattern, 10, 5, 15));
        assert_int_equal(signbit(value) != 0, pattern >> 15);
        assert_int_equal(store16(QUIRE_DTYPE_F16, value), pattern);
    }
}

static void every_bf16_pattern_means_what_it_should(void **state)
{
    (void)state;
    for (uint32_t pattern = 0; pattern < 65536; pattern++) {
        uint16_t half = (uint16_t)pattern;
        float value = quire__dtype_load(QUIRE_DTYPE_BF16, &half);
        assert_int_equal(bits_of(value), pattern << 16);
        assert_int_equal(store16(QUIRE_DTYPE_BF16, value), isnan(value) ? 0x7fff : pattern);
    }
}

static void every_fp8_pattern_means_what_it_should(void **state)
{
    (void)state;
    for (uint32_t pattern = 0; pattern < 256; pattern++) {
        uint8_t byte = (uint8_t)pattern;
        float value = quire__dtype_load(QUIRE_DTYPE_FP8_E4M3, &byte);
        if ((pattern & 0x7f) == 0x7f) {
            assert_true(isnan(value));
            assert_int_equal(store8(value), 0x7f);
            continue;
        }
        assert_true((double)value == meaning(pattern, 3, 4, 7));
        assert_int_equal(signbit(value) != 0, pattern >> 7);
        assert_int_equal(store8(value), pattern);
    }
}

/* Between each number of a type and the next: below half way goes down, above up, half way to the even one. */
static void rounding(quire_dtype dtype, uint32_t last)
{
    for (uint32_t pattern = 0; pattern < last; pattern++) {
        uint16_t low16 = (uint16_t)pattern, high16 = (uint16_t)(pattern + 1);
        uint8_t low8 = (uint8_t)pattern, high8 = (uint8_t)(pattern + 1);
        bool small = dtype == QUIRE_DTYPE_FP8_E4M3;
        float low = quire__dtype_load(dtype, small ? (void *)&low8 : (void *)&low16);
        float high = quire__dtype_load(dtype, small ? (void *)&high8 : (void *)&high16);
        float half = (float)(((double)low + (double)high) / 2); /* exact: a float has bits to spare */
        uint32_t even = pattern % 2 == 0 ? pattern : pattern + 1;
        const struct {
            float value;
            uint32_t expected;
        } cases[] = {{half, even}, {nextafterf(half, 0), pattern}, {nextafterf(half, INFINITY), pattern + 1}};
        if (isinf(high))
            continue; /* overflow has its own test */
        for (int i = 0; i < 3; i++) {
            uint32_t sign = small ? 0x80u : 0x8000u;
            uint32_t up = small ? store8(cases[i].value) : store16(dtype, cases[i].value);
            uint32_t down = small ? store8(-cases[i].value) : store16(dtype, -cases[i].value);
            if (up != cases[i].expected || down != (cases[i].expected | sign))
                fail_msg("%s: %a becomes %x, not %x", quire_dtype_name(dtype), (double)cases[i].value, up,
                         cases[i].expected);
        }
    }
}

static void rounding_is_to_nearest_even_everywhere(void **state)
{
    (void)state;
    rounding(QUIRE_DTYPE_F16, 0x7bff);
    rounding(QUIRE_DTYPE_BF16, 0x7f7f);
    rounding(QUIRE_DTYPE_FP8_E4M3, 0x7e);
}

static void what_is_too_large_overflows_as_the_type_says(void **state)
{
    (void)state;
    assert_int_equal(store16(QUIRE_DTYPE_F16, 65519.996f), 0x7bff);
    assert_int_equal(store16(QUIRE_DTYPE_F16, 65520.0f), 0x7c00); /* half way, and the next is even */
    assert_int_equal(store16(QUIRE_DTYPE_F16, -INFINITY), 0xfc00);
    assert_int_equal(store16(QUIRE_DTYPE_BF16, FLT_MAX), 0x7f80);
    assert_int_equal(store16(QUIRE_DTYPE_BF16, -INFINITY), 0xff80);
    /* e4m3 saturates: no finite number and no infinity becomes NaN */
    assert_int_equal(store8(448.0f), 0x7e);
    assert_int_equal(store8(464.0f), 0x7e);
    assert_int_equal(store8(1e9f), 0x7e);
    assert_int_equal(store8(-FLT_MAX), 0xfe);
    assert_int_equal(store8(INFINITY), 0x7e);
    assert_int_equal(store8(-INFINITY), 0xfe);
    assert_int_equal(store8(-NAN), 0x7f);
    assert_int_equal(store16(QUIRE_DTYPE_F16, -NAN), 0x7fff);
    assert_int_equal(store16(QUIRE_DTYPE_BF16, -NAN), 0x7fff);
    /* and what is too small becomes a zero of its sign */
    assert_int_equal(store8(-1e-9f), 0x80);
    assert_int_equal(store16(QUIRE_DTYPE_F16, 1e-30f), 0);
    assert_int_equal(store16(QUIRE_DTYPE_BF16, -FLT_TRUE_MIN), 0x8000);
}

static void types_have_a_size_and_a_name(void **state)
{
    (void)state;
    assert_int_equal(quire__dtype_bytes(QUIRE_DTYPE_F32), 4);
    assert_int_equal(quire__dtype_bytes(QUIRE_DTYPE_F16), 2);
    assert_int_equal(quire__dtype_bytes(QUIRE_DTYPE_BF16), 2);
    assert_int_equal(quire__dtype_bytes(QUIRE_DTYPE_FP8_E4M3), 1);
    assert_string_equal(quire_dtype_name(QUIRE_DTYPE_BF16), "bf16");
    assert_string_equal(quire_dtype_name((quire_dtype)99), "unknown");
}

/* ---- append -------------------------------------------------------------------------------------------------- */

static void append_puts_each_head_of_each_token_in_its_slot(void **state)
{
    uint64_t random = 5;
    attend_shape shape = {QUIRE_DTYPE_FP8_E4M3, QUIRE_DTYPE_BF16, 4, 16, 2, 1, 3, true};
    attend_fixture f;
    uint16_t kv[2][3][2][16];
    int64_t slots[] = {9, -1, 2};
    (void)state;
    fixture_open(&f, &shape, 1, (int32_t[]){12}, (int32_t[]){1}, &random);
    memset(f.arena, 0xaa, f.arena_bytes);
    for (int i = 0; i < 2 * 3 * 2 * 16; i++)
        quire__dtype_store(QUIRE_DTYPE_BF16, &kv[0][0][0][0] + i, (float)(100 * fixture_uniform(&random)));
    quire__append_args args = {.pages = fixture_pages(&f), .layer = 2, .tokens = 3, .slots = slots};
    args.k = fixture_tensor(&f, kv[0], 2);
    args.v = fixture_tensor(&f, kv[1], 2);
    quire__host_append(&args);

    size_t written = 0;
    for (int which = 0; which < 2; which++)
        for (int token = 0; token < 3; token++)
            for (int head = 0; head < 2 && slots[token] >= 0; head++)
                for (int d = 0; d < 16; d++, written++) {
                    /* [block][layer][K,V][head][token][dim], one byte each */
                    size_t at = (((((size_t)slots[token] / 4 * 3 + 2) * 2 + (size_t)which) * 2 + (size_t)head) * 4 +
                                 (size_t)slots[token] % 4) * 16 + (size_t)d;
                    float value = quire__dtype_load(QUIRE_DTYPE_BF16, &kv[which][token][head][d]);
                    assert_int_equal(f.arena[at], store8(value * (1.0f / f.scales[which * 2 + head])));
                    f.arena[at] = 0xaa;
                }
    assert_int_equal(written, 2 * 2 * 2 * 16);
    for (size_t i = 0; i < f.arena_bytes; i++)
        assert_int_equal(f.arena[i], 0xaa);
    fixture_close(&f);
}

/* ---- attention ----------------------------------------------------------------------------------------------- */

/* One output element, by the definition: gathers everything first, no running anything. */
static double naive(const attend_fixture *f, const quire__attend_args *args, int32_t token, int32_t head, int32_t dim)
{
    const attend_shape *s = &f->shape;
    const quire__pages pages = fixture_pages(f);
    size_t from = quire__dtype_bytes(s->tensor);
    int32_t keys = f->positions[token] + 1, kv_head = head / s->group;
    double sink = args->sinks != NULL ? (double)args->sinks[head] : -INFINITY, cap = (double)args->soft_cap;
    double *weights = malloc((size_t)keys * sizeof *weights), most = sink, total = 0, sum = 0;
    int32_t first = args->window > 0 && args->window < keys ? keys - args->window : 0;
    for (int pass = 0; pass < 2; pass++) {
        for (int32_t key = first; key < keys; key++) {
            int32_t block = f->table[f->token_rows[token] * f->table_stride + key / s->block_tokens];
            float vector[QUIRE__FIXTURE_DIMS];
            quire__row_decode(&pages, pass, kv_head,
                              quire__page_row(&pages, block, args->layer, pass, kv_head, key % s->block_tokens),
                              quire__page_row_scales(&pages, block, args->layer, pass, kv_head, key % s->block_tokens),
                              vector);
            if (pages.rotation != 0 && pass == 0)
                quire__rotate(vector, s->head_dim, pages.rotation); /* its own inverse */
            if (pass == 1) {
                sum += weights[key] / total * (double)vector[dim];
                continue;
            }
            weights[key] = 0;
            for (int32_t d = 0; d < s->head_dim; d++) {
                size_t at = ((size_t)token * (size_t)(s->kv_heads * s->group) + (size_t)head) * (size_t)s->head_dim +
                            (size_t)d;
                weights[key] += (double)quire__dtype_load(s->tensor, f->q + at * from) * (double)args->scale *
                                (double)vector[d];
            }
            weights[key] = cap > 0 ? cap * tanh(weights[key] / cap) : weights[key];
            most = weights[key] > most ? weights[key] : most;
        }
        for (int32_t key = first; key < keys && pass == 0; key++)
            total += weights[key] = exp(weights[key] - most);
        total += pass == 0 ? exp(sink - most) : 0;
    }
    free(weights);
    return sum;
}

static void attention_is_the_definition(void **state)
{
    static const quire_dtype types[] = {QUIRE_DTYPE_F32,      QUIRE_DTYPE_F16,  QUIRE_DTYPE_BF16, QUIRE_DTYPE_FP8_E4M3,
                                        QUIRE_DTYPE_FP8_E5M2, QUIRE_DTYPE_INT8, QUIRE_DTYPE_INT4};
    uint64_t random = 6;
    (void)state;
    for (int i = 0; i < 21; i++) {
        attend_shape shape = {types[(i + i / 7) % 7], QUIRE_DTYPE_F32, 1 << i % 5, 8 * (1 + i % 8), 1 + i % 3, 1 + (i * 4) % 9, 2, i == 3 || i == 4};
        attend_fixture f;
        fixture_open(&f, &shape, 3, (int32_t[]){29, 1, 40}, (int32_t[]){6, 1, 1}, &random);
        quire__attend_args args = fixture_args(&f, 1, f.out);
        fixture_feature(&f, &args, i % 8, 1 + 3 * i);
        int32_t select[] = {7, 6}, heads = shape.kv_heads * shape.group;
        /* row 0 by tile, the other two by selection; one of the tile's tokens once more by range */
        args.count = 1;
        quire__host_attend_prefill(&args);
        args.select = select;
        args.count = 2;
        quire__host_attend_decode(&args);
        args.select = NULL;
        args.first_token = 3;
        args.count = 1;
        memset(f.out + 3 * heads * shape.head_dim * 4, 0xff, (size_t)(heads * shape.head_dim) * 4);
        quire__host_attend_decode(&args);
        const float *out = (const float *)(const void *)f.out;
        for (int32_t token = 0; token < f.tokens; token++)
            for (int32_t head = 0; head < heads; head++)
                for (int32_t d = 0; d < shape.head_dim; d++) {
                    double expected = naive(&f, &args, token, head, d);
                    double got = (double)out[(token * heads + head) * shape.head_dim + d];
                    double bound = args.pages.rotation != 0 ? 1e-6 : 1e-7; /* K is turned back in float */
                    if (!(fabs(got - expected) <= bound * (1 + fabs(expected))))
                        fail_msg("case %d, token %d, head %d, dim %d: %g, not %g", i, token, head, d, got, expected);
                }
        fixture_close(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_f16_pattern_means_what_it_should),
        cmocka_unit_test(every_bf16_pattern_means_what_it_should),
        cmocka_unit_test(every_fp8_pattern_means_what_it_should),
        cmocka_unit_test(rounding_is_to_nearest_even_everywhere),
        cmocka_unit_test(what_is_too_large_overflows_as_the_type_says),
        cmocka_unit_test(types_have_a_size_and_a_name),
        cmocka_unit_test(append_puts_each_head_of_each_token_in_its_slot),
        cmocka_unit_test(attention_is_the_definition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
