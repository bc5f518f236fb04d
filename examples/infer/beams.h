/* beams.h: beam search: of all continuations of the live beams the likeliest few live on. A beam is a Quire sequence. One
 * with two children is forked, one with none is closed, and the KV of what they have in common is there once.
 *
 * Errors: see error.h.
 */
#ifndef INFER_BEAMS_H
#define INFER_BEAMS_H

#include "lanes.h"

enum { BEAMS_MOST = 64 };

typedef struct beams_request {
    const int32_t *tokens; /* the prompt */
    size_t count;
    uint32_t most_tokens;  /* to generate */
    uint32_t beams;        /* 1 to BEAMS_MOST; 1 is greedy decoding */
    const int32_t *stop_ids;
    size_t stop_count;
    uint64_t domain;
    bool reuse;            /* false: no match and no fork; every beam is computed from its first token in every step */
} beams_request;

typedef struct beam {
    int32_t *tokens;        /* generated, without the stop token */
    size_t count;
    double log_probability; /* of them, and of the stop token */
    bool stopped;
} beam;

typedef struct beams_result {
    beam *beams;            /* the likeliest first */
    uint32_t count;
    uint64_t steps, forks, closes;
} beams_result;

/* `lanes` must take as many rows as there are beams. The search ends when a beam that ended is at least as likely as
 * every live one: a probability never rises. On failure there is nothing to free. */
int beams_run(lanes *lanes, const beams_request *request, beams_result *result, infer_error *error);
void beams_free(beams_result *result); /* a zeroed one is allowed */

#endif
