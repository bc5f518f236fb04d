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
 * Blocks are sealed in the order of the prompt, so the parent of each is the tree's own node by the time it is needed. A
 * new node has no children: after the first block that the tree has no twin of, none of the following has one, and all
 * are linked at once.
 */
#include "block/seal.h"

#include "base/check.h"
#include "block/chain.h"
#include "block/offload.h"
#include "block/residency.h"

/* `twin` is what the tree has in place of our `node`. */
static void give_way(quire__book *book, uint32_t node, uint32_t parent, uint32_t twin)
{
    quire__residency_hold(book, parent, twin);
    quire__residency_discard(book, node);
    book->counters.blocks_deduplicated++;
}

/* As give_way, but the twin's bytes are not on the device, and ours are: it takes our slot. */
static void adopt(quire__book *book, uint32_t node, uint32_t parent, uint32_t twin)
{
    quire__pool *pool = &book->pool;
    quire__node *record = &pool->nodes[twin];
    bool first = record->slot[QUIRE_TIER_DEVICE] == QUIRE__NONE;
    if (!first) {
        quire__residency_hold(book, parent, twin);
        quire__pool_detach(pool, twin, QUIRE_TIER_DEVICE);
    } else {
        record->refs = 1;
        if (parent != QUIRE__NONE)
            pool->kin[parent].children[QUIRE_TIER_DEVICE]++;
    }
    quire__pool_transfer(pool, node, twin);
    quire__pool_node_give(pool, node);
    quire__residency_event(book, QUIRE_EVENT_STORED, QUIRE_TIER_DEVICE, twin);
    book->counters.blocks_sealed++;
}

static void meet_twin(quire__book *book, quire__chain *chain, uint32_t at, uint32_t parent, uint32_t twin)
{
    quire__pool *pool = &book->pool;
    if (book->side_count > 0)
        quire__side_merge(book, chain, at, chain->nodes[at], twin);
    if (pool->nodes[twin].state[QUIRE_TIER_DEVICE] == QUIRE__RESIDENT)
        give_way(book, chain->nodes[at], parent, twin);
    else
        adopt(book, chain->nodes[at], parent, twin);
    chain->nodes[at] = twin;
    int32_t slot = (int32_t)pool->nodes[twin].slot[QUIRE_TIER_DEVICE];
    if (chain->table[at] != slot) {
        chain->table[at] = slot;
        chain->changed = chain->changed < at ? chain->changed : at;
    }
}

/* The tree has no block like path[0] below `parent`, hence none like the others either. */
static void link_new(quire__book *book, const uint32_t *path, uint32_t count, uint32_t domain, uint32_t parent)
{
    quire__pool *pool = &book->pool;
    for (uint32_t i = 0; i < count; i++) {
        quire__node *record = &pool->nodes[path[i]];
        QUIRE__ASSERT(record->kind == QUIRE__KIND_OPEN && record->refs == 1);
        record->kind = QUIRE__KIND_SEALED;
        record->standing[QUIRE_TIER_DEVICE] = QUIRE__USED; /* pool_account: it was open, and is referred to */
    }
    pool->standing[QUIRE_TIER_DEVICE][QUIRE__OPEN] -= count;
    pool->standing[QUIRE_TIER_DEVICE][QUIRE__USED] += count;
    quire__prefix_link_path(&book->prefix, path, count, domain, parent);
    if (parent != QUIRE__NONE)
        pool->kin[parent].children[QUIRE_TIER_DEVICE]++;
    book->counters.blocks_sealed += count;
    quire__evict_sealed(&book->evict[QUIRE_TIER_DEVICE], path, count);
    if (book->events.capacity > 0)
        for (uint32_t i = 0; i < count; i++)
            quire__residency_event(book, QUIRE_EVENT_STORED, QUIRE_TIER_DEVICE, path[i]);
}

/* Blocks [first, full) of the chain. */
static void seal(quire__book *book, quire__chain *chain, uint32_t first, uint32_t full)
{
    for (uint32_t at = first; at < full; at++) {
        uint32_t node = chain->nodes[at], parent = at == 0 ? QUIRE__NONE : chain->nodes[at - 1];
        QUIRE__ASSERT(parent == QUIRE__NONE || book->pool.nodes[parent].kind == QUIRE__KIND_SEALED);
        uint32_t twin = quire__prefix_child(&book->prefix, chain->domain, parent,
                                            quire__pool_tokens(&book->pool, node));
        if (twin == QUIRE__NONE) {
            link_new(book, chain->nodes + at, full - at, chain->domain, parent);
            return;
        }
        meet_twin(book, chain, at, parent, twin);
    }
}

void quire__seal_commit(quire__book *book, quire__chain *chain, quire__plan *plan)
{
    const uint32_t first = quire__chain_full_of(book, chain->kept, chain->length);
    chain->length += chain->pending;
    book->counters.computed_tokens += chain->pending;
    chain->pending = 0;
    const uint32_t full = quire__chain_full_of(book, chain->blocks, chain->length);
    seal(book, chain, first, full);
    if (full > first && book->config.offload == QUIRE_OFFLOAD_WRITE_THROUGH && book->config.host_slots > 0)
        (void)quire__offload_chain(book, chain, 2 * (full - first), plan);

    if (book->side_count > 0)
        quire__side_commit(book, chain);
    if (chain->source != QUIRE__NONE) {
        uint32_t source = chain->source; /* in the place of block `first` */
        chain->source = QUIRE__NONE;
        if (book->side_count > 0)
            quire__side_release_source(book, source);
        quire__residency_release_one(book, first == 0 ? QUIRE__NONE : chain->nodes[first - 1], source);
    }
}
