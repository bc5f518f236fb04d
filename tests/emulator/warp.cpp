/* warp.cpp - see warp.h. */
#include "warp.h"

#include "block.h"
#include "shuffle_vote.h"

namespace emu {

/* memcpy that TSan does not see. A call of memcpy would be: TSan replaces the function itself. The empty asm keeps the
 * compiler from making the loops into that call. */
EMU_UNCHECKED static void copy_unchecked(void *to, const void *from, size_t bytes) {
    char *t = static_cast<char *>(to);
    const char *f = static_cast<const char *>(from);
    for (; bytes >= 4; bytes -= 4, t += 4, f += 4) {
        __builtin_memcpy(t, f, 4);
        asm volatile("" ::: "memory");
    }
    for (; bytes > 0; bytes--, t++, f++) {
        *t = *f;
        asm volatile("" ::: "memory");
    }
}

EMU_UNCHECKED void Warp::reset(uint32_t lanes) {
    live = lanes;
    collecting = 0;
    reading = 0;
    for (int i = 0; i < 32; i++) {
        meeting[i].arrived = 0;
        meeting[i].unread = 0;
    }
}

EMU_UNCHECKED void Warp::complete(Meeting &m) {
    const uint32_t bit = 1u << (&m - meeting);
    m.members = m.arrived;
    m.unread = m.arrived;
    m.arrived = 0;
    m.generation++;
    collecting &= ~bit;
    reading |= bit;
}

EMU_UNCHECKED void Warp::lane_ended(unsigned lane) {
    live &= ~(1u << lane);
    for (uint32_t left = collecting; left != 0; left &= left - 1) {
        Meeting &m = meeting[__builtin_ctz(left)];
        if (m.arrived == (m.mask & live)) {
            complete(m);
        }
    }
}

/* The meeting under way for this mask, or a free one. The search for a free one starts at the mask's first lane, so that
 * two groups of lanes do not share an address that TSan takes for an order between them. */
EMU_UNCHECKED Meeting &Warp::meeting_for(uint32_t mask, const Place &where) {
    for (uint32_t left = collecting; left != 0; left &= left - 1) {
        Meeting &m = meeting[__builtin_ctz(left)];
        if (m.mask == mask) {
            if (!same_operation(m.place, where)) {
                this_block().die("lanes of one mask meet in different warp operations", &where);
            }
            return m;
        }
    }
    unsigned i = unsigned(__builtin_ctz(mask));
    while (((collecting | reading) >> i & 1) != 0) {
        i = (i + 1) % 32;
    }
    collecting |= 1u << i;
    meeting[i].mask = mask;
    meeting[i].place = where;
    return meeting[i];
}

EMU_UNCHECKED Meeting &meet(uint32_t mask, const void *data, size_t bytes, const Place &where, MeetingOrder order) {
    Thread &me = this_thread();
    Warp &warp = *me.warp;
    if ((mask >> me.lane & 1) == 0) {
        this_block().die("a lane calls a warp operation whose mask does not name it", &where);
    }
    Meeting &m = warp.meeting_for(mask, where);
    copy_unchecked(m.bytes[me.lane], data, bytes);
    if (order == kOrdersMemory) {
        tsan_release(&m);
    }
    const uint32_t generation = m.generation;
    m.arrived |= 1u << me.lane;
    if (m.arrived == (mask & warp.live)) {
        warp.complete(m);
    } else {
        this_block().wait(m.generation, generation, mask, where);
    }
    if (order == kOrdersMemory) {
        tsan_acquire(&m);
    }
    return m;
}

EMU_UNCHECKED void leave(Meeting &m) {
    Thread &me = this_thread();
    m.unread &= ~(1u << me.lane);
    if (m.unread == 0) {
        me.warp->reading &= ~(1u << (&m - me.warp->meeting));
    }
}

EMU_UNCHECKED void read_lane(const Meeting &m, unsigned source, void *out, size_t bytes) {
    if (source < 32 && (m.members >> source & 1) != 0) {
        copy_unchecked(out, m.bytes[source], bytes);
    } else {
        for (size_t i = 0; i < bytes; i++) {
            static_cast<volatile unsigned char *>(out)[i] = 0xFF;
        }
    }
}

EMU_UNCHECKED unsigned this_lane() {
    return this_thread().lane;
}

EMU_UNCHECKED uint32_t ballot(uint32_t mask, bool predicate, const Place &where) {
    const unsigned char vote = predicate;
    Meeting &meeting = meet(mask, &vote, sizeof vote, where);
    uint32_t votes = 0;
    for (uint32_t left = meeting.members; left != 0; left &= left - 1) {
        const unsigned lane = unsigned(__builtin_ctz(left));
        votes |= uint32_t(meeting.bytes[lane][0]) << lane;
    }
    leave(meeting);
    return votes;
}

}  // namespace emu
