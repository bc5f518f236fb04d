/* cuda_kernels.h: what of a forward pass is neither a matrix product nor attention. All pointers are device
 * memory; strides are floats; one row a token. Each launcher returns a cudaError_t as int. */
#ifndef INFER_CUDA_KERNELS_H
#define INFER_CUDA_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* y[i] = scale * x[rows[i]] of `width` floats: embedding lookup and the choice of rows that want logits. */
int cuda_pick(const float *x, size_t x_stride, const int32_t *rows, uint32_t count, uint32_t width, float scale, float *y,
              size_t y_stride, void *stream);
/* `add` 1: added to y. */
int cuda_norm(const float *x, const float *gain, float epsilon, float *y, uint32_t tokens, uint32_t width,
              size_t stride, int add, void *stream);
int cuda_norm_heads(float *x, const float *gain, float epsilon, uint32_t tokens, uint32_t heads, uint32_t head_dim,
                    size_t stride, void *stream);
int cuda_rope(float *x, const float *table, const int32_t *positions, uint32_t tokens, uint32_t heads,
              uint32_t head_dim, size_t stride, void *stream);
/* `gelu` 1: GELU in its tanh form, else SiLU. */
int cuda_gate(const float *x, size_t x_stride, float *y, size_t y_stride, uint32_t tokens, uint32_t width, int gelu,
              void *stream);

#ifdef __cplusplus
}
#endif
#endif
