/* The GGUF reader over small files made here, whole, cut, corrupted and absurd. Under a sanitizer a read past
 * the end is seen, since every file lies in an allocation of exactly its size. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dequant.h"
#include "gguf.h"
#include "gguf_builder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- help ------------------------------------------------------------------------------------------- */

static const uint64_t matrix_ne[] = { 3, 2 }, quantised_ne[] = { 32, 2 };
static const float matrix_values[] = { 1, 2, 3, 4, 5, 6 };

/* A valid file with every kind of record. */
static void build_valid(gguf_builder *b)
{
    static const char *const words[] = { "one", "", "three" };
    static const int32_t numbers[] = { 7, -8, INT32_MAX };
    build_header(b, 2, 9);
    build_key_u32(b, "general.alignment", 64);
    build_key_u32(b, "a.u32", 4000000000u);
    build_key_float(b, "a.float", 0.5f);
    build_key_bool(b, "a.bool", 1);
    build_key_string(b, "a.string", "text");
    build_key_strings(b, "a.strings", words, 3);
    build_key_ints(b, "a.ints", numbers, 3);
    build_key_ints(b, "a.empty", numbers, 0);
    build_string(b, "a.nested");          /* an array of one array of two bytes */
    build_u32(b, 9);
    build_u32(b, 9);
    build_u64(b, 1);
    build_u32(b, 0);
    build_u64(b, 2);
    build_raw(b, "\1\2", 2);
    build_tensor(b, "z.matrix", 2, matrix_ne, TENSOR_F32, 0);
    build_tensor(b, "a.quantised", 2, quantised_ne, TENSOR_Q8_0, 64);
    build_padding(b, 64);
    build_raw(b, matrix_values, sizeof matrix_values);
    build_padding(b, 64);
    for (int row = 0; row < 2; row++) {
        build_raw(b, "\x00\x3c", 2);      /* scale 1.0 */
        for (int i = 0; i < 32; i++) build_raw(b, &(int8_t){ (int8_t)(i - 16 * row) }, 1);
    }
}

/* Opens a copy of the bytes that ends where the allocation ends. On success the copy is the caller's too. */
static int open_copy(gguf_file **file, const uint8_t *bytes, size_t size, uint8_t **copy, infer_error *error)
{
    *copy = malloc(size ? size : 1);
    assert_non_null(*copy);
    if (size) memcpy(*copy, bytes, size);
    memset(error, 0, sizeof *error);
    int result = gguf_open_memory(file, *copy, size, error);
    if (result) free(*copy);
    return result;
}

/* The file is refused with a message that has this in it. */
static void check_refused(const gguf_builder *b, const char *wanted)
{
    infer_error error;
    gguf_file *file;
    uint8_t *copy;
    if (!open_copy(&file, b->bytes, b->size, &copy, &error)) fail_msg("opened; '%s' was expected", wanted);
    if (!strstr(error.text, wanted)) fail_msg("'%s' is not in: %s", wanted, error.text);
    assert_null(strchr(error.text, '\n'));
}

static gguf_file *open_valid(uint8_t **copy)
{
    static gguf_builder b;
    infer_error error;
    gguf_file *file;
    build_valid(&b);
    if (open_copy(&file, b.bytes, b.size, copy, &error)) fail_msg("%s", error.text);
    return file;
}

/* Reads all that a file offers, whatever it is. */
static void read_everything(const gguf_file *file)
{
    static const char *const keys[] = { "a.u32", "a.float", "a.bool", "a.string", "a.strings", "a.ints",
                                        "a.empty", "a.nested", "general.alignment", "absent" };
    infer_error error;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        uint32_t number;
        float real, *reals;
        bool flag;
        gguf_string text, *texts;
        int32_t *numbers;
        size_t count;
        (void)gguf_get_u32(file, keys[i], &number, &error);
        (void)gguf_get_float(file, keys[i], &real, &error);
        (void)gguf_get_bool(file, keys[i], &flag, &error);
        if (!gguf_get_string(file, keys[i], &text, &error)) (void)gguf_string_is(text, "text");
        if (!gguf_get_strings(file, keys[i], &texts, &count, &error)) {
            for (size_t k = 0; k < count; k++) (void)gguf_string_is(texts[k], "three");
            free(texts);
        }
        if (!gguf_get_ints(file, keys[i], &numbers, &count, &error)) free(numbers);
        if (!gguf_get_floats(file, keys[i], &reals, &count, &error)) free(reals);
    }
    for (size_t i = 0; i < gguf_tensor_count(file); i++) {
        const gguf_tensor *tensor = gguf_tensor_at(file, i);
        if (tensor->ne[0] > 4096) continue;
        float *row = malloc(tensor->ne[0] * sizeof *row);
        assert_non_null(row);
        assert_int_equal(gguf_tensor_rows(tensor, tensor->rows - 1, 1, row, &error), 0);
        free(row);
    }
}

/* ---- a valid file ----------------------------------------------------------------------------------- */

static void values_come_back_as_they_were_written(void **state)
{
    (void)state;
    uint8_t *copy;
    gguf_file *file = open_valid(&copy);
    infer_error error;
    uint32_t number;
    float real;
    bool flag = false;
    gguf_string text, *texts;
    int32_t *numbers;
    size_t count;
    assert_true(gguf_has(file, "a.u32"));
    assert_false(gguf_has(file, "a.u3"));
    assert_int_equal(gguf_get_u32(file, "a.u32", &number, &error), 0);
    assert_int_equal(number, 4000000000u);
    assert_int_equal(gguf_get_float(file, "a.float", &real, &error), 0);
    assert_true(real == 0.5f);
    assert_int_equal(gguf_get_bool(file, "a.bool", &flag, &error), 0);
    assert_true(flag);
    assert_int_equal(gguf_get_string(file, "a.string", &text, &error), 0);
    assert_true(gguf_string_is(text, "text"));
    assert_int_equal(gguf_get_strings(file, "a.strings", &texts, &count, &error), 0);
    assert_int_equal(count, 3);
    assert_true(gguf_string_is(texts[0], "one") && gguf_string_is(texts[1], "") &&
                gguf_string_is(texts[2], "three"));
    free(texts);
    assert_int_equal(gguf_get_ints(file, "a.ints", &numbers, &count, &error), 0);
    assert_int_equal(count, 3);
    assert_true(numbers[0] == 7 && numbers[1] == -8 && numbers[2] == INT32_MAX);
    free(numbers);
    assert_int_equal(gguf_get_ints(file, "a.empty", &numbers, &count, &error), 0);
    assert_int_equal(count, 0);
    free(numbers);
    gguf_close(file);
    free(copy);
}

static void tensors_are_found_and_decoded_by_rows(void **state)
{
    (void)state;
    uint8_t *copy;
    gguf_file *file = open_valid(&copy);
    infer_error error;
    float out[64];
    const gguf_tensor *matrix = gguf_find_tensor(file, "z.matrix");
    const gguf_tensor *quantised = gguf_find_tensor(file, "a.quantised");
    assert_int_equal(gguf_tensor_count(file), 2);
    assert_ptr_equal(gguf_tensor_at(file, 0), quantised);
    assert_null(gguf_find_tensor(file, "a.quantise"));
    assert_non_null(matrix);
    assert_true(matrix->dimensions == 2 && matrix->ne[0] == 3 && matrix->ne[1] == 2 && matrix->ne[2] == 1);
    assert_true(matrix->rows == 2 && matrix->row_bytes == 12);
    assert_int_equal(gguf_tensor_rows(matrix, 0, 2, out, &error), 0);
    assert_memory_equal(out, matrix_values, sizeof matrix_values);
    assert_int_equal(gguf_tensor_rows(quantised, 1, 1, out, &error), 0);
    for (int i = 0; i < 32; i++) assert_true(out[i] == (float)(i - 16));
    assert_int_equal(gguf_tensor_rows(matrix, 2, 0, out, &error), 0);
    assert_int_equal(gguf_tensor_rows(matrix, 1, 2, out, &error), -1);
    assert_int_equal(gguf_tensor_rows(matrix, UINT64_MAX, 2, out, &error), -1);
    assert_non_null(strstr(error.text, "of tensor 'z.matrix' are asked for; it has 2"));
    gguf_close(file);
    free(copy);
}

static void a_value_of_another_kind_is_refused_by_its_getter(void **state)
{
    (void)state;
    uint8_t *copy;
    gguf_file *file = open_valid(&copy);
    infer_error error;
    uint32_t number;
    float real;
    gguf_string text, *texts;
    size_t count;
    assert_int_equal(gguf_get_u32(file, "absent", &number, &error), -1);
    assert_string_equal(error.text, "the file has no key 'absent'; an unsigned 32-bit integer is expected");
    assert_int_equal(gguf_get_u32(file, "a.float", &number, &error), -1);
    assert_string_equal(error.text, "key 'a.float' is float32; an unsigned 32-bit integer is expected");
    assert_int_equal(gguf_get_float(file, "a.ints", &real, &error), -1);
    assert_string_equal(error.text, "key 'a.ints' is int32 array; a finite floating-point number is expected");
    assert_int_equal(gguf_get_string(file, "a.strings", &text, &error), -1);
    assert_int_equal(gguf_get_strings(file, "a.ints", &texts, &count, &error), -1);
    assert_int_equal(gguf_get_strings(file, "a.nested", &texts, &count, NULL), -1);
    gguf_close(file);
    free(copy);
}

static void a_file_on_disk_is_mapped_and_a_wrong_path_is_named(void **state)
{
    (void)state;
    static gguf_builder b;
    char path[] = "/tmp/test_gguf_XXXXXX";
    infer_error error;
    gguf_file *file;
    build_valid(&b);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, b.bytes, b.size), (ssize_t)b.size);
    assert_int_equal(gguf_open(&file, path, &error), 0);
    read_everything(file);
    gguf_close(file);
    assert_int_equal(ftruncate(fd, (off_t)b.size - 1), 0);
    assert_int_equal(gguf_open(&file, path, &error), -1);
    assert_non_null(strstr(error.text, path));
    assert_non_null(strstr(error.text, "truncated"));
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(gguf_open(&file, path, &error), -1);
    assert_non_null(strstr(error.text, "has 0 bytes"));
    close(fd);
    unlink(path);
    assert_int_equal(gguf_open(&file, path, &error), -1);
    assert_non_null(strstr(error.text, "No such file"));
    assert_int_equal(gguf_open(&file, "/", &error), -1);
    assert_non_null(strstr(error.text, "not a regular file"));
}

/* ---- damage ----------------------------------------------------------------------------------------- */

static void every_truncation_is_an_error(void **state)
{
    (void)state;
    static gguf_builder b;
    infer_error error;
    gguf_file *file;
    uint8_t *copy;
    build_valid(&b);
    for (size_t size = 0; size < b.size; size++) {
        if (!open_copy(&file, b.bytes, size, &copy, &error)) fail_msg("opened at %zu of %zu bytes", size, b.size);
        assert_true(strlen(error.text) > 10);
    }
}

static void every_changed_byte_is_survived(void **state)
{
    (void)state;
    static const uint8_t changes[] = { 0x01, 0x80, 0xff, 0x7f, 0x10 };
    static gguf_builder b;
    infer_error error;
    gguf_file *file;
    uint8_t *copy;
    build_valid(&b);
    for (size_t at = 0; at < b.size; at++) {
        for (size_t i = 0; i < sizeof changes; i++) {
            b.bytes[at] ^= changes[i];
            if (!open_copy(&file, b.bytes, b.size, &copy, &error)) {
                read_everything(file);
                gguf_close(file);
                free(copy);
            }
            b.bytes[at] ^= changes[i];
        }
    }
}

static void random_damage_is_survived(void **state)
{
    (void)state;
    static gguf_builder whole, b;
    infer_error error;
    uint64_t random = 20240615;
    print_message("seed %llu\n", (unsigned long long)random);
    build_valid(&whole);
    for (int round = 0; round < 50000; round++) {
        gguf_file *file;
        uint8_t *copy;
        memcpy(&b, &whole, sizeof b);
        for (int change = round % 4; change >= 0; change--) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            b.bytes[(random >> 32) % b.size] = (uint8_t)(random >> 24 & (random >> 60 ? 0xff : 0x0f));
        }
        if (open_copy(&file, b.bytes, b.size, &copy, &error)) continue;
        read_everything(file);
        gguf_close(file);
        free(copy);
    }
}

/* ---- files that are wrong on purpose ------------------------------------------------------------------ */

static void a_file_of_another_format_is_named_as_such(void **state)
{
    (void)state;
    static gguf_builder b;
    build_header(&b, 0, 0);
    memcpy(b.bytes, "PK\3\4", 4);
    check_refused(&b, "not a GGUF file: it begins with bytes 50 4b 03 04");
    build_header(&b, 0, 0);
    b.bytes[4] = 1;
    check_refused(&b, "GGUF version 1; this reader knows versions 2 and 3");
    memcpy(b.bytes + 4, "\0\0\0\3", 4);
    check_refused(&b, "(a big-endian file)");
    b.size = 0;
    check_refused(&b, "the file is empty");
}

static void absurd_counts_are_refused_before_memory_is_taken(void **state)
{
    (void)state;
    static const uint64_t counts[] = { 1000, UINT32_MAX, UINT64_MAX / 13 + 1, UINT64_MAX };
    static gguf_builder b;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        build_header(&b, 0, counts[i]);
        build_padding(&b, 64);
        check_refused(&b, "metadata keys, but only 40 bytes follow");
        build_header(&b, counts[i], 0);
        build_padding(&b, 64);
        check_refused(&b, "tensors, but only 40 bytes follow");
        build_header(&b, 0, 1);
        build_string(&b, "k");
        build_u32(&b, 9);
        build_u32(&b, i % 2 ? 8 : 4);
        build_u64(&b, counts[i]);
        build_padding(&b, 64);
        check_refused(&b, i % 2 || counts[i] < UINT64_MAX / 8 ? "truncated" : "more than any file holds");
        build_header(&b, 0, 1);
        build_u64(&b, counts[i]);
        build_padding(&b, 64);
        check_refused(&b, "the file is truncated: a metadata key");
    }
}

static void wrong_keys_are_refused(void **state)
{
    (void)state;
    static gguf_builder b;
    build_header(&b, 0, 1);
    build_string(&b, "k");
    build_u32(&b, 13);
    build_u64(&b, 0);
    check_refused(&b, "key 'k' has value type 13");
    build_header(&b, 0, 2);
    build_key_u32(&b, "k", 1);
    build_key_u32(&b, "k", 2);
    check_refused(&b, "two metadata keys are named 'k'");
    build_header(&b, 0, 1);
    build_string(&b, "deep");
    for (int depth = 0; depth < 8; depth++) {
        build_u32(&b, 9);
        if (depth) build_u64(&b, 1);
    }
    build_padding(&b, 64);
    check_refused(&b, "key 'deep' nests arrays deeper than 4");
    static const uint32_t alignments[] = { 0, 3, 48, 1u << 31 };
    for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++) {
        build_header(&b, 0, 1);
        build_key_u32(&b, "general.alignment", alignments[i]);
        check_refused(&b, "it must be a power of two");
    }
    build_header(&b, 0, 1);
    build_key_string(&b, "general.alignment", "x");
    check_refused(&b, "key 'general.alignment' is string");
}

static void check_tensor(uint32_t dimensions, const uint64_t *ne, uint32_t type, uint64_t offset,
                         const char *wanted)
{
    static gguf_builder b;
    build_header(&b, 1, 0);
    build_tensor(&b, "t", dimensions, ne, type, offset);
    build_padding(&b, 32);
    for (int i = 0; i < 512; i++) build_raw(&b, "", 1);
    check_refused(&b, wanted);
}

static void wrong_tensors_are_refused(void **state)
{
    (void)state;
    const uint64_t small[] = { 32, 1, 1, 1, 1 }, zero[] = { 32, 0 }, odd[] = { 33 };
    const uint64_t huge[] = { UINT64_MAX }, wide[] = { UINT64_MAX / 4 + 1 }, many[] = { 1, UINT64_MAX / 2, 4 };
    const uint64_t product[] = { 32, 1u << 31, 1u << 31 }, longer[] = { 129 };
    check_tensor(0, small, TENSOR_F32, 0, "tensor 't' has 0 dimensions; a tensor has 1 to 4");
    check_tensor(5, small, TENSOR_F32, 0, "tensor 't' has 5 dimensions");
    check_tensor(2, zero, TENSOR_F32, 0, "tensor 't' has a dimension of 0");
    check_tensor(1, small, 10, 0, "tensor 't' has type 10 (Q2_K); this reader knows " TENSOR_TYPES_KNOWN);
    check_tensor(1, small, 77, 0, "tensor 't' has type 77 (unknown)");
    check_tensor(1, odd, TENSOR_Q8_0, 0, "tensor 't' has rows of 33 values; Q8_0 needs a multiple of 32");
    check_tensor(1, small, TENSOR_F32, 8, "at offset 8, which the file's alignment of 32 does not divide");
    check_tensor(1, small, TENSOR_F32, 512, "runs past the 512 bytes of the data section");
    check_tensor(1, small, TENSOR_F32, UINT64_MAX - 31, "runs past");
    check_tensor(1, longer, TENSOR_F32, 0, "runs past");
    check_tensor(1, huge, TENSOR_F32, 0, "runs past");
    check_tensor(1, wide, TENSOR_F32, 0, "runs past");
    check_tensor(3, product, TENSOR_F32, 0, "runs past");
    check_tensor(3, many, TENSOR_F32, 0, "more rows than 64 bits count");
}

static void two_tensors_of_one_name_are_refused(void **state)
{
    (void)state;
    static gguf_builder b;
    const uint64_t ne[] = { 1 };
    build_header(&b, 2, 0);
    build_tensor(&b, "t", 1, ne, TENSOR_F32, 0);
    build_tensor(&b, "t", 1, ne, TENSOR_F32, 0);
    build_padding(&b, 32);
    build_u32(&b, 0);
    check_refused(&b, "two tensors are named 't'");
}

static void a_name_cannot_break_the_error_line(void **state)
{
    (void)state;
    static gguf_builder b;
    build_header(&b, 0, 1);
    build_string(&b, "evil\n\x1b[31m");
    build_u32(&b, 99);
    build_u64(&b, 0);
    check_refused(&b, "key 'evil??[31m' has value type 99");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_come_back_as_they_were_written),
        cmocka_unit_test(tensors_are_found_and_decoded_by_rows),
        cmocka_unit_test(a_value_of_another_kind_is_refused_by_its_getter),
        cmocka_unit_test(a_file_on_disk_is_mapped_and_a_wrong_path_is_named),
        cmocka_unit_test(every_truncation_is_an_error),
        cmocka_unit_test(every_changed_byte_is_survived),
        cmocka_unit_test(random_damage_is_survived),
        cmocka_unit_test(a_file_of_another_format_is_named_as_such),
        cmocka_unit_test(absurd_counts_are_refused_before_memory_is_taken),
        cmocka_unit_test(wrong_keys_are_refused),
        cmocka_unit_test(wrong_tensors_are_refused),
        cmocka_unit_test(two_tensors_of_one_name_are_refused),
        cmocka_unit_test(a_name_cannot_break_the_error_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
