/* side.h: groups of layers beside the first. A block of the tree may have bytes of these groups too: its side blocks, one
 * a group, each in a slot of the group's own part of the arena. */
#ifndef QUIRE_SIDE_H
#define QUIRE_SIDE_H

#include "block/pool.h"

typedef struct quire__book quire__book;
typedef struct quire__chain quire__chain;

typedef struct quire__side_config {
    uint32_t slots;    /* on the device */
    uint32_t window;   /* tokens that the next one sees, itself included; UINT32_MAX: all */
    uint32_t rollback; /* tokens that a sequence can take back, beside those */
    bool whole;        /* a block's bytes stand for its last token only (a recurrent state): no part of it is of use */
} quire__side_config;

/* One group's side block of a node. */
typedef struct quire__side_block {
    uint32_t slot;  /* QUIRE__NONE: none on the device */
    uint32_t users; /* sequences that keep it, and copies of the open step that read it */
    uint8_t state;  /* quire__residence of the slot */
    uint8_t host;   /* the same of the group's part of the node's host slot */
    uint8_t flags;
    uint8_t list; /* of unused ones; 0: in none */
} quire__side_block;

enum { QUIRE__SIDE_READ = 1, QUIRE__SIDE_WRITTEN = 2, QUIRE__SIDE_BEHIND = 4 };
enum { QUIRE__SIDE_LISTS = 3 }; /* 1: given back behind a window; 2: of sequences that ended. 1 goes first */

typedef struct quire__side {
    quire__side_config config;
    quire__side_block *blocks; /* [nodes] */
    uint32_t *owner;           /* of a slot: its node, QUIRE__NONE or QUIRE__ORPHAN */
    uint64_t *ticket;          /* of a slot: the last step that may touch it, as of its release */
    uint32_t *links;           /* [slots + QUIRE__SIDE_LISTS][2]: older and newer in the list; behind the slots, the lists' ends */
    uint32_t *free;            /* stack */
    uint32_t free_count, cached, orphans, loose; /* loose: unused, and a move has it */
    uint64_t given_back, evicted, restored;      /* blocks, since open */
} quire__side;

/* A sequence's side blocks of one group: those of its blocks [first, blocks). */
typedef struct quire__span {
    int32_t *table; /* [max_blocks]: slots; what is before `first` is some valid slot */
    uint32_t first, changed;
    uint32_t undo; /* in a step: the slot of the last block's state before it, QUIRE__NONE: it is not written over */
} quire__span;

quire_status quire__side_open(quire__book *book, const quire__side_config *configs, uint32_t count);
void quire__side_close(quire__book *book);

/* The first block that a sequence of `length` tokens must have to go on. */
uint32_t quire__side_needed(const quire__book *book, const quire__side *side, uint32_t length);
/* Device slots that are free or can be made so. */
uint32_t quire__side_available(const quire__side *side);

/* ---- a sequence's */
/* The chain has no blocks. */
void quire__side_begin(quire__book *book, quire__chain *chain);
/* The chain keeps its block `at` from here on, which has a slot on the device. */
void quire__side_hold(quire__book *book, quire__chain *chain, uint32_t group, uint32_t at);
/* Gives its side blocks from block `keep` on back. */
void quire__side_shorten(quire__book *book, quire__chain *chain, uint32_t keep);
void quire__side_fork(quire__book *book, const quire__chain *chain, quire__chain *child);
/* What a copy read is needed no more. */
void quire__side_release_source(quire__book *book, uint32_t source);
/* Is there room for `added` new blocks, and a copy of the last, in every group? As quire__chain_reserve. */
quire_status quire__side_room(const quire__book *book, const quire__chain *chain, uint32_t added, bool copy,
                              const quire__plan *plan, uint32_t *moving);
/* Slots for them: `source` NONE, or the block that the chain's last one of `old_blocks` is a copy of. */
void quire__side_grow(quire__book *book, quire__chain *chain, uint32_t old_blocks, uint32_t source, quire__plan *plan);
/* Cancel: the source is in its place again. */
void quire__side_put_back(quire__book *book, quire__chain *chain, uint32_t at, uint32_t copy);
/* Our `node`, block `at` of the chain, gives way to its twin in the tree, which keeps the better side blocks of both. */
void quire__side_merge(quire__book *book, quire__chain *chain, uint32_t at, uint32_t node, uint32_t twin);
/* A step's end. Commit: gives back what lies behind the windows of the chain's length. Cancel, before anything else: states that
 * the step may have written over are those from before it again. */
void quire__side_commit(quire__book *book, quire__chain *chain);
void quire__side_cancel(quire__book *book, quire__chain *chain);
/* QUIRE_ESTATE: side blocks that a sequence of `length` tokens needs are gone. */
quire_status quire__side_check_truncate(const quire__book *book, const quire__chain *chain, uint32_t length);
/* After a chain became shorter: keeps what its length needs. All of it must be there. */
void quire__side_cover(quire__book *book, quire__chain *chain);
/* Of block `at`: ARRIVING: some side block is; SPOILED: one failed; else its slots are right in the tables. */
quire__residence quire__side_arrived(quire__book *book, quire__chain *chain, uint32_t at);
/* The most of the chain's first `blocks` blocks whose end it could go on from without any restore. */
uint32_t quire__side_fit_chain(const quire__book *book, const quire__chain *chain, uint32_t blocks);

/* ---- a prompt's, in the tree; `last` is the node of the last of `blocks` blocks */
typedef struct quire__side_want {
    bool restoring;      /* what is on the host will do */
    uint32_t restores;   /* out: side blocks to be restored */
} quire__side_want;
/* Are there, or can be had, all side blocks that a sequence of `length` tokens needs? Else *most says how many blocks may do. */
bool quire__side_fits(const quire__book *book, uint32_t last, uint32_t blocks, uint32_t length, quire__side_want *want,
                      uint32_t *most);
/* Holds them all, and plans the restores; quire__side_fits has said that they can be had. */
void quire__side_take(quire__book *book, quire__chain *chain, quire__plan *plan);
/* Any group whose blocks are of use only as a whole? */
bool quire__side_whole(const quire__book *book);

/* ---- a node's */
/* The node is nobody's any more. */
void quire__side_forget(quire__book *book, uint32_t node);
/* It has no host slot any more. */
void quire__side_host_lost(quire__book *book, uint32_t node);
/* Can its side blocks be offloaded now? Not while an earlier offload still reads one. */
bool quire__side_quiet(const quire__book *book, uint32_t node);
/* Plans the offload of those that are on the device, to the node's host slot. */
void quire__side_offload(quire__book *book, uint32_t node, quire__plan *plan);

/* ---- moves */
/* A move that has the host slot begins, of whatever group; ends. An orphaned slot is free when the last has. */
void quire__side_host_move(quire__book *book, uint32_t slot);
void quire__side_host_moved(quire__book *book, uint32_t slot);
void quire__side_complete(quire__book *book, const quire__move *move, bool ok);
void quire__side_expire(quire__book *book, const quire__move *move);

#endif
