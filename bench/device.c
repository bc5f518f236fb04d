#include "device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "device/host_ops.h"
#include "device_attend.h"
#include "device_copy.h"
#include "device_tiers.h"

enum { GPU_SHARE = 2 }; /* the arena is this part of a GPU's memory, unless QUIRE_DEVICE_BYTES says otherwise */

static uint64_t given_or(const char *variable, uint64_t given, uint64_t standard)
{
    const char *text = getenv(variable);

    return text != NULL && *text != '\0' ? given : standard;
}

static void bed_open(bench_bed *bed, const bench_options *options)
{
    quire__device_config config = {0};
    uint64_t host_limit;

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
    bench_must(quire__device_memory_limit(bed->device, QUIRE__MEMORY_DEVICE, &bed->memory_limit));
    bench_must(quire__device_memory_limit(bed->device, QUIRE__MEMORY_PINNED, &host_limit));
    bool cuda = quire__device_is_cuda(bed->device);
    bed->arena_bytes = given_or("QUIRE_DEVICE_BYTES", bed->cache.device_bytes,
                                cuda ? bed->memory_limit / GPU_SHARE : (uint64_t)1 << 30);
    bed->host_bytes = given_or("QUIRE_HOST_BYTES", bed->cache.host_bytes, (uint64_t)(cuda ? 2048 : 512) << 20);
    if (bed->arena_bytes > bed->memory_limit * 3 / 4 || bed->host_bytes > host_limit / 2)
        bench_die("an arena of %llu bytes and %llu bytes of host tier leave too little memory for the copies beside "
                  "them; set QUIRE_DEVICE_BYTES and QUIRE_HOST_BYTES lower",
                  (unsigned long long)bed->arena_bytes, (unsigned long long)bed->host_bytes);
}

static void bed_close(bench_bed *bed)
{
    quire__parallel_close(bed->parallel);
    quire__device_stream_close(bed->device, bed->stream);
    quire__device_close(bed->device);
}

static void describe(bench_bed *bed)
{
    const quire_group *group = &bed->group;

    bench_report_setting(bed->report, "model", "%u layers, %u kv heads, %u query heads, %u elements a head",
                         group->layers, group->kv_heads, group->query_heads, group->head_dim);
    bench_report_setting(bed->report, "block", "%u tokens, %s, %zu bytes", bed->cache.block_tokens,
                         quire__dtype_name(bed->cache.dtype), bed->block_bytes);
    bench_report_setting(bed->report, "arena", "at most %.1f GB; host tier at most %.1f GB",
                         (double)bed->arena_bytes * 1e-9, (double)bed->host_bytes * 1e-9);
    bench_report_setting(bed->report, "deterministic", "%d", bed->cache.deterministic);
    bench_report_setting(bed->report, "checksum",
                         bed->cache.checksum == QUIRE_CHECKSUM_RESTORE ? "of every block in the host tier" : "off");
    if (!quire__device_is_cuda(bed->device))
        bench_report_setting(bed->report, "threads", "%u", quire__parallel_threads(bed->parallel));
}

void bench_device(const bench_options *options)
{
    bench_bed bed;

    bed_open(&bed, options);
    bed.report = bench_report_open("quire-bench device", quire__device_name(bed.device));
    describe(&bed);
    bench_device_attend(&bed);
    bench_device_copy(&bed);
    bench_device_tiers(&bed);
    bench_report_note(bed.report, "GB/s count what an operation must read and write; offload and restore count what "
                                  "crosses to the host. Calls go round all layers; what all of them touch may still "
                                  "fit a CPU's or GPU's cache where the batch is small.");
    bench_report_note(bed.report, "The limit is one large copy%s, in turn with the figure.",
                      quire__device_is_cuda(bed.device) ? " by the device" : " shared by all threads");
    bench_report_close(bed.report, options->json);
    bed_close(&bed);
}
