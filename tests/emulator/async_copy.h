/*
 * async_copy.h - cp.async: copies from global to shared memory that end some time between the call and the wait.
 *
 * A kernel must be right whenever they end, so the emulator has the two extremes:
 *   lazy (default)  bytes move in the wait. A wait that is missing, or that lets one group too many stay in flight,
 *                   leaves the reader with what was there before.
 *   eager (odd seed) bytes move in the call. A stage that is refilled while another thread still reads it changes
 *                   under that thread.
 * To TSan the destination is written at both ends, in either mode: one run finds both mistakes.
 *
 * Groups are numbered by the commits of the thread that made them. wait(n) ends all but the newest n committed groups.
 * Copies that a thread never waits for are dropped when it ends; by then nobody may read them.
 */
#pragma once

#include "place.h"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace emu {

struct AsyncCopy {
    unsigned char *to;
    const unsigned char *from; /* null: fill with zeros, read nothing */
    uint64_t group;
};

class AsyncCopies {
  public:
    void reset();
    void add(const AsyncCopy &copy);
    void commit();
    void wait(uint64_t groups_left);
    uint64_t open_group() const { return committed_; }

  private:
    std::vector<AsyncCopy> pending_; /* oldest first */
    uint64_t committed_ = 0;
};

/* 16 bytes; both addresses must be multiples of 16, and the destination in shared memory. */
void async_copy_16(void *shared, const void *global, bool valid, Place where = here("cp.async"));
void async_copy_commit();
void async_copy_wait(unsigned groups_left);

}  // namespace emu
