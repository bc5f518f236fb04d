#include "device_pack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "device/host_ops.h"
#include "device/host_pack.h"

enum {
    LEAST_BYTES = 128 << 20, /* more than any cache near the device holds */
    FEW_BLOCKS = 16 * 4      /* of threads: four fill a multiprocessor */
};

typedef struct race {
    bench_bed *bed;
    quire__pack_shape shape;
    quire__pack_args args;
    quire__kernel kernel;
    size_t bytes; /* of all pages */
} race;

static void body(void *arg)
{
    race *race = arg;
    quire__kernel_args args = {.pack = race->args};

    bench_must(quire__device_launch(race->bed->device, race->bed->stream, race->kernel, &args));
    bench_bed_finish(race->bed);
}

/* Nearly normal values, a scale for each of 64 channels: K and V look like that. */
static void fill(race *race, unsigned char *pages)
{
    uint64_t *seed = &race->bed->seed;

    for (size_t i = 0; i < race->bytes / 2; i++) {
        uint64_t a = quire__random(seed);
        float sum = 0, scale = 0.25f + (float)(i % 64) / 16.0f;
        for (int j = 0; j < 4; j++)
            sum += (float)(a >> (16 * j) & 0xffff) / 65536.0f - 0.5f;
        quire__dtype_store(QUIRE_DTYPE_BF16, pages + 2 * i, sum * scale);
    }
}

static void race_open(race *race, int64_t page_bytes, unsigned char **pages)
{
    bench_bed *bed = race->bed;
    int32_t count = (int32_t)((LEAST_BYTES + page_bytes - 1) / page_bytes);
    int64_t *offsets = bench_alloc((size_t)count * sizeof *offsets);
    quire__pack_args *args = &race->args;

    race->bytes = (size_t)(count * page_bytes);
    *pages = bench_alloc(race->bytes);
    fill(race, *pages);
    for (int32_t i = 0; i < count; i++)
        offsets[i] = (count - 1 - i) * page_bytes;
    void *device_offsets = bench_bed_take(bed, QUIRE__MEMORY_DEVICE, (size_t)count * sizeof *offsets);
    bench_bed_move(bed, device_offsets, offsets, (size_t)count * sizeof *offsets, true);
    free(offsets);
    *args = (quire__pack_args){.arena = bench_bed_take(bed, QUIRE__MEMORY_DEVICE, race->bytes),
                               .offsets = device_offsets,
                               .packed = bench_bed_take(bed, QUIRE__MEMORY_DEVICE,
                                                        (size_t)(count * race->shape.packed_bytes)),
                               .status = bench_bed_take(bed, QUIRE__MEMORY_DEVICE,
                                                        (size_t)(count * race->shape.units) * sizeof(int32_t)),
                               .page_bytes = page_bytes,
                               .unit_elements = race->shape.unit_elements,
                               .slot_bytes = race->shape.slot_bytes,
                               .count = count};
    bench_bed_move(bed, args->arena, *pages, race->bytes, true);
}

static void race_close(race *race)
{
    bench_bed_give(race->bed, QUIRE__MEMORY_DEVICE, (void *)(uintptr_t)race->args.offsets);
    bench_bed_give(race->bed, QUIRE__MEMORY_DEVICE, race->args.status);
    bench_bed_give(race->bed, QUIRE__MEMORY_DEVICE, race->args.packed);
    bench_bed_give(race->bed, QUIRE__MEMORY_DEVICE, race->args.arena);
}

/* What was packed, unpacked over other bytes, is what it was. */
static void check(race *race, const unsigned char *pages)
{
    bench_bed *bed = race->bed;
    unsigned char *back = bench_alloc(race->bytes);

    race->kernel = QUIRE__KERNEL_PACK;
    body(race);
    memset(back, 0xee, race->bytes);
    bench_bed_move(bed, race->args.arena, back, race->bytes, true);
    race->kernel = QUIRE__KERNEL_UNPACK;
    body(race);
    bench_bed_move(bed, back, race->args.arena, race->bytes, false);
    if (memcmp(back, pages, race->bytes) != 0)
        bench_die("unpack: not the bytes that were packed");
    free(back);
}

static void run(race *race, const char *name, const char *size, quire__kernel kernel, int32_t most_blocks)
{
    bench_bed *bed = race->bed;
    unsigned char *other = bench_bed_take(bed, QUIRE__MEMORY_DEVICE, race->bytes);
    bench_copy copy = {bed, other, race->args.arena, race->bytes};

    race->kernel = kernel;
    race->args.most_blocks = most_blocks;
    bench_copy_body(&copy);
    bench_racer racers[] = {bench_enter(NULL, body, NULL, race, 1), bench_enter(NULL, bench_copy_body, NULL, &copy, 1)};
    bench_bed_race(bed, racers, 2);
    bench_bed_report(bed, name, size, racers[0].sample, (double)race->bytes, racers[1].sample, (double)race->bytes,
                     "copy of the raw bytes, once");
    bench_bed_give(bed, QUIRE__MEMORY_DEVICE, other);
}

void bench_device_pack(bench_bed *bed)
{
    race race = {.bed = bed};
    int64_t part = (int64_t)bed->cache.block_tokens * bed->group.kv_heads * bed->group.head_dim * 2;
    int64_t page_bytes = 2 * part * bed->group.layers;
    unsigned char *pages;
    char size[40];

    if (page_bytes % 64 != 0)
        return;
    bench_must(quire__pack_shape_make(&race.shape, page_bytes, part));
    race_open(&race, page_bytes, &pages);
    check(&race, pages);
    free(pages);
    snprintf(size, sizeof size, "units of %d KiB", race.shape.unit_elements / 512);
    run(&race, "pack", size, QUIRE__KERNEL_PACK, 0);
    run(&race, "unpack", size, QUIRE__KERNEL_UNPACK, 0);
    if (bench_bed_on_gpu(bed)) {
        run(&race, "pack, 16 multiprocessors", size, QUIRE__KERNEL_PACK, FEW_BLOCKS);
        run(&race, "unpack, 16 multiprocessors", size, QUIRE__KERNEL_UNPACK, FEW_BLOCKS);
    }
    race_close(&race);
}
