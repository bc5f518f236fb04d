/* kit.h: what the benchmarks share: their options, how they give up, and sequences full of random tokens. */
#ifndef BENCH_KIT_H
#define BENCH_KIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quire/quire.h"
#include "timing.h"

typedef struct bench_options {
    bench_effort effort;
    const char *json; /* NULL: none */
    uint32_t layers, kv_heads, head_dim, query_heads;
    uint32_t batch, context; /* of decode attention; 0: a list of both */
    const char *only;        /* parts of the device benchmark, with commas between; NULL: all */
    uint64_t blocks;         /* of core's arena; 0: a list */
    uint32_t block_tokens;   /* of core's blocks; 0: a list */
    bool full;               /* core: every arena with every block size */
    bool threads;            /* core: only what threads lose to one another */
} bench_options;

/* Says why on stderr and exits with 1. */
_Noreturn void bench_die(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Goes on only when a call succeeded; else says what the library said. */
void bench_must(quire_status status);

void *bench_alloc(size_t bytes);
/* Bytes that this program may use. */
uint64_t bench_memory(void);
/* The same numbers in every run. */
void bench_random_tokens(uint64_t *seed, int32_t *tokens, size_t count);
/* Options of a cache on the host whose KV is as small as can be; the caller sets the rest. `group` must outlive
 * them. */
void bench_bookkeeping(quire_options *options, quire_group *group, uint64_t blocks);
/* Bytes of a block under these options. */
size_t bench_block_bytes(const quire_options *options);
/* Does the bookkeeping of computing the tokens, in steps as long as the cache allows; writes no KV. */
void bench_prefill(quire_cache *cache, quire_seq seq, const int32_t *tokens, size_t count);
/* "4k", "1000", "2M": powers of 1024 where they fit. */
const char *bench_count(char *text, size_t capacity, uint64_t count);

#endif
