/* Byte-level BPE (tokenizer.ggml.model "gpt2"): text -> pieces of the split rule -> one symbol a byte -> merges. Nothing
 * looks further back than its own piece.
 *
 * Tokens are spelled in the byte alphabet of GPT-2, a printable character for each byte. A merge (see bpe.h) names its
 * parts as text; they become ids at open, so encoding compares no strings. */
#include "tokenizer_kinds.h"
#include "utf8.h"

#include <stdlib.h>
#include <string.h>

/* ---- the byte alphabet ------------------------------------------------------------------------------ */

/* The byte that each code point of the alphabet stands for, -1 where none: printable Latin-1 stands for
 * itself, the other 68 bytes, in order, are U+0100 and on. */
static void build_alphabet(int16_t alphabet[TOKENIZER_ALPHABET])
{
    int next = 0x100;
    for (int i = 0; i < TOKENIZER_ALPHABET; i++) alphabet[i] = -1;
    for (int byte = 0; byte < 256; byte++) {
        bool printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte != 0xad);
        alphabet[printable ? byte : next++] = (int16_t)byte;
    }
}

/* Decodes text in the byte alphabet; the length, or 0 when it has a character of no byte. */
static size_t decode_alphabet(const int16_t *alphabet, const char *text, size_t length, char *out)
{
    size_t count = 0;
    for (size_t at = 0; at < length;) {
        uint32_t point;
        size_t size = utf8_decode(text + at, length - at, &point);
        if (!size || point >= TOKENIZER_ALPHABET || alphabet[point] < 0) return 0;
        out[count++] = (char)alphabet[point];
        at += size;
    }
    return count;
}

static size_t spell(const tokenizer *t, int32_t id, gguf_string spelling, char *out)
{
    (void)id;
    return decode_alphabet(t->alphabet, spelling.data, spelling.length, out);
}

/* ---- merges ----------------------------------------------------------------------------------------- */

/* One merge, "left right" in the byte alphabet; `scratch` has room for its bytes. */
static int add_merge(tokenizer *t, gguf_string text, int32_t rank, char *scratch, infer_error *error)
{
    const char *space = text.length > 1 ? memchr(text.data + 1, ' ', text.length - 1) : NULL;
    size_t left = 0, right = 0;
    if (space) {
        left = decode_alphabet(t->alphabet, text.data, (size_t)(space - text.data), scratch);
        right = decode_alphabet(t->alphabet, space + 1, text.length - (size_t)(space + 1 - text.data),
                                scratch + left);
    }
    if (!left || !right)
        return infer_fail(error, "tokenizer.ggml.merges: element %d ('%.*s') is not two byte-level tokens "
                          "with a space between", (int)rank, text.length < 64 ? (int)text.length : 64,
                          text.data);
    bpe_merge merge = {
        .left = tokenizer_find(t, scratch, left),
        .right = tokenizer_find(t, scratch + left, right),
        .rank = rank,
        .result = tokenizer_find(t, scratch, left + right),
    };
    if (merge.left < 0 || merge.right < 0 || merge.result < 0)
        return infer_fail(error, "tokenizer.ggml.merges: element %d ('%.*s') has a part or a result that is "
                          "not in the vocabulary", (int)rank, text.length < 64 ? (int)text.length : 64,
                          text.data);
    bpe_table_add(&t->merges, merge);
    return 0;
}

static int read_merges(tokenizer *t, const gguf_file *file, infer_error *error)
{
    gguf_string *texts;
    size_t count, longest = 1;
    char *scratch = NULL;
    int result = -1;
    if (gguf_get_strings(file, "tokenizer.ggml.merges", &texts, &count, error)) return -1;
    for (size_t i = 0; i < count; i++)
        if (texts[i].length > longest) longest = texts[i].length;
    if (count > TOKENIZER_MOST_TOKENS) {
        infer_fail(error, "tokenizer.ggml.merges has %zu merges; at most %d are expected", count,
                   TOKENIZER_MOST_TOKENS);
        goto cleanup;
    }
    scratch = malloc(longest);
    if (!scratch || bpe_table_init(&t->merges, count)) {
        infer_fail(error, "out of memory for %zu merges", count);
        goto cleanup;
    }
    for (size_t i = 0; i < count; i++)
        if (add_merge(t, texts[i], (int32_t)i, scratch, error)) goto cleanup;
    result = 0;
cleanup:
    free(scratch);
    free(texts);
    return result;
}

/* ---- opening ---------------------------------------------------------------------------------------- */

static int begin(tokenizer *t, const gguf_file *file, const char *pre, infer_error *error)
{
    gguf_string name = { pre, pre ? strlen(pre) : 0 };
    if (!pre && !gguf_has(file, "tokenizer.ggml.pre"))
        return infer_fail(error, "the model file does not name its pretokenizer (tokenizer.ggml.pre); this "
                          "reader knows " SPLIT_NAMES_KNOWN);
    if (!pre && gguf_get_string(file, "tokenizer.ggml.pre", &name, error)) return -1;
    if (!split_find(name.data, name.length, &t->rule))
        return infer_fail(error, "the pretokenizer is '%.*s'; this reader knows " SPLIT_NAMES_KNOWN,
                          name.length < 64 ? (int)name.length : 64, name.data);
    t->whole_words = t->add_bos = t->rule == SPLIT_LLAMA3;
    build_alphabet(t->alphabet);
    return 0;
}

static int finish(tokenizer *t, const gguf_file *file, infer_error *error)
{
    for (int byte = 0; byte < 256; byte++) {
        char text = (char)byte;
        int32_t id = tokenizer_find(t, &text, 1);
        t->byte_ids[byte] = id != TOKENIZER_NONE && !tokenizer_is_control(t, id) ? id : BPE_NO_TOKEN;
    }
    return read_merges(t, file, error);
}

/* ---- encoding --------------------------------------------------------------------------------------- */

/* Appends the tokens of one piece of the split rule. */
static int encode_piece(const tokenizer *t, const char *text, size_t length, bpe_scratch *scratch,
                        token_list *list, infer_error *error)
{
    if (t->whole_words) {
        int32_t id = tokenizer_find(t, text, length);
        if (id >= 0 && !tokenizer_is_control(t, id)) return token_list_push(list, id, error);
    }
    if (token_list_reserve(list, length, error)) return -1;
    int32_t *ids = list->ids + list->count;
    for (size_t i = 0; i < length; i++) ids[i] = t->byte_ids[(unsigned char)text[i]];
    size_t merged;
    if (bpe_apply(bpe_table_find, &t->merges, scratch, ids, length, &merged))
        return infer_fail(error, "out of memory for a word of %zu bytes", length);
    list->count += merged;
    return 0;
}

static int encode(const tokenizer *t, const char *text, size_t length, bpe_scratch *scratch, token_list *list,
                  infer_error *error)
{
    for (size_t at = 0; at < length;) {
        size_t end = split_next(t->rule, text, length, at);
        if (encode_piece(t, text + at, end - at, scratch, list, error)) return -1;
        at = end;
    }
    return 0;
}

const tokenizer_kind tokenizer_bpe = {
    .model = "gpt2",
    .begin = begin,
    .spell = spell,
    .finish = finish,
    .encode = encode,
};
