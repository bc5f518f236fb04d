/* gpu_kernels.cu: a copy and a read by a given number of thread blocks.
 *
 * The copy moves 2 * bytes, the read 1 * bytes. Both go round the data with a grid that the caller chooses, because how
 * many multiprocessors a link needs is what the benchmark asks.
 */
#include "gpu_kernels.h"

#include "kernels/common.cuh"

namespace
{

constexpr int THREADS = 256, WORDS = 4; /* words of 16 bytes that a thread has in flight */
constexpr unsigned MAGIC = 0x9e3779b9u;

/* A thread block takes runs of WORDS * THREADS words, the grid's stride apart. */
__global__ void __launch_bounds__(THREADS) copy_kernel(uint4 *to, const uint4 *from, int64_t words)
{
    const int64_t run = WORDS * THREADS, step = static_cast<int64_t>(gridDim.x) * run;
    for (int64_t first = static_cast<int64_t>(blockIdx.x) * run; first < words; first += step) {
        const int64_t at = first + threadIdx.x;
        uint4 word[WORDS] = {};
        QK_UNROLL
        for (int i = 0; i < WORDS; i++)
            if (at + i * THREADS < words)
                word[i] = __ldcs(from + at + i * THREADS);
        QK_UNROLL
        for (int i = 0; i < WORDS; i++)
            if (at + i * THREADS < words)
                __stcs(to + at + i * THREADS, word[i]);
    }
}

__global__ void __launch_bounds__(THREADS) load_kernel(const uint4 *from, int64_t words, unsigned *sink)
{
    const int64_t step = static_cast<int64_t>(gridDim.x) * THREADS;
    unsigned mixed = 0;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x; i < words; i += step) {
        const uint4 word = from[i];
        mixed ^= word.x ^ word.y ^ word.z ^ word.w;
    }
    if (mixed == MAGIC) /* else the compiler would leave the loads out */
        *sink = mixed;
}

bool wrong(const void *address, size_t bytes, unsigned thread_blocks)
{
    return !address || !qk::aligned(address, 16) || bytes % 16 != 0 || thread_blocks == 0;
}

constexpr int INVALID_VALUE = 1; /* cudaErrorInvalidValue, which the emulator does not name */

} /* namespace */

extern "C" int bench_gpu_copy(void *to, const void *from, size_t bytes, unsigned thread_blocks, void *stream)
{
    if (wrong(to, bytes, thread_blocks) || wrong(from, bytes, thread_blocks))
        return INVALID_VALUE;
    QK_LAUNCH(copy_kernel, dim3(thread_blocks), dim3(THREADS), 0, stream, static_cast<uint4 *>(to),
              static_cast<const uint4 *>(from), static_cast<int64_t>(bytes / 16));
    return qk_launch_status();
}

extern "C" int bench_gpu_load(const void *from, size_t bytes, unsigned thread_blocks, void *sink, void *stream)
{
    if (wrong(from, bytes, thread_blocks) || !sink)
        return INVALID_VALUE;
    QK_LAUNCH(load_kernel, dim3(thread_blocks), dim3(THREADS), 0, stream,
              static_cast<const uint4 *>(from), static_cast<int64_t>(bytes / 16), static_cast<unsigned *>(sink));
    return qk_launch_status();
}
