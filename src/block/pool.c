/* pool.c: nodes and slots on flat arrays.
 *
 *    nodes    [device_slots + host_slots] records of 24 bytes: what a match reads and writes
 *    kin      40 bytes more for each: the tree's links and what else a match does not look at
 *    tokens   in an array of their own, in the same order
 *    slots    per tier: who owns it; of the free ones, a stack that is linked through the same entries
 *
 *               node 7 ----slot[DEVICE]---> device slot 3 ---owner---> node 7
 *                      ----slot[HOST]-----> host slot 12  ---owner---> node 7
 *               (a freed node)              device slot 5 ---owner---> ORPHAN   a restore still writes it
 *
 * Invariants
 *  1. A slot is in exactly one of these states: free, owned by one node that names it, orphaned.
 *  2. A node that is not free owns at least one slot. Hence there are never more nodes than slots, and a slot taken
 *     from a free stack always finds a node.
 *  3. A slot that a move in flight reads or writes is not free: detaching it makes it an orphan, and the answer to the
 *     move gives it back. This holds whatever became of the node meanwhile, so that a node can be freed at any time.
 *  4. standing[tier][s] counts the owned slots whose node stands as s, and free + standings + orphans + missing = total.
 *     Each node carries its own last accounted standing, so an update is O(1) and needs no history.
 *
 * Nodes and free slots are stacks that start ascending, and blocks are released tail first: a new prompt mostly gets
 * consecutive nodes and slots again, so that a match reads nodes and tokens as two streams, which the prefetcher knows.
 * It is fast because of that, and right without it. Measured, 8,192 blocks of 16 tokens, hot: 85 us with one record of
 * 64 bytes, 64 us with nodes and kin apart, beside 40 us for memcmp of the tokens alone.
 */
#include "block/pool.h"

#include <string.h>

#include "base/check.h"
#include "base/status.h"

_Static_assert(sizeof(quire__node) + sizeof(quire__kin) == 64, "a block's record takes 64 bytes beside its tokens");

/* Slots [first, end) become free, and are given out ascending. */
static void free_all(quire__pool *pool, quire_tier tier, uint32_t first, uint32_t end)
{
    for (uint32_t slot = end; slot-- > first;)
        quire__pool_free(pool, tier, slot);
}

static quire_status open_tier(quire__pool *pool, const quire__allocator *allocator, quire_tier tier, uint32_t slots)
{
    void *owner = NULL;
    pool->total[tier] = slots;
    pool->free_top[tier] = QUIRE__NONE;
    QUIRE__TRY(quire__memory_take(allocator, slots, sizeof(uint32_t), "slot owners", &owner));
    pool->owner[tier] = owner;
    free_all(pool, tier, 0, slots);
    return QUIRE_OK;
}

quire_status quire__pool_open(quire__pool *pool, const quire__allocator *allocator, uint32_t block_tokens,
                              uint32_t device_slots, uint32_t host_slots)
{
    void *nodes = NULL, *kin = NULL, *tokens = NULL, *ticket = NULL;
    pool->block_tokens = block_tokens;
    pool->node_count = device_slots + host_slots;

    quire_status status = quire__memory_take(allocator, pool->node_count, sizeof(quire__node), "block records", &nodes);
    if (status != QUIRE_OK)
        goto cleanup;
    pool->nodes = nodes;
    status = quire__memory_take(allocator, pool->node_count, sizeof(quire__kin), "block relations", &kin);
    if (status != QUIRE_OK)
        goto cleanup;
    pool->kin = kin;
    status = quire__memory_take(allocator, pool->node_count, block_tokens * sizeof(int32_t), "block tokens", &tokens);
    if (status != QUIRE_OK)
        goto cleanup;
    pool->tokens = tokens;
    status = quire__memory_take(allocator, device_slots, sizeof(uint32_t), "slot tickets", &ticket);
    if (status != QUIRE_OK)
        goto cleanup;
    pool->ticket = ticket;
    status = open_tier(pool, allocator, QUIRE_TIER_DEVICE, device_slots);
    if (status != QUIRE_OK)
        goto cleanup;
    status = open_tier(pool, allocator, QUIRE_TIER_HOST, host_slots);
    if (status != QUIRE_OK)
        goto cleanup;

    for (uint32_t i = 0; i < pool->node_count; i++) {
        pool->nodes[i].child = i + 1 < pool->node_count ? i + 1 : QUIRE__NONE;
        pool->nodes[i].slot[QUIRE_TIER_DEVICE] = pool->nodes[i].slot[QUIRE_TIER_HOST] = QUIRE__NONE;
    }
    pool->free_node = 0;
    for (int tier = 0; tier < QUIRE__TIERS; tier++)
        pool->standing[tier][QUIRE__NOWHERE] = pool->node_count;

cleanup:
    if (status != QUIRE_OK)
        quire__pool_close(pool, allocator);
    return status;
}

void quire__pool_close(quire__pool *pool, const quire__allocator *allocator)
{
    for (int tier = QUIRE__TIERS - 1; tier >= 0; tier--)
        quire__memory_give(allocator, pool->owner[tier]);
    quire__memory_give(allocator, pool->ticket);
    quire__memory_give(allocator, pool->tokens);
    quire__memory_give(allocator, pool->kin);
    quire__memory_give(allocator, pool->nodes);
    *pool = (quire__pool){0};
}

uint32_t quire__pool_node_take(quire__pool *pool)
{
    uint32_t node = pool->free_node;
    QUIRE__ASSERT(node != QUIRE__NONE); /* invariant 2 */
    pool->free_node = pool->nodes[node].child;
    pool->nodes[node] = (quire__node){
        .child = QUIRE__NONE, .slot = {QUIRE__NONE, QUIRE__NONE}, .kind = QUIRE__KIND_OPEN};
    return node;
}

void quire__pool_open_take(quire__pool *pool, uint32_t count, uint32_t *nodes, int32_t *slots)
{
    quire__node *records = pool->nodes; /* in locals: the stores below could be to anything, as the compiler sees it */
    uint32_t *owner = pool->owner[QUIRE_TIER_DEVICE], *standing = pool->standing[QUIRE_TIER_DEVICE];
    uint32_t node = pool->free_node, top = pool->free_top[QUIRE_TIER_DEVICE];
    QUIRE__ASSERT(count <= pool->free_count[QUIRE_TIER_DEVICE]);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t slot = top, next = records[node].child;
        QUIRE__ASSERT(node != QUIRE__NONE && quire__pool_unowned(owner[slot]));
        top = quire__pool_below(owner[slot]);
        records[node] = (quire__node){
            .child = QUIRE__NONE,
            .refs = 1,
            .slot = {slot, QUIRE__NONE},
            .state = {QUIRE__RESIDENT, QUIRE__ABSENT},
            .standing = {QUIRE__OPEN, QUIRE__NOWHERE},
            .kind = QUIRE__KIND_OPEN,
        };
        owner[slot] = node;
        nodes[i] = node;
        slots[i] = (int32_t)slot;
        node = next;
    }
    pool->free_node = node;
    pool->free_top[QUIRE_TIER_DEVICE] = top;
    pool->free_count[QUIRE_TIER_DEVICE] -= count;
    standing[QUIRE__NOWHERE] -= count;
    standing[QUIRE__OPEN] += count;
}

void quire__pool_node_give(quire__pool *pool, uint32_t node)
{
    quire__node *record = &pool->nodes[node];
    QUIRE__ASSERT(record->kind != QUIRE__KIND_FREE);
    QUIRE__ASSERT(record->slot[QUIRE_TIER_DEVICE] == QUIRE__NONE);
    QUIRE__ASSERT(record->slot[QUIRE_TIER_HOST] == QUIRE__NONE);
    record->kind = QUIRE__KIND_FREE;
    record->refs = 0;
    record->child = pool->free_node;
    pool->kin[node].generation++;
    pool->free_node = node;
}

quire_block quire__pool_handle(const quire__pool *pool, uint32_t node)
{
    if (node == QUIRE__NONE)
        return 0;
    return (quire_block)pool->kin[node].generation << 32 | (node + 1);
}

uint32_t quire__pool_find(const quire__pool *pool, quire_block block)
{
    uint32_t node = (uint32_t)block - 1; /* 0 becomes QUIRE__NONE, past every node */
    if (node >= pool->node_count)
        return QUIRE__NONE;
    if (pool->nodes[node].kind != QUIRE__KIND_SEALED || pool->kin[node].generation != (uint32_t)(block >> 32))
        return QUIRE__NONE;
    return node;
}

uint32_t quire__pool_slot_take(quire__pool *pool, quire_tier tier)
{
    uint32_t slot = pool->free_top[tier];
    if (slot == QUIRE__NONE)
        return QUIRE__NONE;
    pool->free_top[tier] = quire__pool_below(pool->owner[tier][slot]);
    pool->owner[tier][slot] = QUIRE__NONE;
    pool->free_count[tier]--;
    return slot;
}

void quire__pool_slot_give(quire__pool *pool, quire_tier tier, uint32_t slot)
{
    QUIRE__ASSERT(slot < pool->total[tier]);
    QUIRE__ASSERT(pool->free_count[tier] < pool->total[tier]);
    if (pool->owner[tier][slot] == QUIRE__ORPHAN)
        pool->orphans[tier]--;
    quire__pool_free(pool, tier, slot);
}

void quire__pool_attach(quire__pool *pool, uint32_t node, quire_tier tier, uint32_t slot, quire__residence state)
{
    quire__node *record = &pool->nodes[node];
    QUIRE__ASSERT(record->slot[tier] == QUIRE__NONE);
    QUIRE__ASSERT(pool->owner[tier][slot] == QUIRE__NONE);
    record->slot[tier] = slot;
    record->state[tier] = (uint8_t)state;
    pool->owner[tier][slot] = node;
    quire__pool_account(pool, node);
}

void quire__pool_detach(quire__pool *pool, uint32_t node, quire_tier tier)
{
    quire__node *record = &pool->nodes[node];
    uint32_t slot = record->slot[tier];
    QUIRE__ASSERT(slot != QUIRE__NONE);
    QUIRE__ASSERT(pool->owner[tier][slot] == node);
    bool in_flight = quire__pool_in_flight(record, tier);

    pool->departures += record->kind != QUIRE__KIND_OPEN; /* that one nobody can have read */
    record->slot[tier] = QUIRE__NONE;
    record->state[tier] = QUIRE__ABSENT;
    record->reads &= (uint8_t)~(tier == QUIRE_TIER_DEVICE ? QUIRE__READS_DEVICE : QUIRE__READS_HOST | QUIRE__READS_SIDES);
    quire__pool_account(pool, node);
    if (in_flight) {
        pool->owner[tier][slot] = QUIRE__ORPHAN;
        pool->orphans[tier]++;
    } else {
        quire__pool_slot_give(pool, tier, slot);
    }
}

void quire__pool_transfer(quire__pool *pool, uint32_t from, uint32_t to)
{
    quire__node *giver = &pool->nodes[from];
    uint32_t slot = giver->slot[QUIRE_TIER_DEVICE];
    QUIRE__ASSERT(!quire__pool_in_flight(giver, QUIRE_TIER_DEVICE));
    pool->departures++;
    giver->slot[QUIRE_TIER_DEVICE] = QUIRE__NONE;
    giver->state[QUIRE_TIER_DEVICE] = QUIRE__ABSENT;
    quire__pool_account(pool, from);
    pool->owner[QUIRE_TIER_DEVICE][slot] = QUIRE__NONE;
    quire__pool_attach(pool, to, QUIRE_TIER_DEVICE, slot, QUIRE__RESIDENT);
}

/* ---- sections ------------------------------------------------------------------------------------------------ */

/* From the last to the first, so that they are given out ascending. */
void quire__pool_slots_show(quire__pool *pool, uint32_t first, uint32_t count)
{
    for (uint32_t slot = first + count; slot-- > first;)
        if (pool->owner[QUIRE_TIER_DEVICE][slot] == QUIRE__NONE)
            quire__pool_free(pool, QUIRE_TIER_DEVICE, slot);
}

void quire__pool_slots_add(quire__pool *pool, uint32_t first, uint32_t count)
{
    for (uint32_t slot = first; slot < first + count; slot++) {
        QUIRE__ASSERT(pool->owner[QUIRE_TIER_DEVICE][slot] == QUIRE__MISSING);
        pool->owner[QUIRE_TIER_DEVICE][slot] = QUIRE__NONE;
    }
    pool->missing[QUIRE_TIER_DEVICE] -= count;
    quire__pool_slots_show(pool, first, count);
}

void quire__pool_slots_hide(quire__pool *pool, uint32_t first, uint32_t count)
{
    uint32_t *owner = pool->owner[QUIRE_TIER_DEVICE], next = pool->free_top[QUIRE_TIER_DEVICE], last = QUIRE__NONE;
    pool->free_top[QUIRE_TIER_DEVICE] = QUIRE__NONE;
    while (next != QUIRE__NONE) {
        uint32_t slot = next;
        next = quire__pool_below(owner[slot]);
        owner[slot] = QUIRE__NONE;
        if (slot >= first && slot < first + count) {
            pool->free_count[QUIRE_TIER_DEVICE]--;
            continue;
        }
        if (last == QUIRE__NONE)
            pool->free_top[QUIRE_TIER_DEVICE] = slot;
        else
            owner[last] = QUIRE__FREE | slot;
        last = slot;
    }
}

void quire__pool_slots_remove(quire__pool *pool, uint32_t first, uint32_t count)
{
    for (uint32_t slot = first; slot < first + count; slot++) {
        QUIRE__ASSERT(pool->owner[QUIRE_TIER_DEVICE][slot] == QUIRE__NONE);
        pool->owner[QUIRE_TIER_DEVICE][slot] = QUIRE__MISSING;
    }
    pool->missing[QUIRE_TIER_DEVICE] += count;
}

void quire__pool_relocate(quire__pool *pool, uint32_t node, uint32_t slot)
{
    quire__node *record = &pool->nodes[node];
    QUIRE__ASSERT(!quire__pool_in_flight(record, QUIRE_TIER_DEVICE));
    QUIRE__ASSERT(pool->owner[QUIRE_TIER_DEVICE][slot] == QUIRE__NONE);
    pool->departures++;
    pool->owner[QUIRE_TIER_DEVICE][record->slot[QUIRE_TIER_DEVICE]] = QUIRE__NONE;
    pool->owner[QUIRE_TIER_DEVICE][slot] = node;
    record->slot[QUIRE_TIER_DEVICE] = slot;
}

/* ---- a host tier that is not all there yet ------------------------------------------------------------------- */

void quire__pool_host_limit(quire__pool *pool, uint32_t slots)
{
    uint32_t total = pool->total[QUIRE_TIER_HOST];
    QUIRE__ASSERT(slots <= total && pool->free_count[QUIRE_TIER_HOST] == total);
    for (uint32_t slot = slots; slot < total; slot++)
        pool->owner[QUIRE_TIER_HOST][slot] = QUIRE__MISSING;
    pool->free_top[QUIRE_TIER_HOST] = QUIRE__NONE;
    pool->free_count[QUIRE_TIER_HOST] = 0;
    free_all(pool, QUIRE_TIER_HOST, 0, slots);
    pool->missing[QUIRE_TIER_HOST] = total - slots;
}

void quire__pool_host_grow(quire__pool *pool, uint32_t slots)
{
    uint32_t *owner = pool->owner[QUIRE_TIER_HOST], first = pool->total[QUIRE_TIER_HOST] - pool->missing[QUIRE_TIER_HOST];
    QUIRE__ASSERT(slots >= first && slots <= pool->total[QUIRE_TIER_HOST]);
    if (slots == first)
        return;
    uint32_t top = pool->free_top[QUIRE_TIER_HOST], last = top;
    pool->free_top[QUIRE_TIER_HOST] = QUIRE__NONE;
    free_all(pool, QUIRE_TIER_HOST, first, slots);
    pool->missing[QUIRE_TIER_HOST] -= slots - first;
    if (top == QUIRE__NONE)
        return;
    while (owner[last] != QUIRE__NONE)
        last = quire__pool_below(owner[last]);
    owner[last] = QUIRE__FREE | first; /* which is on top of the new ones */
    pool->free_top[QUIRE_TIER_HOST] = top;
}

bool quire__pool_in_flight(const quire__node *node, quire_tier tier)
{
    uint8_t reading = tier == QUIRE_TIER_DEVICE ? QUIRE__READS_DEVICE : QUIRE__READS_HOST | QUIRE__READS_SIDES;
    return node->state[tier] == QUIRE__ARRIVING || (node->reads & reading) != 0;
}

quire__standing quire__pool_standing(const quire__node *node, quire_tier tier)
{
    if (node->slot[tier] == QUIRE__NONE)
        return QUIRE__NOWHERE;
    bool in_flight = quire__pool_in_flight(node, tier);
    if (tier == QUIRE_TIER_HOST)
        return in_flight ? QUIRE__LOOSE : QUIRE__CACHED;
    if (node->kind == QUIRE__KIND_OPEN)
        return QUIRE__OPEN;
    if (node->refs > 0)
        return node->state[tier] == QUIRE__ARRIVING ? QUIRE__EXPECTED : QUIRE__USED;
    return in_flight ? QUIRE__LOOSE : QUIRE__CACHED;
}

void quire__pool_account(quire__pool *pool, uint32_t node)
{
    quire__node *record = &pool->nodes[node];
    for (quire_tier tier = QUIRE_TIER_DEVICE; tier <= QUIRE_TIER_HOST; tier++) {
        quire__standing standing = quire__pool_standing(record, tier);
        pool->standing[tier][record->standing[tier]]--;
        pool->standing[tier][standing]++;
        record->standing[tier] = (uint8_t)standing;
    }
}

bool quire__pool_balanced(const quire__pool *pool)
{
    for (int tier = 0; tier < QUIRE__TIERS; tier++) {
        uint64_t sum = (uint64_t)pool->free_count[tier] + pool->orphans[tier] + pool->missing[tier];
        for (int s = QUIRE__NOWHERE + 1; s < QUIRE__STANDINGS; s++)
            sum += pool->standing[tier][s];
        if (sum != pool->total[tier])
            return false;
    }
    return true;
}
