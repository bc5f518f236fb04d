/* evict_lru.c: strict recency. A doubly linked list through an array of its own, beside the nodes:
 *
 *        newest                                          oldest
 *    head <--> c's root <--> c's tail <--> a's root <--> a's tail <--> head
 *
 * The head is one more entry of the array, so that no operation asks whether it is at an end. Everything is O(1) a
 * node; nothing is ever searched. The victim is the oldest: as inserted, it is a leaf (evict.h).
 */
#include "block/evict_lru.h"

#include "base/check.h"
#include "base/status.h"
#include "block/plan.h"

typedef struct link {
    uint32_t older, newer;
} link;

typedef struct lru {
    link *links; /* [nodes + 1], the last is the head: its older is the newest node, its newer the oldest */
    uint32_t head, count;
    quire__allocator allocator;
} lru;

static quire_status lru_open(void *state, const quire_policy_setup *setup)
{
    lru *list = state;
    uint32_t nodes = setup->blocks;
    void *links = NULL;
    list->allocator = (quire__allocator){setup->alloc, setup->free, setup->alloc_user};
    QUIRE__TRY(quire__memory_take(&list->allocator, (size_t)nodes + 1, sizeof(link), "the eviction order", &links));
    list->links = links;
    list->head = nodes;
    list->links[nodes] = (link){nodes, nodes};
    return QUIRE_OK;
}

static void lru_close(void *state)
{
    lru *list = state;
    quire__memory_give(&list->allocator, list->links);
}

static void lru_insert(void *state, const uint32_t *path, uint32_t count, const quire_policy_use *use)
{
    (void)use;
    lru *list = state;
    link *links = list->links;
    uint32_t newer = list->head, oldest = links[list->head].older;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t node = path[i];
        links[newer].older = node;
        links[node].newer = newer;
        newer = node;
    }
    links[newer].older = oldest;
    links[oldest].newer = newer;
    list->count += count;
}

static void lru_insert_below(void *state, uint32_t node, uint32_t above, const quire_policy_use *use)
{
    (void)use;
    lru *list = state;
    link *links = list->links;
    uint32_t below = links[above].older;
    links[node] = (link){.older = below, .newer = above};
    links[above].older = node;
    links[below].newer = node;
    list->count++;
}

/* A path mostly lies in the list as it was inserted: such a run is cut out at once, reading one link a node. */
static void lru_take(void *state, const uint32_t *path, uint32_t count, uint64_t now)
{
    (void)now;
    lru *list = state;
    link *links = list->links;
    QUIRE__ASSERT(list->count >= count);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t newer = links[path[i]].newer;
        while (i + 1 < count && links[path[i]].older == path[i + 1])
            i++;
        uint32_t older = links[path[i]].older;
        links[newer].older = older;
        links[older].newer = newer;
    }
    list->count -= count;
}

static void lru_drop(void *state, uint32_t node)
{
    lru_take(state, &node, 1, 0);
}

static uint32_t lru_victim(void *state)
{
    const lru *list = state;
    uint32_t oldest = list->links[list->head].newer;
    return oldest == list->head ? QUIRE__NONE : oldest;
}

static uint32_t lru_coldest(void *state, uint32_t *nodes, uint32_t most, uint64_t now)
{
    (void)now;
    const lru *list = state;
    uint32_t count = 0;
    for (uint32_t node = list->links[list->head].newer; node != list->head && count < most; node = list->links[node].newer)
        nodes[count++] = node;
    return count;
}

static uint32_t lru_count(const void *state)
{
    const lru *list = state;
    return list->count;
}

static void lru_each(const void *state, void (*fn)(void *arg, uint32_t node), void *arg)
{
    const lru *list = state;
    for (uint32_t node = list->links[list->head].newer; node != list->head;) {
        uint32_t newer = list->links[node].newer; /* fn may remove the node */
        fn(arg, node);
        node = newer;
    }
}

const quire_policy quire__evict_lru = {
    .size = sizeof(quire_policy),
    .name = "lru",
    .state_bytes = sizeof(lru),
    .open = lru_open,
    .close = lru_close,
    .insert = lru_insert,
    .insert_below = lru_insert_below,
    .take = lru_take,
    .drop = lru_drop,
    .victim = lru_victim,
    .count = lru_count,
    .each = lru_each,
    .coldest = lru_coldest,
};
