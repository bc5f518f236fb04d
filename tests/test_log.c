#include "support/testing.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

typedef struct last {
    int lines;
    quire_log_level level;
    char text[2048];
} last;

static void keep(void *user, quire_log_level level, const char *line)
{
    last *last = user;
    last->lines++;
    last->level = level;
    snprintf(last->text, sizeof(last->text), "%s", line);
}

static void a_line_reaches_the_callers_function_with_its_level(void **state)
{
    (void)state;
    last last = {0};
    const quire__log log = {QUIRE_LOG_INFO, keep, &last};
    quire__log_line(&log, QUIRE_LOG_WARN, "%d of %s", 3, "four");
    assert_int_equal(last.lines, 1);
    assert_int_equal(last.level, QUIRE_LOG_WARN);
    assert_string_equal(last.text, "3 of four");
}

static void a_level_above_the_limit_is_silent_and_off_is_silent_always(void **state)
{
    (void)state;
    last last = {0};
    for (int limit = QUIRE_LOG_OFF; limit <= QUIRE_LOG_DEBUG; limit++) {
        const quire__log log = {(quire_log_level)limit, keep, &last};
        for (int level = QUIRE_LOG_OFF; level <= QUIRE_LOG_DEBUG; level++) {
            last.lines = 0;
            quire__log_line(&log, (quire_log_level)level, "line");
            assert_int_equal(last.lines, level != QUIRE_LOG_OFF && level <= limit);
        }
    }
}

static void a_line_that_is_too_long_is_cut(void **state)
{
    (void)state;
    last last = {0};
    const quire__log log = {QUIRE_LOG_INFO, keep, &last};
    quire__log_line(&log, QUIRE_LOG_INFO, "%2000d", 1);
    assert_int_equal(strlen(last.text), 1023);
}

static void without_a_function_lines_go_to_stderr_with_a_prefix(void **state)
{
    (void)state;
    char text[128] = {0};
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const int saved = dup(STDERR_FILENO);
    fflush(stderr);
    dup2(ends[1], STDERR_FILENO);
    const quire__log log = {QUIRE_LOG_ERROR, NULL, NULL};
    quire__log_line(&log, QUIRE_LOG_ERROR, "broken %s", "copy");
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    assert_true(read(ends[0], text, sizeof(text) - 1) > 0);
    close(ends[0]);
    close(ends[1]);
    close(saved);
    assert_string_equal(text, "quire: error: broken copy\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_reaches_the_callers_function_with_its_level),
        cmocka_unit_test(a_level_above_the_limit_is_silent_and_off_is_silent_always),
        cmocka_unit_test(a_line_that_is_too_long_is_cut),
        cmocka_unit_test(without_a_function_lines_go_to_stderr_with_a_prefix),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
