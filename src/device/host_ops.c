/* host_ops.c: the scalar twin of every kernel. */
#include "device/host_ops.h"

#include <math.h>
#include <string.h>

enum { HEAD_DIM_MOST = 512 };

/* ---- cache access -------------------------------------------------------------------------------------------- */

static unsigned char *tensor_vector(const quire_tensor *tensor, int64_t token, int64_t head)
{
    int64_t element = token * tensor->token_stride + head * tensor->head_stride;
    return (unsigned char *)tensor->data + element * (int64_t)quire__dtype_bytes(tensor->dtype);
}

static void load_vector(const quire_tensor *tensor, int64_t token, int32_t head, int32_t dims, float *values)
{
    const unsigned char *from = tensor_vector(tensor, token, head);
    for (int32_t i = 0; i < dims; i++)
        values[i] = quire__dtype_load(tensor->dtype, from + (size_t)i * quire__dtype_bytes(tensor->dtype));
}

void quire__rope_turn(const quire__rope *rope, int64_t token, float *values)
{
    int32_t position = rope->positions[token] > 0 ? rope->positions[token] : 0; /* -1: an empty row, whatever comes of it */
    const float *angle = rope->table + (int64_t)position * rope->dims;
    for (int32_t i = 0; i < rope->dims / 2; i++, angle += 2) {
        float *a = values + (rope->interleaved ? 2 * i : i), *b = a + (rope->interleaved ? 1 : rope->dims / 2);
        float a_cos = *a * angle[0], a_sin = *a * angle[1], b_cos = *b * angle[0], b_sin = *b * angle[1];
        *a = a_cos - b_sin;
        *b = b_cos + a_sin;
    }
}

static void append_vector(const quire__append_args *args, int which, int64_t token, int32_t head, int64_t slot)
{
    const quire__pages *pages = &args->pages;
    const quire_tensor *tensor = which == 0 ? &args->k : &args->v;
    int64_t block = slot / pages->block_tokens, offset = slot % pages->block_tokens;
    unsigned char *row = quire__page_row(pages, block, args->layer, which, head, offset);
    float values[HEAD_DIM_MOST];

    if (tensor->dtype == pages->dtype && args->rope.table == NULL) { /* bytes as they are, NaN payloads too */
        memcpy(row, tensor_vector(tensor, token, head), (size_t)pages->head_dim * quire__dtype_bytes(tensor->dtype));
        return;
    }
    load_vector(tensor, token, head, pages->head_dim, values);
    if (args->rope.table != NULL && which == 0)
        quire__rope_turn(&args->rope, token, values);
    quire__row_encode(pages, which, head, values, row,
                      quire__page_row_scales(pages, block, args->layer, which, head, offset));
}

static void turn_query(const quire__append_args *args, int64_t token, int32_t head)
{
    const quire_tensor *out = &args->rope.q_out;
    unsigned char *to = tensor_vector(out, token, head);
    float values[HEAD_DIM_MOST];
    load_vector(&args->rope.q, token, head, args->pages.head_dim, values);
    quire__rope_turn(&args->rope, token, values);
    for (int32_t i = 0; i < args->pages.head_dim; i++)
        quire__dtype_store(out->dtype, to + (size_t)i * quire__dtype_bytes(out->dtype), values[i]);
}

void quire__host_append(const quire__append_args *args)
{
    bool has_q = args->rope.table != NULL && args->rope.q.data != NULL;
    for (int64_t token = 0; token < args->tokens; token++) {
        for (int32_t head = 0; head < args->pages.kv_heads && args->slots[token] >= 0; head++) {
            append_vector(args, 0, token, head, args->slots[token]);
            append_vector(args, 1, token, head, args->slots[token]);
        }
        for (int32_t head = 0; has_q && head < (int32_t)args->rope.q.heads; head++)
            turn_query(args, token, head);
    }
}

static void convert_row(const quire__pages *from, const quire__pages *to, const quire__block_pair *pair, int32_t layer,
                        int which, int32_t head, int32_t token)
{
    float values[HEAD_DIM_MOST];
    quire__row_decode(from, which, head, quire__page_row(from, pair->source, layer, which, head, token),
                      quire__page_row_scales(from, pair->source, layer, which, head, token), values);
    if (from->rotation != 0 && which == 0)
        quire__rotate(values, from->head_dim, from->rotation); /* its own inverse */
    quire__row_encode(to, which, head, values, quire__page_row(to, pair->destination, layer, which, head, token),
                      quire__page_row_scales(to, pair->destination, layer, which, head, token));
}

void quire__host_convert(const quire__convert_args *args)
{
    for (int32_t i = 0; i < args->count; i++)
        for (int32_t layer = 0; layer < args->layers; layer++) {
            quire__pages from = args->from, to = args->to;
            if (from.scales != NULL)
                from.scales += (int64_t)layer * 2 * from.kv_heads;
            if (to.scales != NULL)
                to.scales += (int64_t)layer * 2 * to.kv_heads;
            for (int32_t row = 0; row < 2 * from.kv_heads * from.block_tokens; row++) {
                int32_t part = row / from.block_tokens;
                convert_row(&from, &to, &args->pairs[i], layer, part / from.kv_heads, part % from.kv_heads,
                            row % from.block_tokens);
            }
        }
}

/* ---- blocks, pieces, tables ---------------------------------------------------------------------------------- */

void quire__host_block_copy(const quire__block_copy_args *args)
{
    for (int32_t i = 0; i < args->count; i++) {
        unsigned char *to = args->arena + args->pairs[i].destination * args->block_stride;
        const unsigned char *from = args->arena + args->pairs[i].source * args->block_stride;
        if (args->tokens == NULL)
            memcpy(to, from, (size_t)args->block_bytes);
        for (int32_t row = 0; args->tokens != NULL && row < args->rows; row++)
            memcpy(to + row * args->row_stride, from + row * args->row_stride,
                   (size_t)(args->tokens[i] * args->token_bytes));
    }
}

void quire__host_gather(const quire__pieces_args *args)
{
    for (int32_t i = 0; i < args->count; i++)
        memcpy(args->staging + i * args->piece_bytes, args->arena + args->offsets[i], (size_t)args->piece_bytes);
}

void quire__host_scatter(const quire__pieces_args *args)
{
    for (int32_t i = 0; i < args->count; i++)
        memcpy(args->arena + args->offsets[i], args->staging + i * args->piece_bytes, (size_t)args->piece_bytes);
}

void quire__host_table(const quire__table_args *args)
{
    for (int32_t i = 0; i < args->count; i++) {
        const quire__table_change *change = &args->changes[i];
        args->table[(int64_t)change->row * args->table_stride + change->column] = change->value;
    }
}

/* ---- attention ----------------------------------------------------------------------------------------------- */

typedef struct scalar_query {
    const quire__attend_args *args;
    int64_t token;
    int32_t row, head, kv_head;
    double values[HEAD_DIM_MOST];
} scalar_query;

/* The values that K or V of a key stand for. */
static void query_load(const scalar_query *query, int which, int32_t key, float *values)
{
    const quire__attend_args *args = query->args;
    const quire__pages *pages = &args->pages;
    int64_t block = args->block_table[(int64_t)query->row * args->table_stride + key / pages->block_tokens];
    int64_t offset = key % pages->block_tokens;
    quire__row_decode(pages, which, query->kv_head,
                      quire__page_row(pages, block, args->layer, which, query->kv_head, offset),
                      quire__page_row_scales(pages, block, args->layer, which, query->kv_head, offset), values);
}

static double query_score(const scalar_query *query, int32_t key)
{
    float k[HEAD_DIM_MOST];
    double sum = 0, cap = (double)query->args->soft_cap;
    query_load(query, 0, key, k);
    for (int32_t i = 0; i < query->args->pages.head_dim; i++)
        sum += query->values[i] * (double)k[i];
    sum *= (double)query->args->scale;
    return cap > 0 ? cap * tanh(sum / cap) : sum;
}

/* q as K was rotated: the scores are those of neither. */
static void query_rotate(double *values, int32_t dims, int32_t block)
{
    for (int32_t apart = 1; apart < block; apart *= 2)
        for (int32_t i = 0; i < dims; i++)
            if ((i & apart) == 0) {
                double low = values[i], high = values[i + apart];
                values[i] = low + high;
                values[i + apart] = low - high;
            }
    for (int32_t i = 0; i < dims && block > 1; i++)
        values[i] /= sqrt((double)block);
}

static void query_write(const scalar_query *query, const double *sums, double factor)
{
    const quire_tensor *out = &query->args->out;
    unsigned char *to = tensor_vector(out, query->token, query->head);
    for (int32_t i = 0; i < query->args->pages.head_dim; i++)
        quire__dtype_store(out->dtype, to + (size_t)i * quire__dtype_bytes(out->dtype), (float)(sums[i] * factor));
}

/* Two passes over the keys: the maximum, then weights and their sums. A token without keys gives zeros. */
static void attend_query(scalar_query *query)
{
    const quire__attend_args *args = query->args;
    const quire__pages *pages = &args->pages;
    int32_t keys = args->positions[query->token] + 1;
    int32_t first = args->window > 0 && keys > args->window ? keys - args->window : 0;
    float v[HEAD_DIM_MOST];
    double sums[HEAD_DIM_MOST] = {0}, most = -INFINITY, total = 0;
    const unsigned char *q = tensor_vector(&args->q, query->token, query->head);

    for (int32_t i = 0; i < pages->head_dim; i++)
        query->values[i] = (double)quire__dtype_load(args->q.dtype, q + (size_t)i * quire__dtype_bytes(args->q.dtype));
    query_rotate(query->values, pages->head_dim, pages->rotation);
    for (int32_t key = first; key < keys; key++)
        most = fmax(most, query_score(query, key));
    if (args->sinks != NULL) {
        most = fmax(most, (double)args->sinks[query->head]);
        total = exp((double)args->sinks[query->head] - most);
    }
    for (int32_t key = first; key < keys; key++) {
        double weight = exp(query_score(query, key) - most);
        total += weight;
        query_load(query, 1, key, v);
        for (int32_t i = 0; i < pages->head_dim; i++)
            sums[i] += weight * (double)v[i];
    }
    query_write(query, sums, keys > 0 ? 1 / total : 0);
}

static void attend_token(const quire__attend_args *args, int64_t token, int32_t row)
{
    int32_t group = args->query_heads / args->pages.kv_heads;
    for (int32_t head = 0; head < args->query_heads; head++) {
        scalar_query query = {.args = args, .token = token, .row = row, .head = head, .kv_head = head / group};
        attend_query(&query);
    }
}

void quire__host_attend_decode(const quire__attend_args *args)
{
    for (int32_t i = 0; i < args->count; i++) {
        int32_t token = args->select != NULL ? args->select[i] : args->first_token + i;
        attend_token(args, token, args->token_rows[token]);
    }
}

void quire__host_attend_prefill(const quire__attend_args *args)
{
    for (int32_t i = 0; i < args->count; i++)
        for (int32_t j = 0; j < args->tiles[i].tokens; j++)
            attend_token(args, args->tiles[i].first_token + j, args->tiles[i].row);
}
