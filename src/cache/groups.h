/* groups.h: the groups beside the first, as the cache sees them: sizes, memory, tables, views. */
#ifndef QUIRE_CACHE_GROUPS_H
#define QUIRE_CACHE_GROUPS_H

#include "cache/cache.h"

/* Checks the options' groups and works out their layouts. */
quire_status quire__groups_take(quire_cache *cache, const quire_options *options);
/* Bytes of a block in all groups. */
uint64_t quire__groups_block_bytes(const quire_cache *cache);
/* Shares device_bytes out: sets the sides' slots and returns the first group's. QUIRE_EINVAL: they do not do. */
quire_status quire__groups_size(quire_cache *cache, uint64_t *device_slots);
/* What the sides' arenas take. */
uint64_t quire__groups_side_bytes(const quire_cache *cache);
quire_status quire__groups_open_memory(quire_cache *cache);
quire_status quire__groups_open_tables(quire_cache *cache);
void quire__groups_close(quire_cache *cache);
void quire__groups_book(const quire_cache *cache, quire__side_config sides[QUIRE__SIDES_MOST]);
/* Sends the step's tables and copies of all groups beside the first. */
quire_status quire__groups_submit(quire_step *step);
/* Which group's view of the step it is; QUIRE__NONE: none's. */
uint32_t quire__groups_of_view(const quire_step *step, const quire_view *view);

#endif
