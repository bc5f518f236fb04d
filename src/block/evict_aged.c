/* evict_aged.c: frequency with aging, LFU-DA (Arlitt et al., 1999), and the same weighed by cost, GDSF (Cherkasova, 1998),
 * over leaves.
 *
 * A block's priority is the level plus what it is worth; the level is the priority of the last victim, so whoever is not
 * used again is overtaken in the end. Worth is at most SPAN, so the priorities of all blocks lie in a window of 64 above
 * the level, and a ring of 64 queues with one word of bits holds them: everything is O(1).
 *
 *    lfu    worth = uses
 *    gdsf   worth = uses * (1 + log2(depth + 1) / 4): computing a block again costs more the more is before it; all blocks
 *           have the same size
 */
#include "block/evict_aged.h"

#include "block/leaves.h"

enum { RING = QUIRE__LEAVES_QUEUES, SPAN = RING - 1, MOST_USES = 60 };

typedef struct aged {
    quire__leaves leaves;
    uint32_t level;
    bool by_cost;
} aged;

static quire_status lfu_open(void *state, const quire_policy_setup *setup)
{
    aged *p = state;
    return quire__leaves_open(&p->leaves, setup);
}

static quire_status gdsf_open(void *state, const quire_policy_setup *setup)
{
    aged *p = state;
    p->by_cost = true;
    return quire__leaves_open(&p->leaves, setup);
}

static void aged_close(void *state)
{
    aged *p = state;
    quire__leaves_close(&p->leaves);
}

static uint32_t worth_of(const aged *p, const quire__leaf *leaf)
{
    uint32_t worth = leaf->uses;
    if (p->by_cost)
        worth += leaf->uses * (31 - (uint32_t)__builtin_clz(leaf->depth + 1)) / 4;
    return worth < SPAN ? worth : SPAN;
}

static void enter(aged *p, uint32_t parent, uint32_t block, uint64_t place)
{
    quire__leaf *own = &p->leaves.leaf[block];
    own->depth = parent == QUIRE_NO_BLOCK ? 0 : p->leaves.leaf[parent].depth + 1;
    own->uses = own->uses < MOST_USES ? own->uses + 1 : MOST_USES;
    own->priority = p->level + worth_of(p, own);
    quire__leaves_enter(&p->leaves, block, own->priority % RING, place);
}

/* Below the level a block would be at the wrong end of the ring: a parent that has become a leaf, and whoever was passed
 * over while a copy had it. */
static void aged_raise(aged *p, uint32_t block)
{
    quire__leaf *own = &p->leaves.leaf[block];
    if ((int32_t)(own->priority - p->level) >= 0)
        return;
    own->priority = p->level;
    quire__leaves_move(&p->leaves, block, p->level % RING);
}

static void aged_insert(void *state, const uint32_t *path, uint32_t count, const quire_policy_use *use)
{
    aged *p = state;
    (void)use;
    uint32_t parent = p->leaves.tree.parent(p->leaves.tree.self, path[0]);
    uint64_t place = quire__leaves_places(&p->leaves, count);
    for (uint32_t i = 0; i < count; parent = path[i], i++)
        enter(p, parent, path[i], place - i);
    quire__leaves_list(&p->leaves, path[count - 1]);
}

static void aged_insert_below(void *state, uint32_t block, uint32_t above, const quire_policy_use *use)
{
    aged *p = state;
    (void)use;
    quire__leaves_unlist(&p->leaves, above);
    enter(p, above, block, quire__leaves_places(&p->leaves, 1));
    quire__leaves_list(&p->leaves, block);
}

static void aged_take(void *state, const uint32_t *path, uint32_t count, uint64_t now)
{
    aged *p = state;
    (void)now;
    quire__leaves_take(&p->leaves, path, count);
}

static void aged_drop(void *state, uint32_t block)
{
    aged *p = state;
    uint32_t parent = p->leaves.tree.parent(p->leaves.tree.self, block);
    quire__leaves_drop(&p->leaves, block);
    if (parent != QUIRE_NO_BLOCK && p->leaves.leaf[parent].flags & QUIRE__LEAF_LISTED)
        aged_raise(p, parent);
}

/* The first filled queue of the ring, from the level's own on. */
static uint32_t aged_victim(void *state)
{
    aged *p = state;
    uint32_t from = p->level % RING;
    if (p->leaves.filled == 0)
        return QUIRE_NO_BLOCK;
    uint64_t turned = p->leaves.filled >> from | (from ? p->leaves.filled << (RING - from) : 0);
    uint32_t steps = (uint32_t)__builtin_ctzll(turned);
    p->level += steps;
    return quire__leaves_oldest(&p->leaves, p->level % RING);
}

static uint32_t aged_coldest(void *state, uint32_t *blocks, uint32_t most, uint64_t now)
{
    const aged *p = state;
    (void)now;
    uint32_t count = 0;
    for (uint32_t i = 0; i < RING && count < most; i++)
        count += quire__leaves_coldest(&p->leaves, (p->level + i) % RING, false, blocks + count, most - count);
    return count;
}

/* Used more than once; by cost: or far down in its prompt, where one use counts for two. */
static int aged_worth_offload(void *state, uint32_t block, const quire_policy_use *use)
{
    const aged *p = state;
    (void)use;
    return worth_of(p, &p->leaves.leaf[block]) >= 2;
}

static uint32_t aged_count(const void *state)
{
    const aged *p = state;
    return p->leaves.count;
}

static void aged_each(const void *state, void (*fn)(void *arg, uint32_t block), void *arg)
{
    const aged *p = state;
    quire__leaves_each(&p->leaves, fn, arg);
}

static void aged_sealed(void *state, const uint32_t *path, uint32_t count)
{
    aged *p = state;
    uint32_t parent = p->leaves.tree.parent(p->leaves.tree.self, path[0]);
    uint32_t depth = parent == QUIRE_NO_BLOCK ? 0 : p->leaves.leaf[parent].depth + 1;
    for (uint32_t i = 0; i < count; i++)
        p->leaves.leaf[path[i]] = (quire__leaf){.depth = depth + i};
}

const quire_policy quire__evict_lfu = {
    .size = sizeof(quire_policy),
    .name = "lfu",
    .state_bytes = sizeof(aged),
    .open = lfu_open,
    .close = aged_close,
    .insert = aged_insert,
    .insert_below = aged_insert_below,
    .take = aged_take,
    .drop = aged_drop,
    .victim = aged_victim,
    .count = aged_count,
    .each = aged_each,
    .sealed = aged_sealed,
    .worth_offload = aged_worth_offload,
    .coldest = aged_coldest,
};

const quire_policy quire__evict_gdsf = {
    .size = sizeof(quire_policy),
    .name = "gdsf",
    .state_bytes = sizeof(aged),
    .open = gdsf_open,
    .close = aged_close,
    .insert = aged_insert,
    .insert_below = aged_insert_below,
    .take = aged_take,
    .drop = aged_drop,
    .victim = aged_victim,
    .count = aged_count,
    .each = aged_each,
    .sealed = aged_sealed,
    .worth_offload = aged_worth_offload,
    .coldest = aged_coldest,
};
