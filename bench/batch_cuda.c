/* batch_cuda.c: cuMemcpyBatchAsync, found at run time: a program built here runs on older drivers too. */
#include "batch_cuda.h"

#include <cuda_runtime_api.h>
#include <stdint.h>
#include <stdlib.h>

#include "kit.h"

#if CUDART_VERSION >= 12080
#include <cudaTypedefs.h>

static PFN_cuMemcpyBatchAsync_v12080 batch_async;

bool bench_batch_find(const char **why)
{
    enum cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    void *entry = NULL;
    cudaError_t error =
        cudaGetDriverEntryPointByVersion("cuMemcpyBatchAsync", &entry, 12080, cudaEnableDefault, &found);

    *why = "the driver has no cuMemcpyBatchAsync";
    if (error != cudaSuccess || found != cudaDriverEntryPointSuccess || entry == NULL) {
        (void)cudaGetLastError();
        return false;
    }
    _Static_assert(sizeof batch_async == sizeof entry, "a function's address is an address");
    *(void **)&batch_async = entry;
    return true;
}

void bench_batch_copy(void **to, const void **from, size_t *bytes, size_t count, void *stream)
{
    CUmemcpyAttributes attributes = {.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM};
    size_t first = 0, failed = 0;
    CUdeviceptr *addresses = bench_alloc(2 * count * sizeof *addresses);

    for (size_t i = 0; i < count; i++) {
        addresses[i] = (CUdeviceptr)(uintptr_t)to[i];
        addresses[count + i] = (CUdeviceptr)(uintptr_t)from[i];
    }
    CUresult result = batch_async(addresses, addresses + count, bytes, count, &attributes, &first, 1, &failed,
                                  (CUstream)stream);
    free(addresses);
    if (result != CUDA_SUCCESS)
        bench_die("cuMemcpyBatchAsync of %zu pieces: error %d at piece %zu", count, (int)result, failed);
}
#else
bool bench_batch_find(const char **why)
{
    *why = "built with a CUDA toolkit before 12.8";
    return false;
}

void bench_batch_copy(void **to, const void **from, size_t *bytes, size_t count, void *stream)
{
    bench_batch_copy_each(to, from, bytes, count, stream);
}
#endif

void bench_batch_copy_each(void **to, const void **from, const size_t *bytes, size_t count, void *stream)
{
    for (size_t i = 0; i < count; i++) {
        cudaError_t error = cudaMemcpyAsync(to[i], from[i], bytes[i], cudaMemcpyDefault, (cudaStream_t)stream);
        if (error != cudaSuccess)
            bench_die("cudaMemcpyAsync: %s", cudaGetErrorString(error));
    }
}
