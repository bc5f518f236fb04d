/* host_kernels.h: the arithmetic of the host backend. host_kernels.c is compiled once for each instruction set; the
 * CPU at hand picks one of the tables below. */
#ifndef INFER_HOST_KERNELS_H
#define INFER_HOST_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HOST_Q8_COLUMNS = 32 }; /* that share a scale */

typedef struct host_kernels {
    const char *name;
    uint32_t panel; /* matrix rows side by side in one panel: see host_kernels.c */
    /* y[t][0 .. panel) = x[t] * panel, for `tokens` rows of x and y. */
    void (*matmul)(const float *panel, uint32_t columns, const float *x, size_t x_stride, float *y, size_t y_stride,
                   uint32_t tokens, bool add);
    /* The same of a panel in eight bits: for every 32 columns, `panel` floats, then 32 times `panel` values. */
    void (*matmul_q8)(const void *panel, uint32_t columns, const float *x, size_t x_stride, float *y, size_t y_stride,
                      uint32_t tokens);
    /* One row each. */
    void (*norm)(const float *x, const float *gain, float epsilon, float *y, uint32_t width, bool add);
    void (*rope)(float *x, const float *turns, uint32_t heads, uint32_t head_dim);
    void (*swiglu)(const float *gate, const float *up, float *y, uint32_t width);
    void (*geglu)(const float *gate, const float *up, float *y, uint32_t width);
} host_kernels;

extern const host_kernels host_kernels_baseline;
#ifdef INFER_X86_64
extern const host_kernels host_kernels_avx2;
extern const host_kernels host_kernels_avx512;
#endif

#endif
