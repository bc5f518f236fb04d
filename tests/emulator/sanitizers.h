/*
 * sanitizers.h - what the emulator has to tell AddressSanitizer and ThreadSanitizer.
 *
 * Kernel code is what we want checked. The emulator's own bookkeeping is not: hundreds of fibers take turns on one OS
 * thread, which is correct without any lock, yet TSan (to which every fiber is a thread of its own) would report each
 * counter that two fibers touch. So
 *   - functions of the scheduler are marked EMU_UNCHECKED: TSan does not look into them;
 *   - what orders memory on a GPU (a barrier, a fence) is stated with tsan_release / tsan_acquire, and nothing else is.
 *     A shuffle orders nothing in CUDA, so it orders nothing here.
 * Code that stands for an access by the kernel (cp.async, ldmatrix) is left checked.
 *
 * EMU_UNCHECKED functions use plain arrays and pointers: a call such as vector::operator[] would be instrumented.
 */
#pragma once

#include <cstddef>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMU_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define EMU_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define EMU_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define EMU_TSAN 1
#endif

#if defined(EMU_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(EMU_TSAN)
#include <sanitizer/tsan_interface.h>
/* Exported by the TSan runtime, declared in none of its public headers; the types are those of gcc's built-in. */
extern "C" void __tsan_read_range(void *address, long bytes);
extern "C" void __tsan_write_range(void *address, long bytes);
#define EMU_UNCHECKED __attribute__((no_sanitize("thread"), noinline))
#else
#define EMU_UNCHECKED
#endif

namespace emu {

/* What this fiber did so far happens before what another does after tsan_acquire of the same address. */
inline void tsan_release([[maybe_unused]] void *address) {
#if defined(EMU_TSAN)
    __tsan_release(address);
#endif
}

inline void tsan_acquire([[maybe_unused]] void *address) {
#if defined(EMU_TSAN)
    __tsan_acquire(address);
#endif
}

/* ASan reports every access to a forbidden range. */
inline void forbid_access([[maybe_unused]] void *address, [[maybe_unused]] size_t bytes) {
#if defined(EMU_ASAN)
    __asan_poison_memory_region(address, bytes);
#endif
}

inline void permit_access([[maybe_unused]] void *address, [[maybe_unused]] size_t bytes) {
#if defined(EMU_ASAN)
    __asan_unpoison_memory_region(address, bytes);
#endif
}

/* Tells the sanitizers, at the time of the call, about an access that the emulator carries out later. */
inline void announce_read([[maybe_unused]] const void *address, [[maybe_unused]] size_t bytes) {
#if defined(EMU_TSAN)
    __tsan_read_range(const_cast<void *>(address), bytes);
#elif defined(EMU_ASAN)
    const volatile char *byte = static_cast<const volatile char *>(address);
    (void)byte[0];
    (void)byte[bytes - 1];
#endif
}

inline void announce_write([[maybe_unused]] void *address, [[maybe_unused]] size_t bytes) {
#if defined(EMU_TSAN)
    __tsan_write_range(address, bytes);
#else
    announce_read(address, bytes);
#endif
}

}  // namespace emu
