#include "requests.h"

#ifndef INFER_CJSON

bool requests_supported(void)
{
    return false;
}

int requests_parse(const char *line, size_t length, const tokenizer *t, const chat_template *chat,
                   const engine_request *defaults, token_list *tokens, engine_request *out, infer_error *error)
{
    (void)line, (void)length, (void)t, (void)chat, (void)defaults, (void)tokens, (void)out;
    return infer_fail(error, "this build cannot read requests: cJSON (Debian: libcjson-dev) was not found");
}

#else

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_MESSAGES = 1024 };

bool requests_supported(void)
{
    return true;
}

static const char *const known_fields[] = { "prompt", "messages", "max_tokens", "temperature", "top_p",
                                            "seed", "domain", "n", "prune_every" };

static int check_fields(const cJSON *object, infer_error *error)
{
    for (const cJSON *item = object->child; item; item = item->next) {
        bool known = false;
        for (size_t i = 0; i < sizeof known_fields / sizeof known_fields[0]; i++)
            known = known || !strcmp(item->string, known_fields[i]);
        if (!known)
            return infer_fail(error, "unknown field \"%.40s\"; known: prompt, messages, max_tokens, temperature, "
                              "top_p, seed, domain, n, prune_every", item->string);
    }
    return 0;
}

/* A field that is absent leaves *value as it is. */
static int read_real(const cJSON *object, const char *name, double *value, infer_error *error)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    if (!item) return 0;
    if (!cJSON_IsNumber(item)) return infer_fail(error, "\"%s\" must be a number", name);
    *value = item->valuedouble;
    return 0;
}

/* JSON numbers are doubles: whole up to 2^53. */
static int read_whole(const cJSON *object, const char *name, double most, uint64_t *value, infer_error *error)
{
    double real = (double)*value;
    if (!cJSON_GetObjectItemCaseSensitive(object, name)) return 0;
    if (read_real(object, name, &real, error)) return -1;
    if (!(real >= 0 && real <= most && floor(real) == real))
        return infer_fail(error, "\"%s\" is %g; it must be a whole number from 0 to %.0f", name, real, most);
    *value = (uint64_t)real;
    return 0;
}

static int read_numbers(const cJSON *object, engine_request *out, infer_error *error)
{
    double temperature = (double)out->sampling.temperature, top_p = (double)out->sampling.top_p;
    uint64_t most_tokens = out->most_tokens, branches = out->branches, prune_every = out->prune_every;
    if (read_real(object, "temperature", &temperature, error) || read_real(object, "top_p", &top_p, error) ||
        read_whole(object, "max_tokens", INT32_MAX, &most_tokens, error) ||
        read_whole(object, "n", INT32_MAX, &branches, error) ||
        read_whole(object, "prune_every", INT32_MAX, &prune_every, error) ||
        read_whole(object, "seed", 0x1p53, &out->sampling.seed, error) ||
        read_whole(object, "domain", 0x1p53, &out->domain, error))
        return -1;
    out->sampling.temperature = (float)temperature;
    out->sampling.top_p = (float)top_p;
    out->most_tokens = (uint32_t)most_tokens;
    out->branches = (uint32_t)branches;
    out->prune_every = (uint32_t)prune_every;
    return 0;
}

static int read_messages(const cJSON *array, const tokenizer *t, const chat_template *chat, token_list *tokens,
                         infer_error *error)
{
    chat_message messages[MOST_MESSAGES];
    size_t count = 0;
    const cJSON *item;
    if (!chat) return infer_fail(error, "the model has no chat template; use \"prompt\" instead of \"messages\"");
    if (!cJSON_IsArray(array)) return infer_fail(error, "\"messages\" must be an array");
    cJSON_ArrayForEach(item, array) {
        const cJSON *role = cJSON_GetObjectItemCaseSensitive(item, "role");
        const cJSON *content = cJSON_GetObjectItemCaseSensitive(item, "content");
        if (!cJSON_IsString(role) || !cJSON_IsString(content))
            return infer_fail(error, "message %zu must be an object with the strings \"role\" and \"content\"",
                              count + 1);
        if (count == MOST_MESSAGES) return infer_fail(error, "more than %d messages", MOST_MESSAGES);
        messages[count++] = (chat_message){ .role = role->valuestring, .content = content->valuestring };
    }
    return prompt_from_messages(t, chat, messages, count, tokens, error);
}

static int read_object(const cJSON *object, const tokenizer *t, const chat_template *chat, token_list *tokens,
                       engine_request *out, infer_error *error)
{
    if (!cJSON_IsObject(object)) return infer_fail(error, "a request must be a JSON object: {\"prompt\": ...}");
    if (check_fields(object, error) || read_numbers(object, out, error)) return -1;
    const cJSON *prompt = cJSON_GetObjectItemCaseSensitive(object, "prompt");
    const cJSON *messages = cJSON_GetObjectItemCaseSensitive(object, "messages");
    if (!prompt == !messages) return infer_fail(error, "a request needs either \"prompt\" or \"messages\"");
    if (messages) return read_messages(messages, t, chat, tokens, error);
    if (!cJSON_IsString(prompt)) return infer_fail(error, "\"prompt\" must be a string");
    return prompt_from_text(t, prompt->valuestring, tokens, error);
}

static bool blank(const char *text, const char *end)
{
    while (text < end && strchr(" \t\r\n", *text)) text++;
    return text == end;
}

int requests_parse(const char *line, size_t length, const tokenizer *t, const chat_template *chat,
                   const engine_request *defaults, token_list *tokens, engine_request *out, infer_error *error)
{
    const char *end = line;
    engine_request request = *defaults;
    if (memchr(line, 0, length) || strstr(line, "\\u0000"))
        return infer_fail(error, "a character 0 in the text; this example cannot take it");
    cJSON *object = cJSON_ParseWithLengthOpts(line, length, &end, 0);
    int status;
    if (!object || !blank(end, line + length))
        status = infer_fail(error, "no JSON from character %zu on", (size_t)(end - line) + 1);
    else
        status = read_object(object, t, chat, tokens, &request, error);
    cJSON_Delete(object);
    if (status) return -1;
    request.tokens = tokens->ids;
    request.count = tokens->count;
    *out = request;
    return 0;
}

#endif
