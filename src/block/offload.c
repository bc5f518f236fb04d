/* offload.c: which blocks are copied to the host tier, and when.
 *
 *    write-through   after the blocks of a step are sealed, what the host lacks of the sequence's blocks
 *    write-back      after a step, what eviction will come to next
 *    selective       the same, but only blocks whose policy finds that they are likely enough to come back
 *
 * Whatever is offloaded, the blocks above it are offloaded first: the host tier is prefix-closed.
 *
 * Write-through. Mostly these are the blocks just sealed. Others are there when an offload failed or came late, when the
 * host had no slot, or when it has given blocks of the sequence away: they are caught up with, as many in a commit as it
 * sealed, so that one bad moment does not keep the rest of a conversation from the host for ever, and a host that is too
 * small costs at most twice the traffic.
 *
 * Write-back. The device's order, from who goes first on:
 *
 *      next victims                                        used most recently
 *      H H H H H H h h h h . H . . . . . . . H . . . . .   H on the host, h on its way, . on the device only
 *      <-- secured ------>                                 free slots + secured: kept between two watermarks
 *
 * Below the low watermark the order is looked at from its cold end, and what is not on the host is offloaded, until free
 * and secured blocks reach the high one. So an eviction mostly finds a block that the host has, and as moves are planned
 * at the far end of what is secured, seldom one that a move has. Evictions use up what is secured and little else does,
 * so between two looks a subtraction says what is left. That is an estimate: a block may become colder than those looked
 * at, above all what a policy thinks little of when a sequence lets it go. If the host lacks the order's first, another goes
 * in its place, of those that the last look named: the first that the host has, that nothing is below, and that nobody has
 * used since (its slot's ticket is no later than the look). The order's first waits for the next look, as in an operating
 * system pages that are clean go before dirty ones. Where none is left to go in its place it is let go, since a step must
 * never wait for an offload, and counted (offloads_missed), and the next look starts afresh.
 *
 * Where the order has less than the low watermark, all of it secured, because nearly all of the device is in use, blocks in
 * use are offloaded too, a sequence after another: when the sequences end these are let go at once and, with so little else to
 * evict, go before any look could find them. Under such a load write-back is write-through.
 *
 * Restores go first. While any is under way, offloads are planned only once half the low watermark is used up, and few at
 * a time: else a cache that restores all the time would lose what it evicts. The caller sees to it that no two batches are
 * under way at a time.
 *
 * A long-running sequence becomes the oldest in the host's order, for only a close counts there as use. So when the
 * next to go would be the very block that we want to continue, the whole path is counted as used now.
 */
#include "block/offload.h"

#include "base/check.h"
#include "base/status.h"
#include "block/residency.h"
#include "block/side.h"

enum { PASSED = 64 }; /* secured blocks that cannot go yet, and are passed over */

quire_status quire__offload_open(quire__book *book)
{
    quire__book_config *config = &book->config;
    void *memory = NULL;
    if (!quire__offload_is_ahead(book))
        return QUIRE_OK;
    uint32_t most = config->device_slots / 2 > 0 ? config->device_slots / 2 : 1;
    uint32_t low = config->offload_low > 0 ? config->offload_low : config->device_slots / 16;
    low = low < 1 ? 1 : low < most ? low : most;
    uint32_t high = config->offload_high > 0 ? config->offload_high : 2 * low;
    high = high < low ? low : high < most ? high : most;
    config->offload_low = low;
    config->offload_high = high;
    QUIRE__TRY(quire__memory_take(&config->allocator, high, sizeof(uint32_t), "blocks to offload", &memory));
    book->cold = memory;
    QUIRE__TRY(quire__memory_take(&config->allocator, book->max_blocks, sizeof(uint32_t), "blocks to offload", &memory));
    book->path = memory;
    return QUIRE_OK;
}

void quire__offload_close(quire__book *book)
{
    quire__memory_give(&book->config.allocator, book->cold);
    quire__memory_give(&book->config.allocator, book->path);
}

/* A slot for the block that follows the path's `count` blocks. `full`: the path is there from its root on; else it is
 * filled in, down to path[count - 1]. */
static uint32_t host_slot(quire__book *book, uint32_t *path, uint32_t count, bool full)
{
    uint32_t parent = count == 0 ? QUIRE__NONE : path[count - 1];
    uint32_t slot = quire__residency_host_slot(book, parent);
    if (slot == QUIRE__NONE && count > 0 && quire__evict_victim(&book->evict[QUIRE_TIER_HOST]) == parent) {
        for (uint32_t at = count; !full && at-- > 1;)
            path[at - 1] = book->pool.kin[path[at]].parent;
        quire__residency_touch_host(book, path, count);
        slot = quire__residency_host_slot(book, parent);
    }
    return slot;
}

/* Not while an offload that was given up still reads it, nor while its own restore writes it. */
static bool may_leave(const quire__node *record)
{
    return record->kind == QUIRE__KIND_SEALED && record->state[QUIRE_TIER_DEVICE] == QUIRE__RESIDENT && !(record->reads & QUIRE__READS_DEVICE);
}

/* How long the host tier holds a block: as long as it takes to fill it once, once it is full; by its eighths. */
static void count_arrival(quire__book *book)
{
    uint32_t eighth = book->config.host_slots / 8 + 1;
    if (book->pool.free_count[QUIRE_TIER_HOST] > 0) {
        book->host_arrivals = 0;
        book->host_since = book->now;
        return;
    }
    if (++book->host_arrivals < eighth)
        return;
    uint64_t holds = (book->now - book->host_since) * 8;
    book->host_holds = book->host_holds == 0 ? holds + 1 : (3 * book->host_holds + holds) / 4 + 1;
    book->host_arrivals = 0;
    book->host_since = book->now;
}

/* Plans the offload of path[at], whose predecessors the host has. False: not now. */
static bool plan_offload(quire__book *book, uint32_t *path, uint32_t at, bool full, uint64_t ticket, quire__plan *plan)
{
    uint32_t node = path[at];
    quire__node *record = &book->pool.nodes[node];
    if (quire__plan_room(plan) <= book->side_count || !may_leave(record))
        return false;
    if (book->side_count > 0 && !quire__side_quiet(book, node))
        return false;
    uint32_t slot = host_slot(book, path, at, full);
    if (slot == QUIRE__NONE)
        return false;

    quire__residency_gain(book, node, QUIRE_TIER_HOST, slot, QUIRE__ARRIVING);
    if (at == 0)
        quire__evict_insert_path(&book->evict[QUIRE_TIER_HOST], &node, 1);
    else
        quire__evict_insert_below(&book->evict[QUIRE_TIER_HOST], node, path[at - 1]);
    if (!(book->holes & QUIRE__BOOK_HOLE_OFFLOAD_SOURCE))
        record->reads |= QUIRE__READS_DEVICE;
    quire__pool_account(&book->pool, node);
    count_arrival(book);
    quire__plan_add(plan, (quire__move){
        .type = QUIRE__MOVE_OFFLOAD,
        .source = record->slot[QUIRE_TIER_DEVICE],
        .destination = slot,
        .node = node,
        .ticket = ticket,
    });
    if (book->side_count > 0) {
        quire__side_host_move(book, slot);
        quire__side_offload(book, node, plan);
    }
    return true;
}

static bool worth(quire__book *book, uint32_t node)
{
    return book->config.offload != QUIRE_OFFLOAD_SELECTIVE ||
           quire__evict_worth_offload(&book->evict[QUIRE_TIER_DEVICE], node, book->host_holds);
}

/* ---- write-through ------------------------------------------------------------------------------------------- */

uint32_t quire__offload_chain(quire__book *book, quire__chain *chain, uint32_t most, quire__plan *plan)
{
    const quire__node *nodes = book->pool.nodes;
    const uint32_t full = chain->length / book->config.block_tokens;
    uint32_t left = most;
    uint32_t at = chain->offloaded < full ? chain->offloaded : full;
    while (at > 0 && nodes[chain->nodes[at - 1]].slot[QUIRE_TIER_HOST] == QUIRE__NONE)
        at--;
    while (at < full && nodes[chain->nodes[at]].slot[QUIRE_TIER_HOST] != QUIRE__NONE)
        at++;
    for (; at < full && left > 0 && worth(book, chain->nodes[at]) &&
           plan_offload(book, chain->nodes, at, true, book->step, plan); left--)
        at++;
    chain->offloaded = at;
    return most - left;
}

/* ---- write-back ---------------------------------------------------------------------------------------------- */

static bool on_host(const quire__book *book, uint32_t node)
{
    return book->pool.nodes[node].slot[QUIRE_TIER_HOST] != QUIRE__NONE;
}

/* A block that somebody uses may have been written by the last step; of others their slot knows the last. */
static uint64_t last_step(const quire__book *book, uint32_t node)
{
    const quire__node *record = &book->pool.nodes[node];
    return record->refs > 0 ? book->step : quire__pool_ticket(&book->pool, record->slot[QUIRE_TIER_DEVICE], book->step);
}

typedef enum outcome { PLANNED, NOT_NOW, NO_ROOM } outcome;

/* Plans the offload of what the host lacks of the path down to the node, `*left` blocks at most. NO_ROOM: nothing more is
 * to be had now. */
static outcome offload_path(quire__book *book, uint32_t node, uint32_t *left, quire__plan *plan)
{
    const quire__kin *kin = book->pool.kin;
    uint32_t *path = book->path, last = kin[node].depth, at = last;
    QUIRE__ASSERT(last < book->max_blocks);
    path[at] = node;
    for (; at > 0 && !on_host(book, path[at]); at--)
        path[at - 1] = kin[path[at]].parent;
    for (at += on_host(book, path[at]); at <= last; at++) {
        if (!may_leave(&book->pool.nodes[path[at]]))
            return NOT_NOW;
        if (*left == 0 || !plan_offload(book, path, at, false, last_step(book, path[at]), plan))
            return NO_ROOM;
        --*left;
    }
    return PLANNED;
}

/* Free blocks, and those that evictions since the last look have left of what was secured then. */
static uint32_t ready(const quire__book *book)
{
    uint64_t gone = book->counters.evictions_device - book->secured_at;
    return book->pool.free_count[QUIRE_TIER_DEVICE] + (gone < book->secured ? book->secured - (uint32_t)gone : 0);
}

/* Looks at the order from its cold end until `most` blocks are secured. Returns how many more may be offloaded; 0 also where
 * that would not help. */
static uint32_t secure(quire__book *book, uint32_t most, uint32_t left, quire__plan *plan)
{
    uint32_t count = quire__evict_coldest(&book->evict[QUIRE_TIER_DEVICE], book->cold, most);
    outcome ended = PLANNED;
    book->secured = 0;
    book->secured_at = book->counters.evictions_device;
    book->cold_count = count;
    book->cold_next = 0;
    book->cold_step = book->step;
    for (uint32_t i = 0; i < count && ended != NO_ROOM; i++) {
        ended = on_host(book, book->cold[i]) || !worth(book, book->cold[i])
                    ? PLANNED : offload_path(book, book->cold[i], &left, plan);
        book->secured += ended == PLANNED;
    }
    bool all = book->secured == count && count < most;
    book->looked_at = all ? quire__evict_count(&book->evict[QUIRE_TIER_DEVICE]) : 0;
    return all ? left : 0;
}

/* Nothing in the order is left to secure, and there is little in it: what sequences have in use goes soon after they end. */
static void secure_used(quire__book *book, uint32_t left, quire__plan *plan)
{
    for (uint32_t i = 0; i < book->config.max_sequences && left > 0; i++)
        if (book->chains[i].open)
            left -= quire__offload_chain(book, &book->chains[i], left, plan);
}

void quire__offload_ahead(quire__book *book, bool restoring, quire__plan *plan)
{
    const quire__book_config *config = &book->config;
    const uint32_t low = restoring ? config->offload_low / 2 : config->offload_low;
    const uint32_t high = restoring ? low : config->offload_high;
    uint32_t left = restoring ? config->offload_low / 8 : config->offload_low;
    if (!quire__offload_is_ahead(book) || config->host_slots == 0 || ready(book) >= low)
        return;
    left = left > 0 ? left : 1;
    if (book->looked_at == 0 || book->looked_at != quire__evict_count(&book->evict[QUIRE_TIER_DEVICE]) ||
        book->secured_at != book->counters.evictions_device) /* else all there is has been secured */
        left = secure(book, high - book->pool.free_count[QUIRE_TIER_DEVICE], left, plan);
    secure_used(book, left, plan);
}

/* Nobody has used it since the last look, nothing is below it, and the host has it for sure. `*later`: not yet. What was let go
 * in the step of the look may have been used after it, and pinned: that has to wait for the next. */
static bool may_go(const quire__book *book, uint32_t node, bool *later)
{
    const quire__pool *pool = &book->pool;
    const quire__node *record = &pool->nodes[node];
    *later = false;
    if (record->kind != QUIRE__KIND_SEALED || record->slot[QUIRE_TIER_DEVICE] == QUIRE__NONE || record->refs > 0 ||
        !on_host(book, node) || quire__pool_ticket(pool, record->slot[QUIRE_TIER_DEVICE], book->step) >= book->cold_step)
        return false;
    *later = record->standing[QUIRE_TIER_DEVICE] != QUIRE__CACHED || record->state[QUIRE_TIER_HOST] != QUIRE__RESIDENT ||
             pool->kin[node].children[QUIRE_TIER_DEVICE] > 0;
    return !*later;
}

uint32_t quire__offload_victim(quire__book *book, uint32_t first)
{
    const quire__node *record = &book->pool.nodes[first];
    bool later = true;
    if (record->standing[QUIRE_TIER_DEVICE] == QUIRE__CACHED && (on_host(book, first) || !worth(book, first)))
        return first;
    for (uint32_t i = book->cold_next, tries = PASSED; i < book->cold_count && tries > 0; i++, tries--) {
        bool found = may_go(book, book->cold[i], &later);
        book->cold_next += i == book->cold_next && !later;
        if (found)
            return book->cold[i];
    }
    return first;
}

void quire__offload_missed(quire__book *book, uint32_t node)
{
    if (worth(book, node)) {
        book->counters.offloads_missed++;
        book->secured = book->looked_at = 0;
    } else {
        book->counters.offloads_declined++;
    }
}

/* `secured` is an estimate, so only its bounds can be checked: what a look may find, and that evictions since then are counted. */
quire_status quire__offload_check(const quire__book *book)
{
    const quire__book_config *config = &book->config;
    bool ahead = quire__offload_is_ahead(book);
    if (ahead && (config->offload_low < 1 || config->offload_low > config->offload_high))
        return quire__fail(QUIRE_ECORRUPT, "the watermarks of write-back are %u and %u", config->offload_low,
                           config->offload_high);
    if (book->secured > (ahead ? config->offload_high : 0) || book->looked_at > book->pool.total[QUIRE_TIER_DEVICE])
        return quire__fail(QUIRE_ECORRUPT, "%u blocks are said to be secured, of %u in the order; at most %u are", book->secured,
                           book->looked_at, ahead ? config->offload_high : 0);
    if (book->cold_next > book->cold_count || book->cold_count > (ahead ? config->offload_high : 0) || book->cold_step > book->step)
        return quire__fail(QUIRE_ECORRUPT, "%u of %u blocks that the look after step %llu named are done with", book->cold_next,
                           book->cold_count, (unsigned long long)book->cold_step);
    if (book->secured_at > book->counters.evictions_device)
        return quire__fail(QUIRE_ECORRUPT, "the last look was after %llu evictions, there have been %llu",
                           (unsigned long long)book->secured_at, (unsigned long long)book->counters.evictions_device);
    if (book->host_arrivals > config->host_slots / 8 || book->host_since > book->now)
        return quire__fail(QUIRE_ECORRUPT, "%u blocks have come to the host since %llu, now is %llu", book->host_arrivals,
                           (unsigned long long)book->host_since, (unsigned long long)book->now);
    return QUIRE_OK;
}
