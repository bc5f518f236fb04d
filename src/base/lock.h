/* lock.h: a lock that one thread has to write, or several have to read. */
#ifndef QUIRE_LOCK_H
#define QUIRE_LOCK_H

#include <pthread.h>
#include <stdatomic.h>

#include "quire/quire.h"

typedef struct quire__lock {
    pthread_mutex_t mutex; /* whoever writes has it */
    atomic_uint writers;   /* that have the lock or want it */
    atomic_uint readers;   /* that have it */
} quire__lock;

quire_status quire__lock_open(quire__lock *lock);
void quire__lock_close(quire__lock *lock);
void quire__lock_write(quire__lock *lock);
void quire__lock_written(quire__lock *lock);
void quire__lock_read(quire__lock *lock);
void quire__lock_was_read(quire__lock *lock);

#endif
