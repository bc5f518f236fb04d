/* host_pack_avx2.c: the loops of packing with AVX2. Compiled with -march=x86-64-v3.
 *
 * Counting is by comparison: KV has two dozen exponents, and a vector compares 32 elements with one of them in two
 * instructions, where a table takes a load, an addition and a store for each element. Few elements have an exponent
 * outside the 32 below the highest; those are counted one by one, so the counts are exact whatever the data. */
#include "device/host_pack_kernel.h"

#if defined(__x86_64__)
#if !defined(__AVX2__)
#error "compile this file with -march=x86-64-v3"
#endif

#include <immintrin.h>
#include <string.h>

static __m256i load(const void *from)
{
    return _mm256_loadu_si256(from);
}

static void store(void *to, __m256i x)
{
    _mm256_storeu_si256(to, x);
}

/* Two vectors of 16 halves, each at most 255, to one of 32 bytes. */
static __m256i narrow(__m256i low, __m256i high)
{
    return _mm256_permute4x64_epi64(_mm256_packus_epi16(low, high), 0xd8);
}

static __m256i exponents_of(__m256i low, __m256i high)
{
    const __m256i byte = _mm256_set1_epi16(0xff);
    return narrow(_mm256_and_si256(_mm256_srli_epi16(low, 7), byte),
                  _mm256_and_si256(_mm256_srli_epi16(high, 7), byte));
}

/* ---- count --------------------------------------------------------------------------------------------------- */

enum { WINDOW = 32, AT_ONCE = 8, ROUNDS = 255 /* a counter is a byte */ };

static uint32_t sum_bytes(__m256i x)
{
    const __m256i sums = _mm256_sad_epu8(x, _mm256_setzero_si256());
    const __m128i two = _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    return (uint32_t)(_mm_cvtsi128_si64(two) + _mm_extract_epi64(two, 1));
}

/* Counts of the exponents first .. first + 7; returns their sum. */
static uint32_t count_eight(const unsigned char *exponents, int32_t count, int32_t first, uint32_t counts[256])
{
    uint32_t sum = 0;
    for (int32_t begin = 0; begin < count; begin += 32 * ROUNDS) {
        const int32_t end = count - begin < 32 * ROUNDS ? count : begin + 32 * ROUNDS;
        __m256i wanted[AT_ONCE], found[AT_ONCE];
        for (int32_t j = 0; j < AT_ONCE; j++) {
            wanted[j] = _mm256_set1_epi8((char)(first + j));
            found[j] = _mm256_setzero_si256();
        }
        for (int32_t i = begin; i < end; i += 32) {
            const __m256i x = load(exponents + i);
#pragma GCC unroll 8
            for (int32_t j = 0; j < AT_ONCE; j++)
                found[j] = _mm256_sub_epi8(found[j], _mm256_cmpeq_epi8(x, wanted[j]));
        }
        for (int32_t j = 0; j < AT_ONCE; j++) {
            const uint32_t some = sum_bytes(found[j]);
            counts[first + j] += some;
            sum += some;
        }
    }
    return sum;
}

/* Counts of the exponents outside lowest .. highest. */
static void count_others(const unsigned char *exponents, int32_t count, int32_t lowest, int32_t highest,
                         uint32_t counts[256])
{
    const __m256i first = _mm256_set1_epi8((char)lowest), width = _mm256_set1_epi8((char)(highest - lowest));
    for (int32_t i = 0; i < count; i += 32) {
        const __m256i x = _mm256_sub_epi8(load(exponents + i), first);
        const __m256i inside = _mm256_cmpeq_epi8(_mm256_min_epu8(x, width), x);
        for (uint32_t others = ~(uint32_t)_mm256_movemask_epi8(inside); others != 0; others &= others - 1)
            counts[exponents[i + __builtin_ctz(others)]]++;
    }
}

/* The highest exponent, of those below infinity's. */
static int32_t spread_exponents(const unsigned char *elements, int32_t count, unsigned char *exponents)
{
    __m256i highest = _mm256_setzero_si256();
    unsigned char lanes[32];
    int32_t most = 0;
    for (int32_t i = 0; i < count; i += 32) {
        const __m256i x = exponents_of(load(elements + 2 * i), load(elements + 2 * i + 32));
        const __m256i infinite = _mm256_cmpeq_epi8(x, _mm256_set1_epi8(-1));
        highest = _mm256_max_epu8(highest, _mm256_andnot_si256(infinite, x));
        store(exponents + i, x);
    }
    store(lanes, highest);
    for (int32_t i = 0; i < 32; i++)
        most = lanes[i] > most ? lanes[i] : most;
    return most;
}

static void count_avx2(const unsigned char *elements, int32_t count, uint32_t counts[256], unsigned char *scratch)
{
    const int32_t highest = spread_exponents(elements, count, scratch);
    int32_t next = highest, left = count;
    if (highest < AT_ONCE) { /* zeros, or next to nothing else */
        quire__pack_loops_baseline.count(elements, count, counts, scratch);
        return;
    }
    while (left > count / 128 && next - AT_ONCE + 1 >= 0 && highest - next < WINDOW) {
        left -= (int32_t)count_eight(scratch, count, next - AT_ONCE + 1, counts);
        next -= AT_ONCE;
    }
    if (left > count / 8) { /* not what KV looks like */
        memset(counts, 0, 256 * sizeof *counts);
        quire__pack_loops_baseline.count(elements, count, counts, scratch);
    } else if (left > 0) {
        count_others(scratch, count, next + 1, highest, counts);
    }
}

/* ---- code ---------------------------------------------------------------------------------------------------- */

/* Codes of 32 exponents from `first` on, and that of exponent 0, which zeros have. An exponent elsewhere is rare. */
typedef struct code_table {
    __m256i first, low, high, zero;
} code_table;

/* The window has the most frequent exponent, and of the others what still fits, the more frequent first. */
static code_table table_make(const uint8_t code_of[256])
{
    uint8_t exponents[16] = {0}, window[WINDOW];
    int32_t least = -1, most = -1;
    for (int32_t e = 1; e < 256; e++)
        if (code_of[e] != QUIRE__PACK_NO_CODE)
            exponents[code_of[e]] = (uint8_t)e;
    for (int32_t code = 0; code < 16; code++) {
        const int32_t e = exponents[code];
        const int32_t low = least < 0 || e < least ? e : least, high = e > most ? e : most;
        if (e != 0 && high - low < WINDOW) {
            least = low;
            most = high;
        }
    }
    least = least < 1 ? 1 : least;
    for (int32_t i = 0; i < WINDOW; i++)
        window[i] = least + i < 256 ? code_of[least + i] : QUIRE__PACK_NO_CODE;
    return (code_table){
        .first = _mm256_set1_epi8((char)least),
        .low = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)window)),
        .high = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)(window + 16))),
        .zero = _mm256_set1_epi8((char)code_of[0])};
}

/* The codes of 32 exponents. */
static __m256i look_up(const code_table *table, __m256i exponents)
{
    const __m256i at = _mm256_sub_epi8(exponents, table->first);
    const __m256i inside = _mm256_cmpeq_epi8(_mm256_min_epu8(at, _mm256_set1_epi8(WINDOW - 1)), at);
    const __m256i half = _mm256_and_si256(at, _mm256_set1_epi8(15));
    __m256i code = _mm256_blendv_epi8(_mm256_shuffle_epi8(table->low, half), _mm256_shuffle_epi8(table->high, half),
                                      _mm256_slli_epi16(at, 3));
    code = _mm256_blendv_epi8(_mm256_set1_epi8(QUIRE__PACK_NO_CODE), code, inside);
    return _mm256_blendv_epi8(code, table->zero, _mm256_cmpeq_epi8(exponents, _mm256_setzero_si256()));
}

static __m256i signs_and_mantissas(__m256i low, __m256i high)
{
    const __m256i sign = _mm256_set1_epi16(0x80), mantissa = _mm256_set1_epi16(0x7f);
    low = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(low, 8), sign), _mm256_and_si256(low, mantissa));
    high = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(high, 8), sign), _mm256_and_si256(high, mantissa));
    return narrow(low, high);
}

/* The elements of a vector whose code was not in the window: some have one, the others are escapes. */
static int32_t finish_others(const unsigned char *elements, int32_t first, uint32_t others, const uint8_t code_of[256],
                             unsigned char *codes, unsigned char *escapes, int32_t missing)
{
    for (; others != 0; others &= others - 1) {
        const uint32_t at = (uint32_t)first + (uint32_t)__builtin_ctz(others);
        uint16_t element;
        memcpy(&element, elements + 2 * (size_t)at, sizeof element);
        const uint32_t escape = at | (uint32_t)element << 16, code = code_of[element >> 7 & 0xff];
        if (code == QUIRE__PACK_NO_CODE)
            memcpy(escapes + 4 * (size_t)missing++, &escape, sizeof escape);
        else
            codes[at / 2] |= (unsigned char)(code << at % 2 * 4);
    }
    return missing;
}

static int32_t code_avx2(const unsigned char *elements, int32_t count, const uint8_t code_of[256],
                         unsigned char *bytes, unsigned char *codes, unsigned char *escapes)
{
    const __m256i pair = _mm256_set1_epi16(0x1001), low_bits = _mm256_set1_epi8(15);
    const code_table table = table_make(code_of);
    int32_t missing = 0;
    for (int32_t i = 0; i < count; i += 32) {
        const __m256i low = load(elements + 2 * i), high = load(elements + 2 * i + 32);
        const __m256i code = look_up(&table, exponents_of(low, high));
        const __m256i pairs = _mm256_maddubs_epi16(_mm256_and_si256(code, low_bits), pair); /* even + 16 odd */
        const uint32_t others = (uint32_t)_mm256_movemask_epi8(_mm256_slli_epi16(code, 3)); /* bit 4 of each byte */
        store(bytes + i, signs_and_mantissas(low, high));
        _mm_storeu_si128((__m128i *)(void *)(codes + i / 2), _mm256_castsi256_si128(narrow(pairs, pairs)));
        if (others != 0)
            missing = finish_others(elements, i, others, code_of, codes, escapes, missing);
    }
    return missing;
}

/* ---- decode -------------------------------------------------------------------------------------------------- */

/* Byte pairs, sign and mantissa below exponent, to elements. */
static __m256i join(__m256i pairs)
{
    const __m256i sign = _mm256_slli_epi16(_mm256_and_si256(pairs, _mm256_set1_epi16(0x80)), 8);
    const __m256i exponent = _mm256_and_si256(_mm256_srli_epi16(pairs, 1), _mm256_set1_epi16(0x7f80));
    return _mm256_or_si256(_mm256_or_si256(sign, exponent), _mm256_and_si256(pairs, _mm256_set1_epi16(0x7f)));
}

static void decode_avx2(const unsigned char *bytes, const unsigned char *codes, int32_t count,
                        const uint8_t exponents[16], unsigned char *elements)
{
    const __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)exponents));
    for (int32_t i = 0; i < count; i += 32) {
        const __m256i wide =
            _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(codes + i / 2)));
        const __m256i code =
            _mm256_and_si256(_mm256_or_si256(wide, _mm256_slli_epi16(wide, 4)), _mm256_set1_epi8(15));
        const __m256i e = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(table, code), 0xd8);
        const __m256i b = _mm256_permute4x64_epi64(load(bytes + i), 0xd8);
        store(elements + 2 * i, join(_mm256_unpacklo_epi8(b, e)));
        store(elements + 2 * i + 32, join(_mm256_unpackhi_epi8(b, e)));
    }
}

const quire__pack_loops quire__pack_loops_avx2 = {"avx2", count_avx2, code_avx2, decode_avx2};

#endif
