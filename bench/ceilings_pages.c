/* ceilings_pages.c: decode attention by the same kernel over the same bytes at two places.
 *
 *   pages   the library's blocks: [block][layer][K,V]...      a layer's pieces of two blocks are a whole block apart
 *   pools   one pool for each layer: [layer][block][K,V]...   they are side by side when the blocks are
 *
 * Two caches, one of each. A pool's strides are put into the view of each of its steps, before anything is appended:
 * appends and attention take all they know of the geometry from there. "Used" caches have had other prompts before, so
 * that a sequence's blocks lie in no order; in a new one they are consecutive, which favours pools most. */
#include "ceilings_pages.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/hash.h"
#include "device/host_ops.h"

enum { CHUNK = 2048, WINDOW = 256, LEAST_WORK = 64 << 20, MOST_ROWS = 64 };

typedef struct side {
    bench_bed *bed;
    bool pools;
    quire_cache *cache;
    quire_step *step;
    quire_view *view;
    const quire_tensor *kv, *q;
    quire_tensor out;
    quire_seq seqs[MOST_ROWS];
    uint32_t repeats;
} side;

typedef struct batch {
    uint32_t rows, context;
} batch;

static void submit(side *side)
{
    bench_must(quire_step_submit(side->step));
    /* the view is the cache's own and not constant; nobody else reads this step's */
    side->view = (quire_view *)(uintptr_t)quire_step_view(side->step, 0);
    if (side->pools) {
        side->view->block_stride = side->view->layer_stride;
        side->view->layer_stride *= side->view->blocks;
    }
    for (uint32_t layer = 0; layer < side->view->layers; layer++)
        bench_must(quire_append(side->view, layer, side->kv, side->kv));
    bench_bed_finish(side->bed);
}

static void attend_body(void *arg)
{
    side *side = arg;
    float scale = 1.0f / sqrtf((float)side->view->head_dim);

    for (uint32_t i = 0; i < side->repeats; i++)
        for (uint32_t layer = 0; layer < side->view->layers; layer++)
            bench_must(quire_attend(side->view, layer, side->q, &side->out, scale));
    bench_bed_finish(side->bed);
}

/* Fills the cache with prompts of a block each, of which WINDOW are open at a time and end in random order. */
static void use_up(side *side)
{
    const quire_options *options = quire_cache_options(side->cache);
    uint64_t blocks = options->device_bytes / side->bed->block_bytes, seed = 5, tokens_seed = 6;
    quire_seq open[WINDOW] = {0};
    int32_t tokens[256];

    for (uint64_t i = 0; i < blocks; i++) {
        quire_seq *seq = &open[quire__random(&seed) % WINDOW];
        if (*seq != 0)
            bench_must(quire_seq_close(side->cache, *seq));
        bench_random_tokens(&tokens_seed, tokens, options->block_tokens);
        bench_must(quire_seq_open(side->cache, NULL, seq));
        bench_prefill(side->cache, *seq, tokens, options->block_tokens);
    }
    for (size_t i = 0; i < WINDOW; i++)
        if (open[i] != 0)
            bench_must(quire_seq_close(side->cache, open[i]));
}

/* The batch's sequences but for their last token, and the step of that one, which stays open. */
static void begin(side *side, const batch *batch, bool used)
{
    int32_t *tokens = bench_alloc(batch->context * sizeof *tokens);
    uint64_t seed = 7;

    bench_must(quire_cache_clear(side->cache));
    if (used)
        use_up(side);
    for (uint32_t row = 0; row < batch->rows; row++) {
        bench_random_tokens(&seed, tokens, batch->context);
        bench_must(quire_seq_open(side->cache, NULL, &side->seqs[row]));
        for (uint32_t done = 0, part; done + 1 < batch->context; done += part) {
            part = batch->context - 1 - done < CHUNK ? batch->context - 1 - done : CHUNK;
            bench_must(quire_step_begin(side->cache, bench_bed_stream(side->bed), &side->step));
            bench_must(quire_step_add(side->step, side->seqs[row], tokens + done, part));
            submit(side);
            bench_must(quire_step_commit(side->step));
        }
    }
    bench_must(quire_step_begin(side->cache, bench_bed_stream(side->bed), &side->step));
    for (uint32_t row = 0; row < batch->rows; row++)
        bench_must(quire_step_add(side->step, side->seqs[row], tokens, 1));
    submit(side);
    free(tokens);
}

static void end(side *side, const batch *batch)
{
    bench_must(quire_step_commit(side->step));
    for (uint32_t row = 0; row < batch->rows; row++)
        bench_must(quire_seq_close(side->cache, side->seqs[row]));
}

/* Within rounding: thread blocks may take their shares in another order. */
static void check_equal(side *sides, const batch *batch)
{
    bench_bed *bed = sides[0].bed;
    quire_dtype dtype = sides[0].out.dtype;
    size_t elements = (size_t)batch->rows * bed->group.query_heads * bed->group.head_dim;
    size_t size = quire__dtype_bytes(dtype);
    unsigned char *outs[2];

    for (int i = 0; i < 2; i++) {
        sides[i].repeats = 1;
        attend_body(&sides[i]);
        outs[i] = bench_alloc(elements * size);
        bench_bed_move(bed, outs[i], sides[i].out.data, elements * size, false);
    }
    for (size_t i = 0; i < elements; i++) {
        double page = quire__dtype_load(dtype, outs[0] + i * size), pool = quire__dtype_load(dtype, outs[1] + i * size);
        if (!(fabs(page - pool) <= 1e-3 + 0.01 * fabs(pool)))
            bench_die("attention over pages and over pools differ, with the same K and V: %g and %g", page, pool);
    }
    free(outs[1]);
    free(outs[0]);
}

/* Relative cost of pages, and half the middle spread that the two medians may be off by. */
static void race(side *sides, const batch *batch, bool used, double *cost, double *spread)
{
    bench_bed *bed = sides[0].bed;
    const quire_view *view = sides[0].view;
    double bytes = 2.0 * view->layers * view->kv_heads * view->head_dim * (double)quire__dtype_bytes(view->dtype) *
                   batch->rows * batch->context;
    char size[40], count[16];

    sides[0].repeats = sides[1].repeats = bytes < LEAST_WORK ? (uint32_t)(LEAST_WORK / bytes) + 1 : 1;
    bench_racer racers[] = {bench_enter(NULL, attend_body, NULL, &sides[0], sides[0].repeats),
                            bench_enter(NULL, attend_body, NULL, &sides[1], sides[1].repeats),
                            bench_enter(NULL, attend_body, NULL, &sides[1], sides[1].repeats)};
    bench_bed_race(bed, racers, 3);
    snprintf(size, sizeof size, "%u x %s, %s", batch->rows, bench_count(count, sizeof count, batch->context),
             used ? "used" : "new");
    bench_bed_report(bed, "attention over pages", size, racers[0].sample, bytes, racers[1].sample, bytes,
                     "over pools of one layer");
    *cost = racers[0].sample.median / racers[1].sample.median - 1;
    *spread = fabs(racers[2].sample.median / racers[1].sample.median - 1); /* the same twice */
}

static void side_open(side *side, bench_bed *bed, bool pools, const quire_tensor *kv, const quire_tensor *q)
{
    quire_options options = bed->cache;
    void *mirror;

    *side = (struct side){.bed = bed, .pools = pools, .kv = kv, .q = q};
    options.device_bytes = bed->arena_bytes / 2;
    options.offload = QUIRE_OFFLOAD_NONE;
    options.host_bytes = 0;
    options.max_sequences = WINDOW + MOST_ROWS;
    options.max_step_tokens = CHUNK;
    bench_must(quire_cache_open(&side->cache, &options));
    side->out = *q;
    side->out.data = bench_bed_random(bed, q->dtype, (size_t)MOST_ROWS * bed->group.query_heads * bed->group.head_dim,
                                      &mirror);
    free(mirror);
}

static quire_tensor tensor(bench_bed *bed, uint32_t tokens, uint32_t heads)
{
    size_t size = quire__dtype_bytes(bed->cache.dtype), width = (size_t)heads * bed->group.head_dim;
    void *mirror;
    quire_tensor made = {.dtype = size == 1 ? QUIRE_DTYPE_BF16 : bed->cache.dtype,
                         .heads = heads,
                         .token_stride = (int64_t)width,
                         .head_stride = bed->group.head_dim};

    made.data = bench_bed_random(bed, made.dtype, tokens * width, &mirror);
    free(mirror);
    return made;
}

bench_verdict bench_ceilings_pages(bench_bed *bed)
{
    static const batch batches[] = {{1, 2048}, {4, 512}, {1, 16384}, {8, 4096}, {32, 4096}, {64, 1024}};
    enum { BATCHES = sizeof batches / sizeof batches[0] };
    quire_tensor kv = tensor(bed, CHUNK, bed->group.kv_heads), q = tensor(bed, MOST_ROWS, bed->group.query_heads);
    uint64_t room = bed->arena_bytes / 2 / bed->block_bytes * bed->cache.block_tokens;
    double costs[2 * BATCHES], spreads[2 * BATCHES];
    size_t found = 0;
    side sides[2];

    side_open(&sides[0], bed, false, &kv, &q);
    side_open(&sides[1], bed, true, &kv, &q);
    for (size_t i = 0; i < BATCHES; i++) {
        if ((uint64_t)batches[i].rows * (batches[i].context + bed->cache.block_tokens) > room)
            continue;
        for (int used = 0; used < 2; used++) {
            begin(&sides[0], &batches[i], used != 0);
            begin(&sides[1], &batches[i], used != 0);
            check_equal(sides, &batches[i]);
            race(sides, &batches[i], used != 0, &costs[found], &spreads[found]);
            found++;
            end(&sides[0], &batches[i]);
            end(&sides[1], &batches[i]);
        }
    }
    for (int i = 0; i < 2; i++) {
        quire_cache_close(sides[i].cache);
        bench_bed_give(bed, QUIRE__MEMORY_DEVICE, sides[i].out.data);
    }
    bench_bed_give(bed, QUIRE__MEMORY_DEVICE, q.data);
    bench_bed_give(bed, QUIRE__MEMORY_DEVICE, kv.data);
    return bench_verdict_pages(costs, spreads, found);
}
