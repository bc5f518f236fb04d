#include "lanes.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 256, RESTORE_WAIT_US = 100000 };

int lanes_open(lanes *l, quire_cache *cache, const model *model, uint32_t most_rows, infer_error *error)
{
    const quire_options *limits = quire_cache_options(cache);
    uint32_t tokens = limits->max_step_tokens < CHUNK ? limits->max_step_tokens : CHUNK;
    memset(l, 0, sizeof *l);
    if (most_rows < 1 || most_rows > tokens)
        return infer_fail(error, "%" PRIu32 " rows of logits in a step; 1 to %" PRIu32 " are possible", most_rows, tokens);
    l->cache = cache;
    l->model = model;
    l->most_tokens = tokens;
    l->most_rows = most_rows;
    l->longest = limits->max_seq_tokens < model->config.context ? limits->max_seq_tokens : model->config.context;
    l->row_floats = backend_stride(model->config.vocabulary);
    l->ids = malloc(tokens * sizeof *l->ids);
    l->wanted = malloc(most_rows * sizeof *l->wanted);
    l->logits = malloc(most_rows * l->row_floats * sizeof *l->logits);
    int status = l->ids && l->wanted && l->logits ? 0 : infer_fail(error, "no memory for a step");
    if (!status) status = forward_open(&l->forward, model, tokens, most_rows, error);
    if (status) lanes_close(l);
    return status;
}

void lanes_close(lanes *l)
{
    forward_close(l->forward);
    free(l->logits);
    free(l->wanted);
    free(l->ids);
    memset(l, 0, sizeof *l);
}

/* Adds the lanes to the step and lists the rows that they want. */
static int add(lanes *l, quire_step *step, const lane *lane, uint32_t count, uint32_t *rows, infer_error *error)
{
    uint32_t tokens = 0;
    *rows = 0;
    for (uint32_t i = 0; i < count; i++, lane++) {
        if (lane->count > l->most_tokens - tokens || lane->wanted > l->most_rows - *rows)
            return infer_fail(error, "more than %" PRIu32 " tokens or %" PRIu32 " rows of logits in a step",
                              l->most_tokens, l->most_rows);
        if (quire_step_add(step, lane->seq, lane->tokens, lane->count)) return infer_fail(error, "%s", quire_error_text());
        memcpy(l->ids + tokens, lane->tokens, lane->count * sizeof *l->ids);
        tokens += lane->count;
        for (uint32_t j = lane->wanted; j > 0; j--) l->wanted[(*rows)++] = (int32_t)(tokens - j);
    }
    return 0;
}

int lanes_step(lanes *l, const lane *lane, uint32_t count, infer_error *error)
{
    quire_step *step;
    uint32_t rows;
    if (quire_step_begin(l->cache, NULL, &step)) return infer_fail(error, "%s", quire_error_text());
    int status = add(l, step, lane, count, &rows, error);
    if (!status && quire_step_submit(step)) status = infer_fail(error, "%s", quire_error_text());
    if (!status) status = forward_run(l->forward, step, l->ids, l->wanted, rows, l->logits, error);
    if (!status && quire_step_commit(step)) status = infer_fail(error, "%s", quire_error_text());
    if (status) quire_step_cancel(step);
    return status;
}

/* Takes what the cache has of the tokens, and waits until it is there. */
static int match(lanes *l, quire_seq seq, const int32_t *tokens, size_t count, size_t *length, infer_error *error)
{
    quire_seq_info info;
    quire_status status = quire_seq_match(l->cache, seq, tokens, count, NULL);
    do {
        if (!status) status = quire_seq_wait(l->cache, seq, RESTORE_WAIT_US);
    } while (status == QUIRE_ETIMEOUT && !(status = QUIRE_OK));
    if (status || quire_seq_get(l->cache, seq, &info)) return infer_fail(error, "%s", quire_error_text());
    *length = info.length;
    return 0;
}

int lanes_prefill(lanes *l, quire_seq seq, const int32_t *tokens, size_t count, bool reuse, infer_error *error)
{
    size_t done = 0;
    if (count < 1 || count > l->longest)
        return infer_fail(error, "the prompt has %zu tokens; a sequence may have 1 to %zu", count, l->longest);
    if (reuse && match(l, seq, tokens, count, &done, error)) return -1;
    while (done < count) {
        size_t n = count - done < l->most_tokens ? count - done : l->most_tokens;
        lane whole = { .seq = seq, .tokens = tokens + done, .count = (uint32_t)n, .wanted = done + n == count };
        if (lanes_step(l, &whole, 1, error)) return -1;
        done += n;
    }
    return 0;
}

int32_t lanes_best(const lanes *l, uint32_t row)
{
    const float *logits = l->logits + row * l->row_floats;
    uint32_t best = 0;
    for (uint32_t i = 1; i < l->model->config.vocabulary; i++)
        if (logits[i] > logits[best]) best = i;
    return (int32_t)best;
}
