/* pool.h: nodes and slots. A node is a block's identity; a slot is a place for a block's bytes in one tier. */
#ifndef QUIRE_POOL_H
#define QUIRE_POOL_H

#include <stdbool.h>

#include "base/lock.h"
#include "base/memory.h"
#include "block/plan.h"
#include "quire/quire.h"

#define QUIRE__TIERS 2 /* indexed by quire_tier */

typedef enum quire__kind {
    QUIRE__KIND_FREE = 0,
    QUIRE__KIND_OPEN,   /* being filled; not in the tree */
    QUIRE__KIND_SEALED, /* full, immutable, in the tree */
    QUIRE__KIND_DEAD    /* was sealed, its bytes never came back; out of the tree, kept for who still refers to it */
} quire__kind;

typedef enum quire__residence {
    QUIRE__ABSENT = 0,
    QUIRE__ARRIVING, /* a move in flight writes the slot */
    QUIRE__RESIDENT,
    QUIRE__SPOILED /* the move that should have written the slot failed, and was answered */
} quire__residence;

/* Moves in flight that read the node's slot of a tier. */
/* SIDES: some move in flight has the host slot's part of another group (side.h), reading or writing. */
enum { QUIRE__READS_DEVICE = 1, QUIRE__READS_HOST = 2, QUIRE__READS_SIDES = 4 };

/* What an occupied slot counts as. In the host tier only NOWHERE, CACHED and LOOSE occur. */
typedef enum quire__standing {
    QUIRE__NOWHERE = 0, /* the node has no slot there */
    QUIRE__OPEN,
    QUIRE__USED,
    QUIRE__CACHED,   /* may be evicted once it is a leaf */
    QUIRE__EXPECTED, /* arriving, and some sequence waits for it */
    QUIRE__LOOSE,    /* a move in flight has it, and no sequence: evictable when the move ends */
    QUIRE__STANDINGS
} quire__standing;

/* What a match reads and writes of a block; kin has the rest. Which fields mean something depends on the kind. */
typedef struct quire__node {
    uint32_t child;              /* the newest; of a free node: the next free one */
    uint32_t refs;               /* sequences that end in it, copies that read it, children with references */
    uint32_t slot[QUIRE__TIERS]; /* QUIRE__NONE: absent */
    uint8_t state[QUIRE__TIERS], standing[QUIRE__TIERS];
    uint8_t kind, reads;
    uint8_t unused[2];
} quire__node;

/* Written when the node is sealed; before that only the generation means something. */
typedef struct quire__kin {
    uint32_t parent;       /* QUIRE__NONE: begins a prompt */
    uint32_t older, newer; /* siblings */
    uint32_t chain;        /* next of the same hash bucket */
    uint32_t children[QUIRE__TIERS]; /* of its children, those that have a slot in the tier */
    uint32_t depth; /* blocks before it in its prompt */
    uint32_t domain;
    uint32_t generation;
    uint32_t stamp; /* of the domain and all tokens up to its end: what is sealed never changes */
} quire__kin;

typedef struct quire__pool {
    quire__node *nodes;
    quire__kin *kin; /* of the same nodes */
    int32_t *tokens; /* [node][block_tokens] */
    uint32_t block_tokens, node_count, free_node;

    uint32_t total[QUIRE__TIERS];
    uint32_t *owner[QUIRE__TIERS]; /* of a slot: its node, or why it has none (below) */
    uint32_t free_top[QUIRE__TIERS]; /* of the stack of free slots, which is linked through `owner`: quire__pool_free */
    uint32_t free_count[QUIRE__TIERS];
    uint32_t orphans[QUIRE__TIERS];
    uint32_t missing[QUIRE__TIERS]; /* slots without memory */
    uint32_t standing[QUIRE__TIERS][QUIRE__STANDINGS];
    uint64_t departures; /* rises when a node of the tree loses or changes a slot, or leaves it: what was read may be old */
    uint32_t *ticket; /* of a device slot: the last step that may touch it, as of its release; its lowest bits */
} quire__pool;

#define QUIRE__ORPHAN (UINT32_MAX - 1)  /* owner of a slot whose node is gone and whose move is still in flight */
#define QUIRE__MISSING (UINT32_MAX - 2) /* owner of a slot that has no memory now (section.c), or not yet (the host's) */
#define QUIRE__FREE (UINT32_C(1) << 31) /* owner of a free slot: this, and the free slot below it in the stack. QUIRE__NONE: the
                                         * last one, or one that is in no stack and belongs to nobody */
#define QUIRE__MOST_SLOTS ((uint32_t)INT32_MAX - 3) /* of both tiers: tables hold slots as int32_t, and the marks above differ */

quire_status quire__pool_open(quire__pool *pool, const quire__allocator *allocator, uint32_t block_tokens,
                              uint32_t device_slots, uint32_t host_slots);
void quire__pool_close(quire__pool *pool, const quire__allocator *allocator);

/* A node without a slot, of kind OPEN, refs 0. There is one whenever a slot of either tier is free. */
uint32_t quire__pool_node_take(quire__pool *pool);
/* `count` open nodes, each with one reference and a device slot; there must be so many free. */
void quire__pool_open_take(quire__pool *pool, uint32_t count, uint32_t *nodes, int32_t *slots);
/* The node must have no slot. Its handle is stale from here. */
void quire__pool_node_give(quire__pool *pool, uint32_t node);
quire_block quire__pool_handle(const quire__pool *pool, uint32_t node);
/* The sealed node that a handle names, or QUIRE__NONE. */
uint32_t quire__pool_find(const quire__pool *pool, quire_block block);

/* QUIRE__NONE: no slot is free. The slot must be attached before anything else is asked of the pool. */
uint32_t quire__pool_slot_take(quire__pool *pool, quire_tier tier);
void quire__pool_slot_give(quire__pool *pool, quire_tier tier, uint32_t slot);
/* Makes the node the slot's owner. */
void quire__pool_attach(quire__pool *pool, uint32_t node, quire_tier tier, uint32_t slot, quire__residence state);
/* Takes the slot from the node: back to the free ones, or, when a move in flight has it, an orphan until it ends. */
void quire__pool_detach(quire__pool *pool, uint32_t node, quire_tier tier);
/* Hands a slot that no move has from one node to another. */
void quire__pool_transfer(quire__pool *pool, uint32_t from, uint32_t to);
/* Brings the counts up to date after the node's kind, refs, state or reads changed. */
void quire__pool_account(quire__pool *pool, uint32_t node);
/* Whether a move in flight reads or writes the node's slot. */
bool quire__pool_in_flight(const quire__node *node, quire_tier tier);
/* What the node's slot counts as, worked out from the node itself. */
quire__standing quire__pool_standing(const quire__node *node, quire_tier tier);
/* Device slots [first, first + count), for section.c. Add: they were missing and are free now. Hide: the free ones among
 * them are not given out until shown again. Remove: hidden, and owned by nobody any more; they are missing now. */
void quire__pool_slots_add(quire__pool *pool, uint32_t first, uint32_t count);
void quire__pool_slots_hide(quire__pool *pool, uint32_t first, uint32_t count);
void quire__pool_slots_show(quire__pool *pool, uint32_t first, uint32_t count);
void quire__pool_slots_remove(quire__pool *pool, uint32_t first, uint32_t count);
/* Gives the node another device slot, taken before, for its own, which is owned by nobody then and in no stack. */
void quire__pool_relocate(quire__pool *pool, uint32_t node, uint32_t slot);
/* Before anything is cached: host slots from `slots` on have no memory yet. */
void quire__pool_host_limit(quire__pool *pool, uint32_t slots);
/* The first `slots` host slots have memory now. The new ones are given out after those that are free already, as if they
 * had been there from the start. */
void quire__pool_host_grow(quire__pool *pool, uint32_t slots);
/* Whether nobody owns the slot whose owner entry that is. */
static inline bool quire__pool_unowned(uint32_t owner)
{
    return owner == QUIRE__NONE || (owner >= QUIRE__FREE && owner < QUIRE__MISSING);
}

/* The slot below a free one in the stack, by its owner entry, or QUIRE__NONE. */
static inline uint32_t quire__pool_below(uint32_t owner)
{
    return owner == QUIRE__NONE ? QUIRE__NONE : owner & ~QUIRE__FREE;
}

/* The slot belongs to nobody any more: onto the stack. */
static inline void quire__pool_free(quire__pool *pool, quire_tier tier, uint32_t slot)
{
    uint32_t top = pool->free_top[tier];
    pool->owner[tier][slot] = top == QUIRE__NONE ? QUIRE__NONE : QUIRE__FREE | top;
    pool->free_top[tier] = slot;
    pool->free_count[tier]++;
}

/* The last step that may touch the slot, as of its release; `now`: the last that began. Where that is 2^32 steps ago or more it
 * is a later one, which has ended too. */
static inline uint64_t quire__pool_ticket(const quire__pool *pool, uint32_t slot, uint64_t now)
{
    return now - (uint32_t)((uint32_t)now - pool->ticket[slot]);
}

/* Device slots that have memory. */
static inline uint32_t quire__pool_present(const quire__pool *pool)
{
    return pool->total[QUIRE_TIER_DEVICE] - pool->missing[QUIRE_TIER_DEVICE];
}
/* free + every standing + orphans + missing = total, in both tiers. */
bool quire__pool_balanced(const quire__pool *pool);

/* A link of the tree, as who walks without the lock reads it; and one to a block that is all written. */
QUIRE__UNLOCKED static inline uint32_t quire__pool_link(const uint32_t *link)
{
    return __atomic_load_n(link, __ATOMIC_ACQUIRE);
}

static inline void quire__pool_set_link(uint32_t *link, uint32_t node)
{
    __atomic_store_n(link, node, __ATOMIC_RELEASE);
}

QUIRE__UNLOCKED static inline int32_t *quire__pool_tokens(const quire__pool *pool, uint32_t node)
{
    return pool->tokens + (size_t)node * pool->block_tokens;
}

/* A cached node without a host slot goes, with its device slot, which no move has: detach and node_give at once. */
static inline void quire__pool_cached_give(quire__pool *pool, uint32_t node)
{
    quire__node *record = &pool->nodes[node];
    uint32_t slot = record->slot[QUIRE_TIER_DEVICE];
    quire__pool_free(pool, QUIRE_TIER_DEVICE, slot);
    pool->standing[QUIRE_TIER_DEVICE][QUIRE__CACHED]--;
    pool->standing[QUIRE_TIER_DEVICE][QUIRE__NOWHERE]++;
    pool->departures++;
    *record = (quire__node){.child = pool->free_node, .slot = {QUIRE__NONE, QUIRE__NONE}};
    pool->kin[node].generation++;
    pool->free_node = node;
}

#endif
