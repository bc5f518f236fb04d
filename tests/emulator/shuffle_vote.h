/*
 * shuffle_vote.h - __shfl_*_sync, __ballot_sync, __any_sync, __all_sync, __syncwarp.
 *
 * `width` (a power of two up to 32) cuts the warp into segments; a source outside the caller's segment gives the caller
 * its own value, as in CUDA. A source lane that is not in the mask, or that has ended, is undefined in CUDA and all ones
 * here. None but __syncwarp orders memory (warp.h).
 *
 * __activemask, __match_*_sync and __reduce_*_sync are not provided: the first has no meaning without divergence.
 */
#pragma once

#include "warp.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <type_traits>

namespace emu {

template <class T, class... Candidates> constexpr bool is_one_of = (std::is_same_v<T, Candidates> || ...);

template <class T>
constexpr bool can_be_shuffled = is_one_of<T, int, unsigned, long, unsigned long, long long, unsigned long long, float,
                                           double, __half, __half2, __nv_bfloat16, __nv_bfloat162>;

template <class T> T shuffle(uint32_t mask, T value, int source, const Place &where) {
    static_assert(can_be_shuffled<T>, "CUDA has no shuffle for this type");
    Meeting &meeting = meet(mask, &value, sizeof value, where);
    T result;
    read_lane(meeting, unsigned(source), &result, sizeof result);
    leave(meeting);
    return result;
}

/* First lane of the caller's segment. */
inline int segment_start(int width) {
    return int(this_lane()) & ~(width - 1);
}

uint32_t ballot(uint32_t mask, bool predicate, const Place &where);

}  // namespace emu

inline void __syncwarp(uint32_t mask = emu::kWholeWarp, emu::Place where = emu::here("__syncwarp")) {
    emu::leave(emu::meet(mask, "", 0, where, emu::kOrdersMemory));
}

template <class T>
T __shfl_sync(uint32_t mask, T value, int source, int width = 32, emu::Place where = emu::here("__shfl_sync")) {
    return emu::shuffle(mask, value, emu::segment_start(width) + (source & (width - 1)), where);
}

template <class T>
T __shfl_up_sync(uint32_t mask, T value, unsigned delta, int width = 32,
                 emu::Place where = emu::here("__shfl_up_sync")) {
    const int lane = int(emu::this_lane());
    const int source = lane - int(delta);
    return emu::shuffle(mask, value, source >= emu::segment_start(width) ? source : lane, where);
}

template <class T>
T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = 32,
                   emu::Place where = emu::here("__shfl_down_sync")) {
    const int lane = int(emu::this_lane());
    const int source = lane + int(delta);
    return emu::shuffle(mask, value, source < emu::segment_start(width) + width ? source : lane, where);
}

/* A source in an earlier segment is legal here, one in a later segment is not. */
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int lane_mask, int width = 32,
                  emu::Place where = emu::here("__shfl_xor_sync")) {
    const int lane = int(emu::this_lane());
    const int source = lane ^ lane_mask;
    return emu::shuffle(mask, value, source < emu::segment_start(width) + width ? source : lane, where);
}

inline uint32_t __ballot_sync(uint32_t mask, int predicate, emu::Place where = emu::here("__ballot_sync")) {
    return emu::ballot(mask, predicate != 0, where);
}

inline int __any_sync(uint32_t mask, int predicate, emu::Place where = emu::here("__any_sync")) {
    return emu::ballot(mask, predicate != 0, where) != 0;
}

inline int __all_sync(uint32_t mask, int predicate, emu::Place where = emu::here("__all_sync")) {
    return emu::ballot(mask, predicate == 0, where) == 0;
}
