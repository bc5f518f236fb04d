/* attend.cuh: what the attention kernels share: where rows of K and V are and which of them a token sees, the running
 * softmax and how two of them become one, and the checks of quire__attend_args.
 *
 * Scores are kept in base 2: log2(e) is part of the factor that scales q, so that every exponential is one ex2.
 */
#ifndef QUIRE_KERNELS_ATTEND_CUH
#define QUIRE_KERNELS_ATTEND_CUH

#include "common.cuh"

/* Tests compile the kernels once more with a mistake planted, to show that it is found: 1 leaves out a barrier, 2 waits
 * for one cp.async group too few. */
#ifndef QK_PLANTED
#define QK_PLANTED 0
#endif

namespace qk
{

constexpr unsigned ALL_LANES = 0xffffffffu;
constexpr float LOG2_E = 1.4426950408889634f;

/* ---- keys -------------------------------------------------------------------------------------------- */

/* Where the rows of a tile are: an offset from page_head, or NO_ROW for a key that no token of the tile sees. */
constexpr int64_t NO_ROW = -1;

__device__ __forceinline__ int64_t find_row(const quire__pages &pages, const int32_t *table, int key, int begin,
                                            int end, int block_shift)
{
    if (key < begin || key >= end)
        return NO_ROW;
    return row_offset(pages, table[key >> block_shift], key & (pages.block_tokens - 1));
}

__device__ __forceinline__ int64_t find_row(const quire__pages &pages, const int32_t *table, int key, int end,
                                            int block_shift)
{
    return find_row(pages, table, key, 0, end, block_shift);
}

/* The same for a row's scales in the page. */
__device__ __forceinline__ int64_t find_scales(const quire__pages &pages, const int32_t *table, int key, int begin,
                                               int end, int block_shift)
{
    if (key < begin || key >= end)
        return NO_ROW;
    return table[key >> block_shift] * pages.block_stride + pages.scale_offset +
           static_cast<int64_t>(key & (pages.block_tokens - 1)) * pages.scale_stride;
}

/* The first key that a token at this position sees. */
__device__ __forceinline__ int window_begin(const quire__attend_args &a, int position)
{
    return a.window > 0 && position >= a.window ? position - a.window + 1 : 0;
}

/* ---- lanes ------------------------------------------------------------------------------------------- */

/* Over groups of LANES neighbouring lanes; every lane gets the result, and the order is the same for all. */
template <int LANES> __device__ __forceinline__ float lanes_max(float x)
{
    QK_UNROLL
    for (int apart = LANES / 2; apart > 0; apart /= 2)
        x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, apart));
    return x;
}

template <int LANES> __device__ __forceinline__ float lanes_sum(float x)
{
    QK_UNROLL
    for (int apart = LANES / 2; apart > 0; apart /= 2)
        x += __shfl_xor_sync(ALL_LANES, x, apart);
    return x;
}

/* ---- softmax ----------------------------------------------------------------------------------------- */

/* A softmax under way: the largest score so far, and the sum of 2^(score - peak). The weighted sum of V that belongs to
 * it is relative to the same peak. Nothing seen yet: -inf and 0. */
struct softmax_state {
    float peak, sum;
};

__device__ __forceinline__ softmax_state softmax_empty()
{
    return {-INFINITY, 0.0f};
}

/* 2^(from - to) for a peak that moved; nothing seen on either side: 0. */
__device__ __forceinline__ float softmax_rescale(float from, float to)
{
    return from == -INFINITY ? 0.0f : qk_exp2(from - to);
}

/* Joins `other` to `state`; their sums of V are to be multiplied with *mine and *theirs, and added. */
__device__ __forceinline__ void softmax_merge(softmax_state &state, const softmax_state &other, float *mine,
                                              float *theirs)
{
    const float peak = fmaxf(state.peak, other.peak);
    *mine = softmax_rescale(state.peak, peak);
    *theirs = softmax_rescale(other.peak, peak);
    state = {peak, fmaf(state.sum, *mine, other.sum * *theirs)};
}

/* What the sum of V is to be multiplied with at the end. The sink of a query head is one more score, without a V.
 * Nothing seen: 0. */
__device__ __forceinline__ float softmax_finish(const quire__attend_args &a, softmax_state state, int query_head)
{
    if (state.peak == -INFINITY && state.sum == 0.0f)
        return 0.0f;
    float mine = 1.0f, theirs;
    if (a.sinks)
        softmax_merge(state, {a.sinks[query_head] * LOG2_E, 1.0f}, &mine, &theirs);
    return mine / state.sum;
}

/* ---- scores ------------------------------------------------------------------------------------------ */

/* How q k becomes a score: it is multiplied with `factor`, and where there is a soft cap the result x becomes
 * cap * tanh(x). */
struct score_rule {
    float factor, cap;
};

__device__ __forceinline__ score_rule find_score_rule(const quire__attend_args &a, int kv_head)
{
    const float scale = a.scale * page_scale(a.pages, 0, kv_head);
    if (a.soft_cap > 0.0f)
        return {scale / a.soft_cap, a.soft_cap * LOG2_E};
    return {scale * LOG2_E, 0.0f};
}

/* tanh to 3e-7, relative: near 0 an odd polynomial (Chebyshev interpolation of tanh(x)/x - 1 over x^2 on |x| <= 0.55),
 * elsewhere (1 - e) / (1 + e). tanh.approx would err by 5e-4 of a score, which is 2% of a weight at a score of 40. */
__device__ __forceinline__ float soft_tanh(float x)
{
    const float size = fabsf(x), square = x * x, e = qk_exp2(-2.0f * LOG2_E * size);
    float sum = -6.6157575e-3f;
    sum = fmaf(sum, square, 2.1312746e-2f);
    sum = fmaf(sum, square, -5.3910067e-2f);
    sum = fmaf(sum, square, 1.3333118e-1f);
    sum = fmaf(sum, square, -3.3333332e-1f);
    const float value = size < 0.55f ? fmaf(sum * square, size, size) : __fdividef(1.0f - e, 1.0f + e);
    return x < 0.0f ? -value : value;
}

/* ---- results ----------------------------------------------------------------------------------------- */

/* Four elements side by side; in one access where the launcher found that every row of `out` is aligned for it. */
__device__ __forceinline__ void store_four(const quire_tensor &out, int64_t index, const float4 &x, bool aligned)
{
    if (!aligned) {
        tensor_store(out, index, x.x);
        tensor_store(out, index + 1, x.y);
        tensor_store(out, index + 2, x.z);
        tensor_store(out, index + 3, x.w);
    } else if (out.dtype == QUIRE_DTYPE_F32) {
        *reinterpret_cast<float4 *>(static_cast<float *>(out.data) + index) = x;
    } else {
        const bool f16 = out.dtype == QUIRE_DTYPE_F16;
        *reinterpret_cast<uint2 *>(static_cast<unsigned short *>(out.data) + index) =
            make_uint2(f16 ? f16_pair_store(x.x, x.y) : bf16_pair_store(x.x, x.y),
                       f16 ? f16_pair_store(x.z, x.w) : bf16_pair_store(x.z, x.w));
    }
}

inline bool four_aligned(const quire_tensor &tensor)
{
    return aligned(tensor.data, 4 * dtype_bytes(tensor.dtype)) && tensor.token_stride % 4 == 0 &&
           tensor.head_stride % 4 == 0;
}

/* ---- prefill: which rows a thread block has ---------------------------------------------------------- */

/* The query rows of a tile are its (token, head of the group) pairs, head fastest, so that one read of K and
 * V serves the whole group. A thread block takes `rows` of them, from first_row. */
struct query_rows {
    int first_token, row_of_table, first_row, count; /* count: rows of this thread block that exist, maybe 0 */
    int group, first_head;
    int begin, end; /* keys that any row sees */

    __device__ __forceinline__ int token(int row) const
    {
        return first_token + (first_row + row) / group;
    }
    __device__ __forceinline__ int head(int row) const
    {
        return first_head + (first_row + row) % group;
    }
    __device__ __forceinline__ int64_t place(const quire_tensor &tensor, int row) const
    {
        return token(row) * tensor.token_stride + head(row) * tensor.head_stride;
    }
};

/* The last tiles of a long prompt see the most keys: they come first, so that no long one is left at the end. */
__device__ __forceinline__ query_rows find_query_rows(const quire__attend_args &a, int rows)
{
    const quire_tile tile = a.tiles[gridDim.x - 1 - blockIdx.x];
    query_rows found;
    found.first_token = tile.first_token;
    found.row_of_table = tile.row;
    found.group = a.query_heads / a.pages.kv_heads;
    found.first_head = static_cast<int>(blockIdx.y) * found.group;
    found.first_row = static_cast<int>(blockIdx.z) * rows;
    found.count = min(rows, tile.tokens * found.group - found.first_row);
    found.begin = found.end = 0;
    if (found.count > 0) {
        found.begin = window_begin(a, max(a.positions[found.token(0)], 0));
        found.end = a.positions[found.token(found.count - 1)] + 1;
    }
    return found;
}

/* ---- what launchers check ---------------------------------------------------------------------------- */

inline quire_status check_attend(const quire__attend_args &args)
{
    quire_status status = check_pages(args.pages, 16);
    if (status != QUIRE_OK)
        return status;
    if (args.count < 0 || args.layer < 0 || args.query_heads < args.pages.kv_heads ||
        args.query_heads % args.pages.kv_heads != 0 || args.window < 0 || !(args.soft_cap >= 0.0f))
        return QUIRE_EINVAL;
    if (args.count == 0)
        return QUIRE_OK;
    if ((status = check_tensor(args.q, args.query_heads)) != QUIRE_OK ||
        (status = check_tensor(args.out, args.query_heads)) != QUIRE_OK)
        return status;
    return args.block_table && args.positions ? QUIRE_OK : QUIRE_EINVAL;
}

} /* namespace qk */

#endif
