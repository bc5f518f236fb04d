#include "prompt.h"
#include "utf8.h"

#include <stdlib.h>
#include <string.h>

static int check_text(const char *text, const char *what, infer_error *error)
{
    size_t bad;
    if (!utf8_check(text, strlen(text), &bad))
        return infer_fail(error, "%s is not UTF-8 from byte %zu on", what, bad);
    return 0;
}

int prompt_from_text(const tokenizer *t, const char *text, token_list *tokens, infer_error *error)
{
    if (!*text) return infer_fail(error, "the prompt is empty; it needs at least one character");
    if (check_text(text, "the prompt", error)) return -1;
    if (tokenizer_add_bos(t) && token_list_push(tokens, tokenizer_bos(t), error)) return -1;
    return tokenizer_encode(t, text, strlen(text), true, tokens, error);
}

int prompt_from_messages(const tokenizer *t, const chat_template *chat, const chat_message *messages, size_t count,
                         token_list *tokens, infer_error *error)
{
    char *text;
    for (size_t i = 0; i < count; i++)
        if (check_text(messages[i].content, "a message", error)) return -1;
    if (chat_render(chat, messages, count, true, &text, error)) return -1;
    int status = tokenizer_encode(t, text, strlen(text), true, tokens, error);
    free(text);
    return status;
}

/* ---- conversations ----------------------------------------------------------------------------------------- */

void conversation_open(conversation *c, const tokenizer *t, const chat_template *chat)
{
    *c = (conversation){ .tokenizer = t, .chat = chat };
}

void conversation_close(conversation *c)
{
    for (size_t i = 0; i < c->count; i++) free((void *)(uintptr_t)c->messages[i].content);
    free(c->messages);
    free(c->text);
    token_list_free(&c->tokens);
    memset(c, 0, sizeof *c);
}

/* `role` is one of the three constants. */
static int add_message(conversation *c, const char *role, char *content, infer_error *error)
{
    chat_message *messages = realloc(c->messages, (c->count + 1) * sizeof *messages);
    if (!content || !messages) {
        free(content);
        if (messages) c->messages = messages;
        return infer_fail(error, "no memory for another message");
    }
    c->messages = messages;
    c->messages[c->count++] = (chat_message){ .role = role, .content = content };
    return 0;
}

static void drop_message(conversation *c)
{
    free((void *)(uintptr_t)c->messages[--c->count].content);
}

/* Takes up the rendered text; only what is new in it is tokenised, where it begins with what there was. */
static int take_text(conversation *c, char *text, infer_error *error)
{
    size_t known = c->text ? strlen(c->text) : 0;
    token_list fresh = { 0 };
    bool grows = known && strncmp(text, c->text, known) == 0;
    token_list *to = grows ? &c->tokens : &fresh;
    const char *from = grows ? text + known : text;
    if (tokenizer_encode(c->tokenizer, from, strlen(from), true, to, error)) {
        token_list_free(&fresh);
        return -1;
    }
    if (!grows) {
        token_list_free(&c->tokens);
        c->tokens = fresh;
    }
    free(c->text);
    c->text = text;
    return 0;
}

int conversation_say(conversation *c, const char *role, const char *content, infer_error *error)
{
    char *text;
    if (!*content) return infer_fail(error, "the message is empty; it needs at least one character");
    if (check_text(content, "the message", error)) return -1;
    if (add_message(c, role, strdup(content), error)) return -1;
    if (!strcmp(role, "system")) return 0; /* rendered with the user's first message */
    if (chat_render(c->chat, c->messages, c->count, true, &text, error) == 0) {
        if (take_text(c, text, error) == 0) return 0;
        free(text);
    }
    drop_message(c);
    return -1;
}

int conversation_answer(conversation *c, const int32_t *ids, size_t count, infer_error *error)
{
    size_t length = 0, known = strlen(c->text);
    for (size_t i = 0; i < count; i++) {
        length += tokenizer_decode(c->tokenizer, ids[i]).length;
        if (token_list_push(&c->tokens, ids[i], error)) return -1;
    }
    char *text = realloc(c->text, known + length + 1);
    if (!text) return infer_fail(error, "no memory for the answer");
    c->text = text;
    char *end = text + known;
    for (size_t i = 0; i < count; i++) {
        gguf_string piece = tokenizer_decode(c->tokenizer, ids[i]);
        memcpy(end, piece.data, piece.length);
        end += piece.length;
    }
    *end = 0;
    return add_message(c, "assistant", strdup(text + known), error);
}
