/* backend.h: where the forward pass computes. One vtable, one implementation a kind of device.
 *
 * Activations are float32 matrices in the backend's memory, one row a token, elements side by side; a row of `width`
 * elements takes backend_stride(width) places, and what lies between is never looked at. Weights are matrices that
 * the backend lays out as it likes. Kernels are enqueued on the view's stream and return at once where the device
 * can; a failure shows in the next `read`, which waits for everything before it.
 *
 * Same bits: what an operation computes for a token depends on that token's row only, neither on the row's place nor
 * on how many others there are. The host backend keeps this always, the CUDA backend when QUIRE_DETERMINISTIC is 1.
 *
 * Errors: see error.h.
 */
#ifndef INFER_BACKEND_H
#define INFER_BACKEND_H

#include "error.h"
#include "quire/quire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct matrix matrix;
typedef struct backend backend;

typedef struct backend_ops {
    const char *name;
    void (*close)(backend *backend);

    /* Memory for activations and small weights, not initialised. NULL: there is none left. */
    float *(*alloc)(backend *backend, size_t floats);
    void (*free)(backend *backend, float *memory); /* NULL is allowed */
    int (*write)(backend *backend, float *to, const float *from_host, size_t floats, infer_error *error);
    int (*read)(backend *backend, float *to_host, const float *from, size_t floats, infer_error *error);

    /* A weight matrix; its rows arrive in order, some at a time. NULL: there is no memory left. */
    matrix *(*matrix_open)(backend *backend, uint32_t rows, uint32_t columns);
    int (*matrix_put)(backend *backend, matrix *matrix, uint32_t first_row, uint32_t count, const float *rows,
                      infer_error *error);
    void (*matrix_close)(backend *backend, matrix *matrix); /* NULL is allowed */

    /* Before the first kernel of a step: takes up the view's stream. */
    void (*begin)(backend *backend, const quire_view *view);
    /* y[t] = row ids[t] of the matrix. `ids` is host memory. */
    void (*embed)(backend *backend, const matrix *matrix, const int32_t *ids, uint32_t tokens, float *y);
    /* y[t][r] = sum over c of x[t][c] * matrix[r][c], added to y when `add`. */
    void (*matmul)(backend *backend, const matrix *matrix, const float *x, float *y, uint32_t tokens, bool add);
    /* y[t] = x[t] / rms(x[t]) * gain */
    void (*norm)(backend *backend, const float *x, const float *gain, float epsilon, float *y, uint32_t tokens,
                 uint32_t width);
    /* Turns the pairs (2i, 2i + 1) of the first `heads` heads of each row of `width` elements. `table` is
     * [positions][head_dim]: cosine, sine of each pair. `positions` is device memory, the view's. */
    void (*rope)(backend *backend, float *x, const float *table, const int32_t *positions, uint32_t tokens,
                 uint32_t width, uint32_t heads, uint32_t head_dim);
    /* y[t][i] = silu(x[t][i]) * x[t][width + i] */
    void (*swiglu)(backend *backend, const float *x, float *y, uint32_t tokens, uint32_t width);
    /* y[i] = x[rows[i]]. `rows` is host memory. */
    void (*pick)(backend *backend, const float *x, const int32_t *rows, uint32_t count, uint32_t width, float *y);
} backend_ops;

/* Implementations begin with this. */
struct backend {
    const backend_ops *ops;
};

static inline size_t backend_stride(size_t width)
{
    return (width + 31) / 32 * 32;
}

#endif
