/* evict_priority.c: the engine's word decides, and LRU among equals.
 *
 *    level 0        expired (the domain's time to live), or no reuse is expected
 *    level 1..61    priority 0..100; blocks of which nothing was said have QUIRE_PRIORITY_DEFAULT
 *    level 63       pinned: no victim at all, as many blocks as the budget allows; others get level 61
 *
 * The leaf rule keeps what is above a pinned block too, so that counts against the budget as well: `holds` of a block is 1
 * if it is pinned, and 1 for each child that has holds.
 *
 * A level is a queue (leaves.c). A block with a duration or a time to live has a deadline and is in a heap by it, so time
 * costs O(log n) for such blocks and nothing for others. At its deadline it falls to the default, or, when its life is
 * over, to level 0. A block that is used again by a sequence that says nothing of it keeps what was said before, for as
 * long as that holds.
 */
#include "block/evict_priority.h"

#include <string.h>

#include "base/check.h"
#include "base/status.h"
#include "block/leaves.h"

enum { EXPIRED = 0, HIGHEST = 61, PINNED = 63 };

typedef struct term {
    uint64_t until; /* its level holds; 0: for good */
    uint64_t dies;  /* 0: never */
} term;

typedef struct priority {
    quire__pins pins;
    quire__leaves leaves;
    term *terms;
    uint32_t *heap; /* [slots]: blocks, the earliest deadline first; leaf.priority is 1 + the place, 0: not in it */
    uint32_t heaped, block_tokens;
    uint64_t now;
} priority;

static uint32_t level_of(int32_t value)
{
    if (value == QUIRE_PRIORITY_PIN)
        return PINNED;
    return 1 + (uint32_t)(value * (HIGHEST - 1) / 100);
}

/* ---- pins ---------------------------------------------------------------------------------------------------- */

static uint32_t above(const priority *p, uint32_t block)
{
    return p->leaves.tree.parent(p->leaves.tree.self, block);
}

/* Whether the budget has room for the block and for what is above it. */
static bool may_pin(const priority *p, uint32_t block)
{
    uint32_t held = p->pins.held;
    for (; block != QUIRE_NO_BLOCK && p->pins.holds[block] == 0 && held <= p->pins.most; block = above(p, block))
        held++;
    return held <= p->pins.most;
}

static void pin(priority *p, uint32_t block)
{
    for (; block != QUIRE_NO_BLOCK && p->pins.holds[block]++ == 0; block = above(p, block)) {
        p->pins.held++;
        p->pins.stuck += p->leaves.leaf[block].flags & QUIRE__LEAF_IN;
    }
}

static void unpin(priority *p, uint32_t block)
{
    for (; block != QUIRE_NO_BLOCK && --p->pins.holds[block] == 0; block = above(p, block)) {
        p->pins.held--;
        p->pins.stuck -= p->leaves.leaf[block].flags & QUIRE__LEAF_IN;
    }
}

/* It leaves the order; what is below it may stay, and be pinned. */
static void release(priority *p, uint32_t block)
{
    if (p->leaves.leaf[block].queue == PINNED)
        unpin(p, block);
    p->pins.stuck -= p->pins.holds[block] > 0;
}

/* ---- deadlines ----------------------------------------------------------------------------------------------- */

static uint64_t deadline(const priority *p, uint32_t block)
{
    uint64_t until = p->terms[block].until, dies = p->terms[block].dies;
    return until == 0 || (dies != 0 && dies < until) ? dies : until;
}

static void put(priority *p, uint32_t at, uint32_t block)
{
    p->heap[at] = block;
    p->leaves.leaf[block].priority = at + 1;
}

static void rise(priority *p, uint32_t at, uint32_t block)
{
    for (; at > 0 && deadline(p, p->heap[(at - 1) / 2]) > deadline(p, block); at = (at - 1) / 2)
        put(p, at, p->heap[(at - 1) / 2]);
    put(p, at, block);
}

static void sink(priority *p, uint32_t at, uint32_t block)
{
    for (uint32_t child = 2 * at + 1; child < p->heaped; child = 2 * at + 1) {
        if (child + 1 < p->heaped && deadline(p, p->heap[child + 1]) < deadline(p, p->heap[child]))
            child++;
        if (deadline(p, p->heap[child]) >= deadline(p, block))
            break;
        put(p, at, p->heap[child]);
        at = child;
    }
    put(p, at, block);
}

static void unheap(priority *p, uint32_t block)
{
    uint32_t at = p->leaves.leaf[block].priority;
    if (at-- == 0)
        return;
    p->leaves.leaf[block].priority = 0;
    uint32_t last = p->heap[--p->heaped];
    if (last == block)
        return;
    if (at > 0 && deadline(p, p->heap[(at - 1) / 2]) > deadline(p, last))
        rise(p, at, last);
    else
        sink(p, at, last);
}

static void enheap(priority *p, uint32_t block)
{
    if (deadline(p, block) != 0)
        rise(p, p->heaped++, block);
}

static void expire(priority *p)
{
    while (p->heaped > 0 && deadline(p, p->heap[0]) <= p->now) {
        uint32_t block = p->heap[0];
        term *own = &p->terms[block];
        unheap(p, block);
        bool dead = own->dies != 0 && own->dies <= p->now;
        own->until = 0;
        own->dies = dead ? 0 : own->dies;
        if (p->leaves.leaf[block].queue == PINNED)
            unpin(p, block);
        quire__leaves_move(&p->leaves, block, dead ? EXPIRED : level_of(QUIRE_PRIORITY_DEFAULT));
        enheap(p, block);
    }
}

/* ---- the policy ---------------------------------------------------------------------------------------------- */

static quire_status priority_open(void *state, const quire_policy_setup *setup)
{
    priority *p = state;
    void *memory = NULL;
    QUIRE__TRY(quire__leaves_open(&p->leaves, setup));
    p->block_tokens = setup->block_tokens;
    p->pins.most = setup->pin_blocks;
    if (setup->blocks == 0)
        return QUIRE_OK;
    QUIRE__TRY(quire__memory_take(&p->leaves.allocator, setup->blocks, sizeof(term), "deadlines", &memory));
    p->terms = memory;
    QUIRE__TRY(quire__memory_take(&p->leaves.allocator, setup->slots, sizeof(uint32_t), "deadlines", &memory));
    p->heap = memory;
    QUIRE__TRY(quire__memory_take(&p->leaves.allocator, setup->blocks, sizeof(uint32_t), "pins", &memory));
    p->pins.holds = memory;
    return QUIRE_OK;
}

static void priority_close(void *state)
{
    priority *p = state;
    quire__memory_give(&p->leaves.allocator, p->pins.holds);
    quire__memory_give(&p->leaves.allocator, p->heap);
    quire__memory_give(&p->leaves.allocator, p->terms);
    quire__leaves_close(&p->leaves);
}

/* The highest level that a range gives the block which begins at the token. 0: none does. */
static uint32_t said(const priority *p, const quire_policy_use *use, uint64_t token, uint64_t *until)
{
    uint32_t best = 0;
    for (uint32_t i = 0; i < use->range_count; i++) {
        const quire_hint_range *range = &use->ranges[i];
        uint64_t end = range->tokens ? (uint64_t)range->first_token + range->tokens : UINT64_MAX;
        if (token + p->block_tokens <= range->first_token || token >= end || level_of(range->priority) <= best)
            continue;
        best = level_of(range->priority);
        *until = range->duration_us ? use->now + range->duration_us : 0;
    }
    return best;
}

/* `*refused`: the budget had no room for a block above, so there is none for this one. */
static void enter(priority *p, uint32_t block, uint64_t token, uint64_t place, const quire_policy_use *use, bool *refused)
{
    const quire__leaf *own = &p->leaves.leaf[block];
    term *terms = &p->terms[block];
    uint64_t until = 0;
    uint32_t level = use->blocks ? said(p, use, token, &until) : 0;
    bool before = own->flags & QUIRE__LEAF_FOUND;
    if (before && terms->until > use->now && own->queue > level) { /* what was said before is not over */
        level = own->queue;
        until = terms->until;
    } else if (before && own->queue == PINNED && terms->until == 0 && level == 0) {
        level = PINNED;
    }
    if (level == 0 && use->next_use > use->now) { /* expected back: a little above the rest until then */
        level = level_of(QUIRE_PRIORITY_DEFAULT) + 1;
        until = use->next_use;
    }
    if (level == 0)
        level = use->hints & QUIRE_HINT_NO_REUSE && !before ? EXPIRED : level_of(QUIRE_PRIORITY_DEFAULT);
    if (level == PINNED && (*refused || !may_pin(p, block))) {
        *refused = true;
        level = HIGHEST;
    }
    *terms = (term){.until = until, .dies = use->ttl_us ? use->now + use->ttl_us : 0};
    quire__leaves_enter(&p->leaves, block, level, place);
    p->pins.stuck += p->pins.holds[block] > 0;
    if (level == PINNED)
        pin(p, block);
    enheap(p, block);
}

static void priority_insert(void *state, const uint32_t *path, uint32_t count, const quire_policy_use *use)
{
    priority *p = state;
    p->now = use->now;
    uint64_t before = use->blocks > count ? use->blocks - count : 0;
    uint64_t place = quire__leaves_places(&p->leaves, count);
    bool refused = false;
    for (uint32_t i = 0; i < count; i++)
        enter(p, path[i], (before + i) * p->block_tokens, place - i, use, &refused);
    quire__leaves_list(&p->leaves, path[count - 1]);
    expire(p);
}

static void priority_insert_below(void *state, uint32_t block, uint32_t parent, const quire_policy_use *use)
{
    priority *p = state;
    bool refused = false;
    p->now = use->now;
    quire__leaves_unlist(&p->leaves, parent);
    quire_policy_use nobody = {.now = use->now};
    enter(p, block, 0, quire__leaves_places(&p->leaves, 1), &nobody, &refused);
    quire__leaves_list(&p->leaves, block);
}

static void priority_take(void *state, const uint32_t *path, uint32_t count, uint64_t now)
{
    priority *p = state;
    p->now = now;
    for (uint32_t i = 0; i < count; i++) {
        unheap(p, path[i]);
        release(p, path[i]);
        quire__leaves_take(&p->leaves, &path[i], 1);
    }
}

static void priority_drop(void *state, uint32_t block)
{
    priority *p = state;
    unheap(p, block);
    release(p, block);
    p->terms[block] = (term){0};
    quire__leaves_drop(&p->leaves, block);
}

static uint32_t priority_victim(void *state)
{
    priority *p = state;
    expire(p);
    uint64_t filled = p->leaves.filled & ~(UINT64_C(1) << PINNED);
    return filled ? quire__leaves_oldest(&p->leaves, (uint32_t)__builtin_ctzll(filled)) : QUIRE_NO_BLOCK;
}

static uint32_t priority_coldest(void *state, uint32_t *blocks, uint32_t most, uint64_t now)
{
    priority *p = state;
    (void)now;
    uint32_t count = 0;
    for (uint32_t level = EXPIRED; level <= HIGHEST && count < most; level++)
        count += quire__leaves_coldest(&p->leaves, level, false, blocks + count, most - count);
    return count;
}

/* What the engine puts below the rest is not expected back. */
static int priority_worth_offload(void *state, uint32_t block, const quire_policy_use *use)
{
    const priority *p = state;
    (void)use;
    if (!(p->leaves.leaf[block].flags & QUIRE__LEAF_FOUND)) /* in use for the first time: nothing has been said yet */
        return 1;
    return p->leaves.leaf[block].queue >= level_of(QUIRE_PRIORITY_DEFAULT);
}

static uint32_t priority_kept(void *state, uint64_t now)
{
    priority *p = state;
    p->now = now > p->now ? now : p->now;
    expire(p);
    return p->pins.stuck;
}

static uint32_t priority_count(const void *state)
{
    const priority *p = state;
    return p->leaves.count;
}

static void priority_each(const void *state, void (*fn)(void *arg, uint32_t block), void *arg)
{
    const priority *p = state;
    quire__leaves_each(&p->leaves, fn, arg);
}

static void priority_sealed(void *state, const uint32_t *path, uint32_t count)
{
    priority *p = state;
    for (uint32_t i = 0; i < count; i++) {
        p->leaves.leaf[path[i]] = (quire__leaf){0};
        p->terms[path[i]] = (term){0};
    }
}

/* ---- the check ------------------------------------------------------------------------------------------------- */

static quire_status check_heap(const priority *p)
{
    for (uint32_t at = 0; at < p->heaped; at++) {
        uint32_t block = p->heap[at];
        const quire__leaf *leaf = &p->leaves.leaf[block];
        if (!(leaf->flags & QUIRE__LEAF_IN) || leaf->priority != at + 1 || deadline(p, block) == 0 ||
            (at > 0 && deadline(p, p->heap[(at - 1) / 2]) > deadline(p, block)))
            return quire__fail(QUIRE_ECORRUPT, "node %u is in the heap of deadlines wrongly, or out of order", block);
    }
    return QUIRE_OK;
}

quire_status quire__priority_check(const void *state, uint32_t blocks, uint32_t *scratch)
{
    const priority *p = state;
    uint32_t held = 0, stuck = 0;

    if (p->pins.holds == NULL)
        return QUIRE_OK;
    memset(scratch, 0, blocks * sizeof *scratch);
    for (uint32_t block = 0; block < blocks; block++)
        if (p->leaves.leaf[block].flags & QUIRE__LEAF_IN && p->leaves.leaf[block].queue == PINNED)
            for (uint32_t at = block; at != QUIRE_NO_BLOCK && scratch[at]++ == 0; at = above(p, at))
                continue;
    for (uint32_t block = 0; block < blocks; block++) {
        if (scratch[block] != p->pins.holds[block])
            return quire__fail(QUIRE_ECORRUPT, "node %u is pinned, or kept by pins below it, %u times, counted as %u", block,
                               scratch[block], p->pins.holds[block]);
        held += scratch[block] > 0;
        stuck += scratch[block] > 0 && p->leaves.leaf[block].flags & QUIRE__LEAF_IN;
    }
    if (held != p->pins.held || stuck != p->pins.stuck || held > p->pins.most)
        return quire__fail(QUIRE_ECORRUPT, "pins keep %u nodes, %u in the order, counted as %u and %u of %u", held, stuck,
                           p->pins.held, p->pins.stuck, p->pins.most);
    return check_heap(p);
}

const quire_policy quire__evict_priority = {
    .size = sizeof(quire_policy),
    .name = "priority",
    .state_bytes = sizeof(priority),
    .open = priority_open,
    .close = priority_close,
    .insert = priority_insert,
    .insert_below = priority_insert_below,
    .take = priority_take,
    .drop = priority_drop,
    .victim = priority_victim,
    .count = priority_count,
    .each = priority_each,
    .sealed = priority_sealed,
    .worth_offload = priority_worth_offload,
    .kept = priority_kept,
    .coldest = priority_coldest,
};
