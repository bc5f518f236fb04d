#include "matmul_cuda.h"

#include <cublas_v2.h>
#include <stdlib.h>

static void must(cublasStatus_t status, const char *what)
{
    if (status != CUBLAS_STATUS_SUCCESS)
        bench_die("%s: cuBLAS error %d", what, (int)status);
}

void bench_matmul_open(bench_matmul *matmul, bench_bed *bed)
{
    size_t elements = (size_t)BENCH_MATMUL_SIDE * BENCH_MATMUL_SIDE;
    cublasHandle_t handle;
    void *mirror;

    *matmul = (bench_matmul){.bed = bed};
    must(cublasCreate(&handle), "cublasCreate");
    matmul->handle = handle;
    must(cublasSetStream(handle, (cudaStream_t)bed->stream), "cublasSetStream");
    matmul->a = bench_bed_random(bed, QUIRE_DTYPE_BF16, elements, &mirror);
    free(mirror);
    matmul->b = bench_bed_random(bed, QUIRE_DTYPE_BF16, elements, &mirror);
    free(mirror);
    matmul->c = bench_bed_take(bed, QUIRE__MEMORY_DEVICE, elements * 2);
}

void bench_matmul_close(bench_matmul *matmul)
{
    bench_bed_give(matmul->bed, QUIRE__MEMORY_DEVICE, matmul->c);
    bench_bed_give(matmul->bed, QUIRE__MEMORY_DEVICE, matmul->b);
    bench_bed_give(matmul->bed, QUIRE__MEMORY_DEVICE, matmul->a);
    must(cublasDestroy(matmul->handle), "cublasDestroy");
}

void bench_matmul_body(void *arg)
{
    bench_matmul *matmul = arg;
    const float one = 1, zero = 0;
    int side = BENCH_MATMUL_SIDE;

    must(cublasGemmEx(matmul->handle, CUBLAS_OP_T, CUBLAS_OP_N, side, side, side, &one, matmul->a, CUDA_R_16BF, side,
                      matmul->b, CUDA_R_16BF, side, &zero, matmul->c, CUDA_R_16BF, side, CUBLAS_COMPUTE_32F,
                      CUBLAS_GEMM_DEFAULT),
         "cublasGemmEx");
    bench_bed_finish(matmul->bed);
}

double bench_matmul_work(void)
{
    return 2e-12 * BENCH_MATMUL_SIDE * BENCH_MATMUL_SIDE * BENCH_MATMUL_SIDE;
}
