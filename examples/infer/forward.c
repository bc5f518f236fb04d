#include "forward.h"

#include <inttypes.h>
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
    float *added;    /* [tokens][width]: what is normed before it joins the stream; NULL: nothing is */
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
    bool norms_out = model->layer[0].attention_out_gain != NULL;
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
        { &f->added, norms_out ? most_tokens : 0, c->width },
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
    if (b->ops->repeat_forget) b->ops->repeat_forget(b);
    float *buffers[] = { f->logits, f->picked, f->added, f->hidden, f->gate_up, f->attended, f->qkv, f->normed,
                         f->stream };
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) b->ops->free(b, buffers[i]);
    free(f);
}

/* `heads` heads of rows that take `width` elements. */
static quire_tensor tensor(float *data, uint32_t heads, const model_config *c, size_t width)
{
    return (quire_tensor){ .data = data, .dtype = QUIRE_DTYPE_F32, .heads = heads,
                           .token_stride = (int64_t)backend_stride(width), .head_stride = c->head_dim };
}

/* Stores the layer's new K and V in the cache, then attends over what the layer sees of each sequence. */
static int attention(forward *f, const model_layer *layer, quire_step *step, infer_error *error)
{
    const model_config *c = &f->model->config;
    const quire_view *view = quire_step_view(step, layer->group);
    size_t width = qkv_width(c), keys = (size_t)c->heads * c->head_dim, kv = (size_t)c->kv_heads * c->head_dim;
    quire_tensor q = tensor(f->qkv, c->heads, c, width);
    quire_tensor k = tensor(f->qkv + keys, c->kv_heads, c, width);
    quire_tensor v = tensor(f->qkv + keys + kv, c->kv_heads, c, width);
    quire_tensor out = tensor(f->attended, c->heads, c, keys);
    quire_attend_params params = { .size = sizeof params, .scale = c->query_scale, .window = layer->window };
    if (quire_append(view, layer->index, &k, &v) || quire_attend_with(view, layer->index, &q, &out, &params))
        return infer_fail(error, "layer %" PRIu32 " of group %" PRIu32 ": %s", layer->index, layer->group,
                          quire_error_text());
    return 0;
}

/* stream += matrix * x, normed first where the layer has a gain for that. */
static void join(forward *f, const matrix *matrix, const float *x, const float *gain, uint32_t tokens)
{
    const model_config *c = &f->model->config;
    backend *b = f->model->backend;
    b->ops->matmul(b, matrix, x, gain ? f->added : f->stream, tokens, !gain);
    if (gain) b->ops->norm(b, f->added, gain, c->epsilon, f->stream, tokens, c->width, true);
}

static int run_layer(forward *f, const model_layer *layer, quire_step *step, const int32_t *positions, uint32_t tokens,
                     infer_error *error)
{
    const model_config *c = &f->model->config;
    backend *b = f->model->backend;
    const backend_ops *ops = b->ops;
    uint32_t width = qkv_width(c), keys = c->heads * c->head_dim;
    ops->norm(b, f->stream, layer->attention_gain, c->epsilon, f->normed, tokens, c->width, false);
    ops->matmul(b, layer->qkv, f->normed, f->qkv, tokens, false);
    if (layer->query_gain)
        ops->norm_heads(b, f->qkv, layer->query_gain, c->epsilon, tokens, width, c->heads, c->head_dim);
    if (layer->key_gain)
        ops->norm_heads(b, f->qkv + keys, layer->key_gain, c->epsilon, tokens, width, c->kv_heads, c->head_dim);
    ops->rope(b, f->qkv, f->model->rope_table[layer->rope], positions, tokens, width, c->heads + c->kv_heads,
              c->head_dim);
    if (attention(f, layer, step, error)) return -1;
    join(f, layer->output, f->attended, layer->attention_out_gain, tokens);
    ops->norm(b, f->stream, layer->ffn_gain, c->epsilon, f->normed, tokens, c->width, false);
    ops->matmul(b, layer->gate_up, f->normed, f->gate_up, tokens, false);
    ops->gate(b, f->gate_up, f->hidden, tokens, c->ffn_width, c->gelu);
    join(f, layer->down, f->hidden, layer->ffn_out_gain, tokens);
    return 0;
}

/* All that a step enqueues. */
static int run_step(forward *f, quire_step *step, const quire_view *view, const int32_t *ids, const int32_t *wanted,
                    uint32_t count, infer_error *error)
{
    const model *m = f->model;
    const model_config *c = &m->config;
    backend *b = m->backend;
    const backend_ops *ops = b->ops;
    ops->embed(b, m->embedding, ids, view->tokens, c->embedding_scale, f->stream);
    for (uint32_t i = 0; i < c->layers; i++)
        if (run_layer(f, &m->layer[i], step, view->positions, view->tokens, error)) return -1;
    if (count == 0) return 0;
    ops->pick(b, f->stream, wanted, count, c->width, f->picked);
    ops->norm(b, f->picked, m->final_gain, c->epsilon, f->picked, count, c->width, false);
    ops->matmul(b, m->head, f->picked, f->logits, count, false);
    return 0;
}

/* The step's view, once it is known to fit. */
static const quire_view *begin(const forward *f, quire_step *step, uint32_t count, infer_error *error)
{
    const quire_view *view = quire_step_view(step, 0); /* tokens and positions are the same in every group */
    if (view->tokens > f->most_tokens || count > f->most_logits) {
        infer_fail(error, "a step of %" PRIu32 " tokens with %" PRIu32 " rows of logits; at most %" PRIu32 " and %" PRIu32,
                   view->tokens, count, f->most_tokens, f->most_logits);
        return NULL;
    }
    f->model->backend->ops->begin(f->model->backend, view);
    return view;
}

static int read_logits(forward *f, uint32_t count, float *logits, infer_error *error)
{
    backend *b = f->model->backend;
    if (count == 0) return 0;
    return b->ops->read(b, logits, f->logits, count * backend_stride(f->model->config.vocabulary), error);
}

int forward_run(forward *f, quire_step *step, const int32_t *ids, const int32_t *wanted, uint32_t count, float *logits,
                infer_error *error)
{
    const quire_view *view = begin(f, step, count, error);
    if (!view || run_step(f, step, view, ids, wanted, count, error)) return -1;
    return read_logits(f, count, logits, error);
}

int forward_repeat(forward *f, quire_step *step, const int32_t *ids, const int32_t *wanted, uint32_t count, float *logits,
                   infer_error *error)
{
    backend *b = f->model->backend;
    const quire_view *view = begin(f, step, count, error);
    if (!view) return -1;
    backend_repeat way = b->ops->repeat_begin ? b->ops->repeat_begin(b, view, ids, wanted, count) : BACKEND_PLAIN;
    int status = way == BACKEND_REPLAYED ? 0 : run_step(f, step, view, ids, wanted, count, error);
    if (way == BACKEND_CAPTURE) b->ops->repeat_end(b, status == 0);
    return status ? -1 : read_logits(f, count, logits, error);
}
