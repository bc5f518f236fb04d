/* order.c: a tier's eviction order, and the prefix tree as its policy sees it. */
#include "block/order.h"

static uint32_t tree_parent(const void *self, uint32_t node)
{
    const quire__book *book = self;
    return book->pool.kin[node].parent;
}

static uint32_t tree_device_children(const void *self, uint32_t node)
{
    const quire__book *book = self;
    return book->pool.kin[node].children[QUIRE_TIER_DEVICE];
}

static uint32_t tree_host_children(const void *self, uint32_t node)
{
    const quire__book *book = self;
    return book->pool.kin[node].children[QUIRE_TIER_HOST];
}

static uint32_t tree_stamp(const void *self, uint32_t node)
{
    const quire__book *book = self;
    return book->pool.kin[node].stamp;
}

static int tree_device_busy(const void *self, uint32_t node)
{
    const quire__book *book = self;
    return book->pool.nodes[node].standing[QUIRE_TIER_DEVICE] != QUIRE__CACHED;
}

static int tree_host_busy(const void *self, uint32_t node)
{
    const quire__book *book = self;
    return book->pool.nodes[node].standing[QUIRE_TIER_HOST] != QUIRE__CACHED;
}

static int tree_device_waiting(const void *self, uint32_t node)
{
    const quire__node *record = &((const quire__book *)self)->pool.nodes[node];
    return record->refs == 0 && record->kind == QUIRE__KIND_SEALED && record->slot[QUIRE_TIER_DEVICE] != QUIRE__NONE;
}

static int tree_host_waiting(const void *self, uint32_t node)
{
    const quire__node *record = &((const quire__book *)self)->pool.nodes[node];
    return record->kind == QUIRE__KIND_SEALED && record->slot[QUIRE_TIER_HOST] != QUIRE__NONE;
}

static uint32_t tree_device_heir(const void *self, uint32_t node)
{
    const quire__pool *pool = &((const quire__book *)self)->pool;
    uint32_t parent = pool->kin[node].parent; /* a tier is prefix-closed: the parent has a slot there too */
    bool heir = parent != QUIRE__NONE && pool->kin[parent].children[QUIRE_TIER_DEVICE] == 1 && pool->nodes[parent].refs == 0;
    return heir ? parent : QUIRE_NO_BLOCK;
}

static uint32_t tree_host_heir(const void *self, uint32_t node)
{
    const quire__pool *pool = &((const quire__book *)self)->pool;
    uint32_t parent = pool->kin[node].parent;
    return parent != QUIRE__NONE && pool->kin[parent].children[QUIRE_TIER_HOST] == 1 ? parent : QUIRE_NO_BLOCK;
}

quire_status quire__order_open(quire__book *book, quire_tier tier)
{
    const quire__book_config *config = &book->config;
    bool device = tier == QUIRE_TIER_DEVICE;
    quire_policy_setup setup = {
        .blocks = device || config->host_slots ? book->pool.node_count : 0,
        .slots = device ? config->device_slots : config->host_slots,
        .block_tokens = config->block_tokens,
        .pin_blocks = config->pin_blocks,
        .tier = tier,
        .tree = {.self = book,
                 .parent = tree_parent,
                 .children = device ? tree_device_children : tree_host_children,
                 .stamp = tree_stamp,
                 .busy = device ? tree_device_busy : tree_host_busy,
                 .waiting = device ? tree_device_waiting : tree_host_waiting,
                 .heir = device ? tree_device_heir : tree_host_heir},
        .above = device ? NULL : book->evict[QUIRE_TIER_DEVICE].state,
    };
    return quire__evict_open(&book->evict[tier], &config->allocator, config->policy, config->custom_policy, &setup);
}
