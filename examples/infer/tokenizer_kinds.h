/* tokenizer_kinds.h: what a tokenizer is made of, and what differs from one tokenizer.ggml.model to the next. For
 * tokenizer.c and tokenizer_*.c only. */
#ifndef INFER_TOKENIZER_KINDS_H
#define INFER_TOKENIZER_KINDS_H

#include "bpe.h"
#include "tokenizer.h"
#include "tokenizer_split.h"

enum { TYPE_NORMAL = 1, TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_USER_DEFINED = 4, TYPE_UNUSED = 5, TYPE_BYTE = 6 };

enum {
    TOKENIZER_ALPHABET = 0x144,   /* code points of the byte alphabet are below this */
    TOKENIZER_MOST_TOKENS = 1 << 26
};

/* In this order; `spell` for every token that is not special, before the map of pieces is built, `finish` after. */
typedef struct tokenizer_kind {
    const char *model;            /* the value of tokenizer.ggml.model */
    /* `pre`: the caller's pretokenizer, NULL: the file's. */
    int (*begin)(tokenizer *t, const gguf_file *file, const char *pre, infer_error *error);
    /* Writes the bytes that the token stands for, no more than it is spelled with. 0: no bytes can reach it. */
    size_t (*spell)(const tokenizer *t, int32_t id, gguf_string spelling, char *out);
    int (*finish)(tokenizer *t, const gguf_file *file, infer_error *error);
    /* Appends the tokens of text that holds no special token. */
    int (*encode)(const tokenizer *t, const char *text, size_t length, bpe_scratch *scratch, token_list *list,
                  infer_error *error);
} tokenizer_kind;

extern const tokenizer_kind tokenizer_bpe, tokenizer_spm;

struct tokenizer {
    const tokenizer_kind *kind;
    bool add_bos;
    int32_t bos, eos, eot;
    int32_t size;
    int32_t *types;
    gguf_string *pieces;
    char *arena;
    int32_t *map;                 /* TOKENIZER_NONE: free slot */
    size_t map_mask;
    int32_t byte_ids[256];        /* BPE_NO_TOKEN: the vocabulary cannot spell this byte */
    int32_t *specials;
    size_t special_start[257];    /* those with first byte b: specials[start[b] .. start[b + 1]) */

    split_rule rule;              /* byte-level BPE */
    int16_t alphabet[TOKENIZER_ALPHABET];
    bool whole_words;             /* a piece that is a token is taken as it is, without merging */
    bpe_table merges;

    int32_t *ranks;               /* SentencePiece: by token, from its score; the lowest merges first */
    size_t longest;               /* bytes of the longest token that merges can make */
};

int token_list_reserve(token_list *list, size_t more, infer_error *error);

#endif
