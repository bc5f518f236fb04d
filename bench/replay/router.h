/* router.h: which node has how much of a prompt, as far as events tell. An approximate index: of each node it
 * knows every `stride`-th token's block, by the block's own tokens and place, not by all that comes before
 * it. */
#ifndef REPLAY_ROUTER_H
#define REPLAY_ROUTER_H

#include "node.h"

enum { REPLAY_MOST_NODES = 64 };

typedef struct replay_slot {
    uint64_t key, value; /* value 0: the place is empty */
} replay_slot;

/* Open addressing; what is taken out leaves no trace. */
typedef struct replay_table {
    replay_slot *slots;
    size_t places, count;
} replay_table;

typedef struct replay_router {
    uint32_t nodes, block_tokens, stride; /* tokens; a multiple of block_tokens */
    replay_table holders; /* a block's key -> a bit a node */
    replay_table blocks; /* (node, handle) -> the block's key */
    quire_event *events;
    size_t capacity;
    int32_t *tokens; /* of a block */
    uint64_t taken, lost;
} replay_router;

int replay_router_open(replay_router *router, uint32_t nodes, uint32_t block_tokens, size_t events,
                       replay_error *error);
void replay_router_close(replay_router *router);
/* Takes the events of a node's cache in. Only what is on the device counts. */
int replay_router_learn(replay_router *router, uint32_t node, replay_node *cache, replay_error *error);
/* matched[n]: tokens of the prompt that node n seems to have, a multiple of the stride. */
void replay_router_look(const replay_router *router, uint64_t domain, const int32_t *tokens, uint32_t count,
                        uint32_t *matched);

#endif
