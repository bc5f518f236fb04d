/* cuda_range.c: the driver's virtual memory management. Its functions are taken at run time through the runtime, since a
 * program linked with the driver's library would not start where there is none.
 *
 * The handle of a piece of memory is released as soon as the piece is mapped: the mapping then owns the memory, and
 * unmapping frees it. So nothing has to be remembered but what the caller knows, the ranges it mapped. */
#include "device/cuda_range.h"

#ifdef QUIRE_HAVE_CUDA
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <stdbool.h>

#include "base/status.h"

typedef struct range_driver {
    CUresult (*granularity)(size_t *bytes, const CUmemAllocationProp *prop, CUmemAllocationGranularity_flags flags);
    CUresult (*reserve)(CUdeviceptr *address, size_t bytes, size_t alignment, CUdeviceptr where,
                        unsigned long long flags);
    CUresult (*release_addresses)(CUdeviceptr address, size_t bytes);
    CUresult (*create)(CUmemGenericAllocationHandle *handle, size_t bytes, const CUmemAllocationProp *prop,
                       unsigned long long flags);
    CUresult (*release)(CUmemGenericAllocationHandle handle);
    CUresult (*map)(CUdeviceptr address, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,
                    unsigned long long flags);
    CUresult (*set_access)(CUdeviceptr address, size_t bytes, const CUmemAccessDesc *access, size_t count);
    CUresult (*unmap)(CUdeviceptr address, size_t bytes);
} range_driver;

/* CUDA 10.2 made all of them. */
static bool driver_function(const char *name, void *function)
{
    enum cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    void *address = NULL;
#if CUDART_VERSION >= 12050
    cudaError_t error = cudaGetDriverEntryPointByVersion(name, &address, 10020, cudaEnableDefault, &found);
#else
    cudaError_t error = cudaGetDriverEntryPoint(name, &address, cudaEnableDefault, &found);
#endif
    if (error != cudaSuccess)
        (void)cudaGetLastError();
    *(void **)function = address;
    return error == cudaSuccess && found == cudaDriverEntryPointSuccess && address != NULL;
}

static quire_status driver_get(int ordinal, range_driver *driver)
{
    if (driver_function("cuMemGetAllocationGranularity", &driver->granularity) &&
        driver_function("cuMemAddressReserve", &driver->reserve) &&
        driver_function("cuMemAddressFree", &driver->release_addresses) &&
        driver_function("cuMemCreate", &driver->create) && driver_function("cuMemRelease", &driver->release) &&
        driver_function("cuMemMap", &driver->map) && driver_function("cuMemSetAccess", &driver->set_access) &&
        driver_function("cuMemUnmap", &driver->unmap))
        return QUIRE_OK;
    return quire__fail(QUIRE_EUNSUPPORTED, "cuda:%d: this driver has no virtual memory management, which an arena that "
                       "changes its size needs", ordinal);
}

static CUmemAllocationProp range_prop(int ordinal)
{
    CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = ordinal}};
    return prop;
}

quire_status quire__cuda_range_reserve(int ordinal, size_t bytes, void **memory)
{
    CUmemAllocationProp prop = range_prop(ordinal);
    range_driver driver;
    CUdeviceptr address = 0;
    CUresult result;
    size_t granule = 0;
    QUIRE__TRY(driver_get(ordinal, &driver));
    result = driver.granularity(&granule, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
    if (result != CUDA_SUCCESS || granule == 0 || QUIRE__CUDA_GRANULE % granule != 0)
        return quire__fail(QUIRE_EUNSUPPORTED, "cuda:%d: memory is mapped in pieces of %zu bytes (error %d), and the arena "
                           "needs pieces of %d", ordinal, granule, (int)result, QUIRE__CUDA_GRANULE);
    result = driver.reserve(&address, bytes, QUIRE__CUDA_GRANULE, 0, 0);
    if (result != CUDA_SUCCESS)
        return quire__fail(QUIRE_ENOMEM, "cuda:%d: no addresses for %zu bytes (error %d)", ordinal, bytes, (int)result);
    *memory = (void *)(uintptr_t)address;
    return QUIRE_OK;
}

void quire__cuda_range_release(void *memory, size_t bytes)
{
    range_driver driver;
    if (driver_get(0, &driver) == QUIRE_OK)
        (void)driver.release_addresses((CUdeviceptr)(uintptr_t)memory, bytes);
}

quire_status quire__cuda_range_map(int ordinal, void *memory, size_t bytes)
{
    CUmemAllocationProp prop = range_prop(ordinal);
    CUmemAccessDesc access = {.location = prop.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    CUdeviceptr address = (CUdeviceptr)(uintptr_t)memory;
    CUmemGenericAllocationHandle handle = 0;
    range_driver driver;
    CUresult result;
    QUIRE__TRY(driver_get(ordinal, &driver));
    result = driver.create(&handle, bytes, &prop, 0);
    if (result != CUDA_SUCCESS)
        return quire__fail(result == CUDA_ERROR_OUT_OF_MEMORY ? QUIRE_ENOMEM : QUIRE_EDEVICE,
                           "cuda:%d: no room for %zu more bytes (error %d)", ordinal, bytes, (int)result);
    result = driver.map(address, bytes, 0, handle, 0);
    if (result == CUDA_SUCCESS) {
        result = driver.set_access(address, bytes, &access, 1);
        if (result != CUDA_SUCCESS)
            (void)driver.unmap(address, bytes);
    }
    (void)driver.release(handle);
    if (result != CUDA_SUCCESS)
        return quire__fail(QUIRE_EDEVICE, "cuda:%d: %zu bytes could not be mapped (error %d)", ordinal, bytes,
                           (int)result);
    return QUIRE_OK;
}

quire_status quire__cuda_range_unmap(int ordinal, void *memory, size_t bytes)
{
    range_driver driver;
    CUresult result;
    QUIRE__TRY(driver_get(ordinal, &driver));
    result = driver.unmap((CUdeviceptr)(uintptr_t)memory, bytes);
    if (result != CUDA_SUCCESS)
        return quire__fail(QUIRE_EDEVICE, "cuda:%d: %zu bytes could not be unmapped (error %d)", ordinal, bytes,
                           (int)result);
    return QUIRE_OK;
}
#endif
