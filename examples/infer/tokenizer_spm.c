/* SentencePiece's BPE (tokenizer.ggml.model "llama"): text -> one symbol a character -> merges. A token has a score
 * instead of a merge rule: two neighbours merge when what they spell together is a token, the highest score first, the
 * leftmost among equals. A character without a token becomes its bytes, each of which has a token that merges with
 * nothing.
 *
 * The file spells a space as U+2581. Pieces are decoded, and in text the two are the same, as in the original.
 *
 * Merges are found by the bytes of both pieces in the map. That takes symbols to be tokens, which they are: every token
 * of such a vocabulary has been built from two shorter ones, down to characters. */
#include "tokenizer_kinds.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST = 256 /* bytes of a token that merges can make; vocabularies in use stay below 100 */ };

#define MARK "\xe2\x96\x81" /* U+2581 */
#define MARK_BYTES (sizeof MARK - 1)

/* ---- opening ---------------------------------------------------------------------------------------- */

static int begin(tokenizer *t, const gguf_file *file, const char *pre, infer_error *error)
{
    bool prefix = true;
    if (pre) return infer_fail(error, "a SentencePiece tokenizer has no pretokenizer; '%.64s' was asked for", pre);
    if (gguf_has(file, "tokenizer.ggml.add_space_prefix") &&
        gguf_get_bool(file, "tokenizer.ggml.add_space_prefix", &prefix, error))
        return -1;
    if (prefix)
        return infer_fail(error, "the tokenizer puts a space before the text (tokenizer.ggml.add_space_prefix); this "
                          "reader knows SentencePiece without it");
    t->add_bos = true;
    return 0;
}

/* The byte that a token is spelled as, "<0x0A>"; -1: none. */
static int byte_of(gguf_string spelling)
{
    char text[7] = { 0 }, rest;
    unsigned byte;
    if (spelling.length != 6) return -1;
    memcpy(text, spelling.data, 6);
    return sscanf(text, "<0x%2X%c", &byte, &rest) == 2 && rest == '>' ? (int)byte : -1;
}

static size_t spell(const tokenizer *t, int32_t id, gguf_string spelling, char *out)
{
    size_t length = 0;
    if (t->types[id] == TYPE_BYTE) {
        int byte = byte_of(spelling);
        out[0] = (char)byte;
        return byte >= 0;
    }
    for (size_t at = 0; at < spelling.length; length++) {
        bool mark = spelling.length - at >= MARK_BYTES && !memcmp(spelling.data + at, MARK, MARK_BYTES);
        out[length] = mark ? ' ' : spelling.data[at];
        at += mark ? MARK_BYTES : 1;
    }
    return length;
}

/* Whether merges can make it. Special tokens are found before there are symbols, and never put together. */
static bool can_grow(const tokenizer *t, int32_t id)
{
    return t->types[id] == TYPE_NORMAL || t->types[id] == TYPE_UNUSED;
}

/* Falls where the score rises: the bits of a float are ordered like a whole number, but for the sign. */
static int32_t rank_of(float score)
{
    int32_t bits;
    score += 0.0f; /* -0 becomes 0 */
    memcpy(&bits, &score, sizeof bits);
    return ~(bits < 0 ? bits ^ INT32_MAX : bits);
}

static int read_scores(tokenizer *t, const gguf_file *file, infer_error *error)
{
    float *scores;
    size_t count;
    if (gguf_get_floats(file, "tokenizer.ggml.scores", &scores, &count, error)) return -1;
    t->ranks = malloc((size_t)t->size * sizeof *t->ranks);
    int status = t->ranks ? 0 : infer_fail(error, "out of memory for a vocabulary of %d tokens", (int)t->size);
    if (!status && count != (size_t)t->size)
        status = infer_fail(error, "tokenizer.ggml.scores has %zu elements for %d tokens", count, (int)t->size);
    for (size_t i = 0; !status && i < count; i++) {
        if (isnan(scores[i])) status = infer_fail(error, "tokenizer.ggml.scores: element %zu is not a number", i);
        t->ranks[i] = rank_of(scores[i]);
        if (can_grow(t, (int32_t)i) && t->pieces[i].length > t->longest) t->longest = t->pieces[i].length;
    }
    free(scores);
    if (!status && t->longest > LONGEST)
        status = infer_fail(error, "the vocabulary has a token of %zu bytes; at most %d are expected", t->longest, LONGEST);
    return status;
}

static int finish(tokenizer *t, const gguf_file *file, infer_error *error)
{
    for (int byte = 0; byte < 256; byte++) t->byte_ids[byte] = BPE_NO_TOKEN;
    for (int32_t id = 0; id < t->size; id++)
        if (t->types[id] == TYPE_BYTE && t->pieces[id].length == 1) t->byte_ids[(unsigned char)t->pieces[id].data[0]] = id;
    return read_scores(t, file, error);
}

/* ---- encoding --------------------------------------------------------------------------------------- */

static bool find_merge(const void *rules, int32_t left, int32_t right, bpe_merge *merge)
{
    const tokenizer *t = rules;
    gguf_string a = t->pieces[left], b = t->pieces[right];
    char text[LONGEST];
    if (a.length + b.length > t->longest || !can_grow(t, left) || !can_grow(t, right)) return false;
    memcpy(text, a.data, a.length);
    memcpy(text + a.length, b.data, b.length);
    int32_t id = tokenizer_find(t, text, a.length + b.length);
    if (id == TOKENIZER_NONE || !can_grow(t, id)) return false;
    *merge = (bpe_merge){ .left = left, .right = right, .rank = t->ranks[id], .result = id };
    return true;
}

/* Bytes of the character that the text begins with, by its first byte: what is no UTF-8 comes out as bytes anyway. */
static size_t character_length(const char *text, size_t length)
{
    unsigned char first = (unsigned char)text[0];
    size_t size = first < 0xc0 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    return size < length ? size : length;
}

static int encode(const tokenizer *t, const char *text, size_t length, bpe_scratch *scratch, token_list *list,
                  infer_error *error)
{
    if (token_list_reserve(list, length, error)) return -1;
    int32_t *ids = list->ids + list->count;
    size_t symbols = 0, merged;
    for (size_t at = 0; at < length;) {
        size_t size = character_length(text + at, length - at);
        bool mark = size == MARK_BYTES && !memcmp(text + at, MARK, MARK_BYTES);
        int32_t id = mark ? tokenizer_find(t, " ", 1) : tokenizer_find(t, text + at, size);
        if (id != TOKENIZER_NONE && can_grow(t, id)) ids[symbols++] = id;
        else
            for (size_t i = 0; i < size; i++) ids[symbols++] = t->byte_ids[(unsigned char)text[at + i]];
        at += size;
    }
    if (bpe_apply(find_merge, t, scratch, ids, symbols, &merged))
        return infer_fail(error, "out of memory for a text of %zu bytes", length);
    list->count += merged;
    return 0;
}

const tokenizer_kind tokenizer_spm = {
    .model = "llama",
    .begin = begin,
    .spell = spell,
    .finish = finish,
    .encode = encode,
};
