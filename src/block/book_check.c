/* book_check.c: every invariant of the deciding half, verified by looking at everything, in this order: what counts
 * slots, what the tree is, what the eviction orders hold, what sequences hold. Each part relies on those before it, so
 * that a broken book is read within bounds. The numbers in the texts are nodes and slots.
 *
 * `scratch`, a number a node taken at open, is the only thing written.
 */
#include "block/book_check.h"

#include <string.h>

#include "base/check.h"
#include "base/status.h"
#include "block/chain.h"
#include "block/evict_lru.h"
#include "block/evict_priority.h"
#include "block/offload.h"
#include "block/side_check.h"

static const char *const tier_names[QUIRE__TIERS] = {"device", "host"};

static void clear_scratch(const quire__book *book)
{
    memset(book->scratch, 0, book->pool.node_count * sizeof(*book->scratch));
}

static bool is_sealed(const quire__book *book, uint32_t node)
{
    return node < book->pool.node_count && book->pool.nodes[node].kind == QUIRE__KIND_SEALED;
}

/* ---- slots and nodes ----------------------------------------------------------------------------------------- */

static quire_status check_slots(const quire__book *book, quire_tier tier)
{
    const quire__pool *pool = &book->pool;
    uint32_t unowned = 0, orphans = 0, missing = 0;
    for (uint32_t slot = 0; slot < pool->total[tier]; slot++) {
        uint32_t owner = pool->owner[tier][slot];
        unowned += quire__pool_unowned(owner);
        orphans += owner == QUIRE__ORPHAN;
        missing += owner == QUIRE__MISSING;
        if (owner < pool->node_count && pool->nodes[owner].slot[tier] != slot)
            return quire__fail(QUIRE_ECORRUPT, "%s slot %u belongs to node %u, which has slot %u", tier_names[tier],
                               slot, owner, pool->nodes[owner].slot[tier]);
        if (owner >= pool->node_count && owner < QUIRE__MISSING && !quire__pool_unowned(owner))
            return quire__fail(QUIRE_ECORRUPT, "%s slot %u belongs to node %u of %u", tier_names[tier], slot, owner,
                               pool->node_count);
    }
    if (unowned != pool->free_count[tier] || orphans != pool->orphans[tier])
        return quire__fail(QUIRE_ECORRUPT, "%s slots: %u free and %u orphans, counted as %u and %u", tier_names[tier],
                           unowned, orphans, pool->free_count[tier], pool->orphans[tier]);
    if (missing != pool->missing[tier])
        return quire__fail(QUIRE_ECORRUPT, "%s slots: %u have no memory, counted as %u", tier_names[tier], missing,
                           pool->missing[tier]);

    clear_scratch(book);
    uint32_t slot = pool->free_top[tier], listed = 0;
    for (; slot != QUIRE__NONE; slot = quire__pool_below(pool->owner[tier][slot]), listed++)
        if (slot >= pool->total[tier] || !quire__pool_unowned(pool->owner[tier][slot]) || book->scratch[slot]++)
            return quire__fail(QUIRE_ECORRUPT, "%s slot %u is in the free stack and not free, or twice",
                               tier_names[tier], slot);
    if (listed != pool->free_count[tier])
        return quire__fail(QUIRE_ECORRUPT, "%u %s slots are in the free stack of %u", listed, tier_names[tier],
                           pool->free_count[tier]);
    return QUIRE_OK;
}

static quire_status check_node_slots(const quire__book *book, uint32_t node, uint32_t counted[][QUIRE__STANDINGS])
{
    const quire__pool *pool = &book->pool;
    const quire__node *record = &pool->nodes[node];
    for (int tier = 0; tier < QUIRE__TIERS; tier++) {
        uint32_t slot = record->slot[tier];
        bool there = slot != QUIRE__NONE;
        if (there && (slot >= pool->total[tier] || pool->owner[tier][slot] != node))
            return quire__fail(QUIRE_ECORRUPT, "node %u has %s slot %u, which is not its own", node, tier_names[tier],
                               slot);
        if (there != (record->state[tier] != QUIRE__ABSENT))
            return quire__fail(QUIRE_ECORRUPT, "node %u: %s slot %u in state %u", node, tier_names[tier], slot,
                               record->state[tier]);
        quire__standing standing = quire__pool_standing(record, (quire_tier)tier);
        if (record->standing[tier] != standing)
            return quire__fail(QUIRE_ECORRUPT, "node %u: counted as %u in the %s tier, stands as %u", node,
                               record->standing[tier], tier_names[tier], standing);
        counted[tier][standing]++;
    }
    return QUIRE_OK;
}

static quire_status check_node(const quire__book *book, uint32_t node)
{
    const quire__node *record = &book->pool.nodes[node];
    bool on_device = record->slot[QUIRE_TIER_DEVICE] != QUIRE__NONE;
    bool on_host = record->slot[QUIRE_TIER_HOST] != QUIRE__NONE;
    if (((record->reads & QUIRE__READS_DEVICE) && !on_device) || ((record->reads & QUIRE__READS_HOST) && !on_host))
        return quire__fail(QUIRE_ECORRUPT, "node %u: a move reads a slot that it does not have", node);
    switch (record->kind) {
    case QUIRE__KIND_FREE:
        return on_device || on_host ? quire__fail(QUIRE_ECORRUPT, "free node %u has a slot", node) : QUIRE_OK;
    case QUIRE__KIND_OPEN:
    case QUIRE__KIND_DEAD:
        if (!on_device || on_host || record->refs == 0)
            return quire__fail(QUIRE_ECORRUPT, "open or dead node %u: device slot %u, host slot %u, %u references",
                               node, record->slot[QUIRE_TIER_DEVICE], record->slot[QUIRE_TIER_HOST], record->refs);
        return QUIRE_OK;
    case QUIRE__KIND_SEALED:
        if (!on_device && (!on_host || record->refs > 0))
            return quire__fail(QUIRE_ECORRUPT, "sealed node %u: nowhere, or held without a device slot", node);
        return QUIRE_OK;
    default:
        return quire__fail(QUIRE_ECORRUPT, "node %u is of kind %u", node, record->kind);
    }
}

static quire_status check_pool(const quire__book *book)
{
    const quire__pool *pool = &book->pool;
    uint32_t counted[QUIRE__TIERS][QUIRE__STANDINGS] = {{0}};
    uint32_t unused = 0, listed = 0;
    QUIRE__TRY(check_slots(book, QUIRE_TIER_DEVICE));
    QUIRE__TRY(check_slots(book, QUIRE_TIER_HOST));
    for (uint32_t node = 0; node < pool->node_count; node++) {
        QUIRE__TRY(check_node_slots(book, node, counted));
        QUIRE__TRY(check_node(book, node));
        unused += pool->nodes[node].kind == QUIRE__KIND_FREE;
    }
    if (memcmp(counted, pool->standing, sizeof(counted)) != 0 || !quire__pool_balanced(pool))
        return quire__fail(QUIRE_ECORRUPT, "free + open + used + cached + moving is not the total, or miscounted");
    for (uint32_t node = pool->free_node; node != QUIRE__NONE; node = pool->nodes[node].child) {
        if (node >= pool->node_count || pool->nodes[node].kind != QUIRE__KIND_FREE || listed++ == unused)
            return quire__fail(QUIRE_ECORRUPT, "node %u is in the list of free nodes and not free, or twice", node);
    }
    if (listed != unused)
        return quire__fail(QUIRE_ECORRUPT, "%u nodes are free, %u are listed", unused, listed);
    return QUIRE_OK;
}

/* ---- the tree ------------------------------------------------------------------------------------------------ */

static quire_status check_family(const quire__book *book, uint32_t node)
{
    const quire__node *nodes = book->pool.nodes, *record = &nodes[node];
    const quire__kin *kin = book->pool.kin, *own = &kin[node];
    uint32_t children[QUIRE__TIERS] = {0}, newer = QUIRE__NONE, seen = 0;
    for (uint32_t child = record->child; child != QUIRE__NONE; child = kin[child].older) {
        if (!is_sealed(book, child) || kin[child].parent != node || kin[child].newer != newer ||
            kin[child].depth != own->depth + 1 || kin[child].domain != own->domain ||
            seen++ > book->pool.node_count)
            return quire__fail(QUIRE_ECORRUPT, "node %u is not a proper child of node %u", child, node);
        for (int tier = 0; tier < QUIRE__TIERS; tier++)
            children[tier] += nodes[child].slot[tier] != QUIRE__NONE;
        newer = child;
    }
    for (int tier = 0; tier < QUIRE__TIERS; tier++) {
        if (children[tier] != own->children[tier])
            return quire__fail(QUIRE_ECORRUPT, "node %u has %u children on the %s, counted as %u", node,
                               children[tier], tier_names[tier], own->children[tier]);
        if (children[tier] > 0 && record->slot[tier] == QUIRE__NONE)
            return quire__fail(QUIRE_ECORRUPT, "node %u is not on the %s, its children are", node, tier_names[tier]);
    }
    return QUIRE_OK;
}

static quire_status check_sealed(const quire__book *book, uint32_t node)
{
    const quire__prefix *prefix = &book->prefix;
    const quire__kin *kin = &book->pool.kin[node];
    if (kin->domain >= prefix->max_domains || (kin->parent != QUIRE__NONE && !is_sealed(book, kin->parent)))
        return quire__fail(QUIRE_ECORRUPT, "node %u: domain %u, parent %u", node, kin->domain, kin->parent);
    QUIRE__TRY(check_family(book, node));
    const int32_t *tokens = quire__pool_tokens(&book->pool, node);
    if (quire__prefix_stamp(prefix, node) != kin->stamp)
        return quire__fail(QUIRE_ECORRUPT, "node %u is sealed, and its tokens have changed", node);
    if (quire__prefix_child(prefix, kin->domain, kin->parent, tokens) != node)
        return quire__fail(QUIRE_ECORRUPT, "node %u is not found by its tokens, or has a twin", node);
    return QUIRE_OK;
}

static quire_status check_domain(const quire__book *book, uint32_t domain, uint32_t *roots)
{
    const quire__domain *record = &book->prefix.domains[domain];
    const quire__kin *kin = book->pool.kin;
    uint32_t newer = QUIRE__NONE, seen = 0, sequences = 0;
    for (uint32_t root = record->child; root != QUIRE__NONE; root = kin[root].older) {
        if (!is_sealed(book, root) || kin[root].parent != QUIRE__NONE || kin[root].domain != domain ||
            kin[root].newer != newer || kin[root].depth != 0 || seen++ > book->pool.node_count)
            return quire__fail(QUIRE_ECORRUPT, "node %u is not a proper root of domain %u", root, domain);
        newer = root;
    }
    for (uint32_t seq = 0; seq < book->config.max_sequences; seq++)
        sequences += book->chains[seq].open && book->chains[seq].domain == domain;
    if (seen != record->roots || sequences != record->sequences)
        return quire__fail(QUIRE_ECORRUPT, "domain %u has %u roots and %u sequences, counted as %u and %u", domain,
                           seen, sequences, record->roots, record->sequences);
    if (quire__prefix_domain_find(&book->prefix, record->value) != domain)
        return quire__fail(QUIRE_ECORRUPT, "domain %u is not where its hash leads", domain);
    *roots += seen;
    return QUIRE_OK;
}

static quire_status check_tree(const quire__book *book)
{
    const quire__prefix *prefix = &book->prefix;
    uint32_t domains = 0, idle = 0, listed = 0, linked_roots = 0, roots = 0, hashed = 0;
    for (uint32_t node = 0; node < book->pool.node_count; node++) {
        if (book->pool.nodes[node].kind != QUIRE__KIND_SEALED)
            continue;
        QUIRE__TRY(check_sealed(book, node));
        roots += book->pool.kin[node].parent == QUIRE__NONE;
        hashed += book->pool.kin[node].newer != QUIRE__NONE;
    }
    if (!quire__prefix_table_right(prefix, hashed))
        return quire__fail(QUIRE_ECORRUPT, "%u nodes have a newer sibling, and others, or not all, are in the table",
                           hashed);
    for (uint32_t i = 0; i <= prefix->domain_mask; i++) {
        uint32_t domain = prefix->domain_buckets[i];
        for (; domain != QUIRE__NONE; domain = prefix->domains[domain].chain) {
            if (domain >= prefix->max_domains || domains++ == prefix->max_domains)
                return quire__fail(QUIRE_ECORRUPT, "domain %u in the table, of %u", domain, prefix->max_domains);
            QUIRE__TRY(check_domain(book, domain, &linked_roots));
            idle += prefix->domains[domain].sequences == 0;
        }
    }
    uint32_t at = prefix->domains[prefix->max_domains].idle_newer;
    for (; at != prefix->max_domains && listed <= idle; at = prefix->domains[at].idle_newer)
        listed += prefix->domains[at].sequences == 0 && prefix->domains[at].roots > 0;
    if (domains != prefix->domain_count || listed != idle)
        return quire__fail(QUIRE_ECORRUPT, "%u domains, %u of them idle, counted as %u and %u", domains, idle,
                           prefix->domain_count, listed);
    /* Depths rise by one from parent to child, so there is no ring: what has a parent hangs below a root. */
    if (roots != linked_roots)
        return quire__fail(QUIRE_ECORRUPT, "%u nodes begin prompts, domains have %u", roots, linked_roots);
    return QUIRE_OK;
}

/* ---- the eviction orders ------------------------------------------------------------------------------------- */

typedef struct order_check {
    const quire__book *book;
    quire_tier tier;
    bool sorted; /* the policy lists who goes first, first */
    uint32_t position;
    uint32_t wrong; /* the first node that does not belong, or comes after its parent */
} order_check;

static bool belongs(const quire__node *record, quire_tier tier)
{
    if (record->kind != QUIRE__KIND_SEALED || record->slot[tier] == QUIRE__NONE)
        return false;
    return tier == QUIRE_TIER_HOST || record->refs == 0;
}

static void check_listed(void *arg, uint32_t node)
{
    order_check *order = arg;
    const quire__node *nodes = order->book->pool.nodes;
    uint32_t *position = order->book->scratch;
    uint32_t parent = order->book->pool.kin[node].parent;
    bool fine = belongs(&nodes[node], order->tier) && position[node] == 0 &&
                (!order->sorted || parent == QUIRE__NONE || position[parent] == 0);
    if (!fine && order->wrong == QUIRE__NONE)
        order->wrong = node;
    position[node] = ++order->position;
}

static quire_status check_order(const quire__book *book, quire_tier tier)
{
    bool sorted = book->evict[tier].policy == &quire__evict_lru;
    order_check order = {.book = book, .tier = tier, .sorted = sorted, .wrong = QUIRE__NONE};
    uint32_t expected = 0;
    clear_scratch(book);
    for (uint32_t node = 0; node < book->pool.node_count; node++)
        expected += belongs(&book->pool.nodes[node], tier);
    quire__evict_each(&book->evict[tier], check_listed, &order);
    if (order.wrong != QUIRE__NONE)
        return quire__fail(QUIRE_ECORRUPT, "node %u is in the %s eviction order wrongly, twice, or after its parent",
                           order.wrong, tier_names[tier]);
    if (order.position != expected || quire__evict_count(&book->evict[tier]) != expected)
        return quire__fail(QUIRE_ECORRUPT, "%u nodes belong into the %s eviction order, it has %u", expected,
                           tier_names[tier], order.position);
    if (book->evict[tier].policy == &quire__evict_priority)
        QUIRE__TRY(quire__priority_check(book->evict[tier].state, book->pool.node_count, book->scratch));
    if (!sorted)
        return QUIRE_OK; /* asking such a policy may move blocks on: a check would change what is decided */
    quire__evict order_of_tier = book->evict[tier];
    uint32_t victim = quire__evict_victim(&order_of_tier);
    if (victim != QUIRE__NONE && book->pool.kin[victim].children[tier] > 0)
        return quire__fail(QUIRE_ECORRUPT, "node %u would be evicted from the %s before its children", victim,
                           tier_names[tier]);
    return QUIRE_OK;
}

/* ---- sequences ----------------------------------------------------------------------------------------------- */

#define SEEN (UINT32_C(1) << 31) /* of a scratch entry: some sequence has the node */

/* The first sequence that is seen to have a node counts it as a child of the one before. */
static void count_reference(const quire__book *book, const quire__chain *chain, uint32_t at, uint32_t node)
{
    if (!(book->scratch[node] & SEEN) && at > 0)
        book->scratch[chain->nodes[at - 1]]++;
    book->scratch[node] |= SEEN;
}

static quire_status check_entry(const quire__book *book, const quire__chain *chain, uint32_t seq, uint32_t at)
{
    uint32_t node = chain->nodes[at];
    if (node >= book->pool.node_count || book->pool.nodes[node].kind == QUIRE__KIND_FREE)
        return quire__fail(QUIRE_ECORRUPT, "sequence %u: block %u is node %u", seq, at, node);
    const quire__node *record = &book->pool.nodes[node];
    uint32_t whole = chain->length / book->config.block_tokens;
    if (record->kind == QUIRE__KIND_SEALED) {
        uint32_t parent = at == 0 ? QUIRE__NONE : chain->nodes[at - 1];
        const quire__kin *kin = &book->pool.kin[node];
        if (kin->parent != parent || kin->domain != chain->domain || kin->depth != at)
            return quire__fail(QUIRE_ECORRUPT, "sequence %u: block %u, node %u, does not continue the one before", seq,
                               at, node);
    }
    if (record->kind == QUIRE__KIND_OPEN && at < whole)
        return quire__fail(QUIRE_ECORRUPT, "sequence %u: block %u is full and open", seq, at);
    if (at < chain->ready && (record->kind == QUIRE__KIND_DEAD ||
                              record->state[QUIRE_TIER_DEVICE] != QUIRE__RESIDENT))
        return quire__fail(QUIRE_ECORRUPT, "sequence %u: block %u is called ready, and is not resident", seq, at);
    bool misplaced = chain->table[at] != (int32_t)record->slot[QUIRE_TIER_DEVICE];
    if (at < chain->ready && misplaced && !(book->holes & QUIRE__BOOK_HOLE_COPY_ON_WRITE))
        return quire__fail(QUIRE_ECORRUPT, "sequence %u: table entry %u is %d, the slot is %u", seq, at,
                           chain->table[at], record->slot[QUIRE_TIER_DEVICE]);
    count_reference(book, chain, at, node);
    return QUIRE_OK;
}

static quire_status check_chain(const quire__book *book, uint32_t seq)
{
    const quire__chain *chain = &book->chains[seq];
    uint64_t tokens = (uint64_t)chain->length + chain->pending;
    if (chain->blocks > book->max_blocks || chain->blocks != quire__chain_blocks_of(book, tokens) ||
        chain->matched > chain->length || chain->ready > chain->blocks || chain->kept > book->max_blocks)
        return quire__fail(QUIRE_ECORRUPT, "sequence %u: %u blocks for %u + %u tokens, %u ready", seq, chain->blocks,
                           chain->length, chain->pending, chain->ready);
    for (uint32_t at = 0; at < chain->blocks; at++)
        QUIRE__TRY(check_entry(book, chain, seq, at));
    if (chain->blocks > 0)
        book->scratch[chain->nodes[chain->blocks - 1]]++;
    if (chain->source == QUIRE__NONE)
        return QUIRE_OK;
    if (chain->pending == 0 || chain->source >= book->pool.node_count || chain->kept == 0)
        return quire__fail(QUIRE_ECORRUPT, "sequence %u: node %u is the source of a copy, in no step", seq,
                           chain->source);
    count_reference(book, chain, chain->kept - 1, chain->source);
    book->scratch[chain->source]++;
    return QUIRE_OK;
}

static quire_status check_chains(const quire__book *book)
{
    uint32_t open = 0, holders = 0;
    clear_scratch(book);
    for (uint32_t seq = 0; seq < book->config.max_sequences; seq++) {
        if (!book->chains[seq].open)
            continue;
        QUIRE__TRY(check_chain(book, seq));
        open++;
        holders += book->chains[seq].blocks > 0;
    }
    if (open + book->free_chain_count != book->config.max_sequences || holders != book->holders)
        return quire__fail(QUIRE_ECORRUPT, "%u sequences, %u with blocks, counted as %u and %u", open, holders,
                           book->config.max_sequences - book->free_chain_count, book->holders);
    for (uint32_t node = 0; node < book->pool.node_count; node++) {
        const quire__node *record = &book->pool.nodes[node];
        uint32_t references = book->scratch[node] & ~SEEN;
        if (record->kind != QUIRE__KIND_FREE && record->refs != references)
            return quire__fail(QUIRE_ECORRUPT, "node %u has %u references, counted as %u", node, references,
                               record->refs);
    }
    return QUIRE_OK;
}

quire_status quire__book_check(const quire__book *book)
{
    QUIRE__TRY(check_pool(book));
    QUIRE__TRY(check_tree(book));
    QUIRE__TRY(check_order(book, QUIRE_TIER_DEVICE));
    QUIRE__TRY(check_order(book, QUIRE_TIER_HOST));
    QUIRE__TRY(check_chains(book));
    QUIRE__TRY(quire__side_check(book));
    QUIRE__TRY(quire__offload_check(book));
    if (book->events.next - book->events.read > book->events.capacity)
        return quire__fail(QUIRE_ECORRUPT, "%llu events in a ring of %u",
                           (unsigned long long)(book->events.next - book->events.read), book->events.capacity);
    return QUIRE_OK;
}

#ifdef QUIRE_DEBUG
/* A full check reads everything: affordable after each mutation where everything is little. */
enum { SMALL_BOOK = 64 };

void quire__book_check_quick(const quire__book *book)
{
    QUIRE__ASSERT(quire__pool_balanced(&book->pool));
    if (book->pool.node_count <= SMALL_BOOK && !book->holes)
        QUIRE__ASSERT(quire__book_check(book) == QUIRE_OK);
}
#endif
