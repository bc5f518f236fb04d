/* ranks.c: rank 0 of a group. Its cache decides; here that is told to the others, and what they report is brought together.
 *
 *   cache (lock held)      started -> [ entries of a direction: not sent | sent, under way | ended here, not there ]
 *                          ended   -> own, take_in -> the book, once all have ended
 *   cache (lock given back) pump   -> frames to all ranks;  reports from each
 *
 * What is sent and when
 *   1. All ranks get the same bytes: the moves in the order of their start, and a step's tables behind the moves that were
 *      started before it was submitted. The step's commit needs no record: what depends on it are offloads, which are
 *      started behind it, and a rank takes no further record before its engine has committed.
 *   2. Nothing is sent with the cache's lock held. `box` guards the entries and is held for moments; `wire` is held while
 *      frames and reports go over the links, so that they stay in order. Cache lock before box, wire before box.
 *
 * What a move needs to be over
 *   3. In each direction moves end on every rank in the order of their start, so where a rank stands is a count. The oldest
 *      entry is given to the book when it has ended here and on every rank: done only where all say so. Until then the
 *      book keeps both of its slots, on all ranks, since slots have the same numbers everywhere.
 *   4. So a restore that failed anywhere is a miss here, and an offload that failed anywhere leaves nothing in the host tier.
 *
 * When a rank is gone
 *   5. A link that fails, or a rank that has something to answer and is silent for `timeout_us`, breaks the whole group: a
 *      part of every block is lost. No step begins any more; moves that have ended here count as failed, so that waits end
 *      and the bookkeeping stays whole. */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/status.h"
#include "cache/follow.h"
#include "peer/frames.h"
#include "quire/quire_peer.h"

enum {
    MOST_RANKS = 63,
    STEPS_AHEAD = 8, /* that ranks may lie behind when a step is submitted */
    SENT_AT_ONCE = 64,
    PAUSE_US = 20,
    DIRECTIONS = 2, /* offload, restore */
    TEXT = 256
};

typedef struct entry {
    quire__move move;
    bool chain;  /* the first of its plan */
    bool failed; /* somewhere */
    bool late, expired;
} entry;

/* Counts since open; entry n is ring[n % capacity]. told <= own, ended of every link <= sent <= started. */
typedef struct direction {
    entry *ring;
    uint64_t started, sent, own, own_late, told;
} direction;

typedef struct rank_link {
    quire_transport transport;
    uint64_t ended[DIRECTIONS], late[DIRECTIONS];
    uint64_t steps;    /* of the group's, that it has enqueued */
    bool left;         /* has said farewell */
    uint64_t heard_us; /* when it last said something, or was last asked after it owed nothing */
} rank_link;

struct quire_ranks {
    quire_cache *cache;
    quire__followers followers;
    uint64_t timeout_us;
    uint32_t count, capacity;
    rank_link links[MOST_RANKS];
    pthread_mutex_t box, wire;
    /* box */
    direction ways[DIRECTIONS];
    char reason[TEXT];
    /* wire */
    quire__frame_out out;
    uint64_t *owners; /* [max_sequences]: whose table the ranks have */
    bool leaving; /* a farewell is sent: each rank answers it last */
    uint64_t last_step, steps; /* the newest sent, and how many */
    atomic_bool broken;
    atomic_uint pending; /* moves that the book has not been told of */
    atomic_uint_fast64_t pumped_us;
};

/* ---- the end of a group -------------------------------------------------------------------------------------- */

/* With the wire held. The text is this thread's error text. */
static void break_group(quire_ranks *ranks, uint32_t rank)
{
    if (atomic_load(&ranks->broken))
        return;
    pthread_mutex_lock(&ranks->box);
    snprintf(ranks->reason, sizeof ranks->reason, "rank %u is gone: %.200s", rank + 1, quire_error_text());
    pthread_mutex_unlock(&ranks->box);
    atomic_store(&ranks->broken, true);
    for (uint32_t r = 0; r < ranks->count; r++)
        ranks->links[r].transport.interrupt(ranks->links[r].transport.user);
}

static quire_status gone(quire_ranks *ranks)
{
    char reason[TEXT];
    pthread_mutex_lock(&ranks->box);
    memcpy(reason, ranks->reason, sizeof reason);
    pthread_mutex_unlock(&ranks->box);
    return quire__fail(QUIRE_EPEER, "%s; close the ranks", reason);
}

static quire_status ready(void *arg)
{
    quire_ranks *ranks = arg;
    return atomic_load(&ranks->broken) ? gone(ranks) : QUIRE_OK;
}

/* ---- sending ------------------------------------------------------------------------------------------------- */

static quire_status send_to_all(void *arg, const void *data, size_t bytes)
{
    quire_ranks *ranks = arg;

    for (uint32_t r = 0; r < ranks->count; r++) {
        rank_link *link = &ranks->links[r];
        quire_status status = link->transport.send(link->transport.user, data, bytes, ranks->timeout_us);
        if (status != QUIRE_OK) {
            break_group(ranks, r);
            return status;
        }
    }
    return QUIRE_OK;
}

static bool owes(const quire_ranks *ranks, const rank_link *link)
{
    return link->ended[0] < ranks->ways[0].sent || link->ended[1] < ranks->ways[1].sent || link->steps < ranks->steps ||
           link->left != ranks->leaving;
}

/* With wire and box held, before something is sent: who owes nothing has until now to begin with. */
static void start_clocks(quire_ranks *ranks)
{
    uint64_t now = quire__clock_us();
    for (uint32_t r = 0; r < ranks->count; r++)
        if (!owes(ranks, &ranks->links[r]))
            ranks->links[r].heard_us = now;
}

/* Takes entries that have not been sent, at most one plan's. */
static uint32_t take_unsent(quire_ranks *ranks, bool restore, quire__wire_move *moves)
{
    direction *way = &ranks->ways[restore];
    uint32_t count = 0;

    pthread_mutex_lock(&ranks->box);
    if (way->sent < way->started)
        start_clocks(ranks);
    while (way->sent < way->started && count < SENT_AT_ONCE) {
        const entry *e = &way->ring[way->sent % ranks->capacity];
        if (count > 0 && e->chain)
            break;
        moves[count++] = (quire__wire_move){e->move.source, e->move.destination, e->move.ticket * 2 + restore};
        way->sent++;
    }
    pthread_mutex_unlock(&ranks->box);
    return count;
}

static void put_moves(quire_ranks *ranks)
{
    quire__wire_move moves[SENT_AT_ONCE];
    uint32_t count;

    for (int restore = 0; restore < DIRECTIONS; restore++)
        while ((count = take_unsent(ranks, restore, moves)) > 0) {
            quire__record_head head = {.kind = QUIRE__RECORD_MOVES, .count = count};
            quire__frame_put(&ranks->out, &head, sizeof head);
            quire__frame_put(&ranks->out, moves, count * sizeof *moves);
        }
}

static void put_row(quire_ranks *ranks, uint32_t seq, const quire__row *row)
{
    quire__wire_row wire = {.owner = row->owner,
                            .seq = seq,
                            .blocks = row->block_count,
                            .changed = ranks->owners[seq] == row->owner ? row->changed : 0,
                            .length = row->length,
                            .added = row->added};
    if (wire.changed > wire.blocks) /* nothing has changed */
        wire.changed = wire.blocks;
    quire__frame_put(&ranks->out, &wire, sizeof wire);
    quire__frame_put(&ranks->out, row->blocks + wire.changed, (wire.blocks - wire.changed) * sizeof *row->blocks);
    ranks->owners[seq] = row->owner;
}

/* ---- hearing ------------------------------------------------------------------------------------------------- */

/* With the box held. False: the report is about what was never sent. */
static bool take_report(quire_ranks *ranks, rank_link *link, const quire__report *report)
{
    uint32_t restore = report->restore == 1;
    direction *way = &ranks->ways[restore];
    uint64_t *ended = &link->ended[restore], *late = &link->late[restore];

    switch ((quire__report_kind)report->kind) {
    case QUIRE__REPORT_ALIVE: return true;
    case QUIRE__REPORT_FAREWELL: return link->left = ranks->leaving;
    case QUIRE__REPORT_STEP: return ++link->steps <= ranks->steps && report->step <= ranks->last_step;
    case QUIRE__REPORT_DONE:
    case QUIRE__REPORT_FAILED:
        if (report->count > way->sent - *ended)
            return false;
        for (uint32_t i = 0; i < report->count; i++, ++*ended)
            way->ring[*ended % ranks->capacity].failed |= report->kind == QUIRE__REPORT_FAILED;
        return true;
    case QUIRE__REPORT_LATE:
        *late = *late > *ended ? *late : *ended;
        if (report->count > way->sent - *late)
            return false;
        for (uint32_t i = 0; i < report->count; i++, ++*late)
            way->ring[*late % ranks->capacity].late = true;
        return true;
    }
    return false;
}

/* All reports that have come from one rank. */
static quire_status hear(quire_ranks *ranks, rank_link *link)
{
    for (;;) {
        quire__report report;
        quire_status status = link->transport.receive(link->transport.user, &report, 1, 0);
        if (status == QUIRE_ETIMEOUT)
            return QUIRE_OK;
        if (status == QUIRE_OK)
            status = link->transport.receive(link->transport.user, (char *)&report + 1, sizeof report - 1, ranks->timeout_us);
        if (status != QUIRE_OK)
            return status;
        if (report.magic != QUIRE__REPORT_MAGIC)
            return quire__fail(QUIRE_EPEER, "it does not keep to the protocol: a report was to come");
        pthread_mutex_lock(&ranks->box);
        bool known = take_report(ranks, link, &report);
        link->heard_us = quire__clock_us();
        pthread_mutex_unlock(&ranks->box);
        if (link->left)
            return QUIRE_OK;
        if (!known)
            return quire__fail(QUIRE_EPEER, "it reports the end of what was not begun");
    }
}

/* With the wire held. */
static void hear_all(quire_ranks *ranks)
{
    for (uint32_t r = 0; r < ranks->count && !atomic_load(&ranks->broken); r++) {
        rank_link *link = &ranks->links[r];
        quire_status status = link->left ? QUIRE_OK : hear(ranks, link);
        pthread_mutex_lock(&ranks->box);
        bool silent = owes(ranks, link) && quire__clock_us() - link->heard_us > ranks->timeout_us;
        pthread_mutex_unlock(&ranks->box);
        if (status == QUIRE_OK && silent)
            status = quire__fail(QUIRE_ETIMEOUT, "it has said nothing for %llu us, and there is something to say",
                                 (unsigned long long)ranks->timeout_us);
        if (status != QUIRE_OK)
            break_group(ranks, r);
    }
}

/* The error text belongs to the call that pumps on its way out. */
static void pump(void *arg)
{
    quire_ranks *ranks = arg;
    char text[512];

    if (atomic_load(&ranks->pending) == 0 || atomic_load(&ranks->broken))
        return;
    uint64_t now = quire__clock_us();
    pthread_mutex_lock(&ranks->box);
    bool unsent = ranks->ways[0].sent < ranks->ways[0].started || ranks->ways[1].sent < ranks->ways[1].started;
    pthread_mutex_unlock(&ranks->box);
    if (!unsent && now - atomic_load(&ranks->pumped_us) < PAUSE_US)
        return;
    atomic_store(&ranks->pumped_us, now);
    snprintf(text, sizeof text, "%s", quire_error_text());
    pthread_mutex_lock(&ranks->wire);
    put_moves(ranks);
    if (quire__frame_flush(&ranks->out) == QUIRE_OK)
        hear_all(ranks);
    pthread_mutex_unlock(&ranks->wire);
    quire__set_error_text("%s", text);
}

/* ---- steps --------------------------------------------------------------------------------------------------- */

/* Until no rank lies too far behind; a silent one breaks the group, so this ends. */
static void await_ranks(quire_ranks *ranks)
{
    for (;;) {
        uint64_t least = UINT64_MAX;
        hear_all(ranks);
        for (uint32_t r = 0; r < ranks->count; r++)
            least = ranks->links[r].steps < least ? ranks->links[r].steps : least;
        if (atomic_load(&ranks->broken) || least + STEPS_AHEAD > ranks->steps)
            return;
        quire__clock_sleep_us(PAUSE_US);
    }
}

static quire_status submit(void *arg, const quire_step *step)
{
    quire_ranks *ranks = arg;
    quire__record_head head = {.kind = QUIRE__RECORD_STEP,
                               .count = step->row_count,
                               .copies = step->plan.count,
                               .graph_rows = step->graph_rows,
                               .graph_context = step->graph_context,
                               .step = step->number};

    if (step->row_count == 0)
        return ready(arg);
    pthread_mutex_lock(&ranks->wire);
    await_ranks(ranks);
    put_moves(ranks);
    pthread_mutex_lock(&ranks->box);
    start_clocks(ranks);
    ranks->steps++;
    ranks->last_step = step->number;
    pthread_mutex_unlock(&ranks->box);
    quire__frame_put(&ranks->out, &head, sizeof head);
    for (uint32_t i = 0; i < step->row_count; i++)
        put_row(ranks, step->rows[i].seq, &step->sent[i]);
    quire__frame_put(&ranks->out, step->pairs, step->plan.count * sizeof *step->pairs);
    (void)quire__frame_flush(&ranks->out);
    pthread_mutex_unlock(&ranks->wire);
    return ready(arg);
}

static void forget(void *arg)
{
    quire_ranks *ranks = arg;
    pthread_mutex_lock(&ranks->wire);
    memset(ranks->owners, 0, ranks->cache->options.max_sequences * sizeof *ranks->owners);
    pthread_mutex_unlock(&ranks->wire);
}

/* ---- moves: with the cache's lock held ----------------------------------------------------------------------- */

static void started(void *arg, const quire__plan *plan)
{
    quire_ranks *ranks = arg;
    bool chain[DIRECTIONS] = {true, true};

    pthread_mutex_lock(&ranks->box);
    for (uint32_t i = 0; i < plan->count; i++) {
        const quire__move *move = &plan->moves[i];
        if (move->type == QUIRE__MOVE_COPY)
            continue;
        bool restore = move->type == QUIRE__MOVE_RESTORE;
        direction *way = &ranks->ways[restore];
        QUIRE__ASSERT(way->started - way->told < ranks->capacity);
        way->ring[way->started++ % ranks->capacity] = (entry){.move = *move, .chain = chain[restore]};
        chain[restore] = false;
        atomic_fetch_add(&ranks->pending, 1);
    }
    pthread_mutex_unlock(&ranks->box);
}

static void ended(void *arg, const quire__move *move, quire__outcome outcome)
{
    quire_ranks *ranks = arg;
    direction *way = &ranks->ways[move->type == QUIRE__MOVE_RESTORE];

    pthread_mutex_lock(&ranks->box);
    if (outcome == QUIRE__MOVE_LATE) {
        way->own_late = way->own_late > way->own ? way->own_late : way->own;
        way->ring[way->own_late++ % ranks->capacity].late = true;
    } else {
        entry *e = &way->ring[way->own++ % ranks->capacity];
        QUIRE__ASSERT(e->move.source == move->source && e->move.destination == move->destination);
        e->failed |= outcome == QUIRE__MOVE_FAILED;
    }
    pthread_mutex_unlock(&ranks->box);
}

/* How many of a direction have ended everywhere. */
static uint64_t ended_everywhere(const quire_ranks *ranks, int restore)
{
    uint64_t least = ranks->ways[restore].own;

    for (uint32_t r = 0; r < ranks->count && !atomic_load(&ranks->broken); r++)
        least = ranks->links[r].ended[restore] < least ? ranks->links[r].ended[restore] : least;
    return least;
}

static void take_in(void *arg)
{
    quire_ranks *ranks = arg;
    quire__book *book = ranks->cache->book;

    if (atomic_load(&ranks->pending) == 0)
        return;
    pthread_mutex_lock(&ranks->box);
    bool broken = atomic_load(&ranks->broken);
    for (int restore = 0; restore < DIRECTIONS; restore++) {
        direction *way = &ranks->ways[restore];
        for (uint64_t end = ended_everywhere(ranks, restore); way->told < end; way->told++) {
            const entry *e = &way->ring[way->told % ranks->capacity];
            quire__book_complete(book, &e->move, !e->failed && !broken);
            atomic_fetch_sub(&ranks->pending, 1);
        }
        for (uint64_t i = way->told; i < way->started; i++) {
            entry *e = &way->ring[i % ranks->capacity];
            if (!e->late)
                break; /* time runs out for the oldest first */
            if (!e->expired)
                quire__book_expire(book, &e->move);
            e->expired = true;
        }
    }
    pthread_mutex_unlock(&ranks->box);
}

static uint32_t in_flight(void *arg)
{
    quire_ranks *ranks = arg;
    return atomic_load(&ranks->pending);
}

/* ---- opening and closing ------------------------------------------------------------------------------------- */

static quire_status check_cache(quire_cache *cache)
{
    quire_stats stats = {.size = sizeof stats};

    QUIRE__TRY(quire_cache_stats(cache, &stats));
    if (cache->followers != NULL)
        return quire__fail(QUIRE_ESTATE, "the cache has ranks already");
    if (cache->options.group_count != 1 || cache->sections > 0 || cache->part_layers < cache->layout.layers)
        return quire__fail(QUIRE_EUNSUPPORTED, "ranks follow a cache of one group of layers, whose arena keeps its size "
                           "(device_max_bytes 0) and whose restores come in one part (restore_parts 1)");
    if (stats.sequences > 0 || stats.device_free < stats.device_total || stats.host_free < stats.host_total)
        return quire__fail(QUIRE_ESTATE, "the cache is not empty, and ranks have nothing of what is in it; close its "
                           "sequences and call quire_cache_clear");
    return QUIRE_OK;
}

static quire_status take_memory(quire_ranks *ranks)
{
    quire_cache *cache = ranks->cache;
    void *memory;

    ranks->capacity = cache->device_slots + cache->host_slots;
    for (int i = 0; i < DIRECTIONS; i++) {
        QUIRE__TRY(quire__memory_take(&cache->allocator, ranks->capacity, sizeof(entry), "moves of ranks", &memory));
        ranks->ways[i].ring = memory;
    }
    QUIRE__TRY(quire__memory_take(&cache->allocator, cache->options.max_sequences, sizeof(uint64_t), "tables of ranks",
                                  &memory));
    ranks->owners = memory;
    QUIRE__TRY(quire__memory_take(&cache->allocator, 1, sizeof(quire__frame_head) + QUIRE__FRAME_BYTES, "frames of ranks",
                                  &memory));
    ranks->out = (quire__frame_out){.memory = memory, .send = send_to_all, .arg = ranks};
    return QUIRE_OK;
}

static quire_status welcome(quire_ranks *ranks, uint32_t r)
{
    const quire_cache *cache = ranks->cache;
    const rank_link *link = &ranks->links[r];
    quire__welcome w = {.magic = QUIRE__WELCOME_MAGIC,
                        .version = QUIRE__FRAMES_VERSION,
                        .rank = r + 1,
                        .ranks = ranks->count + 1,
                        .block_tokens = cache->layout.block_tokens,
                        .device_slots = cache->device_slots,
                        .host_slots = cache->host_slots,
                        .max_sequences = cache->options.max_sequences,
                        .max_seq_tokens = cache->options.max_seq_tokens,
                        .max_step_tokens = cache->options.max_step_tokens,
                        .move_timeout_ms = cache->options.move_timeout_ms,
                        .timeout_us = ranks->timeout_us};
    return link->transport.send(link->transport.user, &w, sizeof w, ranks->timeout_us);
}

static quire_status await_ready(quire_ranks *ranks, uint32_t r)
{
    const rank_link *link = &ranks->links[r];
    quire__rank_ready answer;

    QUIRE__TRY(link->transport.receive(link->transport.user, &answer, sizeof answer, ranks->timeout_us));
    if (answer.magic != QUIRE__WELCOME_MAGIC)
        return quire__fail(QUIRE_EPEER, "rank %u does not keep to the protocol", r + 1);
    if (answer.status != QUIRE_OK)
        return quire__fail(QUIRE_EPEER, "rank %u could not open: %.*s", r + 1, QUIRE__FRAMES_TEXT - 1, answer.text);
    return QUIRE_OK;
}

static quire_status meet(quire_ranks *ranks)
{
    for (uint32_t r = 0; r < ranks->count; r++)
        QUIRE__TRY(welcome(ranks, r));
    for (uint32_t r = 0; r < ranks->count; r++)
        QUIRE__TRY(await_ready(ranks, r));
    return QUIRE_OK;
}

static void give_memory(quire_ranks *ranks)
{
    quire__allocator allocator = ranks->cache->allocator;

    pthread_mutex_destroy(&ranks->wire);
    pthread_mutex_destroy(&ranks->box);
    quire__memory_give(&allocator, ranks->out.memory);
    quire__memory_give(&allocator, ranks->owners);
    for (int i = 0; i < DIRECTIONS; i++)
        quire__memory_give(&allocator, ranks->ways[i].ring);
    quire__memory_give(&allocator, ranks);
}

static quire_status check_open(quire_ranks **out, quire_cache *cache, const quire_transport *transports, size_t count)
{
    if (out == NULL || cache == NULL || transports == NULL)
        return quire__fail(QUIRE_EINVAL, "ranks, cache and transports must not be NULL");
    if (count < 1 || count > MOST_RANKS)
        return quire__fail(QUIRE_EINVAL, "count is %zu; it must be 1 to %d, one transport for each other rank", count,
                           MOST_RANKS);
    for (size_t r = 0; r < count; r++)
        if (transports[r].size != sizeof *transports || transports[r].send == NULL || transports[r].receive == NULL ||
            transports[r].interrupt == NULL || transports[r].close == NULL)
            return quire__fail(QUIRE_EINVAL, "transports[%zu].size must be %zu, and each function be given", r,
                               sizeof *transports);
    return check_cache(cache);
}

static void attach(quire_ranks *ranks, const quire__followers *followers)
{
    quire_cache *cache = ranks->cache;

    quire__cache_lock(cache);
    cache->followers = followers;
    if (followers != NULL)
        ranks->last_step = cache->steps;
    quire__lock_give(&cache->lock);
}

quire_status quire_ranks_open(quire_ranks **out, quire_cache *cache, const quire_transport *transports, size_t count,
                              uint64_t timeout_us)
{
    void *memory;

    QUIRE__TRY(check_open(out, cache, transports, count));
    QUIRE__TRY(quire__memory_take(&cache->allocator, 1, sizeof(quire_ranks), "ranks", &memory));
    quire_ranks *ranks = memory;
    *ranks = (quire_ranks){.cache = cache, .timeout_us = timeout_us, .count = (uint32_t)count};
    ranks->followers = (quire__followers){ranks, started, ended, take_in, in_flight, ready, submit, forget, pump};
    pthread_mutex_init(&ranks->box, NULL); /* default attributes: cannot fail on Linux */
    pthread_mutex_init(&ranks->wire, NULL);
    for (size_t r = 0; r < count; r++)
        ranks->links[r].transport = transports[r];
    quire_status status = take_memory(ranks);
    if (status == QUIRE_OK)
        status = meet(ranks);
    if (status != QUIRE_OK) {
        give_memory(ranks);
        return status;
    }
    attach(ranks, &ranks->followers);
    *out = ranks;
    return QUIRE_OK;
}

quire_status quire_ranks_check(quire_ranks *ranks)
{
    if (ranks == NULL)
        return quire__fail(QUIRE_EINVAL, "ranks must not be NULL");
    pthread_mutex_lock(&ranks->wire);
    if (!atomic_load(&ranks->broken))
        hear_all(ranks);
    pthread_mutex_unlock(&ranks->wire);
    return ready(ranks);
}

void quire_ranks_cancel(quire_ranks *ranks)
{
    for (uint32_t r = 0; ranks != NULL && r < ranks->count; r++)
        ranks->links[r].transport.interrupt(ranks->links[r].transport.user);
}

/* A rank that still has something to say is heard to the end: a link closed before that would be an error there. */
static void say_farewell(quire_ranks *ranks)
{
    quire__record_head head = {.kind = QUIRE__RECORD_FAREWELL};
    bool waits = true;

    pthread_mutex_lock(&ranks->wire);
    pthread_mutex_lock(&ranks->box);
    start_clocks(ranks);
    ranks->leaving = true;
    pthread_mutex_unlock(&ranks->box);
    quire__frame_put(&ranks->out, &head, sizeof head);
    (void)quire__frame_flush(&ranks->out);
    while (waits && !atomic_load(&ranks->broken)) {
        hear_all(ranks);
        waits = false;
        for (uint32_t r = 0; r < ranks->count; r++)
            waits = waits || !ranks->links[r].left;
        if (waits)
            quire__clock_sleep_us(PAUSE_US);
    }
    pthread_mutex_unlock(&ranks->wire);
}

/* What is under way ends, or is given up with the group; then the ranks are told that it was all. */
void quire_ranks_close(quire_ranks *ranks)
{
    if (ranks == NULL)
        return;
    quire_cache *cache = ranks->cache;

    if (quire_cache_drain(cache, ranks->timeout_us) == QUIRE_OK)
        say_farewell(ranks);
    atomic_store(&ranks->broken, true);
    quire__cache_lock(cache);
    quire__cache_take_in(cache);
    quire__lock_give(&cache->lock);
    attach(ranks, NULL);
    for (uint32_t r = 0; r < ranks->count; r++)
        ranks->links[r].transport.close(ranks->links[r].transport.user);
    give_memory(ranks);
}
