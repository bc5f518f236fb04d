/* node.h: one cache of a simulated machine: the real deciding half, and what its moves come to. */
#ifndef REPLAY_NODE_H
#define REPLAY_NODE_H

#include "block/book.h"
#include "error.h"

typedef struct replay_geometry {
    uint32_t block_tokens;
    uint64_t block_bytes;
    uint32_t device_blocks, host_blocks;
} replay_geometry;

typedef struct replay_node_config {
    replay_geometry geometry;
    const char *policy;
    quire_offload offload; /* where there is a host tier; 0: write-through */
    uint32_t max_sequences, longest; /* tokens */
    uint32_t max_domains, events, watermark; /* blocks */
    uint32_t step_tokens; /* most of one step; 0: a request is one */
    uint32_t plan; /* moves that one call may ask for; 0: enough for a request at once */
} replay_node_config;

typedef struct replay_node {
    uint32_t hints, generated; /* QUIRE_HINT_*, and tokens answered, of the request that is served next */
    quire__book *book;
    quire__plan plan;
    replay_geometry geometry;
    uint64_t step;
    uint64_t offloads, restores; /* blocks */
} replay_node;

/* After a step: what write-back offloads. `busy`: restores are under way. */
void replay_node_offload(replay_node *node, bool busy);

int replay_node_open(replay_node *node, const replay_node_config *config, replay_error *error);
void replay_node_close(replay_node *node);
/* Every move that is planned ends at once, well. */
void replay_node_settle(replay_node *node);

/* What an engine would say of a sequence before it closes it; `generated`: tokens answered that are not in it. */
void replay_node_hint(replay_node *node, uint32_t seq, uint32_t flags, uint32_t generated);

typedef struct replay_served {
    quire_hit hit;
    uint32_t computed; /* tokens */
    bool refused; /* the prompt and its output never fit this cache */
} replay_served;

/* A request from its match to its close, as if it were alone: `input` tokens are matched, those up to `total`
 * are computed. With `total` below `input` the rest of the prompt is never computed (replay_expand_pieces).
 * */
int replay_node_serve(replay_node *node, uint64_t domain, const int32_t *tokens, uint32_t input,
                      uint32_t total, replay_served *served, replay_error *error);

#endif
