/* events.h: a ring of what appeared and disappeared, for a router that wants to know what is cached where. */
#ifndef QUIRE_EVENTS_H
#define QUIRE_EVENTS_H

#include "base/memory.h"
#include "quire/quire.h"

typedef struct quire__events {
    quire_event *ring;
    uint32_t capacity;
    uint64_t next; /* number of the next event */
    uint64_t read; /* number of the oldest event that was not taken */
    uint64_t lost; /* overwritten before they were taken */
} quire__events;

/* Capacity 0: nothing is kept. */
quire_status quire__events_open(quire__events *events, const quire__allocator *allocator, uint32_t capacity);
void quire__events_close(quire__events *events, const quire__allocator *allocator);
/* The number is set here. */
void quire__events_add(quire__events *events, quire_event event);
size_t quire__events_take(quire__events *events, quire_event *out, size_t capacity);

#endif
