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

typedef enum backend_repeat {
    BACKEND_PLAIN,   /* call the operations */
    BACKEND_CAPTURE, /* call them, then repeat_end */
    BACKEND_REPLAYED /* they have been enqueued */
} backend_repeat;

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
    /* A matrix kept as it is in the file, in Q8_0: 34 bytes hold a half float and 32 values that it scales. The same
     * products as of the floats that the blocks stand for, bit for bit. `columns` is a multiple of 32. Both are NULL
     * in a backend that keeps floats only. */
    matrix *(*matrix_open_q8)(backend *backend, uint32_t rows, uint32_t columns);
    int (*matrix_put_q8)(backend *backend, matrix *matrix, const uint8_t *blocks, infer_error *error); /* all rows */

    /* Before the first kernel of a step: takes up the view's stream. */
    void (*begin)(backend *backend, const quire_view *view);
    /* y[t] = row ids[t] of the matrix, times `scale`. `ids` is host memory. */
    void (*embed)(backend *backend, const matrix *matrix, const int32_t *ids, uint32_t tokens, float scale, float *y);
    /* y[t][r] = sum over c of x[t][c] * matrix[r][c], added to y when `add`. */
    void (*matmul)(backend *backend, const matrix *matrix, const float *x, float *y, uint32_t tokens, bool add);
    /* y[t] = x[t] / rms(x[t]) * gain, added to y when `add`. */
    void (*norm)(backend *backend, const float *x, const float *gain, float epsilon, float *y, uint32_t tokens,
                 uint32_t width, bool add);
    /* The same in place for each of `heads` heads, which lie side by side in rows of `width` elements, from x on. `gain`
     * is that of one head. */
    void (*norm_heads)(backend *backend, float *x, const float *gain, float epsilon, uint32_t tokens, uint32_t width,
                       uint32_t heads, uint32_t head_dim);
    /* Turns the pairs (2i, 2i + 1) of the first `heads` heads of each row of `width` elements. `table` is
     * [positions][head_dim]: cosine, sine of each pair. `positions` is device memory, the view's; -1, of a row that is
     * empty, is as good as 0. */
    void (*rope)(backend *backend, float *x, const float *table, const int32_t *positions, uint32_t tokens,
                 uint32_t width, uint32_t heads, uint32_t head_dim);
    /* y[t][i] = gate(x[t][i]) * x[t][width + i]; the gate is SiLU, or with `gelu` GELU in its tanh form. */
    void (*gate)(backend *backend, const float *x, float *y, uint32_t tokens, uint32_t width, bool gelu);
    /* y[i] = x[rows[i]]. `rows` is host memory. */
    void (*pick)(backend *backend, const float *x, const int32_t *rows, uint32_t count, uint32_t width, float *y);

    /* Steps that repeat (quire_step_graph); all three are NULL in a backend that has no use for that. After `begin`: takes
     * what embed and pick will be given, and says what to do. One shape of the view is always one sequence of operations
     * over the same memory. */
    backend_repeat (*repeat_begin)(backend *backend, const quire_view *view, const int32_t *ids, const int32_t *rows,
                                   uint32_t count);
    /* After the operations of a step that is being captured: runs them. `good` false: drops them. */
    void (*repeat_end)(backend *backend, bool good);
    void (*repeat_forget)(backend *backend); /* the memory that was captured is about to go */
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
