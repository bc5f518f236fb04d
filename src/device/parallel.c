/* parallel.c: run a body for every index, on the caller's threads or on our own pool.
 *
 * A job is a body, an argument and a count. The calling thread publishes it, works on it, and leaves when every index
 * is done; workers join when they notice. Nobody waits for a worker that has not joined, so a job that the caller
 * finishes alone costs no wake-up, which matters where other threads own the second core.
 *
 *   caller      taken by the thread whose job the workers do. Another thread that calls meanwhile does its job alone: that
 *               is never wrong, and nobody waits
 *   lock        owns body, arg, count, open, stopping, and every change of `generation` and `inside`
 *   generation  rises when a job opens. Read without the lock by spinning workers, as a hint only
 *   next        the next index to take; taken by fetch-add
 *   inside      workers that have joined the open job. A worker joins under the lock and only while `open`; the caller
 *               closes the job under the lock and then waits for inside = 0. So no worker touches a job after its call
 *               has returned, and what a body wrote is visible to the caller through the lock.
 *
 * Both waits spin a little first (a forward pass calls us every few tens of microseconds), then sleep. */
#define _GNU_SOURCE 1
#include "device/parallel.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/lock.h"
#include "base/status.h"

enum {
    THREADS_MOST = 256,
    SPINS = 400, /* pauses, about 10 us: longer than the gap between two small kernels, shorter than a sleep costs */
    STACK_BYTES = 512 * 1024
};

struct quire__parallel {
    quire_parallel_fn fn;
    void *user;
    uint32_t threads;
    uint32_t workers; /* started by us: threads - 1, or none */
    pthread_t *worker;
    pthread_mutex_t caller, lock;
    pthread_cond_t opened, emptied;
    bool open, stopping;
    void (*body)(void *arg, size_t index);
    void *arg;
    size_t count;
    atomic_size_t next;
    atomic_uint_fast64_t generation;
    atomic_uint inside;
};

static void work(quire__parallel *parallel, void (*body)(void *arg, size_t index), void *arg, size_t count)
{
    for (;;) {
        size_t index = atomic_fetch_add_explicit(&parallel->next, 1, memory_order_relaxed);
        if (index >= count)
            return;
        body(arg, index);
    }
}

static void *worker_main(void *pointer)
{
    quire__parallel *parallel = pointer;
    uint64_t seen = 0;

    pthread_mutex_lock(&parallel->lock);
    for (;;) {
        uint64_t now = atomic_load(&parallel->generation);
        if (parallel->stopping)
            break;
        if (now == seen || !parallel->open) {
            pthread_mutex_unlock(&parallel->lock);
            for (int i = 0; i < SPINS && atomic_load(&parallel->generation) == now; i++)
                quire__cpu_pause();
            pthread_mutex_lock(&parallel->lock);
            while (!parallel->stopping && atomic_load(&parallel->generation) == now)
                pthread_cond_wait(&parallel->opened, &parallel->lock);
            continue;
        }
        seen = now;
        void (*body)(void *arg, size_t index) = parallel->body;
        void *arg = parallel->arg;
        size_t count = parallel->count;
        atomic_fetch_add(&parallel->inside, 1);
        pthread_mutex_unlock(&parallel->lock);
        work(parallel, body, arg, count);
        pthread_mutex_lock(&parallel->lock);
        if (atomic_fetch_sub(&parallel->inside, 1) == 1 && !parallel->open)
            pthread_cond_signal(&parallel->emptied);
    }
    pthread_mutex_unlock(&parallel->lock);
    return NULL;
}

/* CPUs that this process may run on. */
static uint32_t cpu_count(void)
{
    cpu_set_t set;
    int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return count < 1 ? 1 : count > THREADS_MOST ? THREADS_MOST : (uint32_t)count;
}

/* Workers take no signals: those are the application's. */
static quire_status workers_start(quire__parallel *parallel)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    int failure = 0;

    parallel->worker = calloc(parallel->threads, sizeof *parallel->worker);
    if (parallel->worker == NULL || pthread_attr_init(&attributes) != 0)
        return quire__fail(QUIRE_ENOMEM, "no memory for %u threads", parallel->threads);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (failure == 0 && parallel->workers + 1 < parallel->threads) {
        failure = pthread_create(&parallel->worker[parallel->workers], &attributes, worker_main, parallel);
        parallel->workers += failure == 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (failure != 0)
        return quire__fail(QUIRE_ENOMEM, "started %u of %u threads: the system has no room for more",
                           parallel->workers + 1, parallel->threads);
    return QUIRE_OK;
}

quire_status quire__parallel_open(quire__parallel **parallel, uint32_t threads, quire_parallel_fn fn, void *user)
{
    quire__parallel *made;
    if (threads > THREADS_MOST)
        return quire__fail(QUIRE_EINVAL, "threads is %u; it can be 0..%d", threads, THREADS_MOST);
    made = calloc(1, sizeof *made);
    if (made == NULL)
        return quire__fail(QUIRE_ENOMEM, "no memory for the thread pool");
    made->fn = fn;
    made->user = user;
    made->threads = threads != 0 ? threads : cpu_count();
    pthread_mutex_init(&made->caller, NULL);
    pthread_mutex_init(&made->lock, NULL);
    pthread_cond_init(&made->opened, NULL);
    pthread_cond_init(&made->emptied, NULL);
    if (fn == NULL && made->threads > 1) {
        quire_status status = workers_start(made);
        if (status != QUIRE_OK) {
            quire__parallel_close(made);
            return status;
        }
    }
    *parallel = made;
    return QUIRE_OK;
}

void quire__parallel_close(quire__parallel *parallel)
{
    if (parallel == NULL)
        return;
    pthread_mutex_lock(&parallel->lock);
    parallel->stopping = true;
    atomic_fetch_add(&parallel->generation, 1);
    pthread_cond_broadcast(&parallel->opened);
    pthread_mutex_unlock(&parallel->lock);
    for (uint32_t i = 0; i < parallel->workers; i++)
        pthread_join(parallel->worker[i], NULL);
    pthread_cond_destroy(&parallel->emptied);
    pthread_cond_destroy(&parallel->opened);
    pthread_mutex_destroy(&parallel->lock);
    pthread_mutex_destroy(&parallel->caller);
    free(parallel->worker);
    free(parallel);
}

void quire__parallel_for(quire__parallel *parallel, size_t count, void (*body)(void *arg, size_t index), void *arg)
{
    if (parallel->fn != NULL && count > 1) {
        parallel->fn(parallel->user, count, body, arg);
        return;
    }
    if (parallel->workers == 0 || count <= 1 || pthread_mutex_trylock(&parallel->caller) != 0) {
        for (size_t i = 0; i < count; i++)
            body(arg, i);
        return;
    }
    pthread_mutex_lock(&parallel->lock);
    parallel->body = body;
    parallel->arg = arg;
    parallel->count = count;
    parallel->open = true;
    atomic_store_explicit(&parallel->next, 0, memory_order_relaxed);
    atomic_fetch_add(&parallel->generation, 1);
    pthread_cond_broadcast(&parallel->opened);
    pthread_mutex_unlock(&parallel->lock);

    work(parallel, body, arg, count);

    pthread_mutex_lock(&parallel->lock);
    parallel->open = false;
    pthread_mutex_unlock(&parallel->lock);
    for (int i = 0; i < SPINS && atomic_load(&parallel->inside) != 0; i++)
        quire__cpu_pause();
    pthread_mutex_lock(&parallel->lock);
    while (atomic_load(&parallel->inside) != 0)
        pthread_cond_wait(&parallel->emptied, &parallel->lock);
    pthread_mutex_unlock(&parallel->lock);
    pthread_mutex_unlock(&parallel->caller);
}

uint32_t quire__parallel_threads(const quire__parallel *parallel)
{
    return parallel->threads;
}
