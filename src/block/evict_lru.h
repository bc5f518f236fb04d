/* evict_lru.h: least recently used goes first. */
#ifndef QUIRE_EVICT_LRU_H
#define QUIRE_EVICT_LRU_H

#include "block/evict.h"

extern const quire_policy quire__evict_lru;

#endif
