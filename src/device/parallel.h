/* parallel.h: run a body for every index, on the caller's threads or on our own pool. */
#ifndef QUIRE_PARALLEL_H
#define QUIRE_PARALLEL_H

#include "quire/quire.h"

typedef struct quire__parallel quire__parallel;

/* fn NULL: a pool of `threads` (0: one a core), the calling thread included. */
quire_status quire__parallel_open(quire__parallel **parallel, uint32_t threads, quire_parallel_fn fn, void *user);
void quire__parallel_close(quire__parallel *parallel);
/* Returns when body(arg, i) has returned for every i < count. Not to be called from a body. */
void quire__parallel_for(quire__parallel *parallel, size_t count, void (*body)(void *arg, size_t index), void *arg);
uint32_t quire__parallel_threads(const quire__parallel *parallel);

#endif
