/* matmul_cuda.h: a large bf16 matrix product by cuBLAS, the limit of what multiplies. Builds without cuBLAS leave it out
 * (BENCH_CUBLAS). */
#ifndef BENCH_MATMUL_CUDA_H
#define BENCH_MATMUL_CUDA_H

#include "bytes.h"

enum { BENCH_MATMUL_SIDE = 8192 };

typedef struct bench_matmul {
    bench_bed *bed;
    void *handle; /* cublasHandle_t */
    void *a, *b, *c;
} bench_matmul;

/* Random square matrices on the bed's device. */
void bench_matmul_open(bench_matmul *matmul, bench_bed *bed);
void bench_matmul_close(bench_matmul *matmul);
/* One product on the bed's stream: a racer's body. */
void bench_matmul_body(void *matmul);
/* TFLOP of one. */
double bench_matmul_work(void);

#endif
