#include "router.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

enum { STRIDE = 512, FIRST_PLACES = 4096 };

/* ---- tables -------------------------------------------------------------------------------------------- */

static size_t home(const replay_table *table, uint64_t key)
{
    return (size_t)((key ^ key >> 29) * 0x9e3779b97f4a7c15u >> 17) & (table->places - 1);
}

static size_t find(const replay_table *table, uint64_t key)
{
    size_t at = home(table, key);
    while (table->slots[at].value != 0 && table->slots[at].key != key)
        at = (at + 1) & (table->places - 1);
    return at;
}

static uint64_t get(const replay_table *table, uint64_t key)
{
    return table->places == 0 ? 0 : table->slots[find(table, key)].value;
}

static bool make_room(replay_table *table)
{
    if (2 * (table->count + 1) <= table->places)
        return true;
    replay_table more = {.places = table->places ? 2 * table->places : FIRST_PLACES};
    more.slots = calloc(more.places, sizeof *more.slots);
    if (!more.slots)
        return false;
    for (size_t i = 0; i < table->places; i++) {
        if (table->slots[i].value != 0)
            more.slots[find(&more, table->slots[i].key)] = table->slots[i];
    }
    more.count = table->count;
    free(table->slots);
    *table = more;
    return true;
}

/* What follows an emptied place may have been pushed past it, and moves back. */
static void take_out(replay_table *table, size_t at)
{
    size_t mask = table->places - 1;
    table->count--;
    for (size_t next = (at + 1) & mask; table->slots[next].value != 0; next = (next + 1) & mask) {
        size_t wants = home(table, table->slots[next].key);
        if (((next - wants) & mask) >= ((next - at) & mask)) {
            table->slots[at] = table->slots[next];
            at = next;
        }
    }
    table->slots[at].value = 0;
}

/* value 0: takes it out. False: no memory. */
static bool set(replay_table *table, uint64_t key, uint64_t value)
{
    if (!make_room(table))
        return false;
    size_t at = find(table, key);
    bool there = table->slots[at].value != 0;
    if (value == 0) {
        if (there)
            take_out(table, at);
        return true;
    }
    table->count += !there;
    table->slots[at] = (replay_slot){key, value};
    return true;
}

/* ---- the router ---------------------------------------------------------------------------------------- */

int replay_router_open(replay_router *router, uint32_t nodes, uint32_t block_tokens, size_t events,
                       replay_error *error)
{
    *router = (replay_router){.nodes = nodes,
                              .block_tokens = block_tokens,
                              .capacity = events,
                              .stride = block_tokens > STRIDE ? block_tokens
                                                              : STRIDE / block_tokens * block_tokens};
    router->events = malloc(events * sizeof *router->events);
    router->tokens = malloc(block_tokens * sizeof *router->tokens);
    if (router->events && router->tokens)
        return 0;
    replay_router_close(router);
    return replay_fail(error, "no memory for a router of %u nodes", nodes);
}

void replay_router_close(replay_router *router)
{
    free(router->holders.slots);
    free(router->blocks.slots);
    free(router->events);
    free(router->tokens);
    *router = (replay_router){0};
}

static uint64_t key_of(uint64_t domain, uint32_t first_token, const int32_t *tokens, uint32_t count)
{
    return quire__hash_tokens(0x726f75746572u, domain * 0x9e3779b97f4a7c15u + first_token, tokens, count) | 1;
}

static uint64_t name_of(uint32_t node, quire_block block)
{
    return block * REPLAY_MOST_NODES + node; /* a handle's generation has bits to spare */
}

static bool stored(replay_router *router, uint32_t node, const replay_node *cache, const quire_event *event)
{
    if (quire__book_block_tokens(cache->book, event->block, router->tokens) != QUIRE_OK)
        return true; /* gone again since */
    uint64_t key = key_of(event->domain, event->first_token, router->tokens, router->block_tokens);
    return set(&router->blocks, name_of(node, event->block), key) &&
           set(&router->holders, key, get(&router->holders, key) | UINT64_C(1) << node);
}

static bool removed(replay_router *router, uint32_t node, const quire_event *event)
{
    uint64_t name = name_of(node, event->block), key = get(&router->blocks, name);
    if (key == 0)
        return true;
    return set(&router->blocks, name, 0) &&
           set(&router->holders, key, get(&router->holders, key) & ~(UINT64_C(1) << node));
}

int replay_router_learn(replay_router *router, uint32_t node, replay_node *cache, replay_error *error)
{
    size_t count = quire__book_events(cache->book, router->events, router->capacity);
    router->taken += count;
    for (size_t i = 0; i < count; i++) {
        const quire_event *event = &router->events[i];
        if (event->first_token % router->stride != 0 || event->tier != QUIRE_TIER_DEVICE)
            continue;
        if (!(event->type == QUIRE_EVENT_STORED ? stored(router, node, cache, event)
                                                : removed(router, node, event)))
            return replay_fail(error, "no memory for the router's index");
    }
    return 0;
}

void replay_router_look(const replay_router *router, uint64_t domain, const int32_t *tokens, uint32_t count,
                        uint32_t *matched)
{
    uint64_t all = router->nodes < 64 ? (UINT64_C(1) << router->nodes) - 1 : UINT64_MAX;
    memset(matched, 0, router->nodes * sizeof *matched);
    for (uint32_t at = 0; all != 0 && at + router->block_tokens < count; at += router->stride) {
        all &= get(&router->holders, key_of(domain, at, tokens + at, router->block_tokens));
        for (uint64_t left = all; left != 0; left &= left - 1) {
            uint32_t node = (uint32_t)__builtin_ctzll(left);
            uint32_t end = at + router->stride; /* of the next stretch the first block will tell */
            matched[node] = end < count ? end : count;
        }
    }
}
