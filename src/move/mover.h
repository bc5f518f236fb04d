/* mover.h: executes plans. Offloads and restores go out in batches, one stream a direction, so both can run at once;
 * copies of blocks within the device run on the step's own stream. The mover never decides: what fails is reported.
 *
 * One thread at a time. */
#ifndef QUIRE_MOVER_H
#define QUIRE_MOVER_H

#include "block/plan.h"
#include "device/device.h"
#include "move/host_tier.h"
#include "move/staging.h"

typedef struct quire__mover quire__mover;

/* A group of layers beside the first (plan.h: move.group): an arena and a host tier of its own. */
typedef struct quire__mover_side {
    unsigned char *arena;
    size_t block_bytes;
    uint32_t device_slots; /* its host tier has as many slots as the first's */
} quire__mover_side;

typedef struct quire__mover_config {
    quire__device *device;
    quire__allocator allocator;
    unsigned char *arena;
    size_t block_bytes; /* also the stride */
    uint32_t parts;     /* restores come in so many parts, 1..QUIRE__PARTS_MOST; 0: 1 */
    size_t part_bytes;  /* of a block, all but the last: parts * part_bytes >= block_bytes */
    uint32_t device_slots, host_slots;
    quire__path path;
    quire__pack_shape shape; /* QUIRE__PATH_PACK: of a block; units do not straddle parts. A host slot is its packed_bytes */
    size_t staging_bytes;    /* other paths than QUIRE__PATH_COPY: of each of four buffers on the device, about */
    const quire__mover_side *sides; /* [side_count], read at open; at most QUIRE__SIDES_MOST */
    uint32_t side_count;
    size_t pin_bytes;    /* of host memory, pinned at a time; 0: all */
    bool pin_background; /* see quire__host_tier_config */
    bool verify;
    uint64_t timeout_us;
} quire__mover_config;

typedef struct quire__mover_stats {
    uint64_t offloads, offload_bytes, offload_failures;
    uint64_t restores, restore_bytes, restore_failures, checksum_failures;
    uint64_t late;      /* moves given up before they ended */
    uint32_t in_flight, offloading, restoring; /* moves; in_flight is both */
    uint64_t copies;    /* enqueued: runs of blocks side by side in both tiers go as one */
    /* Restores as measured: a block's time once they flow, and how long a new one would wait for those in flight. 0: nothing
     * has been measured yet. */
    double restore_block_us, restore_wait_us;
} quire__mover_stats;

/* What became of a move. late: its time is up, but the copy may still be running, so its slots stay taken until the
 * second and last call for the same move, with done or failed. */
typedef enum quire__outcome { QUIRE__MOVE_DONE, QUIRE__MOVE_FAILED, QUIRE__MOVE_LATE } quire__outcome;
typedef void (*quire__completion_fn)(void *arg, const quire__move *move, quire__outcome outcome);

quire_status quire__mover_open(quire__mover **mover, const quire__mover_config *config);
/* Waits for what is in flight. NULL is allowed. */
void quire__mover_close(quire__mover *mover);

/* Restores in parts: the first part_bytes of all blocks of a batch arrive first, then the next. Somebody who needs only the
 * first part yet can go on behind it. */
enum { QUIRE__PARTS_MOST = 8 };
/* A number for the restores started so far; 0: none was started. */
uint64_t quire__mover_restore_mark(const quire__mover *mover);
/* Has the first part of all restores up to the mark arrived? Also when one has failed: its completion says so. */
bool quire__mover_restore_begun(quire__mover *mover, uint64_t mark);
/* The stream's work from here on runs after part `part` of all restores up to the mark. */
quire_status quire__mover_restore_wait(quire__mover *mover, uint64_t mark, uint32_t part, quire__stream *stream);

/* The stream's work up to here belongs to `step`: moves with this ticket wait for it. Steps rise. */
quire_status quire__mover_step_mark(quire__mover *mover, uint64_t step, quire__stream *stream);
/* Work on `stream` from here on runs after the last marked step, whatever stream that was on. */
quire_status quire__mover_step_chain(quire__mover *mover, quire__stream *stream);
/* Starts the offloads and restores of a plan (copies are skipped). Whatever cannot even be started completes as failed
 * at the next poll, so there is nothing to return. */
void quire__mover_start(quire__mover *mover, const quire__plan *plan);
/* Reports what has ended, oldest first in each direction. */
void quire__mover_poll(quire__mover *mover, quire__completion_fn fn, void *arg);
void quire__mover_stats_get(const quire__mover *mover, quire__mover_stats *stats);
/* Of the first group. */
quire__host_tier *quire__mover_host_tier(quire__mover *mover);
/* Of group 1 and up. */
quire__host_tier *quire__mover_side_tier(quire__mover *mover, uint32_t group);
/* quire__host_tier_ready and _fault, of all groups' together. */
uint32_t quire__mover_host_ready(const quire__mover *mover);
const char *quire__mover_host_fault(const quire__mover *mover);

/* Tests only: drop one protection, to prove that the tests would see it missing. */
typedef enum quire__mover_hole {
    QUIRE__MOVER_HOLE_NONE = 0,
    QUIRE__MOVER_HOLE_OFFLOAD_AFTER_STEP = 1, /* offload without waiting for the step that writes the block */
    QUIRE__MOVER_HOLE_RESTORE_AFTER_STEP = 2, /* restore without waiting for the steps that use the slot */
    QUIRE__MOVER_HOLE_COMPLETION = 4,         /* report a batch as done when it was only enqueued */
    QUIRE__MOVER_HOLE_STEP_CHAIN = 8,         /* do not order a step's stream behind the step before */
    QUIRE__MOVER_HOLE_CHECKSUM = 16,          /* do not verify what comes back */
    QUIRE__MOVER_HOLE_PARTS = 32,             /* let nobody wait for a part of a restore */
    QUIRE__MOVER_HOLE_STAGING = 64            /* write a staging buffer again while it is being read */
} quire__mover_hole;
void quire__mover_set_holes(quire__mover *mover, uint32_t holes);
/* Tests only: so many blocks to a staging buffer, at most as many as go in. */
void quire__mover_set_group(quire__mover *mover, uint32_t blocks);
/* Tests only: 0 makes every copy late that has not ended at the first look. */
void quire__mover_set_timeout(quire__mover *mover, uint64_t timeout_us);

#endif
