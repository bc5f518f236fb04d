/* How indices are handed out
 *
 *   ticket   [ loop number : 32 | indices left : 32 ]     claimed by compare-and-swap, one at a time
 *   pending  indices that are not finished
 *
 *   1. The caller writes body, arg and count only when pending is 0 and no index is left: nobody reads them then.
 *   2. A thread reads them only after it has claimed an index. Until that index is finished, pending is not 0, so by 1
 *      they stay as they are.
 *   3. The loop number makes a claim fail that was prepared in an earlier loop.
 *   4. A thread goes to sleep only after it has raised `sleepers` and then seen no index left, under the lock; the
 *      caller sets the ticket and then looks at `sleepers`. One of the two sees the other, so no wake-up is lost.
 */
#include "workers.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    SPINS = 1000, /* before a thread sleeps: 10 to 60 us by the CPU, longer than most gaps between two loops */
    MOST_THREADS = 256
};

struct workers {
    _Atomic uint64_t ticket;
    _Atomic size_t pending;
    _Atomic unsigned sleepers;
    _Atomic bool stop;
    void (*body)(void *arg, size_t index);
    void *arg;
    size_t count;
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    unsigned threads;                /* started */
    pthread_t thread[MOST_THREADS];
};

static void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static bool index_left(workers *w)
{
    return (uint32_t)atomic_load(&w->ticket) != 0;
}

/* Takes indices until none is left. */
static void take_share(workers *w)
{
    uint64_t ticket = atomic_load(&w->ticket);
    while ((uint32_t)ticket) {
        if (!atomic_compare_exchange_weak(&w->ticket, &ticket, ticket - 1)) continue;
        w->body(w->arg, w->count - (uint32_t)ticket);
        if (atomic_fetch_sub(&w->pending, 1) == 1) {
            pthread_mutex_lock(&w->lock);
            pthread_cond_signal(&w->done);
            pthread_mutex_unlock(&w->lock);
        }
        ticket = atomic_load(&w->ticket);
    }
}

static void *work(void *arg)
{
    workers *w = arg;
    while (!atomic_load(&w->stop)) {
        for (int i = 0; i < SPINS && !index_left(w); i++) pause_briefly();
        if (!index_left(w)) {
            pthread_mutex_lock(&w->lock);
            atomic_fetch_add(&w->sleepers, 1);
            while (!index_left(w) && !atomic_load(&w->stop)) pthread_cond_wait(&w->wake, &w->lock);
            atomic_fetch_sub(&w->sleepers, 1);
            pthread_mutex_unlock(&w->lock);
        }
        take_share(w);
    }
    return NULL;
}

static void share_out(workers *w, size_t count, void (*body)(void *arg, size_t index), void *arg)
{
    w->body = body;
    w->arg = arg;
    w->count = count;
    atomic_store(&w->pending, count);
    uint64_t loop = (atomic_load(&w->ticket) >> 32) + 1;
    atomic_store(&w->ticket, loop << 32 | (uint32_t)count);
    if (atomic_load(&w->sleepers)) {
        pthread_mutex_lock(&w->lock);
        pthread_cond_broadcast(&w->wake);
        pthread_mutex_unlock(&w->lock);
    }
    take_share(w);
    for (int i = 0; i < SPINS && atomic_load(&w->pending); i++) pause_briefly();
    if (!atomic_load(&w->pending)) return;
    pthread_mutex_lock(&w->lock);
    while (atomic_load(&w->pending)) pthread_cond_wait(&w->done, &w->lock);
    pthread_mutex_unlock(&w->lock);
}

void workers_for(workers *w, size_t count, void (*body)(void *arg, size_t index), void *arg)
{
    if (count <= 1 || count > UINT32_MAX || w->threads == 0) {
        for (size_t i = 0; i < count; i++) body(arg, i);
        return;
    }
    share_out(w, count, body, arg);
}

unsigned workers_count(const workers *w)
{
    return w->threads + 1;
}

int workers_open(workers **out, unsigned threads, infer_error *error)
{
    if (threads == 0) {
        long cores = sysconf(_SC_NPROCESSORS_ONLN);
        threads = cores > 0 ? (unsigned)cores : 1;
    }
    if (threads > MOST_THREADS) threads = MOST_THREADS;
    workers *w = calloc(1, sizeof *w);
    if (!w) return infer_fail(error, "no memory for the worker threads");
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, NULL);
    pthread_cond_init(&w->done, NULL);
    while (w->threads + 1 < threads) {
        if (pthread_create(&w->thread[w->threads], NULL, work, w)) {
            infer_fail(error, "cannot start worker thread %u of %u", w->threads + 1, threads - 1);
            workers_close(w);
            return -1;
        }
        w->threads++;
    }
    *out = w;
    return 0;
}

void workers_close(workers *w)
{
    if (!w) return;
    pthread_mutex_lock(&w->lock);
    atomic_store(&w->stop, true);
    pthread_cond_broadcast(&w->wake);
    pthread_mutex_unlock(&w->lock);
    for (unsigned i = 0; i < w->threads; i++) pthread_join(w->thread[i], NULL);
    pthread_cond_destroy(&w->done);
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->lock);
    free(w);
}
