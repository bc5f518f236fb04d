/* gguf_builder.h - writes small GGUF files in memory, for the tests of what reads them.
 *
 * Keys are added before tensors. Nothing is checked: the tests build wrong files on purpose.
 */
#ifndef TEST_GGUF_BUILDER_H
#define TEST_GGUF_BUILDER_H

#include <stddef.h>
#include <stdint.h>

typedef struct gguf_builder {
    uint8_t bytes[1 << 16];
    size_t size;
} gguf_builder;

/* Starts a file of version 3 with these counts. */
void build_header(gguf_builder *b, uint64_t tensors, uint64_t keys);

void build_raw(gguf_builder *b, const void *bytes, size_t size);
void build_u32(gguf_builder *b, uint32_t value);
void build_u64(gguf_builder *b, uint64_t value);
void build_string(gguf_builder *b, const char *text);

/* Metadata keys with their values. */
void build_key_u32(gguf_builder *b, const char *key, uint32_t value);
void build_key_float(gguf_builder *b, const char *key, float value);
void build_key_bool(gguf_builder *b, const char *key, int value);
void build_key_string(gguf_builder *b, const char *key, const char *value);
void build_key_strings(gguf_builder *b, const char *key, const char *const *values, size_t count);
void build_key_ints(gguf_builder *b, const char *key, const int32_t *values, size_t count);
void build_key_floats(gguf_builder *b, const char *key, const float *values, size_t count);

/* One tensor's record; its data is written later, at `offset` of the data section. */
void build_tensor(gguf_builder *b, const char *name, uint32_t dimensions, const uint64_t *ne, uint32_t type,
                  uint64_t offset);

/* Zeros up to a multiple of `alignment`. */
void build_padding(gguf_builder *b, size_t alignment);

#endif
