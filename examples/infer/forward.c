#include "forward.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

struct forward {
    const model *model;
    uint32_t most_tokens, most_logits;
    float *stream;   /* [tokens][width]: the residual stream */
    float *normed;   /* [tokens][width] */
    float *qkv;      /* [tokens][heads + 2 kv_heads][head_dim] */
    float *attended; /* [tokens][heads][head_dim] */
    float *gate_up;  /* [tokens][2 ffn_width] */
    float *hidden;   /* [tokens][ffn_width] */
    float *picked;   /* [logits][width] */
    float *logits;   /* [logits][vocabulary] */
};

static uint32_t qkv_width(const model_config *c)
{
    return (c->heads + 2 * c->kv_heads) * c->head_dim;
}

int forward_open(forward **out, const model *model, uint32_t most_tokens, uint32_t most_logits, infer_error *error)
{
    const model_config *c = &model->config;
    forward *f = calloc(1, sizeof *f);
    if (!f) return infer_fail(error, "no memory for the forward pass");
    f->model = model;
    f->most_tokens = most_tokens;
    f->most_logits = most_logits;
    struct { float **buffer; size_t rows, width; } buffers[] = {
        { &f->stream, most_tokens, c->width },
        { &f->normed, most_tokens, c->width },
        { &f->qkv, most_tokens, qkv_width(c) },
        { &f->attended, most_tokens, c->heads * c->head_dim },
        { &f->gate_up, most_tokens, 2 * (size_t)c->ffn_width },
        { &f->hidden, most_tokens, c->ffn_width },
        { &f->picked, most_logits, c->width },
        { &f->logits, most_logits, c->vocabulary },
    };
    backend *b = model->backend;
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
        *buffers[i].buffer = b->ops->alloc(b, buffers[i].rows * backend_stride(buffers[i].width));
        if (!*buffers[i].buffer) {
            forward_close(f);
            return infer_fail(error, "no memory for activations of %" PRIu32 " tokens", most_tokens);
        }
    }
    *out = f;
    return 0;
}

void forward_close(forward *f)
{
    if (!f) return;
    backend *b = f->model->backend;
    float *buffers[] = { f->logits, f->picked, f->hidden, f->gate_up, f->attended, f->qkv, f->normed, f->stream };
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) b->ops->free(b, buffers[i]);
    free(f);
}

/* `heads` heads of rows that take `width` elements. */
static quire_tensor tensor(float *data, uint32_t heads, const model_config *c, size_t width)
{
    return (quire_tensor){ .data = data, .dtype = QUIRE_DTYPE_F32, .heads = heads,
                           .token_stride = (int64_t)backend_stride(width), .head_stride = c->head_dim };
}

/* Stores the layer's new K and V in the cache, then attends over all that the cache holds of each sequence. */
static int attention(forward *f, const quire_view *view, uint32_t layer, infer_error *error)
{
    const model_config *c = &f->model->config;
    size_t width = qkv_width(c), keys = (size_t)c->heads * c->head_dim, kv = (size_t)c->kv_heads * c->head_dim;
    quire_tensor q = tensor(f->qkv, c->heads, c, width);
    quire_tensor k = tensor(f->qkv + keys, c->kv_heads, c, width);
    quire_tensor v = tensor(f->qkv + keys + kv, c->kv_heads, c, width);
    quire_tensor out = tensor(f->attended, c->heads, c, keys);
    float scale = 1.0f / sqrtf((float)c->head_dim);
    if (quire_append(view, layer, &k, &v) || quire_attend(view, layer, &q, &out, scale))
        return infer_fail(error, "layer %" PRIu32 ": %s", layer, quire_error_text());
    return 0;
}

int forward_run(forward *f, const quire_view *view, const int32_t *ids, const int32_t *wanted, uint32_t count,
                float *logits, infer_error *error)
{
    const model *m = f->model;
    const model_config *c = &m->config;
    backend *b = m->backend;
    const backend_ops *ops = b->ops;
    uint32_t tokens = view->tokens;
    if (tokens > f->most_tokens || count > f->most_logits)
        return infer_fail(error, "a step of %" PRIu32 " tokens with %" PRIu32 " rows of logits; at most %" PRIu32
                          " and %" PRIu32, tokens, count, f->most_tokens, f->most_logits);

    ops->begin(b, view);
    ops->embed(b, m->embedding, ids, tokens, f->stream);
    for (uint32_t i = 0; i < c->layers; i++) {
        const model_layer *layer = &m->layer[i];
        ops->norm(b, f->stream, layer->attention_gain, c->epsilon, f->normed, tokens, c->width);
        ops->matmul(b, layer->qkv, f->normed, f->qkv, tokens, false);
        ops->rope(b, f->qkv, m->rope_table, view->positions, tokens, qkv_width(c), c->heads + c->kv_heads,
                  c->head_dim);
        if (attention(f, view, i, error)) return -1;
        ops->matmul(b, layer->output, f->attended, f->stream, tokens, true);
        ops->norm(b, f->stream, layer->ffn_gain, c->epsilon, f->normed, tokens, c->width);
        ops->matmul(b, layer->gate_up, f->normed, f->gate_up, tokens, false);
        ops->swiglu(b, f->gate_up, f->hidden, tokens, c->ffn_width);
        ops->matmul(b, layer->down, f->hidden, f->stream, tokens, true);
    }
    if (count == 0) return 0;
    ops->pick(b, f->stream, wanted, count, c->width, f->picked);
    ops->norm(b, f->picked, m->final_gain, c->epsilon, f->picked, count, c->width);
    ops->matmul(b, m->head, f->picked, f->logits, count, false);
    return ops->read(b, logits, f->logits, count * backend_stride(c->vocabulary), error);
}
