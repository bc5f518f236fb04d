/* engine.c: requests, sampling, and the order of a step:
 *
 *     admit -> begin, add (batch.c) -> submit -> forward -> commit -> sample, fork, prune
 *
 * Sampling comes after the commit, because a fork needs a sequence that is in no open step. The token that was sampled
 * last is not in the cache yet; it is the first of the branch's next step.
 */
#include "batch.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- open and close ---------------------------------------------------------------------------------------- */

int engine_open(engine **out, quire_cache *cache, const model *model, const engine_options *options,
                infer_error *error)
{
    const quire_options *limits = quire_cache_options(cache);
    size_t stride = backend_stride(model->config.vocabulary);
    if (options->most_running < 1 || options->most_running > options->step_tokens)
        return infer_fail(error, "most_running is %" PRIu32 "; it must be 1 to step_tokens, %" PRIu32,
                          options->most_running, options->step_tokens);
    if (options->step_tokens > limits->max_step_tokens)
        return infer_fail(error, "step_tokens is %" PRIu32 "; the cache takes %" PRIu32 " (QUIRE_MAX_STEP_TOKENS)",
                          options->step_tokens, limits->max_step_tokens);
    if (options->stop_count > MOST_STOP_IDS)
        return infer_fail(error, "%zu stop tokens; at most %d", options->stop_count, MOST_STOP_IDS);
    engine *e = calloc(1, sizeof *e);
    if (!e) return infer_fail(error, "no memory for the engine");
    e->cache = cache;
    e->model = model;
    e->options = *options;
    for (size_t i = 0; i < options->stop_count; i++) e->stop_ids[i] = options->stop_ids[i];
    e->longest = limits->max_seq_tokens < model->config.context ? limits->max_seq_tokens : model->config.context;
    e->ids = malloc(options->step_tokens * sizeof *e->ids);
    e->wanted = malloc(options->most_running * sizeof *e->wanted);
    e->logits = malloc(options->most_running * stride * sizeof *e->logits);
    e->work = malloc(model->config.vocabulary * sizeof *e->work);
    int status = e->ids && e->wanted && e->logits && e->work ? 0 : infer_fail(error, "no memory for the engine");
    if (!status) status = forward_open(&e->forward, model, options->step_tokens, options->most_running, error);
    if (status) engine_close(e);
    else *out = e;
    return status;
}

void engine_forget(engine *e)
{
    for (uint32_t i = 0; i < e->request_count; i++) {
        request *r = e->requests[i];
        for (uint32_t j = 0; j < r->given.branches; j++) free(r->branches[j].tokens);
        free(r->branches);
        free(r);
    }
    e->request_count = 0;
}

void engine_close(engine *e)
{
    if (!e) return;
    for (branch *b = e->first; b; b = b->next) batch_release(e, b);
    engine_forget(e);
    free(e->requests);
    forward_close(e->forward);
    free(e->work);
    free(e->logits);
    free(e->wanted);
    free(e->ids);
    free(e);
}

/* ---- requests ---------------------------------------------------------------------------------------------- */

static int check_request(const engine *e, const engine_request *r, infer_error *error)
{
    uint32_t vocabulary = e->model->config.vocabulary;
    if (r->count == 0) return infer_fail(error, "the prompt is empty; it needs at least one token");
    if (r->count >= e->longest)
        return infer_fail(error, "the prompt has %zu tokens; a sequence may have %zu, the answer included (model: %"
                          PRIu32 ", cache: %" PRIu32 ")", r->count, e->longest, e->model->config.context,
                          quire_cache_options(e->cache)->max_seq_tokens);
    if (r->most_tokens < 1) return infer_fail(error, "max_tokens is 0; it must be at least 1");
    if (r->branches < 1 || r->branches > e->options.most_running)
        return infer_fail(error, "n is %" PRIu32 "; it must be 1 to %" PRIu32, r->branches, e->options.most_running);
    if (!(r->sampling.temperature >= 0.0f && r->sampling.temperature <= 100.0f))
        return infer_fail(error, "temperature is %g; it must be 0 to 100", (double)r->sampling.temperature);
    if (!(r->sampling.top_p > 0.0f && r->sampling.top_p <= 1.0f))
        return infer_fail(error, "top_p is %g; it must be above 0 and at most 1", (double)r->sampling.top_p);
    for (size_t i = 0; i < r->count; i++)
        if (r->tokens[i] < 0 || (uint32_t)r->tokens[i] >= vocabulary)
            return infer_fail(error, "token %zu of the prompt is %" PRId32 "; the model knows 0 to %" PRIu32, i,
                              r->tokens[i], vocabulary - 1);
    return 0;
}

/* Puts the branch into the list behind `after`, NULL: at its end. */
static void enlist(engine *e, branch *b, branch *after)
{
    branch **link = after ? &after->next : &e->first;
    while (!after && *link) link = &(*link)->next;
    b->next = *link;
    *link = b;
    b->request->started++;
}

static request *new_request(const engine_request *given, size_t longest)
{
    request *r = calloc(1, sizeof *r);
    if (!r) return NULL;
    r->given = *given;
    if (r->given.most_tokens > longest - given->count) r->given.most_tokens = (uint32_t)(longest - given->count);
    r->branches = calloc(given->branches, sizeof *r->branches);
    bool whole = r->branches != NULL;
    for (uint32_t i = 0; whole && i < given->branches; i++) {
        branch *b = &r->branches[i];
        b->request = r;
        b->index = i;
        b->count = given->count;
        b->tokens = malloc((given->count + r->given.most_tokens) * sizeof *b->tokens);
        whole = b->tokens != NULL;
        if (whole) memcpy(b->tokens, given->tokens, given->count * sizeof *b->tokens);
        sampler_init(&b->sampler, &given->sampling, i);
    }
    if (whole) return r;
    for (uint32_t i = 0; r->branches && i < given->branches; i++) free(r->branches[i].tokens);
    free(r->branches);
    free(r);
    return NULL;
}

int engine_submit(engine *e, const engine_request *given, uint32_t *number, infer_error *error)
{
    if (check_request(e, given, error)) return -1;
    if (e->request_count == e->request_room) {
        uint32_t room = e->request_room ? 2 * e->request_room : 16;
        request **requests = realloc(e->requests, room * sizeof *requests);
        if (!requests) return infer_fail(error, "no memory for another request");
        e->requests = requests;
        e->request_room = room;
    }
    request *r = new_request(given, e->longest);
    if (!r) return infer_fail(error, "no memory for another request");
    r->given.tokens = r->branches[0].tokens;
    r->number = e->request_count;
    r->result.prompt_tokens = given->count;
    r->result.outputs = given->branches;
    r->submitted = batch_seconds();
    e->requests[e->request_count++] = r;
    enlist(e, &r->branches[0], NULL);
    *number = r->number;
    return 0;
}

engine_result engine_result_of(const engine *e, uint32_t number)
{
    return e->requests[number]->result;
}

engine_output engine_output_of(const engine *e, uint32_t number, uint32_t index)
{
    const request *r = e->requests[number];
    const branch *b = &r->branches[index];
    size_t prompt = r->result.prompt_tokens;
    return (engine_output){ .tokens = b->tokens + prompt, .count = b->count - prompt,
                            .log_probability = b->log_probability, .finish = b->finish };
}

/* ---- after the forward pass -------------------------------------------------------------------------------- */

static bool is_stop(const engine *e, int32_t id)
{
    for (size_t i = 0; i < e->options.stop_count; i++)
        if (e->stop_ids[i] == id) return true;
    return false;
}

/* Draws the branch's next token. */
static void sample(engine *e, branch *b, const float *logits)
{
    request *r = b->request;
    double log_probability;
    int32_t id = sampler_pick(&b->sampler, logits, e->model->config.vocabulary, e->work, &log_probability);
    b->log_probability += log_probability;
    if (r->result.first_token_s == 0.0) r->result.first_token_s = batch_seconds() - r->admitted;
    if (e->options.on_token)
        e->options.on_token(e->options.user, &(engine_token){ .request = r->number, .branch = b->index, .id = id,
                                                              .position = b->count, .logits = logits });
    if (is_stop(e, id)) {
        batch_finish(e, b, ENGINE_STOP);
        return;
    }
    b->tokens[b->count++] = id;
    size_t generated = b->count - r->result.prompt_tokens;
    if (generated == r->given.most_tokens) batch_finish(e, b, ENGINE_LENGTH);
    else b->held = r->given.prune_every && generated % r->given.prune_every == 0;
}

/* Gives the child a sequence with the parent's KV. Where that cannot be (the engine is not to reuse, or all sequences
 * are open), the child waits for admission like any other branch, and its tokens are matched or computed. */
static void fork_from(engine *e, branch *child, const branch *parent)
{
    bool room = e->running < e->options.most_running;
    if (!e->options.reuse || parent->state != BRANCH_RUNNING || !room) return;
    if (quire_seq_fork(e->cache, parent->seq, &child->seq)) return;
    child->state = BRANCH_RUNNING;
    child->length = parent->length;
    child->restored = true;
    e->running++;
}

/* The prompt has been computed: the other branches begin here, each with its own draw from the same logits. */
static void start_siblings(engine *e, branch *first, const float *logits)
{
    request *r = first->request;
    while (r->started < r->given.branches) {
        branch *b = &r->branches[r->started];
        enlist(e, b, &r->branches[r->started - 1]);
        fork_from(e, b, first);
        if (b->state == BRANCH_RUNNING) sample(e, b, logits);
    }
}

/* When all unfinished branches of a request stand at the same length: the least likely gives way to the likeliest. */
static void prune(engine *e, request *r)
{
    branch *best = NULL, *worst = NULL;
    for (uint32_t i = 0; i < r->given.branches; i++) {
        branch *b = &r->branches[i];
        if (b->state == BRANCH_DONE) continue;
        if (!b->held) return;
        if (!best || b->log_probability > best->log_probability) best = b;
        if (!worst || b->log_probability <= worst->log_probability) worst = b;
    }
    if (!best) return;
    for (uint32_t i = 0; i < r->given.branches; i++) r->branches[i].held = false;
    if (best == worst) return;
    batch_release(e, worst);
    memcpy(worst->tokens, best->tokens, best->count * sizeof *best->tokens);
    worst->log_probability = best->log_probability;
    fork_from(e, worst, best);
    r->result.prunings++;
}

static void after_forward(engine *e)
{
    size_t stride = backend_stride(e->model->config.vocabulary);
    const float *logits = e->logits;
    for (branch *b = e->first; b; b = b->next) {
        if (!b->adding) continue;
        b->length += b->adding;
        b->request->result.computed += b->adding;
        b->adding = 0;
        if (b->length < b->count) continue;
        if (b == b->request->branches) start_siblings(e, b, logits);
        sample(e, b, logits);
        logits += stride;
    }
    for (branch *b = e->first; b; b = b->next)
        if (b->held) prune(e, b->request);
    batch_sweep(e);
}

/* ---- the step ---------------------------------------------------------------------------------------------- */

/* Which of the step's tokens end what their branch has: their logits give the next token. */
static uint32_t list_wanted(engine *e)
{
    uint32_t count = 0, token = 0;
    for (branch *b = e->first; b; b = b->next) {
        token += b->adding;
        if (b->adding && b->length + b->adding == b->count) e->wanted[count++] = (int32_t)token - 1;
    }
    return count;
}

/* Tells the cache how fast prompts are computed, so that it can weigh a restore against that. */
static int note_rate(engine *e, uint32_t tokens, double seconds, infer_error *error)
{
    enum { PROMPT_TOKENS = 32 }; /* fewer are decode steps mostly, which say little about prompts */
    if (tokens < PROMPT_TOKENS || seconds <= 0) return 0;
    double rate = tokens / seconds;
    e->prefill_rate += (e->prefill_rate > 0 ? 0.2 : 1.0) * (rate - e->prefill_rate);
    if (quire_cache_prefill_rate(e->cache, e->prefill_rate)) return infer_fail(error, "%s", quire_error_text());
    return 0;
}

static uint32_t power_of_two(size_t least, uint32_t from, size_t most)
{
    size_t value = from;
    while (value < least) value *= 2;
    return (uint32_t)(value < most ? value : most);
}

/* A step of single tokens that all want their logits is brought to a shape that comes again: rows to a power of two, and the
 * bound of contexts too. *rows 0: it is not such a step. */
static int take_shape(engine *e, quire_step *step, uint32_t tokens, uint32_t wanted, uint32_t *rows, infer_error *error)
{
    const quire_options *limits = quire_cache_options(e->cache);
    size_t longest = 0, most = e->options.most_running < limits->max_sequences ? e->options.most_running
                                                                               : limits->max_sequences;
    *rows = 0;
    if (!e->options.graph || limits->group_count != 1 || wanted != tokens) return 0;
    for (const branch *b = e->first; b; b = b->next) {
        if (b->adding > 1) return 0;
        if (b->adding && b->length + 1 > longest) longest = b->length + 1;
    }
    uint32_t padded = power_of_two(tokens, 1, most);
    if (quire_step_graph(step, padded, power_of_two(longest, 1024, limits->max_seq_tokens)))
        return infer_fail(error, "%s", quire_error_text());
    for (uint32_t i = tokens; i < padded; i++) e->ids[i] = 0; /* any token: nobody reads what comes of it */
    for (uint32_t i = 0; i < padded; i++) e->wanted[i] = (int32_t)i;
    *rows = padded;
    return 0;
}

static int compute(engine *e, quire_step *step, uint32_t tokens, infer_error *error)
{
    double began = batch_seconds();
    uint32_t wanted = list_wanted(e), rows;
    if (take_shape(e, step, tokens, wanted, &rows, error)) return -1;
    if (quire_step_submit(step)) return infer_fail(error, "%s", quire_error_text());
    int status = rows ? forward_repeat(e->forward, step, e->ids, e->wanted, rows, e->logits, error)
                      : forward_run(e->forward, step, e->ids, e->wanted, wanted, e->logits, error);
    if (status) return -1;
    if (quire_step_commit(step)) return infer_fail(error, "%s", quire_error_text());
    return note_rate(e, tokens, batch_seconds() - began, error); /* the logits are here, so the step has run */
}

int engine_step(engine *e, bool *busy, infer_error *error)
{
    quire_step *step;
    uint32_t tokens;
    if (batch_admit(e, error)) return -1;
    batch_sweep(e); /* a prompt that cannot be matched has failed */
    *busy = e->first != NULL;
    if (!*busy) return 0;
    if (quire_step_begin(e->cache, NULL, &step)) return infer_fail(error, "%s", quire_error_text());
    if (batch_add(e, step, &tokens, error) || (tokens && compute(e, step, tokens, error))) {
        quire_step_cancel(step);
        return -1;
    }
    if (tokens == 0) quire_step_cancel(step);
    else after_forward(e);
    batch_sweep(e);
    *busy = e->first != NULL;
    return 0;
}

int engine_run(engine *e, infer_error *error)
{
    for (bool busy = true; busy;)
        if (engine_step(e, &busy, error)) return -1;
    return 0;
}
