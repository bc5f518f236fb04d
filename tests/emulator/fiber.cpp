/* fiber.cpp - see fiber.h. Only what a callee must preserve is saved; the floating-point control words are not, since
 * kernels do not change them. */
#include "fiber.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <sys/mman.h>

#if !defined(EMU_USE_UCONTEXT)

/* emu_switch_stack(void **save, void *load): push registers, *save = stack pointer, stack pointer = load, pop. */
extern "C" void emu_switch_stack(void **save, void *load);

#if defined(__x86_64__)

asm(R"(
.text
.globl emu_switch_stack
.type emu_switch_stack, @function
emu_switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emu_switch_stack, .-emu_switch_stack
)");

/* What the pops and the ret above expect: six registers, the entry, and a null return address that ends backtraces.
 * The entry then sees the stack pointer at 8 modulo 16, as after a call. */
static void *first_frame(uintptr_t stack_top, void (*entry)()) {
    uint64_t *frame = reinterpret_cast<uint64_t *>(stack_top) - 8;
    memset(frame, 0, 8 * sizeof *frame);
    frame[6] = reinterpret_cast<uintptr_t>(entry);
    return frame;
}

#else /* aarch64 */

asm(R"(
.text
.globl emu_switch_stack
.type emu_switch_stack, %function
emu_switch_stack:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size emu_switch_stack, .-emu_switch_stack
)");

/* The twenty saved registers; x30, the return address, is the twelfth and holds the entry. */
static void *first_frame(uintptr_t stack_top, void (*entry)()) {
    uint64_t *frame = reinterpret_cast<uint64_t *>(stack_top) - 20;
    memset(frame, 0, 20 * sizeof *frame);
    frame[11] = reinterpret_cast<uintptr_t>(entry);
    return frame;
}

#endif
#endif

namespace emu {

constexpr size_t kGuardBytes = 64 << 10; /* a multiple of every page size in use */

void fiber_create(Fiber &fiber) {
    const size_t bytes = kGuardBytes + kFiberStackBytes;
    fiber.mapping = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (fiber.mapping == MAP_FAILED || mprotect(fiber.mapping, kGuardBytes, PROT_NONE) != 0) {
        perror("kernel emulator: cannot map a stack for a CUDA thread");
        abort();
    }
    fiber.stack = static_cast<char *>(fiber.mapping) + kGuardBytes;
    fiber.stack_bytes = kFiberStackBytes;
#if defined(EMU_TSAN)
    fiber.tsan_fiber = __tsan_create_fiber(0);
#endif
}

void fiber_destroy(Fiber &fiber) {
    munmap(fiber.mapping, kGuardBytes + kFiberStackBytes);
    fiber.mapping = nullptr;
#if defined(EMU_TSAN)
    __tsan_destroy_fiber(fiber.tsan_fiber);
#endif
}

void fiber_prepare(Fiber &fiber, void (*entry)()) {
    fiber.asan_fake_stack = nullptr;
#if defined(EMU_USE_UCONTEXT)
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = const_cast<void *>(fiber.stack);
    fiber.context.uc_stack.ss_size = fiber.stack_bytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, entry, 0);
#else
    fiber.stack_pointer = first_frame(reinterpret_cast<uintptr_t>(fiber.stack) + fiber.stack_bytes, entry);
#endif
}

void fiber_adopt_os_thread(Fiber &fiber) {
    fiber.asan_fake_stack = nullptr; /* its stack bounds arrive in fiber_entered, on the first switch away */
#if defined(EMU_TSAN)
    fiber.tsan_fiber = __tsan_get_current_fiber();
#endif
}

EMU_UNCHECKED void fiber_switch(Fiber &from, Fiber &to, [[maybe_unused]] int how) {
#if defined(EMU_ASAN)
    __sanitizer_start_switch_fiber(how & kFiberEnds ? nullptr : &from.asan_fake_stack, to.stack, to.stack_bytes);
#endif
#if defined(EMU_TSAN)
    __tsan_switch_to_fiber(to.tsan_fiber, how & kFiberOrdered ? 0 : __tsan_switch_to_fiber_no_sync);
#endif
#if defined(EMU_USE_UCONTEXT)
    swapcontext(&from.context, &to.context);
#else
    emu_switch_stack(&from.stack_pointer, to.stack_pointer);
#endif
#if defined(EMU_ASAN)
    __sanitizer_finish_switch_fiber(from.asan_fake_stack, nullptr, nullptr);
#endif
}

EMU_UNCHECKED void fiber_entered([[maybe_unused]] Fiber &from) {
#if defined(EMU_ASAN)
    __sanitizer_finish_switch_fiber(nullptr, &from.stack, &from.stack_bytes);
#endif
}

}  // namespace emu
