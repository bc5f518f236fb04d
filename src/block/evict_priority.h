/* evict_priority.h: what the engine says: priorities with durations, pins with a budget, lifetimes by domain. */
#ifndef QUIRE_EVICT_PRIORITY_H
#define QUIRE_EVICT_PRIORITY_H

#include "block/evict.h"

extern const quire_policy quire__evict_priority;

#endif
