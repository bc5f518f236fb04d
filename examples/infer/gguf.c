/* How the file is read
 *
 *   "GGUF" version  tensors  keys | key type value ... | name dims ne.. type offset ... | pad | tensor data
 *   `------ fixed, 24 bytes -----´ `---- keys times ---´ `------ tensors times --------´      ^ data section
 *
 * A cursor walks the header once. Every read goes through take(), the only place that compares against the
 * end of the file; a failed read leaves the cursor at the end and sets its error, once. Rules that the rest
 * relies on:
 *   1. Nothing is allocated in proportion to a count of the file before the count was checked against the
 *      bytes that are left (an entry has a least size), so a corrupt count costs nothing.
 *   2. Every length, element count and tensor size is checked before it is multiplied or added.
 *   3. Keys and tensors are sorted by name at open: lookups are binary searches, and two of one name are
 *      found side by side and refused.
 * Values stay where they are in the mapping, unaligned; they are read with memcpy when asked for.
 */
#include "gguf.h"
#include "dequant.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    VALUE_U8, VALUE_I8, VALUE_U16, VALUE_I16, VALUE_U32, VALUE_I32, VALUE_F32, VALUE_BOOL, VALUE_STRING,
    VALUE_ARRAY, VALUE_U64, VALUE_I64, VALUE_F64, VALUE_TYPES
};

static const char *const value_names[VALUE_TYPES] = {
    "uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "bool", "string",
    "array", "uint64", "int64", "float64"
};

/* Bytes of one value; 0: of varying size. */
static const uint8_t value_bytes[VALUE_TYPES] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };

enum {
    FIXED_HEADER_BYTES = 24,
    KEY_LEAST_BYTES = 8 + 4 + 1,            /* empty name, type, one byte of value */
    TENSOR_LEAST_BYTES = 8 + 4 + 8 + 4 + 8, /* empty name, count, one dimension, type, offset */
    NAME_LIMIT = 65535,
    ALIGNMENT_DEFAULT = 32,
    ALIGNMENT_LIMIT = 1 << 20,
    ARRAY_DEPTH_LIMIT = 4
};

typedef struct entry {
    gguf_string name;
    uint32_t type;                /* of the value, or of the elements when is_array */
    bool is_array;
    uint64_t count;               /* elements; 1 for a single value */
    const uint8_t *data;
} entry;

struct gguf_file {
    const uint8_t *bytes;
    size_t size;
    bool mapped;
    size_t key_count;
    size_t tensor_count;
    entry *keys;                  /* sorted by name */
    gguf_tensor *tensors;         /* sorted by name */
};

typedef struct cursor {
    const uint8_t *start, *at, *end;
    infer_error *error;
} cursor;

/* ---- reading ---------------------------------------------------------------------------------------- */

/* The next `size` bytes, or NULL with the error set when the file ends before them. */
static const uint8_t *take(cursor *c, uint64_t size, const char *what)
{
    if (size > (uint64_t)(c->end - c->at)) {
        infer_fail(c->error, "the file is truncated: %s at byte %zu needs %" PRIu64 " bytes, %zu are left",
                   what, (size_t)(c->at - c->start), size, (size_t)(c->end - c->at));
        return NULL;
    }
    const uint8_t *bytes = c->at;
    c->at += size;
    return bytes;
}

static int take_u32(cursor *c, uint32_t *out, const char *what)
{
    const uint8_t *bytes = take(c, sizeof *out, what);
    if (!bytes) return -1;
    memcpy(out, bytes, sizeof *out);
    return 0;
}

static int take_u64(cursor *c, uint64_t *out, const char *what)
{
    const uint8_t *bytes = take(c, sizeof *out, what);
    if (!bytes) return -1;
    memcpy(out, bytes, sizeof *out);
    return 0;
}

static int take_string(cursor *c, gguf_string *out, const char *what)
{
    uint64_t length;
    if (take_u64(c, &length, what)) return -1;
    const uint8_t *bytes = take(c, length, what);
    if (!bytes) return -1;
    *out = (gguf_string){ (const char *)bytes, (size_t)length };
    return 0;
}

/* How much of a name to print, and the name, for "%.*s". */
#define SHOWN(name) (int)((name).length < 96 ? (name).length : 96), (name).data

static int check_value_type(cursor *c, uint32_t type, gguf_string key)
{
    if (type < VALUE_TYPES) return 0;
    return infer_fail(c->error, "key '%.*s' has value type %" PRIu32 "; the format has types 0 to %d",
                      SHOWN(key), type, VALUE_TYPES - 1);
}

/* Walks `count` values of `type`, so that later reads need no check. */
static int skip_values(cursor *c, uint32_t type, uint64_t count, gguf_string key, int depth)
{
    if (value_bytes[type]) {
        if (count > UINT64_MAX / 8)
            return infer_fail(c->error, "key '%.*s' claims %" PRIu64 " elements, more than any file holds",
                              SHOWN(key), count);
        return take(c, count * value_bytes[type], "a metadata value") ? 0 : -1;
    }
    for (uint64_t i = 0; i < count; i++) {
        if (type == VALUE_STRING) {
            gguf_string ignored;
            if (take_string(c, &ignored, "a metadata string")) return -1;
            continue;
        }
        uint32_t inner;
        uint64_t inner_count;
        if (depth == ARRAY_DEPTH_LIMIT)
            return infer_fail(c->error, "key '%.*s' nests arrays deeper than %d", SHOWN(key),
                              ARRAY_DEPTH_LIMIT);
        if (take_u32(c, &inner, "an array's type") || check_value_type(c, inner, key)) return -1;
        if (take_u64(c, &inner_count, "an array's length")) return -1;
        if (skip_values(c, inner, inner_count, key, depth + 1)) return -1;
    }
    return 0;
}

static int read_key(cursor *c, entry *key)
{
    if (take_string(c, &key->name, "a metadata key")) return -1;
    if (key->name.length > NAME_LIMIT)
        return infer_fail(c->error, "a metadata key is %zu bytes long; the limit is %d", key->name.length,
                          NAME_LIMIT);
    if (take_u32(c, &key->type, "a value's type") || check_value_type(c, key->type, key->name)) return -1;
    key->is_array = key->type == VALUE_ARRAY;
    key->count = 1;
    if (key->is_array) {
        if (take_u32(c, &key->type, "an array's type")) return -1;
        if (check_value_type(c, key->type, key->name)) return -1;
        if (take_u64(c, &key->count, "an array's length")) return -1;
    }
    key->data = c->at;
    return skip_values(c, key->type, key->count, key->name, 1);
}

/* All of the tensor's record; its data is placed once the start of the data section is known. */
static int read_tensor(cursor *c, gguf_tensor *tensor, uint64_t *offset)
{
    if (take_string(c, &tensor->name, "a tensor's name")) return -1;
    if (tensor->name.length > NAME_LIMIT)
        return infer_fail(c->error, "a tensor's name is %zu bytes long; the limit is %d",
                          tensor->name.length, NAME_LIMIT);
    if (take_u32(c, &tensor->dimensions, "a tensor's dimension count")) return -1;
    if (tensor->dimensions < 1 || tensor->dimensions > 4)
        return infer_fail(c->error, "tensor '%.*s' has %" PRIu32 " dimensions; a tensor has 1 to 4",
                          SHOWN(tensor->name), tensor->dimensions);
    tensor->rows = 1;
    for (uint32_t i = 0; i < 4; i++) {
        tensor->ne[i] = 1;
        if (i < tensor->dimensions && take_u64(c, &tensor->ne[i], "a tensor's dimension")) return -1;
        if (tensor->ne[i] == 0)
            return infer_fail(c->error, "tensor '%.*s' has a dimension of 0; each is at least 1",
                              SHOWN(tensor->name));
        if (i > 0 && tensor->ne[i] > UINT64_MAX / tensor->rows)
            return infer_fail(c->error, "tensor '%.*s' has more rows than 64 bits count",
                              SHOWN(tensor->name));
        if (i > 0) tensor->rows *= tensor->ne[i];
    }
    uint32_t number;
    if (take_u32(c, &number, "a tensor's type") || take_u64(c, offset, "a tensor's offset")) return -1;
    tensor->type = tensor_type_find(number);
    if (!tensor->type)
        return infer_fail(c->error, "tensor '%.*s' has type %" PRIu32 " (%s); this reader knows %s",
                          SHOWN(tensor->name), number, tensor_type_name(number), TENSOR_TYPES_KNOWN);
    return 0;
}

/* Turns the offset into an address, after checking that all of the tensor lies in the data section. */
static int place_tensor(cursor *c, gguf_tensor *tensor, uint64_t offset, uint64_t alignment)
{
    const tensor_type *type = tensor->type;
    uint64_t available = (uint64_t)(c->end - c->at);
    if (tensor->ne[0] % type->block_elements)
        return infer_fail(c->error, "tensor '%.*s' has rows of %" PRIu64 " values; %s needs a multiple of %"
                          PRIu32, SHOWN(tensor->name), tensor->ne[0], type->name, type->block_elements);
    if (offset % alignment)
        return infer_fail(c->error, "tensor '%.*s' is at offset %" PRIu64 ", which the file's alignment of %"
                          PRIu64 " does not divide", SHOWN(tensor->name), offset, alignment);
    uint64_t blocks = tensor->ne[0] / type->block_elements;
    bool fits = offset <= available && blocks <= available / type->block_bytes;
    if (fits) {
        tensor->row_bytes = blocks * type->block_bytes;
        fits = tensor->rows <= (available - offset) / tensor->row_bytes;
    }
    if (!fits)
        return infer_fail(c->error, "tensor '%.*s' (%" PRIu64 " rows of %" PRIu64 " values, %s, at offset %"
                          PRIu64 ") runs past the %" PRIu64 " bytes of the data section: truncated or corrupt",
                          SHOWN(tensor->name), tensor->rows, tensor->ne[0], type->name, offset, available);
    tensor->data = c->at + offset;
    return 0;
}

/* ---- names ------------------------------------------------------------------------------------------ */

static int compare_strings(gguf_string a, gguf_string b)
{
    size_t shorter = a.length < b.length ? a.length : b.length;
    int order = shorter ? memcmp(a.data, b.data, shorter) : 0;
    return order ? order : (a.length > b.length) - (a.length < b.length);
}

/* Entries and tensors both begin with their name, which is all that these two look at. */
static int compare_names(const void *a, const void *b)
{
    return compare_strings(*(const gguf_string *)a, *(const gguf_string *)b);
}

static int sort_names(void *items, size_t count, size_t size, const char *what, infer_error *error)
{
    if (count < 2) return 0;
    qsort(items, count, size, compare_names);
    for (size_t i = 1; i < count; i++) {
        const char *previous = (const char *)items + (i - 1) * size;
        if (compare_names(previous, previous + size) == 0)
            return infer_fail(error, "two %s are named '%.*s'; names must differ", what,
                              SHOWN(*(const gguf_string *)previous));
    }
    return 0;
}

static const void *find_name(const void *items, size_t count, size_t size, const char *name)
{
    gguf_string wanted = { name, strlen(name) };
    return count ? bsearch(&wanted, items, count, size, compare_names) : NULL;
}

bool gguf_string_is(gguf_string string, const char *text)
{
    return compare_strings(string, (gguf_string){ text, strlen(text) }) == 0;
}

/* ---- opening ---------------------------------------------------------------------------------------- */

static int read_fixed_header(cursor *c, uint64_t *tensors, uint64_t *keys)
{
    const uint8_t *magic = take(c, 4, "the magic number");
    if (!magic) return -1;
    if (memcmp(magic, "GGUF", 4))
        return infer_fail(c->error, "not a GGUF file: it begins with bytes %02x %02x %02x %02x instead of "
                          "'GGUF'", magic[0], magic[1], magic[2], magic[3]);
    uint32_t version;
    if (take_u32(c, &version, "the version")) return -1;
    if (version != 2 && version != 3)
        return infer_fail(c->error, "GGUF version %" PRIu32 "%s; this reader knows versions 2 and 3", version,
                          version && !(version & 0xffff) ? " (a big-endian file)" : "");
    if (take_u64(c, tensors, "the tensor count") || take_u64(c, keys, "the key count")) return -1;
    uint64_t left = (uint64_t)(c->end - c->at);
    if (*keys > left / KEY_LEAST_BYTES)
        return infer_fail(c->error, "the file claims %" PRIu64 " metadata keys, but only %" PRIu64
                          " bytes follow: truncated or corrupt", *keys, left);
    if (*tensors > left / TENSOR_LEAST_BYTES)
        return infer_fail(c->error, "the file claims %" PRIu64 " tensors, but only %" PRIu64
                          " bytes follow: truncated or corrupt", *tensors, left);
    return 0;
}

static int read_alignment(const gguf_file *file, uint32_t *alignment, infer_error *error)
{
    *alignment = ALIGNMENT_DEFAULT;
    if (!gguf_has(file, "general.alignment")) return 0;
    if (gguf_get_u32(file, "general.alignment", alignment, error)) return -1;
    if (*alignment == 0 || *alignment > ALIGNMENT_LIMIT || (*alignment & (*alignment - 1)))
        return infer_fail(error, "general.alignment is %" PRIu32 "; it must be a power of two up to %d",
                          *alignment, ALIGNMENT_LIMIT);
    return 0;
}

static int read_tensors(gguf_file *file, cursor *c, uint64_t *offsets)
{
    uint32_t alignment;
    if (read_alignment(file, &alignment, c->error)) return -1;
    for (size_t i = 0; i < file->tensor_count; i++)
        if (read_tensor(c, &file->tensors[i], &offsets[i])) return -1;
    size_t position = (size_t)(c->at - c->start);
    size_t padding = (alignment - position % alignment) % alignment;
    /* A file of metadata only may end where its header ends. */
    if (file->tensor_count && !take(c, padding, "padding before the tensor data")) return -1;
    for (size_t i = 0; i < file->tensor_count; i++)
        if (place_tensor(c, &file->tensors[i], offsets[i], alignment)) return -1;
    return sort_names(file->tensors, file->tensor_count, sizeof *file->tensors, "tensors", c->error);
}

static int parse(gguf_file *file, infer_error *error)
{
    cursor c = { file->bytes, file->bytes, file->bytes + file->size, error };
    uint64_t tensors = 0, keys = 0, *offsets = NULL;
    int result = -1;
    if (read_fixed_header(&c, &tensors, &keys)) return -1;
    file->keys = calloc(keys ? keys : 1, sizeof *file->keys);
    file->tensors = calloc(tensors ? tensors : 1, sizeof *file->tensors);
    offsets = calloc(tensors ? tensors : 1, sizeof *offsets);
    if (!file->keys || !file->tensors || !offsets) {
        infer_fail(error, "out of memory for %" PRIu64 " keys and %" PRIu64 " tensors", keys, tensors);
        goto cleanup;
    }
    file->key_count = (size_t)keys;
    file->tensor_count = (size_t)tensors;
    for (size_t i = 0; i < file->key_count; i++)
        if (read_key(&c, &file->keys[i])) goto cleanup;
    if (sort_names(file->keys, file->key_count, sizeof *file->keys, "metadata keys", error)) goto cleanup;
    result = read_tensors(file, &c, offsets);
cleanup:
    free(offsets);
    return result;
}

/* Takes over the mapping, also on failure. */
static int open_bytes(gguf_file **out, const void *bytes, size_t size, bool mapped, infer_error *error)
{
    gguf_file *file = calloc(1, sizeof *file);
    if (!file) {
        if (mapped) munmap((void *)bytes, size);
        return infer_fail(error, "out of memory for the model file's index");
    }
    file->bytes = bytes;
    file->size = size;
    file->mapped = mapped;
    if (parse(file, error)) {
        gguf_close(file);
        return -1;
    }
    *out = file;
    return 0;
}

int gguf_open_memory(gguf_file **out, const void *bytes, size_t size, infer_error *error)
{
    if (!size) return infer_fail(error, "the file is empty; a GGUF file has at least %d bytes",
                                 FIXED_HEADER_BYTES);
    return open_bytes(out, bytes, size, false, error);
}

int gguf_open(gguf_file **out, const char *path, infer_error *error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return infer_fail(error, "cannot open model '%s': %s", path, strerror(errno));
    struct stat info;
    infer_error inner;
    int result = -1;
    if (fstat(fd, &info)) {
        infer_fail(error, "cannot read model '%s': %s", path, strerror(errno));
    } else if (!S_ISREG(info.st_mode)) {
        infer_fail(error, "model '%s' is not a regular file; name a .gguf file", path);
    } else if (info.st_size < FIXED_HEADER_BYTES) {
        infer_fail(error, "model '%s' has %lld bytes; a GGUF file has at least %d", path,
                   (long long)info.st_size, FIXED_HEADER_BYTES);
    } else {
        void *bytes = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (bytes == MAP_FAILED)
            infer_fail(error, "cannot map model '%s': %s", path, strerror(errno));
        else if (open_bytes(out, bytes, (size_t)info.st_size, true, &inner))
            infer_fail(error, "model '%.150s': %s", path, inner.text);
        else
            result = 0;
    }
    close(fd);
    return result;
}

void gguf_close(gguf_file *file)
{
    if (!file) return;
    free(file->keys);
    free(file->tensors);
    if (file->mapped) munmap((void *)file->bytes, file->size);
    free(file);
}

/* ---- metadata --------------------------------------------------------------------------------------- */

/* The value at `data` when it is an integer; bool and floating point are not. */
static bool load_integer(uint32_t type, const uint8_t *data, bool *negative, uint64_t *magnitude)
{
    uint64_t raw = 0;
    bool is_signed = type == VALUE_I8 || type == VALUE_I16 || type == VALUE_I32 || type == VALUE_I64;
    if (!is_signed && type != VALUE_U8 && type != VALUE_U16 && type != VALUE_U32 && type != VALUE_U64)
        return false;
    unsigned size = value_bytes[type];
    memcpy(&raw, data, size);
    *negative = is_signed && raw >> (8 * size - 1);
    if (*negative && size < 8) raw |= UINT64_MAX << (8 * size);
    *magnitude = *negative ? 0 - raw : raw;
    return true;
}

static const entry *find_entry(const gguf_file *file, const char *key)
{
    return find_name(file->keys, file->key_count, sizeof *file->keys, key);
}

bool gguf_has(const gguf_file *file, const char *key)
{
    return find_entry(file, key) != NULL;
}

static int wrong_kind(const entry *found, const char *key, const char *wanted, infer_error *error)
{
    return infer_fail(error, "key '%s' is %s%s; %s is expected", key, value_names[found->type],
                      found->is_array ? " array" : "", wanted);
}

/* The entry of that key, single or array as asked. */
static const entry *get_entry(const gguf_file *file, const char *key, bool array, const char *wanted,
                              infer_error *error)
{
    const entry *found = find_entry(file, key);
    if (!found) {
        infer_fail(error, "the file has no key '%s'; %s is expected", key, wanted);
        return NULL;
    }
    if (found->is_array != array) {
        wrong_kind(found, key, wanted, error);
        return NULL;
    }
    return found;
}

int gguf_get_u32(const gguf_file *file, const char *key, uint32_t *out, infer_error *error)
{
    const char *wanted = "an unsigned 32-bit integer";
    const entry *found = get_entry(file, key, false, wanted, error);
    bool negative;
    uint64_t magnitude;
    if (!found) return -1;
    if (!load_integer(found->type, found->data, &negative, &magnitude))
        return wrong_kind(found, key, wanted, error);
    if (negative || magnitude > UINT32_MAX)
        return infer_fail(error, "key '%s' is %s%" PRIu64 "; 0 to %" PRIu32 " is expected", key,
                          negative ? "-" : "", magnitude, UINT32_MAX);
    *out = (uint32_t)magnitude;
    return 0;
}

static bool load_float(uint32_t type, const uint8_t *data, float *out)
{
    if (type == VALUE_F32) {
        memcpy(out, data, sizeof *out);
        return true;
    }
    if (type != VALUE_F64) return false;
    double wide;
    memcpy(&wide, data, sizeof wide);
    *out = (float)wide;
    return true;
}

int gguf_get_float(const gguf_file *file, const char *key, float *out, infer_error *error)
{
    const char *wanted = "a finite floating-point number";
    const entry *found = get_entry(file, key, false, wanted, error);
    float value;
    if (!found) return -1;
    if (!load_float(found->type, found->data, &value) || !isfinite(value))
        return wrong_kind(found, key, wanted, error);
    *out = value;
    return 0;
}

int gguf_get_bool(const gguf_file *file, const char *key, bool *out, infer_error *error)
{
    const entry *found = get_entry(file, key, false, "a bool", error);
    if (!found) return -1;
    if (found->type != VALUE_BOOL) return wrong_kind(found, key, "a bool", error);
    *out = *found->data != 0;
    return 0;
}

static gguf_string string_at(const uint8_t *data)
{
    uint64_t length;
    memcpy(&length, data, sizeof length);
    return (gguf_string){ (const char *)data + sizeof length, (size_t)length };
}

int gguf_get_string(const gguf_file *file, const char *key, gguf_string *out, infer_error *error)
{
    const entry *found = get_entry(file, key, false, "a string", error);
    if (!found) return -1;
    if (found->type != VALUE_STRING) return wrong_kind(found, key, "a string", error);
    *out = string_at(found->data);
    return 0;
}

/* Room for the elements of an array, whose count the file's size bounds (rule 1). */
static void *array_room(const entry *found, const char *key, size_t size, infer_error *error)
{
    void *room = calloc(found->count ? (size_t)found->count : 1, size);
    if (!room) infer_fail(error, "out of memory for the %" PRIu64 " elements of key '%s'", found->count, key);
    return room;
}

int gguf_get_strings(const gguf_file *file, const char *key, gguf_string **out, size_t *count,
                     infer_error *error)
{
    const entry *found = get_entry(file, key, true, "a string array", error);
    if (!found) return -1;
    if (found->type != VALUE_STRING) return wrong_kind(found, key, "a string array", error);
    gguf_string *strings = array_room(found, key, sizeof *strings, error);
    if (!strings) return -1;
    const uint8_t *at = found->data;
    for (size_t i = 0; i < found->count; i++) {
        strings[i] = string_at(at);
        at = (const uint8_t *)strings[i].data + strings[i].length;
    }
    *out = strings;
    *count = (size_t)found->count;
    return 0;
}

int gguf_get_ints(const gguf_file *file, const char *key, int32_t **out, size_t *count, infer_error *error)
{
    const entry *found = get_entry(file, key, true, "an integer array", error);
    if (!found) return -1;
    int32_t *values = array_room(found, key, sizeof *values, error);
    if (!values) return -1;
    for (size_t i = 0; i < found->count; i++) {
        bool negative;
        uint64_t magnitude;
        if (!load_integer(found->type, found->data + i * value_bytes[found->type], &negative, &magnitude)) {
            free(values);
            return wrong_kind(found, key, "an integer array", error);
        }
        if (magnitude > (uint64_t)INT32_MAX + negative) {
            free(values);
            return infer_fail(error, "element %zu of key '%s' does not fit 32 bits", i, key);
        }
        values[i] = (int32_t)(negative ? -(int64_t)magnitude : (int64_t)magnitude);
    }
    *out = values;
    *count = (size_t)found->count;
    return 0;
}

int gguf_get_floats(const gguf_file *file, const char *key, float **out, size_t *count, infer_error *error)
{
    const entry *found = get_entry(file, key, true, "a floating-point array", error);
    if (!found) return -1;
    float *values = array_room(found, key, sizeof *values, error);
    if (!values) return -1;
    for (size_t i = 0; i < found->count; i++) {
        if (!load_float(found->type, found->data + i * value_bytes[found->type], &values[i])) {
            free(values);
            return wrong_kind(found, key, "a floating-point array", error);
        }
    }
    *out = values;
    *count = (size_t)found->count;
    return 0;
}

/* ---- tensors ---------------------------------------------------------------------------------------- */

size_t gguf_tensor_count(const gguf_file *file)
{
    return file->tensor_count;
}

const gguf_tensor *gguf_tensor_at(const gguf_file *file, size_t index)
{
    return &file->tensors[index];
}

const gguf_tensor *gguf_find_tensor(const gguf_file *file, const char *name)
{
    return find_name(file->tensors, file->tensor_count, sizeof *file->tensors, name);
}

int gguf_tensor_rows(const gguf_tensor *tensor, uint64_t first, uint64_t count, float *out,
                     infer_error *error)
{
    if (first > tensor->rows || count > tensor->rows - first)
        return infer_fail(error, "rows %" PRIu64 " to %" PRIu64 " of tensor '%.*s' are asked for; it has %"
                          PRIu64, first, first + count, SHOWN(tensor->name), tensor->rows);
    /* Rows are whole blocks and lie one behind the other, so many decode as one. */
    dequant(tensor->type, tensor->data + first * tensor->row_bytes, (size_t)(count * tensor->ne[0]), out);
    return 0;
}
