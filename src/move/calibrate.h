/* calibrate.h: how long blocks take there and back by each path, measured with the mover itself. */
#ifndef QUIRE_CALIBRATE_H
#define QUIRE_CALIBRATE_H

#include "move/mover.h"

/* Nanoseconds a block, to the host and back, of some megabytes of blocks that lie apart on the device; the least of a few
 * rounds. Takes a few milliseconds and gives back what memory it took. `shape`: for QUIRE__PATH_PACK. 0: it could not be
 * measured. */
uint64_t quire__calibrate_path(quire__device *device, const quire__allocator *allocator, size_t block_bytes,
                               quire__path path, const quire__pack_shape *shape);

#endif
