/* attend.cuh: what decode and prefill share. Bringing a tile of K and V rows from pages into shared memory,
 * reductions over lanes, and the checks of quire__attend_args.
 *
 * Scores are kept in base 2: log2(e) is part of the factor that scales q, so that every exponential is one
 * ex2.
 */
#ifndef QUIRE_KERNELS_ATTEND_CUH
#define QUIRE_KERNELS_ATTEND_CUH

#include "common.cuh"

namespace qk
{

constexpr int ATTEND_THREADS = 128, ATTEND_WARPS = ATTEND_THREADS / 32;
constexpr unsigned ALL_LANES = 0xffffffffu;
constexpr float LOG2_E = 1.4426950408889634f;

/* Where the rows of a tile are: an offset from page_head, or NO_ROW past the end of the context. */
constexpr int64_t NO_ROW = -1;

__device__ __forceinline__ int64_t find_row(const quire__pages &pages, const int32_t *table, int token,
                                            int end, int block_shift)
{
    if (token >= end)
        return NO_ROW;
    return row_offset(pages, table[token >> block_shift], token & (pages.block_tokens - 1));
}

/* Starts the copy of ROWS rows of K and as many of V, ROW_BYTES each, into rows PITCH bytes apart. Rows that
 * do not exist become zeros. One cp.async group. The rows are read once, so they go past L1 (cp.async.cg). */
template <int ROWS, int ROW_BYTES, int PITCH>
__device__ __forceinline__ void copy_rows(unsigned char *k, unsigned char *v, const unsigned char *pages,
                                          int64_t kv_stride, const int64_t *rows)
{
    constexpr int words = ROW_BYTES / 16;
    static_assert(ROWS * words % ATTEND_THREADS == 0, "every thread copies as many words");
    QK_UNROLL
    for (int i = 0; i < ROWS * words / ATTEND_THREADS; i++) {
        const int word = i * ATTEND_THREADS + static_cast<int>(threadIdx.x), row = word / words;
        const int column = word % words * 16;
        const bool exists = rows[row] != NO_ROW;
        const unsigned char *from = pages + (exists ? rows[row] : 0) + column;
        qk_cp_async16(k + row * PITCH + column, from, exists);
        qk_cp_async16(v + row * PITCH + column, from + kv_stride, exists);
    }
    qk_cp_async_commit();
}

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

/* ---- prefill: which rows a thread block has ---------------------------------------------------------- */

/* The query rows of a tile are its (token, head of the group) pairs, head fastest, so that one read of K and
 * V serves the whole group. A thread block takes `rows` of them, from first_row. */
struct query_rows {
    int first_token, row_of_table, first_row,
        count; /* count: rows of this thread block that exist, maybe 0 */
    int group, first_head;
    int last_position; /* of any row: the causal end of the thread block */

    __device__ __forceinline__ int token(int row) const
    {
        return first_token + (first_row + row) / group;
    }
    __device__ __forceinline__ int head(int row) const
    {
        return first_head + (first_row + row) % group;
    }
};

__device__ __forceinline__ query_rows find_query_rows(const quire__attend_args &a, int rows)
{
    const quire_tile tile = a.tiles[blockIdx.x];
    query_rows found;
    found.first_token = tile.first_token;
    found.row_of_table = tile.row;
    found.group = a.query_heads / a.pages.kv_heads;
    found.first_head = static_cast<int>(blockIdx.y) * found.group;
    found.first_row = static_cast<int>(blockIdx.z) * rows;
    found.count = min(rows, tile.tokens * found.group - found.first_row);
    found.last_position = found.count > 0 ? a.positions[found.token(found.count - 1)] : -1;
    return found;
}

/* ---- what launchers check ---------------------------------------------------------------------------- */

inline quire_status check_attend(const quire__attend_args &args)
{
    quire_status status = check_pages(args.pages, 16);
    if (status != QUIRE_OK)
        return status;
    if (args.pages.scale_stride != 0) /* scales in the page: not yet */
        return QUIRE_EUNSUPPORTED;
    if (args.count < 0 || args.layer < 0 || args.query_heads < args.pages.kv_heads ||
        args.query_heads % args.pages.kv_heads != 0)
        return QUIRE_EINVAL;
    if (args.window > 0 || args.soft_cap > 0 || args.sinks)
        return QUIRE_EUNSUPPORTED;
    if (args.count == 0)
        return QUIRE_OK;
    if ((status = check_tensor(args.q, args.query_heads)) != QUIRE_OK ||
        (status = check_tensor(args.out, args.query_heads)) != QUIRE_OK)
        return status;
    return args.block_table && args.positions ? QUIRE_OK : QUIRE_EINVAL;
}

} /* namespace qk */

#endif
