#include "support/testing.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"

static void every_status_has_its_own_name(void **state)
{
    (void)state;
    for (int a = QUIRE_OK; a <= QUIRE_EPEER; a++) {
        assert_int_equal(strncmp(quire_status_name((quire_status)a), "QUIRE_", 6), 0);
        for (int b = a + 1; b <= QUIRE_EPEER; b++)
            assert_string_not_equal(quire_status_name((quire_status)a), quire_status_name((quire_status)b));
    }
    assert_string_equal(quire_status_name(QUIRE_EFULL), "QUIRE_EFULL");
}

static void a_number_that_is_no_status_still_has_a_name(void **state)
{
    (void)state;
    assert_non_null(quire_status_name((quire_status)1000));
    assert_non_null(quire_status_name((quire_status)-1));
}

static void a_fault_sets_the_text_and_returns_its_status(void **state)
{
    (void)state;
    assert_int_equal(quire__fail(QUIRE_ERANGE, "%d tokens, at most %d", 9, 8), QUIRE_ERANGE);
    assert_string_equal(quire_error_text(), "9 tokens, at most 8");
}

static void a_text_that_is_too_long_is_cut(void **state)
{
    (void)state;
    char big[2000];
    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = 0;
    quire__fail(QUIRE_EINVAL, "%s", big);
    assert_int_equal(strlen(quire_error_text()), 511);
}

static void a_text_may_quote_the_text_before_it(void **state)
{
    (void)state;
    quire__fail(QUIRE_EDEVICE, "inner");
    quire__fail(QUIRE_EDEVICE, "outer: %s", quire_error_text());
    assert_string_equal(quire_error_text(), "outer: inner");
}

static void *fail_elsewhere(void *seen)
{
    snprintf(seen, 64, "%s", quire_error_text());
    quire__fail(QUIRE_EINVAL, "of the other thread");
    return NULL;
}

static void each_thread_has_its_own_text(void **state)
{
    (void)state;
    char seen[64] = "unset";
    pthread_t thread;
    quire__fail(QUIRE_EINVAL, "of this thread");
    assert_int_equal(pthread_create(&thread, NULL, fail_elsewhere, seen), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_string_equal(seen, "");
    assert_string_equal(quire_error_text(), "of this thread");
}

static void the_version_string_says_version_and_devices(void **state)
{
    (void)state;
    char version[32];
    snprintf(version, sizeof(version), "quire %d.%d.%d (", QUIRE_VERSION_MAJOR, QUIRE_VERSION_MINOR,
             QUIRE_VERSION_PATCH);
    assert_int_equal(strncmp(quire_version_string(), version, strlen(version)), 0);
    assert_non_null(strstr(quire_version_string(), "host"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_status_has_its_own_name),
        cmocka_unit_test(a_number_that_is_no_status_still_has_a_name),
        cmocka_unit_test(a_fault_sets_the_text_and_returns_its_status),
        cmocka_unit_test(a_text_that_is_too_long_is_cut),
        cmocka_unit_test(a_text_may_quote_the_text_before_it),
        cmocka_unit_test(each_thread_has_its_own_text),
        cmocka_unit_test(the_version_string_says_version_and_devices),
    };
    return cmocka_run_group_tests_name("status", tests, NULL, NULL);
}
