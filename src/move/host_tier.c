#include "move/host_tier.h"

#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/status.h"

quire_status quire__host_tier_open(quire__host_tier *tier, quire__device *device, const quire__allocator *allocator,
                                   uint32_t slots, size_t block_bytes, bool verify)
{
    void *checksums = NULL, *bytes = NULL;

    memset(tier, 0, sizeof *tier);
    if (slots > 0) {
        QUIRE__TRY(quire__memory_take(allocator, slots, sizeof(uint64_t), "host checksums", &checksums));
        quire_status status =
            quire__device_alloc(device, QUIRE__MEMORY_PINNED, (size_t)slots * block_bytes, &bytes);
        if (status != QUIRE_OK) {
            quire__memory_give(allocator, checksums);
            return status;
        }
    }
    *tier = (quire__host_tier){.device = device,
                               .bytes = bytes,
                               .checksums = checksums,
                               .block_bytes = block_bytes,
                               .slots = slots,
                               .verify = verify};
    return QUIRE_OK;
}

void quire__host_tier_close(quire__host_tier *tier, const quire__allocator *allocator)
{
    if (tier->bytes != NULL)
        quire__device_free(tier->device, QUIRE__MEMORY_PINNED, tier->bytes);
    quire__memory_give(allocator, tier->checksums);
    memset(tier, 0, sizeof *tier);
}

void *quire__host_tier_slot(const quire__host_tier *tier, uint32_t slot)
{
    QUIRE__ASSERT(slot < tier->slots);
    return tier->bytes + (size_t)slot * tier->block_bytes;
}

void quire__host_tier_seal(quire__host_tier *tier, uint32_t slot)
{
    if (tier->verify)
        tier->checksums[slot] = quire__checksum(quire__host_tier_slot(tier, slot), tier->block_bytes);
}

bool quire__host_tier_intact(const quire__host_tier *tier, uint32_t slot)
{
    return !tier->verify ||
           tier->checksums[slot] == quire__checksum(quire__host_tier_slot(tier, slot), tier->block_bytes);
}
