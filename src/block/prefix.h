/* prefix.h: the prefix tree. Which node continues which, and in which domain. Knows nothing of slots' contents. */
#ifndef QUIRE_PREFIX_H
#define QUIRE_PREFIX_H

#include <string.h>

#include "block/pool.h"

#define QUIRE__PREFIX_NEAREST 8 /* children that a partial match looks at, the newest */

typedef struct quire__domain {
    uint64_t value;
    uint32_t child;     /* newest of the nodes that begin a prompt */
    uint32_t roots;     /* how many there are */
    uint32_t sequences; /* open ones */
    uint32_t chain;     /* next in the bucket; of an unused domain: the next unused one */
    uint32_t idle_older, idle_newer; /* roots but no sequences: by the time when the last sequence was closed */
} quire__domain;

typedef struct quire__prefix {
    quire__pool *pool;
    uint64_t key;
    uint32_t *buckets;
    uint32_t mask;

    quire__domain *domains; /* [max_domains + 1]: the last one is the idle list's head */
    uint32_t *domain_buckets;
    uint32_t domain_mask, max_domains, domain_count, free_domain;
} quire__prefix;

quire_status quire__prefix_open(quire__prefix *prefix, const quire__allocator *allocator, quire__pool *pool,
                                uint32_t max_domains, uint64_t key);
void quire__prefix_close(quire__prefix *prefix, const quire__allocator *allocator);

/* ---- domains, named by index */
/* QUIRE__NONE: the domain has no node and no sequence. */
uint32_t quire__prefix_domain_find(const quire__prefix *prefix, uint64_t value);
/* Finds or makes the domain, and counts a sequence in. QUIRE__NONE: there is no room for one more. */
uint32_t quire__prefix_domain_enter(quire__prefix *prefix, uint64_t value);
void quire__prefix_domain_leave(quire__prefix *prefix, uint32_t domain);
/* One more sequence in a domain that has some. */
void quire__prefix_domain_share(quire__prefix *prefix, uint32_t domain);
/* The domain that has been without a sequence for longest, or QUIRE__NONE. */
uint32_t quire__prefix_domain_idle(const quire__prefix *prefix);

/* ---- nodes. `parent` QUIRE__NONE stands for the domain's own root. */
/* Of the children of `parent` but the newest, the one that has exactly these block_tokens tokens, or QUIRE__NONE. */
uint32_t quire__prefix_lookup(const quire__prefix *prefix, uint32_t domain, uint32_t parent, const int32_t *tokens);
/* Of the newest children, the one that shares the longest start with `tokens`; the newest of equals. `*common` is how
 * many tokens; QUIRE__NONE when there is not one. */
uint32_t quire__prefix_nearest(const quire__prefix *prefix, uint32_t domain, uint32_t parent, const int32_t *tokens,
                               uint32_t count, uint32_t *common);
/* Makes the sealed node, whose tokens are set, the newest child. */
void quire__prefix_link(quire__prefix *prefix, uint32_t node, uint32_t domain, uint32_t parent);
/* Links sealed nodes that have a device slot as one path below `parent`: each the only child of the one before. The
 * parent's count of children on the device is the caller's, as with prefix_link; of those in the path it is set. */
void quire__prefix_link_path(quire__prefix *prefix, const uint32_t *path, uint32_t count, uint32_t domain,
                             uint32_t parent);
/* Takes a node without children out. A domain that is left with nothing is gone. */
void quire__prefix_unlink(quire__prefix *prefix, uint32_t node);
/* Of the node's tokens as they are now, and the stamp above it; kin has what it was when the node was linked. */
uint32_t quire__prefix_stamp(const quire__prefix *prefix, uint32_t node);
/* Whether exactly the nodes that belong in the table are in it, each in its bucket. `nodes`: how many belong. */
bool quire__prefix_table_right(const quire__prefix *prefix, uint32_t nodes);

QUIRE__UNLOCKED static inline uint32_t quire__prefix_newest(const quire__prefix *prefix, uint32_t domain, uint32_t parent)
{
    return quire__pool_link(parent == QUIRE__NONE ? &prefix->domains[domain].child : &prefix->pool->nodes[parent].child);
}

/* 16 bytes at once, or 32 where a function is compiled for them; elsewhere the compiler makes words of it. */
typedef uint64_t quire__words __attribute__((vector_size(16)));

QUIRE__UNLOCKED static inline quire__words quire__differ(const int32_t *a, const int32_t *b)
{
    quire__words x, y;
    memcpy(&x, a, sizeof(x));
    memcpy(&y, b, sizeof(y));
    return x ^ y;
}

/* memcmp() == 0 for the sizes that blocks have, inline: the call alone costs a third of a match. */
QUIRE__UNLOCKED static inline bool quire__tokens_equal(const int32_t *a, const int32_t *b, uint32_t count)
{
    for (; count >= 16; count -= 16, a += 16, b += 16) {
        quire__words differ = quire__differ(a, b) | quire__differ(a + 4, b + 4) | quire__differ(a + 8, b + 8) |
                              quire__differ(a + 12, b + 12);
        if (differ[0] | differ[1])
            return false;
    }
    for (; count >= 4; count -= 4, a += 4, b += 4) {
        quire__words differ = quire__differ(a, b);
        if (differ[0] | differ[1])
            return false;
    }
    for (; count > 0; count--)
        if (*a++ != *b++)
            return false;
    return true;
}

/* The child of `parent` with exactly these tokens: the newest is compared; only siblings of it are looked up. */
QUIRE__UNLOCKED static inline uint32_t quire__prefix_child(const quire__prefix *prefix, uint32_t domain, uint32_t parent,
                                           const int32_t *tokens)
{
    uint32_t newest = quire__prefix_newest(prefix, domain, parent);
    if (newest == QUIRE__NONE)
        return QUIRE__NONE;
    if (quire__tokens_equal(quire__pool_tokens(prefix->pool, newest), tokens, prefix->pool->block_tokens))
        return newest;
    return quire__prefix_lookup(prefix, domain, parent, tokens);
}

#endif
