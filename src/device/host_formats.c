/* host_formats.c: elements, rows and scales of K and V, one value at a time. */
#include "device/host_formats.h"

#include <math.h>
#include <string.h>

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* ---- conversions --------------------------------------------------------------------------------------------- */

static float f16_load(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t exponent = (half >> 10) & 31u, mantissa = half & 0x3ffu;
    if (exponent == 0)
        return float_of(sign | bits_of((float)mantissa * 0x1p-24f));
    if (exponent == 31)
        return float_of(sign | 0x7f800000u | mantissa << 13);
    return float_of(sign | (exponent + 112u) << 23 | mantissa << 13);
}

/* NaN becomes 0x7fff, infinity stays, overflow becomes infinity: what cvt.rn.f16.f32 does. */
static uint16_t f16_store(float value)
{
    uint32_t bits = bits_of(value), magnitude = bits & 0x7fffffffu;
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    if (magnitude > 0x7f800000u)
        return 0x7fffu;
    if (magnitude >= 0x477ff000u) /* 65520, half way between the largest half and the next */
        return (uint16_t)(sign | 0x7c00u);
    if (magnitude < 0x38800000u) /* below 2^-14: adding 0.5 leaves the mantissa of the subnormal, rounded once */
        return (uint16_t)(sign | (uint16_t)(bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f)));
    magnitude += 0xfffu + (magnitude >> 13 & 1u);
    return (uint16_t)(sign | (uint16_t)((magnitude - (112u << 23)) >> 13));
}

/* NaN becomes 0x7fff: what cvt.rn.bf16.f32 does. */
static uint16_t bf16_store(float value)
{
    uint32_t bits = bits_of(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return 0x7fffu;
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static float fp8_load(uint8_t byte)
{
    uint32_t sign = (uint32_t)(byte & 0x80u) << 24;
    uint32_t exponent = (byte >> 3) & 15u, mantissa = byte & 7u;
    if ((byte & 0x7fu) == 0x7fu)
        return float_of(sign | 0x7fc00000u);
    if (exponent == 0)
        return float_of(sign | bits_of((float)mantissa * 0x1p-9f));
    return float_of(sign | (exponent + 120u) << 23 | mantissa << 20);
}

/* e4m3fn has no infinity: what is too large, infinity too, becomes 448; NaN becomes 0x7f without its sign. This is
 * __nv_cvt_float_to_fp8 with __NV_SATFINITE. */
static uint8_t fp8_store(float value)
{
    uint32_t bits = bits_of(value), magnitude = bits & 0x7fffffffu;
    uint8_t sign = (uint8_t)(bits >> 24 & 0x80u);
    if (magnitude > 0x7f800000u)
        return 0x7fu;
    if (magnitude >= 0x43e00000u) /* 448 */
        return (uint8_t)(sign | 0x7eu);
    if (magnitude < 0x3c800000u) /* below 2^-6: adding 2^14 leaves the mantissa of the subnormal, rounded once */
        return (uint8_t)(sign | (uint8_t)(bits_of(float_of(magnitude) + 0x1p14f) - bits_of(0x1p14f)));
    magnitude += 0x7ffffu + (magnitude >> 20 & 1u);
    return (uint8_t)(sign | (uint8_t)((magnitude - (120u << 23)) >> 20));
}

/* e5m2 is the upper half of an f16. */
static float e5m2_load(uint8_t byte)
{
    return f16_load((uint16_t)(byte << 8));
}

/* What is too large, infinity too, becomes 57344; NaN becomes 0x7f without its sign: __nv_cvt_float_to_fp8 with
 * __NV_SATFINITE and __NV_E5M2. */
static uint8_t e5m2_store(float value)
{
    uint32_t bits = bits_of(value), magnitude = bits & 0x7fffffffu;
    uint8_t sign = (uint8_t)(bits >> 24 & 0x80u);
    if (magnitude > 0x7f800000u)
        return 0x7fu;
    if (magnitude >= 0x47600000u) /* 57344 */
        return (uint8_t)(sign | 0x7bu);
    if (magnitude < 0x38800000u) /* below 2^-14: adding 2^7 leaves the mantissa of the subnormal, rounded once */
        return (uint8_t)(sign | (uint8_t)(bits_of(float_of(magnitude) + 0x1p7f) - bits_of(0x1p7f)));
    magnitude += 0xfffffu + (magnitude >> 21 & 1u);
    return (uint8_t)(sign | (uint8_t)((magnitude - (112u << 23)) >> 21));
}

static int8_t int8_store(float value)
{
    if (value != value)
        return 0;
    return (int8_t)rintf(value < -127.0f ? -127.0f : value > 127.0f ? 127.0f : value);
}

float quire__dtype_load(quire_dtype dtype, const void *element)
{
    uint16_t half;
    float value;
    switch (dtype) {
    case QUIRE_DTYPE_F16:
        memcpy(&half, element, sizeof half);
        return f16_load(half);
    case QUIRE_DTYPE_BF16:
        memcpy(&half, element, sizeof half);
        return float_of((uint32_t)half << 16);
    case QUIRE_DTYPE_FP8_E4M3:
        return fp8_load(*(const uint8_t *)element);
    case QUIRE_DTYPE_FP8_E5M2:
        return e5m2_load(*(const uint8_t *)element);
    case QUIRE_DTYPE_INT8:
        return (float)*(const int8_t *)element;
    default:
        memcpy(&value, element, sizeof value);
        return value;
    }
}

void quire__dtype_store(quire_dtype dtype, void *element, float value)
{
    uint16_t half;
    switch (dtype) {
    case QUIRE_DTYPE_F16:
        half = f16_store(value);
        memcpy(element, &half, sizeof half);
        return;
    case QUIRE_DTYPE_BF16:
        half = bf16_store(value);
        memcpy(element, &half, sizeof half);
        return;
    case QUIRE_DTYPE_FP8_E4M3:
        *(uint8_t *)element = fp8_store(value);
        return;
    case QUIRE_DTYPE_FP8_E5M2:
        *(uint8_t *)element = e5m2_store(value);
        return;
    case QUIRE_DTYPE_INT8:
        *(int8_t *)element = int8_store(value);
        return;
    default:
        memcpy(element, &value, sizeof value);
        return;
    }
}

size_t quire__dtype_bytes(quire_dtype dtype)
{
    switch (dtype) {
    case QUIRE_DTYPE_F16:
    case QUIRE_DTYPE_BF16:
        return 2;
    case QUIRE_DTYPE_FP8_E4M3:
    case QUIRE_DTYPE_FP8_E5M2:
    case QUIRE_DTYPE_INT8:
        return 1;
    case QUIRE_DTYPE_INT4:
        return 0;
    default:
        return 4;
    }
}


/* ---- geometry ------------------------------------------------------------------------------------------------ */

static bool is_fp8(quire_dtype dtype)
{
    return dtype == QUIRE_DTYPE_FP8_E4M3 || dtype == QUIRE_DTYPE_FP8_E5M2;
}

static int32_t round_up(int32_t value, int32_t unit)
{
    return (value + unit - 1) / unit * unit;
}

quire__format quire__format_of(quire_dtype dtype, int32_t head_dim, bool given_scales)
{
    if (dtype == QUIRE_DTYPE_INT4) {
        int32_t runs = (head_dim + QUIRE__INT4_RUN - 1) / QUIRE__INT4_RUN;
        return (quire__format){.row_bytes = round_up(head_dim / 2, 16),
                               .scale_bytes = 4 * runs,
                               .scale_group = QUIRE__INT4_RUN,
                               .rotation = head_dim & -head_dim};
    }
    if (dtype == QUIRE_DTYPE_INT8 || is_fp8(dtype))
        return (quire__format){.row_bytes = round_up(head_dim, 16),
                               .scale_bytes = given_scales && is_fp8(dtype) ? 0 : 2,
                               .scale_group = head_dim,
                               .rotation = is_fp8(dtype) && !given_scales ? head_dim & -head_dim : 0};
    return (quire__format){.row_bytes = head_dim * (int32_t)quire__dtype_bytes(dtype), .scale_group = head_dim};
}

void quire__pages_set_format(quire__pages *pages, quire__format format)
{
    pages->token_stride = format.row_bytes;
    pages->scale_offset = (int64_t)format.row_bytes * pages->block_tokens;
    pages->scale_stride = format.scale_bytes;
    pages->scale_group = format.scale_group;
    pages->rotation = format.rotation;
    pages->head_stride = pages->scale_offset + round_up(format.scale_bytes * pages->block_tokens, 16);
    pages->kv_stride = pages->head_stride * pages->kv_heads;
    pages->layer_stride = 2 * pages->kv_stride;
}

static unsigned char *page_head(const quire__pages *pages, int64_t block, int32_t layer, int which, int32_t head)
{
    return pages->arena + block * pages->block_stride + layer * pages->layer_stride + which * pages->kv_stride +
           head * pages->head_stride;
}

unsigned char *quire__page_row(const quire__pages *pages, int64_t block, int32_t layer, int which, int32_t head,
                               int64_t offset)
{
    return page_head(pages, block, layer, which, head) + offset * pages->token_stride;
}

unsigned char *quire__page_row_scales(const quire__pages *pages, int64_t block, int32_t layer, int which, int32_t head,
                                      int64_t offset)
{
    return page_head(pages, block, layer, which, head) + pages->scale_offset + offset * pages->scale_stride;
}

/* ---- rows ---------------------------------------------------------------------------------------------------- */

void quire__rotate(float *values, int32_t dims, int32_t block)
{
    const float factor = 1.0f / sqrtf((float)block);
    for (int32_t apart = 1; apart < block; apart *= 2)
        for (int32_t i = 0; i < dims; i++)
            if ((i & apart) == 0) {
                float low = values[i], high = values[i + apart];
                values[i] = low + high;
                values[i + apart] = low - high;
            }
    for (int32_t i = 0; i < dims; i++)
        values[i] *= factor;
}

/* The values' largest and smallest number, NaN aside, and 0. */
static void find_range(const float *values, int32_t count, float *least, float *most)
{
    *least = *most = 0;
    for (int32_t i = 0; i < count; i++) {
        *least = values[i] < *least ? values[i] : *least;
        *most = values[i] > *most ? values[i] : *most;
    }
}

uint16_t quire__scale_half(float scale)
{
    uint16_t half = f16_store(scale);
    return (half & 0x7fffu) == 0x7c00u ? half - 1 : half; /* 65504 */
}

/* What to multiply values with. */
static float scale_inverse(uint16_t half)
{
    float scale = f16_load(half);
    return scale != 0 ? 1.0f / scale : 0;
}

static float scale_load(const unsigned char *from)
{
    return quire__dtype_load(QUIRE_DTYPE_F16, from);
}

static float given_scale(const quire__pages *pages, int which, int32_t head)
{
    return is_fp8(pages->dtype) && pages->scales != NULL ? pages->scales[which * pages->kv_heads + head] : 1.0f;
}

static uint32_t int4_shift(int32_t element)
{
    return (uint32_t)(4 * (element % 8 / 2) + 16 * (element % 2));
}

/* A group of 8 as one of its parts would store it. */
typedef struct int4_try {
    float zero, error;
    uint32_t codes; /* a word of the row */
} int4_try;

/* A step to each of the parts, and its inverse, both of 1. */
static const float int4_steps[4] = {1.0f, 0.875f, 0.75f, 0.625f};
static const float int4_inverses[4] = {1.0f, 8.0f / 7, 4.0f / 3, 1.6f};

static float limit_code(float code) /* NaN: 0 */
{
    return code > 0 ? (code < 15 ? code : 15) : 0;
}

/* No expression has a product and a sum, which a compiler may fuse. */
static int4_try int4_try_part(const float *values, float middle, float step, float inverse)
{
    float middle_steps = middle * inverse;
    int4_try made = {.zero = limit_code(rintf(7.5f - middle_steps))};
    for (int32_t i = 0; i < QUIRE__INT4_GROUP; i++) {
        float steps = values[i] * inverse, code = limit_code(rintf(steps) + made.zero);
        float stored = (code - made.zero) * step, off = values[i] - stored, square = off * off;
        made.error += square;
        made.codes |= (uint32_t)code << int4_shift(i);
    }
    return made;
}

/* A group's codes, and its part and zero where they are in the word of a run's first group. */
static uint32_t int4_group_encode(const float *values, float unit, float inverse, uint32_t *codes)
{
    float least, most;
    uint32_t part = 0;
    find_range(values, QUIRE__INT4_GROUP, &least, &most);
    float middle = (least + most) * 0.5f;
    int4_try best = int4_try_part(values, middle, unit, inverse);
    for (uint32_t i = 1; i < 4; i++) {
        int4_try next = int4_try_part(values, middle, unit * int4_steps[i], inverse * int4_inverses[i]);
        if (next.error < best.error) {
            best = next;
            part = i;
        }
    }
    *codes = best.codes;
    return part << 8 | (uint32_t)best.zero << 16;
}

/* `values`: of a run, and zeros. Gives the run's word. */
static uint32_t int4_run_encode(const float values[QUIRE__INT4_RUN], uint32_t codes[QUIRE__INT4_GROUPS])
{
    float range = 0, least, most;
    for (int32_t g = 0; g < QUIRE__INT4_GROUPS; g++) {
        find_range(values + g * QUIRE__INT4_GROUP, QUIRE__INT4_GROUP, &least, &most);
        range = most - least > range ? most - least : range;
    }
    uint32_t half = (f16_store(range * (1.0f / 15.5f)) + 0x7fu) & 0xff80u, word;
    half = half > 0x7b80u ? 0x7b80u : half; /* 61440 */
    float unit = f16_load((uint16_t)half), inverse = unit != 0 ? 1.0f / unit : 0;
    word = half >> 7;
    for (uint32_t g = 0; g < QUIRE__INT4_GROUPS; g++) {
        uint32_t made = int4_group_encode(values + g * QUIRE__INT4_GROUP, unit, inverse, &codes[g]);
        word |= (made & 0x300u) << 2 * g | (made & 0xf0000u) << 4 * g;
    }
    return word;
}

static void int4_encode(const quire__pages *pages, const float *values, unsigned char *row, unsigned char *scales)
{
    for (int32_t first = 0; first < pages->head_dim; first += QUIRE__INT4_RUN) {
        int32_t left = pages->head_dim - first, count = left < QUIRE__INT4_RUN ? left : QUIRE__INT4_RUN;
        float run[QUIRE__INT4_RUN] = {0};
        uint32_t codes[QUIRE__INT4_GROUPS], word;
        for (int32_t i = 0; i < count; i++)
            run[i] = values[first + i] == values[first + i] ? values[first + i] : 0;
        word = int4_run_encode(run, codes);
        memcpy(scales + first / QUIRE__INT4_RUN * 4, &word, sizeof word);
        memcpy(row + first / 2, codes, (size_t)count / 2);
    }
}

static void int4_decode(const quire__pages *pages, const unsigned char *row, const unsigned char *scales, float *values)
{
    for (int32_t i = 0; i < pages->head_dim; i++) {
        uint32_t codes, word, g = (uint32_t)(i % QUIRE__INT4_RUN / QUIRE__INT4_GROUP);
        memcpy(&codes, row + i / 8 * 4, sizeof codes);
        memcpy(&word, scales + i / QUIRE__INT4_RUN * 4, sizeof word);
        float step = f16_load((uint16_t)((word & 0xffu) << 7)) * int4_steps[word >> (8 + 2 * g) & 3u];
        values[i] = ((float)(codes >> int4_shift(i) & 15u) - (float)(word >> (16 + 4 * g) & 15u)) * step;
    }
}

/* What the row loses in this scale. Sums of integers have no order, so that vectors and lanes add up the same. */
static float fp8_error(const quire__pages *pages, const float *values, uint16_t half)
{
    const float inverse = scale_inverse(half), scale = f16_load(half);
    const bool e5m2 = pages->dtype == QUIRE_DTYPE_FP8_E5M2;
    uint32_t sum = 0;
    for (int32_t i = 0; i < pages->head_dim; i++) {
        float scaled = values[i] * inverse;
        float code = e5m2 ? e5m2_load(e5m2_store(scaled)) : fp8_load(fp8_store(scaled));
        float off = fabsf(scaled - code);
        off = off < 32 ? off : 32; /* NaN: 32 */
        uint32_t parts = bits_of(off + 0x1p17f) - bits_of(0x1p17f); /* of a 64th */
        sum += parts * parts;
    }
    return (float)sum * (scale * scale);
}

const float quire__fp8_factors[QUIRE__FP8_SCALES] = {1,          1.0905077f, 1.1892071f, 1.2968396f,
                                                     1.4142135f, 1.5422108f, 1.6817929f, 1.8340081f};

/* The scale of a row, see host_formats.h. */
static uint16_t fp8_scale(const quire__pages *pages, const float *values, float scale)
{
    uint16_t best = quire__scale_half(scale);
    float least = fp8_error(pages, values, best);
    for (int i = 1; i < QUIRE__FP8_SCALES; i++) {
        uint16_t next = quire__scale_half(scale * quire__fp8_factors[i]);
        float error = fp8_error(pages, values, next);
        if (error < least) {
            least = error;
            best = next;
        }
    }
    return best;
}

void quire__row_encode(const quire__pages *pages, int which, int32_t head, float *values, unsigned char *row,
                       unsigned char *scales)
{
    const size_t bytes = quire__dtype_bytes(pages->dtype);
    float inverse = 1.0f / given_scale(pages, which, head), least, most;

    if (pages->rotation != 0 && which == 0)
        quire__rotate(values, pages->head_dim, pages->rotation);
    if (pages->dtype == QUIRE_DTYPE_INT4) {
        int4_encode(pages, values, row, scales);
        return;
    }
    if (pages->scale_stride != 0) {
        find_range(values, pages->head_dim, &least, &most);
        most = most >= -least ? most : -least;
        float scale = most * (pages->dtype == QUIRE_DTYPE_INT8 ? 1.0f / 127 : 1.0f / 448);
        uint16_t half = is_fp8(pages->dtype) ? fp8_scale(pages, values, scale) : quire__scale_half(scale);
        memcpy(scales, &half, sizeof half);
        inverse = scale_inverse(half);
    }
    for (int32_t i = 0; i < pages->head_dim; i++)
        quire__dtype_store(pages->dtype, row + (size_t)i * bytes, is_fp8(pages->dtype) || pages->scale_stride != 0
                                                                      ? values[i] * inverse
                                                                      : values[i]);
}

void quire__row_decode(const quire__pages *pages, int which, int32_t head, const unsigned char *row,
                       const unsigned char *scales, float *values)
{
    const size_t bytes = quire__dtype_bytes(pages->dtype);
    if (pages->dtype == QUIRE_DTYPE_INT4) {
        int4_decode(pages, row, scales, values);
        return;
    }
    float scale = pages->scale_stride != 0 ? scale_load(scales) : given_scale(pages, which, head);
    for (int32_t i = 0; i < pages->head_dim; i++) {
        float code = quire__dtype_load(pages->dtype, row + (size_t)i * bytes);
        values[i] = scale != 1.0f ? code * scale : code;
    }
}
