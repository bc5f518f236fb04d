/* attend_mma.cuh: operands of mma.m16n8k16 for attention: q as the A operand, K and V from shared memory as B operands.
 *
 * Operands are bf16 for bf16 caches and f16 for the others (e4m3 is exact in f16, and f16 keeps three more bits of the
 * weights). q is brought near 1 by a power of two per row, which keeps f16 in range; a q that the operand type cannot
 * hold (f32, or f16 for bf16) is a sum of two operands.
 */
#ifndef QUIRE_KERNELS_ATTEND_MMA_CUH
#define QUIRE_KERNELS_ATTEND_MMA_CUH

#include "attend.cuh"

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
    return args.q.dtype == QUIRE_DTYPE_BF16 || (args.q.dtype == QUIRE_DTYPE_F16 && !bf16_operands) ? 1 : 2;
}

/* The biased exponent of a magnitude; zero, denormals and what has no normal reciprocal count as 2^0. */
__device__ __forceinline__ uint32_t exponent_of(float magnitude)
{
    const uint32_t exponent = __float_as_uint(magnitude) >> 23;
    return exponent == 0 || exponent >= 254 ? 127 : exponent;
}

/* One row of q, by a warp, as `terms` operands in shared memory, TERM_BYTES apart. `place`: of the row in q; below 0 it
 * does not exist and is zeros. Gives what the row's scores are to be multiplied with. PAIRED: the order of columns that
 * one-byte caches want (decode_fragments in attend_decode.cuh). */
template <quire_dtype CACHE, int DIM, int TERM_BYTES, bool PAIRED>
__device__ __forceinline__ float load_query_row(unsigned char *operands, const quire_tensor &q, int64_t place, int terms)
{
    constexpr int each = (DIM + 31) / 32;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    float x[each], most = 0.0f;
    QK_UNROLL
    for (int i = 0; i < each; i++) {
        const int column = i * 32 + lane;
        x[i] = place >= 0 && column < DIM ? tensor_load(q, place + column) : 0.0f;
        most = fmaxf(most, fabsf(x[i]));
    }
    const uint32_t exponent = exponent_of(lanes_max<32>(most));
    QK_UNROLL
    for (int i = 0; i < each; i++) {
        int column = i * 32 + lane;
        float left = x[i] * __uint_as_float((254 - exponent) << 23); /* times 2^-e, exact */
        if (column >= DIM)
            continue;
        if (PAIRED)
            column = column / 16 * 16 + column % 16 / 4 * 2 + column % 2 + column % 4 / 2 * 8;
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
