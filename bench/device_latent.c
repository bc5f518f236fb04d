#include "device_latent.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "device/host_latent.h"
#include "device/host_ops.h"
#include "host_limits.h"

enum { ROW = 576, VALUES = 512, BLOCK_TOKENS = 64, MOST_HEADS = 128 };

/* Sequences of one context over pages of one layer; the blocks of a sequence lie anywhere. */
typedef struct race {
    bench_bed *bed;
    quire__append_args append;
    quire__attend_args attend;
    uint32_t rows, context;
    unsigned char *pages; /* what the device has in its pages */
    unsigned char *q;     /* and in q */
    int32_t *table, *positions, *token_rows;
} race;

static void *send(race *race, const void *from, size_t bytes)
{
    void *memory = bench_bed_take(race->bed, QUIRE__MEMORY_DEVICE, bytes);

    bench_bed_move(race->bed, memory, from, bytes, true);
    return memory;
}

static void give(race *race, const void *memory)
{
    bench_bed_give(race->bed, QUIRE__MEMORY_DEVICE, (void *)(uintptr_t)memory);
}

static void append_body(void *arg)
{
    race *race = arg;
    quire__kernel_args args = {.append = race->append};

    bench_must(quire__device_launch(race->bed->device, race->bed->stream, QUIRE__KERNEL_LATENT_APPEND, &args));
    bench_bed_finish(race->bed);
}

static void attend_body(void *arg)
{
    race *race = arg;
    quire__kernel_args args = {.attend = race->attend};

    bench_must(quire__device_launch(race->bed->device, race->bed->stream, QUIRE__KERNEL_LATENT_ATTEND, &args));
    bench_bed_finish(race->bed);
}

static size_t page_bytes(const race *race)
{
    return (size_t)race->rows * race->context * ROW * 2;
}

static void race_open(race *race)
{
    bench_bed *bed = race->bed;
    uint32_t blocks_a_row = race->context / BLOCK_TOKENS, blocks = race->rows * blocks_a_row;
    uint32_t tokens = race->rows * race->context;
    int64_t *slots = bench_alloc(tokens * sizeof *slots);
    void *latent, *rope, *unused;

    race->table = bench_alloc(blocks * sizeof *race->table);
    race->positions = bench_alloc(race->rows * sizeof *race->positions);
    race->token_rows = bench_alloc(race->rows * sizeof *race->token_rows);
    for (uint32_t i = 0; i < blocks; i++) {
        uint32_t other = (uint32_t)(quire__random(&bed->seed) % (i + 1));
        race->table[i] = race->table[other];
        race->table[other] = (int32_t)i;
    }
    for (uint32_t i = 0; i < tokens; i++)
        slots[i] = (int64_t)race->table[i / BLOCK_TOKENS] * BLOCK_TOKENS + i % BLOCK_TOKENS;
    for (uint32_t i = 0; i < race->rows; i++) {
        race->positions[i] = (int32_t)race->context - 1;
        race->token_rows[i] = (int32_t)i;
    }
    quire__pages pages = {.arena = bench_bed_take(bed, QUIRE__MEMORY_DEVICE, page_bytes(race)),
                          .block_stride = BLOCK_TOKENS * ROW * 2, .layer_stride = BLOCK_TOKENS * ROW * 2,
                          .head_stride = BLOCK_TOKENS * ROW * 2, .token_stride = ROW * 2,
                          .block_tokens = BLOCK_TOKENS, .kv_heads = 1, .head_dim = ROW,
                          .dtype = QUIRE_DTYPE_BF16, .value_dim = VALUES};
    latent = bench_bed_random(bed, QUIRE_DTYPE_BF16, (size_t)tokens * VALUES, &unused);
    free(unused);
    rope = bench_bed_random(bed, QUIRE_DTYPE_BF16, (size_t)tokens * (ROW - VALUES), &unused);
    free(unused);
    race->append = (quire__append_args){.pages = pages,
                                        .tokens = (int32_t)tokens,
                                        .k = {latent, QUIRE_DTYPE_BF16, 1, VALUES, VALUES},
                                        .v = {rope, QUIRE_DTYPE_BF16, 1, ROW - VALUES, ROW - VALUES},
                                        .slots = send(race, slots, tokens * sizeof *slots)};
    append_body(race);
    race->pages = bench_alloc(page_bytes(race));
    bench_bed_move(bed, race->pages, pages.arena, page_bytes(race), false);
    free(slots);
    size_t splits = 64; /* at most; run_heads keeps to it */
    race->attend = (quire__attend_args){
        .pages = pages,
        .scale = 0.07f,
        .q = {.dtype = QUIRE_DTYPE_BF16},
        .out = {.dtype = QUIRE_DTYPE_BF16},
        .block_table = send(race, race->table, blocks * sizeof *race->table),
        .table_stride = (int32_t)blocks_a_row,
        .token_rows = send(race, race->token_rows, race->rows * sizeof *race->token_rows),
        .positions = send(race, race->positions, race->rows * sizeof *race->positions),
        .count = (int32_t)race->rows,
        .longest_context = (int32_t)race->context,
        .work_floats = (int64_t)(race->rows * MOST_HEADS * splits * (VALUES + 2))};
    race->attend.work = bench_bed_take(bed, QUIRE__MEMORY_DEVICE, (size_t)race->attend.work_floats * sizeof(float));
}

static void race_close(race *race)
{
    give(race, race->attend.work), give(race, race->attend.positions), give(race, race->attend.token_rows);
    give(race, race->attend.block_table), give(race, race->append.slots), give(race, race->append.v.data);
    give(race, race->append.k.data), give(race, race->append.pages.arena);
    free(race->pages), free(race->table), free(race->positions), free(race->token_rows);
}

/* The last sequence's output against float64. */
static void check(race *race)
{
    quire__attend_args args = race->attend;
    size_t row = (size_t)args.query_heads * VALUES;
    uint16_t *got = bench_alloc(row * sizeof *got);
    float *want = bench_alloc(race->rows * row * sizeof *want);
    int32_t last = (int32_t)race->rows - 1;
    double difference = 0, length = 0;

    bench_bed_move(race->bed, got, (uint16_t *)args.out.data + (size_t)last * row, row * sizeof *got, false);
    args.pages.arena = race->pages;
    args.q.data = race->q;
    args.out = (quire_tensor){want, QUIRE_DTYPE_F32, args.out.heads, (int64_t)row, VALUES};
    args.block_table = race->table;
    args.positions = race->positions;
    args.token_rows = race->token_rows;
    args.first_token = last;
    args.count = 1;
    quire__host_latent_attend(&args);
    for (size_t i = 0; i < row; i++) {
        double wanted = (double)want[(size_t)last * row + i];
        double error = (double)quire__dtype_load(QUIRE_DTYPE_BF16, &got[i]) - wanted;
        difference += error * error;
        length += wanted * wanted;
    }
    if (!(sqrt(difference / length) < 1e-2))
        bench_die("latent decode: relative error %g", sqrt(difference / length));
    free(got);
    free(want);
}

static void run_heads(race *race, bench_copy *copy, uint32_t heads)
{
    quire__attend_args *args = &race->attend;
    bench_bed *bed = race->bed;
    size_t blocks = race->rows * ((heads + 63) / 64), splits = (528 + blocks - 1) / blocks;
    char name[40], size[40], count[20];
    void *mirror, *unused;

    args->query_heads = (int32_t)heads;
    args->q = (quire_tensor){bench_bed_random(bed, QUIRE_DTYPE_BF16, (size_t)race->rows * heads * ROW, &mirror),
                             QUIRE_DTYPE_BF16, heads, heads * ROW, ROW};
    args->out = (quire_tensor){bench_bed_random(bed, QUIRE_DTYPE_BF16, (size_t)race->rows * heads * VALUES, &unused),
                               QUIRE_DTYPE_BF16, heads, heads * VALUES, VALUES};
    free(unused);
    race->q = mirror;
    args->split_tokens = (int32_t)((race->context / (splits < 64 ? splits : 64) + 127) / 64 * 64);
    attend_body(race);
    check(race);
    const bool multiplies = !bench_bed_on_gpu(bed);
    bench_racer racers[] = {bench_enter(NULL, attend_body, NULL, race, 1),
                            bench_enter(NULL, bench_copy_body, NULL, copy, 1),
                            bench_enter(NULL, bench_multiply_body, NULL, bed, 1)};
    bench_bed_race(bed, racers, multiplies ? 3 : 2);
    snprintf(name, sizeof name, heads == 16 ? "latent decode" : "latent decode, %u heads", heads);
    snprintf(size, sizeof size, "%u x %s tokens", race->rows, bench_count(count, sizeof count, race->context));
    bench_figure figure = bench_bed_figure(name, size, racers[0].sample, (double)page_bytes(race), racers[1].sample,
                                           2.0 * (double)copy->bytes, "copy within the device");
    figure.launch = bench_scale(racers[0].sample, 1e6);
    if (multiplies) { /* what binds a CPU: each row is multiplied with every head's query, its values with the weights */
        const double flops = 2.0 * (ROW + VALUES) * heads * race->rows * race->context;
        figure.also_name = "multiply-adds";
        figure.also_unit = "TFLOP/s";
        figure.also = bench_rate(racers[2].sample, bench_multiply_flops(bed) * 1e-12);
        figure.of_also = flops * 1e-12 / racers[0].sample.median / figure.also.median;
    }
    bench_report_figure(bed->report, &figure);
    give(race, args->q.data);
    give(race, args->out.data);
    free(mirror);
}

void bench_device_latent(bench_bed *bed)
{
    const bool gpu = bench_bed_on_gpu(bed);
    race race = {.bed = bed, .rows = gpu ? 64 : 4, .context = 4096};
    char size[40], count[20];

    if (page_bytes(&race) > bed->arena_bytes)
        return;
    race_open(&race);
    unsigned char *memory = bench_bed_take(bed, QUIRE__MEMORY_DEVICE, 2 * page_bytes(&race));
    bench_copy copy = {bed, memory + page_bytes(&race), memory, page_bytes(&race)};
    bench_copy_body(&copy);
    bench_racer racers[] = {bench_enter(NULL, append_body, NULL, &race, 1),
                            bench_enter(NULL, bench_copy_body, NULL, &copy, 1)};
    bench_bed_race(bed, racers, 2);
    snprintf(size, sizeof size, "%s tokens", bench_count(count, sizeof count, race.rows * race.context));
    bench_bed_report(bed, "latent append", size, racers[0].sample, 2.0 * (double)page_bytes(&race), racers[1].sample,
                     2.0 * (double)copy.bytes, "copy within the device");
    run_heads(&race, &copy, 16);
    if (gpu)
        run_heads(&race, &copy, MOST_HEADS);
    bench_bed_give(bed, QUIRE__MEMORY_DEVICE, memory);
    race_close(&race);
}
