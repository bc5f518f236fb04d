/* leaves.c: the queues hold exactly the blocks of the order that have no child in it, so whatever a policy takes from a
 * queue is a leaf. A block becomes one when it is let go last of its path, or when its last child is dropped; it stops
 * being one when it is used, dropped, or gains a child. All of it is O(1).
 */
#include "block/leaves.h"

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
        leaves->oldest[queue] = leaves->newest[queue] = QUIRE_NO_BLOCK;
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

static void add(quire__leaves *leaves, uint32_t block, bool newest)
{
    quire__leaf *own = &leaves->leaf[block];
    uint32_t queue = own->queue, next = newest ? leaves->newest[queue] : leaves->oldest[queue];
    QUIRE__ASSERT((own->flags & (QUIRE__LEAF_IN | QUIRE__LEAF_LISTED)) == QUIRE__LEAF_IN);
    own->flags |= QUIRE__LEAF_LISTED;
    own->older = newest ? next : QUIRE_NO_BLOCK;
    own->newer = newest ? QUIRE_NO_BLOCK : next;
    if (next == QUIRE_NO_BLOCK) {
        leaves->oldest[queue] = leaves->newest[queue] = block;
        leaves->filled |= UINT64_C(1) << queue;
    } else if (newest) {
        leaves->leaf[next].newer = leaves->newest[queue] = block;
    } else {
        leaves->leaf[next].older = leaves->oldest[queue] = block;
    }
}

void quire__leaves_unlist(quire__leaves *leaves, uint32_t block)
{
    quire__leaf *own = &leaves->leaf[block];
    if (!(own->flags & QUIRE__LEAF_LISTED))
        return;
    own->flags &= (uint8_t)~QUIRE__LEAF_LISTED;
    if (own->older == QUIRE_NO_BLOCK)
        leaves->oldest[own->queue] = own->newer;
    else
        leaves->leaf[own->older].newer = own->newer;
    if (own->newer == QUIRE_NO_BLOCK)
        leaves->newest[own->queue] = own->older;
    else
        leaves->leaf[own->newer].older = own->older;
    if (leaves->oldest[own->queue] == QUIRE_NO_BLOCK)
        leaves->filled &= ~(UINT64_C(1) << own->queue);
}

void quire__leaves_enter(quire__leaves *leaves, uint32_t block, uint32_t queue)
{
    quire__leaf *own = &leaves->leaf[block];
    QUIRE__ASSERT(!(own->flags & QUIRE__LEAF_IN));
    own->flags = QUIRE__LEAF_IN | QUIRE__LEAF_FOUND;
    own->queue = (uint8_t)queue;
    leaves->members[queue]++;
    leaves->count++;
}

void quire__leaves_list(quire__leaves *leaves, uint32_t block)
{
    if (leaves->tree.children(leaves->tree.self, block) == 0)
        add(leaves, block, true);
}

void quire__leaves_move(quire__leaves *leaves, uint32_t block, uint32_t queue)
{
    quire__leaf *own = &leaves->leaf[block];
    bool listed = own->flags & QUIRE__LEAF_LISTED;
    quire__leaves_unlist(leaves, block);
    leaves->members[own->queue]--;
    leaves->members[queue]++;
    own->queue = (uint8_t)queue;
    if (listed)
        add(leaves, block, true);
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
        add(leaves, parent, false);
}

uint32_t quire__leaves_oldest(const quire__leaves *leaves, uint32_t queue)
{
    uint32_t first = leaves->oldest[queue], block = first;
    for (int tries = 0; block != QUIRE_NO_BLOCK && tries < BUSY_TRIES; tries++, block = leaves->leaf[block].newer) {
        if (!leaves->tree.busy(leaves->tree.self, block))
            return block;
    }
    return first;
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
