/* Every tensor type against a plain decode of one value at a time, written from the format's description, and
 * against the PyPI package gguf (tests/reference/make_dequant.py). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dequant.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#ifndef QUIRE_TEST_FIXTURES
#define QUIRE_TEST_FIXTURES "tests/fixtures"
#endif

enum { BLOCKS = 64, BYTES_MAX = BLOCKS * 210, ELEMENTS_MAX = BLOCKS * 256 };

static uint64_t random_state;

static uint8_t random_byte(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint8_t)(random_state >> 56);
}

/* The half's value from its definition, in double. */
static double half_value(const uint8_t *at)
{
    unsigned bits = at[0] | (unsigned)at[1] << 8;
    double sign = bits >> 15 ? -1 : 1;
    int exponent = bits >> 10 & 31;
    double fraction = (bits & 1023) / 1024.0;
    return sign * (exponent ? ldexp(1 + fraction, exponent - 15) : ldexp(fraction, -14));
}

static unsigned bits_at(const uint8_t *bytes, unsigned first, unsigned count)
{
    unsigned value = 0;
    for (unsigned i = 0; i < count; i++) value |= (bytes[(first + i) / 8] >> (first + i) % 8 & 1u) << i;
    return value;
}

/* Value i of a block, one decoder a type. Nibble order in 32-value blocks: low halves first, then high. */
static unsigned nibble(const uint8_t *bytes, unsigned i)
{
    return bits_at(bytes, 8 * (i % 16) + 4 * (i / 16), 4);
}

static double plain_q4_0(const uint8_t *b, unsigned i)
{
    return half_value(b) * ((int)nibble(b + 2, i) - 8);
}

static double plain_q4_1(const uint8_t *b, unsigned i)
{
    return half_value(b) * nibble(b + 4, i) + half_value(b + 2);
}

static double plain_q5_0(const uint8_t *b, unsigned i)
{
    return half_value(b) * ((int)(nibble(b + 6, i) + 16 * bits_at(b + 2, i, 1)) - 16);
}

static double plain_q5_1(const uint8_t *b, unsigned i)
{
    return half_value(b) * (nibble(b + 8, i) + 16 * bits_at(b + 4, i, 1)) + half_value(b + 2);
}

static double plain_q8_0(const uint8_t *b, unsigned i)
{
    int value = b[2 + i];
    return half_value(b) * (value < 128 ? value : value - 256);
}

static double plain_q4_k(const uint8_t *b, unsigned i)
{
    const uint8_t *packed = b + 4;
    unsigned sub = i / 32, low = sub % 4;
    unsigned scale = sub < 4 ? bits_at(packed, 8 * low, 6)
                             : bits_at(packed, 64 + 8 * low, 4) + 16 * bits_at(packed, 8 * low + 6, 2);
    unsigned minimum = sub < 4 ? bits_at(packed, 32 + 8 * low, 6)
                               : bits_at(packed, 64 + 8 * low + 4, 4) + 16 * bits_at(packed, 32 + 8 * low + 6, 2);
    unsigned value = bits_at(b + 16, 8 * (32 * (i / 64) + i % 32) + 4 * (sub % 2), 4);
    return half_value(b) * scale * value - half_value(b + 2) * minimum;
}

static double plain_q6_k(const uint8_t *b, unsigned i)
{
    unsigned half = i / 128, run = i % 128 / 32, j = i % 32;
    unsigned low = bits_at(b, 8 * (64 * half + 32 * (run % 2) + j) + 4 * (run / 2), 4);
    unsigned high = bits_at(b + 128, 8 * (32 * half + j) + 2 * run, 2);
    int scale = b[192 + i / 16];
    return half_value(b + 208) * (scale < 128 ? scale : scale - 256) * ((int)(low + 16 * high) - 32);
}

static double plain_f32(const uint8_t *b, unsigned i)
{
    float value;
    memcpy(&value, b, sizeof value);
    return value + 0.0 * i;
}

static double plain_f16(const uint8_t *b, unsigned i)
{
    return half_value(b + 2 * i);
}

static double plain_bf16(const uint8_t *b, unsigned i)
{
    const uint8_t wide[4] = { 0, 0, b[0], b[1] };
    return plain_f32(wide, i);
}

/* Makes the half at this place finite: an exponent of 31 becomes 30. */
static void tame_half(uint8_t *at)
{
    if ((at[1] & 0x7c) == 0x7c) at[1] &= (uint8_t)~0x04;
}

/* `halves`: the places of half floats in a block, -1 at the end. */
static void check_type(uint32_t number, double (*plain)(const uint8_t *, unsigned), const int *halves)
{
    static uint8_t source[BYTES_MAX];
    static float out[ELEMENTS_MAX];
    const tensor_type *type = tensor_type_find(number);
    assert_non_null(type);
    random_state = 20240613 + number;
    for (size_t i = 0; i < sizeof source; i++) source[i] = random_byte();
    for (size_t block = 0; block < BLOCKS; block++) {
        uint8_t *at = source + block * type->block_bytes;
        for (const int *half = halves; *half >= 0; half++) tame_half(at + *half);
        if (number == TENSOR_F32) at[3] &= 0xbf;
        if (number == TENSOR_BF16) at[1] &= 0xbf;
    }
    size_t elements = BLOCKS * (size_t)type->block_elements;
    dequant(type, source, elements, out);
    for (size_t i = 0; i < elements; i++) {
        const uint8_t *block = source + i / type->block_elements * type->block_bytes;
        float wanted = (float)plain(block, (unsigned)(i % type->block_elements));
        if (out[i] != wanted) fail_msg("%s element %zu is %a, not %a", type->name, i, out[i], wanted);
    }
}

static void every_type_decodes_to_the_exact_value_rounded_once(void **state)
{
    (void)state;
    static const int none[] = { -1 }, first[] = { 0, -1 }, two[] = { 0, 2, -1 }, last[] = { 208, -1 };
    check_type(TENSOR_F32, plain_f32, none);
    check_type(TENSOR_F16, plain_f16, first);
    check_type(TENSOR_BF16, plain_bf16, none);
    check_type(TENSOR_Q4_0, plain_q4_0, first);
    check_type(TENSOR_Q4_1, plain_q4_1, two);
    check_type(TENSOR_Q5_0, plain_q5_0, first);
    check_type(TENSOR_Q5_1, plain_q5_1, two);
    check_type(TENSOR_Q8_0, plain_q8_0, first);
    check_type(TENSOR_Q4_K, plain_q4_k, two);
    check_type(TENSOR_Q6_K, plain_q6_k, last);
}

static void values_equal_those_of_the_gguf_package(void **state)
{
    (void)state;
    static const char path[] = QUIRE_TEST_FIXTURES "/dequant.bin";
    static uint8_t source[BYTES_MAX];
    static float wanted[ELEMENTS_MAX], out[ELEMENTS_MAX];
    uint32_t header[3], types = 0;
    FILE *file = fopen(path, "rb");
    if (!file) fail_msg("cannot open fixture %s", path);
    for (; fread(header, sizeof header, 1, file) == 1; types++) {
        assert_true(header[1] <= sizeof source && header[2] <= ELEMENTS_MAX);
        assert_int_equal(fread(source, 1, header[1], file), header[1]);
        assert_int_equal(fread(wanted, sizeof *wanted, header[2], file), header[2]);
        const tensor_type *type = tensor_type_find(header[0]);
        assert_non_null(type);
        assert_int_equal(header[1] / type->block_bytes * type->block_elements, header[2]);
        dequant(type, source, header[2], out);
        for (uint32_t i = 0; i < header[2]; i++)
            if (out[i] != wanted[i]) fail_msg("%s element %u is %a, not %a", type->name, i, out[i], wanted[i]);
    }
    fclose(file);
    assert_int_equal(types, 9);
}

static void every_half_converts_exactly(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits < 0x10000; bits++) {
        const uint8_t bytes[2] = { (uint8_t)bits, (uint8_t)(bits >> 8) };
        float value = dequant_half((uint16_t)bits);
        if ((bits & 0x7c00) != 0x7c00) {
            assert_true(value == (float)half_value(bytes));
            assert_int_equal(!!signbit(value), bits >> 15);
        } else if (bits & 0x3ff) {
            assert_true(isnan(value));
        } else {
            assert_true(isinf(value));
        }
    }
}

static void unknown_types_are_named_but_not_decoded(void **state)
{
    (void)state;
    assert_null(tensor_type_find(10));
    assert_string_equal(tensor_type_name(10), "Q2_K");
    assert_null(tensor_type_find(4));
    assert_string_equal(tensor_type_name(4), "unknown");
    assert_null(tensor_type_find(UINT32_MAX));
    assert_string_equal(tensor_type_name(UINT32_MAX), "unknown");
    assert_string_equal(tensor_type_name(TENSOR_Q4_K), tensor_type_find(TENSOR_Q4_K)->name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_decodes_to_the_exact_value_rounded_once),
        cmocka_unit_test(values_equal_those_of_the_gguf_package),
        cmocka_unit_test(every_half_converts_exactly),
        cmocka_unit_test(unknown_types_are_named_but_not_decoded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
