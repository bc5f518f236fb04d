/* device_convert.c: blocks of bf16 to blocks of fp8, int8 and int4, and back, each at a random place. */
#include "device_convert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "device/host_formats.h"
#include "device/host_ops.h"

enum {
    BYTES_GPU = 256 << 20, /* of bf16 */
    BYTES_HOST = 16 << 20  /* the host's version takes one number after the other */
};

typedef struct race {
    bench_bed *bed;
    quire__pages raw, coded, back;         /* back: raw again */
    quire__block_pair *pairs, *pairs_back; /* on the device */
    quire__block_pair first;               /* of `pairs`, as the CPU sees it */
    int32_t blocks;
    bool quantise;
} race;

static quire__pages pages_of(const bench_bed *bed, quire_dtype dtype)
{
    quire__pages pages = {.block_tokens = (int32_t)bed->cache.block_tokens,
                          .kv_heads = (int32_t)bed->group.kv_heads,
                          .head_dim = (int32_t)bed->group.head_dim,
                          .dtype = dtype};

    quire__pages_set_format(&pages, quire__format_of(dtype, pages.head_dim, false));
    pages.block_stride = pages.layer_stride * (int64_t)bed->group.layers;
    return pages;
}

static void convert_body(void *arg)
{
    race *race = arg;
    quire__kernel_args args = {.convert = {.from = race->quantise ? race->raw : race->coded,
                                           .to = race->quantise ? race->coded : race->back,
                                           .pairs = race->quantise ? race->pairs : race->pairs_back,
                                           .count = race->blocks,
                                           .layers = (int32_t)race->bed->group.layers}};

    bench_must(quire__device_launch(race->bed->device, race->bed->stream, QUIRE__KERNEL_CONVERT, &args));
    bench_bed_finish(race->bed);
}

static void make_pairs(race *race)
{
    size_t count = (size_t)race->blocks, bytes = count * sizeof(quire__block_pair);
    quire__block_pair *pairs = bench_alloc(bytes);

    for (size_t i = 0; i < count; i++) {
        size_t other = (size_t)(quire__random(&race->bed->seed) % (i + 1));
        pairs[i].source = (int32_t)i;
        pairs[i].destination = pairs[other].destination;
        pairs[other].destination = (int32_t)i;
    }
    race->first = pairs[0];
    race->pairs = bench_bed_take(race->bed, QUIRE__MEMORY_DEVICE, bytes);
    bench_bed_move(race->bed, race->pairs, pairs, bytes, true);
    for (size_t i = 0; i < count; i++)
        pairs[i] = (quire__block_pair){pairs[i].destination, pairs[i].source};
    race->pairs_back = bench_bed_take(race->bed, QUIRE__MEMORY_DEVICE, bytes);
    bench_bed_move(race->bed, race->pairs_back, pairs, bytes, true);
    free(pairs);
}

static unsigned char *fetch(const race *race, const quire__pages *pages, int32_t block)
{
    unsigned char *bytes = bench_alloc((size_t)pages->block_stride);

    bench_bed_move(race->bed, bytes, pages->arena + block * pages->block_stride, (size_t)pages->block_stride, false);
    return bytes;
}

/* The first block, out and back, as the scalar definition has it: where rows are, every bit. */
static void check(race *race, const char *name)
{
    quire__block_pair only = {0, 0};
    quire__pages raw = race->raw, coded = race->coded, back = race->back;
    unsigned char *expected = bench_alloc((size_t)back.block_stride);

    race->quantise = true;
    convert_body(race);
    race->quantise = false;
    convert_body(race);
    raw.arena = fetch(race, &race->raw, race->first.source);
    coded.arena = bench_alloc((size_t)coded.block_stride);
    back.arena = expected;
    quire__convert_args args = {raw, coded, &only, 1, (int32_t)race->bed->group.layers};
    quire__host_convert(&args);
    args = (quire__convert_args){coded, back, &only, 1, args.layers};
    quire__host_convert(&args);
    unsigned char *got = fetch(race, &race->back, race->first.source);
    if (memcmp(got, expected, (size_t)back.block_stride) != 0)
        bench_die("%s: a block that was quantised and given back is not what it should be", name);
    free(got);
    free(expected);
    free(coded.arena);
    free(raw.arena);
}

static void run(race *race, bool quantise, const char *format, double bytes, bench_copy *copy)
{
    bench_racer racers[] = {bench_enter(NULL, convert_body, NULL, race, 1),
                            bench_enter(NULL, bench_copy_body, NULL, copy, 1)};
    char name[40], size[40];

    race->quantise = quantise;
    bench_bed_race(race->bed, racers, 2);
    snprintf(name, sizeof name, "%s %s", quantise ? "quantise" : "dequantise", format);
    snprintf(size, sizeof size, "%d x %.2f MiB", race->blocks, (double)race->raw.block_stride / (1 << 20));
    bench_bed_report(race->bed, name, size, racers[0].sample, bytes, racers[1].sample, 2.0 * (double)copy->bytes,
                     "copy within the device");
}

void bench_device_convert(bench_bed *bed)
{
    static const struct {
        quire_dtype dtype;
        const char *name;
    } formats[] = {{QUIRE_DTYPE_FP8_E4M3, "fp8"}, {QUIRE_DTYPE_INT8, "int8"}, {QUIRE_DTYPE_INT4, "int4"}};
    race race = {.bed = bed, .raw = pages_of(bed, QUIRE_DTYPE_BF16)};
    size_t most = bench_bed_on_gpu(bed) ? BYTES_GPU : BYTES_HOST;
    void *mirror;

    if (bed->group.head_dim % 16 != 0) /* no format of four bits */
        return;
    race.blocks = (int32_t)(most / (size_t)race.raw.block_stride) + 1;
    size_t bytes = (size_t)race.blocks * (size_t)race.raw.block_stride;
    race.back = race.raw;
    race.raw.arena = bench_bed_random(bed, QUIRE_DTYPE_BF16, bytes / 2, &mirror);
    free(mirror);
    race.back.arena = bench_bed_take(bed, QUIRE__MEMORY_DEVICE, bytes);
    make_pairs(&race);
    bench_copy copy = {bed, race.back.arena, race.raw.arena, bytes};
    bench_copy_body(&copy);
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        race.coded = pages_of(bed, formats[i].dtype);
        size_t coded = (size_t)race.blocks * (size_t)race.coded.block_stride;
        race.coded.arena = bench_bed_take(bed, QUIRE__MEMORY_DEVICE, coded);
        check(&race, formats[i].name);
        run(&race, true, formats[i].name, (double)(bytes + coded), &copy);
        run(&race, false, formats[i].name, (double)(bytes + coded), &copy);
        bench_bed_give(bed, QUIRE__MEMORY_DEVICE, race.coded.arena);
    }
    bench_bed_give(bed, QUIRE__MEMORY_DEVICE, race.pairs_back);
    bench_bed_give(bed, QUIRE__MEMORY_DEVICE, race.pairs);
    bench_bed_give(bed, QUIRE__MEMORY_DEVICE, race.back.arena);
    bench_bed_give(bed, QUIRE__MEMORY_DEVICE, race.raw.arena);
}
