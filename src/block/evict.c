#include "block/evict.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "block/evict_aged.h"
#include "block/evict_learned.h"
#include "block/evict_lru.h"
#include "block/evict_priority.h"
#include "block/evict_s3fifo.h"
#include "block/evict_slru.h"

static const quire_policy *const policies[] = {
    &quire__evict_learned, &quire__evict_lru, &quire__evict_slru, &quire__evict_s3fifo,
    &quire__evict_lfu, &quire__evict_gdsf, &quire__evict_priority};
enum { POLICIES = sizeof(policies) / sizeof(policies[0]) };

static quire_status check_custom(const quire_policy *policy)
{
    if (policy->size != sizeof(*policy))
        return quire__fail(QUIRE_EINVAL, "quire_policy.size is %zu; set it to sizeof(quire_policy), %zu", policy->size,
                           sizeof(*policy));
    if (!policy->name || !policy->open || !policy->close || !policy->insert || !policy->insert_below || !policy->take ||
        !policy->drop || !policy->victim || !policy->count || !policy->each)
        return quire__fail(QUIRE_EINVAL, "a custom eviction policy lacks a function: only sealed, worth_offload, "
                           "kept and coldest may be NULL");
    return QUIRE_OK;
}

static quire_status find(const char *name, const quire_policy **policy)
{
    char known[256] = "";
    for (size_t i = 0; i < POLICIES; i++) {
        if (name && strcmp(name, policies[i]->name) == 0) {
            *policy = policies[i];
            return QUIRE_OK;
        }
        size_t at = strlen(known);
        snprintf(known + at, sizeof(known) - at, "%s\"%s\"", i ? ", " : "", policies[i]->name);
    }
    return quire__fail(QUIRE_EINVAL, "no eviction policy \"%s\": known are %s", name ? name : "", known);
}

quire_status quire__evict_open(quire__evict *evict, const quire__allocator *allocator, const char *policy,
                               const quire_policy *custom, const quire_policy_setup *setup)
{
    const quire_policy *chosen = custom;
    QUIRE__TRY(custom ? check_custom(custom) : find(policy, &chosen));
    quire_policy_setup own = *setup;
    own.size = sizeof(own);
    own.alloc = allocator->alloc;
    own.free = allocator->free;
    own.alloc_user = allocator->user;
    evict->policy = chosen;
    evict->use = (quire_policy_use){.size = sizeof(evict->use)};
    QUIRE__TRY(quire__memory_take(allocator, 1, chosen->state_bytes, "an eviction policy", &evict->state));
    return chosen->open(evict->state, &own);
}

void quire__evict_close(quire__evict *evict, const quire__allocator *allocator)
{
    if (evict->state)
        evict->policy->close(evict->state);
    quire__memory_give(allocator, evict->state);
    *evict = (quire__evict){0};
}

void quire__evict_context(quire__evict *evict, const quire_policy_use *use)
{
    uint64_t now = evict->use.now;
    evict->use = use ? *use : (quire_policy_use){0};
    evict->use.size = sizeof(evict->use);
    evict->use.now = now;
}

void quire__evict_insert_path(quire__evict *evict, const uint32_t *path, uint32_t count)
{
    if (count > 0)
        evict->policy->insert(evict->state, path, count, &evict->use);
}

void quire__evict_insert_below(quire__evict *evict, uint32_t node, uint32_t above)
{
    evict->policy->insert_below(evict->state, node, above, &evict->use);
}

void quire__evict_remove_path(quire__evict *evict, const uint32_t *path, uint32_t count)
{
    if (count > 0)
        evict->policy->take(evict->state, path, count, evict->use.now);
}

void quire__evict_remove(quire__evict *evict, uint32_t node)
{
    evict->policy->take(evict->state, &node, 1, evict->use.now);
}

void quire__evict_drop(quire__evict *evict, uint32_t node)
{
    evict->policy->drop(evict->state, node);
}

void quire__evict_sealed(quire__evict *evict, const uint32_t *path, uint32_t count)
{
    if (evict->policy->sealed)
        evict->policy->sealed(evict->state, path, count);
}

uint32_t quire__evict_victim(quire__evict *evict)
{
    return evict->policy->victim(evict->state);
}

bool quire__evict_worth_offload(quire__evict *evict, uint32_t node, uint64_t holds)
{
    evict->use.host_holds = holds;
    return !evict->policy->worth_offload || evict->policy->worth_offload(evict->state, node, &evict->use);
}

uint32_t quire__evict_kept(const quire__evict *evict)
{
    return evict->policy->kept ? evict->policy->kept(evict->state, evict->use.now) : 0;
}

uint32_t quire__evict_coldest(quire__evict *evict, uint32_t *nodes, uint32_t most)
{
    if (most == 0)
        return 0;
    if (evict->policy->coldest)
        return evict->policy->coldest(evict->state, nodes, most, evict->use.now);
    nodes[0] = evict->policy->victim(evict->state);
    return nodes[0] != QUIRE_NO_BLOCK;
}

uint32_t quire__evict_count(const quire__evict *evict)
{
    return evict->policy->count(evict->state);
}

void quire__evict_each(const quire__evict *evict, void (*fn)(void *arg, uint32_t node), void *arg)
{
    evict->policy->each(evict->state, fn, arg);
}
