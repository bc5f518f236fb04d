/* formats.cuh: codes and scales of the quantised formats, on the device. Their definition is in
 * src/device/host_formats.h; this file agrees with it bit for bit.
 *
 *   reading    unpack          a 32-bit word to its codes' numbers in f32, in the order of elements, without a scale
 *              unpack_f16      the same as pairs of f16, for tensor cores. Exact: every code is an f16
 *              row_scales      where a row's scales are; scale_at one of them
 *   writing    scale_of        the scale that a row or a run of 16 gets, from the values' range
 *              pack8           eight values, times 1 / scale, to eight codes
 *
 * A value is code * scale * page_scale (common.cuh); of the two scales at least one is 1. Scores of an int4 cache need
 * q rotated in runs of pages.rotation dims (`rotate`), since K is.
 */
#ifndef QUIRE_KERNELS_FORMATS_CUH
#define QUIRE_KERNELS_FORMATS_CUH

#include "common.cuh"

namespace qk
{

/* Bits of an element. */
template <quire_dtype CACHE>
constexpr int code_bits = CACHE == QUIRE_DTYPE_F32                                   ? 32
                          : CACHE == QUIRE_DTYPE_F16 || CACHE == QUIRE_DTYPE_BF16    ? 16
                          : CACHE == QUIRE_DTYPE_INT4                                ? 4
                                                                                     : 8;

constexpr int INT4_GROUP = 16; /* elements of a scale */

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

/* Of 4 bits: `bytes` has no meaning. A word has eight elements, even ones in its lower half. */
template <> struct element<QUIRE_DTYPE_INT4> {
    template <int N> static __device__ __forceinline__ void unpack(const uint32_t *words, float (&x)[N])
    {
        QK_UNROLL
        for (int i = 0; i < N; i++)
            x[i] = byte_to_float(words[i / 8] >> (i % 8 / 2 * 4 + i % 2 * 16) & 15u, 8388608.0f + 8.0f);
    }
};

/* A word's codes as pairs of neighbours: 2 pairs of 8-bit codes, 4 of int4. Exact. */
template <quire_dtype CACHE>
__device__ __forceinline__ void unpack_f16(uint32_t word, uint32_t (&pairs)[16 / code_bits<CACHE>])
{
    if constexpr (CACHE == QUIRE_DTYPE_FP8_E4M3) {
        pairs[0] = fp8_pair_to_f16(word & 0xffffu);
        pairs[1] = fp8_pair_to_f16(word >> 16);
    } else if constexpr (CACHE == QUIRE_DTYPE_FP8_E5M2) {
        pairs[0] = __byte_perm(word, 0, 0x1404);
        pairs[1] = __byte_perm(word, 0, 0x3424);
    } else if constexpr (CACHE == QUIRE_DTYPE_INT8) { /* 1024 with a byte in its low bits, less 1024 + 128 */
        const uint32_t codes = word ^ 0x80808080u;
        pairs[0] = qk_sub_f16x2(__byte_perm(codes, 0x64646464u, 0x4140), 0x64806480u);
        pairs[1] = qk_sub_f16x2(__byte_perm(codes, 0x64646464u, 0x4342), 0x64806480u);
    } else {
        static_assert(CACHE == QUIRE_DTYPE_INT4, "a quantised format");
        QK_UNROLL
        for (int i = 0; i < 4; i++)
            pairs[i] = qk_sub_f16x2((word >> (4 * i) & 0x000f000fu) | 0x64006400u, 0x64086408u);
    }
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

} /* namespace qk */

#endif
