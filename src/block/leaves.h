/* leaves.h: what policies share that keep blocks in a few queues and evict those without children. */
#ifndef QUIRE_LEAVES_H
#define QUIRE_LEAVES_H

#include <stdbool.h>

#include "base/memory.h"
#include "quire/quire_backend.h"

enum { QUIRE__LEAVES_QUEUES = 64 };
enum { QUIRE__LEAF_IN = 1, QUIRE__LEAF_LISTED = 2, QUIRE__LEAF_FOUND = 4 }; /* FOUND: in the order before */

typedef struct quire__leaf {
    uint64_t key;   /* of the block and all before it; 0: not worked out */
    uint64_t place; /* in its queue; the least goes first. It keeps it while blocks below it come and go */
    uint32_t above, left, right; /* in the heap of its queue */
    uint32_t depth, priority;
    uint8_t queue, flags, uses, rank;
} quire__leaf;

typedef struct quire__leaves {
    quire__allocator allocator;
    quire_policy_tree tree;
    quire__leaf *leaf;
    uint64_t places; /* given so far */
    uint32_t top[QUIRE__LEAVES_QUEUES]; /* of the queue's heap of leaves */
    uint32_t members[QUIRE__LEAVES_QUEUES]; /* blocks of the order that belong to the queue, leaves or not */
    uint64_t filled; /* queues with a leaf */
    uint32_t count, slots;
} quire__leaves;

quire_status quire__leaves_open(quire__leaves *leaves, const quire_policy_setup *setup);
void quire__leaves_close(quire__leaves *leaves);
/* Takes the next `count` places for a path, whose head is more recent than its tail: path[i] has the place returned less
 * i. */
uint64_t quire__leaves_places(quire__leaves *leaves, uint32_t count);
/* The block belongs to the queue, at the place, from here on; it must not be in the order. */
void quire__leaves_enter(quire__leaves *leaves, uint32_t block, uint32_t queue, uint64_t place);
/* Into the heap of its queue, if it is not there: whatever is below it; or if nothing is. */
void quire__leaves_offer(quire__leaves *leaves, uint32_t block);
void quire__leaves_list(quire__leaves *leaves, uint32_t block);
/* From one queue to another or the same, as the most recent there. */
void quire__leaves_move(quire__leaves *leaves, uint32_t block, uint32_t queue);
void quire__leaves_unlist(quire__leaves *leaves, uint32_t block);
void quire__leaves_take(quire__leaves *leaves, const uint32_t *path, uint32_t count);
/* Its parent, if it is in the order and has no other child, becomes a leaf, at its own place. */
void quire__leaves_drop(quire__leaves *leaves, uint32_t block);
/* The oldest leaf of the queue that no copy has; one that a copy has when there are many; or QUIRE_NO_BLOCK. */
uint32_t quire__leaves_oldest(const quire__leaves *leaves, uint32_t queue);
/* Names up to `most` blocks of the queue in about the order in which they would be the oldest leaf; with `unused` only those
 * whose `uses` is 0. */
uint32_t quire__leaves_coldest(const quire__leaves *leaves, uint32_t queue, bool unused, uint32_t *blocks, uint32_t most);
void quire__leaves_each(const quire__leaves *leaves, void (*fn)(void *arg, uint32_t block), void *arg);
/* Names the block by all its tokens from the prompt's start; the same block has the same key when it returns. */
uint64_t quire__leaves_key(quire__leaves *leaves, uint32_t parent, uint32_t block);
uint64_t quire__policy_key(uint64_t above, uint32_t stamp);

#endif
