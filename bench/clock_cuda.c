/* clock_cuda.c: events around a body on a GPU.
 *
 *   stream:  [prepare]  body  read twice the L2  |event|  body  |event|
 *                       lead  flush                       timed
 *
 * The lead runs while the CPU still enqueues the rest, so the GPU never waits for the CPU between the events, and it
 * brings the clocks up. The flush leaves clean lines of other memory in the L2 cache. A body with a `prepare` changes
 * what it works on, so it has no lead.
 *
 * A recorded body is one graph, so that a body of many short kernels costs what the kernels cost in an engine's graph.
 * Bodies should take 100 us or more: starting a graph is some us, and events resolve half a microsecond. */
#include "clock_cuda.h"

#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>

#include "gpu_kernels.h"
#include "kit.h"

enum { FLUSH_BLOCKS_EACH = 4 }; /* thread blocks of the flush, a multiprocessor */

typedef struct cuda_clock {
    bench_clock base;
    bench_clock_way way;
    cudaStream_t stream;
    bool *enqueue_only;
    cudaEvent_t begin, end;
    void *flush, *sink;
    size_t flush_bytes;
    unsigned flush_blocks;
} cuda_clock;

static void must(cudaError_t error, const char *what)
{
    if (error != cudaSuccess)
        bench_die("%s: %s", what, cudaGetErrorString(error));
}

static void enqueue(cuda_clock *clock, const bench_racer *racer, cudaGraphExec_t graph)
{
    if (graph != NULL) {
        must(cudaGraphLaunch(graph, clock->stream), "cudaGraphLaunch");
        return;
    }
    *clock->enqueue_only = true;
    racer->body(racer->arg);
    *clock->enqueue_only = false;
}

/* NULL: the body cannot be recorded (no failure: some copies cannot). */
static void *cuda_ready(bench_clock *base, const bench_racer *racer)
{
    cuda_clock *clock = (cuda_clock *)base;
    cudaGraph_t graph = NULL;
    cudaGraphExec_t made = NULL;

    if (clock->way != BENCH_CLOCK_GRAPH)
        return NULL;
    must(cudaStreamBeginCapture(clock->stream, cudaStreamCaptureModeRelaxed), "cudaStreamBeginCapture");
    enqueue(clock, racer, NULL);
    if (cudaStreamEndCapture(clock->stream, &graph) != cudaSuccess || graph == NULL) {
        (void)cudaGetLastError();
        return NULL;
    }
    size_t nodes = 0;
    must(cudaGraphGetNodes(graph, NULL, &nodes), "cudaGraphGetNodes");
    if (nodes == 0)
        bench_die("a timed body enqueued nothing on the benchmark's stream");
    must(cudaGraphInstantiateWithFlags(&made, graph, 0), "cudaGraphInstantiate");
    must(cudaGraphDestroy(graph), "cudaGraphDestroy");
    must(cudaGraphUpload(made, clock->stream), "cudaGraphUpload");
    return made;
}

static double cuda_time(bench_clock *base, const bench_racer *racer, void *kept)
{
    cuda_clock *clock = (cuda_clock *)base;
    float milliseconds = 0;

    if (racer->prepare == NULL)
        enqueue(clock, racer, kept);
    must((cudaError_t)bench_gpu_load(clock->flush, clock->flush_bytes, clock->flush_blocks, clock->sink,
                                     clock->stream),
         "the kernel that empties the L2 cache");
    must(cudaEventRecord(clock->begin, clock->stream), "cudaEventRecord");
    enqueue(clock, racer, kept);
    must(cudaEventRecord(clock->end, clock->stream), "cudaEventRecord");
    must(cudaEventSynchronize(clock->end), "a benchmark on the GPU");
    must(cudaEventElapsedTime(&milliseconds, clock->begin, clock->end), "cudaEventElapsedTime");
    return (double)milliseconds * 1e-3;
}

static void cuda_done(bench_clock *base, void *kept)
{
    (void)base;
    if (kept != NULL)
        must(cudaGraphExecDestroy(kept), "cudaGraphExecDestroy");
}

static int attribute(enum cudaDeviceAttr which)
{
    int device = 0, value = 0;

    must(cudaGetDevice(&device), "cudaGetDevice");
    must(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
    return value;
}

/* "580.159.4", as nvidia-smi says it, where the kernel module tells; else the CUDA version that the driver serves. */
static void driver_version(char *text, size_t capacity)
{
    FILE *file = fopen("/sys/module/nvidia/version", "r");
    int served = 0;

    if (file != NULL) {
        int found = fscanf(file, "%31s", text);
        fclose(file);
        if (found == 1)
            return;
    }
    must(cudaDriverGetVersion(&served), "cudaDriverGetVersion");
    snprintf(text, capacity, "for CUDA %d.%d", served / 1000, served % 1000 / 10);
}

void bench_gpu_use(int ordinal)
{
    must(cudaSetDevice(ordinal), "cudaSetDevice");
}

bench_gpu bench_gpu_describe(void)
{
    struct cudaDeviceProp properties;
    bench_gpu gpu = {.l2_bytes = (size_t)attribute(cudaDevAttrL2CacheSize),
                     .multiprocessors = attribute(cudaDevAttrMultiProcessorCount),
                     .major = attribute(cudaDevAttrComputeCapabilityMajor),
                     .minor = attribute(cudaDevAttrComputeCapabilityMinor)};
    int device = 0;

    must(cudaGetDevice(&device), "cudaGetDevice");
    must(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
    gpu.memory_bytes = properties.totalGlobalMem;
    /* kHz times bits, twice a clock */
    gpu.memory_rate = 2e3 * attribute(cudaDevAttrMemoryClockRate) * attribute(cudaDevAttrGlobalMemoryBusWidth) / 8e9;
    snprintf(gpu.name, sizeof gpu.name, "%.90s", properties.name);
    snprintf(gpu.toolkit, sizeof gpu.toolkit, "%d.%d", CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    driver_version(gpu.driver, sizeof gpu.driver);
    return gpu;
}

bench_clock *bench_clock_cuda_open(bench_clock_way way, void *stream, bool *enqueue_only)
{
    cuda_clock *clock = bench_alloc(sizeof *clock);

    *clock = (cuda_clock){.base = {cuda_ready, cuda_time, cuda_done},
                          .way = way,
                          .stream = stream,
                          .enqueue_only = enqueue_only,
                          .flush_bytes = 2 * (size_t)attribute(cudaDevAttrL2CacheSize) / 16 * 16,
                          .flush_blocks = FLUSH_BLOCKS_EACH * (unsigned)attribute(cudaDevAttrMultiProcessorCount)};
    must(cudaEventCreate(&clock->begin), "cudaEventCreate");
    must(cudaEventCreate(&clock->end), "cudaEventCreate");
    must(cudaMalloc(&clock->flush, clock->flush_bytes), "memory to empty the L2 cache with");
    must(cudaMemset(clock->flush, 0, clock->flush_bytes), "cudaMemset");
    must(cudaMalloc(&clock->sink, sizeof(unsigned)), "cudaMalloc");
    return &clock->base;
}

void bench_clock_cuda_close(bench_clock *base)
{
    cuda_clock *clock = (cuda_clock *)base;

    if (clock == NULL)
        return;
    must(cudaFree(clock->sink), "cudaFree");
    must(cudaFree(clock->flush), "cudaFree");
    must(cudaEventDestroy(clock->end), "cudaEventDestroy");
    must(cudaEventDestroy(clock->begin), "cudaEventDestroy");
    free(clock);
}
