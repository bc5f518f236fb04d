#include "bytes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "device/host_ops.h"

enum { BOUNCE = 16 << 20 };

void *bench_bed_take(bench_bed *bed, quire__memory kind, size_t bytes)
{
    void *memory;

    bench_must(quire__device_alloc(bed->device, kind, bytes, &memory));
    return memory;
}

void bench_bed_give(bench_bed *bed, quire__memory kind, void *memory)
{
    quire__device_free(bed->device, kind, memory);
}

void bench_bed_finish(bench_bed *bed)
{
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

void bench_bed_report(bench_bed *bed, const char *name, const char *size, bench_sample value, double bytes,
                      bench_sample limit, double limit_bytes, const char *limit_name)
{
    bench_figure figure = {.unit = "GB/s",
                           .rate = true,
                           .value = bench_rate(value, bytes * 1e-9),
                           .limit = bench_rate(limit, limit_bytes * 1e-9),
                           .limit_name = limit_name};

    snprintf(figure.name, sizeof figure.name, "%s", name);
    snprintf(figure.size, sizeof figure.size, "%s", size);
    bench_report_figure(bed->report, &figure);
}
