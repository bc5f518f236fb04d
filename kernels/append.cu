/* append.cu: a step's new K and V into their slots.
 *
 * Moves per token 2 * kv_heads * head_dim elements in and as many out: at 8 kv heads of 128 in bf16, 4 KiB
 * each way. Launch: one thread block a token, a thread eight elements at a time; 256 threads carry 8 kv heads
 * of 128 in one go. Inputs are read 16 bytes at a time where their address and strides allow it, else element
 * by element.
 */
#include "common.cuh"

namespace qk
{

constexpr int APPEND_THREADS = 256;

/* Eight consecutive elements. `wide`: the address is a multiple of 16 bytes. */
__device__ __forceinline__ void tensor_load8(const quire_tensor &tensor, int64_t index, bool wide,
                                             float (&x)[8])
{
    if (!wide) {
        QK_UNROLL
        for (int i = 0; i < 8; i++)
            x[i] = tensor_load(tensor, index + i);
    } else if (tensor.dtype == QUIRE_DTYPE_F32) {
        const float4 a = static_cast<const float4 *>(tensor.data)[index / 4];
        const float4 b = static_cast<const float4 *>(tensor.data)[index / 4 + 1];
        x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w;
        x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
    } else if (tensor.dtype == QUIRE_DTYPE_F16) {
        load_elements<QUIRE_DTYPE_F16>(static_cast<const unsigned short *>(tensor.data) + index, x);
    } else {
        load_elements<QUIRE_DTYPE_BF16>(static_cast<const unsigned short *>(tensor.data) + index, x);
    }
}

/* Eight elements of the cache's own dtype as they are, NaN payloads too. */
template <int BYTES>
__device__ __forceinline__ void copy8(unsigned char *to, const unsigned char *from, bool wide)
{
    if (wide) {
        QK_UNROLL
        for (int i = 0; i < 8 * BYTES; i += 16)
            store16(to + i, load16(from + i));
        return;
    }
    QK_UNROLL
    for (int i = 0; i < 8 * BYTES; i += BYTES) {
        if constexpr (BYTES == 4)
            *reinterpret_cast<uint32_t *>(to + i) = *reinterpret_cast<const uint32_t *>(from + i);
        else
            *reinterpret_cast<unsigned short *>(to + i) = *reinterpret_cast<const unsigned short *>(from + i);
    }
}

template <quire_dtype CACHE>
__global__ void __launch_bounds__(APPEND_THREADS)
    append_kernel(const quire__append_args a, int block_shift, bool wide_k, bool wide_v)
{
    const int64_t token = blockIdx.x, slot = a.slots[token];
    if (slot < 0)
        return;
    const int vectors = a.pages.head_dim / 8, work = a.pages.kv_heads * vectors;
    const int64_t row =
        row_offset(a.pages, slot >> block_shift, static_cast<int>(slot & (a.pages.block_tokens - 1)));
    for (int i = static_cast<int>(threadIdx.x); i < 2 * work; i += APPEND_THREADS) {
        const int kv = i >= work, rest = i - kv * work, head = rest / vectors, column = rest % vectors * 8;
        const quire_tensor &source = kv ? a.v : a.k;
        const int64_t index = token * source.token_stride + head * source.head_stride + column;
        unsigned char *to =
            page_head(a.pages, a.layer, head) + kv * a.pages.kv_stride + row + column * element<CACHE>::bytes;
        if (CACHE != QUIRE_DTYPE_FP8_E4M3 && source.dtype == CACHE) {
            copy8<element<CACHE>::bytes>(
                to, static_cast<const unsigned char *>(source.data) + index * element<CACHE>::bytes,
                kv ? wide_v : wide_k);
            continue;
        }
        float x[8];
        tensor_load8(source, index, kv ? wide_v : wide_k, x);
        if constexpr (CACHE == QUIRE_DTYPE_FP8_E4M3) {
            const float inverse = 1.0f / page_scale(a.pages, kv, head);
            QK_UNROLL
            for (int e = 0; e < 8; e++)
                x[e] *= inverse;
        }
        element<CACHE>::pack8(to, x);
    }
}

static bool is_wide(const quire_tensor &tensor)
{
    const int64_t strides = tensor.token_stride | tensor.head_stride;
    return aligned(tensor.data, 16) && strides * dtype_bytes(tensor.dtype) % 16 == 0;
}

template <quire_dtype CACHE> static quire_status append_launch(const quire__append_args &args, void *stream)
{
    QK_LAUNCH(append_kernel<CACHE>, dim3(static_cast<unsigned>(args.tokens)), dim3(APPEND_THREADS), 0, stream,
              args, log2_exact(args.pages.block_tokens), is_wide(args.k), is_wide(args.v));
    return launch_status();
}

} /* namespace qk */

extern "C" quire_status quire__cuda_append(const quire__append_args *args, void *stream)
{
    quire_status status = qk::check_pages(args->pages, 16);
    if (status == QUIRE_OK && args->pages.scale_stride != 0) /* scales in the page: not yet */
        status = QUIRE_EUNSUPPORTED;
    if (status == QUIRE_OK && args->tokens < 0)
        status = QUIRE_EINVAL;
    if (status != QUIRE_OK || args->tokens == 0)
        return status;
    if ((status = qk::check_tensor(args->k, args->pages.kv_heads)) != QUIRE_OK ||
        (status = qk::check_tensor(args->v, args->pages.kv_heads)) != QUIRE_OK)
        return status;
    if (!args->slots || args->layer < 0)
        return QUIRE_EINVAL;
    switch (args->pages.dtype) {
    case QUIRE_DTYPE_F32: return qk::append_launch<QUIRE_DTYPE_F32>(*args, stream);
    case QUIRE_DTYPE_F16: return qk::append_launch<QUIRE_DTYPE_F16>(*args, stream);
    case QUIRE_DTYPE_BF16: return qk::append_launch<QUIRE_DTYPE_BF16>(*args, stream);
    case QUIRE_DTYPE_FP8_E4M3: return qk::append_launch<QUIRE_DTYPE_FP8_E4M3>(*args, stream);
    default: return QUIRE_EUNSUPPORTED;
    }
}
