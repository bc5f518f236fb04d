/* prefix.c: the prefix tree.
 *
 *    domain 42 --child--> [the quick] --child--> [brown fox] --older--> [red fox] --older--> none
 *                                                    ^                      |
 *                                                    +------- newer --------+
 *
 * A node's tokens and its parent say which prompt prefix it is, and a match compares both: two different prompts never
 * meet in one node, whatever the hash does. A parent names its newest child, and that one is compared first; only its
 * other children are in the hash table. So a prompt that nothing branches off never touches the table: neither when it is
 * matched, nor when it is linked or goes. (A table of all nodes cost a cache miss a block in each: 70 ns of the 80 that a
 * commit took.) The hash only says where to look. Its key keeps who chooses prompts from aiming at one bucket.
 *
 * Invariants
 *  1. Exactly the sealed nodes are linked among their parent's children (or their domain's, when they begin a prompt),
 *     newest first. Exactly those of them that have a newer sibling are in the table, in the bucket of their hash.
 *  2. Siblings have different tokens. Who links a node has looked for its equal first.
 *  3. A node's parent is linked for as long as the node is. (The caller's: a node goes before its parent.)
 *  4. A domain exists while it has a sequence or a root. It is in the idle list when it has roots and no sequence, the
 *     one that fell idle first at the old end.
 */
#include "block/prefix.h"

#include "base/check.h"
#include "base/hash.h"
#include "base/status.h"

static uint32_t power_of_two_from(uint32_t least)
{
    uint32_t power = 1;
    while (power < least && power < UINT32_C(1) << 31)
        power <<= 1;
    return power;
}

static quire_status open_buckets(const quire__allocator *allocator, uint32_t least, const char *what,
                                 uint32_t **buckets, uint32_t *mask)
{
    void *memory = NULL;
    uint32_t count = power_of_two_from(least);
    QUIRE__TRY(quire__memory_take(allocator, count, sizeof(uint32_t), what, &memory));
    memset(memory, 0xff, (size_t)count * sizeof(uint32_t)); /* QUIRE__NONE */
    *buckets = memory;
    *mask = count - 1;
    return QUIRE_OK;
}

quire_status quire__prefix_open(quire__prefix *prefix, const quire__allocator *allocator, quire__pool *pool,
                                uint32_t max_domains, uint64_t key)
{
    prefix->pool = pool;
    prefix->key = key;
    prefix->max_domains = max_domains;

    void *domains = NULL;
    quire_status status = quire__memory_take(allocator, (size_t)max_domains + 1, sizeof(quire__domain), "domains",
                                             &domains);
    if (status != QUIRE_OK)
        goto cleanup;
    prefix->domains = domains;
    status = open_buckets(allocator, max_domains, "the domain table", &prefix->domain_buckets, &prefix->domain_mask);
    if (status != QUIRE_OK)
        goto cleanup;
    /* Half as many as nodes: mostly few nodes have a newer sibling, and if all had, a bucket would have two. */
    status = open_buckets(allocator, (pool->node_count + 1) / 2, "the prefix table", &prefix->buckets, &prefix->mask);
    if (status != QUIRE_OK)
        goto cleanup;

    for (uint32_t i = 0; i < max_domains; i++) {
        prefix->domains[i].child = QUIRE__NONE;
        prefix->domains[i].chain = i + 1 < max_domains ? i + 1 : QUIRE__NONE;
    }
    prefix->free_domain = 0;
    prefix->domains[max_domains].idle_older = prefix->domains[max_domains].idle_newer = max_domains;

cleanup:
    if (status != QUIRE_OK)
        quire__prefix_close(prefix, allocator);
    return status;
}

void quire__prefix_close(quire__prefix *prefix, const quire__allocator *allocator)
{
    quire__memory_give(allocator, prefix->buckets);
    quire__memory_give(allocator, prefix->domain_buckets);
    quire__memory_give(allocator, prefix->domains);
    *prefix = (quire__prefix){0};
}

/* ---- domains ------------------------------------------------------------------------------------------------- */

static uint32_t *domain_bucket(const quire__prefix *prefix, uint64_t value)
{
    uint64_t hash = quire__hash_tokens(prefix->key, value, NULL, 0);
    return &prefix->domain_buckets[hash & prefix->domain_mask];
}

static void idle_insert(quire__prefix *prefix, uint32_t domain)
{
    quire__domain *head = &prefix->domains[prefix->max_domains];
    prefix->domains[domain].idle_newer = prefix->max_domains;
    prefix->domains[domain].idle_older = head->idle_older;
    prefix->domains[head->idle_older].idle_newer = domain;
    head->idle_older = domain;
}

static void idle_remove(quire__prefix *prefix, uint32_t domain)
{
    const quire__domain *record = &prefix->domains[domain];
    prefix->domains[record->idle_newer].idle_older = record->idle_older;
    prefix->domains[record->idle_older].idle_newer = record->idle_newer;
}

static void forget(quire__prefix *prefix, uint32_t domain)
{
    quire__domain *record = &prefix->domains[domain];
    uint32_t *at = domain_bucket(prefix, record->value);
    while (*at != domain)
        at = &prefix->domains[*at].chain;
    *at = record->chain;
    record->chain = prefix->free_domain;
    prefix->free_domain = domain;
    prefix->domain_count--;
    prefix->pool->departures++; /* its number may become another's */
}

uint32_t quire__prefix_domain_find(const quire__prefix *prefix, uint64_t value)
{
    uint32_t domain = *domain_bucket(prefix, value);
    while (domain != QUIRE__NONE && prefix->domains[domain].value != value)
        domain = prefix->domains[domain].chain;
    return domain;
}

uint32_t quire__prefix_domain_enter(quire__prefix *prefix, uint64_t value)
{
    uint32_t domain = quire__prefix_domain_find(prefix, value);
    if (domain == QUIRE__NONE) {
        domain = prefix->free_domain;
        if (domain == QUIRE__NONE)
            return QUIRE__NONE;
        quire__domain *record = &prefix->domains[domain];
        prefix->free_domain = record->chain;
        uint32_t *bucket = domain_bucket(prefix, value);
        *record = (quire__domain){.value = value, .child = QUIRE__NONE, .chain = *bucket};
        *bucket = domain;
        prefix->domain_count++;
    } else if (prefix->domains[domain].sequences == 0) {
        idle_remove(prefix, domain);
    }
    prefix->domains[domain].sequences++;
    return domain;
}

void quire__prefix_domain_leave(quire__prefix *prefix, uint32_t domain)
{
    quire__domain *record = &prefix->domains[domain];
    QUIRE__ASSERT(record->sequences > 0);
    if (--record->sequences > 0)
        return;
    if (record->roots > 0)
        idle_insert(prefix, domain);
    else
        forget(prefix, domain);
}

void quire__prefix_domain_share(quire__prefix *prefix, uint32_t domain)
{
    QUIRE__ASSERT(prefix->domains[domain].sequences > 0);
    prefix->domains[domain].sequences++;
}

uint32_t quire__prefix_domain_idle(const quire__prefix *prefix)
{
    uint32_t oldest = prefix->domains[prefix->max_domains].idle_newer;
    return oldest == prefix->max_domains ? QUIRE__NONE : oldest;
}

/* ---- nodes --------------------------------------------------------------------------------------------------- */

QUIRE__UNLOCKED static uint32_t *bucket_of(const quire__prefix *prefix, uint32_t domain, uint32_t parent, const int32_t *tokens)
{
    uint64_t from = parent == QUIRE__NONE ? UINT64_C(1) << 32 | domain : parent;
    uint64_t hash = quire__hash_tokens(prefix->key, from, tokens, prefix->pool->block_tokens);
    return &prefix->buckets[hash & prefix->mask];
}

static uint32_t *own_bucket(const quire__prefix *prefix, uint32_t node)
{
    const quire__kin *own = &prefix->pool->kin[node];
    return bucket_of(prefix, own->domain, own->parent, quire__pool_tokens(prefix->pool, node));
}

static void table_insert(quire__prefix *prefix, uint32_t node)
{
    uint32_t *bucket = own_bucket(prefix, node);
    prefix->pool->kin[node].chain = *bucket;
    quire__pool_set_link(bucket, node);
}

static void table_remove(quire__prefix *prefix, uint32_t node)
{
    quire__kin *kin = prefix->pool->kin;
    uint32_t *at = own_bucket(prefix, node);
    while (*at != node)
        at = &kin[*at].chain;
    *at = kin[node].chain;
}

QUIRE__UNLOCKED uint32_t quire__prefix_lookup(const quire__prefix *prefix, uint32_t domain, uint32_t parent,
                                              const int32_t *tokens)
{
    const quire__pool *pool = prefix->pool;
    uint32_t newest = quire__prefix_newest(prefix, domain, parent);
    if (newest == QUIRE__NONE || pool->kin[newest].older == QUIRE__NONE)
        return QUIRE__NONE;
    uint32_t node = quire__pool_link(bucket_of(prefix, domain, parent, tokens));
    for (; node != QUIRE__NONE; node = quire__pool_link(&pool->kin[node].chain)) {
        const quire__kin *kin = &pool->kin[node];
        if (kin->parent == parent && kin->domain == domain &&
            quire__tokens_equal(quire__pool_tokens(pool, node), tokens, pool->block_tokens))
            break;
    }
    return node;
}

uint32_t quire__prefix_nearest(const quire__prefix *prefix, uint32_t domain, uint32_t parent, const int32_t *tokens,
                               uint32_t count, uint32_t *common)
{
    const quire__pool *pool = prefix->pool;
    uint32_t best = QUIRE__NONE, longest = 0;
    uint32_t node = quire__prefix_newest(prefix, domain, parent);
    for (int looks = 0; node != QUIRE__NONE && looks < QUIRE__PREFIX_NEAREST; looks++) {
        const int32_t *theirs = quire__pool_tokens(pool, node);
        uint32_t same = 0;
        while (same < count && theirs[same] == tokens[same])
            same++;
        if (same > longest) {
            longest = same;
            best = node;
        }
        node = pool->kin[node].older;
    }
    *common = longest;
    return best;
}

static inline uint32_t rotate(uint32_t x, int bits)
{
    return x << bits | x >> (32 - bits);
}

/* Bijective in each token, so one that changes always shows. Four lanes: what is linked was just written, and this must
 * not cost more than reading it again. The sum after the xor: else what tokens have in common would cancel out after 32
 * rounds, which have rotated it by every distance, and blocks of 128 counting tokens would all have one stamp. */
static inline uint32_t stamp(const int32_t *tokens, uint32_t count)
{
    typedef uint32_t lanes __attribute__((vector_size(16)));
    lanes sum = {1, 2, 3, 4};
    uint32_t rest = 0;
    for (; count >= 4; count -= 4, tokens += 4) {
        lanes next;
        memcpy(&next, tokens, sizeof(next));
        sum = (sum << 5 | sum >> 27) ^ next;
        sum += sum << 3;
    }
    for (; count > 0; count--)
        rest = rotate(rest, 5) ^ (uint32_t)*tokens++;
    return (sum[0] ^ rotate(sum[1], 11)) + (sum[2] ^ rotate(sum[3], 19)) + rest;
}

/* Upper half of the product: every bit of what is above, and of the node's own, decides on its lowest bits. */
static inline uint32_t chained(uint32_t above, uint32_t own)
{
    return (uint32_t)((above ^ own) * UINT64_C(0x9e3779b97f4a7c15) >> 32);
}

static uint32_t stamp_above(const quire__prefix *prefix, uint32_t domain, uint32_t parent)
{
    if (parent != QUIRE__NONE)
        return prefix->pool->kin[parent].stamp;
    uint64_t value = prefix->domains[domain].value;
    return chained((uint32_t)(value >> 32), (uint32_t)value);
}

uint32_t quire__prefix_stamp(const quire__prefix *prefix, uint32_t node)
{
    const quire__kin *own = &prefix->pool->kin[node];
    return chained(stamp_above(prefix, own->domain, own->parent),
                   stamp(quire__pool_tokens(prefix->pool, node), prefix->pool->block_tokens));
}

void quire__prefix_link(quire__prefix *prefix, uint32_t node, uint32_t domain, uint32_t parent)
{
    quire__node *nodes = prefix->pool->nodes;
    quire__kin *kin = prefix->pool->kin, *own = &kin[node];
    uint32_t *head = parent == QUIRE__NONE ? &prefix->domains[domain].child : &nodes[parent].child;
    QUIRE__ASSERT(nodes[node].kind == QUIRE__KIND_SEALED && nodes[node].child == QUIRE__NONE);

    *own = (quire__kin){
        .parent = parent,
        .older = *head,
        .newer = QUIRE__NONE,
        .chain = QUIRE__NONE,
        .depth = parent == QUIRE__NONE ? 0 : kin[parent].depth + 1,
        .domain = domain,
        .generation = own->generation,
    };
    own->stamp = quire__prefix_stamp(prefix, node);
    if (*head != QUIRE__NONE) {
        kin[*head].newer = node;
        table_insert(prefix, *head);
    }
    quire__pool_set_link(head, node);
    if (parent == QUIRE__NONE)
        prefix->domains[domain].roots++;
}

void quire__prefix_link_path(quire__prefix *prefix, const uint32_t *path, uint32_t count, uint32_t domain,
                             uint32_t parent)
{
    quire__node *nodes = prefix->pool->nodes;
    quire__kin *kin = prefix->pool->kin;
    quire__prefix_link(prefix, path[0], domain, parent);
    const int32_t *tokens = prefix->pool->tokens;
    const uint32_t block_tokens = prefix->pool->block_tokens;
    uint32_t depth = kin[path[0]].depth, above = path[0], stamped = kin[path[0]].stamp;
    for (uint32_t i = 1; i < count; i++) {
        uint32_t node = path[i];
        QUIRE__ASSERT(nodes[node].kind == QUIRE__KIND_SEALED && nodes[node].child == QUIRE__NONE);
        kin[above].children[QUIRE_TIER_DEVICE] = 1;
        stamped = chained(stamped, stamp(tokens + (size_t)node * block_tokens, block_tokens));
        kin[node] = (quire__kin){
            .parent = above,
            .older = QUIRE__NONE,
            .newer = QUIRE__NONE,
            .chain = QUIRE__NONE,
            .depth = depth + i,
            .domain = domain,
            .generation = kin[node].generation,
            .stamp = stamped,
        };
        quire__pool_set_link(&nodes[above].child, node);
        above = node;
    }
}

void quire__prefix_unlink(quire__prefix *prefix, uint32_t node)
{
    quire__node *nodes = prefix->pool->nodes;
    quire__kin *kin = prefix->pool->kin, *own = &kin[node];
    uint32_t domain = own->domain;
    QUIRE__ASSERT(nodes[node].child == QUIRE__NONE);

    prefix->pool->departures++;
    if (own->newer != QUIRE__NONE) {
        table_remove(prefix, node);
        kin[own->newer].older = own->older;
        if (own->older != QUIRE__NONE)
            kin[own->older].newer = own->newer;
    } else {
        if (own->older != QUIRE__NONE) {
            table_remove(prefix, own->older); /* the newest now */
            kin[own->older].newer = QUIRE__NONE;
        }
        *(own->parent != QUIRE__NONE ? &nodes[own->parent].child : &prefix->domains[domain].child) = own->older;
    }

    if (own->parent == QUIRE__NONE && --prefix->domains[domain].roots == 0 &&
        prefix->domains[domain].sequences == 0) {
        idle_remove(prefix, domain);
        forget(prefix, domain);
    }
    own->parent = own->older = own->newer = own->chain = QUIRE__NONE;
}

bool quire__prefix_table_right(const quire__prefix *prefix, uint32_t nodes)
{
    const quire__pool *pool = prefix->pool;
    uint32_t seen = 0;
    for (uint32_t i = 0; i <= prefix->mask; i++) {
        for (uint32_t node = prefix->buckets[i]; node != QUIRE__NONE; node = pool->kin[node].chain) {
            if (node >= pool->node_count || seen++ == nodes || pool->nodes[node].kind != QUIRE__KIND_SEALED ||
                pool->kin[node].newer == QUIRE__NONE || own_bucket(prefix, node) != &prefix->buckets[i])
                return false;
        }
    }
    return seen == nodes;
}
