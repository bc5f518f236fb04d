/* attend_prefill.cuh: causal attention of runs of new tokens over the cached prefix and themselves, on tensor cores; a
 * template over the cache's dtype and head_dim, compiled by attend_prefill_*.cu. Caches of f32 go to
 * attend_prefill_f32.cu.
 *
 * Must compute 4 * head_dim operations per (query row, key) pair; reads K and V of the context once per ROWS query rows,
 * so that arithmetic is the limit from a few hundred tokens on: 128 rows are 256 operations a byte of a bf16 cache, and
 * an H100 has 200 (mma.sync, about 650 of the 990 TFLOPS that wgmma reaches).
 *
 * - grid: x is the tile, y the kv head, z ROWS query rows of the tile's tokens * group (query_rows). 128 threads.
 * - warp: 32 query rows (16 for head_dim 192 and 256, and where q needs two operands) over every key, so that its
 *   softmax needs no other warp. With 32 rows an operand of K or V that ldmatrix brings is used twice: for 32 keys and
 *   128 dims a warp does 128 mma of 4096 operations, and reads 24 KiB of shared memory. Four warps take 768 clocks for
 *   those reads (128 bytes a clock), and 512 for the arithmetic at the full rate of 4096 operations a clock, 780 at what
 *   mma.sync reaches: shared memory keeps up, and would not with 16 rows.
 * - tile of keys: 64 or 32, by registers and shared memory (prefill_shape). One place for K and one for V: V arrives
 *   while Q K^T and the softmax run, the next K while P V does. 52 KiB for head_dim 128, two thread blocks a
 *   multiprocessor (255 registers), and none above the 99 KiB of sm_86 and sm_89.
 * - Rows of codes (8 and 4 bits) arrive in a place of their own and become f16 behind a barrier, times their scales, once
 *   for all query rows.
 *
 * FlashAttention-2 form (Dao 2023): S = Q K^T by mma, online softmax in registers, O += P V by mma with P rounded to the
 * operand type. A warp leaves out the tiles that none of its rows sees, and compares keys with positions only in tiles
 * where it makes a difference.
 *
 * Bits do not depend on how a prompt is cut into steps or tiles: a row sees keys in tiles that begin at multiples of the
 * tile size, and a tile that it does not see changes nothing: its weights are 0 and its factor is 1, exactly.
 */
#ifndef QUIRE_KERNELS_ATTEND_PREFILL_CUH
#define QUIRE_KERNELS_ATTEND_PREFILL_CUH

#include "attend_mma.cuh"
#include "attend_prefill.h"

namespace qk
{

constexpr int PREFILL_WARPS = 4, PREFILL_THREADS = 32 * PREFILL_WARPS;

template <quire_dtype CACHE, int DIM, int TERMS> struct prefill_shape {
    static constexpr bool WIDEN = code_bits<CACHE> <= 8;
    static constexpr int ROW_BYTES = (DIM * code_bits<CACHE> / 8 + 15) / 16 * 16; /* as they arrive */
    static constexpr int MS = DIM <= 128 && TERMS == 1 ? 2 : 1; /* blocks of 16 rows of a warp */
    static constexpr int WARP_ROWS = 16 * MS, ROWS = PREFILL_WARPS * WARP_ROWS;
    /* 64 where registers (32 rows a warp) and shared memory (large heads) have room for it */
    static constexpr bool WIDE = DIM == 64 || (DIM <= 128 && TERMS == 2) || (DIM == 192 && TERMS == 1 && !WIDEN);
    static constexpr int KEYS = WIDE ? 64 : DIM == 256 && TERMS == 2 ? 16 : 32;
    static constexpr int PITCH = DIM * 2 + 16; /* the eight rows of an ldmatrix lie in different banks */
    static constexpr int QUERY_BYTES = ROWS * PITCH; /* of one operand */
    static constexpr int TILE_BYTES = KEYS * PITCH;  /* K or V as operands */
    static constexpr int RAW_BYTES = WIDEN ? KEYS * ROW_BYTES : 0;
    static constexpr int SHARED_BYTES = TERMS * QUERY_BYTES + 2 * TILE_BYTES + 2 * RAW_BYTES;
    static_assert(SHARED_BYTES + ROWS * 4 + 4 * KEYS * 8 <= 99 * 1024, "what a block of sm_86 and sm_89 may have");
};

/* ---- loading ----------------------------------------------------------------------------------------- */

/* Starts the copy of KEYS rows of K or V, ROW_BYTES each, into rows PITCH bytes apart. One cp.async group. */
template <int KEYS, int ROW_BYTES, int PITCH>
__device__ __forceinline__ void copy_rows(unsigned char *to, const unsigned char *pages, const int64_t *rows)
{
    constexpr int words = ROW_BYTES / 16, all = KEYS * words;
    QK_UNROLL
    for (int i = 0; i < (all + PREFILL_THREADS - 1) / PREFILL_THREADS; i++) {
        const int word = i * PREFILL_THREADS + static_cast<int>(threadIdx.x), row = word / words;
        const int column = word % words * 16;
        if (all % PREFILL_THREADS != 0 && word >= all)
            break;
        const bool exists = rows[row] != NO_ROW;
        qk_cp_async16(to + row * PITCH + column, pages + (exists ? rows[row] : 0) + column, exists);
    }
    qk_cp_async_commit();
}

/* Eight codes of 8 bits as f16. */
template <quire_dtype CACHE> __device__ __forceinline__ void widen_eight(uint32_t (&pairs)[4], const unsigned char *raw)
{
    const uint2 codes = *reinterpret_cast<const uint2 *>(raw);
    uint32_t low[2], high[2];
    unpack_f16<CACHE>(codes.x, low);
    unpack_f16<CACHE>(codes.y, high);
    pairs[0] = low[0], pairs[1] = low[1], pairs[2] = high[0], pairs[3] = high[1];
}

/* Rows of codes, `raw` one behind the other, to f16 rows. Scales in the page: those of row r start at
 * head + scale_rows[r]; NO_ROW: there is no such row. */
template <quire_dtype CACHE, int DIM, int ROWS, int ROW_BYTES, int PITCH>
__device__ __forceinline__ void widen_rows(unsigned char *to, const unsigned char *raw, const unsigned char *head,
                                           const int64_t *scale_rows, bool scaled)
{
    QK_UNROLL_BY(CACHE == QUIRE_DTYPE_INT4 ? 1 : DIM >= 128 ? 2 : 4) /* what registers there are */
    for (int i = static_cast<int>(threadIdx.x); i < ROWS * DIM / 8; i += PREFILL_THREADS) {
        const int row = i / (DIM / 8), column = i % (DIM / 8) * 8;
        uint32_t pairs[4];
        const unsigned char *codes = raw + row * ROW_BYTES + column * code_bits<CACHE> / 8;
        if constexpr (CACHE == QUIRE_DTYPE_INT4) {
            const int64_t at = scale_rows[row];
            const uint32_t run = at == NO_ROW ? 0u : reinterpret_cast<const uint32_t *>(head + at)[column / INT4_RUN];
            int4_word(*reinterpret_cast<const uint32_t *>(codes), run, column % INT4_RUN / INT4_GROUP, pairs);
        } else {
            widen_eight<CACHE>(pairs, codes);
            if (scaled) {
                const int64_t at = scale_rows[row];
                const uint32_t scale =
                    at == NO_ROW ? 0u : *reinterpret_cast<const unsigned short *>(head + at) * 0x10001u;
                QK_UNROLL
                for (int pair = 0; pair < 4; pair++)
                    pairs[pair] = qk_mul_f16x2(pairs[pair], scale);
            }
        }
        store16(to + row * PITCH + column * 2, make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]));
    }
}

/* K, V, and what is on its way. */
template <quire_dtype CACHE, int DIM, int TERMS> struct prefill_tiles {
    using shape = prefill_shape<CACHE, DIM, TERMS>;

    __device__ __forceinline__ unsigned char *operands(int kv) const
    {
        return places + kv * shape::TILE_BYTES;
    }
    __device__ __forceinline__ unsigned char *raw(int kv) const
    {
        return places + 2 * shape::TILE_BYTES + kv * shape::RAW_BYTES;
    }
    __device__ __forceinline__ void start(int kv, const int64_t *rows) const
    {
        constexpr int pitch = shape::WIDEN ? shape::ROW_BYTES : shape::PITCH;
        copy_rows<shape::KEYS, shape::ROW_BYTES, pitch>(shape::WIDEN ? raw(kv) : operands(kv), pages + kv * kv_stride,
                                                        rows);
    }
    /* Waits for K or V of a tile; `then` may fill the place that all threads have done with. */
    template <class Then>
    __device__ __forceinline__ void finish(int kv, const int64_t *scale_rows, const Then &then) const
    {
        qk_cp_async_wait<(QK_PLANTED == 2)>();
        if (QK_PLANTED != 1)
            __syncthreads(); /* it is here, and nobody needs the other place any more */
        if constexpr (shape::WIDEN)
            widen_rows<CACHE, DIM, shape::KEYS, shape::ROW_BYTES, shape::PITCH>(
                operands(kv), raw(kv), pages + kv * kv_stride, scale_rows, scaled);
        then();
        if constexpr (shape::WIDEN)
            __syncthreads();
    }

    unsigned char *places;
    const unsigned char *pages;
    int64_t kv_stride;
    bool scaled; /* scales in the page */
};

/* ---- one tile of keys -------------------------------------------------------------------------------- */

/* Accumulators of mma m16n8k16: element 2 * half + i of block n is row lane / 4 + 8 * half of 16, column
 * 8 * n + lane % 4 * 2 + i. */
template <int MS, int KEYS> using prefill_scores = float[MS][KEYS / 8][4];

/* The rows of a thread: lane / 4 + 8 * half + 16 * m of its warp's. `sum` is of this thread's columns only until the
 * end; the peak is the whole row's. */
template <int MS> struct prefill_rows {
    float factor[MS][2], peak[MS][2], sum[MS][2], cap;
    int begin[MS][2], end[MS][2]; /* keys that the row sees */
};

template <quire_dtype CACHE, int DIM, int TERMS, int MS, int KEYS>
__device__ __forceinline__ void prefill_multiply_keys(prefill_scores<MS, KEYS> &score, const unsigned char *queries,
                                                      const unsigned char *k)
{
    using shape = prefill_shape<CACHE, DIM, TERMS>;
    const int lane = static_cast<int>(threadIdx.x) % 32, matrix = lane / 8;
    const unsigned char *a_row = queries + (lane % 8 + matrix % 2 * 8) * shape::PITCH + matrix / 2 * 16;
    const unsigned char *b_row = k + (lane % 8 + matrix / 2 * 8) * shape::PITCH + matrix % 2 * 16;
    QK_UNROLL
    for (int m = 0; m < MS; m++) {
        QK_UNROLL
        for (int n = 0; n < KEYS / 8; n++)
            score[m][n][0] = score[m][n][1] = score[m][n][2] = score[m][n][3] = 0.0f;
    }
    for (int term = TERMS - 1; term >= 0; term--) { /* the smaller one first */
        QK_UNROLL_BY(2)
        for (int dim = 0; dim < DIM; dim += 16) {
            uint32_t a[MS][4];
            QK_UNROLL
            for (int m = 0; m < MS; m++)
                qk_ldmatrix_x4(a[m], a_row + term * shape::QUERY_BYTES + m * 16 * shape::PITCH + dim * 2);
            QK_UNROLL
            for (int n = 0; n < KEYS / 8; n += 2) {
                uint32_t b[4];
                qk_ldmatrix_x4(b, b_row + n * 8 * shape::PITCH + dim * 2);
                QK_UNROLL
                for (int m = 0; m < MS; m++) {
                    multiply_add<CACHE>(score[m][n], a[m], b[0], b[1]);
                    multiply_add<CACHE>(score[m][n + 1], a[m], b[2], b[3]);
                }
            }
        }
    }
}

/* Scores to weights, and what earlier sums are to be multiplied with. `first_key`: of the tile. `edge`: some row of the
 * warp does not see all of the tile. */
template <int MS, int KEYS>
__device__ __forceinline__ void prefill_weigh(prefill_scores<MS, KEYS> &score, prefill_rows<MS> &rows,
                                              float (&rescale)[MS][2], int first_key, bool edge)
{
    const int first_column = first_key + static_cast<int>(threadIdx.x) % 4 * 2;
    QK_UNROLL
    for (int row = 0; row < MS * 2; row++) {
        const int m = row / 2, half = row % 2;
        const auto each = [&](const auto &what) {
            QK_UNROLL
            for (int i = 0; i < KEYS / 4; i++)
                what(score[m][i / 2][half * 2 + i % 2], first_column + i / 2 * 8 + i % 2);
        };
        float most = -INFINITY;
        each([&](float &s, int) { s *= rows.factor[m][half]; });
        if (rows.cap > 0.0f)
            each([&](float &s, int) { s = soft_tanh(s) * rows.cap; });
        if (edge)
            each([&](float &s, int key) {
                s = key >= rows.begin[m][half] && key < rows.end[m][half] ? s : -INFINITY;
            });
        each([&](float &s, int) { most = fmaxf(most, s); });
        const float peak = fmaxf(rows.peak[m][half], lanes_max<4>(most));
        const float base = peak == -INFINITY ? 0.0f : peak; /* no key yet: weights of 0, not NaN */
        rescale[m][half] = qk_exp2(rows.peak[m][half] - base);
        rows.peak[m][half] = peak;
        rows.sum[m][half] *= rescale[m][half];
        each([&](float &s, int) {
            s = qk_exp2(s - base);
            rows.sum[m][half] += s;
        });
    }
}

template <quire_dtype CACHE, int DIM, int TERMS, int MS, int KEYS>
__device__ __forceinline__ void prefill_add_values(float (&sum)[MS][DIM / 8][4],
                                                   const prefill_scores<MS, KEYS> &weight,
                                                   const float (&rescale)[MS][2], const unsigned char *v)
{
    using shape = prefill_shape<CACHE, DIM, TERMS>;
    const int lane = static_cast<int>(threadIdx.x) % 32, matrix = lane / 8;
    const unsigned char *b_row = v + (lane % 8 + matrix % 2 * 8) * shape::PITCH + matrix / 2 * 16;
    QK_UNROLL
    for (int m = 0; m < MS; m++) {
        QK_UNROLL
        for (int n = 0; n < DIM / 8; n++) {
            QK_UNROLL
            for (int i = 0; i < 4; i++)
                sum[m][n][i] *= rescale[m][i / 2];
        }
    }
    QK_UNROLL
    for (int key = 0; key < KEYS; key += 16) {
        uint32_t a[MS][4];
        QK_UNROLL
        for (int m = 0; m < MS; m++) {
            QK_UNROLL
            for (int i = 0; i < 4; i++)
                a[m][i] = operand_pair<CACHE>(weight[m][key / 8 + i / 2][i % 2 * 2],
                                              weight[m][key / 8 + i / 2][i % 2 * 2 + 1]);
        }
        QK_UNROLL
        for (int n = 0; n < DIM / 8; n += 2) {
            uint32_t b[4];
            qk_ldmatrix_x4_trans(b, b_row + key * shape::PITCH + n * 16);
            QK_UNROLL
            for (int m = 0; m < MS; m++) {
                multiply_add<CACHE>(sum[m][n], a[m], b[0], b[1]);
                multiply_add<CACHE>(sum[m][n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

/* Neighbouring lanes swap halves, so that each has four columns side by side. */
template <int DIM, int MS>
__device__ __forceinline__ void prefill_store(const quire__attend_args &a, const query_rows &rows, int first_row,
                                              const prefill_rows<MS> &state, const float (&sum)[MS][DIM / 8][4],
                                              bool out_aligned)
{
    const int lane = static_cast<int>(threadIdx.x) % 32, odd = lane % 2;
    const float scale = page_scale(a.pages, 1, static_cast<int>(blockIdx.y));
    QK_UNROLL
    for (int part = 0; part < MS * 2; part++) {
        const int m = part / 2, half = part % 2, row = first_row + m * 16 + half * 8 + lane / 4;
        const bool exists = row < rows.count;
        const softmax_state whole = {state.peak[m][half], lanes_sum<4>(state.sum[m][half])};
        const float factor = exists ? scale * softmax_finish(a, whole, rows.head(row)) : 0.0f;
        const int64_t to = exists ? rows.place(a.out, row) + odd * 8 + lane % 4 / 2 * 4 : 0;
        QK_UNROLL
        for (int n = 0; n < DIM / 8; n += 2) {
            const float2 even_half = make_float2(sum[m][n][half * 2] * factor, sum[m][n][half * 2 + 1] * factor);
            const float2 odd_half =
                make_float2(sum[m][n + 1][half * 2] * factor, sum[m][n + 1][half * 2 + 1] * factor);
            const float2 kept = odd ? odd_half : even_half, given = odd ? even_half : odd_half;
            const float2 got = make_float2(__shfl_xor_sync(ALL_LANES, given.x, 1), __shfl_xor_sync(ALL_LANES, given.y, 1));
            if (exists)
                store_four(a.out, to + n * 8,
                           odd ? make_float4(got.x, got.y, kept.x, kept.y) : make_float4(kept.x, kept.y, got.x, got.y),
                           out_aligned);
        }
    }
}

/* ---- the kernel -------------------------------------------------------------------------------------- */

/* What a warp's rows see, all of them and any of them. */
struct prefill_span {
    int begin, end, all_begin, all_end;
};

template <int MS>
__device__ __forceinline__ prefill_span prefill_begin(prefill_rows<MS> &state, const quire__attend_args &a,
                                                      const query_rows &rows, int first_row, const float *factors)
{
    const int lane = static_cast<int>(threadIdx.x) % 32;
    state.cap = find_score_rule(a, static_cast<int>(blockIdx.y)).cap;
    QK_UNROLL
    for (int part = 0; part < MS * 2; part++) {
        const int m = part / 2, half = part % 2, row = first_row + m * 16 + half * 8 + lane / 4;
        const int position = row < rows.count ? a.positions[rows.token(row)] : -1;
        state.factor[m][half] = factors[row];
        state.peak[m][half] = -INFINITY;
        state.sum[m][half] = 0.0f;
        state.begin[m][half] = window_begin(a, position);
        state.end[m][half] = position + 1;
    }
    if (first_row >= rows.count)
        return {0, 0, 0, 0};
    const int last_row = min(first_row + MS * 16, rows.count) - 1;
    const int first = a.positions[rows.token(first_row)], last = a.positions[rows.token(last_row)];
    return {window_begin(a, first), last + 1, window_begin(a, last), first + 1};
}

template <quire_dtype CACHE, int DIM, int TERMS>
__global__ void __launch_bounds__(PREFILL_THREADS, 2)
    prefill_kernel(const quire__attend_args a, int block_shift, bool out_aligned)
{
    using shape = prefill_shape<CACHE, DIM, TERMS>;
    constexpr int KEYS = shape::KEYS, MS = shape::MS;
    using rows_of_tiles = int64_t[2][KEYS];
    QK_DYNAMIC_SHARED(unsigned char, shared); /* [TERMS] operands of q, then prefill_tiles */
    QK_SHARED(float[shape::ROWS], factors);
    QK_SHARED(rows_of_tiles, key_rows);
    QK_SHARED(rows_of_tiles, scale_rows);

    const query_rows rows = find_query_rows(a, shape::ROWS);
    if (rows.count <= 0)
        return;
    const int thread = static_cast<int>(threadIdx.x), kv_head = static_cast<int>(blockIdx.y);
    const int first_row = thread / 32 * shape::WARP_ROWS;
    const int32_t *table = a.block_table + static_cast<int64_t>(rows.row_of_table) * a.table_stride;
    const prefill_tiles<CACHE, DIM, TERMS> tiles = {shared + TERMS * shape::QUERY_BYTES,
                                                    page_head(a.pages, a.layer, kv_head), a.pages.kv_stride,
                                                    shape::WIDEN && a.pages.scale_stride != 0};
    const auto find_rows = [&](int tile) {
        if (thread >= KEYS)
            return;
        const int key = tile * KEYS + thread;
        key_rows[tile % 2][thread] = find_row(a.pages, table, key, rows.begin, rows.end, block_shift);
        if (tiles.scaled)
            scale_rows[tile % 2][thread] = find_scales(a.pages, table, key, rows.begin, rows.end, block_shift);
    };

    int tile = rows.begin / KEYS;
    const int last_tile = (rows.end + KEYS - 1) / KEYS;
    find_rows(tile);
    __syncthreads();
    tiles.start(0, key_rows[tile % 2]);
    const float factor = find_score_rule(a, kv_head).factor;
    for (int row = first_row; row < first_row + shape::WARP_ROWS; row++) {
        const float size = load_query_row<CACHE, DIM, shape::QUERY_BYTES, false>(
            shared + row * shape::PITCH, a.q, row < rows.count ? rows.place(a.q, row) : -1, TERMS, a.pages.rotation != 0);
        if (thread % 32 == 0)
            factors[row] = factor * size;
    }
    __syncwarp(); /* a warp fills the rows that it uses */
    prefill_rows<MS> state;
    const prefill_span span = prefill_begin<MS>(state, a, rows, first_row, factors);
    float sum[MS][DIM / 8][4] = {};
    for (; tile < last_tile; tile++) {
        const int key = tile * KEYS;
        const bool seen = key < span.end && key + KEYS > span.begin;
        prefill_scores<MS, KEYS> score;
        float rescale[MS][2];
        tiles.finish(0, scale_rows[tile % 2], [&] {
            tiles.start(1, key_rows[tile % 2]);
            find_rows(tile + 1);
        });
        if (seen) {
            prefill_multiply_keys<CACHE, DIM, TERMS, MS, KEYS>(score, shared + first_row * shape::PITCH,
                                                               tiles.operands(0));
            prefill_weigh<MS, KEYS>(score, state, rescale, key, key < span.all_begin || key + KEYS > span.all_end);
        }
        tiles.finish(1, scale_rows[tile % 2], [&] {
            if (tile + 1 < last_tile)
                tiles.start(0, key_rows[(tile + 1) % 2]);
        });
        if (seen)
            prefill_add_values<CACHE, DIM, TERMS, MS, KEYS>(sum, score, rescale, tiles.operands(1));
    }
    qk_cp_async_wait<0>();
    prefill_store<DIM, MS>(a, rows, first_row, state, sum, out_aligned);
}

template <quire_dtype CACHE, int DIM, int TERMS>
static quire_status prefill_launch(const quire__attend_args &args, void *stream)
{
    using shape = prefill_shape<CACHE, DIM, TERMS>;
    if (qk_allow_dynamic_shared(prefill_kernel<CACHE, DIM, TERMS>, shape::SHARED_BYTES) != 0)
        return QUIRE_EDEVICE;
    QK_LAUNCH((prefill_kernel<CACHE, DIM, TERMS>), prefill_grid(args, shape::ROWS), dim3(PREFILL_THREADS),
              shape::SHARED_BYTES, stream, args, log2_exact(args.pages.block_tokens), four_aligned(args.out));
    return launch_status();
}

template <quire_dtype CACHE, int TERMS>
static quire_status prefill_dim(const quire__attend_args &args, void *stream)
{
    switch (args.pages.head_dim) {
    case 64: return prefill_launch<CACHE, 64, TERMS>(args, stream);
    case 80: return prefill_launch<CACHE, 80, TERMS>(args, stream);
    case 96: return prefill_launch<CACHE, 96, TERMS>(args, stream);
    case 128: return prefill_launch<CACHE, 128, TERMS>(args, stream);
    case 192: return prefill_launch<CACHE, 192, TERMS>(args, stream);
    case 256: return prefill_launch<CACHE, 256, TERMS>(args, stream);
    default: return QUIRE_EUNSUPPORTED;
    }
}

} /* namespace qk */

#endif
