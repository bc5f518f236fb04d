/* seal.c: a full block that a step has written becomes sealed: immutable, and found by matches.
 *
 * Its place in the tree may be taken, by a block with the same tokens that another sequence computed or that is on the
 * host. Siblings differ, so there is one node for the two:
 *
 *    the other one is resident    the sequence is remapped to it and gives its own slot back
 *    it is on the host only,      it takes over our slot, whose bytes are as good and are there already
 *      or still arriving            (what its restore writes is nobody's any more: an orphan, pool.c)
 *    there is none                our node is linked, and its offload is planned
 *
 * Blocks are sealed in the order of the prompt, so the parent of each is the tree's own node by the time it is needed.
 *
 * Write-through: a block goes to the host as soon as it is sealed, when its parent is there or on its way (the host
 * tier is prefix-closed). Where the host has no slot for it, it is left out, and so is what comes after it.
 */
#include "block/seal.h"

#include "base/check.h"
#include "block/residency.h"

static void plan_offload(quire__book *book, uint32_t node, quire__plan *plan)
{
    quire__node *record = &book->pool.nodes[node];
    uint32_t parent = record->parent;
    if (!book->config.offload || book->config.host_slots == 0)
        return;
    if (parent != QUIRE__NONE && book->pool.nodes[parent].slot[QUIRE_TIER_HOST] == QUIRE__NONE)
        return;
    if (quire__plan_room(plan) == 0)
        return;
    uint32_t slot = quire__residency_host_slot(book, parent);
    if (slot == QUIRE__NONE)
        return;

    quire__residency_gain(book, node, QUIRE_TIER_HOST, slot, QUIRE__ARRIVING);
    if (parent == QUIRE__NONE)
        quire__evict_insert_path(&book->evict[QUIRE_TIER_HOST], &node, 1);
    else
        quire__evict_insert_below(&book->evict[QUIRE_TIER_HOST], node, parent);
    if (!(book->holes & QUIRE__BOOK_HOLE_OFFLOAD_SOURCE))
        record->reads |= QUIRE__READS_DEVICE;
    quire__pool_account(&book->pool, node);
    quire__plan_add(plan, (quire__move){
        .type = QUIRE__MOVE_OFFLOAD,
        .source = record->slot[QUIRE_TIER_DEVICE],
        .destination = slot,
        .node = node,
        .ticket = book->step,
    });
}

/* `twin` is what the tree has in place of our `node`. */
static void give_way(quire__book *book, uint32_t node, uint32_t twin)
{
    quire__residency_hold(book, twin);
    quire__residency_release(book, &node, 1);
    book->counters.blocks_deduplicated++;
}

/* As give_way, but the twin's bytes are not on the device, and ours are: it takes our slot. */
static void adopt(quire__book *book, uint32_t node, uint32_t twin)
{
    quire__pool *pool = &book->pool;
    quire__node *record = &pool->nodes[twin];
    bool first = record->slot[QUIRE_TIER_DEVICE] == QUIRE__NONE;
    if (!first) {
        quire__residency_hold(book, twin);
        quire__pool_detach(pool, twin, QUIRE_TIER_DEVICE);
    } else {
        record->refs = 1;
        if (record->parent != QUIRE__NONE)
            pool->nodes[record->parent].children[QUIRE_TIER_DEVICE]++;
    }
    quire__pool_transfer(pool, node, twin);
    quire__pool_node_give(pool, node);
    quire__residency_event(book, QUIRE_EVENT_STORED, QUIRE_TIER_DEVICE, twin);
    book->counters.blocks_sealed++;
}

static void link_new(quire__book *book, uint32_t node, uint32_t domain, uint32_t parent, uint64_t hash)
{
    book->pool.nodes[node].kind = QUIRE__KIND_SEALED;
    quire__prefix_link(&book->prefix, node, domain, parent, hash);
    if (parent != QUIRE__NONE)
        book->pool.nodes[parent].children[QUIRE_TIER_DEVICE]++;
    quire__pool_account(&book->pool, node);
    quire__residency_event(book, QUIRE_EVENT_STORED, QUIRE_TIER_DEVICE, node);
    book->counters.blocks_sealed++;
}

static void seal(quire__book *book, quire__chain *chain, uint32_t at, quire__plan *plan)
{
    quire__pool *pool = &book->pool;
    uint32_t node = chain->nodes[at], parent = at == 0 ? QUIRE__NONE : chain->nodes[at - 1];
    const int32_t *tokens = quire__pool_tokens(pool, node);
    QUIRE__ASSERT(pool->nodes[node].kind == QUIRE__KIND_OPEN && pool->nodes[node].refs == 1);
    QUIRE__ASSERT(parent == QUIRE__NONE || pool->nodes[parent].kind == QUIRE__KIND_SEALED);

    uint64_t hash = quire__prefix_hash(&book->prefix, chain->domain, parent, tokens);
    uint32_t twin = quire__prefix_lookup(&book->prefix, chain->domain, parent, tokens, hash);
    if (twin == QUIRE__NONE) {
        link_new(book, node, chain->domain, parent, hash);
        plan_offload(book, node, plan);
        return;
    }
    if (pool->nodes[twin].state[QUIRE_TIER_DEVICE] == QUIRE__RESIDENT)
        give_way(book, node, twin);
    else
        adopt(book, node, twin);
    chain->nodes[at] = twin;
    int32_t slot = (int32_t)pool->nodes[twin].slot[QUIRE_TIER_DEVICE];
    if (chain->table[at] != slot) {
        chain->table[at] = slot;
        chain->changed = chain->changed < at ? chain->changed : at;
    }
}

void quire__seal_commit(quire__book *book, quire__chain *chain, quire__plan *plan)
{
    const uint32_t block_tokens = book->config.block_tokens;
    uint32_t first = chain->length / block_tokens;
    chain->length += chain->pending;
    book->counters.computed_tokens += chain->pending;
    chain->pending = 0;
    for (uint32_t i = first; i < chain->length / block_tokens; i++)
        seal(book, chain, i, plan);

    if (chain->source != QUIRE__NONE) {
        uint32_t source = chain->source;
        chain->source = QUIRE__NONE;
        quire__residency_release(book, &source, 1);
    }
}
