/* tokenizer.h - byte-level BPE and SentencePiece BPE, from a model file's own metadata.
 *
 * Text is bytes. Invalid UTF-8 is encoded too, byte by byte; a caller who would rather refuse it asks
 * utf8_check (utf8.h) first. Decoding what was encoded gives the same bytes, with two exceptions: some
 * vocabularies lack a token for some bytes (SmolLM2 for six control characters and for the lead bytes of
 * planes 4 to 15). As in every implementation of such a model, encode leaves these out; tokenizer_spells
 * tells beforehand. And SentencePiece reads U+2581, its sign for a space, as a space.
 *
 * *Control* tokens (<|im_start|>, <|endoftext|>) steer the model. They are recognised in text only where
 * encode is told to parse_special; otherwise their spelling is ordinary text and becomes ordinary tokens.
 * *User-defined* tokens are whole words that the model's maker added; they are text, and always recognised.
 *
 * A tokenizer is immutable after open: any number of threads may encode with it at once. It keeps no pointer
 * into the model file. Errors: see error.h.
 */
#ifndef INFER_TOKENIZER_H
#define INFER_TOKENIZER_H

#include "error.h"
#include "gguf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TOKENIZER_NONE (-1)

typedef struct tokenizer tokenizer;

/* A growing array of token ids. Zero-initialise, fill with tokenizer_encode, free with token_list_free. */
typedef struct token_list {
    int32_t *ids;
    size_t count;
    size_t capacity;
} token_list;

void token_list_free(token_list *list);
int token_list_push(token_list *list, int32_t id, infer_error *error);

/* Reads tokenizer.ggml.* of the file. Fails when the file has no tokenizer, or one of a model or a
 * pretokenizer that is not known here (the message names those that are), or a corrupt one. */
int tokenizer_open(tokenizer **out, const gguf_file *file, infer_error *error);

/* The same with the pretokenizer named by the caller ("gpt-2") instead of by tokenizer.ggml.pre: for files
 * whose converter left the key out or wrong. NULL means the file's own. */
int tokenizer_open_as(tokenizer **out, const gguf_file *file, const char *pre, infer_error *error);

/* NULL is allowed. */
void tokenizer_close(tokenizer *tokenizer);

/* Appends the tokens of text to `list`; on failure (memory, a text over 1 GiB) the list is as it was. No BOS
 * is added: see tokenizer_add_bos. */
int tokenizer_encode(const tokenizer *tokenizer, const char *text, size_t length, bool parse_special,
                     token_list *list, infer_error *error);

/* The bytes of one token (lent, not NUL-terminated), control tokens spelled out. An id outside the
 * vocabulary has none: length 0. A token may end inside a UTF-8 character. */
gguf_string tokenizer_decode(const tokenizer *tokenizer, int32_t id);

int32_t tokenizer_size(const tokenizer *tokenizer);          /* ids run from 0 to size - 1 */
int32_t tokenizer_bos(const tokenizer *tokenizer);           /* TOKENIZER_NONE when the model has none */
int32_t tokenizer_eos(const tokenizer *tokenizer);
int32_t tokenizer_eot(const tokenizer *tokenizer);           /* end of turn; the EOS when not told apart */
bool tokenizer_add_bos(const tokenizer *tokenizer);          /* the model wants plain text to begin with BOS */
bool tokenizer_is_control(const tokenizer *tokenizer, int32_t id);
bool tokenizer_is_end(const tokenizer *tokenizer, int32_t id);   /* generation stops here: EOS or EOT */

/* The id whose text is exactly this, or TOKENIZER_NONE. */
int32_t tokenizer_find(const tokenizer *tokenizer, const char *text, size_t length);

/* True when the vocabulary can spell every byte of the text; otherwise *bad_offset (may be NULL) is the first
 * byte that encode would leave out. */
bool tokenizer_spells(const tokenizer *tokenizer, const char *text, size_t length, size_t *bad_offset);

#endif
