/* device_memory.h: arrays that kernels can reach, for tests that run emulated and on a GPU from one source.
 *
 * QUIRE_TEST_GPU defined: cudaMalloc and cudaMemcpy on device 0. Else: plain memory, each array an allocation
 * of its exact size, so that ASan sees an access one byte past it. */
#ifndef QUIRE_TESTS_DEVICE_MEMORY_H
#define QUIRE_TESTS_DEVICE_MEMORY_H

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#if defined(QUIRE_TEST_GPU)

#include <cuda_runtime_api.h>

/* NULL, or why there is no device to test. */
inline const char *device_missing()
{
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    static char why[128];
    /* 34 stub library, 35 no or too old a driver, 100 no device */
    if (error == 34 || error == 35 || error == 100)
        std::snprintf(why, sizeof why, "no GPU: %s", cudaGetErrorString(error));
    else if (error == cudaSuccess && count == 0)
        std::snprintf(why, sizeof why, "no GPU: the driver counts 0 devices");
    else
        return nullptr;
    return why;
}

inline void device_check(cudaError_t error, const char *what)
{
    if (error == cudaSuccess)
        return;
    std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
    std::abort();
}

inline void *device_allocate(size_t bytes)
{
    void *memory = nullptr;
    device_check(cudaMalloc(&memory, bytes > 0 ? bytes : 1), "cudaMalloc");
    return memory;
}

inline void device_release(void *memory)
{
    device_check(cudaFree(memory), "cudaFree");
}

inline void device_copy(void *to, const void *from, size_t bytes)
{
    device_check(cudaMemcpy(to, from, bytes, cudaMemcpyDefault), "cudaMemcpy");
}

inline void device_wait()
{
    device_check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

#else

inline const char *device_missing()
{
    return nullptr;
}

inline void *device_allocate(size_t bytes)
{
    void *memory = nullptr;
    if (posix_memalign(&memory, 256, bytes > 0 ? bytes : 1) != 0)
        std::abort();
    return memory;
}

inline void device_release(void *memory)
{
    std::free(memory);
}

inline void device_copy(void *to, const void *from, size_t bytes)
{
    std::memcpy(to, from, bytes);
}

inline void device_wait()
{
}

#endif

/* A copy on the device of an array on the host. */
template <class T> class DeviceArray
{
  public:
    explicit DeviceArray(const std::vector<T> &host) : count_(host.size()), data_(allocate(host.size()))
    {
        if (count_ > 0)
            device_copy(data_, host.data(), count_ * sizeof(T));
    }
    ~DeviceArray()
    {
        device_release(data_);
    }
    DeviceArray(const DeviceArray &) = delete;
    DeviceArray &operator=(const DeviceArray &) = delete;

    T *data()
    {
        return data_;
    }
    size_t size() const
    {
        return count_;
    }

    /* What it holds when everything enqueued has run. */
    std::vector<T> read() const
    {
        std::vector<T> host(count_);
        device_wait();
        if (count_ > 0)
            device_copy(host.data(), data_, count_ * sizeof(T));
        return host;
    }

  private:
    static T *allocate(size_t count)
    {
        return static_cast<T *>(device_allocate(count * sizeof(T)));
    }

    size_t count_;
    T *data_;
};

#endif
