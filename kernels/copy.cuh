/* copy.cuh: a thread block's part of copying words of 16 bytes from many places to many others; block_copy.cu and
 * pieces.cu use it.
 *
 * Words are numbered through all that a launch copies, or all of one pair of blocks, and a thread block takes a run of
 * them: so pieces of any size, also smaller than what a thread block moves, fill every thread. A thread has WORDS loads
 * in flight before its first store. Eight keep few large copies at the memory's rate; two make a single page of 2 MiB
 * 256 thread blocks, so that every multiprocessor has a part of it.
 */
#ifndef QUIRE_KERNELS_COPY_CUH
#define QUIRE_KERNELS_COPY_CUH

#include "common.cuh"

namespace qk
{

constexpr int COPY_THREADS = 256, COPY_WORDS_FEW = 2, COPY_WORDS_MANY = 8;
/* Thread blocks, below which threads take fewer words: eight a multiprocessor of a large GPU. */
constexpr int64_t COPY_BLOCKS_WANTED = 1056;

struct copy_place {
    const unsigned char *from;
    unsigned char *to;
};

/* Copies words first + thread, first + thread + 256, ... below `words`; place(word) says where a word is. ONCE: no one
 * reads either side soon, so both pass the L2 cache by (.cs). */
template <int WORDS, bool ONCE, class Place>
__device__ __forceinline__ void copy_words(uint32_t first, uint32_t words, Place place)
{
    uint4 word[WORDS] = {};
    unsigned char *to[WORDS];
    QK_UNROLL
    for (int i = 0; i < WORDS; i++) {
        const uint32_t at = first + static_cast<uint32_t>(i * COPY_THREADS) + threadIdx.x;
        to[i] = nullptr;
        if (at < words) {
            const copy_place found = place(at);
            const uint4 *from = reinterpret_cast<const uint4 *>(found.from);
            word[i] = ONCE ? __ldcs(from) : *from;
            to[i] = found.to;
        }
    }
    QK_UNROLL
    for (int i = 0; i < WORDS; i++) {
        if (!to[i])
            continue;
        if (ONCE)
            __stcs(reinterpret_cast<uint4 *>(to[i]), word[i]);
        else
            store16(to[i], word[i]);
    }
}

/* Thread blocks for `words` of 16 bytes. */
inline int64_t copy_slices(int64_t words, int words_a_thread)
{
    const int64_t slice = static_cast<int64_t>(COPY_THREADS) * words_a_thread;
    return (words + slice - 1) / slice;
}

inline bool copy_is_large(int64_t words)
{
    return copy_slices(words, COPY_WORDS_MANY) >= COPY_BLOCKS_WANTED;
}

} /* namespace qk */

#endif
