#include "model.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROWS_AT_ONCE = 256, /* decoded to float at a time */
    MOST_LAYERS = 1024,
    MOST_WIDTH = 1 << 18,
    MOST_CONTEXT = 1 << 20
};

typedef struct loader {
    const gguf_file *file;
    model *m;
    infer_error *error;
    float *rows;   /* ROWS_AT_ONCE of the widest matrix */
    size_t used;   /* tensors of the file that went into the model */
} loader;

/* ---- configuration ----------------------------------------------------------------------------------------- */

static int read_number(const gguf_file *file, const char *key, uint32_t least, uint32_t most, uint32_t *out,
                       infer_error *error)
{
    if (gguf_get_u32(file, key, out, error)) return -1;
    if (*out < least || *out > most)
        return infer_fail(error, "the model's %s is %" PRIu32 "; it must be %" PRIu32 " to %" PRIu32, key, *out,
                          least, most);
    return 0;
}

static int read_heads(const gguf_file *file, model_config *c, infer_error *error)
{
    if (read_number(file, "llama.attention.head_count", 1, 1024, &c->heads, error)) return -1;
    c->kv_heads = c->heads;
    if (gguf_has(file, "llama.attention.head_count_kv") &&
        read_number(file, "llama.attention.head_count_kv", 1, 1024, &c->kv_heads, error))
        return -1;
    if (c->heads % c->kv_heads)
        return infer_fail(error, "the model has %" PRIu32 " query heads for %" PRIu32 " kv heads; they must divide",
                          c->heads, c->kv_heads);
    if (gguf_has(file, "llama.attention.key_length")) {
        uint32_t value_length;
        if (read_number(file, "llama.attention.key_length", 8, 512, &c->head_dim, error) ||
            read_number(file, "llama.attention.value_length", 8, 512, &value_length, error))
            return -1;
        if (value_length != c->head_dim)
            return infer_fail(error, "keys of %" PRIu32 " and values of %" PRIu32 " elements; this example needs "
                              "them equal", c->head_dim, value_length);
    } else {
        if (c->width % c->heads)
            return infer_fail(error, "the width %" PRIu32 " is no multiple of the %" PRIu32 " heads", c->width,
                              c->heads);
        c->head_dim = c->width / c->heads;
    }
    if (c->head_dim % 8 || c->head_dim > 512)
        return infer_fail(error, "heads of %" PRIu32 " elements; Quire takes multiples of 8 up to 512", c->head_dim);
    return 0;
}

static int read_rope(const gguf_file *file, model_config *c, infer_error *error)
{
    c->rope_base = 10000.0f;
    if (gguf_has(file, "llama.rope.freq_base") && gguf_get_float(file, "llama.rope.freq_base", &c->rope_base, error))
        return -1;
    if (!(c->rope_base >= 1.0f && isfinite(c->rope_base)))
        return infer_fail(error, "llama.rope.freq_base is %g; it must be 1 or more", (double)c->rope_base);
    uint32_t turned = c->head_dim;
    if (gguf_has(file, "llama.rope.dimension_count") &&
        gguf_get_u32(file, "llama.rope.dimension_count", &turned, error))
        return -1;
    if (turned != c->head_dim)
        return infer_fail(error, "rotary embedding over %" PRIu32 " of %" PRIu32 " elements; this example turns whole "
                          "heads", turned, c->head_dim);
    gguf_string scaling = { "none", 4 };
    if (gguf_has(file, "llama.rope.scaling.type") &&
        gguf_get_string(file, "llama.rope.scaling.type", &scaling, error))
        return -1;
    if (!gguf_string_is(scaling, "none"))
        return infer_fail(error, "rotary scaling \"%.*s\"; this example knows none", (int)scaling.length,
                          scaling.data);
    return 0;
}

static int read_config(const gguf_file *file, uint32_t context, model_config *c, infer_error *error)
{
    gguf_string architecture;
    if (gguf_get_string(file, "general.architecture", &architecture, error)) return -1;
    if (!gguf_string_is(architecture, "llama"))
        return infer_fail(error, "the model's architecture is \"%.*s\"; this example knows \"llama\"",
                          (int)(architecture.length < 64 ? architecture.length : 64), architecture.data);
    uint32_t trained;
    if (read_number(file, "llama.block_count", 1, MOST_LAYERS, &c->layers, error) ||
        read_number(file, "llama.embedding_length", 8, MOST_WIDTH, &c->width, error) ||
        read_number(file, "llama.feed_forward_length", 8, MOST_WIDTH, &c->ffn_width, error) ||
        read_number(file, "llama.context_length", 1, UINT32_MAX, &trained, error) ||
        gguf_get_float(file, "llama.attention.layer_norm_rms_epsilon", &c->epsilon, error))
        return -1;
    if (!(c->epsilon >= 0.0f && c->epsilon < 1.0f))
        return infer_fail(error, "llama.attention.layer_norm_rms_epsilon is %g; it must be 0 to 1",
                          (double)c->epsilon);
    if (context > trained)
        return infer_fail(error, "a context of %" PRIu32 " tokens; the model was trained for %" PRIu32, context,
                          trained);
    c->context = context ? context : trained < MOST_CONTEXT ? trained : MOST_CONTEXT;
    const gguf_tensor *embedding = gguf_find_tensor(file, "token_embd.weight");
    if (!embedding) return infer_fail(error, "the model has no tensor token_embd.weight");
    if (embedding->rows < 1 || embedding->rows > MOST_WIDTH * 16u)
        return infer_fail(error, "token_embd.weight has %" PRIu64 " rows; it must be 1 to %u", embedding->rows,
                          MOST_WIDTH * 16u);
    c->vocabulary = (uint32_t)embedding->rows;
    return read_heads(file, c, error) || read_rope(file, c, error) ? -1 : 0;
}

/* ---- tensors ----------------------------------------------------------------------------------------------- */

static const gguf_tensor *find(loader *l, const char *name, uint64_t rows, uint64_t columns)
{
    const gguf_tensor *tensor = gguf_find_tensor(l->file, name);
    if (!tensor) {
        infer_fail(l->error, "the model has no tensor %s", name);
        return NULL;
    }
    if (tensor->ne[0] != columns || tensor->rows != rows) {
        infer_fail(l->error, "tensor %s is %" PRIu64 " x %" PRIu64 "; the model's header asks for %" PRIu64
                   " x %" PRIu64, name, tensor->rows, tensor->ne[0], rows, columns);
        return NULL;
    }
    l->used++;
    return tensor;
}

static int load_vector(loader *l, const char *name, uint32_t width, float **out)
{
    backend *b = l->m->backend;
    const gguf_tensor *tensor = find(l, name, 1, width);
    if (!tensor || gguf_tensor_rows(tensor, 0, 1, l->rows, l->error)) return -1;
    *out = b->ops->alloc(b, width);
    if (!*out) return infer_fail(l->error, "no memory for tensor %s", name);
    return b->ops->write(b, *out, l->rows, width, l->error);
}

/* One matrix from up to three tensors, below one another. */
typedef struct part {
    const char *name;
    uint32_t rows;
} part;

static int load_part(loader *l, matrix *to, uint32_t first, const part *p, uint32_t columns)
{
    backend *b = l->m->backend;
    const gguf_tensor *tensor = find(l, p->name, p->rows, columns);
    if (!tensor) return -1;
    for (uint32_t row = 0; row < p->rows; row += ROWS_AT_ONCE) {
        uint32_t n = p->rows - row < ROWS_AT_ONCE ? p->rows - row : ROWS_AT_ONCE;
        if (gguf_tensor_rows(tensor, row, n, l->rows, l->error) ||
            b->ops->matrix_put(b, to, first + row, n, l->rows, l->error))
            return -1;
    }
    return 0;
}

static int load_matrix(loader *l, const part *parts, size_t count, uint32_t columns, matrix **out)
{
    backend *b = l->m->backend;
    uint32_t rows = 0;
    for (size_t i = 0; i < count; i++) rows += parts[i].rows;
    *out = b->ops->matrix_open(b, rows, columns);
    if (!*out) return infer_fail(l->error, "no memory for tensor %s", parts[0].name);
    for (size_t i = 0, first = 0; i < count; first += parts[i++].rows)
        if (load_part(l, *out, (uint32_t)first, &parts[i], columns)) return -1;
    return 0;
}

static int load_layer(loader *l, uint32_t index)
{
    const model_config *c = &l->m->config;
    model_layer *layer = &l->m->layer[index];
    char name[9][64];
    static const char *const suffixes[9] = { "attn_norm", "ffn_norm", "attn_q", "attn_k", "attn_v",
                                             "attn_output", "ffn_gate", "ffn_up", "ffn_down" };
    for (int i = 0; i < 9; i++) snprintf(name[i], sizeof name[i], "blk.%" PRIu32 ".%s.weight", index, suffixes[i]);
    uint32_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    part qkv[3] = { { name[2], q }, { name[3], kv }, { name[4], kv } };
    part output = { name[5], c->width }, down = { name[8], c->width };
    part gate_up[2] = { { name[6], c->ffn_width }, { name[7], c->ffn_width } };
    return load_vector(l, name[0], c->width, &layer->attention_gain) ||
           load_vector(l, name[1], c->width, &layer->ffn_gain) ||
           load_matrix(l, qkv, 3, c->width, &layer->qkv) ||
           load_matrix(l, &output, 1, q, &layer->output) ||
           load_matrix(l, gate_up, 2, c->width, &layer->gate_up) ||
           load_matrix(l, &down, 1, c->ffn_width, &layer->down) ? -1 : 0;
}

/* The angle of pair i at position p is p / (base^(2i / head_dim) * factor[i]); the factors are Llama 3.1's. Computed
 * in double: at position 8,000 a float angle would be off by 5e-4. */
static int load_rope_table(loader *l)
{
    model *m = l->m;
    const model_config *c = &m->config;
    uint32_t pairs = c->head_dim / 2;
    size_t floats = (size_t)c->context * c->head_dim;
    float factor[256];
    for (uint32_t i = 0; i < pairs; i++) factor[i] = 1.0f;
    if (gguf_find_tensor(l->file, "rope_freqs.weight")) {
        const gguf_tensor *tensor = find(l, "rope_freqs.weight", 1, pairs);
        if (!tensor || gguf_tensor_rows(tensor, 0, 1, factor, l->error)) return -1;
    }
    float *table = malloc(floats * sizeof *table);
    m->rope_table = m->backend->ops->alloc(m->backend, floats);
    if (!table || !m->rope_table) {
        free(table);
        return infer_fail(l->error, "no memory for the rotary table of %" PRIu32 " positions", c->context);
    }
    for (uint32_t i = 0; i < pairs; i++) {
        double turn = pow((double)c->rope_base, -2.0 * i / c->head_dim) / (double)factor[i];
        for (uint32_t p = 0; p < c->context; p++) {
            table[(size_t)p * c->head_dim + 2 * i] = (float)cos(p * turn);
            table[(size_t)p * c->head_dim + 2 * i + 1] = (float)sin(p * turn);
        }
    }
    int status = m->backend->ops->write(m->backend, m->rope_table, table, floats, l->error);
    free(table);
    return status;
}

static int load_all(loader *l)
{
    model *m = l->m;
    const model_config *c = &m->config;
    uint32_t widest = c->width > c->ffn_width ? c->width : c->ffn_width;
    if (widest < c->heads * c->head_dim) widest = c->heads * c->head_dim;
    l->rows = malloc((size_t)ROWS_AT_ONCE * widest * sizeof *l->rows);
    m->layer = calloc(c->layers, sizeof *m->layer);
    if (!l->rows || !m->layer) return infer_fail(l->error, "no memory for the model's tables");
    part embedding = { "token_embd.weight", c->vocabulary }, head = { "output.weight", c->vocabulary };
    if (load_matrix(l, &embedding, 1, c->width, &m->embedding)) return -1;
    m->head = m->embedding;
    if (gguf_find_tensor(l->file, "output.weight") && load_matrix(l, &head, 1, c->width, &m->head)) return -1;
    if (load_vector(l, "output_norm.weight", c->width, &m->final_gain) || load_rope_table(l)) return -1;
    for (uint32_t i = 0; i < c->layers; i++)
        if (load_layer(l, i)) return -1;
    /* A tensor that went nowhere (a bias, an expert) would make wrong answers, not an error, if it were skipped. */
    if (l->used != gguf_tensor_count(l->file))
        return infer_fail(l->error, "the model has %zu tensors, of which this example knows %zu: it is no plain Llama "
                          "(biases, experts?)", gguf_tensor_count(l->file), l->used);
    return 0;
}

int model_open(model **out, const gguf_file *file, backend *backend, uint32_t context, infer_error *error)
{
    model *m = calloc(1, sizeof *m);
    if (!m) return infer_fail(error, "no memory for the model");
    m->backend = backend;
    loader l = { .file = file, .m = m, .error = error };
    int status = read_config(file, context, &m->config, error) || load_all(&l) ? -1 : 0;
    free(l.rows);
    if (status) model_close(m);
    else *out = m;
    return status;
}

void model_close(model *m)
{
    if (!m) return;
    backend *b = m->backend;
    for (uint32_t i = 0; m->layer && i < m->config.layers; i++) {
        model_layer *layer = &m->layer[i];
        b->ops->matrix_close(b, layer->down);
        b->ops->matrix_close(b, layer->gate_up);
        b->ops->matrix_close(b, layer->output);
        b->ops->matrix_close(b, layer->qkv);
        b->ops->free(b, layer->ffn_gain);
        b->ops->free(b, layer->attention_gain);
    }
    free(m->layer);
    b->ops->free(b, m->rope_table);
    b->ops->free(b, m->final_gain);
    if (m->head != m->embedding) b->ops->matrix_close(b, m->head);
    b->ops->matrix_close(b, m->embedding);
    free(m);
}
