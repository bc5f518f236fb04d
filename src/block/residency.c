/* residency.c: which tier has a block's bytes, and what becomes of a block when it has them in none.
 *
 *                    seal                    release                 evict
 *    (reserve) OPEN -----> SEALED, held  <--------------> cached  ----------> on the host only, or gone
 *                             ^               hold           ^                        |
 *                             |                              |                        | match
 *                             +----------- arriving <--------|------------------------+
 *                                restored     |   restored, nobody holds it
 *                                             +---> DEAD, with all below it      (the restore failed)
 *
 * Invariants
 *  1. A tier is prefix-closed: a block that has a slot in a tier begins a prompt, or its parent has one there too.
 *     A lost slot therefore takes with it what is below (drop_host, drop_subtree).
 *  2. References are counted where paths end: a node's are the sequences whose last block it is, the copies of the open
 *     step that read it, and its children that have references (children as sequences have them: an open or dead block
 *     follows the one before it in its sequence). So a block with references has a parent with references; what
 *     becomes unreferenced by a release is a tail of the path, and so is what a match finds unreferenced. A match,
 *     fork or release of a path that others refer to changes one count, however long the path is.
 *  3. The device's eviction order holds exactly the sealed nodes with a device slot and no reference, also those that
 *     a move in flight has. Nodes enter it in one way only: by a release, a path at a time, its head the most recent.
 *     Then every node in the order is older than those above it: when a node enters, whatever has a device slot below
 *     it is unreferenced too (2) and so is in the order already, or enters with it, as older. And nothing above it can
 *     be in the order yet, being referenced until then (2). Therefore the oldest is always a leaf of the device tier:
 *     no search, and no check but an assertion.
 *  4. The host's eviction order holds exactly the nodes with a host slot. A node enters it when its offload is planned,
 *     just older than its parent, or as the most recent when it begins a prompt; and a path is moved to the recent end
 *     always as a whole, from the root. Both keep a node older than those above it; the oldest is a leaf here too.
 *  5. What a move in flight has is not given away: a victim like that means that there is no victim now. The answer
 *     will come (book.h), so this is waiting, not hanging.
 *  6. A DEAD node is out of the tree and of both orders, and keeps its device slot until the last reference is gone.
 *     Only sequences that wait for it or for a block above it refer to it.
 *
 * A ticket is written when a slot is released, once, not in every step over the whole context: the last step that
 * began is the last one that can have touched it.
 */
#include "block/residency.h"

#include "base/check.h"
#include "block/offload.h"

void quire__residency_event_add(quire__book *book, quire_event_type type, quire_tier tier, uint32_t node)
{
    const quire__kin *kin = &book->pool.kin[node];
    quire__events_add(&book->events, (quire_event){
        .type = type,
        .tier = tier,
        .block = quire__pool_handle(&book->pool, node),
        .parent = quire__pool_handle(&book->pool, kin->parent),
        .domain = book->prefix.domains[kin->domain].value,
        .first_token = kin->depth * book->config.block_tokens,
    });
}

/* ---- references ---------------------------------------------------------------------------------------------- */

/* Nobody referred to the node until now. */
static void leave_order(quire__book *book, uint32_t node)
{
    quire__evict_remove(&book->evict[QUIRE_TIER_DEVICE], node);
    quire__pool_account(&book->pool, node);
}

void quire__residency_hold(quire__book *book, uint32_t parent, uint32_t node)
{
    quire__node *nodes = book->pool.nodes;
    QUIRE__ASSERT(nodes[node].kind == QUIRE__KIND_SEALED);
    QUIRE__ASSERT(parent == QUIRE__NONE || nodes[parent].refs > 0);
    if (nodes[node].refs++ == 0)
        leave_order(book, node); /* the parent counts a child in place of an end */
    else if (parent != QUIRE__NONE)
        nodes[parent].refs--;
}

void quire__residency_use(quire__book *book, const uint32_t *path, uint32_t count)
{
    quire__pool *pool = &book->pool;
    quire__node *nodes = pool->nodes;
    uint32_t cached = 0;
    for (uint32_t i = 0; i < count; i++) {
        quire__node *record = &nodes[path[i]];
        record->refs = 1;
        if (record->standing[QUIRE_TIER_DEVICE] == QUIRE__CACHED) { /* pool_account, for the common case */
            record->standing[QUIRE_TIER_DEVICE] = QUIRE__USED;
            cached++;
        } else {
            quire__pool_account(pool, path[i]);
        }
    }
    pool->standing[QUIRE_TIER_DEVICE][QUIRE__CACHED] -= cached;
    pool->standing[QUIRE_TIER_DEVICE][QUIRE__USED] += cached;
}

void quire__residency_hold_path(quire__book *book, const uint32_t *path, uint32_t from, uint32_t held, uint32_t count)
{
    quire__node *nodes = book->pool.nodes;
    if (held > from) { /* else path[from - 1] counts a child in place of the end */
        nodes[path[held - 1]].refs++;
        if (from > 0)
            nodes[path[from - 1]].refs--;
    }
    quire__evict_remove_path(&book->evict[QUIRE_TIER_DEVICE], path + held, count - held);
}

/* Nobody can find an open or dead node, so without a reference it is nothing. */
void quire__residency_discard(quire__book *book, uint32_t node)
{
    quire__pool *pool = &book->pool;
    pool->ticket[pool->nodes[node].slot[QUIRE_TIER_DEVICE]] = (uint32_t)book->step;
    quire__pool_detach(pool, node, QUIRE_TIER_DEVICE);
    if (book->side_count > 0)
        quire__side_forget(book, node);
    quire__pool_node_give(pool, node);
}

/* Gives up path[count - 1], and so on upwards as long as nobody else refers to what was given up, to path[keep] at most.
 * Without a reference sealed nodes become cached, as the most recent of all; others are gone: they are the last of the
 * path. Returns the first that was given up entirely. */
static uint32_t let_go(quire__book *book, const uint32_t *path, uint32_t keep, uint32_t count)
{
    quire__pool *pool = &book->pool;
    quire__node *nodes = pool->nodes;
    uint32_t *ticket = pool->ticket;
    const uint32_t step = (uint32_t)book->step;
    uint32_t first = count, used = 0;
    for (; first > keep; first--) {
        quire__node *record = &nodes[path[first - 1]];
        QUIRE__ASSERT(record->refs > 0);
        if (--record->refs > 0)
            break;
        if (record->kind != QUIRE__KIND_SEALED) {
            QUIRE__ASSERT(first == count);
            quire__residency_discard(book, path[--count]);
            continue;
        }
        ticket[record->slot[QUIRE_TIER_DEVICE]] = step;
        if (record->standing[QUIRE_TIER_DEVICE] == QUIRE__USED && !(record->reads & QUIRE__READS_DEVICE)) {
            record->standing[QUIRE_TIER_DEVICE] = QUIRE__CACHED; /* pool_account, for the common case */
            used++;
        } else {
            quire__pool_account(pool, path[first - 1]);
        }
    }
    pool->standing[QUIRE_TIER_DEVICE][QUIRE__USED] -= used;
    pool->standing[QUIRE_TIER_DEVICE][QUIRE__CACHED] += used;
    quire__evict_insert_path(&book->evict[QUIRE_TIER_DEVICE], path + first, count - first);
    return first;
}

void quire__residency_release(quire__book *book, const uint32_t *path, uint32_t keep, uint32_t count)
{
    if (let_go(book, path, keep, count) > keep && keep > 0)
        book->pool.nodes[path[keep - 1]].refs++; /* else what it counts for its child counts for the end now */
}

void quire__residency_release_one(quire__book *book, uint32_t parent, uint32_t node)
{
    if (let_go(book, &node, 0, 1) > 0 || parent == QUIRE__NONE)
        return;
    QUIRE__ASSERT(book->pool.nodes[parent].refs > 1); /* the sequence itself still refers to it */
    book->pool.nodes[parent].refs--;
}

void quire__residency_touch_host(quire__book *book, const uint32_t *path, uint32_t count)
{
    uint32_t there = 0;
    while (there < count && book->pool.nodes[path[there]].slot[QUIRE_TIER_HOST] != QUIRE__NONE)
        there++;
    quire__evict_remove_path(&book->evict[QUIRE_TIER_HOST], path, there);
    quire__evict_insert_path(&book->evict[QUIRE_TIER_HOST], path, there);
}

/* ---- slots --------------------------------------------------------------------------------------------------- */

void quire__residency_gain(quire__book *book, uint32_t node, quire_tier tier, uint32_t slot, quire__residence state)
{
    uint32_t parent = book->pool.kin[node].parent;
    quire__pool_attach(&book->pool, node, tier, slot, state);
    if (parent != QUIRE__NONE)
        book->pool.kin[parent].children[tier]++;
    if (state == QUIRE__RESIDENT)
        quire__residency_event(book, QUIRE_EVENT_STORED, tier, node);
}

static void forget_child(quire__book *book, uint32_t node, quire_tier tier)
{
    uint32_t parent = book->pool.kin[node].parent;
    if (parent != QUIRE__NONE)
        book->pool.kin[parent].children[tier]--;
}

void quire__residency_lose(quire__book *book, uint32_t node, quire_tier tier)
{
    quire__node *record = &book->pool.nodes[node];
    QUIRE__ASSERT(record->kind == QUIRE__KIND_SEALED);
    QUIRE__ASSERT(book->pool.kin[node].children[tier] == 0);
    if (tier == QUIRE_TIER_HOST || record->refs == 0)
        quire__evict_drop(&book->evict[tier], node);
    if (record->state[tier] == QUIRE__RESIDENT)
        quire__residency_event(book, QUIRE_EVENT_REMOVED, tier, node);
    quire__pool_detach(&book->pool, node, tier);
    forget_child(book, node, tier);
    if (tier == QUIRE_TIER_HOST && book->side_count > 0)
        quire__side_host_lost(book, node);

    if (record->slot[QUIRE_TIER_DEVICE] == QUIRE__NONE && record->slot[QUIRE_TIER_HOST] == QUIRE__NONE) {
        QUIRE__ASSERT(record->refs == 0);
        quire__prefix_unlink(&book->prefix, node);
        if (book->side_count > 0)
            quire__side_forget(book, node);
        quire__pool_node_give(&book->pool, node);
    }
}

uint32_t quire__residency_available(const quire__book *book)
{
    const quire__pool *pool = &book->pool;
    uint32_t cached = pool->standing[QUIRE_TIER_DEVICE][QUIRE__CACHED];
    uint32_t kept = quire__evict_kept(&book->evict[QUIRE_TIER_DEVICE]);
    return pool->free_count[QUIRE_TIER_DEVICE] + (cached > kept ? cached - kept : 0);
}

uint32_t quire__residency_moving(const quire__book *book)
{
    const quire__pool *pool = &book->pool;
    return pool->orphans[QUIRE_TIER_DEVICE] + pool->standing[QUIRE_TIER_DEVICE][QUIRE__LOOSE];
}

/* What a cached block mostly is that goes: the last block of its prompt, an only child, on the device alone. As
 * quire__residency_lose, in one piece. False, and nothing has changed: it is something else. */
static bool drop_last_block(quire__book *book, uint32_t node)
{
    quire__pool *pool = &book->pool;
    quire__node *record = &pool->nodes[node];
    quire__kin *own = &pool->kin[node];
    uint32_t parent = own->parent, slot = record->slot[QUIRE_TIER_DEVICE];
    if (record->slot[QUIRE_TIER_HOST] != QUIRE__NONE || parent == QUIRE__NONE || own->older != QUIRE__NONE ||
        own->newer != QUIRE__NONE)
        return false;
    QUIRE__ASSERT(record->child == QUIRE__NONE && record->refs == 0 && pool->owner[QUIRE_TIER_DEVICE][slot] == node);
    quire__evict_drop(&book->evict[QUIRE_TIER_DEVICE], node);
    quire__residency_event(book, QUIRE_EVENT_REMOVED, QUIRE_TIER_DEVICE, node);
    pool->nodes[parent].child = QUIRE__NONE;
    pool->kin[parent].children[QUIRE_TIER_DEVICE]--;
    quire__pool_cached_give(pool, node);
    return true;
}

bool quire__residency_make_room(quire__book *book, uint32_t count)
{
    while (book->pool.free_count[QUIRE_TIER_DEVICE] < count) {
        uint32_t victim = quire__evict_victim(&book->evict[QUIRE_TIER_DEVICE]);
        if (victim != QUIRE__NONE && quire__offload_is_ahead(book))
            victim = quire__offload_victim(book, victim);
        if (victim == QUIRE__NONE || book->pool.nodes[victim].standing[QUIRE_TIER_DEVICE] != QUIRE__CACHED)
            return false;
        book->counters.evictions_device++;
        if (quire__offload_is_ahead(book) && book->pool.nodes[victim].slot[QUIRE_TIER_HOST] == QUIRE__NONE)
            quire__offload_missed(book, victim);
        if (book->side_count > 0 || !drop_last_block(book, victim))
            quire__residency_lose(book, victim, QUIRE_TIER_DEVICE);
    }
    return true;
}

uint32_t quire__residency_device_slot(quire__book *book)
{
    return quire__residency_make_room(book, 1) ? quire__pool_slot_take(&book->pool, QUIRE_TIER_DEVICE) : QUIRE__NONE;
}

uint32_t quire__residency_host_slot(quire__book *book, uint32_t spare)
{
    if (book->pool.free_count[QUIRE_TIER_HOST] == 0) {
        uint32_t victim = quire__evict_victim(&book->evict[QUIRE_TIER_HOST]);
        if (victim == QUIRE__NONE || victim == spare ||
            book->pool.nodes[victim].standing[QUIRE_TIER_HOST] != QUIRE__CACHED)
            return QUIRE__NONE;
        book->counters.evictions_host++;
        quire__residency_lose(book, victim, QUIRE_TIER_HOST);
    }
    return quire__pool_slot_take(&book->pool, QUIRE_TIER_HOST);
}

/* ---- loss ---------------------------------------------------------------------------------------------------- */

static uint32_t first_on_host(const quire__book *book, uint32_t sibling)
{
    while (sibling != QUIRE__NONE && book->pool.nodes[sibling].slot[QUIRE_TIER_HOST] == QUIRE__NONE)
        sibling = book->pool.kin[sibling].older;
    return sibling;
}

static uint32_t deepest_on_host(const quire__book *book, uint32_t node)
{
    uint32_t below = first_on_host(book, book->pool.nodes[node].child);
    for (; below != QUIRE__NONE; below = first_on_host(book, book->pool.nodes[below].child))
        node = below;
    return node;
}

/* The host has lost `top`: with it goes, from the host, all that is below. Leaves first. */
static void drop_host(quire__book *book, uint32_t top)
{
    uint32_t node = deepest_on_host(book, top);
    while (node != top) {
        uint32_t parent = book->pool.kin[node].parent;
        uint32_t sibling = first_on_host(book, book->pool.kin[node].older);
        quire__residency_lose(book, node, QUIRE_TIER_HOST);
        node = sibling == QUIRE__NONE ? parent : deepest_on_host(book, sibling);
    }
    quire__residency_lose(book, top, QUIRE_TIER_HOST);
}

/* Out of the tree. What a sequence still refers to stays as dead. */
static void drop_leaf(quire__book *book, uint32_t node)
{
    quire__node *record = &book->pool.nodes[node];
    bool held = record->refs > 0;
    bool on_device = record->slot[QUIRE_TIER_DEVICE] != QUIRE__NONE;
    if (record->slot[QUIRE_TIER_HOST] != QUIRE__NONE)
        quire__residency_lose(book, node, QUIRE_TIER_HOST); /* the last of a node that is not on the device */
    if (!on_device)
        return;
    if (!held) {
        quire__residency_lose(book, node, QUIRE_TIER_DEVICE);
        return;
    }
    if (record->state[QUIRE_TIER_DEVICE] == QUIRE__RESIDENT)
        quire__residency_event(book, QUIRE_EVENT_REMOVED, QUIRE_TIER_DEVICE, node);
    forget_child(book, node, QUIRE_TIER_DEVICE);
    quire__prefix_unlink(&book->prefix, node);
    record->kind = QUIRE__KIND_DEAD;
    quire__pool_account(&book->pool, node);
}

/* `top` and all below it leave the tree, leaves first. */
static void drop_subtree(quire__book *book, uint32_t top)
{
    const quire__node *nodes = book->pool.nodes;
    uint32_t node = top;
    for (;;) {
        while (nodes[node].child != QUIRE__NONE)
            node = nodes[node].child;
        uint32_t parent = book->pool.kin[node].parent;
        drop_leaf(book, node);
        if (node == top)
            return;
        node = parent;
    }
}

/* The next node of a walk through the tree that leaves out what is below `node`. */
static uint32_t after(const quire__book *book, uint32_t node)
{
    const quire__kin *kin = book->pool.kin;
    while (node != QUIRE__NONE && kin[node].older == QUIRE__NONE)
        node = kin[node].parent;
    return node == QUIRE__NONE ? QUIRE__NONE : kin[node].older;
}

void quire__residency_clear(quire__book *book, uint32_t domain)
{
    const quire__node *nodes = book->pool.nodes;
    uint32_t node = book->prefix.domains[domain].child;
    while (node != QUIRE__NONE) {
        uint32_t next = after(book, node);
        if (nodes[node].refs == 0)
            drop_subtree(book, node);
        else if (nodes[node].child != QUIRE__NONE)
            next = nodes[node].child;
        node = next;
    }
}

/* ---- answers ------------------------------------------------------------------------------------------------- */

/* The slot's last owner is gone, and so is the move that had it. */
static void give_orphan(quire__book *book, quire_tier tier, uint32_t slot)
{
    if (tier == QUIRE_TIER_DEVICE || book->side_count == 0) /* else another group's move may still have a part of it: side.c */
        quire__pool_slot_give(&book->pool, tier, slot);
}

/* The move no longer reads the slot. True when it is still the node's. */
static bool end_read(quire__book *book, quire_tier tier, uint32_t slot, uint32_t node)
{
    quire__pool *pool = &book->pool;
    uint8_t reading = tier == QUIRE_TIER_DEVICE ? QUIRE__READS_DEVICE : QUIRE__READS_HOST;
    if (pool->owner[tier][slot] == QUIRE__ORPHAN) {
        give_orphan(book, tier, slot);
        return false;
    }
    if (pool->owner[tier][slot] != node || !(pool->nodes[node].reads & reading)) {
        QUIRE__ASSERT(book->holes);
        return false;
    }
    pool->nodes[node].reads &= (uint8_t)~reading;
    quire__pool_account(pool, node);
    return true;
}

static void arrive(quire__book *book, uint32_t node, quire_tier tier)
{
    quire__node *record = &book->pool.nodes[node];
    if (record->state[tier] != QUIRE__ARRIVING)
        return; /* HOLE_ARRIVING called it resident before */
    record->state[tier] = QUIRE__RESIDENT;
    quire__pool_account(&book->pool, node);
    quire__residency_event(book, QUIRE_EVENT_STORED, tier, node);
}

static void complete_offload(quire__book *book, const quire__move *move, bool ok)
{
    quire__pool *pool = &book->pool;
    end_read(book, QUIRE_TIER_DEVICE, move->source, move->node);
    uint32_t owner = pool->owner[QUIRE_TIER_HOST][move->destination];
    if (owner == QUIRE__ORPHAN) {
        give_orphan(book, QUIRE_TIER_HOST, move->destination);
    } else if (owner >= pool->node_count) {
        QUIRE__ASSERT(book->holes);
    } else if (ok) {
        arrive(book, owner, QUIRE_TIER_HOST);
    } else {
        pool->nodes[owner].state[QUIRE_TIER_HOST] = QUIRE__SPOILED;
        drop_host(book, owner);
    }
}

static void complete_restore(quire__book *book, const quire__move *move, bool ok)
{
    quire__pool *pool = &book->pool;
    bool has_source = end_read(book, QUIRE_TIER_HOST, move->source, move->node);
    uint32_t owner = pool->owner[QUIRE_TIER_DEVICE][move->destination];
    if (owner == QUIRE__ORPHAN) {
        pool->ticket[move->destination] = (uint32_t)book->step; /* a step that ran ahead of the restore may read it still */
        quire__pool_slot_give(pool, QUIRE_TIER_DEVICE, move->destination);
        if (!ok && has_source) /* the block came to the device in another way; its host copy is not to be trusted */
            drop_host(book, move->node);
        return;
    }
    if (owner >= pool->node_count) {
        QUIRE__ASSERT(book->holes);
        return;
    }
    if (ok && pool->nodes[owner].kind == QUIRE__KIND_SEALED) {
        arrive(book, owner, QUIRE_TIER_DEVICE);
        return;
    }
    pool->nodes[owner].state[QUIRE_TIER_DEVICE] = QUIRE__SPOILED;
    quire__pool_account(pool, owner);
    if (pool->nodes[owner].kind == QUIRE__KIND_SEALED)
        drop_subtree(book, owner);
}

void quire__residency_complete(quire__book *book, const quire__move *move, bool ok)
{
    QUIRE__ASSERT(move->type == QUIRE__MOVE_OFFLOAD || move->type == QUIRE__MOVE_RESTORE);
    if (move->group > 0) {
        quire__side_complete(book, move, ok);
        return;
    }
    if (move->type == QUIRE__MOVE_OFFLOAD)
        complete_offload(book, move, ok);
    else
        complete_restore(book, move, ok);
    if (book->side_count > 0)
        quire__side_host_moved(book, move->type == QUIRE__MOVE_OFFLOAD ? move->destination : move->source);
}

/* As a failure, only that the move still has its slots: what is dropped leaves them behind as orphans. */
void quire__residency_expire(quire__book *book, const quire__move *move)
{
    if (move->group > 0) {
        quire__side_expire(book, move);
        return;
    }
    quire_tier tier = move->type == QUIRE__MOVE_OFFLOAD ? QUIRE_TIER_HOST : QUIRE_TIER_DEVICE;
    uint32_t owner = book->pool.owner[tier][move->destination];
    if (owner >= book->pool.node_count || book->pool.nodes[owner].kind != QUIRE__KIND_SEALED)
        return; /* nobody waits for it */
    QUIRE__ASSERT(book->holes || book->pool.nodes[owner].state[tier] == QUIRE__ARRIVING);
    if (tier == QUIRE_TIER_HOST)
        drop_host(book, owner);
    else
        drop_subtree(book, owner);
}
