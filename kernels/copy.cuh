/* copy.cuh: a thread block's part of copying one piece of memory to another; block_copy.cu and pieces.cu use
 * it. */
#ifndef QUIRE_KERNELS_COPY_CUH
#define QUIRE_KERNELS_COPY_CUH

#include "common.cuh"

namespace qk
{

constexpr int COPY_THREADS = 256;
/* One thread block's part of a piece: eight 16-byte words a thread. A 2 MiB page is then 64 thread blocks,
 * enough to keep half of an H100's multiprocessors busy with a single page. */
constexpr int64_t COPY_SLICE_BYTES = COPY_THREADS * 16 * 8;

inline int64_t copy_slices(int64_t bytes)
{
    return (bytes + COPY_SLICE_BYTES - 1) / COPY_SLICE_BYTES;
}

/* Copies slice `slice` of `bytes`. Each byte is read and written once, so both sides stream past the L2 cache
 * (.cs). Four loads are in flight a thread before its first store. */
__device__ __forceinline__ void copy_slice(unsigned char *destination, const unsigned char *source,
                                           int64_t bytes, int64_t slice)
{
    const int64_t begin = slice * COPY_SLICE_BYTES;
    const int64_t left = bytes - begin < COPY_SLICE_BYTES ? bytes - begin : COPY_SLICE_BYTES;
    const int words = static_cast<int>(left / 16);
    const uint4 *from = reinterpret_cast<const uint4 *>(source + begin);
    uint4 *to = reinterpret_cast<uint4 *>(destination + begin);
    int i = static_cast<int>(threadIdx.x);
    for (; i + 3 * COPY_THREADS < words; i += 4 * COPY_THREADS) {
        uint4 word[4];
        QK_UNROLL
        for (int j = 0; j < 4; j++)
            word[j] = __ldcs(from + i + j * COPY_THREADS);
        QK_UNROLL
        for (int j = 0; j < 4; j++)
            __stcs(to + i + j * COPY_THREADS, word[j]);
    }
    for (; i < words; i += COPY_THREADS)
        __stcs(to + i, __ldcs(from + i));
}

} /* namespace qk */

#endif
