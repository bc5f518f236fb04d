#include "session.h"
#include "backend_host.h"
#ifdef INFER_CUDA
#include "backend_cuda.h"
#endif

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_RUNNING = 32, STEP_TOKENS = 512 };

void session_defaults(session_options *options)
{
    *options = (session_options){ .host_bytes = UINT64_MAX };
    options->engine = (engine_options){ .most_running = MOST_RUNNING, .step_tokens = STEP_TOKENS, .reuse = true };
}

/* ---- the cache --------------------------------------------------------------------------------------------- */

/* The cache's options; `groups` is to live as long as they do. */
static int cache_options(const session *s, quire_options *options, quire_group groups[MODEL_MOST_GROUPS],
                         infer_error *error)
{
    const session_options *given = &s->options;
    if (quire_options_init(options, sizeof *options)) return infer_fail(error, "%s", quire_error_text());
    options->groups = groups;
    options->group_count = model_groups(s->model, groups);
    options->device = s->device;
    if (given->device_bytes) options->device_bytes = given->device_bytes;
    if (given->host_bytes != UINT64_MAX) options->host_bytes = given->host_bytes;
    if (given->block_tokens) options->block_tokens = given->block_tokens;
    if (given->dtype) options->dtype = given->dtype;
    if (given->context) options->max_seq_tokens = given->context;
    if (!strcmp(s->backend->ops->name, "host")) {
        options->parallel = backend_host_parallel; /* one pool of threads for both */
        options->parallel_user = s->backend;
    }
    return 0;
}

static int open_cache(session *s, infer_error *error)
{
    quire_options options;
    quire_group groups[MODEL_MOST_GROUPS];
    if (cache_options(s, &options, groups, error)) return -1;
    if (quire_cache_open(&s->cache, &options)) return infer_fail(error, "%s", quire_error_text());
    return 0;
}

size_t session_stop_ids(const session *s, int32_t stop[SESSION_MOST_STOP_IDS])
{
    size_t count = 0;
    int32_t eos = tokenizer_eos(s->tokenizer), eot = tokenizer_eot(s->tokenizer);
    if (eos != TOKENIZER_NONE) stop[count++] = eos;
    if (eot != TOKENIZER_NONE && eot != eos) stop[count++] = eot;
    return count;
}

static int open_engine(session *s, infer_error *error)
{
    int32_t stop[SESSION_MOST_STOP_IDS];
    s->options.engine.stop_ids = stop;
    s->options.engine.stop_count = session_stop_ids(s, stop);
    int status = engine_open(&s->engine, s->cache, s->model, &s->options.engine, error);
    s->options.engine.stop_ids = NULL;
    return status;
}

int session_reopen(session *s, const session_options *options, infer_error *error)
{
    engine_close(s->engine);
    quire_cache_close(s->cache);
    s->engine = NULL;
    s->cache = NULL;
    s->options = *options;
    return open_cache(s, error) || open_engine(s, error) ? -1 : 0;
}

/* ---- the model --------------------------------------------------------------------------------------------- */

static int open_host(session *s, uint32_t threads, infer_error *error)
{
    snprintf(s->device, sizeof s->device, "host");
    return backend_host_open(&s->backend, threads, error);
}

/* Which device, by the options, then QUIRE_DEVICE; "auto" is the GPU where there is one. The cache gets the same. */
static int open_backend(session *s, infer_error *error)
{
    quire_options defaults;
    if (quire_options_init(&defaults, sizeof defaults)) return infer_fail(error, "%s", quire_error_text());
    const char *device = s->options.device ? s->options.device : defaults.device;
    bool automatic = !strcmp(device, "auto");
    if (!strcmp(device, "host")) return open_host(s, defaults.threads, error);
#ifdef INFER_CUDA
    int ordinal = 0;
    char rest;
    if (automatic || sscanf(device, "cuda:%d%c", &ordinal, &rest) == 1) {
        snprintf(s->device, sizeof s->device, "cuda:%d", ordinal);
        if (!backend_cuda_open(&s->backend, ordinal, defaults.deterministic != 0, error)) return 0;
        if (!automatic) return -1;
    }
#endif
    if (automatic) return open_host(s, defaults.threads, error);
    return infer_fail(error, "no backend for the device \"%s\"; this build has \"host\"%s", device,
#ifdef INFER_CUDA
                      ", \"cuda:N\" and \"auto\""
#else
                      " and \"auto\" (CUDA was not found when it was built)"
#endif
    );
}

int session_open(session *s, const session_options *options, infer_error *error)
{
    memset(s, 0, sizeof *s);
    s->options = *options;
    infer_error chat_error;
    if (gguf_open(&s->file, options->model_path, error) || tokenizer_open(&s->tokenizer, s->file, error) ||
        open_backend(s, error) || model_open(&s->model, s->file, s->backend, options->context, error))
        goto failed;
    if ((uint32_t)tokenizer_size(s->tokenizer) > s->model->config.vocabulary) {
        infer_fail(error, "the tokenizer has %" PRId32 " tokens, the model %" PRIu32, tokenizer_size(s->tokenizer),
                   s->model->config.vocabulary);
        goto failed;
    }
    s->has_chat = chat_open(&s->chat, s->file, &chat_error) == 0;
    if (open_cache(s, error) || open_engine(s, error)) goto failed;
    return 0;
failed:
    session_close(s);
    return -1;
}

void session_close(session *s)
{
    engine_close(s->engine);
    quire_cache_close(s->cache);
    model_close(s->model);
    if (s->backend) s->backend->ops->close(s->backend);
    if (s->has_chat) chat_close(&s->chat);
    tokenizer_close(s->tokenizer);
    gguf_close(s->file);
    memset(s, 0, sizeof *s);
}

double session_token_bytes(const session *s, quire_dtype dtype)
{
    quire_options options;
    quire_group groups[MODEL_MOST_GROUPS];
    uint64_t bytes = 0;
    if (cache_options(s, &options, groups, NULL)) return 0;
    if (dtype) options.dtype = dtype;
    if (quire_block_bytes(&options, &bytes)) return 0;
    return (double)bytes / options.block_tokens;
}
