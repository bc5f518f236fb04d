/* resize.c: an arena that changes its size while it serves.
 *
 *    addresses   |==== section 0 ====|==== section 1 ====|  section 2 (no memory) |==== section 3 ====|
 *                reserved once, device_max_bytes long: pointers stay valid, block slots keep their addresses
 *
 * A section is the smallest run of whole blocks that fills whole granules of the device's memory, and as many of those as
 * keep the number of sections small.
 *
 * The book says which section leaves and which blocks move (block/section.c). The copies run behind the last step, on the
 * cache's own stream, and are waited for: what the section held is elsewhere by then, every kernel that read it has ended,
 * and no offload or restore is in flight, for those were waited for before. So nothing can touch the section when its memory
 * goes. */
#include "cache/resize.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/status.h"

enum { COPIES_AT_ONCE = 64 };

/* ---- geometry ------------------------------------------------------------------------------------------------ */

static uint64_t greatest_common_divisor(uint64_t a, uint64_t b)
{
    while (b != 0) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

quire_status quire__resize_plan(quire_cache *cache)
{
    quire_options *options = &cache->options;
    uint64_t block = cache->layout.block_bytes, granule = quire__device_granule(cache->device);
    uint64_t least = granule / greatest_common_divisor(block, granule), units;

    if (options->device_max_bytes == 0)
        return QUIRE_OK;
    if (options->device_max_bytes < options->device_bytes)
        return quire__fail(QUIRE_EINVAL, "device_max_bytes is %llu, less than device_bytes %llu",
                           (unsigned long long)options->device_max_bytes, (unsigned long long)options->device_bytes);
    units = options->device_max_bytes / (least * block);
    if (units < 2)
        return quire__fail(QUIRE_EINVAL, "device_max_bytes is %llu, but the arena changes its size by %llu (%llu blocks of "
                           "%llu bytes fill whole pieces of %llu): give at least twice that",
                           (unsigned long long)options->device_max_bytes, (unsigned long long)(least * block),
                           (unsigned long long)least, (unsigned long long)block, (unsigned long long)granule);
    uint64_t units_a_section = (units + QUIRE__SECTIONS_MOST - 1) / QUIRE__SECTIONS_MOST;
    uint64_t slots = units_a_section * least, sections = units / units_a_section;
    if (sections * slots > INT32_MAX / 2)
        return quire__fail(QUIRE_EINVAL, "%llu blocks of %llu bytes are more than a cache can count (%d)",
                           (unsigned long long)(sections * slots), (unsigned long long)block, INT32_MAX / 2);
    cache->section_slots = (uint32_t)slots;
    cache->section_bytes = (size_t)(slots * block);
    cache->sections = (uint32_t)sections;
    options->device_max_bytes = sections * cache->section_bytes;
    return QUIRE_OK;
}

/* ---- memory -------------------------------------------------------------------------------------------------- */

static unsigned char *section_memory(const quire_cache *cache, uint32_t section)
{
    return cache->arena + (size_t)section * cache->section_bytes;
}

static quire_status map_section(quire_cache *cache, uint32_t section)
{
    QUIRE__TRY(quire__device_map(cache->device, section_memory(cache, section), cache->section_bytes));
    cache->section_mapped[section] = true;
    return QUIRE_OK;
}

static quire_status unmap_section(quire_cache *cache, uint32_t section)
{
    QUIRE__TRY(quire__device_unmap(cache->device, section_memory(cache, section), cache->section_bytes));
    cache->section_mapped[section] = false;
    return QUIRE_OK;
}

quire_status quire__resize_open_arena(quire_cache *cache)
{
    void *memory;
    uint32_t wanted = (uint32_t)(cache->options.device_bytes / cache->section_bytes);

    QUIRE__TRY(quire__device_reserve(cache->device, cache->sections * cache->section_bytes, &memory));
    cache->arena = memory;
    wanted = wanted > 0 ? wanted : 1;
    for (uint32_t section = 0; section < wanted; section++)
        QUIRE__TRY(map_section(cache, section));
    cache->options.device_bytes = wanted * (uint64_t)cache->section_bytes;
    return QUIRE_OK;
}

quire_status quire__resize_open_book(quire_cache *cache)
{
    uint64_t wanted = cache->options.device_bytes / cache->section_bytes;

    QUIRE__TRY(quire__plan_open(&cache->resize_plan, &cache->allocator, cache->section_slots));
    QUIRE__TRY(quire__device_event_open(cache->device, &cache->resized));
    while (quire__book_sections(cache->book) > wanted) { /* the last leaves first */
        uint32_t section = quire__book_section_leave(cache->book, &cache->resize_plan);
        quire__book_section_left(cache->book, section, &cache->resize_plan, true);
    }
    return QUIRE_OK;
}

void quire__resize_close_arena(quire_cache *cache)
{
    for (uint32_t section = 0; section < cache->sections; section++)
        if (cache->section_mapped[section])
            (void)unmap_section(cache, section);
    quire__device_release(cache->device, cache->arena, cache->sections * cache->section_bytes);
}

/* ---- growing and shrinking ----------------------------------------------------------------------------------- */

static void note_size(quire_cache *cache)
{
    cache->options.device_bytes = quire__book_sections(cache->book) * (uint64_t)cache->section_bytes;
}

static quire_status grow(quire_cache *cache)
{
    uint32_t section = 0;

    while (cache->section_mapped[section])
        section++;
    QUIRE__TRY(map_section(cache, section));
    uint32_t added = quire__book_section_add(cache->book);
    QUIRE__ASSERT(added == section); /* both take the first that is missing */
    (void)added;
    note_size(cache);
    return QUIRE_OK;
}

/* The planned copies, behind the last step and before the next one. */
static quire_status copy_blocks(quire_cache *cache)
{
    const quire__plan *plan = &cache->resize_plan;
    size_t block = cache->layout.block_bytes;
    quire__copy copies[COPIES_AT_ONCE];

    for (uint32_t done = 0; done < plan->count;) {
        uint32_t some = 0;
        for (; some < COPIES_AT_ONCE && done < plan->count; some++, done++)
            copies[some] = (quire__copy){.destination = cache->arena + plan->moves[done].destination * block,
                                         .source = cache->arena + plan->moves[done].source * block,
                                         .bytes = block};
        QUIRE__TRY(quire__device_copy(cache->device, cache->stream, copies, some));
    }
    QUIRE__TRY(quire__device_event_record(cache->device, cache->resized, cache->stream));
    return quire__mover_step_mark(cache->mover, cache->steps, cache->stream);
}

/* Until everything on the stream has run: also after a failure, for then too a kernel may still read the section. */
static quire_status settle(quire_cache *cache, quire_status status)
{
    bool done = false;

    if (cache->holes & QUIRE__CACHE_HOLE_UNMAP)
        return status;
    quire_status waited = quire__device_stream_synchronize(cache->device, cache->stream);
    if (status == QUIRE_OK)
        status = waited;
    if (status == QUIRE_OK)
        status = quire__device_event_query(cache->device, cache->resized, &done);
    return status;
}

static quire_status shrink(quire_cache *cache)
{
    quire_status status = quire__mover_step_chain(cache->mover, cache->stream);

    if (status != QUIRE_OK)
        return status;
    quire__book_step_begin(cache->book, ++cache->steps); /* a ticket for the slots that the copies write */
    quire__book_step_end(cache->book);
    cache->resize_plan.count = 0;
    uint32_t section = quire__book_section_leave(cache->book, &cache->resize_plan);
    status = settle(cache, copy_blocks(cache));
    quire__book_section_left(cache->book, section, &cache->resize_plan, status == QUIRE_OK);
    if (status == QUIRE_OK)
        status = unmap_section(cache, section);
    note_size(cache);
    return status;
}

/* Waits until the device tier holds still. */
static quire_status hold_still(quire_cache *cache, uint32_t wanted, uint64_t deadline)
{
    for (;;) {
        quire__mover_stats moved;
        uint32_t moving = 0;
        quire__cache_take_in(cache);
        QUIRE__TRY(quire__book_section_check(cache->book, wanted, &moving));
        quire__mover_stats_get(cache->mover, &moved);
        if (moving == 0 && moved.in_flight == 0)
            return QUIRE_OK;
        QUIRE__TRY(quire__cache_pause(deadline, "copies in flight"));
    }
}

static quire_status resize(quire_cache *cache, uint64_t device_bytes, uint64_t deadline)
{
    if (cache->step.state != QUIRE__STEP_NONE)
        return quire__fail(QUIRE_ESTATE, "a step is open; commit or cancel it first");
    if (cache->sending > 0)
        return quire__fail(QUIRE_ESTATE, "a peer is being sent a sequence; try again when it has it");
    if (device_bytes < cache->section_bytes || device_bytes > cache->options.device_max_bytes ||
        device_bytes < 2 * cache->layout.block_bytes)
        return quire__fail(QUIRE_EINVAL, "the arena can have %zu to %llu bytes, not %llu", cache->section_bytes,
                           (unsigned long long)cache->options.device_max_bytes, (unsigned long long)device_bytes);
    uint32_t wanted = (uint32_t)(device_bytes / cache->section_bytes);
    if (wanted < quire__book_sections(cache->book))
        QUIRE__TRY(hold_still(cache, wanted, deadline));
    while (quire__book_sections(cache->book) > wanted)
        QUIRE__TRY(shrink(cache));
    while (quire__book_sections(cache->book) < wanted)
        QUIRE__TRY(grow(cache));
    return QUIRE_OK;
}

/* With the lock all the way, waits included: nobody may move what is being moved. */
quire_status quire_cache_resize(quire_cache *cache, uint64_t device_bytes, uint64_t timeout_us)
{
    uint64_t now = quire__clock_us(), deadline = timeout_us < UINT64_MAX - now ? now + timeout_us : UINT64_MAX;

    if (cache == NULL)
        return quire__fail(QUIRE_EINVAL, "cache must not be NULL");
    if (cache->sections == 0)
        return quire__fail(QUIRE_EUNSUPPORTED, "the arena keeps its size: open the cache with device_max_bytes");
    if (cache->followers != NULL)
        return quire__fail(QUIRE_EUNSUPPORTED, "ranks follow this cache, and their arenas keep their size");
    quire__cache_lock(cache);
    quire_status status = resize(cache, device_bytes, deadline);
    quire__cache_unlock(cache);
    return status;
}
