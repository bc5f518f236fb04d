#include "block/evict.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "block/evict_lru.h"

static const quire__evict_policy *const policies[] = {&quire__evict_lru};
enum { POLICIES = sizeof(policies) / sizeof(policies[0]) };

quire_status quire__evict_open(quire__evict *evict, const quire__allocator *allocator, const char *policy,
                               uint32_t nodes)
{
    char known[128] = "";
    for (size_t i = 0; i < POLICIES; i++) {
        if (policy && strcmp(policy, policies[i]->name) == 0)
            evict->policy = policies[i];
        size_t at = strlen(known);
        snprintf(known + at, sizeof(known) - at, "%s\"%s\"", i ? ", " : "", policies[i]->name);
    }
    if (!evict->policy)
        return quire__fail(QUIRE_EINVAL, "no eviction policy \"%s\": known are %s", policy ? policy : "", known);

    QUIRE__TRY(quire__memory_take(allocator, 1, evict->policy->size, "an eviction policy", &evict->state));
    return evict->policy->open(evict->state, allocator, nodes);
}

void quire__evict_close(quire__evict *evict, const quire__allocator *allocator)
{
    if (evict->state)
        evict->policy->close(evict->state, allocator);
    quire__memory_give(allocator, evict->state);
    *evict = (quire__evict){0};
}

void quire__evict_insert_path(quire__evict *evict, const uint32_t *path, uint32_t count)
{
    if (count > 0)
        evict->policy->insert_path(evict->state, path, count);
}

void quire__evict_insert_below(quire__evict *evict, uint32_t node, uint32_t above)
{
    evict->policy->insert_below(evict->state, node, above);
}

void quire__evict_remove_path(quire__evict *evict, const uint32_t *path, uint32_t count)
{
    if (count > 0)
        evict->policy->remove_path(evict->state, path, count);
}

void quire__evict_remove(quire__evict *evict, uint32_t node)
{
    evict->policy->remove_path(evict->state, &node, 1);
}

uint32_t quire__evict_victim(const quire__evict *evict)
{
    return evict->policy->victim(evict->state);
}

uint32_t quire__evict_count(const quire__evict *evict)
{
    return evict->policy->count(evict->state);
}

void quire__evict_each(const quire__evict *evict, void (*fn)(void *arg, uint32_t node), void *arg)
{
    evict->policy->each(evict->state, fn, arg);
}
