/*
 * cuda_compat.cuh - all that a kernel file includes for portability. One source, two compilers:
 *
 *   nvcc            CUDA itself; this file adds names for what needs inline PTX
 *   g++, clang++    the kernel emulator (tests/emulator), which runs kernels on the CPU for tests
 *
 * A kernel file keeps to CUDA C++17 plus the names below, which hide the few spellings that a C++ compiler cannot read.
 *
 *   QK_LAUNCH(kernel, grid, block, dynamic_shared_bytes, stream, arguments...)
 *        kernel<<<...>>>(...). A template kernel with a comma goes in parentheses: QK_LAUNCH((attend<128, 4>), ...).
 *        The stream may be a void pointer. No value: ask qk_launch_status() afterwards.
 *   int qk_launch_status()
 *        0, or the cudaError_t of the last launch, which it then forgets. A launcher ends with it.
 *   int qk_allow_dynamic_shared(kernel, bytes)
 *        Needed before a launch with more than 48 KiB of dynamic shared memory. 0 or a cudaError_t.
 *   QK_SHARED(type, name);                           __shared__ type name; an array's dimensions go with the type:
 *        QK_SHARED(float[4][D], sums). A type with a comma in it needs an alias.
 *   QK_DYNAMIC_SHARED(type, name);                   type *name, the launch's dynamic shared memory, aligned to 128
 *   QK_UNROLL                                        #pragma unroll
 *   QK_EMULATED                                      1 under the emulator, else 0
 *
 *   int qk_resident_blocks(kernel, threads, dynamic_shared_bytes)
 *        Thread blocks of it that the device runs at once; 0 when that cannot be found out.
 *
 *   qk_cp_async16(shared, global, valid = true)      16 bytes, asynchronously; zeros, and no read, when not valid
 *   qk_cp_async16_once(shared, global, valid, once)  the same for what is read once: the first to leave the L2
 *   uint64_t qk_read_once()                          the cache policy that it wants
 *   qk_cp_async_commit(), qk_cp_async_wait<N>()      close a group; wait for all but the newest N groups
 *   qk_ldmatrix_x4(r, row), qk_ldmatrix_x4_trans     four 8x8 matrices of 16-bit elements; row: this lane's address
 *   qk_mma_bf16_16816(d, a, b), qk_mma_f16_16816     d[4] += a[4] * b[2], m16n8k16, f32 accumulators
 *   qk_sub_f16x2(a, b), qk_mul_f16x2(a, b)           a - b and a b, of two f16 in a word each
 *   qk_exp2(x)                                       2^x, ex2.approx: 2 ulp, denormals flushed to 0
 */
#ifndef QUIRE_KERNELS_CUDA_COMPAT_CUH
#define QUIRE_KERNELS_CUDA_COMPAT_CUH

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#define QK_EMULATED 0
#define QK_UNROLL _Pragma("unroll")
#define QK_SHARED(type, name)          \
    using qk_type_of_##name = type;    \
    __shared__ qk_type_of_##name name
#define QK_DYNAMIC_SHARED(type, name)                                         \
    extern __shared__ __align__(128) unsigned char qk_dynamic_shared_bytes[]; \
    type *name = reinterpret_cast<type *>(qk_dynamic_shared_bytes)
#define QK_LAUNCH(kernel, grid, block, dynamic_shared_bytes, stream, ...) \
    (kernel)<<<(grid), (block), (dynamic_shared_bytes), static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)

static inline int qk_launch_status() {
    return static_cast<int>(cudaPeekAtLastError()); /* the caller names it, then forgets it */
}

template <class Kernel> static inline int qk_allow_dynamic_shared(Kernel *kernel, size_t bytes) {
    return static_cast<int>(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
}

template <class Kernel> static inline int qk_resident_blocks(Kernel *kernel, int threads, size_t dynamic_shared) {
    int device = 0, multiprocessors = 0, blocks = 0;
    if (cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device) != cudaSuccess ||
        cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, dynamic_shared) != cudaSuccess)
        return 0;
    return blocks * multiprocessors;
}

__device__ __forceinline__ void qk_cp_async16(void *shared, const void *global, bool valid = true) {
    const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    const int bytes_read = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(bytes_read) : "memory");
}

__device__ __forceinline__ uint64_t qk_read_once() {
    uint64_t policy;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}

__device__ __forceinline__ void qk_cp_async16_once(void *shared, const void *global, bool valid, uint64_t once) {
    const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    const int bytes_read = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(to), "l"(global),
                 "r"(bytes_read), "l"(once)
                 : "memory");
}

__device__ __forceinline__ void qk_cp_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int N> __device__ __forceinline__ void qk_cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

__device__ __forceinline__ void qk_ldmatrix_x4(uint32_t (&r)[4], const void *row) {
    const uint32_t from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
}

__device__ __forceinline__ void qk_ldmatrix_x4_trans(uint32_t (&r)[4], const void *row) {
    const uint32_t from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
}

__device__ __forceinline__ void qk_mma_bf16_16816(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ void qk_mma_f16_16816(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ uint32_t qk_sub_f16x2(uint32_t a, uint32_t b) {
    uint32_t difference;
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(difference) : "r"(a), "r"(b));
    return difference;
}

__device__ __forceinline__ uint32_t qk_mul_f16x2(uint32_t a, uint32_t b) {
    uint32_t product;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
    return product;
}

/* One of several threads' stores to the same word, in memory of the device or of the host, has the last word. */
__device__ __forceinline__ void qk_store_relaxed(int32_t *address, int32_t value) {
    asm volatile("st.relaxed.sys.b32 [%0], %1;" : : "l"(address), "r"(value) : "memory");
}

__device__ __forceinline__ float qk_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#else /* the kernel emulator */

#include "emulator/emulator.h"

#define QK_EMULATED 1
#define QK_UNROLL
#define QK_SHARED(type, name)      \
    static char qk_site_of_##name; \
    auto &name = ::emu::shared_variable<type>(qk_site_of_##name)
#define QK_DYNAMIC_SHARED(type, name) type *name = static_cast<type *>(::emu::dynamic_shared())
#define QK_LAUNCH(kernel, grid, block, dynamic_shared_bytes, stream, ...) \
    (static_cast<void>(stream), ::emu::Launch(#kernel, (kernel), (grid), (block), (dynamic_shared_bytes))(__VA_ARGS__))

static inline int qk_launch_status() {
    return ::emu::take_launch_error();
}

static inline void qk_store_relaxed(int32_t *address, int32_t value) {
    __atomic_store_n(address, value, __ATOMIC_RELAXED);
}

template <class Kernel> static inline int qk_allow_dynamic_shared(Kernel *kernel, size_t bytes) {
    return ::emu::allow_dynamic_shared(reinterpret_cast<const void *>(kernel), bytes);
}

template <class Kernel> static inline int qk_resident_blocks(Kernel *, int, size_t) {
    return 1 << 30;
}

inline void qk_cp_async16(void *shared, const void *global, bool valid = true,
                          emu::Place where = emu::here("qk_cp_async16")) {
    ::emu::async_copy_16(shared, global, valid, where);
}

inline uint64_t qk_read_once() {
    return 0;
}

inline void qk_cp_async16_once(void *shared, const void *global, bool valid, uint64_t,
                               emu::Place where = emu::here("qk_cp_async16_once")) {
    ::emu::async_copy_16(shared, global, valid, where);
}

inline void qk_cp_async_commit() {
    ::emu::async_copy_commit();
}

template <int N> inline void qk_cp_async_wait() {
    ::emu::async_copy_wait(N);
}

inline void qk_ldmatrix_x4(uint32_t (&r)[4], const void *row, emu::Place where = emu::here("qk_ldmatrix_x4")) {
    ::emu::ldmatrix_x4(r, row, false, where);
}

inline void qk_ldmatrix_x4_trans(uint32_t (&r)[4], const void *row,
                                 emu::Place where = emu::here("qk_ldmatrix_x4_trans")) {
    ::emu::ldmatrix_x4(r, row, true, where);
}

inline void qk_mma_bf16_16816(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                              emu::Place where = emu::here("qk_mma_bf16_16816")) {
    ::emu::mma_m16n8k16(d, a, b, ::emu::widen_bf16, where);
}

inline void qk_mma_f16_16816(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                             emu::Place where = emu::here("qk_mma_f16_16816")) {
    ::emu::mma_m16n8k16(d, a, b, ::emu::widen_f16, where);
}

/* A float holds the difference and the product of two f16 so well that rounding it again changes nothing. */
template <class Operation> inline uint32_t qk_each_f16(uint32_t a, uint32_t b, const Operation &operation) {
    uint32_t result = 0;
    for (int shift = 0; shift < 32; shift += 16) {
        __half_raw left, right;
        left.x = static_cast<unsigned short>(a >> shift);
        right.x = static_cast<unsigned short>(b >> shift);
        const __half_raw rounded = __float2half_rn(operation(__half2float(left), __half2float(right)));
        result |= static_cast<uint32_t>(rounded.x) << shift;
    }
    return result;
}

inline uint32_t qk_sub_f16x2(uint32_t a, uint32_t b) {
    return qk_each_f16(a, b, [](float x, float y) { return x - y; });
}

inline uint32_t qk_mul_f16x2(uint32_t a, uint32_t b) {
    return qk_each_f16(a, b, [](float x, float y) { return x * y; });
}

inline float qk_exp2(float x) {
    return std::exp2(x);
}

#endif
#endif
