/* leaves.c: every block of the order belongs to a queue and has a place in it, which its own use gave it. A queue's heap
 * holds exactly those of its blocks that have no child in the order, the least place first; so what a policy takes from
 * it is what a walk through the whole queue from its old end, past all inner blocks, would come to. A block becomes a
 * leaf when it is let go last of its path, or when its last child is dropped, and then is at the place that it has had all
 * the time; it stops being one when it is used, dropped, or gains a child.
 *
 * The heaps are leftist (Crane, 1972), linked through the blocks themselves: any block is added or removed in O(log n)
 * however many queues there are. The usual ones cost less: a parent follows its child with the least place of all, and so
 * becomes the top, and goes from there.
 */
#include "block/leaves.h"

#include <stddef.h>

#include "base/check.h"
#include "base/status.h"

enum { BUSY_TRIES = 8 };

quire_status quire__leaves_open(quire__leaves *leaves, const quire_policy_setup *setup)
{
    void *memory = NULL;
    leaves->allocator = (quire__allocator){setup->alloc, setup->free, setup->alloc_user};
    leaves->tree = setup->tree;
    leaves->slots = setup->slots;
    for (int queue = 0; queue < QUIRE__LEAVES_QUEUES; queue++)
        leaves->top[queue] = QUIRE_NO_BLOCK;
    if (setup->blocks == 0)
        return QUIRE_OK;
    QUIRE__TRY(quire__memory_take(&leaves->allocator, setup->blocks, sizeof(quire__leaf), "the eviction order",
                                  &memory));
    leaves->leaf = memory;
    return QUIRE_OK;
}

void quire__leaves_close(quire__leaves *leaves)
{
    quire__memory_give(&leaves->allocator, leaves->leaf);
}

uint64_t quire__policy_key(uint64_t above, uint32_t stamp)
{
    uint64_t value = above * UINT64_C(0x9e3779b97f4a7c15) + stamp + 1;
    value = (value ^ value >> 32) * UINT64_C(0xd6e8feb86659fd93);
    value = (value ^ value >> 32) * UINT64_C(0xd6e8feb86659fd93);
    value ^= value >> 32;
    return value ? value : 1;
}

uint64_t quire__leaves_key(quire__leaves *leaves, uint32_t parent, uint32_t block)
{
    uint64_t above = parent == QUIRE_NO_BLOCK ? 1 : leaves->leaf[parent].key;
    return quire__policy_key(above, leaves->tree.stamp(leaves->tree.self, block));
}

/* ---- a queue's leaves ------------------------------------------------------------------------------------------ */

static uint32_t rank_of(const quire__leaf *leaf, uint32_t block)
{
    return block == QUIRE_NO_BLOCK ? 0 : leaf[block].rank;
}

/* The side of the lower rank is the right one. False: the rank is what it was. */
static bool settle(quire__leaf *leaf, uint32_t block)
{
    quire__leaf *own = &leaf[block];
    if (rank_of(leaf, own->left) < rank_of(leaf, own->right)) {
        uint32_t left = own->left;
        own->left = own->right;
        own->right = left;
    }
    uint8_t rank = (uint8_t)(rank_of(leaf, own->right) + 1), before = own->rank;
    own->rank = rank;
    return rank != before;
}

/* Two heaps become one: their right sides, log n long, are merged on the way down and settled on the way up. */
static uint32_t merge(quire__leaf *leaf, uint32_t a, uint32_t b)
{
    uint32_t top = QUIRE_NO_BLOCK, last = QUIRE_NO_BLOCK;
    while (a != QUIRE_NO_BLOCK || b != QUIRE_NO_BLOCK) {
        if (a == QUIRE_NO_BLOCK || (b != QUIRE_NO_BLOCK && leaf[b].place < leaf[a].place)) {
            uint32_t other = a;
            a = b;
            b = other;
        }
        leaf[a].above = last;
        if (last == QUIRE_NO_BLOCK)
            top = a;
        else
            leaf[last].right = a;
        if (b == QUIRE_NO_BLOCK)
            break;
        last = a;
        a = leaf[a].right;
        leaf[last].right = QUIRE_NO_BLOCK;
    }
    for (; last != QUIRE_NO_BLOCK; last = leaf[last].above)
        (void)settle(leaf, last);
    return top;
}

static void add(quire__leaves *leaves, uint32_t block)
{
    quire__leaf *own = &leaves->leaf[block];
    QUIRE__ASSERT((own->flags & (QUIRE__LEAF_IN | QUIRE__LEAF_LISTED)) == QUIRE__LEAF_IN);
    own->flags |= QUIRE__LEAF_LISTED;
    own->above = own->left = own->right = QUIRE_NO_BLOCK;
    own->rank = 1;
    leaves->top[own->queue] = merge(leaves->leaf, leaves->top[own->queue], block);
    leaves->filled |= UINT64_C(1) << own->queue;
}

void quire__leaves_unlist(quire__leaves *leaves, uint32_t block)
{
    quire__leaf *leaf = leaves->leaf, *own = &leaf[block];
    if (!(own->flags & QUIRE__LEAF_LISTED))
        return;
    own->flags &= (uint8_t)~QUIRE__LEAF_LISTED;
    uint32_t rest = merge(leaf, own->left, own->right), above = own->above;
    if (rest != QUIRE_NO_BLOCK)
        leaf[rest].above = above;
    if (above == QUIRE_NO_BLOCK) {
        leaves->top[own->queue] = rest;
        if (rest == QUIRE_NO_BLOCK)
            leaves->filled &= ~(UINT64_C(1) << own->queue);
        return;
    }
    if (leaf[above].left == block)
        leaf[above].left = rest;
    else
        leaf[above].right = rest;
    while (above != QUIRE_NO_BLOCK && settle(leaf, above))
        above = leaf[above].above;
}

uint32_t quire__leaves_oldest(const quire__leaves *leaves, uint32_t queue)
{
    const quire__leaf *leaf = leaves->leaf;
    uint32_t top = leaves->top[queue], edge[BUSY_TRIES + 1] = {top}, count = top != QUIRE_NO_BLOCK;
    for (int tries = 0; count > 0 && tries < BUSY_TRIES; tries++) { /* what is next lies below what was passed over */
        uint32_t at = 0;
        for (uint32_t i = 1; i < count; i++)
            at = leaf[edge[i]].place < leaf[edge[at]].place ? i : at;
        uint32_t block = edge[at];
        if (!leaves->tree.busy(leaves->tree.self, block))
            return block;
        edge[at] = edge[--count];
        if (leaf[block].left != QUIRE_NO_BLOCK)
            edge[count++] = leaf[block].left;
        if (leaf[block].right != QUIRE_NO_BLOCK)
            edge[count++] = leaf[block].right;
    }
    return top;
}

/* ---- the coldest --------------------------------------------------------------------------------------------------
 *
 * Who comes next is the one with the least place of an edge: the top at first, and of whoever has been named what lies
 * below it in the queue's heap, and its parent, which would be a leaf then. The edge is a heap too (binary, of blocks by
 * place), and lies in the caller's array from its end on, since no more of it is of use than are still to be named. */

typedef struct edge {
    const quire__leaf *leaf;
    uint32_t *end; /* entry i is end[-i] */
    uint32_t count, most;
} edge;

static void edge_add(edge *e, uint32_t block)
{
    if (block == QUIRE_NO_BLOCK || e->count == e->most)
        return;
    uint32_t at = e->count++;
    for (; at > 0 && e->leaf[e->end[-(ptrdiff_t)((at - 1) / 2)]].place > e->leaf[block].place; at = (at - 1) / 2)
        e->end[-(ptrdiff_t)at] = e->end[-(ptrdiff_t)((at - 1) / 2)];
    e->end[-(ptrdiff_t)at] = block;
}

static uint32_t edge_take(edge *e)
{
    uint32_t least = *e->end, last = e->end[-(ptrdiff_t)--e->count], at = 0;
    for (uint32_t below = 1; below < e->count; below = 2 * at + 1) {
        if (below + 1 < e->count &&
            e->leaf[e->end[-(ptrdiff_t)(below + 1)]].place < e->leaf[e->end[-(ptrdiff_t)below]].place)
            below++;
        if (e->leaf[e->end[-(ptrdiff_t)below]].place >= e->leaf[last].place)
            break;
        e->end[-(ptrdiff_t)at] = e->end[-(ptrdiff_t)below];
        at = below;
    }
    e->end[-(ptrdiff_t)at] = last;
    return least;
}

/* The block's parent, if it is a leaf of the same queue once the block has gone. */
static uint32_t next_above(const quire__leaves *leaves, uint32_t block)
{
    uint32_t parent = leaves->tree.parent(leaves->tree.self, block);
    if (parent == QUIRE_NO_BLOCK || leaves->tree.children(leaves->tree.self, parent) != 1)
        return QUIRE_NO_BLOCK;
    const quire__leaf *above = &leaves->leaf[parent];
    bool waits = (above->flags & (QUIRE__LEAF_IN | QUIRE__LEAF_LISTED)) == QUIRE__LEAF_IN;
    return waits && above->queue == leaves->leaf[block].queue ? parent : QUIRE_NO_BLOCK;
}

uint32_t quire__leaves_coldest(const quire__leaves *leaves, uint32_t queue, bool unused, uint32_t *blocks, uint32_t most)
{
    const quire__leaf *leaf = leaves->leaf;
    uint32_t named = 0;
    if (most == 0)
        return 0;
    edge e = {.leaf = leaf, .end = blocks + most - 1, .most = most};
    edge_add(&e, leaves->top[queue]);
    while (e.count > 0) {
        uint32_t block = edge_take(&e);
        bool named_now = !unused || leaf[block].uses == 0;
        if (named_now) {
            blocks[named++] = block;
            e.most--;
        }
        if (leaf[block].flags & QUIRE__LEAF_LISTED) {
            edge_add(&e, leaf[block].left);
            edge_add(&e, leaf[block].right);
        }
        if (named_now)
            edge_add(&e, next_above(leaves, block));
    }
    return named;
}

/* ---- blocks ---------------------------------------------------------------------------------------------------- */

uint64_t quire__leaves_places(quire__leaves *leaves, uint32_t count)
{
    return leaves->places += count;
}

void quire__leaves_enter(quire__leaves *leaves, uint32_t block, uint32_t queue, uint64_t place)
{
    quire__leaf *own = &leaves->leaf[block];
    QUIRE__ASSERT(!(own->flags & QUIRE__LEAF_IN));
    own->flags = QUIRE__LEAF_IN | QUIRE__LEAF_FOUND;
    own->queue = (uint8_t)queue;
    own->place = place;
    leaves->members[queue]++;
    leaves->count++;
}

void quire__leaves_offer(quire__leaves *leaves, uint32_t block)
{
    if (!(leaves->leaf[block].flags & QUIRE__LEAF_LISTED))
        add(leaves, block);
}

void quire__leaves_list(quire__leaves *leaves, uint32_t block)
{
    if (leaves->tree.children(leaves->tree.self, block) == 0)
        quire__leaves_offer(leaves, block);
}

void quire__leaves_move(quire__leaves *leaves, uint32_t block, uint32_t queue)
{
    quire__leaf *own = &leaves->leaf[block];
    bool listed = own->flags & QUIRE__LEAF_LISTED;
    quire__leaves_unlist(leaves, block);
    leaves->members[own->queue]--;
    leaves->members[queue]++;
    own->queue = (uint8_t)queue;
    own->place = quire__leaves_places(leaves, 1);
    if (listed)
        add(leaves, block);
}

static void leave(quire__leaves *leaves, uint32_t block)
{
    quire__leaf *own = &leaves->leaf[block];
    QUIRE__ASSERT(own->flags & QUIRE__LEAF_IN);
    quire__leaves_unlist(leaves, block);
    leaves->members[own->queue]--;
    leaves->count--;
    own->flags = QUIRE__LEAF_FOUND;
}

void quire__leaves_take(quire__leaves *leaves, const uint32_t *path, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        leave(leaves, path[i]);
}

void quire__leaves_drop(quire__leaves *leaves, uint32_t block)
{
    uint32_t parent = leaves->tree.parent(leaves->tree.self, block);
    leave(leaves, block);
    leaves->leaf[block] = (quire__leaf){0};
    if (parent != QUIRE_NO_BLOCK &&
        (leaves->leaf[parent].flags & (QUIRE__LEAF_IN | QUIRE__LEAF_LISTED)) == QUIRE__LEAF_IN &&
        leaves->tree.children(leaves->tree.self, parent) == 1)
        add(leaves, parent);
}

void quire__leaves_each(const quire__leaves *leaves, void (*fn)(void *arg, uint32_t block), void *arg)
{
    uint32_t left = leaves->count;
    for (uint32_t block = 0; left > 0; block++) {
        if (leaves->leaf[block].flags & QUIRE__LEAF_IN) {
            left--;
            fn(arg, block);
        }
    }
}
