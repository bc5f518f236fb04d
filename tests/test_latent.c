/* test_latent.c: a latent group through the public interface: half of the bytes, the right numbers, and the same bits
 * whether a row was computed now, shared by a fork, or fetched from the host tier. */
#include "support/testing.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "device/host_latent.h"
#include "device/host_ops.h"
#include "quire/quire.h"

enum { LAYERS = 2, ROW = 576, VALUES = 512, HEADS = 6, BLOCK_TOKENS = 8, MOST = 64 };

static const float scale = 1.0f / 24;

static quire_status open_cache(quire_cache **cache, const char *device, const quire_group *group, uint64_t device_blocks,
                               uint64_t host_blocks)
{
    quire_options options;
    uint64_t bytes = 0;
    assert_int_equal(quire_options_init(&options, sizeof options), QUIRE_OK);
    options.groups = group;
    options.group_count = 1;
    options.device = device;
    options.block_tokens = BLOCK_TOKENS;
    options.max_step_tokens = MOST;
    options.watermark_blocks = 0;
    options.policy = "lru"; /* what others need goes first */
    options.threads = 2;
    if (quire_block_bytes(&options, &bytes) != QUIRE_OK)
        bytes = 1 << 20;
    options.device_bytes = device_blocks * bytes;
    options.host_bytes = host_blocks * bytes;
    options.offload = host_blocks > 0 ? QUIRE_OFFLOAD_WRITE_THROUGH : QUIRE_OFFLOAD_NONE;
    return quire_cache_open(cache, &options);
}

static const quire_group latent_group = {.layers = LAYERS, .kv_heads = 1, .head_dim = ROW, .query_heads = HEADS,
                                         .dtype = QUIRE_DTYPE_BF16, .value_dim = VALUES};

/* What the model computes of a token: any function of token, layer and place. */
static float made_up(int32_t token, uint32_t layer, uint32_t what, uint32_t i)
{
    uint32_t x = (uint32_t)token * 2654435761u ^ (layer * 97 + what * 31 + i) * 2246822519u;
    x ^= x >> 15, x *= 2654435761u, x ^= x >> 13;
    return (float)(int32_t)x * 0x1p-31f * 2;
}

typedef struct inputs {
    float latent[MOST][VALUES], rope[MOST][ROW - VALUES], q[MOST][HEADS][ROW], out[MOST][HEADS][VALUES];
} inputs;

static inputs in;

static void fill(const int32_t *tokens, uint32_t count, uint32_t layer)
{
    for (uint32_t t = 0; t < count; t++) {
        for (uint32_t i = 0; i < VALUES; i++)
            in.latent[t][i] = made_up(tokens[t], layer, 0, i);
        for (uint32_t i = 0; i < ROW - VALUES; i++)
            in.rope[t][i] = made_up(tokens[t], layer, 1, i);
        for (uint32_t i = 0; i < HEADS * ROW; i++)
            in.q[t][i / ROW][i % ROW] = 8 * made_up(tokens[t], layer, 2, i);
    }
}

static quire_tensor tensor(void *data, uint32_t heads, int64_t dims)
{
    return (quire_tensor){data, QUIRE_DTYPE_F32, heads, heads * dims, dims};
}

/* One step of one sequence; `out`, [count][LAYERS][HEADS][VALUES], may be NULL. */
static void run(quire_cache *cache, quire_seq seq, const int32_t *tokens, uint32_t count, float *out)
{
    quire_step *step;
    assert_int_equal(quire_step_begin(cache, NULL, &step), QUIRE_OK);
    assert_int_equal(quire_step_add(step, seq, tokens, count), QUIRE_OK);
    assert_int_equal(quire_step_submit(step), QUIRE_OK);
    const quire_view *view = quire_step_view(step, 0);
    assert_int_equal(view->value_dim, VALUES);
    assert_int_equal(view->kv_stride, 0);
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        quire_tensor latent = tensor(in.latent, 1, VALUES), rope = tensor(in.rope, 1, ROW - VALUES);
        quire_tensor q = tensor(in.q, HEADS, ROW), result = tensor(in.out, HEADS, VALUES);
        fill(tokens, count, layer);
        assert_int_equal(quire_append_latent(view, layer, &latent, &rope), QUIRE_OK);
        assert_int_equal(quire_attend_latent(view, layer, &q, &result, scale), QUIRE_OK);
        for (uint32_t t = 0; out != NULL && t < count; t++)
            memcpy(out + (size_t)(t * LAYERS + layer) * HEADS * VALUES, in.out[t], sizeof in.out[t]);
    }
    assert_int_equal(quire_step_commit(step), QUIRE_OK);
}

enum { TOKEN_FLOATS = LAYERS * HEADS * VALUES };

/* The same in float64, over rows rounded to bf16. */
static double worst_error(const int32_t *tokens, uint32_t position, const float *out)
{
    static double rows[MOST][ROW];
    double worst = 0;
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        for (uint32_t key = 0; key <= position; key++)
            for (uint32_t i = 0; i < ROW; i++) {
                uint16_t stored;
                float value = i < VALUES ? made_up(tokens[key], layer, 0, i) : made_up(tokens[key], layer, 1, i - VALUES);
                quire__dtype_store(QUIRE_DTYPE_BF16, &stored, value);
                rows[key][i] = (double)quire__dtype_load(QUIRE_DTYPE_BF16, &stored);
            }
        for (uint32_t head = 0; head < HEADS; head++) {
            double weights[MOST], sum = 0, difference = 0, length = 0;
            for (uint32_t key = 0; key <= position; key++) {
                double score = 0;
                for (uint32_t i = 0; i < ROW; i++)
                    score += 8.0 * (double)made_up(tokens[position], layer, 2, head * ROW + i) * rows[key][i];
                weights[key] = exp(score * (double)scale);
                sum += weights[key];
            }
            for (uint32_t i = 0; i < VALUES; i++) {
                double want = 0, got = (double)out[(layer * HEADS + head) * VALUES + i];
                for (uint32_t key = 0; key <= position; key++)
                    want += weights[key] / sum * rows[key][i];
                difference += (got - want) * (got - want);
                length += want * want;
            }
            worst = fmax(worst, sqrt(difference / length));
        }
    }
    return worst;
}

static void tell(int32_t *tokens, uint32_t count, int32_t first)
{
    for (uint32_t i = 0; i < count; i++)
        tokens[i] = first + (int32_t)i * 7;
}

static void a_token_takes_one_row_and_attends_to_rows(void **state)
{
    (void)state;
    int32_t tokens[30];
    float *out = malloc(30 * TOKEN_FLOATS * sizeof *out);
    quire_cache *cache;
    quire_seq seq;
    quire_stats stats = {.size = sizeof stats};
    tell(tokens, 30, 100);
    assert_int_equal(open_cache(&cache, "host", &latent_group, 8, 0), QUIRE_OK);
    assert_int_equal(quire_cache_stats(cache, &stats), QUIRE_OK);
    assert_int_equal(stats.block_bytes, LAYERS * BLOCK_TOKENS * ROW * 2);
    assert_int_equal(quire_seq_open(cache, NULL, &seq), QUIRE_OK);
    run(cache, seq, tokens, 25, out);
    for (uint32_t i = 25; i < 30; i++)
        run(cache, seq, tokens + i, 1, out + (size_t)i * TOKEN_FLOATS);
    for (uint32_t i = 0; i < 30; i += 4)
        assert_true(worst_error(tokens, i, out + (size_t)i * TOKEN_FLOATS) < 5e-5); /* scores of 20 and more, in f32 */
    quire_cache_close(cache);
    free(out);
}

/* Steps of another size, a fork, a match on the device, a match from the host: the bits stay. */
static void bits_stay_over_steps_forks_and_restores_on(const char *device)
{
    int32_t tokens[40], other[40], turn[2] = {5, 6};
    const size_t bytes = TOKEN_FLOATS * sizeof(float);
    float *first = malloc(40 * bytes), *again = malloc(40 * bytes);
    quire_cache *cache;
    quire_seq seq, child;
    quire_hit hit;
    tell(tokens, 40, 1000);
    assert_int_equal(open_cache(&cache, device, &latent_group, 12, 64), QUIRE_OK);
    assert_int_equal(quire_seq_open(cache, NULL, &seq), QUIRE_OK);
    run(cache, seq, tokens, 36, first);
    assert_int_equal(quire_seq_fork(cache, seq, &child), QUIRE_OK);
    run(cache, seq, turn, 1, first + 36 * TOKEN_FLOATS);
    run(cache, child, turn + 1, 1, first + 37 * TOKEN_FLOATS);
    assert_int_equal(quire_seq_close(cache, seq), QUIRE_OK);
    assert_int_equal(quire_seq_close(cache, child), QUIRE_OK);

    for (int32_t round = 0; round < 4; round++) { /* others come and take the whole device */
        tell(other, 40, 100000 + 1000 * round);
        assert_int_equal(quire_seq_open(cache, NULL, &seq), QUIRE_OK);
        run(cache, seq, other, 40, NULL);
        assert_int_equal(quire_seq_close(cache, seq), QUIRE_OK);
        assert_int_equal(quire_cache_drain(cache, 10000000), QUIRE_OK);
    }
    assert_int_equal(quire_seq_open(cache, NULL, &seq), QUIRE_OK);
    assert_int_equal(quire_seq_match(cache, seq, tokens, 40, &hit), QUIRE_OK);
    assert_int_equal(hit.tokens, 32);
    assert_true(hit.host > 0);
    assert_int_equal(quire_seq_wait(cache, seq, 10000000), QUIRE_OK);
    for (uint32_t i = 32; i < 36; i++)
        run(cache, seq, tokens + i, 1, again + (size_t)i * TOKEN_FLOATS);
    assert_memory_equal(again + 32 * TOKEN_FLOATS, first + 32 * TOKEN_FLOATS, 4 * bytes);
    assert_int_equal(quire_seq_fork(cache, seq, &child), QUIRE_OK);
    run(cache, child, turn + 1, 1, again + 37 * TOKEN_FLOATS);
    run(cache, seq, turn, 1, again + 36 * TOKEN_FLOATS);
    assert_memory_equal(again + 36 * TOKEN_FLOATS, first + 36 * TOKEN_FLOATS, 2 * bytes);
    assert_int_equal(quire_cache_check(cache), QUIRE_OK);
    quire_cache_close(cache);
    free(first);
    free(again);
}

static void bits_stay_over_steps_forks_and_restores(void **state)
{
    (void)state;
    bits_stay_over_steps_forks_and_restores_on("host");
}

static void what_a_latent_group_cannot_be_is_refused(void **state)
{
    (void)state;
    quire_cache *cache = NULL;
    quire_group group = latent_group;
    group.kv_heads = 2;
    assert_int_equal(open_cache(&cache, "host", &group, 8, 0), QUIRE_EINVAL);
    assert_non_null(strstr(quire_error_text(), "kv_heads"));
    group = latent_group;
    group.value_dim = 584;
    assert_int_equal(open_cache(&cache, "host", &group, 8, 0), QUIRE_EINVAL);
    group.value_dim = 100;
    assert_int_equal(open_cache(&cache, "host", &group, 8, 0), QUIRE_EINVAL);
    group = latent_group;
    group.head_dim = 584;
    assert_int_equal(open_cache(&cache, "host", &group, 8, 0), QUIRE_EINVAL);
    group = latent_group;
    group.dtype = QUIRE_DTYPE_FP8_E4M3;
    assert_int_equal(open_cache(&cache, "host", &group, 8, 0), QUIRE_EUNSUPPORTED);
    group = latent_group;
    group.value_dim = 0; /* then head_dim is that of K and V */
    assert_int_equal(open_cache(&cache, "host", &group, 8, 0), QUIRE_EINVAL);
}

static void calls_of_the_other_kind_of_group_are_refused(void **state)
{
    (void)state;
    const quire_group plain = {.layers = 1, .kv_heads = 1, .head_dim = 64, .query_heads = HEADS,
                               .dtype = QUIRE_DTYPE_BF16};
    const int32_t token = 3;
    for (int latent = 0; latent < 2; latent++) {
        quire_cache *cache;
        quire_seq seq;
        quire_step *step;
        quire_tensor row = tensor(in.latent, 1, VALUES), q = tensor(in.q, HEADS, ROW), out = tensor(in.out, HEADS, VALUES);
        assert_int_equal(open_cache(&cache, "host", latent ? &latent_group : &plain, 8, 0), QUIRE_OK);
        assert_int_equal(quire_seq_open(cache, NULL, &seq), QUIRE_OK);
        assert_int_equal(quire_step_begin(cache, NULL, &step), QUIRE_OK);
        assert_int_equal(quire_step_add(step, seq, &token, 1), QUIRE_OK);
        assert_int_equal(quire_step_submit(step), QUIRE_OK);
        const quire_view *view = quire_step_view(step, 0);
        assert_int_equal(latent ? quire_append(view, 0, &row, &row) : quire_append_latent(view, 0, &row, &row),
                         QUIRE_EINVAL);
        assert_int_equal(latent ? quire_attend(view, 0, &q, &out, 1) : quire_attend_latent(view, 0, &q, &out, 1),
                         QUIRE_EINVAL);
        if (latent) {
            assert_int_equal(quire_append_latent(view, 0, &row, NULL), QUIRE_EINVAL);
            assert_int_equal(quire_attend_latent(view, 0, &row, &out, 1), QUIRE_EINVAL); /* one head */
            assert_int_equal(quire_attend_latent(view, 0, &q, &out, NAN), QUIRE_EINVAL);
        }
        quire_cache_close(cache);
    }
}

/* The host's vectors against the scalar twin, over shapes that fill no vector. */
static void the_host_computes_what_the_twin_computes(void **state)
{
    (void)state;
    int32_t tokens[20];
    float *out = malloc(20 * TOKEN_FLOATS * sizeof *out);
    quire_cache *cache;
    quire_seq seq;
    quire_step *step;
    tell(tokens, 20, 77);
    assert_int_equal(open_cache(&cache, "host", &latent_group, 8, 0), QUIRE_OK);
    assert_int_equal(quire_seq_open(cache, NULL, &seq), QUIRE_OK);
    run(cache, seq, tokens, 19, out);
    assert_int_equal(quire_step_begin(cache, NULL, &step), QUIRE_OK);
    assert_int_equal(quire_step_add(step, seq, tokens + 19, 1), QUIRE_OK);
    assert_int_equal(quire_step_submit(step), QUIRE_OK);
    const quire_view *view = quire_step_view(step, 0);
    quire_tensor latent = tensor(in.latent, 1, VALUES), rope = tensor(in.rope, 1, ROW - VALUES);
    quire_tensor q = tensor(in.q, HEADS, ROW), result = tensor(in.out, HEADS, VALUES), twin = tensor(out, HEADS, VALUES);
    fill(tokens + 19, 1, 1);
    assert_int_equal(quire_append_latent(view, 1, &latent, &rope), QUIRE_OK);
    assert_int_equal(quire_attend_latent(view, 1, &q, &result, scale), QUIRE_OK);
    quire__attend_args args = {.pages = {.arena = view->arena, .block_stride = view->block_stride,
                                         .layer_stride = view->layer_stride, .token_stride = view->token_stride,
                                         .block_tokens = BLOCK_TOKENS, .kv_heads = 1, .head_dim = ROW,
                                         .dtype = QUIRE_DTYPE_BF16, .value_dim = VALUES},
                               .layer = 1, .query_heads = HEADS, .scale = scale, .q = q, .out = twin,
                               .block_table = view->block_table, .table_stride = (int32_t)view->table_stride,
                               .token_rows = view->token_rows, .positions = view->positions, .count = 1};
    quire__host_latent_attend(&args);
    for (uint32_t i = 0; i < HEADS * VALUES; i++)
        assert_true(fabsf(in.out[0][i / VALUES][i % VALUES] - out[i]) < 1e-4f);
    quire_cache_close(cache);
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_takes_one_row_and_attends_to_rows),
        cmocka_unit_test(bits_stay_over_steps_forks_and_restores),
        cmocka_unit_test(what_a_latent_group_cannot_be_is_refused),
        cmocka_unit_test(calls_of_the_other_kind_of_group_are_refused),
        cmocka_unit_test(the_host_computes_what_the_twin_computes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
