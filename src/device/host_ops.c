/* host_ops.c: the scalar twin of every kernel. */
#include "device/host_ops.h"

#include <math.h>
#include <string.h>

enum { HEAD_DIM_MOST = 512 };

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
        return 1;
    default:
        return 4;
    }
}

const char *quire__dtype_name(quire_dtype dtype)
{
    switch (dtype) {
    case QUIRE_DTYPE_F32:
        return "f32";
    case QUIRE_DTYPE_F16:
        return "f16";
    case QUIRE_DTYPE_BF16:
        return "bf16";
    case QUIRE_DTYPE_FP8_E4M3:
        return "fp8_e4m3";
    default:
        return "unknown";
    }
}

/* ---- cache access -------------------------------------------------------------------------------------------- */

/* `which`: 0 for K, 1 for V. */
static unsigned char *page_vector(const quire__pages *pages, int64_t block, int32_t layer, int which, int32_t head,
                                  int64_t offset)
{
    return pages->arena + block * pages->block_stride + layer * pages->layer_stride + which * pages->kv_stride +
           head * pages->head_stride + offset * pages->token_stride;
}

static float page_scale(const quire__pages *pages, int which, int32_t head)
{
    if (pages->dtype != QUIRE_DTYPE_FP8_E4M3 || pages->scales == NULL)
        return 1.0f;
    return pages->scales[which * pages->kv_heads + head];
}

static unsigned char *tensor_vector(const quire_tensor *tensor, int64_t token, int64_t head)
{
    int64_t element = token * tensor->token_stride + head * tensor->head_stride;
    return (unsigned char *)tensor->data + element * (int64_t)quire__dtype_bytes(tensor->dtype);
}

static void append_vector(const quire__pages *pages, const quire_tensor *tensor, int64_t token, int32_t head,
                          unsigned char *destination, int which)
{
    const unsigned char *source = tensor_vector(tensor, token, head);
    size_t from = quire__dtype_bytes(tensor->dtype), to = quire__dtype_bytes(pages->dtype);
    float inverse = 1.0f / page_scale(pages, which, head);

    if (tensor->dtype == pages->dtype) { /* bytes as they are, NaN payloads too */
        memcpy(destination, source, (size_t)pages->head_dim * to);
        return;
    }
    for (int32_t i = 0; i < pages->head_dim; i++) {
        float value = quire__dtype_load(tensor->dtype, source + (size_t)i * from);
        if (pages->dtype == QUIRE_DTYPE_FP8_E4M3)
            value *= inverse;
        quire__dtype_store(pages->dtype, destination + (size_t)i * to, value);
    }
}

void quire__host_append(const quire__append_args *args)
{
    const quire__pages *pages = &args->pages;
    for (int64_t token = 0; token < args->tokens; token++) {
        int64_t slot = args->slots[token];
        if (slot < 0)
            continue;
        int64_t block = slot / pages->block_tokens, offset = slot % pages->block_tokens;
        for (int32_t head = 0; head < pages->kv_heads; head++) {
            append_vector(pages, &args->k, token, head, page_vector(pages, block, args->layer, 0, head, offset), 0);
            append_vector(pages, &args->v, token, head, page_vector(pages, block, args->layer, 1, head, offset), 1);
        }
    }
}

/* ---- blocks, pieces, tables ---------------------------------------------------------------------------------- */

void quire__host_block_copy(const quire__block_copy_args *args)
{
    for (int32_t i = 0; i < args->count; i++)
        memcpy(args->arena + args->pairs[i].destination * args->block_stride,
               args->arena + args->pairs[i].source * args->block_stride, (size_t)args->block_bytes);
}

void quire__host_gather(const quire__pieces_args *args)
{
    for (int32_t i = 0; i < args->count; i++)
        memcpy(args->staging + i * args->piece_bytes, args->arena + args->offsets[i], (size_t)args->piece_bytes);
}

void quire__host_scatter(const quire__pieces_args *args)
{
    for (int32_t i = 0; i < args->count; i++)
        memcpy(args->arena + args->offsets[i], args->staging + i * args->piece_bytes, (size_t)args->piece_bytes);
}

void quire__host_table(const quire__table_args *args)
{
    for (int32_t i = 0; i < args->count; i++) {
        const quire__table_change *change = &args->changes[i];
        args->table[(int64_t)change->row * args->table_stride + change->column] = change->value;
    }
}

/* ---- attention ----------------------------------------------------------------------------------------------- */

typedef struct scalar_query {
    const quire__attend_args *args;
    int64_t token;
    int32_t row, head, kv_head;
    double values[HEAD_DIM_MOST];
} scalar_query;

static const unsigned char *query_page(const scalar_query *query, int which, int32_t key)
{
    const quire__attend_args *args = query->args;
    int64_t table = (int64_t)query->row * args->table_stride;
    int64_t block = args->block_table[table + key / args->pages.block_tokens];
    return page_vector(&args->pages, block, args->layer, which, query->kv_head, key % args->pages.block_tokens);
}

static double query_score(const scalar_query *query, int32_t key)
{
    const quire__pages *pages = &query->args->pages;
    const unsigned char *k = query_page(query, 0, key);
    size_t bytes = quire__dtype_bytes(pages->dtype);
    double sum = 0;
    for (int32_t i = 0; i < pages->head_dim; i++)
        sum += query->values[i] * (double)quire__dtype_load(pages->dtype, k + (size_t)i * bytes);
    sum *= (double)page_scale(pages, 0, query->kv_head) * (double)query->args->scale;
    double cap = (double)query->args->soft_cap;
    return cap > 0 ? cap * tanh(sum / cap) : sum;
}

static void query_write(const scalar_query *query, const double *sums, double factor)
{
    const quire_tensor *out = &query->args->out;
    unsigned char *to = tensor_vector(out, query->token, query->head);
    for (int32_t i = 0; i < query->args->pages.head_dim; i++)
        quire__dtype_store(out->dtype, to + (size_t)i * quire__dtype_bytes(out->dtype), (float)(sums[i] * factor));
}

/* Two passes over the keys: the maximum, then weights and their sums. A token without keys gives zeros. */
static void attend_query(scalar_query *query)
{
    const quire__attend_args *args = query->args;
    const quire__pages *pages = &args->pages;
    int32_t keys = args->positions[query->token] + 1;
    int32_t first = args->window > 0 && keys > args->window ? keys - args->window : 0;
    size_t bytes = quire__dtype_bytes(pages->dtype);
    double sums[HEAD_DIM_MOST] = {0}, most = -INFINITY, total = 0;
    const unsigned char *q = tensor_vector(&args->q, query->token, query->head);

    for (int32_t i = 0; i < pages->head_dim; i++)
        query->values[i] = (double)quire__dtype_load(args->q.dtype, q + (size_t)i * quire__dtype_bytes(args->q.dtype));
    for (int32_t key = first; key < keys; key++)
        most = fmax(most, query_score(query, key));
    if (args->sinks != NULL) {
        most = fmax(most, (double)args->sinks[query->head]);
        total = exp((double)args->sinks[query->head] - most);
    }
    for (int32_t key = first; key < keys; key++) {
        const unsigned char *v = query_page(query, 1, key);
        double weight = exp(query_score(query, key) - most);
        total += weight;
        for (int32_t i = 0; i < pages->head_dim; i++)
            sums[i] += weight * (double)quire__dtype_load(pages->dtype, v + (size_t)i * bytes);
    }
    query_write(query, sums, keys > 0 ? (double)page_scale(pages, 1, query->kv_head) / total : 0);
}

static void attend_token(const quire__attend_args *args, int64_t token, int32_t row)
{
    int32_t group = args->query_heads / args->pages.kv_heads;
    for (int32_t head = 0; head < args->query_heads; head++) {
        scalar_query query = {.args = args, .token = token, .row = row, .head = head, .kv_head = head / group};
        attend_query(&query);
    }
}

void quire__host_attend_decode(const quire__attend_args *args)
{
    for (int32_t i = 0; i < args->count; i++) {
        int32_t token = args->select != NULL ? args->select[i] : args->first_token + i;
        attend_token(args, token, args->token_rows[token]);
    }
}

void quire__host_attend_prefill(const quire__attend_args *args)
{
    for (int32_t i = 0; i < args->count; i++)
        for (int32_t j = 0; j < args->tiles[i].tokens; j++)
            attend_token(args, args->tiles[i].first_token + j, args->tiles[i].row);
}
