/* evict_s3fifo.c: S3-FIFO (Yang et al., SOSP 2023) over leaves.
 *
 *    new block --> small, a tenth --not used again--> gone, its key is kept for a while: should it return, to main
 *                      |used again                     ^ not used since it last came round
 *                      +------------> main ------------+---used since: round again, one use less
 *
 * A block that a sequence uses is out of the queues and returns to the recent end of its own; otherwise the queues are in
 * order of arrival.
 */
#include "block/evict_s3fifo.h"

#include "base/status.h"
#include "block/leaves.h"

enum { SMALL, MAIN };
enum { MOST_USES = 3, MOST_ROUNDS = 64 };

typedef struct s3fifo {
    quire__leaves leaves;
    uint64_t *ghosts; /* [ghost_count]: keys, a later one in the place of an earlier one */
    uint32_t ghost_count;
} s3fifo;

static quire_status s3fifo_open(void *state, const quire_policy_setup *setup)
{
    s3fifo *p = state;
    void *memory = NULL;
    QUIRE__TRY(quire__leaves_open(&p->leaves, setup));
    p->ghost_count = setup->slots > 0 ? setup->slots : 1;
    QUIRE__TRY(quire__memory_take(&p->leaves.allocator, p->ghost_count, sizeof(uint64_t), "ghosts", &memory));
    p->ghosts = memory;
    return QUIRE_OK;
}

static void s3fifo_close(void *state)
{
    s3fifo *p = state;
    quire__memory_give(&p->leaves.allocator, p->ghosts);
    quire__leaves_close(&p->leaves);
}

static uint32_t queue_of(s3fifo *p, uint32_t parent, uint32_t block)
{
    quire__leaf *own = &p->leaves.leaf[block];
    if (own->flags & QUIRE__LEAF_FOUND) {
        own->uses = own->uses < MOST_USES ? own->uses + 1 : MOST_USES;
        return own->queue;
    }
    if (own->key == 0)
        own->key = quire__leaves_key(&p->leaves, parent, block);
    own->uses = 0;
    return p->ghosts[own->key % p->ghost_count] == own->key ? MAIN : SMALL;
}

static void s3fifo_insert(void *state, const uint32_t *path, uint32_t count, const quire_policy_use *use)
{
    s3fifo *p = state;
    (void)use;
    uint32_t parent = p->leaves.tree.parent(p->leaves.tree.self, path[0]);
    for (uint32_t i = 0; i < count; parent = path[i], i++)
        quire__leaves_enter(&p->leaves, path[i], queue_of(p, parent, path[i]));
    quire__leaves_list(&p->leaves, path[count - 1]);
}

static void s3fifo_insert_below(void *state, uint32_t block, uint32_t above, const quire_policy_use *use)
{
    s3fifo *p = state;
    (void)use;
    quire__leaves_unlist(&p->leaves, above);
    quire__leaves_enter(&p->leaves, block, queue_of(p, above, block));
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
        p->ghosts[own->key % p->ghost_count] = own->key;
    quire__leaves_drop(&p->leaves, block);
}

static uint32_t s3fifo_victim(void *state)
{
    s3fifo *p = state;
    quire__leaves *leaves = &p->leaves;
    uint32_t block = QUIRE_NO_BLOCK;
    for (int round = 0; round < MOST_ROUNDS && leaves->filled; round++) {
        bool small = leaves->filled & 1 << SMALL &&
                     (leaves->members[SMALL] > leaves->slots / 10 || !(leaves->filled & 1 << MAIN));
        block = quire__leaves_oldest(leaves, small ? SMALL : MAIN);
        quire__leaf *own = &leaves->leaf[block];
        if (own->uses == 0)
            return block;
        own->uses = small ? 0 : own->uses - 1;
        quire__leaves_move(leaves, block, MAIN);
    }
    return block;
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
};
