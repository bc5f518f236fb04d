/* device_cuda.c: one NVIDIA GPU through the CUDA runtime.
 *
 * A stream is the cudaStream_t itself, so that an engine's own streams can be given wherever one of ours can. Ours do
 * not synchronise with the legacy default stream; events carry no times, which makes them cheaper.
 *
 * The current device belongs to the calling thread and so to the application: a call that needs another one puts it
 * back before it returns.
 *
 * Copies of more than one piece go through cudaMemcpyBatchAsync where the toolkit has it (12.8) and the driver too:
 * one call for hundreds of pieces instead of one each, at some 2 us apiece. It takes neither a default stream nor one
 * under capture; those, and single copies, take cudaMemcpyAsync. */
#include "device/device_cuda.h"

#ifdef QUIRE_HAVE_CUDA
#include <cuda_runtime_api.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/status.h"
#include "device/cuda_range.h"
#include "device/device_base.h"
#include "device/device_host.h"

enum {
    BATCH_MOST = 256, /* copies of one cudaMemcpyBatchAsync: their arrays are on the stack */
    HUGE_BYTES = 2 * 1024 * 1024
};

typedef struct cuda_device {
    quire__device base;
    int ordinal;
    atomic_bool batches; /* cudaMemcpyBatchAsync works here, as far as we know */
} cuda_device;

typedef struct cuda_event {
    quire__event base;
    cudaEvent_t event;
} cuda_event;

/* ---- errors and the current device --------------------------------------------------------------------------- */

static quire_status cuda_status(const cuda_device *cuda, cudaError_t error, const char *what)
{
    if (error == cudaSuccess)
        return QUIRE_OK;
    (void)cudaGetLastError(); /* or the application's next check would find it */
    return quire__fail(error == cudaErrorMemoryAllocation ? QUIRE_ENOMEM : QUIRE_EDEVICE, "cuda:%d: %s: %s",
                       cuda->ordinal, what, cudaGetErrorString(error));
}

/* Makes our device current and gives the one to put back, or -1. */
static quire_status cuda_enter(const cuda_device *cuda, int *before)
{
    int current = -1;
    *before = -1;
    QUIRE__TRY(cuda_status(cuda, cudaGetDevice(&current), "cudaGetDevice"));
    if (current == cuda->ordinal)
        return QUIRE_OK;
    QUIRE__TRY(cuda_status(cuda, cudaSetDevice(cuda->ordinal), "cudaSetDevice"));
    *before = current;
    return QUIRE_OK;
}

static void cuda_leave(int before)
{
    if (before >= 0)
        (void)cudaSetDevice(before);
}

int quire__device_cuda_probe(const char **why)
{
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaSuccess && count > 0)
        return count;
    (void)cudaGetLastError();
    /* 34: a stub instead of the driver; 35: no driver, or an older one; 100: no device. Anything else is a machine in
     * trouble, which is no device either, and the text says which trouble. */
    if (why != NULL)
        *why = error == cudaSuccess ? "no device" : cudaGetErrorString(error);
    return 0;
}

/* ---- memory -------------------------------------------------------------------------------------------------- */

static quire_status cuda_memory_limit(quire__device *device, quire__memory kind, uint64_t *bytes)
{
    cuda_device *cuda = (cuda_device *)device;
    size_t free_bytes = 0, total = 0;
    cudaError_t error;
    int before;
    if (kind == QUIRE__MEMORY_PINNED) {
        *bytes = quire__host_memory_limit();
        return QUIRE_OK;
    }
    QUIRE__TRY(cuda_enter(cuda, &before));
    error = cudaMemGetInfo(&free_bytes, &total);
    cuda_leave(before);
    QUIRE__TRY(cuda_status(cuda, error, "cudaMemGetInfo"));
    *bytes = free_bytes;
    return QUIRE_OK;
}

static quire_status cuda_alloc(quire__device *device, quire__memory kind, size_t bytes, void **memory)
{
    cuda_device *cuda = (cuda_device *)device;
    void *made = NULL;
    cudaError_t error;
    int before;
    QUIRE__TRY(cuda_enter(cuda, &before));
    error = kind == QUIRE__MEMORY_PINNED ? cudaHostAlloc(&made, bytes, cudaHostAllocPortable)
                                         : cudaMalloc(&made, bytes);
    cuda_leave(before);
    if (error == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        return quire__fail(QUIRE_ENOMEM, "cuda:%d: no room for %zu bytes of %s memory", cuda->ordinal, bytes,
                           kind == QUIRE__MEMORY_PINNED ? "pinned host" : "device");
    }
    QUIRE__TRY(cuda_status(cuda, error, kind == QUIRE__MEMORY_PINNED ? "cudaHostAlloc" : "cudaMalloc"));
    *memory = made;
    return QUIRE_OK;
}

static void cuda_free(quire__device *device, quire__memory kind, void *memory)
{
    int before;
    if (cuda_enter((cuda_device *)device, &before) != QUIRE_OK)
        return;
    (void)(kind == QUIRE__MEMORY_PINNED ? cudaFreeHost(memory) : cudaFree(memory));
    cuda_leave(before);
}

static quire_status cuda_reserve(quire__device *device, size_t bytes, void **memory)
{
    cuda_device *cuda = (cuda_device *)device;
    quire_status status;
    int before;
    QUIRE__TRY(cuda_enter(cuda, &before));
    status = quire__cuda_range_reserve(cuda->ordinal, bytes, memory);
    cuda_leave(before);
    return status;
}

static void cuda_release(quire__device *device, void *memory, size_t bytes)
{
    int before;
    if (cuda_enter((cuda_device *)device, &before) != QUIRE_OK)
        return;
    quire__cuda_range_release(memory, bytes);
    cuda_leave(before);
}

static quire_status cuda_map(quire__device *device, void *memory, size_t bytes)
{
    cuda_device *cuda = (cuda_device *)device;
    quire_status status;
    int before;
    QUIRE__TRY(cuda_enter(cuda, &before));
    status = quire__cuda_range_map(cuda->ordinal, memory, bytes);
    cuda_leave(before);
    return status;
}

static quire_status cuda_unmap(quire__device *device, void *memory, size_t bytes)
{
    cuda_device *cuda = (cuda_device *)device;
    quire_status status;
    int before;
    QUIRE__TRY(cuda_enter(cuda, &before));
    status = quire__cuda_range_unmap(cuda->ordinal, memory, bytes);
    cuda_leave(before);
    return status;
}

static quire_status cuda_pool_open(quire__device *device, size_t bytes, void **memory)
{
    (void)device;
    return quire__host_memory_alloc(bytes < HUGE_BYTES ? HUGE_BYTES : bytes, memory);
}

static void cuda_pool_close(quire__device *device, void *memory)
{
    (void)device;
    free(memory);
}

/* Pages are taken first, huge ones where the machine gives them: the driver would take them one by one. */
static quire_status cuda_pool_pin(quire__device *device, void *memory, size_t bytes)
{
    cuda_device *cuda = (cuda_device *)device;
    cudaError_t error;
    int before;
    QUIRE__TRY(quire__host_memory_populate(memory, bytes));
    QUIRE__TRY(cuda_enter(cuda, &before));
    error = cudaHostRegister(memory, bytes, cudaHostRegisterPortable);
    cuda_leave(before);
    return cuda_status(cuda, error, "cudaHostRegister");
}

static void cuda_pool_unpin(quire__device *device, void *memory, size_t bytes)
{
    int before;
    (void)bytes;
    if (cuda_enter((cuda_device *)device, &before) != QUIRE_OK)
        return;
    (void)cudaHostUnregister(memory);
    cuda_leave(before);
}

/* ---- streams and events -------------------------------------------------------------------------------------- */

static quire_status cuda_stream_open(quire__device *device, quire__stream **stream)
{
    cuda_device *cuda = (cuda_device *)device;
    cudaStream_t made = NULL;
    cudaError_t error;
    int before;
    QUIRE__TRY(cuda_enter(cuda, &before));
    error = cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking);
    cuda_leave(before);
    QUIRE__TRY(cuda_status(cuda, error, "cudaStreamCreateWithFlags"));
    *stream = (quire__stream *)made;
    return QUIRE_OK;
}

static void cuda_stream_close(quire__device *device, quire__stream *stream)
{
    int before;
    if (cuda_enter((cuda_device *)device, &before) != QUIRE_OK)
        return;
    (void)cudaStreamDestroy((cudaStream_t)stream);
    cuda_leave(before);
}

static quire_status cuda_stream_synchronize(quire__device *device, quire__stream *stream)
{
    cuda_device *cuda = (cuda_device *)device;
    cudaError_t error;
    int before;
    QUIRE__TRY(cuda_enter(cuda, &before));
    error = cudaStreamSynchronize((cudaStream_t)stream);
    cuda_leave(before);
    return cuda_status(cuda, error, "cudaStreamSynchronize");
}

static quire_status cuda_stream_wait(quire__device *device, quire__stream *stream, quire__event *event)
{
    cuda_device *cuda = (cuda_device *)device;
    cudaError_t error;
    int before;
    QUIRE__TRY(cuda_enter(cuda, &before));
    error = cudaStreamWaitEvent((cudaStream_t)stream, ((cuda_event *)event)->event, 0);
    cuda_leave(before);
    return cuda_status(cuda, error, "cudaStreamWaitEvent");
}

static quire_status cuda_event_open(quire__device *device, quire__event **event)
{
    cuda_device *cuda = (cuda_device *)device;
    cuda_event *made = calloc(1, sizeof *made);
    quire_status status;
    int before;
    if (made == NULL)
        return quire__fail(QUIRE_ENOMEM, "no memory for an event");
    status = cuda_enter(cuda, &before);
    if (status == QUIRE_OK) {
        cudaError_t error = cudaEventCreateWithFlags(&made->event, cudaEventDisableTiming);
        cuda_leave(before);
        status = cuda_status(cuda, error, "cudaEventCreateWithFlags");
    }
    if (status != QUIRE_OK) {
        free(made);
        return status;
    }
    *event = &made->base;
    return QUIRE_OK;
}

static void cuda_event_close(quire__device *device, quire__event *event)
{
    int before;
    if (cuda_enter((cuda_device *)device, &before) == QUIRE_OK) {
        (void)cudaEventDestroy(((cuda_event *)event)->event);
        cuda_leave(before);
    }
    free(event);
}

static quire_status cuda_event_record(quire__device *device, quire__event *event, quire__stream *stream)
{
    cuda_device *cuda = (cuda_device *)device;
    cudaError_t error;
    int before;
    QUIRE__TRY(cuda_enter(cuda, &before));
    error = cudaEventRecord(((cuda_event *)event)->event, (cudaStream_t)stream);
    cuda_leave(before);
    return cuda_status(cuda, error, "cudaEventRecord");
}

static quire_status cuda_event_query(quire__device *device, quire__event *event, bool *done)
{
    cuda_device *cuda = (cuda_device *)device;
    cudaError_t error;
    int before;
    QUIRE__TRY(cuda_enter(cuda, &before));
    error = cudaEventQuery(((cuda_event *)event)->event);
    cuda_leave(before);
    if (error == cudaErrorNotReady)
        (void)cudaGetLastError();
    else
        QUIRE__TRY(cuda_status(cuda, error, "cudaEventQuery"));
    *done = error == cudaSuccess;
    return QUIRE_OK;
}

/* ---- work ---------------------------------------------------------------------------------------------------- */

static cudaError_t copy_each(cudaStream_t stream, const quire__copy *copies, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        cudaError_t error = cudaMemcpyAsync(copies[i].destination, copies[i].source, copies[i].bytes,
                                            cudaMemcpyDefault, stream);
        if (error != cudaSuccess)
            return error;
    }
    return cudaSuccess;
}

#if CUDART_VERSION >= 12080
static cudaError_t copy_batch(cudaStream_t stream, const quire__copy *copies, size_t count)
{
    void *destinations[BATCH_MOST];
    const void *sources[BATCH_MOST];
    size_t sizes[BATCH_MOST], first = 0;
    struct cudaMemcpyAttributes attributes = {.srcAccessOrder = cudaMemcpySrcAccessOrderStream};
    for (size_t i = 0; i < count; i++) {
        destinations[i] = copies[i].destination;
        sources[i] = copies[i].source;
        sizes[i] = copies[i].bytes;
    }
#if CUDART_VERSION >= 13000
    return cudaMemcpyBatchAsync(destinations, sources, sizes, count, &attributes, &first, 1, stream);
#else
    size_t failed;
    return cudaMemcpyBatchAsync(destinations, (void **)sources, sizes, count, &attributes, &first, 1, &failed, stream);
#endif
}

static bool stream_takes_batches(cudaStream_t stream)
{
    enum cudaStreamCaptureStatus capture;
    if (stream == NULL || stream == cudaStreamLegacy || stream == cudaStreamPerThread)
        return false;
    return cudaStreamIsCapturing(stream, &capture) == cudaSuccess && capture == cudaStreamCaptureStatusNone;
}
#endif

static cudaError_t copy_all(cuda_device *cuda, cudaStream_t stream, const quire__copy *copies, size_t count)
{
#if CUDART_VERSION >= 12080
    while (cuda->batches && count > 1 && stream_takes_batches(stream)) {
        size_t some = count < BATCH_MOST ? count : BATCH_MOST;
        cudaError_t error = copy_batch(stream, copies, some);
        if (error == cudaErrorNotSupported || error == cudaErrorCallRequiresNewerDriver) {
            (void)cudaGetLastError();
            cuda->batches = false;
            break;
        }
        if (error != cudaSuccess)
            return error;
        copies += some;
        count -= some;
    }
#else
    (void)cuda;
#endif
    return copy_each(stream, copies, count);
}

static quire_status cuda_copy(quire__device *device, quire__stream *stream, const quire__copy *copies, size_t count)
{
    cuda_device *cuda = (cuda_device *)device;
    cudaError_t error;
    int before;
    QUIRE__TRY(cuda_enter(cuda, &before));
    error = copy_all(cuda, (cudaStream_t)stream, copies, count);
    cuda_leave(before);
    return cuda_status(cuda, error, "a copy");
}

static quire_status kernel_run(quire__kernel kernel, const quire__kernel_args *args, void *stream)
{
    switch (kernel) {
    case QUIRE__KERNEL_APPEND:
        return quire__cuda_append(&args->append, stream);
    case QUIRE__KERNEL_BLOCK_COPY:
        return quire__cuda_block_copy(&args->block_copy, stream);
    case QUIRE__KERNEL_GATHER:
        return quire__cuda_gather(&args->pieces, stream);
    case QUIRE__KERNEL_SCATTER:
        return quire__cuda_scatter(&args->pieces, stream);
    case QUIRE__KERNEL_TABLE:
        return quire__cuda_table(&args->table, stream);
    case QUIRE__KERNEL_ATTEND_DECODE:
        return quire__cuda_attend_decode(&args->attend, stream);
    case QUIRE__KERNEL_ATTEND_PREFILL:
        return quire__cuda_attend_prefill(&args->attend, stream);
    case QUIRE__KERNEL_PACK:
        return quire__cuda_pack(&args->pack, stream);
    case QUIRE__KERNEL_UNPACK:
        return quire__cuda_unpack(&args->pack, stream);
    case QUIRE__KERNEL_CONVERT:
        return quire__cuda_convert(&args->convert, stream);
    case QUIRE__KERNEL_LATENT_APPEND:
        return quire__cuda_latent_append(&args->append, stream);
    case QUIRE__KERNEL_LATENT_ATTEND:
        return quire__cuda_latent_attend(&args->attend, stream);
    case QUIRE__KERNEL_ATTEND_SHARED:
        return quire__cuda_attend_shared(&args->shared, stream);
    default:
        return QUIRE_EINVAL;
    }
}

static quire_status cuda_launch(quire__device *device, quire__stream *stream, quire__kernel kernel,
                                const quire__kernel_args *args)
{
    static const char *const names[QUIRE__KERNEL_COUNT] = {"append", "block_copy",    "gather",        "scatter",
                                                           "table",  "attend_decode", "attend_prefill",
                                                           "pack",   "unpack",        "latent_append",
                                                           "latent_attend", "attend_shared", "convert"};
    cuda_device *cuda = (cuda_device *)device;
    cudaError_t error;
    quire_status status;
    int before;
    QUIRE__TRY(cuda_enter(cuda, &before));
    status = kernel_run(kernel, args, stream);
    error = status == QUIRE_EDEVICE ? cudaGetLastError() : cudaSuccess;
    cuda_leave(before);
    switch (status) {
    case QUIRE_OK:
        return QUIRE_OK;
    case QUIRE_EUNSUPPORTED:
        return quire__fail(status, "cuda:%d: %s has no kernel for this head_dim or type", cuda->ordinal,
                           names[kernel]);
    case QUIRE_EDEVICE:
        return quire__fail(status, "cuda:%d: the launch of %s failed: %s", cuda->ordinal, names[kernel],
                           cudaGetErrorString(error));
    default:
        return quire__fail(status, "cuda:%d: %s was given arguments that it cannot take", cuda->ordinal,
                           names[kernel]);
    }
}

/* ---- the table ----------------------------------------------------------------------------------------------- */

static void cuda_close(quire__device *device)
{
    free(device);
}

static void cuda_identity(const quire__device *device, char *text, size_t capacity)
{
    const cuda_device *cuda = (const cuda_device *)device;
    struct cudaDeviceProp properties;
    int driver = 0;
    if (cudaGetDeviceProperties(&properties, cuda->ordinal) == cudaSuccess && cudaDriverGetVersion(&driver) == cudaSuccess)
        snprintf(text, capacity, "%s, driver %d", properties.name, driver);
    else
        (void)cudaGetLastError();
}

static const quire__device_ops cuda_ops = {
    .name = "cuda",
    .size = sizeof(quire__device_ops),
    .capabilities = 0,
    .granule = QUIRE__CUDA_GRANULE,
    .close = cuda_close,
    .identity = cuda_identity,
    .memory_limit = cuda_memory_limit,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .reserve = cuda_reserve,
    .release = cuda_release,
    .map = cuda_map,
    .unmap = cuda_unmap,
    .pool_open = cuda_pool_open,
    .pool_close = cuda_pool_close,
    .pool_pin = cuda_pool_pin,
    .pool_unpin = cuda_pool_unpin,
    .stream_open = cuda_stream_open,
    .stream_close = cuda_stream_close,
    .stream_synchronize = cuda_stream_synchronize,
    .stream_wait = cuda_stream_wait,
    .event_open = cuda_event_open,
    .event_close = cuda_event_close,
    .event_record = cuda_event_record,
    .event_query = cuda_event_query,
    .copy = cuda_copy,
    .launch = cuda_launch,
};

quire_status quire__device_cuda_open(quire__device **device, const quire__device_config *config)
{
    quire_status status;
    int before;
    cuda_device *made = calloc(1, sizeof *made);
    if (made == NULL)
        return quire__fail(QUIRE_ENOMEM, "no memory for the CUDA device");
    made->base.ops = &cuda_ops;
    made->ordinal = config->ordinal;
    made->batches = true;
    status = cuda_enter(made, &before); /* makes the context: a GPU that cannot be used fails here */
    if (status != QUIRE_OK) {
        free(made);
        return status;
    }
    cuda_leave(before);
    *device = &made->base;
    return QUIRE_OK;
}
#endif
