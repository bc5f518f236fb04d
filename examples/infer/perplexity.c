#include "perplexity.h"
#include "forward.h"
#include "prompt.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_WINDOW = 1024, STEP_TOKENS = 128 };

typedef struct scorer {
    const session *session;
    forward *forward;
    const int32_t *ids; /* of the window */
    size_t count;
    int32_t wanted[STEP_TOKENS];
    float *logits;      /* [STEP_TOKENS][stride] */
    double sum;         /* of -log p */
} scorer;

/* -log p of `id`, by the logits of the token before it. */
static double surprise(const float *logits, uint32_t vocabulary, int32_t id)
{
    double most = logits[0], total = 0;
    for (uint32_t i = 1; i < vocabulary; i++) most = logits[i] > most ? logits[i] : most;
    for (uint32_t i = 0; i < vocabulary; i++) total += exp(logits[i] - most);
    return most + log(total) - logits[id];
}

/* Computes the window's tokens from `first` on and scores what each predicts. */
static int score_step(scorer *s, quire_seq seq, size_t first, uint32_t count, infer_error *error)
{
    uint32_t vocabulary = s->session->model->config.vocabulary;
    quire_step *step;
    if (quire_step_begin(s->session->cache, NULL, &step)) return infer_fail(error, "%s", quire_error_text());
    if (quire_step_add(step, seq, s->ids + first, count) || quire_step_submit(step)) {
        infer_fail(error, "%s", quire_error_text());
        goto failed;
    }
    if (forward_run(s->forward, step, s->ids + first, s->wanted, count, s->logits, error))
        goto failed;
    if (quire_step_commit(step)) {
        infer_fail(error, "%s", quire_error_text());
        goto failed;
    }
    for (uint32_t i = 0; i < count && first + i + 1 < s->count; i++)
        s->sum += surprise(s->logits + i * backend_stride(vocabulary), vocabulary, s->ids[first + i + 1]);
    return 0;
failed:
    quire_step_cancel(step);
    return -1;
}

static int score_window(scorer *s, uint64_t domain, infer_error *error)
{
    quire_seq_options options = { .size = sizeof options, .domain = domain };
    quire_seq seq;
    int status = 0;
    if (quire_seq_open(s->session->cache, &options, &seq)) return infer_fail(error, "%s", quire_error_text());
    for (size_t done = 0; !status && done < s->count; done += STEP_TOKENS) {
        size_t left = s->count - done;
        status = score_step(s, seq, done, (uint32_t)(left < STEP_TOKENS ? left : STEP_TOKENS), error);
    }
    quire_seq_close(s->session->cache, seq);
    return status;
}

static int score_text(scorer *s, const token_list *tokens, perplexity_result *result, infer_error *error)
{
    result->scored = 0;
    for (size_t at = 0; at + 1 < tokens->count; at += result->window) {
        s->ids = tokens->ids + at;
        s->count = tokens->count - at < result->window ? tokens->count - at : result->window;
        if (s->count < 2) break;
        if (score_window(s, at, error)) return -1;
        result->scored += s->count - 1;
        quire_cache_clear(s->session->cache); /* a domain is used once, and there is a limit to them */
    }
    if (result->scored == 0) return infer_fail(error, "the text has no token that another one precedes");
    result->perplexity = exp(s->sum / (double)result->scored);
    return 0;
}

int perplexity_measure(const session *session, const char *text, uint32_t window, perplexity_result *result,
                       infer_error *error)
{
    uint32_t longest = quire_cache_options(session->cache)->max_seq_tokens;
    uint32_t vocabulary = session->model->config.vocabulary;
    perplexity_result made = { .window = window ? window : DEFAULT_WINDOW };
    scorer s = { .session = session };
    token_list tokens = { 0 };
    int status = -1;

    if (longest > session->model->config.context) longest = session->model->config.context;
    if (window > longest)
        return infer_fail(error, "a window of %u tokens; model and cache allow at most %u", window, longest);
    if (made.window > longest) made.window = longest;
    for (int32_t i = 0; i < STEP_TOKENS; i++) s.wanted[i] = i;
    s.logits = malloc(STEP_TOKENS * backend_stride(vocabulary) * sizeof *s.logits);
    if (!s.logits) infer_fail(error, "no memory for the logits of %d tokens", STEP_TOKENS);
    else if (!forward_open(&s.forward, session->model, STEP_TOKENS, STEP_TOKENS, error))
        status = prompt_from_text(session->tokenizer, text, &tokens, error);
    if (!status) {
        made.tokens = tokens.count;
        status = score_text(&s, &tokens, &made, error);
    }
    if (!status) *result = made;
    token_list_free(&tokens);
    forward_close(s.forward);
    free(s.logits);
    return status;
}

/* The file as one text; the caller frees it. NULL: the error says why. */
static char *read_text(const char *path, infer_error *error)
{
    FILE *file = fopen(path, "rb");
    char *text = NULL;
    size_t length = 0, room = 0, got = 1;
    if (!file) {
        infer_fail(error, "cannot read %s: %s", path, strerror(errno));
        return NULL;
    }
    while (got > 0) {
        if (length + 1 >= room) {
            char *more = realloc(text, room = room ? 2 * room : 1 << 16);
            if (!more) break;
            text = more;
        }
        got = fread(text + length, 1, room - 1 - length, file);
        length += got;
    }
    bool whole = got == 0 && !ferror(file);
    fclose(file);
    if (whole) {
        text[length] = 0;
        return text;
    }
    infer_fail(error, "cannot read %s: %s", path, got ? "no memory" : strerror(errno));
    free(text);
    return NULL;
}

int perplexity_of_file(const session *session, const char *path, uint32_t window, perplexity_result *result,
                       infer_error *error)
{
    char *text = read_text(path, error);
    if (!text) return -1;
    int status = perplexity_measure(session, text, window, result, error);
    free(text);
    return status;
}
