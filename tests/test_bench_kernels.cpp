/* test_bench_kernels.cpp: the benchmark's own kernels, run by the emulator: they move and read what they say. */
#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
extern "C" {
#include "support/testing.h"
}
#include <algorithm>
#include <vector>

#include "bench/gpu_kernels.h"

static std::vector<uint32_t> noise(size_t words)
{
    std::vector<uint32_t> values(words);
    uint32_t x = 1;
    for (uint32_t &value : values)
        value = x = x * 1664525u + 1013904223u;
    return values;
}

static void a_copy_is_whole_whatever_the_grid(void **)
{
    for (unsigned blocks : {1u, 3u, 64u}) {
        const std::vector<uint32_t> from = noise((100 * 1024 + 16) / 4); /* four slices, the last one short */
        std::vector<uint32_t> to(from.size() + 4, 7);
        assert_int_equal(bench_gpu_copy(to.data(), from.data(), from.size() * 4, blocks, nullptr), 0);
        assert_true(std::equal(from.begin(), from.end(), to.begin()));
        assert_int_equal(to[from.size()], 7);
    }
}

static void a_read_writes_nothing_unless_the_words_mix_to_the_magic_number(void **)
{
    std::vector<uint32_t> from = noise(4 * 1000);
    alignas(16) uint32_t sink = 5;
    assert_int_equal(bench_gpu_load(from.data(), from.size() * 4, 3, &sink, nullptr), 0);
    assert_int_equal(sink, 5);
    std::fill(from.begin(), from.end(), 0u);
    from.back() = 0x9e3779b9u; /* the last word: so it was read */
    assert_int_equal(bench_gpu_load(from.data(), from.size() * 4, 3, &sink, nullptr), 0);
    assert_int_equal(sink, 0x9e3779b9u);
}

static void what_is_not_aligned_is_refused(void **)
{
    alignas(16) uint32_t words[16] = {};
    assert_int_not_equal(bench_gpu_copy(words, words + 9, 16, 1, nullptr), 0);
    assert_int_not_equal(bench_gpu_copy(words, words + 8, 12, 1, nullptr), 0);
    assert_int_not_equal(bench_gpu_copy(words, words + 8, 16, 0, nullptr), 0);
    assert_int_not_equal(bench_gpu_load(words, 16, 1, nullptr, nullptr), 0);
}

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_copy_is_whole_whatever_the_grid),
        cmocka_unit_test(a_read_writes_nothing_unless_the_words_mix_to_the_magic_number),
        cmocka_unit_test(what_is_not_aligned_is_refused),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
