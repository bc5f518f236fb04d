/* block_copy.cu: whole blocks to other blocks of the arena, for copy-on-write.
 *
 * Moves 2 * block_bytes a pair. Launch: a thread block for each 32 KiB of each pair, in one grid dimension.
 */
#include "copy.cuh"

namespace qk
{

__global__ void __launch_bounds__(COPY_THREADS) block_copy_kernel(const quire__block_copy_args a, int slices)
{
    const quire__block_pair pair = a.pairs[blockIdx.x / static_cast<unsigned>(slices)];
    copy_slice(a.arena + pair.destination * a.block_stride, a.arena + pair.source * a.block_stride,
               a.block_bytes, blockIdx.x % static_cast<unsigned>(slices));
}

} /* namespace qk */

extern "C" quire_status quire__cuda_block_copy(const quire__block_copy_args *args, void *stream)
{
    if (args->count < 0 || args->block_bytes < 0)
        return QUIRE_EINVAL;
    if (args->count == 0 || args->block_bytes == 0)
        return QUIRE_OK;
    if (!args->arena || !args->pairs || !qk::aligned(args->arena, 16) ||
        (args->block_stride | args->block_bytes) % 16 != 0)
        return QUIRE_EINVAL;
    const int64_t slices = qk::copy_slices(args->block_bytes);
    if (slices > INT32_MAX / args->count)
        return QUIRE_EINVAL;
    QK_LAUNCH(qk::block_copy_kernel, dim3(static_cast<unsigned>(slices * args->count)),
              dim3(qk::COPY_THREADS), 0, stream, *args, static_cast<int>(slices));
    return qk::launch_status();
}
