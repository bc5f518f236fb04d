/* block_copy.cu: blocks to other blocks of the arena, for copy-on-write: whole, or the first tokens of each of their
 * rows (layer, K or V, head).
 *
 * Moves 2 * block_bytes a pair, or 2 * rows * tokens * token_bytes. Launch: a thread block for each 8 or 32 KiB of each
 * pair, in one grid dimension; where a pair has fewer tokens than the launch was made for, what is left over ends at
 * once. The copies go through the L2 cache: the step that asked for them reads them next.
 */
#include "copy.cuh"

namespace qk
{

template <int WORDS>
__global__ void __launch_bounds__(COPY_THREADS) block_copy_kernel(const quire__block_copy_args a, int slices)
{
    const unsigned index = blockIdx.x / static_cast<unsigned>(slices);
    const uint32_t first = blockIdx.x % static_cast<unsigned>(slices) * (COPY_THREADS * WORDS);
    const quire__block_pair pair = a.pairs[index];
    const unsigned char *from = a.arena + pair.source * a.block_stride;
    unsigned char *to = a.arena + pair.destination * a.block_stride;
    if (!a.tokens) {
        copy_words<WORDS, false>(first, static_cast<uint32_t>(a.block_bytes / 16), [&](uint32_t word) {
            return copy_place{from + word * INT64_C(16), to + word * INT64_C(16)};
        });
        return;
    }
    const int tokens = min(a.tokens[index], a.most_tokens);
    if (tokens <= 0)
        return;
    const uint32_t width = static_cast<uint32_t>(tokens * a.token_bytes / 16);
    copy_words<WORDS, false>(first, static_cast<uint32_t>(a.rows) * width, [&](uint32_t word) {
        const uint32_t row = word / width;
        const int64_t at = row * a.row_stride + (word - row * width) * INT64_C(16);
        return copy_place{from + at, to + at};
    });
}

/* Words of 16 bytes that a pair has at most, or -1 where the arguments make no sense. */
static int64_t pair_words(const quire__block_copy_args &args)
{
    if (!args.tokens)
        return args.block_bytes % 16 == 0 ? args.block_bytes / 16 : -1;
    if (args.rows < 0 || args.most_tokens < 0 || args.token_bytes < 0 || args.token_bytes % 16 != 0 ||
        args.row_stride % 16 != 0 || args.most_tokens * args.token_bytes > args.row_stride ||
        args.rows * args.row_stride > args.block_stride)
        return -1;
    return args.rows * (args.most_tokens * args.token_bytes / 16);
}

template <int WORDS> static quire_status block_copy_launch(const quire__block_copy_args &args, int64_t words, void *stream)
{
    const int64_t slices = copy_slices(words, WORDS);
    if (words > INT32_MAX || slices > INT32_MAX / args.count)
        return QUIRE_EINVAL;
    QK_LAUNCH(block_copy_kernel<WORDS>, dim3(static_cast<unsigned>(slices * args.count)), dim3(COPY_THREADS), 0,
              stream, args, static_cast<int>(slices));
    return launch_status();
}

} /* namespace qk */

extern "C" quire_status quire__cuda_block_copy(const quire__block_copy_args *args, void *stream)
{
    const int64_t words = qk::pair_words(*args);
    if (args->count < 0 || words < 0 || args->block_bytes < 0)
        return QUIRE_EINVAL;
    if (args->count == 0 || words == 0)
        return QUIRE_OK;
    if (!args->arena || !args->pairs || !qk::aligned(args->arena, 16) || args->block_stride % 16 != 0)
        return QUIRE_EINVAL;
    return qk::copy_is_large(words * args->count)
               ? qk::block_copy_launch<qk::COPY_WORDS_MANY>(*args, words, stream)
               : qk::block_copy_launch<qk::COPY_WORDS_FEW>(*args, words, stream);
}
