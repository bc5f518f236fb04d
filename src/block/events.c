#include "block/events.h"

#include "base/status.h"

quire_status quire__events_open(quire__events *events, const quire__allocator *allocator, uint32_t capacity)
{
    void *ring = NULL;
    QUIRE__TRY(quire__memory_take(allocator, capacity, sizeof(quire_event), "the event ring", &ring));
    events->ring = ring;
    events->capacity = capacity;
    events->next = events->read = 1;
    return QUIRE_OK;
}

void quire__events_close(quire__events *events, const quire__allocator *allocator)
{
    quire__memory_give(allocator, events->ring);
    *events = (quire__events){0};
}

void quire__events_add(quire__events *events, quire_event event)
{
    if (events->capacity == 0)
        return;
    if (events->next - events->read == events->capacity) {
        events->read++;
        events->lost++;
    }
    event.number = events->next;
    events->ring[events->next++ % events->capacity] = event;
}

size_t quire__events_take(quire__events *events, quire_event *out, size_t capacity)
{
    size_t count = 0;
    while (count < capacity && events->read < events->next)
        out[count++] = events->ring[events->read++ % events->capacity];
    return count;
}
