/* The small kernels of the CUDA backend. Each handles a token by one thread block or warp of its own, in an order that
 * does not depend on how many tokens there are. They move a few kilobytes a token and are bound by launch time.
 *
 * INFER_LAUNCH is there so that a test can run this very file on a CPU. */
#include "cuda_kernels.h"

#ifndef INFER_LAUNCH
#include <cuda_runtime.h>
#define INFER_LAUNCH(kernel, grid, block, stream, ...) \
    kernel<<<(grid), (block), 0, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)
#define INFER_LAUNCH_STATUS() static_cast<int>(cudaGetLastError())
#endif

namespace {

constexpr uint32_t kThreads = 256;
constexpr uint32_t kWarp = 32;

__global__ void pick_kernel(const float *x, size_t x_stride, const int32_t *rows, uint32_t width, float scale,
                            float *y, size_t y_stride) {
    const float *from = x + static_cast<size_t>(rows[blockIdx.x]) * x_stride;
    float *to = y + blockIdx.x * y_stride;
    for (uint32_t i = threadIdx.x; i < width; i += blockDim.x)
        to[i] = from[i] * scale;
}

/* One warp a token, or a head of one: 32 partial sums of squares, added up in a fixed tree. */
__global__ void norm_kernel(const float *x, const float *gain, float epsilon, float *y, uint32_t width, size_t stride,
                            int add) {
    const size_t at = blockIdx.x * stride + static_cast<size_t>(blockIdx.y) * width;
    const float *from = x + at;
    float *to = y + at;
    float sum = 0.0f;
    for (uint32_t i = threadIdx.x; i < width; i += kWarp)
        sum += from[i] * from[i];
    for (int distance = 16; distance > 0; distance /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, distance);
    const float scale = 1.0f / sqrtf(sum / static_cast<float>(width) + epsilon);
    for (uint32_t i = threadIdx.x; i < width; i += kWarp)
        to[i] = (add ? to[i] : 0.0f) + from[i] * scale * gain[i];
}

__global__ void rope_kernel(float *x, const float *table, const int32_t *positions, uint32_t heads,
                            uint32_t head_dim, size_t stride) {
    float *row = x + blockIdx.x * stride;
    const float *turns = table + static_cast<size_t>(max(positions[blockIdx.x], 0)) * head_dim;
    for (uint32_t pair = threadIdx.x; pair < heads * head_dim / 2; pair += blockDim.x) {
        const float cosine = turns[pair * 2 % head_dim], sine = turns[pair * 2 % head_dim + 1];
        const float even = row[pair * 2], odd = row[pair * 2 + 1];
        row[pair * 2] = even * cosine - odd * sine;
        row[pair * 2 + 1] = even * sine + odd * cosine;
    }
}

/* SiLU is x / (1 + e^-x); GELU in its tanh form is x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3). */
__global__ void gate_kernel(const float *x, size_t x_stride, float *y, size_t y_stride, uint32_t width, int gelu) {
    const float *gate = x + blockIdx.x * x_stride, *up = gate + width;
    float *to = y + blockIdx.x * y_stride;
    for (uint32_t i = threadIdx.x; i < width; i += blockDim.x) {
        const float value = gate[i];
        const float turn = gelu ? 1.59576912f * (value + 0.044715f * value * value * value) : value;
        to[i] = value / (1.0f + expf(-turn)) * up[i];
    }
}

}  // namespace

int cuda_pick(const float *x, size_t x_stride, const int32_t *rows, uint32_t count, uint32_t width, float scale, float *y,
              size_t y_stride, void *stream) {
    if (count == 0)
        return 0;
    INFER_LAUNCH(pick_kernel, dim3(count), dim3(kThreads), stream, x, x_stride, rows, width, scale, y, y_stride);
    return INFER_LAUNCH_STATUS();
}

int cuda_norm(const float *x, const float *gain, float epsilon, float *y, uint32_t tokens, uint32_t width,
              size_t stride, int add, void *stream) {
    if (tokens == 0)
        return 0;
    INFER_LAUNCH(norm_kernel, dim3(tokens), dim3(kWarp), stream, x, gain, epsilon, y, width, stride, add);
    return INFER_LAUNCH_STATUS();
}

int cuda_norm_heads(float *x, const float *gain, float epsilon, uint32_t tokens, uint32_t heads, uint32_t head_dim,
                    size_t stride, void *stream) {
    if (tokens == 0)
        return 0;
    INFER_LAUNCH(norm_kernel, dim3(tokens, heads), dim3(kWarp), stream, x, gain, epsilon, x, head_dim, stride, 0);
    return INFER_LAUNCH_STATUS();
}

int cuda_rope(float *x, const float *table, const int32_t *positions, uint32_t tokens, uint32_t heads,
              uint32_t head_dim, size_t stride, void *stream) {
    if (tokens == 0)
        return 0;
    INFER_LAUNCH(rope_kernel, dim3(tokens), dim3(kThreads), stream, x, table, positions, heads, head_dim, stride);
    return INFER_LAUNCH_STATUS();
}

int cuda_gate(const float *x, size_t x_stride, float *y, size_t y_stride, uint32_t tokens, uint32_t width, int gelu,
              void *stream) {
    if (tokens == 0)
        return 0;
    INFER_LAUNCH(gate_kernel, dim3(tokens), dim3(kThreads), stream, x, x_stride, y, y_stride, width, gelu);
    return INFER_LAUNCH_STATUS();
}
