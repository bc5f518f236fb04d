/* hash.h: two hashes. Neither decides what is equal: a match compares tokens. */
#ifndef QUIRE_HASH_H
#define QUIRE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* Keyed hash of a block's tokens under a parent, for the prefix table. The key keeps an outsider who picks prompts
 * from aiming at one bucket. Fast for 16..64 bytes. */
uint64_t quire__hash_tokens(uint64_t key, uint64_t parent, const int32_t *tokens, size_t count);
/* 64-bit checksum of a block's bytes, at memory speed: eight independent lanes. Detects corruption, not malice. */
uint64_t quire__checksum(const void *bytes, size_t count);
/* splitmix64: the library's only generator; the state is the caller's. */
uint64_t quire__random(uint64_t *state);
/* From the kernel's random source: what options.hash_key 0 stands for. Never 0. */
uint64_t quire__random_key(void);

#endif
