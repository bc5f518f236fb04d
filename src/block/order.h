/* order.h: a tier's eviction order, and the prefix tree as its policy sees it. */
#ifndef QUIRE_ORDER_H
#define QUIRE_ORDER_H

#include "block/state.h"

/* The device's first: the host's policy may look at it. */
quire_status quire__order_open(quire__book *book, quire_tier tier);

#endif
