#include "support/group_world.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/status.h"
#include "cache/cache.h"

enum { LAYERS = 2, QUERY_HEADS = 2, HEAD_DIM = 8, MOST_SEQUENCES = 12, LONGEST = 96, ALPHABET = 3, THEMES = 4 };
enum { STATE_FLOATS = 8 /* of a layer */, MOST_BUFFERS = 64, MOST_CHECKS = 16, MOST_GROUPS = 4 };

typedef struct member {
    bool open, settled; /* settled: its restore has ended and `length` is final */
    quire_seq handle;
    uint64_t domain;
    int32_t tokens[LONGEST];
    uint32_t target, length; /* tokens wanted, tokens whose KV the cache has */
    uint32_t added;          /* in the step under way */
} member;

/* What must be in memory of the device once everything enqueued has run. */
typedef struct check {
    float *got, *expected;
    size_t floats;
    bool exact; /* bytes that were copied, not computed */
    uint32_t group;
} check;

/* The enqueued reads of a step, whose results are compared after the next synchronisation. */
typedef struct reading {
    struct reading *next;
    quire__device *device;
    void *buffers[MOST_BUFFERS]; /* device memory */
    unsigned char *spare;        /* what is left of the last one */
    size_t left;
    check checks[MOST_CHECKS];
    uint32_t buffer_count, check_count;
    uint64_t step;
} reading;

typedef struct world {
    const world_options *options;
    world_result *result;
    quire_cache *cache;
    quire__stream *streams[2];
    member members[MOST_SEQUENCES];
    int32_t themes[THEMES][LONGEST]; /* prompts that come back again and again: what restores are for */
    reading *readings;
    uint32_t longest; /* tokens of a sequence */
    quire_group groups[MOST_GROUPS];
    uint32_t group_count;
    uint64_t random;
} world;

/* ---- helpers ----------------------------------------------------------------------------------------------- */

static uint32_t below(world *w, uint32_t bound)
{
    return (uint32_t)(quire__random(&w->random) % bound);
}

static bool chance(world *w, uint32_t percent)
{
    return below(w, 100) < percent;
}

static bool wrong(world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool wrong(world *w, const char *format, ...)
{
    va_list arguments;

    if (w->result->failure[0] == '\0') {
        va_start(arguments, format);
        vsnprintf(w->result->failure, sizeof w->result->failure, format, arguments);
        va_end(arguments);
    }
    return false;
}

static bool must(world *w, quire_status status, const char *what)
{
    return status == QUIRE_OK ||
           wrong(w, "%s: %s: %s", what, quire_status_name(status), quire_error_text());
}

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t state = a * 0x9e3779b97f4a7c15u ^ b;

    return quire__random(&state);
}

/* What position `i` of a prompt is, given everything before it. */
static void prefix_states(const member *m, uint32_t count, uint64_t *states)
{
    uint64_t state = mix(77, m->domain);

    for (uint32_t i = 0; i < count; i++)
        states[i] = state = mix(state, (uint64_t)(uint32_t)m->tokens[i] + 1);
}

static float element(uint64_t state, uint32_t layer, uint32_t kind, uint32_t index)
{
    uint64_t bits = mix(state, ((uint64_t)layer << 40) | ((uint64_t)kind << 32) | index);

    return (float)((double)(bits >> 40) / (double)(1 << 23) - 1.0);
}

enum { KIND_K = 0, KIND_V = 1, KIND_Q = 2, KIND_STATE = 3 };

/* Out of a few large buffers: asking the device for memory takes long. */
static float *device_floats(world *w, reading *r, size_t count)
{
    size_t bytes = (count * sizeof(float) + 63) / 64 * 64, size = bytes > 1 << 18 ? bytes : 1 << 18;
    void *memory = NULL;

    if (r->buffer_count == 0 || bytes > r->left) {
        if (r->buffer_count == MOST_BUFFERS ||
            quire__device_alloc(w->cache->device, QUIRE__MEMORY_DEVICE, size, &memory) != QUIRE_OK)
            abort();
        r->buffers[r->buffer_count++] = memory;
        r->spare = memory;
        r->left = size;
    }
    r->spare += bytes;
    r->left -= bytes;
    return (float *)(void *)(r->spare - bytes);
}

static check *expect(world *w, reading *r, uint32_t group, size_t floats, bool exact)
{
    check *c = &r->checks[r->check_count++];

    *c = (check){device_floats(w, r, floats), malloc(floats * sizeof(float) + 1), floats, exact, group};
    return c;
}

/* ---- reading back ------------------------------------------------------------------------------------------ */

static void reading_free(reading *r)
{
    for (uint32_t i = 0; i < r->buffer_count; i++)
        quire__device_free(r->device, QUIRE__MEMORY_DEVICE, r->buffers[i]);
    for (uint32_t i = 0; i < r->check_count; i++)
        free(r->checks[i].expected);
    free(r);
}

static bool reading_compare(world *w, const reading *r)
{
    for (uint32_t at = 0; at < r->check_count; at++) {
        const check *c = &r->checks[at];
        if (c->exact && c->floats > 0 && memcmp(c->got, c->expected, c->floats * sizeof(float)) != 0)
            return wrong(w, "step %llu, group %u: bytes in the arena are not those that were written for their tokens",
                         (unsigned long long)r->step, c->group);
        for (size_t i = 0; i < c->floats && !c->exact; i++)
            if (!(fabsf(c->got[i] - c->expected[i]) < 1e-4f))
                return wrong(w, "step %llu, group %u: attention read wrong keys or values (%g, expected %g)",
                             (unsigned long long)r->step, c->group, (double)c->got[i], (double)c->expected[i]);
    }
    return true;
}

static bool synchronise(world *w)
{
    bool right = true;

    for (int i = 0; i < 2; i++)
        if (!must(w, quire__device_stream_synchronize(w->cache->device, w->streams[i]), "synchronise"))
            right = false;
    while (w->readings != NULL) {
        reading *r = w->readings;
        w->readings = r->next;
        right = right && reading_compare(w, r);
        reading_free(r);
    }
    return right;
}

/* Element d of what a group's layer keeps for a token; of a latent group V is the beginning of K. */
static float kept(const world *w, uint32_t group, uint64_t state, uint32_t layer, uint32_t kind, uint32_t d)
{
    if (w->groups[group].value_dim > 0 && kind == KIND_V)
        kind = KIND_K;
    return element(state, group * LAYERS + layer, kind, d);
}

/* softmax(q K^T) V of one query over the last `window` of the first `keys` tokens, in double. */
static void expect_attention(const world *w, uint32_t group, const uint64_t *states, uint32_t keys, uint32_t layer,
                             uint32_t head, float *out)
{
    const uint32_t dim = w->groups[group].head_dim, window = w->groups[group].window;
    const uint32_t first = window > 0 && keys > window ? keys - window : 0;
    double weights[LONGEST], most = -1e300, total = 0, sum[HEAD_DIM] = {0};

    for (uint32_t key = first; key < keys; key++) {
        weights[key] = 0;
        for (uint32_t d = 0; d < dim; d++)
            weights[key] += (double)kept(w, group, states[keys - 1], layer, KIND_Q, head * dim + d) *
                            (double)kept(w, group, states[key], layer, KIND_K, d);
        most = weights[key] > most ? weights[key] : most;
    }
    for (uint32_t key = first; key < keys; key++) {
        double weight = exp(weights[key] - most);
        total += weight;
        for (uint32_t d = 0; d < HEAD_DIM; d++)
            sum[d] += weight * (double)kept(w, group, states[key], layer, KIND_V, d);
    }
    for (uint32_t d = 0; d < HEAD_DIM; d++)
        out[head * HEAD_DIM + d] = (float)(sum[d] / total);
}

/* Who is in row `row` of the step, and the states of its tokens, the step's with them. */
static member *member_of(world *w, uint32_t row, uint64_t *states)
{
    for (int i = 0; i < MOST_SEQUENCES; i++) {
        member *m = &w->members[i];
        if (!m->open || (uint32_t)m->handle - 1 != w->cache->step.rows[row].seq)
            continue;
        prefix_states(m, m->length + m->added, states);
        return m;
    }
    abort();
}

static const int32_t *table_of(world *w, uint32_t row, uint32_t group, uint32_t *first)
{
    uint32_t blocks, changed, seq = w->cache->step.rows[row].seq;

    *first = 0;
    return group == 0 ? quire__book_seq_table(w->cache->book, seq, &blocks, &changed, false)
                      : quire__book_seq_side_table(w->cache->book, seq, group, first, &blocks, &changed, false);
}

static bool move_pieces(world *w, quire__kernel kernel, const quire_view *view, float *staging, int64_t *offsets,
                        size_t piece_floats, size_t count)
{
    quire__kernel_args args = {.pieces = {.arena = view->arena,
                                          .staging = (void *)staging,
                                          .offsets = offsets,
                                          .piece_bytes = (int32_t)(piece_floats * sizeof(float)),
                                          .count = (int32_t)count}};

    return count == 0 || must(w, quire__device_launch(w->cache->device, view->stream, kernel, &args), "gather or scatter");
}

/* K and V of all tokens that the group keeps, as one gather whose pieces are heads of tokens. */
static bool read_tokens(world *w, reading *r, uint32_t group, const quire_view *view)
{
    const uint32_t dim = view->head_dim, kinds = view->value_dim > 0 ? 1 : 2, parts = LAYERS * kinds;
    uint64_t states[LONGEST];
    size_t tokens = 0, at = 0;
    uint32_t first;

    for (uint32_t row = 0; row < w->cache->step.row_count; row++) {
        const member *m = member_of(w, row, states);
        (void)table_of(w, row, group, &first);
        tokens += m->length + m->added - first * view->block_tokens;
    }
    int64_t *offsets = (int64_t *)(void *)device_floats(w, r, tokens * parts * 2);
    check *c = expect(w, r, group, tokens * parts * dim, true);
    for (uint32_t row = 0; row < w->cache->step.row_count; row++) {
        const member *m = member_of(w, row, states);
        const int32_t *table = table_of(w, row, group, &first);
        for (uint32_t t = first * view->block_tokens; t < m->length + m->added; t++)
            for (uint32_t part = 0; part < parts; part++, at++) {
                offsets[at] = table[t / view->block_tokens] * view->block_stride + part / kinds * view->layer_stride +
                              part % kinds * view->kv_stride + t % view->block_tokens * view->token_stride;
                for (uint32_t d = 0; d < dim; d++)
                    c->expected[at * dim + d] = kept(w, group, states[t], part / kinds, part % kinds, d);
            }
    }
    return move_pieces(w, QUIRE__KERNEL_GATHER, view, c->got, offsets, dim, tokens * parts);
}

/* One layer of K and V, or of latent rows: stores the step's tokens and attends to all. */
static bool compute_layer(world *w, reading *r, uint32_t group, uint32_t layer, const quire_view *view)
{
    const uint32_t dim = view->head_dim, half = view->value_dim, tokens = view->tokens;
    float *k = device_floats(w, r, (size_t)tokens * dim), *v = device_floats(w, r, (size_t)tokens * dim);
    float *q = device_floats(w, r, (size_t)tokens * QUERY_HEADS * dim);
    check *c = expect(w, r, group, (size_t)tokens * QUERY_HEADS * HEAD_DIM, false);
    uint64_t states[LONGEST];
    size_t at = 0;

    for (uint32_t row = 0; row < w->cache->step.row_count; row++) {
        const member *m = member_of(w, row, states);
        for (uint32_t t = m->length; t < m->length + m->added; t++, at++) {
            for (uint32_t d = 0; d < dim; d++) {
                k[at * dim + d] = kept(w, group, states[t], layer, KIND_K, d);
                v[at * dim + d] = kept(w, group, states[t], layer, KIND_V, d);
            }
            for (uint32_t d = 0; d < QUERY_HEADS * dim; d++)
                q[at * QUERY_HEADS * dim + d] = kept(w, group, states[t], layer, KIND_Q, d);
            for (uint32_t head = 0; head < QUERY_HEADS; head++)
                expect_attention(w, group, states, t + 1, layer, head, c->expected + at * QUERY_HEADS * HEAD_DIM);
        }
    }
    quire_tensor tk = {k, QUIRE_DTYPE_F32, 1, dim, dim}, tv = {v, QUIRE_DTYPE_F32, 1, dim, dim};
    quire_tensor rope = {k + half, QUIRE_DTYPE_F32, 1, dim, dim};
    quire_tensor tq = {q, QUIRE_DTYPE_F32, QUERY_HEADS, QUERY_HEADS * dim, dim};
    quire_tensor out = {c->got, QUIRE_DTYPE_F32, QUERY_HEADS, QUERY_HEADS * HEAD_DIM, HEAD_DIM};
    quire_attend_params params = {.size = sizeof params, .scale = 1.0f, .window = view->window};
    if (half > 0)
        return must(w, quire_append_latent(view, layer, &tk, &rope), "append") &&
               must(w, quire_attend_latent(view, layer, &tq, &out, 1.0f), "attend");
    return must(w, quire_append(view, layer, &tk, &tv), "append") &&
           must(w, quire_attend_with(view, layer, &tq, &out, &params), "attend");
}

/* A recurrent model: reads each row's last state, then writes the state at the end of each block that the step fills or
 * begins, then reads all states that the rows keep. */
static bool compute_states(world *w, reading *r, uint32_t group, const quire_view *view)
{
    enum { BEFORE, WRITE, AFTER, PASSES };
    const size_t most = (size_t)w->cache->step.row_count * (LONGEST / view->block_tokens + 2) * LAYERS;

    for (int pass = 0; pass < PASSES; pass++) {
        int64_t *offsets = (int64_t *)(void *)device_floats(w, r, most * 2);
        check *c = expect(w, r, group, most * STATE_FLOATS, true);
        uint64_t states[LONGEST];
        size_t at = 0;
        for (uint32_t row = 0; row < w->cache->step.row_count; row++) {
            const member *m = member_of(w, row, states);
            uint32_t first, length = m->length + m->added, before = m->length > 0 ? (m->length - 1) / view->block_tokens : 0;
            const int32_t *table = table_of(w, row, group, &first);
            uint32_t from = pass == BEFORE ? before : pass == WRITE ? m->length / view->block_tokens : first;
            uint32_t end = pass == BEFORE ? (m->length > 0 ? before + 1 : 0) : (length - 1) / view->block_tokens + 1;
            for (uint32_t block = from; block < end; block++)
                for (uint32_t layer = 0; layer < LAYERS; layer++, at++) {
                    uint32_t last = (block + 1) * view->block_tokens, now = pass == BEFORE ? m->length : length;
                    last = last < now ? last : now;
                    offsets[at] = table[block] * view->block_stride + layer * view->layer_stride;
                    for (uint32_t d = 0; d < STATE_FLOATS; d++)
                        c->expected[at * STATE_FLOATS + d] = kept(w, group, states[last - 1], layer, KIND_STATE, d);
                }
        }
        c->floats = at * STATE_FLOATS;
        if (pass == WRITE && c->floats > 0)
            memcpy(c->got, c->expected, c->floats * sizeof(float));
        if (!move_pieces(w, pass == WRITE ? QUIRE__KERNEL_SCATTER : QUIRE__KERNEL_GATHER, view, c->got, offsets, STATE_FLOATS,
                         at))
            return false;
    }
    return true;
}

/* The forward pass of this world's model. */
static bool forward(world *w, quire_step *step)
{
    reading *r = calloc(1, sizeof *r);

    r->device = w->cache->device;
    r->step = w->cache->step.number;
    r->next = w->readings;
    w->readings = r;
    for (uint32_t group = 0; group < w->group_count; group++) {
        const quire_view *view = quire_step_view(step, group);
        if (view->state_bytes > 0) {
            if (!compute_states(w, r, group, view))
                return false;
            continue;
        }
        for (uint32_t layer = 0; layer < LAYERS; layer++)
            if (!compute_layer(w, r, group, layer, view))
                return false;
        if (!read_tokens(w, r, group, view))
            return false;
    }
    return true;
}

/* ---- operations -------------------------------------------------------------------------------------------- */

static bool settle(world *w, member *m)
{
    quire_seq_info info;

    if (!must(w, quire_seq_get(w->cache, m->handle, &info), "get"))
        return false;
    m->settled = info.ready != 0;
    if (m->settled && info.length > m->target)
        return wrong(w, "a sequence is longer than its prompt");
    m->length = (uint32_t)info.length;
    return true;
}

static bool op_open(world *w)
{
    member *m = NULL, *like = &w->members[below(w, MOST_SEQUENCES)];
    quire_seq_options options = {.size = sizeof options, .domain = chance(w, 80) ? 5 : 9};
    uint32_t keep = 0, count = 1 + below(w, LONGEST / 2);
    quire_hit hit;

    for (int i = 0; i < MOST_SEQUENCES; i++)
        if (!w->members[i].open)
            m = &w->members[i];
    if (m == NULL)
        return true;
    if (chance(w, 60)) {
        keep = 8 + below(w, LONGEST / 2);
        memcpy(m->tokens, w->themes[below(w, THEMES)], keep * sizeof(int32_t));
        count = keep + below(w, 4);
    } else if (like->target > 0 && chance(w, 60)) {
        keep = 1 + below(w, like->target);
        count = keep + below(w, 12);
        keep = keep < w->longest ? keep : w->longest;
        memmove(m->tokens, like->tokens, keep * sizeof(int32_t));
    }
    for (uint32_t i = keep; i < count && i < LONGEST; i++)
        m->tokens[i] = (int32_t)below(w, ALPHABET);
    m->target = count < w->longest ? count : w->longest;
    m->domain = options.domain;
    m->added = 0;
    if (!must(w, quire_seq_open(w->cache, &options, &m->handle), "open"))
        return false;
    m->open = true;
    if (w->options->fail_copies && chance(w, 20))
        quire__device_fail_copy(w->cache->device, 1);
    bool matched = must(w, quire_seq_match(w->cache, m->handle, m->tokens, m->target, &hit), "match");
    quire__device_fail_copy(w->cache->device, 0);
    if (matched && hit.tokens >= m->target)
        return wrong(w, "a match left no token to compute");
    return matched && settle(w, m);
}

static bool op_close(world *w, member *m)
{
    m->open = false;
    return must(w, quire_seq_close(w->cache, m->handle), "close");
}

static bool op_fork(world *w, member *m)
{
    for (int i = 0; i < MOST_SEQUENCES; i++) {
        member *child = &w->members[i];
        if (child->open)
            continue;
        *child = *m;
        if (!must(w, quire_seq_fork(w->cache, m->handle, &child->handle), "fork"))
            return false;
        return settle(w, child) && settle(w, m);
    }
    return true;
}

static bool op_truncate(world *w, member *m)
{
    if (!settle(w, m) || !m->settled)
        return true;
    uint32_t length = below(w, m->length + 1);
    quire_status status = quire_seq_truncate(w->cache, m->handle, length);
    if (status == QUIRE_ESTATE && w->group_count > 1) {
        w->result->refused++;
        return settle(w, m);
    }
    if (!must(w, status, "truncate"))
        return false;
    m->length = length;
    for (uint32_t i = length; i < m->target; i++)
        if (chance(w, 20))
            m->tokens[i] = (int32_t)below(w, ALPHABET);
    return true;
}

static bool add_member(world *w, quire_step *step, member *m, bool *late)
{
    if (!settle(w, m))
        return false;
    if (!m->settled || m->length >= w->longest)
        return true;
    uint32_t left = m->target > m->length ? m->target - m->length : 1;
    uint32_t count = left == 1 ? 1 : 1 + below(w, left < 11 ? left : 11);
    if (m->length == m->target)
        m->tokens[m->target++] = (int32_t)below(w, ALPHABET);
    *late = chance(w, 25);
    quire_status status = quire_step_add(step, m->handle, *late ? NULL : m->tokens + m->length, count);
    if (status == QUIRE_EFULL || status == QUIRE_EAGAIN || status == QUIRE_ERANGE)
        return true;
    m->added = count;
    return must(w, status, "add");
}

static bool end_step(world *w, quire_step *step, const bool *late)
{
    if (chance(w, 8)) {
        quire_step_cancel(step);
        for (int i = 0; i < MOST_SEQUENCES; i++)
            w->members[i].added = 0;
        return true;
    }
    for (int i = 0; i < MOST_SEQUENCES; i++) {
        member *m = &w->members[i];
        if (m->added > 0 && late[i] &&
            !must(w, quire_step_name(step, m->handle, m->tokens + m->length, m->added), "name"))
            return false;
    }
    if (w->options->fail_copies && chance(w, 20))
        quire__device_fail_copy(w->cache->device, 1);
    quire_status status = quire_step_commit(step);
    quire__device_fail_copy(w->cache->device, 0);
    bool committed = must(w, status, "commit");
    for (int i = 0; i < MOST_SEQUENCES; i++) {
        w->result->tokens += w->members[i].added;
        w->members[i].length += w->members[i].added;
        w->members[i].added = 0;
    }
    return committed;
}

static bool op_step(world *w)
{
    bool late[MOST_SEQUENCES] = {false};
    quire_step *step;

    if (!must(w, quire_step_begin(w->cache, w->streams[w->options->two_streams ? below(w, 2) : 0], &step), "begin"))
        return false;
    uint32_t first = below(w, MOST_SEQUENCES);
    for (uint32_t i = 0; i < MOST_SEQUENCES; i++) {
        uint32_t at = (first + i) % MOST_SEQUENCES;
        member *m = &w->members[at];
        if (m->open && chance(w, 70) && !add_member(w, step, m, &late[at]))
            return false;
    }
    if (!must(w, quire_step_submit(step), "submit"))
        return false;
    w->result->steps++;
    if (step->row_count > 0 && !forward(w, step))
        return false;
    return end_step(w, step, late);
}

/* Everybody leaves at once and newcomers want the whole arena: blocks whose copies are still in flight are next to go. */
static bool op_rush(world *w)
{
    for (int i = 0; i < MOST_SEQUENCES; i++)
        if (w->members[i].open && !op_close(w, &w->members[i]))
            return false;
    for (int i = 0; i < 4; i++)
        if (!op_open(w))
            return false;
    for (int i = 0; i < 6; i++)
        if (!op_step(w))
            return false;
    return true;
}

/* Flips a bit of a block that lies in the host tier with nothing in flight. */
typedef struct flipper { world *w; quire__host_tier *tier; } flipper;

static void flip(void *arg, uint32_t slot)
{
    world *w = ((flipper *)arg)->w;
    quire__host_tier *tier = ((flipper *)arg)->tier;

    if (chance(w, 3)) {
        unsigned char *bytes = quire__host_tier_slot(tier, slot);
        bytes[below(w, (uint32_t)tier->slot_bytes)] ^= (unsigned char)(1u << below(w, 8));
    }
}

static void flip_all(world *w)
{
    flipper f = {w, quire__mover_host_tier(w->cache->mover)};

    quire__book_each_host_slot(w->cache->book, flip, &f);
    for (uint32_t group = 1; group < w->group_count; group++) {
        f.tier = quire__mover_side_tier(w->cache->mover, group);
        quire__book_each_host_side(w->cache->book, group, flip, &f);
    }
}

static bool operate(world *w)
{
    uint32_t dice = below(w, 100);
    member *m = &w->members[below(w, MOST_SEQUENCES)];

    if (w->options->corrupt_host && chance(w, 5) && quire_cache_drain(w->cache, 1000000) == QUIRE_OK)
        flip_all(w);
    if (dice < 40)
        return op_step(w);
    if (dice < 45)
        return op_rush(w);
    if (dice < 65)
        return op_open(w);
    if (dice < 80)
        return !m->open || op_close(w, m);
    if (dice < 86)
        return !m->open || op_fork(w, m);
    if (dice < 90)
        return !m->open || op_truncate(w, m);
    if (dice < 96)
        return must(w, quire_cache_poll(w->cache), "poll");
    return synchronise(w);
}

/* ---- the whole --------------------------------------------------------------------------------------------- */

/* Groups beside the first: a window, a recurrent state, latent rows of all tokens. */
static void make_groups(world *w)
{
    const world_options *options = w->options;
    const uint32_t tokens = options->block_tokens, more = (uint32_t)(options->seed % 7) * 6 / tokens;
    const quire_group plain = {
        .layers = LAYERS, .kv_heads = 1, .head_dim = HEAD_DIM, .query_heads = QUERY_HEADS, .dtype = QUIRE_DTYPE_F32};

    w->groups[w->group_count++] = plain;
    if (options->window > 0) {
        quire_group *group = &w->groups[w->group_count++];
        *group = plain;
        group->window = options->window;
        group->rollback = options->rollback;
        group->blocks = (options->window + options->rollback + 36) / tokens + 5 + more;
    }
    if (options->state)
        w->groups[w->group_count++] =
            (quire_group){.layers = LAYERS, .state_bytes = STATE_FLOATS * sizeof(float), .blocks = 40 / tokens + 8 + more};
    if (options->latent) {
        quire_group *group = &w->groups[w->group_count++];
        *group = plain;
        group->head_dim = 2 * HEAD_DIM;
        group->value_dim = HEAD_DIM;
        group->blocks = options->device_blocks;
    }
}

static bool world_open(world *w)
{
    const world_options *options = w->options;
    char name[32];
    uint64_t all = 0, device = 0;
    quire_options o;

    make_groups(w);
    snprintf(name, sizeof name, "sim:%llu", (unsigned long long)options->seed);
    if (!must(w, quire_options_init(&o, sizeof o), "options"))
        return false;
    o.groups = w->groups;
    o.block_tokens = options->block_tokens;
    for (o.group_count = 1; o.group_count <= w->group_count; o.group_count++) {
        uint64_t before = all;
        if (!must(w, quire_block_bytes(&o, &all), "block bytes"))
            return false;
        device += (all - before) * (before == 0 ? options->device_blocks : w->groups[o.group_count - 1].blocks);
    }
    o.group_count = w->group_count;
    o.device_bytes = device;
    o.device = options->device != NULL ? options->device : name;
    o.host_bytes = all * options->host_blocks;
    o.offload = options->offload != QUIRE_OFFLOAD_NONE ? options->offload
                : options->host_blocks > 0 ? QUIRE_OFFLOAD_WRITE_THROUGH : QUIRE_OFFLOAD_NONE;
    if (options->policy != NULL)
        o.policy = options->policy;
    o.max_sequences = MOST_SEQUENCES;
    o.max_seq_tokens = LONGEST;
    o.max_step_tokens = MOST_SEQUENCES * 12;
    o.hash_key = options->seed + 1;
    o.threads = 1;
    o.log_level = QUIRE_LOG_OFF;
    o.event_capacity = 64;
    if (!must(w, quire_cache_open(&w->cache, &o), "open"))
        return false;
    quire__book_set_holes(w->cache->book, options->book_holes);
    if (options->late_copies)
        quire__mover_set_timeout(w->cache->mover, 0);
    for (int i = 0; i < 2; i++)
        if (!must(w, quire__device_stream_open(w->cache->device, &w->streams[i]), "stream"))
            return false;
    return true;
}

static void world_count(world *w)
{
    quire_stats stats = {.size = sizeof stats};
    quire__mover_stats moved;

    if (quire_cache_stats(w->cache, &stats) != QUIRE_OK)
        return;
    quire__mover_stats_get(w->cache->mover, &moved);
    w->result->late = moved.late;
    w->result->restored_tokens = stats.hit_tokens_host;
    w->result->evictions = stats.evictions_device;
    w->result->copies_on_write = stats.copies_on_write;
    w->result->restore_failures = stats.restore_failures;
    w->result->offload_failures = stats.offload_failures;
    w->result->offloads = stats.offloads;
    w->result->missed = stats.offloads_missed;
    w->result->declined = stats.offloads_declined;
    w->result->checksum_failures = stats.checksum_failures;
    w->result->deduplicated = stats.blocks_deduplicated;
    for (uint32_t group = 1; group < w->group_count; group++) {
        quire_group_stats side = {.size = sizeof side};
        if (quire_cache_group_stats(w->cache, group, &side) != QUIRE_OK)
            return;
        w->result->given_back += side.given_back;
        w->result->side_restores += side.restores;
        w->result->side_evictions += side.evictions;
    }
}

static bool world_end(world *w)
{
    bool right = synchronise(w);

    if (w->cache->step.state != QUIRE__STEP_NONE)
        quire_step_cancel(&w->cache->step);
    for (int i = 0; i < MOST_SEQUENCES; i++)
        if (w->members[i].open)
            right = op_close(w, &w->members[i]) && right;
    right = must(w, quire_cache_drain(w->cache, 10000000), "drain") && right;
    right = must(w, quire__book_check(w->cache->book), "check") && right;
    world_count(w);
    return right;
}

bool world_run(const world_options *options, world_result *result)
{
    world w = {.options = options, .result = result, .random = options->seed * 2 + 1};
    bool right;

    memset(result, 0, sizeof *result);
    for (uint32_t i = 0; i < THEMES * LONGEST; i++)
        w.themes[i / LONGEST][i % LONGEST] = (int32_t)below(&w, ALPHABET);
    w.longest = options->device_blocks * options->block_tokens;
    w.longest = w.longest < LONGEST ? w.longest : LONGEST;
    right = world_open(&w);
    for (uint32_t i = 0; right && i < options->operations; i++) {
        right = operate(&w);
        if (right && i % 16 == 0 && !options->book_holes)
            right = must(&w, quire__book_check(w.cache->book), "check");
    }
    if (w.cache == NULL)
        return false;
    right = world_end(&w) && right;
    for (int i = 0; i < 2; i++)
        if (w.streams[i] != NULL)
            quire__device_stream_close(w.cache->device, w.streams[i]);
    quire_cache_close(w.cache);
    return right;
}
