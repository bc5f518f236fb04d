/*
 * atomics.h - atomicAdd and its kin, on global and shared memory alike, for the types that CUDA has them for.
 *
 * Relaxed, as on a GPU: an atomic orders nothing but itself; what else must be visible needs __threadfence. TSan knows
 * these as atomics, and so finds the fence that is missing between blocks that run on different OS threads.
 *
 * With a seed, an atomic sometimes lets the block's other threads run first: threads that race for a ticket then win it
 * in other orders.
 */
#pragma once

#include "block.h"
#include "shuffle_vote.h"

namespace emu {

constexpr uint32_t kYieldOneIn = 4;

template <class T> struct Exactly { using type = T; };
template <class T> using exactly = typename Exactly<T>::type; /* the pointer alone decides T */

inline void sometimes_yield() {
    if (this_block().chance(kYieldOneIn)) {
        this_block().yield();
    }
}

/* *address = change(*address), atomically; returns the old value. */
template <class T, class Change> T atomic_update(T *address, Change change) {
    sometimes_yield();
    T old;
    __atomic_load(address, &old, __ATOMIC_RELAXED);
    T next = change(old);
    while (!__atomic_compare_exchange(address, &old, &next, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        next = change(old);
    }
    return old;
}

template <class T> constexpr bool is_word = is_one_of<T, int, unsigned>;
template <class T> constexpr bool is_word_or_wide = is_one_of<T, int, unsigned, unsigned long long>;
template <class T> constexpr bool is_wide_too = is_word_or_wide<T> || std::is_same_v<T, long long>;

}  // namespace emu

template <class T> T atomicAdd(T *address, emu::exactly<T> value) {
    static_assert(emu::is_word_or_wide<T> || emu::is_one_of<T, float, double>, "CUDA has no atomicAdd for this type");
    return emu::atomic_update(address, [=](T old) { return T(old + value); });
}

template <class T> T atomicSub(T *address, emu::exactly<T> value) {
    static_assert(emu::is_word<T>, "CUDA has no atomicSub for this type");
    return emu::atomic_update(address, [=](T old) { return T(old - value); });
}

template <class T> T atomicMin(T *address, emu::exactly<T> value) {
    static_assert(emu::is_wide_too<T>, "CUDA has no atomicMin for this type");
    return emu::atomic_update(address, [=](T old) { return old < value ? old : value; });
}

template <class T> T atomicMax(T *address, emu::exactly<T> value) {
    static_assert(emu::is_wide_too<T>, "CUDA has no atomicMax for this type");
    return emu::atomic_update(address, [=](T old) { return old < value ? value : old; });
}

template <class T> T atomicAnd(T *address, emu::exactly<T> value) {
    static_assert(emu::is_word_or_wide<T>, "CUDA has no atomicAnd for this type");
    return emu::atomic_update(address, [=](T old) { return T(old & value); });
}

template <class T> T atomicOr(T *address, emu::exactly<T> value) {
    static_assert(emu::is_word_or_wide<T>, "CUDA has no atomicOr for this type");
    return emu::atomic_update(address, [=](T old) { return T(old | value); });
}

template <class T> T atomicXor(T *address, emu::exactly<T> value) {
    static_assert(emu::is_word_or_wide<T>, "CUDA has no atomicXor for this type");
    return emu::atomic_update(address, [=](T old) { return T(old ^ value); });
}

template <class T> T atomicExch(T *address, emu::exactly<T> value) {
    static_assert(emu::is_word_or_wide<T> || std::is_same_v<T, float>, "CUDA has no atomicExch for this type");
    return emu::atomic_update(address, [=](T) { return value; });
}

template <class T> T atomicCAS(T *address, emu::exactly<T> expected, emu::exactly<T> value) {
    static_assert(emu::is_word_or_wide<T>, "CUDA has no atomicCAS for this type");
    return emu::atomic_update(address, [=](T old) { return old == expected ? value : old; });
}

/* Counts up to the limit and then starts again at 0: a last-block ticket that needs no reset. */
inline unsigned atomicInc(unsigned *address, unsigned limit) {
    return emu::atomic_update(address, [=](unsigned old) { return old >= limit ? 0u : old + 1; });
}
