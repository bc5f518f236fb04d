/* walk.h: a prompt compared with the tree, as far as blocks are on the device. Reads only, and may do so without the lock. */
#ifndef QUIRE_WALK_H
#define QUIRE_WALK_H

#include "block/prefix.h"

/* Where a walk stands; it goes on from there. */
typedef struct quire__walk {
    uint32_t blocks;   /* found so far; they are path[0 .. blocks) */
    uint32_t arriving; /* the first whose bytes are still on their way; UINT32_MAX: none */
    uint32_t last;     /* the last one found, or QUIRE__NONE */
    uint32_t next;     /* its newest child, to compare next; QUIRE__NONE: the walk has ended */
    uint32_t missing;  /* why it ended: this block is next in the prompt and not on the device. Or QUIRE__NONE */
} quire__walk;

/* What a look has found, before it is held (match.h). */
typedef struct quire__look {
    quire__walk walk;
    uint64_t departures; /* of the pool, when the lock was given back before the look */
} quire__look;

/* What a probe has found (match.h). */
typedef struct quire__probe {
    uint64_t value;         /* of the domain */
    uint32_t domain, count; /* its index; tokens of the prompt */
    uint32_t node;          /* the last one found, or QUIRE__NONE */
    uint64_t departures;    /* of the pool, when the lock was given back */
    quire_hit hit;
} quire__probe;

enum { QUIRE__LOOK_BLOCKS = 1024 };

/* A walk that has found path[0 .. blocks), all of them with references, and goes on from there. */
quire__walk quire__walk_from(const quire__prefix *prefix, uint32_t domain, const uint32_t *path, uint32_t blocks);
/* Goes on until path has `limit` blocks or the walk ends. `tokens` are the prompt's from its first on; path and slots
 * have room for `limit` and get the nodes and their device slots. */
void quire__walk_on(const quire__prefix *prefix, uint32_t domain, const int32_t *tokens, uint32_t limit,
                    quire__walk *walk, uint32_t *path, int32_t *slots);
/* With the lock: whether path[from .. to), with these slots, is what the prompt spells. For assertions. */
bool quire__walk_true(const quire__prefix *prefix, uint32_t domain, const int32_t *tokens, const uint32_t *path,
                      const int32_t *slots, uint32_t from, uint32_t to);
/* With the lock. Of path[from .. count), how many have references: the first ones. */
uint32_t quire__walk_held(const quire__node *nodes, const uint32_t *path, uint32_t from, uint32_t count);
/* Tests and counting of instructions: without what the CPU at hand has beyond the least. */
void quire__walk_plain(bool plain);

#endif
