/* engine.h: continuous batching over a Quire cache.
 *
 * Requests are submitted at any time; each engine_step computes one forward pass over a batch of whatever can run:
 * pieces of new prompts and the next token of running ones, mixed. A request has one or more *branches* that continue
 * the same prompt (parallel sampling); a branch is one Quire sequence.
 *
 *     waiting --- open, match ---> running --- a stop token, or long enough ---> done
 *        ^                            |
 *        `--- preempted: the cache is full, and this is the youngest
 *
 * What a branch generates depends on its own tokens and its seed only, so a preempted branch goes on as if nothing had
 * happened: its tokens are computed again, or matched again if they are still cached.
 *
 * Errors: see error.h. A request that fails (longer than the context or the cache) fails alone; -1 from engine_step
 * means that the engine cannot go on. One thread at a time.
 */
#ifndef INFER_ENGINE_H
#define INFER_ENGINE_H

#include "model.h"
#include "quire/quire.h"
#include "sampler.h"

typedef struct engine engine;

typedef struct engine_token {
    uint32_t request, branch;
    int32_t id;
    size_t position;     /* in the branch: the prompt's first token is 0 */
    const float *logits; /* that it was drawn from; lent for the call */
} engine_token;

typedef struct engine_options {
    uint32_t most_running; /* branches in a batch */
    uint32_t step_tokens;  /* in one step; at most the cache's max_step_tokens */
    bool graph;            /* decode steps take a few shapes, padded with empty rows, so that a backend can capture and replay
                            * them */
    bool reuse;            /* false: no match and no fork, every token of every branch is computed */
    const int32_t *stop_ids; /* generation ends there; copied */
    size_t stop_count;       /* at most 8 */
    void (*on_token)(void *user, const engine_token *token); /* may be NULL */
    void *user;
} engine_options;

typedef struct engine_request {
    const int32_t *tokens; /* copied */
    size_t count;
    uint32_t most_tokens;  /* to generate */
    uint32_t branches;     /* 1 or more */
    uint32_t prune_every;  /* tokens; then the least likely branch gives way to a fork of the likeliest. 0: never */
    uint64_t domain;
    sampler_options sampling;
} engine_request;

typedef enum engine_finish { ENGINE_UNFINISHED, ENGINE_STOP, ENGINE_LENGTH, ENGINE_FAILED } engine_finish;

typedef struct engine_output {
    const int32_t *tokens; /* generated, without the stop token */
    size_t count;
    double log_probability; /* of all of them, and of the stop token */
    engine_finish finish;
} engine_output;

/* Of one request; all branches together. */
typedef struct engine_result {
    const char *error;      /* NULL: none */
    size_t prompt_tokens;
    size_t prompt_hit;      /* found in the cache when the request was first admitted */
    size_t device, host, partial; /* tokens matched, after preemptions as well; see quire_hit */
    size_t computed;
    uint32_t preemptions, prunings;
    double waited_s;        /* from submission to admission */
    double first_token_s;   /* from admission to the first token */
    double total_s;         /* from submission to the last token */
    uint32_t outputs;
} engine_result;

/* The cache and the model must outlive the engine. */
int engine_open(engine **out, quire_cache *cache, const model *model, const engine_options *options,
                infer_error *error);
void engine_close(engine *engine); /* NULL is allowed; running requests end */

/* Fails when the request can never run; nothing is queued then. Requests are numbered from 0. */
int engine_submit(engine *engine, const engine_request *request, uint32_t *number, infer_error *error);
/* One forward pass. *busy: something is left to do. */
int engine_step(engine *engine, bool *busy, infer_error *error);
/* Steps until nothing is left to do. */
int engine_run(engine *engine, infer_error *error);

/* Lent until the next engine_forget or close. */
engine_result engine_result_of(const engine *engine, uint32_t number);
engine_output engine_output_of(const engine *engine, uint32_t number, uint32_t branch);
/* Frees all requests, of which none may be running; numbers start at 0 again. */
void engine_forget(engine *engine);

#endif
