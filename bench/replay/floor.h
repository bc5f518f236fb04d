/* floor.h: the memory traffic that no manager of the same blocks can avoid, timed on the machine at hand.
 *
 * A prompt's tokens are compared with those of the blocks that it finds, and copied into the new ones, 4
 * bytes a token: that proves a hit, and keeps what a later hit is proved against. Nodes, tables and orders
 * come on top, and are the manager's own affair. */
#ifndef REPLAY_FLOOR_H
#define REPLAY_FLOOR_H

#include "drive.h"

typedef struct replay_floor {
    uint64_t compared, copied; /* bytes */
    double seconds;
} replay_floor;

/* Goes through the trace as the replay of the same setup did, found and new blocks as the LRU stack says. */
int replay_floor_run(const replay_trace *trace, const replay_setup *setup, const uint32_t *found_blocks,
                     replay_floor *result, replay_error *error);

#endif
