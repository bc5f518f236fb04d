/*
 * block.h - one CUDA block: its threads as fibers, their scheduler, the block barrier, its shared memory.
 *
 * All threads of a block run on one OS thread and take turns. A thread runs until it has to wait for others (a barrier,
 * a warp collective) and then hands over to the next that can run; so between two such points it is never interrupted,
 * and a run is repeatable. Which thread is next: the following one in order (seed 0) or a random one (other seeds).
 *
 *      OS thread's own stack ("root")        launch.cpp: for each block of its share
 *         |  run()                           prepares the fibers, poisons shared memory
 *         v
 *      thread 0 -> thread 1 -> ... -> thread n-1 -> thread 0 ...     each at a point where it must wait
 *         |
 *         v  when the last thread has ended
 *      root
 *
 * Waiting is for a generation counter to move: the waiter notes address and value, and whoever completes the barrier
 * increments it. When nobody can run, nobody ever will: that is a deadlock, reported by naming where threads wait.
 *
 * Invariants
 *   1. `running` is the thread whose fiber executes; `live` counts the threads that have not ended.
 *   2. barrier.arrived < live between any two switches (the thread that makes them equal releases the barrier).
 *   3. A thread waits for at most one counter.
 *   4. Shared memory belongs to a block, is all ones before the block starts, and is not seen by the next one.
 *
 * All ones, since that is NaN in f32, f16, bf16 and fp8 and -1 as an index: a value read before it was written spreads
 * instead of vanishing in a tolerance.
 *
 * Locks: none. A Block is used by one OS thread at a time; launch.cpp hands it over.
 */
#pragma once

#include "async_copy.h"
#include "fiber.h"
#include "place.h"
#include "warp.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector_types.h>

namespace emu {

constexpr unsigned kMaxThreads = 1024;
constexpr size_t kStaticSharedLimit = 48 << 10;  /* what ptxas allows for __shared__ variables of known size */
constexpr size_t kSharedLimit = 227 << 10;       /* static and dynamic together, sm_90 */
constexpr int kMaxSharedVariables = 64;

struct Thread {
    Fiber fiber;
    uint3 index{};
    unsigned lane = 0;
    Warp *warp = nullptr;
    bool ended = true;
    const uint32_t *waits_for = nullptr; /* null: can run */
    uint32_t waits_while = 0;            /* ... until *waits_for differs from this */
    Place place{};                       /* where it waits */
    uint32_t mask = 0;                   /* the mask it waits with; 0 at a block barrier */
    AsyncCopies copies;
};

/* What all blocks of one launch have in common. */
struct Grid {
    const char *kernel = "";
    dim3 size;
    dim3 block;
    size_t dynamic_shared = 0;
    const std::function<void()> *body = nullptr; /* the kernel with its arguments */
    uint32_t seed = 0;
};

struct BarrierResult {
    uint32_t voted; /* threads whose predicate was not zero */
    uint32_t came;  /* threads that took part */
};

struct BlockBarrier {
    uint32_t generation = 0;
    uint32_t arrived = 0;
    uint32_t voted = 0;
    Place place{};              /* of the first to arrive; the others must be at the same */
    BarrierResult result[2]{};  /* by parity of the generation: overwritten only after all have read it */
    char order[2]{};            /* two addresses for TSan, alternating for the same reason */
};

/* __shared__ variables get their room when a thread first reaches the declaration; `site` tells one from another. */
struct SharedVariable {
    const void *site;
    size_t offset;
};

class Block {
  public:
    Block();
    ~Block();
    Block(const Block &) = delete;
    Block &operator=(const Block &) = delete;

    void begin_grid(const Grid &grid);             /* on the OS thread that will call run */
    void run(uint64_t number);                     /* all threads of that block, to their end */
    void end_grid();

    /* Called by the running thread. */
    BarrierResult barrier(bool predicate, const Place &where);
    void wait(const uint32_t &generation, uint32_t seen, uint32_t mask, const Place &where);
    void yield();
    bool chance(uint32_t one_in);                  /* false with seed 0 */
    void *shared_variable(const void *site, size_t bytes, size_t alignment);
    bool is_shared(const void *address, size_t bytes) const;
    [[noreturn]] void end_thread();

    /* A bug in the kernel: says what, at which call if that is known, and where the threads wait; then aborts. */
    [[noreturn]] void die(const char *what, const Place *at = nullptr) const;

    Grid grid;
    uint3 index{};
    Thread *running = nullptr;
    Fiber *left = nullptr;      /* the fiber that the last switch left */
    void *dynamic_shared = nullptr;
    char fence_order = 0;       /* address for TSan: __threadfence_block */
    char start_order = 0;       /* address for TSan: the block's start */

  private:
    void prepare_threads();
    void release_barrier();
    Thread *next_runnable();
    void switch_to(Thread &next);
    void print_waiting_threads() const;

    Thread *threads_;
    Warp *warps_;
    Fiber root_;
    unsigned size_ = 0;
    unsigned live_ = 0;
    uint32_t random_ = 0;
    BlockBarrier barrier_;
    unsigned char *static_shared_;
    size_t static_used_ = 0;
    SharedVariable variables_[kMaxSharedVariables];
    int variable_count_ = 0;
    char end_order_ = 0;        /* address for TSan: the block's end */
};

/* The block and thread that the calling code belongs to. Outside a kernel this_block is undefined. */
Block &this_block();
Thread &this_thread();

/* What the CUDA names threadIdx, ... expand to. Constant over the life of a CUDA thread, and so for all that one
 * function body can see: the attribute lets the compiler keep them in registers. */
__attribute__((const)) uint3 thread_index();
__attribute__((const)) uint3 block_index();
__attribute__((const)) dim3 block_size();
__attribute__((const)) dim3 grid_size();

inline void *dynamic_shared() {
    return this_block().dynamic_shared;
}

/* A __shared__ variable of type T; `site` is an address that belongs to this declaration alone. */
template <class T> T &shared_variable(const char &site) {
    return *static_cast<T *>(this_block().shared_variable(&site, sizeof(T), alignof(T) < 16 ? 16 : alignof(T)));
}

}  // namespace emu
