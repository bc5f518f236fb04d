/* paths.h: how blocks cross to the host and back: as they are, gathered, or packed. */
#ifndef QUIRE_PATHS_H
#define QUIRE_PATHS_H

#include "cache/cache.h"

/* Sets cache->path, shape and host_slot_bytes, and the options to what is in force. With the device open, before anything
 * depends on the size of a host slot. `part_bytes`: of a restore's part. QUIRE_EUNSUPPORTED: asked for what this group or
 * device cannot. */
quire_status quire__paths_choose(quire_cache *cache, uint32_t parts, size_t part_bytes);

#endif
