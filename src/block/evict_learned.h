/* evict_learned.h: what will come back last, by what has been seen, goes first. */
#ifndef QUIRE_EVICT_LEARNED_H
#define QUIRE_EVICT_LEARNED_H

#include "block/evict.h"

extern const quire_policy quire__evict_learned;

#endif
