/* The tokenizer against llama.cpp's ids (tests/reference/make_tokenizer.py), and against small vocabularies
 * made here. The former need the model that the ids were made with: QUIRE_MODEL. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gguf.h"
#include "gguf_builder.h"
#include "tokenizer.h"
#include "tokenizer_split.h"
#include "utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef QUIRE_TEST_FIXTURES
#define QUIRE_TEST_FIXTURES "tests/fixtures"
#endif

/* ---- help ------------------------------------------------------------------------------------------- */

typedef struct bytes {
    char *data;
    size_t size;
} bytes;

static bytes read_fixture(const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", QUIRE_TEST_FIXTURES, name);
    FILE *file = fopen(path, "rb");
    if (!file) fail_msg("cannot open fixture %s", path);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    bytes b = { NULL, (size_t)ftell(file) };
    rewind(file);
    b.data = malloc(b.size + 1);
    assert_non_null(b.data);
    assert_int_equal(fread(b.data, 1, b.size, file), b.size);
    fclose(file);
    return b;
}

/* The model's tokenizer under a pretokenizer (NULL: its own); skips the test when QUIRE_MODEL names none, or
 * one with another vocabulary. */
static tokenizer *open_model_tokenizer(const char *pre)
{
    const char *path = getenv("QUIRE_MODEL");
    if (!path || !*path) {
        print_message("skipped: QUIRE_MODEL does not name the SmolLM2-135M-Instruct GGUF file\n");
        skip();
    }
    infer_error error;
    gguf_file *file;
    tokenizer *t;
    if (gguf_open(&file, path, &error)) fail_msg("%s", error.text);
    if (tokenizer_open_as(&t, file, pre, &error)) fail_msg("%s", error.text);
    gguf_close(file);
    if (tokenizer_size(t) != 49152 || tokenizer_find(t, "<jupyter_start>", 15) != 11) {
        print_message("skipped: QUIRE_MODEL names another model than SmolLM2-135M-Instruct\n");
        tokenizer_close(t);
        skip();
    }
    return t;
}

static token_list encode(const tokenizer *t, const char *text, size_t length, bool parse_special)
{
    infer_error error;
    token_list list = { 0 };
    if (tokenizer_encode(t, text, length, parse_special, &list, &error)) fail_msg("%s", error.text);
    return list;
}

static void check_decodes_to(const tokenizer *t, const token_list *list, const char *text, size_t length)
{
    size_t at = 0;
    for (size_t i = 0; i < list->count; i++) {
        gguf_string piece = tokenizer_decode(t, list->ids[i]);
        assert_true(piece.length <= length - at);
        assert_memory_equal(piece.data, text + at, piece.length);
        at += piece.length;
    }
    assert_int_equal(at, length);
}

/* Every `stride`th item of a fixture's texts has the ids that the reference gave it. */
static void check_fixture(const char *pre, const char *texts, const char *ids, size_t stride, bool special)
{
    tokenizer *t = open_model_tokenizer(pre);
    bytes text = read_fixture(texts), reference = read_fixture(ids);
    size_t start = 0, at = 0, item = 0, tokens = 0, wrong = 0;
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] != 0x1e) continue;
        if (item++ % stride == 0) {
            uint16_t count, id;
            token_list list = encode(t, text.data + start, i - start, special);
            memcpy(&count, reference.data + at, sizeof count);
            bool equal = list.count == count;
            for (size_t k = 0; k < count && equal; k++) {
                memcpy(&id, reference.data + at + 2 + 2 * k, sizeof id);
                equal = list.ids[k] == id;
            }
            if (!equal) print_message("item %zu differs: %.*s\n", item - 1, (int)(i - start), text.data + start);
            wrong += !equal;
            tokens += count;
            at += 2 + 2 * (size_t)count;
            if (tokenizer_spells(t, text.data + start, i - start, NULL))
                check_decodes_to(t, &list, text.data + start, i - start);
            token_list_free(&list);
        }
        start = i + 1;
    }
    print_message("%s: %zu items, %zu tokens, %zu items differ\n", ids, (item + stride - 1) / stride, tokens,
                  wrong);
    assert_int_equal(at, reference.size);
    assert_int_equal(wrong, 0);
    free(text.data);
    free(reference.data);
    tokenizer_close(t);
}

/* ---- against the reference -------------------------------------------------------------------------- */

static void ids_equal_llama_cpp_on_mixed_text(void **state)
{
    (void)state;
    check_fixture(NULL, "tokenizer.txt", "tokenizer.smollm.bin", 1, false);
}

static void ids_equal_llama_cpp_under_other_pretokenizers(void **state)
{
    (void)state;
    check_fixture("gpt-2", "tokenizer.txt", "tokenizer.gpt-2.bin", 8, false);
    check_fixture("llama-bpe", "tokenizer.txt", "tokenizer.llama-bpe.bin", 8, false);
}

static void special_tokens_are_recognised_when_asked_for(void **state)
{
    (void)state;
    check_fixture(NULL, "tokenizer.special.txt", "tokenizer.special.bin", 1, true);
}

static void special_tokens_are_plain_text_unless_asked_for(void **state)
{
    (void)state;
    tokenizer *t = open_model_tokenizer(NULL);
    const char *text = "<|im_start|>user";
    token_list list = encode(t, text, strlen(text), false);
    for (size_t i = 0; i < list.count; i++) assert_false(tokenizer_is_control(t, list.ids[i]));
    check_decodes_to(t, &list, text, strlen(text));
    token_list_free(&list);
    tokenizer_close(t);
}

static void ids_of_the_model_are_those_of_its_metadata(void **state)
{
    (void)state;
    tokenizer *t = open_model_tokenizer(NULL);
    assert_int_equal(tokenizer_size(t), 49152);
    assert_int_equal(tokenizer_bos(t), 1);
    assert_int_equal(tokenizer_eos(t), 2);
    assert_int_equal(tokenizer_eot(t), 2);
    assert_false(tokenizer_add_bos(t));
    assert_true(tokenizer_is_end(t, 2));
    assert_false(tokenizer_is_end(t, 1));
    assert_int_equal(tokenizer_find(t, "<|im_start|>", 12), 1);
    tokenizer_close(t);
}

/* Any bytes, valid UTF-8 or not: nothing is lost but bytes that the vocabulary cannot spell. */
static void random_bytes_survive_encode_and_decode(void **state)
{
    (void)state;
    tokenizer *t = open_model_tokenizer(NULL);
    unsigned seed = 20240612;
    print_message("seed %u\n", seed);
    uint64_t random = seed;
    for (int round = 0; round < 2000; round++) {
        char text[64];
        size_t length = 0;
        while (length < sizeof text) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            text[length] = (char)(random >> 56);
            length += tokenizer_spells(t, text + length, 1, NULL);
        }
        token_list list = encode(t, text, length, round & 1);
        check_decodes_to(t, &list, text, length);
        token_list_free(&list);
    }
    tokenizer_close(t);
}

/* A merge that rescans its word would need hours for these: a word of a million letters, a million spaces. */
static void a_word_of_a_million_letters_is_encoded(void **state)
{
    (void)state;
    tokenizer *t = open_model_tokenizer(NULL);
    size_t length = 1000000;
    char *text = malloc(length);
    assert_non_null(text);
    for (int kind = 0; kind < 3; kind++) {
        for (size_t i = 0; i < length; i++)
            text[i] = kind == 0 ? "the"[i % 3] : kind == 1 ? ' ' : (char)('a' + i * i % 26);
        token_list list = encode(t, text, length, true);
        check_decodes_to(t, &list, text, length);
        token_list_free(&list);
    }
    free(text);
    tokenizer_close(t);
}

/* ---- small vocabularies ----------------------------------------------------------------------------- */

static const char *const small_tokens[] = { "a", "b", "c", "ab", "bc", "abc", "\xc4\xa0", "<x>", "ca", "<u>" };
static const int32_t small_types[] = { 1, 1, 1, 1, 1, 1, 1, 3, 1, 4 };
static const char *const small_merges[] = { "b c", "a b", "a bc" };

enum { SMALL_TOKENS = sizeof small_tokens / sizeof *small_tokens };

/* Opens a file with this vocabulary; the merges end at `merges`. */
static int open_small(tokenizer **t, const char *model, const char *pre, size_t types,
                      const char *const *merges, size_t merge_count, infer_error *error)
{
    static gguf_builder b;
    build_header(&b, 0, 5);
    build_key_string(&b, "tokenizer.ggml.model", model);
    build_key_string(&b, "tokenizer.ggml.pre", pre);
    build_key_strings(&b, "tokenizer.ggml.tokens", small_tokens, SMALL_TOKENS);
    build_key_ints(&b, "tokenizer.ggml.token_type", small_types, types);
    build_key_strings(&b, "tokenizer.ggml.merges", merges, merge_count);
    gguf_file *file;
    if (gguf_open_memory(&file, b.bytes, b.size, error)) fail_msg("%s", error->text);
    int result = tokenizer_open(t, file, error);
    gguf_close(file);
    return result;
}

static void the_lowest_rank_merges_first_and_then_the_leftmost(void **state)
{
    (void)state;
    infer_error error;
    tokenizer *t;
    if (open_small(&t, "gpt2", "gpt-2", SMALL_TOKENS, small_merges, 3, &error)) fail_msg("%s", error.text);
    static const struct {
        const char *text;
        size_t count;
        int32_t ids[4];
    } cases[] = {
        { "abc", 1, { 5 } }, { "abab", 2, { 3, 3 } }, { "abca", 2, { 5, 0 } }, { "bcbc", 2, { 4, 4 } },
        { "ab c", 3, { 3, 6, 2 } }, { "azb", 2, { 0, 1 } }, { "", 0, { 0 } },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        token_list list = encode(t, cases[i].text, strlen(cases[i].text), true);
        assert_int_equal(list.count, cases[i].count);
        if (list.count) assert_memory_equal(list.ids, cases[i].ids, list.count * sizeof *list.ids);
        token_list_free(&list);
    }
    tokenizer_close(t);
}

static void user_defined_tokens_are_always_recognised(void **state)
{
    (void)state;
    infer_error error;
    tokenizer *t;
    if (open_small(&t, "gpt2", "gpt-2", SMALL_TOKENS, small_merges, 3, &error)) fail_msg("%s", error.text);
    for (int special = 0; special < 2; special++) {
        token_list list = encode(t, "a<u>b<x>c", 9, special);
        assert_int_equal(list.count, special ? 5 : 4);
        assert_int_equal(list.ids[1], 9);
        if (special) assert_int_equal(list.ids[3], 7);
        token_list_free(&list);
    }
    tokenizer_close(t);
}

static void bytes_without_a_token_are_reported(void **state)
{
    (void)state;
    infer_error error;
    tokenizer *t;
    size_t bad = 99;
    if (open_small(&t, "gpt2", "gpt-2", SMALL_TOKENS, small_merges, 3, &error)) fail_msg("%s", error.text);
    assert_true(tokenizer_spells(t, "ab c", 4, &bad));
    assert_false(tokenizer_spells(t, "abzc", 4, &bad));
    assert_int_equal(bad, 2);
    tokenizer_close(t);
}

static void a_wrong_tokenizer_is_refused_with_the_reason(void **state)
{
    (void)state;
    static const char *const one_part[] = { "ab" }, *const foreign[] = { "b a" };
    infer_error error;
    tokenizer *t = NULL;
    assert_int_equal(open_small(&t, "t5", "gpt-2", SMALL_TOKENS, small_merges, 3, &error), -1);
    assert_non_null(strstr(error.text, "model 't5'; this reader knows 'gpt2' (byte-level BPE) and 'llama'"));
    assert_int_equal(open_small(&t, "gpt2", "tekken", SMALL_TOKENS, small_merges, 3, &error), -1);
    assert_non_null(strstr(error.text, "'tekken'; this reader knows " SPLIT_NAMES_KNOWN));
    assert_int_equal(open_small(&t, "gpt2", "gpt-2", 3, small_merges, 3, &error), -1);
    assert_non_null(strstr(error.text, "token_type has 3 elements for 10 tokens"));
    assert_int_equal(open_small(&t, "gpt2", "gpt-2", SMALL_TOKENS, one_part, 1, &error), -1);
    assert_non_null(strstr(error.text, "element 0 ('ab') is not two byte-level tokens"));
    assert_int_equal(open_small(&t, "gpt2", "gpt-2", SMALL_TOKENS, foreign, 1, &error), -1);
    assert_non_null(strstr(error.text, "('b a') has a part or a result that is not in the vocabulary"));
    assert_null(t);
}

static void a_file_without_a_tokenizer_is_refused(void **state)
{
    (void)state;
    static gguf_builder b;
    infer_error error;
    gguf_file *file;
    tokenizer *t;
    build_header(&b, 0, 0);
    assert_int_equal(gguf_open_memory(&file, b.bytes, b.size, &error), 0);
    assert_int_equal(tokenizer_open(&t, file, &error), -1);
    assert_non_null(strstr(error.text, "the model file has no tokenizer"));
    gguf_close(file);
}

/* ---- pieces and UTF-8 ------------------------------------------------------------------------------- */

/* The pieces of the text, joined with '|'. */
static void check_split(split_rule rule, const char *text, const char *wanted)
{
    char joined[256];
    size_t length = strlen(text), used = 0;
    for (size_t at = 0; at < length;) {
        size_t end = split_next(rule, text, length, at);
        assert_true(end > at && end <= length);
        if (at) joined[used++] = '|';
        memcpy(joined + used, text + at, end - at);
        used += end - at;
        at = end;
    }
    joined[used] = 0;
    assert_string_equal(joined, wanted);
}

static void pieces_follow_each_rule(void **state)
{
    (void)state;
    check_split(SPLIT_GPT2, "I'm 12345  ok\n\n x!", "I|'m| 12345| | ok|\n\n| x|!");
    check_split(SPLIT_GPT2, "IT'S \t a\xc3\xa9 \xe4\xbd\xa0 ", "IT|'|S| \t| a\xc3\xa9| \xe4\xbd\xa0| ");
    check_split(SPLIT_SMOLLM, "I'm 123  4 ok", "I|'m| |1|2|3|  |4| ok");
    check_split(SPLIT_LLAMA3, "IT'S 12345!\n\n  ok \n\nx", "IT|'S| |123|45|!\n\n| | ok| \n\n|x");
    check_split(SPLIT_QWEN2, "a_b 123", "a|_b| |1|2|3");
    check_split(SPLIT_GPT2, "a\xff\xfe z", "a|\xff\xfe| z");
}

static void only_well_formed_utf8_passes_the_check(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t bad;               /* SIZE_MAX: well-formed */
    } cases[] = {
        { "", SIZE_MAX }, { "abc", SIZE_MAX }, { "\xc3\xa9\xe2\x82\xac\xf0\x9f\x99\x82", SIZE_MAX },
        { "\xf4\x8f\xbf\xbf", SIZE_MAX }, { "\xed\x9f\xbf\xee\x80\x80", SIZE_MAX },
        { "ab\x80", 2 }, { "\xc0\xaf", 0 }, { "\xc1\xbf", 0 }, { "a\xe0\x9f\xbf", 1 }, { "\xed\xa0\x80", 0 },
        { "\xf0\x8f\xbf\xbf", 0 }, { "\xf4\x90\x80\x80", 0 }, { "\xf5\x80\x80\x80", 0 }, { "x\xe2\x82", 1 },
        { "\xc3", 0 }, { "\xc3(", 0 }, { "\xff", 0 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t bad = SIZE_MAX;
        bool good = utf8_check(cases[i].text, strlen(cases[i].text), &bad);
        assert_int_equal(good, cases[i].bad == SIZE_MAX);
        assert_int_equal(bad, cases[i].bad);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_equal_llama_cpp_on_mixed_text),
        cmocka_unit_test(ids_equal_llama_cpp_under_other_pretokenizers),
        cmocka_unit_test(special_tokens_are_recognised_when_asked_for),
        cmocka_unit_test(special_tokens_are_plain_text_unless_asked_for),
        cmocka_unit_test(ids_of_the_model_are_those_of_its_metadata),
        cmocka_unit_test(random_bytes_survive_encode_and_decode),
        cmocka_unit_test(a_word_of_a_million_letters_is_encoded),
        cmocka_unit_test(the_lowest_rank_merges_first_and_then_the_leftmost),
        cmocka_unit_test(user_defined_tokens_are_always_recognised),
        cmocka_unit_test(bytes_without_a_token_are_reported),
        cmocka_unit_test(a_wrong_tokenizer_is_refused_with_the_reason),
        cmocka_unit_test(a_file_without_a_tokenizer_is_refused),
        cmocka_unit_test(pieces_follow_each_rule),
        cmocka_unit_test(only_well_formed_utf8_passes_the_check),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
