/* world_plain.c: one group of layers with keys and values. WORLD_BF16: the cache holds bf16, in blocks that are large enough
 * to be packed; its bytes are read and no attention is computed, which would take most of the time. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "support/world_model.h"

#ifdef WORLD_BF16
enum { HEAD_DIM = 64, DTYPE = QUIRE_DTYPE_BF16, ATTENTION = 0 };
typedef uint16_t kept;
#else
enum { HEAD_DIM = 8, DTYPE = QUIRE_DTYPE_F32, ATTENTION = 1 };
typedef float kept;
#endif
enum { LAYERS = 2, KV_HEADS = 1, QUERY_HEADS = 2 };
enum { ROW_FLOATS = KV_HEADS * HEAD_DIM, QUERY_FLOATS = QUERY_HEADS * HEAD_DIM };

/* What a reading has of one sequence: elements of `gathered` and floats of `out`. */
typedef struct reading_row {
    size_t gathered, gathered_count, out, out_count;
    int member;
    bool lost; /* its restore failed, so what it read is of no interest */
} reading_row;

/* One enqueued read whose result is compared after the next synchronisation. */
typedef struct kv_reading {
    reading head;
    float *device_memory[3 * LAYERS + 1]; /* k, v, q of each layer */
    float *out[LAYERS];
    unsigned char *gathered;
    int64_t *offsets;
    float *expected_out[LAYERS];
    kept *expected_bytes;
    size_t out_floats, gathered_elements;
    reading_row rows[MOST_SEQUENCES];
    uint32_t row_count;
} kv_reading;

static bool noisy; /* of the world under way */

static float element(uint64_t state, uint32_t layer, uint32_t kind, uint32_t index)
{
    uint64_t bits = world_mix(state, ((uint64_t)layer << 40) | ((uint64_t)kind << 32) | index);

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

void model_free(reading *head)
{
    kv_reading *r = (kv_reading *)(void *)head;

    for (int i = 0; i < 3 * LAYERS; i++)
        quire__device_free(head->device, QUIRE__MEMORY_DEVICE, r->device_memory[i]);
    for (int i = 0; i < LAYERS; i++) {
        quire__device_free(head->device, QUIRE__MEMORY_DEVICE, r->out[i]);
        free(r->expected_out[i]);
    }
    quire__device_free(head->device, QUIRE__MEMORY_DEVICE, r->gathered);
    quire__device_free(head->device, QUIRE__MEMORY_DEVICE, r->offsets);
    free(r->expected_bytes);
    free(r);
}

static bool row_compare(world *w, const kv_reading *r, const reading_row *row)
{
    if (row->lost)
        return true;
    if (memcmp(r->gathered + row->gathered * sizeof(kept), r->expected_bytes + row->gathered,
               row->gathered_count * sizeof(kept)) != 0)
        return world_wrong(w, "step %llu: bytes in the arena are not those that were written for their tokens",
                     (unsigned long long)r->head.step);
    for (int layer = 0; layer < LAYERS * ATTENTION; layer++)
        for (size_t i = row->out; i < row->out + row->out_count; i++)
            if (!(fabsf(r->out[layer][i] - r->expected_out[layer][i]) < 1e-4f))
                return world_wrong(w, "step %llu: attention read wrong keys or values (%g, expected %g)",
                             (unsigned long long)r->head.step, (double)r->out[layer][i],
                             (double)r->expected_out[layer][i]);
    return true;
}

bool model_compare(world *w, const reading *head)
{
    const kv_reading *r = (const kv_reading *)(const void *)head;

    for (uint32_t row = 0; row < r->row_count; row++)
        if (!row_compare(w, r, &r->rows[row]))
            return false;
    return true;
}

void model_lost(world *w, int number)
{
    kv_reading *newest = (kv_reading *)(void *)w->readings;

    for (uint32_t row = 0; newest != NULL && row < newest->row_count; row++)
        if (number < 0 || newest->rows[row].member == number)
            newest->rows[row].lost = true;
}

/* ---- what a step writes and reads -------------------------------------------------------------------------- */

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
static void prepare_gather(world *w, kv_reading *r, const quire_view *view, uint32_t tokens)
{
    uint32_t at = 0, pieces = tokens * LAYERS * 2 * KV_HEADS;
    size_t out = 0;

    r->gathered_elements = (size_t)pieces * HEAD_DIM;
    r->gathered = device_floats(w, r->gathered_elements); /* at least as large */
    r->offsets = device_floats(w, (size_t)pieces * 2);
    r->expected_bytes = malloc(r->gathered_elements * sizeof(kept) + 1);
    for (uint32_t row = 0; row < w->cache->step.row_count; row++) {
        uint32_t blocks, changed;
        const int32_t *table =
            quire__book_seq_table(w->cache->book, w->cache->step.rows[row].seq, &blocks, &changed, false);
        const member *m = world_member(w, row);
        r->rows[row] = (reading_row){.gathered = (size_t)at * HEAD_DIM,
                                     .gathered_count = (size_t)(m->length + m->added) * LAYERS * 2 * HEAD_DIM,
                                     .out = out,
                                     .out_count = (size_t)m->added * QUERY_FLOATS,
                                     .member = (int)(m - w->members)};
        out += r->rows[row].out_count;
        uint64_t states[LONGEST];
        world_states(m, m->length + m->added, states);
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

static bool enqueue_gather(world *w, kv_reading *r, const quire_view *view)
{
    quire__kernel_args args = {.pieces = {.arena = view->arena,
                                          .staging = r->gathered,
                                          .offsets = r->offsets,
                                          .piece_bytes = HEAD_DIM * sizeof(kept),
                                          .count = (int32_t)(r->gathered_elements / HEAD_DIM)}};

    return world_must(w, quire__device_launch(w->cache->device, view->stream, QUIRE__KERNEL_GATHER, &args), "gather");
}

static void prepare_tokens(world *w, kv_reading *r, uint32_t layer, const quire_view *view)
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
    for (uint32_t row = 0; row < w->cache->step.row_count; row++) {
        const member *m = world_member(w, row);
        uint64_t states[LONGEST];
        world_states(m, m->length + m->added, states);
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

bool model_forward(world *w, quire_step *step)
{
    const quire_view *view = quire_step_view(step, 0);
    uint32_t context = 0;
    kv_reading *r = calloc(1, sizeof *r);

    r->head = (reading){w->readings, w->cache->device, w->cache->step.number};
    w->readings = &r->head;
    for (int i = 0; i < MOST_SEQUENCES; i++)
        if (w->members[i].open && w->members[i].added > 0)
            context += w->members[i].length + w->members[i].added;
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        prepare_tokens(w, r, layer, view);
        quire_tensor k = {r->device_memory[3 * layer], QUIRE_DTYPE_F32, KV_HEADS, ROW_FLOATS, HEAD_DIM};
        quire_tensor v = {r->device_memory[3 * layer + 1], QUIRE_DTYPE_F32, KV_HEADS, ROW_FLOATS, HEAD_DIM};
        quire_tensor q = {r->device_memory[3 * layer + 2], QUIRE_DTYPE_F32, QUERY_HEADS, QUERY_FLOATS, HEAD_DIM};
        quire_tensor out = {r->out[layer], QUIRE_DTYPE_F32, QUERY_HEADS, QUERY_FLOATS, HEAD_DIM};
        if (!world_must(w, quire_append(view, layer, &k, &v), "append") ||
            !world_must(w, ATTENTION ? quire_attend(view, layer, &q, &out, 1.0f)
                               : quire_step_await_layer(&w->cache->step, layer), "attend"))
            return false;
    }
    prepare_gather(w, r, view, context);
    return enqueue_gather(w, r, view);
}

bool model_open(world *w, quire_options *o)
{
    size_t block = (size_t)LAYERS * 2 * ROW_FLOATS * sizeof(kept) * o->block_tokens;

    noisy = w->options->noisy;
    memset(kv_rows, 0, sizeof kv_rows);
    w->groups[0] = (quire_group){.layers = LAYERS,
                                 .kv_heads = KV_HEADS,
                                 .head_dim = HEAD_DIM,
                                 .query_heads = QUERY_HEADS,
                                 .dtype = (quire_dtype)DTYPE};
    w->group_count = 1;
    block = (block + 255) / 256 * 256;
    o->device_bytes = block * w->options->device_blocks;
    o->host_bytes = block * w->options->host_blocks;
    return true;
}
