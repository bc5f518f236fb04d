/* batch.h: what the engine is made of, and how the batch of a step is chosen. For engine.c and batch.c only. */
#ifndef INFER_BATCH_H
#define INFER_BATCH_H

#include "engine.h"
#include "forward.h"

enum { MOST_STOP_IDS = 8 };

typedef enum branch_state {
    BRANCH_WAITING, /* no sequence: to be admitted */
    BRANCH_RUNNING, /* has a sequence */
    BRANCH_DONE
} branch_state;

typedef struct branch {
    struct branch *next;     /* unfinished ones, oldest first */
    struct request *request;
    uint32_t index;          /* in its request */
    branch_state state;
    bool held;               /* until the request's other branches have come as far (pruning) */
    bool restored;           /* `length` is final: no restore is under way */
    quire_seq seq;
    int32_t *tokens;         /* prompt, then generated */
    size_t count;
    size_t length;           /* of them, in the cache */
    uint32_t adding;         /* tokens in the step that is being computed */
    sampler sampler;
    double log_probability;
    engine_finish finish;
} branch;

typedef struct request {
    engine_request given;    /* tokens: those of branch 0 */
    uint32_t number;
    branch *branches;        /* [given.branches] */
    uint32_t started;        /* of them; the others fork from the first when it has computed the prompt */
    infer_error error;
    engine_result result;
    double submitted, admitted;
} request;

struct engine {
    quire_cache *cache;
    const model *model;
    forward *forward;
    engine_options options;
    int32_t stop_ids[MOST_STOP_IDS];
    size_t longest;          /* sequence that cache and model allow */
    request **requests;
    uint32_t request_count, request_room;
    branch *first;           /* the list of unfinished branches */
    uint32_t running;        /* branches that have a sequence */
    bool crowded;            /* somebody was preempted, and nobody has ended since */
    int32_t *ids;            /* [step_tokens] of the step */
    int32_t *wanted;         /* [most_running]: tokens of the step whose logits are needed */
    float *logits;           /* [most_running][vocabulary] */
    double *work;            /* [vocabulary] of the sampler */
    double prefill_rate;     /* tokens a second of steps that are mostly prompt; 0: none yet */
};

/* Opens sequences for waiting branches and matches their tokens, oldest first. */
int batch_admit(engine *engine, infer_error *error);
/* Adds what can run to the step, oldest first; fills ids and each branch's `adding`. When the cache is full, the
 * youngest branches are preempted. *tokens 0: nothing could run; if that cannot change, a request has been failed. */
int batch_add(engine *engine, quire_step *step, uint32_t *tokens, infer_error *error);

/* Gives up the branch's sequence; its tokens are kept. */
void batch_release(engine *engine, branch *branch);
/* Ends the branch, which leaves the list at the next batch_sweep. */
void batch_finish(engine *engine, branch *branch, engine_finish finish);
void batch_sweep(engine *engine);

double batch_seconds(void); /* of a clock that never goes back */

#endif
