#include "support/testing.h"

#include <string.h>

#include "base/memory.h"

typedef struct counting {
    size_t taken, given, bytes;
    int refuse;
} counting;

static void *count_alloc(void *user, size_t bytes)
{
    counting *counting = user;
    if (counting->refuse)
        return NULL;
    counting->taken++;
    counting->bytes = bytes;
    char *memory = malloc(bytes + 8); /* as unaligned as an allocator may be */
    if (!memory)
        return NULL;
    memset(memory, 0xa5, bytes + 8);
    return memory + 8;
}

static void count_free(void *user, void *memory)
{
    ((counting *)user)->given++;
    free((char *)memory - 8);
}

static int is_zero(const unsigned char *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (bytes[i])
            return 0;
    }
    return 1;
}

static void memory_is_aligned_and_zeroed_whatever_the_allocator_gives(void **state)
{
    (void)state;
    counting counting = {0};
    const quire__allocator allocator = {count_alloc, count_free, &counting};
    for (size_t count = 0; count < 300; count++) {
        void *memory = NULL;
        assert_int_equal(quire__memory_take(&allocator, count, 3, "a test", &memory), QUIRE_OK);
        assert_int_equal((uintptr_t)memory % 64, 0);
        assert_true(is_zero(memory, count * 3));
        memset(memory, 0xff, count * 3);
        quire__memory_give(&allocator, memory);
    }
    assert_int_equal(counting.taken, 300);
    assert_int_equal(counting.given, 300);
}

static void large_memory_is_zeroed_too(void **state)
{
    (void)state;
    const size_t bytes = (size_t)9 << 20;
    void *memory = NULL;
    assert_int_equal(quire__memory_take(&quire__allocator_default, bytes, 1, "a test", &memory), QUIRE_OK);
    assert_true(is_zero(memory, bytes));
    quire__memory_give(&quire__allocator_default, memory);
}

static void a_refusal_names_what_and_how_much(void **state)
{
    (void)state;
    counting counting = {.refuse = 1};
    const quire__allocator allocator = {count_alloc, count_free, &counting};
    void *memory = &counting;
    assert_int_equal(quire__memory_take(&allocator, 10, 7, "block records", &memory), QUIRE_ENOMEM);
    assert_ptr_equal(memory, &counting);
    assert_non_null(strstr(quire_error_text(), "block records"));
    assert_non_null(strstr(quire_error_text(), "70 bytes"));
}

static void a_size_that_overflows_is_refused(void **state)
{
    (void)state;
    counting counting = {0};
    const quire__allocator allocator = {count_alloc, count_free, &counting};
    void *memory = NULL;
    assert_int_equal(quire__memory_take(&allocator, SIZE_MAX / 2, 3, "a test", &memory), QUIRE_ENOMEM);
    assert_int_equal(quire__memory_take(&allocator, SIZE_MAX, 1, "a test", &memory), QUIRE_ENOMEM);
    assert_int_equal(counting.taken, 0);
}

static void giving_nothing_is_allowed(void **state)
{
    (void)state;
    quire__memory_give(&quire__allocator_default, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_aligned_and_zeroed_whatever_the_allocator_gives),
        cmocka_unit_test(large_memory_is_zeroed_too),
        cmocka_unit_test(a_refusal_names_what_and_how_much),
        cmocka_unit_test(a_size_that_overflows_is_refused),
        cmocka_unit_test(giving_nothing_is_allowed),
    };
    return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
