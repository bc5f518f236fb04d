/* device_prefill.c: a step of new tokens whose attention goes over a cached prefix and, causally, over themselves.
 *
 * Token t of a step takes row t of `k` and `v`, so the key at a position is known: row (position % CHUNK) in the prefix,
 * row (position - prefix) after it. */
#include "device_prefill.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "device/host_ops.h"
#ifdef BENCH_CUBLAS
#include "matmul_cuda.h"
#endif

enum { CHUNK = 2048 };

typedef struct shape {
    uint32_t added, prefix; /* tokens */
} shape;

typedef struct race {
    bench_bed *bed;
    shape shape;
    quire_cache *cache;
    quire_seq seq;
    quire_step *step;
    const quire_view *view;
    quire_tensor k, v, q, out;
    void *k_mirror, *v_mirror, *q_mirror;
} race;

static void prefill_body(void *arg)
{
    race *race = arg;

    bench_must(quire_attend(race->view, 0, &race->q, &race->out, 1.0f / sqrtf((float)race->view->head_dim)));
    bench_bed_finish(race->bed);
}

static double load(quire_dtype dtype, const void *mirror, size_t index)
{
    return quire__dtype_load(dtype, (const unsigned char *)mirror + index * quire__dtype_bytes(dtype));
}

/* The last token's last head against the definition. Only where the cache keeps elements as they came. */
static void check(const race *race)
{
    const quire_group *group = &race->bed->group;
    uint32_t dim = group->head_dim, head = group->kv_heads - 1, total = race->shape.prefix + race->shape.added;
    size_t last = ((size_t)race->shape.added * group->query_heads - 1) * dim;
    double *weights = bench_alloc(total * sizeof *weights), sum = 0;
    unsigned char *got = bench_alloc(dim * quire__dtype_bytes(race->out.dtype));

    for (uint32_t t = 0; t < total; t++) {
        uint32_t row = t < race->shape.prefix ? t % CHUNK : t - race->shape.prefix;
        double dot = 0;
        for (uint32_t e = 0; e < dim; e++)
            dot += load(race->q.dtype, race->q_mirror, last + e) *
                   load(race->k.dtype, race->k_mirror, ((size_t)row * group->kv_heads + head) * dim + e);
        sum += weights[t] = exp(dot / sqrt(dim));
    }
    bench_bed_move(race->bed, got, (unsigned char *)race->out.data + last * quire__dtype_bytes(race->out.dtype),
                   dim * quire__dtype_bytes(race->out.dtype), false);
    for (uint32_t e = 0; e < dim; e++) {
        double expected = 0, value = load(race->out.dtype, got, e);
        for (uint32_t t = 0; t < total; t++) {
            uint32_t row = t < race->shape.prefix ? t % CHUNK : t - race->shape.prefix;
            expected += weights[t] / sum *
                        load(race->v.dtype, race->v_mirror, ((size_t)row * group->kv_heads + head) * dim + e);
        }
        if (!(fabs(value - expected) <= 4e-3 + 0.01 * fabs(expected)))
            bench_die("prefill attention: element %u is %g and should be %g", e, value, expected);
    }
    free(got);
    free(weights);
}

static quire_tensor tensor(bench_bed *bed, uint32_t tokens, uint32_t heads, void **mirror)
{
    quire_dtype dtype = quire__dtype_bytes(bed->cache.dtype) < 2 ? QUIRE_DTYPE_BF16 : bed->cache.dtype;
    size_t width = (size_t)heads * bed->group.head_dim;

    return (quire_tensor){.data = bench_bed_random(bed, dtype, tokens * width, mirror),
                          .dtype = dtype,
                          .heads = heads,
                          .token_stride = (int64_t)width,
                          .head_stride = bed->group.head_dim};
}

/* A step of `count` tokens; the layer that is timed gets their K and V. */
static void begin(race *race, const int32_t *tokens, size_t count)
{
    bench_must(quire_step_begin(race->cache, bench_bed_stream(race->bed), &race->step));
    bench_must(quire_step_add(race->step, race->seq, tokens, count));
    bench_must(quire_step_submit(race->step));
    race->view = quire_step_view(race->step, 0);
    bench_must(quire_append(race->view, 0, &race->k, &race->v));
    bench_bed_finish(race->bed);
}

static void race_open(race *race)
{
    bench_bed *bed = race->bed;
    quire_options options = bed->cache;
    uint32_t most = race->shape.added > CHUNK ? race->shape.added : CHUNK;
    uint32_t total = race->shape.prefix + race->shape.added;
    int32_t *tokens = bench_alloc(total * sizeof *tokens);
    void *unused;

    options.device_bytes = bed->arena_bytes;
    options.offload = QUIRE_OFFLOAD_NONE;
    options.host_bytes = 0;
    options.max_sequences = 1;
    options.max_step_tokens = most;
    bench_must(quire_cache_open(&race->cache, &options));
    race->k = tensor(bed, most, bed->group.kv_heads, &race->k_mirror);
    race->v = tensor(bed, most, bed->group.kv_heads, &race->v_mirror);
    race->q = tensor(bed, most, bed->group.query_heads, &race->q_mirror);
    race->out = tensor(bed, most, bed->group.query_heads, &unused);
    free(unused);
    bench_random_tokens(&bed->seed, tokens, total);
    bench_must(quire_seq_open(race->cache, NULL, &race->seq));
    for (uint32_t done = 0, part; done < race->shape.prefix; done += part) {
        part = race->shape.prefix - done < CHUNK ? race->shape.prefix - done : CHUNK;
        begin(race, tokens + done, part);
        bench_must(quire_step_commit(race->step));
    }
    begin(race, tokens + race->shape.prefix, race->shape.added);
    free(tokens);
}

static void race_close(race *race)
{
    quire_step_cancel(race->step);
    quire_cache_close(race->cache);
    bench_bed_give(race->bed, QUIRE__MEMORY_DEVICE, race->out.data);
    bench_bed_give(race->bed, QUIRE__MEMORY_DEVICE, race->q.data);
    bench_bed_give(race->bed, QUIRE__MEMORY_DEVICE, race->v.data);
    bench_bed_give(race->bed, QUIRE__MEMORY_DEVICE, race->k.data);
    free(race->q_mirror);
    free(race->v_mirror);
    free(race->k_mirror);
}

/* TFLOP of one layer. */
static double work(const race *race)
{
    double added = race->shape.added, keys = added * race->shape.prefix + added * (added + 1) / 2;

    return 4e-12 * race->bed->group.query_heads * race->bed->group.head_dim * keys;
}

static void run(race *race)
{
    char added[16], prefix[16];
    bench_figure figure = {.name = "prefill attention", .unit = "TFLOP/s", .rate = true};
    bench_racer racers[2] = {bench_enter(NULL, prefill_body, NULL, race, 1)};

    snprintf(figure.size, sizeof figure.size, "%s after %s tokens",
             bench_count(added, sizeof added, race->shape.added),
             bench_count(prefix, sizeof prefix, race->shape.prefix));
#ifdef BENCH_CUBLAS
    bench_matmul matmul;
    if (bench_bed_on_gpu(race->bed)) {
        bench_matmul_open(&matmul, race->bed);
        racers[1] = bench_enter(NULL, bench_matmul_body, NULL, &matmul, 1);
        bench_bed_race_calls(race->bed, racers, 2);
        bench_matmul_close(&matmul);
        figure.limit = bench_rate(racers[1].sample, bench_matmul_work());
        figure.limit_name = "cuBLAS, bf16, 8192 x 8192 x 8192";
    }
#endif
    if (figure.limit_name == NULL)
        bench_bed_race(race->bed, racers, 1);
    figure.value = bench_rate(racers[0].sample, work(race));
    figure.launch = bench_scale(racers[0].sample, 1e6);
    bench_report_figure(race->bed->report, &figure);
}

void bench_device_prefill(bench_bed *bed)
{
    static const shape on_gpu[] = {{2048, 0}, {8192, 32768}, {512, 32768}}, on_host[] = {{256, 0}, {256, 1792}};
    bool gpu = bench_bed_on_gpu(bed);
    size_t count = gpu ? sizeof on_gpu / sizeof on_gpu[0] : sizeof on_host / sizeof on_host[0];
    uint64_t room = bed->arena_bytes / bed->block_bytes * bed->cache.block_tokens;

    for (size_t i = 0; i < count; i++) {
        race race = {.bed = bed, .shape = gpu ? on_gpu[i] : on_host[i]};
        if (race.shape.added + race.shape.prefix > room)
            continue;
        race_open(&race);
        prefill_body(&race);
        if (race.view->dtype == race.k.dtype)
            check(&race);
        run(&race);
        race_close(&race);
    }
}
