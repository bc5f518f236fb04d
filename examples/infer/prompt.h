/* prompt.h: from what a user wrote to the tokens that a request begins with.
 *
 * A conversation keeps its tokens, the generated ones included, and only ever adds to them: text that a model generated
 * does not always tokenise to what it generated, and a single other token would end the prefix that a cache can reuse.
 *
 * Errors: see error.h.
 */
#ifndef INFER_PROMPT_H
#define INFER_PROMPT_H

#include "chat.h"
#include "tokenizer.h"

/* Appends the text as it stands; the spellings of control tokens become these. Fails on no text and on bytes that are no
 * UTF-8. */
int prompt_from_text(const tokenizer *tokenizer, const char *text, token_list *tokens, infer_error *error);

/* Appends the rendered messages, up to where the answer begins. */
int prompt_from_messages(const tokenizer *tokenizer, const chat_template *chat, const chat_message *messages,
                         size_t count, token_list *tokens, infer_error *error);

typedef struct conversation {
    const tokenizer *tokenizer;
    const chat_template *chat;
    chat_message *messages; /* contents are owned */
    size_t count;
    char *text;             /* as rendered so far, the last answer included */
    token_list tokens;      /* the same */
} conversation;

void conversation_open(conversation *conversation, const tokenizer *tokenizer, const chat_template *chat);
void conversation_close(conversation *conversation); /* a zeroed one is allowed */
/* The user says something (or, first of all, role "system"): adds to the tokens up to where the answer begins. */
int conversation_say(conversation *conversation, const char *role, const char *content, infer_error *error);
/* What the model answered. */
int conversation_answer(conversation *conversation, const int32_t *ids, size_t count, infer_error *error);

#endif
