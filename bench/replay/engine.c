/* engine.c: continuous batching over the real deciding half.
 *
 *    arrivals --> waiting --admit: open, match--> running --step: reserve, commit--> done: close
 *                    ^                               |
 *                    +---------- preempted ----------+
 *
 * A step takes, of the running sequences in the order of their admission, chunks of prompts up to
 * `step_tokens`, and a token of each that decodes. It lasts
 *
 *    prompt tokens / prefill_rate  +  decode_seconds, if anything decodes
 *
 * When nothing is prefilled and nobody arrives, several decode steps are one here (up to DECODES), since only
 * block edges matter to the cache; the time is that of all of them.
 *
 * Invariants
 *  1. A request is waiting, running, done or refused; none is lost. It is refused only when it is longer than
 *     the tier.
 *  2. Waiting requests are admitted in the order of arrival; preempted ones, the youngest first, wait before
 *     all others.
 *  3. Admission needs blocks, free or evictable, for the rest of the prompt, for what is left of the prompts
 *     that run, and one more for each of those. Where they are missing it is tried again only after something
 *     has been given back.
 *  4. When a running sequence gets no block, and no move in flight will bring one, the youngest is preempted:
 *     closed, its full blocks cached, to be matched and continued later. The oldest therefore always gets on.
 *  5. A sequence whose restore is under way takes no part in steps.
 */
#include "engine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cputime.h"
#include "expand.h"
#include "links.h"

enum { DECODES = 16, PROGRESS_EVERY = 64 };

typedef struct job {
    uint32_t request, seq;
    uint32_t length; /* tokens that are in the cache */
    uint32_t prompt; /* what must be there before it decodes: the input, and what it has generated before */
    uint32_t total;
    uint32_t count; /* in this step */
} job;

typedef struct engine {
    const replay_trace *trace;
    const replay_setup *setup;
    const replay_engine_model *model;
    replay_outcome *outcome;
    replay_node node;
    replay_links links;
    double now;

    job *running; /* by admission */
    uint32_t running_count;
    uint32_t *returned; /* preempted requests: a stack */
    uint32_t returned_count;
    uint32_t *generated; /* of a request, when it was preempted */
    uint32_t arrived, admitted; /* requests [admitted, arrived) wait for the first time */
    bool blocked; /* admission failed, and nothing has been given back since */

    double *first_tokens; /* seconds since arrival; < 0: not yet */
    uint32_t done;
    int32_t *tokens;
} engine;

static double arrival(const engine *engine, uint32_t request)
{
    int64_t first = engine->trace->requests[0].time_us;
    return (double)(engine->trace->requests[request].time_us - first) * 1e-6 / engine->model->speed;
}

static uint32_t blocks_of(const engine *engine, uint32_t tokens)
{
    uint32_t size = engine->setup->geometry.block_tokens;
    return (tokens + size - 1) / size;
}

/* ---- admission ----------------------------------------------------------------------------------------- */

static uint32_t waiting(const engine *engine)
{
    return engine->returned_count + engine->arrived - engine->admitted;
}

static uint32_t next_waiting(const engine *engine)
{
    return engine->returned_count > 0 ? engine->returned[engine->returned_count - 1] : engine->admitted;
}

static void take_waiting(engine *engine)
{
    if (engine->returned_count > 0)
        engine->returned_count--;
    else
        engine->admitted++;
}

/* Blocks that the rest of the prompt needs, and that those who run have been promised, against what can be
 * had. */
static bool has_room(const engine *engine, const job *job, const quire_hit *hit)
{
    quire_stats stats = {.size = sizeof stats};
    uint32_t full = (uint32_t)(hit->tokens - hit->partial) / engine->setup->geometry.block_tokens;
    if (engine->running_count == 0)
        return true;
    quire__book_stats(engine->node.book, &stats);
    uint64_t need = (uint64_t)blocks_of(engine, job->prompt) - full + engine->running_count;
    for (uint32_t i = 0; i < engine->running_count; i++) {
        const struct job *other = &engine->running[i];
        if (other->length < other->prompt)
            need += blocks_of(engine, other->prompt) - blocks_of(engine, other->length);
    }
    return need <= stats.device_free + stats.device_cached;
}

static void count_hit(engine *engine, const job *job, const quire_hit *hit)
{
    replay_outcome *outcome = engine->outcome;
    outcome->requests++;
    outcome->input_tokens += engine->trace->requests[job->request].input;
    outcome->hit_device += hit->device;
    outcome->hit_host += hit->host;
    outcome->blocks += job->total / engine->setup->geometry.block_tokens;
    outcome->found_blocks += hit->tokens / engine->setup->geometry.block_tokens;
}

static void refuse(engine *engine, uint32_t index)
{
    const replay_request *request = &engine->trace->requests[index];
    engine->outcome->requests++;
    engine->outcome->refused++;
    engine->outcome->input_tokens += request->input;
    engine->outcome->computed += request->input + request->output;
    engine->done++;
}

/* 1: admitted or refused; 0: no room; -1: failed. */
static int admit(engine *engine, replay_error *error)
{
    uint32_t index = next_waiting(engine);
    const replay_request *request = &engine->trace->requests[index];
    uint64_t longest = (uint64_t)engine->setup->geometry.device_blocks * engine->setup->geometry.block_tokens;
    job job = {.request = index,
               .total = request->input + request->output,
               .prompt = request->input + engine->generated[index]};
    if (job.total > longest) {
        take_waiting(engine);
        refuse(engine, index);
        return 1;
    }
    quire_hit hit;
    replay_expand(engine->trace, index, 0, job.prompt, engine->tokens);
    double begin = replay_cpu_now();
    if (quire__book_seq_open(engine->node.book, request->domain, &job.seq) ||
        quire__book_seq_match(engine->node.book, job.seq, engine->tokens, job.prompt, &engine->node.plan,
                              &hit))
        return replay_fail(error, "%s", quire_error_text());
    bool room = has_room(engine, &job, &hit);
    if (!room)
        quire__book_seq_close(engine->node.book, job.seq);
    engine->outcome->book_seconds += replay_cpu_now() - begin;
    if (replay_links_start(&engine->links, &engine->node, engine->now, error))
        return -1;
    if (!room)
        return 0;
    if (engine->returned_count == 0) /* else it has been here before */
        count_hit(engine, &job, &hit);
    take_waiting(engine);
    job.length = (uint32_t)hit.tokens;
    engine->running[engine->running_count++] = job;
    return 1;
}

static int admit_all(engine *engine, replay_error *error)
{
    while (engine->arrived < engine->trace->request_count && arrival(engine, engine->arrived) <= engine->now)
        engine->arrived++;
    replay_outcome *outcome = engine->outcome;
    outcome->most_waiting = waiting(engine) > outcome->most_waiting ? waiting(engine) : outcome->most_waiting;
    while (!engine->blocked && waiting(engine) > 0 && engine->running_count < engine->model->batch) {
        int status = admit(engine, error);
        if (status < 0)
            return -1;
        engine->blocked = status == 0;
    }
    if (engine->running_count > outcome->most_running)
        outcome->most_running = engine->running_count;
    return 0;
}

/* ---- steps --------------------------------------------------------------------------------------------- */

static void preempt_youngest(engine *engine)
{
    const job *youngest = &engine->running[--engine->running_count];
    uint32_t input = engine->trace->requests[youngest->request].input;
    if (youngest->length > input)
        engine->generated[youngest->request] = youngest->length - input;
    quire__book_seq_close(engine->node.book, youngest->seq);
    engine->returned[engine->returned_count++] = youngest->request;
    engine->outcome->preemptions++;
    engine->blocked = true;
}

/* Alone, and a block short: the copy of a block that is shared in part needs one beside it. That part is
 * computed. */
static int give_up_partial(engine *engine, job *job, replay_error *error)
{
    uint32_t part = job->length % engine->setup->geometry.block_tokens;
    if (part == 0)
        return replay_fail(error, "%s", quire_error_text());
    job->length -= part;
    job->count = 0;
    if (quire__book_seq_truncate(engine->node.book, job->seq, job->length))
        return replay_fail(error, "%s", quire_error_text());
    return 0;
}

/* Reserves for running[at], waiting for moves and preempting the young where it must, at last itself. */
static int reserve(engine *engine, uint32_t at, const int32_t *tokens, replay_error *error)
{
    for (;;) {
        uint32_t moving = 0;
        job *job = &engine->running[at];
        quire_status status =
            quire__book_reserve(engine->node.book, job->seq, tokens, job->count, &engine->node.plan, &moving);
        engine->node.plan.count = 0; /* a copy at most: it costs no time here */
        if (status == QUIRE_OK)
            return 0;
        if (status != QUIRE_EFULL)
            return replay_fail(error, "%s", quire_error_text());
        if (moving > 0 && isfinite(replay_links_next(&engine->links))) {
            engine->now = fmax(engine->now, replay_links_next(&engine->links));
            replay_links_finish(&engine->links, &engine->node, engine->now);
            continue;
        }
        if (engine->running_count == 1)
            return give_up_partial(engine, job, error);
        bool itself = engine->running_count == at + 1;
        preempt_youngest(engine);
        if (itself)
            return 0;
    }
}

/* How many decode steps are taken as one: until somebody arrives who could be admitted, or a restore ends. */
static uint32_t decodes_at_once(const engine *engine)
{
    double next = replay_links_next(&engine->links);
    if (engine->arrived < engine->trace->request_count)
        next = fmin(next, arrival(engine, engine->arrived));
    double steps = ceil((next - engine->now) / engine->model->decode_seconds);
    return steps < 1 ? 1 : steps < DECODES ? (uint32_t)steps : DECODES;
}

/* Gives every running sequence its part of the step. Returns the prompt tokens in it; `*decodes`: steps of
 * decoding. */
static uint32_t compose(engine *engine, uint32_t *decodes)
{
    uint32_t budget = engine->model->step_tokens;
    bool decoding = false;
    for (uint32_t i = 0; i < engine->running_count; i++) {
        job *job = &engine->running[i];
        job->count = 0;
        if (!quire__book_seq_ready(engine->node.book, job->seq))
            continue;
        if (job->length < job->prompt) {
            job->count = replay_smaller(job->prompt - job->length, budget);
            budget -= job->count;
        } else {
            decoding = true;
        }
    }
    uint32_t prefill = engine->model->step_tokens - budget;
    *decodes = !decoding ? 0 : prefill > 0 ? 1 : decodes_at_once(engine);
    for (uint32_t i = 0; decoding && i < engine->running_count; i++) {
        job *job = &engine->running[i];
        if (job->length >= job->prompt && quire__book_seq_ready(engine->node.book, job->seq))
            job->count = replay_smaller(job->total - job->length, *decodes);
    }
    return prefill;
}

static int reserve_all(engine *engine, replay_error *error)
{
    for (uint32_t i = 0; i < engine->running_count; i++) {
        const job *job = &engine->running[i];
        if (job->count == 0)
            continue;
        double begin = job->count > DECODES ? replay_cpu_now() : 0;
        replay_expand(engine->trace, job->request, job->length, job->count, engine->tokens);
        if (begin > 0) /* a trace's expansion is not the book's work */
            engine->outcome->book_seconds -= replay_cpu_now() - begin;
        if (reserve(engine, i, engine->tokens, error))
            return -1;
    }
    return 0;
}

/* Ends the step: what was computed is the cache's, who has all it wants leaves. */
static int commit_all(engine *engine, replay_error *error)
{
    uint32_t kept = 0;
    int status = 0;
    for (uint32_t i = 0; status == 0 && i < engine->running_count; i++) {
        job job = engine->running[i];
        if (job.count > 0) {
            quire__book_commit(engine->node.book, job.seq, &engine->node.plan);
            status = replay_links_start(&engine->links, &engine->node, engine->now, error);
            job.length += job.count;
            engine->outcome->computed += job.count;
        }
        if (job.length >= job.prompt && engine->first_tokens[job.request] < 0)
            engine->first_tokens[job.request] = engine->now - arrival(engine, job.request);
        if (job.length >= job.total) {
            replay_node_hint(&engine->node, job.seq,
                             replay_hints(engine->setup, &engine->trace->requests[job.request]), 0);
            quire__book_seq_close(engine->node.book, job.seq);
            engine->done++;
            engine->blocked = false;
        } else {
            engine->running[kept++] = job;
        }
    }
    engine->running_count = kept;
    return status;
}

/* Nothing can be computed now: on to the next thing that happens. */
static int pass_time(engine *engine, replay_error *error)
{
    double next = replay_links_next(&engine->links);
    if (engine->arrived < engine->trace->request_count)
        next = fmin(next, arrival(engine, engine->arrived));
    if (!isfinite(next))
        return replay_fail(error, "the engine stands still with %u requests running and %u waiting: a bug",
                           engine->running_count, waiting(engine));
    engine->now = fmax(engine->now, next);
    engine->blocked = false;
    return 0;
}

static int step(engine *engine, replay_error *error)
{
    uint32_t decodes, computed = 0;
    double begin = replay_cpu_now();
    uint32_t prefill = compose(engine, &decodes);
    if (prefill == 0 && decodes == 0)
        return pass_time(engine, error);
    quire__book_step_begin(engine->node.book, ++engine->node.step);
    int status = reserve_all(engine, error);
    if (status == 0) {
        for (uint32_t i = 0; i < engine->running_count; i++)
            computed += engine->running[i].count;
        double seconds = prefill / engine->model->prefill_rate + decodes * engine->model->decode_seconds;
        engine->now += computed > 0 ? seconds : 0;
        status = commit_all(engine, error);
    }
    quire__book_step_end(engine->node.book);
    if (status == 0 && engine->links.offload.count == 0) {
        replay_node_offload(&engine->node, engine->links.restore.count > 0);
        status = replay_links_start(&engine->links, &engine->node, engine->now, error);
    }
    engine->outcome->book_seconds += replay_cpu_now() - begin;
    return status;
}

/* ---- the whole ----------------------------------------------------------------------------------------- */

static int run(engine *engine, replay_error *error)
{
    const replay_setup *setup = engine->setup;
    size_t requests = engine->trace->request_count;
    double begin = replay_cpu_now();
    int status = 0;
    for (uint64_t steps = 0; status == 0 && engine->done < requests; steps++) {
        if (replay_links_finish(&engine->links, &engine->node, engine->now))
            engine->blocked = false;
        quire__book_set_time(engine->node.book, (uint64_t)(engine->now * 1e6));
        status = admit_all(engine, error);
        if (status == 0 && engine->done < requests)
            status = step(engine, error);
        if (setup->progress && steps % PROGRESS_EVERY == 0)
            setup->progress(setup->progress_user, engine->done, requests);
    }
    engine->outcome->whole_seconds = replay_cpu_now() - begin;
    engine->outcome->virtual_seconds = engine->now;
    return status;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void sum_up(engine *engine)
{
    replay_outcome *outcome = engine->outcome;
    size_t count = 0;
    double sum = 0;
    for (size_t i = 0; i < engine->trace->request_count; i++) {
        if (engine->first_tokens[i] < 0)
            continue;
        sum += engine->first_tokens[i];
        engine->first_tokens[count++] = engine->first_tokens[i];
    }
    replay_outcome_count(outcome, &engine->node);
    if (count == 0)
        return;
    qsort(engine->first_tokens, count, sizeof(double), by_value);
    outcome->ttft_mean = sum / (double)count;
    outcome->ttft_p50 = engine->first_tokens[count / 2];
    outcome->ttft_p95 = engine->first_tokens[count * 95 / 100];
    outcome->ttft_p99 = engine->first_tokens[count * 99 / 100];
}

static int open_engine(engine *engine, replay_error *error)
{
    const replay_trace *trace = engine->trace;
    size_t requests = trace->request_count;
    replay_node_config config = {.geometry = engine->setup->geometry,
                                 .policy = engine->setup->policy,
                                 .offload = engine->setup->offload,
                                 .step_tokens = engine->model->step_tokens,
                                 .max_sequences = engine->model->batch,
                                 .longest = trace->longest + 1,
                                 .max_domains = replay_domains(trace)};
    engine->running = calloc(engine->model->batch, sizeof *engine->running);
    engine->returned = calloc(requests, sizeof *engine->returned);
    engine->generated = calloc(requests, sizeof *engine->generated);
    engine->first_tokens = malloc(requests * sizeof *engine->first_tokens);
    engine->tokens = malloc(((size_t)trace->longest + 1) * sizeof *engine->tokens);
    if (!engine->running || !engine->returned || !engine->generated || !engine->first_tokens ||
        !engine->tokens)
        return replay_fail(error, "no memory for an engine with %zu requests", requests);
    for (size_t i = 0; i < requests; i++)
        engine->first_tokens[i] = -1;
    replay_links_open(&engine->links, &config.geometry, engine->model->offload_rate,
                      engine->model->restore_rate);
    return replay_node_open(&engine->node, &config, error);
}

int replay_engine(const replay_trace *trace, const replay_setup *setup, const replay_engine_model *model,
                  replay_outcome *outcome, replay_error *error)
{
    engine engine = {.trace = trace, .setup = setup, .model = model, .outcome = outcome};
    *outcome = (replay_outcome){0};
    int status = open_engine(&engine, error);
    if (status == 0)
        status = run(&engine, error);
    if (status == 0)
        sum_up(&engine);
    if (engine.node.book)
        replay_node_close(&engine.node);
    replay_links_close(&engine.links);
    free(engine.tokens);
    free(engine.first_tokens);
    free(engine.generated);
    free(engine.returned);
    free(engine.running);
    return status;
}
