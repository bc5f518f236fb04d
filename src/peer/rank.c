/* rank.c: a rank that follows. It does what rank 0 has decided, in the order in which it was decided, and reports what has
 * ended.
 *
 *   1. Records are applied in order: a step's tables after the moves that were started before it, and nothing of the next
 *      record before the engine has ended the step at hand. So a move's ticket is a step that is marked here, or one that
 *      this rank has not begun and whose slots it cannot have touched: what mover.c asks for.
 *   2. Moves of a direction end in the order of their start (mover.c), so a report is a count: rank 0 knows which they were.
 *   3. A sequence's table is kept here as it was last sent, since a step sends only what has changed. */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/status.h"
#include "cache/follow.h"
#include "peer/frames.h"
#include "quire/quire_peer.h"

enum { PLAN_MOVES = 256, PAUSE_US = 20, LONGEST_WAIT_US = 100 * 1000 };

struct quire_rank {
    quire_cache *cache;
    quire_transport transport;
    quire__welcome welcome;
    bool broken, stepping, ended;
    uint64_t deadline_us; /* of what is being received */
    uint64_t spoke_us;    /* when rank 0 was last told something */
    quire__frame_in in;
    quire__plan plan;
    int32_t *tables;   /* [max_sequences][stride] */
    uint64_t *owners;  /* [max_sequences]: whose table that is */
    uint32_t *last_row; /* [max_sequences] */
    uint32_t stride;
    quire__report said; /* not sent yet; count 0: nothing */
};

/* ---- talk ---------------------------------------------------------------------------------------------------- */

static quire_status linked(quire_rank *rank, quire_status status)
{
    if (status != QUIRE_OK)
        rank->broken = true;
    return status;
}

static uint64_t time_left(uint64_t deadline_us)
{
    uint64_t now = quire__clock_us();
    return now < deadline_us ? deadline_us - now : 0;
}

static uint64_t after(uint64_t timeout_us)
{
    uint64_t now = quire__clock_us();
    return timeout_us < UINT64_MAX - now ? now + timeout_us : UINT64_MAX;
}

static quire_status receive(void *arg, void *data, size_t bytes)
{
    quire_rank *rank = arg;
    return rank->transport.receive(rank->transport.user, data, bytes, time_left(rank->deadline_us));
}

static quire_status say(quire_rank *rank, const quire__report *report)
{
    rank->spoke_us = quire__clock_us();
    return linked(rank, rank->transport.send(rank->transport.user, report, sizeof *report, rank->welcome.timeout_us));
}

static quire_status say_rest(quire_rank *rank)
{
    quire__report report = rank->said;
    rank->said.count = 0;
    return report.count > 0 ? say(rank, &report) : QUIRE_OK;
}

/* Equal ends one after the other are one report. */
static void hear_end(void *arg, const quire__move *move, quire__outcome outcome)
{
    quire_rank *rank = arg;
    uint32_t restore = move->type == QUIRE__MOVE_RESTORE;
    uint32_t kind = outcome == QUIRE__MOVE_DONE     ? QUIRE__REPORT_DONE
                    : outcome == QUIRE__MOVE_FAILED ? QUIRE__REPORT_FAILED
                                                    : QUIRE__REPORT_LATE;

    if (rank->said.count > 0 && (rank->said.kind != kind || rank->said.restore != restore))
        (void)say_rest(rank); /* a failure has broken the link, and the next call says so */
    if (rank->said.count == 0)
        rank->said = (quire__report){QUIRE__REPORT_MAGIC, kind, restore, 0, 0};
    rank->said.count++;
}

static uint32_t in_flight(const quire_rank *rank)
{
    quire__mover_stats stats;
    quire__mover_stats_get(rank->cache->mover, &stats);
    return stats.in_flight;
}

static quire_status report(quire_rank *rank)
{
    quire__mover_poll(rank->cache->mover, hear_end, rank);
    QUIRE__TRY(say_rest(rank));
    if (rank->broken)
        return quire__fail(QUIRE_EPEER, "rank 0 is gone");
    uint64_t silent = quire__clock_us() - rank->spoke_us;
    if (in_flight(rank) > 0 && silent > rank->welcome.timeout_us / 4)
        return say(rank, &(quire__report){QUIRE__REPORT_MAGIC, QUIRE__REPORT_ALIVE, 0, 0, 0});
    return QUIRE_OK;
}

/* ---- records ------------------------------------------------------------------------------------------------- */

static quire_status confused(quire_rank *rank, const char *what)
{
    return linked(rank, quire__fail(QUIRE_EPEER, "rank 0 does not keep to the protocol: %s", what));
}

static quire_status take(quire_rank *rank, void *data, size_t bytes)
{
    return linked(rank, quire__frame_take(&rank->in, data, bytes));
}

static quire_status apply_moves(quire_rank *rank, uint32_t count)
{
    const quire_cache *cache = rank->cache;

    while (count > 0) {
        rank->plan.count = 0;
        for (; count > 0 && quire__plan_room(&rank->plan) > 0; count--) {
            quire__wire_move wire;
            QUIRE__TRY(take(rank, &wire, sizeof wire));
            bool restore = wire.ticket_restore & 1;
            if ((restore ? wire.destination : wire.source) >= cache->device_slots ||
                (restore ? wire.source : wire.destination) >= cache->host_slots)
                return confused(rank, "a move names a slot that there is not");
            quire__plan_add(&rank->plan, (quire__move){.type = restore ? QUIRE__MOVE_RESTORE : QUIRE__MOVE_OFFLOAD,
                                                       .source = wire.source,
                                                       .destination = wire.destination,
                                                       .node = QUIRE__NONE,
                                                       .ticket = wire.ticket_restore >> 1});
        }
        quire__mover_start(rank->cache->mover, &rank->plan);
    }
    return QUIRE_OK;
}

static quire_status check_row(quire_rank *rank, const quire__wire_row *wire, uint32_t tokens)
{
    const quire_options *options = &rank->cache->options;
    uint32_t block_tokens = options->block_tokens;

    if (wire->seq >= options->max_sequences || wire->blocks > rank->stride || wire->changed > wire->blocks ||
        wire->added == 0 || wire->added > wire->length || wire->added > options->max_step_tokens - tokens ||
        (uint64_t)wire->blocks * block_tokens < wire->length)
        return confused(rank, "a row of a step is out of range");
    if (wire->changed > 0 && rank->owners[wire->seq] != wire->owner)
        return confused(rank, "a change of a table that was never sent");
    return QUIRE_OK;
}

static quire_status take_row(quire_rank *rank, quire__row *row, uint32_t *tokens)
{
    quire__wire_row wire;

    QUIRE__TRY(take(rank, &wire, sizeof wire));
    QUIRE__TRY(check_row(rank, &wire, *tokens));
    int32_t *table = rank->tables + (size_t)wire.seq * rank->stride;
    QUIRE__TRY(take(rank, table + wire.changed, (wire.blocks - wire.changed) * sizeof *table));
    for (uint32_t i = wire.changed; i < wire.blocks; i++)
        if (table[i] < 0 || (uint32_t)table[i] >= rank->cache->device_slots)
            return confused(rank, "a table names a block that there is not");
    rank->owners[wire.seq] = wire.owner;
    *row = (quire__row){.owner = wire.owner,
                        .blocks = table,
                        .block_count = wire.blocks,
                        .changed = wire.changed,
                        .last_row = &rank->last_row[wire.seq],
                        .length = wire.length,
                        .added = wire.added,
                        .first = *tokens};
    *tokens += wire.added;
    return QUIRE_OK;
}

static quire_status apply_step(quire_rank *rank, const quire__record_head *head, void *stream)
{
    quire_cache *cache = rank->cache;
    quire__row *rows = cache->step.sent;
    uint32_t tokens = 0;

    if (head->count == 0 || head->count > cache->options.max_sequences || head->copies > cache->options.max_sequences ||
        head->graph_rows > cache->options.max_sequences || (head->graph_rows > 0 && head->graph_rows < head->count) ||
        head->graph_rows > cache->options.max_step_tokens || head->graph_context > cache->options.max_seq_tokens ||
        head->step <= cache->steps)
        return confused(rank, "a step is out of range");
    for (uint32_t i = 0; i < head->count; i++)
        QUIRE__TRY(take_row(rank, &rows[i], &tokens));
    QUIRE__TRY(take(rank, cache->step.pairs, head->copies * sizeof *cache->step.pairs));
    if (head->graph_rows > 0 && tokens != head->count)
        return confused(rank, "a row for a graph has several tokens");
    cache->step.tokens = tokens;
    cache->step.graph_rows = head->graph_rows;
    cache->step.graph_context = head->graph_context;
    return linked(rank, quire__follow_step(cache, stream, head->step, rows, head->count, cache->step.pairs, head->copies));
}

/* ---- calls --------------------------------------------------------------------------------------------------- */

/* Waits for the first byte of a frame; while moves are in flight it looks after them. */
static quire_status await_frame(quire_rank *rank, uint64_t deadline_us)
{
    unsigned char first;

    for (;;) {
        QUIRE__TRY(report(rank));
        bool busy = in_flight(rank) > 0;
        uint64_t left = time_left(deadline_us), wait = left < LONGEST_WAIT_US ? left : LONGEST_WAIT_US;
        quire_status status = rank->transport.receive(rank->transport.user, &first, 1, busy ? 0 : wait);
        if (status == QUIRE_OK)
            break;
        if (status != QUIRE_ETIMEOUT)
            return linked(rank, status);
        if (left == 0)
            return quire__fail(QUIRE_ETIMEOUT, "rank 0 has decided nothing in time; call again");
        if (busy)
            quire__clock_sleep_us(PAUSE_US);
    }
    rank->deadline_us = after(rank->welcome.timeout_us); /* what has begun may take as long as an exchange */
    return linked(rank, quire__frame_rest(&rank->in, first));
}

quire_status quire_rank_next(quire_rank *rank, void *stream, const quire_view **view, uint64_t timeout_us)
{
    uint64_t deadline_us = after(timeout_us);

    if (rank == NULL || view == NULL)
        return quire__fail(QUIRE_EINVAL, "rank and view must not be NULL");
    if (rank->stepping)
        return quire__fail(QUIRE_ESTATE, "a step is under way; call quire_rank_commit first");
    if (rank->broken || rank->ended)
        return quire__fail(QUIRE_EPEER, rank->broken ? "the link to rank 0 failed before; close the rank"
                                                     : "rank 0 has ended the group; close the rank");
    for (;;) {
        quire__record_head head;
        if (quire__frame_empty(&rank->in))
            QUIRE__TRY(await_frame(rank, deadline_us));
        QUIRE__TRY(take(rank, &head, sizeof head));
        if (head.kind == QUIRE__RECORD_MOVES) {
            QUIRE__TRY(apply_moves(rank, head.count));
        } else if (head.kind == QUIRE__RECORD_STEP) {
            QUIRE__TRY(apply_step(rank, &head, stream));
            rank->stepping = true;
            *view = &rank->cache->step.view;
            return QUIRE_OK;
        } else if (head.kind == QUIRE__RECORD_FAREWELL) {
            rank->ended = true;
            QUIRE__TRY(say(rank, &(quire__report){QUIRE__REPORT_MAGIC, QUIRE__REPORT_FAREWELL, 0, 0, 0}));
            *view = NULL;
            return QUIRE_OK;
        } else {
            return confused(rank, "a record of no known kind");
        }
    }
}

quire_status quire_rank_commit(quire_rank *rank)
{
    if (rank == NULL)
        return quire__fail(QUIRE_EINVAL, "rank must not be NULL");
    if (!rank->stepping)
        return quire__fail(QUIRE_ESTATE, "no step is under way; quire_rank_next gives one");
    rank->stepping = false;
    QUIRE__TRY(linked(rank, quire__follow_end(rank->cache)));
    QUIRE__TRY(say(rank, &(quire__report){QUIRE__REPORT_MAGIC, QUIRE__REPORT_STEP, 0, 1, rank->cache->step.number}));
    return report(rank);
}

void quire_rank_cancel(quire_rank *rank)
{
    if (rank != NULL)
        rank->transport.interrupt(rank->transport.user);
}

/* ---- opening and closing ------------------------------------------------------------------------------------- */

static quire_status take_welcome(quire_rank *rank)
{
    quire__welcome *w = &rank->welcome;

    QUIRE__TRY(receive(rank, w, sizeof *w));
    if (w->magic != QUIRE__WELCOME_MAGIC || w->version != QUIRE__FRAMES_VERSION)
        return quire__fail(QUIRE_EPEER, "the other side is no rank 0 of this version (%d)", QUIRE__FRAMES_VERSION);
    return QUIRE_OK;
}

/* The caller's options, with rank 0's numbers. */
static quire_status open_cache(quire_rank *rank, const quire_options *given)
{
    const quire__welcome *w = &rank->welcome;
    quire_options options = *given;
    uint64_t block = 0;

    if (options.group_count != 1)
        return quire__fail(QUIRE_EUNSUPPORTED, "a rank takes one group of layers, not %u", options.group_count);
    options.block_tokens = w->block_tokens;
    QUIRE__TRY(quire_block_bytes(&options, &block));
    options.device_bytes = w->device_slots * block;
    options.device_max_bytes = 0;
    options.host_bytes = w->host_slots * block;
    options.offload = w->host_slots > 0 ? QUIRE_OFFLOAD_WRITE_THROUGH : QUIRE_OFFLOAD_NONE;
    options.max_sequences = w->max_sequences;
    options.max_seq_tokens = w->max_seq_tokens;
    options.max_step_tokens = w->max_step_tokens;
    options.move_timeout_ms = w->move_timeout_ms;
    options.host_pin = QUIRE_HOST_PIN_OPEN; /* rank 0 may name any slot */
    options.restore_parts = 1;
    options.trace = NULL;
    return quire__follow_open(&rank->cache, &options);
}

static quire_status take_memory(quire_rank *rank)
{
    const quire__allocator *allocator = &rank->cache->allocator;
    size_t sequences = rank->welcome.max_sequences;
    void *memory;

    rank->stride = (rank->welcome.max_seq_tokens - 1) / rank->welcome.block_tokens + 1;
    QUIRE__TRY(quire__memory_take(allocator, sequences * rank->stride, sizeof(int32_t), "a rank's tables", &memory));
    rank->tables = memory;
    QUIRE__TRY(quire__memory_take(allocator, sequences, sizeof(uint64_t), "a rank's tables", &memory));
    rank->owners = memory;
    QUIRE__TRY(quire__memory_take(allocator, sequences, sizeof(uint32_t), "a rank's tables", &memory));
    rank->last_row = memory;
    QUIRE__TRY(quire__memory_take(allocator, 1, QUIRE__FRAME_BYTES, "a rank's frames", &memory));
    rank->in = (quire__frame_in){.memory = memory, .receive = receive, .arg = rank};
    return quire__plan_open(&rank->plan, allocator, PLAN_MOVES);
}

static quire_status open_with(quire_rank *rank, const quire_options *options)
{
    quire__rank_ready ready = {.magic = QUIRE__WELCOME_MAGIC};

    QUIRE__TRY(take_welcome(rank));
    quire_status status = open_cache(rank, options);
    if (status == QUIRE_OK)
        status = take_memory(rank);
    ready.status = status;
    if (status != QUIRE_OK)
        snprintf(ready.text, sizeof ready.text, "%s", quire_error_text());
    quire_status sent = rank->transport.send(rank->transport.user, &ready, sizeof ready, time_left(rank->deadline_us));
    return status != QUIRE_OK ? quire__fail(status, "%s", ready.text) : sent;
}

static void give_memory(quire_rank *rank)
{
    if (rank->cache != NULL) {
        quire__allocator allocator = rank->cache->allocator;
        if (rank->cache->step.state != QUIRE__STEP_NONE)
            (void)quire__follow_end(rank->cache);
        quire__plan_close(&rank->plan, &allocator);
        quire__memory_give(&allocator, rank->in.memory);
        quire__memory_give(&allocator, rank->last_row);
        quire__memory_give(&allocator, rank->owners);
        quire__memory_give(&allocator, rank->tables);
        quire_cache_close(rank->cache);
    }
    quire__memory_give(&quire__allocator_default, rank);
}

quire_status quire_rank_open(quire_rank **out, const quire_options *options, const quire_transport *transport,
                             uint64_t timeout_us)
{
    void *memory;

    if (out == NULL || options == NULL || transport == NULL)
        return quire__fail(QUIRE_EINVAL, "rank, options and transport must not be NULL");
    if (options->size != sizeof *options || transport->size != sizeof *transport)
        return quire__fail(QUIRE_EINVAL, "options.size must be %zu and transport.size %zu", sizeof *options,
                           sizeof *transport);
    QUIRE__TRY(quire__memory_take(&quire__allocator_default, 1, sizeof(quire_rank), "a rank", &memory));
    quire_rank *rank = memory;
    *rank = (quire_rank){.transport = *transport, .deadline_us = after(timeout_us)};
    quire_status status = open_with(rank, options);
    if (status != QUIRE_OK) {
        give_memory(rank);
        return status;
    }
    *out = rank;
    return QUIRE_OK;
}

void quire_rank_close(quire_rank *rank)
{
    if (rank == NULL)
        return;
    quire_transport transport = rank->transport;
    give_memory(rank);
    transport.close(transport.user);
}
