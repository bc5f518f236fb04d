/* common.cuh: what every kernel file shares. Element conversion, 16-byte access, where a token's K and V are,
 * and the checks that a launcher makes.
 *
 * Offsets into the arena and into tensors are 64 bits: an arena has more than 2^31 bytes, and so has q of a
 * long prefill. Pages that the same kernel writes are never read through the non-coherent cache: no __ldg and
 * no const __restrict__ on them.
 */
#ifndef QUIRE_KERNELS_COMMON_CUH
#define QUIRE_KERNELS_COMMON_CUH

#include <stdint.h>

#include "cuda_compat.cuh"
#include "launch.h"

/* QK_UNROLL, but only so many times: the whole of a long loop would cost registers and compile time. */
#if QK_EMULATED
#define QK_UNROLL_BY(times)
#else
#define QK_PRAGMA(text)     _Pragma(#text)
#define QK_UNROLL_BY(times) QK_PRAGMA(unroll times)
#endif

namespace qk
{

/* ---- 16 bytes at a time ------------------------------------------------------------------------------ */

__device__ __forceinline__ uint4 load16(const void *memory)
{
    return *static_cast<const uint4 *>(memory);
}
__device__ __forceinline__ void store16(void *memory, uint4 value)
{
    *static_cast<uint4 *>(memory) = value;
}

/* ---- pairs of elements ------------------------------------------------------------------------------- */

__device__ __forceinline__ float2 f16_pair_load(uint32_t bits)
{
    __half2_raw raw;
    raw.x = static_cast<unsigned short>(bits & 0xffffu);
    raw.y = static_cast<unsigned short>(bits >> 16);
    return __half22float2(raw);
}

__device__ __forceinline__ uint32_t f16_pair_store(float low, float high)
{
    const __half2_raw raw = __floats2half2_rn(low, high);
    return raw.x | static_cast<uint32_t>(raw.y) << 16;
}

__device__ __forceinline__ float2 bf16_pair_load(uint32_t bits)
{
    return make_float2(__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000u));
}

__device__ __forceinline__ uint32_t bf16_pair_store(float low, float high)
{
    const __nv_bfloat162_raw raw = __floats2bfloat162_rn(low, high);
    return raw.x | static_cast<uint32_t>(raw.y) << 16;
}

/* E4M3 is exact in f16: two codes in, two f16 out. */
__device__ __forceinline__ uint32_t fp8_pair_to_f16(uint32_t codes)
{
    const __half2_raw raw = __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(codes), __NV_E4M3);
    return raw.x | static_cast<uint32_t>(raw.y) << 16;
}

__device__ __forceinline__ uint32_t fp8_pair_store(float low, float high)
{
    return __nv_cvt_float2_to_fp8x2(make_float2(low, high), __NV_SATFINITE, __NV_E4M3);
}

/* ---- cache elements ---------------------------------------------------------------------------------- */

/* bytes: of an element. unpack: two elements (F32: one) from a 32-bit word, or for FP8 from its half. pack8:
 * eight floats to eight elements in memory. */
template <quire_dtype CACHE> struct element;

template <> struct element<QUIRE_DTYPE_F32> {
    static constexpr int bytes = 4;
    template <int N> static __device__ __forceinline__ void unpack(const uint32_t *words, float (&x)[N])
    {
        QK_UNROLL
        for (int i = 0; i < N; i++)
            x[i] = __uint_as_float(words[i]);
    }
    static __device__ __forceinline__ void pack8(unsigned char *memory, const float (&x)[8])
    {
        QK_UNROLL
        for (int i = 0; i < 8; i += 4)
            store16(memory + i * 4, make_uint4(__float_as_uint(x[i]), __float_as_uint(x[i + 1]),
                                               __float_as_uint(x[i + 2]), __float_as_uint(x[i + 3])));
    }
};

template <> struct element<QUIRE_DTYPE_F16> {
    static constexpr int bytes = 2;
    template <int N> static __device__ __forceinline__ void unpack(const uint32_t *words, float (&x)[N])
    {
        QK_UNROLL
        for (int i = 0; i < N; i += 2) {
            const float2 pair = f16_pair_load(words[i / 2]);
            x[i] = pair.x;
            x[i + 1] = pair.y;
        }
    }
    static __device__ __forceinline__ void pack8(unsigned char *memory, const float (&x)[8])
    {
        store16(memory, make_uint4(f16_pair_store(x[0], x[1]), f16_pair_store(x[2], x[3]),
                                   f16_pair_store(x[4], x[5]), f16_pair_store(x[6], x[7])));
    }
};

template <> struct element<QUIRE_DTYPE_BF16> {
    static constexpr int bytes = 2;
    template <int N> static __device__ __forceinline__ void unpack(const uint32_t *words, float (&x)[N])
    {
        QK_UNROLL
        for (int i = 0; i < N; i += 2) {
            const float2 pair = bf16_pair_load(words[i / 2]);
            x[i] = pair.x;
            x[i + 1] = pair.y;
        }
    }
    static __device__ __forceinline__ void pack8(unsigned char *memory, const float (&x)[8])
    {
        store16(memory, make_uint4(bf16_pair_store(x[0], x[1]), bf16_pair_store(x[2], x[3]),
                                   bf16_pair_store(x[4], x[5]), bf16_pair_store(x[6], x[7])));
    }
};

template <> struct element<QUIRE_DTYPE_FP8_E4M3> {
    static constexpr int bytes = 1;
    template <int N> static __device__ __forceinline__ void unpack(const uint32_t *words, float (&x)[N])
    {
        QK_UNROLL
        for (int i = 0; i < N; i += 2) {
            const float2 pair = f16_pair_load(fp8_pair_to_f16(words[i / 4] >> (i % 4 * 8) & 0xffffu));
            x[i] = pair.x;
            x[i + 1] = pair.y;
        }
    }
    static __device__ __forceinline__ void pack8(unsigned char *memory, const float (&x)[8])
    {
        *reinterpret_cast<uint2 *>(memory) =
            make_uint2(fp8_pair_store(x[0], x[1]) | fp8_pair_store(x[2], x[3]) << 16,
                       fp8_pair_store(x[4], x[5]) | fp8_pair_store(x[6], x[7]) << 16);
    }
};

/* N cache elements as floats, read as one 16-byte or one 8-byte word. */
template <quire_dtype CACHE, int N>
__device__ __forceinline__ void load_elements(const void *memory, float (&x)[N])
{
    static_assert(N * element<CACHE>::bytes == 16 || N * element<CACHE>::bytes == 8,
                  "a 16-byte or 8-byte access");
    if constexpr (N * element<CACHE>::bytes == 16) {
        const uint4 v = load16(memory);
        const uint32_t words[4] = {v.x, v.y, v.z, v.w};
        element<CACHE>::unpack(words, x);
    } else {
        const uint2 v = *static_cast<const uint2 *>(memory);
        const uint32_t words[2] = {v.x, v.y};
        element<CACHE>::unpack(words, x);
    }
}

/* ---- tensors: the dtype is a value, not a template axis ---------------------------------------------- */

__device__ __forceinline__ float tensor_load(const quire_tensor &tensor, int64_t index)
{
    if (tensor.dtype == QUIRE_DTYPE_F32)
        return static_cast<const float *>(tensor.data)[index];
    const uint32_t bits = static_cast<const unsigned short *>(tensor.data)[index];
    return tensor.dtype == QUIRE_DTYPE_F16 ? f16_pair_load(bits).x : bf16_pair_load(bits).x;
}

__device__ __forceinline__ void tensor_store(const quire_tensor &tensor, int64_t index, float value)
{
    if (tensor.dtype == QUIRE_DTYPE_F32) {
        static_cast<float *>(tensor.data)[index] = value;
        return;
    }
    const uint32_t bits =
        tensor.dtype == QUIRE_DTYPE_F16 ? f16_pair_store(value, 0.0f) : bf16_pair_store(value, 0.0f);
    static_cast<unsigned short *>(tensor.data)[index] = static_cast<unsigned short>(bits);
}

/* ---- pages ------------------------------------------------------------------------------------------- */

/* K of a layer and head in block 0; add row_offset for a token, and kv_stride for V. */
__device__ __forceinline__ unsigned char *page_head(const quire__pages &pages, int layer, int head)
{
    return pages.arena + layer * pages.layer_stride + head * pages.head_stride;
}

__device__ __forceinline__ int64_t row_offset(const quire__pages &pages, int64_t block, int token_in_block)
{
    return block * pages.block_stride + token_in_block * pages.token_stride;
}

/* The scale that the caller gave (FP8). */
__device__ __forceinline__ float page_scale(const quire__pages &pages, int kv, int head)
{
    return pages.scales ? pages.scales[kv * pages.kv_heads + head] : 1.0f;
}

/* ---- what launchers check ---------------------------------------------------------------------------- */

inline bool aligned(const void *address, int64_t alignment)
{
    return reinterpret_cast<uintptr_t>(address) % static_cast<uintptr_t>(alignment) == 0;
}

/* The status of the launch just made; a launcher ends with it. */
inline quire_status launch_status()
{
    return qk_launch_status() == 0 ? QUIRE_OK : QUIRE_EDEVICE;
}

inline int log2_exact(int32_t power)
{
    int shift = 0;
    while (power >> shift > 1)
        shift++;
    return shift;
}

inline int dtype_bytes(quire_dtype dtype)
{
    switch (dtype) {
    case QUIRE_DTYPE_F32: return 4;
    case QUIRE_DTYPE_F16: return 2;
    case QUIRE_DTYPE_BF16: return 2;
    case QUIRE_DTYPE_FP8_E4M3:
    case QUIRE_DTYPE_FP8_E5M2:
    case QUIRE_DTYPE_INT8: return 1;
    default: return 0; /* INT4 too */
    }
}

/* Every row of the pages must start at a multiple of `alignment`. */
inline quire_status check_pages(const quire__pages &pages, int64_t alignment)
{
    if (pages.dtype < QUIRE_DTYPE_F32 || pages.dtype > QUIRE_DTYPE_INT4)
        return QUIRE_EUNSUPPORTED;
    const bool power = pages.block_tokens >= 1 && pages.block_tokens <= 256 &&
                       (pages.block_tokens & (pages.block_tokens - 1)) == 0;
    if (!pages.arena || !power || pages.kv_heads < 1 || pages.head_dim < 8 || pages.head_dim % 8 != 0)
        return QUIRE_EINVAL;
    const int64_t strides = pages.block_stride | pages.layer_stride | pages.kv_stride | pages.head_stride |
                            pages.token_stride | pages.scale_offset;
    if (!aligned(pages.arena, alignment) || strides % alignment != 0)
        return QUIRE_EINVAL;
    return QUIRE_OK;
}

inline quire_status check_tensor(const quire_tensor &tensor, int32_t heads)
{
    if (tensor.dtype < QUIRE_DTYPE_F32 || tensor.dtype > QUIRE_DTYPE_BF16)
        return QUIRE_EUNSUPPORTED;
    if (!tensor.data || !aligned(tensor.data, dtype_bytes(tensor.dtype)) ||
        tensor.heads != static_cast<uint32_t>(heads))
        return QUIRE_EINVAL;
    return QUIRE_OK;
}

} /* namespace qk */

#endif
