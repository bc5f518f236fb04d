/* device_host.c: the device that is always there. Every operation runs inside its call, so streams and events have no
 * state: an event is done as soon as it is recorded. What an application without a GPU runs, and one legal order of
 * what the other devices may do. */
#define _GNU_SOURCE 1
#include "device/device_host.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/status.h"
#include "device/device_base.h"
#include "device/host_copy.h"
#include "device/host_ops.h"
#include "device/host_pack.h"
#include "device/parallel.h"

enum {
    HUGE_BYTES = 2 * 1024 * 1024,
    ALIGNMENT = 256,
    GRANULE = 64 * 1024 /* a multiple of any page size that Linux has on its usual processors */
};

typedef struct host_device {
    quire__device base;
    quire__parallel *parallel;
    quire__host_attend *attend;
} host_device;

typedef struct host_stream {
    char unused; /* streams differ by address only */
} host_stream;

/* ---- shared with the sim device ------------------------------------------------------------------------------ */

quire_status quire__host_launch(quire__host_attend *attend, quire__kernel kernel, const quire__kernel_args *args)
{
    quire__attend_args decode;
    switch (kernel) {
    case QUIRE__KERNEL_APPEND:
    case QUIRE__KERNEL_LATENT_APPEND:
        return quire__host_append_run(attend, &args->append);
    case QUIRE__KERNEL_BLOCK_COPY:
        quire__host_block_copy_run(quire__host_attend_parallel(attend), &args->block_copy);
        return QUIRE_OK;
    case QUIRE__KERNEL_GATHER:
        quire__host_gather_run(quire__host_attend_parallel(attend), &args->pieces);
        return QUIRE_OK;
    case QUIRE__KERNEL_SCATTER:
        quire__host_scatter_run(quire__host_attend_parallel(attend), &args->pieces);
        return QUIRE_OK;
    case QUIRE__KERNEL_TABLE:
        quire__host_table(&args->table);
        return QUIRE_OK;
    case QUIRE__KERNEL_ATTEND_DECODE:
    case QUIRE__KERNEL_LATENT_ATTEND:
        decode = args->attend;
        decode.tiles = NULL; /* decode goes by selection, whatever else the struct names */
        return quire__host_attend_run(attend, &decode);
    case QUIRE__KERNEL_CONVERT:
        return quire__host_convert_run(attend, &args->convert);
    case QUIRE__KERNEL_ATTEND_PREFILL:
        return quire__host_attend_run(attend, &args->attend);
    case QUIRE__KERNEL_ATTEND_SHARED: /* the same tokens one by one, with the bits that they have alone */
        decode = args->shared.attend;
        decode.tiles = NULL;
        return quire__host_attend_run(attend, &decode);
    case QUIRE__KERNEL_PACK:
        return quire__host_pack_run(quire__host_attend_parallel(attend), &args->pack);
    case QUIRE__KERNEL_UNPACK:
        return quire__host_unpack_run(quire__host_attend_parallel(attend), &args->pack);
    default:
        return quire__fail(QUIRE_EINVAL, "kernel %d does not exist", (int)kernel);
    }
}

/* A number in a file of one line; "max" and an absent file are no limit. */
static uint64_t file_limit(const char *path)
{
    unsigned long long value;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return UINT64_MAX;
    if (fscanf(file, "%llu", &value) != 1)
        value = UINT64_MAX;
    fclose(file);
    return value;
}

uint64_t quire__host_memory_limit(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
    uint64_t limit = pages > 0 && page_bytes > 0 ? (uint64_t)pages * (uint64_t)page_bytes : UINT64_MAX;
    uint64_t v2 = file_limit("/sys/fs/cgroup/memory.max");
    uint64_t v1 = file_limit("/sys/fs/cgroup/memory/memory.limit_in_bytes");
    limit = v2 < limit ? v2 : limit;
    return v1 < limit ? v1 : limit;
}

quire_status quire__host_memory_alloc(size_t bytes, void **memory)
{
    void *made = NULL;
    uint64_t limit = quire__host_memory_limit();
    if (bytes > limit)
        return quire__fail(QUIRE_ENOMEM, "%zu bytes asked for, but this machine has %llu", bytes,
                           (unsigned long long)limit);
    if (posix_memalign(&made, bytes >= HUGE_BYTES ? HUGE_BYTES : ALIGNMENT, bytes) != 0)
        return quire__fail(QUIRE_ENOMEM, "no memory for %zu bytes", bytes);
    if (bytes >= HUGE_BYTES)
        (void)madvise(made, bytes & ~(size_t)(HUGE_BYTES - 1), MADV_HUGEPAGE);
    *memory = made;
    return QUIRE_OK;
}

quire_status quire__host_memory_populate(void *memory, size_t bytes)
{
#ifdef MADV_POPULATE_WRITE
    unsigned char *first = (unsigned char *)((uintptr_t)memory & ~(uintptr_t)4095);
    if (madvise(first, (size_t)((unsigned char *)memory + bytes - first), MADV_POPULATE_WRITE) == 0)
        return QUIRE_OK;
    if (errno != EINVAL) /* a kernel before 5.14 does not know the advice */
        return quire__fail(QUIRE_ENOMEM, "no memory for %zu bytes: %s", bytes, strerror(errno));
#endif
    for (size_t at = 0; at < bytes; at += 4096)
        ((volatile unsigned char *)memory)[at] = 0;
    return QUIRE_OK;
}

/* ---- the table ----------------------------------------------------------------------------------------------- */

static void host_close(quire__device *device)
{
    host_device *host = (host_device *)device;
    quire__host_attend_close(host->attend);
    quire__parallel_close(host->parallel);
    free(host);
}

/* Packing's instruction set and threads are what its speed hangs on. */
static void host_identity(const quire__device *device, char *text, size_t capacity)
{
    const host_device *host = (const host_device *)device;
    snprintf(text, capacity, "host, %u threads, %s", quire__parallel_threads(host->parallel), quire__host_pack_isa());
}

static quire_status host_memory_limit(quire__device *device, quire__memory kind, uint64_t *bytes)
{
    (void)device, (void)kind;
    *bytes = quire__host_memory_limit();
    return QUIRE_OK;
}

static quire_status host_alloc(quire__device *device, quire__memory kind, size_t bytes, void **memory)
{
    (void)device, (void)kind;
    return quire__host_memory_alloc(bytes, memory);
}

static void host_free(quire__device *device, quire__memory kind, void *memory)
{
    (void)device, (void)kind;
    free(memory);
}

/* Addresses come from mmap with no access and no promise of memory; mapping gives access, and the kernel finds pages
 * when they are first touched. Unmapping puts fresh addresses without pages in their place. */
static quire_status host_reserve(quire__device *device, size_t bytes, void **memory)
{
    unsigned char *made, *aligned;
    size_t before;
    (void)device;
    made = mmap(NULL, bytes + HUGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (made == MAP_FAILED)
        return quire__fail(QUIRE_ENOMEM, "no addresses for %zu bytes", bytes);
    before = (size_t)(-(uintptr_t)made & (HUGE_BYTES - 1));
    aligned = made + before;
    if (before > 0)
        (void)munmap(made, before);
    (void)munmap(aligned + bytes, HUGE_BYTES - before);
    *memory = aligned;
    return QUIRE_OK;
}

static void host_release(quire__device *device, void *memory, size_t bytes)
{
    (void)device;
    (void)munmap(memory, bytes);
}

static quire_status host_map(quire__device *device, void *memory, size_t bytes)
{
    (void)device;
    if (bytes > quire__host_memory_limit() || mprotect(memory, bytes, PROT_READ | PROT_WRITE) != 0)
        return quire__fail(QUIRE_ENOMEM, "no memory for %zu more bytes", bytes);
    (void)madvise(memory, bytes, MADV_HUGEPAGE);
    return QUIRE_OK;
}

static quire_status host_unmap(quire__device *device, void *memory, size_t bytes)
{
    (void)device;
    if (mmap(memory, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
        return quire__fail(QUIRE_EDEVICE, "%zu bytes could not be given back", bytes);
    return QUIRE_OK;
}

static quire_status host_pool_open(quire__device *device, size_t bytes, void **memory)
{
    (void)device;
    return quire__host_memory_alloc(bytes < HUGE_BYTES ? HUGE_BYTES : bytes, memory);
}

static void host_pool_close(quire__device *device, void *memory)
{
    (void)device;
    free(memory);
}

/* No copy needs it pinned here, but what is there already is not faulted in by the first offloads. */
static quire_status host_pool_pin(quire__device *device, void *memory, size_t bytes)
{
    (void)device;
    return quire__host_memory_populate(memory, bytes);
}

static void host_pool_unpin(quire__device *device, void *memory, size_t bytes)
{
    (void)device, (void)memory, (void)bytes;
}

static quire_status host_stream_open(quire__device *device, quire__stream **stream)
{
    host_stream *made = calloc(1, sizeof *made);
    (void)device;
    if (made == NULL)
        return quire__fail(QUIRE_ENOMEM, "no memory for a stream");
    *stream = (quire__stream *)made;
    return QUIRE_OK;
}

static void host_stream_close(quire__device *device, quire__stream *stream)
{
    (void)device;
    free(stream);
}

static quire_status host_stream_synchronize(quire__device *device, quire__stream *stream)
{
    (void)device, (void)stream;
    return QUIRE_OK;
}

static quire_status host_stream_wait(quire__device *device, quire__stream *stream, quire__event *event)
{
    (void)device, (void)stream, (void)event;
    return QUIRE_OK;
}

static quire_status host_event_open(quire__device *device, quire__event **event)
{
    quire__event *made = calloc(1, sizeof *made);
    (void)device;
    if (made == NULL)
        return quire__fail(QUIRE_ENOMEM, "no memory for an event");
    *event = made;
    return QUIRE_OK;
}

static void host_event_close(quire__device *device, quire__event *event)
{
    (void)device;
    free(event);
}

static quire_status host_event_record(quire__device *device, quire__event *event, quire__stream *stream)
{
    (void)device, (void)event, (void)stream;
    return QUIRE_OK;
}

static quire_status host_event_query(quire__device *device, quire__event *event, bool *done)
{
    (void)device, (void)event;
    *done = true;
    return QUIRE_OK;
}

static quire_status host_copy(quire__device *device, quire__stream *stream, const quire__copy *copies, size_t count)
{
    (void)device, (void)stream;
    for (size_t i = 0; i < count; i++)
        memcpy(copies[i].destination, copies[i].source, copies[i].bytes);
    return QUIRE_OK;
}

static quire_status host_launch(quire__device *device, quire__stream *stream, quire__kernel kernel,
                                const quire__kernel_args *args)
{
    (void)stream;
    return quire__host_launch(((host_device *)device)->attend, kernel, args);
}

static const quire__device_ops host_ops = {
    .name = "host",
    .size = sizeof(quire__device_ops),
    .capabilities = QUIRE__DEVICE_CPU_VISIBLE | QUIRE__DEVICE_IMMEDIATE,
    .granule = GRANULE,
    .close = host_close,
    .identity = host_identity,
    .memory_limit = host_memory_limit,
    .alloc = host_alloc,
    .free = host_free,
    .reserve = host_reserve,
    .release = host_release,
    .map = host_map,
    .unmap = host_unmap,
    .pool_open = host_pool_open,
    .pool_close = host_pool_close,
    .pool_pin = host_pool_pin,
    .pool_unpin = host_pool_unpin,
    .stream_open = host_stream_open,
    .stream_close = host_stream_close,
    .stream_synchronize = host_stream_synchronize,
    .stream_wait = host_stream_wait,
    .event_open = host_event_open,
    .event_close = host_event_close,
    .event_record = host_event_record,
    .event_query = host_event_query,
    .copy = host_copy,
    .launch = host_launch,
};

quire_status quire__device_host_open(quire__device **device, const quire__device_config *config)
{
    quire_status status;
    host_device *made = calloc(1, sizeof *made);
    if (made == NULL)
        return quire__fail(QUIRE_ENOMEM, "no memory for the host device");
    made->base.ops = &host_ops;
    status = quire__parallel_open(&made->parallel, config->threads, config->parallel, config->parallel_user);
    if (status == QUIRE_OK)
        status = quire__host_attend_open(&made->attend, made->parallel);
    if (status != QUIRE_OK) {
        host_close(&made->base);
        return status;
    }
    *device = &made->base;
    return QUIRE_OK;
}
