/* small_cache.h: a cache of a few tiny blocks on the host device, and steps whose KV nobody reads. */
#ifndef QUIRE_TESTS_SMALL_CACHE_H
#define QUIRE_TESTS_SMALL_CACHE_H

#include "quire/quire.h"

enum { SMALL_BLOCK_TOKENS = 4, SMALL_BLOCK_BYTES = 256 };

/* Options of such a cache: 1 layer, 1 head of 8 floats, blocks of 4 tokens and 256 bytes. `group` must outlive the open. */
void small_options(quire_options *options, quire_group *group, uint32_t device_blocks, uint32_t host_blocks);
quire_cache *small_cache(uint32_t device_blocks, uint32_t host_blocks);
quire_seq small_open(quire_cache *cache, uint64_t domain);
/* Adds tokens to a sequence in a step of its own; the status of quire_step_add. Everything else must succeed. */
quire_status small_append(quire_cache *cache, quire_seq seq, const int32_t *tokens, size_t count);
/* On a device that is not immediate: waits, and frees what the appends read. Before the cache is closed. */
void small_sweep(quire_cache *cache);
/* Opens, matches, computes the rest in one step; returns the sequence, and the hit if asked. */
quire_seq small_prompt(quire_cache *cache, uint64_t domain, const int32_t *tokens, size_t count, quire_hit *hit);
/* first, first + 1, ... */
void small_tokens(int32_t *tokens, size_t count, int32_t first);
quire_stats small_stats(quire_cache *cache);

#endif
