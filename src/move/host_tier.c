/* host_tier.c: slots in host memory, pinned a chunk at a time.
 *
 *     chunk 0              gap   chunk 1              gap   chunk 2 ...
 *     |slot 0|...|slot n-1|...  |slot n|...|slot 2n-1|...
 *      pinned at open            pinned by the thread, in this order
 *
 * Pinning is slow (each page is taken and locked), and a large pool would keep its caller waiting for seconds at open. So
 * only the first chunk is pinned before open returns; a thread of the tier pins the others. Chunks are pinned in order, and
 * `pinned` says how many are; it is stored after the chunk is (release) and read before one is used (acquire), and nothing
 * else of the tier is written by the thread but the text of a failure, before `failed`. The deciding half is told of the
 * growth by a call and hands out no slot before; so no move touches memory that is not there yet.
 *
 * Each chunk is a pinned range of its own, and a copy must lie within one. Hence a slot is in one chunk, and a gap of at least
 * a byte keeps copies of neighbouring slots from being merged across chunks.
 *
 * A chunk that cannot be pinned is the end: the tier keeps the size that it has. A tier of one chunk has no thread. */
#include "move/host_tier.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/status.h"

enum { CHUNK_ALIGNMENT = 2 * 1024 * 1024 }; /* huge pages do not straddle chunks */

static unsigned char *chunk_memory(const quire__host_tier *tier, uint32_t chunk)
{
    return tier->bytes + chunk * tier->chunk_stride;
}

static size_t chunk_bytes(const quire__host_tier *tier, uint32_t chunk)
{
    uint32_t first = chunk * tier->chunk_slots, left = tier->slots - first;
    size_t bytes = (left < tier->chunk_slots ? left : tier->chunk_slots) * tier->slot_bytes;
    return (bytes + QUIRE__POOL_ALIGNMENT - 1) / QUIRE__POOL_ALIGNMENT * QUIRE__POOL_ALIGNMENT;
}

static quire_status pin_next(quire__host_tier *tier)
{
    uint32_t chunk = atomic_load_explicit(&tier->pinned, memory_order_relaxed);
    QUIRE__TRY(quire__device_pool_pin(tier->device, chunk_memory(tier, chunk), chunk_bytes(tier, chunk)));
    atomic_store_explicit(&tier->pinned, chunk + 1, memory_order_release);
    return QUIRE_OK;
}

static void *pin_all(void *arg)
{
    quire__host_tier *tier = arg;

    while (atomic_load_explicit(&tier->pinned, memory_order_relaxed) < tier->chunks && !atomic_load(&tier->stop)) {
        if (pin_next(tier) == QUIRE_OK)
            continue;
        snprintf(tier->fault, sizeof tier->fault, "%s", quire_error_text());
        atomic_store_explicit(&tier->failed, true, memory_order_release);
        break;
    }
    return NULL;
}

static void set_geometry(quire__host_tier *tier, const quire__host_tier_config *config)
{
    size_t most = config->slots;
    if (config->chunk_bytes > 0 && config->chunk_bytes / config->slot_bytes < most)
        most = config->chunk_bytes / config->slot_bytes > 0 ? config->chunk_bytes / config->slot_bytes : 1;
    tier->slots = config->slots;
    tier->slot_bytes = config->slot_bytes;
    tier->chunk_slots = (uint32_t)most;
    tier->chunks = (tier->slots - 1) / tier->chunk_slots + 1;
    tier->chunk_stride = (most * config->slot_bytes / CHUNK_ALIGNMENT + 1) * CHUNK_ALIGNMENT; /* with a gap */
}

static quire_status pin(quire__host_tier *tier, bool background)
{
    QUIRE__TRY(pin_next(tier));
    if (tier->chunks == 1)
        return QUIRE_OK;
    tier->threaded = background && pthread_create(&tier->thread, NULL, pin_all, tier) == 0;
    while (!tier->threaded && tier->pinned < tier->chunks)
        QUIRE__TRY(pin_next(tier));
    return QUIRE_OK;
}

quire_status quire__host_tier_open(quire__host_tier *tier, quire__device *device, const quire__allocator *allocator,
                                   const quire__host_tier_config *config)
{
    void *checksums = NULL, *bytes = NULL;

    memset(tier, 0, sizeof *tier);
    tier->device = device;
    tier->verify = config->verify;
    if (config->slots == 0)
        return QUIRE_OK;
    set_geometry(tier, config);
    QUIRE__TRY(quire__memory_take(allocator, config->slots, sizeof(uint64_t), "host checksums", &checksums));
    tier->checksums = checksums;
    quire_status status = quire__device_pool_open(
        device, (tier->chunks - 1) * tier->chunk_stride + chunk_bytes(tier, tier->chunks - 1), &bytes);
    tier->bytes = bytes;
    if (status == QUIRE_OK)
        status = pin(tier, config->background);
    if (status != QUIRE_OK)
        quire__host_tier_close(tier, allocator);
    return status;
}

void quire__host_tier_close(quire__host_tier *tier, const quire__allocator *allocator)
{
    if (tier->threaded) {
        atomic_store(&tier->stop, true);
        (void)pthread_join(tier->thread, NULL);
    }
    for (uint32_t chunk = 0; chunk < tier->pinned; chunk++)
        quire__device_pool_unpin(tier->device, chunk_memory(tier, chunk), chunk_bytes(tier, chunk));
    if (tier->device != NULL)
        quire__device_pool_close(tier->device, tier->bytes);
    quire__memory_give(allocator, tier->checksums);
    memset(tier, 0, sizeof *tier);
}

uint32_t quire__host_tier_ready(const quire__host_tier *tier)
{
    uint64_t slots = (uint64_t)atomic_load_explicit(&tier->pinned, memory_order_acquire) * tier->chunk_slots;
    return slots < tier->slots ? (uint32_t)slots : tier->slots;
}

const char *quire__host_tier_fault(const quire__host_tier *tier)
{
    return atomic_load_explicit(&tier->failed, memory_order_acquire) ? tier->fault : NULL;
}

void *quire__host_tier_slot(const quire__host_tier *tier, uint32_t slot)
{
    QUIRE__ASSERT(slot < tier->slots);
    return chunk_memory(tier, slot / tier->chunk_slots) + slot % tier->chunk_slots * tier->slot_bytes;
}

void quire__host_tier_seal(quire__host_tier *tier, uint32_t slot)
{
    if (tier->verify)
        tier->checksums[slot] = quire__checksum(quire__host_tier_slot(tier, slot), tier->slot_bytes);
}

bool quire__host_tier_intact(const quire__host_tier *tier, uint32_t slot)
{
    return !tier->verify ||
           tier->checksums[slot] == quire__checksum(quire__host_tier_slot(tier, slot), tier->slot_bytes);
}
