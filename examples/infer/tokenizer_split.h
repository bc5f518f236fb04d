/* tokenizer_split.h - cuts text into the pieces that BPE merges within, by the model's own rule.
 *
 * The rules are published as regular expressions; here each is a scanner that gives the same pieces in one
 * pass. Stateless. Bytes that are no UTF-8 count as symbol characters of one byte.
 */
#ifndef INFER_TOKENIZER_SPLIT_H
#define INFER_TOKENIZER_SPLIT_H

#include <stdbool.h>
#include <stddef.h>

typedef enum split_rule {
    /* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
    SPLIT_GPT2,
    /* First every \p{N} by itself, then SPLIT_GPT2 on what lies between. */
    SPLIT_SMOLLM,
    /* (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*
     * |\s*[\r\n]+|\s+(?!\S)|\s+ */
    SPLIT_LLAMA3,
    /* SPLIT_LLAMA3 with \p{N} for \p{N}{1,3}. */
    SPLIT_QWEN2
} split_rule;

/* What a caller may be told that this reader knows: values of tokenizer.ggml.pre. */
#define SPLIT_NAMES_KNOWN "gpt-2, smollm, llama-bpe, qwen2"

/* The rule that tokenizer.ggml.pre names; false when it is not known. */
bool split_find(const char *name, size_t length, split_rule *rule);

/* The end of the piece that begins at `at`, which is less than `length`. */
size_t split_next(split_rule rule, const char *text, size_t length, size_t at);

#endif
