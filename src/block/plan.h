/* plan.h: what the deciding half asks the moving half to do. A plan is a flat list of moves; the deciding half appends
 * to it, the moving half executes it and answers each offload and restore with a completion. */
#ifndef QUIRE_PLAN_H
#define QUIRE_PLAN_H

#include <stdbool.h>

#include "base/memory.h"
#include "quire/quire.h"

#define QUIRE__NONE UINT32_MAX /* no slot, no node, no sequence */
enum { QUIRE__SIDES_MOST = QUIRE_GROUPS - 1 }; /* groups beside the first */

typedef enum quire__move_type {
    QUIRE__MOVE_COPY = 1, /* device slot to device slot, on the step's stream; no completion */
    QUIRE__MOVE_OFFLOAD,  /* device slot to host slot, behind step `ticket` */
    QUIRE__MOVE_RESTORE   /* host slot to device slot, behind step `ticket`, the last that may touch the slot */
} quire__move_type;

typedef struct quire__move {
    quire__move_type type;
    uint32_t source, destination; /* slots */
    uint32_t node;                /* whose bytes they are: the destination's for a copy */
    uint32_t group;               /* of layers: device slots are that group's, and its part of the host slot moves */
    uint64_t ticket;
} quire__move;

typedef struct quire__plan {
    quire__move *moves;
    uint32_t count, capacity;
} quire__plan;

/* `capacity` bounds what one operation can ask for; the caller sizes it at open. */
quire_status quire__plan_open(quire__plan *plan, const quire__allocator *allocator, uint32_t capacity);
void quire__plan_close(quire__plan *plan, const quire__allocator *allocator);
uint32_t quire__plan_room(const quire__plan *plan);
void quire__plan_add(quire__plan *plan, quire__move move); /* asserts room */

#endif
