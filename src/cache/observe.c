/* observe.c: what a server exports, and the check of everything. */
#include <string.h>

#include "base/status.h"
#include "cache/cache.h"
#include "cache/groups.h"

quire_status quire_cache_stats(quire_cache *cache, quire_stats *stats)
{
    if (cache == NULL || stats == NULL)
        return quire__fail(QUIRE_EINVAL, "cache and stats must not be NULL");
    if (stats->size != sizeof *stats)
        return quire__fail(QUIRE_EINVAL, "quire_stats.size is %zu; set it to sizeof(quire_stats), %zu", stats->size,
                           sizeof *stats);
    quire__mover_stats moved;

    quire__cache_lock(cache);
    quire__cache_take_in(cache);
    memset(stats, 0, sizeof *stats);
    stats->size = sizeof *stats;
    quire__book_stats(cache->book, stats);
    quire__mover_stats_get(cache->mover, &moved);
    stats->compute_block_us = cache->prefill_rate > 0 ? cache->options.block_tokens * 1e6 / cache->prefill_rate : 0;
    quire__cache_unlock(cache);
    stats->restore_block_us = moved.restore_block_us;
    stats->offloads = moved.offloads;
    stats->offload_bytes = moved.offload_bytes;
    stats->offload_failures = moved.offload_failures;
    stats->restores = moved.restores;
    stats->restore_bytes = moved.restore_bytes;
    stats->restore_failures = moved.restore_failures;
    stats->checksum_failures = moved.checksum_failures;
    stats->block_bytes = quire__groups_block_bytes(cache);
    return QUIRE_OK;
}

quire_status quire_cache_group_stats(quire_cache *cache, uint32_t group, quire_group_stats *stats)
{
    if (cache == NULL || stats == NULL)
        return quire__fail(QUIRE_EINVAL, "cache and stats must not be NULL");
    if (stats->size != sizeof *stats)
        return quire__fail(QUIRE_EINVAL, "quire_group_stats.size is %zu; set it to sizeof(quire_group_stats), %zu",
                           stats->size, sizeof *stats);
    if (group > cache->side_count)
        return quire__fail(QUIRE_EINVAL, "group is %u; the cache has %u, counted from 0", group, cache->side_count + 1);
    quire__cache_lock(cache);
    quire__cache_take_in(cache);
    memset(stats, 0, sizeof *stats);
    stats->size = sizeof *stats;
    quire__book_group_stats(cache->book, group, stats);
    quire__cache_unlock(cache);
    stats->block_bytes = group == 0 ? cache->layout.block_bytes : cache->sides[group - 1].layout.block_bytes;
    return QUIRE_OK;
}

quire_status quire_cache_events(quire_cache *cache, quire_event *events, size_t capacity, size_t *count)
{
    if (cache == NULL || count == NULL || (events == NULL && capacity > 0))
        return quire__fail(QUIRE_EINVAL, "cache, events and count must not be NULL");
    quire__cache_lock(cache);
    quire__cache_take_in(cache);
    *count = quire__book_events(cache->book, events, capacity);
    quire__cache_unlock(cache);
    return QUIRE_OK;
}

quire_status quire_block_tokens(quire_cache *cache, quire_block block, int32_t *tokens)
{
    if (cache == NULL || tokens == NULL)
        return quire__fail(QUIRE_EINVAL, "cache and tokens must not be NULL");
    quire__lock_take(&cache->lock);
    quire_status status = quire__book_block_tokens(cache->book, block, tokens);
    quire__lock_give(&cache->lock);
    return status;
}

typedef struct verdict {
    const quire__host_tier *tier;
    uint32_t broken, slot;
} verdict;

static void check_slot(void *arg, uint32_t slot)
{
    verdict *result = arg;

    if (!quire__host_tier_intact(result->tier, slot)) {
        result->broken++;
        result->slot = slot;
    }
}

static quire_status check(quire_cache *cache)
{
    quire__cache_take_in(cache);
    QUIRE__TRY(quire__book_check(cache->book));
    verdict result = {.tier = quire__mover_host_tier(cache->mover)};
    quire__book_each_host_slot(cache->book, check_slot, &result);
    for (uint32_t group = 1; group <= cache->side_count; group++) {
        result.tier = quire__mover_side_tier(cache->mover, group);
        quire__book_each_host_side(cache->book, group, check_slot, &result);
    }
    if (result.broken > 0)
        return quire__fail(QUIRE_ECORRUPT, "%u blocks in the host tier do not match their checksums (slot %u)",
                           result.broken, result.slot);
    return QUIRE_OK;
}

quire_status quire_cache_check(quire_cache *cache)
{
    if (cache == NULL)
        return quire__fail(QUIRE_EINVAL, "cache must not be NULL");
    quire__cache_lock(cache);
    quire_status status = check(cache);
    quire__cache_unlock(cache);
    return status;
}
