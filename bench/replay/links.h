/* links.h: offloads and restores in virtual time: one link each way, one copy after another. */
#ifndef REPLAY_LINKS_H
#define REPLAY_LINKS_H

#include "node.h"

typedef struct replay_link_move {
    quire__move move;
    double ends; /* seconds */
} replay_link_move;

typedef struct replay_link {
    replay_link_move *moves; /* a ring */
    size_t first, count, room;
    double seconds_a_block, free_at;
} replay_link;

typedef struct replay_links {
    replay_link offload, restore;
} replay_links;

/* Rates in bytes a second. */
void replay_links_open(replay_links *links, const replay_geometry *geometry, double offload_rate,
                       double restore_rate);
void replay_links_close(replay_links *links);
/* Puts the moves of the node's plan on their links, from `now` on, and empties the plan. */
int replay_links_start(replay_links *links, replay_node *node, double now, replay_error *error);
/* Tells the node of what has ended by `now`. True: something has. */
bool replay_links_finish(replay_links *links, replay_node *node, double now);
/* When the next move ends; infinity: none is in flight. */
double replay_links_next(const replay_links *links);

#endif
