/* formats.cuh: codes and scales of the quantised formats, on the device. Their definition is in
 * src/device/host_formats.h; this file agrees with it bit for bit.
 *
 *   reading    unpack          a 32-bit word to its codes' numbers in f32, in the order of elements, without a scale
 *              unpack_f16      the same as pairs of f16, for tensor cores. Exact: every code is an f16
 *              int4_word       int4's word to values, as pairs of f16. Exact, up to 65504
 *              row_scales      where a row's scales are; scale_at one of them
 *   writing    store_row       rows in the registers of some lanes, with their scales, rotated where K is
 *
 * A value is code * scale * page_scale (common.cuh), of the two scales at least one being 1; int4: (code - zero) * step.
 * Where pages.rotation is not 0, K is rotated in runs of so many dims (`rotate`), and scores need q rotated too.
 */
#ifndef QUIRE_KERNELS_FORMATS_CUH
#define QUIRE_KERNELS_FORMATS_CUH

#include <math.h>

#include "common.cuh"

namespace qk
{

/* Bits of an element. */
template <quire_dtype CACHE>
constexpr int code_bits = CACHE == QUIRE_DTYPE_F32                                   ? 32
                          : CACHE == QUIRE_DTYPE_F16 || CACHE == QUIRE_DTYPE_BF16    ? 16
                          : CACHE == QUIRE_DTYPE_INT4                                ? 4
                                                                                     : 8;

constexpr int INT4_RUN = 32, INT4_GROUP = 8; /* elements of a word of scales, and of a step and a zero in it */

/* ---- codes to numbers -------------------------------------------------------------------------------- */

/* E5M2 is the upper half of an f16: two codes in, two f16 out. */
__device__ __forceinline__ uint32_t e5m2_pair_to_f16(uint32_t codes)
{
    return (codes & 0xffu) << 8 | (codes & 0xff00u) << 16;
}

/* 2^23 with a byte in its low bits, less 2^23: an unsigned byte as a float, without the slow integer
 * conversion. */
__device__ __forceinline__ float byte_to_float(uint32_t bits, float less)
{
    return __uint_as_float(0x4b000000u | bits) - less;
}

template <> struct element<QUIRE_DTYPE_FP8_E5M2> {
    static constexpr int bytes = 1;
    template <int N> static __device__ __forceinline__ void unpack(const uint32_t *words, float (&x)[N])
    {
        QK_UNROLL
        for (int i = 0; i < N; i += 2) {
            const float2 pair = f16_pair_load(e5m2_pair_to_f16(words[i / 4] >> (i % 4 * 8)));
            x[i] = pair.x;
            x[i + 1] = pair.y;
        }
    }
};

template <> struct element<QUIRE_DTYPE_INT8> {
    static constexpr int bytes = 1;
    template <int N> static __device__ __forceinline__ void unpack(const uint32_t *words, float (&x)[N])
    {
        QK_UNROLL
        for (int i = 0; i < N; i++)
            x[i] = byte_to_float((words[i / 4] ^ 0x80808080u) >> (i % 4 * 8) & 0xffu, 8388608.0f + 128.0f);
    }
};

/* A word's 8-bit codes as pairs of neighbours. Exact. */
template <quire_dtype CACHE>
__device__ __forceinline__ void unpack_f16(uint32_t word, uint32_t (&pairs)[16 / code_bits<CACHE>])
{
    if constexpr (CACHE == QUIRE_DTYPE_FP8_E4M3) {
        pairs[0] = fp8_pair_to_f16(word & 0xffffu);
        pairs[1] = fp8_pair_to_f16(word >> 16);
    } else if constexpr (CACHE == QUIRE_DTYPE_FP8_E5M2) {
        pairs[0] = __byte_perm(word, 0, 0x1404);
        pairs[1] = __byte_perm(word, 0, 0x3424);
    } else { /* 1024 with a byte in its low bits, less 1024 + 128 */
        static_assert(CACHE == QUIRE_DTYPE_INT8, "8 bits");
        const uint32_t codes = word ^ 0x80808080u;
        pairs[0] = qk_sub_f16x2(__byte_perm(codes, 0x64646464u, 0x4140), 0x64806480u);
        pairs[1] = qk_sub_f16x2(__byte_perm(codes, 0x64646464u, 0x4342), 0x64806480u);
    }
}

/* int4: step and zero of a group, of two rows or of one twice, as pairs of f16; the zeros plus 1024. `low`, `high`: the
 * rows' words of scales. */
struct int4_pair {
    uint32_t step, zero;
};

__device__ __forceinline__ int4_pair int4_scales(uint32_t low, uint32_t high, int group)
{
    const uint32_t lower = __byte_perm(low, high, 0x5410), upper = __byte_perm(low, high, 0x7632);
    const uint32_t part = 0x3c003c00u - (lower >> 2 * group & 0x03000300u); /* 1 less eighths */
    return {qk_mul_f16x2((lower & 0x00ff00ffu) << 7, part), (upper >> 4 * group & 0x000f000fu) | 0x64006400u};
}

/* The values of the codes in bits 0..3 and 16..19. Exact. */
__device__ __forceinline__ uint32_t int4_values(uint32_t codes, const int4_pair &scales)
{
    return qk_mul_f16x2(qk_sub_f16x2((codes & 0x000f000fu) | 0x64006400u, scales.zero), scales.step);
}

/* The values of a word of an int4 row as pairs of neighbours; `scales`: of its run. */
__device__ __forceinline__ void int4_word(uint32_t word, uint32_t scales, int group, uint32_t (&pairs)[4])
{
    const int4_pair pair = int4_scales(scales, scales, group);
    QK_UNROLL
    for (int i = 0; i < 4; i++)
        pairs[i] = int4_values(word >> 4 * i, pair);
}

/* ---- scales ------------------------------------------------------------------------------------------ */

/* The scales of a row that starts at `row`, `token` in its block, of a head that starts at `head`: f16, one for each
 * pages.scale_group elements. For pages with scale_stride != 0. */
__device__ __forceinline__ const unsigned short *row_scales(const quire__pages &pages, const unsigned char *head,
                                                            int64_t block, int token_in_block)
{
    return reinterpret_cast<const unsigned short *>(head + block * pages.block_stride + pages.scale_offset +
                                                    static_cast<int64_t>(token_in_block) * pages.scale_stride);
}

__device__ __forceinline__ float scale_at(const unsigned short *scales, int group)
{
    return f16_pair_load(scales[group]).x;
}

/* ---- a row in the registers of some lanes ------------------------------------------------------------ */

/* A row of head_dim values over `lanes` neighbouring lanes (a power of two), E values a lane: lane i of them has
 * columns i * E and on. Lanes past head_dim hold zeros. All lanes of a warp call these together. */
struct row_shape {
    int lanes;
    float rotation_factor; /* 1 / sqrt(pages.rotation) */
};

/* How a launcher lays rows out. */
template <int E> inline row_shape make_row_shape(const quire__pages &pages)
{
    row_shape shape = {1, 1.0f};
    while (shape.lanes * E < pages.head_dim)
        shape.lanes *= 2;
    while (pages.dtype == QUIRE_DTYPE_INT4 && shape.lanes * E < INT4_RUN)
        shape.lanes *= 2; /* the lanes of a run look for its widest group together */
    if (pages.rotation != 0)
        shape.rotation_factor = 1.0f / sqrtf(static_cast<float>(pages.rotation));
    return shape;
}

constexpr unsigned WHOLE_WARP = 0xffffffffu;

/* Multiplies each run of `rotation` columns with the Hadamard matrix over its root, distance 1 first, as
 * quire__rotate does. */
template <int E> __device__ __forceinline__ void rotate(float (&x)[E], int column, int rotation, float factor)
{
    QK_UNROLL
    for (int apart = 1; apart < E; apart *= 2) {
        if (apart < rotation) {
            QK_UNROLL
            for (int i = 0; i < E; i++) {
                if ((i & apart) == 0) {
                    const float low = x[i], high = x[i + apart];
                    x[i] = low + high;
                    x[i + apart] = low - high;
                }
            }
        }
    }
    for (int apart = E; apart < rotation; apart *= 2) {
        QK_UNROLL
        for (int i = 0; i < E; i++) {
            const float other = __shfl_xor_sync(WHOLE_WARP, x[i], apart / E);
            x[i] = (column & apart) != 0 ? other - x[i] : x[i] + other;
        }
    }
    QK_UNROLL
    for (int i = 0; i < E; i++)
        x[i] *= factor;
}

/* A scale as the page holds it, and what to multiply values with. */
struct row_scale {
    unsigned short bits;
    float inverse;
};

__device__ __forceinline__ row_scale make_scale(float scale)
{
    uint32_t bits = f16_pair_store(scale, 0.0f) & 0xffffu;
    if ((bits & 0x7fffu) == 0x7c00u)
        bits--; /* 65504 */
    const float rounded = f16_pair_load(bits).x;
    return {static_cast<unsigned short>(bits), rounded != 0.0f ? __fdiv_rn(1.0f, rounded) : 0.0f};
}

/* The largest magnitude over `lanes` lanes, NaN aside. */
template <int E> __device__ __forceinline__ float row_magnitude(const float (&x)[E], int lanes)
{
    float most = 0.0f;
    QK_UNROLL
    for (int i = 0; i < E; i++)
        most = fmaxf(most, fabsf(x[i]));
    for (int apart = lanes / 2; apart > 0; apart /= 2)
        most = fmaxf(most, __shfl_xor_sync(WHOLE_WARP, most, apart));
    return most;
}

/* ---- numbers to codes -------------------------------------------------------------------------------- */

__device__ __forceinline__ uint32_t e5m2_pair_store(float low, float high)
{
    const uint32_t codes = __nv_cvt_float2_to_fp8x2(make_float2(low, high), __NV_SATFINITE, __NV_E5M2);
    return ((low == low) ? codes & 0xffu : 0x7fu) | ((high == high) ? codes & 0xff00u : 0x7f00u);
}

__device__ __forceinline__ uint32_t int8_store(float x)
{
    const float limited = x == x ? fminf(fmaxf(x, -127.0f), 127.0f) : 0.0f;
    return static_cast<uint32_t>(__float2int_rn(limited)) & 0xffu;
}

/* int4: see host_formats.h, whose operations these are, one by one. */
__device__ __forceinline__ float limit_code(float code)
{
    return fminf(fmaxf(code, 0.0f), 15.0f);
}

struct int4_try {
    float zero, error;
    uint32_t codes;
};

__device__ __forceinline__ int4_try int4_try_part(const float (&x)[8], float middle, float step, float inverse)
{
    int4_try made = {limit_code(rintf(__fsub_rn(7.5f, __fmul_rn(middle, inverse)))), 0.0f, 0};
    QK_UNROLL
    for (int i = 0; i < 8; i++) {
        const float code = limit_code(rintf(x[i] * inverse) + made.zero);
        const float off = __fsub_rn(x[i], __fmul_rn(code - made.zero, step));
        made.error = __fadd_rn(made.error, __fmul_rn(off, off));
        made.codes |= static_cast<uint32_t>(code) << (i / 2 * 4 + i % 2 * 16);
    }
    return made;
}

struct int4_range {
    float least, most;
};

/* NaN becomes 0. */
__device__ __forceinline__ int4_range find_int4_range(float (&x)[8])
{
    int4_range range = {0.0f, 0.0f};
    QK_UNROLL
    for (int i = 0; i < 8; i++) {
        x[i] = x[i] == x[i] ? x[i] : 0.0f;
        range = {fminf(range.least, x[i]), fmaxf(range.most, x[i])};
    }
    return range;
}

/* A group's codes; gives its part and zero, where they are in the word of its run. */
__device__ __forceinline__ uint32_t int4_encode_group(const float (&x)[8], const int4_range &range, float unit,
                                                      int group, uint32_t *codes)
{
    const float inverse = unit != 0.0f ? __fdiv_rn(1.0f, unit) : 0.0f, middle = (range.least + range.most) * 0.5f;
    int4_try best = int4_try_part(x, middle, unit, inverse);
    uint32_t part = 0;
    QK_UNROLL
    for (int i = 1; i < 4; i++) {
        const float turn = i == 1 ? 8.0f / 7 : i == 2 ? 4.0f / 3 : 1.6f;
        const int4_try next = int4_try_part(x, middle, unit * (1.0f - i * 0.125f), inverse * turn);
        if (next.error < best.error) {
            best = next;
            part = i;
        }
    }
    *codes = best.codes;
    return part << (8 + 2 * group) | static_cast<uint32_t>(best.zero) << (16 + 4 * group);
}

/* Eight or sixteen values of each of some neighbouring lanes, a run of 32 being four lanes' or two's, to codes and the
 * run's word, which its first lane stores. */
template <int E>
__device__ __forceinline__ void int4_store_row(const float (&x)[E], int column, int head_dim, bool exists,
                                               unsigned char *row, unsigned short *scales)
{
    float eight[E / 8][8], widest = 0.0f;
    int4_range range[E / 8];
    QK_UNROLL
    for (int i = 0; i < E; i++)
        eight[i / 8][i % 8] = x[i];
    QK_UNROLL
    for (int i = 0; i < E / 8; i++) {
        range[i] = find_int4_range(eight[i]);
        widest = fmaxf(widest, range[i].most - range[i].least);
    }
    QK_UNROLL
    for (int apart = 1; apart < INT4_RUN / E; apart *= 2)
        widest = fmaxf(widest, __shfl_xor_sync(WHOLE_WARP, widest, apart));
    const uint32_t half = (f16_pair_store(widest * (1.0f / 15.5f), 0.0f) + 0x7fu) & 0xff80u;
    const uint32_t unit = half < 0x7b80u ? half : 0x7b80u; /* 61440 */
    uint32_t word = unit >> 7;
    QK_UNROLL
    for (int i = 0; i < E / 8; i++) {
        uint32_t codes;
        word |= int4_encode_group(eight[i], range[i], f16_pair_load(unit).x, (column + i * 8) % INT4_RUN / 8, &codes);
        if (exists && (i == 0 || column + i * 8 < head_dim))
            *reinterpret_cast<uint32_t *>(row + (column + i * 8) / 2) = codes;
    }
    QK_UNROLL
    for (int apart = 1; apart < INT4_RUN / E; apart *= 2)
        word |= __shfl_xor_sync(WHOLE_WARP, word, apart);
    if (exists && column % INT4_RUN == 0)
        reinterpret_cast<uint32_t *>(scales)[column / INT4_RUN] = word;
}

/* Eight values that are already times 1 / scale, to the eight codes at `memory`; not int4. */
template <quire_dtype CACHE>
__device__ __forceinline__ void store_codes(unsigned char *memory, const float (&x)[8])
{
    if constexpr (CACHE == QUIRE_DTYPE_INT8) {
        uint2 words = make_uint2(0, 0);
        QK_UNROLL
        for (int i = 0; i < 4; i++) {
            words.x |= int8_store(x[i]) << (8 * i);
            words.y |= int8_store(x[4 + i]) << (8 * i);
        }
        *reinterpret_cast<uint2 *>(memory) = words;
    } else if constexpr (CACHE == QUIRE_DTYPE_FP8_E5M2) {
        *reinterpret_cast<uint2 *>(memory) =
            make_uint2(e5m2_pair_store(x[0], x[1]) | e5m2_pair_store(x[2], x[3]) << 16,
                       e5m2_pair_store(x[4], x[5]) | e5m2_pair_store(x[6], x[7]) << 16);
    } else {
        element<CACHE>::pack8(memory, x);
    }
}

/* fp8: what these columns lose in this scale, as host_formats.c adds it up. */
template <quire_dtype CACHE, int E>
__device__ __forceinline__ float fp8_error(const float (&x)[E], int lanes, const row_scale &scale)
{
    uint32_t sum = 0;
    QK_UNROLL
    for (int i = 0; i < E; i += 2) {
        const float low = __fmul_rn(x[i], scale.inverse), high = __fmul_rn(x[i + 1], scale.inverse);
        const float2 codes = f16_pair_load(CACHE == QUIRE_DTYPE_FP8_E4M3
                                               ? fp8_pair_to_f16(fp8_pair_store(low, high))
                                               : e5m2_pair_to_f16(e5m2_pair_store(low, high)));
        const float off[2] = {fminf(fabsf(__fsub_rn(low, codes.x)), 32.0f),
                              fminf(fabsf(__fsub_rn(high, codes.y)), 32.0f)}; /* NaN: 32 */
        QK_UNROLL
        for (int j = 0; j < 2; j++) {
            const uint32_t parts = __float_as_uint(__fadd_rn(off[j], 131072.0f)) - 0x48000000u; /* of a 64th */
            sum += parts * parts;
        }
    }
    for (int apart = lanes / 2; apart > 0; apart /= 2)
        sum += __shfl_xor_sync(WHOLE_WARP, sum, apart);
    const float size = f16_pair_load(scale.bits).x;
    return static_cast<float>(sum) * (size * size);
}

/* fp8: the scale of a row. */
template <quire_dtype CACHE, int E>
__device__ __forceinline__ row_scale fp8_scale(const float (&x)[E], int lanes, float scale)
{
    constexpr float factors[7] = {1.0905077f, 1.1892071f, 1.2968396f, 1.4142135f, 1.5422108f, 1.6817929f, 1.8340081f};
    row_scale best = make_scale(scale);
    float least = fp8_error<CACHE>(x, lanes, best);
    QK_UNROLL
    for (int i = 0; i < 7; i++) {
        const row_scale next = make_scale(scale * factors[i]);
        const float error = fp8_error<CACHE>(x, lanes, next);
        if (error < least) {
            least = error;
            best = next;
        }
    }
    return best;
}

/* Of a row that is rotated already; not int4. */
template <quire_dtype CACHE, int E>
__device__ __forceinline__ void store_turned_row(const quire__pages &pages, const row_shape &shape, int kv, int head,
                                                 const float (&x)[E], int column, bool exists, unsigned char *row,
                                                 unsigned short *scales)
{
    float inverse = 1.0f;
    if constexpr (code_bits<CACHE> == 8) {
        if (pages.scale_stride != 0) {
            constexpr float part = CACHE == QUIRE_DTYPE_INT8 ? 1.0f / 127 : 1.0f / 448;
            const float straight = row_magnitude(x, shape.lanes) * part;
            row_scale scale;
            if constexpr (CACHE == QUIRE_DTYPE_INT8)
                scale = make_scale(straight);
            else
                scale = fp8_scale<CACHE>(x, shape.lanes, straight);
            inverse = scale.inverse;
            if (exists && column == 0)
                scales[0] = scale.bits;
        } else if (CACHE != QUIRE_DTYPE_INT8 && exists) { /* a row of q has no scale to read */
            inverse = __fdiv_rn(1.0f, page_scale(pages, kv, head));
        }
    }
    if (!exists)
        return;
    QK_UNROLL
    for (int i = 0; i < E; i += 8) {
        if (i > 0 && column + i >= pages.head_dim)
            break;
        float eight[8];
        QK_UNROLL
        for (int e = 0; e < 8; e++)
            eight[e] = code_bits<CACHE> < 16 ? x[i + e] * inverse : x[i + e];
        store_codes<CACHE>(row + (column + i) * code_bits<CACHE> / 8, eight);
    }
}

/* Stores a row and its scales: see row_shape. `exists`: this lane has columns of the row, and it is to be written.
 */
template <quire_dtype CACHE, int E>
__device__ __forceinline__ void store_row(const quire__pages &pages, const row_shape &shape, int kv, int head,
                                          float (&x)[E], int column, bool exists, unsigned char *row,
                                          unsigned short *scales)
{
    if (code_bits<CACHE> <= 8 && pages.rotation != 0) { /* every lane takes part, whatever its row is */
        float turned[E];
        QK_UNROLL
        for (int i = 0; i < E; i++)
            turned[i] = x[i];
        rotate(turned, column, pages.rotation, shape.rotation_factor);
        QK_UNROLL
        for (int i = 0; i < E; i++)
            x[i] = kv == 0 ? turned[i] : x[i];
    }
    if constexpr (CACHE == QUIRE_DTYPE_INT4)
        int4_store_row(x, column, pages.head_dim, exists, row, scales);
    else
        store_turned_row<CACHE>(pages, shape, kv, head, x, column, exists, row, scales);
}

} /* namespace qk */

#endif
