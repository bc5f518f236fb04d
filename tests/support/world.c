#include "support/world.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/status.h"
#include "cache/cache.h"

/* WORLD_BF16: the cache holds bf16, in blocks that are large enough to be packed; its bytes are read and no attention is
 * computed, which would take most of the time. */
#ifdef WORLD_BF16
enum { HEAD_DIM = 64, DTYPE = QUIRE_DTYPE_BF16, ATTENTION = 0 };
typedef uint16_t kept;
#else
enum { HEAD_DIM = 8, DTYPE = QUIRE_DTYPE_F32, ATTENTION = 1 };
typedef float kept;
#endif
enum { LAYERS = 2, KV_HEADS = 1, QUERY_HEADS = 2, MOST_SEQUENCES = 12, LONGEST = 96, ALPHABET = 3, THEMES = 4 };
enum { ROW_FLOATS = KV_HEADS * HEAD_DIM, QUERY_FLOATS = QUERY_HEADS * HEAD_DIM };

typedef struct member {
    bool open, settled; /* settled: its restore has ended and `length` is final */
    quire_seq handle;
    uint64_t domain;
    int32_t tokens[LONGEST];
    uint32_t target, length; /* tokens wanted, tokens whose KV the cache has */
    uint32_t added;          /* in the step under way */
} member;

/* What a reading has of one sequence: elements of `gathered` and floats of `out`. */
typedef struct reading_row {
    size_t gathered, gathered_count, out, out_count;
    int member;
    bool lost; /* its restore failed, so what it read is of no interest */
} reading_row;

/* One enqueued read whose result is compared after the next synchronisation. */
typedef struct reading {
    struct reading *next;
    quire__device *device;
    float *device_memory[3 * LAYERS + 1]; /* k, v, q of each layer; */
    float *out[LAYERS];
    unsigned char *gathered;
    int64_t *offsets;
    float *expected_out[LAYERS];
    kept *expected_bytes;
    size_t out_floats, gathered_elements;
    uint64_t step;
    reading_row rows[MOST_SEQUENCES];
    uint32_t row_count;
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

static bool noisy; /* of the world under way */

static float element(uint64_t state, uint32_t layer, uint32_t kind, uint32_t index)
{
    uint64_t bits = mix(state, ((uint64_t)layer << 40) | ((uint64_t)kind << 32) | index);

    float value = (float)((double)(bits >> 40) / (double)(1 << 23) - 1.0);
#ifdef WORLD_BF16
    uint32_t word;
    if (noisy && state % 32 == 0) /* of this token, what has too many exponents to be packed */
        value = ldexpf(value, -(int)(bits % 60));
    memcpy(&word, &value, sizeof word);
    word &= 0xffff0000u;
    memcpy(&value, &word, sizeof value);
#endif
    return value;
}

/* As it lies in the cache. */
static kept keep(float value)
{
#ifdef WORLD_BF16
    uint32_t word;
    memcpy(&word, &value, sizeof word);
    return (kept)(word >> 16);
#else
    return value;
#endif
}

enum { KIND_K = 0, KIND_V = 1, KIND_Q = 2 };

/* Of the tokens met last, all elements of K and V: contexts are written, read and checked again and again. */
typedef struct kv_row {
    uint64_t state; /* 0: none */
    float kv[LAYERS][2][HEAD_DIM];
} kv_row;
static kv_row kv_rows[1 << 12];

static const kv_row *kv_of(uint64_t state)
{
    kv_row *row = &kv_rows[state % (sizeof kv_rows / sizeof kv_rows[0])];

    if (row->state == state)
        return row;
    row->state = state;
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        for (uint32_t d = 0; d < HEAD_DIM; d++) {
            row->kv[layer][KIND_K][d] = element(state, layer, KIND_K, d);
            row->kv[layer][KIND_V][d] = element(state, layer, KIND_V, d);
        }
    return row;
}

static void *device_floats(world *w, size_t count)
{
    void *memory = NULL;

    if (quire__device_alloc(w->cache->device, QUIRE__MEMORY_DEVICE, (count > 0 ? count : 1) * sizeof(float),
                            &memory) != QUIRE_OK)
        abort();
    return memory;
}

/* ---- reading back ------------------------------------------------------------------------------------------ */

static void reading_free(reading *r)
{
    for (int i = 0; i < 3 * LAYERS; i++)
        quire__device_free(r->device, QUIRE__MEMORY_DEVICE, r->device_memory[i]);
    for (int i = 0; i < LAYERS; i++) {
        quire__device_free(r->device, QUIRE__MEMORY_DEVICE, r->out[i]);
        free(r->expected_out[i]);
    }
    quire__device_free(r->device, QUIRE__MEMORY_DEVICE, r->gathered);
    quire__device_free(r->device, QUIRE__MEMORY_DEVICE, r->offsets);
    free(r->expected_bytes);
    free(r);
}

static bool row_compare(world *w, const reading *r, const reading_row *row)
{
    if (row->lost)
        return true;
    if (memcmp(r->gathered + row->gathered * sizeof(kept), r->expected_bytes + row->gathered,
               row->gathered_count * sizeof(kept)) != 0)
        return wrong(w, "step %llu: bytes in the arena are not those that were written for their tokens",
                     (unsigned long long)r->step);
    for (int layer = 0; layer < LAYERS * ATTENTION; layer++)
        for (size_t i = row->out; i < row->out + row->out_count; i++)
            if (!(fabsf(r->out[layer][i] - r->expected_out[layer][i]) < 1e-4f))
                return wrong(w, "step %llu: attention read wrong keys or values (%g, expected %g)",
                             (unsigned long long)r->step, (double)r->out[layer][i],
                             (double)r->expected_out[layer][i]);
    return true;
}

static bool reading_compare(world *w, const reading *r)
{
    for (uint32_t row = 0; row < r->row_count; row++)
        if (!row_compare(w, r, &r->rows[row]))
            return false;
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

/* softmax(q K^T) V of one query over the first `keys` tokens, in double. */
static void expect_attention(const uint64_t *states, uint32_t keys, uint32_t layer, uint32_t head, float *out)
{
    double query[HEAD_DIM], weights[LONGEST], most = -1e300, total = 0, sum[HEAD_DIM] = {0};

    for (uint32_t d = 0; d < HEAD_DIM; d++)
        query[d] = (double)element(states[keys - 1], layer, KIND_Q, head * HEAD_DIM + d);
    for (uint32_t key = 0; key < keys; key++) {
        const float *k = kv_of(states[key])->kv[layer][KIND_K];
        weights[key] = 0;
        for (uint32_t d = 0; d < HEAD_DIM; d++)
            weights[key] += query[d] * (double)k[d];
        most = weights[key] > most ? weights[key] : most;
    }
    for (uint32_t key = 0; key < keys; key++) {
        const float *v = kv_of(states[key])->kv[layer][KIND_V];
        double weight = exp(weights[key] - most);
        total += weight;
        for (uint32_t d = 0; d < HEAD_DIM; d++)
            sum[d] += weight * (double)v[d];
    }
    for (uint32_t d = 0; d < HEAD_DIM; d++)
        out[head * HEAD_DIM + d] = (float)(sum[d] / total);
}

/* Every token's K and V of every layer, as one gather whose pieces are heads of tokens. */
static void prepare_gather(world *w, reading *r, const quire_view *view, uint32_t tokens)
{
    uint32_t at = 0, pieces = tokens * LAYERS * 2 * KV_HEADS;
    size_t out = 0;

    r->gathered_elements = (size_t)pieces * HEAD_DIM;
    r->gathered = device_floats(w, r->gathered_elements); /* at least as large */
    r->offsets = device_floats(w, (size_t)pieces * 2);
    r->expected_bytes = malloc(r->gathered_elements * sizeof(kept) + 1);
    for (uint32_t row = 0; row < w->cache->step.row_count; row++) {
        uint32_t seq = w->cache->step.rows[row].seq, blocks, changed;
        const int32_t *table = quire__book_seq_table(w->cache->book, seq, &blocks, &changed, false);
        int index = 0;
        for (int i = 0; i < MOST_SEQUENCES; i++)
            if (w->members[i].open && (uint32_t)w->members[i].handle - 1 == seq)
                index = i;
        member *m = &w->members[index];
        r->rows[row] = (reading_row){.gathered = (size_t)at * HEAD_DIM,
                                     .gathered_count = (size_t)(m->length + m->added) * LAYERS * 2 * HEAD_DIM,
                                     .out = out,
                                     .out_count = (size_t)m->added * QUERY_FLOATS,
                                     .member = index};
        out += r->rows[row].out_count;
        uint64_t states[LONGEST];
        prefix_states(m, m->length + m->added, states);
        for (uint32_t t = 0; t < m->length + m->added; t++)
            for (uint32_t part = 0; part < LAYERS * 2; part++, at++) {
                const float *values = kv_of(states[t])->kv[part / 2][part % 2];
                r->offsets[at] = table[t / view->block_tokens] * view->block_stride +
                                 part / 2 * view->layer_stride + part % 2 * view->kv_stride +
                                 t % view->block_tokens * view->token_stride;
                for (uint32_t d = 0; d < HEAD_DIM; d++)
                    r->expected_bytes[(size_t)at * HEAD_DIM + d] = keep(values[d]);
            }
    }
    r->row_count = w->cache->step.row_count;
}

static bool enqueue_gather(world *w, reading *r, const quire_view *view)
{
    quire__kernel_args args = {.pieces = {.arena = view->arena,
                                          .staging = r->gathered,
                                          .offsets = r->offsets,
                                          .piece_bytes = HEAD_DIM * sizeof(kept),
                                          .count = (int32_t)(r->gathered_elements / HEAD_DIM)}};

    return must(w, quire__device_launch(w->cache->device, view->stream, QUIRE__KERNEL_GATHER, &args), "gather");
}

static void prepare_tokens(world *w, reading *r, uint32_t layer, const quire_view *view)
{
    float *k = device_floats(w, (size_t)view->tokens * ROW_FLOATS);
    float *v = device_floats(w, (size_t)view->tokens * ROW_FLOATS);
    float *q = device_floats(w, (size_t)view->tokens * QUERY_FLOATS);
    uint32_t at = 0;

    r->device_memory[3 * layer] = k;
    r->device_memory[3 * layer + 1] = v;
    r->device_memory[3 * layer + 2] = q;
    r->out_floats = (size_t)view->tokens * QUERY_FLOATS;
    r->out[layer] = device_floats(w, r->out_floats);
    r->expected_out[layer] = malloc(r->out_floats * sizeof(float) + 1);
    for (uint32_t row = 0; row < w->cache->step.row_count; row++)
        for (int i = 0; i < MOST_SEQUENCES; i++) {
            member *m = &w->members[i];
            if (!m->open || (uint32_t)m->handle - 1 != w->cache->step.rows[row].seq)
                continue;
            uint64_t states[LONGEST];
            prefix_states(m, m->length + m->added, states);
            for (uint32_t t = m->length; t < m->length + m->added; t++, at++) {
                memcpy(k + at * ROW_FLOATS, kv_of(states[t])->kv[layer][KIND_K], ROW_FLOATS * sizeof *k);
                memcpy(v + at * ROW_FLOATS, kv_of(states[t])->kv[layer][KIND_V], ROW_FLOATS * sizeof *v);
                for (uint32_t d = 0; d < QUERY_FLOATS; d++)
                    q[at * QUERY_FLOATS + d] = element(states[t], layer, KIND_Q, d);
                for (uint32_t head = 0; ATTENTION && head < QUERY_HEADS; head++)
                    expect_attention(states, t + 1, layer, head, r->expected_out[layer] + at * QUERY_FLOATS);
            }
        }
}

/* The forward pass of this world's model. */
static bool forward(world *w, const quire_view *view)
{
    uint32_t context = 0;
    reading *r = calloc(1, sizeof *r);

    r->device = w->cache->device;
    r->step = w->cache->step.number;
    r->next = w->readings;
    w->readings = r;
    for (int i = 0; i < MOST_SEQUENCES; i++)
        if (w->members[i].open && w->members[i].added > 0)
            context += w->members[i].length + w->members[i].added;
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        prepare_tokens(w, r, layer, view);
        quire_tensor k = {r->device_memory[3 * layer], QUIRE_DTYPE_F32, KV_HEADS, ROW_FLOATS, HEAD_DIM};
        quire_tensor v = {r->device_memory[3 * layer + 1], QUIRE_DTYPE_F32, KV_HEADS, ROW_FLOATS, HEAD_DIM};
        quire_tensor q = {r->device_memory[3 * layer + 2], QUIRE_DTYPE_F32, QUERY_HEADS, QUERY_FLOATS, HEAD_DIM};
        quire_tensor out = {r->out[layer], QUIRE_DTYPE_F32, QUERY_HEADS, QUERY_FLOATS, HEAD_DIM};
        if (!must(w, quire_append(view, layer, &k, &v), "append") ||
            !must(w, ATTENTION ? quire_attend(view, layer, &q, &out, 1.0f)
                               : quire_step_await_layer(&w->cache->step, layer), "attend"))
            return false;
    }
    prepare_gather(w, r, view, context);
    return enqueue_gather(w, r, view);
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
    if (!must(w, quire_seq_truncate(w->cache, m->handle, length), "truncate"))
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
    if ((!m->settled && w->options->restore_parts < 2) || m->length >= w->longest)
        return true;
    uint32_t left = m->target > m->length ? m->target - m->length : 1;
    uint32_t count = left == 1 ? 1 : 1 + below(w, left < 11 ? left : 11);
    if (m->length == m->target)
        m->tokens[m->target++] = (int32_t)below(w, ALPHABET);
    *late = chance(w, 25);
    quire_status status = quire_step_add(step, m->handle, *late ? NULL : m->tokens + m->length, count);
    if (status == QUIRE_EFULL || status == QUIRE_EAGAIN || (status == QUIRE_ERANGE && w->options->elastic))
        return true;
    m->added = count;
    w->result->ahead += !m->settled;
    return must(w, status, "add");
}

static void ignore_reading_of(world *w, int member)
{
    for (uint32_t row = 0; w->readings != NULL && row < w->readings->row_count; row++)
        if (member < 0 || w->readings->rows[row].member == member)
            w->readings->rows[row].lost = true;
}

/* A commit in which restores failed that rows ran ahead of: those have lost their tokens of this step, the others have not. */
static bool take_losses(world *w)
{
    w->result->lost++;
    for (int i = 0; i < MOST_SEQUENCES; i++) {
        member *m = &w->members[i];
        if (m->added == 0)
            continue;
        uint32_t whole = m->length + m->added;
        m->added = 0;
        if (!settle(w, m))
            return false;
        if (m->length < whole)
            ignore_reading_of(w, i);
    }
    return true;
}

static bool end_step(world *w, quire_step *step, const bool *late)
{
    if (chance(w, 8)) {
        if (step->restore > 0) /* a restore may fail that its rows ran ahead of, and nobody will say so */
            ignore_reading_of(w, -1);
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
    if (status == QUIRE_EDEVICE && w->options->restore_parts > 1)
        return take_losses(w);
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
    if (step->row_count > 0 && !forward(w, quire_step_view(step, 0)))
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

static void note_longest(world *w)
{
    const quire_options *options = quire_cache_options(w->cache);
    uint64_t tokens = options->device_bytes / w->cache->layout.block_bytes * w->options->block_tokens;
    w->longest = tokens < LONGEST ? (uint32_t)tokens : LONGEST;
}

/* Half of the time somewhere between, else one of the ends. */
static bool op_resize(world *w)
{
    const quire_options *options = quire_cache_options(w->cache);
    uint64_t block = w->cache->layout.block_bytes, most = options->device_max_bytes / block;
    uint64_t blocks = chance(w, 25) ? most : 2 + below(w, (uint32_t)most - 1);

    if (w->options->fail_copies && chance(w, 30))
        quire__device_fail_copy(w->cache->device, 1);
    quire_status status = quire_cache_resize(w->cache, blocks * block, 10000000);
    quire__device_fail_copy(w->cache->device, 0);
    note_longest(w);
    w->result->resizes += status == QUIRE_OK;
    if (status == QUIRE_EFULL || (status == QUIRE_EDEVICE && w->options->fail_copies))
        return true;
    blocks -= blocks % w->cache->section_slots;
    return must(w, status, "resize") &&
           (options->device_bytes == blocks * block || wrong(w, "resize took %llu blocks for %llu",
            (unsigned long long)(options->device_bytes / block), (unsigned long long)blocks));
}

/* Flips a bit of a block that lies in the host tier with nothing in flight. */
static void flip(void *arg, uint32_t slot)
{
    world *w = arg;
    quire__host_tier *tier = quire__mover_host_tier(w->cache->mover);

    if (chance(w, 3)) {
        unsigned char *bytes = quire__host_tier_slot(tier, slot);
        bytes[below(w, (uint32_t)tier->slot_bytes)] ^= (unsigned char)(1u << below(w, 8));
    }
}

static bool operate(world *w)
{
    uint32_t dice = below(w, 100);
    member *m = &w->members[below(w, MOST_SEQUENCES)];

    if (w->options->corrupt_host && chance(w, 5) && quire_cache_drain(w->cache, 1000000) == QUIRE_OK)
        quire__book_each_host_slot(w->cache->book, flip, w);
    if (w->options->elastic && chance(w, 10))
        return op_resize(w);
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

static bool world_open(world *w)
{
    const world_options *options = w->options;
    quire_group group = {.layers = LAYERS,
                         .kv_heads = KV_HEADS,
                         .head_dim = HEAD_DIM,
                         .query_heads = QUERY_HEADS,
                         .dtype = (quire_dtype)DTYPE};
    size_t block = (size_t)LAYERS * 2 * ROW_FLOATS * sizeof(kept) * options->block_tokens;
    char device[32];
    quire_options o;

    block = (block + 255) / 256 * 256;
    snprintf(device, sizeof device, "sim:%llu", (unsigned long long)options->seed);
    if (!must(w, quire_options_init(&o, sizeof o), "options"))
        return false;
    o.groups = &group;
    o.group_count = 1;
    o.device = options->device != NULL ? options->device : device;
    o.block_tokens = options->block_tokens;
    o.device_bytes = block * options->device_blocks;
    o.device_max_bytes = options->elastic ? 2 * o.device_bytes : 0;
    o.host_bytes = block * options->host_blocks;
    o.offload = options->host_blocks == 0 ? QUIRE_OFFLOAD_NONE :
                options->offload == QUIRE_OFFLOAD_NONE ? QUIRE_OFFLOAD_WRITE_THROUGH : options->offload;
    if (options->seed % 2) /* so early that blocks are offloaded that have only just been written */
        o.offload_low_blocks = options->device_blocks / 2;
    if (options->policy != NULL)
        o.policy = options->policy;
    o.max_sequences = MOST_SEQUENCES;
    o.max_seq_tokens = LONGEST;
    o.max_step_tokens = MOST_SEQUENCES * 12;
    o.restore_parts = options->restore_parts > 0 ? options->restore_parts : 1;
    o.pack = options->packed ? QUIRE_PACK_ON : QUIRE_PACK_OFF;
    o.pieces = options->gathered ? QUIRE_PIECES_GATHER : QUIRE_PIECES_COPY;
    o.hash_key = options->seed + 1;
    o.threads = 1;
    o.log_level = QUIRE_LOG_OFF;
    o.event_capacity = 64;
    if (!must(w, quire_cache_open(&w->cache, &o), "open"))
        return false;
    quire__book_set_holes(w->cache->book, options->book_holes);
    quire__mover_set_holes(w->cache->mover, options->mover_holes);
    quire__tables_set_hole(w->cache->tables, options->staging_hole);
    w->cache->holes = options->cache_holes;
    if (options->staging_blocks > 0)
        quire__mover_set_group(w->cache->mover, options->staging_blocks);
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

    noisy = options->noisy;
    memset(kv_rows, 0, sizeof kv_rows);
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
