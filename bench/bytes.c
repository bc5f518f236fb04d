#include "bytes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "device/host_ops.h"
#include "targets.h"

enum {
    BOUNCE = 16 << 20,
    GPU_SHARE = 2 /* the arena is this part of a GPU's memory, unless QUIRE_DEVICE_BYTES says otherwise */
};

/* ---- the bed ----------------------------------------------------------------------------------------------- */

static uint64_t given_or(const char *variable, uint64_t given, uint64_t standard)
{
    const char *text = getenv(variable);

    return text != NULL && *text != '\0' ? given : standard;
}

static void choose_sizes(bench_bed *bed)
{
    uint64_t host_limit;
    bool cuda = bench_bed_on_gpu(bed);

    bench_must(quire__device_memory_limit(bed->device, QUIRE__MEMORY_DEVICE, &bed->memory_limit));
    bench_must(quire__device_memory_limit(bed->device, QUIRE__MEMORY_PINNED, &host_limit));
    bed->arena_bytes = given_or("QUIRE_DEVICE_BYTES", bed->cache.device_bytes,
                                cuda ? bed->memory_limit / GPU_SHARE : (uint64_t)1 << 30);
    bed->host_bytes = given_or("QUIRE_HOST_BYTES", bed->cache.host_bytes, (uint64_t)(cuda ? 2048 : 512) << 20);
    if (bed->arena_bytes > bed->memory_limit * 3 / 4 || bed->host_bytes > host_limit / 2)
        bench_die("an arena of %llu bytes and %llu bytes of host tier leave too little memory for the copies beside "
                  "them; set QUIRE_DEVICE_BYTES and QUIRE_HOST_BYTES lower",
                  (unsigned long long)bed->arena_bytes, (unsigned long long)bed->host_bytes);
}

static void open_clocks(bench_bed *bed)
{
#ifdef QUIRE_HAVE_CUDA
    if (bench_bed_on_gpu(bed)) {
        bench_gpu_use(atoi(quire__device_name(bed->device) + strlen("cuda:")));
        bed->gpu = bench_gpu_describe();
        bed->in_graph = bench_clock_cuda_open(BENCH_CLOCK_GRAPH, bed->stream, &bed->enqueue_only);
        bed->by_calls = bench_clock_cuda_open(BENCH_CLOCK_CALLS, bed->stream, &bed->enqueue_only);
    }
#else
    (void)bed;
#endif
}

void bench_bed_open(bench_bed *bed, const bench_options *options)
{
    quire__device_config config = {0};

    *bed = (bench_bed){.options = options, .seed = 3};
    bench_must(quire_options_init(&bed->cache, sizeof bed->cache));
    bed->group = (quire_group){.layers = options->layers,
                               .kv_heads = options->kv_heads,
                               .head_dim = options->head_dim,
                               .query_heads = options->query_heads};
    bed->cache.groups = &bed->group;
    bed->cache.group_count = 1;
    bed->cache.watermark_blocks = 0;
    bed->block_bytes = bench_block_bytes(&bed->cache);
    config.threads = bed->cache.threads;
    bench_must(quire__device_open(&bed->device, bed->cache.device, &config));
    if (strncmp(quire__device_name(bed->device), "sim", 3) == 0)
        bench_die("QUIRE_DEVICE is %s, whose times mean nothing; set it to host or cuda:0", bed->cache.device);
    bench_must(quire__device_stream_open(bed->device, &bed->stream));
    bench_must(quire__parallel_open(&bed->parallel, bed->cache.threads, NULL, NULL));
    choose_sizes(bed);
    open_clocks(bed);
}

void bench_bed_close(bench_bed *bed)
{
#ifdef QUIRE_HAVE_CUDA
    bench_clock_cuda_close(bed->by_calls);
    bench_clock_cuda_close(bed->in_graph);
#endif
    quire__parallel_close(bed->parallel);
    quire__device_stream_close(bed->device, bed->stream);
    quire__device_close(bed->device);
}

void bench_bed_report_open(bench_bed *bed, const char *program)
{
    const quire_group *group = &bed->group;

    bed->report = bench_report_open(program, quire__device_name(bed->device));
    bench_report_keep(bed->report, bed->options->json);
    if (bench_bed_on_gpu(bed)) {
        bench_report_setting(bed->report, "gpu", "%s, compute capability %d.%d, %d multiprocessors, %.0f MB of L2, "
                             "%.1f GB", bed->gpu.name, bed->gpu.major, bed->gpu.minor, bed->gpu.multiprocessors,
                             (double)bed->gpu.l2_bytes * 1e-6, (double)bed->gpu.memory_bytes * 1e-9);
        bench_report_setting(bed->report, "driver", "%s; built with CUDA %s", bed->gpu.driver, bed->gpu.toolkit);
        bench_report_targets(bed->report, bench_targets_hold(bed->gpu.name));
    } else {
        bench_report_setting(bed->report, "threads", "%u", quire__parallel_threads(bed->parallel));
    }
    bench_report_setting(bed->report, "model", "%u layers, %u kv heads, %u query heads, %u elements a head",
                         group->layers, group->kv_heads, group->query_heads, group->head_dim);
    bench_report_setting(bed->report, "block", "%u tokens, %s, %zu bytes", bed->cache.block_tokens,
                         quire_dtype_name(bed->cache.dtype), bed->block_bytes);
    bench_report_setting(bed->report, "arena", "at most %.1f GB; host tier at most %.1f GB",
                         (double)bed->arena_bytes * 1e-9, (double)bed->host_bytes * 1e-9);
}

bool bench_bed_on_gpu(const bench_bed *bed)
{
    return quire__device_is_cuda(bed->device);
}

void *bench_bed_stream(const bench_bed *bed)
{
    return bench_bed_on_gpu(bed) ? bed->stream : NULL;
}

static void race_by(bench_bed *bed, bench_clock *clock, bench_racer *racers, size_t count)
{
    for (size_t i = 0; i < count; i++)
        racers[i].clock = clock;
    bench_race(&bed->options->effort, racers, count);
}

void bench_bed_race(bench_bed *bed, bench_racer *racers, size_t count)
{
    race_by(bed, bed->in_graph, racers, count);
}

void bench_bed_race_calls(bench_bed *bed, bench_racer *racers, size_t count)
{
    race_by(bed, bed->by_calls, racers, count);
}

/* ---- memory ------------------------------------------------------------------------------------------------ */

void *bench_bed_take(bench_bed *bed, quire__memory kind, size_t bytes)
{
    void *memory;

    bench_must(quire__device_alloc(bed->device, kind, bytes, &memory));
    if (!bench_bed_on_gpu(bed))
        memset(memory, 1, bytes); /* pages that nobody has written are all one page of zeros, which lies in the caches */
    return memory;
}

void bench_bed_give(bench_bed *bed, quire__memory kind, void *memory)
{
    quire__device_free(bed->device, kind, memory);
}

void bench_bed_finish(bench_bed *bed)
{
    if (!bed->enqueue_only)
        bench_must(quire__device_stream_synchronize(bed->device, bed->stream));
}

static void enqueue(bench_bed *bed, void *to, const void *from, size_t bytes)
{
    quire__copy copy = {.destination = to, .source = from, .bytes = bytes};

    bench_must(quire__device_copy(bed->device, bed->stream, &copy, 1));
}

/* The CPU may not touch device memory, and a copy may not touch pageable memory: every byte passes through `bounce`. */
void bench_bed_move(bench_bed *bed, void *to, const void *from, size_t bytes, bool to_device)
{
    unsigned char *bounce = bench_bed_take(bed, QUIRE__MEMORY_PINNED, BOUNCE);

    for (size_t done = 0; done < bytes;) {
        size_t part = bytes - done < BOUNCE ? bytes - done : BOUNCE;
        if (to_device)
            memcpy(bounce, (const unsigned char *)from + done, part);
        enqueue(bed, to_device ? (unsigned char *)to + done : bounce,
                to_device ? bounce : (const unsigned char *)from + done, part);
        bench_bed_finish(bed);
        if (!to_device)
            memcpy((unsigned char *)to + done, bounce, part);
        done += part;
    }
    bench_bed_give(bed, QUIRE__MEMORY_PINNED, bounce);
}

void *bench_bed_random(bench_bed *bed, quire_dtype dtype, size_t elements, void **mirror)
{
    size_t size = quire__dtype_bytes(dtype);
    unsigned char *values = bench_alloc(elements * size);
    void *memory = bench_bed_take(bed, QUIRE__MEMORY_DEVICE, elements * size);

    for (size_t i = 0; i < elements; i++) {
        float value = (float)(quire__random(&bed->seed) >> 40) / (float)(1 << 23) - 1.0f;
        quire__dtype_store(dtype, values + i * size, value);
    }
    bench_bed_move(bed, memory, values, elements * size, true);
    *mirror = values;
    return memory;
}

uint64_t bench_bed_checksum(bench_bed *bed, const quire_view *view, uint32_t row, size_t blocks)
{
    int32_t *table = bench_alloc(blocks * sizeof *table);
    unsigned char *block = bench_alloc(bed->block_bytes);
    uint64_t sum = 0;

    bench_bed_move(bed, table, view->block_table + (size_t)row * view->table_stride, blocks * sizeof *table, false);
    for (size_t i = 0; i < blocks; i++) {
        const unsigned char *source = (const unsigned char *)view->arena + table[i] * view->block_stride;
        bench_bed_move(bed, block, source, bed->block_bytes, false);
        sum = sum * 31 + quire__checksum(block, bed->block_bytes);
    }
    free(block);
    free(table);
    return sum;
}

/* ---- the limit --------------------------------------------------------------------------------------------- */

enum { PIECE = 1 << 20 }; /* of a copy that threads share */

static void copy_piece(void *arg, size_t index)
{
    const bench_copy *copy = arg;
    size_t at = index * PIECE, left = copy->bytes - at;

    memcpy((unsigned char *)copy->to + at, (const unsigned char *)copy->from + at, left < PIECE ? left : PIECE);
}

void bench_copy_body(void *arg)
{
    bench_copy *copy = arg;

    if (quire__device_is_cuda(copy->bed->device)) {
        enqueue(copy->bed, copy->to, copy->from, copy->bytes);
        bench_bed_finish(copy->bed);
    } else {
        quire__parallel_for(copy->bed->parallel, (copy->bytes + PIECE - 1) / PIECE, copy_piece, copy);
    }
}

bench_figure bench_bed_figure(const char *name, const char *size, bench_sample value, double bytes,
                              bench_sample limit, double limit_bytes, const char *limit_name)
{
    bench_figure figure = {.unit = "GB/s",
                           .rate = true,
                           .value = bench_rate(value, bytes * 1e-9),
                           .limit = bench_rate(limit, limit_bytes * 1e-9),
                           .limit_name = limit_name};

    snprintf(figure.name, sizeof figure.name, "%s", name);
    snprintf(figure.size, sizeof figure.size, "%s", size);
    return figure;
}

void bench_bed_report(bench_bed *bed, const char *name, const char *size, bench_sample value, double bytes,
                      bench_sample limit, double limit_bytes, const char *limit_name)
{
    bench_figure figure = bench_bed_figure(name, size, value, bytes, limit, limit_bytes, limit_name);

    bench_report_figure(bed->report, &figure);
}
