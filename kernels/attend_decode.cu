/* attend_decode.cu: attention of single tokens over long contexts.
 *
 * Must move, per token and kv head, the K and V rows of its context once: 2 * context * head_dim elements.
 * Everything else is small, so the aim is the memory's bandwidth.
 *
 * Two kernels. decode_kernel cuts each context into splits of split_tokens; a thread block takes one (token,
 * kv head, split) and writes a partial result: per query head a weighted sum of V, the peak score, and the
 * sum of weights. combine_kernel merges the partial results of a token in split order.
 *
 * - grid: x is token, kv head and chunk of its query heads; y is the split. 128 threads.
 * - tile: 64 tokens, or 32 where a row is longer than 256 bytes. Two are in shared memory: cp.async brings
 *   the next while this one is computed.
 * - score: a lane is a token and multiplies its whole K row with q, so that no shuffle is needed.
 * - weigh: a thread owns a few columns of V and a subset of the tile's tokens.
 *
 * A token's bits depend on its own context only: splits begin at multiples of split_tokens, tiles at
 * multiples of their size, every sum has one order, and a thread block sees nothing of the batch. Splits past
 * the end of a context do nothing and are not read by combine. A context of one split goes through combine
 * too; it costs a launch, not bits.
 *
 * Query heads: templates for 1, 2, 4 and 8 heads at a time. Another group size uses the next larger, with
 * heads of zero that are not stored; a group of more than 8 is several chunks, each reading K and V again.
 */
#include "attend.cuh"

namespace qk
{

template <quire_dtype CACHE, int DIM, int HEADS> struct decode_shape {
    static constexpr int ROW_BYTES = DIM * element<CACHE>::bytes;
    static constexpr int TOKENS = ROW_BYTES <= 256 ? 64 : 32;
    /* 16 more: lanes that read 16 bytes of neighbouring rows hit other banks */
    static constexpr int PITCH = ROW_BYTES + 16;
    static constexpr int STAGE_BYTES = 2 * TOKENS * PITCH;

    /* score: a warp takes 32 tokens and every SCORE_STEP-th head */
    static constexpr int SCORE_STEP = ATTEND_WARPS / (TOKENS / 32);
    static constexpr int SCORE_HEADS = HEADS < SCORE_STEP ? 1 : HEADS / SCORE_STEP;
    static constexpr int SOFTMAX_HEADS = (HEADS + ATTEND_WARPS - 1) / ATTEND_WARPS;

    /* weigh: a thread has COLUMNS columns of V and every SUBSETS-th token */
    static constexpr int COLUMNS = CACHE == QUIRE_DTYPE_F32 ? 4 : 8;
    static constexpr int SUBSETS = ATTEND_THREADS / (DIM / COLUMNS);

    /* the subsets' sums are laid over the stages when those are done with */
    static constexpr int SUM_BYTES = SUBSETS * HEADS * DIM * 4;
    static constexpr int SHARED_BYTES = 2 * STAGE_BYTES > SUM_BYTES ? 2 * STAGE_BYTES : SUM_BYTES;
};

/* What a thread block of decode_kernel does. */
struct decode_job {
    int index, token, kv_head, first_head, heads; /* index: of the token in the launch; heads: that exist */
    int begin, end;                               /* tokens of the context; begin >= end: nothing to do */
    const int32_t *table;
};

__device__ __forceinline__ int decode_token(const quire__attend_args &a, int index)
{
    return a.select ? a.select[index] : a.first_token + index;
}

template <int HEADS> __device__ __forceinline__ decode_job find_job(const quire__attend_args &a, int chunks)
{
    const int group = a.query_heads / a.pages.kv_heads, per_token = a.pages.kv_heads * chunks;
    const int x = static_cast<int>(blockIdx.x), chunk = x % chunks;
    decode_job job;
    job.index = x / per_token;
    job.token = decode_token(a, job.index);
    job.kv_head = x % per_token / chunks;
    job.first_head = job.kv_head * group + chunk * HEADS;
    job.heads = min(HEADS, group - chunk * HEADS);
    job.begin = static_cast<int>(blockIdx.y) * a.split_tokens;
    job.end = min(job.begin + a.split_tokens, a.positions[job.token] + 1);
    job.table = a.block_table + static_cast<int64_t>(a.token_rows[job.token]) * a.table_stride;
    return job;
}

/* q of the chunk's heads as floats, times everything that scales a score; zeros for heads that are not there.
 */
template <int DIM, int HEADS>
__device__ __forceinline__ void load_query(float4 (&query)[HEADS][DIM / 4], const quire__attend_args &a,
                                           const decode_job &job)
{
    const float factor = a.scale * LOG2_E * page_scale(a.pages, 0, job.kv_head);
    const int64_t first = job.token * a.q.token_stride + job.first_head * a.q.head_stride;
    for (int i = static_cast<int>(threadIdx.x); i < HEADS * DIM; i += ATTEND_THREADS) {
        const int head = i / DIM, column = i % DIM;
        reinterpret_cast<float *>(query[head])[column] =
            head < job.heads ? tensor_load(a.q, first + head * a.q.head_stride + column) * factor : 0.0f;
    }
}

/* score[head][token] of one tile; -inf past the end of the context. `left`: tokens of the tile that exist. */
template <quire_dtype CACHE, int DIM, int HEADS, int TOKENS>
__device__ __forceinline__ void score_tile(float (&score)[HEADS][TOKENS],
                                           const float4 (&query)[HEADS][DIM / 4], const unsigned char *k,
                                           int left)
{
    using shape = decode_shape<CACHE, DIM, HEADS>;
    constexpr int width = 16 / element<CACHE>::bytes;
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    const int first = warp % shape::SCORE_STEP, token = warp / shape::SCORE_STEP * 32 + lane;
    if (first >= HEADS)
        return;
    float dot[shape::SCORE_HEADS] = {};
    QK_UNROLL_BY(4)
    for (int column = 0; column < DIM; column += width) {
        float x[width];
        load_elements<CACHE>(k + token * shape::PITCH + column * element<CACHE>::bytes, x);
        QK_UNROLL
        for (int h = 0; h < shape::SCORE_HEADS; h++) {
            const float4 *q = &query[first + h * shape::SCORE_STEP][column / 4];
            QK_UNROLL
            for (int e = 0; e < width; e += 4) {
                const float4 four = q[e / 4]; /* one address a warp: a broadcast */
                dot[h] = fmaf(four.x, x[e], dot[h]);
                dot[h] = fmaf(four.y, x[e + 1], dot[h]);
                dot[h] = fmaf(four.z, x[e + 2], dot[h]);
                dot[h] = fmaf(four.w, x[e + 3], dot[h]);
            }
        }
    }
    QK_UNROLL
    for (int h = 0; h < shape::SCORE_HEADS; h++)
        score[first + h * shape::SCORE_STEP][token] = token < left ? dot[h] : -INFINITY;
}

/* The running peak and sum of the heads that a warp owns: warp, warp + 4. The same in all its lanes. */
template <int COUNT> struct softmax_state {
    float peak[COUNT], sum[COUNT];
};

/* Scores to weights; rescale[head] is what the sums of earlier tiles are to be multiplied with. */
template <int HEADS, int TOKENS, int COUNT>
__device__ __forceinline__ void weigh_scores(const float (&score)[HEADS][TOKENS],
                                             float (&weight)[TOKENS][HEADS], float (&rescale)[HEADS],
                                             softmax_state<COUNT> &state)
{
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    QK_UNROLL
    for (int i = 0; i < COUNT; i++) {
        const int head = warp + i * ATTEND_WARPS;
        if (head >= HEADS)
            break;
        float tile_peak = -INFINITY, tile_sum = 0.0f;
        QK_UNROLL
        for (int token = lane; token < TOKENS; token += 32)
            tile_peak = fmaxf(tile_peak, score[head][token]);
        const float peak = fmaxf(state.peak[i], lanes_max<32>(tile_peak));
        QK_UNROLL
        for (int token = lane; token < TOKENS; token += 32) {
            const float w = qk_exp2(score[head][token] - peak);
            weight[token][head] = w;
            tile_sum += w;
        }
        const float factor = qk_exp2(state.peak[i] - peak); /* first tile: 2^-inf = 0 */
        state.sum[i] = state.sum[i] * factor + lanes_sum<32>(tile_sum);
        state.peak[i] = peak;
        if (lane == 0)
            rescale[head] = factor;
    }
}

/* sum = sum * rescale + weight * V, over this thread's columns and subset of the tile's tokens. */
template <quire_dtype CACHE, int DIM, int HEADS, int TOKENS, int COLUMNS>
__device__ __forceinline__ void add_values(float (&sum)[HEADS][COLUMNS], const float (&weight)[TOKENS][HEADS],
                                           const float (&rescale)[HEADS], const unsigned char *v)
{
    using shape = decode_shape<CACHE, DIM, HEADS>;
    const int subset = static_cast<int>(threadIdx.x) / (DIM / COLUMNS);
    const int column = static_cast<int>(threadIdx.x) % (DIM / COLUMNS) * COLUMNS;
    QK_UNROLL
    for (int head = 0; head < HEADS; head++) {
        QK_UNROLL
        for (int e = 0; e < COLUMNS; e++)
            sum[head][e] *= rescale[head];
    }
    QK_UNROLL_BY(2)
    for (int token = subset; token < TOKENS; token += shape::SUBSETS) {
        float x[COLUMNS];
        load_elements<CACHE>(v + token * shape::PITCH + column * element<CACHE>::bytes, x);
        QK_UNROLL
        for (int head = 0; head < HEADS; head++) {
            const float w = weight[token][head];
            QK_UNROLL
            for (int e = 0; e < COLUMNS; e++)
                sum[head][e] = fmaf(w, x[e], sum[head][e]);
        }
    }
}

/* Partial results in `work`: [token][query head][split][DIM] sums, then as many (peak, sum of weights). */
__device__ __forceinline__ int64_t partial_index(const quire__attend_args &a, int index, int head, int split,
                                                 int splits)
{
    return (static_cast<int64_t>(index) * a.query_heads + head) * splits + split;
}

__device__ __forceinline__ float *partial_stats(const quire__attend_args &a, int dim, int splits)
{
    return a.work + static_cast<int64_t>(a.count) * a.query_heads * splits * dim;
}

/* Adds the subsets up in order and stores the thread block's partial result. `shared`: the free stages. */
template <quire_dtype CACHE, int DIM, int HEADS, int COLUMNS, int COUNT>
__device__ __forceinline__ void store_partial(const quire__attend_args &a, const decode_job &job,
                                              float *shared, const float (&sum)[HEADS][COLUMNS],
                                              const softmax_state<COUNT> &state)
{
    using shape = decode_shape<CACHE, DIM, HEADS>;
    const int thread = static_cast<int>(threadIdx.x), split = static_cast<int>(blockIdx.y);
    const int splits = static_cast<int>(gridDim.y);
    const int subset = thread / (DIM / COLUMNS), column = thread % (DIM / COLUMNS) * COLUMNS;
    QK_UNROLL
    for (int head = 0; head < HEADS; head++) {
        QK_UNROLL
        for (int e = 0; e < COLUMNS; e++)
            shared[(subset * HEADS + head) * DIM + column + e] = sum[head][e];
    }
    __syncthreads();
    const float scale = page_scale(a.pages, 1, job.kv_head);
    for (int i = thread; i < job.heads * DIM; i += ATTEND_THREADS) {
        float total = 0.0f;
        QK_UNROLL
        for (int s = 0; s < shape::SUBSETS; s++)
            total += shared[s * HEADS * DIM + i];
        const int64_t partial = partial_index(a, job.index, job.first_head + i / DIM, split, splits);
        a.work[partial * DIM + i % DIM] = total * scale;
    }
    QK_UNROLL
    for (int i = 0; i < COUNT; i++) {
        const int head = thread / 32 + i * ATTEND_WARPS;
        if (thread % 32 != 0 || head >= job.heads)
            continue;
        float *stats = partial_stats(a, DIM, splits) +
                       2 * partial_index(a, job.index, job.first_head + head, split, splits);
        stats[0] = state.peak[i];
        stats[1] = state.sum[i];
    }
}

template <quire_dtype CACHE, int DIM, int HEADS>
__global__ void __launch_bounds__(ATTEND_THREADS)
    decode_kernel(const quire__attend_args a, int block_shift, int chunks)
{
    using shape = decode_shape<CACHE, DIM, HEADS>;
    constexpr int TOKENS = shape::TOKENS;
    QK_DYNAMIC_SHARED(unsigned char, stages);
    QK_SHARED(float4[HEADS][DIM / 4], query);
    QK_SHARED(float[HEADS][TOKENS], score);
    QK_SHARED(float[TOKENS][HEADS], weight);
    QK_SHARED(float[HEADS], rescale);
    QK_SHARED(int64_t[TOKENS], rows);

    const decode_job job = find_job<HEADS>(a, chunks);
    if (job.begin >= job.end)
        return;
    const int thread = static_cast<int>(threadIdx.x), tiles = (job.end - job.begin + TOKENS - 1) / TOKENS;
    const unsigned char *pages = page_head(a.pages, a.layer, job.kv_head);
    const auto start_tile = [&](int tile) {
        unsigned char *k = stages + tile % 2 * shape::STAGE_BYTES;
        copy_rows<TOKENS, shape::ROW_BYTES, shape::PITCH>(k, k + shape::STAGE_BYTES / 2, pages,
                                                          a.pages.kv_stride, rows);
    };
    const auto find_tile_row = [&](int tile) {
        return thread < TOKENS
                   ? find_row(a.pages, job.table, job.begin + tile * TOKENS + thread, job.end, block_shift)
                   : NO_ROW;
    };

    float sum[HEADS][shape::COLUMNS] = {};
    softmax_state<shape::SOFTMAX_HEADS> state;
    QK_UNROLL
    for (int i = 0; i < shape::SOFTMAX_HEADS; i++) {
        state.peak[i] = -INFINITY;
        state.sum[i] = 0.0f;
    }
    if (thread < TOKENS)
        rows[thread] = find_tile_row(0);
    load_query<DIM>(query, a, job);
    __syncthreads();
    start_tile(0);
    __syncthreads(); /* rows may be overwritten */
    if (thread < TOKENS)
        rows[thread] = find_tile_row(1);

    for (int tile = 0; tile < tiles; tile++) {
        const unsigned char *k = stages + tile % 2 * shape::STAGE_BYTES;
        qk_cp_async_wait<0>();
        __syncthreads(); /* the tile is here, `rows` is the next one's, the other stage is free */
        if (tile + 1 < tiles)
            start_tile(tile + 1);
        const int64_t next_row =
            find_tile_row(tile + 2); /* the table's latency hides behind the arithmetic */
        score_tile<CACHE, DIM>(score, query, k, job.end - job.begin - tile * TOKENS);
        __syncthreads();
        weigh_scores(score, weight, rescale, state);
        __syncthreads();
        add_values<CACHE, DIM>(sum, weight, rescale, k + shape::STAGE_BYTES / 2);
        if (thread < TOKENS)
            rows[thread] = next_row;
    }
    __syncthreads();
    store_partial<CACHE, DIM>(a, job, reinterpret_cast<float *>(stages), sum, state);
}

/* A thread block a (token, query head), a thread a column. Merges the splits in order. No context: zeros. */
__global__ void combine_kernel(const quire__attend_args a, int splits)
{
    const int index = static_cast<int>(blockIdx.x) / a.query_heads,
              head = static_cast<int>(blockIdx.x) % a.query_heads;
    const int dim = static_cast<int>(blockDim.x), column = static_cast<int>(threadIdx.x);
    const int token = decode_token(a, index);
    const int used =
        (a.positions[token] + a.split_tokens) / a.split_tokens; /* ceil((position + 1) / split) */
    const int64_t first = partial_index(a, index, head, 0, splits);
    const float *stats = partial_stats(a, dim, splits) + 2 * first, *sums = a.work + first * dim;
    float peak = -INFINITY, total = 0.0f, weights = 0.0f;
    for (int split = 0; split < used; split++)
        peak = fmaxf(peak, stats[2 * split]);
    for (int split = 0; split < used; split++) {
        const float factor = qk_exp2(stats[2 * split] - peak);
        weights = fmaf(stats[2 * split + 1], factor, weights);
        total = fmaf(sums[static_cast<int64_t>(split) * dim + column], factor, total);
    }
    tensor_store(a.out, token * a.out.token_stride + head * a.out.head_stride + column,
                 used > 0 ? total / weights : 0.0f);
}

template <quire_dtype CACHE, int DIM, int HEADS>
static quire_status decode_launch(const quire__attend_args &args, void *stream)
{
    const int group = args.query_heads / args.pages.kv_heads, chunks = (group + HEADS - 1) / HEADS;
    const int splits = (args.longest_context + args.split_tokens - 1) / args.split_tokens;
    const int64_t blocks = static_cast<int64_t>(args.count) * args.pages.kv_heads * chunks;
    if (blocks > INT32_MAX || static_cast<int64_t>(args.count) * args.query_heads > INT32_MAX ||
        splits > 65535)
        return QUIRE_EINVAL;
    constexpr size_t shared = decode_shape<CACHE, DIM, HEADS>::SHARED_BYTES;
    if (qk_allow_dynamic_shared(decode_kernel<CACHE, DIM, HEADS>, shared) != 0)
        return QUIRE_EDEVICE;
    QK_LAUNCH((decode_kernel<CACHE, DIM, HEADS>),
              dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(splits)), dim3(ATTEND_THREADS),
              shared, stream, args, log2_exact(args.pages.block_tokens), chunks);
    if (qk_launch_status() != 0)
        return QUIRE_EDEVICE;
    QK_LAUNCH(combine_kernel, dim3(static_cast<unsigned>(args.count * args.query_heads)), dim3(DIM), 0,
              stream, args, splits);
    return launch_status();
}

template <quire_dtype CACHE, int DIM>
static quire_status decode_group(const quire__attend_args &args, void *stream)
{
    const int group = args.query_heads / args.pages.kv_heads;
    if (group == 1)
        return decode_launch<CACHE, DIM, 1>(args, stream);
    if (group == 2)
        return decode_launch<CACHE, DIM, 2>(args, stream);
    if (group <= 4)
        return decode_launch<CACHE, DIM, 4>(args, stream);
    return decode_launch<CACHE, DIM, 8>(args, stream);
}

template <quire_dtype CACHE> static quire_status decode_dim(const quire__attend_args &args, void *stream)
{
    switch (args.pages.head_dim) {
    case 64: return decode_group<CACHE, 64>(args, stream);
    case 128: return decode_group<CACHE, 128>(args, stream);
    case 256: return decode_group<CACHE, 256>(args, stream);
    default: return QUIRE_EUNSUPPORTED;
    }
}

} /* namespace qk */

extern "C" quire_status quire__cuda_attend_decode(const quire__attend_args *args, void *stream)
{
    const quire_status status = qk::check_attend(*args);
    if (status != QUIRE_OK || args->count == 0)
        return status;
    if (!args->token_rows || args->longest_context < 1 || args->split_tokens < 64 ||
        args->split_tokens % 64 != 0 || args->split_tokens % args->pages.block_tokens != 0)
        return QUIRE_EINVAL;
    const int64_t splits =
        (static_cast<int64_t>(args->longest_context) + args->split_tokens - 1) / args->split_tokens;
    if (!args->work ||
        args->work_floats < splits * args->count * args->query_heads * (args->pages.head_dim + 2))
        return QUIRE_EINVAL;
    switch (args->pages.dtype) {
    case QUIRE_DTYPE_F32: return qk::decode_dim<QUIRE_DTYPE_F32>(*args, stream);
    case QUIRE_DTYPE_F16: return qk::decode_dim<QUIRE_DTYPE_F16>(*args, stream);
    case QUIRE_DTYPE_BF16: return qk::decode_dim<QUIRE_DTYPE_BF16>(*args, stream);
    case QUIRE_DTYPE_FP8_E4M3: return qk::decode_dim<QUIRE_DTYPE_FP8_E4M3>(*args, stream);
    default: return QUIRE_EUNSUPPORTED;
    }
}
