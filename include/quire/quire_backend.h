/* quire_backend.h: for programs that bring a part of their own. So far: an eviction policy.
 *
 * A policy decides which cached block goes when a tier is full. It keeps an order over block numbers and knows no bytes.
 * Fill a quire_policy with functions, set quire_options.custom_policy to it, and each tier of the cache opens one state.
 *
 * WHAT A POLICY HOLDS  The blocks of one tier that may be evicted sooner or later: on the device those that no sequence
 *          uses, on the host all of them. `insert` and `insert_below` add blocks, `take` and `drop` remove them: take
 *          because a sequence uses the block again (a hit), drop because it has left the tier (evicted or lost).
 *
 * THE LEAF RULE  A block must not go while the tier holds a block below it in the prefix tree, for that one could never
 *          be found again. So `victim` names only blocks whose tree->children() is 0. Blocks arrive a path at a time,
 *          and what is below a path's last block is in the order already: keep lists of the blocks without children,
 *          add tree->heir() of a dropped block, and the rule holds by itself.
 *
 * RULES    Deterministic: time is given, randomness is not to be used. All memory is taken in open. No call back into the
 *          cache. Called under the cache's own rules for threads, one at a time per state.
 */
#ifndef QUIRE_BACKEND_H
#define QUIRE_BACKEND_H

#include "quire/quire.h"

#ifdef __cplusplus
extern "C" {
#endif

#define QUIRE_NO_BLOCK UINT32_MAX

/* The prefix tree as far as a policy may ask. Lent for the state's life. */
typedef struct quire_policy_tree {
    const void *self;
    uint32_t (*parent)(const void *self, uint32_t block);   /* QUIRE_NO_BLOCK: it begins a prompt */
    uint32_t (*children)(const void *self, uint32_t block); /* that this tier holds. During drop the block still counts */
    uint32_t (*stamp)(const void *self, uint32_t block);    /* a hash of its tokens and all before them, and the domain */
    int (*busy)(const void *self, uint32_t block);          /* 1: a copy in flight has it; evicting it means waiting */
    int (*waiting)(const void *self, uint32_t block);       /* 1: it is in the order, that is in the tier and, on the device,
                                                             * used by nobody. So a policy need not mark every block of a
                                                             * path that is taken, only those it has in a list */
    uint32_t (*heir)(const void *self, uint32_t block);     /* its parent, if that is in the order and becomes a leaf when
                                                             * the block goes; else QUIRE_NO_BLOCK */
} quire_policy_tree;

typedef struct quire_policy_setup {
    size_t size;
    uint32_t blocks; /* block numbers are 0 .. blocks - 1; the same number may be another block after a drop */
    uint32_t slots;  /* of the tier: more blocks than this are never in the order */
    uint32_t block_tokens;
    uint32_t pin_blocks; /* most blocks that may be pinned */
    quire_tier tier;
    quire_policy_tree tree;
    void *(*alloc)(void *user, size_t bytes); /* not cleared */
    void (*free)(void *user, void *memory);
    void *alloc_user;
    const void *above; /* the state of the tier above, from which blocks come down to this one; NULL: there is none. It is
                        * opened before this one and closed after it, and lent for as long */
} quire_policy_setup;

/* What is known when blocks enter the order. */
typedef struct quire_policy_use {
    size_t size;
    uint64_t now;     /* microseconds; never goes back */
    uint64_t domain;
    uint32_t blocks;  /* full blocks of the sequence that let them go; 0: not a sequence's end (a rollback, a copy) */
    uint32_t matched; /* of them, found in the cache rather than computed */
    uint32_t hints;   /* QUIRE_HINT_TURN_ENDED | QUIRE_HINT_NO_REUSE */
    uint32_t range_count;
    const quire_hint_range *ranges; /* read during the call */
    uint64_t ttl_us;   /* of the domain; 0: none */
    uint64_t next_use; /* when the engine expects the prompt again, microseconds like now; 0: not said */
    uint64_t host_holds; /* about how long the host tier holds what nobody uses, microseconds; 0: not known. For worth_offload */
    uint32_t generated; /* tokens that the sequence got after the prompt that was matched, or that the engine named; 0: not known */
} quire_policy_use;

typedef struct quire_policy {
    size_t size;        /* sizeof(quire_policy) */
    const char *name;   /* shown in quire_cache_options */
    size_t state_bytes; /* cleared memory that the library takes and hands to open */
    quire_status (*open)(void *state, const quire_policy_setup *setup); /* a failed open is followed by close */
    void (*close)(void *state);
    /* path[0] first, each the parent of the next. use->now is the time of the last use. */
    void (*insert)(void *state, const uint32_t *path, uint32_t count, const quire_policy_use *use);
    /* A new child of `above`, which is in the order: the host tier has gained it. */
    void (*insert_below)(void *state, uint32_t block, uint32_t above, const quire_policy_use *use);
    void (*take)(void *state, const uint32_t *path, uint32_t count, uint64_t now);
    void (*drop)(void *state, uint32_t block);
    uint32_t (*victim)(void *state); /* QUIRE_NO_BLOCK: there is none. Asked again it says the same, or better */
    uint32_t (*count)(const void *state);
    /* Calls fn for each block, in any order. For checks. */
    void (*each)(const void *state, void (*fn)(void *arg, uint32_t block), void *arg);
    /* May be NULL. New blocks of the tree, not in the order yet. */
    void (*sealed)(void *state, const uint32_t *path, uint32_t count);
    /* May be NULL: every block is. Asked under the offload policy `selective`: whether it is likely enough that the block
     * comes back before the host tier gives it away, which it does after use->host_holds. Asked of blocks of the order, and
     * where nearly all of the device is in use, of those too: they were in the order before, or `sealed` has named them. */
    int (*worth_offload)(void *state, uint32_t block, const quire_policy_use *use);
    /* May be NULL: none. Blocks of the order that `victim` will not name whatever goes before them: what is pinned, and what
     * is above that. The library does not count on them for room. */
    uint32_t (*kept)(void *state, uint64_t now);
    /* May be NULL: only `victim` is asked, a block at a time. Names up to `most` different blocks that would be victims next,
     * in about that order: each is named after those below it, busy ones too, and kept ones never. Changes nothing that
     * `victim` goes by. Write-back offloads by it. */
    uint32_t (*coldest)(void *state, uint32_t *blocks, uint32_t most, uint64_t now);
} quire_policy;

#ifdef __cplusplus
}
#endif
#endif
