/* cmocka.c: runs tests one after the other; a failed assertion or a skip jumps out of its test. One thread asserts. */
#include "cmocka.h"

#include <fnmatch.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum outcome { PASSED, FAILED, SKIPPED };

static jmp_buf leave;
static int in_test;
static enum outcome outcome;
static const char *filter;

void cmocka_set_test_filter(const char *pattern)
{
    filter = pattern;
}

void print_message(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    fflush(stdout);
}

void print_error(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
}

static void end_with(enum outcome result) __attribute__((noreturn));
static void end_with(enum outcome result)
{
    outcome = result;
    if (!in_test) {
        fprintf(stderr, "assertion outside of a test\n");
        _Exit(1);
    }
    longjmp(leave, 1);
}

void _cmocka_skip(const char *file, int line)
{
    (void)file;
    (void)line;
    end_with(SKIPPED);
}

void _cmocka_fail(const char *file, int line, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "[  ERROR   ] --- ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n%s:%d: error: Failure!\n", file, line);
    va_end(arguments);
    end_with(FAILED);
}

void _assert_true(int truth, const char *expression, const char *file, int line)
{
    if (!truth)
        _cmocka_fail(file, line, "%s", expression);
}

void _assert_equal(uintmax_t left, uintmax_t right, int equal, const char *file, int line)
{
    if ((left == right) != equal)
        _cmocka_fail(file, line, "%#jx %s %#jx", left, equal ? "!=" : "==", right);
}

void _assert_strings(const char *left, const char *right, int equal, const char *file, int line)
{
    if ((strcmp(left, right) == 0) != equal)
        _cmocka_fail(file, line, "\"%s\" %s \"%s\"", left, equal ? "!=" : "==", right);
}

void _assert_memory(const void *left, const void *right, size_t size, int equal, const char *file, int line)
{
    const unsigned char *a = left, *b = right;
    size_t at = 0;
    while (at < size && a[at] == b[at])
        at++;
    if (equal && at < size)
        _cmocka_fail(file, line, "difference at offset %zu of %zu: 0x%02x != 0x%02x", at, size, a[at], b[at]);
    if (!equal && at == size)
        _cmocka_fail(file, line, "%zu equal bytes", size);
}

void _assert_range(uintmax_t value, uintmax_t least, uintmax_t most, int within, const char *file, int line)
{
    if ((value >= least && value <= most) != within)
        _cmocka_fail(file, line, "%ju is %s the range %ju-%ju", value, within ? "not within" : "within", least, most);
}

void _assert_float(float left, float right, float epsilon, int equal, const char *file, int line)
{
    if ((fabsf(left - right) <= epsilon) != equal)
        _cmocka_fail(file, line, "%g %s %g", (double)left, equal ? "!=" : "==", (double)right);
}

void _assert_return_code(intmax_t result, const char *expression, const char *file, int line)
{
    if (result < 0)
        _cmocka_fail(file, line, "%s < 0 (%jd)", expression, result);
}

/* Runs one function of a test under the jump buffer; a fixture fails by a result that is not 0. */
static void guarded(const struct CMUnitTest *test, CMFixtureFunction fixture, void **state)
{
    in_test = 1;
    if (setjmp(leave) == 0) {
        if (!fixture)
            test->test_func(state);
        else if (fixture(state) != 0)
            outcome = FAILED;
    }
    in_test = 0;
}

static enum outcome run_test(const struct CMUnitTest *test, void *group_state)
{
    void *state = test->initial_state ? test->initial_state : group_state;
    outcome = PASSED;
    printf("[ RUN      ] %s\n", test->name);
    fflush(stdout);
    if (test->setup_func)
        guarded(test, test->setup_func, &state);
    if (outcome == PASSED)
        guarded(test, NULL, &state);
    const enum outcome result = outcome;
    outcome = PASSED;
    if (test->teardown_func)
        guarded(test, test->teardown_func, &state);
    return outcome == PASSED ? result : FAILED;
}

static void list_tests(const char *label, const struct CMUnitTest *tests, const unsigned char *results, size_t count,
                       enum outcome wanted)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++)
        found += results[i] == wanted;
    if (found == 0)
        return;
    printf("[%s] %zu test(s), listed below:\n", label, found);
    for (size_t i = 0; i < count; i++) {
        if (results[i] == wanted)
            printf("[%s] %s\n", label, tests[i].name);
    }
}

int _cmocka_run_group_tests(const char *name, const struct CMUnitTest *tests, size_t count, CMFixtureFunction setup,
                            CMFixtureFunction teardown)
{
    enum { MOST_TESTS = 1024, LEFT_OUT = 255 };
    static const char *const labels[] = {"       OK ", "  FAILED  ", "  SKIPPED "};
    static unsigned char results[MOST_TESTS];
    size_t passed = 0, failed = 0, run = 0;
    void *state = NULL;

    if (count > MOST_TESTS)
        return -1;
    printf("[==========] %s: Running %zu test(s).\n", name, count);
    const int broken = setup && setup(&state) != 0;
    for (size_t i = 0; i < count; i++) {
        results[i] = LEFT_OUT;
        if (filter && fnmatch(filter, tests[i].name, 0) != 0)
            continue;
        results[i] = (unsigned char)(broken ? FAILED : run_test(&tests[i], state));
        printf("[%s] %s\n", labels[results[i]], tests[i].name);
        run++;
        passed += results[i] == PASSED;
        failed += results[i] == FAILED;
    }
    if (teardown && teardown(&state) != 0)
        failed++;
    printf("[==========] %s: %zu test(s) run.\n[  PASSED  ] %zu test(s).\n", name, run, passed);
    list_tests("  SKIPPED ", tests, results, count, SKIPPED);
    list_tests("  FAILED  ", tests, results, count, FAILED);
    fflush(stdout);
    return (int)failed;
}
