#include "rank_engine.h"

#include <stdlib.h>
#include <string.h>

static float element(uint64_t state, uint32_t layer, uint32_t kind, uint32_t head, uint32_t d)
{
    uint64_t bits = mix(state, ((uint64_t)layer << 40) | ((uint64_t)kind << 32) | (uint64_t)head << 8 | d);
    return (float)((double)(bits >> 40) / (double)(1 << 23) - 1.0);
}

struct reading {
    struct reading *next;
    void *memory[2 * LAYERS + 2]; /* k, v of each layer; offsets; what was read */
    float *expected;
    size_t floats;
};

static void *take(engine *e, size_t bytes)
{
    void *memory = NULL;
    if (quire__device_alloc(e->cache->device, QUIRE__MEMORY_DEVICE, bytes, &memory) != QUIRE_OK)
        abort();
    return memory;
}

void engine_sync(engine *e)
{
    if (quire__device_stream_synchronize(e->cache->device, e->cache->stream) != QUIRE_OK)
        e->wrong = true;
    while (e->readings != NULL) {
        reading *r = e->readings;
        e->readings = r->next;
        if (r->floats > 0 && memcmp(r->memory[2 * LAYERS + 1], r->expected, r->floats * sizeof(float)) != 0)
            e->wrong = true;
        for (int i = 0; i < 2 * LAYERS + 2; i++)
            quire__device_free(e->cache->device, QUIRE__MEMORY_DEVICE, r->memory[i]);
        free(r->expected);
        free(r);
    }
}

static bool store(engine *e, reading *r, const quire_view *view, const wanted_step *want)
{
    uint32_t width = e->heads * HEAD_DIM;

    for (uint32_t part = 0; part < 2 * LAYERS; part++) {
        float *to = r->memory[part] = take(e, (size_t)view->tokens * width * sizeof(float));
        for (uint32_t i = 0; i < want->count; i++)
            for (uint32_t t = want->rows[i].length - want->rows[i].added; t < want->rows[i].length; t++)
                for (uint32_t at = 0; at < width; at++)
                    *to++ = element(want->rows[i].states[t], part / 2, part % 2, e->first_head + at / HEAD_DIM, at % HEAD_DIM);
    }
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        quire_tensor k = {r->memory[2 * layer], QUIRE_DTYPE_F32, e->heads, width, HEAD_DIM};
        quire_tensor v = {r->memory[2 * layer + 1], QUIRE_DTYPE_F32, e->heads, width, HEAD_DIM};
        if (quire_append(view, layer, &k, &v) != QUIRE_OK)
            return false;
    }
    return true;
}

static bool read_back(engine *e, reading *r, const quire_view *view, const wanted_step *want)
{
    uint32_t context = 0, piece = 0;

    for (uint32_t i = 0; i < want->count; i++)
        context += want->rows[i].length;
    uint32_t pieces = context * LAYERS * 2 * e->heads;
    int64_t *offsets = r->memory[2 * LAYERS] = take(e, pieces * sizeof(int64_t));
    r->floats = (size_t)pieces * HEAD_DIM;
    r->memory[2 * LAYERS + 1] = take(e, r->floats * sizeof(float));
    r->expected = malloc(r->floats * sizeof(float));
    for (uint32_t i = 0; i < want->count; i++)
        for (uint32_t t = 0; t < want->rows[i].length; t++)
            for (uint32_t part = 0; part < LAYERS * 2 * e->heads; part++, piece++) {
                uint32_t layer = part / (2 * e->heads), kind = part / e->heads % 2, head = part % e->heads;
                offsets[piece] = e->cache->step.sent[i].blocks[t / BLOCK_TOKENS] * view->block_stride +
                                 layer * view->layer_stride + kind * view->kv_stride + head * view->head_stride +
                                 t % BLOCK_TOKENS * view->token_stride;
                for (uint32_t d = 0; d < HEAD_DIM; d++)
                    r->expected[(size_t)piece * HEAD_DIM + d] =
                        element(want->rows[i].states[t], layer, kind, e->first_head + head, d);
            }
    quire__kernel_args args = {.pieces = {.arena = view->arena,
                                          .staging = r->memory[2 * LAYERS + 1],
                                          .offsets = offsets,
                                          .piece_bytes = HEAD_DIM * sizeof(float),
                                          .count = (int32_t)pieces}};
    return quire__device_launch(e->cache->device, view->stream, QUIRE__KERNEL_GATHER, &args) == QUIRE_OK;
}

bool engine_run(engine *e, const quire_view *view, const wanted_step *want)
{
    reading *r = calloc(1, sizeof *r);
    uint32_t tokens = 0;

    r->next = e->readings;
    e->readings = r;
    for (uint32_t i = 0; i < want->count; i++)
        tokens += want->rows[i].added;
    return view->rows == want->count && view->tokens == tokens && store(e, r, view, want) && read_back(e, r, view, want);
}
