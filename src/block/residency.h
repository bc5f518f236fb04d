/* residency.h: which tier has a block's bytes. References, eviction, moves that end, blocks that are lost. */
#ifndef QUIRE_RESIDENCY_H
#define QUIRE_RESIDENCY_H

#include "block/state.h"

/* A sequence that ends in `parent` (QUIRE__NONE: is empty) goes on to `node`, sealed and on the device: what the parent
 * counted for the sequence's end counts for the node now. */
void quire__residency_hold(quire__book *book, uint32_t parent, uint32_t node);
/* The first reference to each of `count` nodes of a path; quire__residency_hold_path must follow. */
void quire__residency_use(quire__book *book, const uint32_t *path, uint32_t count);
/* A sequence that ends in path[from - 1] (0: is empty) goes on to path[count - 1]. Exactly the first `held` nodes had
 * references, the others got theirs by quire__residency_use. */
void quire__residency_hold_path(quire__book *book, const uint32_t *path, uint32_t from, uint32_t held, uint32_t count);
/* A sequence that ends in path[count - 1] ends in path[keep - 1] from here on. Nodes that lose their last reference
 * become cached (sealed ones) or are gone. */
void quire__residency_release(quire__book *book, const uint32_t *path, uint32_t keep, uint32_t count);
/* One reference less to a node that a copy read, or that lost its place in a sequence to a copy; `parent` comes before
 * it in that sequence. */
void quire__residency_release_one(quire__book *book, uint32_t parent, uint32_t node);
/* Takes away an open or dead node that nobody refers to. */
void quire__residency_discard(quire__book *book, uint32_t node);
/* Counts a whole path, from its root, as used now in the host tier. */
void quire__residency_touch_host(quire__book *book, const uint32_t *path, uint32_t count);

/* Device slots that are free or can be made so by eviction: not those of pinned blocks. */
uint32_t quire__residency_available(const quire__book *book);
/* Of the slots that moves in flight have, those that become free or evictable when the moves end. */
uint32_t quire__residency_moving(const quire__book *book);
/* Evicts until `count` device slots are free. False: the next victim is a block that a move in flight has, or there is
 * none. */
bool quire__residency_make_room(quire__book *book, uint32_t count);
/* A free slot, evicting if need be. QUIRE__NONE: as above. `spare` is not evicted from the host. */
uint32_t quire__residency_device_slot(quire__book *book);
uint32_t quire__residency_host_slot(quire__book *book, uint32_t spare);

/* Gives a sealed node, linked in the tree, a place in a tier; the caller adds it to the tier's eviction order. */
void quire__residency_gain(quire__book *book, uint32_t node, quire_tier tier, uint32_t slot, quire__residence state);
/* A sealed node's slot is taken away; a node that is left with none is gone. */
void quire__residency_lose(quire__book *book, uint32_t node, quire_tier tier);
void quire__residency_event_add(quire__book *book, quire_event_type type, quire_tier tier, uint32_t node);

static inline void quire__residency_event(quire__book *book, quire_event_type type, quire_tier tier, uint32_t node)
{
    if (book->events.capacity > 0)
        quire__residency_event_add(book, type, tier, node);
}

/* Takes in the answer to an offload or a restore. */
void quire__residency_complete(quire__book *book, const quire__move *move, bool ok);
/* The answer is late: whoever waits for it goes on without, and the slots stay taken until the answer. */
void quire__residency_expire(quire__book *book, const quire__move *move);
/* Forgets every block of the domain that no sequence refers to. */
void quire__residency_clear(quire__book *book, uint32_t domain);

#endif
