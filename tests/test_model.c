/* Model files that are not what they must be; and the tiny model against a plain forward pass in double. */
#include "support/testing.h"

#include "backend_host.h"
#include "forward.h"
#include "support/tiny_model.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

typedef struct rig {
    uint8_t *bytes;
    gguf_file *file;
    backend *backend;
    model *model;
} rig;

static int open_rig(rig *r, const tiny_fault *fault, uint32_t context, infer_error *error)
{
    size_t size;
    memset(r, 0, sizeof *r);
    r->bytes = tiny_model_bytes(3, fault, &size);
    if (gguf_open_memory(&r->file, r->bytes, size, error) || backend_host_open(&r->backend, 2, error))
        fail_msg("%s", error->text);
    return model_open(&r->model, r->file, r->backend, context, error);
}

static void close_rig(rig *r)
{
    model_close(r->model);
    r->backend->ops->close(r->backend);
    gguf_close(r->file);
    free(r->bytes);
}

static void test_a_wrong_model_is_refused_with_the_reason(void **state)
{
    (void)state;
    static const struct { tiny_fault fault; uint32_t context; const char *reason; } cases[] = {
        { { .architecture = "mamba" }, 0, "architecture is \"mamba\"; this example knows \"llama\" and \"gemma3\"" },
        { { .missing = "token_embd.weight" }, 0, "no tensor token_embd.weight" },
        { { .missing = "output_norm.weight" }, 0, "no tensor output_norm.weight" },
        { { .missing = "blk.1.ffn_up.weight" }, 0, "no tensor blk.1.ffn_up.weight" },
        { { .misshapen = "blk.0.attn_k.weight" }, 0, "tensor blk.0.attn_k.weight is 15 x 48" },
        { { .unknown = "blk.0.attn_q.bias" }, 0, "no plain llama" },
        { { .architecture = NULL }, TINY_CONTEXT + 1, "trained for 512" },
        { { .gemma = 1, .missing = "blk.1.attn_k_norm.weight" }, 0, "no tensor blk.1.attn_k_norm.weight" },
        { { .gemma = 1, .architecture = "llama" }, 0, "llama.block_count" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        rig r;
        infer_error error = { "" };
        assert_int_equal(open_rig(&r, &cases[i].fault, cases[i].context, &error), -1);
        if (!strstr(error.text, cases[i].reason)) fail_msg("case %zu: %s", i, error.text);
        close_rig(&r);
    }
}

/* ---- a plain forward pass ---------------------------------------------------------------------------------- */

enum { TOKENS = 40, QUERY = TINY_HEADS * TINY_HEAD_DIM, KV = TINY_KV_HEADS * TINY_HEAD_DIM };

static void product(const gguf_file *file, const char *name, int layer, const double *x, size_t rows, size_t columns,
                    double *y)
{
    char full[64];
    float row[TINY_FFN];
    infer_error error;
    if (layer < 0) snprintf(full, sizeof full, "%s.weight", name);
    else snprintf(full, sizeof full, "blk.%d.%s.weight", layer, name);
    const gguf_tensor *tensor = gguf_find_tensor(file, full);
    for (size_t r = 0; r < rows; r++) {
        assert_int_equal(gguf_tensor_rows(tensor, r, 1, row, &error), 0);
        y[r] = 0;
        for (size_t c = 0; c < columns; c++) y[r] += x[c] * (double)row[c];
    }
}

static void normed(const gguf_file *file, const char *name, int layer, const double *x, double *y)
{
    char full[64];
    float gain[TINY_WIDTH];
    infer_error error;
    double squares = 0;
    if (layer < 0) snprintf(full, sizeof full, "%s.weight", name);
    else snprintf(full, sizeof full, "blk.%d.%s.weight", layer, name);
    assert_int_equal(gguf_tensor_rows(gguf_find_tensor(file, full), 0, 1, gain, &error), 0);
    for (int i = 0; i < TINY_WIDTH; i++) squares += x[i] * x[i];
    for (int i = 0; i < TINY_WIDTH; i++) y[i] = x[i] / sqrt(squares / TINY_WIDTH + 1e-5) * (double)gain[i];
}

/* Gemma: each head's norm, which all heads share. */
static void norm_heads(const gguf_file *file, const char *name, int layer, double *x, int heads)
{
    char full[64];
    float gain[TINY_HEAD_DIM];
    infer_error error;
    snprintf(full, sizeof full, "blk.%d.%s.weight", layer, name);
    assert_int_equal(gguf_tensor_rows(gguf_find_tensor(file, full), 0, 1, gain, &error), 0);
    for (int h = 0; h < heads; h++, x += TINY_HEAD_DIM) {
        double squares = 0;
        for (int i = 0; i < TINY_HEAD_DIM; i++) squares += x[i] * x[i];
        for (int i = 0; i < TINY_HEAD_DIM; i++) x[i] *= (double)gain[i] / sqrt(squares / TINY_HEAD_DIM + 1e-5);
    }
}

/* A pair is two neighbours, or in `halves` element i of each half. */
static void turn(double *x, int heads, int position, double base, bool halves)
{
    for (int h = 0; h < heads; h++, x += TINY_HEAD_DIM)
        for (int i = 0; i < TINY_HEAD_DIM / 2; i++) {
            double angle = position * pow(base, -2.0 * i / TINY_HEAD_DIM);
            double *first = x + (halves ? i : 2 * i), *second = halves ? first + TINY_HEAD_DIM / 2 : first + 1;
            double a = *first, b = *second;
            *first = a * cos(angle) - b * sin(angle);
            *second = a * sin(angle) + b * cos(angle);
        }
}

static void attend(const double *q, double k[TOKENS][KV], double v[TOKENS][KV], int position, int window,
                   double *out)
{
    int first = window && position >= window ? position - window + 1 : 0;
    for (int h = 0; h < TINY_HEADS; h++) {
        int kv = h / (TINY_HEADS / TINY_KV_HEADS) * TINY_HEAD_DIM;
        double weight[TOKENS], total = 0, *to = out + h * TINY_HEAD_DIM;
        for (int p = first; p <= position; p++) {
            double dot = 0;
            for (int i = 0; i < TINY_HEAD_DIM; i++) dot += q[h * TINY_HEAD_DIM + i] * k[p][kv + i];
            total += weight[p] = exp(dot / sqrt((double)TINY_HEAD_DIM));
        }
        for (int i = 0; i < TINY_HEAD_DIM; i++) {
            to[i] = 0;
            for (int p = first; p <= position; p++) to[i] += weight[p] / total * v[p][kv + i];
        }
    }
}

static void join(const gguf_file *file, const char *norm, int layer, const double *add, bool gemma, double *x)
{
    double n[TINY_WIDTH];
    if (gemma) normed(file, norm, layer, add, n);
    for (int i = 0; i < TINY_WIDTH; i++) x[i] += gemma ? n[i] : add[i];
}

static void plain_forward(const gguf_file *file, const char *head, bool gemma, const int32_t *ids, double *logits)
{
    static double k[TINY_LAYERS][TOKENS][KV], v[TINY_LAYERS][TOKENS][KV];
    infer_error error;
    for (int t = 0; t < TOKENS; t++) {
        float embedding[TINY_WIDTH];
        double x[TINY_WIDTH], n[TINY_WIDTH], q[QUERY], o[QUERY], gate[TINY_FFN], up[TINY_FFN], add[TINY_WIDTH];
        const gguf_tensor *table = gguf_find_tensor(file, "token_embd.weight");
        assert_int_equal(gguf_tensor_rows(table, (uint64_t)ids[t], 1, embedding, &error), 0);
        for (int i = 0; i < TINY_WIDTH; i++) x[i] = (double)embedding[i] * (gemma ? sqrt(TINY_WIDTH) : 1);
        for (int l = 0; l < TINY_LAYERS; l++) {
            bool local = gemma && l == 0;
            normed(file, "attn_norm", l, x, n);
            product(file, "attn_q", l, n, QUERY, TINY_WIDTH, q);
            product(file, "attn_k", l, n, KV, TINY_WIDTH, k[l][t]);
            product(file, "attn_v", l, n, KV, TINY_WIDTH, v[l][t]);
            if (gemma) norm_heads(file, "attn_q_norm", l, q, TINY_HEADS);
            if (gemma) norm_heads(file, "attn_k_norm", l, k[l][t], TINY_KV_HEADS);
            turn(q, TINY_HEADS, t, local ? TINY_LOCAL_BASE : TINY_BASE, gemma);
            turn(k[l][t], TINY_KV_HEADS, t, local ? TINY_LOCAL_BASE : TINY_BASE, gemma);
            attend(q, k[l], v[l], t, local ? TINY_WINDOW : 0, o);
            product(file, "attn_output", l, o, TINY_WIDTH, QUERY, add);
            join(file, "post_attention_norm", l, add, gemma, x);
            normed(file, "ffn_norm", l, x, n);
            product(file, "ffn_gate", l, n, TINY_FFN, TINY_WIDTH, gate);
            product(file, "ffn_up", l, n, TINY_FFN, TINY_WIDTH, up);
            for (int i = 0; i < TINY_FFN; i++) {
                double g = gate[i], u = sqrt(2 / acos(-1.0)) * (g + 0.044715 * g * g * g);
                gate[i] = (gemma ? g / 2 * (1 + tanh(u)) : g / (1 + exp(-g))) * up[i];
            }
            product(file, "ffn_down", l, gate, TINY_WIDTH, TINY_FFN, add);
            join(file, "post_ffw_norm", l, add, gemma, x);
        }
        normed(file, "output_norm", -1, x, n);
        product(file, head, -1, n, TINY_VOCABULARY, TINY_WIDTH, logits + t * TINY_VOCABULARY);
    }
}

static void compare_with_plain(const tiny_fault *fault, const char *head)
{
    rig r;
    infer_error error;
    quire_options options;
    quire_cache *cache;
    quire_seq seq;
    quire_step *step;
    forward *f;
    int32_t ids[TOKENS], wanted[TOKENS];
    static double want[TOKENS * TINY_VOCABULARY];
    static float got[TOKENS * TINY_VOCABULARY];
    double largest = 0, worst = 0;
    if (open_rig(&r, fault, 0, &error)) fail_msg("%s", error.text);
    for (int i = 0; i < TOKENS; i++) {
        ids[i] = (i * 37 + 11) % TINY_VOCABULARY;
        wanted[i] = i;
    }
    quire_group groups[MODEL_MOST_GROUPS];
    assert_int_equal(quire_options_init(&options, sizeof options), QUIRE_OK);
    options.groups = groups;
    options.group_count = model_groups(r.model, groups);
    options.dtype = QUIRE_DTYPE_F32;
    options.device = "host";
    options.device_bytes = 1 << 20;
    options.host_bytes = 0;
    assert_int_equal(quire_cache_open(&cache, &options), QUIRE_OK);
    assert_int_equal(forward_open(&f, r.model, TOKENS, TOKENS, &error), 0);
    assert_int_equal(quire_seq_open(cache, NULL, &seq), QUIRE_OK);
    assert_int_equal(quire_step_begin(cache, NULL, &step), QUIRE_OK);
    assert_int_equal(quire_step_add(step, seq, ids, TOKENS), QUIRE_OK);
    assert_int_equal(quire_step_submit(step), QUIRE_OK);
    if (forward_run(f, step, ids, wanted, TOKENS, got, &error)) fail_msg("%s", error.text);
    assert_int_equal(quire_step_commit(step), QUIRE_OK);
    plain_forward(r.file, head, fault->gemma, ids, want);
    for (int t = 0; t < TOKENS; t++)
        for (int i = 0; i < TINY_VOCABULARY; i++) {
            double expected = want[t * TINY_VOCABULARY + i];
            double off = fabs((double)got[(size_t)t * backend_stride(TINY_VOCABULARY) + (size_t)i] - expected);
            worst = off > worst ? off : worst;
            largest = fabs(expected) > largest ? fabs(expected) : largest;
        }
    print_message("largest logit %.3f, largest difference %.2e\n", largest, worst);
    assert_true(worst <= 1e-5 * largest);
    forward_close(f);
    quire_cache_close(cache);
    close_rig(&r);
}

static void test_logits_equal_a_plain_forward_pass(void **state)
{
    (void)state;
    compare_with_plain(&(tiny_fault){ 0 }, "token_embd");
}

static void test_a_separate_output_matrix_is_used(void **state)
{
    (void)state;
    compare_with_plain(&(tiny_fault){ .separate_head = 1 }, "output");
}

static void test_logits_of_a_gemma_equal_a_plain_forward_pass(void **state)
{
    (void)state;
    compare_with_plain(&(tiny_fault){ .gemma = 1 }, "token_embd");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_wrong_model_is_refused_with_the_reason),
        cmocka_unit_test(test_logits_equal_a_plain_forward_pass),
        cmocka_unit_test(test_logits_of_a_gemma_equal_a_plain_forward_pass),
        cmocka_unit_test(test_a_separate_output_matrix_is_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
