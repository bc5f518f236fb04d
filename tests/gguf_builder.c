#include "gguf_builder.h"

#include <assert.h>
#include <string.h>

enum { VALUE_U32 = 4, VALUE_I32 = 5, VALUE_F32 = 6, VALUE_BOOL = 7, VALUE_STRING = 8, VALUE_ARRAY = 9 };

void build_raw(gguf_builder *b, const void *bytes, size_t size)
{
    assert(size <= sizeof b->bytes - b->size);
    if (size) memcpy(b->bytes + b->size, bytes, size);
    b->size += size;
}

void build_u32(gguf_builder *b, uint32_t value)
{
    build_raw(b, &value, sizeof value);
}

void build_u64(gguf_builder *b, uint64_t value)
{
    build_raw(b, &value, sizeof value);
}

void build_string(gguf_builder *b, const char *text)
{
    build_u64(b, strlen(text));
    build_raw(b, text, strlen(text));
}

void build_header(gguf_builder *b, uint64_t tensors, uint64_t keys)
{
    b->size = 0;
    build_raw(b, "GGUF", 4);
    build_u32(b, 3);
    build_u64(b, tensors);
    build_u64(b, keys);
}

static void build_key(gguf_builder *b, const char *key, uint32_t type)
{
    build_string(b, key);
    build_u32(b, type);
}

void build_key_u32(gguf_builder *b, const char *key, uint32_t value)
{
    build_key(b, key, VALUE_U32);
    build_u32(b, value);
}

void build_key_float(gguf_builder *b, const char *key, float value)
{
    build_key(b, key, VALUE_F32);
    build_raw(b, &value, sizeof value);
}

void build_key_bool(gguf_builder *b, const char *key, int value)
{
    uint8_t byte = value != 0;
    build_key(b, key, VALUE_BOOL);
    build_raw(b, &byte, 1);
}

void build_key_string(gguf_builder *b, const char *key, const char *value)
{
    build_key(b, key, VALUE_STRING);
    build_string(b, value);
}

void build_key_strings(gguf_builder *b, const char *key, const char *const *values, size_t count)
{
    build_key(b, key, VALUE_ARRAY);
    build_u32(b, VALUE_STRING);
    build_u64(b, count);
    for (size_t i = 0; i < count; i++) build_string(b, values[i]);
}

void build_key_ints(gguf_builder *b, const char *key, const int32_t *values, size_t count)
{
    build_key(b, key, VALUE_ARRAY);
    build_u32(b, VALUE_I32);
    build_u64(b, count);
    build_raw(b, values, count * sizeof *values);
}

void build_key_floats(gguf_builder *b, const char *key, const float *values, size_t count)
{
    build_key(b, key, VALUE_ARRAY);
    build_u32(b, VALUE_F32);
    build_u64(b, count);
    build_raw(b, values, count * sizeof *values);
}

void build_tensor(gguf_builder *b, const char *name, uint32_t dimensions, const uint64_t *ne, uint32_t type,
                  uint64_t offset)
{
    build_string(b, name);
    build_u32(b, dimensions);
    for (uint32_t i = 0; i < dimensions; i++) build_u64(b, ne[i]);
    build_u32(b, type);
    build_u64(b, offset);
}

void build_padding(gguf_builder *b, size_t alignment)
{
    while (b->size % alignment) build_raw(b, "", 1);
}
