/* attend_prefill_f32.cu: attend_prefill for f32 caches, in f32 arithmetic: tensor cores would round K and V.
 *
 * Must compute 4 * head_dim operations per (query row, key) pair, and reads K and V of the context once per
 * 16 query rows.
 *
 * - grid: x is the tile, y the kv head, z 16 query rows of the tile's tokens * group (query_rows).
 *   128 threads.
 * - warp: 4 query rows; for scores a lane is a key, for sums a lane has every 32nd column.
 * - tile of keys: 32, two of them in shared memory, as in attend_prefill.cu.
 *
 * Bits do not depend on how a prompt is cut, for the same reasons as there.
 */
#include "attend_prefill_f32.h"

#include "attend.cuh"

namespace qk
{

constexpr int F32_KEYS = 32, F32_WARP_ROWS = 4, F32_ROWS = ATTEND_WARPS * F32_WARP_ROWS;

template <int DIM> struct prefill_f32_shape {
    /* 16 more: lanes that read 16 bytes of neighbouring rows hit other banks */
    static constexpr int PITCH = DIM * 4 + 16;
    static constexpr int STAGE_BYTES = 2 * F32_KEYS * PITCH;
};

template <int DIM>
__device__ __forceinline__ void load_queries(float4 (&query)[F32_ROWS][DIM / 4], const quire__attend_args &a,
                                             const query_rows &rows)
{
    const float factor = a.scale * LOG2_E;
    for (int i = static_cast<int>(threadIdx.x); i < F32_ROWS * DIM; i += ATTEND_THREADS) {
        const int row = i / DIM, column = i % DIM;
        float x = 0.0f;
        if (row < rows.count)
            x = tensor_load(a.q,
                            rows.token(row) * a.q.token_stride + rows.head(row) * a.q.head_stride + column);
        reinterpret_cast<float *>(query[row])[column] = x * factor;
    }
}

/* score[r] of the warp's rows for this lane's key. */
template <int DIM>
__device__ __forceinline__ void score_rows(float (&score)[F32_WARP_ROWS],
                                           const float4 (&query)[F32_ROWS][DIM / 4], const unsigned char *k)
{
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    QK_UNROLL
    for (int r = 0; r < F32_WARP_ROWS; r++)
        score[r] = 0.0f;
    QK_UNROLL_BY(4)
    for (int i = 0; i < DIM / 4; i++) {
        float x[4];
        load_elements<QUIRE_DTYPE_F32>(k + lane * prefill_f32_shape<DIM>::PITCH + i * 16, x);
        QK_UNROLL
        for (int r = 0; r < F32_WARP_ROWS; r++) {
            const float4 q = query[warp * F32_WARP_ROWS + r][i];
            score[r] = fmaf(q.x, x[0], score[r]);
            score[r] = fmaf(q.y, x[1], score[r]);
            score[r] = fmaf(q.z, x[2], score[r]);
            score[r] = fmaf(q.w, x[3], score[r]);
        }
    }
}

struct f32_rows {
    int position[F32_WARP_ROWS];
    float peak[F32_WARP_ROWS], sum[F32_WARP_ROWS]; /* the same in every lane */
};

template <int DIM>
__device__ __forceinline__ void add_tile(float (&sum)[F32_WARP_ROWS][DIM / 32], f32_rows &rows,
                                         float (&score)[F32_WARP_ROWS], const unsigned char *v, int first_key)
{
    const int lane = static_cast<int>(threadIdx.x) % 32;
    QK_UNROLL
    for (int r = 0; r < F32_WARP_ROWS; r++) {
        const float s = first_key + lane <= rows.position[r] ? score[r] : -INFINITY;
        const float peak = fmaxf(rows.peak[r], lanes_max<32>(s));
        const float rescale = qk_exp2(rows.peak[r] - peak);
        score[r] = qk_exp2(s - peak);
        rows.peak[r] = peak;
        rows.sum[r] = rows.sum[r] * rescale + lanes_sum<32>(score[r]);
        QK_UNROLL
        for (int c = 0; c < DIM / 32; c++)
            sum[r][c] *= rescale;
    }
    QK_UNROLL_BY(4)
    for (int key = 0; key < F32_KEYS; key++) {
        const float *row = reinterpret_cast<const float *>(v + key * prefill_f32_shape<DIM>::PITCH);
        float weight[F32_WARP_ROWS];
        QK_UNROLL
        for (int r = 0; r < F32_WARP_ROWS; r++)
            weight[r] = __shfl_sync(ALL_LANES, score[r], key);
        QK_UNROLL
        for (int c = 0; c < DIM / 32; c++) {
            const float x = row[c * 32 + lane];
            QK_UNROLL
            for (int r = 0; r < F32_WARP_ROWS; r++)
                sum[r][c] = fmaf(weight[r], x, sum[r][c]);
        }
    }
}

template <int DIM>
__device__ __forceinline__ void store_rows(const quire__attend_args &a, const query_rows &rows,
                                           const f32_rows &state, const float (&sum)[F32_WARP_ROWS][DIM / 32])
{
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    QK_UNROLL
    for (int r = 0; r < F32_WARP_ROWS; r++) {
        const int row = warp * F32_WARP_ROWS + r;
        if (row >= rows.count)
            continue;
        const int64_t first =
            rows.token(row) * a.out.token_stride + rows.head(row) * a.out.head_stride + lane;
        QK_UNROLL
        for (int c = 0; c < DIM / 32; c++)
            tensor_store(a.out, first + c * 32, rows.last_position >= 0 ? sum[r][c] / state.sum[r] : 0.0f);
    }
}

template <int DIM>
__global__ void __launch_bounds__(ATTEND_THREADS)
    prefill_f32_kernel(const quire__attend_args a, int block_shift)
{
    using shape = prefill_f32_shape<DIM>;
    QK_DYNAMIC_SHARED(unsigned char, stages);
    QK_SHARED(float4[F32_ROWS][DIM / 4], query);
    QK_SHARED(int64_t[2][F32_KEYS], key_rows);

    const query_rows rows = find_query_rows(a, F32_ROWS);
    if (rows.count <= 0)
        return;
    const int thread = static_cast<int>(threadIdx.x), end = rows.last_position + 1;
    const int tiles = (end + F32_KEYS - 1) / F32_KEYS;
    const int32_t *table = a.block_table + static_cast<int64_t>(rows.row_of_table) * a.table_stride;
    const unsigned char *pages = page_head(a.pages, a.layer, static_cast<int>(blockIdx.y));
    const auto start_tile = [&](int tile) {
        unsigned char *k = stages + tile % 2 * shape::STAGE_BYTES;
        copy_rows<F32_KEYS, DIM * 4, shape::PITCH>(k, k + shape::STAGE_BYTES / 2, pages, a.pages.kv_stride,
                                                   key_rows[tile % 2]);
    };
    const auto find_tile_rows = [&](int tile) {
        if (thread < F32_KEYS)
            key_rows[tile % 2][thread] = find_row(a.pages, table, tile * F32_KEYS + thread, end, block_shift);
    };

    f32_rows state;
    QK_UNROLL
    for (int r = 0; r < F32_WARP_ROWS; r++) {
        const int row = thread / 32 * F32_WARP_ROWS + r;
        state.position[r] = row < rows.count ? max(a.positions[rows.token(row)], 0) : 0;
        state.peak[r] = -INFINITY;
        state.sum[r] = 0.0f;
    }
    float sum[F32_WARP_ROWS][DIM / 32] = {};
    load_queries<DIM>(query, a, rows);
    find_tile_rows(0);
    find_tile_rows(1);
    __syncthreads();
    if (tiles > 0)
        start_tile(0);
    for (int tile = 0; tile < tiles; tile++) {
        const unsigned char *k = stages + tile % 2 * shape::STAGE_BYTES;
        float score[F32_WARP_ROWS];
        qk_cp_async_wait<0>();
        __syncthreads(); /* the tile is here, the other stage and this tile's key_rows are free */
        if (tile + 1 < tiles)
            start_tile(tile + 1);
        score_rows<DIM>(score, query, k);
        add_tile<DIM>(sum, state, score, k + shape::STAGE_BYTES / 2, tile * F32_KEYS);
        find_tile_rows(tile + 2);
    }
    store_rows<DIM>(a, rows, state, sum);
}

template <int DIM> static quire_status prefill_f32_launch(const quire__attend_args &args, void *stream)
{
    const int group = args.query_heads / args.pages.kv_heads;
    constexpr size_t shared = 2 * prefill_f32_shape<DIM>::STAGE_BYTES;
    if (qk_allow_dynamic_shared(prefill_f32_kernel<DIM>, shared) != 0)
        return QUIRE_EDEVICE;
    const dim3 grid(static_cast<unsigned>(args.count), static_cast<unsigned>(args.pages.kv_heads),
                    static_cast<unsigned>((QUIRE__PREFILL_TILE * group + F32_ROWS - 1) / F32_ROWS));
    QK_LAUNCH(prefill_f32_kernel<DIM>, grid, dim3(ATTEND_THREADS), shared, stream, args,
              log2_exact(args.pages.block_tokens));
    return launch_status();
}

} /* namespace qk */

extern "C" quire_status quire__cuda_attend_prefill_f32(const quire__attend_args *args, void *stream)
{
    switch (args->pages.head_dim) {
    case 64: return qk::prefill_f32_launch<64>(*args, stream);
    case 128: return qk::prefill_f32_launch<128>(*args, stream);
    case 256: return qk::prefill_f32_launch<256>(*args, stream);
    default: return QUIRE_EUNSUPPORTED;
    }
}
