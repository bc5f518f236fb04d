/* speculate.h: speculative decoding by prompt lookup (Saxena, 2023): the draft is what followed the last words when they
 * stood in the text before; the model computes the draft in one step with its next token, keeps what it would have
 * generated itself, and takes the rest back with quire_seq_truncate. (Speculative decoding: Leviathan and others, 2023.)
 * The tokens are those of plain greedy decoding, since a token's logits do not depend on what stands behind it nor on how
 * many are computed at once.
 *
 * Errors: see error.h.
 */
#ifndef INFER_SPECULATE_H
#define INFER_SPECULATE_H

#include "lanes.h"

typedef struct speculate_request {
    const int32_t *tokens; /* the prompt */
    size_t count;
    uint32_t most_tokens;  /* to generate */
    uint32_t draft;        /* tokens of a draft, at most; 0: plain greedy decoding */
    const int32_t *stop_ids;
    size_t stop_count;
    uint64_t domain;
    bool reuse;            /* takes what the cache has of the prompt */
    void (*on_token)(void *user, int32_t id); /* each token that is generated, in order; may be NULL */
    void *user;
} speculate_request;

typedef struct speculate_result {
    int32_t *tokens;       /* generated, without the stop token; the caller's to free() */
    size_t count;
    bool stopped;          /* by a stop token */
    uint64_t steps;        /* after the prompt */
    uint64_t drafted, accepted;
} speculate_result;

/* `lanes` must take draft + 1 rows. On failure there is nothing to free. */
int speculate_run(lanes *lanes, const speculate_request *request, speculate_result *result, infer_error *error);

#endif
