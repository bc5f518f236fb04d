/* append.cu: a step's new K and V into their slots.
 *
 * Moves per token 2 * kv_heads * head_dim elements in, and as many codes and their scales out: at 8 kv heads of
 * 128 from bf16, 4 KiB in and 4 KiB (bf16), 2080 bytes (fp8, int8) or 1280 bytes (int4) out. With a rotary
 * embedding the table's row of the token, 4 * dims bytes, is read once by each head, from L1 after the first;
 * and q in and out.
 *
 * Two kernels:
 *   append_kernel       formats without scales in the page, no rotary embedding. A thread block a token, a
 *                       thread eight elements at a time: 256 threads carry 8 kv heads of 128 in one go.
 *   append_rows_kernel  the rest. A row (the K, V or q of a token and head) is in the registers of 8 to 32
 *                       lanes, 8 elements each (16 where head_dim is above 256), so that its largest value
 *                       and its rotation are shuffles; stores are 4 or 8 bytes a lane, side by side.
 * Inputs are read 16 bytes at a time where their address and strides allow it, else element by element.
 */
#include "formats.cuh"

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
        if (code_bits<CACHE> != 8 && source.dtype == CACHE) {
            copy8<element<CACHE>::bytes>(
                to, static_cast<const unsigned char *>(source.data) + index * element<CACHE>::bytes,
                kv ? wide_v : wide_k);
            continue;
        }
        float x[8];
        tensor_load8(source, index, kv ? wide_v : wide_k, x);
        if constexpr (code_bits<CACHE> == 8) {
            const float inverse = __fdiv_rn(1.0f, page_scale(a.pages, kv, head));
            QK_UNROLL
            for (int e = 0; e < 8; e++)
                x[e] *= inverse;
        }
        store_codes<CACHE>(to, x);
    }
}

/* ---- rows in registers -------------------------------------------------------------------------------- */

struct append_shape {
    row_shape row;
    int block_shift, lanes_shift;
    int rows_a_token; /* K heads, V heads, q heads */
    bool wide_k, wide_v, wide_q;
};

/* The values of a pair's other halves, for columns below rope.dims that are not interleaved. */
template <int E>
__device__ __forceinline__ void load_partners(float (&other)[E], const quire_tensor &source, int64_t row,
                                              int column, int dims, bool wide)
{
    const int half = dims / 2;
    QK_UNROLL
    for (int i = 0; i < E; i += 8) {
        const int first = column + i;
        if (wide && half % 8 == 0) {
            float eight[8] = {};
            if (first < dims)
                tensor_load8(source, row + (first < half ? first + half : first - half), true, eight);
            QK_UNROLL
            for (int e = 0; e < 8; e++)
                other[i + e] = eight[e];
            continue;
        }
        QK_UNROLL
        for (int e = 0; e < 8; e++) {
            const int at = first + e;
            other[i + e] = at < dims ? tensor_load(source, row + (at < half ? at + half : at - half)) : 0.0f;
        }
    }
}

/* x cos - y sin of a pair's first value, x cos + y sin of its second; each operation rounds, as in the twin. */
template <int E>
__device__ __forceinline__ void turn(float (&x)[E], const float (&other)[E], const float *table, int column,
                                     int dims, bool interleaved)
{
    QK_UNROLL
    for (int i = 0; i < E; i++) {
        const int at = column + i, half = dims / 2;
        if (at >= dims)
            break;
        const bool first = interleaved ? at % 2 == 0 : at < half;
        const int pair = interleaved ? at / 2 : at < half ? at : at - half;
        const float2 angle = reinterpret_cast<const float2 *>(table)[pair];
        const float straight = __fmul_rn(x[i], angle.x), crossed = __fmul_rn(other[i], angle.y);
        x[i] = first ? __fsub_rn(straight, crossed) : __fadd_rn(straight, crossed);
    }
}

template <int E>
__device__ __forceinline__ void turn_row(float (&x)[E], const quire__rope &rope, const quire_tensor &source,
                                         int64_t token, int64_t row, int column, bool wide)
{
    /* -1: an empty row, whatever comes of it */
    const float *table = rope.table + static_cast<int64_t>(max(rope.positions[token], 0)) * rope.dims;
    float other[E];
    if (rope.interleaved) {
        QK_UNROLL
        for (int i = 0; i < E; i++)
            other[i] = x[i ^ 1];
    } else {
        load_partners(other, source, row, column, rope.dims, wide);
    }
    turn(x, other, table, column, rope.dims, rope.interleaved != 0);
}

template <quire_dtype CACHE, int E, bool ROPE>
__global__ void __launch_bounds__(APPEND_THREADS)
    append_rows_kernel(const quire__append_args a, const append_shape s)
{
    const int lane = static_cast<int>(threadIdx.x) & (s.row.lanes - 1), column = lane * E;
    const unsigned row = blockIdx.x * (APPEND_THREADS >> s.lanes_shift) + (threadIdx.x >> s.lanes_shift);
    const int64_t token = row / static_cast<unsigned>(s.rows_a_token);
    const int part = static_cast<int>(row % static_cast<unsigned>(s.rows_a_token)), kv_heads = a.pages.kv_heads;
    const int kind = part < kv_heads ? 0 : part < 2 * kv_heads ? 1 : 2; /* K, V, q */
    const int head = part - kind * kv_heads;
    const bool mine = token < a.tokens && column < a.pages.head_dim;
    const quire_tensor &source = kind == 0 ? a.k : kind == 1 ? a.v : a.rope.q;
    const bool wide = kind == 0 ? s.wide_k : kind == 1 ? s.wide_v : s.wide_q;
    float x[E] = {};
    if (mine) {
        const int64_t from = token * source.token_stride + head * source.head_stride;
        QK_UNROLL
        for (int i = 0; i < E; i += 8) {
            if (i > 0 && column + i >= a.pages.head_dim)
                break;
            float eight[8];
            tensor_load8(source, from + column + i, wide, eight);
            QK_UNROLL
            for (int e = 0; e < 8; e++)
                x[i + e] = eight[e];
        }
        if (ROPE && kind != 1)
            turn_row(x, a.rope, source, token, from, column, wide);
    }
    if (ROPE)
        __syncwarp(); /* q may be turned in place: its partners have been read */
    if (ROPE && kind == 2 && mine) {
        QK_UNROLL
        for (int e = 0; e < E; e++) {
            if (column + e < a.pages.head_dim)
                tensor_store(a.rope.q_out,
                             token * a.rope.q_out.token_stride + head * a.rope.q_out.head_stride + column + e,
                             x[e]);
        }
    }
    const int64_t slot = mine && kind != 2 ? a.slots[token] : -1;
    const int64_t block = slot >= 0 ? slot >> s.block_shift : 0;
    const int offset = slot >= 0 ? static_cast<int>(slot & (a.pages.block_tokens - 1)) : 0;
    unsigned char *base = page_head(a.pages, a.layer, kind != 2 ? head : 0) + (kind == 1 ? a.pages.kv_stride : 0);
    store_row<CACHE>(a.pages, s.row, kind, kind != 2 ? head : 0, x, column, slot >= 0,
                     base + row_offset(a.pages, block, offset),
                     const_cast<unsigned short *>(row_scales(a.pages, base, block, offset)));
}

/* ---- launching --------------------------------------------------------------------------------------- */

static bool is_wide(const quire_tensor &tensor)
{
    const int64_t strides = tensor.token_stride | tensor.head_stride;
    return aligned(tensor.data, 16) && strides * dtype_bytes(tensor.dtype) % 16 == 0;
}

template <quire_dtype CACHE, int E>
static quire_status rows_launch(const quire__append_args &args, void *stream)
{
    append_shape shape = {};
    shape.row = make_row_shape<E>(args.pages);
    shape.lanes_shift = log2_exact(shape.row.lanes);
    shape.block_shift = log2_exact(args.pages.block_tokens);
    const bool has_q = args.rope.table && args.rope.q.data;
    shape.rows_a_token = 2 * args.pages.kv_heads + (has_q ? static_cast<int>(args.rope.q.heads) : 0);
    shape.wide_k = is_wide(args.k);
    shape.wide_v = is_wide(args.v);
    shape.wide_q = has_q && is_wide(args.rope.q);
    const int64_t rows_a_block = APPEND_THREADS >> shape.lanes_shift;
    const int64_t rows = static_cast<int64_t>(args.tokens) * shape.rows_a_token;
    if (rows > INT32_MAX)
        return QUIRE_EINVAL;
    const dim3 grid(static_cast<unsigned>((rows + rows_a_block - 1) / rows_a_block));
    if (args.rope.table)
        QK_LAUNCH((append_rows_kernel<CACHE, E, true>), grid, dim3(APPEND_THREADS), 0, stream, args, shape);
    else
        QK_LAUNCH((append_rows_kernel<CACHE, E, false>), grid, dim3(APPEND_THREADS), 0, stream, args, shape);
    return launch_status();
}

template <quire_dtype CACHE> static quire_status append_launch(const quire__append_args &args, void *stream)
{
    if (args.pages.scale_stride != 0 || args.rope.table)
        return args.pages.head_dim > 256 ? rows_launch<CACHE, 16>(args, stream)
                                         : rows_launch<CACHE, 8>(args, stream);
    if constexpr (code_bits<CACHE> >= 8)
        QK_LAUNCH(append_kernel<CACHE>, dim3(static_cast<unsigned>(args.tokens)), dim3(APPEND_THREADS), 0,
                  stream, args, log2_exact(args.pages.block_tokens), is_wide(args.k), is_wide(args.v));
    return launch_status();
}

static quire_status check_rope(const quire__append_args &args)
{
    const quire__rope &rope = args.rope;
    if (!rope.table)
        return QUIRE_OK;
    if (!rope.positions || !aligned(rope.table, 8) || rope.dims < 8 || rope.dims % 8 != 0 ||
        rope.dims > args.pages.head_dim)
        return QUIRE_EINVAL;
    if (!rope.q.data)
        return QUIRE_OK;
    const quire_status status = check_tensor(rope.q, static_cast<int32_t>(rope.q.heads));
    return status == QUIRE_OK ? check_tensor(rope.q_out, static_cast<int32_t>(rope.q.heads)) : status;
}

} /* namespace qk */

extern "C" quire_status quire__cuda_append(const quire__append_args *args, void *stream)
{
    quire_status status = qk::check_pages(args->pages, 16);
    if (status == QUIRE_OK && (args->tokens < 0 || args->pages.head_dim > 512))
        status = QUIRE_EINVAL;
    if (status != QUIRE_OK || args->tokens == 0)
        return status;
    if ((status = qk::check_tensor(args->k, args->pages.kv_heads)) != QUIRE_OK ||
        (status = qk::check_tensor(args->v, args->pages.kv_heads)) != QUIRE_OK ||
        (status = qk::check_rope(*args)) != QUIRE_OK)
        return status;
    if (!args->slots || args->layer < 0)
        return QUIRE_EINVAL;
    switch (args->pages.dtype) {
    case QUIRE_DTYPE_F32: return qk::append_launch<QUIRE_DTYPE_F32>(*args, stream);
    case QUIRE_DTYPE_F16: return qk::append_launch<QUIRE_DTYPE_F16>(*args, stream);
    case QUIRE_DTYPE_BF16: return qk::append_launch<QUIRE_DTYPE_BF16>(*args, stream);
    case QUIRE_DTYPE_FP8_E4M3: return qk::append_launch<QUIRE_DTYPE_FP8_E4M3>(*args, stream);
    case QUIRE_DTYPE_FP8_E5M2: return qk::append_launch<QUIRE_DTYPE_FP8_E5M2>(*args, stream);
    case QUIRE_DTYPE_INT8: return qk::append_launch<QUIRE_DTYPE_INT8>(*args, stream);
    case QUIRE_DTYPE_INT4: return qk::append_launch<QUIRE_DTYPE_INT4>(*args, stream);
    default: return QUIRE_EUNSUPPORTED;
    }
}
