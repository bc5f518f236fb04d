/* SentencePiece: Gemma's vocabulary against llama.cpp (tests/reference/make_gemma.py), which needs the model file,
 * QUIRE_MODEL_GEMMA, and small vocabularies made here. */
#include "support/testing.h"

#include "gguf.h"
#include "gguf_builder.h"
#include "tokenizer.h"

#include <stdio.h>
#include <string.h>

/* ---- help -------------------------------------------------------------------------------------------------- */

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

static tokenizer *open_gemma(void)
{
    const char *path = getenv("QUIRE_MODEL_GEMMA");
    infer_error error;
    gguf_file *file;
    tokenizer *t = NULL;
    if (!path || !*path) SKIP_BECAUSE("QUIRE_MODEL_GEMMA is not set");
    if (gguf_open(&file, path, &error) || tokenizer_open(&t, file, &error)) fail_msg("%s", error.text);
    gguf_close(file);
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

/* FNV-1a over the bytes of the ids. */
static uint64_t hash_ids(const token_list *list)
{
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < list->count; i++)
        for (int byte = 0; byte < 4; byte++)
            hash = (hash ^ ((uint32_t)list->ids[i] >> 8 * byte & 255)) * 1099511628211u;
    return hash;
}

/* Every item of the texts has as many tokens as the reference, and their hash. */
static size_t check_texts(const tokenizer *t, const char *name, bool special, const char **reference, const char *end)
{
    bytes text = read_fixture(name);
    size_t start = 0, items = 0, tokens = 0, wrong = 0;
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] != 0x1e) continue;
        const char *item = text.data + start;
        uint16_t count;
        uint64_t hash;
        assert_true(end - *reference >= 10);
        memcpy(&count, *reference, sizeof count);
        memcpy(&hash, *reference + 2, sizeof hash);
        *reference += 10;
        token_list list = encode(t, item, i - start, special);
        if (list.count != count || hash_ids(&list) != hash) {
            print_message("item %zu of %s differs: %.*s\n", items, name, (int)(i - start), item);
            wrong++;
        }
        tokens += count;
        token_list_free(&list);
        start = i + 1;
        items++;
    }
    print_message("%s: %zu items, %zu tokens, %zu items differ\n", name, items, tokens, wrong);
    assert_int_equal(wrong, 0);
    free(text.data);
    return items;
}

/* ---- Gemma's vocabulary ------------------------------------------------------------------------------------- */

static void test_ids_equal_llama_cpp_on_mixed_text(void **state)
{
    (void)state;
    tokenizer *t = open_gemma();
    bytes reference = read_fixture("gemma_tokens.bin");
    const char *at = reference.data, *end = at + reference.size;
    assert_true(check_texts(t, "tokenizer.txt", false, &at, end) >= 3000);
    check_texts(t, "tokenizer.special.txt", true, &at, end);
    check_texts(t, "gemma_special.txt", true, &at, end);
    assert_ptr_equal(at, end);
    free(reference.data);
    tokenizer_close(t);
}

static void test_control_tokens_are_plain_text_unless_asked_for(void **state)
{
    (void)state;
    tokenizer *t = open_gemma();
    infer_error error;
    token_list all = { 0 };
    for (int32_t id = 0; id < tokenizer_size(t); id++) {
        if (!tokenizer_is_control(t, id)) continue;
        gguf_string text = tokenizer_decode(t, id);
        all.count = 0;
        if (tokenizer_encode(t, text.data, text.length, false, &all, &error)) fail_msg("%s", error.text);
        for (size_t i = 0; i < all.count; i++) assert_false(tokenizer_is_control(t, all.ids[i]));
        check_decodes_to(t, &all, text.data, text.length);
    }
    token_list_free(&all);
    tokenizer_close(t);
}

static void test_ids_of_the_model_are_those_of_its_metadata(void **state)
{
    (void)state;
    tokenizer *t = open_gemma();
    assert_int_equal(tokenizer_size(t), 262144);
    assert_int_equal(tokenizer_bos(t), 2);
    assert_int_equal(tokenizer_eos(t), 1);
    assert_int_equal(tokenizer_eot(t), tokenizer_find(t, "<end_of_turn>", 13));
    assert_int_equal(tokenizer_eot(t), 106);
    assert_true(tokenizer_add_bos(t));
    assert_int_equal(tokenizer_find(t, "\n", 1), 107); /* the word, not the raw byte */
    tokenizer_close(t);
}

/* Any bytes, valid UTF-8 or not. A random U+2581 has a chance of one in 2^17 a round. */
static void test_random_bytes_survive_encode_and_decode(void **state)
{
    (void)state;
    tokenizer *t = open_gemma();
    uint64_t random = test_seed("bytes", 20240701);
    for (int round = 0; round < 2000; round++) {
        char text[64];
        for (size_t i = 0; i < sizeof text; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            text[i] = (char)(random >> 56);
        }
        assert_true(tokenizer_spells(t, text, sizeof text, NULL));
        token_list list = encode(t, text, sizeof text, round & 1);
        check_decodes_to(t, &list, text, sizeof text);
        token_list_free(&list);
    }
    tokenizer_close(t);
}

static void test_a_text_of_a_million_letters_is_encoded(void **state)
{
    (void)state;
    tokenizer *t = open_gemma();
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

/* ---- a small vocabulary ------------------------------------------------------------------------------------- */

enum { WORDS = 10, SMALL = WORDS + 256 };

/* a b c ab bc abc, a space with a, a control, a user-defined token, and the 256 bytes. "bc" comes before "ab". */
static int open_small(tokenizer **out, size_t scores, int prefix, float first_score, infer_error *error)
{
    static gguf_builder b;
    static const char *tokens[SMALL] = { "a", "b", "c", "ab", "bc", "abc", "\xe2\x96\x81", ("\xe2\x96\x81" "a"), "<x>",
                                         "<u>" };
    static const float word_scores[WORDS] = { 0, -1, -2, -20, -10, -30, -3, -40, 0, 0 };
    static char spelled[256][8];
    int32_t types[SMALL];
    float score[SMALL] = { 0 };
    for (int i = 0; i < WORDS; i++) {
        types[i] = i == 8 ? 3 : i == 9 ? 4 : 1;
        score[i] = i ? word_scores[i] : first_score;
    }
    for (int i = 0; i < 256; i++) {
        snprintf(spelled[i], sizeof spelled[i], "<0x%02X>", (unsigned)i);
        tokens[WORDS + i] = spelled[i];
        types[WORDS + i] = 6;
    }
    build_header(&b, 0, 5);
    build_key_string(&b, "tokenizer.ggml.model", "llama");
    build_key_bool(&b, "tokenizer.ggml.add_space_prefix", prefix);
    build_key_strings(&b, "tokenizer.ggml.tokens", tokens, SMALL);
    build_key_ints(&b, "tokenizer.ggml.token_type", types, SMALL);
    build_key_floats(&b, "tokenizer.ggml.scores", score, scores);
    gguf_file *file;
    if (gguf_open_memory(&file, b.bytes, b.size, error)) fail_msg("%s", error->text);
    int result = tokenizer_open(out, file, error);
    gguf_close(file);
    return result;
}

static void test_the_highest_score_merges_first_and_the_rest_are_bytes(void **state)
{
    (void)state;
    infer_error error;
    tokenizer *t;
    if (open_small(&t, SMALL, 0, 0.0f, &error)) fail_msg("%s", error.text);
    static const struct {
        const char *text;
        size_t count;
        int32_t ids[5];
    } cases[] = {
        { "abc", 1, { 5 } },                          /* bc first, then a + bc */
        { "abbc", 2, { 3, 4 } },
        { "abcb", 2, { 5, 1 } },
        { " a", 1, { 7 } },
        { "\xe2\x96\x81" "a", 1, { 7 } },             /* the sign for a space is a space */
        { "a\xc3\xa9", 3, { 0, WORDS + 0xc3, WORDS + 0xa9 } },
        { "b\xff", 2, { 1, WORDS + 0xff } },
        { "a<u>b", 3, { 0, 9, 1 } },
        { "<0x41>", 5, { WORDS + '<', WORDS + '0', WORDS + 'x', WORDS + '4', WORDS + '1' } }, /* and '>' */
        { "", 0, { 0 } },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        token_list list = encode(t, cases[i].text, strlen(cases[i].text), false);
        assert_int_equal(list.count, cases[i].count + (i == 8));
        if (cases[i].count) assert_memory_equal(list.ids, cases[i].ids, cases[i].count * sizeof *list.ids);
        token_list_free(&list);
    }
    tokenizer_close(t);
}

static void test_a_wrong_vocabulary_is_refused_with_the_reason(void **state)
{
    (void)state;
    infer_error error;
    tokenizer *t = NULL;
    assert_int_equal(open_small(&t, SMALL - 1, 0, 0.0f, &error), -1);
    assert_non_null(strstr(error.text, "tokenizer.ggml.scores has 265 elements for 266 tokens"));
    assert_int_equal(open_small(&t, SMALL, 1, 0.0f, &error), -1);
    assert_non_null(strstr(error.text, "puts a space before the text"));
    assert_int_equal(open_small(&t, SMALL, 0, strtof("nan", NULL), &error), -1);
    assert_non_null(strstr(error.text, "tokenizer.ggml.scores: element 0 is not a number"));
    assert_null(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids_equal_llama_cpp_on_mixed_text),
        cmocka_unit_test(test_control_tokens_are_plain_text_unless_asked_for),
        cmocka_unit_test(test_ids_of_the_model_are_those_of_its_metadata),
        cmocka_unit_test(test_random_bytes_survive_encode_and_decode),
        cmocka_unit_test(test_a_text_of_a_million_letters_is_encoded),
        cmocka_unit_test(test_the_highest_score_merges_first_and_the_rest_are_bytes),
        cmocka_unit_test(test_a_wrong_vocabulary_is_refused_with_the_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
