/* groups.c: the groups beside the first, as the cache sees them.
 *
 *    device_bytes   | first group: P blocks | group 1: S1 blocks | group 2: S2 blocks |
 *    host_bytes     | first group: H blocks | group 1: H blocks  | group 2: H blocks  |      slot h holds one block's bytes
 *
 * A group with a window needs few blocks: those of the windows of the sequences that can be open, and, for one of them, of a
 * step. That is what it gets, or, where the first group has fewer, as many as that; the first group gets what is left.
 *
 * Each group has block tables and a header of its own on the device (tables.c). Positions and lengths are the same in all, and
 * are sent once a group: a few hundred bytes more a step, for which one group's path stays as it is.
 */
#include "cache/groups.h"

#include "base/status.h"

enum { ROOM = 2 /* blocks beside a window's, in which a sequence goes on */ };

/* ---- sizes ------------------------------------------------------------------------------------------------- */

quire_status quire__groups_take(quire_cache *cache, const quire_options *options)
{
    QUIRE__TRY(quire__layout_make(&cache->layout, options, 0));
    cache->side_count = options->group_count - 1;
    for (uint32_t i = 0; i < cache->side_count; i++)
        QUIRE__TRY(quire__layout_make(&cache->sides[i].layout, options, i + 1));
    for (uint32_t i = 0; i < options->group_count; i++) {
        const quire__layout *layout = i == 0 ? &cache->layout : &cache->sides[i - 1].layout;
        cache->groups[i] = options->groups[i];
        cache->groups[i].dtype = layout->dtype;
        cache->groups[i].query_heads = layout->query_heads;
    }
    cache->options.groups = cache->groups;
    if (cache->side_count > 0 && cache->follows)
        return quire__fail(QUIRE_EUNSUPPORTED, "ranks follow caches of one group of layers; this one has %u", options->group_count);
    if (cache->side_count > 0 && options->device_max_bytes > 0)
        return quire__fail(QUIRE_EUNSUPPORTED, "an arena of %u groups keeps its size: set device_max_bytes to 0",
                           options->group_count);
    if (cache->side_count > 0 && options->restore_parts > 1)
        return quire__fail(QUIRE_EUNSUPPORTED, "restores of %u groups do not come in parts: set restore_parts to 1",
                           options->group_count);
    return QUIRE_OK;
}

uint64_t quire__groups_block_bytes(const quire_cache *cache)
{
    uint64_t sum = cache->layout.block_bytes;
    for (uint32_t i = 0; i < cache->side_count; i++)
        sum += cache->sides[i].layout.block_bytes;
    return sum;
}

static uint64_t blocks_of(const quire_cache *cache, uint64_t tokens)
{
    return (tokens + cache->options.block_tokens - 1) / cache->options.block_tokens;
}

/* Blocks that one sequence keeps when it has gone on for long. */
static uint64_t kept_blocks(const quire_cache *cache, uint32_t side)
{
    return blocks_of(cache, (uint64_t)cache->sides[side].layout.window + cache->groups[side + 1].rollback) + 1;
}

/* The most that it makes sense to give the group; UINT64_MAX: as many as the first has. */
static uint64_t wanted_blocks(const quire_cache *cache, uint32_t side)
{
    const quire_options *options = &cache->options;
    if (cache->groups[side + 1].blocks > 0)
        return cache->groups[side + 1].blocks;
    if (cache->sides[side].layout.window == 0)
        return UINT64_MAX;
    return options->max_sequences * kept_blocks(cache, side) + blocks_of(cache, options->max_step_tokens) + ROOM;
}

/* The first group's share, when groups that want fewer blocks than it has get what they want. */
static uint64_t share(const quire_cache *cache)
{
    uint64_t slots = UINT64_MAX;
    for (uint32_t round = 0; round <= cache->side_count; round++) {
        uint64_t left = cache->options.device_bytes, each = cache->layout.block_bytes;
        for (uint32_t i = 0; i < cache->side_count; i++) {
            uint64_t bytes = cache->sides[i].layout.block_bytes, wanted = wanted_blocks(cache, i);
            bool fixed = cache->groups[i + 1].blocks > 0 || (round > 0 && wanted <= slots);
            if (!fixed)
                each += bytes;
            else
                left = left / bytes > wanted ? left - wanted * bytes : 0;
        }
        slots = left / each; /* never less than in the round before */
    }
    return slots;
}

quire_status quire__groups_size(quire_cache *cache, uint64_t *device_slots)
{
    uint64_t slots = share(cache);
    for (uint32_t i = 0; i < cache->side_count; i++) {
        uint64_t wanted = wanted_blocks(cache, i), least = kept_blocks(cache, i) + ROOM;
        bool full = cache->sides[i].layout.window == 0;
        if (cache->groups[i + 1].blocks == 0 && wanted > slots)
            wanted = slots;
        least = full || least > slots ? slots : least;
        if (wanted < least || wanted > INT32_MAX / 2)
            return quire__fail(QUIRE_EINVAL, "group %u has %llu blocks; it must have %llu at least, for one sequence, and %d at "
                               "most (quire_group.blocks, device_bytes)", i + 1, (unsigned long long)wanted,
                               (unsigned long long)least, INT32_MAX / 2);
        cache->sides[i].slots = (uint32_t)wanted;
    }
    *device_slots = slots;
    return QUIRE_OK;
}

uint64_t quire__groups_side_bytes(const quire_cache *cache)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < cache->side_count; i++)
        sum += (uint64_t)cache->sides[i].slots * cache->sides[i].layout.block_bytes;
    return sum;
}

void quire__groups_book(const quire_cache *cache, quire__side_config sides[QUIRE__SIDES_MOST])
{
    for (uint32_t i = 0; i < cache->side_count; i++) {
        const quire__layout *layout = &cache->sides[i].layout;
        sides[i] = (quire__side_config){.slots = cache->sides[i].slots,
                                        .window = layout->window > 0 ? layout->window : UINT32_MAX,
                                        .rollback = cache->groups[i + 1].rollback,
                                        .whole = layout->state_bytes > 0};
    }
}

/* ---- memory ------------------------------------------------------------------------------------------------ */

quire_status quire__groups_open_memory(quire_cache *cache)
{
    for (uint32_t i = 0; i < cache->side_count; i++) {
        quire__cache_side *side = &cache->sides[i];
        uint64_t checksum;
        void *memory;
        QUIRE__TRY(quire__device_alloc(cache->device, QUIRE__MEMORY_DEVICE, side->slots * side->layout.block_bytes, &memory));
        side->arena = memory;
        QUIRE__TRY(quire__memory_take(&cache->allocator, cache->options.max_sequences, sizeof(uint32_t), "table rows", &memory));
        side->last_rows = memory;
        QUIRE__TRY(quire__cache_send_scales(cache, &cache->groups[i + 1], &side->layout, &side->scales, &checksum));
        cache->groups[i + 1].scales = NULL; /* the caller's array was lent for the call */
    }
    return QUIRE_OK;
}

quire_status quire__groups_open_tables(quire_cache *cache)
{
    quire__tables_config config = quire__cache_tables_config(cache);
    void *memory;

    if (cache->side_count == 0)
        return QUIRE_OK;
    for (uint32_t i = 0; i < cache->side_count; i++)
        QUIRE__TRY(quire__tables_open(&cache->sides[i].tables, &config));
    QUIRE__TRY(quire__memory_take(&cache->allocator, cache->options.max_sequences, sizeof(quire__row), "step rows", &memory));
    cache->step.side_sent = memory;
    return QUIRE_OK;
}

void quire__groups_close(quire_cache *cache)
{
    for (uint32_t i = 0; i < cache->side_count; i++) {
        quire__cache_side *side = &cache->sides[i];
        quire__tables_close(side->tables);
        quire__memory_give(&cache->allocator, side->last_rows);
        if (cache->device == NULL)
            continue;
        quire__device_free(cache->device, QUIRE__MEMORY_DEVICE, side->scales);
        quire__device_free(cache->device, QUIRE__MEMORY_DEVICE, side->arena);
    }
    quire__memory_give(&cache->allocator, cache->step.side_sent);
}

/* ---- a step ------------------------------------------------------------------------------------------------ */

static void gather_rows(quire_step *step, uint32_t group)
{
    quire_cache *cache = step->cache;

    for (uint32_t i = 0; i < step->row_count; i++) {
        uint32_t first = 0, seq = step->rows[i].seq;
        quire__row *row = &step->side_sent[i];
        *row = step->sent[i]; /* the first group's */
        row->blocks = quire__book_seq_side_table(cache->book, seq, group, &first, &row->block_count, &row->changed, true);
        row->last_row = &cache->sides[group - 1].last_rows[seq];
    }
}

static quire_status submit_one(quire_step *step, uint32_t group)
{
    quire_cache *cache = step->cache;
    quire__cache_side *side = &cache->sides[group - 1];
    quire_view *view = &step->side_views[group - 1];

    quire__cache_lock(cache);
    gather_rows(step, group);
    quire__cache_unlock(cache);
    quire__cache_fill_view(cache, step->stream, &side->layout, side->arena, side->slots, side->scales, view);
    QUIRE__TRY(quire__tables_send(side->tables, step->stream, step->side_sent, step->row_count, view));
    return quire__step_copy_group(step, group, side->tables, side->arena, side->layout.block_bytes);
}

quire_status quire__groups_submit(quire_step *step)
{
    for (uint32_t group = 1; group <= step->cache->side_count; group++) {
        quire_status status = submit_one(step, group);
        if (status != QUIRE_OK) {
            for (uint32_t i = 0; i < step->cache->side_count; i++)
                quire__tables_forget(step->cache->sides[i].tables);
            return status;
        }
    }
    return QUIRE_OK;
}

uint32_t quire__groups_of_view(const quire_step *step, const quire_view *view)
{
    if (view == &step->view)
        return 0;
    for (uint32_t i = 0; i < step->cache->side_count; i++)
        if (view == &step->side_views[i])
            return i + 1;
    return QUIRE__NONE;
}
