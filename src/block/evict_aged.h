/* evict_aged.h: how often, and how dear, with aging: LFU and GDSF. */
#ifndef QUIRE_EVICT_AGED_H
#define QUIRE_EVICT_AGED_H

#include "block/evict.h"

extern const quire_policy quire__evict_lfu, quire__evict_gdsf;

#endif
