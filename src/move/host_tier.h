/* host_tier.h: blocks in host RAM: slots of pinned memory, with a checksum each.
 *
 * A checksum is taken from the bytes as they lie in host memory once the copy has completed, and compared before they
 * leave again, so a block whose host bytes changed in between becomes a miss. It does not cover the copy itself. */
#ifndef QUIRE_HOST_TIER_H
#define QUIRE_HOST_TIER_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/memory.h"
#include "device/device.h"

typedef struct quire__host_tier_config {
    uint32_t slots; /* 0: an empty tier */
    size_t slot_bytes;
    bool verify;
    size_t chunk_bytes; /* pinned at a time, at least; 0: all */
    bool background;    /* all chunks but the first are pinned by a thread; else all of them at open */
} quire__host_tier_config;

typedef struct quire__host_tier {
    quire__device *device;
    unsigned char *bytes;
    uint64_t *checksums; /* by slot; meaningful once sealed */
    size_t slot_bytes, chunk_stride;
    uint32_t slots, chunk_slots, chunks;
    bool verify;

    pthread_t thread; /* the one that pins, if `threaded` */
    bool threaded;
    atomic_uint pinned; /* chunks so far; written by one thread at a time */
    atomic_bool stop, failed;
    char fault[256]; /* why, once failed */
} quire__host_tier;

/* The first chunk is pinned on return. A thread that cannot be had is done without. QUIRE_ENOMEM. */
quire_status quire__host_tier_open(quire__host_tier *tier, quire__device *device, const quire__allocator *allocator,
                                   const quire__host_tier_config *config);
/* Waits for a chunk that is being pinned. */
void quire__host_tier_close(quire__host_tier *tier, const quire__allocator *allocator);
/* The first so many slots can be used. Rises, from the first chunk's to all of them. */
uint32_t quire__host_tier_ready(const quire__host_tier *tier);
/* Why it will not rise any more before all slots are there; NULL: it will. Lent until close. */
const char *quire__host_tier_fault(const quire__host_tier *tier);
void *quire__host_tier_slot(const quire__host_tier *tier, uint32_t slot);
/* The slot's bytes have arrived: remember what they are. */
void quire__host_tier_seal(quire__host_tier *tier, uint32_t slot);
/* Are they still what they were? Always true when verification is off. */
bool quire__host_tier_intact(const quire__host_tier *tier, uint32_t slot);

#endif
