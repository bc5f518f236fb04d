/* test_parallel.c: every index once, nothing after the call has returned. Meant to run under TSan too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "device/parallel.h"

static void count_index(void *arg, size_t index)
{
    ((uint32_t *)arg)[index]++; /* plain: two threads at one index would be a race */
}

static void every_index_runs_once_whatever_the_threads(void **state)
{
    static const size_t counts[] = {0, 1, 2, 3, 7, 64, 1000, 4096};
    (void)state;
    for (uint32_t threads = 0; threads <= 6; threads++) {
        quire__parallel *parallel = NULL;
        uint32_t *seen = calloc(4096, sizeof *seen);
        assert_int_equal(quire__parallel_open(&parallel, threads, NULL, NULL), QUIRE_OK);
        assert_true(quire__parallel_threads(parallel) >= 1);
        if (threads != 0)
            assert_int_equal(quire__parallel_threads(parallel), threads);
        for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
            memset(seen, 0, 4096 * sizeof *seen);
            quire__parallel_for(parallel, counts[i], count_index, seen);
            for (size_t j = 0; j < 4096; j++)
                assert_int_equal(seen[j], j < counts[i]);
        }
        quire__parallel_close(parallel);
        free(seen);
    }
}

typedef struct chain {
    uint64_t value[64];
} chain;

static void step_chain(void *arg, size_t index)
{
    chain *c = arg;
    c->value[index] = c->value[index] * 6364136223846793005u + index;
}

/* Each call reads what the one before wrote, on whatever thread: a call that returned early, or a worker that came
 * late, would break a chain. */
static void a_call_has_happened_when_it_returns(void **state)
{
    quire__parallel *parallel = NULL;
    chain got, expected;
    (void)state;
    assert_int_equal(quire__parallel_open(&parallel, 4, NULL, NULL), QUIRE_OK);
    memset(&got, 0, sizeof got);
    memset(&expected, 0, sizeof expected);
    for (int i = 0; i < 5000; i++) {
        size_t count = (size_t)i % 65;
        quire__parallel_for(parallel, count, step_chain, &got);
        for (size_t j = 0; j < count; j++)
            step_chain(&expected, j);
        if (i % 1000 == 999)
            quire__clock_sleep_us(2000); /* let the workers fall asleep */
    }
    assert_memory_equal(&got, &expected, sizeof got);
    quire__parallel_close(parallel);
}

typedef struct meeting {
    atomic_uint present;
    pthread_t threads[2];
} meeting;

static void meet(void *arg, size_t index)
{
    meeting *m = arg;
    m->threads[index] = pthread_self();
    atomic_fetch_add(&m->present, 1);
    while (atomic_load(&m->present) < 2)
        quire__clock_sleep_us(10);
}

static void two_threads_work_at_the_same_time(void **state)
{
    quire__parallel *parallel = NULL;
    meeting m;
    (void)state;
    assert_int_equal(quire__parallel_open(&parallel, 2, NULL, NULL), QUIRE_OK);
    for (int i = 0; i < 20; i++) {
        atomic_init(&m.present, 0);
        quire__parallel_for(parallel, 2, meet, &m); /* ends only if each index has its thread */
        assert_false(pthread_equal(m.threads[0], m.threads[1]));
    }
    quire__parallel_close(parallel);
}

static void backwards(void *user, size_t count, void (*body)(void *arg, size_t index), void *arg)
{
    ++*(int *)user;
    while (count-- > 0)
        body(arg, count);
}

static void the_callers_function_is_used_instead(void **state)
{
    quire__parallel *parallel = NULL;
    uint32_t seen[10] = {0};
    int calls = 0;
    (void)state;
    assert_int_equal(quire__parallel_open(&parallel, 3, backwards, &calls), QUIRE_OK);
    assert_int_equal(quire__parallel_threads(parallel), 3);
    quire__parallel_for(parallel, 10, count_index, seen);
    assert_int_equal(calls, 1);
    for (int i = 0; i < 10; i++)
        assert_int_equal(seen[i], 1);
    quire__parallel_close(parallel);
}

static void too_many_threads_are_refused(void **state)
{
    quire__parallel *parallel = NULL;
    (void)state;
    assert_int_equal(quire__parallel_open(&parallel, 100000, NULL, NULL), QUIRE_EINVAL);
    assert_non_null(strstr(quire_error_text(), "100000"));
    assert_null(parallel);
    quire__parallel_close(NULL);
}

static void opening_and_closing_leaves_nothing_behind(void **state)
{
    (void)state;
    for (int i = 0; i < 200; i++) {
        quire__parallel *parallel = NULL;
        uint32_t seen[8] = {0};
        assert_int_equal(quire__parallel_open(&parallel, 3, NULL, NULL), QUIRE_OK);
        if (i % 2)
            quire__parallel_for(parallel, 8, count_index, seen);
        quire__parallel_close(parallel);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_index_runs_once_whatever_the_threads),
        cmocka_unit_test(a_call_has_happened_when_it_returns),
        cmocka_unit_test(two_threads_work_at_the_same_time),
        cmocka_unit_test(the_callers_function_is_used_instead),
        cmocka_unit_test(too_many_threads_are_refused),
        cmocka_unit_test(opening_and_closing_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
