/*
 * warp.h - 32 threads that trade values: the one mechanism under shuffles, votes, __syncwarp, ldmatrix and mma.
 *
 * Each such operation is a meeting: the lanes that a mask names bring some bytes each, wait until all of them are there,
 * and then read from one another. On a GPU lanes that have ended are not waited for; neither are they here.
 *
 *      free --first lane brings its bytes--> collecting --last lane arrives--> reading --last lane has read--> free
 *
 * Lanes of one warp may be in several meetings at once (two half warps, each with its own mask), and a fast lane may
 * come to the next meeting while a slow one still reads from the last. Thirty-two meetings are always enough: a meeting
 * that is not free has at least one lane that is in no other, the one that waits or has not read yet.
 *
 * A meeting orders memory only when it is asked to (__syncwarp). CUDA promises no ordering for shuffles and votes, and
 * so TSan gets told of none: shared memory handed over with nothing but a shuffle between is reported.
 */
#pragma once

#include "place.h"
#include "sanitizers.h"

#include <cstddef>
#include <cstdint>

namespace emu {

constexpr uint32_t kWholeWarp = 0xffffffffu;
constexpr size_t kLaneBytes = 32; /* mma brings the most: four words of A and two of B */

struct Meeting {
    uint32_t generation = 0; /* moves when the last lane arrives */
    uint32_t mask = 0;       /* lanes that the callers named */
    uint32_t arrived = 0;    /* lanes that have come */
    uint32_t unread = 0;     /* lanes that have come and not yet read */
    uint32_t members = 0;    /* once collected: the lanes that took part, whose bytes are valid */
    Place place{};
    alignas(16) unsigned char bytes[32][kLaneBytes];
};

struct Warp {
    uint32_t live = 0;       /* lanes that exist and have not ended */
    uint32_t collecting = 0; /* bit i: meeting[i] is in that state */
    uint32_t reading = 0;
    Meeting meeting[32];

    void reset(uint32_t lanes);
    void lane_ended(unsigned lane);
    Meeting &meeting_for(uint32_t mask, const Place &where);
    void complete(Meeting &meeting);
};

enum MeetingOrder { kOrdersNothing, kOrdersMemory };

/* Brings `bytes` bytes for this lane, returns when all lanes of the mask are there. The caller reads what it needs from
 * other lanes' bytes and then calls leave. */
Meeting &meet(uint32_t mask, const void *data, size_t bytes, const Place &where, MeetingOrder order = kOrdersNothing);
void leave(Meeting &meeting);

/* What lane `source` brought, or all ones where that is undefined on a GPU: a lane outside the mask, or ended. */
void read_lane(const Meeting &meeting, unsigned source, void *out, size_t bytes);

unsigned this_lane();

}  // namespace emu
