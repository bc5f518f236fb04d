/* evict_s3fifo.h: S3-FIFO: a small queue for what is new, a main one for what came back. */
#ifndef QUIRE_EVICT_S3FIFO_H
#define QUIRE_EVICT_S3FIFO_H

#include "block/evict.h"

extern const quire_policy quire__evict_s3fifo;

#endif
