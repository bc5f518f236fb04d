#include "block/plan.h"

#include "base/check.h"

quire_status quire__plan_open(quire__plan *plan, const quire__allocator *allocator, uint32_t capacity)
{
    void *moves = NULL;
    quire_status status = quire__memory_take(allocator, capacity, sizeof(quire__move), "a plan", &moves);
    if (status != QUIRE_OK)
        return status;
    plan->moves = moves;
    plan->count = 0;
    plan->capacity = capacity;
    return QUIRE_OK;
}

void quire__plan_close(quire__plan *plan, const quire__allocator *allocator)
{
    quire__memory_give(allocator, plan->moves);
    *plan = (quire__plan){0};
}

uint32_t quire__plan_room(const quire__plan *plan)
{
    return plan->capacity - plan->count;
}

void quire__plan_add(quire__plan *plan, quire__move move)
{
    QUIRE__ASSERT(plan->count < plan->capacity);
    plan->moves[plan->count++] = move;
}
