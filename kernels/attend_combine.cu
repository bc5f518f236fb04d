/* attend_combine.cu: adds up the pieces of the contexts that decode cut (attend_split.cuh).
 *
 * Must move, for each piece and query head, head_dim sums and two numbers, which decode has just left in the L2: at
 * most 2 pieces a thread block of decode, so 4 MB for 396 of them, 8 heads and head_dim 128, and none where no context
 * was cut.
 *
 * - grid: x is the context, y a query head of the chunk. A context in one piece has nothing to do here, and its thread
 *   blocks return at once.
 * - 256 threads: head_dim / 4 of them side by side take a piece, 4 columns each, and as many pieces at once as there is
 *   room for: a context in 100 pieces is read in 12 rounds, not in 100.
 *
 * Order is fixed: a thread adds every SUBSETS-th piece up, then the subsets are added up.
 */
#include "attend_split.cuh"

namespace qk
{

constexpr int COMBINE_THREADS = 256;

__device__ __forceinline__ void combine_add(softmax_state &state, float4 &sum, const softmax_state &other,
                                            const float4 &x)
{
    float mine, theirs;
    softmax_merge(state, other, &mine, &theirs);
    sum = make_float4(fmaf(sum.x, mine, x.x * theirs), fmaf(sum.y, mine, x.y * theirs),
                      fmaf(sum.z, mine, x.z * theirs), fmaf(sum.w, mine, x.w * theirs));
}

static __global__ void __launch_bounds__(COMBINE_THREADS)
    combine_kernel(const quire__attend_args a, const split_plan plan)
{
    QK_SHARED(float4[COMBINE_THREADS], sums);
    QK_SHARED(softmax_state[COMBINE_THREADS], states);
    const split_description unit = split_descriptions(a)[blockIdx.x];
    const int head = static_cast<int>(blockIdx.y), thread = static_cast<int>(threadIdx.x);
    if (unit.pieces == 0 || head >= unit.heads)
        return;
    const int dim = a.pages.head_dim, fours = dim / 4, subsets = COMBINE_THREADS / fours;
    const int subset = thread / fours, column = thread % fours * 4;
    softmax_state state = softmax_empty();
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (subset < subsets) {
        QK_UNROLL_BY(4)
        for (int i = subset; i < unit.pieces; i += subsets) {
            const int64_t piece = i == 0 ? unit.first : static_cast<int64_t>(unit.next) + i - 1;
            combine_add(state, sum, split_states(a, plan, piece)[head],
                        *reinterpret_cast<const float4 *>(split_sums(a, plan, piece) + head * dim + column));
        }
    }
    sums[thread] = sum;
    states[thread] = state;
    __syncthreads();
    if (subset > 0)
        return;
    for (int i = 1; i < subsets; i++)
        combine_add(state, sum, states[i * fours + thread], sums[i * fours + thread]);
    const float factor = softmax_finish(a, state, unit.first_head + head);
    const int64_t to = unit.token * a.out.token_stride + (unit.first_head + head) * a.out.head_stride + column;
    store_four(a.out, to, make_float4(sum.x * factor, sum.y * factor, sum.z * factor, sum.w * factor),
               plan.out_aligned);
}

quire_status decode_combine(const quire__attend_args &args, const split_plan &plan, void *stream)
{
    const int64_t contexts = plan.split_tiles > 0 ? plan.contexts : plan.workers;
    QK_LAUNCH(combine_kernel, dim3(static_cast<unsigned>(contexts), static_cast<unsigned>(plan.chunk_heads)),
              dim3(COMBINE_THREADS), 0, stream, args, plan);
    return launch_status();
}

} /* namespace qk */
