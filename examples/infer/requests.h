/* requests.h: reads requests from JSON, one object a line:
 *
 *     {"prompt": "Once upon a time", "max_tokens": 20}
 *     {"messages": [{"role": "user", "content": "Hello"}], "temperature": 0.7, "top_p": 0.9, "seed": 1, "n": 2}
 *
 * Either `prompt` (taken as it stands) or `messages` (through the model's chat template). Further fields: max_tokens,
 * temperature, top_p, seed, domain, n, prune_every. What a line leaves out is taken from the defaults.
 *
 * Errors: see error.h.
 */
#ifndef INFER_REQUESTS_H
#define INFER_REQUESTS_H

#include "engine.h"
#include "prompt.h"

/* False in a build without cJSON, where requests_parse always fails and says so. */
bool requests_supported(void);

/* `chat` NULL: the model has no template. On success `out` is a copy of `defaults` with what the line says, and its
 * tokens are those of `tokens`, which must be empty before. */
int requests_parse(const char *line, size_t length, const tokenizer *tokenizer, const chat_template *chat,
                   const engine_request *defaults, token_list *tokens, engine_request *out, infer_error *error);

#endif
