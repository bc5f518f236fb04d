/* device_attend.c: a batch of sequences with random KV, and one step that stays open while it is timed.
 *
 * All layers get the same K and V: token t of a step takes row t of `kv`. So what attention must find at a position is
 * known without a second cache: row (position % CHUNK) for the prompt, row (row of the batch) for the last token. */
#include "device_attend.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/host_ops.h"
#include "host_limits.h"

enum {
    CHUNK = 2048,   /* tokens of a prefill step */
    PREFILL = 8192, /* the longest step of a figure of its own */
    MOST_DIM = 512,
    LIMIT_BYTES = 256 << 20, /* of the copy beside it */
    /* bytes that a timed body should move at least; short ones are repeated */
    LEAST_WORK = 64 << 20,
    LEAST_WORK_GPU = 512 << 20
};

typedef struct batch {
    uint32_t rows, context;
} batch;

typedef struct race {
    bench_bed *bed;
    quire_cache *cache;
    quire_step *step;
    const quire_view *view;
    quire_tensor k, v, q, out;
    void *k_mirror, *v_mirror, *q_mirror;
    const char *name; /* of the rows of decode attention */
    bool appends;     /* appends have rows of their own, one for each number of sequences */
    uint32_t appended;
    uint32_t repeats;
    bench_copy copy;
} race;

static float scale_of(const race *race)
{
    return 1.0f / sqrtf((float)race->bed->group.head_dim);
}

static void append_body(void *arg)
{
    race *race = arg;

    for (uint32_t i = 0; i < race->repeats; i++)
        for (uint32_t layer = 0; layer < race->view->layers; layer++)
            bench_must(quire_append(race->view, layer, &race->k, &race->v));
    bench_bed_finish(race->bed);
}

static void attend_body(void *arg)
{
    race *race = arg;

    for (uint32_t i = 0; i < race->repeats; i++)
        for (uint32_t layer = 0; layer < race->view->layers; layer++)
            bench_must(quire_attend(race->view, layer, &race->q, &race->out, scale_of(race)));
    bench_bed_finish(race->bed);
}

/* K and V of a token in one layer: elements of `dtype`, with their scales. */
static double kv_bytes(const race *race, quire_dtype dtype)
{
    const quire_group *group = &race->bed->group;
    quire__format format = quire__format_of(dtype, (int32_t)group->head_dim, false);

    return 2.0 * group->kv_heads * (format.row_bytes + format.scale_bytes);
}

/* `body` makes one launch a layer. */
static void race_and_report(race *race, void (*body)(void *), const char *name, const char *size, double bytes)
{
    double least = bench_bed_on_gpu(race->bed) ? LEAST_WORK_GPU : LEAST_WORK;

    race->repeats = bytes < least ? (uint32_t)(least / bytes) + 1 : 1;
    const bool reads = body == attend_body && !bench_bed_on_gpu(race->bed);
    bench_racer racers[] = {bench_enter(NULL, body, NULL, race, race->repeats),
                            bench_enter(NULL, bench_copy_body, NULL, &race->copy, 1),
                            bench_enter(NULL, bench_read_body, NULL, &race->copy, 1)};

    bench_bed_race(race->bed, racers, reads ? 3 : 2);
    bench_figure figure = bench_bed_figure(name, size, racers[0].sample, bytes, racers[1].sample,
                                           2.0 * (double)race->copy.bytes, "copy within the device");
    figure.launch = bench_scale(racers[0].sample, 1e6 / race->view->layers);
    if (reads) {
        figure.also_name = "reading alone";
        figure.also_unit = "GB/s";
        figure.also = bench_rate(racers[2].sample, (double)race->copy.bytes * 1e-9);
        figure.of_also = figure.value.median / figure.also.median;
    }
    bench_report_figure(race->bed->report, &figure);
}

/* ---- the check --------------------------------------------------------------------------------------------- */

/* K or V of a token of the batch as the cache should hold it. */
static void stored(const race *race, int which, size_t token, uint32_t head, float *values)
{
    const quire_group *group = &race->bed->group;
    const void *mirror = which == 0 ? race->k_mirror : race->v_mirror;
    size_t size = quire__dtype_bytes(race->k.dtype), index = (token * group->kv_heads + head) * group->head_dim;
    unsigned char row[4 * MOST_DIM], scales[MOST_DIM];
    quire__pages pages = {.block_tokens = 1, .kv_heads = 1, .head_dim = (int32_t)group->head_dim};

    pages.dtype = race->view->dtype;
    quire__pages_set_format(&pages, quire__format_of(pages.dtype, pages.head_dim, false));
    for (uint32_t e = 0; e < group->head_dim; e++)
        values[e] = quire__dtype_load(race->k.dtype, (const unsigned char *)mirror + (index + e) * size);
    quire__row_encode(&pages, which, 0, values, row, scales);
    quire__row_decode(&pages, which, 0, row, scales, values);
    if (which == 0 && pages.rotation != 0)
        quire__rotate(values, pages.head_dim, pages.rotation); /* its own inverse */
}

/* One head of one row, by the definition, in double. */
static void expected_head(const race *race, uint32_t row, uint32_t context, uint32_t query_head, double *out)
{
    const quire_group *group = &race->bed->group;
    uint32_t head = query_head / (group->query_heads / group->kv_heads), dim = group->head_dim;
    double *weights = bench_alloc(context * sizeof *weights), sum = 0;

    for (uint32_t t = 0; t < context; t++) {
        size_t token = t + 1 < context ? t % CHUNK : row;
        double dot = 0;
        float k[MOST_DIM];
        stored(race, 0, token, head, k);
        for (uint32_t e = 0; e < dim; e++) {
            size_t index = ((size_t)row * group->query_heads + query_head) * dim + e;
            double q = quire__dtype_load(race->q.dtype, (const unsigned char *)race->q_mirror +
                                                            index * quire__dtype_bytes(race->q.dtype));
            dot += q * (double)k[e];
        }
        weights[t] = exp(dot * (double)scale_of(race)); /* of numbers so small that nothing overflows */
        sum += weights[t];
    }
    for (uint32_t e = 0; e < dim; e++)
        out[e] = 0;
    for (uint32_t t = 0; t < context; t++) {
        float v[MOST_DIM];
        stored(race, 1, t + 1 < context ? t % CHUNK : row, head, v);
        for (uint32_t e = 0; e < dim; e++)
            out[e] += weights[t] / sum * (double)v[e];
    }
    free(weights);
}

static void check_attention(race *race, const batch *batch)
{
    const quire_group *group = &race->bed->group;
    size_t width = (size_t)group->query_heads * group->head_dim, size = quire__dtype_bytes(race->out.dtype);
    unsigned char *got = bench_alloc(batch->rows * width * size);
    double *expected = bench_alloc(group->head_dim * sizeof *expected);

    race->repeats = 1;
    attend_body(race);
    bench_bed_move(race->bed, got, race->out.data, batch->rows * width * size, false);
    for (int i = 0; i < 2; i++) { /* first row, first head; last row, last head */
        uint32_t row = i == 0 ? 0 : batch->rows - 1, head = i == 0 ? 0 : group->query_heads - 1;
        expected_head(race, row, batch->context, head, expected);
        for (uint32_t e = 0; e < group->head_dim; e++) {
            float value = quire__dtype_load(race->out.dtype, got + (row * width + head * group->head_dim + e) * size);
            if (!(fabs((double)value - expected[e]) <= 2e-3 + 0.01 * fabs(expected[e])))
                bench_die("decode attention: row %u, head %u, element %u is %g and should be %g", row, head, e,
                          (double)value, expected[e]);
        }
    }
    free(expected);
    free(got);
}

/* ---- the batch --------------------------------------------------------------------------------------------- */

static quire_tensor tensor(bench_bed *bed, uint32_t tokens, uint32_t heads, void **mirror)
{
    quire_dtype dtype = bed->cache.dtype > QUIRE_DTYPE_BF16 ? QUIRE_DTYPE_BF16 : bed->cache.dtype;
    size_t width = (size_t)heads * bed->group.head_dim;

    return (quire_tensor){.data = bench_bed_random(bed, dtype, tokens * width, mirror),
                          .dtype = dtype,
                          .heads = heads,
                          .token_stride = (int64_t)width,
                          .head_stride = bed->group.head_dim};
}

static void submit(race *race)
{
    bench_must(quire_step_submit(race->step));
    race->view = quire_step_view(race->step, 0);
    race->repeats = 1;
    append_body(race);
}

/* One sequence's prompt, in steps of CHUNK; every layer gets its KV. */
static void prefill(race *race, quire_seq seq, const int32_t *tokens, size_t count)
{
    for (size_t done = 0; done < count;) {
        size_t part = count - done < CHUNK ? count - done : CHUNK;
        bench_must(quire_step_begin(race->cache, bench_bed_stream(race->bed), &race->step));
        bench_must(quire_step_add(race->step, seq, tokens + done, part));
        submit(race);
        bench_must(quire_step_commit(race->step));
        done += part;
    }
}

static void run_batch(race *race, const batch *batch)
{
    int32_t *tokens = bench_alloc(batch->context * sizeof *tokens);
    quire_seq *seqs = bench_alloc(batch->rows * sizeof *seqs);
    char size[40], count[16];

    for (uint32_t i = 0; i < batch->rows; i++) {
        bench_random_tokens(&race->bed->seed, tokens, batch->context);
        bench_must(quire_seq_open(race->cache, NULL, &seqs[i]));
        prefill(race, seqs[i], tokens, batch->context - 1);
    }
    bench_must(quire_step_begin(race->cache, bench_bed_stream(race->bed), &race->step));
    for (uint32_t i = 0; i < batch->rows; i++)
        bench_must(quire_step_add(race->step, seqs[i], tokens, 1));
    submit(race);
    check_attention(race, batch);

    snprintf(size, sizeof size, "%u x %s tokens", batch->rows, bench_count(count, sizeof count, batch->context));
    double layers = race->view->layers, cached = layers * batch->rows * kv_bytes(race, race->view->dtype);
    race_and_report(race, attend_body, race->name, size, cached * batch->context);
    if (batch->rows > 1 && race->appends && batch->rows != race->appended) {
        race->appended = batch->rows;
        snprintf(size, sizeof size, "%u x 1 token", batch->rows);
        race_and_report(race, append_body, "append, decode", size,
                        cached + layers * batch->rows * kv_bytes(race, race->k.dtype));
    }
    bench_must(quire_step_commit(race->step));
    for (uint32_t i = 0; i < batch->rows; i++)
        bench_must(quire_seq_close(race->cache, seqs[i]));
    bench_must(quire_cache_clear(race->cache));
    free(seqs);
    free(tokens);
}

static void run_prefill_append(race *race, uint32_t count)
{
    int32_t *tokens = bench_alloc(count * sizeof *tokens);
    quire_seq seq;
    char size[40], text[16];

    bench_random_tokens(&race->bed->seed, tokens, count);
    bench_must(quire_seq_open(race->cache, NULL, &seq));
    bench_must(quire_step_begin(race->cache, bench_bed_stream(race->bed), &race->step));
    bench_must(quire_step_add(race->step, seq, tokens, count));
    submit(race);
    snprintf(size, sizeof size, "%s tokens", bench_count(text, sizeof text, count));
    double bytes = kv_bytes(race, race->view->dtype) + kv_bytes(race, race->k.dtype);
    race_and_report(race, append_body, "append, prefill", size, bytes * race->view->layers * count);
    bench_must(quire_step_commit(race->step));
    bench_must(quire_seq_close(race->cache, seq));
    bench_must(quire_cache_clear(race->cache));
    free(tokens);
}

static void race_open(race *race, uint32_t rows)
{
    bench_bed *bed = race->bed;
    quire_options options = bed->cache;
    void *unused;

    options.device_bytes = bed->arena_bytes;
    options.offload = QUIRE_OFFLOAD_NONE;
    options.host_bytes = 0;
    options.max_sequences = rows;
    options.max_seq_tokens = 0;
    options.max_step_tokens = PREFILL;
    bench_must(quire_cache_open(&race->cache, &options));
    race->k = tensor(bed, PREFILL, bed->group.kv_heads, &race->k_mirror);
    race->v = tensor(bed, PREFILL, bed->group.kv_heads, &race->v_mirror);
    race->q = tensor(bed, rows, bed->group.query_heads, &race->q_mirror);
    race->out = tensor(bed, rows, bed->group.query_heads, &unused);
    free(unused);
    unsigned char *memory = bench_bed_take(bed, QUIRE__MEMORY_DEVICE, 2 * (size_t)LIMIT_BYTES);
    race->copy = (bench_copy){bed, memory + LIMIT_BYTES, memory, LIMIT_BYTES};
    bench_copy_body(&race->copy);
}

static void race_close(race *race)
{
    bench_bed *bed = race->bed;

    quire_cache_close(race->cache);
    bench_bed_give(bed, QUIRE__MEMORY_DEVICE, (void *)(uintptr_t)race->copy.from);
    bench_bed_give(bed, QUIRE__MEMORY_DEVICE, race->out.data);
    bench_bed_give(bed, QUIRE__MEMORY_DEVICE, race->q.data);
    bench_bed_give(bed, QUIRE__MEMORY_DEVICE, race->v.data);
    bench_bed_give(bed, QUIRE__MEMORY_DEVICE, race->k.data);
    free(race->q_mirror);
    free(race->v_mirror);
    free(race->k_mirror);
}

static uint64_t room(const bench_bed *bed)
{
    return bed->arena_bytes / bed->block_bytes * bed->cache.block_tokens;
}

/* A sequence may end in a block that it fills in part. */
static bool fits(const bench_bed *bed, const batch *batch)
{
    return (uint64_t)batch->rows * (batch->context + bed->cache.block_tokens) <= room(bed);
}

/* Another model than the one asked for: only its heads differ. */
static void run_shape(bench_bed *bed, const char *name, uint32_t kv_heads, uint32_t query_heads, const batch *batch)
{
    quire_group asked = bed->group;
    size_t block_bytes = bed->block_bytes;
    race race = {.bed = bed, .name = name};

    bed->group.kv_heads = kv_heads;
    bed->group.query_heads = query_heads;
    bed->block_bytes = bench_block_bytes(&bed->cache);
    if (fits(bed, batch)) {
        race_open(&race, batch->rows);
        run_batch(&race, batch);
        race_close(&race);
    }
    bed->group = asked;
    bed->block_bytes = block_bytes;
}

void bench_device_attend(bench_bed *bed)
{
    static const batch standard[] = {{1, 1024},   {1, 4096},  {1, 16384},  {1, 65536}, {1, 131072}, {8, 512},
                                     {16, 1024}, {16, 4096}, {64, 1024}, {64, 4096}, {256, 1024}};
    batch asked = {bed->options->batch, bed->options->context};
    const batch *batches = asked.rows > 0 ? &asked : standard;
    size_t count = asked.rows > 0 ? 1 : sizeof standard / sizeof standard[0], fitting = 0;
    race race = {.bed = bed, .name = "decode attention", .appends = true};

    for (size_t i = 0; i < count; i++)
        fitting += fits(bed, &batches[i]);
    if (fitting == 0)
        bench_die("no batch fits an arena of %llu tokens; raise QUIRE_DEVICE_BYTES or give a smaller --batch and "
                  "--context",
                  (unsigned long long)room(bed));
    race_open(&race, asked.rows > 256 ? asked.rows : 256);
    if (asked.rows == 0 && room(bed) >= CHUNK)
        run_prefill_append(&race, CHUNK);
    if (asked.rows == 0 && room(bed) >= PREFILL)
        run_prefill_append(&race, PREFILL);
    for (size_t i = 0; i < count; i++)
        if (fits(bed, &batches[i]))
            run_batch(&race, &batches[i]);
    race_close(&race);
    if (asked.rows == 0) {
        run_shape(bed, "decode attention, 8:1", 8, 64, &(batch){64, 4096});
        run_shape(bed, "decode attention, 4 kv heads", 4, 32, &(batch){1, 16384});
    }
}
