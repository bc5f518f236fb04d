/* attend_decode_f32.cu: attend_decode.cuh for caches of f32, in f32 arithmetic: tensor cores would round K and V.
 *
 * Must move 2 * context * head_dim elements per token and kv head, as there; streams, pieces and the end of a piece are
 * the same. A tile of 16 keys: for scores, two lanes share a key, each with half of the dims; for sums, a lane has every
 * 32nd column of all query heads. Multiply-adds, 2 * heads of them an element, are the limit from 4 heads a kv head on.
 */
#include "attend_decode.cuh"

namespace qk
{

constexpr int F32_HEADS = QUIRE__ATTEND_CHUNK_F32;

template <int DIM> using f32_shape = decode_shape<QUIRE_DTYPE_F32, DIM>;

/* A warp's weights of a tile, and what the sums before it are to be multiplied with. */
struct f32_weights {
    float weight[SPLIT_KEYS][F32_HEADS], rescale[F32_HEADS];
};

/* Lane h has the softmax of query head h of the chunk. */
template <int DIM>
__device__ __forceinline__ void f32_weigh(f32_weights &to, softmax_state &state, const float *query,
                                          const score_rule &rule, const split_piece &piece, const unsigned char *k,
                                          int tile)
{
    const int lane = static_cast<int>(threadIdx.x) % 32, column = lane % SPLIT_KEYS;
    const int key = tile * SPLIT_KEYS + column, first = lane / SPLIT_KEYS * (DIM / 2);
    const unsigned char *row = k + column * f32_shape<DIM>::PITCH + first * 4;
    for (int head = 0; head < piece.heads; head++) {
        float dot = 0.0f;
        QK_UNROLL_BY(4)
        for (int dim = 0; dim < DIM / 2; dim += 4) {
            const float4 q = *reinterpret_cast<const float4 *>(query + head * DIM + first + dim);
            float x[4];
            load_elements<QUIRE_DTYPE_F32>(row + dim * 4, x);
            dot = fmaf(q.w, x[3], fmaf(q.z, x[2], fmaf(q.y, x[1], fmaf(q.x, x[0], dot))));
        }
        dot += __shfl_xor_sync(ALL_LANES, dot, SPLIT_KEYS);
        if (rule.cap > 0.0f)
            dot = soft_tanh(dot) * rule.cap;
        dot = key >= piece.begin && key < piece.end ? dot : -INFINITY;
        const float before = __shfl_sync(ALL_LANES, state.peak, head);
        const float peak = fmaxf(before, lanes_max<SPLIT_KEYS>(dot)), weight = qk_exp2(dot - peak);
        const float sum = lanes_sum<SPLIT_KEYS>(weight), rescale = qk_exp2(before - peak); /* first tile: 0 */
        if (lane < SPLIT_KEYS)
            to.weight[column][head] = weight;
        if (lane == head) {
            to.rescale[head] = rescale;
            state = {peak, fmaf(state.sum, rescale, sum)};
        }
    }
}

template <int DIM, int COLUMNS>
__device__ __forceinline__ void f32_values(float (&sum)[F32_HEADS][COLUMNS], const f32_weights &from,
                                           const unsigned char *v, int heads)
{
    const int lane = static_cast<int>(threadIdx.x) % 32;
    QK_UNROLL
    for (int head = 0; head < F32_HEADS; head++) {
        QK_UNROLL
        for (int c = 0; c < COLUMNS && head < heads; c++)
            sum[head][c] *= from.rescale[head];
    }
    for (int key = 0; key < SPLIT_KEYS; key++) {
        const float *row = reinterpret_cast<const float *>(v + key * f32_shape<DIM>::PITCH);
        float x[COLUMNS];
        QK_UNROLL
        for (int c = 0; c < COLUMNS; c++)
            x[c] = c * 32 + lane < DIM ? row[c * 32 + lane] : 0.0f;
        QK_UNROLL
        for (int head = 0; head < F32_HEADS; head++) {
            QK_UNROLL
            for (int c = 0; c < COLUMNS && head < heads; c++)
                sum[head][c] = fmaf(from.weight[key][head], x[c], sum[head][c]);
        }
    }
}

template <int DIM>
__device__ __forceinline__ void f32_piece(const quire__attend_args &a, const split_plan &plan,
                                          const split_piece &piece, unsigned char *shared, f32_weights &weights,
                                          softmax_state (&states)[f32_shape<DIM>::WARPS][QUIRE__ATTEND_CHUNK])
{
    using shape = f32_shape<DIM>;
    constexpr int COLUMNS = (DIM + 31) / 32;
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    unsigned char *ring = shared + warp * shape::STAGES * shape::STAGE_BYTES;
    float *query = reinterpret_cast<float *>(shared + shape::STREAM_BYTES);
    decode_stream<QUIRE_DTYPE_F32, DIM> stream(a, piece, plan.block_shift, ring);
    QK_UNROLL
    for (int i = 0; i < shape::STAGES - 1; i++)
        stream.start();
    const score_rule rule = find_score_rule(a, piece.kv_head);
    const int64_t first = piece.token * a.q.token_stride + piece.first_head * a.q.head_stride;
    for (int i = static_cast<int>(threadIdx.x); i < piece.heads * DIM; i += shape::THREADS)
        query[i] = tensor_load(a.q, first + i / DIM * a.q.head_stride + i % DIM) * rule.factor;
    __syncthreads();
    float sum[F32_HEADS][COLUMNS] = {};
    softmax_state state = softmax_empty();
    int slot = 0;
    for (int tile = stream.first; tile < piece.tile_end; tile += shape::WARPS) {
        qk_cp_async_wait<shape::STAGES - 2>();
        __syncwarp(); /* the tile is here for all lanes, and all have done with the stage that start fills */
        stream.start();
        const unsigned char *k = ring + slot * shape::STAGE_BYTES;
        f32_weigh<DIM>(weights, state, query, rule, piece, k, tile);
        __syncwarp();
        f32_values<DIM>(sum, weights, k + shape::STAGE_BYTES / 2, piece.heads);
        slot = slot + 1 == shape::STAGES ? 0 : slot + 1;
    }
    qk_cp_async_wait<0>();
    __syncthreads(); /* all warps have done with the stages */
    float *sums = reinterpret_cast<float *>(shared);
    if (lane < piece.heads)
        states[warp][lane] = state;
    QK_UNROLL
    for (int head = 0; head < F32_HEADS; head++) {
        QK_UNROLL
        for (int c = 0; c < COLUMNS; c++)
            if (head < piece.heads && c * 32 + lane < DIM)
                sums[(warp * QUIRE__ATTEND_CHUNK + head) * shape::SUM_PITCH + c * 32 + lane] = sum[head][c];
    }
    __syncthreads();
    decode_store<DIM, shape::WARPS, shape::SUM_PITCH>(a, plan, piece, sums, states);
    __syncthreads(); /* the stages and q may be filled again */
}

template <int DIM>
__global__ void __launch_bounds__(f32_shape<DIM>::THREADS)
    decode_f32_kernel(const quire__attend_args a, const split_plan plan)
{
    using shape = f32_shape<DIM>;
    using warp_states = softmax_state[shape::WARPS][QUIRE__ATTEND_CHUNK];
    QK_DYNAMIC_SHARED(unsigned char, shared); /* the warps' rings, then q */
    QK_SHARED(f32_weights[shape::WARPS], weights);
    QK_SHARED(warp_states, states);
    QK_SHARED(split_run<shape::THREADS>, run);

    for (bool more = split_step(a, plan, run, true); more; more = split_step(a, plan, run, false))
        f32_piece<DIM>(a, plan, run.piece, shared, weights[threadIdx.x / 32], states);
}

template <int DIM>
static quire_status decode_f32_launch(const quire__attend_args &args, split_plan &plan, void *stream)
{
    using shape = f32_shape<DIM>;
    constexpr size_t shared = shape::STREAM_BYTES + shape::QUERY_BYTES;
    if (qk_allow_dynamic_shared(decode_f32_kernel<DIM>, shared) != 0)
        return QUIRE_EDEVICE;
    limit_workers(plan, qk_resident_blocks(decode_f32_kernel<DIM>, shape::THREADS, shared));
    QK_LAUNCH(decode_f32_kernel<DIM>, dim3(static_cast<unsigned>(plan.workers)), dim3(shape::THREADS), shared, stream,
              args, plan);
    return launch_status();
}

quire_status decode_f32(const quire__attend_args &args, split_plan &plan, void *stream)
{
    switch (args.pages.head_dim) {
    case 64: return decode_f32_launch<64>(args, plan, stream);
    case 80: return decode_f32_launch<80>(args, plan, stream);
    case 96: return decode_f32_launch<96>(args, plan, stream);
    case 128: return decode_f32_launch<128>(args, plan, stream);
    case 192: return decode_f32_launch<192>(args, plan, stream);
    case 256: return decode_f32_launch<256>(args, plan, stream);
    default: return QUIRE_EUNSUPPORTED;
    }
}

} /* namespace qk */
