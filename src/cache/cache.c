/* cache.c: opening and closing, the lock, and the loop that takes in what the mover has finished.
 *
 * The lock. One lock guards a cache's book, mover, faces and step state. Whoever reads or changes any of it has the lock,
 * from the first look to the last change: a public call is one section, so it is atomic for other threads. Three give the
 * lock back on the way, and say so: the match of a long prompt, which walks without it (block/match.c says why what it
 * found still holds, or is found again), and a probe likewise; waits for moves; quire_step_add, which waits for moves too.
 * A sequence whose call does that is busy, and other calls on it are refused.
 *
 * Without the lock: a step's tables, copies and kernels (only the step's own thread has them, and only one step is open),
 * options, layout, and what never changes after open. Devices take several threads (device.h).
 *
 * Why one lock: a decode step's share of a sequence is 0.1 us of bookkeeping, less than a second lock would cost, and the
 * one thing that takes long, comparing a long prompt, is done without it. docs/design.md has the measurements. */
#include "cache/cache.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/config.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/status.h"
#include "cache/follow.h"
#include "cache/groups.h"
#include "cache/paths.h"
#include "cache/resize.h"

enum {
    LEAST_WORK_TOKENS = 1024, /* work space of decode attention: so many (token, split) pairs at least */
    MOST_WORK_TOKENS = 4096,
    SHARE_LEAST = 4096, /* tokens: some 20 us of an H100 for a layer of 8 kv heads of 128 */
    WORK_PARTS = 8, /* of a sequence in a group: splits of the prefix, and four for each split of the tail */
    LONGEST_SPLIT = 512
};

/* ---- sizes ------------------------------------------------------------------------------------------------- */

static quire_status check_memory(quire_cache *cache, quire__memory kind, const char *variable, uint64_t bytes)
{
    uint64_t limit;

    QUIRE__TRY(quire__device_memory_limit(cache->device, kind, &limit));
    if (bytes > limit)
        return quire__fail(QUIRE_ENOMEM, "%s asks for %llu bytes, but %s has %llu; give it at most that much", variable,
                           (unsigned long long)bytes,
                           kind == QUIRE__MEMORY_DEVICE ? quire__device_name(cache->device) : "this machine",
                           (unsigned long long)limit);
    return QUIRE_OK;
}

static quire_status size_slots(quire_cache *cache)
{
    quire_options *options = &cache->options;
    uint64_t block = cache->layout.block_bytes, all = quire__groups_block_bytes(cache);
    uint64_t device_slots = options->device_bytes / block;
    QUIRE__TRY(quire__resize_plan(cache));
    if (cache->side_count > 0)
        QUIRE__TRY(quire__groups_size(cache, &device_slots));
    if (cache->sections > 0)
        device_slots = (uint64_t)cache->sections * cache->section_slots;
    if (cache->side_count > 0)
        cache->host_slot_bytes = all; /* copied as it is: paths.c */
    uint64_t host_slots = options->offload == QUIRE_OFFLOAD_NONE ? 0 : options->host_bytes / cache->host_slot_bytes;

    if (device_slots < 2)
        return quire__fail(QUIRE_EINVAL,
                           "device_bytes is %llu, but a block of %u tokens takes %llu; give at least two blocks (%llu)",
                           (unsigned long long)options->device_bytes, options->block_tokens, (unsigned long long)all,
                           (unsigned long long)(2 * all));
    QUIRE__TRY(check_memory(cache, QUIRE__MEMORY_DEVICE, "device_bytes",
                            cache->sections > 0 ? options->device_bytes
                                                : device_slots * block + quire__groups_side_bytes(cache)));
    QUIRE__TRY(check_memory(cache, QUIRE__MEMORY_PINNED, "host_bytes", host_slots * cache->host_slot_bytes));
    if (device_slots + host_slots > INT32_MAX / 2)
        return quire__fail(QUIRE_EINVAL, "%llu blocks of %llu bytes are more than a cache can count (%d)",
                           (unsigned long long)(device_slots + host_slots), (unsigned long long)block, INT32_MAX / 2);
    cache->device_slots = (uint32_t)device_slots;
    cache->host_slots = (uint32_t)host_slots;

    uint64_t longest = device_slots * options->block_tokens;
    if (options->max_seq_tokens == 0 || options->max_seq_tokens > longest)
        options->max_seq_tokens = longest < INT32_MAX ? (uint32_t)longest : INT32_MAX;
    if (cache->sections == 0)
        options->device_bytes = device_slots * block + quire__groups_side_bytes(cache);
    options->host_bytes = host_slots * cache->host_slot_bytes;
    return QUIRE_OK;
}

/* ---- parts ------------------------------------------------------------------------------------------------- */

static quire_status take_options(quire_cache *cache, const quire_options *options)
{
    cache->options = *options;
    QUIRE__TRY(quire__groups_take(cache, options));
    snprintf(cache->policy_name, sizeof cache->policy_name, "%s", options->policy);
    cache->options.policy = cache->policy_name;
    if (options->hash_key == 0)
        cache->options.hash_key = quire__random_key();
    return QUIRE_OK;
}

static quire_status open_device(quire_cache *cache)
{
    const quire_options *options = &cache->options;
    quire__device_config config = {.threads = options->threads,
                                   .deterministic = options->deterministic != 0,
                                   .parallel = options->parallel,
                                   .parallel_user = options->parallel_user};

    QUIRE__TRY(quire__device_open(&cache->device, options->device, &config));
    snprintf(cache->device_name, sizeof cache->device_name, "%s", quire__device_name(cache->device));
    cache->options.device = cache->device_name;
    return quire__device_stream_open(cache->device, &cache->stream);
}

/* FP8 with the caller's scales. They pass through pinned memory, as every copy to a device does. */
quire_status quire__cache_send_scales(quire_cache *cache, const quire_group *group, const quire__layout *layout, float **scales,
                                      uint64_t *checksum)
{
    size_t count = (size_t)layout->layers * 2 * layout->kv_heads;
    void *memory, *staging;

    *checksum = 0;
    if (group->scales == NULL)
        return QUIRE_OK;
    QUIRE__TRY(quire__device_alloc(cache->device, QUIRE__MEMORY_DEVICE, count * sizeof(float), &memory));
    *scales = memory;
    QUIRE__TRY(quire__device_alloc(cache->device, QUIRE__MEMORY_PINNED, count * sizeof(float), &staging));
    for (size_t i = 0; i < count; i++)
        ((float *)staging)[i] = group->scales[i];
    *checksum = quire__checksum(staging, count * sizeof(float));
    quire__copy copy = {.destination = *scales, .source = staging, .bytes = count * sizeof(float)};
    quire_status status = quire__device_copy(cache->device, cache->stream, &copy, 1);
    if (status == QUIRE_OK)
        status = quire__device_stream_synchronize(cache->device, cache->stream);
    quire__device_free(cache->device, QUIRE__MEMORY_PINNED, staging);
    return status;
}

/* Of decode attention over a group. */
static size_t work_floats(const quire_cache *cache, const quire__layout *layout, size_t parts)
{
    const quire__attend_args longest = {.pages = {.kv_heads = (int32_t)layout->kv_heads,
                                                  .head_dim = (int32_t)layout->head_dim,
                                                  .dtype = layout->dtype},
                                        .query_heads = (int32_t)layout->query_heads,
                                        .count = 1,
                                        .longest_context = (int32_t)cache->options.max_seq_tokens,
                                        .split_tokens = LONGEST_SPLIT};
    size_t floats = parts * layout->query_heads * (layout->head_dim + 2);
    if (layout->state_bytes > 0)
        return 0;
    return floats < (size_t)quire__attend_work_floats(&longest) ? (size_t)quire__attend_work_floats(&longest) : floats;
}

static quire_status open_memory(quire_cache *cache)
{
    const quire__layout *layout = &cache->layout;
    void *memory;

    if (cache->sections > 0) {
        QUIRE__TRY(quire__resize_open_arena(cache));
    } else {
        QUIRE__TRY(quire__device_alloc(cache->device, QUIRE__MEMORY_DEVICE,
                                       (size_t)cache->device_slots * layout->block_bytes, &memory));
        cache->arena = memory;
    }
    QUIRE__TRY(quire__cache_send_scales(cache, &cache->groups[0], layout, &cache->scales, &cache->scales_checksum));
    cache->groups[0].scales = NULL; /* the caller's array was lent for the call */
    QUIRE__TRY(quire__groups_open_memory(cache));
    if (!quire__device_is_cuda(cache->device))
        return QUIRE_OK; /* the host kernels need no work space */
    cache->share_least = cache->options.deterministic ? 0 : SHARE_LEAST;
    size_t parts = (size_t)cache->options.max_sequences * WORK_PARTS;
    parts = parts < LEAST_WORK_TOKENS ? LEAST_WORK_TOKENS : parts > MOST_WORK_TOKENS ? MOST_WORK_TOKENS : parts;
    cache->work_floats = work_floats(cache, layout, parts);
    for (uint32_t i = 0; i < cache->side_count; i++) {
        size_t floats = work_floats(cache, &cache->sides[i].layout, parts);
        cache->work_floats = floats > cache->work_floats ? floats : cache->work_floats;
    }
    QUIRE__TRY(quire__device_alloc(cache->device, QUIRE__MEMORY_DEVICE, cache->work_floats * sizeof(float), &memory));
    cache->work = memory;
    return QUIRE_OK;
}

/* The defaults of write-back's watermarks: what a step may take must be ready to go before it. */
static void size_watermarks(quire_cache *cache)
{
    quire_options *options = &cache->options;
    uint32_t step = options->max_step_tokens / options->block_tokens + 1, half = cache->device_slots / 2;
    uint32_t low = cache->device_slots / 16 > 2 * step ? cache->device_slots / 16 : 2 * step;

    if (options->offload < QUIRE_OFFLOAD_WRITE_BACK)
        return;
    if (options->offload_low_blocks == 0)
        options->offload_low_blocks = low < half / 2 ? low : half / 2;
    if (options->offload_low_blocks == 0 || options->offload_low_blocks > half)
        options->offload_low_blocks = half;
    if (options->offload_high_blocks == 0)
        options->offload_high_blocks = 2 * options->offload_low_blocks;
    if (options->offload_high_blocks > half)
        options->offload_high_blocks = half;
    if (options->offload_high_blocks < options->offload_low_blocks)
        options->offload_high_blocks = options->offload_low_blocks;
}

static quire_status open_book(quire_cache *cache)
{
    const quire_options *options = &cache->options;
    quire__side_config sides[QUIRE__SIDES_MOST];
    size_watermarks(cache);
    quire__book_config config = {.block_tokens = options->block_tokens,
                                 .device_slots = cache->device_slots,
                                 .host_slots = cache->host_slots,
                                 .section_slots = cache->section_slots,
                                 .max_sequences = options->max_sequences,
                                 .max_seq_tokens = options->max_seq_tokens,
                                 .max_domains = options->max_domains,
                                 .watermark_blocks = options->watermark_blocks,
                                 .event_capacity = options->event_capacity,
                                 .hash_key = options->hash_key,
                                 .policy = options->policy,
                                 .custom_policy = options->custom_policy,
                                 .pin_blocks = options->pin_blocks,
                                 .offload = options->offload,
                                 .offload_low = options->offload_low_blocks,
                                 .offload_high = options->offload_high_blocks,
                                 .sides = sides,
                                 .side_count = cache->side_count,
                                 .allocator = cache->allocator};

    if (cache->follows)
        return QUIRE_OK;
    quire__groups_book(cache, sides);
    QUIRE__TRY(quire__book_open(&cache->book, &config));
    return cache->sections > 0 ? quire__resize_open_book(cache) : QUIRE_OK;
}

/* Layers of one part of a restore, the last part's may be fewer; and how many parts that makes. */
static uint32_t layers_a_part(const quire_cache *cache)
{
    uint32_t layers = cache->layout.layers, parts = cache->options.restore_parts;
    return (layers + parts - 1) / parts;
}

static uint32_t restore_parts(const quire_cache *cache)
{
    uint32_t a_part = layers_a_part(cache);
    return (cache->layout.layers + a_part - 1) / a_part;
}

static size_t part_bytes(const quire_cache *cache)
{
    return layers_a_part(cache) * (size_t)cache->layout.layer_stride;
}

static quire_status open_mover(quire_cache *cache)
{
    quire__mover_side sides[QUIRE__SIDES_MOST];
    quire__mover_config config = {.device = cache->device,
                                  .allocator = cache->allocator,
                                  .arena = cache->arena,
                                  .block_bytes = cache->layout.block_bytes,
                                  .parts = restore_parts(cache),
                                  .part_bytes = part_bytes(cache),
                                  .device_slots = cache->device_slots,
                                  .host_slots = cache->host_slots,
                                  .path = cache->path,
                                  .shape = cache->shape,
                                  .staging_bytes = QUIRE__STAGING_BYTES,
                                  .sides = sides,
                                  .side_count = cache->side_count,
                                  .pin_bytes = (size_t)cache->options.host_pin_bytes,
                                  .pin_background = cache->options.host_pin == QUIRE_HOST_PIN_BACKGROUND,
                                  .verify = cache->options.checksum == QUIRE_CHECKSUM_RESTORE,
                                  .timeout_us = (uint64_t)cache->options.move_timeout_ms * 1000};

    for (uint32_t i = 0; i < cache->side_count; i++)
        sides[i] = (quire__mover_side){cache->sides[i].arena, cache->sides[i].layout.block_bytes, cache->sides[i].slots};
    cache->part_layers = layers_a_part(cache);
    QUIRE__TRY(quire__mover_open(&cache->mover, &config));
    cache->host_ready = quire__mover_host_ready(cache->mover);
    if (!cache->follows)
        quire__book_host_limit(cache->book, cache->host_ready);
    return QUIRE_OK;
}

static quire_status open_record(quire_cache *cache)
{
    const quire_options *options = &cache->options;
    quire__record_config config = {.path = options->trace,
                                   .tokens = options->trace_tokens != 0,
                                   .allocator = &cache->allocator,
                                   .log = {options->log_level, options->log, options->log_user},
                                   .book = cache->book,
                                   .block_tokens = options->block_tokens,
                                   .device_slots = cache->device_slots,
                                   .host_slots = cache->host_slots,
                                   .max_sequences = options->max_sequences,
                                   .max_seq_tokens = options->max_seq_tokens,
                                   .max_domains = options->max_domains,
                                   .watermark_blocks = options->watermark_blocks,
                                   .block_bytes = quire__groups_block_bytes(cache),
                                   .policy = options->policy,
                                   .offload = options->offload};

    if (options->trace == NULL || options->trace[0] == '\0')
        return QUIRE_OK;
    QUIRE__TRY(quire__record_open(&cache->record, &config));
    cache->options.trace = quire__record_path(cache->record);
    cache->options.host_pin = QUIRE_HOST_PIN_OPEN; /* a recording has no word for a tier that grows */
    return QUIRE_OK;
}

static uint32_t seq_blocks(const quire_options *options)
{
    return (options->max_seq_tokens - 1) / options->block_tokens + 1;
}

quire__tables_config quire__cache_tables_config(const quire_cache *cache)
{
    const quire_options *options = &cache->options;
    return (quire__tables_config){.device = cache->device,
                                   .allocator = cache->allocator,
                                   .max_rows = options->max_sequences,
                                   .max_tokens = options->max_step_tokens,
                                   .table_stride = seq_blocks(options),
                                   .block_tokens = options->block_tokens,
                                   .timeout_us = (uint64_t)options->move_timeout_ms * 1000};
}

static quire_status open_tables(quire_cache *cache)
{
    quire__tables_config config = quire__cache_tables_config(cache);

    QUIRE__TRY(quire__tables_open(&cache->tables, &config));
    return quire__groups_open_tables(cache);
}

static quire_status open_scratch(quire_cache *cache)
{
    const quire_options *options = &cache->options;
    uint32_t moves = seq_blocks(options), sealed = options->max_step_tokens / options->block_tokens + 2;
    uint32_t groups = options->group_count;
    void *memory;

    moves = moves > sealed ? moves : sealed;
    if (options->offload >= QUIRE_OFFLOAD_WRITE_BACK && options->offload_low_blocks > moves)
        moves = options->offload_low_blocks;
    QUIRE__TRY(quire__plan_open(&cache->moves, &cache->allocator, groups * moves));
    QUIRE__TRY(quire__plan_open(&cache->step.plan, &cache->allocator, groups * options->max_sequences));
    QUIRE__TRY(quire__memory_take(&cache->allocator, options->max_sequences, sizeof(quire__face), "sequences",
                                  &memory));
    cache->faces = memory;
    for (uint32_t i = 0; i < options->max_sequences; i++)
        cache->faces[i].generation = 1;
    QUIRE__TRY(quire__memory_take(&cache->allocator, options->max_sequences, sizeof(quire__step_row), "step rows",
                                  &memory));
    cache->step.rows = memory;
    QUIRE__TRY(quire__memory_take(&cache->allocator, options->max_sequences, sizeof(quire__row), "step rows",
                                  &memory));
    cache->step.sent = memory;
    QUIRE__TRY(quire__memory_take(&cache->allocator, options->max_sequences, sizeof(quire__block_pair), "step copies",
                                  &memory));
    cache->step.pairs = memory;
    QUIRE__TRY(quire__prefixes_open(&cache->step.prefixes, &cache->allocator, options->max_sequences));
    cache->step.cache = cache;
    return QUIRE_OK;
}

static quire_status cache_fill(quire_cache *cache, const quire_options *options)
{
    QUIRE__TRY(take_options(cache, options));
    QUIRE__TRY(open_device(cache));
    QUIRE__TRY(quire__paths_choose(cache, restore_parts(cache), part_bytes(cache)));
    QUIRE__TRY(size_slots(cache));
    QUIRE__TRY(open_memory(cache));
    QUIRE__TRY(open_book(cache));
    QUIRE__TRY(open_record(cache));
    QUIRE__TRY(open_mover(cache));
    QUIRE__TRY(open_tables(cache));
    return open_scratch(cache);
}

/* ---- open, close ------------------------------------------------------------------------------------------- */

static quire_status open_either(quire_cache **out, const quire_options *options, bool follows)
{
    void *memory;

    if (out == NULL || options == NULL)
        return quire__fail(QUIRE_EINVAL, "cache and options must not be NULL");
    QUIRE__TRY(quire__config_validate(options));
    quire__allocator allocator = quire__allocator_default;
    if (options->alloc != NULL)
        allocator = (quire__allocator){options->alloc, options->free, options->alloc_user};
    QUIRE__TRY(quire__memory_take(&allocator, 1, sizeof(quire_cache), "cache", &memory));
    quire_cache *cache = memory;
    cache->allocator = allocator;
    cache->follows = follows;
    quire_status status = quire__lock_open(&cache->lock);
    if (status != QUIRE_OK) {
        quire__memory_give(&allocator, cache);
        return status;
    }
    status = cache_fill(cache, options);
    if (status != QUIRE_OK) {
        quire_cache_close(cache);
        return status;
    }
    quire__config_log(&cache->options);
    *out = cache;
    return QUIRE_OK;
}

quire_status quire_cache_open(quire_cache **out, const quire_options *options)
{
    return open_either(out, options, false);
}

quire_status quire__follow_open(quire_cache **out, const quire_options *options)
{
    return open_either(out, options, true);
}

static void close_device(quire_cache *cache)
{
    if (cache->device == NULL)
        return;
    quire__device_free(cache->device, QUIRE__MEMORY_DEVICE, cache->work);
    quire__device_free(cache->device, QUIRE__MEMORY_DEVICE, cache->scales);
    if (cache->sections > 0)
        quire__resize_close_arena(cache);
    else
        quire__device_free(cache->device, QUIRE__MEMORY_DEVICE, cache->arena);
    quire__device_event_close(cache->device, cache->resized);
    if (cache->stream != NULL)
        quire__device_stream_close(cache->device, cache->stream);
    quire__device_close(cache->device);
}

void quire_cache_close(quire_cache *cache)
{
    if (cache == NULL)
        return;
    quire__allocator allocator = cache->allocator;

    quire_step_cancel(&cache->step);
    if (cache->stream != NULL)
        (void)quire__device_stream_synchronize(cache->device, cache->stream);
    quire__prefixes_close(&cache->step.prefixes, &allocator);
    quire__memory_give(&allocator, cache->step.pairs);
    quire__memory_give(&allocator, cache->step.sent);
    quire__memory_give(&allocator, cache->step.rows);
    quire__memory_give(&allocator, cache->faces);
    quire__plan_close(&cache->step.plan, &allocator);
    quire__plan_close(&cache->moves, &allocator);
    quire__plan_close(&cache->resize_plan, &allocator);
    quire__groups_close(cache);
    quire__tables_close(cache->tables);
    quire__mover_close(cache->mover);
    quire__record_close(cache->record);
    quire__book_close(cache->book);
    close_device(cache);
    quire__lock_close(&cache->lock);
    quire__memory_give(&allocator, cache);
}

const quire_options *quire_cache_options(const quire_cache *cache)
{
    return &cache->options;
}

void *quire_cache_stream(quire_cache *cache)
{
    return cache->stream;
}

/* ---- the lock ---------------------------------------------------------------------------------------------- */

void quire__cache_lock(quire_cache *cache)
{
    quire__lock_take(&cache->lock);
}

static void tell_host_is_short(const quire_cache *cache)
{
    const quire__log log = {cache->options.log_level, cache->options.log, cache->options.log_user};

    quire__log_line(&log, QUIRE_LOG_WARN, "the host tier stays at %u of %u blocks: %s", quire__mover_host_ready(cache->mover),
                    cache->host_slots, quire__mover_host_fault(cache->mover));
}

void quire__cache_unlock(quire_cache *cache)
{
    const quire__followers *followers = cache->followers;
    bool tell = cache->host_tell;

    cache->host_tell = false;
    quire__lock_give(&cache->lock);
    if (followers != NULL)
        followers->pump(followers->arg);
    if (tell) /* the caller's function may call the cache */
        tell_host_is_short(cache);
}

/* ---- moves ------------------------------------------------------------------------------------------------- */

static void take_in_one(void *arg, const quire__move *move, quire__outcome outcome)
{
    quire_cache *cache = arg;

    if (cache->followers != NULL)
        cache->followers->ended(cache->followers->arg, move, outcome);
    else if (outcome == QUIRE__MOVE_LATE)
        quire__book_expire(cache->book, move);
    else
        quire__book_complete(cache->book, move, outcome == QUIRE__MOVE_DONE);
}

/* The host tier's memory is being pinned: what there is more of now, or why there will be none. */
static void take_in_host(quire_cache *cache)
{
    const char *fault = quire__mover_host_fault(cache->mover); /* first: what was pinned before it counts */
    uint32_t ready = quire__mover_host_ready(cache->mover);

    if (ready > cache->host_ready)
        quire__book_host_grow(cache->book, ready);
    cache->host_ready = ready;
    if (fault != NULL && !cache->host_short)
        cache->host_short = cache->host_tell = true;
}

void quire__cache_take_in(quire_cache *cache)
{
    if (cache->host_ready < cache->host_slots)
        take_in_host(cache);
    quire__mover_poll(cache->mover, take_in_one, cache);
    if (cache->followers != NULL)
        cache->followers->take_in(cache->followers->arg);
}

void quire__cache_start_moves(quire_cache *cache)
{
    if (cache->moves.count == 0)
        return;
    if (cache->followers != NULL)
        cache->followers->started(cache->followers->arg, &cache->moves);
    quire__mover_start(cache->mover, &cache->moves);
    cache->moves.count = 0;
}

quire_status quire__cache_pause(uint64_t deadline_us, const char *what)
{
    if (quire__clock_us() >= deadline_us)
        return quire__fail(QUIRE_ETIMEOUT, "%s did not end in time", what);
    quire__clock_sleep_us(20);
    return QUIRE_OK;
}

quire_status quire__cache_pause_unlocked(quire_cache *cache, uint64_t deadline_us, const char *what)
{
    quire__cache_unlock(cache);
    quire_status status = quire__cache_pause(deadline_us, what);
    quire__cache_lock(cache);
    return status;
}

void quire__cache_tell_costs(quire_cache *cache)
{
    quire__mover_stats moved;

    if (cache->prefill_rate == 0)
        return;
    quire__mover_stats_get(cache->mover, &moved);
    quire__book_set_costs(cache->book,
                          &(quire__costs){.restore_block_us = moved.restore_block_us,
                                          .restore_wait_us = moved.restore_wait_us,
                                          .compute_block_us = cache->options.block_tokens * 1e6 / cache->prefill_rate});
}

quire_status quire_cache_prefill_rate(quire_cache *cache, double tokens_per_s)
{
    if (cache == NULL)
        return quire__fail(QUIRE_EINVAL, "cache must not be NULL");
    if (!(tokens_per_s >= 0) || isinf(tokens_per_s))
        return quire__fail(QUIRE_EINVAL, "tokens_per_s is %g; it must be a number, and 0 (not known) or more", tokens_per_s);
    quire__cache_lock(cache);
    cache->prefill_rate = tokens_per_s;
    if (tokens_per_s == 0)
        quire__book_set_costs(cache->book, &(quire__costs){0});
    quire__cache_unlock(cache);
    return QUIRE_OK;
}

quire_status quire_cache_poll(quire_cache *cache)
{
    if (cache == NULL)
        return quire__fail(QUIRE_EINVAL, "cache must not be NULL");
    quire__cache_lock(cache);
    quire__cache_take_in(cache);
    quire__cache_unlock(cache);
    return QUIRE_OK;
}

static quire_status drain(quire_cache *cache, uint64_t deadline_us)
{
    quire__mover_stats stats;

    for (;;) {
        quire__cache_take_in(cache);
        quire__mover_stats_get(cache->mover, &stats);
        if (stats.in_flight == 0 &&
            (cache->followers == NULL || cache->followers->in_flight(cache->followers->arg) == 0))
            return QUIRE_OK;
        QUIRE__TRY(quire__cache_pause_unlocked(cache, deadline_us, "copies in flight"));
    }
}

quire_status quire_cache_drain(quire_cache *cache, uint64_t timeout_us)
{
    uint64_t deadline = quire__clock_us() + timeout_us;

    if (cache == NULL)
        return quire__fail(QUIRE_EINVAL, "cache must not be NULL");
    quire__cache_lock(cache);
    quire_status status = drain(cache, deadline);
    quire__cache_unlock(cache);
    return status;
}

quire_status quire_cache_clear(quire_cache *cache)
{
    if (cache == NULL)
        return quire__fail(QUIRE_EINVAL, "cache must not be NULL");
    quire__cache_lock(cache);
    quire__cache_take_in(cache);
    quire__book_clear(cache->book);
    quire__record_clear(cache->record);
    quire__cache_unlock(cache);
    return QUIRE_OK;
}
