#include "support/testing.h"

#include "support/sim_backend.h"

#include <string.h>

static backend *settle(backend *b)
{
    sim_backend *sim = (sim_backend *)b;
    assert_int_equal(quire__device_stream_synchronize(sim->cache->device, sim->stream), QUIRE_OK);
    return sim->host;
}

static float *sim_alloc(backend *b, size_t floats)
{
    void *memory;
    quire__device *device = ((sim_backend *)b)->cache->device;
    if (quire__device_alloc(device, QUIRE__MEMORY_DEVICE, floats * sizeof(float), &memory)) return NULL;
    return memory;
}

static void sim_free(backend *b, float *memory)
{
    if (memory) quire__device_free(((sim_backend *)b)->cache->device, QUIRE__MEMORY_DEVICE, memory);
}

static int sim_read(backend *b, float *to, const float *from, size_t floats, infer_error *error)
{
    backend *host = settle(b);
    return host->ops->read(host, to, from, floats, error);
}

static void sim_begin(backend *b, const quire_view *view)
{
    ((sim_backend *)b)->stream = view->stream;
}

static void sim_embed(backend *b, const matrix *m, const int32_t *ids, uint32_t tokens, float scale, float *y)
{
    backend *host = settle(b);
    host->ops->embed(host, m, ids, tokens, scale, y);
}

static void sim_matmul(backend *b, const matrix *m, const float *x, float *y, uint32_t tokens, bool add)
{
    backend *host = settle(b);
    host->ops->matmul(host, m, x, y, tokens, add);
}

static void sim_norm(backend *b, const float *x, const float *gain, float epsilon, float *y, uint32_t tokens,
                     uint32_t width, bool add)
{
    backend *host = settle(b);
    host->ops->norm(host, x, gain, epsilon, y, tokens, width, add);
}

static void sim_norm_heads(backend *b, float *x, const float *gain, float epsilon, uint32_t tokens, uint32_t width,
                           uint32_t heads, uint32_t head_dim)
{
    backend *host = settle(b);
    host->ops->norm_heads(host, x, gain, epsilon, tokens, width, heads, head_dim);
}

static void sim_rope(backend *b, float *x, const float *table, const int32_t *positions, uint32_t tokens,
                     uint32_t width, uint32_t heads, uint32_t head_dim)
{
    backend *host = settle(b);
    host->ops->rope(host, x, table, positions, tokens, width, heads, head_dim);
}

static void sim_gate(backend *b, const float *x, float *y, uint32_t tokens, uint32_t width, bool gelu)
{
    backend *host = settle(b);
    host->ops->gate(host, x, y, tokens, width, gelu);
}

static void sim_pick(backend *b, const float *x, const int32_t *rows, uint32_t count, uint32_t width, float *y)
{
    backend *host = settle(b);
    host->ops->pick(host, x, rows, count, width, y);
}

/* What loads a model is left out: the weights are the host backend's. */
static const backend_ops sim_ops = {
    .name = "sim",
    .alloc = sim_alloc,
    .free = sim_free,
    .read = sim_read,
    .begin = sim_begin,
    .embed = sim_embed,
    .matmul = sim_matmul,
    .norm = sim_norm,
    .norm_heads = sim_norm_heads,
    .rope = sim_rope,
    .gate = sim_gate,
    .pick = sim_pick,
};

void sim_backend_init(sim_backend *sim, backend *host, quire_cache *cache)
{
    memset(sim, 0, sizeof *sim);
    sim->base.ops = &sim_ops;
    sim->host = host;
    sim->cache = cache;
    sim->stream = quire_cache_stream(cache);
}
