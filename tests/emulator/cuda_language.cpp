/* cuda_language.cpp - see cuda_language.h. */
#include "cuda_language.h"

#include <atomic>

static char grid_fence_order; /* an address for TSan: fences of the whole device */

void __threadfence() {
#if !defined(EMU_TSAN)
    std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
    emu::tsan_release(&grid_fence_order);
    emu::tsan_acquire(&grid_fence_order);
}

void __threadfence_block() {
    emu::tsan_release(&emu::this_block().fence_order);
    emu::tsan_acquire(&emu::this_block().fence_order);
}
