/* test_attend_kernels.cpp: the attention kernels do what their scalar twins in device/host_ops.c do, within a stated
 * bound of float64: every cache dtype, head_dim, group and block size, with and without window, soft cap and sinks.
 *
 * One source, two programs, as test_kernels.cpp. Shapes are a walk over the axes; QUIRE_TEST_SMALL=1 takes every fifth,
 * and so does ThreadSanitizer. */
#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
extern "C" {
#include "support/testing.h"
}
#include "support/kernel_problem.h"

static const quire_dtype kCacheTypes[] = {QUIRE_DTYPE_F32,      QUIRE_DTYPE_F16,      QUIRE_DTYPE_BF16,
                                          QUIRE_DTYPE_FP8_E4M3, QUIRE_DTYPE_FP8_E5M2, QUIRE_DTYPE_INT8,
                                          QUIRE_DTYPE_INT4};
static const quire_dtype kTensorTypes[] = {QUIRE_DTYPE_F32, QUIRE_DTYPE_F16, QUIRE_DTYPE_BF16};
static const int kHeadDims[] = {64, 80, 96, 128, 192, 256};
static const int kGroups[] = {1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 17};
static const int kBlockTokens[] = {1, 2, 4, 8, 16, 32, 64, 128, 256};

static bool small_run()
{
#if defined(__SANITIZE_THREAD__)
    return true;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
    return true;
#endif
#endif
    return test_is_small();
}

static bool left_out(int number)
{
    return small_run() && number % 5 != 0;
}

static void need_device()
{
    const char *why = device_missing();
    if (why)
        SKIP_BECAUSE("%s", why);
}

/* ---- shapes ------------------------------------------------------------------------------------------ */

/* One unit in the last place of a dtype, relative; rounding the result costs half of it at most. */
static double rounding(quire_dtype dtype)
{
    return dtype == QUIRE_DTYPE_F32 ? 0 : dtype == QUIRE_DTYPE_F16 ? 0x1p-11 : 0x1p-8;
}

/* Shape number `number` of a walk over all axes but cache and head_dim; their lengths share no factor with 11. */
static AttendShape walk(quire_dtype cache, int dim, int number)
{
    AttendShape shape = {};
    const int block_tokens = kBlockTokens[number % 9];
    shape.group = kGroups[number % 11];
    shape.pages = {cache, 2, shape.group > 4 || small_run() ? 1 : 2, dim, block_tokens, 0, number % 3 * 16};
    const bool fp8 = cache == QUIRE_DTYPE_FP8_E4M3 || cache == QUIRE_DTYPE_FP8_E5M2;
    shape.pages.given_scales = fp8 && number % 2 == 0;
    shape.q_dtype = kTensorTypes[number % 3];
    shape.out_dtype = kTensorTypes[number / 5 % 3];
    shape.sharpness = number / 16 % 2 == 1 ? 6.0f : 1.0f;
    shape.window = number & 1 ? 1 + number * 7 % 90 : 0;
    shape.soft_cap = number & 2 ? 2.5f : 0.0f;
    shape.sinks = (number & 4) != 0;
    return shape;
}

/* The worst errors of shapes with scores of standard deviation 1, and of those with 6: there a score's own
 * rounding, relative to its size, is a larger error of its weight. The result's rounding is taken off. */
class Worst
{
  public:
    void take(const AttendShape &shape, double error)
    {
        double &worst = shape.sharpness > 1 ? sharp_ : plain_;
        worst = std::max(worst, error - rounding(shape.out_dtype));
    }
    void check(const char *what, quire_dtype cache, double plain_bound, double sharp_bound) const
    {
        print_message("%s, %s cache: relative error %.1e (bound %.1e), sharp scores %.1e (bound %.1e)\n",
                      what, quire_dtype_name(cache), plain_, plain_bound, sharp_, sharp_bound);
        assert_true(plain_ <= plain_bound);
        assert_true(sharp_ <= sharp_bound);
    }

  private:
    double plain_ = 0, sharp_ = 0;
};

/* ---- decode ------------------------------------------------------------------------------------------ */

/* Against the numbers that the codes stand for. f32 caches are computed in f32. Weights, and a q of f32, are two
 * operands: 22 bits in f16, 16 in bf16. Of int4 one: 11 bits, and as many of code times scale. */
static double decode_bound(quire_dtype cache)
{
    return cache == QUIRE_DTYPE_INT4 ? 1e-3 : cache == QUIRE_DTYPE_BF16 ? 1e-5 : 3e-6;
}

/* Scores of standard deviation 6 reach 20. A q of f32 as two bf16 keeps 16 bits, as one f16 11 bits. */
static double sharp_decode_bound(quire_dtype cache)
{
    return cache == QUIRE_DTYPE_INT4 ? 5e-3 : cache == QUIRE_DTYPE_BF16 ? 5e-4 : 2e-5;
}

static Bytes must_decode(AttendProblem &problem, const std::vector<int32_t> *select, int split_tokens, int workers)
{
    quire_status status;
    const Bytes out = problem.decode(select, split_tokens, problem.longest(), &status, workers);
    assert_int_equal(status, QUIRE_OK);
    return out;
}

static void decode_is_within_its_bound_of_float64(void **)
{
    need_device();
    Random random(test_seed("decode", 31));
    int number = 0;
    for (quire_dtype cache : kCacheTypes) {
        Worst worst;
        for (int dim : kHeadDims) {
            for (int i = 0; i < 3; i++) {
                if (left_out(++number))
                    continue;
                AttendShape shape = walk(cache, dim, number);
                shape.rows = {{0, 1}, {random.below(120), 1}, {63, 1}};
                if (!small_run())
                    shape.rows.push_back({180 + random.below(60), 1});
                AttendProblem problem(shape, random);
                worst.take(shape, problem.error(must_decode(problem, nullptr, 0, 1 + random.below(9))));
                if (i == 0)
                    worst.take(shape, problem.error(must_decode(problem, nullptr, 64, 0)));
            }
        }
        worst.check("decode", cache, decode_bound(cache), sharp_decode_bound(cache));
    }
}

/* However many thread blocks share the work: none of them is left with a wrong piece. */
static void decode_shares_contexts_out_to_any_number_of_thread_blocks(void **)
{
    need_device();
    Random random(test_seed("decode shares", 36));
    AttendShape shape = walk(QUIRE_DTYPE_F16, 64, 4);
    shape.pages.block_tokens = 16;
    shape.pages.kv_heads = 2;
    shape.group = 3;
    shape.q_dtype = shape.out_dtype = QUIRE_DTYPE_F32;
    shape.rows = {{130, 1}, {-1, 1}, {15, 1}, {16, 1}, {-1, 1}, {255, 1}, {0, 1}, {400, 1}, {-1, 1}};
    AttendProblem problem(shape, random);
    for (int workers = 1; workers < 40; workers += small_run() ? 13 : workers < 6 ? 1 : 5)
        assert_true(problem.error(must_decode(problem, nullptr, 0, workers)) < 3e-6);
}

static void decode_bits_do_not_depend_on_the_batch_where_cuts_are_fixed(void **)
{
    need_device();
    Random random(test_seed("decode batch", 32));
    for (int number = 0; number < (small_run() ? 2 : 12); number++) {
        AttendShape shape = walk(kCacheTypes[number % 7], kHeadDims[number % 5 % 3], number);
        shape.rows = {{random.below(60), 1}, {64 + random.below(130), 1}, {127, 1}, {random.below(9), 1}};
        AttendProblem problem(shape, random);
        quire_status status;
        const Bytes together = must_decode(problem, nullptr, 64, 0);
        for (int token = 0; token < problem.tokens(); token++) {
            const std::vector<int32_t> alone = {token};
            const Bytes out = problem.decode(&alone, 64, problem.position(token) + 1, &status);
            assert_int_equal(status, QUIRE_OK);
            assert_memory_equal(problem.token_bytes(out, token), problem.token_bytes(together, token),
                                problem.token_size());
        }
        const std::vector<int32_t> backwards = {3, 1};
        const Bytes out = problem.decode(&backwards, 64, problem.longest() + 5 * 64, &status);
        assert_int_equal(status, QUIRE_OK);
        assert_memory_equal(problem.token_bytes(out, 3), problem.token_bytes(together, 3),
                            problem.token_size());
        assert_memory_equal(problem.token_bytes(out, 1), problem.token_bytes(together, 1),
                            problem.token_size());
        const Bytes untouched(problem.token_size(), 0xee);
        assert_memory_equal(problem.token_bytes(out, 0), untouched.data(), untouched.size());
    }
}

static void decode_takes_contexts_that_end_where_a_split_ends(void **)
{
    need_device();
    Random random(test_seed("decode edges", 33));
    AttendShape shape = walk(QUIRE_DTYPE_F16, 64, 0);
    shape.q_dtype = shape.out_dtype = QUIRE_DTYPE_F32;
    shape.pages.block_tokens = 16;
    shape.rows = {{63, 1}, {127, 1}, {64, 1}, {31, 1}, {0, 1}, {255, 1}};
    AttendProblem problem(shape, random);
    quire_status status;
    const Bytes short_splits = must_decode(problem, nullptr, 64, 0);
    assert_true(problem.error(short_splits) < 3e-6);
    assert_true(problem.error(must_decode(problem, nullptr, 256, 0)) < 3e-6);
    const Bytes many_empty =
        problem.decode(nullptr, 64, 64 * 100, &status); /* longest_context far too large */
    assert_int_equal(status, QUIRE_OK);
    assert_true(many_empty == short_splits);
}

static void a_token_without_context_gets_zeros(void **)
{
    need_device();
    Random random(test_seed("no context", 34));
    int number = 0;
    for (quire_dtype cache : kCacheTypes) {
        AttendShape shape = walk(cache, 64, number++ % 2 * 4); /* without sinks and with them */
        shape.pages.block_tokens = 4;
        shape.group = 2;
        shape.q_dtype = shape.out_dtype = QUIRE_DTYPE_F32;
        shape.rows = {{5, 1}, {-1, 1}, {3, 1}};
        AttendProblem problem(shape, random);
        quire_status status;
        const Bytes zeros(problem.token_size(), 0);
        for (int workers = 0; workers < 3; workers += 2) {
            const Bytes decoded = must_decode(problem, nullptr, workers == 0 ? 64 : 0, workers);
            assert_memory_equal(problem.token_bytes(decoded, 1), zeros.data(), zeros.size());
            assert_true(problem.error(decoded) < decode_bound(cache));
        }
        const Bytes prefilled = problem.prefill(problem.tiles(1), &status);
        assert_int_equal(status, QUIRE_OK);
        assert_memory_equal(problem.token_bytes(prefilled, 1), zeros.data(), zeros.size());
        assert_true(problem.error(prefilled) < 1e-2);
    }
}

static void decode_takes_more_tokens_than_a_short_grid_dimension(void **)
{
    need_device();
    if (small_run())
        SKIP_BECAUSE("short run");
    Random random(test_seed("decode many", 35));
    AttendShape shape = {};
    shape.group = 1;
    shape.sharpness = 1;
    shape.pages = {QUIRE_DTYPE_F32, 2, 1, 64, 16, 0, 0};
    shape.q_dtype = shape.out_dtype = QUIRE_DTYPE_F32;
    shape.rows.assign(65600, Row{-1, 1});
    shape.rows[0] = {7, 1};
    shape.rows[65599] = {40, 1};
    AttendProblem problem(shape, random);
    assert_true(problem.error(must_decode(problem, nullptr, 0, 60)) < 3e-6);
}

/* ---- prefill ----------------------------------------------------------------------------------------- */

/* P and V are operands of 8 bits in bf16 and 11 in f16; f32 caches are computed in f32. */
static double prefill_bound(quire_dtype cache)
{
    switch (cache) {
    case QUIRE_DTYPE_F32: return 3e-6;
    case QUIRE_DTYPE_F16: return 7e-4;
    case QUIRE_DTYPE_BF16: return 5e-3;
    default: return 1e-3; /* codes times scales are rounded to f16 too */
    }
}

static double sharp_prefill_bound(quire_dtype cache)
{
    return cache == QUIRE_DTYPE_F32 ? 2e-5 : cache < QUIRE_DTYPE_FP8_E4M3 ? prefill_bound(cache) : 5e-3;
}

static void prefill_is_within_its_bound_of_float64(void **)
{
    need_device();
    Random random(test_seed("prefill", 41));
    int number = 0;
    for (quire_dtype cache : kCacheTypes) {
        Worst worst;
        for (int dim : kHeadDims) {
            for (int i = 0; i < 2; i++) {
                if (left_out(++number))
                    continue;
                AttendShape shape = walk(cache, dim, number);
                shape.rows = {{random.below(150), 2 + random.below(6)}, {63, 2}};
                if (!small_run() && i == 0)
                    shape.rows.push_back({0, 70 + random.below(30)});
                AttendProblem problem(shape, random);
                quire_status status;
                const Bytes out = problem.prefill(problem.tiles(QUIRE__PREFILL_TILE), &status);
                assert_int_equal(status, QUIRE_OK);
                worst.take(shape, problem.error(out));
            }
        }
        worst.check("prefill", cache, prefill_bound(cache), sharp_prefill_bound(cache));
    }
}

static void prefill_bits_do_not_depend_on_how_the_prompt_is_cut(void **)
{
    need_device();
    Random random(test_seed("prefill cut", 42));
    for (int number = 0; number < (small_run() ? 2 : 8); number++) {
        AttendShape shape = walk(kCacheTypes[number % 7], kHeadDims[number % 6], number);
        shape.group = 1 + number % 5;
        shape.rows = {{random.below(70), 20 + random.below(60)}, {random.below(100), 2}};
        if (small_run())
            shape.rows = {{20, 4}};
        AttendProblem problem(shape, random);
        quire_status status;
        const Bytes whole = problem.prefill(problem.tiles(QUIRE__PREFILL_TILE), &status);
        assert_int_equal(status, QUIRE_OK);
        for (int tokens : {1, 2 + random.below(40)}) {
            if (tokens == 1 && number % 2 == 1)
                continue;
            const Bytes cut = problem.prefill(problem.tiles(tokens), &status);
            assert_int_equal(status, QUIRE_OK);
            assert_true(cut == whole);
        }
    }
}

/* f16 operands would overflow or lose everything if q were taken as it is. */
static void q_may_be_outside_the_range_of_f16(void **)
{
    need_device();
    Random random(test_seed("range", 43));
    for (const float size : {1e-9f, 1e5f}) {
        AttendShape shape = walk(QUIRE_DTYPE_F16, 64, 0);
        shape.group = 2;
        shape.q_dtype = QUIRE_DTYPE_BF16;
        shape.out_dtype = QUIRE_DTYPE_F32;
        shape.sharpness = size;
        shape.rows = {{10, 6}};
        AttendProblem problem(shape, random);
        quire_status status;
        const Bytes out = problem.prefill(problem.tiles(QUIRE__PREFILL_TILE), &status);
        assert_int_equal(status, QUIRE_OK);
        assert_true(problem.error(out) <= prefill_bound(QUIRE_DTYPE_F16));
        assert_true(problem.error(must_decode(problem, nullptr, 0, 2)) <= decode_bound(QUIRE_DTYPE_F16));
    }
}

/* ---- what launchers refuse --------------------------------------------------------------------------- */

static void a_launcher_refuses_what_it_has_no_kernel_for(void **)
{
    need_device();
    Random random(1);
    AttendShape shape = walk(QUIRE_DTYPE_F32, 64, 0);
    shape.rows = {{5, 1}};
    AttendProblem problem(shape, random);
    HostTensor out(QUIRE_DTYPE_F32, 1, problem.heads(), 64, 0, 0);
    DeviceArray<unsigned char> out_device(out.bytes);
    DeviceArray<float> work(std::vector<float>(1000));
    DeviceArray<quire_tile> tiles(problem.tiles(1));
    quire__attend_args sound = problem.device_args(out.tensor, out_device.data());
    assert_int_equal(quire__cuda_attend_decode(&sound, nullptr), QUIRE_OK); /* of nothing */
    assert_int_equal(quire__cuda_attend_prefill(&sound, nullptr), QUIRE_OK);
    sound.count = 1;
    sound.longest_context = 6;
    sound.split_tokens = 64;
    sound.work = work.data();
    sound.work_floats = 1000;
    sound.tiles = tiles.data();
    assert_int_equal(quire__cuda_attend_decode(&sound, nullptr), QUIRE_OK);
    assert_int_equal(quire__cuda_attend_prefill(&sound, nullptr), QUIRE_OK);

    const auto refused = [&](const quire__attend_args &args, quire_status decode, quire_status prefill) {
        assert_int_equal(quire__cuda_attend_decode(&args, nullptr), decode);
        assert_int_equal(quire__cuda_attend_prefill(&args, nullptr), prefill);
    };
    quire__attend_args args = sound;
    args.pages.head_dim = 72;
    refused(args, QUIRE_EUNSUPPORTED, QUIRE_EUNSUPPORTED);
    args = sound;
    args.pages.dtype = static_cast<quire_dtype>(0);
    refused(args, QUIRE_EUNSUPPORTED, QUIRE_EUNSUPPORTED);
    args = sound;
    args.q.dtype = QUIRE_DTYPE_FP8_E4M3;
    refused(args, QUIRE_EUNSUPPORTED, QUIRE_EUNSUPPORTED);
    args = sound;
    args.pages.arena += 4;
    refused(args, QUIRE_EINVAL, QUIRE_EINVAL);
    args = sound;
    args.pages.block_tokens = 3;
    refused(args, QUIRE_EINVAL, QUIRE_EINVAL);
    args = sound;
    args.soft_cap = -1;
    refused(args, QUIRE_EINVAL, QUIRE_EINVAL);
    args = sound;
    args.query_heads = problem.heads() + 1;
    args.pages.kv_heads = 2;
    refused(args, QUIRE_EINVAL, QUIRE_EINVAL);
    args = sound;
    args.split_tokens = 96;
    refused(args, QUIRE_EINVAL, QUIRE_OK);
    args = sound;
    args.split_tokens = args.workers = 0;
    refused(args, QUIRE_EINVAL, QUIRE_OK);
    args = sound;
    args.work_floats = quire__attend_work_floats(&args) - 1;
    refused(args, QUIRE_EINVAL, QUIRE_OK);
}

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decode_is_within_its_bound_of_float64),
        cmocka_unit_test(decode_shares_contexts_out_to_any_number_of_thread_blocks),
        cmocka_unit_test(decode_bits_do_not_depend_on_the_batch_where_cuts_are_fixed),
        cmocka_unit_test(decode_takes_contexts_that_end_where_a_split_ends),
        cmocka_unit_test(a_token_without_context_gets_zeros),
        cmocka_unit_test(decode_takes_more_tokens_than_a_short_grid_dimension),
        cmocka_unit_test(prefill_is_within_its_bound_of_float64),
        cmocka_unit_test(prefill_bits_do_not_depend_on_how_the_prompt_is_cut),
        cmocka_unit_test(q_may_be_outside_the_range_of_f16),
        cmocka_unit_test(a_launcher_refuses_what_it_has_no_kernel_for),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
