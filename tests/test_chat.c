/* Chat templates against jinja2's renderings (tests/reference/make_chat.py). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "chat.h"
#include "gguf.h"
#include "gguf_builder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef QUIRE_TEST_FIXTURES
#define QUIRE_TEST_FIXTURES "tests/fixtures"
#endif

enum { FIELDS_MAX = 32, FIELD_END = 0x1f, RECORD_END = 0x1e };

/* Opens the template of a file that holds nothing else but the two tokens. */
static int open_template(chat_template *chat, const char *source, const char *bos, const char *eos,
                         infer_error *error)
{
    static gguf_builder b;
    const char *tokens[2] = { bos, eos };
    build_header(&b, 0, 4);
    build_key_string(&b, "tokenizer.chat_template", source);
    build_key_strings(&b, "tokenizer.ggml.tokens", tokens, 2);
    build_key_u32(&b, "tokenizer.ggml.bos_token_id", 0);
    build_key_u32(&b, "tokenizer.ggml.eos_token_id", 1);
    gguf_file *file;
    if (gguf_open_memory(&file, b.bytes, b.size, error)) fail_msg("%s", error->text);
    int result = chat_open(chat, file, error);
    gguf_close(file);
    return result;
}

/* fields: source, bos, eos, generation prompt, rendered, then role and content of each message */
static void check_record(const chat_template *chat, char **fields, size_t count)
{
    infer_error error;
    chat_message messages[FIELDS_MAX / 2];
    size_t message_count = (count - 5) / 2;
    char *text;
    for (size_t i = 0; i < message_count; i++)
        messages[i] = (chat_message){ fields[5 + 2 * i], fields[6 + 2 * i] };
    if (chat_render(chat, messages, message_count, *fields[3] == '1', &text, &error))
        fail_msg("%s", error.text);
    assert_string_equal(text, fields[4]);
    free(text);
}

/* The fixture as a NUL-terminated text that the caller frees. */
static char *read_fixture(void)
{
    static const char path[] = QUIRE_TEST_FIXTURES "/chat.txt";
    enum { LIMIT = 1 << 20 };
    FILE *file = fopen(path, "rb");
    if (!file) fail_msg("cannot open fixture %s", path);
    char *text = calloc(1, LIMIT + 1);
    assert_non_null(text);
    assert_in_range(fread(text, 1, LIMIT, file), 1, LIMIT - 1);
    fclose(file);
    return text;
}

/* Cuts the next record into its fields; returns their number, 0 at the end. */
static size_t next_record(char **at, char **fields)
{
    size_t count = 0;
    if (!**at) return 0;
    while (**at != RECORD_END) {
        assert_in_range(count, 0, FIELDS_MAX - 1);
        fields[count++] = *at;
        *at = strchr(*at, FIELD_END);
        assert_non_null(*at);
        *(*at)++ = 0;
    }
    (*at)++;
    return count;
}

static void every_family_renders_as_jinja_does(void **state)
{
    (void)state;
    char *text = read_fixture(), *at = text, *fields[FIELDS_MAX];
    size_t records = 0, seen[5] = { 0 };
    for (size_t count; (count = next_record(&at, fields)) != 0; records++) {
        infer_error error;
        chat_template chat;
        if (open_template(&chat, fields[0], fields[1], fields[2], &error)) fail_msg("%s", error.text);
        seen[chat.family]++;
        check_record(&chat, fields, count);
        chat_close(&chat);
    }
    print_message("%zu conversations\n", records);
    for (size_t i = 0; i < 5; i++) assert_true(seen[i] > 0);
    free(text);
}

static void the_models_own_template_is_read_from_its_file(void **state)
{
    (void)state;
    const char *path = getenv("QUIRE_MODEL");
    if (!path || !*path) {
        print_message("skipped: QUIRE_MODEL does not name the SmolLM2-135M-Instruct GGUF file\n");
        skip();
    }
    infer_error error;
    gguf_file *file;
    chat_template chat;
    gguf_string source;
    char *text = read_fixture(), *at = text, *fields[FIELDS_MAX];
    if (gguf_open(&file, path, &error)) fail_msg("%s", error.text);
    size_t count = next_record(&at, fields);
    if (gguf_get_string(file, "tokenizer.chat_template", &source, &error) ||
        !gguf_string_is(source, fields[0])) {
        print_message("skipped: QUIRE_MODEL names another model than SmolLM2-135M-Instruct\n");
        gguf_close(file);
        free(text);
        skip();
    }
    if (chat_open(&chat, file, &error)) fail_msg("%s", error.text);
    assert_string_equal(chat.default_system,
                        "You are a helpful AI assistant named SmolLM, trained by Hugging Face");
    check_record(&chat, fields, count);
    chat_close(&chat);
    gguf_close(file);
    free(text);
}

static void an_unknown_template_is_refused_with_the_known_families(void **state)
{
    (void)state;
    infer_error error;
    chat_template chat;
    assert_int_equal(open_template(&chat, "{{ messages }}", "<s>", "</s>", &error), -1);
    assert_non_null(strstr(error.text, "known are ChatML, Llama 3, Llama 2, Gemma and Zephyr"));
    assert_int_equal(open_template(&chat, "<|user|> <|end|> eos_token", "<s>", "</s>", &error), -1);
    assert_int_equal(open_template(&chat, "", "<s>", "</s>", &error), -1);
}

static void a_file_without_a_template_is_refused(void **state)
{
    (void)state;
    static gguf_builder b;
    infer_error error;
    chat_template chat;
    gguf_file *file;
    build_header(&b, 0, 0);
    assert_int_equal(gguf_open_memory(&file, b.bytes, b.size, &error), 0);
    assert_int_equal(chat_open(&chat, file, &error), -1);
    assert_non_null(strstr(error.text, "no chat template"));
    gguf_close(file);
}

static void a_vocabulary_with_turns_of_gemma_stands_for_its_template(void **state)
{
    (void)state;
    static gguf_builder b;
    static const char *const tokens[] = { "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>" };
    static const chat_message messages[] = { { "system", "Be brief." }, { "user", "Why? " } };
    infer_error error;
    chat_template chat;
    gguf_file *file;
    char *text = NULL;
    build_header(&b, 0, 3);
    build_key_strings(&b, "tokenizer.ggml.tokens", tokens, 4);
    build_key_u32(&b, "tokenizer.ggml.bos_token_id", 0);
    build_key_u32(&b, "tokenizer.ggml.eos_token_id", 1);
    assert_int_equal(gguf_open_memory(&file, b.bytes, b.size, &error), 0);
    if (chat_open(&chat, file, &error) || chat_render(&chat, messages, 2, true, &text, &error))
        fail_msg("%s", error.text);
    assert_string_equal(text, "<bos><start_of_turn>user\nBe brief.\n\nWhy?<end_of_turn>\n<start_of_turn>model\n");
    free(text);
    chat_close(&chat);
    gguf_close(file);
}

/* The search for the default system message must stay inside the template, wherever the template ends. */
static void a_template_cut_anywhere_is_read_within_its_bounds(void **state)
{
    (void)state;
    static const char whole[] = "<|im_start|>x{{ '<|im_start|>system\\nA\\'b\\\\<|im_end|>\\n' }}";
    for (size_t length = 0; length <= strlen(whole); length++) {
        infer_error error;
        chat_template chat;
        char *cut = calloc(1, length + 1);
        assert_non_null(cut);
        memcpy(cut, whole, length);
        if (!open_template(&chat, cut, "", "", &error)) chat_close(&chat);
        free(cut);
    }
}

static void messages_that_a_format_cannot_say_are_refused(void **state)
{
    (void)state;
    const chat_message robot = { "robot", "x" }, system = { "system", "x" }, user = { "user", "x" };
    const chat_message late_system[2] = { user, system }, twice[2] = { user, user };
    infer_error error;
    chat_template chat;
    char *text = NULL;
    if (open_template(&chat, "<start_of_turn>", "<bos>", "<eos>", &error)) fail_msg("%s", error.text);
    assert_int_equal(chat_render(&chat, NULL, 0, true, &text, &error), -1);
    assert_non_null(strstr(error.text, "no messages"));
    assert_int_equal(chat_render(&chat, &robot, 1, true, &text, &error), -1);
    assert_non_null(strstr(error.text, "role 'robot'; the roles are system, user, assistant"));
    assert_int_equal(chat_render(&chat, &system, 1, true, &text, &error), -1);
    assert_non_null(strstr(error.text, "the Gemma format has none"));
    assert_int_equal(chat_render(&chat, twice, 2, true, &text, &error), -1);
    assert_non_null(strstr(error.text, "take turns"));
    chat_close(&chat);
    if (open_template(&chat, "[INST] <<SYS>>", "<s>", "</s>", &error)) fail_msg("%s", error.text);
    assert_int_equal(chat_render(&chat, late_system, 2, true, &text, &error), -1);
    assert_non_null(strstr(error.text, "only the first can be"));
    assert_null(text);
    chat_close(&chat);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family_renders_as_jinja_does),
        cmocka_unit_test(the_models_own_template_is_read_from_its_file),
        cmocka_unit_test(an_unknown_template_is_refused_with_the_known_families),
        cmocka_unit_test(a_file_without_a_template_is_refused),
        cmocka_unit_test(a_vocabulary_with_turns_of_gemma_stands_for_its_template),
        cmocka_unit_test(a_template_cut_anywhere_is_read_within_its_bounds),
        cmocka_unit_test(messages_that_a_format_cannot_say_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
