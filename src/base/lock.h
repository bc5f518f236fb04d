/* lock.h: a lock that one thread has at a time. */
#ifndef QUIRE_LOCK_H
#define QUIRE_LOCK_H

#include <semaphore.h>
#include <stdatomic.h>

#include "quire/quire.h"

/* The word has its cache line for itself: whoever waits reads it all the time. */
typedef struct quire__lock {
    unsigned char before[64];
    atomic_uint word;
    sem_t sleepers;
    unsigned char after[64];
} quire__lock;

/* A function that reads, without the lock, what others may be changing under it. Whoever calls it throws away what it found
 * unless nothing has changed meanwhile that matters (block/match.c), so ThreadSanitizer is not to look at it. */
#if defined(__SANITIZE_THREAD__)
#define QUIRE__UNLOCKED __attribute__((no_sanitize("thread")))
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define QUIRE__UNLOCKED __attribute__((no_sanitize("thread")))
#endif
#endif
#ifndef QUIRE__UNLOCKED
#define QUIRE__UNLOCKED
#endif

/* Between two looks at a word that another core is about to change. */
static inline void quire__cpu_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

quire_status quire__lock_open(quire__lock *lock);
void quire__lock_close(quire__lock *lock);
void quire__lock_take(quire__lock *lock);
void quire__lock_give(quire__lock *lock);

#endif
