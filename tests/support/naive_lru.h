/* naive_lru.h: leaf-first LRU over blocks of tokens, for one request at a time, as simple as it can be said.
 * Shares no code and no data structure with the library: a tree of nodes in an array, last-use stamps, and a
 * heap of (stamp, node). */
#ifndef NAIVE_LRU_H
#define NAIVE_LRU_H

#include <stdbool.h>
#include <stdint.h>

typedef struct naive_lru naive_lru;

typedef struct naive_served {
    uint32_t hit, partial; /* tokens; partial is part of hit */
} naive_served;

naive_lru *naive_lru_open(uint32_t block_tokens, uint32_t capacity);
void naive_lru_close(naive_lru *cache);
/* Matches `input` tokens, computes those up to `total`, closes. */
naive_served naive_lru_serve(naive_lru *cache, const int32_t *tokens, uint32_t input, uint32_t total);
uint64_t naive_lru_evictions(const naive_lru *cache);

#endif
