#include "model_families.h"
#include "dequant.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROWS_AT_ONCE = 256, /* decoded to float at a time */
    MOST_LAYERS = 1024,
    MOST_WIDTH = 1 << 18,
    MOST_CONTEXT = 1 << 20,
    MOST_HEAD_DIM = 512,
    NAME_BYTES = 80
};

typedef model_loader loader;

/* ---- configuration ----------------------------------------------------------------------------------------- */

static const char *key_of(const loader *l, const char *name, char key[NAME_BYTES])
{
    snprintf(key, NAME_BYTES, "%s.%s", l->family->architecture, name);
    return key;
}

bool model_has(const loader *l, const char *name)
{
    char key[NAME_BYTES];
    return gguf_has(l->file, key_of(l, name, key));
}

int model_read_number(loader *l, const char *name, uint32_t least, uint32_t most, uint32_t *out)
{
    char key[NAME_BYTES];
    if (gguf_get_u32(l->file, key_of(l, name, key), out, l->error)) return -1;
    if (*out < least || *out > most)
        return infer_fail(l->error, "the model's %s is %" PRIu32 "; it must be %" PRIu32 " to %" PRIu32, key, *out,
                          least, most);
    return 0;
}

int model_read_base(loader *l, const char *name, float *out)
{
    char key[NAME_BYTES];
    if (model_has(l, name) && gguf_get_float(l->file, key_of(l, name, key), out, l->error)) return -1;
    if (!(*out >= 1.0f && isfinite(*out)))
        return infer_fail(l->error, "%s is %g; it must be 1 or more", key_of(l, name, key), (double)*out);
    return 0;
}

int model_refuse_unless_zero(loader *l, const char *name, const char *what)
{
    char key[NAME_BYTES];
    float value = 0.0f;
    if (model_has(l, name) && gguf_get_float(l->file, key_of(l, name, key), &value, l->error)) return -1;
    return value == 0.0f ? 0 : infer_fail(l->error, "%s is %g: %s, which this example does not have for this "
                                          "architecture", key, (double)value, what);
}

static int read_heads(loader *l)
{
    model_config *c = &l->m->config;
    if (model_read_number(l, "attention.head_count", 1, 1024, &c->heads)) return -1;
    c->kv_heads = c->heads;
    if (model_has(l, "attention.head_count_kv") &&
        model_read_number(l, "attention.head_count_kv", 1, 1024, &c->kv_heads))
        return -1;
    if (c->heads % c->kv_heads)
        return infer_fail(l->error, "the model has %" PRIu32 " query heads for %" PRIu32 " kv heads; they must divide",
                          c->heads, c->kv_heads);
    if (model_has(l, "attention.key_length")) {
        uint32_t value_length;
        if (model_read_number(l, "attention.key_length", 8, MOST_HEAD_DIM, &c->head_dim) ||
            model_read_number(l, "attention.value_length", 8, MOST_HEAD_DIM, &value_length))
            return -1;
        if (value_length != c->head_dim)
            return infer_fail(l->error, "keys of %" PRIu32 " and values of %" PRIu32 " elements; this example needs "
                              "them equal", c->head_dim, value_length);
    } else {
        if (c->width % c->heads)
            return infer_fail(l->error, "the width %" PRIu32 " is no multiple of the %" PRIu32 " heads", c->width,
                              c->heads);
        c->head_dim = c->width / c->heads;
    }
    if (c->head_dim % 8 || c->head_dim > MOST_HEAD_DIM)
        return infer_fail(l->error, "heads of %" PRIu32 " elements; Quire takes multiples of 8 up to %d", c->head_dim,
                          MOST_HEAD_DIM);
    return 0;
}

static int read_rope(loader *l)
{
    const model_config *c = &l->m->config;
    char key[NAME_BYTES];
    uint32_t turned = c->head_dim;
    l->rope_base[MODEL_ROPE_GLOBAL] = 10000.0f;
    if (model_read_base(l, "rope.freq_base", &l->rope_base[MODEL_ROPE_GLOBAL])) return -1;
    if (model_has(l, "rope.dimension_count") &&
        gguf_get_u32(l->file, key_of(l, "rope.dimension_count", key), &turned, l->error))
        return -1;
    if (turned != c->head_dim)
        return infer_fail(l->error, "rotary embedding over %" PRIu32 " of %" PRIu32 " elements; this example turns whole "
                          "heads", turned, c->head_dim);
    gguf_string scaling = { "none", 4 };
    if (model_has(l, "rope.scaling.type") &&
        gguf_get_string(l->file, key_of(l, "rope.scaling.type", key), &scaling, l->error))
        return -1;
    if (!gguf_string_is(scaling, "none"))
        return infer_fail(l->error, "rotary scaling \"%.*s\"; this example knows none", (int)scaling.length,
                          scaling.data);
    return 0;
}

static int find_family(loader *l)
{
    static const model_family *const families[] = { &model_llama, &model_gemma3 };
    gguf_string architecture;
    if (gguf_get_string(l->file, "general.architecture", &architecture, l->error)) return -1;
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        if (gguf_string_is(architecture, families[i]->architecture)) l->family = families[i];
    if (l->family) return 0;
    return infer_fail(l->error, "the model's architecture is \"%.*s\"; this example knows \"llama\" and \"gemma3\"",
                      (int)(architecture.length < 64 ? architecture.length : 64), architecture.data);
}

static int read_config(loader *l, uint32_t context)
{
    model_config *c = &l->m->config;
    char key[NAME_BYTES];
    uint32_t trained;
    if (find_family(l) || model_read_number(l, "block_count", 1, MOST_LAYERS, &c->layers) ||
        model_read_number(l, "embedding_length", 8, MOST_WIDTH, &c->width) ||
        model_read_number(l, "feed_forward_length", 8, MOST_WIDTH, &c->ffn_width) ||
        model_read_number(l, "context_length", 1, UINT32_MAX, &trained) ||
        gguf_get_float(l->file, key_of(l, "attention.layer_norm_rms_epsilon", key), &c->epsilon, l->error))
        return -1;
    if (!(c->epsilon >= 0.0f && c->epsilon < 1.0f))
        return infer_fail(l->error, "%s is %g; it must be 0 to 1", key, (double)c->epsilon);
    if (context > trained)
        return infer_fail(l->error, "a context of %" PRIu32 " tokens; the model was trained for %" PRIu32, context,
                          trained);
    c->context = context ? context : trained < MOST_CONTEXT ? trained : MOST_CONTEXT;
    const gguf_tensor *embedding = gguf_find_tensor(l->file, "token_embd.weight");
    if (!embedding) return infer_fail(l->error, "the model has no tensor token_embd.weight");
    if (embedding->rows < 1 || embedding->rows > MOST_WIDTH * 16u)
        return infer_fail(l->error, "token_embd.weight has %" PRIu64 " rows; it must be 1 to %u", embedding->rows,
                          MOST_WIDTH * 16u);
    c->vocabulary = (uint32_t)embedding->rows;
    return read_heads(l) || read_rope(l) || l->family->read(l) ? -1 : 0;
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

/* Where element or row `index` of the cache's order stands in the file. The rotary embedding turns neighbours (2i, 2i + 1);
 * a family that pairs the halves of a head has queries and keys reordered here, alike, which no score can tell. */
static uint32_t file_order(const loader *l, uint32_t index)
{
    uint32_t size = l->m->config.head_dim, at = index % size;
    return l->family->halves ? index - at + at / 2 + (at % 2 ? size / 2 : 0) : index;
}

static int load_vector(loader *l, const char *name, uint32_t width, bool turned, float **out)
{
    backend *b = l->m->backend;
    const gguf_tensor *tensor = find(l, name, 1, width);
    float *values = l->rows, *ordered = l->rows + width;
    if (!tensor || gguf_tensor_rows(tensor, 0, 1, values, l->error)) return -1;
    for (uint32_t i = 0; i < width; i++) ordered[i] = values[turned ? file_order(l, i) : i];
    *out = b->ops->alloc(b, width);
    if (!*out) return infer_fail(l->error, "no memory for tensor %s", name);
    return b->ops->write(b, *out, ordered, width, l->error);
}

int model_load_gain(loader *l, uint32_t index, const char *suffix, uint32_t width, bool turned, float **out)
{
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "blk.%" PRIu32 ".%s.weight", index, suffix);
    return load_vector(l, name, width, turned, out);
}

/* One matrix from up to three tensors, below one another. */
typedef struct part {
    const char *name;
    uint32_t rows;
    bool turned; /* rows are elements of queries or keys */
} part;

static int load_part(loader *l, matrix *to, uint32_t first, const part *p, uint32_t columns)
{
    backend *b = l->m->backend;
    const gguf_tensor *tensor = find(l, p->name, p->rows, columns);
    bool reorder = p->turned && l->family->halves;
    if (!tensor) return -1;
    for (uint32_t row = 0; row < p->rows; row += ROWS_AT_ONCE) {
        uint32_t n = p->rows - row < ROWS_AT_ONCE ? p->rows - row : ROWS_AT_ONCE;
        int status = reorder ? 0 : gguf_tensor_rows(tensor, row, n, l->rows, l->error);
        for (uint32_t i = 0; reorder && i < n && !status; i++)
            status = gguf_tensor_rows(tensor, file_order(l, row + i), 1, l->rows + (size_t)i * columns, l->error);
        if (status || b->ops->matrix_put(b, to, first + row, n, l->rows, l->error)) return -1;
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

/* The embedding or the head, [vocabulary][width]: the largest matrices, kept in eight bits where the file has them so and
 * the backend can. The numbers are the same. */
static int load_vocabulary(loader *l, const char *name, matrix **out)
{
    const model_config *c = &l->m->config;
    backend *b = l->m->backend;
    const gguf_tensor *tensor = gguf_find_tensor(l->file, name);
    part whole = { .name = name, .rows = c->vocabulary };
    if (!tensor || tensor->type->number != TENSOR_Q8_0 || !b->ops->matrix_open_q8)
        return load_matrix(l, &whole, 1, c->width, out);
    if (!find(l, name, c->vocabulary, c->width)) return -1;
    *out = b->ops->matrix_open_q8(b, c->vocabulary, c->width);
    if (!*out) return infer_fail(l->error, "no memory for tensor %s", name);
    return b->ops->matrix_put_q8(b, *out, tensor->data, l->error);
}

int model_load_layer(loader *l, uint32_t index)
{
    const model_config *c = &l->m->config;
    model_layer *layer = &l->m->layer[index];
    char name[7][NAME_BYTES];
    static const char *const suffixes[7] = { "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up",
                                             "ffn_down" };
    for (int i = 0; i < 7; i++) snprintf(name[i], sizeof name[i], "blk.%" PRIu32 ".%s.weight", index, suffixes[i]);
    uint32_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    part qkv[3] = { { name[0], q, true }, { name[1], kv, true }, { name[2], kv, false } };
    part output = { .name = name[3], .rows = c->width }, down = { .name = name[6], .rows = c->width };
    part gate_up[2] = { { .name = name[4], .rows = c->ffn_width }, { .name = name[5], .rows = c->ffn_width } };
    return model_load_gain(l, index, "attn_norm", c->width, false, &layer->attention_gain) ||
           model_load_gain(l, index, "ffn_norm", c->width, false, &layer->ffn_gain) ||
           load_matrix(l, qkv, 3, c->width, &layer->qkv) ||
           load_matrix(l, &output, 1, q, &layer->output) ||
           load_matrix(l, gate_up, 2, c->width, &layer->gate_up) ||
           load_matrix(l, &down, 1, c->ffn_width, &layer->down) ? -1 : 0;
}

/* The angle of pair i at position p is p / (base^(2i / head_dim) * factor[i]); the factors are Llama 3.1's. Computed
 * in double: at position 8,000 a float angle would be off by 5e-4. */
static int load_rope_table(loader *l, double base, const float *factor, float **out)
{
    backend *b = l->m->backend;
    const model_config *c = &l->m->config;
    size_t floats = (size_t)c->context * c->head_dim;
    float *table = malloc(floats * sizeof *table);
    *out = b->ops->alloc(b, floats);
    if (!table || !*out) {
        free(table);
        return infer_fail(l->error, "no memory for the rotary table of %" PRIu32 " positions", c->context);
    }
    for (uint32_t i = 0; i < c->head_dim / 2; i++) {
        double turn = pow(base, -2.0 * i / c->head_dim) / (double)factor[i];
        for (uint32_t p = 0; p < c->context; p++) {
            table[(size_t)p * c->head_dim + 2 * i] = (float)cos(p * turn);
            table[(size_t)p * c->head_dim + 2 * i + 1] = (float)sin(p * turn);
        }
    }
    int status = b->ops->write(b, *out, table, floats, l->error);
    free(table);
    return status;
}

static int load_rope_tables(loader *l)
{
    model *m = l->m;
    uint32_t pairs = m->config.head_dim / 2;
    float factor[MOST_HEAD_DIM / 2];
    for (uint32_t i = 0; i < pairs; i++) factor[i] = 1.0f;
    if (gguf_find_tensor(l->file, "rope_freqs.weight")) {
        const gguf_tensor *tensor = find(l, "rope_freqs.weight", 1, pairs);
        if (!tensor || gguf_tensor_rows(tensor, 0, 1, factor, l->error)) return -1;
    }
    for (int i = 0; i < MODEL_ROPES; i++)
        if (l->rope_base[i] > 0.0f && load_rope_table(l, (double)l->rope_base[i], factor, &m->rope_table[i])) return -1;
    return 0;
}

static uint32_t windowed_layers(const model *m)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < m->config.layers; i++) count += m->layer[i].window > 0;
    return count;
}

/* Layers that see everything are the first group. Where none does, those with windows are, and keep all their blocks. */
static void assign_groups(model *m)
{
    bool split = windowed_layers(m) < m->config.layers;
    uint32_t next[MODEL_MOST_GROUPS] = { 0 };
    for (uint32_t i = 0; i < m->config.layers; i++) {
        model_layer *layer = &m->layer[i];
        layer->group = split && layer->window > 0;
        layer->index = next[layer->group]++;
    }
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
    if (load_vocabulary(l, "token_embd.weight", &m->embedding)) return -1;
    m->head = m->embedding;
    if (gguf_find_tensor(l->file, "output.weight") && load_vocabulary(l, "output.weight", &m->head)) return -1;
    if (load_vector(l, "output_norm.weight", c->width, false, &m->final_gain) || load_rope_tables(l)) return -1;
    for (uint32_t i = 0; i < c->layers; i++)
        if (l->family->load_layer(l, i)) return -1;
    assign_groups(m);
    /* A tensor that went nowhere (a bias, an expert) would make wrong answers, not an error, if it were skipped. */
    if (l->used != gguf_tensor_count(l->file))
        return infer_fail(l->error, "the model has %zu tensors, of which this example knows %zu: it is no plain %s "
                          "(biases, experts?)", gguf_tensor_count(l->file), l->used, l->family->architecture);
    return 0;
}

uint32_t model_groups(const model *m, quire_group groups[MODEL_MOST_GROUPS])
{
    const model_config *c = &m->config;
    uint32_t windowed = windowed_layers(m), window = 0;
    groups[0] = (quire_group){ .layers = c->layers, .kv_heads = c->kv_heads, .head_dim = c->head_dim,
                               .query_heads = c->heads };
    if (windowed == 0 || windowed == c->layers) return 1;
    for (uint32_t i = 0; i < c->layers; i++)
        if (m->layer[i].window > window) window = m->layer[i].window;
    groups[1] = groups[0];
    groups[0].layers = c->layers - windowed;
    groups[1].layers = windowed;
    groups[1].window = window;
    groups[1].rollback = MODEL_ROLLBACK;
    return 2;
}

int model_open(model **out, const gguf_file *file, backend *backend, uint32_t context, infer_error *error)
{
    model *m = calloc(1, sizeof *m);
    if (!m) return infer_fail(error, "no memory for the model");
    m->backend = backend;
    loader l = { .file = file, .m = m, .error = error };
    int status = read_config(&l, context) || load_all(&l) ? -1 : 0;
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
        float *gains[] = { layer->ffn_out_gain, layer->attention_out_gain, layer->key_gain, layer->query_gain,
                           layer->ffn_gain, layer->attention_gain };
        for (size_t j = 0; j < sizeof gains / sizeof gains[0]; j++) b->ops->free(b, gains[j]);
    }
    free(m->layer);
    for (int i = 0; i < MODEL_ROPES; i++) b->ops->free(b, m->rope_table[i]);
    b->ops->free(b, m->final_gain);
    if (m->head != m->embedding) b->ops->matrix_close(b, m->head);
    b->ops->matrix_close(b, m->embedding);
    free(m);
}
