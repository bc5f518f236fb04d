/* Trace files, good and bad. */
#include "support/testing.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "read.h"

typedef struct file {
    char path[64];
    replay_trace trace;
    replay_read_result result;
    replay_error error;
} file;

static const replay_read_options usual = {.piece_tokens = 512, .memory = 1 << 24, .longest_line = 1 << 16};

static void write_file(file *f, const void *bytes, size_t count)
{
    snprintf(f->path, sizeof f->path, "/tmp/quire-replay-XXXXXX");
    int fd = mkstemp(f->path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, count), (long)count);
    close(fd);
}

static int read_bytes(file *f, const void *bytes, size_t count, const replay_read_options *options)
{
    write_file(f, bytes, count);
    int status = replay_read(&f->trace, f->path, options, &f->result, &f->error);
    unlink(f->path);
    return status;
}

static int read_text(file *f, const char *text, const replay_read_options *options)
{
    return read_bytes(f, text, strlen(text), options);
}

/* The one bad line is skipped and named; with --strict it ends the reading. */
static void check_bad_line(const char *good, const char *bad, const char *why)
{
    char text[4096];
    file f;
    snprintf(text, sizeof text, "%s\n%s\n", good, bad);
    replay_read_options strict = usual;
    strict.strict = true;
    assert_int_equal(read_text(&f, text, &strict), -1);
    if (!strstr(f.error.text, why))
        fail_msg("\"%s\": the error is \"%s\" and does not say \"%s\"", bad, f.error.text, why);
    char *newline = strchr(good, '\n');
    assert_non_null(strstr(f.error.text, newline ? ":3: " : ":2: "));
    assert_int_equal(read_text(&f, text, &usual), 0);
    assert_int_equal(f.result.skipped, 1);
    assert_int_equal(f.trace.request_count, 1);
    replay_trace_close(&f.trace);
}

static const char mooncake[] = "{\"timestamp\": 5, \"input_length\": 1030, \"output_length\": 7, \"hash_ids\": [3, 9, 4]}";

static void a_line_of_mooncake_jsonl_is_read(void **state)
{
    (void)state;
    file f;
    char text[512];
    if (!replay_read_json_supported())
        SKIP_BECAUSE("this build has no cJSON");
    snprintf(text, sizeof text, "%s\r\n\n  \n{\"timestamp\": 2.5, \"input_length\": 513, \"output_length\": 0, "
             "\"hash_ids\": [3, 8], \"more\": 1}", mooncake);
    assert_int_equal(read_text(&f, text, &usual), 0);
    assert_int_equal(f.trace.request_count, 2);
    assert_int_equal(f.result.skipped, 0);
    assert_int_equal(f.trace.requests[0].time_us, 2500); /* sorted */
    assert_int_equal(f.trace.requests[1].input, 1030);
    assert_int_equal(f.trace.requests[1].output, 7);
    assert_int_equal(f.trace.requests[1].count, 3);
    assert_int_equal(f.trace.units, 4);
    assert_int_equal(f.trace.longest, 1037);
    const uint32_t *first = f.trace.ids + f.trace.requests[0].first, *second = f.trace.ids + f.trace.requests[1].first;
    assert_int_equal(first[0], second[0]);
    assert_int_not_equal(first[1], second[1]);
    replay_trace_close(&f.trace);
}

static void malformed_json_is_named_by_its_line(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"{\"timestamp\": 1", "no JSON from character"},
        {"[1, 2]", "must be a JSON object"},
        {"{\"timestamp\": 1, \"input_length\": 5, \"output_length\": 1}", "either the array"},
        {"{\"timestamp\": 1, \"input_length\": 5, \"output_length\": 1, \"hash_ids\": [1], \"tokens\": [1]}", "either the"},
        {"{\"input_length\": 5, \"output_length\": 1, \"hash_ids\": [1]}", "\"timestamp\""},
        {"{\"timestamp\": -1, \"input_length\": 5, \"output_length\": 1, \"hash_ids\": [1]}", "\"timestamp\""},
        {"{\"timestamp\": 1, \"input_length\": 5.5, \"output_length\": 1, \"hash_ids\": [1]}", "\"input_length\""},
        {"{\"timestamp\": 1, \"input_length\": \"5\", \"output_length\": 1, \"hash_ids\": [1]}", "\"input_length\""},
        {"{\"timestamp\": 1, \"input_length\": 0, \"output_length\": 1, \"hash_ids\": []}", "an input of 0"},
        {"{\"timestamp\": 1, \"input_length\": 9, \"output_length\": -4, \"hash_ids\": [1]}", "\"output_length\""},
        {"{\"timestamp\": 1, \"input_length\": 512, \"output_length\": 1, \"hash_ids\": [3, 9]}", "more hash_ids"},
        {"{\"timestamp\": 1, \"input_length\": 700, \"output_length\": 1, \"hash_ids\": [1, \"x\"]}", "no whole number"},
        {"{\"timestamp\": 1, \"input_length\": 700, \"output_length\": 1, \"hash_ids\": [1, 1e300]}", "no whole number"},
        {"{\"timestamp\": 1, \"input_length\": 700, \"output_length\": 1, \"hash_ids\": [9, 3]}", "same prompt"},
        {"{\"timestamp\": 1, \"tokens\": [1, 2]}", "whose first has"},
        {"x", "no JSON"},
    };
    if (!replay_read_json_supported())
        SKIP_BECAUSE("this build has no cJSON");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        check_bad_line(mooncake, bad[i][0], bad[i][1]);
}

static void a_line_of_token_ids_is_read_and_cut(void **state)
{
    (void)state;
    file f;
    if (!replay_read_json_supported())
        SKIP_BECAUSE("this build has no cJSON");
    assert_int_equal(read_text(&f, "{\"timestamp\": 0, \"tokens\": [1, 2, 3, 4, 5], \"output_length\": 3, \"domain\": 7}\n"
                               "{\"timestamp\": 1, \"tokens\": [1, 2, 3, 4, 6], \"domain\": 7, \"turn_ended\": true}\n"
                               "{\"timestamp\": 1, \"tokens\": [1, 2, 9, 4]}\n", &usual), 0);
    assert_int_equal(f.trace.token_count, 14);
    assert_int_equal(f.trace.requests[0].domain, 7);
    assert_int_equal(f.trace.requests[1].flags, REPLAY_TURN_ENDED);
    assert_int_equal(replay_trace_cut(&f.trace, 2, &f.error), 0);
    const uint32_t wanted[] = {0, 1, 0, 1, 2, 3}; /* the third is in another domain */
    assert_int_equal(f.trace.id_count, 6);
    assert_memory_equal(f.trace.ids, wanted, sizeof wanted);
    replay_trace_close(&f.trace);
    check_bad_line("{\"timestamp\": 0, \"tokens\": [1]}", "{\"timestamp\": 0, \"tokens\": [1, null]}", "no token id");
    check_bad_line("{\"timestamp\": 0, \"tokens\": [1]}", "{\"timestamp\": 0, \"tokens\": []}", "an input of 0");
    check_bad_line("{\"timestamp\": 0, \"tokens\": [1]}", mooncake, "whose first has");
}

static const char prefix[] = "# prefix-trace v1 block=256 src=test\n12 600 5 2 0-1,7";

static void a_prefix_trace_is_read(void **state)
{
    (void)state;
    file f;
    char text[512];
    snprintf(text, sizeof text, "%s\n# a remark\n30 520 0 1 0-1\n", prefix);
    assert_int_equal(read_text(&f, text, &usual), 0);
    assert_int_equal(f.trace.piece_tokens, 256);
    assert_int_equal(f.trace.request_count, 2);
    assert_int_equal(f.trace.requests[0].time_us, 12000);
    assert_int_equal(f.trace.requests[0].flags, REPLAY_TURN_ENDED);
    assert_int_equal(f.trace.requests[0].count, 3);
    assert_int_equal(f.trace.requests[1].flags, REPLAY_SUBAGENT);
    assert_int_equal(f.trace.requests[1].count, 2); /* what is beyond its ids is its own */
    replay_trace_close(&f.trace);
}

static void a_malformed_prefix_trace_is_named_by_its_line(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"12 600 5 0", "the flags is"},        {"12 600 5 0 ", "no id"},
        {"12 600 5 0 0-", "FIRST-LAST"},       {"12 600 5 0 5-3", "FIRST-LAST"},
        {"12 600 5 0 0-9", "more ids"},        {"12 600 5 0 0-18446744073709551614", "more ids"},
        {"12 600 5 0 0;1", "separated by"},    {"12 0 5 0 1", "an input of 0"},
        {"-12 600 5 0 1", "the time is"},      {"12 99999999999 5 0 1", "the input is"},
        {"12 600 5 0 7,0", "same prompt"},     {"12 2000000000 5 0 0", "an input of 2000000000"},
    };
    file f;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        check_bad_line(prefix, bad[i][0], bad[i][1]);
    assert_int_equal(read_text(&f, "# prefix-trace v1\n1 1 1 0 1\n", &usual), -1);
    assert_non_null(strstr(f.error.text, "block=N"));
    assert_int_equal(read_text(&f, "# prefix-trace v1 block=0\n1 1 1 0 1\n", &usual), -1);
}

static void what_is_no_trace_is_refused(void **state)
{
    (void)state;
    file f;
    assert_int_equal(read_text(&f, "hello\n", &usual), -1);
    assert_non_null(strstr(f.error.text, "no format that is known"));
    assert_int_equal(read_text(&f, "", &usual), -1);
    assert_non_null(strstr(f.error.text, "no request"));
    assert_int_equal(replay_read(&f.trace, "/does/not/exist", &usual, &f.result, &f.error), -1);
    assert_non_null(strstr(f.error.text, "/does/not/exist"));
    static const char zero[] = "# prefix-trace v1 block=256\n1 1 1 0 1\n1 1\0 1 0 1\n";
    assert_int_equal(read_bytes(&f, zero, sizeof zero - 1, &usual), 0);
    assert_int_equal(f.result.skipped, 1);
    replay_trace_close(&f.trace);
}

static void nothing_is_read_past_the_limits(void **state)
{
    (void)state;
    file f;
    enum { LONG = 100000 };
    static char text[4 * LONG];
    size_t length = (size_t)sprintf(text, "%s\n# ", prefix);
    memset(text + length, 'x', LONG); /* longer than a line may be */
    length += LONG;
    length += (size_t)sprintf(text + length, "\n30 520 0 1 0-1\n");
    assert_int_equal(read_bytes(&f, text, length, &usual), 0);
    assert_int_equal(f.result.skipped, 1);
    assert_int_equal(f.trace.request_count, 2);
    replay_trace_close(&f.trace);

    length = (size_t)sprintf(text, "# prefix-trace v1 block=1\n1 200000 1 0 0-199999\n");
    replay_read_options little = usual;
    little.memory = 1 << 20;
    assert_int_equal(read_bytes(&f, text, length, &little), -1);
    assert_non_null(strstr(f.error.text, "--memory"));

    little = usual;
    little.most_requests = 1;
    length = (size_t)sprintf(text, "%s\n30 520 0 1 0-1\n", prefix);
    assert_int_equal(read_bytes(&f, text, length, &little), 0);
    assert_int_equal(f.trace.request_count, 1);
    replay_trace_close(&f.trace);
}

/* printf '# prefix-trace v1 block=256 src=test\n12 600 5 2 0-1,7\n' | xz (and | zstd) */
static const unsigned char in_xz[] = {
    253, 55, 122, 88, 90, 0, 0, 4, 230, 214, 180, 70, 2, 0, 33, 1, 28, 0, 0, 0, 16, 207, 88, 204, 1, 0,
    53, 35, 32, 112, 114, 101, 102, 105, 120, 45, 116, 114, 97, 99, 101, 32, 118, 49, 32, 98, 108, 111,
    99, 107, 61, 50, 53, 54, 32, 115, 114, 99, 61, 116, 101, 115, 116, 10, 49, 50, 32, 54, 48, 48, 32,
    53, 32, 50, 32, 48, 45, 49, 44, 55, 10, 0, 0, 0, 45, 189, 28, 191, 156, 211, 218, 123, 0, 1, 78, 54,
    57, 66, 198, 129, 31, 182, 243, 125, 1, 0, 0, 0, 0, 4, 89, 90};
static const unsigned char in_zstd[] = {
    40, 181, 47, 253, 4, 104, 177, 1, 0, 35, 32, 112, 114, 101, 102, 105, 120, 45, 116, 114, 97, 99,
    101, 32, 118, 49, 32, 98, 108, 111, 99, 107, 61, 50, 53, 54, 32, 115, 114, 99, 61, 116, 101, 115,
    116, 10, 49, 50, 32, 54, 48, 48, 32, 53, 32, 50, 32, 48, 45, 49, 44, 55, 10, 232, 218, 232, 163};

static void check_compressed(const unsigned char *bytes, size_t count, const char *tool)
{
    file f;
    if (read_bytes(&f, bytes, count, &usual)) {
        if (strstr(f.error.text, "this build has no"))
            SKIP_BECAUSE("%s", f.error.text);
        fail_msg("%s", f.error.text);
    }
    assert_int_equal(f.trace.request_count, 1);
    replay_trace_close(&f.trace);
    for (size_t cut = 8; cut < count; cut += 5) {
        if (read_bytes(&f, bytes, cut, &usual) == 0)
            fail_msg("%s: %zu of %zu bytes were taken for the whole", tool, cut, count);
    }
}

static void a_trace_compressed_by_xz_is_read_whole_or_not(void **state)
{
    (void)state;
    check_compressed(in_xz, sizeof in_xz, "xz");
}

static void a_trace_compressed_by_zstd_is_read_whole_or_not(void **state)
{
    (void)state;
    check_compressed(in_zstd, sizeof in_zstd, "zstd");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_of_mooncake_jsonl_is_read),
        cmocka_unit_test(malformed_json_is_named_by_its_line),
        cmocka_unit_test(a_line_of_token_ids_is_read_and_cut),
        cmocka_unit_test(a_prefix_trace_is_read),
        cmocka_unit_test(a_malformed_prefix_trace_is_named_by_its_line),
        cmocka_unit_test(what_is_no_trace_is_refused),
        cmocka_unit_test(nothing_is_read_past_the_limits),
        cmocka_unit_test(a_trace_compressed_by_xz_is_read_whole_or_not),
        cmocka_unit_test(a_trace_compressed_by_zstd_is_read_whole_or_not),
    };
    return cmocka_run_group_tests_name("replay_read", tests, NULL, NULL);
}
