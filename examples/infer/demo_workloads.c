/* The workloads of quire-demo. Each serves its requests in rounds: the requests of one round are submitted together and
 * run as one batch, then the next round begins. In mode "off" the engine takes nothing from the cache and forks nothing:
 * every token of every branch is computed from the beginning, so that it is an independent answer to compare with. */
#include "demo_workloads.h"
#include "batch.h"
#include "prompt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROUND = 16,           /* most requests of one */
    QUESTIONS_ASKED = 6,  /* in a */
    TALKS = 4,            /* conversations in b and d */
    TURNS = 3,            /* of each in b */
    ROUNDS = 2,           /* in d */
    ANSWER_TOKENS = 12,
    SAMPLE_TOKENS = 20,
    PRUNE_EVERY = 8,
    AMPLE_TOKENS = 12288, /* arena of all workloads but d */
    TIGHT_TOKENS = 2304,  /* arena of d: one request about the handbook, and a little more */
    TENTH_TOKENS = 288,   /* arena of f: one request, and less than a tenth of what all of them have */
    PIECE_ANSWER_TOKENS = 6,
    HOST_TOKENS = 12288   /* host tier */
};

/* What one run of a workload works with. */
typedef struct stage {
    demo *demo;
    demo_run *run;
    char name;
    bool reuse;
    size_t done, total;       /* requests */
    token_list *seen;         /* prompt and answer of every request that has ended, for the reuse that is possible */
    uint64_t *seen_domain;
    size_t seen_count;
    infer_error *error;
} stage;

typedef struct job {
    const token_list *prompt;
    uint32_t most_tokens, branches, prune_every;
    float temperature;
    uint64_t domain;
    conversation *talk;       /* that the answer belongs to, or NULL */
} job;

/* ---- one round --------------------------------------------------------------------------------------------- */

static size_t common_prefix(const token_list *a, const token_list *b)
{
    size_t n = 0;
    while (n < a->count && n < b->count && a->ids[n] == b->ids[n]) n++;
    return n;
}

/* The longest prefix that was seen before; the last token is always computed. */
static size_t reusable_of(const stage *s, const job *j)
{
    size_t longest = 0;
    for (size_t i = 0; i < s->seen_count; i++) {
        size_t n = s->seen_domain[i] == j->domain ? common_prefix(&s->seen[i], j->prompt) : 0;
        if (n > longest) longest = n;
    }
    return longest < j->prompt->count ? longest : j->prompt->count - 1;
}

static int remember(stage *s, const job *j, const engine_output *output)
{
    token_list *seen = realloc(s->seen, (s->seen_count + 1) * sizeof *seen);
    if (seen) s->seen = seen;
    uint64_t *domains = realloc(s->seen_domain, (s->seen_count + 1) * sizeof *domains);
    if (domains) s->seen_domain = domains;
    if (!seen || !domains) return infer_fail(s->error, "no memory for the demo");
    token_list *list = &s->seen[s->seen_count];
    *list = (token_list){ 0 };
    s->seen_domain[s->seen_count++] = j->domain;
    for (size_t i = 0; i < j->prompt->count; i++)
        if (token_list_push(list, j->prompt->ids[i], s->error)) return -1;
    for (size_t i = 0; i < output->count; i++)
        if (token_list_push(list, output->tokens[i], s->error)) return -1;
    return 0;
}

static int keep_answer(stage *s, const engine_output *output)
{
    demo_run *run = s->run;
    demo_answer *answers = realloc(run->answers, (run->answer_count + 1) * sizeof *answers);
    if (!answers) return infer_fail(s->error, "no memory for the demo");
    run->answers = answers;
    demo_answer *answer = &run->answers[run->answer_count];
    *answer = (demo_answer){ .tokens = malloc((output->count + 1) * sizeof *answer->tokens), .count = output->count,
                             .log_probability = output->log_probability };
    if (!answer->tokens) return infer_fail(s->error, "no memory for the demo");
    memcpy(answer->tokens, output->tokens, output->count * sizeof *answer->tokens);
    run->answer_count++;
    run->generated_tokens += output->count;
    run->working_set += output->count;
    return 0;
}

static int keep_result(stage *s, const job *j, uint32_t number, size_t reusable)
{
    demo_run *run = s->run;
    engine *e = s->demo->session->engine;
    engine_result r = engine_result_of(e, number);
    if (r.error) return infer_fail(s->error, "workload %c: %s", s->name, r.error);
    double *first = realloc(run->first_token_s, (run->requests + 1) * sizeof *first);
    if (!first) return infer_fail(s->error, "no memory for the demo");
    run->first_token_s = first;
    run->first_token_s[run->requests++] = r.first_token_s;
    run->prompt_tokens += r.prompt_tokens;
    run->device += r.device;
    run->host += r.host;
    run->computed += r.computed;
    run->preemptions += r.preemptions;
    run->reusable += reusable;
    run->working_set += r.prompt_tokens - reusable;
    run->reused += r.prompt_hit;
    if (r.prompt_hit > reusable) run->foreign += r.prompt_hit - reusable;
    if (reusable && (double)r.prompt_hit / (double)reusable < run->least_reuse)
        run->least_reuse = (double)r.prompt_hit / (double)reusable;
    for (uint32_t i = 0; i < r.outputs; i++) {
        engine_output output = engine_output_of(e, number, i);
        if (keep_answer(s, &output) || remember(s, j, &output)) return -1;
        if (i == 0 && j->talk && conversation_answer(j->talk, output.tokens, output.count, s->error)) return -1;
    }
    return 0;
}

static int serve(stage *s, const job *jobs, size_t count)
{
    engine *e = s->demo->session->engine;
    size_t reusable[ROUND];
    for (size_t i = 0; i < count; i++) {
        uint32_t number;
        engine_request request = { .tokens = jobs[i].prompt->ids, .count = jobs[i].prompt->count,
                                   .most_tokens = jobs[i].most_tokens, .branches = jobs[i].branches,
                                   .prune_every = jobs[i].prune_every, .domain = jobs[i].domain,
                                   .sampling = { .temperature = jobs[i].temperature, .top_p = 0.95f, .seed = 7 } };
        reusable[i] = reusable_of(s, &jobs[i]);
        if (engine_submit(e, &request, &number, s->error)) return -1;
    }
    double start = batch_seconds();
    if (engine_run(e, s->error)) return -1;
    s->run->seconds += batch_seconds() - start;
    for (size_t i = 0; i < count; i++)
        if (keep_result(s, &jobs[i], (uint32_t)i, reusable[i])) return -1;
    engine_forget(e);
    s->done += count;
    s->demo->progress(s->demo->user, s->name, s->reuse, s->done, s->total, s->run);
    return 0;
}

/* ---- prompts ----------------------------------------------------------------------------------------------- */

/* "about", an empty line, the question: one user message. The caller frees the tokens. */
static int ask(stage *s, const char *about, const char *question, token_list *tokens)
{
    const session *session = s->demo->session;
    size_t length = strlen(about) + strlen(question) + 3;
    char *text = malloc(length);
    if (!text) return infer_fail(s->error, "no memory for the demo");
    snprintf(text, length, "%s\n\n%s", about, question);
    chat_message message = { .role = "user", .content = text };
    int status = prompt_from_messages(session->tokenizer, &session->chat, &message, 1, tokens, s->error);
    free(text);
    return status;
}

/* The next turn of a conversation about letter `i`. */
static int talk_on(stage *s, conversation *talk, size_t i, size_t turn)
{
    const demo_texts *t = s->demo->texts;
    if (turn > 0) return conversation_say(talk, "user", t->letter_question[2 * i + turn - 1], s->error);
    size_t length = strlen(t->letter[i]) + 64;
    char *text = malloc(length);
    if (!text) return infer_fail(s->error, "no memory for the demo");
    snprintf(text, length, "%s\n\nWhat is this letter about?", t->letter[i]);
    int status = conversation_say(talk, "user", text, s->error);
    free(text);
    return status;
}

static void open_talks(stage *s, conversation talks[TALKS])
{
    for (size_t i = 0; i < TALKS; i++)
        conversation_open(&talks[i], s->demo->session->tokenizer, &s->demo->session->chat);
}

static void close_talks(conversation talks[TALKS])
{
    for (size_t i = 0; i < TALKS; i++) conversation_close(&talks[i]);
}

static int next_turn(stage *s, conversation talks[TALKS], size_t turn, job jobs[TALKS])
{
    for (size_t i = 0; i < TALKS; i++) {
        if (talk_on(s, &talks[i], i, turn)) return -1;
        jobs[i] = (job){ .prompt = &talks[i].tokens, .most_tokens = ANSWER_TOKENS, .branches = 1, .talk = &talks[i] };
    }
    return 0;
}

/* ---- the workloads ----------------------------------------------------------------------------------------- */

/* Many questions over one long document, one after another. */
static int run_document(stage *s)
{
    const demo_texts *t = s->demo->texts;
    size_t count = t->questions < QUESTIONS_ASKED ? t->questions : QUESTIONS_ASKED;
    s->total = count;
    for (size_t i = 0; i < count; i++) {
        token_list prompt = { 0 };
        job j = { .prompt = &prompt, .most_tokens = ANSWER_TOKENS, .branches = 1 };
        int status = ask(s, t->handbook, t->question[i], &prompt) ? -1 : serve(s, &j, 1);
        token_list_free(&prompt);
        if (status) return -1;
    }
    return 0;
}

/* Conversations that come back after the others have run: question and answer of each turn begin the next. */
static int run_talks(stage *s)
{
    conversation talks[TALKS];
    int status = 0;
    open_talks(s, talks);
    s->total = TALKS * TURNS;
    for (size_t turn = 0; !status && turn < TURNS; turn++) {
        job jobs[TALKS];
        status = next_turn(s, talks, turn, jobs);
        if (!status) status = serve(s, jobs, TALKS);
    }
    close_talks(talks);
    return status;
}

/* Several continuations of one prompt: plain, and as a beam whose least likely branch gives way to the likeliest. */
static int run_branches(stage *s)
{
    token_list prompt = { 0 };
    job plain = { .prompt = &prompt, .most_tokens = SAMPLE_TOKENS, .branches = 4, .temperature = 0.9f }, beam = plain;
    beam.prune_every = PRUNE_EVERY;
    s->total = 2;
    int status = ask(s, s->demo->texts->letter[0], "Write a short answer to this letter.", &prompt);
    if (!status) status = serve(s, &plain, 1);
    if (!status) status = serve(s, &beam, 1);
    token_list_free(&prompt);
    return status;
}

/* A mix of the three in an arena that holds little more than the longest request: what one request leaves is evicted by
 * the next, and comes back from host memory when its turn comes again. */
static int run_tight(stage *s)
{
    const demo_texts *t = s->demo->texts;
    conversation talks[TALKS];
    int status = 0;
    open_talks(s, talks);
    s->total = ROUNDS * (TALKS + 1) + 1;
    for (size_t turn = 0; !status && turn < ROUNDS; turn++) {
        token_list prompt = { 0 };
        job jobs[TALKS + 1];
        status = ask(s, t->handbook, t->question[turn], &prompt);
        jobs[0] = (job){ .prompt = &prompt, .most_tokens = ANSWER_TOKENS, .branches = 1 };
        if (!status) status = next_turn(s, talks, turn, jobs + 1);
        if (!status) status = serve(s, jobs, TALKS + 1);
        token_list_free(&prompt);
    }
    token_list prompt = { 0 };
    job j = { .prompt = &prompt, .most_tokens = SAMPLE_TOKENS, .branches = 4, .temperature = 0.9f,
              .prune_every = PRUNE_EVERY };
    if (!status) status = ask(s, t->letter[0], "Write a short answer to this letter.", &prompt);
    if (!status) status = serve(s, &j, 1);
    token_list_free(&prompt);
    close_talks(talks);
    return status;
}

/* Two tenants send the same prompts, one after the other; each finds what it sent before, and never the other's. */
static int run_tenants(stage *s)
{
    const demo_texts *t = s->demo->texts;
    int status = 0;
    s->total = 6;
    for (size_t i = 0; !status && i < 3; i++) {
        token_list prompt = { 0 };
        status = ask(s, t->letter[0], t->letter_question[i % 2], &prompt);
        for (uint64_t tenant = 1; !status && tenant <= 2; tenant++) {
            job j = { .prompt = &prompt, .most_tokens = ANSWER_TOKENS, .branches = 1, .domain = tenant };
            status = serve(s, &j, 1);
        }
        token_list_free(&prompt);
    }
    return status;
}

/* Many short documents, each asked about twice, in an arena that holds a tenth of them: when one's turn comes again it has long
 * been evicted. */
static int run_tenth(stage *s)
{
    static const char *const questions[ROUNDS] = { "Say in one sentence what this is about.", "Which numbers are in it?" };
    const demo_texts *t = s->demo->texts;
    int status = 0;
    s->total = ROUNDS * t->pieces;
    for (size_t i = 0; !status && i < ROUNDS * t->pieces; i++) {
        token_list prompt = { 0 };
        job j = { .prompt = &prompt, .most_tokens = PIECE_ANSWER_TOKENS, .branches = 1 };
        status = ask(s, t->piece[i % t->pieces], questions[i / t->pieces], &prompt);
        if (!status) status = serve(s, &j, 1);
        token_list_free(&prompt);
    }
    return status;
}

static const struct {
    const char *title;
    int (*run)(stage *s);
    uint64_t arena_tokens;
} workloads[DEMO_WORKLOADS] = {
    { "a  one document, many questions", run_document, AMPLE_TOKENS },
    { "b  conversations that come back", run_talks, AMPLE_TOKENS },
    { "c  four branches, pruned", run_branches, AMPLE_TOKENS },
    { "d  all of it in a small arena", run_tight, TIGHT_TOKENS },
    { "e  two tenants, same prompts", run_tenants, AMPLE_TOKENS },
    { "f  ten times the arena, twice", run_tenth, TENTH_TOKENS },
};

const char *demo_workload_title(size_t index)
{
    return workloads[index].title;
}

int demo_workload_run(demo *d, size_t index, bool reuse, demo_run *run, infer_error *error)
{
    session *session = d->session;
    session_options options = d->options;
    quire_dtype dtype = quire_cache_options(session->cache)->dtype;
    double token_bytes = session_token_bytes(session, dtype);
    options.device_bytes = (uint64_t)(workloads[index].arena_tokens * token_bytes);
    options.host_bytes = (uint64_t)(HOST_TOKENS * token_bytes);
    options.engine.reuse = reuse;
    *run = (demo_run){ .least_reuse = 1.0, .stats = { .size = sizeof run->stats } };
    if (session_reopen(session, &options, error)) return -1;

    stage s = { .demo = d, .run = run, .name = workloads[index].title[0], .reuse = reuse, .error = error };
    int status = workloads[index].run(&s);
    for (size_t i = 0; i < s.seen_count; i++) token_list_free(&s.seen[i]);
    free(s.seen);
    free(s.seen_domain);
    if (status) return -1;
    if (quire_cache_stats(session->cache, &run->stats) || quire_cache_check(session->cache))
        return infer_fail(error, "workload %c: %s", s.name, quire_error_text());
    run->arena = run->stats.device_total * quire_cache_options(session->cache)->block_tokens;
    return 0;
}

/* ---- results ----------------------------------------------------------------------------------------------- */

void demo_run_free(demo_run *run)
{
    for (size_t i = 0; i < run->answer_count; i++) free(run->answers[i].tokens);
    free(run->answers);
    free(run->first_token_s);
    memset(run, 0, sizeof *run);
}

bool demo_run_identical(const demo_run *a, const demo_run *b)
{
    if (a->answer_count != b->answer_count) return false;
    for (size_t i = 0; i < a->answer_count; i++) {
        const demo_answer *x = &a->answers[i], *y = &b->answers[i];
        if (x->count != y->count || memcmp(x->tokens, y->tokens, x->count * sizeof *x->tokens) ||
            memcmp(&x->log_probability, &y->log_probability, sizeof x->log_probability))
            return false;
    }
    return a->answer_count > 0;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y ? 1 : 0;
}

double demo_run_median_first_token(const demo_run *run, size_t skip)
{
    if (run->requests <= skip) return 0.0;
    size_t count = run->requests - skip;
    double *sorted = malloc(count * sizeof *sorted);
    if (!sorted) return 0.0;
    memcpy(sorted, run->first_token_s + skip, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, ascending);
    double median = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2;
    free(sorted);
    return median;
}
