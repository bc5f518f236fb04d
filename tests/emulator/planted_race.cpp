/*
 * planted_race.cpp - proof that the emulator under ThreadSanitizer finds a missing barrier, and only that.
 *
 *      planted_race right              no race in any of the kernels: prints "done", exit 0, no report
 *      planted_race barrier            __syncthreads missing between write and read of shared memory
 *      planted_race shuffle            shared memory handed over with only a shuffle between, where __syncwarp is needed
 *      planted_race refill             a cp.async stage refilled while others may still read it
 *      planted_race wait               cp.async waited for only by the thread's own groups, no barrier behind
 *      planted_race fence              last-block ticket without __threadfence, blocks on two OS threads
 *
 * The kernels are so written that the answer is right all the same under the default schedule; only TSan can tell.
 * planted_race.sh runs them all.
 */
#include "cuda_compat.cuh"

#include <cstdio>
#include <cstring>

constexpr unsigned kFull = 0xffffffffu;
constexpr int kThreads = 64;

/* Thread 0 reads the word of thread 1, which has written it already: the shuffle let it go first. */
template <bool Right> __global__ void hand_over_by_barrier(int *out) {
    QK_SHARED(int[kThreads], words);
    const int t = int(threadIdx.x);
    words[t] = t;
    if (Right) {
        __syncthreads();
    }
    const int zero = __shfl_sync(kFull, 0, 0);
    out[t] = words[t ^ 1] + zero;
}

template <bool Right> __global__ void hand_over_in_warp(int *out) {
    QK_SHARED(int[kThreads], words);
    const int t = int(threadIdx.x);
    words[t] = t;
    const int zero = __shfl_xor_sync(kFull, 0, 1);
    if (Right) {
        __syncwarp();
    }
    out[t] = words[t ^ 1] + zero;
}

/* Each thread sums its neighbour's word of each tile. Stage and tile hold the same bytes, so a race changes nothing. */
template <bool BarrierBehindWait, bool BarrierBeforeRefill> __global__ void sum_stages(const uint4 *in, int *out) {
    QK_SHARED(uint4[kThreads], stage);
    const int t = int(threadIdx.x);
    unsigned sum = 0;
    for (int tile = 0; tile < 3; tile++) {
        qk_cp_async16(&stage[t], in + t);
        qk_cp_async_commit();
        qk_cp_async_wait<0>();
        if (BarrierBehindWait) {
            __syncthreads();
        } else {
            __shfl_sync(kFull, 0, 0);
        }
        sum += stage[t ^ 1].x;
        if (BarrierBeforeRefill) {
            __syncthreads();
        }
    }
    out[t] = int(sum);
}

template <bool Right> __global__ void last_block_sums(int *parts, unsigned *ticket, int *out) {
    parts[blockIdx.x] = int(blockIdx.x);
    if (Right) {
        __threadfence();
    }
    if (atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1) {
        if (Right) {
            __threadfence();
        }
        int sum = 0;
        for (unsigned b = 0; b < gridDim.x; b++) {
            sum += parts[b];
        }
        *out = sum;
    }
}

template <bool Right> static void run_last_block_sums() {
    int parts[8] = {};
    unsigned ticket = 0;
    int sum = 0;
    emu::settings().os_threads = 2;
    QK_LAUNCH(last_block_sums<Right>, 8, 1, 0, nullptr, parts, &ticket, &sum);
}

int main(int count, char **arguments) {
    const char *what = count == 2 ? arguments[1] : "";
    int out[kThreads];
    uint4 in[kThreads] = {};
    if (strcmp(what, "right") == 0) {
        QK_LAUNCH(hand_over_by_barrier<true>, 1, kThreads, 0, nullptr, out);
        QK_LAUNCH(hand_over_in_warp<true>, 1, kThreads, 0, nullptr, out);
        QK_LAUNCH((sum_stages<true, true>), 1, kThreads, 0, nullptr, in, out);
        run_last_block_sums<true>();
    } else if (strcmp(what, "barrier") == 0) {
        QK_LAUNCH(hand_over_by_barrier<false>, 1, kThreads, 0, nullptr, out);
    } else if (strcmp(what, "shuffle") == 0) {
        QK_LAUNCH(hand_over_in_warp<false>, 1, kThreads, 0, nullptr, out);
    } else if (strcmp(what, "refill") == 0) {
        QK_LAUNCH((sum_stages<true, false>), 1, kThreads, 0, nullptr, in, out);
    } else if (strcmp(what, "wait") == 0) {
        QK_LAUNCH((sum_stages<false, true>), 1, kThreads, 0, nullptr, in, out);
    } else if (strcmp(what, "fence") == 0) {
        run_last_block_sums<false>();
    } else {
        fprintf(stderr, "usage: planted_race right|barrier|shuffle|refill|wait|fence\n");
        return 2;
    }
    printf("done\n");
    return 0;
}
