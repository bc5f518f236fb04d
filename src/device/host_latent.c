/* host_latent.c: the scalar twins of the latent kernels. */
#include "device/host_latent.h"

#include <math.h>
#include <string.h>

#include "device/host_ops.h"

enum { LATENT_MOST = 1024 }; /* elements of a row */

static unsigned char *row_of(const quire__pages *pages, int64_t block, int32_t layer, int64_t offset)
{
    return pages->arena + block * pages->block_stride + layer * pages->layer_stride + offset * pages->token_stride;
}

static unsigned char *vector_of(const quire_tensor *tensor, int64_t token, int64_t head)
{
    int64_t element = token * tensor->token_stride + head * tensor->head_stride;
    return (unsigned char *)tensor->data + element * (int64_t)quire__dtype_bytes(tensor->dtype);
}

/* ---- append -------------------------------------------------------------------------------------------------- */

static void store_part(const quire_tensor *tensor, int64_t token, int32_t count, quire_dtype dtype, unsigned char *to)
{
    const unsigned char *from = vector_of(tensor, token, 0);
    size_t in = quire__dtype_bytes(tensor->dtype), out = quire__dtype_bytes(dtype);

    if (tensor->dtype == dtype) { /* NaN payloads too */
        memcpy(to, from, (size_t)count * out);
        return;
    }
    for (int32_t i = 0; i < count; i++)
        quire__dtype_store(dtype, to + (size_t)i * out, quire__dtype_load(tensor->dtype, from + (size_t)i * in));
}

void quire__host_latent_append(const quire__append_args *args)
{
    const quire__pages *pages = &args->pages;
    size_t bytes = quire__dtype_bytes(pages->dtype);

    for (int64_t token = 0; token < args->tokens; token++) {
        int64_t slot = args->slots[token];
        if (slot < 0)
            continue;
        unsigned char *to = row_of(pages, slot / pages->block_tokens, args->layer, slot % pages->block_tokens);
        store_part(&args->k, token, pages->value_dim, pages->dtype, to);
        if (pages->head_dim > pages->value_dim)
            store_part(&args->v, token, pages->head_dim - pages->value_dim, pages->dtype,
                       to + (size_t)pages->value_dim * bytes);
    }
}

/* ---- attention ----------------------------------------------------------------------------------------------- */

static void load_key(const quire__attend_args *args, int32_t row, int32_t key, double *x)
{
    const quire__pages *pages = &args->pages;
    int64_t block = args->block_table[(int64_t)row * args->table_stride + key / pages->block_tokens];
    const unsigned char *from = row_of(pages, block, args->layer, key % pages->block_tokens);
    size_t bytes = quire__dtype_bytes(pages->dtype);

    for (int32_t i = 0; i < pages->head_dim; i++)
        x[i] = (double)quire__dtype_load(pages->dtype, from + (size_t)i * bytes);
}

static double score_of(const quire__attend_args *args, const double *q, const double *x)
{
    double sum = 0;
    for (int32_t i = 0; i < args->pages.head_dim; i++)
        sum += q[i] * x[i];
    return sum * (double)args->scale;
}

/* Two passes over the keys: the maximum, then weights and their sums. A token without keys gives zeros. */
static void attend_head(const quire__attend_args *args, int64_t token, int32_t head)
{
    const quire__pages *pages = &args->pages;
    int32_t keys = args->positions[token] + 1, row = args->token_rows[token];
    double q[LATENT_MOST], x[LATENT_MOST], sums[LATENT_MOST] = {0}, most = -INFINITY, total = 0;
    const unsigned char *from = vector_of(&args->q, token, head);
    unsigned char *to = vector_of(&args->out, token, head);

    for (int32_t i = 0; i < pages->head_dim; i++)
        q[i] = (double)quire__dtype_load(args->q.dtype, from + (size_t)i * quire__dtype_bytes(args->q.dtype));
    for (int32_t key = 0; key < keys; key++) {
        load_key(args, row, key, x);
        most = fmax(most, score_of(args, q, x));
    }
    for (int32_t key = 0; key < keys; key++) {
        load_key(args, row, key, x);
        double weight = exp(score_of(args, q, x) - most);
        total += weight;
        for (int32_t i = 0; i < pages->value_dim; i++)
            sums[i] += weight * x[i];
    }
    for (int32_t i = 0; i < pages->value_dim; i++)
        quire__dtype_store(args->out.dtype, to + (size_t)i * quire__dtype_bytes(args->out.dtype),
                           keys > 0 ? (float)(sums[i] / total) : 0.0f);
}

void quire__host_latent_attend(const quire__attend_args *args)
{
    for (int32_t i = 0; i < args->count; i++) {
        int32_t token = args->select != NULL ? args->select[i] : args->first_token + i;
        for (int32_t head = 0; head < args->query_heads; head++)
            attend_head(args, token, head);
    }
}
