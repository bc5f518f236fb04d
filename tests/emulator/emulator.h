/*
 * emulator.h - CUDA kernels as ordinary C++ on an ordinary machine; kernels/cuda_compat.cuh includes it when the compiler
 * is not nvcc. README.md in this folder says what it covers and what it does not. Which file does what, from the bottom:
 *
 *   sanitizers       what ASan and TSan have to be told
 *   fiber            a stack to switch to and from                        (assembly)
 *   place            the source line of a call, for messages
 *   warp             32 threads meeting to trade values
 *   async_copy       cp.async, lazy or eager
 *   block            the threads of one block: scheduler, barrier, shared memory, deadlock report
 *   launch           a grid: checks of its shape, arguments, OS threads, QUIRE_EMU_SEED and QUIRE_EMU_THREADS
 *   cuda_language    __global__, threadIdx, __syncthreads, fences
 *   shuffle_vote, atomics, memory_hints, math_functions, tensor_core     the device functions
 */
#pragma once

#include "async_copy.h"
#include "atomics.h"
#include "block.h"
#include "cuda_language.h"
#include "launch.h"
#include "math_functions.h"
#include "memory_hints.h"
#include "shuffle_vote.h"
#include "tensor_core.h"
