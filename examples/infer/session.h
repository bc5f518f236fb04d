/* session.h: all that a program needs to serve a model: file, tokenizer, backend, cache and engine, opened together.
 *
 * Errors: see error.h.
 */
#ifndef INFER_SESSION_H
#define INFER_SESSION_H

#include "chat.h"
#include "engine.h"
#include "tokenizer.h"

enum { SESSION_MOST_STOP_IDS = 2 };

typedef struct session_options {
    const char *model_path;
    const char *device;     /* "host", "cuda:N", "auto"; NULL: QUIRE_DEVICE */
    uint32_t context;       /* longest sequence; 0: the model's, or what fits the arena */
    uint64_t device_bytes;  /* 0: QUIRE_DEVICE_BYTES */
    uint64_t host_bytes;    /* UINT64_MAX: QUIRE_HOST_BYTES */
    uint32_t block_tokens;  /* 0: QUIRE_BLOCK_TOKENS */
    quire_dtype dtype;      /* of K and V; 0: QUIRE_DTYPE */
    engine_options engine;  /* stop_ids are set here, from the tokenizer */
} session_options;

typedef struct session {
    gguf_file *file;
    tokenizer *tokenizer;
    chat_template chat;     /* family and texts; has_chat says whether there is one */
    bool has_chat;
    backend *backend;
    char device[16];        /* of the backend and the cache: "host" or "cuda:N" */
    model *model;
    quire_cache *cache;
    engine *engine;
    session_options options;
} session;

/* No context limit of the caller, the batch sizes that suit a small machine, reuse on; the rest from QUIRE_*. */
void session_defaults(session_options *options);
int session_open(session *session, const session_options *options, infer_error *error);
/* Closes cache and engine and opens them anew with other options; the model stays. */
int session_reopen(session *session, const session_options *options, infer_error *error);
void session_close(session *session); /* a zeroed one is allowed */

/* The tokens that end an answer. Returns how many. */
size_t session_stop_ids(const session *session, int32_t stop[SESSION_MOST_STOP_IDS]);

/* Bytes of K and V of one token, its part of what a block holds besides them included. `dtype` 0: as the session's. */
double session_token_bytes(const session *session, quire_dtype dtype);

#endif
