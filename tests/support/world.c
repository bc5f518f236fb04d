/* world.c: who comes and goes, and when. What a model writes and reads, and what that must be: world_plain.c,
 * world_groups.c. */
#include "support/world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/status.h"
#include "support/world_model.h"

/* ---- helpers ----------------------------------------------------------------------------------------------- */

uint32_t world_below(world *w, uint32_t bound)
{
    return (uint32_t)(quire__random(&w->random) % bound);
}

bool world_chance(world *w, uint32_t percent)
{
    return world_below(w, 100) < percent;
}

bool world_wrong(world *w, const char *format, ...)
{
    va_list arguments;

    if (w->result->failure[0] == '\0') {
        va_start(arguments, format);
        vsnprintf(w->result->failure, sizeof w->result->failure, format, arguments);
        va_end(arguments);
    }
    return false;
}

bool world_must(world *w, quire_status status, const char *what)
{
    return status == QUIRE_OK ||
           world_wrong(w, "%s: %s: %s", what, quire_status_name(status), quire_error_text());
}

uint64_t world_mix(uint64_t a, uint64_t b)
{
    uint64_t state = a * 0x9e3779b97f4a7c15u ^ b;

    return quire__random(&state);
}

void world_states(const member *m, uint32_t count, uint64_t *states)
{
    uint64_t state = world_mix(77, m->domain);

    for (uint32_t i = 0; i < count; i++)
        states[i] = state = world_mix(state, (uint64_t)(uint32_t)m->tokens[i] + 1);
}

member *world_member(world *w, uint32_t row)
{
    for (int i = 0; i < MOST_SEQUENCES; i++)
        if (w->members[i].open && (uint32_t)w->members[i].handle - 1 == w->cache->step.rows[row].seq)
            return &w->members[i];
    abort();
}

static bool synchronise(world *w)
{
    bool right = true;

    for (int i = 0; i < 2; i++)
        if (!world_must(w, quire__device_stream_synchronize(w->cache->device, w->streams[i]), "synchronise"))
            right = false;
    while (w->readings != NULL) {
        reading *r = w->readings;
        w->readings = r->next;
        right = right && model_compare(w, r);
        model_free(r);
    }
    return right;
}

/* ---- operations -------------------------------------------------------------------------------------------- */

static bool settle(world *w, member *m)
{
    quire_seq_info info;

    if (!world_must(w, quire_seq_get(w->cache, m->handle, &info), "get"))
        return false;
    m->settled = info.ready != 0;
    if (m->settled && info.length > m->target)
        return world_wrong(w, "a sequence is longer than its prompt");
    m->length = (uint32_t)info.length;
    return true;
}

static bool op_open(world *w)
{
    member *m = NULL, *like = &w->members[world_below(w, MOST_SEQUENCES)];
    quire_seq_options options = {.size = sizeof options, .domain = world_chance(w, 80) ? 5 : 9};
    uint32_t keep = 0, count = 1 + world_below(w, LONGEST / 2);
    quire_hit hit;

    for (int i = 0; i < MOST_SEQUENCES; i++)
        if (!w->members[i].open)
            m = &w->members[i];
    if (m == NULL)
        return true;
    if (world_chance(w, 60)) {
        keep = 8 + world_below(w, LONGEST / 2);
        memcpy(m->tokens, w->themes[world_below(w, THEMES)], keep * sizeof(int32_t));
        count = keep + world_below(w, 4);
    } else if (like->target > 0 && world_chance(w, 60)) {
        keep = 1 + world_below(w, like->target);
        count = keep + world_below(w, 12);
        keep = keep < w->longest ? keep : w->longest;
        memmove(m->tokens, like->tokens, keep * sizeof(int32_t));
    }
    for (uint32_t i = keep; i < count && i < LONGEST; i++)
        m->tokens[i] = (int32_t)world_below(w, ALPHABET);
    m->target = count < w->longest ? count : w->longest;
    m->domain = options.domain;
    m->added = 0;
    if (!world_must(w, quire_seq_open(w->cache, &options, &m->handle), "open"))
        return false;
    m->open = true;
    if (w->options->fail_copies && world_chance(w, 20))
        quire__device_fail_copy(w->cache->device, 1);
    bool matched = world_must(w, quire_seq_match(w->cache, m->handle, m->tokens, m->target, &hit), "match");
    quire__device_fail_copy(w->cache->device, 0);
    if (matched && hit.tokens >= m->target)
        return world_wrong(w, "a match left no token to compute");
    return matched && settle(w, m);
}

static bool op_close(world *w, member *m)
{
    m->open = false;
    return world_must(w, quire_seq_close(w->cache, m->handle), "close");
}

static bool op_fork(world *w, member *m)
{
    for (int i = 0; i < MOST_SEQUENCES; i++) {
        member *child = &w->members[i];
        if (child->open)
            continue;
        *child = *m;
        if (!world_must(w, quire_seq_fork(w->cache, m->handle, &child->handle), "fork"))
            return false;
        return settle(w, child) && settle(w, m);
    }
    return true;
}

static bool op_truncate(world *w, member *m)
{
    if (!settle(w, m) || !m->settled)
        return true;
    uint32_t length = world_below(w, m->length + 1);
    quire_status status = quire_seq_truncate(w->cache, m->handle, length);
    if (status == QUIRE_ESTATE && w->group_count > 1) {
        w->result->refused++;
        return settle(w, m);
    }
    if (!world_must(w, status, "truncate"))
        return false;
    m->length = length;
    for (uint32_t i = length; i < m->target; i++)
        if (world_chance(w, 20))
            m->tokens[i] = (int32_t)world_below(w, ALPHABET);
    return true;
}

static bool add_member(world *w, quire_step *step, member *m, bool *late)
{
    if (!settle(w, m))
        return false;
    if ((!m->settled && w->options->restore_parts < 2) || m->length >= w->longest)
        return true;
    uint32_t left = m->target > m->length ? m->target - m->length : 1;
    uint32_t count = left == 1 ? 1 : 1 + world_below(w, left < 11 ? left : 11);
    if (m->length == m->target)
        m->tokens[m->target++] = (int32_t)world_below(w, ALPHABET);
    *late = world_chance(w, 25);
    quire_status status = quire_step_add(step, m->handle, *late ? NULL : m->tokens + m->length, count);
    if (status == QUIRE_EFULL || status == QUIRE_EAGAIN ||
        (status == QUIRE_ERANGE && (w->options->elastic || w->group_count > 1)))
        return true;
    m->added = count;
    w->result->ahead += !m->settled;
    return world_must(w, status, "add");
}

/* A commit in which restores failed that rows ran ahead of: those have lost their tokens of this step, the others have not. */
static bool take_losses(world *w)
{
    w->result->lost++;
    for (int i = 0; i < MOST_SEQUENCES; i++) {
        member *m = &w->members[i];
        if (m->added == 0)
            continue;
        uint32_t whole = m->length + m->added;
        m->added = 0;
        if (!settle(w, m))
            return false;
        if (m->length < whole)
            model_lost(w, i);
    }
    return true;
}

static bool end_step(world *w, quire_step *step, const bool *late)
{
    if (world_chance(w, 8)) {
        if (step->restore > 0) /* a restore may fail that its rows ran ahead of, and nobody will say so */
            model_lost(w, -1);
        quire_step_cancel(step);
        for (int i = 0; i < MOST_SEQUENCES; i++)
            w->members[i].added = 0;
        return true;
    }
    for (int i = 0; i < MOST_SEQUENCES; i++) {
        member *m = &w->members[i];
        if (m->added > 0 && late[i] &&
            !world_must(w, quire_step_name(step, m->handle, m->tokens + m->length, m->added), "name"))
            return false;
    }
    if (w->options->fail_copies && world_chance(w, 20))
        quire__device_fail_copy(w->cache->device, 1);
    quire_status status = quire_step_commit(step);
    quire__device_fail_copy(w->cache->device, 0);
    if (status == QUIRE_EDEVICE && w->options->restore_parts > 1)
        return take_losses(w);
    bool committed = world_must(w, status, "commit");
    for (int i = 0; i < MOST_SEQUENCES; i++) {
        w->result->tokens += w->members[i].added;
        w->members[i].length += w->members[i].added;
        w->members[i].added = 0;
    }
    return committed;
}

static bool op_step(world *w)
{
    bool late[MOST_SEQUENCES] = {false};
    quire_step *step;

    if (!world_must(w, quire_step_begin(w->cache, w->streams[w->options->two_streams ? world_below(w, 2) : 0], &step), "begin"))
        return false;
    uint32_t first = world_below(w, MOST_SEQUENCES);
    for (uint32_t i = 0; i < MOST_SEQUENCES; i++) {
        uint32_t at = (first + i) % MOST_SEQUENCES;
        member *m = &w->members[at];
        if (m->open && world_chance(w, 70) && !add_member(w, step, m, &late[at]))
            return false;
    }
    if (!world_must(w, quire_step_submit(step), "submit"))
        return false;
    w->result->steps++;
    if (step->row_count > 0 && !model_forward(w, step))
        return false;
    return end_step(w, step, late);
}

/* Everybody leaves at once and newcomers want the whole arena: blocks whose copies are still in flight are next to go. */
static bool op_rush(world *w)
{
    for (int i = 0; i < MOST_SEQUENCES; i++)
        if (w->members[i].open && !op_close(w, &w->members[i]))
            return false;
    for (int i = 0; i < 4; i++)
        if (!op_open(w))
            return false;
    for (int i = 0; i < 6; i++)
        if (!op_step(w))
            return false;
    return true;
}

static void note_longest(world *w)
{
    const quire_options *options = quire_cache_options(w->cache);
    uint64_t tokens = options->device_bytes / w->cache->layout.block_bytes * w->options->block_tokens;
    w->longest = tokens < LONGEST ? (uint32_t)tokens : LONGEST;
}

/* Half of the time somewhere between, else one of the ends. */
static bool op_resize(world *w)
{
    const quire_options *options = quire_cache_options(w->cache);
    uint64_t block = w->cache->layout.block_bytes, most = options->device_max_bytes / block;
    uint64_t blocks = world_chance(w, 25) ? most : 2 + world_below(w, (uint32_t)most - 1);

    if (w->options->fail_copies && world_chance(w, 30))
        quire__device_fail_copy(w->cache->device, 1);
    quire_status status = quire_cache_resize(w->cache, blocks * block, 10000000);
    quire__device_fail_copy(w->cache->device, 0);
    note_longest(w);
    w->result->resizes += status == QUIRE_OK;
    if (status == QUIRE_EFULL || (status == QUIRE_EDEVICE && w->options->fail_copies))
        return true;
    blocks -= blocks % w->cache->section_slots;
    return world_must(w, status, "resize") &&
           (options->device_bytes == blocks * block || world_wrong(w, "resize took %llu blocks for %llu",
            (unsigned long long)(options->device_bytes / block), (unsigned long long)blocks));
}

/* Flips a bit of a block that lies in the host tier with nothing in flight. */
typedef struct flipper { world *w; quire__host_tier *tier; } flipper;

static void flip(void *arg, uint32_t slot)
{
    world *w = ((flipper *)arg)->w;
    quire__host_tier *tier = ((flipper *)arg)->tier;

    if (world_chance(w, 3)) {
        unsigned char *bytes = quire__host_tier_slot(tier, slot);
        bytes[world_below(w, (uint32_t)tier->slot_bytes)] ^= (unsigned char)(1u << world_below(w, 8));
    }
}

static void flip_all(world *w)
{
    flipper f = {w, quire__mover_host_tier(w->cache->mover)};

    quire__book_each_host_slot(w->cache->book, flip, &f);
    for (uint32_t group = 1; group < w->group_count; group++) {
        f.tier = quire__mover_side_tier(w->cache->mover, group);
        quire__book_each_host_side(w->cache->book, group, flip, &f);
    }
}

static bool operate(world *w)
{
    uint32_t dice = world_below(w, 100);
    member *m = &w->members[world_below(w, MOST_SEQUENCES)];

    if (w->options->corrupt_host && world_chance(w, 5) && quire_cache_drain(w->cache, 1000000) == QUIRE_OK)
        flip_all(w);
    if (w->options->elastic && world_chance(w, 10))
        return op_resize(w);
    if (dice < 40)
        return op_step(w);
    if (dice < 45)
        return op_rush(w);
    if (dice < 65)
        return op_open(w);
    if (dice < 80)
        return !m->open || op_close(w, m);
    if (dice < 86)
        return !m->open || op_fork(w, m);
    if (dice < 90)
        return !m->open || op_truncate(w, m);
    if (dice < 96)
        return world_must(w, quire_cache_poll(w->cache), "poll");
    return synchronise(w);
}

/* ---- the whole --------------------------------------------------------------------------------------------- */

static bool world_open(world *w)
{
    const world_options *options = w->options;
    char device[32];
    quire_options o;

    snprintf(device, sizeof device, "sim:%llu", (unsigned long long)options->seed);
    if (!world_must(w, quire_options_init(&o, sizeof o), "options"))
        return false;
    o.block_tokens = options->block_tokens;
    if (!model_open(w, &o))
        return false;
    o.groups = w->groups;
    o.group_count = w->group_count;
    o.device = options->device != NULL ? options->device : device;
    o.device_max_bytes = options->elastic ? 2 * o.device_bytes : 0;
    o.offload = options->host_blocks == 0 ? QUIRE_OFFLOAD_NONE :
                options->offload == QUIRE_OFFLOAD_NONE ? QUIRE_OFFLOAD_WRITE_THROUGH : options->offload;
    if (options->seed % 2) /* so early that blocks are offloaded that have only just been written */
        o.offload_low_blocks = options->device_blocks / 2;
    if (options->policy != NULL)
        o.policy = options->policy;
    o.max_sequences = MOST_SEQUENCES;
    o.max_seq_tokens = LONGEST;
    o.max_step_tokens = MOST_SEQUENCES * 12;
    o.restore_parts = options->restore_parts > 0 ? options->restore_parts : 1;
    o.pack = options->packed ? QUIRE_PACK_ON : QUIRE_PACK_OFF;
    o.pieces = options->gathered ? QUIRE_PIECES_GATHER : QUIRE_PIECES_COPY;
    o.hash_key = options->seed + 1;
    o.threads = 1;
    o.log_level = QUIRE_LOG_OFF;
    o.event_capacity = 64;
    if (!world_must(w, quire_cache_open(&w->cache, &o), "open"))
        return false;
    quire__book_set_holes(w->cache->book, options->book_holes);
    quire__mover_set_holes(w->cache->mover, options->mover_holes);
    quire__tables_set_hole(w->cache->tables, options->staging_hole);
    w->cache->holes = options->cache_holes;
    if (options->staging_blocks > 0)
        quire__mover_set_group(w->cache->mover, options->staging_blocks);
    if (options->late_copies)
        quire__mover_set_timeout(w->cache->mover, 0);
    for (int i = 0; i < 2; i++)
        if (!world_must(w, quire__device_stream_open(w->cache->device, &w->streams[i]), "stream"))
            return false;
    return true;
}

static void world_count(world *w)
{
    quire_stats stats = {.size = sizeof stats};
    quire__mover_stats moved;

    if (quire_cache_stats(w->cache, &stats) != QUIRE_OK)
        return;
    quire__mover_stats_get(w->cache->mover, &moved);
    w->result->late = moved.late;
    w->result->restored_tokens = stats.hit_tokens_host;
    w->result->evictions = stats.evictions_device;
    w->result->copies_on_write = stats.copies_on_write;
    w->result->restore_failures = stats.restore_failures;
    w->result->offload_failures = stats.offload_failures;
    w->result->offloads = stats.offloads;
    w->result->missed = stats.offloads_missed;
    w->result->declined = stats.offloads_declined;
    w->result->checksum_failures = stats.checksum_failures;
    w->result->deduplicated = stats.blocks_deduplicated;
    for (uint32_t group = 1; group < w->group_count; group++) {
        quire_group_stats side = {.size = sizeof side};
        if (quire_cache_group_stats(w->cache, group, &side) != QUIRE_OK)
            return;
        w->result->given_back += side.given_back;
        w->result->side_restores += side.restores;
        w->result->side_evictions += side.evictions;
    }
}

static bool world_end(world *w)
{
    bool right = synchronise(w);

    if (w->cache->step.state != QUIRE__STEP_NONE)
        quire_step_cancel(&w->cache->step);
    for (int i = 0; i < MOST_SEQUENCES; i++)
        if (w->members[i].open)
            right = op_close(w, &w->members[i]) && right;
    right = world_must(w, quire_cache_drain(w->cache, 10000000), "drain") && right;
    right = world_must(w, quire__book_check(w->cache->book), "check") && right;
    world_count(w);
    return right;
}

bool world_run(const world_options *options, world_result *result)
{
    world w = {.options = options, .result = result, .random = options->seed * 2 + 1};
    bool right;

    memset(result, 0, sizeof *result);
    for (uint32_t i = 0; i < THEMES * LONGEST; i++)
        w.themes[i / LONGEST][i % LONGEST] = (int32_t)world_below(&w, ALPHABET);
    w.longest = options->device_blocks * options->block_tokens;
    w.longest = w.longest < LONGEST ? w.longest : LONGEST;
    right = world_open(&w);
    for (uint32_t i = 0; right && i < options->operations; i++) {
        right = operate(&w);
        if (right && i % 16 == 0 && !options->book_holes)
            right = world_must(&w, quire__book_check(w.cache->book), "check");
    }
    if (w.cache == NULL)
        return false;
    right = world_end(&w) && right;
    for (int i = 0; i < 2; i++)
        if (w.streams[i] != NULL)
            quire__device_stream_close(w.cache->device, w.streams[i]);
    quire_cache_close(w.cache);
    return right;
}
