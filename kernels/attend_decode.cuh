/* attend_decode.cuh: attention of single tokens over long contexts, on tensor cores; a template over the cache's dtype
 * and head_dim, compiled by attend_decode_*.cu. Caches of f32 go to attend_decode_f32.cu.
 *
 * Must move, per token and kv head, the K and V rows of its context once: 2 * context * head_dim elements. Everything
 * else is small, so the aim is the memory's bandwidth: 3.35 TB/s over 132 multiprocessors is 14.5 bytes a clock for each.
 *
 * Why it gets there
 * - Each warp is on its own: it streams tiles of 16 keys through its own ring of STAGES stages by cp.async, computes,
 *   and keeps its own softmax. No barrier between warps until the end of a piece, where their results are added up.
 * - Bytes in flight: with bf16 and head_dim 128 a stage is 8 KiB, 12 warps are resident (3 thread blocks of 4, 74 KiB
 *   each, at most 168 registers), and each has one stage under way while it computes the other: about 96 KiB a
 *   multiprocessor. Latency times bandwidth is 1 us * 25 GB/s = 25 KiB.
 * - Arithmetic: m16n8k16 takes the chunk's query heads as its 16 rows, whatever the group is: 1, 5, 7 or 16 heads cost
 *   the same, and no head makes the kernel read K and V again. A tile of 16 keys and 128 dims is 48 mma, about 100 clocks
 *   of the tensor cores, 13 KiB through shared memory, 100 clocks, and about 500 instructions of one warp, 125 clocks;
 *   it takes 565 clocks to arrive.
 * - Work is balanced to a tile, 16 keys, over the thread blocks (attend_split.cuh).
 *
 * Weights go into the second product as a sum of two operands, so that what they lose by rounding is 2^-17 (bf16) or
 * 2^-22 (f16) instead of 2^-9 and 2^-12. Tensor cores have room for it.
 *
 * A token's bits depend on its own context only when pieces are fixed: tiles begin at multiples of 16, and a tile
 * belongs to the warp (tile % warps), whatever else is in the batch.
 */
#ifndef QUIRE_KERNELS_ATTEND_DECODE_CUH
#define QUIRE_KERNELS_ATTEND_DECODE_CUH

#include "attend_mma.cuh"
#include "attend_split.cuh"

namespace qk
{

template <quire_dtype CACHE, int DIM> struct decode_shape {
    static constexpr int ROW_BYTES = (DIM * code_bits<CACHE> / 8 + 15) / 16 * 16;
    static constexpr int PITCH = ROW_BYTES + 16; /* the rows of an ldmatrix lie in different banks */
    static constexpr bool F32 = CACHE == QUIRE_DTYPE_F32;
    static constexpr int WARPS = (DIM <= 128 ? 4 : 2) / (F32 ? 2 : 1), THREADS = 32 * WARPS;
    static constexpr int STAGE_BYTES = 2 * SPLIT_KEYS * PITCH; /* of one warp: K, V */
    /* what fits three times into a multiprocessor of 228 KiB, and once into one of 100 */
    static constexpr int STAGES_THAT_FIT = 71680 / (WARPS * STAGE_BYTES);
    static constexpr int STAGES = STAGES_THAT_FIT > 4 ? 4 : STAGES_THAT_FIT;
    static_assert(STAGES >= 2, "one arrives while the other is used");
    /* at the end of a piece the stages hold each warp's sums; 8 more: rows in different banks */
    static constexpr int SUM_PITCH = DIM + 8;
    static constexpr int SUM_BYTES = WARPS * QUIRE__ATTEND_CHUNK * SUM_PITCH * 4;
    static constexpr int RING_BYTES = WARPS * STAGES * STAGE_BYTES;
    static constexpr int STREAM_BYTES = RING_BYTES > SUM_BYTES ? RING_BYTES : SUM_BYTES;
    static constexpr int QUERY_PITCH = F32 ? DIM * 4 : DIM * 2 + 16;
    static constexpr int QUERY_BYTES = QUIRE__ATTEND_CHUNK * QUERY_PITCH; /* of one operand */
    static constexpr int BLOCKS = 3;                                      /* of a multiprocessor */
    /* scales of a tile: a half word a row, or (int4) two for each 32 elements; of a warp, [K, V][key][SCALES and what
     * pads them] */
    static constexpr bool CODES = code_bits<CACHE> <= 8;
    static constexpr int SCALES = !CODES ? 0 : CACHE == QUIRE_DTYPE_INT4 ? (DIM + INT4_RUN - 1) / INT4_RUN * 2 : 1;
    static constexpr int SCALE_WORDS = (SCALES + 1) / 2, SCALE_PITCH = SCALE_WORDS * 4 + 4;
    static constexpr int SCALE_BYTES = CODES ? 2 * SPLIT_KEYS * SCALE_PITCH : 0;
};

/* A warp's scales of its tile. */
template <quire_dtype CACHE, int DIM> struct decode_scales {
    const unsigned char *rows;

    __device__ __forceinline__ const unsigned char *of(int kv, int key) const /* kv 0: K, 1: V */
    {
        return rows + (kv * SPLIT_KEYS + key) * decode_shape<CACHE, DIM>::SCALE_PITCH;
    }
    /* The f16 of a row. */
    __device__ __forceinline__ uint32_t bits(int kv, int key) const
    {
        return *reinterpret_cast<const unsigned short *>(of(kv, key));
    }
    /* int4: the word of a run. */
    __device__ __forceinline__ uint32_t word(int kv, int key, int run) const
    {
        return reinterpret_cast<const uint32_t *>(of(kv, key))[run];
    }
};

/* ---- fragments --------------------------------------------------------------------------------------- */

/* B operands of a tile of 16 keys. `keys`: b[0], b[1] of 16 dims for keys 0..7, b[2], b[3] for keys 8..15. `values`:
 * calls use(n, b0, b1) for accumulators n = 0 .. DIM/8 - 1, b0 and b1 being its 16 keys. `column`: the dim that column c
 * of accumulator n stands for; it is BESIDE dims per lane that lie side by side. */
template <quire_dtype CACHE, int DIM, bool CODES = decode_shape<CACHE, DIM>::CODES> struct decode_fragments;

template <quire_dtype CACHE, int DIM> struct decode_fragments<CACHE, DIM, false> {
    static constexpr int PITCH = decode_shape<CACHE, DIM>::PITCH;

    static __device__ __forceinline__ void keys(uint32_t (&b)[4], const unsigned char *k, int dim,
                                                const decode_scales<CACHE, DIM> &)
    {
        const int lane = static_cast<int>(threadIdx.x) % 32, matrix = lane / 8;
        qk_ldmatrix_x4(b, k + (lane % 8 + matrix / 2 * 8) * PITCH + matrix % 2 * 16 + dim * 2);
    }
    template <class Use>
    static __device__ __forceinline__ void values(const unsigned char *v, const decode_scales<CACHE, DIM> &,
                                                  const Use &use)
    {
        const int lane = static_cast<int>(threadIdx.x) % 32, matrix = lane / 8;
        const unsigned char *row = v + (lane % 8 + matrix % 2 * 8) * PITCH + matrix / 2 * 16;
        QK_UNROLL
        for (int n = 0; n < DIM / 8; n += 2) {
            uint32_t b[4];
            qk_ldmatrix_x4_trans(b, row + n * 16);
            use(n, b[0], b[1]);
            use(n + 1, b[2], b[3]);
        }
    }
    /* This lane's sums of one row, to float32. */
    static __device__ __forceinline__ void store(float *row, const float (&sum)[DIM / 8][4], int half)
    {
        const int lane = static_cast<int>(threadIdx.x) % 32;
        QK_UNROLL
        for (int n = 0; n < DIM / 8; n++)
            *reinterpret_cast<float2 *>(row + n * 8 + lane % 4 * 2) =
                make_float2(sum[n][half * 2], sum[n][half * 2 + 1]);
    }
};

/* Codes of 8 and 4 bits. No instruction turns them into operands, but which dim is which column is ours to choose: a lane
 * reads neighbouring dims of a key as one word. Of K, four dims are its columns 2t, 2t+1, 2t+8, 2t+9 of 16, and q is laid
 * out the same way (query_column); a word of int4 is two times that. Of V, a word is the lane's column in as many
 * accumulators as it has dims: 8 or 4, at the end of a head_dim like 80 fewer. Scales of a row are left to scores and
 * weights; int4's steps are multiplied in here, exactly. */
template <quire_dtype CACHE, int DIM> struct decode_fragments<CACHE, DIM, true> {
    static constexpr int PITCH = decode_shape<CACHE, DIM>::PITCH;
    static constexpr bool INT4 = CACHE == QUIRE_DTYPE_INT4;

    static __device__ __forceinline__ uint32_t word(const unsigned char *from)
    {
        return *reinterpret_cast<const uint32_t *>(from);
    }

    static __device__ __forceinline__ void keys(uint32_t (&b)[4], const unsigned char *k, int dim,
                                                const decode_scales<CACHE, DIM> &scales)
    {
        const int lane = static_cast<int>(threadIdx.x) % 32, t = lane % 4;
        QK_UNROLL
        for (int half = 0; half < 2; half++) {
            const int key = half * 8 + lane / 4;
            const unsigned char *row = k + key * PITCH;
            uint32_t pairs[2];
            if constexpr (INT4) {
                const bool full = dim / 32 * 32 + 32 <= DIM; /* else the last 16 dims */
                const int at = full ? dim / 32 * 16 + t * 4 : dim / 2 + t / 2 * 4;
                const uint32_t run = scales.word(0, key, dim / 32);
                const uint32_t codes = word(row + at) >> (full ? dim % 32 / 2 : t % 2 * 8);
                const int4_pair pair = int4_scales(run, run, full ? t : dim % 32 / INT4_GROUP + t / 2);
                pairs[0] = int4_values(codes, pair);
                pairs[1] = int4_values(codes >> 4, pair);
            } else {
                unpack_f16<CACHE>(word(row + dim + t * 4), pairs);
            }
            b[half * 2] = pairs[0];
            b[half * 2 + 1] = pairs[1];
        }
    }

    /* Accumulators come in runs: the lane's column c of the i-th is dim 8 n + SIDE c + i, n being the first. */
    template <int N> static constexpr int SIDE = INT4 && N * 8 + 64 <= DIM ? 8 : N * 8 + 32 <= DIM ? 4 : 2;

    /* Each dim of the run for a pair of keys, `key` of V and the next, as f16. */
    template <int N>
    static __device__ __forceinline__ void value_pairs(uint32_t (&pairs)[SIDE<N>], const unsigned char *v, int key,
                                                       const decode_scales<CACHE, DIM> &scales)
    {
        constexpr int side = SIDE<N>;
        const int g = static_cast<int>(threadIdx.x) % 32 / 4;
        const unsigned char *row = v + key * PITCH;
        if constexpr (INT4) {
            const int dim = N * 8 + g * side, run = dim / INT4_RUN, shift = dim % 8 * 2;
            const uint32_t first = word(row + dim / 8 * 4), second = word(row + PITCH + dim / 8 * 4);
            const int4_pair pair = int4_scales(scales.word(1, key, run), scales.word(1, key + 1, run),
                                               dim % INT4_RUN / INT4_GROUP);
            const uint32_t even = __byte_perm(first, second, 0x5410) >> shift;
            const uint32_t odd = __byte_perm(first, second, 0x7632) >> shift;
            QK_UNROLL
            for (int i = 0; i < side; i++)
                pairs[i] = int4_values((i % 2 == 0 ? even : odd) >> i / 2 * 4, pair);
        } else {
            const unsigned char *at = row + N * 8 + g * side;
            uint32_t first, second;
            if constexpr (side == 4) {
                first = word(at);
                second = word(at + PITCH);
            } else {
                first = *reinterpret_cast<const unsigned short *>(at);
                second = *reinterpret_cast<const unsigned short *>(at + PITCH);
            }
            QK_UNROLL
            for (int i = 0; i < side; i += 2) { /* bytes i of both, then bytes i + 1 of both */
                const unsigned select = static_cast<unsigned>(i | (4 + i) << 4 | (i + 1) << 8 | (5 + i) << 12);
                uint32_t two[2];
                unpack_f16<CACHE>(__byte_perm(first, second, select), two);
                pairs[i] = two[0];
                pairs[i + 1] = two[1];
            }
        }
    }

    template <int N = 0, class Use>
    static __device__ __forceinline__ void values(const unsigned char *v, const decode_scales<CACHE, DIM> &scales,
                                                  const Use &use)
    {
        constexpr int side = SIDE<N>;
        const int key = static_cast<int>(threadIdx.x) % 4 * 2; /* and its next, and 8 further */
        uint32_t near[side], far[side];
        value_pairs<N>(near, v, key, scales);
        value_pairs<N>(far, v, key + 8, scales);
        QK_UNROLL
        for (int i = 0; i < side; i++)
            use(N + i, near[i], far[i]);
        if constexpr ((N + side) * 8 < DIM)
            values<N + side>(v, scales, use);
    }

    template <int N = 0>
    static __device__ __forceinline__ void store(float *row, const float (&sum)[DIM / 8][4], int half)
    {
        constexpr int side = SIDE<N>;
        QK_UNROLL
        for (int i = 0; i < 2; i++) {
            float *to = row + N * 8 + (static_cast<int>(threadIdx.x) % 4 * 2 + i) * side;
            QK_UNROLL
            for (int n = 0; n < side; n += 2)
                *reinterpret_cast<float2 *>(to + n) =
                    make_float2(sum[N + n][half * 2 + i], sum[N + n + 1][half * 2 + i]);
        }
        if constexpr ((N + side) * 8 < DIM)
            store<N + side>(row, sum, half);
    }
};

/* ---- one tile ---------------------------------------------------------------------------------------- */

/* The two rows of a lane: query heads lane / 4 and lane / 4 + 8 of the chunk. `sum` is of this lane's keys only until
 * the end of a piece; the peak is the whole row's. */
template <int DIM> struct decode_rows {
    float factor[2], cap; /* score_rule */
    softmax_state state[2];
    float sum[DIM / 8][4];
};

template <quire_dtype CACHE, int DIM>
__device__ __forceinline__ void decode_scores(float (&score)[2][4], const unsigned char *queries, int terms,
                                              const unsigned char *k, const decode_scales<CACHE, DIM> &scales)
{
    using shape = decode_shape<CACHE, DIM>;
    const int lane = static_cast<int>(threadIdx.x) % 32, matrix = lane / 8;
    const unsigned char *a_row = queries + (lane % 8 + matrix % 2 * 8) * shape::QUERY_PITCH + matrix / 2 * 16;
    QK_UNROLL
    for (int n = 0; n < 2; n++)
        score[n][0] = score[n][1] = score[n][2] = score[n][3] = 0.0f;
    for (int term = terms - 1; term >= 0; term--) { /* the smaller one first */
        QK_UNROLL_BY(4)
        for (int dim = 0; dim < DIM; dim += 16) {
            uint32_t a[4], b[4];
            decode_fragments<CACHE, DIM>::keys(b, k, dim, scales);
            qk_ldmatrix_x4(a, a_row + term * shape::QUERY_BYTES + dim * 2);
            multiply_add<CACHE>(score[0], a, b[0], b[1]);
            multiply_add<CACHE>(score[1], a, b[2], b[3]);
        }
    }
}

/* Weights times the scales of V are operands in f16, whose normal numbers end at 6e-5: so many times as large. */
constexpr float ROW_SCALE_UNIT = 64.0f;

/* Scores or weights times the scales of their rows. */
template <quire_dtype CACHE, int DIM>
__device__ __forceinline__ void decode_scale_rows(float (&x)[2][4], const decode_scales<CACHE, DIM> &scales, int kv)
{
    QK_UNROLL
    for (int i = 0; i < 4; i++) {
        const int key = static_cast<int>(threadIdx.x) % 4 * 2 + i / 2 * 8 + i % 2;
        const float scale = f16_pair_load(scales.bits(kv, key)).x * (kv == 1 ? ROW_SCALE_UNIT : 1.0f);
        x[i / 2][i % 2] *= scale;
        x[i / 2][2 + i % 2] *= scale;
    }
}

/* Scores to weights. `first`: key of the tile's column 0. halves: 1 when no query head is in rows 8..15. */
template <int DIM>
__device__ __forceinline__ void decode_weigh(float (&score)[2][4], decode_rows<DIM> &rows, int halves, int first,
                                             int begin, int end)
{
    const int key = first + static_cast<int>(threadIdx.x) % 4 * 2;
    float rescale[2] = {1.0f, 1.0f};
    QK_UNROLL
    for (int half = 0; half < 2; half++) {
        if (half >= halves) {
            score[0][2] = score[0][3] = score[1][2] = score[1][3] = 0.0f;
            break;
        }
        float most = -INFINITY;
        QK_UNROLL
        for (int i = 0; i < 4; i++)
            score[i / 2][half * 2 + i % 2] *= rows.factor[half];
        if (rows.cap > 0.0f) {
            QK_UNROLL
            for (int i = 0; i < 4; i++)
                score[i / 2][half * 2 + i % 2] = soft_tanh(score[i / 2][half * 2 + i % 2]) * rows.cap;
        }
        QK_UNROLL
        for (int i = 0; i < 4; i++) {
            float &s = score[i / 2][half * 2 + i % 2];
            const int at = key + i / 2 * 8 + i % 2;
            s = at >= begin && at < end ? s : -INFINITY;
            most = fmaxf(most, s);
        }
        softmax_state &state = rows.state[half];
        const float peak = fmaxf(state.peak, lanes_max<4>(most));
        rescale[half] = qk_exp2(state.peak - peak); /* first tile: 2^-inf = 0 */
        state.peak = peak;
        state.sum *= rescale[half];
        QK_UNROLL
        for (int i = 0; i < 4; i++) {
            float &s = score[i / 2][half * 2 + i % 2];
            s = qk_exp2(s - peak);
            state.sum += s;
        }
    }
    /* peaks move seldom once a context is long; times 1 would change nothing */
    if (__any_sync(ALL_LANES, rescale[0] != 1.0f || rescale[1] != 1.0f)) {
        QK_UNROLL
        for (int n = 0; n < DIM / 8; n++) {
            QK_UNROLL
            for (int i = 0; i < 4; i++)
                rows.sum[n][i] *= rescale[i / 2];
        }
    }
}

template <quire_dtype CACHE, int DIM>
__device__ __forceinline__ void decode_values(decode_rows<DIM> &rows, const float (&weight)[2][4],
                                              const unsigned char *v, const decode_scales<CACHE, DIM> &scales)
{
    constexpr bool twice = CACHE != QUIRE_DTYPE_INT4; /* whose own rounding is 2^-12 */
    uint32_t high[4], low[4];
    QK_UNROLL
    for (int i = 0; i < 4; i++) {
        const float x = weight[i / 2][i % 2 * 2], y = weight[i / 2][i % 2 * 2 + 1];
        high[i] = operand_pair<CACHE>(x, y);
        const float2 rounded = operand_floats<CACHE>(high[i]);
        low[i] = operand_pair<CACHE>(x - rounded.x, y - rounded.y);
    }
    decode_fragments<CACHE, DIM>::values(v, scales, [&](int n, uint32_t b0, uint32_t b1) {
        if constexpr (twice)
            multiply_add<CACHE>(rows.sum[n], low, b0, b1);
        multiply_add<CACHE>(rows.sum[n], high, b0, b1);
    });
}

/* ---- a warp's stream --------------------------------------------------------------------------------- */

/* A warp's tiles of a piece: from `next` on, every WARPS-th. Lane i holds the place of key i % 16 of the next tile, read
 * from the table a tile ahead, so that nobody waits for it. */
template <quire_dtype CACHE, int DIM> struct decode_stream {
    using shape = decode_shape<CACHE, DIM>;

    __device__ __forceinline__ decode_stream(const quire__attend_args &args, const split_piece &of, int shift,
                                             unsigned char *stages)
        : a(args), piece(of), pages(page_head(args.pages, args.layer, of.kv_head)), ring(stages),
          once(qk_read_once()), block_shift(shift)
    {
        const int warp = static_cast<int>(threadIdx.x) / 32;
        scaled = shape::CODES && a.pages.scale_stride != 0;
        first = piece.tile + (warp - piece.tile % shape::WARPS + shape::WARPS) % shape::WARPS;
        next = first;
        row = place(next);
    }
    __device__ __forceinline__ int64_t place(int tile) const
    {
        const int end = min(piece.end, piece.tile_end * SPLIT_KEYS);
        return find_row(a.pages, piece.table, tile * SPLIT_KEYS + static_cast<int>(threadIdx.x) % 16, piece.begin, end,
                        block_shift);
    }
    /* Starts the copy of the next tile, if there is one. One cp.async group either way. */
    __device__ __forceinline__ void start()
    {
        constexpr int words = shape::ROW_BYTES / 16, all = SPLIT_KEYS * words;
        const int lane = static_cast<int>(threadIdx.x) % 32;
        if (next < piece.tile_end) {
            unsigned char *k = ring + slot * shape::STAGE_BYTES, *v = k + shape::STAGE_BYTES / 2;
            QK_UNROLL
            for (int i = 0; i < (all + 31) / 32; i++) {
                const int word = i * 32 + lane, key = word / words, column = word % words * 16;
                const int64_t from = __shfl_sync(ALL_LANES, row, key % SPLIT_KEYS);
                if (all % 32 != 0 && word >= all)
                    break;
                const bool exists = from != NO_ROW;
                const unsigned char *source = pages + (exists ? from : 0) + column;
                qk_cp_async16_once(k + key * shape::PITCH + column, source, exists, once);
                qk_cp_async16_once(v + key * shape::PITCH + column, source + a.pages.kv_stride, exists, once);
            }
            push_scales(next);
            next += shape::WARPS;
            row = place(next);
        } else {
            push_scales(piece.tile_end);
        }
        qk_cp_async_commit();
        slot = slot + 1 == shape::STAGES ? 0 : slot + 1;
    }

    /* Lane i reads the scales of K (below 16) or V of key i % 16 of a tile that start has under way; they wait in
     * registers until give_scales hands the oldest to the warp. */
    __device__ __forceinline__ void push_scales(int tile)
    {
        if constexpr (shape::CODES) {
            if (!scaled)
                return;
            QK_UNROLL
            for (int i = 0; i + 1 < shape::STAGES - 1; i++) {
                QK_UNROLL
                for (int word = 0; word < shape::SCALE_WORDS; word++)
                    waiting[i][word] = waiting[i + 1][word];
            }
            const int lane = static_cast<int>(threadIdx.x) % 32, key = tile * SPLIT_KEYS + lane % 16;
            uint32_t(&words)[shape::SCALE_WORDS] = waiting[shape::STAGES - 2];
            QK_UNROLL
            for (int word = 0; word < shape::SCALE_WORDS; word++)
                words[word] = 0;
            if (key < piece.begin || key >= piece.end || tile >= piece.tile_end)
                return;
            const unsigned short *from =
                row_scales(a.pages, pages + lane / 16 * a.pages.kv_stride, piece.table[key >> block_shift],
                           key & (a.pages.block_tokens - 1));
            if constexpr (shape::SCALES % 8 == 0) { /* where a token's scales start: multiples of 16 bytes, of 4, of 2 */
                QK_UNROLL
                for (int i = 0; i < shape::SCALE_WORDS; i += 4) {
                    const uint4 four = load16(from + i * 2);
                    words[i] = four.x, words[i + 1] = four.y, words[i + 2] = four.z, words[i + 3] = four.w;
                }
            } else if constexpr (shape::SCALES % 2 == 0) {
                QK_UNROLL
                for (int i = 0; i < shape::SCALE_WORDS; i++)
                    words[i] = reinterpret_cast<const uint32_t *>(from)[i];
            } else {
                QK_UNROLL
                for (int i = 0; i < shape::SCALES; i++)
                    words[i / 2] |= static_cast<uint32_t>(from[i]) << i % 2 * 16;
            }
        }
    }
    __device__ __forceinline__ void give_scales(unsigned char *to) const
    {
        if constexpr (shape::CODES) {
            QK_UNROLL
            for (int word = 0; word < shape::SCALE_WORDS && scaled; word++)
                reinterpret_cast<uint32_t *>(to + threadIdx.x % 32 * shape::SCALE_PITCH)[word] = waiting[0][word];
        }
    }

    const quire__attend_args &a;
    const split_piece &piece;
    const unsigned char *pages;
    unsigned char *ring;
    uint64_t once;
    int block_shift, first, next, slot = 0;
    bool scaled;
    int64_t row;
    uint32_t waiting[shape::CODES ? shape::STAGES - 1 : 1][shape::CODES ? shape::SCALE_WORDS : 1] = {};
};

/* ---- a piece ----------------------------------------------------------------------------------------- */

template <quire_dtype CACHE, int DIM>
__device__ __forceinline__ void decode_queries(unsigned char *queries, float *factors, const quire__attend_args &a,
                                               const split_piece &piece, int terms)
{
    using shape = decode_shape<CACHE, DIM>;
    constexpr bool paired = shape::CODES;
    const float factor = find_score_rule(a, piece.kv_head).factor;
    for (int row = static_cast<int>(threadIdx.x) / 32; row < QUIRE__ATTEND_CHUNK; row += shape::WARPS) {
        const int64_t place = piece.token * a.q.token_stride + (piece.first_head + row) * a.q.head_stride;
        const float size = load_query_row<CACHE, DIM, shape::QUERY_BYTES, paired>(
            queries + row * shape::QUERY_PITCH, a.q, row < piece.heads ? place : -1, terms, a.pages.rotation != 0);
        if (threadIdx.x % 32 == 0)
            factors[row] = factor * size;
    }
}

/* Adds the warps' sums up in order; the result goes to `out`, or to the work space. */
template <int DIM, int WARPS, int PITCH>
__device__ __forceinline__ void decode_store(const quire__attend_args &a, const split_plan &plan,
                                             const split_piece &piece, const float *sums,
                                             const softmax_state (&states)[WARPS][QUIRE__ATTEND_CHUNK])
{
    for (int i = static_cast<int>(threadIdx.x); i < piece.heads * (DIM / 4); i += WARPS * 32) {
        const int head = i / (DIM / 4), column = i % (DIM / 4) * 4;
        softmax_state state = states[0][head];
        float4 total = *reinterpret_cast<const float4 *>(sums + head * PITCH + column);
        QK_UNROLL
        for (int warp = 1; warp < WARPS; warp++) {
            const float4 x =
                *reinterpret_cast<const float4 *>(sums + (warp * QUIRE__ATTEND_CHUNK + head) * PITCH + column);
            float mine, theirs;
            softmax_merge(state, states[warp][head], &mine, &theirs);
            total = make_float4(fmaf(total.x, mine, x.x * theirs), fmaf(total.y, mine, x.y * theirs),
                                fmaf(total.z, mine, x.z * theirs), fmaf(total.w, mine, x.w * theirs));
        }
        float scale = page_scale(a.pages, 1, piece.kv_head);
        if (a.pages.scale_stride != 0 && a.pages.dtype != QUIRE_DTYPE_INT4)
            scale = 1.0f / ROW_SCALE_UNIT;
        if (piece.whole) {
            const int query_head = piece.first_head + head;
            scale *= softmax_finish(a, state, query_head);
            const int64_t to = piece.token * a.out.token_stride + query_head * a.out.head_stride + column;
            store_four(a.out, to, make_float4(total.x * scale, total.y * scale, total.z * scale, total.w * scale),
                       plan.out_aligned);
        } else {
            *reinterpret_cast<float4 *>(split_sums(a, plan, piece.place) + head * DIM + column) =
                make_float4(total.x * scale, total.y * scale, total.z * scale, total.w * scale);
            if (column == 0)
                split_states(a, plan, piece.place)[head] = state;
        }
    }
}

template <quire_dtype CACHE, int DIM>
__device__ __forceinline__ void decode_piece(const quire__attend_args &a, const split_plan &plan,
                                             const split_piece &piece, int terms, unsigned char *shared,
                                             float *factors,
                                             softmax_state (&states)[decode_shape<CACHE, DIM>::WARPS]
                                                                    [QUIRE__ATTEND_CHUNK])
{
    using shape = decode_shape<CACHE, DIM>;
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    unsigned char *ring = shared + warp * shape::STAGES * shape::STAGE_BYTES, *queries = shared + shape::STREAM_BYTES;
    decode_stream<CACHE, DIM> stream(a, piece, plan.block_shift, ring);
    QK_UNROLL
    for (int i = 0; i < shape::STAGES - 1; i++)
        stream.start();
    decode_queries<CACHE, DIM>(queries, factors, a, piece, terms);
    if (QK_PLANTED != 1)
        __syncthreads(); /* every warp needs all rows of q */
    decode_rows<DIM> rows = {};
    rows.cap = find_score_rule(a, piece.kv_head).cap;
    QK_UNROLL
    for (int half = 0; half < 2; half++) {
        rows.factor[half] = factors[lane / 4 + half * 8];
        rows.state[half] = softmax_empty();
    }
    const int halves = piece.heads > 8 ? 2 : 1;
    unsigned char *scale_rows = queries + terms * shape::QUERY_BYTES + warp * shape::SCALE_BYTES;
    const decode_scales<CACHE, DIM> scales = {scale_rows};
    const bool row_scaled = shape::SCALES == 1 && stream.scaled;
    int slot = 0;
    for (int tile = stream.first; tile < piece.tile_end; tile += shape::WARPS) {
        qk_cp_async_wait<shape::STAGES - 2 + (QK_PLANTED == 2)>();
        __syncwarp(); /* the tile is here for all lanes, and all have done with the stage that start fills */
        if (stream.scaled)
            stream.give_scales(scale_rows);
        stream.start();
        if (stream.scaled)
            __syncwarp(); /* scales are there for all lanes */
        const unsigned char *k = ring + slot * shape::STAGE_BYTES;
        float score[2][4];
        decode_scores<CACHE, DIM>(score, queries, terms, k, scales);
        if (row_scaled)
            decode_scale_rows<CACHE, DIM>(score, scales, 0);
        decode_weigh<DIM>(score, rows, halves, tile * SPLIT_KEYS, piece.begin, piece.end);
        if (row_scaled)
            decode_scale_rows<CACHE, DIM>(score, scales, 1);
        decode_values<CACHE, DIM>(rows, score, k + shape::STAGE_BYTES / 2, scales);
        slot = slot + 1 == shape::STAGES ? 0 : slot + 1;
    }
    qk_cp_async_wait<0>();
    __syncthreads(); /* all warps have done with the stages */
    float *sums = reinterpret_cast<float *>(shared);
    QK_UNROLL
    for (int half = 0; half < 2; half++) {
        const int row = lane / 4 + half * 8;
        const float sum = lanes_sum<4>(rows.state[half].sum);
        if (row >= piece.heads)
            continue;
        if (lane % 4 == 0)
            states[warp][row] = {rows.state[half].peak, sum};
        decode_fragments<CACHE, DIM>::store(sums + (warp * QUIRE__ATTEND_CHUNK + row) * shape::SUM_PITCH, rows.sum,
                                            half);
    }
    __syncthreads();
    decode_store<DIM, shape::WARPS, shape::SUM_PITCH>(a, plan, piece, sums, states);
    __syncthreads(); /* the stages and q may be filled again */
}

/* ---- the kernel -------------------------------------------------------------------------------------- */

template <quire_dtype CACHE, int DIM>
__global__ void __launch_bounds__(decode_shape<CACHE, DIM>::THREADS, decode_shape<CACHE, DIM>::BLOCKS)
    decode_kernel(const quire__attend_args a, const split_plan plan, int terms)
{
    using shape = decode_shape<CACHE, DIM>;
    using warp_states = softmax_state[shape::WARPS][QUIRE__ATTEND_CHUNK];
    QK_DYNAMIC_SHARED(unsigned char, shared); /* the warps' rings, [terms] operands of q, the warps' scales */
    QK_SHARED(float[QUIRE__ATTEND_CHUNK], factors);
    QK_SHARED(warp_states, states);
    QK_SHARED(split_run<shape::THREADS>, run);

    for (bool more = split_step(a, plan, run, true); more; more = split_step(a, plan, run, false))
        decode_piece<CACHE, DIM>(a, plan, run.piece, terms, shared, factors, states);
}

template <quire_dtype CACHE, int DIM>
static quire_status decode_launch(const quire__attend_args &args, split_plan &plan, void *stream)
{
    using shape = decode_shape<CACHE, DIM>;
    const int terms = query_terms(args);
    const size_t shared = static_cast<size_t>(shape::STREAM_BYTES + terms * shape::QUERY_BYTES +
                                              shape::WARPS * shape::SCALE_BYTES);
    if (qk_allow_dynamic_shared(decode_kernel<CACHE, DIM>, shared) != 0)
        return QUIRE_EDEVICE;
    limit_workers(plan, qk_resident_blocks(decode_kernel<CACHE, DIM>, shape::THREADS, shared));
    QK_LAUNCH((decode_kernel<CACHE, DIM>), dim3(static_cast<unsigned>(plan.workers)), dim3(shape::THREADS), shared,
              stream, args, plan, terms);
    return launch_status();
}

template <quire_dtype CACHE>
static quire_status decode_dim(const quire__attend_args &args, split_plan &plan, void *stream)
{
    switch (args.pages.head_dim) {
    case 64: return decode_launch<CACHE, 64>(args, plan, stream);
    case 80: return decode_launch<CACHE, 80>(args, plan, stream);
    case 96: return decode_launch<CACHE, 96>(args, plan, stream);
    case 128: return decode_launch<CACHE, 128>(args, plan, stream);
    case 192: return decode_launch<CACHE, 192>(args, plan, stream);
    case 256: return decode_launch<CACHE, 256>(args, plan, stream);
    default: return QUIRE_EUNSUPPORTED;
    }
}

} /* namespace qk */

#endif
