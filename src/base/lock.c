/* lock.c: a mutex for those who write, and a count of those who read.
 *
 *    write   writers + 1, mutex, wait for readers = 0      ...   mutex back, writers - 1
 *    read    readers + 1; if writers > 0: readers - 1, wait for writers = 0, again      ...   readers - 1
 *
 * A reader that has looked for a while takes the mutex, counts itself while it has it, and gives it back: so it is served
 * among the writers, and neither side starves.
 *
 * Why it is a lock: the counts are sequentially consistent. A reader counts itself, then looks for writers; a writer counts
 * itself, then looks for readers; so one of the two sees the other, and the reader gives way. (Through the mutex: no writer
 * has it then, and the next one sees the count.)
 *
 * Why not pthread_rwlock: threads that read for some microseconds and write for a tenth of one, in turn, ran no faster on
 * two cores than on one, whichever its preference. Each new reader got in between a writer's end and the next writer's
 * begin, and that writer then waited for all it read. Here who wants to write keeps new readers out, so all write, then all
 * read. */
#define _GNU_SOURCE 1 /* the adaptive mutex */
#include "base/lock.h"

#include <sched.h>
#include <stdbool.h>

#include "base/status.h"

enum {
    LOOKS = 200, /* pauses, about 10 us: longer than the others read or write, shorter than sleeping costs */
    YIELD_AFTER = 2000
};

static void cpu_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

quire_status quire__lock_open(quire__lock *lock)
{
    pthread_mutexattr_t attributes;
    int failure = pthread_mutexattr_init(&attributes);

    atomic_init(&lock->writers, 0);
    atomic_init(&lock->readers, 0);
    if (failure == 0) {
#ifdef PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP /* glibc: looks a while before it sleeps */
        (void)pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ADAPTIVE_NP);
#endif
        failure = pthread_mutex_init(&lock->mutex, &attributes);
        pthread_mutexattr_destroy(&attributes);
    }
    return failure == 0 ? QUIRE_OK : quire__fail(QUIRE_ENOMEM, "no memory for a lock");
}

void quire__lock_close(quire__lock *lock)
{
    pthread_mutex_destroy(&lock->mutex);
}

void quire__lock_write(quire__lock *lock)
{
    atomic_fetch_add(&lock->writers, 1);
    pthread_mutex_lock(&lock->mutex);
    for (int i = 0; atomic_load(&lock->readers) != 0; i++) {
        if (i < YIELD_AFTER)
            cpu_pause();
        else
            sched_yield(); /* a reader has lost its core */
    }
}

void quire__lock_written(quire__lock *lock)
{
    pthread_mutex_unlock(&lock->mutex);
    atomic_fetch_sub(&lock->writers, 1);
}

static bool enter(quire__lock *lock)
{
    atomic_fetch_add(&lock->readers, 1);
    if (atomic_load(&lock->writers) == 0)
        return true;
    atomic_fetch_sub(&lock->readers, 1);
    return false;
}

void quire__lock_read(quire__lock *lock)
{
    for (int i = 0; i < LOOKS; i++) {
        if (atomic_load_explicit(&lock->writers, memory_order_relaxed) == 0 && enter(lock))
            return;
        cpu_pause();
    }
    pthread_mutex_lock(&lock->mutex);
    atomic_fetch_add(&lock->readers, 1);
    pthread_mutex_unlock(&lock->mutex);
}

void quire__lock_was_read(quire__lock *lock)
{
    atomic_fetch_sub(&lock->readers, 1);
}
