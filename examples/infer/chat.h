/* chat.h - turns a conversation into the text that a chat model was trained on.
 *
 * A model file carries its template as Jinja source (tokenizer.chat_template). This is no Jinja engine: it
 * recognises the template's family by its distinctive strings and renders that family's format. For ChatML
 * the default system message, which differs from model to model, is taken from the template itself.
 *
 * The rendered text is for tokenizer_encode with parse_special set. It already begins with the BOS where the
 * family's template writes one, so no other is to be added. As with every template, a message whose content
 * spells a control token is read as that token; a server that takes text from strangers checks for it.
 *
 * Errors: see error.h.
 */
#ifndef INFER_CHAT_H
#define INFER_CHAT_H

#include "error.h"
#include "gguf.h"

#include <stdbool.h>
#include <stddef.h>

typedef enum chat_family {
    CHAT_CHATML,
    CHAT_LLAMA3,
    CHAT_LLAMA2,
    CHAT_GEMMA,
    CHAT_ZEPHYR
} chat_family;

typedef struct chat_template {
    chat_family family;
    char *default_system;        /* NULL when the template has none */
    bool system_in_question;     /* Gemma 3: a system message goes before the first question, in its turn */
    char *bos;                   /* the text of the BOS and EOS tokens; "" when the file names none */
    char *eos;
} chat_template;

typedef struct chat_message {
    const char *role;            /* "system", "user" or "assistant" */
    const char *content;         /* both NUL-terminated */
} chat_message;

/* Reads the template of the file. A file without one whose vocabulary has Gemma's marks of turns gets the format of
 * Gemma 3. Fails when there is no template or its family is not known. */
int chat_open(chat_template *out, const gguf_file *file, infer_error *error);

/* Frees what chat_open made. A zeroed template is allowed. */
void chat_close(chat_template *chat);

/* Renders to a NUL-terminated text that the caller frees. With add_generation_prompt the text ends where the
 * assistant's answer begins. Fails on no messages, and on a role or an order that the family does not have. */
int chat_render(const chat_template *chat, const chat_message *messages, size_t count,
                bool add_generation_prompt, char **text, infer_error *error);

const char *chat_family_name(chat_family family);

#endif
