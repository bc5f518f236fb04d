/* resize.h: quire_cache_resize's part in opening and closing. For the files of this folder. */
#ifndef QUIRE_RESIZE_H
#define QUIRE_RESIZE_H

#include "cache/cache.h"

/* Works the sections out, where device_max_bytes asks for them. QUIRE_EINVAL. */
quire_status quire__resize_plan(quire_cache *cache);
/* Reserves the addresses and maps what device_bytes asks for. */
quire_status quire__resize_open_arena(quire_cache *cache);
/* After the book was opened: its sections without memory leave. Takes what resizing needs. */
quire_status quire__resize_open_book(quire_cache *cache);
void quire__resize_close_arena(quire_cache *cache);

#endif
