/* test_graph.c: what a CUDA graph of a decode step relies on, without a GPU. Inside quire_append and quire_attend over a step for
 * graphs nothing happens but launches; so one step's launches are recorded, with their arguments as a graph would keep them,
 * and launched again in all later steps, whatever those are: with other rows, fewer rows, after evictions, restores and
 * copies-on-write. Every output is compared with attention computed from the tokens, in double. */
#include "support/testing.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "cache/cache.h"
#include "device/device_base.h"
#include "quire/quire.h"

enum {
    LAYERS = 4, HEAD_DIM = 64, QUERY_HEADS = 2, BLOCK_TOKENS = 4, ROWS = 4, LONGEST = 48, MEMBERS = 6, PROMPTS = 3,
    DEVICE_BLOCKS = 22, HOST_BLOCKS = 60, MOST_LAUNCHES = 32
};

/* ---- what a capture would see -------------------------------------------------------------------------------- */

static struct {
    quire__device_ops ops;        /* the device's, with ears */
    const quire__device_ops *true_ops;
    bool capturing;
    int forbidden;                /* calls that a capture does not allow, while one was on */
    int count;
    quire__kernel kernels[MOST_LAUNCHES];
    quire__kernel_args args[MOST_LAUNCHES];
} heard;

static quire_status hear_launch(quire__device *device, quire__stream *stream, quire__kernel kernel,
                                const quire__kernel_args *args)
{
    if (heard.capturing) {
        assert_true(heard.count < MOST_LAUNCHES);
        heard.kernels[heard.count] = kernel;
        heard.args[heard.count++] = *args;
    }
    return heard.true_ops->launch(device, stream, kernel, args);
}

static quire_status hear_copy(quire__device *device, quire__stream *stream, const quire__copy *copies, size_t count)
{
    heard.forbidden += heard.capturing;
    return heard.true_ops->copy(device, stream, copies, count);
}

static quire_status hear_wait(quire__device *device, quire__stream *stream, quire__event *event)
{
    heard.forbidden += heard.capturing;
    return heard.true_ops->stream_wait(device, stream, event);
}

static quire_status hear_record(quire__device *device, quire__event *event, quire__stream *stream)
{
    heard.forbidden += heard.capturing;
    return heard.true_ops->event_record(device, event, stream);
}

static quire_status hear_query(quire__device *device, quire__event *event, bool *done)
{
    heard.forbidden += heard.capturing;
    return heard.true_ops->event_query(device, event, done);
}

static quire_status hear_synchronize(quire__device *device, quire__stream *stream)
{
    heard.forbidden += heard.capturing;
    return heard.true_ops->stream_synchronize(device, stream);
}

static quire_status hear_alloc(quire__device *device, quire__memory kind, size_t bytes, void **memory)
{
    heard.forbidden += heard.capturing;
    return heard.true_ops->alloc(device, kind, bytes, memory);
}

static void listen_to(quire__device *device)
{
    memset(&heard, 0, sizeof heard);
    heard.true_ops = device->ops;
    heard.ops = *device->ops;
    heard.ops.launch = hear_launch;
    heard.ops.copy = hear_copy;
    heard.ops.stream_wait = hear_wait;
    heard.ops.event_record = hear_record;
    heard.ops.event_query = hear_query;
    heard.ops.stream_synchronize = hear_synchronize;
    heard.ops.alloc = hear_alloc;
    device->ops = &heard.ops;
}

/* ---- a model whose numbers are exact in bf16 ------------------------------------------------------------------ */

typedef struct member {
    bool open;
    quire_seq seq;
    int32_t tokens[LONGEST];
    uint32_t length, target;
} member;

typedef struct world {
    quire_cache *cache;
    member members[MEMBERS];
    int32_t prompts[PROMPTS][LONGEST];
    uint64_t random;
    float *k[LAYERS], *v[LAYERS], *q[LAYERS], *out[LAYERS]; /* [tokens of a step][heads][HEAD_DIM], at fixed addresses */
    quire_view captured;
    uint32_t replays, short_steps;
} world;

static uint32_t below(world *w, uint32_t bound)
{
    return (uint32_t)(quire__random(&w->random) % bound);
}

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t state = a * 0x9e3779b97f4a7c15u ^ b;
    return quire__random(&state);
}

static uint64_t state_at(const member *m, uint32_t position)
{
    uint64_t state = 5;
    for (uint32_t i = 0; i <= position; i++)
        state = mix(state, (uint64_t)m->tokens[i] + 1);
    return state;
}

/* kind: 0 K, 1 V, 2 and up q. */
static float element(uint64_t state, uint32_t layer, uint32_t kind, uint32_t d)
{
    return (float)((int)(mix(state, (uint64_t)layer << 32 | kind << 16 | d) % 17) - 8) / 16.0f;
}

static void expect(const member *m, uint32_t layer, uint32_t head, double *out)
{
    double weights[LONGEST], total = 0;
    uint64_t last = state_at(m, m->length);

    memset(out, 0, HEAD_DIM * sizeof *out);
    for (uint32_t key = 0; key <= m->length; key++) {
        uint64_t state = state_at(m, key);
        double score = 0;
        for (uint32_t d = 0; d < HEAD_DIM; d++)
            score += (double)element(last, layer, 2 + head, d) * (double)element(state, layer, 0, d);
        weights[key] = exp(score);
        total += weights[key];
    }
    for (uint32_t key = 0; key <= m->length; key++) {
        uint64_t state = state_at(m, key);
        for (uint32_t d = 0; d < HEAD_DIM; d++)
            out[d] += weights[key] / total * (double)element(state, layer, 1, d);
    }
}

/* ---- steps --------------------------------------------------------------------------------------------------- */

static void put_token(world *w, const member *m, uint32_t position, uint32_t at)
{
    uint64_t state = state_at(m, position);
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        for (uint32_t d = 0; d < HEAD_DIM; d++) {
            w->k[layer][at * HEAD_DIM + d] = element(state, layer, 0, d);
            w->v[layer][at * HEAD_DIM + d] = element(state, layer, 1, d);
            for (uint32_t head = 0; head < QUERY_HEADS; head++)
                w->q[layer][(at * QUERY_HEADS + head) * HEAD_DIM + d] = element(state, layer, 2 + head, d);
        }
}

static void run_layers(world *w, const quire_view *view)
{
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        quire_tensor k = {w->k[layer], QUIRE_DTYPE_F32, 1, HEAD_DIM, HEAD_DIM};
        quire_tensor v = {w->v[layer], QUIRE_DTYPE_F32, 1, HEAD_DIM, HEAD_DIM};
        quire_tensor q = {w->q[layer], QUIRE_DTYPE_F32, QUERY_HEADS, QUERY_HEADS * HEAD_DIM, HEAD_DIM};
        quire_tensor out = {w->out[layer], QUIRE_DTYPE_F32, QUERY_HEADS, QUERY_HEADS * HEAD_DIM, HEAD_DIM};
        assert_int_equal(quire_append(view, layer, &k, &v), QUIRE_OK);
        assert_int_equal(quire_attend(view, layer, &q, &out, 1.0f), QUIRE_OK);
    }
}

static void sync_stream(world *w)
{
    assert_int_equal(quire__device_stream_synchronize(w->cache->device, w->cache->stream), QUIRE_OK);
}

/* A prompt's tokens but the last, as any step computes them. */
static void prefill(world *w, member *m)
{
    quire_step *step;
    uint32_t first = m->length, count = m->target - first;

    assert_int_equal(quire_step_begin(w->cache, NULL, &step), QUIRE_OK);
    if (quire_step_add(step, m->seq, m->tokens + first, count) != QUIRE_OK) {
        quire_step_cancel(step);
        return;
    }
    sync_stream(w);
    for (uint32_t i = 0; i < count; i++)
        put_token(w, m, first + i, i);
    assert_int_equal(quire_step_submit(step), QUIRE_OK);
    run_layers(w, quire_step_view(step, 0));
    assert_int_equal(quire_step_commit(step), QUIRE_OK);
    sync_stream(w);
    m->length = m->target;
}

/* Everything of a view that a graph keeps. */
static void assert_same_view(const quire_view *a, const quire_view *b)
{
    assert_ptr_equal(a->arena, b->arena);
    assert_ptr_equal(a->block_table, b->block_table);
    assert_ptr_equal(a->context_lens, b->context_lens);
    assert_ptr_equal(a->query_start, b->query_start);
    assert_ptr_equal(a->slot_mapping, b->slot_mapping);
    assert_ptr_equal(a->positions, b->positions);
    assert_ptr_equal(a->token_rows, b->token_rows);
    assert_ptr_equal(a->decode_tokens, b->decode_tokens);
    assert_ptr_equal(a->tile_list, b->tile_list);
    assert_int_equal(a->rows, b->rows);
    assert_int_equal(a->tokens, b->tokens);
    assert_int_equal(a->decodes, b->decodes);
    assert_int_equal(a->tiles, b->tiles);
    assert_int_equal(a->table_stride, b->table_stride);
    assert_int_equal(a->longest_context, b->longest_context);
    assert_int_equal(a->block_stride, b->block_stride);
    assert_int_equal(a->layer_stride, b->layer_stride);
}

/* The first time, and now and then: captured, and run by that. Else: what was captured, again. */
static void capture_or_replay(world *w, const quire_view *view)
{
    if (heard.count == 0 || below(w, 8) == 0) {
        heard.count = 0;
        heard.capturing = true;
        run_layers(w, view);
        heard.capturing = false;
        assert_true(heard.count >= 2 * LAYERS);
        w->captured = *view;
        return;
    }
    assert_same_view(view, &w->captured);
    for (int i = 0; i < heard.count; i++)
        assert_int_equal(quire__device_launch(w->cache->device, view->stream, heard.kernels[i], &heard.args[i]), QUIRE_OK);
    w->replays++;
}

static void check_outputs(world *w, member *const *rows, uint32_t count)
{
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        for (uint32_t at = 0; at < ROWS * QUERY_HEADS; at++) {
            double wanted[HEAD_DIM] = {0};
            if (at / QUERY_HEADS < count)
                expect(rows[at / QUERY_HEADS], layer, at % QUERY_HEADS, wanted);
            for (uint32_t d = 0; d < HEAD_DIM; d++)
                if (!(fabs((double)w->out[layer][at * HEAD_DIM + d] - wanted[d]) < 1e-5))
                    fail_msg("row %u of %u, layer %u: %g, expected %g, after %u replays", at / QUERY_HEADS, count, layer,
                             (double)w->out[layer][at * HEAD_DIM + d], wanted[d], w->replays);
        }
}

/* One token more for up to ROWS of the sequences. */
static void decode(world *w)
{
    quire_step *step;
    member *rows[ROWS];
    uint32_t count = 0, most = 1 + below(w, ROWS);

    assert_int_equal(quire_step_begin(w->cache, NULL, &step), QUIRE_OK);
    for (int i = 0; i < MEMBERS && count < most; i++) {
        member *m = &w->members[i];
        if (!m->open || m->length + 1 >= LONGEST || m->length == 0)
            continue;
        m->tokens[m->length] = (int32_t)below(w, 3);
        if (quire_step_add(step, m->seq, m->tokens + m->length, 1) == QUIRE_OK)
            rows[count++] = m;
    }
    if (count == 0) {
        quire_step_cancel(step);
        return;
    }
    sync_stream(w);
    for (uint32_t i = 0; i < count; i++)
        put_token(w, rows[i], rows[i]->length, i);
    assert_int_equal(quire_step_graph(step, ROWS, LONGEST), QUIRE_OK);
    assert_int_equal(quire_step_submit(step), QUIRE_OK);
    capture_or_replay(w, quire_step_view(step, 0));
    assert_int_equal(quire_step_commit(step), QUIRE_OK);
    sync_stream(w);
    check_outputs(w, rows, count);
    w->short_steps += count < ROWS;
    for (uint32_t i = 0; i < count; i++)
        rows[i]->length++;
}

static void open_member(world *w, member *m)
{
    quire_seq_info info;
    uint32_t keep = 6 + below(w, 22);

    memcpy(m->tokens, w->prompts[below(w, PROMPTS)], keep * sizeof *m->tokens);
    m->target = keep;
    assert_int_equal(quire_seq_open(w->cache, NULL, &m->seq), QUIRE_OK);
    assert_int_equal(quire_seq_match(w->cache, m->seq, m->tokens, keep, NULL), QUIRE_OK);
    if (below(w, 2) == 0) /* else a step may run ahead of the restore */
        assert_int_equal(quire_seq_wait(w->cache, m->seq, 10 * 1000 * 1000), QUIRE_OK);
    assert_int_equal(quire_seq_get(w->cache, m->seq, &info), QUIRE_OK);
    m->length = (uint32_t)info.length;
    m->open = true;
    if (m->length + 1 < m->target || m->length == 0)
        prefill(w, m);
}

static void close_member(world *w, member *m)
{
    assert_int_equal(quire_seq_close(w->cache, m->seq), QUIRE_OK);
    m->open = false;
}

static void operate(world *w)
{
    member *m = &w->members[below(w, MEMBERS)], *other = &w->members[below(w, MEMBERS)];
    uint32_t dice = below(w, 100);

    if (dice < 60) {
        decode(w);
    } else if (!m->open) {
        open_member(w, m);
    } else if (dice < 75 && !other->open && m->length > 0) {
        *other = *m;
        if (quire_seq_fork(w->cache, m->seq, &other->seq) != QUIRE_OK)
            other->open = false;
    } else {
        close_member(w, m);
    }
}

static void world_open(world *w, const char *device, uint64_t seed, uint32_t restore_parts)
{
    quire_group group = {.layers = LAYERS, .kv_heads = 1, .head_dim = HEAD_DIM, .query_heads = QUERY_HEADS,
                         .dtype = QUIRE_DTYPE_BF16};
    quire_options o;
    uint64_t block = 0;

    memset(w, 0, sizeof *w);
    w->random = seed;
    for (int i = 0; i < PROMPTS * LONGEST; i++)
        w->prompts[i / LONGEST][i % LONGEST] = (int32_t)below(w, 3);
    assert_int_equal(quire_options_init(&o, sizeof o), QUIRE_OK);
    o.groups = &group;
    o.group_count = 1;
    o.device = device;
    o.block_tokens = BLOCK_TOKENS;
    assert_int_equal(quire_block_bytes(&o, &block), QUIRE_OK);
    o.device_bytes = DEVICE_BLOCKS * block;
    o.host_bytes = HOST_BLOCKS * block;
    o.max_sequences = MEMBERS;
    o.max_seq_tokens = LONGEST;
    o.max_step_tokens = LONGEST;
    o.restore_parts = restore_parts;
    o.hash_key = seed;
    o.threads = 1;
    o.log_level = QUIRE_LOG_OFF;
    assert_int_equal(quire_cache_open(&w->cache, &o), QUIRE_OK);
    w->cache->share_least = 1; /* shared prefixes would be read apart wherever two rows have one */
    float **buffers[] = {w->k, w->v, w->q, w->out};
    for (int i = 0; i < 4 * LAYERS; i++) {
        void *memory;
        assert_int_equal(quire__device_alloc(w->cache->device, QUIRE__MEMORY_DEVICE,
                                             LONGEST * QUERY_HEADS * HEAD_DIM * sizeof(float), &memory), QUIRE_OK);
        memset(memory, 0, LONGEST * QUERY_HEADS * HEAD_DIM * sizeof(float));
        buffers[i / LAYERS][i % LAYERS] = memory;
    }
    listen_to(w->cache->device);
}

static quire_stats world_close(world *w)
{
    quire_stats stats = {.size = sizeof stats};
    float **buffers[] = {w->k, w->v, w->q, w->out};

    for (int i = 0; i < MEMBERS; i++)
        if (w->members[i].open)
            close_member(w, &w->members[i]);
    assert_int_equal(quire_cache_drain(w->cache, 10 * 1000 * 1000), QUIRE_OK);
    assert_int_equal(quire_cache_check(w->cache), QUIRE_OK);
    assert_int_equal(quire_cache_stats(w->cache, &stats), QUIRE_OK);
    for (int i = 0; i < 4 * LAYERS; i++)
        quire__device_free(w->cache->device, QUIRE__MEMORY_DEVICE, buffers[i / LAYERS][i % LAYERS]);
    w->cache->device->ops = heard.true_ops;
    quire_cache_close(w->cache);
    return stats;
}

/* ---- the promises -------------------------------------------------------------------------------------------- */

static void run(const char *device, uint64_t seed, uint32_t restore_parts)
{
    static world w;
    world_open(&w, device, seed, restore_parts);
    for (int i = 0; i < (getenv("QUIRE_TEST_SMALL") ? 150 : 400); i++)
        operate(&w);
    assert_int_equal(heard.forbidden, 0);
    uint32_t replays = w.replays, short_steps = w.short_steps;
    quire_stats stats = world_close(&w);
    assert_true(replays > 20 && short_steps > 5); /* or it would have shown little */
    assert_true(stats.evictions_device > 0 && stats.restores > 0 && stats.copies_on_write > 0);
}

static void launches_of_one_step_serve_all_later_ones_on_the_host(void **state)
{
    (void)state;
    run("host", test_seed("host", 11), 1);
    run("host", 12, 4);
}

static void launches_of_one_step_serve_all_later_ones_on_the_sim_device(void **state)
{
    char device[32];
    uint64_t seed = test_seed("sim", 21);
    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        snprintf(device, sizeof device, "sim:%llu", (unsigned long long)(seed + i));
        run(device, seed + i, i % 2 == 0 ? 1 : 4);
    }
}

static void what_does_not_fit_the_graph_is_refused_with_a_reason(void **state)
{
    static world w;
    quire_step *step;
    member *m = &w.members[0];
    (void)state;
    world_open(&w, "host", 31, 1);
    open_member(&w, m);
    assert_int_equal(quire_step_graph(NULL, 1, 1), QUIRE_ESTATE);
    assert_int_equal(quire_step_begin(w.cache, NULL, &step), QUIRE_OK);
    assert_int_equal(quire_step_graph(step, 0, LONGEST), QUIRE_EINVAL);
    assert_int_equal(quire_step_graph(step, MEMBERS + 1, LONGEST), QUIRE_EINVAL);
    assert_int_equal(quire_step_graph(step, 1, 0), QUIRE_EINVAL);
    assert_int_equal(quire_step_graph(step, 1, LONGEST + 1), QUIRE_EINVAL);
    assert_int_equal(quire_step_add(step, m->seq, m->tokens, 2), QUIRE_OK);
    assert_int_equal(quire_step_graph(step, 2, LONGEST), QUIRE_OK);
    assert_int_equal(quire_step_submit(step), QUIRE_EINVAL);
    assert_non_null(strstr(quire_error_text(), "has 2 new tokens"));
    quire_step_cancel(step);
    assert_int_equal(quire_step_begin(w.cache, NULL, &step), QUIRE_OK);
    assert_int_equal(quire_step_add(step, m->seq, m->tokens, 1), QUIRE_OK);
    assert_int_equal(quire_step_graph(step, 1, m->length), QUIRE_OK);
    assert_int_equal(quire_step_submit(step), QUIRE_EINVAL);
    assert_int_equal(quire_step_graph(step, 1, m->length + 1), QUIRE_OK);
    assert_int_equal(quire_step_submit(step), QUIRE_OK);
    quire_step_cancel(step);
    (void)world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(launches_of_one_step_serve_all_later_ones_on_the_host),
        cmocka_unit_test(launches_of_one_step_serve_all_later_ones_on_the_sim_device),
        cmocka_unit_test(what_does_not_fit_the_graph_is_refused_with_a_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
