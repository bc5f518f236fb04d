/* pieces.cu: gather pieces of the arena side by side into staging, and scatter them back.
 *
 * Moves 2 * piece_bytes a piece. For pieces too small for the copy engine (below 64 KiB); staging may be
 * device memory or mapped host memory. Launch: a thread block for each 32 KiB of each piece, in one grid
 * dimension.
 */
#include "copy.cuh"

namespace qk
{

template <bool GATHER>
__global__ void __launch_bounds__(COPY_THREADS) pieces_kernel(const quire__pieces_args a, int slices)
{
    const int64_t piece = blockIdx.x / static_cast<unsigned>(slices),
                  slice = blockIdx.x % static_cast<unsigned>(slices);
    unsigned char *in_arena = a.arena + a.offsets[piece], *in_staging = a.staging + piece * a.piece_bytes;
    copy_slice(GATHER ? in_staging : in_arena, GATHER ? in_arena : in_staging, a.piece_bytes, slice);
}

template <bool GATHER> static quire_status pieces_launch(const quire__pieces_args &args, void *stream)
{
    if (args.count < 0 || args.piece_bytes < 0)
        return QUIRE_EINVAL;
    if (args.count == 0 || args.piece_bytes == 0)
        return QUIRE_OK;
    if (!args.arena || !args.staging || !args.offsets || !aligned(args.arena, 16) ||
        !aligned(args.staging, 16) || args.piece_bytes % 16 != 0)
        return QUIRE_EINVAL;
    const int64_t slices = copy_slices(args.piece_bytes);
    if (slices > INT32_MAX / args.count)
        return QUIRE_EINVAL;
    QK_LAUNCH(pieces_kernel<GATHER>, dim3(static_cast<unsigned>(slices * args.count)), dim3(COPY_THREADS), 0,
              stream, args, static_cast<int>(slices));
    return launch_status();
}

} /* namespace qk */

extern "C" quire_status quire__cuda_gather(const quire__pieces_args *args, void *stream)
{
    return qk::pieces_launch<true>(*args, stream);
}

extern "C" quire_status quire__cuda_scatter(const quire__pieces_args *args, void *stream)
{
    return qk::pieces_launch<false>(*args, stream);
}
