/* host_simd.h: vectors of W floats, as wide as the instruction set that the including file is compiled for, and
 * conversions between them and the cache's types. Included by host_attend_kernel.inc only.
 *
 * GNU vector extensions carry the arithmetic. A product and a sum are fused only where v_fma says so (files that
 * include this are compiled with -ffp-contract=off): which operations fuse must not depend on how a loop was unrolled,
 * or a token's bits would depend on its neighbours. */
#ifndef QUIRE_HOST_SIMD_H
#define QUIRE_HOST_SIMD_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "quire/quire.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define V_INLINE static inline __attribute__((always_inline, unused))

#if defined(__AVX512F__)
#define W 16
#elif defined(__AVX2__)
#define W 8
#else
#define W 4
#endif

typedef float vf __attribute__((vector_size(4 * W)));
typedef int32_t vi __attribute__((vector_size(4 * W)));
typedef uint32_t vu __attribute__((vector_size(4 * W)));
typedef uint16_t vu16 __attribute__((vector_size(2 * W)));
typedef uint8_t vu8 __attribute__((vector_size(W)));

/* ---- what the instruction sets name differently -------------------------------------------------------------- */

#if defined(__AVX512F__)
V_INLINE vf v_splat(float x) { return (vf)_mm512_set1_ps(x); }
V_INLINE vf v_fma(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
V_INLINE vf v_max(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
V_INLINE vu v_widen16(vu16 x) { return (vu)_mm512_cvtepu16_epi32((__m256i)x); }
V_INLINE vu v_widen8(vu8 x) { return (vu)_mm512_cvtepu8_epi32((__m128i)x); }
V_INLINE vi v_widen8_signed(vu8 x) { return (vi)_mm512_cvtepi8_epi32((__m128i)x); }
V_INLINE vu16 v_widen8_to_16(vu8 x) { return (vu16)_mm256_cvtepu8_epi16((__m128i)x); }
V_INLINE vu16 v_narrow16(vu x) { return (vu16)_mm512_cvtepi32_epi16((__m512i)x); }
V_INLINE vf v_from_halves(vu16 x) { return (vf)_mm512_cvtph_ps((__m256i)x); }
V_INLINE vf v_from_int(vi x) { return (vf)_mm512_cvtepi32_ps((__m512i)x); }
V_INLINE vu v_shift_right(vu x, vu by) { return (vu)_mm512_srlv_epi32((__m512i)x, (__m512i)by); }
#elif defined(__AVX2__)
V_INLINE vf v_splat(float x) { return (vf)_mm256_set1_ps(x); }
V_INLINE vf v_fma(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
V_INLINE vf v_max(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
V_INLINE vu v_widen16(vu16 x) { return (vu)_mm256_cvtepu16_epi32((__m128i)x); }
V_INLINE vu v_widen8(vu8 x) { return __builtin_convertvector(x, vu); }
V_INLINE vi v_widen8_signed(vu8 x)
{
    int64_t bytes;
    memcpy(&bytes, &x, sizeof bytes);
    return (vi)_mm256_cvtepi8_epi32(_mm_cvtsi64_si128(bytes));
}
V_INLINE vu16 v_widen8_to_16(vu8 x)
{
    int64_t bytes;
    memcpy(&bytes, &x, sizeof bytes);
    return (vu16)_mm_cvtepu8_epi16(_mm_cvtsi64_si128(bytes));
}
V_INLINE vu16 v_narrow16(vu x)
{
    __m256i low = _mm256_and_si256((__m256i)x, _mm256_set1_epi32(0xffff));
    return (vu16)_mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_packus_epi32(low, low), 0x08));
}
V_INLINE vf v_from_halves(vu16 x) { return (vf)_mm256_cvtph_ps((__m128i)x); }
V_INLINE vf v_from_int(vi x) { return (vf)_mm256_cvtepi32_ps((__m256i)x); }
V_INLINE vu v_shift_right(vu x, vu by) { return (vu)_mm256_srlv_epi32((__m256i)x, (__m256i)by); }
#elif defined(__x86_64__)
V_INLINE vf v_splat(float x) { return (vf)_mm_set1_ps(x); }
V_INLINE vf v_fma(vf a, vf b, vf c) { return a * b + c; }
V_INLINE vf v_max(vf a, vf b) { return (vf)_mm_max_ps((__m128)a, (__m128)b); }
#elif defined(__aarch64__)
V_INLINE vf v_splat(float x) { return (vf)vdupq_n_f32(x); }
V_INLINE vf v_fma(vf a, vf b, vf c) { return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
V_INLINE vf v_max(vf a, vf b) { return (vf)vmaxq_f32((float32x4_t)a, (float32x4_t)b); }
#else
V_INLINE vf v_splat(float x) { return (vf){x, x, x, x}; }
V_INLINE vf v_fma(vf a, vf b, vf c) { return a * b + c; }
V_INLINE vf v_max(vf a, vf b)
{
    vi more = a > b;
    return (vf)((more & (vi)a) | (~more & (vi)b));
}
#endif

#if !defined(__AVX2__) /* GCC 12 splits wider ones in halves: V's conversion took half again as long */
V_INLINE vu v_widen16(vu16 x) { return __builtin_convertvector(x, vu); }
V_INLINE vu v_widen8(vu8 x) { return __builtin_convertvector(x, vu); }
typedef int8_t vi8 __attribute__((vector_size(W)));
V_INLINE vi v_widen8_signed(vu8 x) { return __builtin_convertvector((vi8)x, vi); }
V_INLINE vu16 v_widen8_to_16(vu8 x) { return __builtin_convertvector(x, vu16); }
V_INLINE vu16 v_narrow16(vu x) { return __builtin_convertvector(x & 0xffffu, vu16); }
V_INLINE vf v_from_int(vi x) { return __builtin_convertvector(x, vf); }
V_INLINE vu v_shift_right(vu x, vu by) { return x >> by; }
#endif

#if W == 16
#define V_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define V_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif W == 8
#define V_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define V_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
#define V_LOW 0, 4, 1, 5
#define V_HIGH 2, 6, 3, 7
#endif

#if defined(__clang__) || __GNUC__ >= 12
#define V_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define V_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (vi){__VA_ARGS__})
#endif

/* ---- loads, stores, selection -------------------------------------------------------------------------------- */

V_INLINE vf v_load(const float *from)
{
    vf x;
    memcpy(&x, from, sizeof x);
    return x;
}

V_INLINE void v_store(float *to, vf x)
{
    memcpy(to, &x, sizeof x);
}

V_INLINE vu v_choose(vi mask, vu yes, vu no)
{
    return ((vu)mask & yes) | (~(vu)mask & no);
}

/* Of the words at `from`, at most W / 4 (`some`), the ones with these numbers. */
V_INLINE vu v_take_words(const unsigned char *from, int some, vu numbers)
{
#if W == 16
    const __m128i words = _mm_maskz_loadu_epi32((__mmask8)((1u << some) - 1), from);
    return (vu)_mm512_permutexvar_epi32((__m512i)numbers, _mm512_castsi128_si512(words));
#else
    uint32_t words[W / 4] = {0};
    vu taken;
    memcpy(words, from, (size_t)some * 4);
    for (int i = 0; i < W; i++)
        taken[i] = words[numbers[i]];
    return taken;
#endif
}

V_INLINE bool v_any(vu mask)
{
#if W == 16
    return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#endif
    uint32_t any = 0;
    for (int i = 0; i < W; i++)
        any |= mask[i];
    return any != 0;
}

V_INLINE float v_max_across(vf x)
{
#if W == 16
    x = v_max(x, V_SHUFFLE(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
    x = v_max(x, V_SHUFFLE(x, x, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11));
    x = v_max(x, V_SHUFFLE(x, x, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
    x = v_max(x, V_SHUFFLE(x, x, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));
#elif W == 8
    x = v_max(x, V_SHUFFLE(x, x, 4, 5, 6, 7, 0, 1, 2, 3));
    x = v_max(x, V_SHUFFLE(x, x, 2, 3, 0, 1, 6, 7, 4, 5));
    x = v_max(x, V_SHUFFLE(x, x, 1, 0, 3, 2, 5, 4, 7, 6));
#else
    x = v_max(x, V_SHUFFLE(x, x, 2, 3, 0, 1));
    x = v_max(x, V_SHUFFLE(x, x, 1, 0, 3, 2));
#endif
    return x[0];
}

/* W rows of W words to W columns: log2 W perfect shuffles. */
V_INLINE void v_transpose(vu rows[W])
{
    vu next[W];
    for (int round = 1; round < W; round *= 2) {
        for (int i = 0; i < W / 2; i++) {
            next[2 * i] = V_SHUFFLE(rows[i], rows[i + W / 2], V_LOW);
            next[2 * i + 1] = V_SHUFFLE(rows[i], rows[i + W / 2], V_HIGH);
        }
        memcpy(rows, next, sizeof next);
    }
}

/* ---- words of W rows, transposed: words[i] has word i of all ---------------------------------------------------- */

#if W == 16
#define V_COLUMNS 4 /* words that are read at once */

V_INLINE __m128i v_line(const unsigned char *from, int some)
{
    return some == 4 ? _mm_loadu_si128((const __m128i *)(const void *)from)
                     : _mm_maskz_loadu_epi32((__mmask8)((1u << some) - 1), from);
}

/* Lines of 16 bytes of 16 rows, in place as they are loaded, to the columns: only words within lines are left to
 * shuffle. */
V_INLINE void v_columns_of_lines(const __m512i lines[4], vu words[4])
{
    const __m512i a = _mm512_unpacklo_epi32(lines[0], lines[1]), b = _mm512_unpackhi_epi32(lines[0], lines[1]);
    const __m512i c = _mm512_unpacklo_epi32(lines[2], lines[3]), d = _mm512_unpackhi_epi32(lines[2], lines[3]);
    words[0] = (vu)_mm512_unpacklo_epi64(a, c);
    words[1] = (vu)_mm512_unpackhi_epi64(a, c);
    words[2] = (vu)_mm512_unpacklo_epi64(b, d);
    words[3] = (vu)_mm512_unpackhi_epi64(b, d);
}

/* `some`: words that there are. Lines are put in place by the loads, which any of the vector ports can do. */
V_INLINE void v_columns(const unsigned char *const rows[16], int64_t at, int some, vu words[4])
{
    __m512i lines[4];
    for (int i = 0; i < 4; i++) {
        lines[i] = _mm512_castsi128_si512(v_line(rows[i] + at, some));
        lines[i] = _mm512_inserti32x4(lines[i], v_line(rows[4 + i] + at, some), 1);
        lines[i] = _mm512_inserti32x4(lines[i], v_line(rows[8 + i] + at, some), 2);
        lines[i] = _mm512_inserti32x4(lines[i], v_line(rows[12 + i] + at, some), 3);
    }
    v_columns_of_lines(lines, words);
}

/* The same of rows `stride` bytes apart. */
V_INLINE void v_run_columns(const unsigned char *from, int64_t stride, vu words[4])
{
    const unsigned char *second = from + 4 * stride, *third = from + 8 * stride, *fourth = from + 12 * stride;
    __m512i lines[4];
    for (int i = 0; i < 4; i++) {
        lines[i] = _mm512_castsi128_si512(v_line(from + i * stride, 4));
        lines[i] = _mm512_inserti32x4(lines[i], v_line(second + i * stride, 4), 1);
        lines[i] = _mm512_inserti32x4(lines[i], v_line(third + i * stride, 4), 2);
        lines[i] = _mm512_inserti32x4(lines[i], v_line(fourth + i * stride, 4), 3);
    }
    v_columns_of_lines(lines, words);
}
#else
#define V_COLUMNS W

/* `some`: words that there are. */
V_INLINE void v_columns(const unsigned char *const rows[W], int64_t at, int some, vu words[W])
{
    if (some == W) {
        for (int i = 0; i < W; i++)
            memcpy(&words[i], rows[i] + at, sizeof words[i]);
    } else {
        memset(words, 0, W * sizeof *words);
        for (int i = 0; i < W; i++)
            memcpy(&words[i], rows[i] + at, (size_t)some * 4);
    }
    v_transpose(words);
}
#endif

/* ---- functions ------------------------------------------------------------------------------------------------ */

/* 2^x for x <= 0; 0 below the normal numbers; NaN stays. Taylor's series on [-1/2, 1/2]: error below 1e-7. */
V_INLINE vf v_exp2(vf x)
{
    const vf magic = v_splat(0x1.8p23f); /* adding it rounds to an integer, in the low bits */
    vf shifted = x + magic;
    vf fraction = x - (shifted - magic);
    vf power = (vf)(((vu)shifted - (vu)magic + 127u) << 23);
    vf sum = v_splat(1.5252734e-5f);
    sum = v_fma(sum, fraction, v_splat(1.5403530e-4f));
    sum = v_fma(sum, fraction, v_splat(1.3333558e-3f));
    sum = v_fma(sum, fraction, v_splat(9.6181291e-3f));
    sum = v_fma(sum, fraction, v_splat(5.5504109e-2f));
    sum = v_fma(sum, fraction, v_splat(2.4022651e-1f));
    sum = v_fma(sum, fraction, v_splat(6.9314718e-1f));
    sum = v_fma(sum, fraction, v_splat(1.0f));
    return (vf)(~(vu)(x < v_splat(-126.0f)) & (vu)(sum * power));
}

/* tanh x, relative error below 3e-7. Near 0 an odd polynomial (Chebyshev interpolation of tanh(x)/x - 1 over x^2 on
 * |x| <= 0.55), elsewhere (1 - e) / (1 + e) with e = 2^(-2 |x| log2 e). NaN stays. */
V_INLINE vf v_tanh(vf x)
{
    vf size = (vf)((vu)x & 0x7fffffffu), square = x * x;
    vf e = v_exp2(size * v_splat(-2 * 1.44269504f));
    vf large = (v_splat(1.0f) - e) / (v_splat(1.0f) + e);
    vf sum = v_splat(-6.6157575e-3f);
    sum = v_fma(sum, square, v_splat(2.1312746e-2f));
    sum = v_fma(sum, square, v_splat(-5.3910067e-2f));
    sum = v_fma(sum, square, v_splat(1.3333118e-1f));
    sum = v_fma(sum, square, v_splat(-3.3333332e-1f));
    vf small = v_fma(sum * square, size, size);
    return (vf)(v_choose(size < v_splat(0.55f), (vu)small, (vu)large) | ((vu)x & 0x80000000u));
}

/* ---- conversions: the same results as quire__dtype_load and quire__dtype_store -------------------------------- */

/* Numbers below the least normal one are made without touching a subnormal float, which is slow or flushed. */
V_INLINE vf v_from_f16(vu half)
{
#if defined(__AVX2__) /* and F16C, which every such CPU has */
    return v_from_halves(v_narrow16(half));
#else
    vu magnitude = half & 0x7fffu, wide = magnitude << 13;
    vu small = (vu)((vf)(wide + (113u << 23)) - v_splat(0x1p-14f));
    vu value = v_choose(magnitude < 0x400u, small, wide + (112u << 23));
    value = v_choose(magnitude >= 0x7c00u, wide + (224u << 23), value);
    return (vf)(value | (half & 0x8000u) << 16);
#endif
}

#if !defined(__AVX2__)
V_INLINE vf v_from_halves(vu16 x)
{
    return v_from_f16(v_widen16(x));
}
#endif

V_INLINE vf v_from_fp8(vu byte)
{
    vu magnitude = byte & 0x7fu, wide = magnitude << 20;
    vu small = (vu)((vf)(wide + (121u << 23)) - v_splat(0x1p-6f));
    vu value = v_choose(magnitude < 8u, small, wide + (120u << 23));
    value = v_choose(magnitude == 0x7fu, wide | 0x7fc00000u, value);
    return (vf)(value | (byte & 0x80u) << 24);
}

/* e5m2 is the upper half of an f16. */
V_INLINE vf v_from_e5m2(vu byte)
{
    return v_from_f16(byte << 8);
}

V_INLINE vu v_to_bf16(vf x)
{
    vu bits = (vu)x;
    vu rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    return v_choose((bits & 0x7fffffffu) > 0x7f800000u, (vu)v_splat(0) + 0x7fffu, rounded);
}

V_INLINE vu v_to_f16(vf x)
{
    vu bits = (vu)x, magnitude = bits & 0x7fffffffu, zero = (vu)v_splat(0);
    vu small = (vu)((vf)magnitude + v_splat(0.5f)) - (126u << 23);
    vu value = (magnitude + 0xfffu + (magnitude >> 13 & 1u) - (112u << 23)) >> 13;
    value = v_choose(magnitude < 0x38800000u, small, value);
    value = v_choose(magnitude >= 0x477ff000u, zero + 0x7c00u, value) | (bits >> 16 & 0x8000u);
    return v_choose(magnitude > 0x7f800000u, zero + 0x7fffu, value);
}

V_INLINE vu v_to_fp8(vf x)
{
    vu bits = (vu)x, magnitude = bits & 0x7fffffffu, zero = (vu)v_splat(0);
    vu small = (vu)((vf)magnitude + v_splat(0x1p14f)) - (141u << 23);
    vu value = (magnitude + 0x7ffffu + (magnitude >> 20 & 1u) - (120u << 23)) >> 20;
    value = v_choose(magnitude < 0x3c800000u, small, value);
    value = v_choose(magnitude >= 0x43e00000u, zero + 0x7eu, value) | (bits >> 24 & 0x80u);
    return v_choose(magnitude > 0x7f800000u, zero + 0x7fu, value);
}

V_INLINE vu v_to_e5m2(vf x)
{
    vu bits = (vu)x, magnitude = bits & 0x7fffffffu, zero = (vu)v_splat(0);
    vu small = (vu)((vf)magnitude + v_splat(0x1p7f)) - (134u << 23);
    vu value = (magnitude + 0xfffffu + (magnitude >> 21 & 1u) - (112u << 23)) >> 21;
    value = v_choose(magnitude < 0x38800000u, small, value);
    value = v_choose(magnitude >= 0x47600000u, zero + 0x7bu, value) | (bits >> 24 & 0x80u);
    return v_choose(magnitude > 0x7f800000u, zero + 0x7fu, value);
}

V_INLINE int dtype_bytes(quire_dtype dtype)
{
    return dtype == QUIRE_DTYPE_F32 ? 4 : dtype == QUIRE_DTYPE_F16 || dtype == QUIRE_DTYPE_BF16 ? 2 : 1;
}

/* W elements; `dtype` is a constant wherever this is inlined. */
V_INLINE vf v_decode(quire_dtype dtype, const unsigned char *from)
{
    vf wide;
    vu16 half;
    vu8 byte;
    switch (dtype) {
    case QUIRE_DTYPE_BF16:
        memcpy(&half, from, sizeof half);
        return (vf)(v_widen16(half) << 16);
    case QUIRE_DTYPE_F16:
        memcpy(&half, from, sizeof half);
        return v_from_halves(half);
    case QUIRE_DTYPE_FP8_E4M3:
        memcpy(&byte, from, sizeof byte);
        return v_from_fp8(v_widen8(byte));
    case QUIRE_DTYPE_FP8_E5M2:
        memcpy(&byte, from, sizeof byte);
        return v_from_e5m2(v_widen8(byte));
    default:
        memcpy(&wide, from, sizeof wide);
        return wide;
    }
}

V_INLINE void v_encode(quire_dtype dtype, unsigned char *to, vf x)
{
    vu16 half;
    vu8 byte;
    switch (dtype) {
    case QUIRE_DTYPE_BF16:
        half = __builtin_convertvector(v_to_bf16(x), vu16);
        memcpy(to, &half, sizeof half);
        return;
    case QUIRE_DTYPE_F16:
        half = __builtin_convertvector(v_to_f16(x), vu16);
        memcpy(to, &half, sizeof half);
        return;
    case QUIRE_DTYPE_FP8_E4M3:
        byte = __builtin_convertvector(v_to_fp8(x), vu8);
        memcpy(to, &byte, sizeof byte);
        return;
    case QUIRE_DTYPE_FP8_E5M2:
        byte = __builtin_convertvector(v_to_e5m2(x), vu8);
        memcpy(to, &byte, sizeof byte);
        return;
    default:
        memcpy(to, &x, sizeof x);
        return;
    }
}

/* ---- codes of the cache: numbers without their scale ------------------------------------------------------------
 *
 * e4m3 is read as an f16 of the same bits, whose exponent counts from 8 less: QUIRE__E4M3_UNIT makes up for it, in a
 * scale. Its NaN comes out as a number: v_e4m3_nan finds it, and a tile that has one takes the exact way. */

#define QUIRE__E4M3_UNIT 256.0f

V_INLINE int code_bits(quire_dtype dtype)
{
    return dtype == QUIRE_DTYPE_INT4 ? 4 : 8 * dtype_bytes(dtype);
}

/* int4: the number of the lowest 4 bits of each word. */
V_INLINE vf v_from_nibble(vu words)
{
#if W == 16 /* a look-up reads no other bits of its index */
    const __m512 numbers = _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    return (vf)_mm512_permutexvar_ps((__m512i)words, numbers);
#else
    return v_from_int((vi)(words & 15u));
#endif
}

/* The 32 / bits elements that lie side by side in each word. int4: from 0 to 15. */
V_INLINE void v_codes_of_words(quire_dtype dtype, vu words, vf codes[8])
{
    vu even, odd;
    switch (dtype) {
    case QUIRE_DTYPE_BF16:
        codes[0] = (vf)(words << 16);
        codes[1] = (vf)(words & 0xffff0000u);
        return;
    case QUIRE_DTYPE_F16:
        codes[0] = v_from_f16(words & 0xffffu);
        codes[1] = v_from_f16(words >> 16);
        return;
    case QUIRE_DTYPE_FP8_E4M3:
    case QUIRE_DTYPE_FP8_E5M2:
        even = words << 8 & 0xff00ff00u;
        odd = words & 0xff00ff00u;
        if (dtype == QUIRE_DTYPE_FP8_E4M3) {
            even = (even & 0x80008000u) | (words & 0x007f007fu) << 7;
            odd = (odd & 0x80008000u) | (odd & 0x7f007f00u) >> 1;
        }
        codes[0] = v_from_f16(even & 0xffffu);
        codes[1] = v_from_f16(odd & 0xffffu);
        codes[2] = v_from_f16(even >> 16);
        codes[3] = v_from_f16(odd >> 16);
        return;
    case QUIRE_DTYPE_INT8:
        for (int i = 0; i < 4; i++)
            codes[i] = v_from_int((vi)(words << (24 - 8 * i)) >> 24);
        return;
    case QUIRE_DTYPE_INT4:
        for (int i = 0; i < 8; i++)
            codes[i] = v_from_nibble(words >> (i / 2 * 4 + i % 2 * 16));
        return;
    default:
        codes[0] = (vf)words;
        return;
    }
}

/* W elements of a row; not int4. */
V_INLINE vf v_codes_of_row(quire_dtype dtype, const unsigned char *from)
{
    vu8 byte;
    vu16 half;
    switch (dtype) {
    case QUIRE_DTYPE_FP8_E4M3:
        memcpy(&byte, from, sizeof byte);
        half = v_widen8_to_16(byte);
        return v_from_halves((half << 8 & 0x8000u) | (half & 0x7fu) << 7);
    case QUIRE_DTYPE_FP8_E5M2:
        memcpy(&byte, from, sizeof byte);
        return v_from_halves(v_widen8_to_16(byte) << 8);
    case QUIRE_DTYPE_INT8:
        memcpy(&byte, from, sizeof byte);
        return v_from_int(v_widen8_signed(byte));
    default:
        return v_decode(dtype, from);
    }
}

/* W elements of an int4 row, from `first` (a multiple of W) on, from 0 to 15. */
V_INLINE vf v_codes_of_int4(const unsigned char *row, int first)
{
    static const uint32_t shifts[16] = {0, 16, 4, 20, 8, 24, 12, 28, 0, 16, 4, 20, 8, 24, 12, 28};
    vu words, shift;
    memcpy(&shift, shifts + first % 8, sizeof shift);
#if W == 16
    __m128i pair = _mm_loadl_epi64((const __m128i *)(const void *)(row + first / 2));
    words = (vu)_mm512_permutexvar_epi32(_mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0),
                                         _mm512_castsi128_si512(pair));
#else
    uint32_t word;
    memcpy(&word, row + first / 8 * 4, sizeof word);
    words = (vu)v_splat(0) + word;
#endif
    return v_from_nibble(v_shift_right(words, shift));
}

/* What the codes of int4's group `groups` of each word are multiplied with, and what is added then (host_formats.h).
 * Exact. */
V_INLINE void v_int4_scales(vu words, vu groups, vf *step, vf *shift)
{
    vf zero = v_from_nibble(v_shift_right(words, groups * 4u + 16u));
#if W == 16
    const __m512 parts = _mm512_broadcast_f32x4(_mm_set_ps(0.625f, 0.75f, 0.875f, 1));
    vf part = (vf)_mm512_permutexvar_ps((__m512i)v_shift_right(words, groups * 2u + 8u), parts);
#else
    vf part = v_from_int((vi)(8u - (v_shift_right(words, groups * 2u + 8u) & 3u))) * v_splat(0.125f);
#endif
    *step = v_from_f16((words & 0xffu) << 7) * part;
    *shift = -zero * *step;
}

/* W elements of an int4 row, from `first` (a multiple of W) on, as values; `scales`: the row's words, one a run. */
V_INLINE vf v_from_int4(const unsigned char *row, const unsigned char *scales, int first)
{
    static const uint32_t groups[16] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1};
    uint32_t word;
    vu group;
    vf step, shift;
    memcpy(&word, scales + first / 32 * 4, sizeof word);
    memcpy(&group, groups, sizeof group);
    v_int4_scales(((vu)v_splat(0)) + word, group + (uint32_t)(first % 32 / 8), &step, &shift);
    return v_fma(v_codes_of_int4(row, first), step, shift);
}

/* of[0] in the first eight lanes, of[1] in the others. */
V_INLINE vf v_spread(const float *of)
{
#if W == 16
    double pair;
    memcpy(&pair, of, sizeof pair);
    return (vf)_mm512_permutexvar_ps(_mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0),
                                     _mm512_castpd_ps(_mm512_set1_pd(pair)));
#else
    return v_splat(of[0]);
#endif
}

#if W >= 8
/* Some of the 64 elements of an int4 row from `from` on, from 0 to 15, in the order that costs least: number 8 n + g is what
 * is in bits 4 n of word g, so every lane is of one group. `some`: 0 .. 64 / W - 1, the first is 0. */
V_INLINE vf v_codes_of_groups(const unsigned char *from, int some)
{
#if W == 16
    const vu words = (vu)_mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(const void *)from));
    const vu shifts = {0, 0, 0, 0, 0, 0, 0, 0, 4, 4, 4, 4, 4, 4, 4, 4};
    return v_from_nibble(v_shift_right(words, shifts + (uint32_t)some * 8u));
#else
    vu words;
    memcpy(&words, from, sizeof words);
    return v_from_nibble(words >> (uint32_t)some * 4u);
#endif
}

/* One number for each of 8 groups, as v_codes_of_groups wants it. */
V_INLINE vf v_eight_groups(const float *of)
{
#if W == 16
    return (vf)_mm512_broadcast_f32x8(_mm256_loadu_ps(of));
#else
    return v_load(of);
#endif
}
#endif

#if W == 16
/* fp8 as f16, QUIRE__E4M3_UNIT too large where it is e4m3, in the upper byte of each half word: what is in the lower one
 * does not matter. */
V_INLINE __m512i v_halves(quire_dtype dtype, __m512i upper)
{
    if (dtype == QUIRE_DTYPE_FP8_E5M2)
        return _mm512_and_si512(upper, _mm512_set1_epi16((short)0xff00));
    return _mm512_and_si512(_mm512_srai_epi16(upper, 1), _mm512_set1_epi16((short)0xbf80)); /* the sign, seven bits */
}

/* The two half words in each word of 16 keys and of 16 more; the keys take turns: a0 b0 a1 b1 ... */
V_INLINE void v_pairs_of_words(vu a, vu b, __m512i pairs[2])
{
    const __m512i low = _mm512_set1_epi32(0xffff);
    pairs[0] = _mm512_ternarylogic_epi32(low, (__m512i)a, (__m512i)(b << 16), 0xca);
    pairs[1] = _mm512_ternarylogic_epi32(low, (__m512i)(a >> 16), (__m512i)b, 0xca);
}

/* The four elements in each, as halves. */
V_INLINE void v_halves_of_words(quire_dtype dtype, vu a, vu b, __m512i halves[4])
{
    __m512i pairs[2];
    v_pairs_of_words(a, b, pairs);
    halves[0] = v_halves(dtype, _mm512_slli_epi16(pairs[0], 8));
    halves[1] = v_halves(dtype, pairs[0]);
    halves[2] = v_halves(dtype, _mm512_slli_epi16(pairs[1], 8));
    halves[3] = v_halves(dtype, pairs[1]);
}

V_INLINE __m512i v_halves_of_row(quire_dtype dtype, __m256i codes)
{
    return v_halves(dtype, _mm512_slli_epi16(_mm512_cvtepi8_epi16(codes), 8));
}

/* Scores of keys that take turns, in their order. */
V_INLINE void v_take_turns_back(vf *a, vf *b)
{
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    const __m512 low = (__m512)*a, high = (__m512)*b;
    *a = (vf)_mm512_permutex2var_ps(low, even, high);
    *b = (vf)_mm512_permutex2var_ps(low, odd, high);
}
#endif

/* Not zero where one of four codes is a NaN. */
V_INLINE vu v_e4m3_nan(vu words)
{
    return ((words & 0x7f7f7f7fu) + 0x01010101u) & 0x80808080u;
}

#endif
