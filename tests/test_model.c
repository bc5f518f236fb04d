/* Model files that are not what they must be; and the tiny model against a plain forward pass in double. */
#include "support/testing.h"

#include "backend_host.h"
#include "forward.h"
#include "support/tiny_model.h"

#include <math.h>
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
        { { .architecture = "mamba" }, 0, "architecture is \"mamba\"; this example knows \"llama\"" },
        { { .missing = "token_embd.weight" }, 0, "no tensor token_embd.weight" },
        { { .missing = "output_norm.weight" }, 0, "no tensor output_norm.weight" },
        { { .missing = "blk.1.ffn_up.weight" }, 0, "no tensor blk.1.ffn_up.weight" },
        { { .misshapen = "blk.0.attn_k.weight" }, 0, "tensor blk.0.attn_k.weight is 15 x 48" },
        { { .unknown = "blk.0.attn_q.bias" }, 0, "no plain Llama" },
        { { .architecture = NULL }, TINY_CONTEXT + 1, "trained for 512" },
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

static void turn(double *x, int heads, int position)
{
    for (int h = 0; h < heads; h++)
        for (int i = 0; i < TINY_HEAD_DIM; i += 2) {
            double angle = position * pow(10000.0, -(double)i / TINY_HEAD_DIM);
            double *pair = x + h * TINY_HEAD_DIM + i, even = pair[0], odd = pair[1];
            pair[0] = even * cos(angle) - odd * sin(angle);
            pair[1] = even * sin(angle) + odd * cos(angle);
        }
}

static void attend(const double *q, double k[TOKENS][KV], double v[TOKENS][KV], int position, double *out)
{
    for (int h = 0; h < TINY_HEADS; h++) {
        int kv = h / (TINY_HEADS / TINY_KV_HEADS) * TINY_HEAD_DIM;
        double weight[TOKENS], total = 0, *to = out + h * TINY_HEAD_DIM;
        for (int p = 0; p <= position; p++) {
            double dot = 0;
            for (int i = 0; i < TINY_HEAD_DIM; i++) dot += q[h * TINY_HEAD_DIM + i] * k[p][kv + i];
            total += weight[p] = exp(dot / sqrt((double)TINY_HEAD_DIM));
        }
        for (int i = 0; i < TINY_HEAD_DIM; i++) {
            to[i] = 0;
            for (int p = 0; p <= position; p++) to[i] += weight[p] / total * v[p][kv + i];
        }
    }
}

static void plain_forward(const gguf_file *file, const char *head, const int32_t *ids, double *logits)
{
    static double k[TINY_LAYERS][TOKENS][KV], v[TINY_LAYERS][TOKENS][KV];
    infer_error error;
    for (int t = 0; t < TOKENS; t++) {
        float embedding[TINY_WIDTH];
        double x[TINY_WIDTH], n[TINY_WIDTH], q[QUERY], o[QUERY], gate[TINY_FFN], up[TINY_FFN], add[TINY_WIDTH];
        const gguf_tensor *table = gguf_find_tensor(file, "token_embd.weight");
        assert_int_equal(gguf_tensor_rows(table, (uint64_t)ids[t], 1, embedding, &error), 0);
        for (int i = 0; i < TINY_WIDTH; i++) x[i] = (double)embedding[i];
        for (int l = 0; l < TINY_LAYERS; l++) {
            normed(file, "attn_norm", l, x, n);
            product(file, "attn_q", l, n, QUERY, TINY_WIDTH, q);
            product(file, "attn_k", l, n, KV, TINY_WIDTH, k[l][t]);
            product(file, "attn_v", l, n, KV, TINY_WIDTH, v[l][t]);
            turn(q, TINY_HEADS, t);
            turn(k[l][t], TINY_KV_HEADS, t);
            attend(q, k[l], v[l], t, o);
            product(file, "attn_output", l, o, TINY_WIDTH, QUERY, add);
            for (int i = 0; i < TINY_WIDTH; i++) x[i] += add[i];
            normed(file, "ffn_norm", l, x, n);
            product(file, "ffn_gate", l, n, TINY_FFN, TINY_WIDTH, gate);
            product(file, "ffn_up", l, n, TINY_FFN, TINY_WIDTH, up);
            for (int i = 0; i < TINY_FFN; i++) gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
            product(file, "ffn_down", l, gate, TINY_WIDTH, TINY_FFN, add);
            for (int i = 0; i < TINY_WIDTH; i++) x[i] += add[i];
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
    quire_group group = { .layers = TINY_LAYERS, .kv_heads = TINY_KV_HEADS, .head_dim = TINY_HEAD_DIM,
                          .query_heads = TINY_HEADS, .dtype = QUIRE_DTYPE_F32 };
    assert_int_equal(quire_options_init(&options, sizeof options), QUIRE_OK);
    options.groups = &group;
    options.group_count = 1;
    options.device = "host";
    options.device_bytes = 1 << 20;
    options.host_bytes = 0;
    assert_int_equal(quire_cache_open(&cache, &options), QUIRE_OK);
    assert_int_equal(forward_open(&f, r.model, TOKENS, TOKENS, &error), 0);
    assert_int_equal(quire_seq_open(cache, NULL, &seq), QUIRE_OK);
    assert_int_equal(quire_step_begin(cache, NULL, &step), QUIRE_OK);
    assert_int_equal(quire_step_add(step, seq, ids, TOKENS), QUIRE_OK);
    assert_int_equal(quire_step_submit(step), QUIRE_OK);
    if (forward_run(f, quire_step_view(step, 0), ids, wanted, TOKENS, got, &error)) fail_msg("%s", error.text);
    assert_int_equal(quire_step_commit(step), QUIRE_OK);
    plain_forward(r.file, head, ids, want);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_wrong_model_is_refused_with_the_reason),
        cmocka_unit_test(test_logits_equal_a_plain_forward_pass),
        cmocka_unit_test(test_a_separate_output_matrix_is_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
