#include "links.h"

#include <math.h>
#include <stdlib.h>

void replay_links_open(replay_links *links, const replay_geometry *geometry, double offload_rate,
                       double restore_rate)
{
    *links = (replay_links){.offload = {.seconds_a_block = (double)geometry->block_bytes / offload_rate},
                            .restore = {.seconds_a_block = (double)geometry->block_bytes / restore_rate}};
}

void replay_links_close(replay_links *links)
{
    free(links->offload.moves);
    free(links->restore.moves);
    *links = (replay_links){0};
}

static int grow(replay_link *link, replay_error *error)
{
    size_t room = link->room ? 2 * link->room : 1024;
    replay_link_move *moves = malloc(room * sizeof *moves);
    if (!moves)
        return replay_fail(error, "no memory for %zu moves in flight", room);
    for (size_t i = 0; i < link->count; i++)
        moves[i] = link->moves[(link->first + i) % link->room];
    free(link->moves);
    link->moves = moves;
    link->first = 0;
    link->room = room;
    return 0;
}

int replay_links_start(replay_links *links, replay_node *node, double now, replay_error *error)
{
    for (uint32_t i = 0; i < node->plan.count; i++) {
        const quire__move *move = &node->plan.moves[i];
        if (move->type == QUIRE__MOVE_COPY)
            continue;
        bool out = move->type == QUIRE__MOVE_OFFLOAD;
        replay_link *link = out ? &links->offload : &links->restore;
        if (link->count == link->room && grow(link, error))
            return -1;
        link->free_at = fmax(link->free_at, now) + link->seconds_a_block;
        link->moves[(link->first + link->count++) % link->room] = (replay_link_move){*move, link->free_at};
        *(out ? &node->offloads : &node->restores) += 1;
    }
    node->plan.count = 0;
    return 0;
}

static bool finish(replay_link *link, replay_node *node, double now)
{
    bool some = false;
    for (; link->count > 0 && link->moves[link->first].ends <= now; some = true) {
        quire__book_complete(node->book, &link->moves[link->first].move, true);
        link->first = (link->first + 1) % link->room;
        link->count--;
    }
    return some;
}

bool replay_links_finish(replay_links *links, replay_node *node, double now)
{
    bool out = finish(&links->offload, node, now), in = finish(&links->restore, node, now);
    return out || in;
}

double replay_links_next(const replay_links *links)
{
    double next = INFINITY;
    if (links->offload.count > 0)
        next = links->offload.moves[links->offload.first].ends;
    if (links->restore.count > 0)
        next = fmin(next, links->restore.moves[links->restore.first].ends);
    return next;
}
