#include "device_shared.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/host_ops.h"

enum { BLOCK_TOKENS = 64, TAIL = 64, WORKERS = 1056 };

typedef struct race {
    bench_bed *bed;
    quire__shared_args shared;
    quire__attend_args plain;
    uint32_t rows, prefix;
} race;

static void *send(bench_bed *bed, const void *from, size_t bytes)
{
    void *memory = bench_bed_take(bed, QUIRE__MEMORY_DEVICE, bytes);

    bench_bed_move(bed, memory, from, bytes, true);
    return memory;
}

static void give(bench_bed *bed, const void *memory)
{
    bench_bed_give(bed, QUIRE__MEMORY_DEVICE, (void *)(uintptr_t)memory);
}

static void shared_body(void *arg)
{
    race *race = arg;
    quire__kernel_args args = {.shared = race->shared};

    bench_must(quire__device_launch(race->bed->device, race->bed->stream, QUIRE__KERNEL_ATTEND_SHARED, &args));
    bench_bed_finish(race->bed);
}

static void plain_body(void *arg)
{
    race *race = arg;
    quire__kernel_args args = {.attend = race->plain};

    bench_must(quire__device_launch(race->bed->device, race->bed->stream, QUIRE__KERNEL_ATTEND_DECODE, &args));
    bench_bed_finish(race->bed);
}

static quire_tensor make_tensor(bench_bed *bed, uint32_t rows, quire_dtype dtype)
{
    const quire_group *group = &bed->group;
    int64_t stride = (int64_t)group->query_heads * group->head_dim;
    void *mirror;
    void *data = bench_bed_random(bed, dtype, rows * (size_t)stride, &mirror);

    free(mirror);
    return (quire_tensor){data, dtype, group->query_heads, stride, group->head_dim};
}

/* One layer: every row's table has the prefix's blocks and one of its own. */
static void race_open(race *race)
{
    bench_bed *bed = race->bed;
    const quire_group *group = &bed->group;
    uint32_t shared_blocks = race->prefix / BLOCK_TOKENS, stride = shared_blocks + 1, rows = race->rows;
    int32_t *table = bench_alloc(rows * stride * sizeof *table), *numbers = bench_alloc(3 * rows * sizeof *numbers);
    quire__shared_group one = {0, (int32_t)rows};
    int64_t head = (int64_t)BLOCK_TOKENS * group->head_dim * 2;
    size_t blocks = shared_blocks + rows;
    void *mirror;

    for (uint32_t row = 0; row < rows; row++) {
        for (uint32_t i = 0; i < shared_blocks; i++)
            table[row * stride + i] = (int32_t)((i * 7919) % shared_blocks); /* a prime: they lie anywhere */
        table[row * stride + shared_blocks] = (int32_t)(shared_blocks + row);
        numbers[row] = (int32_t)row;
        numbers[rows + row] = (int32_t)(race->prefix + TAIL - 1);
        numbers[2 * rows + row] = (int32_t)race->prefix;
    }
    quire__pages pages = {.block_stride = 2 * head * group->kv_heads, .layer_stride = 2 * head * group->kv_heads,
                          .kv_stride = head * group->kv_heads, .head_stride = head,
                          .token_stride = (int64_t)group->head_dim * 2, .block_tokens = BLOCK_TOKENS,
                          .kv_heads = (int32_t)group->kv_heads, .head_dim = (int32_t)group->head_dim,
                          .dtype = QUIRE_DTYPE_BF16};
    pages.arena = bench_bed_random(bed, QUIRE_DTYPE_BF16, blocks * (size_t)pages.block_stride / 2, &mirror);
    free(mirror);
    const int32_t *on_device = send(bed, numbers, 3 * rows * sizeof *numbers);
    quire__attend_args plain = {.pages = pages,
                                .query_heads = (int32_t)group->query_heads,
                                .scale = 1.0f / sqrtf((float)group->head_dim),
                                .q = make_tensor(bed, rows, QUIRE_DTYPE_BF16),
                                .out = make_tensor(bed, rows, QUIRE_DTYPE_F32),
                                .block_table = send(bed, table, rows * stride * sizeof *table),
                                .table_stride = (int32_t)stride,
                                .token_rows = on_device,
                                .positions = on_device + rows,
                                .select = on_device,
                                .count = (int32_t)rows,
                                .longest_context = (int32_t)(race->prefix + TAIL),
                                .workers = WORKERS};
    quire__shared_args shared = {.attend = plain, .prefix_tokens = on_device + 2 * rows, .group_count = 1,
                                 .most_members = (int32_t)rows, .longest_prefix = (int32_t)race->prefix,
                                 .longest_tail = TAIL, .prefix_split = (int32_t)(race->prefix / 16 + 63) / 64 * 64};
    shared.groups = send(bed, &one, sizeof one);
    shared.attend.out = make_tensor(bed, rows, QUIRE_DTYPE_F32);
    shared.attend.split_tokens = TAIL;
    shared.attend.work_floats = (int64_t)rows * group->query_heads * (16 + 4) * (group->head_dim + 2);
    plain.work_floats = quire__attend_work_floats(&plain);
    size_t work = (size_t)(plain.work_floats > shared.attend.work_floats ? plain.work_floats
                                                                         : shared.attend.work_floats);
    plain.work = shared.attend.work = bench_bed_take(bed, QUIRE__MEMORY_DEVICE, work * sizeof(float));
    race->plain = plain;
    race->shared = shared;
    free(table);
    free(numbers);
}

static void race_close(race *race)
{
    bench_bed *bed = race->bed;

    give(bed, race->plain.work), give(bed, race->shared.attend.out.data), give(bed, race->shared.groups);
    give(bed, race->plain.block_table), give(bed, race->plain.out.data), give(bed, race->plain.q.data);
    give(bed, race->plain.token_rows), give(bed, race->plain.pages.arena);
}

/* Both give the same, but for the rounding of 16-bit operands. */
static void check(race *race)
{
    size_t count = race->rows * (size_t)race->plain.out.token_stride;
    float *one = bench_alloc(count * sizeof *one), *other = bench_alloc(count * sizeof *other);
    double difference = 0, length = 0;

    plain_body(race);
    shared_body(race);
    bench_bed_move(race->bed, one, race->plain.out.data, count * sizeof *one, false);
    bench_bed_move(race->bed, other, race->shared.attend.out.data, count * sizeof *other, false);
    for (size_t i = 0; i < count; i++) {
        difference += (double)(one[i] - other[i]) * (double)(one[i] - other[i]);
        length += (double)one[i] * (double)one[i];
    }
    if (!(sqrt(difference / length) < 1e-2))
        bench_die("shared-prefix decode differs from decode by %g", sqrt(difference / length));
    free(one);
    free(other);
}

void bench_device_shared(bench_bed *bed)
{
    const bool gpu = bench_bed_on_gpu(bed);
    const quire_group *group = &bed->group;
    race race = {.bed = bed, .rows = gpu ? 64 : 8, .prefix = gpu ? 16384 : 1024};
    char size[40], count[20];

    if (group->head_dim != 64 && group->head_dim != 128)
        return;
    race_open(&race);
    check(&race);
    double kv = 4.0 * group->kv_heads * group->head_dim; /* bytes of a token */
    size_t bytes = (size_t)(kv * (race.prefix + race.rows * TAIL));
    unsigned char *memory = bench_bed_take(bed, QUIRE__MEMORY_DEVICE, 2 * bytes);
    bench_copy copy = {bed, memory + bytes, memory, bytes};
    bench_copy_body(&copy);
    bench_racer racers[] = {bench_enter(NULL, shared_body, NULL, &race, 1),
                            bench_enter(NULL, bench_copy_body, NULL, &copy, 1),
                            bench_enter(NULL, plain_body, NULL, &race, 1)};
    bench_bed_race(bed, racers, 3);
    snprintf(size, sizeof size, "%u x %s tokens", race.rows, bench_count(count, sizeof count, race.prefix));
    double seen = kv * race.rows * (race.prefix + TAIL);
    bench_figure figure = bench_bed_figure("shared-prefix decode", size, racers[0].sample, seen, racers[1].sample,
                                           2.0 * (double)bytes, "copy within the device");
    figure.baseline = bench_rate(racers[2].sample, seen * 1e-9);
    figure.baseline_name = "decode attention";
    figure.launch = bench_scale(racers[0].sample, 1e6);
    bench_report_figure(bed->report, &figure);
    bench_bed_give(bed, QUIRE__MEMORY_DEVICE, memory);
    race_close(&race);
}
