/* attend_prefill.cu: causal attention of runs of new tokens over the cached prefix and themselves, on tensor
 * cores. Caches of f32 go to attend_prefill_f32.cu.
 *
 * Must compute 4 * head_dim operations per (query row, key) pair; reads K and V of the context once per 64
 * query rows, so that arithmetic is the limit from a few hundred tokens on.
 *
 * - grid: x is the tile, y the kv head, z 64 query rows of the tile's tokens * group (query_rows).
 *   128 threads.
 * - warp: 16 query rows over every key, so that its softmax needs no other warp.
 * - tile of keys: 64, or 32 for head_dim 256. Two are in shared memory: cp.async brings one while the other
 *   is used. FP8 tiles arrive in a third place and are widened into a single one.
 *
 * FlashAttention-2 form: S = Q K^T by mma, online softmax in registers, O += P V by mma with P rounded to the
 * operand type. Operands are bf16 for bf16 caches, f16 for f16 and fp8 ones (e4m3 is exact in f16, and f16
 * keeps three more bits of P). q is brought near 1 by a power of two per row, which keeps f16 in range; a q
 * that the operand type cannot hold (f32, or f16 for bf16) is a sum of two operands.
 *
 * Bits do not depend on how a prompt is cut into steps or tiles: a row sees keys in tiles that begin at
 * multiples of the tile size, and a tile that lies past its position changes nothing: its weights are 0 and
 * its factor is 1, exactly.
 */
#include "attend.cuh"
#include "attend_prefill_f32.h"

namespace qk
{

constexpr int PREFILL_ROWS = 64;

template <quire_dtype CACHE, int DIM> struct prefill_shape {
    static constexpr bool FP8 = CACHE == QUIRE_DTYPE_FP8_E4M3;
    static constexpr int KEYS = DIM <= 128 ? 64 : 32;
    static constexpr int PITCH = DIM * 2 + 16; /* the eight rows of an ldmatrix lie in different banks */
    static constexpr int STAGE_BYTES = 2 * KEYS * PITCH;
    static constexpr int RAW_BYTES = FP8 ? 2 * KEYS * DIM : 0; /* FP8 arrives here and goes to one stage */
    static constexpr int QUERY_BYTES = PREFILL_ROWS * PITCH;   /* of one operand */
    static constexpr int KV_BYTES = FP8 ? STAGE_BYTES + RAW_BYTES : 2 * STAGE_BYTES;
};

/* ---- operands ---------------------------------------------------------------------------------------- */

template <quire_dtype CACHE> __device__ __forceinline__ uint32_t operand_pair(float low, float high)
{
    return CACHE == QUIRE_DTYPE_BF16 ? bf16_pair_store(low, high) : f16_pair_store(low, high);
}

template <quire_dtype CACHE> __device__ __forceinline__ float operand_float(uint32_t bits)
{
    return CACHE == QUIRE_DTYPE_BF16 ? bf16_pair_load(bits).x : f16_pair_load(bits).x;
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

/* The biased exponent of a magnitude; zero, denormals and what has no normal reciprocal count as 2^0. */
__device__ __forceinline__ uint32_t exponent_of(float magnitude)
{
    const uint32_t exponent = __float_as_uint(magnitude) >> 23;
    return exponent == 0 || exponent >= 254 ? 127 : exponent;
}

/* The thread block's rows of q as operands in shared memory, and factor[row], what a score is multiplied
 * with. Rows that do not exist are zeros. A warp fills the 16 rows that it will use itself. */
template <quire_dtype CACHE, int DIM>
__device__ __forceinline__ void load_queries(unsigned char *operands, float (&factor)[PREFILL_ROWS],
                                             const quire__attend_args &a, const query_rows &rows, int terms)
{
    using shape = prefill_shape<CACHE, DIM>;
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    const float scale = a.scale * LOG2_E * page_scale(a.pages, 0, static_cast<int>(blockIdx.y));
    for (int row = warp * 16; row < warp * 16 + 16; row++) {
        float x[DIM / 32], most = 0.0f;
        const int64_t first =
            row < rows.count ? rows.token(row) * a.q.token_stride + rows.head(row) * a.q.head_stride : 0;
        QK_UNROLL
        for (int i = 0; i < DIM / 32; i++) {
            x[i] = row < rows.count ? tensor_load(a.q, first + i * 32 + lane) : 0.0f;
            most = fmaxf(most, fabsf(x[i]));
        }
        const uint32_t exponent = exponent_of(lanes_max<32>(most));
        if (lane == 0)
            factor[row] = scale * __uint_as_float(exponent << 23);
        QK_UNROLL
        for (int i = 0; i < DIM / 32; i++) {
            float left = x[i] * __uint_as_float((254 - exponent) << 23); /* times 2^-e, exact */
            for (int term = 0; term < terms; term++) {
                const uint32_t bits = operand_pair<CACHE>(left, 0.0f);
                *reinterpret_cast<unsigned short *>(operands + term * shape::QUERY_BYTES +
                                                    row * shape::PITCH + (i * 32 + lane) * 2) =
                    static_cast<unsigned short>(bits);
                left -= operand_float<CACHE>(bits);
            }
        }
    }
}

/* FP8 rows of K and V, `raw` one behind the other, to f16 rows of a stage. */
template <int DIM, int ROWS, int PITCH>
__device__ __forceinline__ void widen_rows(unsigned char *stage, const unsigned char *raw)
{
    for (int i = static_cast<int>(threadIdx.x); i < ROWS * DIM / 8; i += ATTEND_THREADS) {
        const int row = i / (DIM / 8), column = i % (DIM / 8) * 8;
        const uint2 codes = *reinterpret_cast<const uint2 *>(raw + i * 8);
        store16(stage + row * PITCH + column * 2,
                make_uint4(fp8_pair_to_f16(codes.x & 0xffffu), fp8_pair_to_f16(codes.x >> 16),
                           fp8_pair_to_f16(codes.y & 0xffffu), fp8_pair_to_f16(codes.y >> 16)));
    }
}

/* ---- one tile of keys -------------------------------------------------------------------------------- */

/* Accumulators of mma m16n8k16: element 2 * half + i of block n is row lane / 4 + 8 * half of the warp's 16,
 * column 8 * n + lane % 4 * 2 + i. */
template <int KEYS> using score_tile = float[KEYS / 8][4];

template <quire_dtype CACHE, int DIM, int KEYS>
__device__ __forceinline__ void multiply_keys(score_tile<KEYS> &score, const unsigned char *queries,
                                              const unsigned char *k, int terms)
{
    using shape = prefill_shape<CACHE, DIM>;
    const int lane = static_cast<int>(threadIdx.x) % 32, matrix = lane / 8;
    const unsigned char *a_row = queries + (lane % 8 + matrix % 2 * 8) * shape::PITCH + matrix / 2 * 16;
    const unsigned char *b_row = k + (lane % 8 + matrix / 2 * 8) * shape::PITCH + matrix % 2 * 16;
    QK_UNROLL
    for (int n = 0; n < KEYS / 8; n++)
        score[n][0] = score[n][1] = score[n][2] = score[n][3] = 0.0f;
    for (int term = terms - 1; term >= 0; term--) { /* the smaller one first */
        QK_UNROLL
        for (int column = 0; column < DIM; column += 16) {
            uint32_t a[4];
            qk_ldmatrix_x4(a, a_row + term * shape::QUERY_BYTES + column * 2);
            QK_UNROLL
            for (int n = 0; n < KEYS / 8; n += 2) {
                uint32_t b[4];
                qk_ldmatrix_x4(b, b_row + n * 8 * shape::PITCH + column * 2);
                multiply_add<CACHE>(score[n], a, b[0], b[1]);
                multiply_add<CACHE>(score[n + 1], a, b[2], b[3]);
            }
        }
    }
}

/* The two rows of a thread: lane / 4 and lane / 4 + 8 of its warp's. `sum` is of this thread's columns only
 * until the end; the peak is the whole row's. */
struct row_state {
    float factor[2], peak[2], sum[2];
    int position[2];
};

/* Scores to weights, and what earlier sums are to be multiplied with. `first_key`: of the tile. */
template <int KEYS>
__device__ __forceinline__ void weigh_scores(score_tile<KEYS> &score, row_state &rows, float (&rescale)[2],
                                             int first_key)
{
    const int first_column = first_key + static_cast<int>(threadIdx.x) % 4 * 2;
    QK_UNROLL
    for (int half = 0; half < 2; half++) {
        float tile_peak = -INFINITY;
        QK_UNROLL
        for (int n = 0; n < KEYS / 8; n++) {
            QK_UNROLL
            for (int i = 0; i < 2; i++) {
                float &s = score[n][half * 2 + i];
                s = first_column + n * 8 + i <= rows.position[half] ? s * rows.factor[half] : -INFINITY;
                tile_peak = fmaxf(tile_peak, s);
            }
        }
        const float peak = fmaxf(rows.peak[half], lanes_max<4>(tile_peak));
        rescale[half] = qk_exp2(rows.peak[half] - peak); /* first tile: 2^-inf = 0 */
        rows.peak[half] = peak;
        rows.sum[half] *= rescale[half];
        QK_UNROLL
        for (int n = 0; n < KEYS / 8; n++) {
            QK_UNROLL
            for (int i = 0; i < 2; i++) {
                float &s = score[n][half * 2 + i];
                s = qk_exp2(s - peak);
                rows.sum[half] += s;
            }
        }
    }
}

template <quire_dtype CACHE, int DIM, int KEYS>
__device__ __forceinline__ void add_values(float (&sum)[DIM / 8][4], const score_tile<KEYS> &weight,
                                           const float (&rescale)[2], const unsigned char *v)
{
    using shape = prefill_shape<CACHE, DIM>;
    const int lane = static_cast<int>(threadIdx.x) % 32, matrix = lane / 8;
    const unsigned char *b_row = v + (lane % 8 + matrix % 2 * 8) * shape::PITCH + matrix / 2 * 16;
    QK_UNROLL
    for (int n = 0; n < DIM / 8; n++) {
        QK_UNROLL
        for (int i = 0; i < 4; i++)
            sum[n][i] *= rescale[i / 2];
    }
    QK_UNROLL
    for (int key = 0; key < KEYS; key += 16) {
        const float(&low)[4] = weight[key / 8], (&high)[4] = weight[key / 8 + 1];
        const uint32_t a[4] = {operand_pair<CACHE>(low[0], low[1]), operand_pair<CACHE>(low[2], low[3]),
                               operand_pair<CACHE>(high[0], high[1]), operand_pair<CACHE>(high[2], high[3])};
        QK_UNROLL
        for (int n = 0; n < DIM / 8; n += 2) {
            uint32_t b[4];
            qk_ldmatrix_x4_trans(b, b_row + key * shape::PITCH + n * 16);
            multiply_add<CACHE>(sum[n], a, b[0], b[1]);
            multiply_add<CACHE>(sum[n + 1], a, b[2], b[3]);
        }
    }
}

template <int DIM>
__device__ __forceinline__ void store_rows(const quire__attend_args &a, const query_rows &rows,
                                           const row_state &state, const float (&sum)[DIM / 8][4])
{
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    const float scale = page_scale(a.pages, 1, static_cast<int>(blockIdx.y));
    QK_UNROLL
    for (int half = 0; half < 2; half++) {
        const float total = lanes_sum<4>(state.sum[half]);
        const int row = warp * 16 + lane / 4 + half * 8;
        if (row >= rows.count)
            continue;
        const float factor = rows.last_position >= 0 ? scale / total : 0.0f; /* no context: zeros */
        const int64_t first =
            rows.token(row) * a.out.token_stride + rows.head(row) * a.out.head_stride + lane % 4 * 2;
        QK_UNROLL
        for (int n = 0; n < DIM / 8; n++) {
            tensor_store(a.out, first + n * 8, sum[n][half * 2] * factor);
            tensor_store(a.out, first + n * 8 + 1, sum[n][half * 2 + 1] * factor);
        }
    }
}

/* ---- the kernel -------------------------------------------------------------------------------------- */

template <quire_dtype CACHE, int DIM>
__global__ void __launch_bounds__(ATTEND_THREADS)
    prefill_kernel(const quire__attend_args a, int block_shift, int terms)
{
    using shape = prefill_shape<CACHE, DIM>;
    constexpr int KEYS = shape::KEYS;
    QK_DYNAMIC_SHARED(unsigned char,
                      shared); /* [terms] operands of q, then the stages or the stage and raw rows */
    QK_SHARED(float[PREFILL_ROWS], factors);
    QK_SHARED(int64_t[2][KEYS], key_rows);

    const query_rows rows = find_query_rows(a, PREFILL_ROWS);
    if (rows.count <= 0)
        return;
    const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
    const int end = rows.last_position + 1, tiles = (end + KEYS - 1) / KEYS;
    const int32_t *table = a.block_table + static_cast<int64_t>(rows.row_of_table) * a.table_stride;
    const unsigned char *pages = page_head(a.pages, a.layer, static_cast<int>(blockIdx.y));
    unsigned char *stages = shared + terms * shape::QUERY_BYTES, *raw = stages + shape::STAGE_BYTES;
    const auto start_tile = [&](int tile) {
        constexpr int pitch = shape::FP8 ? DIM : shape::PITCH;
        unsigned char *k = shape::FP8 ? raw : stages + tile % 2 * shape::STAGE_BYTES;
        copy_rows<KEYS, DIM * element<CACHE>::bytes, pitch>(k, k + KEYS * pitch, pages, a.pages.kv_stride,
                                                            key_rows[tile % 2]);
    };
    const auto find_tile_rows = [&](int tile) {
        if (thread < KEYS)
            key_rows[tile % 2][thread] = find_row(a.pages, table, tile * KEYS + thread, end, block_shift);
    };

    load_queries<CACHE, DIM>(shared, factors, a, rows, terms);
    find_tile_rows(0);
    find_tile_rows(1);
    __syncthreads();
    row_state state;
    QK_UNROLL
    for (int half = 0; half < 2; half++) {
        const int row = warp * 16 + lane / 4 + half * 8;
        state.factor[half] = factors[row];
        state.position[half] = row < rows.count ? max(a.positions[rows.token(row)], 0) : 0;
        state.peak[half] = -INFINITY;
        state.sum[half] = 0.0f;
    }
    float sum[DIM / 8][4] = {};
    if (tiles > 0)
        start_tile(0);
    for (int tile = 0; tile < tiles; tile++) {
        const unsigned char *k = shape::FP8 ? stages : stages + tile % 2 * shape::STAGE_BYTES;
        qk_cp_async_wait<0>();
        __syncthreads(); /* the tile is here, the other stage and this tile's key_rows are free */
        if constexpr (shape::FP8) {
            widen_rows<DIM, 2 * KEYS, shape::PITCH>(stages, raw);
            __syncthreads(); /* the stage is filled, the raw rows are free */
        }
        if (tile + 1 < tiles)
            start_tile(tile + 1);
        score_tile<KEYS> score;
        float rescale[2];
        multiply_keys<CACHE, DIM, KEYS>(score, shared + warp * 16 * shape::PITCH, k, terms);
        weigh_scores<KEYS>(score, state, rescale, tile * KEYS);
        add_values<CACHE, DIM, KEYS>(sum, score, rescale, k + KEYS * shape::PITCH);
        find_tile_rows(tile + 2);
    }
    store_rows<DIM>(a, rows, state, sum);
}

template <quire_dtype CACHE, int DIM>
static quire_status prefill_launch(const quire__attend_args &args, void *stream)
{
    using shape = prefill_shape<CACHE, DIM>;
    const bool bf16_operands = CACHE == QUIRE_DTYPE_BF16;
    const bool exact =
        args.q.dtype == QUIRE_DTYPE_BF16 || (args.q.dtype == QUIRE_DTYPE_F16 && !bf16_operands);
    const int terms = exact ? 1 : 2, group = args.query_heads / args.pages.kv_heads;
    const size_t shared = static_cast<size_t>(terms * shape::QUERY_BYTES + shape::KV_BYTES);
    if (qk_allow_dynamic_shared(prefill_kernel<CACHE, DIM>, shared) != 0)
        return QUIRE_EDEVICE;
    const dim3 grid(static_cast<unsigned>(args.count), static_cast<unsigned>(args.pages.kv_heads),
                    static_cast<unsigned>((QUIRE__PREFILL_TILE * group + PREFILL_ROWS - 1) / PREFILL_ROWS));
    QK_LAUNCH((prefill_kernel<CACHE, DIM>), grid, dim3(ATTEND_THREADS), shared, stream, args,
              log2_exact(args.pages.block_tokens), terms);
    return launch_status();
}

template <quire_dtype CACHE> static quire_status prefill_dim(const quire__attend_args &args, void *stream)
{
    switch (args.pages.head_dim) {
    case 64: return prefill_launch<CACHE, 64>(args, stream);
    case 128: return prefill_launch<CACHE, 128>(args, stream);
    case 256: return prefill_launch<CACHE, 256>(args, stream);
    default: return QUIRE_EUNSUPPORTED;
    }
}

} /* namespace qk */

extern "C" quire_status quire__cuda_attend_prefill(const quire__attend_args *args, void *stream)
{
    const quire_status status = qk::check_attend(*args);
    if (status != QUIRE_OK || args->count == 0)
        return status;
    if (!args->tiles || args->pages.kv_heads > 65535 || args->query_heads / args->pages.kv_heads > 16383)
        return QUIRE_EINVAL;
    switch (args->pages.dtype) {
    case QUIRE_DTYPE_F32: return quire__cuda_attend_prefill_f32(args, stream);
    case QUIRE_DTYPE_F16: return qk::prefill_dim<QUIRE_DTYPE_F16>(*args, stream);
    case QUIRE_DTYPE_BF16: return qk::prefill_dim<QUIRE_DTYPE_BF16>(*args, stream);
    case QUIRE_DTYPE_FP8_E4M3: return qk::prefill_dim<QUIRE_DTYPE_FP8_E4M3>(*args, stream);
    default: return QUIRE_EUNSUPPORTED;
    }
}
