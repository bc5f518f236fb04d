/* The host backend's arithmetic, in each instruction set that this CPU has: right, and for a token the same bits whatever
 * stands beside it. And the worker threads that share its loops. */
#include "support/testing.h"

#include "host_kernels.h"
#include "workers.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum { MOST_TOKENS = 40, MOST_COLUMNS = 300, MOST_PANEL = 64 };

static size_t kernel_sets(const host_kernels **sets)
{
    size_t count = 0;
    sets[count++] = &host_kernels_baseline;
#ifdef INFER_X86_64
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) sets[count++] = &host_kernels_avx2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
        sets[count++] = &host_kernels_avx512;
#endif
    return count;
}

static void fill(float *values, size_t count, uint64_t *state)
{
    for (size_t i = 0; i < count; i++) {
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        values[i] = (float)((double)(*state >> 33) / 0x1p31 * 2 - 1);
    }
}

static void check_product(const host_kernels *k, uint32_t columns, uint64_t *random)
{
    static float panel[MOST_PANEL * MOST_COLUMNS], x[MOST_TOKENS * MOST_COLUMNS];
    static float alone[MOST_TOKENS][MOST_PANEL], together[MOST_TOKENS * MOST_PANEL];
    fill(panel, k->panel * columns, random);
    fill(x, MOST_TOKENS * columns, random);
    for (uint32_t t = 0; t < MOST_TOKENS; t++) {
        k->matmul(panel, columns, x + t * columns, columns, alone[t], k->panel, 1, false);
        for (uint32_t r = 0; r < k->panel; r++) {
            double sum = 0;
            for (uint32_t c = 0; c < columns; c++) sum += (double)x[t * columns + c] * (double)panel[c * k->panel + r];
            assert_true(fabs(sum - (double)alone[t][r]) < 1e-4);
        }
    }
    for (uint32_t tokens = 1; tokens <= MOST_TOKENS; tokens++) {
        uint32_t first = MOST_TOKENS - tokens;
        k->matmul(panel, columns, x + first * columns, columns, together, k->panel, tokens, false);
        for (uint32_t t = 0; t < tokens; t++)
            assert_memory_equal(together + t * k->panel, alone[first + t], k->panel * sizeof(float));
    }
}

static void test_a_token_has_the_same_product_in_a_tile_of_any_height_at_any_place(void **state)
{
    (void)state;
    static const uint32_t columns[] = { 1, 2, 48, 131, 300 };
    const host_kernels *sets[3];
    uint64_t random = 1;
    for (size_t i = 0, count = kernel_sets(sets); i < count; i++) {
        print_message("%s, panels of %u\n", sets[i]->name, sets[i]->panel);
        for (size_t j = 0; j < sizeof columns / sizeof columns[0]; j++) check_product(sets[i], columns[j], &random);
    }
}

static void test_a_product_is_added_to_what_was_there(void **state)
{
    (void)state;
    const host_kernels *sets[3];
    float panel[MOST_PANEL * 3], x[5 * 3], sum[5 * MOST_PANEL], before[5 * MOST_PANEL], only[5 * MOST_PANEL];
    uint64_t random = 2;
    for (size_t i = 0, count = kernel_sets(sets); i < count; i++) {
        const host_kernels *k = sets[i];
        fill(panel, k->panel * 3, &random);
        fill(x, 15, &random);
        fill(before, 5 * k->panel, &random);
        memcpy(sum, before, sizeof sum);
        k->matmul(panel, 3, x, 3, only, k->panel, 5, false);
        k->matmul(panel, 3, x, 3, sum, k->panel, 5, true);
        for (uint32_t j = 0; j < 5 * k->panel; j++) assert_true(sum[j] == before[j] + only[j]);
    }
}

static void test_a_panel_in_eight_bits_has_the_products_of_the_floats_it_stands_for(void **state)
{
    (void)state;
    enum { COLUMNS = 96 };
    static float panel[MOST_PANEL * COLUMNS], x[MOST_TOKENS * COLUMNS];
    static uint8_t small[MOST_PANEL * COLUMNS * 2];
    static float whole[MOST_TOKENS * MOST_PANEL], eight[MOST_TOKENS * MOST_PANEL];
    const host_kernels *sets[3];
    uint64_t random = 4;
    for (size_t i = 0, count = kernel_sets(sets); i < count; i++) {
        const host_kernels *k = sets[i];
        fill(x, MOST_TOKENS * COLUMNS, &random);
        uint8_t *to = small;
        for (uint32_t c = 0; c < COLUMNS; c += HOST_Q8_COLUMNS, to += k->panel * (sizeof(float) + HOST_Q8_COLUMNS))
            for (uint32_t r = 0; r < k->panel; r++) {
                float scale, values[HOST_Q8_COLUMNS];
                fill(&scale, 1, &random);
                fill(values, HOST_Q8_COLUMNS, &random);
                scale = (float)(int)(scale * 1024) / 4096; /* as many bits as a half has */
                memcpy(to + r * sizeof scale, &scale, sizeof scale);
                for (uint32_t j = 0; j < HOST_Q8_COLUMNS; j++) {
                    int8_t value = (int8_t)(values[j] * 127);
                    to[k->panel * (sizeof scale + j) + r] = (uint8_t)value;
                    panel[(c + j) * k->panel + r] = scale * (float)value;
                }
            }
        for (uint32_t tokens = 1; tokens <= MOST_TOKENS; tokens++) {
            k->matmul(panel, COLUMNS, x, COLUMNS, whole, k->panel, tokens, false);
            k->matmul_q8(small, COLUMNS, x, COLUMNS, eight, k->panel, tokens);
            assert_memory_equal(eight, whole, tokens * k->panel * sizeof(float));
        }
    }
}

static void test_row_operations_are_right_to_float_precision(void **state)
{
    (void)state;
    enum { WIDTH = 77, HEADS = 3, DIM = 16 };
    const host_kernels *sets[3];
    float x[2 * WIDTH], gain[WIDTH], y[WIDTH], sum[WIDTH], turns[DIM], heads[HEADS * DIM], turned[HEADS * DIM];
    uint64_t random = 3;
    for (size_t i = 0, count = kernel_sets(sets); i < count; i++) {
        const host_kernels *k = sets[i];
        double squares = 0;
        fill(x, 2 * WIDTH, &random);
        fill(gain, WIDTH, &random);
        for (int j = 0; j < WIDTH; j++) x[j] *= j < 4 ? 200.0f : 20.0f;
        for (int j = 0; j < WIDTH; j++) squares += (double)x[j] * (double)x[j];
        k->norm(x, gain, 1e-5f, y, WIDTH, false);
        for (int j = 0; j < WIDTH; j++) {
            double want = (double)x[j] / sqrt(squares / WIDTH + 1e-5) * (double)gain[j];
            assert_true(fabs((double)y[j] - want) <= 1e-6 * fabs(want) + 1e-9);
        }
        memcpy(sum, x + WIDTH, sizeof sum);
        k->norm(x, gain, 1e-5f, sum, WIDTH, true);
        for (int j = 0; j < WIDTH; j++) assert_true(fabs((double)sum[j] - (double)x[WIDTH + j] - (double)y[j]) < 1e-5);
        k->swiglu(x, x + WIDTH, y, WIDTH);
        for (int j = 0; j < WIDTH; j++) {
            double want = (double)x[j] / (1 + exp(-(double)x[j])) * (double)x[WIDTH + j];
            assert_true(fabs((double)y[j] - want) <= 1e-6 * fabs(want) + 1e-30);
        }
        k->geglu(x, x + WIDTH, y, WIDTH);
        for (int j = 0; j < WIDTH; j++) {
            double gate = (double)x[j], u = sqrt(2 / acos(-1.0)) * (gate + 0.044715 * gate * gate * gate);
            double want = gate / (1 + exp(-2 * u)) * (double)x[WIDTH + j];
            assert_true(fabs((double)y[j] - want) <= 1e-5 * fabs(want) + 1e-30);
        }
        fill(heads, HEADS * DIM, &random);
        fill(turns, DIM, &random);
        memcpy(turned, heads, sizeof heads);
        k->rope(turned, turns, HEADS, DIM);
        for (int j = 0; j < HEADS * DIM; j += 2) {
            double c = (double)turns[j % DIM], s = (double)turns[j % DIM + 1];
            assert_true(fabs((double)turned[j] - ((double)heads[j] * c - (double)heads[j + 1] * s)) < 1e-6);
            assert_true(fabs((double)turned[j + 1] - ((double)heads[j] * s + (double)heads[j + 1] * c)) < 1e-6);
        }
    }
}

/* ---- threads ----------------------------------------------------------------------------------------------- */

enum { LOOPS = 3000, MOST_INDICES = 200 };

typedef struct tally {
    _Atomic int visits[MOST_INDICES];
} tally;

static void visit(void *arg, size_t index)
{
    tally *t = arg;
    atomic_fetch_add(&t->visits[index], 1);
}

static void test_every_index_of_a_loop_runs_once(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= 5; threads++) {
        workers *w;
        infer_error error;
        assert_int_equal(workers_open(&w, threads, &error), 0);
        assert_int_equal(workers_count(w), threads);
        for (size_t loop = 0; loop < LOOPS; loop++) {
            tally t;
            size_t count = loop * 7 % MOST_INDICES;
            for (size_t i = 0; i < MOST_INDICES; i++) atomic_init(&t.visits[i], 0);
            workers_for(w, count, visit, &t);
            for (size_t i = 0; i < MOST_INDICES; i++) assert_int_equal(atomic_load(&t.visits[i]), i < count);
        }
        workers_close(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_token_has_the_same_product_in_a_tile_of_any_height_at_any_place),
        cmocka_unit_test(test_a_product_is_added_to_what_was_there),
        cmocka_unit_test(test_a_panel_in_eight_bits_has_the_products_of_the_floats_it_stands_for),
        cmocka_unit_test(test_row_operations_are_right_to_float_precision),
        cmocka_unit_test(test_every_index_of_a_loop_runs_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
