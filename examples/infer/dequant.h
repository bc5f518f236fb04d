/* dequant.h - the tensor types of GGUF files, and their rows as float32.
 *
 * Type numbers are those of the file format. A row is stored as blocks of `block_elements` values in
 * `block_bytes` bytes; a row's length is always a whole number of blocks. Everything here is stateless and
 * may be called from any thread. Sources need no alignment. The host must be little-endian, as the files are.
 */
#ifndef INFER_DEQUANT_H
#define INFER_DEQUANT_H

#include <stddef.h>
#include <stdint.h>

enum {
    TENSOR_F32 = 0,
    TENSOR_F16 = 1,
    TENSOR_Q4_0 = 2,
    TENSOR_Q4_1 = 3,
    TENSOR_Q5_0 = 6,
    TENSOR_Q5_1 = 7,
    TENSOR_Q8_0 = 8,
    TENSOR_Q4_K = 12,
    TENSOR_Q6_K = 14,
    TENSOR_BF16 = 30
};

/* What a caller may be told that this reader knows. */
#define TENSOR_TYPES_KNOWN "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q6_K"

typedef struct tensor_type {
    uint32_t number;
    const char *name;
    uint32_t block_elements;
    uint32_t block_bytes;
    void (*decode)(const uint8_t *source, size_t blocks, float *out);
} tensor_type;

/* The type with this number, or NULL when it cannot be decoded. */
const tensor_type *tensor_type_find(uint32_t number);

/* The format's name of a type, also of those that cannot be decoded ("Q2_K"); "unknown" otherwise. */
const char *tensor_type_name(uint32_t number);

/* Decodes `elements` values (a whole number of blocks) from `source` to `out`. */
void dequant(const tensor_type *type, const void *source, size_t elements, float *out);

/* IEEE half to float, exact for every input, subnormals, infinities and NaN included. */
float dequant_half(uint16_t bits);

#endif
