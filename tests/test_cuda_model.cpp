/* The example engine's own CUDA kernels, run by the emulator against plain loops. */
#include <cmath>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <vector>

#include "kernels/cuda_compat.cuh"

#define INFER_LAUNCH(kernel, grid, block, stream, ...) QK_LAUNCH(kernel, grid, block, 0, stream, __VA_ARGS__)
#define INFER_LAUNCH_STATUS() qk_launch_status()
#include "examples/infer/cuda_kernels.cu"

extern "C" {
#include <setjmp.h>
#include <cmocka.h>
}

namespace {

std::vector<float> noise(size_t count, unsigned seed) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    std::vector<float> values(count);
    for (float &value : values)
        value = normal(generator);
    return values;
}

void expect_close(float got, double expected) {
    if (!(std::fabs(got - expected) <= 1e-5 * (1.0 + std::fabs(expected))))
        fail_msg("%g is not %g", static_cast<double>(got), expected);
}

void pick_copies_and_scales_the_chosen_rows(void **) {
    const std::vector<float> x = noise(10 * 100, 1);
    const std::vector<int32_t> rows = {7, 0, 7, 9};
    std::vector<float> y(4 * 96, -1.0f);
    assert_int_equal(cuda_pick(x.data(), 100, rows.data(), 4, 90, 2.5f, y.data(), 96, nullptr), 0);
    for (size_t i = 0; i < 4; i++)
        for (size_t c = 0; c < 96; c++)
            assert_true(y[i * 96 + c] == (c < 90 ? x[rows[i] * 100 + c] * 2.5f : -1.0f));
}

void norm_divides_by_the_root_mean_square(void **) {
    const std::vector<float> x = noise(3 * 96, 2), gain = noise(90, 3);
    const std::vector<float> before = noise(3 * 96, 6);
    std::vector<float> y(3 * 96), sum = before;
    assert_int_equal(cuda_norm(x.data(), gain.data(), 1e-5f, y.data(), 3, 90, 96, 0, nullptr), 0);
    assert_int_equal(cuda_norm(x.data(), gain.data(), 1e-5f, sum.data(), 3, 90, 96, 1, nullptr), 0);
    for (size_t t = 0; t < 3; t++) {
        double squares = 0;
        for (size_t c = 0; c < 90; c++)
            squares += static_cast<double>(x[t * 96 + c]) * x[t * 96 + c];
        for (size_t c = 0; c < 90; c++) {
            const double wanted = x[t * 96 + c] / std::sqrt(squares / 90 + 1e-5) * gain[c];
            expect_close(y[t * 96 + c], wanted);
            expect_close(sum[t * 96 + c], before[t * 96 + c] + wanted);
        }
    }
}

void heads_are_normed_one_by_one(void **) {
    const uint32_t heads = 3, head_dim = 16;
    std::vector<float> x = noise(2 * 64, 7);
    const std::vector<float> before = x, gain = noise(head_dim, 8);
    assert_int_equal(cuda_norm_heads(x.data(), gain.data(), 1e-5f, 2, heads, head_dim, 64, nullptr), 0);
    for (size_t t = 0; t < 2; t++)
        for (size_t i = 0; i < 64; i++) {
            double squares = 0;
            for (size_t j = i - i % head_dim; j < i - i % head_dim + head_dim; j++)
                squares += static_cast<double>(before[t * 64 + j]) * before[t * 64 + j];
            const double normed = before[t * 64 + i] / std::sqrt(squares / head_dim + 1e-5) * gain[i % head_dim];
            expect_close(x[t * 64 + i], i < heads * head_dim ? normed : before[t * 64 + i]);
        }
}

void rope_turns_each_pair_by_its_position(void **) {
    const uint32_t heads = 3, head_dim = 16;
    const std::vector<int32_t> positions = {4, 0};
    std::vector<float> table(5 * head_dim), x = noise(2 * 64, 4);
    const std::vector<float> before = x;
    for (size_t i = 0; i < table.size(); i += 2) {
        table[i] = std::cos(0.1f * static_cast<float>(i));
        table[i + 1] = std::sin(0.1f * static_cast<float>(i));
    }
    assert_int_equal(cuda_rope(x.data(), table.data(), positions.data(), 2, heads, head_dim, 64, nullptr), 0);
    for (size_t t = 0; t < 2; t++)
        for (size_t i = 0; i < heads * head_dim; i += 2) {
            const double angle = 0.1f * static_cast<float>(positions[t] * head_dim + i % head_dim);
            const double even = before[t * 64 + i], odd = before[t * 64 + i + 1];
            expect_close(x[t * 64 + i], even * std::cos(angle) - odd * std::sin(angle));
            expect_close(x[t * 64 + i + 1], even * std::sin(angle) + odd * std::cos(angle));
        }
    for (size_t i = heads * head_dim; i < 64; i++)
        assert_true(x[i] == before[i]);
}

void both_gates_multiply(void **) {
    const std::vector<float> x = noise(2 * 192, 5);
    std::vector<float> silu(2 * 96), gelu(2 * 96);
    assert_int_equal(cuda_gate(x.data(), 192, silu.data(), 96, 2, 90, 0, nullptr), 0);
    assert_int_equal(cuda_gate(x.data(), 192, gelu.data(), 96, 2, 90, 1, nullptr), 0);
    for (size_t t = 0; t < 2; t++)
        for (size_t i = 0; i < 90; i++) {
            const double gate = x[t * 192 + i], up = x[t * 192 + 90 + i];
            expect_close(silu[t * 96 + i], gate / (1.0 + std::exp(-gate)) * up);
            const double u = 0.7978845608028654 * (gate + 0.044715 * gate * gate * gate);
            expect_close(gelu[t * 96 + i], 0.5 * gate * (1.0 + std::tanh(u)) * up);
        }
}

void nothing_to_do_is_no_launch(void **) {
    assert_int_equal(cuda_pick(nullptr, 1, nullptr, 0, 1, 1, nullptr, 1, nullptr), 0);
    assert_int_equal(cuda_norm(nullptr, nullptr, 0, nullptr, 0, 1, 1, 0, nullptr), 0);
    assert_int_equal(cuda_norm_heads(nullptr, nullptr, 0, 0, 1, 2, 2, nullptr), 0);
    assert_int_equal(cuda_rope(nullptr, nullptr, nullptr, 0, 1, 2, 2, nullptr), 0);
    assert_int_equal(cuda_gate(nullptr, 1, nullptr, 1, 0, 1, 0, nullptr), 0);
}

}  // namespace

int main() {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pick_copies_and_scales_the_chosen_rows),
        cmocka_unit_test(norm_divides_by_the_root_mean_square),
        cmocka_unit_test(rope_turns_each_pair_by_its_position),
        cmocka_unit_test(heads_are_normed_one_by_one),
        cmocka_unit_test(both_gates_multiply),
        cmocka_unit_test(nothing_to_do_is_no_launch),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
