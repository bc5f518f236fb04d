/* cmocka.h, for machines without cmocka: the part of its interface that our tests use, with the same output form.
 * Written for this project; CMake picks it only where pkg-config finds no cmocka. No mocks, no memory tracking. */
#ifndef CMOCKA_FALLBACK_H
#define CMOCKA_FALLBACK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef void (*CMUnitTestFunction)(void **state);
typedef int (*CMFixtureFunction)(void **state);

struct CMUnitTest {
    const char *name;
    CMUnitTestFunction test_func;
    CMFixtureFunction setup_func;
    CMFixtureFunction teardown_func;
    void *initial_state;
};

#define cmocka_unit_test_prestate_setup_teardown(f, setup, teardown, state) {#f, f, setup, teardown, state}
#define cmocka_unit_test_setup_teardown(f, setup, teardown) {#f, f, setup, teardown, NULL}
#define cmocka_unit_test_setup(f, setup) {#f, f, setup, NULL, NULL}
#define cmocka_unit_test_teardown(f, teardown) {#f, f, NULL, teardown, NULL}
#define cmocka_unit_test_prestate(f, state) {#f, f, NULL, NULL, state}
#define cmocka_unit_test(f) {#f, f, NULL, NULL, NULL}

#define cmocka_run_group_tests(tests, setup, teardown) cmocka_run_group_tests_name(#tests, tests, setup, teardown)
#define cmocka_run_group_tests_name(name, tests, setup, teardown) \
    _cmocka_run_group_tests(name, tests, sizeof(tests) / sizeof((tests)[0]), setup, teardown)

int _cmocka_run_group_tests(const char *name, const struct CMUnitTest *tests, size_t count, CMFixtureFunction setup,
                            CMFixtureFunction teardown);
/* Tests whose name does not fit the pattern (* and ?) are left out. */
void cmocka_set_test_filter(const char *pattern);

void _cmocka_skip(const char *file, int line) __attribute__((noreturn));
void _cmocka_fail(const char *file, int line, const char *format, ...)
    __attribute__((noreturn, format(printf, 3, 4)));
void print_message(const char *format, ...) __attribute__((format(printf, 1, 2)));
void print_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

void _assert_true(int truth, const char *expression, const char *file, int line);
void _assert_equal(uintmax_t left, uintmax_t right, int equal, const char *file, int line);
void _assert_strings(const char *left, const char *right, int equal, const char *file, int line);
void _assert_memory(const void *left, const void *right, size_t size, int equal, const char *file, int line);
void _assert_range(uintmax_t value, uintmax_t least, uintmax_t most, int within, const char *file, int line);
void _assert_float(float left, float right, float epsilon, int equal, const char *file, int line);
void _assert_return_code(intmax_t result, const char *expression, const char *file, int line);

#define skip() _cmocka_skip(__FILE__, __LINE__)
#define fail() _cmocka_fail(__FILE__, __LINE__, "failure")
#define fail_msg(...) _cmocka_fail(__FILE__, __LINE__, __VA_ARGS__)

#define _CMOCKA_POINTER(p) ((uintmax_t)(uintptr_t)(p))
#define assert_true(c) _assert_true(!!(c), #c, __FILE__, __LINE__)
#define assert_false(c) _assert_true(!(c), "!(" #c ")", __FILE__, __LINE__)
#define assert_non_null(p) _assert_true((p) != NULL, #p " != NULL", __FILE__, __LINE__)
#define assert_null(p) _assert_true((p) == NULL, #p " == NULL", __FILE__, __LINE__)
#define assert_int_equal(a, b) _assert_equal((uintmax_t)(a), (uintmax_t)(b), 1, __FILE__, __LINE__)
#define assert_int_not_equal(a, b) _assert_equal((uintmax_t)(a), (uintmax_t)(b), 0, __FILE__, __LINE__)
#define assert_ptr_equal(a, b) _assert_equal(_CMOCKA_POINTER(a), _CMOCKA_POINTER(b), 1, __FILE__, __LINE__)
#define assert_ptr_not_equal(a, b) _assert_equal(_CMOCKA_POINTER(a), _CMOCKA_POINTER(b), 0, __FILE__, __LINE__)
#define assert_string_equal(a, b) _assert_strings(a, b, 1, __FILE__, __LINE__)
#define assert_string_not_equal(a, b) _assert_strings(a, b, 0, __FILE__, __LINE__)
#define assert_memory_equal(a, b, size) _assert_memory(a, b, size, 1, __FILE__, __LINE__)
#define assert_memory_not_equal(a, b, size) _assert_memory(a, b, size, 0, __FILE__, __LINE__)
#define assert_in_range(v, least, most) _assert_range(v, least, most, 1, __FILE__, __LINE__)
#define assert_not_in_range(v, least, most) _assert_range(v, least, most, 0, __FILE__, __LINE__)
#define assert_float_equal(a, b, epsilon) _assert_float(a, b, epsilon, 1, __FILE__, __LINE__)
#define assert_float_not_equal(a, b, epsilon) _assert_float(a, b, epsilon, 0, __FILE__, __LINE__)
#define assert_return_code(rc, error) _assert_return_code(rc, #rc, __FILE__, __LINE__)

#ifdef __cplusplus
}
#endif
#endif
