/* attend_shared.cu: decode attention of sequences that begin with the same blocks. The shared part of the context is read
 * once for all of them, as in Hydragen (Juravsky et al. 2024) and the cascade of FlashInfer (Ye et al. 2025): the queries
 * of a group are the rows of one matrix, and attention to the prefix is a product of matrices; each sequence's own tail is
 * computed apart, and the parts are merged by their peaks and sums of weights.
 *
 * Must move K and V of a group's prefix once for each 64 of its (sequence, query head of the kv head) rows, of which all
 * but the first read find it in the L2 cache; K and V of each tail once; and a partial result of head_dim + 2 floats, out
 * and in, per (sequence, query head, split), which is why a prefix is cut only as far as it takes to fill the GPU.
 *
 * Three launches. shared_kernel<false> takes (group, 64 rows, kv head, split of the prefix): a warp has 16 rows and every
 * key of the tile. shared_kernel<true> takes (sequence, 16 heads, kv head, split of the tail): all warps have the same 16
 * rows and a quarter of the keys each, and store a partial result each. combine_kernel merges the partial results of a
 * row in their order. All is FlashAttention-2 by mma, as in attend_prefill.cu, without a mask but at the end of a
 * context: scores in registers, weights rounded to the operand type, two tiles of 64 keys in shared memory.
 *
 * Bits depend on who shares what: the deterministic mode does not come here. Caches of bf16 and f16, head_dim 64 and 128.
 */
#include "attend.cuh"

namespace qk
{

constexpr int SHARED_THREADS = 128, SHARED_WARPS = SHARED_THREADS / 32;
constexpr int SHARED_ROWS = 64, SHARED_KEYS = 64;

template <int DIM, bool TAIL> struct shared_shape {
    static constexpr int ROWS = TAIL ? 16 : SHARED_ROWS;                   /* of a thread block */
    static constexpr int WARP_KEYS = TAIL ? SHARED_KEYS / 4 : SHARED_KEYS; /* of a tile */
    static constexpr int PITCH = DIM * 2 + 16; /* the eight rows of an ldmatrix lie in different banks */
    static constexpr int STAGE_BYTES = 2 * SHARED_KEYS * PITCH, QUERY_BYTES = ROWS * PITCH;
    static constexpr int SHARED_BYTES = QUERY_BYTES + 2 * STAGE_BYTES;
};

template <quire_dtype CACHE> __device__ __forceinline__ uint32_t shared_pair(float low, float high)
{
    return CACHE == QUIRE_DTYPE_BF16 ? bf16_pair_store(low, high) : f16_pair_store(low, high);
}

template <quire_dtype CACHE>
__device__ __forceinline__ void shared_mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    const uint32_t b[2] = {b0, b1};
    if constexpr (CACHE == QUIRE_DTYPE_BF16)
        qk_mma_bf16_16816(d, a, b);
    else
        qk_mma_f16_16816(d, a, b);
}

/* ---- what a thread block does -------------------------------------------------------------------------- */

/* Rows are (member, query head of the kv head), head fastest; a member is an index into args.attend.select. */
struct shared_job {
    int first_row, rows; /* rows: that exist, maybe 0 or less */
    int kv_head, group;
    int begin, end; /* keys; begin >= end: nothing to do */
    int slot;       /* of the partial results, of this thread block's first warp */
    const int32_t *table;

    __device__ __forceinline__ int member(int row) const
    {
        return (first_row + row) / group;
    }
    __device__ __forceinline__ int head(int row) const
    {
        return kv_head * group + (first_row + row) % group;
    }
};

__device__ __forceinline__ int prefix_slots(const quire__shared_args &a)
{
    return (a.longest_prefix + a.prefix_split - 1) / a.prefix_split;
}

__device__ __forceinline__ int tail_slots(const quire__shared_args &a)
{
    return (a.longest_tail + a.attend.split_tokens - 1) / a.attend.split_tokens * SHARED_WARPS;
}

template <bool TAIL> __device__ __forceinline__ shared_job find_shared_job(const quire__shared_args &a, int chunks)
{
    const int x = static_cast<int>(blockIdx.x) / chunks, chunk = static_cast<int>(blockIdx.x) % chunks;
    const int split = static_cast<int>(blockIdx.z);
    shared_job job;
    int member;
    job.kv_head = static_cast<int>(blockIdx.y);
    job.group = a.attend.query_heads / a.attend.pages.kv_heads;
    if (TAIL) {
        member = x;
        job.first_row = member * job.group + chunk * 16;
        job.rows = min(16, job.group - chunk * 16);
        job.begin = a.prefix_tokens[member] + split * a.attend.split_tokens;
        job.end = min(job.begin + a.attend.split_tokens, a.attend.positions[a.attend.select[member]] + 1);
        job.slot = prefix_slots(a) + split * SHARED_WARPS;
    } else {
        const quire__shared_group group = a.groups[x];
        member = group.first;
        job.first_row = member * job.group + chunk * SHARED_ROWS;
        job.rows = min(SHARED_ROWS, group.members * job.group - chunk * SHARED_ROWS);
        job.begin = split * a.prefix_split;
        job.end = min(job.begin + a.prefix_split, a.prefix_tokens[member]);
        job.slot = split;
    }
    job.table = a.attend.block_table +
                static_cast<int64_t>(a.attend.token_rows[a.attend.select[member]]) * a.attend.table_stride;
    return job;
}

/* Rows of q as operands, brought near 1 by a power of two, and what their scores are multiplied with. Rows that do not
 * exist are zeros. */
template <quire_dtype CACHE, int DIM, bool TAIL>
__device__ __forceinline__ void load_shared_queries(unsigned char *operands,
                                                    float (&factor)[shared_shape<DIM, TAIL>::ROWS],
                                                    const quire__shared_args &a, const shared_job &job)
{
    using shape = shared_shape<DIM, TAIL>;
    const quire_tensor &q = a.attend.q;
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    for (int row = warp; row < shape::ROWS; row += SHARED_WARPS) {
        float x[DIM / 32], most = 0.0f;
        const bool exists = row < job.rows;
        const int64_t first = exists ? a.attend.select[job.member(row)] * q.token_stride + job.head(row) * q.head_stride : 0;
        QK_UNROLL
        for (int i = 0; i < DIM / 32; i++) {
            x[i] = exists ? tensor_load(q, first + i * 32 + lane) : 0.0f;
            most = fmaxf(most, fabsf(x[i]));
        }
        uint32_t exponent = __float_as_uint(lanes_max<32>(most)) >> 23;
        exponent = exponent == 0 || exponent >= 254 ? 127 : exponent; /* no normal reciprocal: as it is */
        QK_UNROLL
        for (int i = 0; i < DIM / 32; i++)
            *reinterpret_cast<unsigned short *>(operands + row * shape::PITCH + (i * 32 + lane) * 2) =
                static_cast<unsigned short>(
                    shared_pair<CACHE>(x[i] * __uint_as_float((254 - exponent) << 23), 0.0f));
        if (lane == 0)
            factor[row] = a.attend.scale * LOG2_E * __uint_as_float(exponent << 23);
    }
}

/* Starts the copy of a tile of K and of V. Rows that do not exist become zeros. */
template <int DIM, int PITCH>
__device__ __forceinline__ void copy_shared_tile(unsigned char *k, const unsigned char *pages, int64_t kv_stride,
                                                 const int64_t *rows)
{
    constexpr int words = DIM * 2 / 16;
    QK_UNROLL
    for (int i = 0; i < SHARED_KEYS * words / SHARED_THREADS; i++) {
        const int word = i * SHARED_THREADS + static_cast<int>(threadIdx.x), row = word / words;
        const int column = word % words * 16;
        const bool exists = rows[row] != NO_ROW;
        const unsigned char *from = pages + (exists ? rows[row] : 0) + column;
        qk_cp_async16(k + row * PITCH + column, from, exists);
        qk_cp_async16(k + (SHARED_KEYS + row) * PITCH + column, from + kv_stride, exists);
    }
    qk_cp_async_commit();
}

/* ---- one tile ---------------------------------------------------------------------------------------- */

/* Accumulators of mma m16n8k16: element 2 * half + i of block n is row lane / 4 + 8 * half of the warp's 16,
 * column 8 * n + lane % 4 * 2 + i. */
template <quire_dtype CACHE, int DIM, int KEYS, int PITCH>
__device__ __forceinline__ void shared_scores(float (&score)[KEYS / 8][4], const unsigned char *queries,
                                              const unsigned char *k)
{
    const int lane = static_cast<int>(threadIdx.x) % 32, matrix = lane / 8;
    const unsigned char *a_row = queries + (lane % 8 + matrix % 2 * 8) * PITCH + matrix / 2 * 16;
    const unsigned char *b_row = k + (lane % 8 + matrix / 2 * 8) * PITCH + matrix % 2 * 16;
    QK_UNROLL
    for (int n = 0; n < KEYS / 8; n++)
        score[n][0] = score[n][1] = score[n][2] = score[n][3] = 0.0f;
    QK_UNROLL
    for (int column = 0; column < DIM; column += 16) {
        uint32_t a[4];
        qk_ldmatrix_x4(a, a_row + column * 2);
        QK_UNROLL
        for (int n = 0; n < KEYS / 8; n += 2) {
            uint32_t b[4];
            qk_ldmatrix_x4(b, b_row + n * 8 * PITCH + column * 2);
            shared_mma<CACHE>(score[n], a, b[0], b[1]);
            shared_mma<CACHE>(score[n + 1], a, b[2], b[3]);
        }
    }
}

/* The two rows of a thread. `sum` is of this thread's columns only until the end. */
struct shared_state {
    float factor[2], peak[2], sum[2];
};

/* Scores to weights, and what earlier sums are to be multiplied with. `left`: of the warp's keys, those that exist; a
 * warp may have none at all. */
template <int KEYS>
__device__ __forceinline__ void shared_weigh(float (&score)[KEYS / 8][4], shared_state &state, float (&rescale)[2],
                                             int left)
{
    const int first = static_cast<int>(threadIdx.x) % 4 * 2;
    QK_UNROLL
    for (int half = 0; half < 2; half++) {
        float most = -INFINITY;
        QK_UNROLL
        for (int n = 0; n < KEYS / 8; n++) {
            QK_UNROLL
            for (int i = 0; i < 2; i++) {
                float &s = score[n][half * 2 + i];
                s = first + n * 8 + i < left ? s * state.factor[half] : -INFINITY;
                most = fmaxf(most, s);
            }
        }
        const float peak = fmaxf(state.peak[half], lanes_max<4>(most)), base = peak == -INFINITY ? 0.0f : peak;
        rescale[half] = qk_exp2(state.peak[half] - base);
        state.peak[half] = peak;
        state.sum[half] *= rescale[half];
        QK_UNROLL
        for (int n = 0; n < KEYS / 8; n++) {
            QK_UNROLL
            for (int i = 0; i < 2; i++) {
                float &s = score[n][half * 2 + i];
                s = qk_exp2(s - base);
                state.sum[half] += s;
            }
        }
    }
}

template <quire_dtype CACHE, int DIM, int KEYS, int PITCH>
__device__ __forceinline__ void shared_values(float (&sum)[DIM / 8][4], const float (&weight)[KEYS / 8][4],
                                              const float (&rescale)[2], const unsigned char *v)
{
    const int lane = static_cast<int>(threadIdx.x) % 32, matrix = lane / 8;
    const unsigned char *b_row = v + (lane % 8 + matrix % 2 * 8) * PITCH + matrix / 2 * 16;
    QK_UNROLL
    for (int n = 0; n < DIM / 8; n++) {
        QK_UNROLL
        for (int i = 0; i < 4; i++)
            sum[n][i] *= rescale[i / 2];
    }
    QK_UNROLL
    for (int key = 0; key < KEYS; key += 16) {
        const float(&low)[4] = weight[key / 8], (&high)[4] = weight[key / 8 + 1];
        const uint32_t a[4] = {shared_pair<CACHE>(low[0], low[1]), shared_pair<CACHE>(low[2], low[3]),
                               shared_pair<CACHE>(high[0], high[1]), shared_pair<CACHE>(high[2], high[3])};
        QK_UNROLL
        for (int n = 0; n < DIM / 8; n += 2) {
            uint32_t b[4];
            qk_ldmatrix_x4_trans(b, b_row + key * PITCH + n * 16);
            shared_mma<CACHE>(sum[n], a, b[0], b[1]);
            shared_mma<CACHE>(sum[n + 1], a, b[2], b[3]);
        }
    }
}

/* ---- the kernels ------------------------------------------------------------------------------------- */

/* Partial results in `work`: [member][query head][slot][DIM] sums, then as many (peak, sum of weights). The slots of a
 * member are the splits of its prefix, then for each split of its tail one a warp. */
__device__ __forceinline__ float *shared_stats(const quire__shared_args &a, int dim, int slots)
{
    return a.attend.work + static_cast<int64_t>(a.attend.count) * a.attend.query_heads * slots * dim;
}

template <int DIM>
__device__ __forceinline__ void store_shared(const quire__shared_args &a, const shared_job &job,
                                             const shared_state &state, const float (&sum)[DIM / 8][4], int first_row,
                                             int slot)
{
    const int lane = static_cast<int>(threadIdx.x) % 32, slots = prefix_slots(a) + tail_slots(a);
    QK_UNROLL
    for (int half = 0; half < 2; half++) {
        const float total = lanes_sum<4>(state.sum[half]);
        const int row = first_row + lane / 4 + half * 8;
        if (row >= job.rows)
            continue;
        const int64_t partial =
            (static_cast<int64_t>(job.member(row)) * a.attend.query_heads + job.head(row)) * slots + slot;
        float *to = a.attend.work + partial * DIM + lane % 4 * 2;
        QK_UNROLL
        for (int n = 0; n < DIM / 8; n++)
            *reinterpret_cast<float2 *>(to + n * 8) = make_float2(sum[n][half * 2], sum[n][half * 2 + 1]);
        if (lane % 4 == 0)
            *reinterpret_cast<float2 *>(shared_stats(a, DIM, slots) + 2 * partial) =
                make_float2(state.peak[half], total);
    }
}

template <quire_dtype CACHE, int DIM, bool TAIL>
__global__ void __launch_bounds__(SHARED_THREADS)
    shared_kernel(const quire__shared_args a, int block_shift, int chunks)
{
    using shape = shared_shape<DIM, TAIL>;
    constexpr int KEYS = shape::WARP_KEYS, PITCH = shape::PITCH;
    QK_DYNAMIC_SHARED(unsigned char, queries);
    QK_SHARED(float[shape::ROWS], factors);
    QK_SHARED(int64_t[2][SHARED_KEYS], key_rows);
    const shared_job job = find_shared_job<TAIL>(a, chunks);
    if (job.rows <= 0 || job.begin >= job.end)
        return;
    const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
    const int first_row = TAIL ? 0 : warp * 16, first_key = TAIL ? warp * KEYS : 0;
    const int tiles = (job.end - job.begin + SHARED_KEYS - 1) / SHARED_KEYS;
    const unsigned char *pages = page_head(a.attend.pages, a.attend.layer, job.kv_head);
    unsigned char *stages = queries + shape::QUERY_BYTES;
    const auto start_tile = [&](int tile) {
        copy_shared_tile<DIM, PITCH>(stages + tile % 2 * shape::STAGE_BYTES, pages, a.attend.pages.kv_stride,
                                     key_rows[tile % 2]);
    };
    const auto find_tile_rows = [&](int tile) {
        if (thread < SHARED_KEYS)
            key_rows[tile % 2][thread] =
                find_row(a.attend.pages, job.table, job.begin + tile * SHARED_KEYS + thread, job.end, block_shift);
    };

    load_shared_queries<CACHE, DIM, TAIL>(queries, factors, a, job);
    find_tile_rows(0);
    find_tile_rows(1);
    __syncthreads();
    shared_state state;
    QK_UNROLL
    for (int half = 0; half < 2; half++) {
        state.factor[half] = factors[first_row + lane / 4 + half * 8];
        state.peak[half] = -INFINITY;
        state.sum[half] = 0.0f;
    }
    float sum[DIM / 8][4] = {};
    start_tile(0);
    for (int tile = 0; tile < tiles; tile++) {
        const unsigned char *k = stages + tile % 2 * shape::STAGE_BYTES + first_key * PITCH;
        qk_cp_async_wait<0>();
        __syncthreads(); /* the tile is here; the other stage and this tile's key_rows are free */
        if (tile + 1 < tiles)
            start_tile(tile + 1);
        if (first_row < job.rows) {
            float score[KEYS / 8][4], rescale[2];
            shared_scores<CACHE, DIM, KEYS, PITCH>(score, queries + first_row * PITCH, k);
            shared_weigh<KEYS>(score, state, rescale, job.end - job.begin - tile * SHARED_KEYS - first_key);
            shared_values<CACHE, DIM, KEYS, PITCH>(sum, score, rescale, k + SHARED_KEYS * PITCH);
        }
        find_tile_rows(tile + 2);
    }
    store_shared<DIM>(a, job, state, sum, first_row, job.slot + (TAIL ? warp : 0));
}

/* A thread block a (member, query head), a thread a column. Merges the slots that were written, in order. */
__global__ void shared_combine_kernel(const quire__shared_args a)
{
    const int member = static_cast<int>(blockIdx.x) / a.attend.query_heads;
    const int head = static_cast<int>(blockIdx.x) % a.attend.query_heads;
    const int dim = static_cast<int>(blockDim.x), column = static_cast<int>(threadIdx.x);
    const int token = a.attend.select[member], prefix = a.prefix_tokens[member];
    const int tail = a.attend.positions[token] + 1 - prefix, first_tail = prefix_slots(a);
    const int slots = first_tail + tail_slots(a);
    const int used_prefix = (prefix + a.prefix_split - 1) / a.prefix_split;
    const int used_tail = (tail + a.attend.split_tokens - 1) / a.attend.split_tokens * SHARED_WARPS;
    const int64_t first = static_cast<int64_t>(blockIdx.x) * slots;
    const float *stats = shared_stats(a, dim, slots) + 2 * first, *sums = a.attend.work + first * dim + column;
    float peak = -INFINITY, total = 0.0f, weights = 0.0f;
    for (int i = 0; i < used_prefix + used_tail; i++)
        peak = fmaxf(peak, stats[2 * (i < used_prefix ? i : first_tail + i - used_prefix)]);
    for (int i = 0; i < used_prefix + used_tail; i++) {
        const int slot = i < used_prefix ? i : first_tail + i - used_prefix;
        const float factor = qk_exp2(stats[2 * slot] - peak);
        weights = fmaf(stats[2 * slot + 1], factor, weights);
        total = fmaf(sums[static_cast<int64_t>(slot) * dim], factor, total);
    }
    tensor_store(a.attend.out, token * a.attend.out.token_stride + head * a.attend.out.head_stride + column,
                 total / weights);
}

/* ---- launch ------------------------------------------------------------------------------------------ */

template <quire_dtype CACHE, int DIM, bool TAIL>
static quire_status shared_part(const quire__shared_args &args, int64_t jobs, int rows, int splits, void *stream)
{
    using shape = shared_shape<DIM, TAIL>;
    const int chunks = (rows + shape::ROWS - 1) / shape::ROWS;
    if (jobs * chunks > INT32_MAX || splits > 65535)
        return QUIRE_EINVAL;
    if (qk_allow_dynamic_shared(shared_kernel<CACHE, DIM, TAIL>, shape::SHARED_BYTES) != 0)
        return QUIRE_EDEVICE;
    QK_LAUNCH((shared_kernel<CACHE, DIM, TAIL>),
              dim3(static_cast<unsigned>(jobs * chunks), static_cast<unsigned>(args.attend.pages.kv_heads),
                   static_cast<unsigned>(splits)),
              dim3(SHARED_THREADS), static_cast<size_t>(shape::SHARED_BYTES), stream, args,
              log2_exact(args.attend.pages.block_tokens), chunks);
    return launch_status();
}

template <quire_dtype CACHE, int DIM> static quire_status shared_launch(const quire__shared_args &args, void *stream)
{
    const int group = args.attend.query_heads / args.attend.pages.kv_heads;
    const int prefix_splits = (args.longest_prefix + args.prefix_split - 1) / args.prefix_split;
    const int tail_splits = (args.longest_tail + args.attend.split_tokens - 1) / args.attend.split_tokens;
    quire_status status = shared_part<CACHE, DIM, false>(args, args.group_count, args.most_members * group,
                                                         prefix_splits, stream);
    if (status == QUIRE_OK)
        status = shared_part<CACHE, DIM, true>(args, args.attend.count, group, tail_splits, stream);
    if (status != QUIRE_OK)
        return status;
    QK_LAUNCH(shared_combine_kernel, dim3(static_cast<unsigned>(args.attend.count * args.attend.query_heads)), dim3(DIM),
              0, stream, args);
    return launch_status();
}

template <quire_dtype CACHE> static quire_status shared_dim(const quire__shared_args &args, void *stream)
{
    switch (args.attend.pages.head_dim) {
    case 64: return shared_launch<CACHE, 64>(args, stream);
    case 128: return shared_launch<CACHE, 128>(args, stream);
    default: return QUIRE_EUNSUPPORTED;
    }
}

} /* namespace qk */

extern "C" quire_status quire__cuda_attend_shared(const quire__shared_args *args, void *stream)
{
    const quire__attend_args &attend = args->attend;
    const quire_status status = qk::check_attend(attend);
    if (status != QUIRE_OK || attend.count == 0)
        return status;
    if (attend.window > 0 || attend.soft_cap > 0 || attend.sinks || attend.pages.value_dim > 0)
        return QUIRE_EUNSUPPORTED;
    if (!attend.select || !attend.token_rows || !args->groups || !args->prefix_tokens || args->group_count < 1 ||
        args->most_members < 1 || args->longest_prefix < 1 || args->longest_tail < 1 || args->prefix_split < 1 ||
        attend.split_tokens < 1 || attend.pages.kv_heads > 65535 ||
        static_cast<int64_t>(attend.count) * attend.query_heads > INT32_MAX)
        return QUIRE_EINVAL;
    const int64_t slots =
        (static_cast<int64_t>(args->longest_prefix) + args->prefix_split - 1) / args->prefix_split +
        (static_cast<int64_t>(args->longest_tail) + attend.split_tokens - 1) / attend.split_tokens * qk::SHARED_WARPS;
    if (!attend.work || !qk::aligned(attend.work, 8) ||
        attend.work_floats < slots * attend.count * attend.query_heads * (attend.pages.head_dim + 2))
        return QUIRE_EINVAL;
    switch (attend.pages.dtype) {
    case QUIRE_DTYPE_F16: return qk::shared_dim<QUIRE_DTYPE_F16>(*args, stream);
    case QUIRE_DTYPE_BF16: return qk::shared_dim<QUIRE_DTYPE_BF16>(*args, stream);
    default: return QUIRE_EUNSUPPORTED;
    }
}
