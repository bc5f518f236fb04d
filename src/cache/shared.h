/* shared.h: decode attention that reads a shared prefix once. */
#ifndef QUIRE_SHARED_H
#define QUIRE_SHARED_H

#include "cache/cache.h"

/* Attends for those of the open step's decode tokens that are in a group, where that pays and there is a kernel for it;
 * args->select and args->count become those of the tokens that are left. */
quire_status quire__shared_attend(quire_cache *cache, quire__attend_args *args);

#endif
