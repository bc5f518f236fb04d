/* evict_slru.c: segmented LRU (Karedla et al., 1994) over leaves. A block used for the first time is on probation; used
 * again, it is protected. The protected may be four fifths of the tier; what is too much goes back to probation, oldest
 * first, as the most recent there. The oldest on probation is the victim.
 */
#include "block/evict_slru.h"

#include "block/leaves.h"

enum { PROBATION, PROTECTED };

static quire_status slru_open(void *state, const quire_policy_setup *setup)
{
    return quire__leaves_open(state, setup);
}

static void slru_close(void *state)
{
    quire__leaves_close(state);
}

static void shrink(quire__leaves *leaves)
{
    while (leaves->members[PROTECTED] > (uint64_t)leaves->slots * 4 / 5 &&
           leaves->oldest[PROTECTED] != QUIRE_NO_BLOCK)
        quire__leaves_move(leaves, leaves->oldest[PROTECTED], PROBATION);
}

static void slru_insert(void *state, const uint32_t *path, uint32_t count, const quire_policy_use *use)
{
    quire__leaves *leaves = state;
    (void)use;
    for (uint32_t i = 0; i < count; i++)
        quire__leaves_enter(leaves, path[i], leaves->leaf[path[i]].flags & QUIRE__LEAF_FOUND ? PROTECTED : PROBATION);
    quire__leaves_list(leaves, path[count - 1]);
    shrink(leaves);
}

static void slru_insert_below(void *state, uint32_t block, uint32_t above, const quire_policy_use *use)
{
    quire__leaves *leaves = state;
    (void)use;
    quire__leaves_unlist(leaves, above);
    quire__leaves_enter(leaves, block, PROBATION);
    quire__leaves_list(leaves, block);
}

static void slru_take(void *state, const uint32_t *path, uint32_t count, uint64_t now)
{
    (void)now;
    quire__leaves_take(state, path, count);
}

static void slru_drop(void *state, uint32_t block)
{
    quire__leaves_drop(state, block);
}

static uint32_t slru_victim(void *state)
{
    quire__leaves *leaves = state;
    return quire__leaves_oldest(leaves, leaves->filled & 1 << PROBATION ? PROBATION : PROTECTED);
}

static uint32_t slru_count(const void *state)
{
    const quire__leaves *leaves = state;
    return leaves->count;
}

static void slru_each(const void *state, void (*fn)(void *arg, uint32_t block), void *arg)
{
    quire__leaves_each(state, fn, arg);
}

static void slru_sealed(void *state, const uint32_t *path, uint32_t count)
{
    quire__leaves *leaves = state;
    for (uint32_t i = 0; i < count; i++)
        leaves->leaf[path[i]] = (quire__leaf){0};
}

const quire_policy quire__evict_slru = {
    .size = sizeof(quire_policy),
    .name = "slru",
    .state_bytes = sizeof(quire__leaves),
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
};
