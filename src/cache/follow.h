/* follow.h: one cache decides, others follow: ranks that each hold their own part of the same blocks.
 *
 * The cache that decides knows its followers by the table below, which peer/ranks.c fills: it is told what the cache starts,
 * what of that has ended here, and each step's tables; and it answers the book once a move has ended everywhere. A cache
 * that follows has no book: it is an arena, a host tier, a mover and tables, and does what it is told (peer/rank.c). */
#ifndef QUIRE_FOLLOW_H
#define QUIRE_FOLLOW_H

#include "cache/cache.h"

typedef struct quire__followers {
    void *arg;
    /* With the cache's lock held. */
    void (*started)(void *arg, const quire__plan *plan); /* these moves, here */
    void (*ended)(void *arg, const quire__move *move, quire__outcome outcome); /* this move, here; nobody tells the book yet */
    void (*take_in)(void *arg);          /* tells the book what has ended everywhere */
    uint32_t (*in_flight)(void *arg);    /* moves that have not ended everywhere */
    quire_status (*ready)(void *arg);    /* may a step begin? */
    /* Without it. */
    quire_status (*submit)(void *arg, const quire_step *step); /* its tables and copies are enqueued here */
    void (*forget)(void *arg);           /* the tables of a step were lost on the way: the next is to be sent whole */
    void (*pump)(void *arg);             /* sends what has started, hears what has ended; after every section of the lock */
} quire__followers;

/* A cache without a book. Errors as quire_cache_open. */
quire_status quire__follow_open(quire_cache **cache, const quire_options *options);
/* A step that was decided elsewhere: its rows and block copies. Its view is cache->step.view from then on. */
quire_status quire__follow_step(quire_cache *cache, quire__stream *stream, uint64_t number, const quire__row *rows,
                                uint32_t row_count, const quire__block_pair *pairs, uint32_t pair_count);
/* Its kernels are enqueued. */
quire_status quire__follow_end(quire_cache *cache);

#endif
