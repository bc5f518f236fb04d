/* What is made of the file at open
 *
 *   pieces[id]      the bytes of each token, back to back in `arena`. The file spells normal tokens in a code of
 *                   its own (tokenizer_bpe.c, tokenizer_spm.c); they are decoded once, and everything after that is
 *                   bytes.
 *   map             bytes -> id, open addressing. Where two tokens have the same bytes the last one counts,
 *                   but never a control token before another one, nor a raw byte before a word.
 *   specials        the control and user-defined tokens by first byte, longest first.
 *
 * Encoding: text -> fragments between special tokens -> symbols -> merges, the last two as the kind has it. Each
 * is linear in the text but for the logarithm of the heap.
 */
#include "tokenizer_kinds.h"

#include <stdlib.h>
#include <string.h>

enum {
    TEXT_LIMIT = 1 << 30          /* positions in a text are 32-bit */
};

/* ---- lists ------------------------------------------------------------------------------------------ */

void token_list_free(token_list *list)
{
    free(list->ids);
    *list = (token_list){ 0 };
}

int token_list_reserve(token_list *list, size_t more, infer_error *error)
{
    if (more <= list->capacity - list->count) return 0;
    size_t capacity = list->capacity ? list->capacity : 64;
    while (capacity - list->count < more) capacity *= 2;
    int32_t *ids = realloc(list->ids, capacity * sizeof *ids);
    if (!ids) return infer_fail(error, "out of memory for %zu tokens", capacity);
    list->ids = ids;
    list->capacity = capacity;
    return 0;
}

int token_list_push(token_list *list, int32_t id, infer_error *error)
{
    if (token_list_reserve(list, 1, error)) return -1;
    list->ids[list->count++] = id;
    return 0;
}

/* ---- vocabulary ------------------------------------------------------------------------------------- */

static uint64_t hash_bytes(const char *text, size_t length)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < length; i++) hash = (hash ^ (unsigned char)text[i]) * 0x100000001b3u;
    return hash ^ hash >> 29;
}

static size_t map_slot(const tokenizer *t, const char *text, size_t length)
{
    size_t slot = (size_t)hash_bytes(text, length) & t->map_mask;
    for (; t->map[slot] != TOKENIZER_NONE; slot = (slot + 1) & t->map_mask) {
        gguf_string piece = t->pieces[t->map[slot]];
        if (piece.length == length && !memcmp(piece.data, text, length)) break;
    }
    return slot;
}

static bool is_special(const tokenizer *t, int32_t id)
{
    return t->types[id] == TYPE_CONTROL || t->types[id] == TYPE_UNKNOWN || t->types[id] == TYPE_USER_DEFINED;
}

/* Of two tokens with the same bytes the greater one is found. */
static int precedence(const tokenizer *t, int32_t id)
{
    return tokenizer_is_control(t, id) ? 0 : t->types[id] == TYPE_BYTE ? 1 : 2;
}

static int build_map(tokenizer *t, infer_error *error)
{
    size_t size = 16;
    while (size < 2 * (size_t)t->size) size *= 2;
    t->map = malloc(size * sizeof *t->map);
    if (!t->map) return infer_fail(error, "out of memory for a vocabulary of %d tokens", (int)t->size);
    t->map_mask = size - 1;
    for (size_t i = 0; i < size; i++) t->map[i] = TOKENIZER_NONE;
    for (int32_t id = 0; id < t->size; id++) {
        size_t slot = map_slot(t, t->pieces[id].data, t->pieces[id].length);
        int32_t holder = t->map[slot];
        if (holder == TOKENIZER_NONE || precedence(t, id) >= precedence(t, holder)) t->map[slot] = id;
    }
    return 0;
}

static int read_types(tokenizer *t, const gguf_file *file, infer_error *error)
{
    size_t count;
    if (gguf_has(file, "tokenizer.ggml.token_type")) {
        if (gguf_get_ints(file, "tokenizer.ggml.token_type", &t->types, &count, error)) return -1;
        if (count == (size_t)t->size) return 0;
        return infer_fail(error, "tokenizer.ggml.token_type has %zu elements for %d tokens", count,
                          (int)t->size);
    }
    t->types = malloc((size_t)t->size * sizeof *t->types);
    if (!t->types) return infer_fail(error, "out of memory for a vocabulary of %d tokens", (int)t->size);
    for (int32_t id = 0; id < t->size; id++) t->types[id] = TYPE_NORMAL;
    return 0;
}

static int read_pieces(tokenizer *t, const gguf_file *file, infer_error *error)
{
    size_t count, bytes = 0;
    if (gguf_get_strings(file, "tokenizer.ggml.tokens", &t->pieces, &count, error)) return -1;
    if (!count || count > TOKENIZER_MOST_TOKENS)
        return infer_fail(error, "tokenizer.ggml.tokens has %zu tokens; 1 to %d are expected", count,
                          TOKENIZER_MOST_TOKENS);
    t->size = (int32_t)count;
    if (read_types(t, file, error)) return -1;
    for (size_t i = 0; i < count; i++) bytes += t->pieces[i].length;
    t->arena = malloc(bytes ? bytes : 1);
    if (!t->arena) return infer_fail(error, "out of memory for a vocabulary of %d tokens", (int)t->size);
    char *at = t->arena;
    for (int32_t id = 0; id < t->size; id++) {
        gguf_string *piece = &t->pieces[id];
        size_t length = is_special(t, id) ? 0 : t->kind->spell(t, id, *piece, at);
        if (!length && piece->length) {
            /* Special tokens are spelled as they are, and so are normal ones that no bytes can reach. */
            length = piece->length;
            memcpy(at, piece->data, length);
        }
        *piece = (gguf_string){ at, length };
        at += length;
    }
    return 0;
}

/* ---- special tokens --------------------------------------------------------------------------------- */

/* Sorts `ids` by first byte, the longest first among these. Insertion: there are at most a few thousand, and
 * files list them nearly in order. */
static void sort_specials(const tokenizer *t, int32_t *ids, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        int32_t id = ids[i];
        gguf_string piece = t->pieces[id];
        size_t at = i;
        for (; at; at--) {
            gguf_string other = t->pieces[ids[at - 1]];
            unsigned char a = (unsigned char)piece.data[0], b = (unsigned char)other.data[0];
            if (b < a || (b == a && other.length >= piece.length)) break;
            ids[at] = ids[at - 1];
        }
        ids[at] = id;
    }
}

static int collect_specials(tokenizer *t, infer_error *error)
{
    enum { SPECIALS_LIMIT = 1 << 14 };
    size_t count = 0;
    for (int32_t id = 0; id < t->size; id++) count += is_special(t, id) && t->pieces[id].length;
    if (count > SPECIALS_LIMIT)
        return infer_fail(error, "the vocabulary has %zu control and user-defined tokens; at most %d are "
                          "expected", count, SPECIALS_LIMIT);
    t->specials = malloc((count ? count : 1) * sizeof *t->specials);
    if (!t->specials) return infer_fail(error, "out of memory for %zu special tokens", count);
    count = 0;
    for (int32_t id = 0; id < t->size; id++)
        if (is_special(t, id) && t->pieces[id].length) t->specials[count++] = id;
    sort_specials(t, t->specials, count);
    size_t at = 0;
    for (int byte = 0; byte < 256; byte++) {
        t->special_start[byte] = at;
        while (at < count && (unsigned char)t->pieces[t->specials[at]].data[0] == byte) at++;
    }
    t->special_start[256] = at;
    return 0;
}

/* The special token that begins here, or TOKENIZER_NONE. */
static int32_t special_at(const tokenizer *t, const char *text, size_t length, bool parse_special)
{
    unsigned char first = (unsigned char)text[0];
    for (size_t i = t->special_start[first]; i < t->special_start[first + 1]; i++) {
        int32_t id = t->specials[i];
        gguf_string piece = t->pieces[id];
        if (!parse_special && t->types[id] != TYPE_USER_DEFINED) continue;
        if (piece.length <= length && !memcmp(piece.data, text, piece.length)) return id;
    }
    return TOKENIZER_NONE;
}

/* An optional id key; TOKENIZER_NONE when the file does not have it. */
static int read_id(const tokenizer *t, const gguf_file *file, const char *key, int32_t *out,
                   infer_error *error)
{
    uint32_t id;
    *out = TOKENIZER_NONE;
    if (!gguf_has(file, key)) return 0;
    if (gguf_get_u32(file, key, &id, error)) return -1;
    if (id >= (uint32_t)t->size)
        return infer_fail(error, "%s is %u; the vocabulary has ids 0 to %d", key, (unsigned)id,
                          (int)t->size - 1);
    *out = (int32_t)id;
    return 0;
}

static int read_ids(tokenizer *t, const gguf_file *file, infer_error *error)
{
    static const char *const ends_of_turn[] = { "<|eot_id|>", "<|im_end|>", "<end_of_turn>" };
    if (read_id(t, file, "tokenizer.ggml.bos_token_id", &t->bos, error)) return -1;
    if (read_id(t, file, "tokenizer.ggml.eos_token_id", &t->eos, error)) return -1;
    if (read_id(t, file, "tokenizer.ggml.eot_token_id", &t->eot, error)) return -1;
    /* Few files name their end of turn; the token is known by its spelling. */
    for (size_t i = 0; i < sizeof ends_of_turn / sizeof *ends_of_turn && t->eot < 0; i++) {
        int32_t id = tokenizer_find(t, ends_of_turn[i], strlen(ends_of_turn[i]));
        if (id >= 0 && is_special(t, id)) t->eot = id;
    }
    if (t->eot < 0) t->eot = t->eos;
    if (!gguf_has(file, "tokenizer.ggml.add_bos_token")) return 0;
    return gguf_get_bool(file, "tokenizer.ggml.add_bos_token", &t->add_bos, error);
}

/* ---- opening ---------------------------------------------------------------------------------------- */

static const tokenizer_kind *find_kind(const gguf_file *file, infer_error *error)
{
    static const tokenizer_kind *const kinds[] = { &tokenizer_bpe, &tokenizer_spm };
    gguf_string model;
    if (!gguf_has(file, "tokenizer.ggml.model")) {
        infer_fail(error, "the model file has no tokenizer (no key tokenizer.ggml.model); use a file that was converted "
                   "together with its tokenizer");
        return NULL;
    }
    if (gguf_get_string(file, "tokenizer.ggml.model", &model, error)) return NULL;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (gguf_string_is(model, kinds[i]->model)) return kinds[i];
    infer_fail(error, "the tokenizer is of model '%.*s'; this reader knows 'gpt2' (byte-level BPE) and 'llama' "
               "(SentencePiece)", model.length < 64 ? (int)model.length : 64, model.data);
    return NULL;
}

int tokenizer_open_as(tokenizer **out, const gguf_file *file, const char *pre, infer_error *error)
{
    const tokenizer_kind *kind = find_kind(file, error);
    if (!kind) return -1;
    tokenizer *t = calloc(1, sizeof *t);
    if (!t) return infer_fail(error, "out of memory for the tokenizer");
    t->kind = kind;
    if (kind->begin(t, file, pre, error) || read_pieces(t, file, error) || build_map(t, error) ||
        kind->finish(t, file, error) || collect_specials(t, error) || read_ids(t, file, error)) {
        tokenizer_close(t);
        return -1;
    }
    *out = t;
    return 0;
}

int tokenizer_open(tokenizer **out, const gguf_file *file, infer_error *error)
{
    return tokenizer_open_as(out, file, NULL, error);
}

void tokenizer_close(tokenizer *t)
{
    if (!t) return;
    free(t->types);
    free(t->pieces);
    free(t->arena);
    free(t->map);
    free(t->specials);
    free(t->ranks);
    bpe_table_free(&t->merges);
    free(t);
}

/* ---- encoding --------------------------------------------------------------------------------------- */

int tokenizer_encode(const tokenizer *t, const char *text, size_t length, bool parse_special,
                     token_list *list, infer_error *error)
{
    size_t kept = list->count, start = 0;
    bpe_scratch scratch = { 0 };
    int result = 0;
    if (length > TEXT_LIMIT)
        return infer_fail(error, "the text has %zu bytes; the limit is %d", length, TEXT_LIMIT);
    for (size_t at = 0; at < length && !result;) {
        int32_t id = special_at(t, text + at, length - at, parse_special);
        if (id == TOKENIZER_NONE) {
            at++;
            continue;
        }
        result = t->kind->encode(t, text + start, at - start, &scratch, list, error);
        if (!result) result = token_list_push(list, id, error);
        at += t->pieces[id].length;
        start = at;
    }
    if (!result) result = t->kind->encode(t, text + start, length - start, &scratch, list, error);
    if (result) list->count = kept;
    bpe_scratch_free(&scratch);
    return result;
}

/* ---- looking ---------------------------------------------------------------------------------------- */

gguf_string tokenizer_decode(const tokenizer *t, int32_t id)
{
    if (id < 0 || id >= t->size) return (gguf_string){ "", 0 };
    return t->pieces[id];
}

int32_t tokenizer_find(const tokenizer *t, const char *text, size_t length)
{
    return t->map[map_slot(t, text, length)];
}

bool tokenizer_spells(const tokenizer *t, const char *text, size_t length, size_t *bad_offset)
{
    for (size_t i = 0; i < length; i++) {
        if (t->byte_ids[(unsigned char)text[i]] != BPE_NO_TOKEN) continue;
        if (bad_offset) *bad_offset = i;
        return false;
    }
    return true;
}

int32_t tokenizer_size(const tokenizer *t)
{
    return t->size;
}

int32_t tokenizer_bos(const tokenizer *t)
{
    return t->bos;
}

int32_t tokenizer_eos(const tokenizer *t)
{
    return t->eos;
}

int32_t tokenizer_eot(const tokenizer *t)
{
    return t->eot;
}

bool tokenizer_add_bos(const tokenizer *t)
{
    return t->add_bos;
}

bool tokenizer_is_control(const tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->size && (t->types[id] == TYPE_CONTROL || t->types[id] == TYPE_UNKNOWN);
}

bool tokenizer_is_end(const tokenizer *t, int32_t id)
{
    return id >= 0 && (id == t->eos || id == t->eot);
}
