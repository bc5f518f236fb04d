#include "chat.h"

#include <stdlib.h>
#include <string.h>

/* ---- a growing text --------------------------------------------------------------------------------- */

typedef struct buffer {
    char *text;
    size_t length, capacity;
    bool failed;                  /* out of memory: later appends do nothing, finish() reports it */
} buffer;

static void append(buffer *b, const char *text, size_t length)
{
    if (b->failed) return;
    if (length >= b->capacity - b->length) {
        size_t capacity = 2 * (b->length + length) + 256;
        char *grown = realloc(b->text, capacity);
        b->failed = !grown;
        if (!grown) return;
        b->text = grown;
        b->capacity = capacity;
    }
    memcpy(b->text + b->length, text, length);
    b->length += length;
    b->text[b->length] = 0;
}

static void append_text(buffer *b, const char *text)
{
    append(b, text, strlen(text));
}

/* Appends without the white space at both ends. */
static void append_trimmed(buffer *b, const char *text)
{
    static const char spaces[] = " \t\n\r\v\f";
    text += strspn(text, spaces);
    size_t length = strlen(text);
    while (length && strchr(spaces, text[length - 1])) length--;
    append(b, text, length);
}

static int finish(buffer *b, char **text, infer_error *error)
{
    append(b, "", 0);
    if (b->failed) {
        free(b->text);
        return infer_fail(error, "out of memory for a conversation of more than %zu bytes", b->length);
    }
    *text = b->text;
    return 0;
}

/* ---- reading the template --------------------------------------------------------------------------- */

static const char *find_text(const char *text, const char *end, const char *wanted)
{
    size_t length = strlen(wanted);
    for (; (size_t)(end - text) >= length; text++)
        if (!memcmp(text, wanted, length)) return text;
    return NULL;
}

static bool has(gguf_string source, const char *wanted)
{
    return find_text(source.data, source.data + source.length, wanted) != NULL;
}

static bool find_family(gguf_string source, chat_family *family)
{
    if (has(source, "<|im_start|>")) *family = CHAT_CHATML;
    else if (has(source, "<|start_header_id|>")) *family = CHAT_LLAMA3;
    else if (has(source, "<start_of_turn>")) *family = CHAT_GEMMA;
    else if (has(source, "[INST]") && has(source, "<<SYS>>")) *family = CHAT_LLAMA2;
    /* Phi-3 has these roles too, but ends messages with a token of its own instead of the EOS. */
    else if (has(source, "<|user|>") && has(source, "eos_token") && !has(source, "<|end|>"))
        *family = CHAT_ZEPHYR;
    else return false;
    return true;
}

/* A Jinja string literal's escapes, as far as templates use them. */
static int unescape(const char *text, const char *end, char **out, infer_error *error)
{
    buffer b = { 0 };
    while (text < end) {
        char c = *text++;
        if (c == '\\' && text < end) {
            c = *text++;
            c = c == 'n' ? '\n' : c == 't' ? '\t' : c;
        }
        append(&b, &c, 1);
    }
    return finish(&b, out, error);
}

/* ChatML: the system message that the template writes when the conversation has none. It is the literal
 * '<|im_start|>system\nTEXT<|im_end|>...'; where the template builds a system message out of variables instead,
 * the literal ends before <|im_end|>, and the search goes on behind it. */
static int find_default_system(gguf_string source, char **out, infer_error *error)
{
    static const char opening[] = "<|im_start|>system";
    const char *end = source.data + source.length;
    for (const char *at = source.data; (at = find_text(at, end, opening)) != NULL;) {
        char quote = at > source.data ? at[-1] : 0;
        const char *text = at + strlen(opening);
        const char *close = find_text(text, end, "<|im_end|>");
        at = text;
        if (!close) return 0;
        if (*text == '\n') text++;
        else if (text[0] == '\\' && text[1] == 'n') text += 2;
        else continue;
        bool whole = true;
        for (const char *c = text; c < close && whole; c++) {
            if (quote == '\'' || quote == '"') whole = *c != quote;
            else whole = *c != '{';
            c += *c == '\\';
        }
        if (whole) return unescape(text, close, out, error);
    }
    return 0;
}

/* The spelling of the token that a key names; "" when the file has no such key. */
static int token_text(const gguf_file *file, const char *key, char **out, infer_error *error)
{
    gguf_string *tokens = NULL, text = { "", 0 };
    size_t count;
    uint32_t id;
    int result = -1;
    if (gguf_has(file, key)) {
        if (gguf_get_u32(file, key, &id, error)) return -1;
        if (gguf_get_strings(file, "tokenizer.ggml.tokens", &tokens, &count, error)) return -1;
        if (id >= count) {
            infer_fail(error, "%s is %u; the vocabulary has %zu tokens", key, (unsigned)id, count);
            goto cleanup;
        }
        text = tokens[id];
    }
    buffer b = { 0 };
    append(&b, text.data, text.length);
    result = finish(&b, out, error);
cleanup:
    free(tokens);
    return result;
}

/* Whether the vocabulary has the tokens of Gemma's format; files of base models have them without a template. */
static int has_gemma_turns(const gguf_file *file, bool *found, infer_error *error)
{
    gguf_string *tokens;
    size_t count, marks = 0;
    *found = false;
    if (!gguf_has(file, "tokenizer.ggml.tokens")) return 0;
    if (gguf_get_strings(file, "tokenizer.ggml.tokens", &tokens, &count, error)) return -1;
    for (size_t i = 0; i < count; i++)
        marks += gguf_string_is(tokens[i], "<start_of_turn>") || gguf_string_is(tokens[i], "<end_of_turn>");
    free(tokens);
    *found = marks == 2;
    return 0;
}

static int read_family(chat_template *chat, const gguf_file *file, infer_error *error)
{
    gguf_string source;
    if (!gguf_has(file, "tokenizer.chat_template")) {
        if (has_gemma_turns(file, &chat->system_in_question, error)) return -1;
        chat->family = CHAT_GEMMA;
        if (chat->system_in_question) return 0;
        return infer_fail(error, "the model file has no chat template (tokenizer.chat_template); use plain "
                          "prompts, or a file of an instruction-tuned model");
    }
    if (gguf_get_string(file, "tokenizer.chat_template", &source, error)) return -1;
    if (!find_family(source, &chat->family))
        return infer_fail(error, "the model's chat template is of no family known here; known are ChatML, "
                          "Llama 3, Llama 2, Gemma and Zephyr");
    chat->system_in_question = chat->family == CHAT_GEMMA && has(source, "first_user_prefix");
    return chat->family == CHAT_CHATML ? find_default_system(source, &chat->default_system, error) : 0;
}

int chat_open(chat_template *out, const gguf_file *file, infer_error *error)
{
    chat_template chat = { 0 };
    if (read_family(&chat, file, error) ||
        token_text(file, "tokenizer.ggml.bos_token_id", &chat.bos, error) ||
        token_text(file, "tokenizer.ggml.eos_token_id", &chat.eos, error)) {
        chat_close(&chat);
        return -1;
    }
    *out = chat;
    return 0;
}

void chat_close(chat_template *chat)
{
    free(chat->default_system);
    free(chat->bos);
    free(chat->eos);
    *chat = (chat_template){ 0 };
}

/* ---- rendering -------------------------------------------------------------------------------------- */

static bool is_role(const chat_message *message, const char *role)
{
    return !strcmp(message->role, role);
}

static void render_chatml(buffer *b, const chat_template *chat, const chat_message *messages, size_t count,
                          bool prompt)
{
    if (chat->default_system && !is_role(&messages[0], "system")) {
        append_text(b, "<|im_start|>system\n");
        append_text(b, chat->default_system);
        append_text(b, "<|im_end|>\n");
    }
    for (size_t i = 0; i < count; i++) {
        append_text(b, "<|im_start|>");
        append_text(b, messages[i].role);
        append_text(b, "\n");
        append_text(b, messages[i].content);
        append_text(b, "<|im_end|>\n");
    }
    if (prompt) append_text(b, "<|im_start|>assistant\n");
}

static void render_llama3(buffer *b, const chat_template *chat, const chat_message *messages, size_t count,
                          bool prompt)
{
    append_text(b, chat->bos);
    for (size_t i = 0; i < count; i++) {
        append_text(b, "<|start_header_id|>");
        append_text(b, messages[i].role);
        append_text(b, "<|end_header_id|>\n\n");
        append_trimmed(b, messages[i].content);
        append_text(b, "<|eot_id|>");
    }
    if (prompt) append_text(b, "<|start_header_id|>assistant<|end_header_id|>\n\n");
}

/* The system message goes inside the first question. An answer is followed by its EOS, a question preceded by
 * a BOS; the format has no generation prompt of its own. */
static void render_llama2(buffer *b, const chat_template *chat, const chat_message *messages, size_t count)
{
    const char *system = is_role(&messages[0], "system") ? messages[0].content : NULL;
    for (size_t i = system ? 1 : 0; i < count; i++) {
        if (is_role(&messages[i], "assistant")) {
            append_text(b, " ");
            append_trimmed(b, messages[i].content);
            append_text(b, " ");
            append_text(b, chat->eos);
            continue;
        }
        append_text(b, chat->bos);
        append_text(b, "[INST] ");
        if (system) {
            append_text(b, "<<SYS>>\n");
            append_text(b, system);
            append_text(b, "\n<</SYS>>\n\n");
            system = NULL;
        }
        append_trimmed(b, messages[i].content);
        append_text(b, " [/INST]");
    }
}

static void render_gemma(buffer *b, const chat_template *chat, const chat_message *messages, size_t count,
                         bool prompt)
{
    const char *system = is_role(&messages[0], "system") ? messages[0].content : NULL;
    append_text(b, chat->bos);
    for (size_t i = system ? 1 : 0; i < count; i++) {
        append_text(b, "<start_of_turn>");
        append_text(b, is_role(&messages[i], "assistant") ? "model" : "user");
        append_text(b, "\n");
        if (system) {
            append_text(b, system);
            append_text(b, "\n\n");
            system = NULL;
        }
        append_trimmed(b, messages[i].content);
        append_text(b, "<end_of_turn>\n");
    }
    if (prompt) append_text(b, "<start_of_turn>model\n");
}

static void render_zephyr(buffer *b, const chat_template *chat, const chat_message *messages, size_t count,
                          bool prompt)
{
    for (size_t i = 0; i < count; i++) {
        append_text(b, "<|");
        append_text(b, messages[i].role);
        append_text(b, "|>\n");
        append_text(b, messages[i].content);
        append_text(b, chat->eos);
        append_text(b, "\n");
    }
    if (prompt) append_text(b, "<|assistant|>\n");
}

/* What the families' own templates raise exceptions for, and roles that no family has. */
static int check_messages(const chat_template *chat, const chat_message *messages, size_t count,
                          infer_error *error)
{
    bool alternates = chat->family == CHAT_LLAMA2 || chat->family == CHAT_GEMMA;
    const char *name = chat_family_name(chat->family);
    if (!count) return infer_fail(error, "the conversation has no messages; at least one is needed");
    for (size_t i = 0; i < count; i++) {
        bool system = is_role(&messages[i], "system"), user = is_role(&messages[i], "user");
        if (!system && !user && !is_role(&messages[i], "assistant"))
            return infer_fail(error, "message %zu has role '%.40s'; the roles are system, user, assistant", i,
                              messages[i].role);
        if (system && chat->family == CHAT_GEMMA && !chat->system_in_question)
            return infer_fail(error, "message %zu is a system message; the %s format has none", i, name);
        if (system && i > 0 && alternates)
            return infer_fail(error, "message %zu is a system message; in the %s format only the first can be",
                              i, name);
        size_t turn = i - (is_role(&messages[0], "system") && i > 0);
        if (!system && alternates && user != (turn % 2 == 0))
            return infer_fail(error, "message %zu is of the %s; in the %s format user and assistant take turns, "
                              "the user first", i, messages[i].role, name);
    }
    return 0;
}

int chat_render(const chat_template *chat, const chat_message *messages, size_t count,
                bool add_generation_prompt, char **text, infer_error *error)
{
    buffer b = { 0 };
    if (check_messages(chat, messages, count, error)) return -1;
    switch (chat->family) {
    case CHAT_CHATML:
        render_chatml(&b, chat, messages, count, add_generation_prompt);
        break;
    case CHAT_LLAMA3:
        render_llama3(&b, chat, messages, count, add_generation_prompt);
        break;
    case CHAT_LLAMA2:
        render_llama2(&b, chat, messages, count);
        break;
    case CHAT_GEMMA:
        render_gemma(&b, chat, messages, count, add_generation_prompt);
        break;
    case CHAT_ZEPHYR:
        render_zephyr(&b, chat, messages, count, add_generation_prompt);
        break;
    }
    return finish(&b, text, error);
}

const char *chat_family_name(chat_family family)
{
    static const char *const names[] = {
        [CHAT_CHATML] = "ChatML", [CHAT_LLAMA3] = "Llama 3", [CHAT_LLAMA2] = "Llama 2",
        [CHAT_GEMMA] = "Gemma",   [CHAT_ZEPHYR] = "Zephyr",
    };
    return names[family];
}
