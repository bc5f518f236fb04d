/* The host backend: memory is malloc, streams are immediate, loops are shared by worker threads.
 *
 * A matrix product is cut into pieces of one panel times up to PIECE_TOKENS tokens; the other operations into pieces
 * of a few tokens. Which thread takes which piece does not matter, since no two pieces share a sum. */
#include "backend_host.h"
#include "dequant.h"
#include "host_kernels.h"
#include "workers.h"

#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

enum {
    ALIGNMENT = 2 << 20, /* of large allocations, for huge pages: weights pass through the caches once a step */
    PIECE_TOKENS = 192,  /* their activations stay in the second-level cache while a panel passes */
    ROW_TOKENS = 8       /* row by row operations: fewer tokens are over before a second thread wakes */
};

typedef struct host_backend {
    backend base;
    const host_kernels *kernels;
    workers *workers;
} host_backend;

struct matrix {
    uint32_t rows, columns;
    float *panels; /* [rows / panel, rounded up][columns][panel]; rows that there are not are zero */
    bool q8;       /* panels are in eight bits: see host_kernels.h */
};

static const host_kernels *kernels_of(const backend *backend)
{
    return ((const host_backend *)backend)->kernels;
}

static workers *workers_of(const backend *backend)
{
    return ((const host_backend *)backend)->workers;
}

/* ---- memory ------------------------------------------------------------------------------------------------ */

static float *host_alloc(backend *backend, size_t floats)
{
    (void)backend;
    if (floats > SIZE_MAX / sizeof(float) - ALIGNMENT) return NULL;
    size_t bytes = floats * sizeof(float), alignment = bytes >= ALIGNMENT ? ALIGNMENT : 64;
    float *memory = aligned_alloc(alignment, (bytes + alignment) / alignment * alignment);
#ifdef __linux__
    if (memory && bytes >= ALIGNMENT) (void)madvise(memory, bytes, MADV_HUGEPAGE);
#endif
    return memory;
}

static void host_free(backend *backend, float *memory)
{
    (void)backend;
    free(memory);
}

static int host_copy(backend *backend, float *to, const float *from, size_t floats, infer_error *error)
{
    (void)backend;
    (void)error;
    memcpy(to, from, floats * sizeof(float));
    return 0;
}

/* ---- matrices ---------------------------------------------------------------------------------------------- */

static matrix *host_matrix_open(backend *backend, uint32_t rows, uint32_t columns)
{
    size_t panel = kernels_of(backend)->panel, panels = (rows + panel - 1) / panel;
    matrix *m = calloc(1, sizeof *m);
    if (!m) return NULL;
    m->rows = rows;
    m->columns = columns;
    m->panels = host_alloc(backend, panels * panel * columns);
    if (!m->panels) {
        free(m);
        return NULL;
    }
    if (rows % panel) memset(m->panels + (panels - 1) * panel * columns, 0, panel * columns * sizeof(float));
    return m;
}

static void host_matrix_close(backend *backend, matrix *m)
{
    (void)backend;
    if (!m) return;
    free(m->panels);
    free(m);
}

static float *matrix_panel(const matrix *m, size_t panel, size_t index)
{
    return m->panels + index * m->columns * panel;
}

static float *matrix_element(const matrix *m, size_t panel, size_t row, size_t column)
{
    return matrix_panel(m, panel, row / panel) + column * panel + row % panel;
}

static int host_matrix_put(backend *backend, matrix *m, uint32_t first_row, uint32_t count, const float *rows,
                           infer_error *error)
{
    (void)error;
    size_t panel = kernels_of(backend)->panel;
    /* Column by column within a panel's worth of rows, so that the writes run on. */
    for (uint32_t done = 0; done < count;) {
        uint32_t row = first_row + done, n = (uint32_t)(panel - row % panel);
        if (n > count - done) n = count - done;
        float *to = matrix_element(m, panel, row, 0);
        for (uint32_t c = 0; c < m->columns; c++, to += panel)
            for (uint32_t r = 0; r < n; r++) to[r] = rows[(size_t)(done + r) * m->columns + c];
        done += n;
    }
    return 0;
}

/* ---- matrices in eight bits -------------------------------------------------------------------------------- */

enum { Q8_BLOCK_BYTES = 2 + HOST_Q8_COLUMNS };

/* Floats that a panel takes. */
static size_t q8_panel_floats(size_t panel, size_t columns)
{
    return columns / HOST_Q8_COLUMNS * panel * (sizeof(float) + HOST_Q8_COLUMNS) / sizeof(float);
}

static matrix *host_matrix_open_q8(backend *backend, uint32_t rows, uint32_t columns)
{
    size_t panel = kernels_of(backend)->panel, panels = (rows + panel - 1) / panel;
    matrix *m = columns % HOST_Q8_COLUMNS ? NULL : calloc(1, sizeof *m);
    if (!m) return NULL;
    m->rows = rows;
    m->columns = columns;
    m->q8 = true;
    m->panels = host_alloc(backend, panels * q8_panel_floats(panel, columns));
    if (m->panels) memset(m->panels + (panels - 1) * q8_panel_floats(panel, columns), 0,
                          q8_panel_floats(panel, columns) * sizeof(float));
    if (m->panels) return m;
    free(m);
    return NULL;
}

/* Where the scale of a row's block `group` lies; its values begin behind the panel's scales, a panel apart. */
static uint8_t *q8_scale(const matrix *m, size_t panel, size_t row, size_t group)
{
    uint8_t *block = (uint8_t *)(m->panels + row / panel * q8_panel_floats(panel, m->columns)) +
                     group * panel * (sizeof(float) + HOST_Q8_COLUMNS);
    return block + row % panel * sizeof(float);
}

static uint8_t *q8_values(const matrix *m, size_t panel, size_t row, size_t group)
{
    size_t at = row % panel;
    return q8_scale(m, panel, row, group) + (panel - at) * sizeof(float) + at;
}

static int host_matrix_put_q8(backend *backend, matrix *m, const uint8_t *blocks, infer_error *error)
{
    (void)error;
    size_t panel = kernels_of(backend)->panel;
    for (size_t row = 0; row < m->rows; row++)
        for (size_t group = 0; group < m->columns / HOST_Q8_COLUMNS; group++, blocks += Q8_BLOCK_BYTES) {
            uint16_t half;
            memcpy(&half, blocks, sizeof half);
            float scale = dequant_half(half);
            memcpy(q8_scale(m, panel, row, group), &scale, sizeof scale);
            uint8_t *to = q8_values(m, panel, row, group);
            for (size_t i = 0; i < HOST_Q8_COLUMNS; i++) to[i * panel] = blocks[2 + i];
        }
    return 0;
}

static void q8_row(const matrix *m, size_t panel, size_t row, float *y)
{
    for (size_t c = 0; c < m->columns; c++) {
        size_t group = c / HOST_Q8_COLUMNS;
        float scale;
        memcpy(&scale, q8_scale(m, panel, row, group), sizeof scale);
        y[c] = scale * (float)(int8_t)q8_values(m, panel, row, group)[c % HOST_Q8_COLUMNS * panel];
    }
}

/* ---- operations -------------------------------------------------------------------------------------------- */

static void host_begin(backend *backend, const quire_view *view)
{
    (void)backend;
    (void)view;
}

static void host_embed(backend *backend, const matrix *m, const int32_t *ids, uint32_t tokens, float scale, float *y)
{
    size_t panel = kernels_of(backend)->panel;
    for (uint32_t t = 0; t < tokens; t++, y += backend_stride(m->columns)) {
        if (m->q8) q8_row(m, panel, (size_t)ids[t], y);
        else
            for (uint32_t c = 0; c < m->columns; c++) y[c] = *matrix_element(m, panel, (size_t)ids[t], c);
        for (uint32_t c = 0; c < m->columns; c++) y[c] *= scale;
    }
}

typedef struct product {
    const host_kernels *kernels;
    const matrix *m;
    const float *x;
    float *y;
    size_t x_stride, y_stride;
    uint32_t tokens, panels;
    bool add;
} product;

static void product_piece(void *arg, size_t index)
{
    const product *p = arg;
    const matrix *m = p->m;
    size_t panel = index % p->panels, first = index / p->panels * PIECE_TOKENS, left = p->tokens - first;
    const float *x = p->x + first * p->x_stride;
    float *y = p->y + first * p->y_stride + panel * p->kernels->panel;
    uint32_t tokens = left < PIECE_TOKENS ? (uint32_t)left : PIECE_TOKENS;
    if (m->q8)
        p->kernels->matmul_q8(m->panels + panel * q8_panel_floats(p->kernels->panel, m->columns), m->columns, x,
                              p->x_stride, y, p->y_stride, tokens);
    else
        p->kernels->matmul(matrix_panel(m, p->kernels->panel, panel), m->columns, x, p->x_stride, y, p->y_stride, tokens,
                           p->add);
}

static void host_matmul(backend *backend, const matrix *m, const float *x, float *y, uint32_t tokens, bool add)
{
    const host_kernels *kernels = kernels_of(backend);
    product p = { kernels, m, x, y, backend_stride(m->columns), backend_stride(m->rows), tokens,
                  (m->rows + kernels->panel - 1) / kernels->panel, add };
    size_t pieces = (tokens + PIECE_TOKENS - 1) / PIECE_TOKENS;
    workers_for(workers_of(backend), pieces * p.panels, product_piece, &p);
}

/* The operations that work row by row share this; each uses some of the fields. */
typedef struct rows {
    const host_kernels *kernels;
    const float *x, *gain;
    float *y;
    float epsilon;
    const int32_t *positions;
    uint32_t tokens, width, heads, head_dim;
    bool flag; /* norm: add; gate: GELU */
    void (*one)(const struct rows *rows, uint32_t token);
} rows;

static void rows_piece(void *arg, size_t index)
{
    const rows *r = arg;
    uint32_t first = (uint32_t)index * ROW_TOKENS, left = r->tokens - first;
    for (uint32_t i = 0; i < ROW_TOKENS && i < left; i++) r->one(r, first + i);
}

static void rows_run(backend *backend, rows *r)
{
    r->kernels = kernels_of(backend);
    workers_for(workers_of(backend), (r->tokens + ROW_TOKENS - 1) / ROW_TOKENS, rows_piece, r);
}

static void norm_one(const rows *r, uint32_t token)
{
    size_t at = token * backend_stride(r->width);
    r->kernels->norm(r->x + at, r->gain, r->epsilon, r->y + at, r->width, r->flag);
}

static void host_norm(backend *backend, const float *x, const float *gain, float epsilon, float *y, uint32_t tokens,
                      uint32_t width, bool add)
{
    rows_run(backend, &(rows){ .x = x, .gain = gain, .epsilon = epsilon, .y = y, .tokens = tokens, .width = width,
                               .flag = add, .one = norm_one });
}

static void norm_heads_one(const rows *r, uint32_t token)
{
    float *x = r->y + token * backend_stride(r->width);
    for (uint32_t h = 0; h < r->heads; h++, x += r->head_dim)
        r->kernels->norm(x, r->gain, r->epsilon, x, r->head_dim, false);
}

static void host_norm_heads(backend *backend, float *x, const float *gain, float epsilon, uint32_t tokens,
                            uint32_t width, uint32_t heads, uint32_t head_dim)
{
    rows_run(backend, &(rows){ .gain = gain, .epsilon = epsilon, .y = x, .tokens = tokens, .width = width,
                               .heads = heads, .head_dim = head_dim, .one = norm_heads_one });
}

static void rope_one(const rows *r, uint32_t token)
{
    r->kernels->rope(r->y + token * backend_stride(r->width), r->x + (size_t)(r->positions[token] > 0 ? r->positions[token] : 0) * r->head_dim,
                     r->heads, r->head_dim);
}

static void host_rope(backend *backend, float *x, const float *table, const int32_t *positions, uint32_t tokens,
                      uint32_t width, uint32_t heads, uint32_t head_dim)
{
    rows_run(backend, &(rows){ .x = table, .y = x, .positions = positions, .tokens = tokens, .width = width,
                               .heads = heads, .head_dim = head_dim, .one = rope_one });
}

static void gate_one(const rows *r, uint32_t token)
{
    const float *gate = r->x + token * backend_stride(2 * (size_t)r->width);
    float *y = r->y + token * backend_stride(r->width);
    (r->flag ? r->kernels->geglu : r->kernels->swiglu)(gate, gate + r->width, y, r->width);
}

static void host_gate(backend *backend, const float *x, float *y, uint32_t tokens, uint32_t width, bool gelu)
{
    rows_run(backend, &(rows){ .x = x, .y = y, .tokens = tokens, .width = width, .flag = gelu, .one = gate_one });
}

static void host_pick(backend *backend, const float *x, const int32_t *rows, uint32_t count, uint32_t width, float *y)
{
    (void)backend;
    size_t stride = backend_stride(width);
    for (uint32_t i = 0; i < count; i++)
        memcpy(y + i * stride, x + (size_t)rows[i] * stride, width * sizeof(float));
}

static void host_close(backend *backend)
{
    workers_close(workers_of(backend));
    free(backend);
}

static const backend_ops host_ops = {
    .name = "host",
    .close = host_close,
    .alloc = host_alloc,
    .free = host_free,
    .write = host_copy,
    .read = host_copy,
    .matrix_open = host_matrix_open,
    .matrix_put = host_matrix_put,
    .matrix_close = host_matrix_close,
    .matrix_open_q8 = host_matrix_open_q8,
    .matrix_put_q8 = host_matrix_put_q8,
    .begin = host_begin,
    .embed = host_embed,
    .matmul = host_matmul,
    .norm = host_norm,
    .norm_heads = host_norm_heads,
    .rope = host_rope,
    .gate = host_gate,
    .pick = host_pick,
};

int backend_host_open(backend **out, unsigned threads, infer_error *error)
{
    host_backend *host = calloc(1, sizeof *host);
    if (!host) return infer_fail(error, "no memory for the host backend");
    if (workers_open(&host->workers, threads, error)) {
        free(host);
        return -1;
    }
    host->base.ops = &host_ops;
    host->kernels = &host_kernels_baseline;
#ifdef INFER_X86_64
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) host->kernels = &host_kernels_avx2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
        host->kernels = &host_kernels_avx512;
#endif
    *out = &host->base;
    return 0;
}

const char *backend_host_isa(const backend *backend)
{
    return kernels_of(backend)->name;
}

void backend_host_parallel(void *user, size_t count, void (*body)(void *arg, size_t index), void *arg)
{
    workers_for(workers_of(user), count, body, arg);
}
