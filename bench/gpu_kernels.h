/* gpu_kernels.h: what a GPU's multiprocessors reach by plain loads and stores. Bytes are multiples of 16, addresses
 * aligned to 16; the stream is a cudaStream_t. Each returns 0 or the cudaError_t of its launch. */
#ifndef BENCH_GPU_KERNELS_H
#define BENCH_GPU_KERNELS_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Copies with `thread_blocks` thread blocks of 256. Either side may be mapped host memory. */
int bench_gpu_copy(void *to, const void *from, size_t bytes, unsigned thread_blocks, void *stream);
/* Reads every byte and keeps nothing: `sink` (4 bytes on the device) is written only if all words cancel out to a
 * magic number. Leaves the L2 cache full of clean lines. */
int bench_gpu_load(const void *from, size_t bytes, unsigned thread_blocks, void *sink, void *stream);

#ifdef __cplusplus
}
#endif
#endif
