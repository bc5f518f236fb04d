/* Request lines and conversations, over a tokenizer of single characters. */
#include "support/testing.h"

#include "gguf_builder.h"
#include "requests.h"

#include <stdio.h>
#include <string.h>

enum { FIRST_PRINTABLE = 33, LAST_PRINTABLE = 126, SPECIALS = 4, TOKENS = LAST_PRINTABLE - FIRST_PRINTABLE + 1 + SPECIALS };

static const char chatml[] =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

typedef struct rig {
    tokenizer *tokenizer;
    chat_template chat;
} rig;

static int open_rig(void **state)
{
    static gguf_builder b;
    static char letters[TOKENS][2];
    const char *tokens[TOKENS];
    int32_t types[TOKENS];
    static const char *const merges[] = { "a b" };
    infer_error error;
    gguf_file *file;
    rig *r = calloc(1, sizeof *r);
    for (int i = 0; i < TOKENS - SPECIALS; i++) {
        letters[i][0] = (char)(FIRST_PRINTABLE + i);
        tokens[i] = letters[i];
        types[i] = 1;
    }
    const char *specials[SPECIALS] = { "\xc4\xa0", "\xc4\x8a", "<|im_start|>", "<|im_end|>" };
    for (int i = 0; i < SPECIALS; i++) {
        tokens[TOKENS - SPECIALS + i] = specials[i];
        types[TOKENS - SPECIALS + i] = i < 2 ? 1 : 3;
    }
    const char *all[TOKENS + 1];
    int32_t all_types[TOKENS + 1];
    memcpy(all, tokens, sizeof tokens);
    memcpy(all_types, types, sizeof types);
    all[TOKENS] = "ab"; /* what the merge makes */
    all_types[TOKENS] = 1;
    build_header(&b, 0, 7);
    build_key_string(&b, "tokenizer.ggml.model", "gpt2");
    build_key_string(&b, "tokenizer.ggml.pre", "gpt-2");
    build_key_strings(&b, "tokenizer.ggml.tokens", all, TOKENS + 1);
    build_key_ints(&b, "tokenizer.ggml.token_type", all_types, TOKENS + 1);
    build_key_strings(&b, "tokenizer.ggml.merges", merges, 1);
    build_key_u32(&b, "tokenizer.ggml.eos_token_id", TOKENS - 1);
    build_key_string(&b, "tokenizer.chat_template", chatml);
    if (gguf_open_memory(&file, b.bytes, b.size, &error)) fail_msg("%s", error.text);
    if (tokenizer_open(&r->tokenizer, file, &error)) fail_msg("%s", error.text);
    if (chat_open(&r->chat, file, &error)) fail_msg("%s", error.text);
    gguf_close(file);
    *state = r;
    return 0;
}

static int close_rig(void **state)
{
    rig *r = *state;
    chat_close(&r->chat);
    tokenizer_close(r->tokenizer);
    free(r);
    return 0;
}

static const engine_request defaults = { .most_tokens = 7, .branches = 1, .sampling = { .top_p = 1, .seed = 3 } };

static int parse(const rig *r, const char *line, token_list *tokens, engine_request *out, infer_error *error)
{
    return requests_parse(line, strlen(line), r->tokenizer, &r->chat, &defaults, tokens, out, error);
}

static void assert_spells(const rig *r, const token_list *tokens, const char *text)
{
    char spelled[1024];
    size_t length = 0;
    for (size_t i = 0; i < tokens->count; i++) {
        gguf_string piece = tokenizer_decode(r->tokenizer, tokens->ids[i]);
        memcpy(spelled + length, piece.data, piece.length);
        length += piece.length;
    }
    spelled[length] = 0;
    assert_string_equal(spelled, text);
}

static void test_a_line_says_what_to_run_and_leaves_the_rest_to_the_defaults(void **state)
{
    const rig *r = *state;
    token_list tokens = { 0 };
    engine_request q;
    infer_error error;
    if (!requests_supported()) SKIP_BECAUSE("this build has no cJSON");
    if (parse(r, "{\"prompt\": \"a cat\", \"n\": 3, \"temperature\": 0.5}\n", &tokens, &q, &error))
        fail_msg("%s", error.text);
    assert_spells(r, &tokens, "a cat");
    assert_ptr_equal(q.tokens, tokens.ids);
    assert_int_equal(q.count, tokens.count);
    assert_int_equal(q.branches, 3);
    assert_int_equal(q.most_tokens, 7);
    assert_true(q.sampling.temperature == 0.5f && q.sampling.top_p == 1.0f);
    assert_int_equal(q.sampling.seed, 3);
    token_list_free(&tokens);

    const char *full = "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"max_tokens\":2,\"top_p\":0.25,"
                       "\"seed\":9007199254740992,\"domain\":4,\"prune_every\":5}";
    if (parse(r, full, &tokens, &q, &error)) fail_msg("%s", error.text);
    assert_spells(r, &tokens, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
    assert_int_equal(q.most_tokens, 2);
    assert_true(q.sampling.top_p == 0.25f);
    assert_true(q.sampling.seed == 1ull << 53 && q.domain == 4 && q.prune_every == 5);
    token_list_free(&tokens);
}

static void test_a_malformed_line_is_refused_with_the_reason(void **state)
{
    const rig *r = *state;
    static const struct { const char *line, *reason; } cases[] = {
        { "", "no JSON" },
        { "{", "no JSON from character" },
        { "{\"prompt\":\"a\"} x", "no JSON from character 15" },
        { "[]", "must be a JSON object" },
        { "3", "must be a JSON object" },
        { "{}", "either \"prompt\" or \"messages\"" },
        { "{\"prompt\":\"a\",\"messages\":[]}", "either \"prompt\" or \"messages\"" },
        { "{\"prompt\":\"\"}", "the prompt is empty" },
        { "{\"prompt\":7}", "\"prompt\" must be a string" },
        { "{\"prompt\":\"a\\u0000b\"}", "character 0" },
        { "{\"prompt\":\"a\",\"promt\":1}", "unknown field \"promt\"" },
        { "{\"prompt\":\"a\",\"max_tokens\":-1}", "\"max_tokens\" is -1; it must be a whole number" },
        { "{\"prompt\":\"a\",\"max_tokens\":1.5}", "whole number" },
        { "{\"prompt\":\"a\",\"max_tokens\":1e300}", "whole number" },
        { "{\"prompt\":\"a\",\"n\":\"2\"}", "\"n\" must be a number" },
        { "{\"prompt\":\"a\",\"temperature\":null}", "\"temperature\" must be a number" },
        { "{\"messages\":{}}", "\"messages\" must be an array" },
        { "{\"messages\":[{\"role\":\"user\"}]}", "message 1 must be" },
        { "{\"messages\":[3]}", "message 1 must be" },
        { "{\"messages\":[]}", "" },
        { "{\"prompt\":\"\xff\"}", "not UTF-8 from byte 0" },
    };
    if (!requests_supported()) SKIP_BECAUSE("this build has no cJSON");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        token_list tokens = { 0 };
        engine_request q;
        infer_error error = { "" };
        if (!parse(r, cases[i].line, &tokens, &q, &error)) fail_msg("%s was taken", cases[i].line);
        if (!strstr(error.text, cases[i].reason)) fail_msg("%s: %s", cases[i].line, error.text);
        token_list_free(&tokens);
    }
}

static void test_messages_need_a_chat_template(void **state)
{
    const rig *r = *state;
    token_list tokens = { 0 };
    engine_request q;
    infer_error error;
    const char *line = "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}";
    if (!requests_supported()) SKIP_BECAUSE("this build has no cJSON");
    assert_int_equal(requests_parse(line, strlen(line), r->tokenizer, NULL, &defaults, &tokens, &q, &error), -1);
    assert_non_null(strstr(error.text, "no chat template"));
    token_list_free(&tokens);
}

static void test_a_conversation_keeps_the_generated_tokens_as_they_were(void **state)
{
    const rig *r = *state;
    conversation c;
    infer_error error;
    int32_t answer[2] = { tokenizer_find(r->tokenizer, "a", 1), tokenizer_find(r->tokenizer, "b", 1) };
    conversation_open(&c, r->tokenizer, &r->chat);
    if (conversation_say(&c, "user", "hi", &error)) fail_msg("%s", error.text);
    assert_spells(r, &c.tokens, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
    size_t prompt = c.tokens.count;
    if (conversation_answer(&c, answer, 2, &error)) fail_msg("%s", error.text);
    if (conversation_say(&c, "user", "so", &error)) fail_msg("%s", error.text);
    assert_spells(r, &c.tokens, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nab<|im_end|>\n"
                                "<|im_start|>user\nso<|im_end|>\n<|im_start|>assistant\n");
    /* "ab" as text would be one token */
    assert_int_equal(c.tokens.ids[prompt], answer[0]);
    assert_int_equal(c.tokens.ids[prompt + 1], answer[1]);
    assert_int_equal(conversation_say(&c, "user", "", &error), -1);
    assert_int_equal(conversation_say(&c, "user", "\xc3", &error), -1);
    assert_int_equal(c.count, 3);
    conversation_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_line_says_what_to_run_and_leaves_the_rest_to_the_defaults),
        cmocka_unit_test(test_a_malformed_line_is_refused_with_the_reason),
        cmocka_unit_test(test_messages_need_a_chat_template),
        cmocka_unit_test(test_a_conversation_keeps_the_generated_tokens_as_they_were),
    };
    return cmocka_run_group_tests(tests, open_rig, close_rig);
}
