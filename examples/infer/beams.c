/* A step of the search
 *
 *     rows      one row of logits for every live beam
 *     choose    the likeliest tokens of each row, pooled: candidates, likeliest first. Ended ones join `ended`; the others
 *               become children until there are `beams` of them
 *     split     the first child of a beam takes its sequence over, the others fork it; a beam without children is closed
 *
 * Equal log probabilities are ordered by beam, then by token, so that the search is the same whatever computes the rows. */
#include "beams.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct live {
    quire_seq seq;   /* has all tokens but the newest; 0: none */
    int32_t *tokens; /* prompt and generated */
    size_t count;
    double log_probability;
} live;

typedef struct candidate {
    uint32_t parent;
    int32_t id;
    double log_probability;
} candidate;

typedef struct search {
    lanes *lanes;
    const beams_request *given;
    beams_result *result;
    uint32_t most_tokens;
    live now[BEAMS_MOST], next[BEAMS_MOST];
    uint32_t count;
    candidate pool[BEAMS_MOST * 2 * BEAMS_MOST];
    size_t pooled;
    float *rows; /* [beams][row_floats], of the live beams */
} search;

static bool is_stop(const search *s, int32_t id)
{
    for (size_t i = 0; i < s->given->stop_count; i++)
        if (s->given->stop_ids[i] == id) return true;
    return false;
}

static int open_sequence(search *s, quire_seq *seq, infer_error *error)
{
    quire_seq_options options = { .size = sizeof options, .domain = s->given->domain };
    return quire_seq_open(s->lanes->cache, &options, seq) ? infer_fail(error, "%s", quire_error_text()) : 0;
}

static void end_live(search *s, live *l)
{
    if (l->seq) (void)quire_seq_close(s->lanes->cache, l->seq); /* it is in no open step */
    free(l->tokens);
    *l = (live){ 0 };
}

/* ---- rows -------------------------------------------------------------------------------------------------- */

static void keep_rows(search *s, uint32_t first, uint32_t count)
{
    memcpy(s->rows + first * s->lanes->row_floats, s->lanes->logits, count * s->lanes->row_floats * sizeof *s->rows);
}

/* Without reuse: every beam alone, from its first token, in a sequence of its own. */
static int compute_rows_anew(search *s, infer_error *error)
{
    for (uint32_t i = 0; i < s->count; i++) {
        quire_seq seq;
        if (open_sequence(s, &seq, error)) return -1;
        int status = lanes_prefill(s->lanes, seq, s->now[i].tokens, s->now[i].count, false, error);
        (void)quire_seq_close(s->lanes->cache, seq);
        if (status) return -1;
        keep_rows(s, i, 1);
    }
    return 0;
}

static int compute_rows(search *s, infer_error *error)
{
    lane step[BEAMS_MOST];
    s->result->steps++;
    if (!s->given->reuse) return compute_rows_anew(s, error);
    if (!s->now[0].seq) { /* the first step: the prompt */
        if (open_sequence(s, &s->now[0].seq, error) ||
            lanes_prefill(s->lanes, s->now[0].seq, s->now[0].tokens, s->now[0].count, true, error))
            return -1;
        keep_rows(s, 0, 1);
        return 0;
    }
    for (uint32_t i = 0; i < s->count; i++)
        step[i] = (lane){ .seq = s->now[i].seq, .tokens = s->now[i].tokens + s->now[i].count - 1, .count = 1,
                          .wanted = 1 };
    if (lanes_step(s->lanes, step, s->count, error)) return -1;
    keep_rows(s, 0, s->count);
    return 0;
}

/* ---- candidates -------------------------------------------------------------------------------------------- */

static int by_likelihood(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->log_probability != y->log_probability) return x->log_probability > y->log_probability ? -1 : 1;
    if (x->parent != y->parent) return x->parent < y->parent ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

/* Adds the likeliest tokens of a row to the pool: twice the number of beams, since some may be stop tokens. */
static void pool_row(search *s, uint32_t parent)
{
    const float *row = s->rows + parent * s->lanes->row_floats;
    uint32_t vocabulary = s->lanes->model->config.vocabulary, most = 2 * s->given->beams, count = 0;
    int32_t best[2 * BEAMS_MOST];
    double total = 0;
    for (uint32_t i = 0; i < vocabulary; i++) {
        if (count == most && !(row[i] > row[best[count - 1]])) continue;
        uint32_t at = count < most ? count++ : count - 1;
        for (; at > 0 && row[i] > row[best[at - 1]]; at--) best[at] = best[at - 1];
        best[at] = (int32_t)i;
    }
    double largest = (double)row[best[0]];
    for (uint32_t i = 0; i < vocabulary; i++) total += exp((double)row[i] - largest);
    for (uint32_t i = 0; i < count; i++)
        s->pool[s->pooled++] = (candidate){ .parent = parent, .id = best[i],
                                            .log_probability = s->now[parent].log_probability + (double)row[best[i]] -
                                                               largest - log(total) };
}

/* ---- ended beams ------------------------------------------------------------------------------------------- */

/* Puts a copy of the generated tokens among the results, which stay the likeliest `beams`, likeliest first. */
static int keep_ended(search *s, const live *l, double log_probability, bool stopped, infer_error *error)
{
    beams_result *r = s->result;
    uint32_t at = r->count;
    while (at > 0 && log_probability > r->beams[at - 1].log_probability) at--;
    if (at == s->given->beams) return 0;
    size_t count = l->count - s->given->count;
    int32_t *tokens = malloc((count + 1) * sizeof *tokens);
    if (!tokens) return infer_fail(error, "no memory for a beam");
    memcpy(tokens, l->tokens + s->given->count, count * sizeof *tokens);
    if (r->count == s->given->beams) free(r->beams[--r->count].tokens);
    memmove(r->beams + at + 1, r->beams + at, (r->count - at) * sizeof *r->beams);
    r->beams[at] = (beam){ .tokens = tokens, .count = count, .log_probability = log_probability, .stopped = stopped };
    r->count++;
    return 0;
}

/* ---- the next generation ----------------------------------------------------------------------------------- */

/* The sequence of a child: its parent's own for the first, a fork for the others. */
static int inherit(search *s, live *parent, live *child, bool *taken, infer_error *error)
{
    if (!s->given->reuse) return 0;
    if (!*taken) {
        child->seq = parent->seq;
        *taken = true;
        return 0;
    }
    if (quire_seq_fork(s->lanes->cache, parent->seq, &child->seq)) return infer_fail(error, "%s", quire_error_text());
    s->result->forks++;
    return 0;
}

static int bear(search *s, const candidate *c, live *child, bool *taken, infer_error *error)
{
    live *parent = &s->now[c->parent];
    *child = (live){ .count = parent->count + 1, .log_probability = c->log_probability };
    child->tokens = malloc(child->count * sizeof *child->tokens);
    if (!child->tokens) return infer_fail(error, "no memory for a beam");
    memcpy(child->tokens, parent->tokens, parent->count * sizeof *child->tokens);
    child->tokens[parent->count] = c->id;
    return inherit(s, parent, child, taken, error);
}

/* Replaces the live beams by the best candidates. */
static int advance(search *s, infer_error *error)
{
    uint32_t children = 0;
    bool taken[BEAMS_MOST] = { false };
    int status = 0;
    s->pooled = 0;
    for (uint32_t i = 0; i < s->count; i++) pool_row(s, i);
    qsort(s->pool, s->pooled, sizeof *s->pool, by_likelihood);
    for (size_t i = 0; !status && i < s->pooled && children < s->given->beams; i++) {
        const candidate *c = &s->pool[i];
        if (is_stop(s, c->id)) status = keep_ended(s, &s->now[c->parent], c->log_probability, true, error);
        else status = bear(s, c, &s->next[children++], &taken[c->parent], error);
    }
    for (uint32_t i = 0; i < s->count; i++) {
        s->result->closes += s->now[i].seq && !taken[i];
        if (taken[i]) s->now[i].seq = 0;
        end_live(s, &s->now[i]);
    }
    memcpy(s->now, s->next, children * sizeof *s->now);
    s->count = children;
    return status;
}

static int run(search *s, infer_error *error)
{
    s->now[0].count = s->given->count;
    s->now[0].tokens = malloc(s->given->count * sizeof *s->now[0].tokens);
    s->rows = malloc(s->given->beams * s->lanes->row_floats * sizeof *s->rows);
    s->result->beams = calloc(s->given->beams + 1, sizeof *s->result->beams);
    s->count = 1;
    if (!s->now[0].tokens || !s->rows || !s->result->beams) return infer_fail(error, "no memory for the beams");
    memcpy(s->now[0].tokens, s->given->tokens, s->given->count * sizeof *s->now[0].tokens);
    for (uint32_t generated = 0; generated < s->most_tokens && s->count > 0; generated++) {
        if (s->result->count && s->result->beams[0].log_probability >= s->now[0].log_probability) break;
        if (compute_rows(s, error) || advance(s, error)) return -1;
    }
    for (uint32_t i = 0; i < s->count; i++)
        if (keep_ended(s, &s->now[i], s->now[i].log_probability, false, error)) return -1;
    return 0;
}

int beams_run(lanes *lanes, const beams_request *given, beams_result *result, infer_error *error)
{
    memset(result, 0, sizeof *result);
    if (given->count < 1 || given->count >= lanes->longest || given->most_tokens < 1 || given->beams < 1 ||
        given->beams > BEAMS_MOST || given->beams > lanes->most_rows ||
        2 * given->beams > lanes->model->config.vocabulary)
        return infer_fail(error, "a prompt of %zu tokens, %" PRIu32 " to generate, %" PRIu32 " beams; it must be 1 to %zu, "
                          "at least 1, 1 to %d", given->count, given->most_tokens, given->beams, lanes->longest - 1,
                          BEAMS_MOST);
    search *s = calloc(1, sizeof *s);
    if (!s) return infer_fail(error, "no memory for the beams");
    size_t room = lanes->longest - given->count;
    s->lanes = lanes;
    s->given = given;
    s->result = result;
    s->most_tokens = given->most_tokens < room ? given->most_tokens : (uint32_t)room;
    int status = run(s, error);
    for (uint32_t i = 0; i < s->count; i++) end_live(s, &s->now[i]);
    free(s->rows);
    free(s);
    if (status) beams_free(result);
    return status;
}

void beams_free(beams_result *result)
{
    for (uint32_t i = 0; i < result->count; i++) free(result->beams[i].tokens);
    free(result->beams);
    *result = (beams_result){ 0 };
}
