/*
 * cuda_language.h - the words that CUDA adds to C++, for a C++ compiler: function qualifiers, threadIdx and its kin,
 * __syncthreads and fences.
 *
 * NVIDIA's vector_types.h (int4, uint3, dim3 ...) defines the qualifiers as attributes that a C++ compiler ignores with
 * a warning, and `__noinline__` as a macro that breaks standard headers; they are replaced here.
 */
#pragma once

#include "block.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <vector_functions.h>
#include <vector_types.h>

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __launch_bounds__
#undef __grid_constant__
#undef __forceinline__
#undef __noinline__
#define __global__
#define __device__
#define __host__
#define __constant__
#define __launch_bounds__(...)
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))

#define threadIdx (::emu::thread_index())
#define blockIdx (::emu::block_index())
#define blockDim (::emu::block_size())
#define gridDim (::emu::grid_size())
#define warpSize 32

inline void __syncthreads(emu::Place where = emu::here("__syncthreads")) {
    emu::this_block().barrier(false, where);
}

inline int __syncthreads_count(int predicate, emu::Place where = emu::here("__syncthreads_count")) {
    return int(emu::this_block().barrier(predicate != 0, where).voted);
}

inline int __syncthreads_or(int predicate, emu::Place where = emu::here("__syncthreads_or")) {
    return emu::this_block().barrier(predicate != 0, where).voted != 0;
}

inline int __syncthreads_and(int predicate, emu::Place where = emu::here("__syncthreads_and")) {
    const emu::BarrierResult result = emu::this_block().barrier(predicate != 0, where);
    return result.voted == result.came;
}

/* Fences. TSan does not know atomic_thread_fence, so each is stated as a release and an acquire of one address per scope:
 * more order than CUDA gives (any two fences pair up, not only those around one atomic), never less. */
void __threadfence();
void __threadfence_block();

inline void __threadfence_system() {
    __threadfence();
}

/* Lets the other threads of the block run: a thread that polls for one of them makes progress. */
inline void __nanosleep(unsigned) {
    emu::this_block().yield();
}

[[noreturn]] inline void __trap(emu::Place where = emu::here("__trap")) {
    emu::this_block().die("the kernel called __trap", &where);
}
