/* evict_s3fifo.c: S3-FIFO (Yang et al., SOSP 2023) over a tree.
 *
 *    new block --> small, a tenth --not used again--> gone, its key is kept for a while: should it return, to main
 *                      |used again                     ^ not used since it last came round
 *                      +------------> main ------------+---used since: round again, one use less
 *
 * The queues are in order of arrival, whatever is used meanwhile. A walk from the old end passes over inner blocks that
 * were not used again, and moves on those that were, as it does with leaves; so a queue's heap (leaves.c) holds its leaves
 * and what was used again. Each step of a victim's search uses up a use of a block: O(log n) for each use, in the long run. After
 * MOST_STEPS in one call it takes, of the leaves that it has passed, the first of those that had the fewest uses left.
 *
 * A block that comes down from a tier above, where it was let go, has had its trial there: it enters with one use.
 */
#include "block/evict_s3fifo.h"

#include "base/status.h"
#include "block/leaves.h"

enum { SMALL, MAIN };
enum { MOST_USES = 3, MOST_STEPS = 512 };

typedef struct ghost {
    uint64_t key; /* 0: none */
    uint32_t chain; /* the first ghost of the chain of this number */
    uint32_t next;  /* in this one's own chain */
} ghost;

typedef struct s3fifo {
    quire__leaves leaves;
    ghost *ghosts; /* [ghost_count]: the last ones to go from small, in a ring; and a table by key */
    uint32_t ghost_count, ghost_at;
    const struct s3fifo *above; /* of the tier above, or NULL */
} s3fifo;

static quire_status s3fifo_open(void *state, const quire_policy_setup *setup)
{
    s3fifo *p = state;
    void *memory = NULL;
    QUIRE__TRY(quire__leaves_open(&p->leaves, setup));
    p->above = setup->above;
    p->ghost_count = setup->slots - setup->slots / 10;
    if (p->ghost_count == 0)
        return QUIRE_OK;
    QUIRE__TRY(quire__memory_take(&p->leaves.allocator, p->ghost_count, sizeof(ghost), "ghosts", &memory));
    p->ghosts = memory;
    for (uint32_t i = 0; i < p->ghost_count; i++)
        p->ghosts[i] = (ghost){0, QUIRE_NO_BLOCK, QUIRE_NO_BLOCK};
    return QUIRE_OK;
}

static void s3fifo_close(void *state)
{
    s3fifo *p = state;
    quire__memory_give(&p->leaves.allocator, p->ghosts);
    quire__leaves_close(&p->leaves);
}

/* Was it there? It is not any more. */
static bool recall(s3fifo *p, uint64_t key)
{
    ghost *ghosts = p->ghosts;
    uint32_t *link = &ghosts[key % p->ghost_count].chain;
    while (*link != QUIRE_NO_BLOCK && ghosts[*link].key != key)
        link = &ghosts[*link].next;
    if (*link == QUIRE_NO_BLOCK)
        return false;
    ghost *found = &ghosts[*link];
    *link = found->next;
    found->key = 0;
    return true;
}

static void remember(s3fifo *p, uint64_t key)
{
    ghost *own = &p->ghosts[p->ghost_at], *chain = &p->ghosts[key % p->ghost_count];
    (void)recall(p, key); /* one key, one ghost */
    if (own->key != 0)
        (void)recall(p, own->key);
    own->key = key;
    own->next = chain->chain;
    chain->chain = p->ghost_at;
    p->ghost_at = (p->ghost_at + 1) % p->ghost_count;
}

/* A block that was in the order before returns to the place that it had. */
static void enter(s3fifo *p, uint32_t parent, uint32_t block, uint64_t place)
{
    quire__leaf *own = &p->leaves.leaf[block];
    if (own->flags & QUIRE__LEAF_FOUND) {
        own->uses = own->uses < MOST_USES ? own->uses + 1 : MOST_USES;
        quire__leaves_enter(&p->leaves, block, own->queue, own->place);
        quire__leaves_offer(&p->leaves, block);
        return;
    }
    if (own->key == 0)
        own->key = quire__leaves_key(&p->leaves, parent, block);
    own->uses = p->above && p->above->leaves.leaf[block].flags & QUIRE__LEAF_FOUND;
    quire__leaves_enter(&p->leaves, block, recall(p, own->key) ? MAIN : SMALL, place);
}

static void s3fifo_insert(void *state, const uint32_t *path, uint32_t count, const quire_policy_use *use)
{
    s3fifo *p = state;
    (void)use;
    uint32_t parent = p->leaves.tree.parent(p->leaves.tree.self, path[0]);
    uint64_t place = quire__leaves_places(&p->leaves, count);
    for (uint32_t i = 0; i < count; parent = path[i], i++)
        enter(p, parent, path[i], place - i);
    quire__leaves_list(&p->leaves, path[count - 1]);
}

static void s3fifo_insert_below(void *state, uint32_t block, uint32_t above, const quire_policy_use *use)
{
    s3fifo *p = state;
    (void)use;
    if (p->leaves.leaf[above].uses == 0)
        quire__leaves_unlist(&p->leaves, above);
    enter(p, above, block, quire__leaves_places(&p->leaves, 1));
    quire__leaves_list(&p->leaves, block);
}

static void s3fifo_take(void *state, const uint32_t *path, uint32_t count, uint64_t now)
{
    s3fifo *p = state;
    (void)now;
    quire__leaves_take(&p->leaves, path, count);
}

static void s3fifo_drop(void *state, uint32_t block)
{
    s3fifo *p = state;
    const quire__leaf *own = &p->leaves.leaf[block];
    if (own->queue == SMALL)
        remember(p, own->key);
    quire__leaves_drop(&p->leaves, block);
}

static uint32_t s3fifo_victim(void *state)
{
    s3fifo *p = state;
    quire__leaves *leaves = &p->leaves;
    uint32_t block = QUIRE_NO_BLOCK, passed = QUIRE_NO_BLOCK;
    for (uint32_t steps = 0; leaves->filled && (steps < MOST_STEPS || passed == QUIRE_NO_BLOCK); steps++) {
        bool small = leaves->filled & 1 << SMALL &&
                     (leaves->members[SMALL] > leaves->slots / 10 || !(leaves->filled & 1 << MAIN));
        block = quire__leaves_oldest(leaves, small ? SMALL : MAIN);
        quire__leaf *own = &leaves->leaf[block];
        if (own->uses == 0)
            return block;
        own->uses = small ? 0 : own->uses - 1;
        quire__leaves_move(leaves, block, MAIN);
        const bool leaf = leaves->tree.children(leaves->tree.self, block) == 0;
        if (own->uses == 0 && !leaf)
            quire__leaves_unlist(leaves, block);
        if (leaf && (passed == QUIRE_NO_BLOCK || own->uses < p->leaves.leaf[passed].uses) &&
            !leaves->tree.busy(leaves->tree.self, block))
            passed = block;
    }
    return leaves->filled ? passed : QUIRE_NO_BLOCK;
}

/* What was used goes round again before it goes. */
static uint32_t s3fifo_coldest(void *state, uint32_t *blocks, uint32_t most, uint64_t now)
{
    const s3fifo *p = state;
    (void)now;
    uint32_t members = p->leaves.members[SMALL], tenth = p->leaves.slots / 10;
    uint32_t small = members > tenth ? members - tenth : 0;
    uint32_t count = quire__leaves_coldest(&p->leaves, SMALL, true, blocks, small < most ? small : most);
    return count + quire__leaves_coldest(&p->leaves, MAIN, true, blocks + count, most - count);
}

/* Used since it came, or soon after it had gone. */
static int s3fifo_worth_offload(void *state, uint32_t block, const quire_policy_use *use)
{
    const s3fifo *p = state;
    (void)use;
    return p->leaves.leaf[block].queue == MAIN || p->leaves.leaf[block].uses > 0;
}

static uint32_t s3fifo_count(const void *state)
{
    const s3fifo *p = state;
    return p->leaves.count;
}

static void s3fifo_each(const void *state, void (*fn)(void *arg, uint32_t block), void *arg)
{
    const s3fifo *p = state;
    quire__leaves_each(&p->leaves, fn, arg);
}

static void s3fifo_sealed(void *state, const uint32_t *path, uint32_t count)
{
    s3fifo *p = state;
    uint32_t parent = p->leaves.tree.parent(p->leaves.tree.self, path[0]);
    for (uint32_t i = 0; i < count; parent = path[i], i++)
        p->leaves.leaf[path[i]] = (quire__leaf){.key = quire__leaves_key(&p->leaves, parent, path[i])};
}

const quire_policy quire__evict_s3fifo = {
    .size = sizeof(quire_policy),
    .name = "s3fifo",
    .state_bytes = sizeof(s3fifo),
    .open = s3fifo_open,
    .close = s3fifo_close,
    .insert = s3fifo_insert,
    .insert_below = s3fifo_insert_below,
    .take = s3fifo_take,
    .drop = s3fifo_drop,
    .victim = s3fifo_victim,
    .count = s3fifo_count,
    .each = s3fifo_each,
    .sealed = s3fifo_sealed,
    .worth_offload = s3fifo_worth_offload,
    .coldest = s3fifo_coldest,
};
