/* The arithmetic of the host backend, compiled once for each instruction set (INFER_ISA names the table).
 *
 * Matrix product. A weight matrix is stored as panels: `PANEL` of its rows, interleaved by column, so that one vector
 * load brings the same column of neighbouring rows:
 *
 *     panel   c=0: r0 r1 r2 .. | c=1: r0 r1 r2 .. | ...          read once, front to back
 *     x       t0: c0 c1 c2 ...   t1: ...                         one value at a time, spread over a vector
 *
 * A tile of up to TILE tokens keeps its sums in registers and walks the panel once. Every sum is one chain over
 * c = 0, 1, 2, ... of fused multiply-adds that starts at zero: the same for a tile of any height and a token at any
 * place in it. That is the whole of batch invariance in a matrix product, and it is why this is not a call to a BLAS:
 * OpenBLAS 0.3.21 changes kernel, and with it the bits, with the height of the tile (SkylakeX), and even with the row
 * inside the tile (Haswell, Zen). It is also faster for us, who may pack the weights once. The matrices of
 * SmolLM2-135M on a Xeon with 2 cores and AVX-512, OpenBLAS in its best cut of N, milliseconds for all of them:
 *
 *     tokens       8     12     24     48     96    192
 *     here        21     21     31     51     89    164
 *     OpenBLAS    39     41     63     91    150    253
 *
 * A panel in eight bits is decoded as it passes: a scale times a small whole number is exact in a float, so the products
 * are those of the float panel, in the same order. It is for the head of a large vocabulary, most of what a decode step
 * reads: 189 MB of Gemma 3's 262,144 x 640 instead of 671.
 *
 * The rest works on one row at a time; a place in the row always meets the same instructions.
 */
#include "host_kernels.h"

#include <math.h>
#include <string.h>

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)

/* Sums take 2 * TILE vector registers; weights and the spread value need three more. */
#if defined(__AVX512F__)
#define LANES 16
#define TILE 12
#elif defined(__AVX2__)
#define LANES 8
#define TILE 6
#elif defined(__aarch64__)
#define LANES 4
#define TILE 12
#else
#define LANES 4
#define TILE 6
#endif
#define PANEL (2 * LANES)
#if LANES == 16
#define Q8_TILE 8 /* tokens; decoding takes registers of its own */
#else
#define Q8_TILE 4
#endif

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

typedef float vector __attribute__((vector_size(4 * LANES)));
typedef int32_t whole __attribute__((vector_size(4 * LANES)));
typedef int16_t half __attribute__((vector_size(2 * LANES)));
typedef int8_t small __attribute__((vector_size(LANES)));

/* `tokens` is a constant wherever this is called, so that the sums become registers. */
static inline __attribute__((always_inline)) void tile(const float *panel, uint32_t columns, const float *x,
                                                       size_t x_stride, float *y, size_t y_stride, int tokens,
                                                       bool add)
{
    vector sum[TILE][2];
    UNROLL for (int t = 0; t < tokens; t++) sum[t][0] = sum[t][1] = (vector){ 0 };
    for (uint32_t c = 0; c < columns; c++, panel += PANEL) {
        vector low, high;
        memcpy(&low, panel, sizeof low);
        memcpy(&high, panel + LANES, sizeof high);
        UNROLL for (int t = 0; t < tokens; t++) {
            float value = x[(size_t)t * x_stride + c];
            sum[t][0] += low * value;
            sum[t][1] += high * value;
        }
    }
    UNROLL for (int t = 0; t < tokens; t++) {
        float *to = y + (size_t)t * y_stride;
        vector before[2] = { { 0 }, { 0 } };
        if (add) memcpy(before, to, sizeof before);
        before[0] += sum[t][0];
        before[1] += sum[t][1];
        memcpy(to, before, sizeof before);
    }
}

static void matmul(const float *panel, uint32_t columns, const float *x, size_t x_stride, float *y, size_t y_stride,
                   uint32_t tokens, bool add)
{
    for (; tokens >= TILE; tokens -= TILE, x += TILE * x_stride, y += TILE * y_stride)
        tile(panel, columns, x, x_stride, y, y_stride, TILE, add);
    switch (tokens) {
#if TILE > 6
    case 11: tile(panel, columns, x, x_stride, y, y_stride, 11, add); break;
    case 10: tile(panel, columns, x, x_stride, y, y_stride, 10, add); break;
    case 9: tile(panel, columns, x, x_stride, y, y_stride, 9, add); break;
    case 8: tile(panel, columns, x, x_stride, y, y_stride, 8, add); break;
    case 7: tile(panel, columns, x, x_stride, y, y_stride, 7, add); break;
    case 6: tile(panel, columns, x, x_stride, y, y_stride, 6, add); break;
#endif
    case 5: tile(panel, columns, x, x_stride, y, y_stride, 5, add); break;
    case 4: tile(panel, columns, x, x_stride, y, y_stride, 4, add); break;
    case 3: tile(panel, columns, x, x_stride, y, y_stride, 3, add); break;
    case 2: tile(panel, columns, x, x_stride, y, y_stride, 2, add); break;
    case 1: tile(panel, columns, x, x_stride, y, y_stride, 1, add); break;
    default: break;
    }
}

static inline __attribute__((always_inline)) vector decoded(const int8_t *values, vector scale)
{
    small few;
    memcpy(&few, values, sizeof few);
    /* Twice as wide at a time: gcc 12 takes a wider step apart, value by value. */
    whole wide = __builtin_convertvector(__builtin_convertvector(few, half), whole);
    return __builtin_convertvector(wide, vector) * scale;
}

static inline __attribute__((always_inline)) void tile_q8(const uint8_t *panel, uint32_t columns, const float *x,
                                                          size_t x_stride, float *y, size_t y_stride, int tokens)
{
    vector sum[Q8_TILE][2];
    UNROLL for (int t = 0; t < tokens; t++) sum[t][0] = sum[t][1] = (vector){ 0 };
    for (uint32_t first = 0; first < columns; first += HOST_Q8_COLUMNS) {
        vector scale[2];
        memcpy(scale, panel, sizeof scale);
        const int8_t *values = (const int8_t *)(panel + sizeof scale);
        for (uint32_t c = first; c < first + HOST_Q8_COLUMNS; c++, values += PANEL) {
            vector low = decoded(values, scale[0]), high = decoded(values + LANES, scale[1]);
            UNROLL for (int t = 0; t < tokens; t++) {
                float value = x[(size_t)t * x_stride + c];
                sum[t][0] += low * value;
                sum[t][1] += high * value;
            }
        }
        panel += sizeof scale + HOST_Q8_COLUMNS * PANEL;
    }
    UNROLL for (int t = 0; t < tokens; t++) memcpy(y + (size_t)t * y_stride, sum[t], sizeof sum[t]);
}

static void matmul_q8(const void *panel, uint32_t columns, const float *x, size_t x_stride, float *y, size_t y_stride,
                      uint32_t tokens)
{
    for (; tokens >= Q8_TILE; tokens -= Q8_TILE, x += Q8_TILE * x_stride, y += Q8_TILE * y_stride)
        tile_q8(panel, columns, x, x_stride, y, y_stride, Q8_TILE);
    switch (tokens) {
#if Q8_TILE > 4
    case 7: tile_q8(panel, columns, x, x_stride, y, y_stride, 7); break;
    case 6: tile_q8(panel, columns, x, x_stride, y, y_stride, 6); break;
    case 5: tile_q8(panel, columns, x, x_stride, y, y_stride, 5); break;
    case 4: tile_q8(panel, columns, x, x_stride, y, y_stride, 4); break;
#endif
    case 3: tile_q8(panel, columns, x, x_stride, y, y_stride, 3); break;
    case 2: tile_q8(panel, columns, x, x_stride, y, y_stride, 2); break;
    case 1: tile_q8(panel, columns, x, x_stride, y, y_stride, 1); break;
    default: break;
    }
}

/* Sixteen partial sums, then one: a fixed order whatever the vector length. */
static void norm(const float *x, const float *gain, float epsilon, float *y, uint32_t width, bool add)
{
    float sums[16] = { 0 };
    uint32_t whole = width / 16 * 16;
    for (uint32_t i = 0; i < whole; i += 16)
        for (uint32_t j = 0; j < 16; j++) sums[j] += x[i + j] * x[i + j];
    for (uint32_t i = whole; i < width; i++) sums[i - whole] += x[i] * x[i];
    double total = 0;
    for (int j = 0; j < 16; j++) total += (double)sums[j];
    float scale = (float)(1.0 / sqrt(total / width + (double)epsilon));
    if (add)
        for (uint32_t i = 0; i < width; i++) y[i] += x[i] * scale * gain[i];
    else
        for (uint32_t i = 0; i < width; i++) y[i] = x[i] * scale * gain[i];
}

static void rope(float *x, const float *turns, uint32_t heads, uint32_t head_dim)
{
    for (uint32_t h = 0; h < heads; h++, x += head_dim)
        for (uint32_t i = 0; i < head_dim; i += 2) {
            float even = x[i], odd = x[i + 1];
            x[i] = even * turns[i] - odd * turns[i + 1];
            x[i + 1] = even * turns[i + 1] + odd * turns[i];
        }
}

/* e^x to about 2 ulp: x = n ln 2 + r with |r| <= ln 2 / 2, a polynomial for e^r, and n added to the exponent. The
 * library's expf is as good but does not vectorise: 8.5 us for a row of 1,536 against 1.1, a twelfth of a prefill. */
static inline float exponential(float x)
{
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    const float round = 12582912.0f; /* 1.5 * 2^23: adding it leaves the nearest whole number in the low bits */
    float shifted = x * 1.44269504f + round;
    float n = shifted - round;
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f; /* ln 2 in two parts */
    float p = 1.98756915e-4f;
    p = p * r + 1.39819995e-3f;
    p = p * r + 8.33345191e-3f;
    p = p * r + 4.16657963e-2f;
    p = p * r + 1.66666655e-1f;
    p = p * r + 5.00000012e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits, power;
    memcpy(&bits, &p, sizeof bits);
    memcpy(&power, &shifted, sizeof power);
    bits += (int32_t)((uint32_t)power << 23);
    memcpy(&p, &bits, sizeof p);
    return p;
}

static void swiglu(const float *gate, const float *up, float *y, uint32_t width)
{
    for (uint32_t i = 0; i < width; i++) y[i] = gate[i] / (1.0f + exponential(-gate[i])) * up[i];
}

/* x * (1 + tanh(u)) / 2 with u = sqrt(2 / pi) (x + 0.044715 x^3), which is x / (1 + e^-2u). */
static void geglu(const float *gate, const float *up, float *y, uint32_t width)
{
    for (uint32_t i = 0; i < width; i++) {
        float x = gate[i], twice = 1.59576912f * (x + 0.044715f * x * x * x);
        y[i] = x / (1.0f + exponential(-twice)) * up[i];
    }
}

const host_kernels JOIN(host_kernels_, INFER_ISA) = {
    .name = TEXT(INFER_ISA),
    .panel = PANEL,
    .matmul = matmul,
    .matmul_q8 = matmul_q8,
    .norm = norm,
    .rope = rope,
    .swiglu = swiglu,
    .geglu = geglu,
};
