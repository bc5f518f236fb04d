/*
 * fiber.h - a stack that execution can leave and come back to. One CUDA thread runs on one fiber.
 *
 * A switch saves the callee-saved registers on the stack that is left, swaps stack pointers, and restores them from the
 * stack that is entered; the kernel of the operating system has no part in it. x86-64 and aarch64 have their few lines
 * of assembly in fiber.cpp; anything else (or -DEMU_USE_UCONTEXT) goes through swapcontext, which makes system calls.
 *
 * Life of a fiber: create (maps a stack with a guard page below it), then any number of times prepare and switch to it,
 * then destroy. An entry function begins with fiber_entered and never returns: its last act is a switch with
 * kFiberEnds. The OS thread's own stack takes part as a fiber that was made by fiber_adopt_os_thread.
 *
 * A fiber may run on different OS threads, one after the other.
 */
#pragma once

#include "sanitizers.h"

#include <cstddef>

#if !defined(__x86_64__) && !defined(__aarch64__) && !defined(EMU_USE_UCONTEXT)
#define EMU_USE_UCONTEXT 1
#endif
#if defined(EMU_USE_UCONTEXT)
#include <ucontext.h>
#endif

namespace emu {

constexpr size_t kFiberStackBytes = 256 << 10; /* touched lazily; ASan frames are several times the plain size */

struct Fiber {
    void *stack_pointer = nullptr; /* where a suspended fiber's registers lie */
    void *mapping = nullptr;       /* guard page, then stack; null for the OS thread's own */
    const void *stack = nullptr;   /* lowest address of the stack, for ASan */
    size_t stack_bytes = 0;
    void *asan_fake_stack = nullptr;
    void *tsan_fiber = nullptr;
#if defined(EMU_USE_UCONTEXT)
    ucontext_t context;
#endif
};

enum FiberSwitch {
    kFiberSuspends = 0,
    kFiberEnds = 1,   /* the fiber that is left will not be resumed, only prepared anew */
    kFiberOrdered = 2 /* to TSan, what is left happens before what is entered */
};

void fiber_create(Fiber &fiber);
void fiber_destroy(Fiber &fiber);
void fiber_prepare(Fiber &fiber, void (*entry)());
void fiber_adopt_os_thread(Fiber &fiber);
void fiber_switch(Fiber &from, Fiber &to, int how);
void fiber_entered(Fiber &from);

}  // namespace emu
