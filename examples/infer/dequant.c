/* Every product below is exact in float32 (a half has 11 significant bits, scales and quants add at most 10
 * more), and each value is rounded at most once, by the last addition: the results do not depend on whether
 * the compiler contracts a multiply and an add into one instruction. */
#include "dequant.h"

#include <string.h>

float dequant_half(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000u) << 16;
    uint32_t exponent = (bits >> 10) & 0x1fu;
    uint32_t mantissa = bits & 0x3ffu;
    uint32_t word;
    if (exponent == 0x1f) {
        word = sign | 0x7f800000u | mantissa << 13;
    } else if (exponent != 0) {
        word = sign | (exponent + 112) << 23 | mantissa << 13;
    } else {
        /* Zero or subnormal: mantissa * 2^-24, which is a normal float. */
        float magnitude = (float)mantissa * 0x1p-24f;
        memcpy(&word, &magnitude, sizeof word);
        word |= sign;
    }
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

static float half_at(const uint8_t *source)
{
    uint16_t bits;
    memcpy(&bits, source, sizeof bits);
    return dequant_half(bits);
}

static void decode_f32(const uint8_t *source, size_t count, float *out)
{
    memcpy(out, source, count * sizeof *out);
}

static void decode_f16(const uint8_t *source, size_t count, float *out)
{
    for (size_t i = 0; i < count; i++) out[i] = half_at(source + 2 * i);
}

static void decode_bf16(const uint8_t *source, size_t count, float *out)
{
    for (size_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, source + 2 * i, sizeof bits);
        uint32_t word = (uint32_t)bits << 16;
        memcpy(out + i, &word, sizeof word);
    }
}

/* In all 32-value blocks of 4 and 5 bits, byte j holds value j in its low and value j + 16 in its high half. */
static void decode_q4_0(const uint8_t *source, size_t blocks, float *out)
{
    for (size_t b = 0; b < blocks; b++, source += 18, out += 32) {
        float scale = half_at(source);
        for (int j = 0; j < 16; j++) {
            out[j] = (float)((source[2 + j] & 15) - 8) * scale;
            out[j + 16] = (float)((source[2 + j] >> 4) - 8) * scale;
        }
    }
}

static void decode_q4_1(const uint8_t *source, size_t blocks, float *out)
{
    for (size_t b = 0; b < blocks; b++, source += 20, out += 32) {
        float scale = half_at(source), minimum = half_at(source + 2);
        for (int j = 0; j < 16; j++) {
            out[j] = (float)(source[4 + j] & 15) * scale + minimum;
            out[j + 16] = (float)(source[4 + j] >> 4) * scale + minimum;
        }
    }
}

/* The fifth bits of the 32 values are one little-endian word, value 0 in bit 0. */
static void unpack_q5(const uint8_t *high_bits, const uint8_t *low, int *values)
{
    uint32_t high;
    memcpy(&high, high_bits, sizeof high);
    for (int j = 0; j < 16; j++) {
        values[j] = (low[j] & 15) | (int)((high >> j) & 1) << 4;
        values[j + 16] = (low[j] >> 4) | (int)((high >> (j + 16)) & 1) << 4;
    }
}

static void decode_q5_0(const uint8_t *source, size_t blocks, float *out)
{
    for (size_t b = 0; b < blocks; b++, source += 22, out += 32) {
        float scale = half_at(source);
        int values[32];
        unpack_q5(source + 2, source + 6, values);
        for (int j = 0; j < 32; j++) out[j] = (float)(values[j] - 16) * scale;
    }
}

static void decode_q5_1(const uint8_t *source, size_t blocks, float *out)
{
    for (size_t b = 0; b < blocks; b++, source += 24, out += 32) {
        float scale = half_at(source), minimum = half_at(source + 2);
        int values[32];
        unpack_q5(source + 4, source + 8, values);
        for (int j = 0; j < 32; j++) out[j] = (float)values[j] * scale + minimum;
    }
}

static void decode_q8_0(const uint8_t *source, size_t blocks, float *out)
{
    for (size_t b = 0; b < blocks; b++, source += 34, out += 32) {
        float scale = half_at(source);
        for (int j = 0; j < 32; j++) out[j] = (float)(int8_t)source[2 + j] * scale;
    }
}

/* Eight sub-blocks of 32. Their 6-bit scales and minima are packed in 12 bytes: the first four in the low 6
 * bits of bytes 0-3 and 4-7, the last four in the nibbles of bytes 8-11 with the spare top bits of 0-7. */
static void q4_k_scale(const uint8_t *packed, int sub, int *scale, int *minimum)
{
    if (sub < 4) {
        *scale = packed[sub] & 63;
        *minimum = packed[sub + 4] & 63;
    } else {
        *scale = (packed[sub + 4] & 15) | (packed[sub - 4] >> 6) << 4;
        *minimum = (packed[sub + 4] >> 4) | (packed[sub] >> 6) << 4;
    }
}

static void decode_q4_k(const uint8_t *source, size_t blocks, float *out)
{
    for (size_t b = 0; b < blocks; b++, source += 144, out += 256) {
        float scale = half_at(source), minimum = half_at(source + 2);
        for (int sub = 0; sub < 8; sub++) {
            int sub_scale, sub_minimum;
            q4_k_scale(source + 4, sub, &sub_scale, &sub_minimum);
            float step = scale * (float)sub_scale, base = minimum * (float)sub_minimum;
            const uint8_t *quants = source + 16 + 32 * (sub / 2);
            int shift = 4 * (sub & 1);
            for (int j = 0; j < 32; j++)
                out[32 * sub + j] = step * (float)((quants[j] >> shift) & 15) - base;
        }
    }
}

/* Two halves of 128 values; in each, four runs of 32 share the bytes: runs 0 and 1 are the low nibbles of 64
 * bytes, runs 2 and 3 the high ones, and each byte of 32 holds the upper two bits of one value of each run. */
static void decode_q6_k(const uint8_t *source, size_t blocks, float *out)
{
    for (size_t b = 0; b < blocks; b++, source += 210) {
        const uint8_t *low = source, *high = source + 128, *scales = source + 192;
        float scale = half_at(source + 208);
        for (int half = 0; half < 2; half++, low += 64, high += 32, scales += 8) {
            for (int run = 0; run < 4; run++, out += 32) {
                for (int j = 0; j < 32; j++) {
                    int nibble = (low[j + 32 * (run & 1)] >> 4 * (run / 2)) & 15;
                    int value = (nibble | ((high[j] >> 2 * run) & 3) << 4) - 32;
                    out[j] = scale * (float)(int8_t)scales[2 * run + j / 16] * (float)value;
                }
            }
        }
    }
}

static const tensor_type types[] = {
    { TENSOR_F32, "F32", 1, 4, decode_f32 },
    { TENSOR_F16, "F16", 1, 2, decode_f16 },
    { TENSOR_BF16, "BF16", 1, 2, decode_bf16 },
    { TENSOR_Q8_0, "Q8_0", 32, 34, decode_q8_0 },
    { TENSOR_Q4_0, "Q4_0", 32, 18, decode_q4_0 },
    { TENSOR_Q4_1, "Q4_1", 32, 20, decode_q4_1 },
    { TENSOR_Q5_0, "Q5_0", 32, 22, decode_q5_0 },
    { TENSOR_Q5_1, "Q5_1", 32, 24, decode_q5_1 },
    { TENSOR_Q4_K, "Q4_K", 256, 144, decode_q4_k },
    { TENSOR_Q6_K, "Q6_K", 256, 210, decode_q6_k },
};

const tensor_type *tensor_type_find(uint32_t number)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].number == number) return &types[i];
    return NULL;
}

const char *tensor_type_name(uint32_t number)
{
    /* The numbers that a current file can carry; the gaps are types that the format has withdrawn. */
    static const char *const names[] = {
        [0] = "F32", [1] = "F16", [2] = "Q4_0", [3] = "Q4_1", [6] = "Q5_0", [7] = "Q5_1", [8] = "Q8_0",
        [9] = "Q8_1", [10] = "Q2_K", [11] = "Q3_K", [12] = "Q4_K", [13] = "Q5_K", [14] = "Q6_K",
        [15] = "Q8_K", [16] = "IQ2_XXS", [17] = "IQ2_XS", [18] = "IQ3_XXS", [19] = "IQ1_S", [20] = "IQ4_NL",
        [21] = "IQ3_S", [22] = "IQ2_S", [23] = "IQ4_XS", [24] = "I8", [25] = "I16", [26] = "I32",
        [27] = "I64", [28] = "F64", [29] = "IQ1_M", [30] = "BF16", [34] = "TQ1_0", [35] = "TQ2_0",
        [39] = "MXFP4",
    };
    if (number >= sizeof names / sizeof *names || !names[number]) return "unknown";
    return names[number];
}

void dequant(const tensor_type *type, const void *source, size_t elements, float *out)
{
    type->decode(source, elements / type->block_elements, out);
}
