/* evict.h: who goes when a tier is full. A policy keeps an order over nodes; what they are it does not know.
 *
 * The leaf rule. A block must not go while the tier still holds a block below it, for that one could never be matched
 * again. A policy need not know the tree: it is told enough by how nodes are inserted.
 *   - A path is inserted at once, and its head counts as more recent than its tail.
 *   - A node with a relative above it in the order is inserted just older than that one.
 * So in the order of insertion every node is older than what is above it in the tree. A policy that prefers another
 * order must still name no victim before all that are below it. residency.c says why that suffices.
 */
#ifndef QUIRE_EVICT_H
#define QUIRE_EVICT_H

#include <stdbool.h>

#include "base/memory.h"
#include "quire/quire.h"

typedef struct quire__evict_policy {
    const char *name;
    size_t size; /* of the state */
    quire_status (*open)(void *state, const quire__allocator *allocator, uint32_t nodes);
    void (*close)(void *state, const quire__allocator *allocator);
    /* As the most recent ones, path[0] the most recent of them. */
    void (*insert_path)(void *state, const uint32_t *path, uint32_t count);
    /* Just older than `above`, which is in the order. */
    void (*insert_below)(void *state, uint32_t node, uint32_t above);
    void (*remove_path)(void *state, const uint32_t *path, uint32_t count);
    uint32_t (*victim)(const void *state); /* QUIRE__NONE: there is no node */
    uint32_t (*count)(const void *state);
    /* Calls fn for each node, the first to go first. */
    void (*each)(const void *state, void (*fn)(void *arg, uint32_t node), void *arg);
} quire__evict_policy;

typedef struct quire__evict {
    const quire__evict_policy *policy;
    void *state;
} quire__evict;

/* QUIRE_EINVAL: no such policy. QUIRE_ENOMEM. Nodes are 0 .. nodes - 1. */
quire_status quire__evict_open(quire__evict *evict, const quire__allocator *allocator, const char *policy,
                               uint32_t nodes);
void quire__evict_close(quire__evict *evict, const quire__allocator *allocator);

void quire__evict_insert_path(quire__evict *evict, const uint32_t *path, uint32_t count);
void quire__evict_insert_below(quire__evict *evict, uint32_t node, uint32_t above);
void quire__evict_remove_path(quire__evict *evict, const uint32_t *path, uint32_t count);
void quire__evict_remove(quire__evict *evict, uint32_t node);
uint32_t quire__evict_victim(const quire__evict *evict);
uint32_t quire__evict_count(const quire__evict *evict);
void quire__evict_each(const quire__evict *evict, void (*fn)(void *arg, uint32_t node), void *arg);

#endif
