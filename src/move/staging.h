/* staging.h: blocks on their way through device memory beside the arena, where a kernel packs them, or lays small ones side
 * by side, so that what crosses the link is less, or larger pieces. One of these a direction; staging.c says how. */
#ifndef QUIRE_STAGING_H
#define QUIRE_STAGING_H

#include "block/plan.h"
#include "device/device.h"
#include "device/host_pack.h"
#include "move/host_tier.h"

/* How blocks cross. */
typedef enum quire__path {
    QUIRE__PATH_COPY = 0, /* each from its slot to its slot: no staging */
    QUIRE__PATH_GATHER,   /* a kernel gathers and scatters them */
    QUIRE__PATH_PACK      /* a kernel packs and unpacks them: bf16 only, and host slots are smaller */
} quire__path;

enum {
    QUIRE__STAGING_BUFFERS = 2,
    QUIRE__STAGING_BYTES = 8 << 20 /* of a buffer: some 150 us of a PCIe 5 link, beside which a launch is little */
};

typedef struct quire__staging_config {
    quire__device *device;
    quire__allocator allocator;
    unsigned char *arena;
    const quire__host_tier *host;
    quire__path path; /* GATHER or PACK */
    quire__pack_shape shape; /* PACK */
    bool restore;
    size_t block_bytes, part_bytes; /* as the mover's */
    uint32_t parts, capacity;       /* capacity: of the ring of moves */
    size_t buffer_bytes;            /* about; at least one block goes in */
} quire__staging_config;

typedef struct quire__staging {
    quire__staging_config config;
    quire__stream *kernels;
    unsigned char *buffers[QUIRE__STAGING_BUFFERS];
    int32_t *unit_status[QUIRE__STAGING_BUFFERS]; /* PACK: device memory that nobody reads */
    quire__event *filled[QUIRE__STAGING_BUFFERS], *drained[QUIRE__STAGING_BUFFERS];
    uint32_t next, group; /* the next buffer; blocks that go in one */
    int64_t *offsets; /* [capacity] pinned: of the ring's moves, where their blocks are in the arena */
    int32_t *refused; /* [capacity] pinned: not 0 when the kernel could not pack or unpack it */
    bool no_wait;     /* tests only: use a buffer again without waiting */
} quire__staging;

/* QUIRE_ENOMEM, QUIRE_EDEVICE. What was opened in part is to be closed. */
quire_status quire__staging_open(quire__staging *staging, const quire__staging_config *config);
/* Waits for the kernels. */
void quire__staging_close(quire__staging *staging);
/* Moves ring[first .. first + count), which does not wrap. `copies` is scratch for count entries; *made rises by what was
 * enqueued.
 * Offload: behind what `kernels` was made to wait for; `ended` is recorded on the copies' stream.
 * Restore: one part. `arrived` is recorded on the copies' stream, and has failed if a copy has; the caller records on
 * `kernels` when the whole part is enqueued. */
quire_status quire__staging_offload(quire__staging *staging, quire__stream *stream, const quire__move *ring, uint32_t first,
                                    uint32_t count, quire__copy *copies, quire__event *ended, uint64_t *made);
quire_status quire__staging_restore(quire__staging *staging, quire__stream *stream, const quire__move *ring, uint32_t first,
                                    uint32_t count, uint32_t part, quire__copy *copies, quire__event *arrived,
                                    uint64_t *made);
/* Adds a copy to a list, or makes the last one longer by it; how many there are then. */
uint32_t quire__copies_add(quire__copy *copies, uint32_t count, quire__copy copy);

#endif
