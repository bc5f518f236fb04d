/* mover.c: plans become batches of asynchronous copies; batches become completions.
 *
 *   step stream   ---- step n ----|E(n)---- step n+1 ----|E(n+1)
 *   offload                        \wait E(n)  [copies]|F    device to host, behind the step that wrote the blocks
 *   restore        wait E(ticket)  [copies]|G                host to device, behind the last step that used the slots
 *
 * A direction is a ring of batches (one event each) over a ring of moves. A batch ends when its event has completed, and
 * only then are its moves reported: the deciding half keeps both slots of a move until it hears of it, which is the
 * fence between a copy and the next user of its slots. No stream ever waits for F or G: a sequence whose restore is
 * under way is not scheduled until the CPU has seen G, because a restore that fails must become a miss.
 *
 * A restore may come in parts (layers first to last, for whom the cache cuts blocks): each part of a batch has an event of its
 * own, and a step that needs the first part only may be enqueued behind that. The batch has ended when its last part has.
 *
 * Blocks that lie side by side in both tiers are one copy.
 *
 * Or blocks go through staging memory, where a kernel packs them or lays them side by side (staging.c). The kernels have a
 * stream of their own then; it waits for the ticket, and a restore's events are on it. A block that the kernel refused fails
 * alone.
 *
 * Restores come first. A plan's restores are enqueued before its offloads, and of offloads one batch is on the link at a time, of
 * about 10 ms: the others are held, here, until a poll sees it ended. So whatever piles up behind the steps of a busy engine, a
 * restore finds no more than that before it, even on a link that serves copies in the order in which they were enqueued.
 *
 * A direction measures itself: a batch had the link from when it was enqueued, or from the end of the one before it, to when
 * it was seen to have ended. The time of a block is a moving average over batches, weighted by their blocks, so that a few
 * small batches, which are all latency, do not hide what large ones reach.
 *
 * Invariants
 *  1. A slot is in at most one move in flight as a destination (the deciding half's promise), so the ring of moves needs
 *     room for no more than all the slots.
 *  2. Events of steps lie in a ring of STEP_EVENTS. Steps are chained (a step's stream waits for the step before), so
 *     E(m), m > n, implies E(n): a ticket that has left the ring may wait for the oldest event that is still in it.
 *  3. A step that has not been marked yet cannot have touched a slot that was free or cached when it began, so a ticket
 *     above the last mark may wait for the last mark.
 */
#include "move/mover.h"

#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/status.h"

enum { STEP_EVENTS = 16, BATCHES = 64 };

typedef struct batch {
    quire__event *events[QUIRE__PARTS_MOST]; /* [parts of the direction] */
    quire__event *arrived; /* of a restore through staging: behind its copies, and failed where one of them has */
    uint32_t count; /* moves, the next so many of the ring */
    uint32_t late;  /* of them, reported as late */
    uint64_t deadline_us, began_us;
    bool failed, measured;
    bool torn; /* a part has failed, and the others may not have ended yet */
} batch;

typedef struct direction {
    quire__stream *stream;
    batch batches[BATCHES];
    uint32_t first_batch, batch_count, parts;
    uint64_t begun; /* batches so far: the newest one's number */
    quire__move *moves; /* ring */
    quire__copy *copies;
    uint32_t first_move, move_count, capacity;
    uint32_t held; /* of the moves the newest, which no batch has yet */
    uint64_t held_deadline_us;
    quire__staging staging; /* empty unless blocks go through it */
    bool staged;
    uint64_t ended_us; /* the last batch that ended */
    double block_us;   /* measured; 0: not yet */
} direction;

/* A group beside the first. */
typedef struct side {
    quire__mover_side config;
    quire__host_tier host;
} side;

struct quire__mover {
    quire__mover_config config;
    quire__host_tier host;
    side sides[QUIRE__SIDES_MOST];
    direction offload, restore;
    quire__event *step_events[STEP_EVENTS];
    uint64_t last_step; /* marked; 0: none */
    quire__stream *last_stream;
    quire__mover_stats stats;
    uint32_t holes;
};

static void direction_close(quire__mover *mover, direction *way)
{
    quire__device *device = mover->config.device;

    if (way->stream != NULL)
        (void)quire__device_stream_synchronize(device, way->stream);
    quire__staging_close(&way->staging);
    for (int i = 0; i < BATCHES; i++) {
        for (uint32_t part = 0; part < way->parts; part++)
            quire__device_event_close(device, way->batches[i].events[part]);
        quire__device_event_close(device, way->batches[i].arrived);
    }
    if (way->stream != NULL)
        quire__device_stream_close(device, way->stream);
    quire__memory_give(&mover->config.allocator, way->moves);
    quire__memory_give(&mover->config.allocator, way->copies);
}

static quire_status direction_stage(quire__mover *mover, direction *way)
{
    const quire__mover_config *config = &mover->config;
    const quire__staging_config staging = {.device = config->device,
                                           .allocator = config->allocator,
                                           .arena = config->arena,
                                           .host = &mover->host,
                                           .path = config->path,
                                           .shape = config->shape,
                                           .restore = way == &mover->restore,
                                           .block_bytes = config->block_bytes,
                                           .part_bytes = config->part_bytes,
                                           .parts = way->parts,
                                           .capacity = way->capacity,
                                           .buffer_bytes = config->staging_bytes};

    QUIRE__TRY(quire__staging_open(&way->staging, &staging));
    way->staged = true;
    for (int i = 0; way == &mover->restore && i < BATCHES; i++)
        QUIRE__TRY(quire__device_event_open(config->device, &way->batches[i].arrived));
    return QUIRE_OK;
}

static quire_status direction_open(quire__mover *mover, direction *way, uint32_t parts)
{
    const quire__allocator *allocator = &mover->config.allocator;
    void *memory;

    QUIRE__ASSERT(parts <= QUIRE__PARTS_MOST);
    way->parts = parts > 0 ? parts : 1;
    way->capacity = mover->config.device_slots + mover->config.host_slots;
    for (uint32_t i = 0; i < mover->config.side_count; i++)
        way->capacity += mover->config.sides[i].device_slots + mover->config.host_slots;
    QUIRE__TRY(quire__memory_take(allocator, way->capacity, sizeof(quire__move), "moves in flight", &memory));
    way->moves = memory;
    QUIRE__TRY(quire__memory_take(allocator, way->capacity, sizeof(quire__copy), "copy list", &memory));
    way->copies = memory;
    QUIRE__TRY(quire__device_stream_open(mover->config.device, &way->stream));
    for (int i = 0; i < BATCHES; i++)
        for (uint32_t part = 0; part < way->parts; part++)
            QUIRE__TRY(quire__device_event_open(mover->config.device, &way->batches[i].events[part]));
    return mover->config.path == QUIRE__PATH_COPY ? QUIRE_OK : direction_stage(mover, way);
}

static quire_status mover_fill(quire__mover *mover)
{
    const quire__mover_config *config = &mover->config;

    quire__host_tier_config host = {.slots = config->host_slots,
                                    .slot_bytes = config->path == QUIRE__PATH_PACK ? (size_t)config->shape.packed_bytes
                                                                                   : config->block_bytes,
                                          .verify = config->verify,
                                          .chunk_bytes = config->pin_bytes,
                                          .background = config->pin_background};

    QUIRE__TRY(quire__host_tier_open(&mover->host, config->device, &config->allocator, &host));
    for (uint32_t i = 0; i < config->side_count; i++) {
        mover->sides[i].config = config->sides[i];
        host.slot_bytes = config->sides[i].block_bytes;
        QUIRE__TRY(quire__host_tier_open(&mover->sides[i].host, config->device, &config->allocator, &host));
    }
    QUIRE__TRY(direction_open(mover, &mover->offload, 1));
    QUIRE__TRY(direction_open(mover, &mover->restore, config->parts));
    for (int i = 0; i < STEP_EVENTS; i++)
        QUIRE__TRY(quire__device_event_open(config->device, &mover->step_events[i]));
    return QUIRE_OK;
}

quire_status quire__mover_open(quire__mover **out, const quire__mover_config *config)
{
    void *memory;

    QUIRE__TRY(quire__memory_take(&config->allocator, 1, sizeof(quire__mover), "mover", &memory));
    quire__mover *mover = memory;
    mover->config = *config;
    quire_status status = mover_fill(mover);
    if (status != QUIRE_OK) {
        quire__mover_close(mover);
        return status;
    }
    *out = mover;
    return QUIRE_OK;
}

void quire__mover_close(quire__mover *mover)
{
    if (mover == NULL)
        return;
    quire__allocator allocator = mover->config.allocator;

    direction_close(mover, &mover->offload);
    direction_close(mover, &mover->restore);
    for (int i = 0; i < STEP_EVENTS; i++)
        if (mover->step_events[i] != NULL)
            quire__device_event_close(mover->config.device, mover->step_events[i]);
    for (uint32_t i = 0; i < mover->config.side_count; i++)
        quire__host_tier_close(&mover->sides[i].host, &allocator);
    quire__host_tier_close(&mover->host, &allocator);
    quire__memory_give(&allocator, mover);
}

quire_status quire__mover_step_mark(quire__mover *mover, uint64_t step, quire__stream *stream)
{
    QUIRE__ASSERT(step > mover->last_step);
    QUIRE__TRY(quire__device_event_record(mover->config.device, mover->step_events[step % STEP_EVENTS], stream));
    mover->last_step = step;
    mover->last_stream = stream;
    return QUIRE_OK;
}

/* Invariants 2 and 3. */
static quire_status wait_for_step(quire__mover *mover, quire__stream *stream, uint64_t ticket)
{
    uint64_t step = ticket;

    if (step > mover->last_step)
        step = mover->last_step;
    if (step + STEP_EVENTS <= mover->last_step)
        step = mover->last_step - STEP_EVENTS + 1;
    if (step == 0 || ticket == 0)
        return QUIRE_OK;
    return quire__device_stream_wait(mover->config.device, stream, mover->step_events[step % STEP_EVENTS]);
}

quire_status quire__mover_step_chain(quire__mover *mover, quire__stream *stream)
{
    if (mover->last_step == 0 || stream == mover->last_stream || (mover->holes & QUIRE__MOVER_HOLE_STEP_CHAIN))
        return QUIRE_OK;
    return wait_for_step(mover, stream, mover->last_step);
}

/* ---- starting ---------------------------------------------------------------------------------------------- */

/* With the ring full, moves join the newest batch, whose event is then recorded again, further back. */
static batch *batch_begin(quire__mover *mover, direction *way)
{
    if (way->batch_count < BATCHES) {
        batch *next = &way->batches[(way->first_batch + way->batch_count) % BATCHES];
        next->count = next->late = 0;
        next->failed = next->measured = next->torn = false;
        way->batch_count++;
        way->begun++;
    }
    batch *newest = &way->batches[(way->first_batch + way->batch_count - 1) % BATCHES];
    uint64_t now = quire__clock_us();
    newest->deadline_us = now + mover->config.timeout_us;
    if (newest->count == 0)
        newest->began_us = now;
    return newest;
}

static void move_add(direction *way, const quire__move *move)
{
    QUIRE__ASSERT(way->move_count < way->capacity);
    way->moves[(way->first_move + way->move_count) % way->capacity] = *move;
    way->move_count++;
}

static quire__host_tier *host_of(quire__mover *mover, const quire__move *move)
{
    return move->group == 0 ? &mover->host : &mover->sides[move->group - 1].host;
}

/* Of the move's block, the bytes of one part. Only the first group's come in parts. */
static quire__copy copy_of(quire__mover *mover, const quire__move *move, uint32_t part, uint32_t parts)
{
    bool restore = move->type == QUIRE__MOVE_RESTORE;
    uint32_t device_slot = restore ? move->destination : move->source;
    uint32_t host_slot = restore ? move->source : move->destination;
    const quire__mover_side *other = move->group == 0 ? NULL : &mover->sides[move->group - 1].config;
    unsigned char *arena = other == NULL ? mover->config.arena : other->arena;
    size_t block = other == NULL ? mover->config.block_bytes : other->block_bytes, from = part * mover->config.part_bytes;
    size_t bytes = part + 1 < parts ? mover->config.part_bytes : block - from;
    unsigned char *on_device = arena + (size_t)device_slot * block + from;
    unsigned char *on_host = (unsigned char *)quire__host_tier_slot(host_of(mover, move), host_slot) + from;

    return (quire__copy){.destination = restore ? on_device : on_host,
                         .source = restore ? on_host : on_device,
                         .bytes = bytes};
}

/* The batch has ended, as far as anybody can see. */
static void measure(direction *way, batch *what)
{
    enum { MEMORY_BLOCKS = 256 }; /* about how many blocks the average remembers */
    uint64_t now = quire__clock_us(), from = what->began_us > way->ended_us ? what->began_us : way->ended_us;

    if (what->failed || what->late > 0 || what->measured || what->count == 0)
        return;
    double block_us = (double)(now - from) / what->count;
    double weight = way->block_us == 0 ? 1 : (double)what->count / (what->count + MEMORY_BLOCKS);
    way->block_us += weight * (block_us - way->block_us);
    way->block_us = way->block_us > 0.001 ? way->block_us : 0.001; /* measured, and too fast for the clock */
    way->ended_us = now;
    what->measured = true;
}

/* The newest `count` moves of the ring that are not held, part by part. */
static quire_status enqueue_parts(quire__mover *mover, direction *way, const batch *what, uint32_t count)
{
    quire__device *device = mover->config.device;
    const uint32_t end = way->move_count - way->held;

    for (uint32_t part = 0; part < way->parts; part++) {
        uint32_t copies = 0;
        for (uint32_t i = end - count; i < end; i++)
            copies = quire__copies_add(way->copies, copies,
                                        copy_of(mover, &way->moves[(way->first_move + i) % way->capacity], part, way->parts));
        mover->stats.copies += copies;
        QUIRE__TRY(quire__device_copy(device, way->stream, way->copies, copies));
        QUIRE__TRY(quire__device_event_record(device, what->events[part], way->stream));
    }
    return QUIRE_OK;
}

/* The same through staging memory, in stretches of the ring. Each stretch records its event again, further back. */
static quire_status enqueue_staged(quire__mover *mover, direction *way, const batch *what, uint32_t count)
{
    quire__staging *staging = &way->staging;

    for (uint32_t part = 0; part < way->parts; part++) {
        for (uint32_t done = 0, some; done < count; done += some) {
            uint32_t first = (way->first_move + way->move_count - way->held - count + done) % way->capacity;
            some = count - done < way->capacity - first ? count - done : way->capacity - first;
            if (way == &mover->offload)
                QUIRE__TRY(quire__staging_offload(staging, way->stream, way->moves, first, some, way->copies,
                                                  what->events[0], &mover->stats.copies));
            else
                QUIRE__TRY(quire__staging_restore(staging, way->stream, way->moves, first, some, part, way->copies,
                                                  what->arrived, &mover->stats.copies));
        }
        if (way == &mover->restore)
            QUIRE__TRY(quire__device_event_record(mover->config.device, what->events[part], staging->kernels));
    }
    return QUIRE_OK;
}

/* Copies of the batch that are enqueued end first: who hears that a move has failed gives its slots to others. */
static void batch_fail(quire__mover *mover, direction *way, batch *what)
{
    (void)quire__device_stream_synchronize(mover->config.device, way->stream);
    if (way->staged)
        (void)quire__device_stream_synchronize(mover->config.device, way->staging.kernels);
    what->failed = true;
}

static void batch_enqueue(quire__mover *mover, direction *way, batch *what, uint32_t count, uint64_t ticket)
{
    if (what->failed)
        return;
    quire_status status = wait_for_step(mover, way->staged ? way->staging.kernels : way->stream, ticket);
    if (status == QUIRE_OK)
        status = (way->staged ? enqueue_staged : enqueue_parts)(mover, way, what, count);
    if (status != QUIRE_OK)
        batch_fail(mover, way, what);
    if (quire__device_capabilities(mover->config.device) & QUIRE__DEVICE_IMMEDIATE)
        measure(way, what);
}

/* The restores among moves[first, last), as one batch. */
static void start_restores(quire__mover *mover, const quire__plan *plan, uint32_t first, uint32_t last, bool failed)
{
    direction *way = &mover->restore;
    batch *what = NULL;
    uint64_t ticket = 0;
    uint32_t count = 0;

    for (uint32_t i = first; i < last; i++) {
        const quire__move *move = &plan->moves[i];
        if (move->type != QUIRE__MOVE_RESTORE)
            continue;
        if (what == NULL)
            what = batch_begin(mover, way);
        ticket = move->ticket > ticket ? move->ticket : ticket;
        move_add(way, move);
        what->count++;
        count++;
    }
    if (what == NULL)
        return;
    if (failed && what->count == count)
        what->failed = true; /* nothing of it is enqueued */
    else if (failed)
        batch_fail(mover, way, what); /* they have joined a batch that is under way */
    batch_enqueue(mover, way, what, count, mover->holes & QUIRE__MOVER_HOLE_RESTORE_AFTER_STEP ? 0 : ticket);
}

/* How many blocks of offloads may be on the link at a time: what it moves in SLICE_US, once that is known. */
static uint32_t slice(const direction *way)
{
    enum { SLICE_US = 10000, LEAST_BLOCKS = 8 };
    double blocks = way->block_us > 0 ? SLICE_US / way->block_us : way->capacity;
    return blocks < LEAST_BLOCKS ? LEAST_BLOCKS : blocks < way->capacity ? (uint32_t)blocks : way->capacity;
}

/* The next of the offloads that are held become a batch, where none is under way. */
static void release_offloads(quire__mover *mover)
{
    direction *way = &mover->offload;
    uint64_t ticket = 0;
    uint32_t most = slice(way), count = way->held < most ? way->held : most;

    if (count == 0 || way->batch_count > 0)
        return;
    batch *what = batch_begin(mover, way);
    for (uint32_t i = 0; i < count; i++) {
        const quire__move *move = &way->moves[(way->first_move + way->move_count - way->held + i) % way->capacity];
        ticket = move->ticket > ticket ? move->ticket : ticket;
    }
    what->count = count;
    way->held -= count;
    way->held_deadline_us = what->deadline_us + mover->config.timeout_us;
    batch_enqueue(mover, way, what, count, mover->holes & QUIRE__MOVER_HOLE_OFFLOAD_AFTER_STEP ? 0 : ticket);
}

static void start_offloads(quire__mover *mover, const quire__plan *plan)
{
    direction *way = &mover->offload;

    for (uint32_t i = 0; i < plan->count; i++) {
        if (plan->moves[i].type != QUIRE__MOVE_OFFLOAD)
            continue;
        if (way->held == 0)
            way->held_deadline_us = quire__clock_us() + 2 * mover->config.timeout_us;
        move_add(way, &plan->moves[i]);
        way->held++;
    }
    release_offloads(mover);
}

/* The restores of a plan are one chain, parents first: from the first corrupt block on, all of it is useless. */
static uint32_t first_corrupt(quire__mover *mover, const quire__plan *plan)
{
    if (mover->holes & QUIRE__MOVER_HOLE_CHECKSUM)
        return plan->count;
    for (uint32_t i = 0; i < plan->count; i++) {
        const quire__move *move = &plan->moves[i];
        if (move->type == QUIRE__MOVE_RESTORE && !quire__host_tier_intact(host_of(mover, move), move->source)) {
            mover->stats.checksum_failures++;
            return i;
        }
    }
    return plan->count;
}

void quire__mover_start(quire__mover *mover, const quire__plan *plan)
{
    uint32_t intact = first_corrupt(mover, plan);

    start_restores(mover, plan, 0, intact, false);
    start_restores(mover, plan, intact, plan->count, true);
    start_offloads(mover, plan);
}

/* ---- ending ------------------------------------------------------------------------------------------------ */

/* Blocks are counted once, bytes and failures in each group. */
static void count_move(quire__mover *mover, const quire__move *move, bool done)
{
    quire__mover_stats *stats = &mover->stats;
    bool first = move->group == 0;
    uint64_t bytes = !done ? 0 : first ? mover->config.block_bytes : mover->sides[move->group - 1].config.block_bytes;

    if (move->type == QUIRE__MOVE_OFFLOAD) {
        stats->offloads += done && first;
        stats->offload_bytes += bytes;
        stats->offload_failures += !done;
    } else {
        stats->restores += done && first;
        stats->restore_bytes += bytes;
        stats->restore_failures += !done;
    }
}

/* Of the ring's moves [first, last), counted from its oldest. */
static void report(quire__mover *mover, direction *way, uint32_t first, uint32_t last, quire__outcome outcome,
                   quire__completion_fn fn, void *arg)
{
    for (uint32_t i = first; i < last; i++) {
        uint32_t at = (way->first_move + i) % way->capacity;
        const quire__move *move = &way->moves[at];
        quire__outcome its = outcome;
        if (outcome == QUIRE__MOVE_DONE && way->staged && way->staging.refused[at] != 0)
            its = QUIRE__MOVE_FAILED;
        if (its == QUIRE__MOVE_DONE && move->type == QUIRE__MOVE_OFFLOAD)
            quire__host_tier_seal(host_of(mover, move), move->destination);
        if (its != QUIRE__MOVE_LATE)
            count_move(mover, move, its == QUIRE__MOVE_DONE);
        fn(arg, move, its);
    }
}

/* Has a part of the batch ended? One that failed has. */
static bool part_ended(quire__mover *mover, batch *what, uint32_t part)
{
    bool done = false;
    if (quire__device_event_query(mover->config.device, what->events[part], &done) != QUIRE_OK)
        what->torn = done = true;
    return done;
}

/* Has every part ended? Each is asked, for each may have failed; and the others of a torn batch may still be running. */
static bool batch_ended(quire__mover *mover, const direction *way, batch *what)
{
    for (uint32_t part = 0; part < way->parts && !what->failed; part++)
        if (!part_ended(mover, what, part))
            return false;
    bool done = true;
    if (what->arrived != NULL && !what->failed && /* on another stream, and before the events that are done */
        quire__device_event_query(mover->config.device, what->arrived, &done) != QUIRE_OK)
        what->torn = true;
    what->failed = what->failed || what->torn;
    return true;
}

/* The oldest batch of a direction; false: it has not ended, so neither has any after it. */
static bool poll_oldest(quire__mover *mover, direction *way, quire__completion_fn fn, void *arg)
{
    batch *what = &way->batches[way->first_batch];
    bool done = mover->holes & QUIRE__MOVER_HOLE_COMPLETION || batch_ended(mover, way, what);

    if (!done)
        return false;
    measure(way, what);
    report(mover, way, 0, what->count, what->failed ? QUIRE__MOVE_FAILED : QUIRE__MOVE_DONE, fn, arg);
    way->first_move = (way->first_move + what->count) % way->capacity;
    way->move_count -= what->count;
    way->first_batch = (way->first_batch + 1) % BATCHES;
    way->batch_count--;
    return true;
}

/* What is over its time: batches one by one, since one that hangs keeps those behind it; and what is held behind them, of which
 * nothing was enqueued. */
static void poll_late(quire__mover *mover, direction *way, quire__completion_fn fn, void *arg)
{
    uint64_t now = quire__clock_us();
    uint32_t first = 0;

    for (uint32_t i = 0; i < way->batch_count; i++) {
        batch *what = &way->batches[(way->first_batch + i) % BATCHES];
        if (what->late < what->count && now >= what->deadline_us) {
            mover->stats.late += what->count - what->late;
            report(mover, way, first + what->late, first + what->count, QUIRE__MOVE_LATE, fn, arg);
            what->late = what->count;
        }
        first += what->count;
    }
    if (way->held > 0 && now >= way->held_deadline_us) {
        report(mover, way, first, way->move_count, QUIRE__MOVE_FAILED, fn, arg);
        way->move_count -= way->held;
        way->held = 0;
    }
}

static void poll_direction(quire__mover *mover, direction *way, quire__completion_fn fn, void *arg)
{
    while (way->batch_count > 0 && poll_oldest(mover, way, fn, arg))
        if (way->held > 0)
            release_offloads(mover);
    if (way->batch_count > 0)
        poll_late(mover, way, fn, arg);
}

void quire__mover_poll(quire__mover *mover, quire__completion_fn fn, void *arg)
{
    poll_direction(mover, &mover->offload, fn, arg);
    poll_direction(mover, &mover->restore, fn, arg);
}

/* ---- restores in parts --------------------------------------------------------------------------------------- */

/* The last batch up to that number that was enqueued, or NULL when all of them have ended. One that failed before it was
 * enqueued has no events, and says nothing of those before it, which may still be running. */
static batch *restore_of(quire__mover *mover, uint64_t mark)
{
    direction *way = &mover->restore;
    uint64_t before = way->begun - way->batch_count; /* what has ended and been reported */

    QUIRE__ASSERT(mark <= way->begun);
    for (; mark > before; mark--) {
        batch *what = &way->batches[(way->first_batch + (mark - before - 1)) % BATCHES];
        if (!what->failed)
            return what;
    }
    return NULL;
}

uint64_t quire__mover_restore_mark(const quire__mover *mover)
{
    return mover->restore.begun;
}

bool quire__mover_restore_begun(quire__mover *mover, uint64_t mark)
{
    batch *what = restore_of(mover, mark);
    return what == NULL || part_ended(mover, what, 0);
}

quire_status quire__mover_restore_wait(quire__mover *mover, uint64_t mark, uint32_t part, quire__stream *stream)
{
    const batch *what = restore_of(mover, mark);

    QUIRE__ASSERT(part < mover->restore.parts);
    if (what == NULL || (mover->holes & QUIRE__MOVER_HOLE_PARTS))
        return QUIRE_OK;
    return quire__device_stream_wait(mover->config.device, stream, what->events[part]);
}

void quire__mover_stats_get(const quire__mover *mover, quire__mover_stats *stats)
{
    *stats = mover->stats;
    stats->offloading = mover->offload.move_count;
    stats->restoring = mover->restore.move_count;
    stats->in_flight = stats->offloading + stats->restoring;
    stats->restore_block_us = mover->restore.block_us;
    stats->restore_wait_us = mover->restore.block_us * mover->restore.move_count;
}

quire__host_tier *quire__mover_host_tier(quire__mover *mover)
{
    return &mover->host;
}

quire__host_tier *quire__mover_side_tier(quire__mover *mover, uint32_t group)
{
    return &mover->sides[group - 1].host;
}

uint32_t quire__mover_host_ready(const quire__mover *mover)
{
    uint32_t least = quire__host_tier_ready(&mover->host);
    for (uint32_t i = 0; i < mover->config.side_count; i++) {
        uint32_t ready = quire__host_tier_ready(&mover->sides[i].host);
        least = ready < least ? ready : least;
    }
    return least;
}

const char *quire__mover_host_fault(const quire__mover *mover)
{
    const char *fault = quire__host_tier_fault(&mover->host);
    for (uint32_t i = 0; fault == NULL && i < mover->config.side_count; i++)
        fault = quire__host_tier_fault(&mover->sides[i].host);
    return fault;
}

void quire__mover_set_holes(quire__mover *mover, uint32_t holes)
{
    mover->holes = holes;
    mover->offload.staging.no_wait = mover->restore.staging.no_wait = (holes & QUIRE__MOVER_HOLE_STAGING) != 0;
}

void quire__mover_set_group(quire__mover *mover, uint32_t blocks)
{
    QUIRE__ASSERT(mover->offload.staged && blocks <= mover->offload.staging.group &&
                  blocks <= mover->restore.staging.group);
    mover->offload.staging.group = mover->restore.staging.group = blocks;
}

void quire__mover_set_timeout(quire__mover *mover, uint64_t timeout_us)
{
    mover->config.timeout_us = timeout_us;
}
