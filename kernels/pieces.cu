/* pieces.cu: gather pieces of the arena side by side into staging, and scatter them back.
 *
 * Moves 2 * piece_bytes a piece, and reads an offset of 8 bytes. For pieces too small for the copy engine; staging may
 * be device memory or mapped host memory. Launch: a thread block for each 8 or 32 KiB of the staging side, in one grid
 * dimension, whatever the size of a piece: many small ones share a thread block, a large one has many.
 */
#include "copy.cuh"

namespace qk
{

template <bool GATHER, int WORDS>
__global__ void __launch_bounds__(COPY_THREADS) pieces_kernel(const quire__pieces_args a, uint32_t words)
{
    const uint32_t width = static_cast<uint32_t>(a.piece_bytes / 16);
    copy_words<WORDS, true>(blockIdx.x * (COPY_THREADS * WORDS), words, [&](uint32_t word) {
        const uint32_t piece = word / width;
        unsigned char *in_arena = a.arena + a.offsets[piece] + (word - piece * width) * INT64_C(16);
        unsigned char *in_staging = a.staging + word * INT64_C(16);
        return copy_place{GATHER ? in_arena : in_staging, GATHER ? in_staging : in_arena};
    });
}

template <bool GATHER, int WORDS>
static quire_status pieces_launch(const quire__pieces_args &args, int64_t words, void *stream)
{
    QK_LAUNCH((pieces_kernel<GATHER, WORDS>), dim3(static_cast<unsigned>(copy_slices(words, WORDS))),
              dim3(COPY_THREADS), 0, stream, args, static_cast<uint32_t>(words));
    return launch_status();
}

template <bool GATHER> static quire_status pieces_run(const quire__pieces_args &args, void *stream)
{
    if (args.count < 0 || args.piece_bytes < 0)
        return QUIRE_EINVAL;
    if (args.count == 0 || args.piece_bytes == 0)
        return QUIRE_OK;
    if (!args.arena || !args.staging || !args.offsets || !aligned(args.arena, 16) ||
        !aligned(args.staging, 16) || args.piece_bytes % 16 != 0)
        return QUIRE_EINVAL;
    if (args.piece_bytes / 16 > INT32_MAX / args.count) /* 32 GiB */
        return QUIRE_EINVAL;
    const int64_t words = args.piece_bytes / 16 * args.count;
    return copy_is_large(words) ? pieces_launch<GATHER, COPY_WORDS_MANY>(args, words, stream)
                                : pieces_launch<GATHER, COPY_WORDS_FEW>(args, words, stream);
}

} /* namespace qk */

extern "C" quire_status quire__cuda_gather(const quire__pieces_args *args, void *stream)
{
    return qk::pieces_run<true>(*args, stream);
}

extern "C" quire_status quire__cuda_scatter(const quire__pieces_args *args, void *stream)
{
    return qk::pieces_run<false>(*args, stream);
}
