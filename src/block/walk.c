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
 * A walk may run without the lock, while others change the tree. It stays within the arrays whatever it reads, since every
 * word that ever was a node's number is one now; and it ends, since each turn takes a block. What it says is true if no
 * block has left since it knew the lock was free (match.c): then it has seen blocks come at most, and a block that comes is
 * linked last, by a store with release that the loads of links here answer (prefix.c).
 *
 * What was measured is in docs/design.md.
 */
#include "block/walk.h"

#include "base/lock.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define WIDE 1
#else
#define WIDE 0
#endif

/* Bytes. The CPU's own prefetcher starts anew at every page; this does not. Where all lies in the second cache a match is 0 to
 * 8 % slower by it, cold or where prompts take turns a tenth faster. The prompt itself has just been written or sent: to fetch it
 * too made the loop a third slower where all was near, and gained nothing. */
enum { AHEAD = 2048 };

static bool plain;

void quire__walk_plain(bool on)
{
    plain = on;
}

QUIRE__UNLOCKED quire__walk quire__walk_from(const quire__prefix *prefix, uint32_t domain, const uint32_t *path, uint32_t blocks)
{
    uint32_t last = blocks > 0 ? path[blocks - 1] : QUIRE__NONE;
    bool in_tree = last == QUIRE__NONE || prefix->pool->nodes[last].kind == QUIRE__KIND_SEALED;
    return (quire__walk){.blocks = blocks,
                         .arriving = UINT32_MAX,
                         .last = last,
                         .next = in_tree ? quire__prefix_newest(prefix, domain, last) : QUIRE__NONE,
                         .missing = QUIRE__NONE};
}

/* Fetches what a stream will come to. Nothing is read, so it may lie past the end. */
QUIRE__UNLOCKED static inline void soon(const void *at)
{
    __builtin_prefetch((const void *)((uintptr_t)at + AHEAD));
}

#if WIDE
/* `count` is a multiple of 16. */
QUIRE__UNLOCKED __attribute__((target("avx2"))) static inline bool equal_wide(const int32_t *a, const int32_t *b, uint32_t count)
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
QUIRE__UNLOCKED static inline bool equal_wide(const int32_t *a, const int32_t *b, uint32_t count)
{
    return quire__tokens_equal(a, b, count);
}
#endif

/* By halves. */
uint32_t quire__walk_held(const quire__node *nodes, const uint32_t *path, uint32_t from, uint32_t count)
{
    if (from == count || nodes[path[count - 1]].refs > 0)
        return count - from;
    uint32_t least = from, most = count - 1; /* the first without one is in [least, most] */
    while (least < most) {
        uint32_t middle = least + (most - least) / 2;
        if (nodes[path[middle]].refs > 0)
            least = middle + 1;
        else
            most = middle;
    }
    return least - from;
}

bool quire__walk_true(const quire__prefix *prefix, uint32_t domain, const int32_t *tokens, const uint32_t *path,
                      const int32_t *slots, uint32_t from, uint32_t to)
{
    const quire__pool *pool = prefix->pool;
    for (uint32_t i = from; i < to; i++) {
        const quire__node *record = &pool->nodes[path[i]];
        if (record->kind != QUIRE__KIND_SEALED || pool->kin[path[i]].parent != (i > 0 ? path[i - 1] : QUIRE__NONE) ||
            pool->kin[path[i]].domain != domain || (int32_t)record->slot[QUIRE_TIER_DEVICE] != slots[i] ||
            !quire__tokens_equal(quire__pool_tokens(pool, path[i]), tokens + (size_t)i * pool->block_tokens,
                                 pool->block_tokens))
            return false;
    }
    return true;
}

/* A prediction in place of a load: the compiler must not see that the two are equal. */
QUIRE__UNLOCKED static inline uint32_t predicted(uint32_t node)
{
#if defined(__GNUC__)
    __asm__("" : "+r"(node));
#endif
    return node;
}

/* One block, whatever it needs. Returns what to compare next. */
QUIRE__UNLOCKED static uint32_t step(const quire__prefix *prefix, uint32_t domain, const int32_t *prompt, uint32_t node,
                     quire__walk *walk, uint32_t *path, int32_t *slots)
{
    const quire__pool *pool = prefix->pool;
    if (!quire__tokens_equal(quire__pool_tokens(pool, node), prompt, pool->block_tokens))
        node = quire__prefix_lookup(prefix, domain, walk->last, prompt);
    if (node == QUIRE__NONE)
        return QUIRE__NONE;
    const quire__node *record = &pool->nodes[node];
    if (record->slot[QUIRE_TIER_DEVICE] == QUIRE__NONE) {
        walk->missing = node;
        return QUIRE__NONE;
    }
    if (record->state[QUIRE_TIER_DEVICE] == QUIRE__ARRIVING && walk->arriving == UINT32_MAX)
        walk->arriving = walk->blocks;
    path[walk->blocks] = node;
    slots[walk->blocks] = (int32_t)record->slot[QUIRE_TIER_DEVICE];
    walk->blocks++;
    walk->last = node;
    return quire__pool_link(&record->child);
}

/* `block_tokens` and `wide` are constants wherever this is inlined. */
QUIRE__UNLOCKED static inline __attribute__((always_inline)) void walk_on(const quire__prefix *prefix, uint32_t domain,
                                                          const int32_t *tokens, uint32_t limit, quire__walk *walk,
                                                          uint32_t *path, int32_t *slots, uint32_t block_tokens,
                                                          bool wide)
{
    const quire__node *nodes = prefix->pool->nodes; /* in locals: the stores below could be to anything */
    const int32_t *all_tokens = prefix->pool->tokens;
    uint32_t at = walk->blocks, next = walk->next;

    while (at < limit && next != QUIRE__NONE) {
        const int32_t *prompt = tokens + (size_t)at * block_tokens, *cached = all_tokens + (size_t)next * block_tokens;
        const quire__node *record = &nodes[next];
        uint32_t last = walk->last;
        bool fits;
        /* A run of consecutive nodes whose bytes are here. */
        while ((fits = (wide ? equal_wide(cached, prompt, block_tokens)
                             : quire__tokens_equal(cached, prompt, block_tokens)) &&
                       record->state[QUIRE_TIER_DEVICE] == QUIRE__RESIDENT)) {
            soon(cached);
            soon(record);
            path[at] = last = next;
            slots[at++] = (int32_t)record->slot[QUIRE_TIER_DEVICE];
            uint32_t child = quire__pool_link(&record->child);
            next = predicted(last + 1);
            if (child != next || at == limit) {
                next = child;
                break;
            }
            record++;
            cached += block_tokens;
            prompt += block_tokens;
        }
        walk->blocks = at;
        walk->last = last;
        if (!fits) {
            next = step(prefix, domain, tokens + (size_t)at * block_tokens, next, walk, path, slots);
            at = walk->blocks;
        }
    }
    walk->next = next;
}

QUIRE__UNLOCKED static void walk_any(const quire__prefix *prefix, uint32_t domain, const int32_t *tokens, uint32_t limit,
                     quire__walk *walk, uint32_t *path, int32_t *slots)
{
    walk_on(prefix, domain, tokens, limit, walk, path, slots, prefix->pool->block_tokens, false);
}

#if WIDE
QUIRE__UNLOCKED __attribute__((target("avx2"))) static void walk_wide_16(const quire__prefix *prefix, uint32_t domain,
                                                         const int32_t *tokens, uint32_t limit, quire__walk *walk,
                                                         uint32_t *path, int32_t *slots)
{
    walk_on(prefix, domain, tokens, limit, walk, path, slots, 16, true);
}

QUIRE__UNLOCKED __attribute__((target("avx2"))) static void walk_wide(const quire__prefix *prefix, uint32_t domain,
                                                      const int32_t *tokens, uint32_t limit, quire__walk *walk,
                                                      uint32_t *path, int32_t *slots)
{
    walk_on(prefix, domain, tokens, limit, walk, path, slots, prefix->pool->block_tokens, true);
}
#endif

QUIRE__UNLOCKED void quire__walk_on(const quire__prefix *prefix, uint32_t domain, const int32_t *tokens, uint32_t limit,
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
