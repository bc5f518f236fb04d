/* gguf.h - reads GGUF model files, versions 2 and 3, little-endian.
 *
 * Terms: a *key* names one metadata value; a *tensor* is a named array of up to four dimensions in the data
 * section, ne[0] running fastest, so a matrix of r rows of c values has ne = {c, r}.
 *
 * The file is mapped, not read. gguf_open walks all of it once and checks every count, length, offset and
 * type against the bytes that are really there; after that, lookups cannot fail for reasons of format.
 * Names, strings and tensor data point into the mapping and live until gguf_close. A gguf_file is immutable
 * after open and may be read from several threads. A file that another process truncates while it is mapped
 * raises SIGBUS, as with any mapping.
 *
 * Errors: see error.h.
 */
#ifndef INFER_GGUF_H
#define INFER_GGUF_H

#include "error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct gguf_file gguf_file;
struct tensor_type;

/* Bytes in the file; not NUL-terminated. */
typedef struct gguf_string {
    const char *data;
    size_t length;
} gguf_string;

typedef struct gguf_tensor {
    gguf_string name;
    const struct tensor_type *type;
    uint32_t dimensions;          /* 1 to 4 */
    uint64_t ne[4];               /* dimensions past `dimensions` are 1 */
    uint64_t row_bytes;           /* ne[0] values */
    uint64_t rows;                /* ne[1] * ne[2] * ne[3] */
    const uint8_t *data;          /* rows * row_bytes bytes, aligned as the file says */
} gguf_tensor;

/* Opens the file at `path`. Fails when it is no GGUF file, is truncated or corrupt, or has a tensor whose
 * type dequant.h does not know. */
int gguf_open(gguf_file **out, const char *path, infer_error *error);

/* The same over `size` bytes that the caller keeps alive and unchanged until gguf_close. */
int gguf_open_memory(gguf_file **out, const void *bytes, size_t size, infer_error *error);

/* NULL is allowed. */
void gguf_close(gguf_file *file);

/* Metadata. Each getter fails when the key is absent or its value is of another kind or out of range; the
 * outputs are written on success only. Integer getters take any integer type of the file that holds the
 * value. gguf_has tells whether an optional key is there. */
bool gguf_has(const gguf_file *file, const char *key);
int gguf_get_u32(const gguf_file *file, const char *key, uint32_t *out, infer_error *error);
int gguf_get_float(const gguf_file *file, const char *key, float *out, infer_error *error);
int gguf_get_bool(const gguf_file *file, const char *key, bool *out, infer_error *error);
int gguf_get_string(const gguf_file *file, const char *key, gguf_string *out, infer_error *error);

/* Arrays: `*out` is allocated and the caller's to free(). */
int gguf_get_strings(const gguf_file *file, const char *key, gguf_string **out, size_t *count,
                     infer_error *error);
int gguf_get_ints(const gguf_file *file, const char *key, int32_t **out, size_t *count, infer_error *error);
int gguf_get_floats(const gguf_file *file, const char *key, float **out, size_t *count, infer_error *error);

/* Tensors, in the order of their names' bytes. */
size_t gguf_tensor_count(const gguf_file *file);
const gguf_tensor *gguf_tensor_at(const gguf_file *file, size_t index);

/* The tensor of that name, or NULL. */
const gguf_tensor *gguf_find_tensor(const gguf_file *file, const char *name);

/* Decodes rows [first, first + count) to count * ne[0] floats. Fails when the range is not in the tensor. */
int gguf_tensor_rows(const gguf_tensor *tensor, uint64_t first, uint64_t count, float *out,
                     infer_error *error);

/* True when the string equals the NUL-terminated text. */
bool gguf_string_is(gguf_string string, const char *text);

#endif
