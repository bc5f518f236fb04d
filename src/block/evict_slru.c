/* evict_slru.c: segmented LRU (Karedla et al., 1994). A block used for the first time is on probation; used again, it is
 * protected. The protected may be four fifths of the tier; what is too much goes back to probation, oldest first, as the
 * most recent there, whether anything is below it or not. The oldest on probation that nothing is below is the victim.
 */
#include "block/evict_slru.h"

#include "base/status.h"
#include "block/leaves.h"

enum { PROBATION, PROTECTED };

typedef struct link {
    uint32_t older, newer;
} link;

typedef struct slru {
    quire__leaves leaves;
    link *links; /* [blocks + 1]: the protected, in the order of their use; the last is the head, as in evict_lru.c */
    uint32_t head;
} slru;

static quire_status slru_open(void *state, const quire_policy_setup *setup)
{
    slru *p = state;
    void *memory = NULL;
    QUIRE__TRY(quire__leaves_open(&p->leaves, setup));
    QUIRE__TRY(quire__memory_take(&p->leaves.allocator, (size_t)setup->blocks + 1, sizeof(link), "the protected",
                                  &memory));
    p->links = memory;
    p->head = setup->blocks;
    p->links[p->head] = (link){p->head, p->head};
    return QUIRE_OK;
}

static void slru_close(void *state)
{
    slru *p = state;
    quire__memory_give(&p->leaves.allocator, p->links);
    quire__leaves_close(&p->leaves);
}

static void unlink_protected(slru *p, uint32_t block)
{
    const quire__leaf *own = &p->leaves.leaf[block];
    if (!(own->flags & QUIRE__LEAF_IN) || own->queue != PROTECTED)
        return;
    link *links = p->links, gone = links[block];
    links[gone.older].newer = gone.newer;
    links[gone.newer].older = gone.older;
}

static void enter(slru *p, uint32_t block, uint64_t place)
{
    bool again = p->leaves.leaf[block].flags & QUIRE__LEAF_FOUND;
    quire__leaves_enter(&p->leaves, block, again ? PROTECTED : PROBATION, place);
    if (!again)
        return;
    link *links = p->links;
    uint32_t newest = links[p->head].older;
    links[block] = (link){.older = newest, .newer = p->head};
    links[newest].newer = links[p->head].older = block;
}

static void shrink(slru *p)
{
    while (p->leaves.members[PROTECTED] > (uint64_t)p->leaves.slots * 4 / 5) {
        uint32_t oldest = p->links[p->head].newer;
        unlink_protected(p, oldest);
        quire__leaves_move(&p->leaves, oldest, PROBATION);
    }
}

static void slru_insert(void *state, const uint32_t *path, uint32_t count, const quire_policy_use *use)
{
    slru *p = state;
    (void)use;
    uint64_t place = quire__leaves_places(&p->leaves, count);
    for (uint32_t i = count; i-- > 0;)
        enter(p, path[i], place - i);
    quire__leaves_list(&p->leaves, path[count - 1]);
    shrink(p);
}

static void slru_insert_below(void *state, uint32_t block, uint32_t above, const quire_policy_use *use)
{
    slru *p = state;
    (void)use;
    quire__leaves_unlist(&p->leaves, above);
    quire__leaves_enter(&p->leaves, block, PROBATION, quire__leaves_places(&p->leaves, 1));
    quire__leaves_list(&p->leaves, block);
}

static void slru_take(void *state, const uint32_t *path, uint32_t count, uint64_t now)
{
    slru *p = state;
    (void)now;
    for (uint32_t i = 0; i < count; i++)
        unlink_protected(p, path[i]);
    quire__leaves_take(&p->leaves, path, count);
}

static void slru_drop(void *state, uint32_t block)
{
    slru *p = state;
    unlink_protected(p, block);
    quire__leaves_drop(&p->leaves, block);
}

static uint32_t slru_victim(void *state)
{
    slru *p = state;
    return quire__leaves_oldest(&p->leaves, p->leaves.filled & 1 << PROBATION ? PROBATION : PROTECTED);
}

static uint32_t slru_coldest(void *state, uint32_t *blocks, uint32_t most, uint64_t now)
{
    const slru *p = state;
    (void)now;
    uint32_t count = quire__leaves_coldest(&p->leaves, PROBATION, false, blocks, most);
    return count + quire__leaves_coldest(&p->leaves, PROTECTED, false, blocks + count, most - count);
}

static uint32_t slru_count(const void *state)
{
    const slru *p = state;
    return p->leaves.count;
}

static void slru_each(const void *state, void (*fn)(void *arg, uint32_t block), void *arg)
{
    const slru *p = state;
    quire__leaves_each(&p->leaves, fn, arg);
}

static void slru_sealed(void *state, const uint32_t *path, uint32_t count)
{
    slru *p = state;
    for (uint32_t i = 0; i < count; i++)
        p->leaves.leaf[path[i]] = (quire__leaf){0};
}

const quire_policy quire__evict_slru = {
    .size = sizeof(quire_policy),
    .name = "slru",
    .state_bytes = sizeof(slru),
    .open = slru_open,
    .close = slru_close,
    .insert = slru_insert,
    .insert_below = slru_insert_below,
    .take = slru_take,
    .drop = slru_drop,
    .victim = slru_victim,
    .count = slru_count,
    .each = slru_each,
    .sealed = slru_sealed,
    .coldest = slru_coldest,
};
