/* block.cpp - see block.h. */
#include "block.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace emu {

constexpr int kPoison = 0xFF;
#if defined(EMU_ASAN)
constexpr size_t kRedZone = 32; /* behind each __shared__ variable, so that ASan sees a step over its end */
#else
constexpr size_t kRedZone = 0;
#endif
constexpr size_t kStaticArena = kStaticSharedLimit + kMaxSharedVariables * kRedZone;

static thread_local Block *block_of_os_thread = nullptr;

/* Never inlined: a fiber may come back on another OS thread, and the address of a thread_local must not be kept. */
EMU_UNCHECKED __attribute__((noinline)) Block &this_block() {
    return *block_of_os_thread;
}

EMU_UNCHECKED Thread &this_thread() {
    return *this_block().running;
}

EMU_UNCHECKED uint3 thread_index() {
    return this_thread().index;
}

EMU_UNCHECKED uint3 block_index() {
    return this_block().index;
}

EMU_UNCHECKED dim3 block_size() {
    return this_block().grid.block;
}

EMU_UNCHECKED dim3 grid_size() {
    return this_block().grid.size;
}

EMU_UNCHECKED bool same_operation(const Place &a, const Place &b) {
    return a.operation == b.operation || strcmp(a.operation, b.operation) == 0;
}

EMU_UNCHECKED bool same_place(const Place &a, const Place &b) {
    return a.line == b.line && same_operation(a, b) && (a.file == b.file || strcmp(a.file, b.file) == 0);
}

Block::Block()
    : threads_(new Thread[kMaxThreads]), warps_(new Warp[kMaxThreads / 32]),
      static_shared_(static_cast<unsigned char *>(aligned_alloc(128, kStaticArena))), static_used_(kStaticArena) {
    if (static_shared_ == nullptr) {
        fputs("kernel emulator: out of memory\n", stderr);
        abort();
    }
}

Block::~Block() {
    for (unsigned i = 0; i < kMaxThreads; i++) {
        if (threads_[i].fiber.mapping != nullptr) {
            fiber_destroy(threads_[i].fiber);
        }
    }
    permit_access(static_shared_, kStaticArena);
    free(static_shared_);
    delete[] warps_;
    delete[] threads_;
}

void Block::begin_grid(const Grid &of) {
    grid = of;
    size_ = grid.block.x * grid.block.y * grid.block.z;
    for (unsigned i = 0; i < size_; i++) {
        if (threads_[i].fiber.mapping == nullptr) {
            fiber_create(threads_[i].fiber);
        }
    }
    /* Exactly the bytes asked for, so that ASan sees an access beyond them. */
    if (grid.dynamic_shared != 0 && posix_memalign(&dynamic_shared, 128, grid.dynamic_shared) != 0) {
        fputs("kernel emulator: out of memory\n", stderr);
        abort();
    }
    fiber_adopt_os_thread(root_);
    block_of_os_thread = this;
}

void Block::end_grid() {
    free(dynamic_shared);
    dynamic_shared = nullptr;
    block_of_os_thread = nullptr;
}

EMU_UNCHECKED static void thread_main() {
    Block &block = this_block();
    fiber_entered(*block.left);
    tsan_acquire(&block.start_order);
    (*block.grid.body)();
    block.end_thread();
}

void Block::prepare_threads() {
    const dim3 block = grid.block;
    for (unsigned i = 0; i < (size_ + 31) / 32; i++) {
        warps_[i].reset(size_ - i * 32 >= 32 ? ~0u : (1u << size_ % 32) - 1);
    }
    for (unsigned i = 0; i < size_; i++) {
        Thread &thread = threads_[i];
        thread.index = uint3{i % block.x, i / block.x % block.y, i / (block.x * block.y)};
        thread.lane = i % 32;
        thread.warp = &warps_[i / 32];
        thread.ended = false;
        thread.waits_for = nullptr;
        thread.copies.reset();
        fiber_prepare(thread.fiber, thread_main);
    }
}

void Block::run(uint64_t number) {
    const dim3 size = grid.size;
    index = uint3{unsigned(number % size.x), unsigned(number / size.x % size.y), unsigned(number / size.x / size.y)};
    random_ = grid.seed == 0 ? 0 : (grid.seed * 2654435761u + uint32_t(number) * 40503u) | 1;
    permit_access(static_shared_, kStaticArena);
    memset(static_shared_, kPoison, static_used_);
    forbid_access(static_shared_, kStaticArena);
    static_used_ = 0;
    variable_count_ = 0;
    if (dynamic_shared != nullptr) {
        memset(dynamic_shared, kPoison, grid.dynamic_shared);
    }
    prepare_threads();
    live_ = size_;
    barrier_ = BlockBarrier();

    running = nullptr;
    Thread *first = next_runnable();
    running = first;
    left = &root_;
    tsan_release(&start_order);
    fiber_switch(root_, first->fiber, kFiberOrdered);
    tsan_acquire(&end_order_);
}

/* With a seed, the search begins anywhere; without, behind the running thread. */
EMU_UNCHECKED Thread *Block::next_runnable() {
    unsigned i = running == nullptr ? size_ - 1 : unsigned(running - threads_);
    if (random_ != 0) {
        random_ = random_ * 1664525u + 1013904223u;
        random_ |= random_ == 0;
        i = (random_ >> 8) % size_;
    }
    for (unsigned tried = 0; tried < size_; tried++) {
        i = i + 1 == size_ ? 0 : i + 1;
        const Thread &thread = threads_[i];
        if (!thread.ended && (thread.waits_for == nullptr || *thread.waits_for != thread.waits_while)) {
            return &threads_[i];
        }
    }
    return nullptr;
}

EMU_UNCHECKED void Block::switch_to(Thread &next) {
    Thread &me = *running;
    if (&next == &me) {
        return;
    }
    left = &me.fiber;
    running = &next;
    fiber_switch(me.fiber, next.fiber, kFiberSuspends);
}

EMU_UNCHECKED void Block::wait(const uint32_t &generation, uint32_t seen, uint32_t mask, const Place &where) {
    Thread &me = *running;
    me.waits_for = &generation;
    me.waits_while = seen;
    me.mask = mask;
    me.place = where;
    while (generation == seen) {
        Thread *next = next_runnable();
        if (next == nullptr) {
            die("deadlock: a barrier or collective that some of its threads never reach");
        }
        switch_to(*next);
    }
    me.waits_for = nullptr;
}

EMU_UNCHECKED void Block::yield() {
    switch_to(*next_runnable()); /* this thread can run, so there is one */
}

EMU_UNCHECKED bool Block::chance(uint32_t one_in) {
    if (random_ == 0) {
        return false;
    }
    random_ = random_ * 1664525u + 1013904223u;
    random_ |= random_ == 0;
    return (random_ >> 8) % one_in == 0;
}

EMU_UNCHECKED void Block::release_barrier() {
    BlockBarrier &b = barrier_;
    b.result[b.generation & 1].voted = b.voted;
    b.result[b.generation & 1].came = b.arrived;
    b.arrived = 0;
    b.voted = 0;
    b.generation++;
}

EMU_UNCHECKED BarrierResult Block::barrier(bool predicate, const Place &where) {
    BlockBarrier &b = barrier_;
    const uint32_t generation = b.generation;
    const uint32_t parity = generation & 1;
    tsan_release(&b.order[parity]);
    if (b.arrived == 0) {
        b.place = where;
    } else if (!same_place(b.place, where)) {
        die("divergent barrier: threads of one block meet at different barriers", &where);
    }
    b.arrived++;
    b.voted += predicate;
    if (b.arrived == live_) {
        release_barrier();
    } else {
        wait(b.generation, generation, 0, where);
    }
    tsan_acquire(&b.order[parity]);
    return b.result[parity];
}

/* A thread that ends no longer counts at barriers (as on sm_70 and later), so its end may complete one. */
EMU_UNCHECKED void Block::end_thread() {
    Thread &me = *running;
    me.ended = true;
    tsan_release(&end_order_);
    me.warp->lane_ended(me.lane);
    live_--;
    left = &me.fiber;
    if (live_ == 0) {
        fiber_switch(me.fiber, root_, kFiberEnds | kFiberOrdered);
    } else {
        if (barrier_.arrived == live_) {
            release_barrier();
        }
        Thread *next = next_runnable();
        if (next == nullptr) {
            die("deadlock: the remaining threads wait for one that has ended");
        }
        running = next;
        fiber_switch(me.fiber, next->fiber, kFiberEnds);
    }
    abort(); /* an ended fiber was resumed */
}

EMU_UNCHECKED void *Block::shared_variable(const void *site, size_t bytes, size_t alignment) {
    for (int i = 0; i < variable_count_; i++) {
        if (variables_[i].site == site) {
            return static_shared_ + variables_[i].offset;
        }
    }
    if (variable_count_ == kMaxSharedVariables) {
        die("more than 64 __shared__ variables in one kernel");
    }
    const size_t offset = (static_used_ + alignment - 1) / alignment * alignment;
    const size_t end = offset + bytes;
    const size_t red_zones = size_t(variable_count_) * kRedZone;
    if (end > kStaticSharedLimit + red_zones) {
        die("__shared__ variables of known size exceed 48 KiB");
    }
    if (end + grid.dynamic_shared > kSharedLimit + red_zones) {
        die("static and dynamic shared memory together exceed 227 KiB");
    }
    variables_[variable_count_].site = site;
    variables_[variable_count_].offset = offset;
    variable_count_++;
    static_used_ = end + kRedZone;
    permit_access(static_shared_ + offset, bytes);
    return static_shared_ + offset;
}

static bool lies_within(const void *address, size_t bytes, const void *region, size_t region_bytes) {
    const uintptr_t a = reinterpret_cast<uintptr_t>(address);
    const uintptr_t r = reinterpret_cast<uintptr_t>(region);
    return a >= r && a - r <= region_bytes && bytes <= region_bytes - (a - r);
}

EMU_UNCHECKED bool Block::is_shared(const void *address, size_t bytes) const {
    return lies_within(address, bytes, static_shared_, static_used_) ||
           (dynamic_shared != nullptr && lies_within(address, bytes, dynamic_shared, grid.dynamic_shared));
}

EMU_UNCHECKED static bool wait_alike(const Thread &a, const Thread &b) {
    return !a.ended && a.waits_for != nullptr && !b.ended && b.waits_for != nullptr && a.mask == b.mask &&
           same_place(a.place, b.place);
}

/* Threads by the hundred wait in few places: each place is printed once, with how many wait there. */
EMU_UNCHECKED void Block::print_waiting_threads() const {
    int lines_left = 8;
    for (unsigned i = 0; i < size_ && lines_left > 0; i++) {
        const Thread &first = threads_[i];
        unsigned before = 0;
        unsigned alike = 0;
        for (unsigned j = 0; j < size_; j++) {
            before += j < i && wait_alike(first, threads_[j]);
            alike += wait_alike(first, threads_[j]);
        }
        if (alike == 0 || before != 0) {
            continue;
        }
        fprintf(stderr, "  %u waiting at %s, %s:%d; the first is thread (%u,%u,%u)", alike, first.place.operation,
                first.place.file, first.place.line, first.index.x, first.index.y, first.index.z);
        if (first.mask != 0) {
            fprintf(stderr, ", mask 0x%08x", first.mask);
        }
        fputc('\n', stderr);
        lines_left--;
    }
}

EMU_UNCHECKED void Block::die(const char *what, const Place *at) const {
    fprintf(stderr, "kernel emulator: %s\n  in kernel %s, block (%u,%u,%u), thread (%u,%u,%u)", what, grid.kernel,
            index.x, index.y, index.z, running->index.x, running->index.y, running->index.z);
    if (at != nullptr) {
        fprintf(stderr, ", at %s, %s:%d", at->operation, at->file, at->line);
    }
    fprintf(stderr, "; %u of %u threads have ended\n", size_ - live_, size_);
    print_waiting_threads();
    fflush(stderr);
    abort();
}

}  // namespace emu
