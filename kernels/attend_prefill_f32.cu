/* attend_prefill_f32.cu: attend_prefill for f32 caches, in f32 arithmetic: tensor cores would round K and V.
 *
 * Must compute 4 * head_dim operations per (query row, key) pair, and reads K and V of the context once per
 * 16 query rows.
 *
 * - grid: x is the tile, y the kv head, z 16 query rows of the tile's tokens * group (query_rows).
 *   128 threads.
 * - warp: 4 query rows; for scores a lane is a key, for sums a lane has every 32nd column.
 * - tile of keys: 32. One place for K and one for V: V arrives while scores are computed, the next K while values are
 *   added up. 83 KiB of shared memory for head_dim 256, less for others.
 *
 * Bits do not depend on how a prompt is cut, for the same reasons as in attend_prefill.cuh.
 */
#include "attend_prefill.h"

namespace qk
{

constexpr int F32_KEYS = 32, F32_WARPS = 4, F32_THREADS = 32 * F32_WARPS, F32_WARP_ROWS = 4;
constexpr int F32_ROWS = F32_WARPS * F32_WARP_ROWS;

template <int DIM> struct prefill_f32_shape {
    /* 16 more: lanes that read 16 bytes of neighbouring rows hit other banks */
    static constexpr int PITCH = DIM * 4 + 16;
    static constexpr int TILE_BYTES = F32_KEYS * PITCH; /* K or V */
    static constexpr int COLUMNS = (DIM + 31) / 32;     /* of a lane */
    static constexpr int QUERY_BYTES = F32_ROWS * DIM * 4;
    static constexpr int SHARED_BYTES = QUERY_BYTES + 2 * TILE_BYTES;
    static_assert(SHARED_BYTES + 2 * F32_KEYS * 8 <= 99 * 1024, "what a block of sm_86 and sm_89 may have");
};

template <int DIM>
__device__ __forceinline__ void f32_load_queries(float *query, const quire__attend_args &a, const query_rows &rows)
{
    const float factor = find_score_rule(a, static_cast<int>(blockIdx.y)).factor;
    for (int i = static_cast<int>(threadIdx.x); i < F32_ROWS * DIM; i += F32_THREADS) {
        const int row = i / DIM;
        query[i] = row < rows.count ? tensor_load(a.q, rows.place(a.q, row) + i % DIM) * factor : 0.0f;
    }
}

/* Starts the copy of a tile of K or V. One cp.async group. */
template <int DIM>
__device__ __forceinline__ void f32_copy_rows(unsigned char *to, const unsigned char *pages, const int64_t *rows)
{
    constexpr int words = DIM / 4;
    QK_UNROLL
    for (int i = 0; i < F32_KEYS * words / F32_THREADS; i++) {
        const int word = i * F32_THREADS + static_cast<int>(threadIdx.x), row = word / words;
        const int column = word % words * 16;
        const bool exists = rows[row] != NO_ROW;
        qk_cp_async16(to + row * prefill_f32_shape<DIM>::PITCH + column, pages + (exists ? rows[row] : 0) + column,
                      exists);
    }
    qk_cp_async_commit();
}

/* score[r] of the warp's rows for this lane's key. */
template <int DIM>
__device__ __forceinline__ void f32_scores(float (&score)[F32_WARP_ROWS], const float *query, const unsigned char *k)
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
            const float4 q = *reinterpret_cast<const float4 *>(query + (warp * F32_WARP_ROWS + r) * DIM + i * 4);
            score[r] = fmaf(q.x, x[0], score[r]);
            score[r] = fmaf(q.y, x[1], score[r]);
            score[r] = fmaf(q.z, x[2], score[r]);
            score[r] = fmaf(q.w, x[3], score[r]);
        }
    }
}

struct f32_rows {
    int begin[F32_WARP_ROWS], end[F32_WARP_ROWS]; /* keys that the row sees */
    softmax_state state[F32_WARP_ROWS];           /* the same in every lane */
    float cap;
};

/* Scores to weights; `key` is this lane's. */
__device__ __forceinline__ void f32_weigh(float (&score)[F32_WARP_ROWS], float (&rescale)[F32_WARP_ROWS],
                                          f32_rows &rows, int key)
{
    QK_UNROLL
    for (int r = 0; r < F32_WARP_ROWS; r++) {
        float s = rows.cap > 0.0f ? soft_tanh(score[r]) * rows.cap : score[r];
        s = key >= rows.begin[r] && key < rows.end[r] ? s : -INFINITY;
        const float peak = fmaxf(rows.state[r].peak, lanes_max<32>(s));
        const float base = peak == -INFINITY ? 0.0f : peak; /* no key yet: weights of 0, not NaN */
        rescale[r] = qk_exp2(rows.state[r].peak - base);
        score[r] = qk_exp2(s - base);
        rows.state[r] = {peak, rows.state[r].sum * rescale[r] + lanes_sum<32>(score[r])};
    }
}

template <int DIM>
__device__ __forceinline__ void f32_add_values(float (&sum)[F32_WARP_ROWS][prefill_f32_shape<DIM>::COLUMNS],
                                               const float (&score)[F32_WARP_ROWS],
                                               const float (&rescale)[F32_WARP_ROWS], const unsigned char *v)
{
    constexpr int COLUMNS = prefill_f32_shape<DIM>::COLUMNS;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    QK_UNROLL
    for (int r = 0; r < F32_WARP_ROWS; r++) {
        QK_UNROLL
        for (int c = 0; c < COLUMNS; c++)
            sum[r][c] *= rescale[r];
    }
    QK_UNROLL_BY(4)
    for (int key = 0; key < F32_KEYS; key++) {
        const float *row = reinterpret_cast<const float *>(v + key * prefill_f32_shape<DIM>::PITCH);
        float weight[F32_WARP_ROWS];
        QK_UNROLL
        for (int r = 0; r < F32_WARP_ROWS; r++)
            weight[r] = __shfl_sync(ALL_LANES, score[r], key);
        QK_UNROLL
        for (int c = 0; c < COLUMNS; c++) {
            const float x = c * 32 + lane < DIM ? row[c * 32 + lane] : 0.0f;
            QK_UNROLL
            for (int r = 0; r < F32_WARP_ROWS; r++)
                sum[r][c] = fmaf(weight[r], x, sum[r][c]);
        }
    }
}

template <int DIM>
__device__ __forceinline__ void f32_store_rows(const quire__attend_args &a, const query_rows &rows,
                                               const f32_rows &state,
                                               const float (&sum)[F32_WARP_ROWS][prefill_f32_shape<DIM>::COLUMNS])
{
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    QK_UNROLL
    for (int r = 0; r < F32_WARP_ROWS; r++) {
        const int row = warp * F32_WARP_ROWS + r;
        if (row >= rows.count)
            continue;
        const float factor = softmax_finish(a, state.state[r], rows.head(row));
        const int64_t first = rows.place(a.out, row) + lane;
        QK_UNROLL
        for (int c = 0; c < prefill_f32_shape<DIM>::COLUMNS; c++)
            if (c * 32 + lane < DIM) /* a warp's stores lie side by side */
                tensor_store(a.out, first + c * 32, sum[r][c] * factor);
    }
}

template <int DIM>
__global__ void __launch_bounds__(F32_THREADS) prefill_f32_kernel(const quire__attend_args a, int block_shift)
{
    using shape = prefill_f32_shape<DIM>;
    using rows_of_tiles = int64_t[2][F32_KEYS];
    QK_DYNAMIC_SHARED(unsigned char, shared); /* q, K, V */
    QK_SHARED(rows_of_tiles, key_rows);

    const query_rows rows = find_query_rows(a, F32_ROWS);
    if (rows.count <= 0)
        return;
    float *query = reinterpret_cast<float *>(shared);
    unsigned char *k = shared + shape::QUERY_BYTES, *v = k + shape::TILE_BYTES;
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
    const int32_t *table = a.block_table + static_cast<int64_t>(rows.row_of_table) * a.table_stride;
    const unsigned char *pages = page_head(a.pages, a.layer, static_cast<int>(blockIdx.y));
    const auto find_rows = [&](int tile) {
        if (thread < F32_KEYS)
            key_rows[tile % 2][thread] =
                find_row(a.pages, table, tile * F32_KEYS + thread, rows.begin, rows.end, block_shift);
    };

    f32_rows state;
    state.cap = find_score_rule(a, static_cast<int>(blockIdx.y)).cap;
    QK_UNROLL
    for (int r = 0; r < F32_WARP_ROWS; r++) {
        const int row = thread / 32 * F32_WARP_ROWS + r;
        const int position = row < rows.count ? a.positions[rows.token(row)] : -1;
        state.begin[r] = window_begin(a, position);
        state.end[r] = position + 1;
        state.state[r] = softmax_empty();
    }
    float sum[F32_WARP_ROWS][shape::COLUMNS] = {};
    int tile = rows.begin / F32_KEYS;
    const int last_tile = (rows.end + F32_KEYS - 1) / F32_KEYS;
    f32_load_queries<DIM>(query, a, rows);
    find_rows(tile);
    __syncthreads();
    f32_copy_rows<DIM>(k, pages, key_rows[tile % 2]);
    for (; tile < last_tile; tile++) {
        float score[F32_WARP_ROWS], rescale[F32_WARP_ROWS];
        qk_cp_async_wait<0>();
        __syncthreads(); /* K is here, and all have done with V */
        f32_copy_rows<DIM>(v, pages + a.pages.kv_stride, key_rows[tile % 2]);
        find_rows(tile + 1);
        f32_scores<DIM>(score, query, k);
        f32_weigh(score, rescale, state, tile * F32_KEYS + lane);
        qk_cp_async_wait<0>();
        __syncthreads(); /* V is here, and all have done with K */
        if (tile + 1 < last_tile)
            f32_copy_rows<DIM>(k, pages, key_rows[(tile + 1) % 2]);
        f32_add_values<DIM>(sum, score, rescale, v);
    }
    qk_cp_async_wait<0>();
    f32_store_rows<DIM>(a, rows, state, sum);
}

template <int DIM> static quire_status prefill_f32_launch(const quire__attend_args &args, void *stream)
{
    constexpr size_t shared = prefill_f32_shape<DIM>::SHARED_BYTES;
    if (qk_allow_dynamic_shared(prefill_f32_kernel<DIM>, shared) != 0)
        return QUIRE_EDEVICE;
    QK_LAUNCH(prefill_f32_kernel<DIM>, prefill_grid(args, F32_ROWS), dim3(F32_THREADS), shared, stream, args,
              log2_exact(args.pages.block_tokens));
    return launch_status();
}

quire_status prefill_f32(const quire__attend_args &args, void *stream)
{
    switch (args.pages.head_dim) {
    case 64: return prefill_f32_launch<64>(args, stream);
    case 80: return prefill_f32_launch<80>(args, stream);
    case 96: return prefill_f32_launch<96>(args, stream);
    case 128: return prefill_f32_launch<128>(args, stream);
    case 192: return prefill_f32_launch<192>(args, stream);
    case 256: return prefill_f32_launch<256>(args, stream);
    default: return QUIRE_EUNSUPPORTED;
    }
}

} /* namespace qk */
