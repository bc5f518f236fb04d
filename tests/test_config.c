#include "support/testing.h"

#include <stdio.h>
#include <string.h>

#include "base/config.h"

static void clear_environment(void)
{
    for (size_t i = 0; i < quire__variable_count; i++)
        unsetenv(quire__variables[i].name);
}

static int clean(void **state)
{
    (void)state;
    clear_environment();
    return 0;
}

static quire_options defaults(void)
{
    static const quire_group group = {.layers = 2, .kv_heads = 2, .head_dim = 64};
    quire_options options;
    assert_int_equal(quire_options_init(&options, sizeof(options)), QUIRE_OK);
    options.groups = &group;
    options.group_count = 1;
    return options;
}

static void assert_text_has(const char *part)
{
    if (!strstr(quire_error_text(), part))
        fail_msg("\"%s\" does not say \"%s\"", quire_error_text(), part);
}

/* ---- reading ----------------------------------------------------------------------------------------------- */

static void defaults_are_those_of_the_table_and_are_valid(void **state)
{
    (void)state;
    const quire_options options = defaults();
    assert_string_equal(options.device, "auto");
    assert_int_equal(options.block_tokens, 16);
    assert_int_equal(options.dtype, QUIRE_DTYPE_BF16);
    assert_int_equal(options.device_bytes, 512 << 20);
    assert_int_equal(options.host_bytes, 1 << 30);
    assert_int_equal(options.max_sequences, 256);
    assert_int_equal(options.max_seq_tokens, 0);
    assert_int_equal(options.max_step_tokens, 8192);
    assert_int_equal(options.max_domains, 1024);
    assert_int_equal(options.watermark_blocks, 0);
    assert_string_equal(options.policy, "learned");
    assert_int_equal(options.offload, QUIRE_OFFLOAD_WRITE_THROUGH);
    assert_int_equal(options.checksum, QUIRE_CHECKSUM_RESTORE);
    assert_int_equal(options.event_capacity, 0);
    assert_int_equal(options.threads, 0);
    assert_int_equal(options.deterministic, 0);
    assert_int_equal(options.move_timeout_ms, 30000);
    assert_int_equal(options.hash_key, 0);
    assert_int_equal(options.log_level, QUIRE_LOG_WARN);
    assert_int_equal(quire__config_validate(&options), QUIRE_OK);
}

static void the_environment_overrides_the_default_of_every_field(void **state)
{
    (void)state;
    setenv("QUIRE_DEVICE", "sim:7", 1);
    setenv("QUIRE_BLOCK_TOKENS", "32", 1);
    setenv("QUIRE_DTYPE", "fp8", 1);
    setenv("QUIRE_DEVICE_BYTES", "3g", 1);
    setenv("QUIRE_HOST_BYTES", "0", 1);
    setenv("QUIRE_OFFLOAD", "none", 1);
    setenv("QUIRE_CHECKSUM", "off", 1);
    setenv("QUIRE_HASH_KEY", "0xffffffffffffffff", 1);
    setenv("QUIRE_DETERMINISTIC", "1", 1);
    setenv("QUIRE_LOG", "debug", 1);
    setenv("QUIRE_EVENTS", "", 1); /* as good as not set */
    const quire_options options = defaults();
    assert_string_equal(options.device, "sim:7");
    assert_int_equal(options.block_tokens, 32);
    assert_int_equal(options.dtype, QUIRE_DTYPE_FP8_E4M3);
    assert_int_equal(options.device_bytes, (uint64_t)3 << 30);
    assert_int_equal(options.host_bytes, 0);
    assert_int_equal(options.offload, QUIRE_OFFLOAD_NONE);
    assert_int_equal(options.checksum, QUIRE_CHECKSUM_OFF);
    assert_int_equal(options.hash_key, UINT64_MAX);
    assert_int_equal(options.deterministic, 1);
    assert_int_equal(options.log_level, QUIRE_LOG_DEBUG);
    assert_int_equal(options.event_capacity, 0);
    assert_int_equal(quire__config_validate(&options), QUIRE_OK);
}

static void a_malformed_variable_is_an_error_with_name_value_and_range(void **state)
{
    (void)state;
    static const struct {
        const char *name, *value, *range;
    } cases[] = {
        {"QUIRE_BLOCK_TOKENS", "0", "1..256 tokens, a power of two"},
        {"QUIRE_BLOCK_TOKENS", "24", "a power of two"},
        {"QUIRE_BLOCK_TOKENS", "512", "1..256"},
        {"QUIRE_BLOCK_TOKENS", "-1", "1..256"},
        {"QUIRE_BLOCK_TOKENS", " 16", "1..256"},
        {"QUIRE_BLOCK_TOKENS", "16 ", "1..256"},
        {"QUIRE_BLOCK_TOKENS", "sixteen", "1..256"},
        {"QUIRE_BLOCK_TOKENS", "0x", "1..256"},
        {"QUIRE_DEVICE_BYTES", "0", "1..1024T bytes, K M G T allowed"},
        {"QUIRE_DEVICE_BYTES", "12X", "1..1024T"},
        {"QUIRE_DEVICE_BYTES", "12MM", "1..1024T"},
        {"QUIRE_DEVICE_BYTES", "M", "1..1024T"},
        {"QUIRE_DEVICE_BYTES", "18446744073709551616", "1..1024T"},
        {"QUIRE_DEVICE_BYTES", "99999999999T", "1..1024T"},
        {"QUIRE_DTYPE", "bf17", "f32, f16, bf16, fp8"},
        {"QUIRE_POLICY", "LRU", "lru"},
        {"QUIRE_DETERMINISTIC", "yes", "0 or 1"},
        {"QUIRE_LOG", "verbose", "off, error, warn, info, debug"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        quire_options options, before;
        clear_environment();
        setenv(cases[i].name, cases[i].value, 1);
        memset(&options, 0x5a, sizeof(options));
        before = options;
        assert_int_equal(quire_options_init(&options, sizeof(options)), QUIRE_EINVAL);
        assert_memory_equal(&options, &before, sizeof(options));
        assert_text_has(cases[i].name);
        assert_text_has(cases[i].value);
        assert_text_has(cases[i].range);
    }
}

static void options_of_another_size_are_refused(void **state)
{
    (void)state;
    quire_options options;
    assert_int_equal(quire_options_init(&options, sizeof(options) - 8), QUIRE_EINVAL);
    assert_int_equal(quire_options_init(NULL, sizeof(options)), QUIRE_EINVAL);
    options = defaults();
    options.size--;
    assert_int_equal(quire__config_validate(&options), QUIRE_EINVAL);
    assert_int_equal(quire__config_validate(NULL), QUIRE_EINVAL);
}

/* Bytes at random for every variable: either a valid value or a clear error, and never more than its range. */
static void no_text_gets_past_the_ranges(void **state)
{
    (void)state;
    static const char alphabet[] = "0123456789xXaAfFkKmMgGtT -+.eE,:lru";
    uint64_t random = test_seed("texts", 21);
    for (int trial = 0; trial < 20000; trial++) {
        char text[12] = {0};
        random = random * 6364136223846793005u + 1442695040888963407u;
        const size_t length = (random >> 33) % 11;
        for (size_t i = 0; i < length; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            text[i] = alphabet[(random >> 33) % (sizeof(alphabet) - 1)];
        }
        const quire__variable *variable = &quire__variables[(random >> 45) % quire__variable_count];
        clear_environment();
        setenv(variable->name, text, 1);
        quire_options options;
        if (quire_options_init(&options, sizeof(options)) != QUIRE_OK) {
            assert_text_has(variable->name);
            continue;
        }
        static const quire_group group = {.layers = 1, .kv_heads = 1, .head_dim = 8};
        options.groups = &group;
        options.group_count = 1;
        assert_int_equal(quire__config_validate(&options), QUIRE_OK);
    }
}

/* ---- the caller's word ------------------------------------------------------------------------------------- */

static void a_field_out_of_range_is_refused_by_its_name(void **state)
{
    (void)state;
    quire_options options = defaults();
#define REFUSED(member, value, said)                                                   \
    do {                                                                               \
        options = defaults();                                                          \
        options.member = (value);                                                      \
        assert_int_equal(quire__config_validate(&options), QUIRE_EINVAL);              \
        assert_text_has("options." #member);                                           \
        assert_text_has(said);                                                         \
    } while (0)
    REFUSED(block_tokens, 0, "1..256");
    REFUSED(block_tokens, 17, "a power of two");
    REFUSED(device_bytes, 0, "1..1024T");
    REFUSED(host_bytes, UINT64_MAX, "0..1024T");
    REFUSED(max_sequences, 65537, "1..65536");
    REFUSED(max_step_tokens, 0, "1..");
    REFUSED(max_domains, 0, "1..");
    REFUSED(move_timeout_ms, 0, "1..");
    REFUSED(deterministic, 2, "0 or 1");
    REFUSED(dtype, (quire_dtype)0, "bf16");
    REFUSED(dtype, (quire_dtype)8, "bf16");
    REFUSED(offload, (quire_offload)4, "write-through");
    REFUSED(checksum, (quire_checksum)-1, "restore");
    REFUSED(log_level, (quire_log_level)5, "debug");
    REFUSED(policy, "fifo", "lru");
    REFUSED(policy, NULL, "lru");
    REFUSED(device, "", "text");
    REFUSED(free, (void (*)(void *, void *))abort, "alloc");
#undef REFUSED
}

/* ---- logging ----------------------------------------------------------------------------------------------- */

typedef struct lines {
    char text[16384];
    size_t used;
} lines;

static void keep_line(void *user, quire_log_level level, const char *line)
{
    lines *lines = user;
    lines->used += (size_t)snprintf(lines->text + lines->used, sizeof(lines->text) - lines->used, "%d %s\n", level, line);
    assert_true(lines->used < sizeof(lines->text));
}

static void an_unknown_variable_is_warned_about_once_with_the_nearest_name(void **state)
{
    (void)state;
    lines *lines = calloc(1, sizeof(*lines));
    assert_non_null(lines);
    setenv("QUIRE_BLOK_TOKENS", "16", 1);
    setenv("QUIRE_SOMETHING_ELSE_ALTOGETHER", "16", 1);
    quire_options options = defaults();
    options.log = keep_line;
    options.log_user = lines;
    quire__config_log(&options);
    assert_non_null(strstr(lines->text, "2 QUIRE_BLOK_TOKENS is not a variable that Quire knows: did you mean "
                                        "QUIRE_BLOCK_TOKENS?\n"));
    assert_non_null(strstr(lines->text, "QUIRE_SOMETHING_ELSE_ALTOGETHER is not a variable that Quire knows\n"));
    lines->used = 0;
    lines->text[0] = 0;
    quire__config_log(&options);
    assert_string_equal(lines->text, "");
    unsetenv("QUIRE_BLOK_TOKENS");
    unsetenv("QUIRE_SOMETHING_ELSE_ALTOGETHER");
    free(lines);
}

static void info_lists_every_library_variable_with_its_source(void **state)
{
    (void)state;
    lines *lines = calloc(1, sizeof(*lines));
    assert_non_null(lines);
    setenv("QUIRE_HOST_BYTES", "64M", 1);
    quire_options options = defaults();
    options.log = keep_line;
    options.log_user = lines;
    options.log_level = QUIRE_LOG_INFO;
    options.max_sequences = 3;
    quire__config_log(&options);
    for (size_t i = 0; i < quire__variable_count; i++) {
        const int listed = strstr(lines->text, quire__variables[i].name) != NULL;
        assert_int_equal(listed, strcmp(quire__variables[i].reader, "library") == 0);
    }
    assert_non_null(strstr(lines->text, "3 QUIRE_HOST_BYTES=64M (environment)\n"));
    assert_non_null(strstr(lines->text, "3 QUIRE_MAX_SEQUENCES=3 (caller)\n"));
    assert_non_null(strstr(lines->text, "3 QUIRE_DTYPE=bf16 (default)\n"));
    free(lines);
}

static void names_far_from_any_other_have_no_neighbour(void **state)
{
    (void)state;
    assert_string_equal(quire__variable_nearest("QUIRE_THREAD"), "QUIRE_THREADS");
    assert_string_equal(quire__variable_nearest("QUIRE_DEVICE_BYTE"), "QUIRE_DEVICE_BYTES");
    assert_null(quire__variable_nearest("QUIRE_ABCDEFGHIJKLMNOPQRSTUVWXYZ"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(defaults_are_those_of_the_table_and_are_valid, clean),
        cmocka_unit_test_setup(the_environment_overrides_the_default_of_every_field, clean),
        cmocka_unit_test_setup(a_malformed_variable_is_an_error_with_name_value_and_range, clean),
        cmocka_unit_test_setup(options_of_another_size_are_refused, clean),
        cmocka_unit_test_setup(no_text_gets_past_the_ranges, clean),
        cmocka_unit_test_setup(a_field_out_of_range_is_refused_by_its_name, clean),
        cmocka_unit_test_setup(an_unknown_variable_is_warned_about_once_with_the_nearest_name, clean),
        cmocka_unit_test_setup(info_lists_every_library_variable_with_its_source, clean),
        cmocka_unit_test(names_far_from_any_other_have_no_neighbour),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
