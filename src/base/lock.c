/* lock.c: a word, and a semaphore for those who have waited too long.
 *
 *    word    TAKEN | AWAKE | SLEEPER * threads asleep
 *
 *    take    TAKEN set, if it was not; else look for a while, then sleep, and when woken look again
 *    give    TAKEN cleared; if somebody sleeps and nobody is AWAKE: one sleeper is woken, and AWAKE set for it
 *
 * Whoever comes while the lock is free has it, before those who sleep: a lock that is handed to a sleeper stands idle until
 * that one runs, and with more threads than cores every section would wait for a switch (a convoy). AWAKE says that somebody
 * is on its way who will see the lock free, so that nobody else need be woken: of thousands of sections between a wake-up
 * and the sleeper's first instruction one pays for a system call, not each. It is set by who wakes, and by who looks; cleared
 * by who takes the lock, or sleeps, having set it. So a lock that is free, with sleepers and without TAKEN, has AWAKE: none
 * sleeps for ever.
 *
 * After the mutexes of Go (sync.Mutex: "woken") and WebKit ("Locking in WebKit", 2016: why barging is right).
 *
 * docs/design.md has what was measured, and what other locks did. */
#include "base/lock.h"

#include <errno.h>
#include <stdbool.h>

#include "base/status.h"

enum { TAKEN = 1, AWAKE = 2, SLEEPER = 4 };
enum {
    PAUSES = 32, /* between two looks, 2 us: some sections, so that a lock changes hands less often than a section ends */
    LOOKS = 20   /* 40 us in all: longer than nearly all sections, and about what sleeping costs */
};

quire_status quire__lock_open(quire__lock *lock)
{
    atomic_init(&lock->word, 0);
    return sem_init(&lock->sleepers, 0, 0) == 0 ? QUIRE_OK : quire__fail(QUIRE_ENOMEM, "no memory for a lock");
}

void quire__lock_close(quire__lock *lock)
{
    sem_destroy(&lock->sleepers);
}

/* Looks until the lock may be free, or long enough. Between two looks the word and what it guards stay with the core that
 * has them: each look is a cache line's way there and back, and a lock that changes hands takes all the others along. */
static unsigned look(quire__lock *lock, bool *awake)
{
    unsigned word = atomic_load_explicit(&lock->word, memory_order_relaxed);

    for (int i = 0; i < LOOKS && (word & TAKEN); i++) {
        if (!*awake && word >= SLEEPER && !(word & AWAKE) &&
            atomic_compare_exchange_weak_explicit(&lock->word, &word, word | AWAKE, memory_order_relaxed,
                                                  memory_order_relaxed))
            *awake = true;
        for (int pause = 0; pause < PAUSES; pause++)
            quire__cpu_pause();
        word = atomic_load_explicit(&lock->word, memory_order_relaxed);
    }
    return word;
}

static __attribute__((noinline)) void take_contended(quire__lock *lock)
{
    bool awake = false; /* AWAKE is ours */
    unsigned word = look(lock, &awake);

    for (;;) {
        unsigned mask = awake ? ~(unsigned)AWAKE : ~0u;
        if (!(word & TAKEN)) {
            if (atomic_compare_exchange_weak_explicit(&lock->word, &word, (word & mask) | TAKEN, memory_order_acquire,
                                                      memory_order_relaxed))
                return;
        } else if (atomic_compare_exchange_weak_explicit(&lock->word, &word, (word & mask) + SLEEPER,
                                                         memory_order_relaxed, memory_order_relaxed)) {
            while (sem_wait(&lock->sleepers) != 0 && errno == EINTR)
                ;
            awake = true; /* who woke us has set it */
            word = look(lock, &awake);
        }
    }
}

void quire__lock_take(quire__lock *lock)
{
    unsigned none = 0;

    if (!atomic_compare_exchange_strong_explicit(&lock->word, &none, TAKEN, memory_order_acquire, memory_order_relaxed))
        take_contended(lock);
}

static __attribute__((noinline)) void wake_one(quire__lock *lock, unsigned word)
{
    while (word >= SLEEPER && !(word & (TAKEN | AWAKE)))
        if (atomic_compare_exchange_weak_explicit(&lock->word, &word, (word - SLEEPER) | AWAKE, memory_order_relaxed,
                                                  memory_order_relaxed)) {
            sem_post(&lock->sleepers);
            return;
        }
}

void quire__lock_give(quire__lock *lock)
{
    unsigned word = atomic_fetch_sub_explicit(&lock->word, TAKEN, memory_order_release) - TAKEN;

    if (word >= SLEEPER)
        wake_one(lock, word);
}
