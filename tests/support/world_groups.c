/* world_groups.c: several groups of layers: plain ones, a window, a recurrent state, latent rows. All that a group keeps of a
 * sequence is checked. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "support/world_model.h"

enum { LAYERS = 2, QUERY_HEADS = 2, HEAD_DIM = 8, STATE_FLOATS = 8 /* of a layer */ };
enum { MOST_BUFFERS = 64, MOST_CHECKS = 16 };

/* What must be in memory of the device once everything enqueued has run. */
typedef struct check {
    float *got, *expected;
    size_t floats;
    bool exact; /* bytes that were copied, not computed */
    uint32_t group;
} check;

/* The enqueued reads of a step, whose results are compared after the next synchronisation. */
typedef struct group_reading {
    reading head;
    void *buffers[MOST_BUFFERS]; /* device memory */
    unsigned char *spare;        /* what is left of the last one */
    size_t left;
    check checks[MOST_CHECKS];
    uint32_t buffer_count, check_count;
} group_reading;

static float element(uint64_t state, uint32_t layer, uint32_t kind, uint32_t index)
{
    uint64_t bits = world_mix(state, ((uint64_t)layer << 40) | ((uint64_t)kind << 32) | index);

    return (float)((double)(bits >> 40) / (double)(1 << 23) - 1.0);
}

/* Out of a few large buffers: asking the device for memory takes long. */
static float *device_floats(world *w, group_reading *r, size_t count)
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

static check *expect(world *w, group_reading *r, uint32_t group, size_t floats, bool exact)
{
    check *c = &r->checks[r->check_count++];

    *c = (check){device_floats(w, r, floats), malloc(floats * sizeof(float) + 1), floats, exact, group};
    return c;
}

/* ---- reading back ------------------------------------------------------------------------------------------ */

void model_free(reading *head)
{
    group_reading *r = (group_reading *)(void *)head;

    for (uint32_t i = 0; i < r->buffer_count; i++)
        quire__device_free(head->device, QUIRE__MEMORY_DEVICE, r->buffers[i]);
    for (uint32_t i = 0; i < r->check_count; i++)
        free(r->checks[i].expected);
    free(r);
}

bool model_compare(world *w, const reading *head)
{
    const group_reading *r = (const group_reading *)(const void *)head;

    for (uint32_t at = 0; at < r->check_count; at++) {
        const check *c = &r->checks[at];
        if (c->exact && c->floats > 0 && memcmp(c->got, c->expected, c->floats * sizeof(float)) != 0)
            return world_wrong(w, "step %llu, group %u: bytes in the arena are not those that were written for their tokens",
                         (unsigned long long)head->step, c->group);
        for (size_t i = 0; i < c->floats && !c->exact; i++)
            if (!(fabsf(c->got[i] - c->expected[i]) < 1e-4f))
                return world_wrong(w, "step %llu, group %u: attention read wrong keys or values (%g, expected %g)",
                             (unsigned long long)head->step, c->group, (double)c->got[i], (double)c->expected[i]);
    }
    return true;
}

void model_lost(world *w, int number)
{
    (void)w;
    (void)number;
    abort(); /* a cache of several groups refuses restore_parts, so nothing runs ahead of a restore */
}

/* ---- what a step writes and reads -------------------------------------------------------------------------- */

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
static const member *member_of(world *w, uint32_t row, uint64_t *states)
{
    const member *m = world_member(w, row);

    world_states(m, m->length + m->added, states);
    return m;
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

    return count == 0 || world_must(w, quire__device_launch(w->cache->device, view->stream, kernel, &args), "gather or scatter");
}

/* K and V of all tokens that the group keeps, as one gather whose pieces are heads of tokens. */
static bool read_tokens(world *w, group_reading *r, uint32_t group, const quire_view *view)
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
static bool compute_layer(world *w, group_reading *r, uint32_t group, uint32_t layer, const quire_view *view)
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
        return world_must(w, quire_append_latent(view, layer, &tk, &rope), "append") &&
               world_must(w, quire_attend_latent(view, layer, &tq, &out, 1.0f), "attend");
    return world_must(w, quire_append(view, layer, &tk, &tv), "append") &&
           world_must(w, quire_attend_with(view, layer, &tq, &out, &params), "attend");
}

/* A recurrent model: reads each row's last state, then writes the state at the end of each block that the step fills or
 * begins, then reads all states that the rows keep. */
static bool compute_states(world *w, group_reading *r, uint32_t group, const quire_view *view)
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

bool model_forward(world *w, quire_step *step)
{
    group_reading *r = calloc(1, sizeof *r);

    r->head = (reading){w->readings, w->cache->device, w->cache->step.number};
    w->readings = &r->head;
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

bool model_open(world *w, quire_options *o)
{
    uint64_t all = 0, device = 0;

    make_groups(w);
    o->groups = w->groups;
    for (o->group_count = 1; o->group_count <= w->group_count; o->group_count++) {
        uint64_t before = all;
        if (!world_must(w, quire_block_bytes(o, &all), "block bytes"))
            return false;
        device += (all - before) * (before == 0 ? w->options->device_blocks : w->groups[o->group_count - 1].blocks);
    }
    o->device_bytes = device;
    o->host_bytes = all * w->options->host_blocks;
    return true;
}
