/* evict_slru.h: segmented LRU: what was used twice is safe from what was used once. */
#ifndef QUIRE_EVICT_SLRU_H
#define QUIRE_EVICT_SLRU_H

#include "block/evict.h"

extern const quire_policy quire__evict_slru;

#endif
