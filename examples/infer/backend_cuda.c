/* The CUDA backend. Everything is enqueued on the stream of the step's view; the operations return nothing, so the first
 * error is kept and `read`, which waits for all of it, reports it.
 *
 * Same bits (deterministic): cuBLAS picks a kernel, and with it an order of summation, by the shape of the product. So
 * every product is cut into tiles of TILE tokens, the last one padded, and each shape is tried when its matrix has been
 * loaded: 64 equal rows must give 64 equal results, or the mode is refused. */
#include "backend_cuda.h"

#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_kernels.h"

enum {
    TILE = 64,
    MOST_GRAPHS = 32,
    MOST_GRAPH_ROWS = 1024,
    BLAS_BYTES = 32 * 1024 * 1024 /* as NVIDIA advises for an H100; ours, so that no product allocates under capture */
};

/* A step of one shape. The first such step runs plainly, so that cuBLAS and the driver load what it needs; the second is
 * captured. */
typedef struct graph {
    uint32_t tokens, count, longest_context;
    const void *arena;     /* of the cache that it was seen in */
    cudaGraphExec_t ready; /* NULL: seen once */
} graph;

typedef struct cuda_backend {
    backend base;
    int device;
    bool deterministic;
    cublasHandle_t blas;
    cudaStream_t stream;
    cudaError_t failed;     /* the first CUDA error since the last read */
    cublasStatus_t refused; /* the first cuBLAS error */
    int32_t *indices;       /* device copy of embed's and pick's host arrays */
    size_t index_capacity;
    float *x_pad, *y_pad; /* [TILE][pad_stride]: the last, partial tile of a deterministic product */
    size_t pad_stride;
    void *blas_work;
    int32_t *graph_ids, *graph_rows; /* [MOST_GRAPH_ROWS]: embed's and pick's arrays, of steps that repeat */
    graph graphs[MOST_GRAPHS];
    uint32_t graph_count;
    graph *capturing; /* NULL: nothing is captured */
    const int32_t *embeds; /* of the host's arrays, the one that graph_ids holds */
} cuda_backend;

struct matrix {
    uint32_t rows, columns;
    float *values; /* [rows][columns] */
};

static cuda_backend *of(backend *self)
{
    return (cuda_backend *)self;
}

static void note(cuda_backend *cuda, cudaError_t error)
{
    if (cuda->failed == cudaSuccess)
        cuda->failed = error;
}

static int cuda_fail(infer_error *error, const char *what, cudaError_t code)
{
    return infer_fail(error, "%s on the GPU: %s", what, cudaGetErrorString(code));
}

/* ---- memory ------------------------------------------------------------------------------------------------ */

static float *gpu_alloc(backend *self, size_t floats)
{
    void *memory = NULL;

    (void)self;
    if (cudaMalloc(&memory, (floats > 0 ? floats : 1) * sizeof(float)) != cudaSuccess) {
        (void)cudaGetLastError(); /* being out of memory is not an error of the next launch */
        return NULL;
    }
    return memory;
}

static void gpu_free(backend *self, float *memory)
{
    (void)self;
    (void)cudaFree(memory);
}

static int gpu_write(backend *self, float *to, const float *from, size_t floats, infer_error *error)
{
    (void)self;
    cudaError_t code = cudaMemcpy(to, from, floats * sizeof(float), cudaMemcpyHostToDevice);
    return code == cudaSuccess ? 0 : cuda_fail(error, "copying in", code);
}

static int gpu_read(backend *self, float *to, const float *from, size_t floats, infer_error *error)
{
    cuda_backend *cuda = of(self);

    note(cuda, cudaMemcpyAsync(to, from, floats * sizeof(float), cudaMemcpyDeviceToHost, cuda->stream));
    note(cuda, cudaStreamSynchronize(cuda->stream));
    cudaError_t code = cuda->failed;
    cublasStatus_t refused = cuda->refused;
    cuda->failed = cudaSuccess;
    cuda->refused = CUBLAS_STATUS_SUCCESS;
    if (refused != CUBLAS_STATUS_SUCCESS)
        return infer_fail(error, "a matrix product on the GPU: %s", cublasGetStatusString(refused));
    return code == cudaSuccess ? 0 : cuda_fail(error, "a step", code);
}

/* The device's copy of a host array, good until the next call: the stream orders its readers before the next copy. Under
 * capture the arrays are there already. */
static const int32_t *send_indices(cuda_backend *cuda, const int32_t *values, uint32_t count)
{
    if (cuda->capturing != NULL)
        return values == cuda->embeds ? cuda->graph_ids : cuda->graph_rows;
    if (count > cuda->index_capacity) {
        (void)cudaStreamSynchronize(cuda->stream);
        (void)cudaFree(cuda->indices);
        cuda->indices = NULL;
        cuda->index_capacity = 0;
        cudaError_t code = cudaMalloc((void **)&cuda->indices, count * sizeof(int32_t));
        note(cuda, code);
        if (code != cudaSuccess)
            return NULL;
        cuda->index_capacity = count;
    }
    note(cuda, cudaMemcpyAsync(cuda->indices, values, count * sizeof(int32_t), cudaMemcpyHostToDevice, cuda->stream));
    return cuda->indices;
}

/* ---- matrix products --------------------------------------------------------------------------------------- */

/* In cuBLAS' column-major terms: y^T [rows x tokens] = values^T [rows x columns] * x^T [columns x tokens]. */
static void multiply(cuda_backend *cuda, const matrix *m, const float *x, size_t x_stride, float *y, size_t y_stride,
                     uint32_t tokens, bool add)
{
    const float one = 1.0f, beta = add ? 1.0f : 0.0f;
    cublasStatus_t status =
        cublasSgemm(cuda->blas, CUBLAS_OP_T, CUBLAS_OP_N, (int)m->rows, (int)tokens, (int)m->columns, &one, m->values,
                    (int)m->columns, x, (int)x_stride, &beta, y, (int)y_stride);

    if (cuda->refused == CUBLAS_STATUS_SUCCESS)
        cuda->refused = status;
}

static void copy_rows(cuda_backend *cuda, float *to, size_t to_stride, const float *from, size_t from_stride,
                      uint32_t width, uint32_t rows)
{
    note(cuda, cudaMemcpy2DAsync(to, to_stride * sizeof(float), from, from_stride * sizeof(float),
                                 width * sizeof(float), rows, cudaMemcpyDeviceToDevice, cuda->stream));
}

static void multiply_in_tiles(cuda_backend *cuda, const matrix *m, const float *x, float *y, uint32_t tokens, bool add)
{
    size_t x_stride = backend_stride(m->columns), y_stride = backend_stride(m->rows), pad = cuda->pad_stride;
    uint32_t whole = tokens / TILE * TILE, rest = tokens - whole;

    /* Padded and whole tiles differ in strides only; cuBLAS may look at those, so all tiles go through the padding. */
    for (uint32_t t = 0; t < tokens; t += TILE) {
        uint32_t n = t < whole ? TILE : rest;
        copy_rows(cuda, cuda->x_pad, pad, x + t * x_stride, x_stride, m->columns, n);
        if (add)
            copy_rows(cuda, cuda->y_pad, pad, y + t * y_stride, y_stride, m->rows, n);
        multiply(cuda, m, cuda->x_pad, pad, cuda->y_pad, pad, TILE, add);
        copy_rows(cuda, y + t * y_stride, y_stride, cuda->y_pad, pad, m->rows, n);
    }
}

static void gpu_matmul(backend *self, const matrix *m, const float *x, float *y, uint32_t tokens, bool add)
{
    cuda_backend *cuda = of(self);

    if (tokens == 0)
        return;
    if (cuda->deterministic)
        multiply_in_tiles(cuda, m, x, y, tokens, add);
    else
        multiply(cuda, m, x, backend_stride(m->columns), y, backend_stride(m->rows), tokens, add);
}

static int grow_padding(cuda_backend *cuda, size_t stride, infer_error *error)
{
    if (stride <= cuda->pad_stride)
        return 0;
    gpu_free(&cuda->base, cuda->x_pad);
    gpu_free(&cuda->base, cuda->y_pad);
    cuda->pad_stride = 0;
    cuda->x_pad = gpu_alloc(&cuda->base, TILE * stride);
    cuda->y_pad = gpu_alloc(&cuda->base, TILE * stride);
    if (cuda->x_pad == NULL || cuda->y_pad == NULL)
        return infer_fail(error, "the GPU has no memory left for %zu bytes of padding", 2 * TILE * stride * 4);
    cudaError_t code = cudaMemset(cuda->x_pad, 0, TILE * stride * sizeof(float));
    if (code == cudaSuccess)
        code = cudaMemset(cuda->y_pad, 0, TILE * stride * sizeof(float));
    cuda->pad_stride = stride;
    return code == cudaSuccess ? 0 : cuda_fail(error, "clearing memory", code);
}

/* Equal rows in, equal rows out? */
static int try_shape(cuda_backend *cuda, const matrix *m, infer_error *error)
{
    size_t pad = cuda->pad_stride;
    float *rows = malloc(TILE * pad * sizeof(float));
    int result;

    if (rows == NULL)
        return infer_fail(error, "no memory to try a matrix product");
    for (size_t i = 0; i < TILE * pad; i++)
        rows[i] = (float)((i % pad * 2654435761u) % 2001) / 1000.0f - 1.0f;
    result = gpu_write(&cuda->base, cuda->x_pad, rows, TILE * pad, error);
    multiply(cuda, m, cuda->x_pad, pad, cuda->y_pad, pad, TILE, false);
    if (result == 0)
        result = gpu_read(&cuda->base, rows, cuda->y_pad, TILE * pad, error);
    for (size_t t = 1; result == 0 && t < TILE; t++)
        if (memcmp(rows, rows + t * pad, m->rows * sizeof(float)) != 0)
            result = infer_fail(error,
                                "this cuBLAS sums a row of a %u x %u product by its place in the tile, so "
                                "QUIRE_DETERMINISTIC=1 cannot be kept; run without it",
                                m->rows, m->columns);
    free(rows);
    return result;
}

/* ---- matrices ---------------------------------------------------------------------------------------------- */

static matrix *gpu_matrix_open(backend *self, uint32_t rows, uint32_t columns)
{
    matrix *m = calloc(1, sizeof *m);

    if (m == NULL)
        return NULL;
    m->rows = rows;
    m->columns = columns;
    m->values = gpu_alloc(self, (size_t)rows * columns);
    if (m->values == NULL) {
        free(m);
        return NULL;
    }
    return m;
}

static void gpu_matrix_close(backend *self, matrix *m)
{
    if (m == NULL)
        return;
    gpu_free(self, m->values);
    free(m);
}

static int gpu_matrix_put(backend *self, matrix *m, uint32_t first_row, uint32_t count, const float *rows,
                          infer_error *error)
{
    cuda_backend *cuda = of(self);
    uint32_t wider = m->rows > m->columns ? m->rows : m->columns;

    if (gpu_write(self, m->values + (size_t)first_row * m->columns, rows, (size_t)count * m->columns, error) != 0)
        return -1;
    if (!cuda->deterministic || first_row + count < m->rows)
        return 0;
    if (grow_padding(cuda, backend_stride(wider), error) != 0)
        return -1;
    return try_shape(cuda, m, error);
}

/* ---- operations -------------------------------------------------------------------------------------------- */

static void gpu_begin(backend *self, const quire_view *view)
{
    cuda_backend *cuda = of(self);

    cuda->stream = view->stream;
    cublasStatus_t status = cublasSetStream(cuda->blas, cuda->stream);
    if (status == CUBLAS_STATUS_SUCCESS) /* a new stream resets it */
        status = cublasSetWorkspace(cuda->blas, cuda->blas_work, BLAS_BYTES);
    if (cuda->refused == CUBLAS_STATUS_SUCCESS)
        cuda->refused = status;
}

/* ---- steps that repeat ------------------------------------------------------------------------------------- */

static void gpu_repeat_forget(backend *self)
{
    cuda_backend *cuda = of(self);

    for (uint32_t i = 0; i < cuda->graph_count; i++)
        if (cuda->graphs[i].ready != NULL)
            (void)cudaGraphExecDestroy(cuda->graphs[i].ready);
    cuda->graph_count = 0;
}

static graph *find_graph(cuda_backend *cuda, const quire_view *view, uint32_t count)
{
    for (uint32_t i = 0; i < cuda->graph_count; i++) {
        graph *g = &cuda->graphs[i];
        if (g->tokens == view->tokens && g->count == count && g->longest_context == view->longest_context &&
            g->arena == view->arena)
            return g;
    }
    return NULL;
}

static backend_repeat gpu_repeat_begin(backend *self, const quire_view *view, const int32_t *ids, const int32_t *rows,
                                       uint32_t count)
{
    cuda_backend *cuda = of(self);
    graph *g = find_graph(cuda, view, count);

    if (g == NULL) {
        if (cuda->graph_count < MOST_GRAPHS)
            cuda->graphs[cuda->graph_count++] =
                (graph){.tokens = view->tokens,
                        .count = count,
                        .longest_context = view->longest_context,
                        .arena = view->arena};
        return BACKEND_PLAIN;
    }
    if (view->tokens > MOST_GRAPH_ROWS || count > MOST_GRAPH_ROWS || cuda->failed != cudaSuccess)
        return BACKEND_PLAIN;
    note(cuda, cudaMemcpyAsync(cuda->graph_ids, ids, view->tokens * sizeof(int32_t), cudaMemcpyHostToDevice, cuda->stream));
    note(cuda, cudaMemcpyAsync(cuda->graph_rows, rows, count * sizeof(int32_t), cudaMemcpyHostToDevice, cuda->stream));
    if (g->ready != NULL) {
        note(cuda, cudaGraphLaunch(g->ready, cuda->stream));
        return BACKEND_REPLAYED;
    }
    cudaError_t code = cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal);
    note(cuda, code);
    if (code != cudaSuccess)
        return BACKEND_PLAIN;
    cuda->capturing = g;
    cuda->embeds = ids;
    return BACKEND_CAPTURE;
}

static void gpu_repeat_end(backend *self, bool good)
{
    cuda_backend *cuda = of(self);
    graph *g = cuda->capturing;
    cudaGraph_t made = NULL;

    cuda->capturing = NULL;
    note(cuda, cudaStreamEndCapture(cuda->stream, &made));
    if (good && made != NULL && cuda->failed == cudaSuccess) {
        note(cuda, cudaGraphInstantiateWithFlags(&g->ready, made, 0));
        if (g->ready != NULL)
            note(cuda, cudaGraphLaunch(g->ready, cuda->stream));
    }
    if (made != NULL)
        (void)cudaGraphDestroy(made);
}

static void gather_rows(cuda_backend *cuda, const float *x, size_t x_stride, const int32_t *rows, uint32_t count,
                        uint32_t width, float scale, float *y)
{
    const int32_t *indices = send_indices(cuda, rows, count);

    if (indices != NULL)
        note(cuda, (cudaError_t)cuda_pick(x, x_stride, indices, count, width, scale, y, backend_stride(width),
                                          cuda->stream));
}

static void gpu_embed(backend *self, const matrix *m, const int32_t *ids, uint32_t tokens, float scale, float *y)
{
    gather_rows(of(self), m->values, m->columns, ids, tokens, m->columns, scale, y);
}

static void gpu_pick(backend *self, const float *x, const int32_t *rows, uint32_t count, uint32_t width, float *y)
{
    gather_rows(of(self), x, backend_stride(width), rows, count, width, 1.0f, y);
}

static void gpu_norm(backend *self, const float *x, const float *gain, float epsilon, float *y, uint32_t tokens,
                     uint32_t width, bool add)
{
    cuda_backend *cuda = of(self);

    note(cuda, (cudaError_t)cuda_norm(x, gain, epsilon, y, tokens, width, backend_stride(width), add, cuda->stream));
}

static void gpu_norm_heads(backend *self, float *x, const float *gain, float epsilon, uint32_t tokens, uint32_t width,
                           uint32_t heads, uint32_t head_dim)
{
    cuda_backend *cuda = of(self);

    note(cuda, (cudaError_t)cuda_norm_heads(x, gain, epsilon, tokens, heads, head_dim, backend_stride(width),
                                            cuda->stream));
}

static void gpu_rope(backend *self, float *x, const float *table, const int32_t *positions, uint32_t tokens,
                     uint32_t width, uint32_t heads, uint32_t head_dim)
{
    cuda_backend *cuda = of(self);

    note(cuda, (cudaError_t)cuda_rope(x, table, positions, tokens, heads, head_dim, backend_stride(width),
                                      cuda->stream));
}

static void gpu_gate(backend *self, const float *x, float *y, uint32_t tokens, uint32_t width, bool gelu)
{
    cuda_backend *cuda = of(self);

    note(cuda, (cudaError_t)cuda_gate(x, backend_stride(2 * (size_t)width), y, backend_stride(width), tokens, width,
                                      gelu, cuda->stream));
}

static void gpu_close(backend *self)
{
    cuda_backend *cuda = of(self);

    (void)cudaDeviceSynchronize();
    gpu_repeat_forget(self);
    (void)cudaFree(cuda->graph_ids);
    (void)cudaFree(cuda->graph_rows);
    gpu_free(self, cuda->x_pad);
    gpu_free(self, cuda->y_pad);
    (void)cudaFree(cuda->indices);
    if (cuda->blas != NULL)
        (void)cublasDestroy(cuda->blas);
    (void)cudaFree(cuda->blas_work);
    free(cuda);
}

static const backend_ops cuda_ops = {
    .name = "cuda",
    .close = gpu_close,
    .alloc = gpu_alloc,
    .free = gpu_free,
    .write = gpu_write,
    .read = gpu_read,
    .matrix_open = gpu_matrix_open,
    .matrix_put = gpu_matrix_put,
    .matrix_close = gpu_matrix_close,
    .begin = gpu_begin,
    .embed = gpu_embed,
    .matmul = gpu_matmul,
    .norm = gpu_norm,
    .norm_heads = gpu_norm_heads,
    .rope = gpu_rope,
    .gate = gpu_gate,
    .pick = gpu_pick,
    .repeat_begin = gpu_repeat_begin,
    .repeat_end = gpu_repeat_end,
    .repeat_forget = gpu_repeat_forget,
};

int backend_cuda_open(backend **out, int device, bool deterministic, infer_error *error)
{
    cuda_backend *cuda = calloc(1, sizeof *cuda);

    if (cuda == NULL)
        return infer_fail(error, "no memory for the CUDA backend");
    cuda->base.ops = &cuda_ops;
    cuda->device = device;
    cuda->deterministic = deterministic;
    cudaError_t code = cudaSetDevice(device);
    if (code != cudaSuccess) {
        free(cuda);
        return cuda_fail(error, "opening cuda", code);
    }
    cublasStatus_t status = cublasCreate(&cuda->blas);
    if (status == CUBLAS_STATUS_SUCCESS) /* float32 products, not TF32 */
        status = cublasSetMathMode(cuda->blas, CUBLAS_PEDANTIC_MATH);
    if (status != CUBLAS_STATUS_SUCCESS) {
        gpu_close(&cuda->base);
        return infer_fail(error, "cuBLAS does not start: %s", cublasGetStatusString(status));
    }
    code = cudaMalloc(&cuda->blas_work, BLAS_BYTES);
    if (code == cudaSuccess)
        code = cudaMalloc((void **)&cuda->graph_ids, MOST_GRAPH_ROWS * sizeof(int32_t));
    if (code == cudaSuccess)
        code = cudaMalloc((void **)&cuda->graph_rows, MOST_GRAPH_ROWS * sizeof(int32_t));
    if (code != cudaSuccess) {
        gpu_close(&cuda->base);
        return cuda_fail(error, "opening cuda", code);
    }
    *out = &cuda->base;
    return 0;
}
