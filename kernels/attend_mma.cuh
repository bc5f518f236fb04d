/* attend_mma.cuh: operands of mma.m16n8k16 for attention: q as the A operand, K and V from shared memory as B operands.
 *
 * Operands are bf16 for bf16 caches and f16 for the others (codes of 8 and 4 bits are exact in f16, and f16 keeps three
 * more bits of the weights). q is brought near 1 by a power of two per row, which keeps f16 in range; a q that the operand type cannot
 * hold (f32, or f16 for bf16) is a sum of two operands.
 */
#ifndef QUIRE_KERNELS_ATTEND_MMA_CUH
#define QUIRE_KERNELS_ATTEND_MMA_CUH

#include "attend.cuh"
#include "formats.cuh"

namespace qk
{

template <quire_dtype CACHE> __device__ __forceinline__ uint32_t operand_pair(float low, float high)
{
    return CACHE == QUIRE_DTYPE_BF16 ? bf16_pair_store(low, high) : f16_pair_store(low, high);
}

template <quire_dtype CACHE> __device__ __forceinline__ float2 operand_floats(uint32_t bits)
{
    return CACHE == QUIRE_DTYPE_BF16 ? bf16_pair_load(bits) : f16_pair_load(bits);
}

template <quire_dtype CACHE>
__device__ __forceinline__ void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    const uint32_t b[2] = {b0, b1};
    if constexpr (CACHE == QUIRE_DTYPE_BF16)
        qk_mma_bf16_16816(d, a, b);
    else
        qk_mma_f16_16816(d, a, b);
}

/* Operands that q needs to be exact, or nearly: see above. */
inline int query_terms(const quire__attend_args &args)
{
    const bool bf16_operands = args.pages.dtype == QUIRE_DTYPE_BF16;
    if (args.pages.dtype == QUIRE_DTYPE_INT4) /* rotated, and 4 bits do not need more */
        return 1;
    if (args.pages.rotation != 0)
        return 2;
    return args.q.dtype == QUIRE_DTYPE_BF16 || (args.q.dtype == QUIRE_DTYPE_F16 && !bf16_operands) ? 1 : 2;
}

/* The biased exponent of a magnitude; zero, denormals and what has no normal reciprocal count as 2^0. */
__device__ __forceinline__ uint32_t exponent_of(float magnitude)
{
    const uint32_t exponent = __float_as_uint(magnitude) >> 23;
    return exponent == 0 || exponent >= 254 ? 127 : exponent;
}

/* x of a warp, element i * 32 + lane in x[i], times the Hadamard matrix over its root in runs of RUN dims, as K was. */
template <int RUN, int EACH> __device__ __forceinline__ void rotate_row(float (&x)[EACH])
{
    const int lane = static_cast<int>(threadIdx.x) % 32;
    QK_UNROLL
    for (int apart = 1; apart < RUN && apart < 32; apart *= 2) {
        QK_UNROLL
        for (int i = 0; i < EACH; i++) {
            const float other = __shfl_xor_sync(ALL_LANES, x[i], apart);
            x[i] = lane & apart ? other - x[i] : x[i] + other;
        }
    }
    QK_UNROLL
    for (int apart = 1; apart < RUN / 32; apart *= 2) {
        QK_UNROLL
        for (int i = 0; i < EACH; i++) {
            if (i & apart)
                continue;
            const float low = x[i], high = x[i | apart];
            x[i] = low + high;
            x[i | apart] = low - high;
        }
    }
    QK_UNROLL
    for (int i = 0; i < EACH; i++)
        x[i] *= 1.0f / sqrtf(static_cast<float>(RUN));
}

/* Where decode's fragments want dim d of q: the dims that a lane reads of K as one word are columns 2t, 2t+1, 2t+8, 2t+9
 * of 16, or of 2 times 16 (decode_fragments in attend_decode.cuh). */
template <quire_dtype CACHE, int DIM> __device__ __forceinline__ int query_column(int d)
{
    if (code_bits<CACHE> > 8)
        return d;
    if (code_bits<CACHE> == 4 && d / 32 * 32 + 32 <= DIM)
        return d / 32 * 32 + d % 8 / 4 * 16 + d % 32 / 8 * 2 + d % 2 + d % 4 / 2 * 8;
    return d / 16 * 16 + d % 16 / 4 * 2 + d % 2 + d % 4 / 2 * 8;
}

/* One row of q, by a warp, as `terms` operands in shared memory, TERM_BYTES apart. `place`: of the row in q; below 0 it
 * does not exist and is zeros. Gives what the row's scores are to be multiplied with. PAIRED: columns as query_column
 * says. */
template <quire_dtype CACHE, int DIM, int TERM_BYTES, bool PAIRED>
__device__ __forceinline__ float load_query_row(unsigned char *operands, const quire_tensor &q, int64_t place, int terms,
                                                bool rotated)
{
    constexpr int each = (DIM + 31) / 32;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    float x[each], most = 0.0f;
    QK_UNROLL
    for (int i = 0; i < each; i++) {
        const int column = i * 32 + lane;
        x[i] = place >= 0 && column < DIM ? tensor_load(q, place + column) : 0.0f;
    }
    if constexpr (code_bits<CACHE> <= 8 && CACHE != QUIRE_DTYPE_INT8) {
        if (rotated)
            rotate_row<(DIM & -DIM)>(x);
    }
    QK_UNROLL
    for (int i = 0; i < each; i++)
        most = fmaxf(most, fabsf(x[i]));
    const uint32_t exponent = exponent_of(lanes_max<32>(most));
    QK_UNROLL
    for (int i = 0; i < each; i++) {
        int column = i * 32 + lane;
        float left = x[i] * __uint_as_float((254 - exponent) << 23); /* times 2^-e, exact */
        if (column >= DIM)
            continue;
        if (PAIRED)
            column = query_column<CACHE, DIM>(column);
        for (int term = 0; term < terms; term++) {
            const uint32_t bits = operand_pair<CACHE>(left, 0.0f);
            *reinterpret_cast<unsigned short *>(operands + term * TERM_BYTES + column * 2) =
                static_cast<unsigned short>(bits);
            left -= operand_floats<CACHE>(bits).x;
        }
    }
    return __uint_as_float(exponent << 23);
}

} /* namespace qk */

#endif
