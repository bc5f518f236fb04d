#include "support/naive_lru.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROOT = 0, NONE = -1, LOOKS = 8, LONGEST_PATH = 1 << 17 };

typedef struct node {
    int32_t *tokens;
    int parent, refs, children;
    int next; /* in its bucket */
    int newest, older, newer; /* the newest child; siblings */
    uint64_t stamp;
} node;

typedef struct entry {
    uint64_t stamp;
    int node;
} entry;

struct naive_lru {
    uint32_t block_tokens, capacity, used;
    node *nodes;
    int node_count, node_room, unused; /* unused: a list through next */
    int *buckets;
    uint32_t mask;
    entry *heap; /* also of stamps that are no longer true */
    size_t heap_count, heap_room;
    uint64_t clock, evictions;
    int *path;
};

static void *must(void *memory)
{
    if (!memory) {
        fputs("naive_lru: no memory\n", stderr);
        abort();
    }
    return memory;
}

/* ---- the heap ------------------------------------------------------------------------------------------ */

static void push(naive_lru *cache, uint64_t stamp, int node)
{
    if (cache->heap_count == cache->heap_room) {
        cache->heap_room = 2 * cache->heap_room + 1024;
        cache->heap = must(realloc(cache->heap, cache->heap_room * sizeof *cache->heap));
    }
    size_t at = cache->heap_count++;
    for (; at > 0 && cache->heap[(at - 1) / 2].stamp > stamp; at = (at - 1) / 2)
        cache->heap[at] = cache->heap[(at - 1) / 2];
    cache->heap[at] = (entry){stamp, node};
}

static entry pop(naive_lru *cache)
{
    entry top = cache->heap[0], last = cache->heap[--cache->heap_count];
    size_t at = 0, child;
    while ((child = 2 * at + 1) < cache->heap_count) {
        if (child + 1 < cache->heap_count && cache->heap[child + 1].stamp < cache->heap[child].stamp)
            child++;
        if (cache->heap[child].stamp >= last.stamp)
            break;
        cache->heap[at] = cache->heap[child];
        at = child;
    }
    cache->heap[at] = last;
    return top;
}

/* ---- the tree ------------------------------------------------------------------------------------------ */

static int *bucket_of(naive_lru *cache, int parent, const int32_t *tokens)
{
    uint64_t hash = (uint64_t)parent * 0x100000001b3u + 0xcbf29ce484222325u;
    for (uint32_t i = 0; i < cache->block_tokens; i++)
        hash = (hash ^ (uint32_t)tokens[i]) * 0x100000001b3u;
    return &cache->buckets[(hash ^ hash >> 29) & cache->mask];
}

static bool same(const naive_lru *cache, int node, const int32_t *tokens)
{
    return memcmp(cache->nodes[node].tokens, tokens, cache->block_tokens * sizeof *tokens) == 0;
}

static int child_of(naive_lru *cache, int parent, const int32_t *tokens)
{
    int node = *bucket_of(cache, parent, tokens);
    while (node != NONE && (cache->nodes[node].parent != parent || !same(cache, node, tokens)))
        node = cache->nodes[node].next;
    return node;
}

static int add(naive_lru *cache, int parent, const int32_t *tokens)
{
    int at = cache->unused;
    if (at != NONE) {
        cache->unused = cache->nodes[at].next;
    } else {
        if (cache->node_count == cache->node_room) {
            cache->node_room *= 2;
            cache->nodes = must(realloc(cache->nodes, (size_t)cache->node_room * sizeof *cache->nodes));
        }
        at = cache->node_count++;
        cache->nodes[at].tokens = must(malloc(cache->block_tokens * sizeof(int32_t)));
    }
    node *all = cache->nodes, *n = &all[at];
    memcpy(n->tokens, tokens, cache->block_tokens * sizeof *tokens);
    int *bucket = bucket_of(cache, parent, tokens);
    *n = (node){.tokens = n->tokens,
                .parent = parent,
                .refs = 1,
                .newest = NONE,
                .newer = NONE,
                .older = all[parent].newest,
                .next = *bucket};
    *bucket = at;
    if (n->older != NONE)
        all[n->older].newer = at;
    all[parent].newest = at;
    all[parent].children++;
    return at;
}

static void evict(naive_lru *cache)
{
    for (;;) {
        if (cache->heap_count == 0)
            must(NULL);
        entry oldest = pop(cache);
        node *n = &cache->nodes[oldest.node];
        if (n->refs > 0 || n->stamp != oldest.stamp)
            continue;
        if (n->children > 0) {
            fputs("naive_lru: the oldest is no leaf\n", stderr);
            abort();
        }
        int *at = bucket_of(cache, n->parent, n->tokens);
        while (*at != oldest.node)
            at = &cache->nodes[*at].next;
        *at = n->next;
        if (n->older != NONE)
            cache->nodes[n->older].newer = n->newer;
        if (n->newer != NONE)
            cache->nodes[n->newer].older = n->older;
        else
            cache->nodes[n->parent].newest = n->older;
        cache->nodes[n->parent].children--;
        n->stamp = 0;
        n->next = cache->unused;
        cache->unused = oldest.node;
        cache->used--;
        cache->evictions++;
        return;
    }
}

static void release(naive_lru *cache, int node)
{
    if (--cache->nodes[node].refs > 0)
        return;
    cache->nodes[node].stamp = ++cache->clock;
    push(cache, cache->nodes[node].stamp, node);
}

/* The child that shares the longest start, of the newest ones. */
static int nearest(const naive_lru *cache, int parent, const int32_t *tokens, uint32_t most, uint32_t *common)
{
    int best = NONE;
    *common = 0;
    int node = cache->nodes[parent].newest;
    for (int looks = 0; node != NONE && looks < LOOKS; looks++, node = cache->nodes[node].older) {
        uint32_t same = 0;
        while (same < most && cache->nodes[node].tokens[same] == tokens[same])
            same++;
        if (same > *common) {
            *common = same;
            best = node;
        }
    }
    return best;
}

/* ---- a request ----------------------------------------------------------------------------------------- */

static uint32_t up(uint32_t tokens, uint32_t block)
{
    return (tokens + block - 1) / block;
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Shares part of a block where there is room for its copy beside it; if there is not once the output is
 * counted too, the block has been touched all the same. */
static int take_partial(naive_lru *cache, const int32_t *tokens, uint32_t input, uint32_t total,
                        uint32_t full, int parent, uint32_t *common)
{
    uint32_t bt = cache->block_tokens;
    int source = NONE;
    if (input - 1 > full * bt && up(input, bt) < cache->capacity)
        source =
            nearest(cache, parent, tokens + (size_t)full * bt, smaller(input - 1 - full * bt, bt), common);
    if (source == NONE)
        return NONE;
    cache->nodes[source].refs++;
    if (total <= full * bt + *common || up(total, bt) < cache->capacity)
        return source;
    release(cache, source);
    *common = 0;
    return NONE;
}

naive_served naive_lru_serve(naive_lru *cache, const int32_t *tokens, uint32_t input, uint32_t total)
{
    uint32_t bt = cache->block_tokens, count = 0, common = 0;
    int node = ROOT;
    for (; count < (input - 1) / bt; count++) {
        int child = child_of(cache, node, tokens + (size_t)count * bt);
        if (child == NONE)
            break;
        cache->nodes[child].refs++;
        cache->path[count] = node = child;
    }
    uint32_t full = count;
    int source = take_partial(cache, tokens, input, total, full, node, &common);
    naive_served served = {full * bt + common, common};

    if (total > served.hit) {
        uint32_t need = up(total, bt) - full;
        for (uint32_t i = 0; i < need; i++) {
            if (cache->used == cache->capacity)
                evict(cache);
            cache->used++;
        }
        for (; count < total / bt; count++) {
            int twin = child_of(cache, node, tokens + (size_t)count * bt);
            if (twin == NONE) {
                twin = add(cache, node, tokens + (size_t)count * bt);
            } else {
                cache->nodes[twin].refs++;
                cache->used--;
            }
            cache->path[count] = node = twin;
        }
        cache->used -= up(total, bt) - total / bt; /* the last block, not full: gone at the close */
    }
    if (source != NONE)
        release(cache, source);
    while (count-- > 0)
        release(cache, cache->path[count]);
    return served;
}

naive_lru *naive_lru_open(uint32_t block_tokens, uint32_t capacity)
{
    naive_lru *cache = must(calloc(1, sizeof *cache));
    uint32_t buckets = 1;
    while (buckets < 2 * capacity)
        buckets *= 2;
    cache->block_tokens = block_tokens;
    cache->capacity = capacity;
    cache->mask = buckets - 1;
    cache->buckets = must(malloc(buckets * sizeof(int)));
    memset(cache->buckets, 0xff, buckets * sizeof(int));
    cache->node_room = 1024;
    cache->nodes = must(calloc((size_t)cache->node_room, sizeof *cache->nodes));
    cache->nodes[ROOT] = (node){.newest = NONE};
    cache->node_count = 1;
    cache->unused = NONE;
    cache->path = must(malloc(LONGEST_PATH * sizeof(int)));
    return cache;
}

void naive_lru_close(naive_lru *cache)
{
    for (int i = 0; i < cache->node_count; i++)
        free(cache->nodes[i].tokens);
    free(cache->nodes);
    free(cache->buckets);
    free(cache->heap);
    free(cache->path);
    free(cache);
}

uint64_t naive_lru_evictions(const naive_lru *cache)
{
    return cache->evictions;
}
