/* attend_fixture.h: a random batch over random pages in plain memory, for tests of append and attention. Every row's
 * pages are scattered over the arena; what no token was appended to is NaN, so that reading it shows. */
#ifndef ATTEND_FIXTURE_H
#define ATTEND_FIXTURE_H

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "device/host_ops.h"
#include "kernels/launch.h"

enum { QUIRE__FIXTURE_DIMS = 512 }; /* most of a head */

typedef struct attend_shape {
    quire_dtype cache, tensor;
    int32_t block_tokens, head_dim, kv_heads, group, layers;
    bool given_scales; /* FP8: by the caller */
} attend_shape;

typedef struct attend_fixture {
    attend_shape shape;
    int32_t rows, tokens, blocks, table_stride, longest;
    int64_t block_bytes;
    size_t arena_bytes, q_bytes, out_bytes;
    unsigned char *arena, *q, *out;
    float *scales, *sinks; /* sinks: [query heads], for who wants them */
    int32_t *table, *token_rows, *positions;
    quire_tile *tiles; /* one a row */
} attend_fixture;

static inline double fixture_uniform(uint64_t *random)
{
    return (double)(quire__random(random) >> 11) * 0x1p-52 - 1.0;
}

static inline quire_tensor fixture_tensor(const attend_fixture *f, void *data, int32_t heads)
{
    return (quire_tensor){.data = data,
                          .dtype = f->shape.tensor,
                          .heads = (uint32_t)heads,
                          .token_stride = (int64_t)heads * f->shape.head_dim,
                          .head_stride = f->shape.head_dim};
}

static inline quire__pages fixture_pages(const attend_fixture *f)
{
    const attend_shape *s = &f->shape;
    quire__pages pages = {.arena = f->arena,
                          .block_tokens = s->block_tokens,
                          .kv_heads = s->kv_heads,
                          .head_dim = s->head_dim,
                          .dtype = s->cache,
                          .scales = f->scales};
    quire__pages_set_format(&pages, quire__format_of(s->cache, s->head_dim, f->scales != NULL));
    pages.block_stride = pages.layer_stride * s->layers;
    return pages;
}

/* The attention of `layer` over the whole batch, tiles chosen; q and out as given. */
static inline quire__attend_args fixture_args(const attend_fixture *f, int32_t layer, unsigned char *out)
{
    const attend_shape *s = &f->shape;
    int32_t query_heads = s->kv_heads * s->group;
    return (quire__attend_args){.pages = fixture_pages(f),
                                .layer = layer,
                                .query_heads = query_heads,
                                .scale = 1.0f / sqrtf((float)s->head_dim),
                                .q = fixture_tensor(f, f->q, query_heads),
                                .out = fixture_tensor(f, out, query_heads),
                                .block_table = f->table,
                                .table_stride = f->table_stride,
                                .token_rows = f->token_rows,
                                .positions = f->positions,
                                .tiles = f->tiles,
                                .count = f->rows,
                                .longest_context = f->longest};
}

static inline void fixture_fill(attend_fixture *f, uint64_t *random, int32_t row, int32_t context)
{
    const attend_shape *s = &f->shape;
    quire__pages pages = fixture_pages(f);
    for (int32_t key = 0; key < context; key++) {
        int64_t block = f->table[(int64_t)row * f->table_stride + key / s->block_tokens];
        for (int32_t i = 0; i < s->layers * 2 * s->kv_heads; i++) {
            int32_t layer = i / (2 * s->kv_heads), which = i / s->kv_heads % 2, head = i % s->kv_heads;
            float values[QUIRE__FIXTURE_DIMS];
            for (int32_t d = 0; d < s->head_dim; d++)
                values[d] = (float)(2 * fixture_uniform(random));
            quire__row_encode(&pages, which, head, values,
                              quire__page_row(&pages, block, layer, which, head, key % s->block_tokens),
                              quire__page_row_scales(&pages, block, layer, which, head, key % s->block_tokens));
        }
    }
}

/* Row i has contexts[i] keys, of which the last news[i] are this step's tokens. */
static inline void fixture_open(attend_fixture *f, const attend_shape *shape, int32_t rows, const int32_t *contexts,
                                const int32_t *news, uint64_t *random)
{
    int32_t query_heads = shape->kv_heads * shape->group, token = 0, block = 0;
    memset(f, 0, sizeof *f);
    f->shape = *shape;
    f->rows = rows;
    for (int32_t i = 0; i < rows; i++) {
        f->tokens += news[i];
        f->longest = contexts[i] > f->longest ? contexts[i] : f->longest;
        f->blocks += (contexts[i] + shape->block_tokens - 1) / shape->block_tokens;
    }
    f->table_stride = (f->longest + shape->block_tokens - 1) / shape->block_tokens + 1;
    if (shape->given_scales) {
        f->scales = malloc(2 * (size_t)shape->kv_heads * sizeof *f->scales);
        for (int32_t i = 0; i < 2 * shape->kv_heads; i++)
            f->scales[i] = (float)(0.75 + 0.5 * fixture_uniform(random));
    }

    f->block_bytes = fixture_pages(f).block_stride;
    f->arena_bytes = (size_t)f->blocks * (size_t)f->block_bytes;
    f->q_bytes = f->out_bytes = (size_t)f->tokens * (size_t)query_heads * (size_t)shape->head_dim *
                                quire__dtype_bytes(shape->tensor);
    f->arena = malloc(f->arena_bytes);
    f->q = malloc(f->q_bytes);
    f->out = malloc(f->out_bytes);
    f->table = malloc((size_t)rows * (size_t)f->table_stride * sizeof *f->table);
    f->token_rows = malloc((size_t)f->tokens * sizeof *f->token_rows);
    f->positions = malloc((size_t)f->tokens * sizeof *f->positions);
    f->tiles = malloc((size_t)rows * sizeof *f->tiles);
    memset(f->arena, 0xff, f->arena_bytes);
    memset(f->out, 0xff, f->out_bytes);
    memset(f->table, 0xff, (size_t)rows * (size_t)f->table_stride * sizeof *f->table);
    f->sinks = malloc((size_t)query_heads * sizeof *f->sinks);
    for (int32_t i = 0; i < query_heads; i++)
        f->sinks[i] = i % 7 == 6 ? -INFINITY : (float)(4 * fixture_uniform(random));

    int32_t *order = malloc((size_t)(f->blocks > 0 ? f->blocks : 1) * sizeof *order);
    for (int32_t i = 0; i < f->blocks; i++) {
        int32_t at = (int32_t)(quire__random(random) % (uint64_t)(i + 1));
        order[i] = order[at];
        order[at] = i;
    }
    for (int32_t i = 0; i < rows; i++) {
        f->tiles[i] = (quire_tile){.row = i, .first_token = token, .tokens = news[i]};
        for (int32_t j = 0; j < (contexts[i] + shape->block_tokens - 1) / shape->block_tokens; j++)
            f->table[(int64_t)i * f->table_stride + j] = order[block++];
        for (int32_t j = 0; j < news[i]; j++, token++) {
            f->token_rows[token] = i;
            f->positions[token] = contexts[i] - news[i] + j;
        }
        fixture_fill(f, random, i, contexts[i]);
    }
    free(order);
    for (size_t i = 0; i < f->q_bytes / quire__dtype_bytes(shape->tensor); i++)
        quire__dtype_store(shape->tensor, f->q + i * quire__dtype_bytes(shape->tensor),
                           (float)(4 * fixture_uniform(random)));
}

/* Some of window, soft cap and sinks, by the bits of `which`: 8 combinations. Table entries of pages that no token of
 * the fixture sees are put far outside the arena. */
static inline void fixture_feature(attend_fixture *f, quire__attend_args *args, int32_t which, int32_t window)
{
    args->window = which & 1 ? window : 0;
    args->soft_cap = which & 2 ? 1.5f : 0;
    args->sinks = which & 4 ? f->sinks : NULL;
    for (int32_t row = 0; row < f->rows && args->window > 0; row++) {
        const quire_tile *tile = &f->tiles[row];
        int32_t first = f->positions[tile->first_token] + 1 - window;
        for (int32_t column = 0; column < first / f->shape.block_tokens; column++)
            f->table[(int64_t)row * f->table_stride + column] = 1 << 30;
    }
}

static inline void fixture_close(attend_fixture *f)
{
    free(f->arena), free(f->q), free(f->out), free(f->scales), free(f->sinks);
    free(f->table), free(f->token_rows), free(f->positions), free(f->tiles);
}

/* Largest difference of two outputs of the fixture's tensor type. NaN counts as infinite. */
static inline double fixture_difference(const attend_fixture *f, const unsigned char *a, const unsigned char *b)
{
    size_t bytes = quire__dtype_bytes(f->shape.tensor);
    double most = 0;
    for (size_t i = 0; i < f->out_bytes; i += bytes) {
        double difference = fabs((double)quire__dtype_load(f->shape.tensor, a + i) -
                                 (double)quire__dtype_load(f->shape.tensor, b + i));
        most = difference <= most ? most : isnan(difference) ? INFINITY : difference;
    }
    return most;
}

/* What two correct implementations may differ by, outputs being within +-2: float sums, then one rounding each. */
static inline double fixture_tolerance(quire_dtype tensor)
{
    return tensor == QUIRE_DTYPE_F32 ? 1e-5 : tensor == QUIRE_DTYPE_F16 ? 2e-3 : 1.6e-2;
}

#endif
