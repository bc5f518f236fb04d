/* bounds.h: what can be had of a trace at best: an infinite cache, LRU at every capacity at once, and the
 * clairvoyant. Requests run one after another here; hits are in blocks. */
#ifndef REPLAY_BOUNDS_H
#define REPLAY_BOUNDS_H

#include "paths.h"

/* Blocks found by a cache that forgets nothing. */
uint64_t replay_infinite(const replay_paths *paths);

/* `hits` gets the blocks found at each of the `count` capacities, of leaf-first LRU. */
int replay_lru_curve(const replay_paths *paths, const uint64_t *capacities, size_t count, uint64_t *hits,
                     replay_error *error);
/* The same request by request: hits[request * count + i]. */
int replay_lru_hits(const replay_paths *paths, const uint64_t *capacities, size_t count, uint32_t *hits,
                    replay_error *error);

/* Blocks found by who knows the future: what is used last, goes first. With `bypass` a request's own blocks
 * may go as soon as it is served; without, all of its path must fit while it runs. */
int replay_clairvoyant(const replay_paths *paths, uint64_t capacity, bool bypass, uint64_t *hits,
                       replay_error *error);

#endif
