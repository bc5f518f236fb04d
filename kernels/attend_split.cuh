/* attend_split.cuh: how decode shares contexts out to thread blocks, and where partial results lie.
 *
 * A unit is a (token, kv head, chunk of up to 16 query heads) with its context; contexts are counted in tiles of 16 keys
 * from the first one in the window. Units lie one behind the other, kv heads of a token next to each other.
 *
 *   balanced   (split_tokens 0)  The launch has a fixed number of thread blocks. All tiles of all units, in a row, are
 *              cut into as many equal runs as there are thread blocks, as in stream-K (Osama et al. 2023). A run crosses
 *              few units; what it holds of one is a piece. A thread block has at most two pieces that are not a whole
 *              unit, its first and its last, so the work space depends on the thread blocks only.
 *   fixed      (split_tokens > 0) Every unit is cut at multiples of split_tokens, each piece has a place of its own.
 *
 * Nothing but `positions` decides, and every thread block works it out by itself: 4 bytes a token, read twice. So a CUDA
 * graph that holds the launch stays right, and balanced, when contexts grow.
 *
 * A whole unit is written to `out` at once. Pieces are written to the work space, and who has a unit's first piece
 * describes it; combine (attend_combine.cu) adds the pieces of a unit up in order.
 *
 *     work: descriptions [contexts][8 ints] | sums [pieces][chunk heads][head_dim] | states [pieces][chunk heads][2]
 *
 * One thread of a block walks its run; the others read the piece from shared memory, which spares them the registers.
 */
#ifndef QUIRE_KERNELS_ATTEND_SPLIT_CUH
#define QUIRE_KERNELS_ATTEND_SPLIT_CUH

#include "attend.cuh"

namespace qk
{

constexpr int SPLIT_KEYS = 16;  /* of a tile */
constexpr int LEAST_TILES = 8;  /* of a balanced run: a shorter one would not be worth its combine */

/* A unit that is in several pieces: piece 0 is at `first`, piece i > 0 at next + i - 1. pieces 0: nothing to combine. */
struct split_description {
    int32_t token, first_head, heads, pieces, first, next, unused[2];
};
static_assert(sizeof(split_description) == QUIRE__ATTEND_DESCRIPTION * sizeof(float), "launch.h counts it in floats");

struct split_plan {
    int32_t workers, chunks, chunk_heads, units; /* units: of a token */
    int32_t split_tiles;                         /* 0: balanced */
    int32_t block_shift;
    int64_t contexts, pieces; /* of the work space */
    bool out_aligned;         /* store_four may store four at once */
};

__device__ __forceinline__ split_description *split_descriptions(const quire__attend_args &a)
{
    return reinterpret_cast<split_description *>(a.work);
}

__device__ __forceinline__ float *split_sums(const quire__attend_args &a, const split_plan &plan, int64_t piece)
{
    return a.work + plan.contexts * QUIRE__ATTEND_DESCRIPTION + piece * plan.chunk_heads * a.pages.head_dim;
}

__device__ __forceinline__ softmax_state *split_states(const quire__attend_args &a, const split_plan &plan,
                                                       int64_t piece)
{
    return reinterpret_cast<softmax_state *>(split_sums(a, plan, plan.pieces)) + piece * plan.chunk_heads;
}

/* ---- contexts ---------------------------------------------------------------------------------------- */

__device__ __forceinline__ int split_token(const quire__attend_args &a, int index)
{
    return a.select ? a.select[index] : a.first_token + index;
}

/* The tiles of a context; a token without one has a single tile, without keys, so that somebody writes its zeros. */
struct split_context {
    int token, begin, end; /* keys */
    int tile, tiles;
};

__device__ __forceinline__ split_context find_context(const quire__attend_args &a, int index)
{
    split_context context;
    context.token = split_token(a, index);
    const int position = a.positions[context.token];
    context.begin = window_begin(a, position);
    context.end = position + 1;
    context.tile = context.begin / SPLIT_KEYS;
    context.tiles = position < 0 ? 1 : position / SPLIT_KEYS - context.tile + 1;
    return context;
}

/* What a context counts for: tiles, or pieces where they are fixed. */
__device__ __forceinline__ int context_parts(const split_plan &plan, const split_context &context)
{
    if (plan.split_tiles == 0)
        return context.tiles;
    return (context.tile + context.tiles - 1) / plan.split_tiles - context.tile / plan.split_tiles + 1;
}

/* ---- the run of a thread block ----------------------------------------------------------------------- */

/* Where a thread block is in its run. */
struct split_cursor {
    int index, unit, part; /* of the next piece: token of the launch, unit of the token, parts of it that came before */
    int64_t number, left;  /* of the next part among all, and how many are left of the run */
    int64_t total, runs;
};

struct split_piece {
    int token, kv_head, first_head, heads;
    int begin, end;       /* keys of the context */
    int tile, tile_end;   /* of the piece */
    const int32_t *table;
    bool whole;           /* the piece is its unit: nothing to combine */
    int64_t place;        /* in the work space, if not */
};

/* Finds the run; all threads call it, thread 0 gets it. `sums`: shared memory, THREADS of them. */
template <int THREADS>
__device__ __forceinline__ split_cursor split_begin(const quire__attend_args &a, const split_plan &plan, int64_t *sums)
{
    const int each = (a.count + THREADS - 1) / THREADS, thread = static_cast<int>(threadIdx.x);
    int64_t sum = 0;
    for (int index = thread * each; index < min((thread + 1) * each, a.count); index++)
        sum += context_parts(plan, find_context(a, index));
    sums[thread] = sum;
    __syncthreads();
    split_cursor at = {};
    if (thread > 0)
        return at;
    for (int i = 0; i < THREADS; i++)
        at.total += sums[i];
    at.total *= plan.units;
    const int64_t most = plan.split_tiles == 0 ? (at.total + LEAST_TILES - 1) / LEAST_TILES : at.total;
    at.runs = most < plan.workers ? most : plan.workers;
    const int64_t block = blockIdx.x;
    if (block >= at.runs)
        return at;
    at.number = block * at.total / at.runs;
    at.left = (block + 1) * at.total / at.runs - at.number;
    int64_t before = 0;
    int chunk = 0;
    for (; before + sums[chunk] * plan.units <= at.number; chunk++)
        before += sums[chunk] * plan.units;
    for (at.index = chunk * each;; at.index++) {
        const int64_t parts = context_parts(plan, find_context(a, at.index));
        if (before + parts * plan.units > at.number) {
            at.unit = static_cast<int>((at.number - before) / parts);
            at.part = static_cast<int>((at.number - before) % parts);
            return at;
        }
        before += parts * plan.units;
    }
}

/* The next piece of the run; at.left > 0. Describes its unit where that is this thread block's to do. */
__device__ __forceinline__ split_piece split_next(const quire__attend_args &a, const split_plan &plan, split_cursor &at)
{
    const split_context context = find_context(a, at.index);
    const int parts = context_parts(plan, context), chunk = at.unit % plan.chunks;
    const int group = a.query_heads / a.pages.kv_heads;
    const bool fixed = plan.split_tiles > 0;
    const int taken = fixed ? 1 : static_cast<int>(at.left < parts - at.part ? at.left : parts - at.part);
    split_piece piece;
    piece.token = context.token;
    piece.kv_head = at.unit / plan.chunks;
    piece.first_head = piece.kv_head * group + chunk * plan.chunk_heads;
    piece.heads = min(plan.chunk_heads, group - chunk * plan.chunk_heads);
    piece.begin = context.begin;
    piece.end = context.end;
    piece.table = a.block_table + static_cast<int64_t>(a.token_rows[context.token]) * a.table_stride;
    if (fixed) {
        const int cut = (context.tile / plan.split_tiles + at.part) * plan.split_tiles;
        piece.tile = max(cut, context.tile);
        piece.tile_end = min(cut + plan.split_tiles, context.tile + context.tiles);
    } else {
        piece.tile = context.tile + at.part;
        piece.tile_end = piece.tile + taken;
    }
    if (context.end == 0)
        piece.tile_end = piece.tile;
    piece.whole = taken == parts;
    piece.place = fixed ? at.number : at.part == 0 ? static_cast<int64_t>(blockIdx.x) : plan.workers + blockIdx.x;
    if (at.part == 0 && (fixed || !piece.whole)) {
        const int64_t context_number = static_cast<int64_t>(at.index) * plan.units + at.unit;
        const int64_t last_run = ((at.number + parts) * at.runs - 1) / at.total;
        const int pieces = fixed ? parts : static_cast<int>(last_run - blockIdx.x + 1);
        split_descriptions(a)[fixed ? context_number : blockIdx.x] = {
            piece.token,
            piece.first_head,
            piece.heads,
            piece.whole ? 0 : pieces,
            static_cast<int32_t>(piece.place),
            static_cast<int32_t>(fixed ? at.number + 1 : plan.workers + blockIdx.x + 1),
            {0, 0}};
    }
    at.number += taken;
    at.left -= taken;
    at.part += taken;
    if (at.part == parts) {
        at.part = 0;
        if (++at.unit == plan.units) {
            at.unit = 0;
            at.index++;
        }
    }
    return piece;
}

/* A thread block's run in shared memory. piece.heads 0: it has ended. */
template <int THREADS> struct split_run {
    split_cursor at;
    split_piece piece;
    int64_t sums[THREADS];
};

/* All threads call it, at the start and whenever they have done with a piece; true: run.piece is the next. */
template <int THREADS>
__device__ __forceinline__ bool split_step(const quire__attend_args &a, const split_plan &plan, split_run<THREADS> &run,
                                           bool begin)
{
    if (begin) {
        const split_cursor at = split_begin<THREADS>(a, plan, run.sums);
        if (threadIdx.x == 0) {
            run.at = at;
            if (plan.split_tiles == 0) /* until this thread block begins a unit in several pieces */
                split_descriptions(a)[blockIdx.x].pieces = 0;
        }
    }
    if (threadIdx.x == 0) {
        if (run.at.left > 0)
            run.piece = split_next(a, plan, run.at);
        else
            run.piece.heads = 0;
    }
    __syncthreads();
    return run.piece.heads > 0;
}

/* ---- what launchers need ----------------------------------------------------------------------------- */

inline split_plan make_split_plan(const quire__attend_args &args)
{
    const int group = args.query_heads / args.pages.kv_heads;
    split_plan plan = {};
    const int most = args.pages.dtype == QUIRE_DTYPE_F32 ? QUIRE__ATTEND_CHUNK_F32 : QUIRE__ATTEND_CHUNK;
    plan.chunk_heads = group < most ? group : most;
    plan.chunks = (group + plan.chunk_heads - 1) / plan.chunk_heads;
    plan.units = args.pages.kv_heads * plan.chunks;
    plan.split_tiles = args.split_tokens / SPLIT_KEYS;
    plan.workers = args.workers;
    plan.block_shift = log2_exact(args.pages.block_tokens);
    plan.out_aligned = four_aligned(args.out);
    const int64_t units = static_cast<int64_t>(args.count) * plan.units;
    if (plan.split_tiles > 0) {
        const int64_t splits =
            (static_cast<int64_t>(args.longest_context) + args.split_tokens - 1) / args.split_tokens;
        plan.contexts = units;
        plan.pieces = units * splits;
        plan.workers = static_cast<int32_t>(plan.pieces < INT32_MAX ? plan.pieces : INT32_MAX);
    } else {
        plan.contexts = plan.workers;
        plan.pieces = 2 * static_cast<int64_t>(plan.workers);
    }
    return plan;
}

/* The launch: as many thread blocks as are resident at once, or fewer. The work space is laid out for that many. */
inline void limit_workers(split_plan &plan, int resident)
{
    if (resident > 0 && resident < plan.workers)
        plan.workers = resident;
}

/* By dtype, in attend_decode_*.cu; and what follows them. */
quire_status decode_f32(const quire__attend_args &args, split_plan &plan, void *stream);
quire_status decode_f16(const quire__attend_args &args, split_plan &plan, void *stream);
quire_status decode_bf16(const quire__attend_args &args, split_plan &plan, void *stream);
quire_status decode_fp8(const quire__attend_args &args, split_plan &plan, void *stream);
quire_status decode_fp8_e5m2(const quire__attend_args &args, split_plan &plan, void *stream);
quire_status decode_int8(const quire__attend_args &args, split_plan &plan, void *stream);
quire_status decode_int4(const quire__attend_args &args, split_plan &plan, void *stream);
quire_status decode_combine(const quire__attend_args &args, const split_plan &plan, void *stream);

} /* namespace qk */

#endif
