/* host_tier.h: blocks in host RAM: slots of one pinned allocation, with a checksum each.
 *
 * A checksum is taken from the bytes as they lie in host memory once the copy has completed, and compared before they
 * leave again, so a block whose host bytes changed in between becomes a miss. It does not cover the copy itself. */
#ifndef QUIRE_HOST_TIER_H
#define QUIRE_HOST_TIER_H

#include "base/memory.h"
#include "device/device.h"

typedef struct quire__host_tier {
    quire__device *device;
    unsigned char *bytes;
    uint64_t *checksums; /* by slot; meaningful once sealed */
    size_t block_bytes;
    uint32_t slots;
    bool verify;
} quire__host_tier;

/* slots 0: an empty tier. QUIRE_ENOMEM. */
quire_status quire__host_tier_open(quire__host_tier *tier, quire__device *device, const quire__allocator *allocator,
                                   uint32_t slots, size_t block_bytes, bool verify);
void quire__host_tier_close(quire__host_tier *tier, const quire__allocator *allocator);
void *quire__host_tier_slot(const quire__host_tier *tier, uint32_t slot);
/* The slot's bytes have arrived: remember what they are. */
void quire__host_tier_seal(quire__host_tier *tier, uint32_t slot);
/* Are they still what they were? Always true when verification is off. */
bool quire__host_tier_intact(const quire__host_tier *tier, uint32_t slot);

#endif
