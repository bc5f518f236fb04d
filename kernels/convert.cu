/* convert.cu: blocks of one format to blocks of another, every row of every layer: quantise (bf16, f16 or f32 to fp8,
 * int8 or int4) and dequantise (the way back, K of int4 turned back too).
 *
 * Moves each row once in and once out, with its scales: at head_dim 128, 256 bytes of bf16 on one side and 128 + 2
 * (fp8, int8) or 64 + 16 (int4) on the other. Launch: a row in the registers of 8 to 32 lanes, as in append.cu; rows
 * of a head lie side by side, so the lanes of a warp read and write whole lines.
 */
#include "formats.cuh"

namespace qk
{

constexpr int CONVERT_THREADS = 256;

struct convert_shape {
    row_shape row;
    int lanes_shift, block_shift;
};

/* Of the pages' own rows: where a row is, and its scales. */
struct row_place {
    unsigned char *row;
    unsigned short *scales;
};

__device__ __forceinline__ row_place find_place(const quire__pages &pages, int block, int layer, int kv, int head,
                                                int token)
{
    unsigned char *base = page_head(pages, layer, head) + kv * pages.kv_stride;
    return {base + row_offset(pages, block, token),
            const_cast<unsigned short *>(row_scales(pages, base, block, token))};
}

/* Eight raw elements. */
__device__ __forceinline__ void load_raw8(quire_dtype dtype, const unsigned char *row, int column, float (&x)[8])
{
    if (dtype == QUIRE_DTYPE_F16) {
        load_elements<QUIRE_DTYPE_F16>(row + column * 2, x);
    } else if (dtype == QUIRE_DTYPE_BF16) {
        load_elements<QUIRE_DTYPE_BF16>(row + column * 2, x);
    } else {
        float low[4], high[4];
        load_elements<QUIRE_DTYPE_F32>(row + column * 4, low);
        load_elements<QUIRE_DTYPE_F32>(row + column * 4 + 16, high);
        QK_UNROLL
        for (int i = 0; i < 4; i++) {
            x[i] = low[i];
            x[4 + i] = high[i];
        }
    }
}

__device__ __forceinline__ void store_raw8(quire_dtype dtype, unsigned char *row, int column, const float (&x)[8])
{
    if (dtype == QUIRE_DTYPE_F16)
        element<QUIRE_DTYPE_F16>::pack8(row + column * 2, x);
    else if (dtype == QUIRE_DTYPE_BF16)
        element<QUIRE_DTYPE_BF16>::pack8(row + column * 2, x);
    else
        element<QUIRE_DTYPE_F32>::pack8(row + column * 4, x);
}

/* Eight codes and their scale to values. */
template <quire_dtype CACHE>
__device__ __forceinline__ void load_coded8(const quire__pages &pages, int kv, int head, const row_place &place,
                                            int column, float (&x)[8])
{
    if constexpr (CACHE == QUIRE_DTYPE_INT4) {
        const uint32_t codes = *reinterpret_cast<const uint32_t *>(place.row + column / 2);
        const uint32_t run = reinterpret_cast<const uint32_t *>(place.scales)[column / INT4_RUN];
        const int4_pair scales = int4_scales(run, run, column % INT4_RUN / INT4_GROUP);
        const float step = f16_pair_load(scales.step).x, zero = static_cast<float>(scales.zero & 15u);
        QK_UNROLL
        for (int i = 0; i < 8; i++)
            x[i] = byte_to_float(codes >> (i / 2 * 4 + i % 2 * 16) & 15u, 8388608.0f + zero) * step;
        return;
    } else {
        load_elements<CACHE>(place.row + column, x);
        const float scale = pages.scale_stride != 0 ? scale_at(place.scales, 0) : page_scale(pages, kv, head);
        QK_UNROLL
        for (int i = 0; i < 8; i++)
            x[i] *= scale;
    }
}

template <quire_dtype CACHE, bool ENCODE, int E>
__global__ void __launch_bounds__(CONVERT_THREADS)
    convert_kernel(const quire__convert_args a, const convert_shape s, int64_t rows)
{
    const int lane = static_cast<int>(threadIdx.x) & (s.row.lanes - 1), column = lane * E;
    const int64_t index =
        static_cast<int64_t>(blockIdx.x) * (CONVERT_THREADS >> s.lanes_shift) + (threadIdx.x >> s.lanes_shift);
    const bool mine = index < rows && column < a.from.head_dim;
    const int64_t row = index < rows ? index : 0;
    const int token = static_cast<int>(row & (a.from.block_tokens - 1));
    const int64_t heads = row >> s.block_shift, layers = heads / (2 * a.from.kv_heads);
    const int part = static_cast<int>(heads % (2 * a.from.kv_heads)), kv = part / a.from.kv_heads;
    const int head = part % a.from.kv_heads, layer = static_cast<int>(layers % a.layers);
    const quire__block_pair pair = a.pairs[layers / a.layers];
    quire__pages from = a.from, to = a.to;
    if (from.scales)
        from.scales += static_cast<int64_t>(layer) * 2 * from.kv_heads;
    if (to.scales)
        to.scales += static_cast<int64_t>(layer) * 2 * to.kv_heads;
    const row_place source = find_place(from, pair.source, layer, kv, head, token);
    const row_place target = find_place(to, pair.destination, layer, kv, head, token);

    float x[E] = {};
    QK_UNROLL
    for (int i = 0; i < E; i += 8) {
        if (!mine || column + i >= from.head_dim)
            break;
        float eight[8];
        if constexpr (ENCODE)
            load_raw8(from.dtype, source.row, column + i, eight);
        else
            load_coded8<CACHE>(from, kv, head, source, column + i, eight);
        QK_UNROLL
        for (int e = 0; e < 8; e++)
            x[i + e] = eight[e];
    }
    if constexpr (ENCODE) {
        store_row<CACHE>(to, s.row, kv, head, x, column, mine, target.row, target.scales);
        return;
    }
    if (from.rotation != 0) {
        float turned[E];
        QK_UNROLL
        for (int e = 0; e < E; e++)
            turned[e] = x[e];
        rotate(turned, column, from.rotation, s.row.rotation_factor); /* its own inverse; all lanes take part */
        QK_UNROLL
        for (int e = 0; e < E; e++)
            x[e] = kv == 0 ? turned[e] : x[e];
    }
    QK_UNROLL
    for (int i = 0; i < E; i += 8) {
        if (!mine || column + i >= to.head_dim)
            break;
        float eight[8];
        QK_UNROLL
        for (int e = 0; e < 8; e++)
            eight[e] = x[i + e];
        store_raw8(to.dtype, target.row, column + i, eight);
    }
}

template <quire_dtype CACHE, bool ENCODE, int E>
static quire_status convert_launch(const quire__convert_args &args, void *stream)
{
    convert_shape shape = {};
    shape.row = make_row_shape<E>(ENCODE ? args.to : args.from);
    shape.lanes_shift = log2_exact(shape.row.lanes);
    shape.block_shift = log2_exact(args.from.block_tokens);
    const int64_t rows = static_cast<int64_t>(args.count) * args.layers * 2 * args.from.kv_heads *
                         args.from.block_tokens;
    const int64_t rows_a_block = CONVERT_THREADS >> shape.lanes_shift;
    if ((rows + rows_a_block - 1) / rows_a_block > INT32_MAX)
        return QUIRE_EINVAL;
    QK_LAUNCH((convert_kernel<CACHE, ENCODE, E>), dim3(static_cast<unsigned>((rows + rows_a_block - 1) / rows_a_block)),
              dim3(CONVERT_THREADS), 0, stream, args, shape, rows);
    return launch_status();
}

template <quire_dtype CACHE> static quire_status convert_dim(const quire__convert_args &args, bool encode, void *stream)
{
    const bool wide = args.from.head_dim > 256;
    if (encode)
        return wide ? convert_launch<CACHE, true, 16>(args, stream) : convert_launch<CACHE, true, 8>(args, stream);
    return wide ? convert_launch<CACHE, false, 16>(args, stream) : convert_launch<CACHE, false, 8>(args, stream);
}

static bool is_raw(quire_dtype dtype)
{
    return dtype >= QUIRE_DTYPE_F32 && dtype <= QUIRE_DTYPE_BF16;
}

} /* namespace qk */

extern "C" quire_status quire__cuda_convert(const quire__convert_args *args, void *stream)
{
    if (args->count == 0 || args->layers == 0)
        return QUIRE_OK;
    quire_status status = qk::check_pages(args->from, 16);
    if (status == QUIRE_OK)
        status = qk::check_pages(args->to, 16);
    if (status != QUIRE_OK)
        return status;
    if (args->count < 0 || args->layers < 0 || !args->pairs || args->from.head_dim > 512 ||
        args->from.block_tokens != args->to.block_tokens || args->from.kv_heads != args->to.kv_heads ||
        args->from.head_dim != args->to.head_dim)
        return QUIRE_EINVAL;
    const bool encode = qk::is_raw(args->from.dtype);
    if (encode == qk::is_raw(args->to.dtype))
        return QUIRE_EUNSUPPORTED;
    switch (encode ? args->to.dtype : args->from.dtype) {
    case QUIRE_DTYPE_FP8_E4M3: return qk::convert_dim<QUIRE_DTYPE_FP8_E4M3>(*args, encode, stream);
    case QUIRE_DTYPE_FP8_E5M2: return qk::convert_dim<QUIRE_DTYPE_FP8_E5M2>(*args, encode, stream);
    case QUIRE_DTYPE_INT8: return qk::convert_dim<QUIRE_DTYPE_INT8>(*args, encode, stream);
    default: return qk::convert_dim<QUIRE_DTYPE_INT4>(*args, encode, stream);
    }
}
