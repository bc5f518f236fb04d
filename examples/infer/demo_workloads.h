/* demo_workloads.h: the six workloads of quire-demo, each run with the cache off and on.
 *
 * Errors: see error.h.
 */
#ifndef INFER_DEMO_WORKLOADS_H
#define INFER_DEMO_WORKLOADS_H

#include "demo_texts.h"
#include "session.h"

enum { DEMO_WORKLOADS = 6 };

typedef struct demo_answer {
    int32_t *tokens;
    size_t count;
    double log_probability;
} demo_answer;

/* One workload in one mode. */
typedef struct demo_run {
    demo_answer *answers; /* of all branches of all requests, in order */
    size_t answer_count;
    double *first_token_s; /* of each request, from its admission */
    size_t requests;
    size_t prompt_tokens, generated_tokens;
    size_t reusable, reused;   /* of the prompts: longest prefix seen before in the same domain, and what was found */
    double least_reuse;        /* the smallest reused / reusable of a request; 1 when nothing was reusable */
    size_t device, host, computed, preemptions;
    size_t foreign;            /* tokens taken from another tenant: workload e */
    size_t working_set;        /* different tokens: of prompts, what was not seen before, and all that was generated */
    size_t arena;              /* tokens that fit it */
    quire_stats stats;
    double seconds;            /* while requests were served */
} demo_run;

typedef struct demo {
    session *session;
    const demo_texts *texts;
    session_options options; /* of every cache; sizes are set by the workload */
    void (*progress)(void *user, char name, bool reuse, size_t done, size_t total, const demo_run *run);
    void *user;
} demo;

const char *demo_workload_title(size_t index);
/* Opens a fresh cache, serves the workload and verifies the cache's invariants. */
int demo_workload_run(demo *demo, size_t index, bool reuse, demo_run *run, infer_error *error);
void demo_run_free(demo_run *run);
/* Every token and the bits of every log probability. */
bool demo_run_identical(const demo_run *a, const demo_run *b);
double demo_run_median_first_token(const demo_run *run, size_t skip); /* without the first `skip` requests */

#endif
