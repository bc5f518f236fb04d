/* latent.cu: append and decode attention of a latent cache (multi-head latent attention, DeepSeek-V2 2024): a token has
 * one row of 576 elements, 512 of a compressed K and V and 64 of rotated K, shared by all query heads. With the
 * up-projections absorbed into q and into what follows, attention is
 *
 *     out[head] = softmax(q[head] . row * scale) row[0:512]
 *
 * Append moves a row in and a row out per token: 1,152 bytes each way in 16 bits. Decode must move each context row
 * once per 64 query heads, and computes 2 * (576 + 512) operations for each (row, head): with 16 heads 30 operations a
 * byte, so memory's rate is the limit; with 128 heads it is the tensor cores.
 *
 * Decode is two kernels, as in attend_decode.cu: latent_kernel takes a (token, chunk of heads, split of the context)
 * and writes partial results, combine_kernel merges them in split order.
 *
 * - grid: x is token and chunk of heads, y the split. 16, 32 or 64 heads a thread block (GROUPS of 16).
 * - tile: 32 rows. Two are in shared memory: cp.async brings one while the other is used. A row serves as K with all
 *   of its 576 columns and as V with the first 512, so it is read once.
 * - S = Q K^T by mma. A warp has 16 heads and WARP_KEYS of the tile's rows; the COLUMN_WARPS warps of the same heads
 *   share their peaks and weights through shared memory, and then each adds up WARP_VALUES columns of O += P V.
 * - q is brought near 1 by a power of two per head and rounded to the cache's type, as P is.
 *
 * A token's bits depend on its own context and on how it is split only, as those of attend_decode.cu.
 */
#include "attend.cuh"

namespace qk
{

constexpr int LATENT_DIM = 576, LATENT_VALUES = 512, LATENT_KEYS = 32;

template <int GROUPS> struct latent_shape {
    static constexpr int ROWS = 16 * GROUPS;
    static constexpr int WARPS = GROUPS == 1 ? 4 : 8, THREADS = 32 * WARPS;
    static constexpr int COLUMN_WARPS = WARPS / GROUPS;
    static constexpr int WARP_KEYS = LATENT_KEYS / COLUMN_WARPS;
    static constexpr int WARP_VALUES = LATENT_VALUES / COLUMN_WARPS;
    static constexpr int PITCH = LATENT_DIM * 2 + 16; /* the eight rows of an ldmatrix lie in different banks */
    static constexpr int STAGE_BYTES = LATENT_KEYS * PITCH, QUERY_BYTES = ROWS * PITCH;
    static constexpr int WEIGHT_PITCH = LATENT_KEYS * 2 + 16;
    static constexpr int SHARED_BYTES = QUERY_BYTES + 2 * STAGE_BYTES;
};

/* ---- append ------------------------------------------------------------------------------------------ */

constexpr int LATENT_APPEND_THREADS = 96; /* 72 of them carry eight elements of 576 each */

template <quire_dtype CACHE>
__global__ void __launch_bounds__(LATENT_APPEND_THREADS)
    latent_append_kernel(const quire__append_args a, int block_shift, bool wide)
{
    constexpr int bytes = element<CACHE>::bytes;
    const int64_t token = blockIdx.x, slot = a.slots[token];
    if (slot < 0)
        return;
    unsigned char *row = page_head(a.pages, a.layer, 0) +
                         row_offset(a.pages, slot >> block_shift, static_cast<int>(slot & (a.pages.block_tokens - 1)));
    for (int column = static_cast<int>(threadIdx.x) * 8; column < a.pages.head_dim;
         column += LATENT_APPEND_THREADS * 8) {
        const bool rope = column >= a.pages.value_dim;
        const quire_tensor &source = rope ? a.v : a.k;
        const int64_t index = token * source.token_stride + column - (rope ? a.pages.value_dim : 0);
        unsigned char *to = row + column * bytes;
        if (source.dtype == CACHE) { /* bits as they are, NaN payloads too */
            const unsigned char *from = static_cast<const unsigned char *>(source.data) + index * bytes;
            for (int i = 0; wide && i < 8 * bytes; i += 16)
                store16(to + i, load16(from + i));
            for (int i = 0; !wide && i < 8 * bytes; i += 2)
                *reinterpret_cast<unsigned short *>(to + i) = *reinterpret_cast<const unsigned short *>(from + i);
            continue;
        }
        float x[8];
        QK_UNROLL
        for (int i = 0; i < 8; i++)
            x[i] = tensor_load(source, index + i);
        element<CACHE>::pack8(to, x);
    }
}

/* ---- operands ---------------------------------------------------------------------------------------- */

template <quire_dtype CACHE> __device__ __forceinline__ uint32_t latent_pair(float low, float high)
{
    return CACHE == QUIRE_DTYPE_BF16 ? bf16_pair_store(low, high) : f16_pair_store(low, high);
}

template <quire_dtype CACHE>
__device__ __forceinline__ void latent_mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    const uint32_t b[2] = {b0, b1};
    if constexpr (CACHE == QUIRE_DTYPE_BF16)
        qk_mma_bf16_16816(d, a, b);
    else
        qk_mma_f16_16816(d, a, b);
}

/* What a thread block does. */
struct latent_job {
    int index, token, first_head, heads; /* index: of the token in the launch; heads: that exist */
    int begin, end;                      /* tokens of the context; begin >= end: nothing to do */
    const int32_t *table;
};

__device__ __forceinline__ int latent_token(const quire__attend_args &a, int index)
{
    return a.select ? a.select[index] : a.first_token + index;
}

__device__ __forceinline__ latent_job find_latent_job(const quire__attend_args &a, int rows, int chunks)
{
    latent_job job;
    job.index = static_cast<int>(blockIdx.x) / chunks;
    job.first_head = static_cast<int>(blockIdx.x) % chunks * rows;
    job.token = latent_token(a, job.index);
    job.heads = min(rows, a.query_heads - job.first_head);
    job.begin = static_cast<int>(blockIdx.y) * a.split_tokens;
    job.end = min(job.begin + a.split_tokens, a.positions[job.token] + 1);
    job.table = a.block_table + static_cast<int64_t>(a.token_rows[job.token]) * a.table_stride;
    return job;
}

/* The heads' q as operands, and what their scores are multiplied with. Heads that are not there are zeros. */
template <quire_dtype CACHE, int GROUPS>
__device__ __forceinline__ void load_latent_queries(unsigned char *operands, float (&factor)[16 * GROUPS],
                                                    const quire__attend_args &a, const latent_job &job)
{
    using shape = latent_shape<GROUPS>;
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    for (int row = warp; row < shape::ROWS; row += shape::WARPS) {
        const bool exists = row < job.heads;
        const int64_t first = job.token * a.q.token_stride + (job.first_head + row) * a.q.head_stride;
        float most = 0.0f;
        for (int column = lane; exists && column < LATENT_DIM; column += 32)
            most = fmaxf(most, fabsf(tensor_load(a.q, first + column)));
        uint32_t exponent = __float_as_uint(lanes_max<32>(most)) >> 23;
        exponent = exponent == 0 || exponent >= 254 ? 127 : exponent; /* no normal reciprocal: as it is */
        const float near_one = __uint_as_float((254 - exponent) << 23);
        for (int column = lane * 2; column < LATENT_DIM; column += 64) {
            const float low = exists ? tensor_load(a.q, first + column) * near_one : 0.0f;
            const float high = exists ? tensor_load(a.q, first + column + 1) * near_one : 0.0f;
            *reinterpret_cast<uint32_t *>(operands + row * shape::PITCH + column * 2) = latent_pair<CACHE>(low, high);
        }
        if (lane == 0)
            factor[row] = a.scale * LOG2_E * __uint_as_float(exponent << 23);
    }
}

template <int GROUPS>
__device__ __forceinline__ void copy_latent_rows(unsigned char *stage, const unsigned char *pages, const int64_t *rows)
{
    using shape = latent_shape<GROUPS>;
    constexpr int words = LATENT_DIM * 2 / 16;
    static_assert(LATENT_KEYS * words % shape::THREADS == 0, "every thread copies as many words");
    QK_UNROLL_BY(3) /* all of them would cost registers */
    for (int i = 0; i < LATENT_KEYS * words / shape::THREADS; i++) {
        const int word = i * shape::THREADS + static_cast<int>(threadIdx.x), row = word / words;
        const int column = word % words * 16;
        const bool exists = rows[row] != NO_ROW;
        qk_cp_async16(stage + row * shape::PITCH + column, pages + (exists ? rows[row] : 0) + column, exists);
    }
    qk_cp_async_commit();
}

/* ---- one tile ---------------------------------------------------------------------------------------- */

/* Accumulators of mma m16n8k16: element 2 * half + i of block n is row lane / 4 + 8 * half of the warp's 16,
 * column 8 * n + lane % 4 * 2 + i. Two chains, of even and odd steps, hide a part of the latency. */
template <quire_dtype CACHE, int GROUPS>
__device__ __forceinline__ void latent_scores(float (&score)[latent_shape<GROUPS>::WARP_KEYS / 8][4],
                                              const unsigned char *queries, const unsigned char *keys)
{
    using shape = latent_shape<GROUPS>;
    constexpr int blocks = shape::WARP_KEYS / 8;
    const int lane = static_cast<int>(threadIdx.x) % 32, matrix = lane / 8;
    const unsigned char *a_row = queries + (lane % 8 + matrix % 2 * 8) * shape::PITCH + matrix / 2 * 16;
    const unsigned char *b_row = keys + lane % 8 * shape::PITCH + matrix * 16;
    float odd[blocks][4] = {};
    QK_UNROLL
    for (int n = 0; n < blocks; n++)
        score[n][0] = score[n][1] = score[n][2] = score[n][3] = 0.0f;
    QK_UNROLL_BY(2)
    for (int column = 0; column < LATENT_DIM; column += 32) {
        uint32_t first[4], second[4];
        qk_ldmatrix_x4(first, a_row + column * 2);
        qk_ldmatrix_x4(second, a_row + column * 2 + 32);
        QK_UNROLL
        for (int n = 0; n < blocks; n++) {
            uint32_t b[4]; /* eight keys, 32 columns */
            qk_ldmatrix_x4(b, b_row + n * 8 * shape::PITCH + column * 2);
            latent_mma<CACHE>(score[n], first, b[0], b[1]);
            latent_mma<CACHE>(odd[n], second, b[2], b[3]);
        }
    }
    QK_UNROLL
    for (int n = 0; n < blocks; n++) {
        QK_UNROLL
        for (int i = 0; i < 4; i++)
            score[n][i] += odd[n][i];
    }
}

/* O += P V over the warp's columns. */
template <quire_dtype CACHE, int GROUPS>
__device__ __forceinline__ void latent_values(float (&sum)[latent_shape<GROUPS>::WARP_VALUES / 8][4],
                                              const unsigned char *weights, const unsigned char *values)
{
    using shape = latent_shape<GROUPS>;
    const int lane = static_cast<int>(threadIdx.x) % 32, matrix = lane / 8;
    const unsigned char *a_row = weights + (lane % 8 + matrix % 2 * 8) * shape::WEIGHT_PITCH + matrix / 2 * 16;
    const unsigned char *b_row = values + (lane % 8 + matrix % 2 * 8) * shape::PITCH + matrix / 2 * 16;
    QK_UNROLL
    for (int key = 0; key < LATENT_KEYS; key += 16) {
        uint32_t a[4];
        qk_ldmatrix_x4(a, a_row + key * 2);
        QK_UNROLL
        for (int n = 0; n < shape::WARP_VALUES / 8; n += 2) {
            uint32_t b[4];
            qk_ldmatrix_x4_trans(b, b_row + key * shape::PITCH + n * 16);
            latent_mma<CACHE>(sum[n], a, b[0], b[1]);
            latent_mma<CACHE>(sum[n + 1], a, b[2], b[3]);
        }
    }
}

/* ---- the kernel -------------------------------------------------------------------------------------- */

/* Partial results in `work`: [token][query head][split][512] sums, then as many (peak, sum of weights). */
__device__ __forceinline__ int64_t latent_partial(const quire__attend_args &a, int index, int head, int split,
                                                  int splits)
{
    return (static_cast<int64_t>(index) * a.query_heads + head) * splits + split;
}

__device__ __forceinline__ float *latent_stats(const quire__attend_args &a, int splits)
{
    return a.work + static_cast<int64_t>(a.count) * a.query_heads * splits * LATENT_VALUES;
}

template <int GROUPS> struct latent_shared {
    alignas(16) unsigned char weights[latent_shape<GROUPS>::ROWS * latent_shape<GROUPS>::WEIGHT_PITCH];
    int64_t rows[2][LATENT_KEYS];
    float factor[latent_shape<GROUPS>::ROWS];
    float peaks[latent_shape<GROUPS>::COLUMN_WARPS][latent_shape<GROUPS>::ROWS];
};

/* The two rows of a thread. */
struct latent_state {
    float factor[2], peak[2], sum[2];
};

/* Scores times their factors, -inf past the end; the warp's peaks to shared memory. */
template <int GROUPS>
__device__ __forceinline__ void latent_peaks(latent_shared<GROUPS> &shared,
                                             float (&score)[latent_shape<GROUPS>::WARP_KEYS / 8][4],
                                             const latent_state &state, int first_row, int column_warp, int left)
{
    using shape = latent_shape<GROUPS>;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    QK_UNROLL
    for (int half = 0; half < 2; half++) {
        float peak = -INFINITY;
        QK_UNROLL
        for (int n = 0; n < shape::WARP_KEYS / 8; n++) {
            QK_UNROLL
            for (int i = 0; i < 2; i++) {
                float &s = score[n][half * 2 + i];
                const int key = column_warp * shape::WARP_KEYS + n * 8 + lane % 4 * 2 + i;
                s = key < left ? s * state.factor[half] : -INFINITY;
                peak = fmaxf(peak, s);
            }
        }
        peak = lanes_max<4>(peak);
        if (lane % 4 == 0)
            shared.peaks[column_warp][first_row + lane / 4 + half * 8] = peak;
    }
}

/* Weights to shared memory; what earlier sums are to be multiplied with. */
template <quire_dtype CACHE, int GROUPS>
__device__ __forceinline__ void latent_weigh(latent_shared<GROUPS> &shared,
                                             const float (&score)[latent_shape<GROUPS>::WARP_KEYS / 8][4],
                                             latent_state &state, float (&rescale)[2], int first_row, int column_warp)
{
    using shape = latent_shape<GROUPS>;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    QK_UNROLL
    for (int half = 0; half < 2; half++) {
        const int row = first_row + lane / 4 + half * 8;
        float peak = state.peak[half];
        QK_UNROLL
        for (int other = 0; other < shape::COLUMN_WARPS; other++)
            peak = fmaxf(peak, shared.peaks[other][row]);
        rescale[half] = qk_exp2(state.peak[half] - peak); /* first tile: 2^-inf = 0 */
        state.peak[half] = peak;
        state.sum[half] *= rescale[half];
        QK_UNROLL
        for (int n = 0; n < shape::WARP_KEYS / 8; n++) {
            const float low = qk_exp2(score[n][half * 2] - peak), high = qk_exp2(score[n][half * 2 + 1] - peak);
            state.sum[half] += low + high;
            const int column = column_warp * shape::WARP_KEYS + n * 8 + lane % 4 * 2;
            *reinterpret_cast<uint32_t *>(shared.weights + row * shape::WEIGHT_PITCH + column * 2) =
                latent_pair<CACHE>(low, high);
        }
    }
}

template <int GROUPS>
__device__ __forceinline__ void store_latent(const quire__attend_args &a, const latent_job &job,
                                             latent_shared<GROUPS> &shared, const latent_state &state,
                                             const float (&sum)[latent_shape<GROUPS>::WARP_VALUES / 8][4], int first_row,
                                             int column_warp)
{
    using shape = latent_shape<GROUPS>;
    const int lane = static_cast<int>(threadIdx.x) % 32, split = static_cast<int>(blockIdx.y);
    const int splits = static_cast<int>(gridDim.y);
    QK_UNROLL
    for (int half = 0; half < 2; half++) {
        const float some = lanes_sum<4>(state.sum[half]);
        if (lane % 4 == 0)
            shared.peaks[column_warp][first_row + lane / 4 + half * 8] = some; /* the peaks are done with */
    }
    __syncthreads();
    QK_UNROLL
    for (int half = 0; half < 2; half++) {
        const int row = first_row + lane / 4 + half * 8;
        if (row >= job.heads)
            continue;
        const int64_t partial = latent_partial(a, job.index, job.first_head + row, split, splits);
        float *to = a.work + partial * LATENT_VALUES + column_warp * shape::WARP_VALUES + lane % 4 * 2;
        QK_UNROLL
        for (int n = 0; n < shape::WARP_VALUES / 8; n++)
            *reinterpret_cast<float2 *>(to + n * 8) = make_float2(sum[n][half * 2], sum[n][half * 2 + 1]);
        if (column_warp != 0 || lane % 4 != 0)
            continue;
        float total = 0.0f;
        QK_UNROLL
        for (int other = 0; other < shape::COLUMN_WARPS; other++)
            total += shared.peaks[other][row];
        *reinterpret_cast<float2 *>(latent_stats(a, splits) + 2 * partial) = make_float2(state.peak[half], total);
    }
}

template <quire_dtype CACHE, int GROUPS>
__global__ void __launch_bounds__(latent_shape<GROUPS>::THREADS, GROUPS == 4 ? 1 : 2)
    latent_kernel(const quire__attend_args a, int block_shift, int chunks)
{
    using shape = latent_shape<GROUPS>;
    using shared_state = latent_shared<GROUPS>;
    QK_DYNAMIC_SHARED(unsigned char, queries);
    QK_SHARED(shared_state, shared);
    const latent_job job = find_latent_job(a, shape::ROWS, chunks);
    if (job.begin >= job.end)
        return;
    const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
    const int first_row = warp / shape::COLUMN_WARPS * 16, column_warp = warp % shape::COLUMN_WARPS;
    const int tiles = (job.end - job.begin + LATENT_KEYS - 1) / LATENT_KEYS;
    const unsigned char *pages = page_head(a.pages, a.layer, 0);
    unsigned char *stages = queries + shape::QUERY_BYTES;
    const auto find_rows = [&](int tile) {
        if (thread < LATENT_KEYS)
            shared.rows[tile % 2][thread] =
                find_row(a.pages, job.table, job.begin + tile * LATENT_KEYS + thread, job.end, block_shift);
    };

    load_latent_queries<CACHE, GROUPS>(queries, shared.factor, a, job);
    find_rows(0);
    find_rows(1);
    __syncthreads();
    latent_state state;
    QK_UNROLL
    for (int half = 0; half < 2; half++) {
        state.factor[half] = shared.factor[first_row + lane / 4 + half * 8];
        state.peak[half] = -INFINITY;
        state.sum[half] = 0.0f;
    }
    float sum[shape::WARP_VALUES / 8][4] = {};
    copy_latent_rows<GROUPS>(stages, pages, shared.rows[0]);
    for (int tile = 0; tile < tiles; tile++) {
        const unsigned char *stage = stages + tile % 2 * shape::STAGE_BYTES;
        qk_cp_async_wait<0>();
        __syncthreads(); /* the tile is here; the other stage, the weights and this tile's rows are free */
        if (tile + 1 < tiles)
            copy_latent_rows<GROUPS>(stages + (tile + 1) % 2 * shape::STAGE_BYTES, pages, shared.rows[(tile + 1) % 2]);
        find_rows(tile + 2);
        float score[shape::WARP_KEYS / 8][4], rescale[2];
        latent_scores<CACHE, GROUPS>(score, queries + first_row * shape::PITCH,
                                     stage + column_warp * shape::WARP_KEYS * shape::PITCH);
        latent_peaks<GROUPS>(shared, score, state, first_row, column_warp, job.end - job.begin - tile * LATENT_KEYS);
        __syncthreads();
        latent_weigh<CACHE, GROUPS>(shared, score, state, rescale, first_row, column_warp);
        __syncthreads();
        QK_UNROLL
        for (int n = 0; n < shape::WARP_VALUES / 8; n++) {
            QK_UNROLL
            for (int i = 0; i < 4; i++)
                sum[n][i] *= rescale[i / 2];
        }
        latent_values<CACHE, GROUPS>(sum, shared.weights + first_row * shape::WEIGHT_PITCH,
                                     stage + column_warp * shape::WARP_VALUES * 2);
    }
    store_latent<GROUPS>(a, job, shared, state, sum, first_row, column_warp);
}

/* A thread block a (token, query head), a thread four columns. Merges the splits in order. No context: zeros. */
__global__ void __launch_bounds__(LATENT_VALUES / 4) latent_combine_kernel(const quire__attend_args a, int splits)
{
    const int index = static_cast<int>(blockIdx.x) / a.query_heads, head = static_cast<int>(blockIdx.x) % a.query_heads;
    const int column = static_cast<int>(threadIdx.x) * 4, token = latent_token(a, index);
    const int used = (a.positions[token] + a.split_tokens) / a.split_tokens;
    const int64_t first = latent_partial(a, index, head, 0, splits);
    const float *stats = latent_stats(a, splits) + 2 * first, *sums = a.work + first * LATENT_VALUES + column;
    float peak = -INFINITY, weights = 0.0f, total[4] = {};
    for (int split = 0; split < used; split++)
        peak = fmaxf(peak, stats[2 * split]);
    for (int split = 0; split < used; split++) {
        const float factor = qk_exp2(stats[2 * split] - peak);
        const float4 four = *reinterpret_cast<const float4 *>(sums + static_cast<int64_t>(split) * LATENT_VALUES);
        weights = fmaf(stats[2 * split + 1], factor, weights);
        total[0] = fmaf(four.x, factor, total[0]);
        total[1] = fmaf(four.y, factor, total[1]);
        total[2] = fmaf(four.z, factor, total[2]);
        total[3] = fmaf(four.w, factor, total[3]);
    }
    QK_UNROLL
    for (int i = 0; i < 4; i++)
        tensor_store(a.out, token * a.out.token_stride + head * a.out.head_stride + column + i,
                     used > 0 ? total[i] / weights : 0.0f);
}

/* ---- launch ------------------------------------------------------------------------------------------ */

inline quire_status check_latent(const quire__pages &pages)
{
    const quire_status status = check_pages(pages, 16);
    if (status != QUIRE_OK)
        return status;
    if (pages.scale_stride != 0 || pages.rotation != 0)
        return QUIRE_EUNSUPPORTED;
    return pages.kv_heads == 1 && pages.value_dim > 0 && pages.value_dim <= pages.head_dim && pages.value_dim % 8 == 0
               ? QUIRE_OK
               : QUIRE_EINVAL;
}

template <quire_dtype CACHE> static quire_status latent_append_launch(const quire__append_args &args, void *stream)
{
    const int64_t strides = args.k.token_stride | (args.pages.head_dim > args.pages.value_dim ? args.v.token_stride : 0);
    const bool wide = aligned(args.k.data, 16) && aligned(args.v.data, 16) && strides * element<CACHE>::bytes % 16 == 0;
    QK_LAUNCH(latent_append_kernel<CACHE>, dim3(static_cast<unsigned>(args.tokens)), dim3(LATENT_APPEND_THREADS), 0,
              stream, args, log2_exact(args.pages.block_tokens), wide);
    return launch_status();
}

template <quire_dtype CACHE, int GROUPS>
static quire_status latent_launch(const quire__attend_args &args, void *stream)
{
    using shape = latent_shape<GROUPS>;
    const int chunks = (args.query_heads + shape::ROWS - 1) / shape::ROWS;
    const int splits = (args.longest_context + args.split_tokens - 1) / args.split_tokens;
    if (static_cast<int64_t>(args.count) * args.query_heads > INT32_MAX || splits > 65535)
        return QUIRE_EINVAL;
    if (qk_allow_dynamic_shared(latent_kernel<CACHE, GROUPS>, shape::SHARED_BYTES) != 0)
        return QUIRE_EDEVICE;
    QK_LAUNCH((latent_kernel<CACHE, GROUPS>),
              dim3(static_cast<unsigned>(args.count * chunks), static_cast<unsigned>(splits)), dim3(shape::THREADS),
              static_cast<size_t>(shape::SHARED_BYTES), stream, args, log2_exact(args.pages.block_tokens), chunks);
    if (qk_launch_status() != 0)
        return QUIRE_EDEVICE;
    QK_LAUNCH(latent_combine_kernel, dim3(static_cast<unsigned>(args.count * args.query_heads)),
              dim3(LATENT_VALUES / 4), 0, stream, args, splits);
    return launch_status();
}

template <quire_dtype CACHE> static quire_status latent_heads(const quire__attend_args &args, void *stream)
{
    if (args.query_heads <= 16)
        return latent_launch<CACHE, 1>(args, stream);
    if (args.query_heads <= 32)
        return latent_launch<CACHE, 2>(args, stream);
    return latent_launch<CACHE, 4>(args, stream);
}

} /* namespace qk */

extern "C" quire_status quire__cuda_latent_append(const quire__append_args *args, void *stream)
{
    quire_status status = qk::check_latent(args->pages);
    if (status == QUIRE_OK && args->tokens < 0)
        status = QUIRE_EINVAL;
    if (status != QUIRE_OK || args->tokens == 0)
        return status;
    if ((status = qk::check_tensor(args->k, 1)) != QUIRE_OK)
        return status;
    if (args->pages.head_dim > args->pages.value_dim && (status = qk::check_tensor(args->v, 1)) != QUIRE_OK)
        return status;
    if (!args->slots || args->layer < 0)
        return QUIRE_EINVAL;
    switch (args->pages.dtype) {
    case QUIRE_DTYPE_F32: return qk::latent_append_launch<QUIRE_DTYPE_F32>(*args, stream);
    case QUIRE_DTYPE_F16: return qk::latent_append_launch<QUIRE_DTYPE_F16>(*args, stream);
    case QUIRE_DTYPE_BF16: return qk::latent_append_launch<QUIRE_DTYPE_BF16>(*args, stream);
    default: return QUIRE_EUNSUPPORTED;
    }
}

extern "C" quire_status quire__cuda_latent_attend(const quire__attend_args *args, void *stream)
{
    quire_status status = qk::check_latent(args->pages);
    if (status == QUIRE_OK)
        status = qk::check_attend(*args);
    if (status != QUIRE_OK || args->count == 0)
        return status;
    if (args->pages.head_dim != qk::LATENT_DIM || args->pages.value_dim != qk::LATENT_VALUES || args->window > 0 ||
        args->soft_cap > 0 || args->sinks)
        return QUIRE_EUNSUPPORTED;
    if (!args->token_rows || args->longest_context < 1 || args->split_tokens < 64 || args->split_tokens % 64 != 0)
        return QUIRE_EINVAL;
    const int64_t splits = (static_cast<int64_t>(args->longest_context) + args->split_tokens - 1) / args->split_tokens;
    if (!args->work || !qk::aligned(args->work, 16) ||
        args->work_floats < splits * args->count * args->query_heads * (qk::LATENT_VALUES + 2))
        return QUIRE_EINVAL;
    switch (args->pages.dtype) {
    case QUIRE_DTYPE_F16: return qk::latent_heads<QUIRE_DTYPE_F16>(*args, stream);
    case QUIRE_DTYPE_BF16: return qk::latent_heads<QUIRE_DTYPE_BF16>(*args, stream);
    default: return QUIRE_EUNSUPPORTED;
    }
}
