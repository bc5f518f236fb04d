#include "speculate.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST_KEY = 3 }; /* words that are looked up, then fewer */

typedef struct run {
    lanes *lanes;
    const speculate_request *given;
    speculate_result *result;
    quire_seq seq;
    int32_t *tokens; /* prompt, generated, and behind them room for a draft */
    size_t count;    /* of the first two */
    size_t length;   /* of the sequence: all but the token that was chosen last */
} run;

/* Writes up to `most` tokens behind the text: those that followed the latest place, before the end, at which its last
 * words stand. */
static uint32_t find_draft(run *r, uint32_t most)
{
    const int32_t *t = r->tokens;
    for (size_t size = LONGEST_KEY; size > 0; size--) {
        for (size_t at = r->count; at-- > size;) { /* just behind the place */
            if (memcmp(t + at - size, t + r->count - size, size * sizeof *t)) continue;
            uint32_t n = r->count - at < most ? (uint32_t)(r->count - at) : most;
            memcpy(r->tokens + r->count, t + at, n * sizeof *t);
            return n;
        }
    }
    return 0;
}

/* Takes up the next token; false when it is the last one. */
static bool take(run *r, int32_t id)
{
    for (size_t i = 0; i < r->given->stop_count; i++)
        if (id == r->given->stop_ids[i]) {
            r->result->stopped = true;
            return false;
        }
    r->tokens[r->count++] = id;
    if (r->given->on_token) r->given->on_token(r->given->user, id);
    return r->count - r->given->count < r->given->most_tokens;
}

/* One step: the newest token and a draft. *next is the token behind what was accepted; *more is false when what was
 * accepted ends the text. */
static int advance(run *r, int32_t *next, bool *more, infer_error *error)
{
    size_t room = r->given->most_tokens - (r->count - r->given->count) - 1; /* the last one needs no draft */
    uint32_t most = room < r->given->draft ? (uint32_t)room : r->given->draft, accepted = 0;
    uint32_t drafted = most ? find_draft(r, most) : 0;
    lane step = { .seq = r->seq, .tokens = r->tokens + r->length, .count = 1 + drafted, .wanted = 1 + drafted };
    if (lanes_step(r->lanes, &step, 1, error)) return -1;
    *next = lanes_best(r->lanes, 0);
    *more = true;
    while (accepted < drafted && *next == r->tokens[r->count] && *more) {
        *more = take(r, *next); /* writes it where it stands */
        *next = lanes_best(r->lanes, ++accepted);
    }
    r->length += 1 + accepted;
    if (accepted < drafted && quire_seq_truncate(r->lanes->cache, r->seq, r->length))
        return infer_fail(error, "%s", quire_error_text());
    r->result->steps++;
    r->result->drafted += drafted;
    r->result->accepted += accepted;
    return 0;
}

static int generate(run *r, infer_error *error)
{
    if (lanes_prefill(r->lanes, r->seq, r->given->tokens, r->given->count, r->given->reuse, error)) return -1;
    r->length = r->given->count;
    int32_t next = lanes_best(r->lanes, 0);
    for (bool more = take(r, next); more;) {
        if (advance(r, &next, &more, error)) return -1;
        if (more) more = take(r, next);
    }
    return 0;
}

int speculate_run(lanes *lanes, const speculate_request *given, speculate_result *result, infer_error *error)
{
    speculate_request request = *given;
    quire_seq_options options = { .size = sizeof options, .domain = given->domain };
    run r = { .lanes = lanes, .given = &request, .result = result };
    memset(result, 0, sizeof *result);
    if (given->count < 1 || given->count >= lanes->longest || given->most_tokens < 1 ||
        given->draft >= lanes->most_rows)
        return infer_fail(error, "a prompt of %zu tokens, %" PRIu32 " to generate, drafts of %" PRIu32 "; it must be 1 to "
                          "%zu, at least 1, at most %" PRIu32, given->count, given->most_tokens, given->draft,
                          lanes->longest - 1, lanes->most_rows - 1);
    size_t room = lanes->longest - given->count;
    if (request.most_tokens > room) request.most_tokens = (uint32_t)room;
    r.tokens = malloc((given->count + request.most_tokens + given->draft) * sizeof *r.tokens);
    if (!r.tokens) return infer_fail(error, "no memory for the tokens");
    memcpy(r.tokens, given->tokens, given->count * sizeof *r.tokens);
    r.count = given->count;
    int status = quire_seq_open(lanes->cache, &options, &r.seq) ? infer_fail(error, "%s", quire_error_text()) : 0;
    if (!status) {
        status = generate(&r, error);
        (void)quire_seq_close(lanes->cache, r.seq); /* it is in no open step */
    }
    if (status) {
        free(r.tokens);
        return -1;
    }
    result->count = r.count - given->count;
    memmove(r.tokens, r.tokens + given->count, result->count * sizeof *r.tokens);
    result->tokens = r.tokens;
    return 0;
}
