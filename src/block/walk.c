/* walk.c: the hottest loop of all: a hit of 128k tokens walks 8,192 blocks of 16.
 *
 * Per block it does what cannot be left out: compare the tokens, read the record, note node and slot. Two things make it
 * run at the speed of memory:
 *
 *  - Nodes are mostly consecutive (pool.c), so the newest child of node n is mostly n + 1. The loop says so where it is:
 *    the CPU then predicts a branch instead of waiting for the load of the link, and the loads of several blocks are
 *    under way at once.
 *  - The comparison is compiled once for each block size that matters and, on x86, for AVX2 as well, chosen when first
 *    used. Blocks of 16 tokens are one cache line: two loads, two xors, one test.
 *
 * What was measured is in docs/design.md.
 */
#include "block/walk.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define WIDE 1
#else
#define WIDE 0
#endif

static bool plain;

void quire__walk_plain(bool on)
{
    plain = on;
}

quire__walk quire__walk_from_root(const quire__prefix *prefix, uint32_t domain)
{
    return (quire__walk){.arriving = UINT32_MAX,
                         .last = QUIRE__NONE,
                         .next = quire__prefix_newest(prefix, domain, QUIRE__NONE),
                         .missing = QUIRE__NONE};
}

#if WIDE
/* `count` is a multiple of 16. */
__attribute__((target("avx2"))) static inline bool equal_wide(const int32_t *a, const int32_t *b, uint32_t count)
{
    for (; count > 0; count -= 16, a += 16, b += 16) {
        __m256i low = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(const void *)a),
                                       _mm256_loadu_si256((const __m256i *)(const void *)b));
        __m256i high = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(const void *)(a + 8)),
                                        _mm256_loadu_si256((const __m256i *)(const void *)(b + 8)));
        __m256i differ = _mm256_or_si256(low, high);
        if (!_mm256_testz_si256(differ, differ))
            return false;
    }
    return true;
}
#else
static inline bool equal_wide(const int32_t *a, const int32_t *b, uint32_t count)
{
    return quire__tokens_equal(a, b, count);
}
#endif

/* `block_tokens` and `wide` are constants wherever this is inlined. */
static inline __attribute__((always_inline)) void walk_on(const quire__prefix *prefix, uint32_t domain,
                                                          const int32_t *tokens, uint32_t limit, quire__walk *walk,
                                                          uint32_t *path, int32_t *slots, uint32_t block_tokens,
                                                          bool wide)
{
    const quire__node *nodes = prefix->pool->nodes; /* in locals: the stores below could be to anything */
    const int32_t *all_tokens = prefix->pool->tokens;
    uint32_t at = walk->blocks, held = walk->held, arriving = walk->arriving, last = walk->last, next = walk->next;

    for (; at < limit && next != QUIRE__NONE; at++) {
        const int32_t *prompt = tokens + (size_t)at * block_tokens, *cached = all_tokens + (size_t)next * block_tokens;
        uint32_t node = next;
        if (!(wide ? equal_wide(cached, prompt, block_tokens) : quire__tokens_equal(cached, prompt, block_tokens))) {
            node = quire__prefix_lookup(prefix, domain, last, prompt);
            if (node == QUIRE__NONE) {
                next = QUIRE__NONE;
                break;
            }
        }
        const quire__node *record = &nodes[node];
        if (record->slot[QUIRE_TIER_DEVICE] == QUIRE__NONE) {
            walk->missing = node;
            next = QUIRE__NONE;
            break;
        }
        path[at] = node;
        slots[at] = (int32_t)record->slot[QUIRE_TIER_DEVICE];
        held += record->refs > 0;
        if (record->state[QUIRE_TIER_DEVICE] == QUIRE__ARRIVING && arriving == UINT32_MAX)
            arriving = at;
        last = node;
        next = record->child;
        if (next == node + 1) {
            next = node + 1;
            __asm__("" : "+r"(next)); /* a prediction, not a load: the compiler would see that they are equal */
        }
    }
    *walk = (quire__walk){at, held, arriving, last, next, walk->missing};
}

static void walk_any(const quire__prefix *prefix, uint32_t domain, const int32_t *tokens, uint32_t limit,
                     quire__walk *walk, uint32_t *path, int32_t *slots)
{
    walk_on(prefix, domain, tokens, limit, walk, path, slots, prefix->pool->block_tokens, false);
}

#if WIDE
__attribute__((target("avx2"))) static void walk_wide_16(const quire__prefix *prefix, uint32_t domain,
                                                         const int32_t *tokens, uint32_t limit, quire__walk *walk,
                                                         uint32_t *path, int32_t *slots)
{
    walk_on(prefix, domain, tokens, limit, walk, path, slots, 16, true);
}

__attribute__((target("avx2"))) static void walk_wide(const quire__prefix *prefix, uint32_t domain,
                                                      const int32_t *tokens, uint32_t limit, quire__walk *walk,
                                                      uint32_t *path, int32_t *slots)
{
    walk_on(prefix, domain, tokens, limit, walk, path, slots, prefix->pool->block_tokens, true);
}
#endif

void quire__walk_on(const quire__prefix *prefix, uint32_t domain, const int32_t *tokens, uint32_t limit,
                    quire__walk *walk, uint32_t *path, int32_t *slots)
{
#if WIDE
    if (prefix->pool->block_tokens % 16 == 0 && !plain && __builtin_cpu_supports("avx2")) {
        if (prefix->pool->block_tokens == 16)
            walk_wide_16(prefix, domain, tokens, limit, walk, path, slots);
        else
            walk_wide(prefix, domain, tokens, limit, walk, path, slots);
        return;
    }
#endif
    walk_any(prefix, domain, tokens, limit, walk, path, slots);
}
