/* chained.h: the usual way to find a cached prefix, to compare with: a hash of every block that takes in the hash of
 * the block before, and a table from hash to block. It trusts 64 bits where a match compares tokens, and it neither
 * counts references nor keeps any order, so it does less than a match. */
#ifndef BENCH_CHAINED_H
#define BENCH_CHAINED_H

#include <stddef.h>
#include <stdint.h>

typedef struct bench_chained bench_chained;

bench_chained *bench_chained_open(size_t blocks, uint32_t block_tokens);
void bench_chained_close(bench_chained *table);
void bench_chained_insert(bench_chained *table, const int32_t *tokens, size_t count);
/* Writes the blocks of the longest known prefix; returns how many. */
size_t bench_chained_match(const bench_chained *table, const int32_t *tokens, size_t count, int32_t *blocks);

#endif
