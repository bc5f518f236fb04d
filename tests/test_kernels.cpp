/* test_kernels.cpp: every kernel does what its scalar twin in device/host_ops.c does.
 *
 * One source, two programs: linked to the emulated kernels, and, with QUIRE_TEST_GPU, to those that nvcc
 * compiled. Where there is no GPU the second skips. Copies and appends must agree bit for bit, attention
 * within a stated bound of an oracle that computes in float64.
 *
 * QUIRE_TEST_SMALL=1 keeps it short; under ThreadSanitizer it is always short. */
#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
extern "C" {
#include "support/testing.h"
}
#include "support/kernel_problem.h"

static const quire_dtype kCacheTypes[] = {QUIRE_DTYPE_F32, QUIRE_DTYPE_F16, QUIRE_DTYPE_BF16,
                                          QUIRE_DTYPE_FP8_E4M3};
static const quire_dtype kTensorTypes[] = {QUIRE_DTYPE_F32, QUIRE_DTYPE_F16, QUIRE_DTYPE_BF16};
static const int kHeadDims[] = {64, 128, 256};
static const int kGroups[] = {1, 2, 3, 4, 8, 9, 16};
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
    const char *text = getenv("QUIRE_TEST_SMALL");
    return text && text[0] == '1';
}

/* A short run does every fifth of a walk's shapes: 5 shares no factor with the axes' lengths. */
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

/* ---- append ------------------------------------------------------------------------------------------ */

/* What rounds in every way: ties, overflow, denormals, infinities, zeros of both signs. */
static float awkward(Random &random)
{
    static const float special[] = {0.0f,       -0.0f,    448.0f,   464.0f,  465.0f, -1e30f,
                                    1e30f,      65504.0f, 65520.0f, 1e-40f,  -1e-8f, 0.001953f,
                                    0.0009766f, 1.0625f,  1.1875f,  INFINITY};
    if (random.below(4) == 0)
        return special[random.below(16)];
    return random.normal() * std::ldexp(1.0f, random.below(40) - 20);
}

static void fill_awkward(HostTensor &tensor, int tokens, int heads, int dim, Random &random)
{
    for (int token = 0; token < tokens; token++) {
        for (int i = 0; i < heads * dim; i++)
            tensor.store(token, i / dim, i % dim, awkward(random));
    }
}

struct AppendCase {
    PageShape shape;
    quire_dtype k_dtype, v_dtype;
    int tokens, head_gap, token_gap;
};

/* Compares the whole arena, so that bytes next to a slot are checked too. */
static void check_append(const AppendCase &c, Random &random)
{
    HostPages host(c.shape, random);
    HostTensor k(c.k_dtype, c.tokens, c.shape.kv_heads, c.shape.head_dim, c.head_gap, c.token_gap);
    HostTensor v(c.v_dtype, c.tokens, c.shape.kv_heads, c.shape.head_dim, 0, 0);
    fill_awkward(k, c.tokens, c.shape.kv_heads, c.shape.head_dim, random);
    fill_awkward(v, c.tokens, c.shape.kv_heads, c.shape.head_dim, random);
    std::vector<int64_t> slots;
    for (int64_t slot = 0; slot < c.shape.blocks * c.shape.block_tokens; slot++)
        slots.push_back(slot);
    random.shuffle(slots);
    slots.resize(static_cast<size_t>(c.tokens));
    for (size_t i = 0; i < slots.size(); i += 5)
        slots[i] = -1;

    DeviceArray<unsigned char> arena(host.bytes), k_device(k.bytes), v_device(v.bytes);
    DeviceArray<float> scales(host.scales);
    DeviceArray<int64_t> slots_device(slots);
    quire__append_args args = {host.pages, 1, c.tokens, k.tensor, v.tensor, slots.data()};
    quire__host_append(&args);
    args.pages.arena = arena.data();
    args.pages.scales = host.pages.scales ? scales.data() : nullptr;
    args.k.data = k_device.data();
    args.v.data = v_device.data();
    args.slots = slots_device.data();
    assert_int_equal(quire__cuda_append(&args, nullptr), QUIRE_OK);
    assert_true(arena.read() == host.bytes);
}

static void append_stores_the_bits_of_the_oracle(void **)
{
    need_device();
    Random random(test_seed("append", 11));
    static const int dims[] = {8, 64, 80, 128, 256, 512};
    int number = 0;
    for (quire_dtype cache : kCacheTypes) {
        for (quire_dtype input : kTensorTypes) {
            for (int dim : dims) {
                AppendCase c = {};
                const int block_tokens = kBlockTokens[number % 9];
                c.shape = {cache,          2, 1 + number % 3, dim, block_tokens, 1 + 40 / block_tokens,
                           number % 2 * 16};
                c.shape.given_scales = cache == QUIRE_DTYPE_FP8_E4M3;
                c.k_dtype = input;
                c.v_dtype = kTensorTypes[number / 2 % 3];
                c.tokens = small_run() ? 3 : 23;
                c.head_gap = number % 4 == 3 ? 3 : number % 4 * 8; /* 3: no 16-byte access is possible */
                c.token_gap = number % 5 == 4 ? 1 : 0;
                check_append(c, random);
                number++;
            }
        }
    }
}

static void append_reads_k_and_v_out_of_one_interleaved_tensor(void **)
{
    need_device();
    Random random(test_seed("append interleaved", 12));
    const int tokens = 9, heads = 2, dim = 64;
    HostPages host({QUIRE_DTYPE_BF16, 2, heads, dim, 4, 4, 0}, random);
    HostTensor qkv(QUIRE_DTYPE_BF16, tokens, 3 * heads, dim, 0, 0); /* q, k, v of a token side by side */
    fill_awkward(qkv, tokens, 3 * heads, dim, random);
    std::vector<int64_t> slots = {0, 15, 3, 4, -1, 9, 8, 7, 1};
    DeviceArray<unsigned char> arena(host.bytes), qkv_device(qkv.bytes);
    DeviceArray<int64_t> slots_device(slots);
    quire_tensor part = qkv.tensor;
    part.heads = heads;
    quire__append_args args = {host.pages, 0, tokens, part, part, slots.data()};
    args.k.data = qkv.at(0, heads, 0);
    args.v.data = qkv.at(0, 2 * heads, 0);
    quire__host_append(&args);
    args.pages.arena = arena.data();
    args.k.data = qkv_device.data() + (qkv.at(0, heads, 0) - qkv.bytes.data());
    args.v.data = qkv_device.data() + (qkv.at(0, 2 * heads, 0) - qkv.bytes.data());
    args.slots = slots_device.data();
    assert_int_equal(quire__cuda_append(&args, nullptr), QUIRE_OK);
    assert_true(arena.read() == host.bytes);
}

/* A grid dimension other than x ends at 65535. */
static void append_takes_more_tokens_than_a_short_grid_dimension(void **)
{
    need_device();
    if (small_run())
        SKIP_BECAUSE("short run");
    Random random(test_seed("append many", 13));
    AppendCase c = {};
    c.shape = {QUIRE_DTYPE_F32, 2, 1, 8, 256, 260, 0};
    c.k_dtype = c.v_dtype = QUIRE_DTYPE_F32;
    c.tokens = 66000;
    check_append(c, random);
}

/* ---- tables ------------------------------------------------------------------------------------------ */

static void table_changes_exactly_the_named_entries(void **)
{
    need_device();
    Random random(test_seed("table", 23));
    const int rows = 70, columns = 40, stride = 43;
    std::vector<int32_t> table(static_cast<size_t>(rows * stride), -7);
    std::vector<quire__table_change> changes;
    for (int32_t i = 0; i < rows * columns; i++)
        changes.push_back({i / columns, i % columns, random.below(1 << 30)});
    random.shuffle(changes);
    changes.resize(1001);
    DeviceArray<int32_t> table_device(table);
    DeviceArray<quire__table_change> changes_device(changes);
    quire__table_args args = {table.data(), stride, static_cast<int32_t>(changes.size()), changes.data()};
    quire__host_table(&args);
    args.table = table_device.data();
    args.changes = changes_device.data();
    assert_int_equal(quire__cuda_table(&args, nullptr), QUIRE_OK);
    assert_true(table_device.read() == table);
}

/* ---- attention: shapes ------------------------------------------------------------------------------- */

/* One unit in the last place of a dtype, relative; rounding the result costs half of it at most. */
static double rounding(quire_dtype dtype)
{
    return dtype == QUIRE_DTYPE_F32 ? 0 : dtype == QUIRE_DTYPE_F16 ? 0x1p-11 : 0x1p-8;
}

/* Shape number `number` of a walk over the axes that are not spelled out. */
static AttendShape walk(quire_dtype cache, int dim, int group, int number)
{
    AttendShape shape = {};
    const int block_tokens = kBlockTokens[number % 9];
    shape.pages = {cache, 2, group > 4 || small_run() ? 1 : 2, dim, block_tokens, 0, number % 3 * 16};
    shape.pages.given_scales = cache == QUIRE_DTYPE_FP8_E4M3;
    shape.group = group;
    shape.q_dtype = kTensorTypes[number % 3];
    shape.out_dtype = kTensorTypes[number / 5 % 3];
    shape.sharpness = number % 4 == 3 ? 6.0f : 1.0f;
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

static void decode_is_within_3e_6_of_float64(void **)
{
    need_device();
    Random random(test_seed("decode", 31));
    int number = 0;
    for (quire_dtype cache : kCacheTypes) {
        Worst worst;
        for (int dim : kHeadDims) {
            for (int group : kGroups) {
                if (left_out(++number))
                    continue;
                AttendShape shape = walk(cache, dim, group, number);
                shape.rows = {{0, 1}, {random.below(250), 1}, {63, 1}};
                if (!small_run())
                    shape.rows.push_back({300 + random.below(60), 1});
                AttendProblem problem(shape, random);
                const int split = std::max(number % 3 == 0 ? 64 : number % 3 * 128, shape.pages.block_tokens);
                quire_status status;
                const Bytes out = problem.decode(nullptr, split, problem.longest(), &status);
                assert_int_equal(status, QUIRE_OK);
                worst.take(shape, problem.error(out));
            }
        }
        worst.check("decode", cache, 3e-6, 2e-5);
    }
}

static void decode_bits_do_not_depend_on_the_batch(void **)
{
    need_device();
    Random random(test_seed("decode batch", 32));
    for (int number = 0; number < (small_run() ? 2 : 12); number++) {
        AttendShape shape = walk(kCacheTypes[number % 4], kHeadDims[number % 3], kGroups[number % 7], number);
        shape.rows = {{random.below(60), 1}, {64 + random.below(130), 1}, {127, 1}, {random.below(9), 1}};
        AttendProblem problem(shape, random);
        const int split = std::max(64, shape.pages.block_tokens);
        quire_status status;
        const Bytes together = problem.decode(nullptr, split, problem.longest(), &status);
        assert_int_equal(status, QUIRE_OK);
        for (int token = 0; token < problem.tokens(); token++) {
            const std::vector<int32_t> alone = {token};
            const Bytes out = problem.decode(&alone, split, problem.position(token) + 1, &status);
            assert_int_equal(status, QUIRE_OK);
            assert_memory_equal(problem.token_bytes(out, token), problem.token_bytes(together, token),
                                problem.token_size());
        }
        const std::vector<int32_t> backwards = {3, 1};
        const Bytes out = problem.decode(&backwards, split, problem.longest() + 5 * split, &status);
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
    AttendShape shape = walk(QUIRE_DTYPE_BF16, 64, 3, 4);
    shape.q_dtype = shape.out_dtype = QUIRE_DTYPE_F32;
    shape.rows = {{63, 1}, {127, 1}, {64, 1}, {31, 1}, {0, 1}, {255, 1}};
    AttendProblem problem(shape, random);
    quire_status status;
    const Bytes short_splits = problem.decode(nullptr, 64, problem.longest(), &status);
    assert_int_equal(status, QUIRE_OK);
    assert_true(problem.error(short_splits) < 3e-6);
    const Bytes long_splits = problem.decode(nullptr, 256, problem.longest(), &status);
    assert_int_equal(status, QUIRE_OK);
    assert_true(problem.error(long_splits) < 3e-6);
    const Bytes many_empty =
        problem.decode(nullptr, 64, 64 * 100, &status); /* longest_context far too large */
    assert_int_equal(status, QUIRE_OK);
    assert_true(many_empty == short_splits);
}

static void a_token_without_context_gets_zeros(void **)
{
    need_device();
    Random random(test_seed("no context", 34));
    for (quire_dtype cache : kCacheTypes) {
        AttendShape shape = walk(cache, 64, 2, 0);
        shape.pages.block_tokens = 4;
        shape.q_dtype = shape.out_dtype = QUIRE_DTYPE_F32;
        shape.rows = {{5, 1}, {-1, 1}, {3, 1}};
        AttendProblem problem(shape, random);
        quire_status status;
        const Bytes zeros(problem.token_size(), 0);
        const Bytes decoded = problem.decode(nullptr, 64, problem.longest(), &status);
        assert_int_equal(status, QUIRE_OK);
        assert_memory_equal(problem.token_bytes(decoded, 1), zeros.data(), zeros.size());
        assert_true(problem.error(decoded) < 3e-6);
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
    AttendShape shape = walk(QUIRE_DTYPE_F32, 64, 1, 0);
    shape.pages = {QUIRE_DTYPE_F32, 2, 1, 64, 16, 0, 0};
    shape.q_dtype = shape.out_dtype = QUIRE_DTYPE_F32;
    shape.rows.assign(65600, Row{-1, 1});
    shape.rows[0] = {7, 1};
    shape.rows[65599] = {40, 1};
    AttendProblem problem(shape, random);
    quire_status status;
    const Bytes out = problem.decode(nullptr, 64, problem.longest(), &status);
    assert_int_equal(status, QUIRE_OK);
    assert_true(problem.error(out) < 3e-6);
}

/* ---- prefill ----------------------------------------------------------------------------------------- */

/* P and V are operands of 8 bits in bf16 and 11 in f16; f32 caches are computed in f32. */
static double prefill_bound(quire_dtype cache)
{
    return cache == QUIRE_DTYPE_F32 ? 3e-6 : cache == QUIRE_DTYPE_BF16 ? 5e-3 : 7e-4;
}

static void prefill_is_within_its_bound_of_float64(void **)
{
    need_device();
    Random random(test_seed("prefill", 41));
    int number = 0;
    for (quire_dtype cache : kCacheTypes) {
        Worst worst;
        for (int dim : kHeadDims) {
            for (int group : kGroups) {
                if (left_out(++number))
                    continue;
                AttendShape shape = walk(cache, dim, group, number);
                shape.rows = {{random.below(200), 2 + random.below(8)}, {63, 2}};
                if (!small_run())
                    shape.rows.push_back({0, 70 + random.below(30)});
                AttendProblem problem(shape, random);
                quire_status status;
                const Bytes out = problem.prefill(problem.tiles(QUIRE__PREFILL_TILE), &status);
                assert_int_equal(status, QUIRE_OK);
                worst.take(shape, problem.error(out));
            }
        }
        worst.check("prefill", cache, prefill_bound(cache),
                    cache == QUIRE_DTYPE_F32 ? 2e-5 : prefill_bound(cache));
    }
}

static void prefill_bits_do_not_depend_on_how_the_prompt_is_cut(void **)
{
    need_device();
    Random random(test_seed("prefill cut", 42));
    for (int number = 0; number < (small_run() ? 2 : 8); number++) {
        AttendShape shape = walk(kCacheTypes[number % 4], kHeadDims[number % 3], kGroups[number % 5], number);
        shape.rows = {{random.below(70), 20 + random.below(60)}, {random.below(100), 2}};
        if (small_run())
            shape.rows = {{20, 4}};
        AttendProblem problem(shape, random);
        quire_status status;
        const Bytes whole = problem.prefill(problem.tiles(QUIRE__PREFILL_TILE), &status);
        assert_int_equal(status, QUIRE_OK);
        for (int tokens : {1, 2 + random.below(40)}) {
            const Bytes cut = problem.prefill(problem.tiles(tokens), &status);
            assert_int_equal(status, QUIRE_OK);
            assert_true(cut == whole);
        }
    }
}

/* f16 operands would overflow or lose everything if q were taken as it is. */
static void prefill_takes_q_outside_the_range_of_f16(void **)
{
    need_device();
    Random random(test_seed("prefill range", 43));
    for (const float size : {1e-9f, 1e5f}) {
        AttendShape shape = walk(QUIRE_DTYPE_F16, 64, 2, 0);
        shape.q_dtype = QUIRE_DTYPE_BF16;
        shape.out_dtype = QUIRE_DTYPE_F32;
        shape.sharpness = size;
        shape.rows = {{10, 6}};
        AttendProblem problem(shape, random);
        quire_status status;
        const Bytes out = problem.prefill(problem.tiles(QUIRE__PREFILL_TILE), &status);
        assert_int_equal(status, QUIRE_OK);
        assert_true(problem.error(out) <= prefill_bound(QUIRE_DTYPE_F16));
    }
}

/* ---- what launchers refuse --------------------------------------------------------------------------- */

static void nothing_to_do_is_not_an_error(void **)
{
    need_device();
    Random random(1);
    AttendShape shape = walk(QUIRE_DTYPE_F32, 64, 1, 0);
    shape.rows = {{5, 1}};
    AttendProblem problem(shape, random);
    quire_tensor none = {};
    quire__attend_args attend = problem.device_args(none, nullptr);
    const quire__append_args append = {attend.pages, 0, 0, none, none, nullptr};
    const quire__block_copy_args copy = {};
    const quire__pieces_args pieces = {};
    const quire__table_args table = {};
    assert_int_equal(quire__cuda_append(&append, nullptr), QUIRE_OK);
    assert_int_equal(quire__cuda_block_copy(&copy, nullptr), QUIRE_OK);
    assert_int_equal(quire__cuda_gather(&pieces, nullptr), QUIRE_OK);
    assert_int_equal(quire__cuda_scatter(&pieces, nullptr), QUIRE_OK);
    assert_int_equal(quire__cuda_table(&table, nullptr), QUIRE_OK);
    assert_int_equal(quire__cuda_attend_decode(&attend, nullptr), QUIRE_OK);
    assert_int_equal(quire__cuda_attend_prefill(&attend, nullptr), QUIRE_OK);
}

static void a_launcher_refuses_what_it_has_no_kernel_for(void **)
{
    need_device();
    Random random(1);
    AttendShape shape = walk(QUIRE_DTYPE_F32, 64, 1, 0);
    shape.rows = {{5, 1}};
    AttendProblem problem(shape, random);
    HostTensor out(QUIRE_DTYPE_F32, 1, problem.heads(), 64, 0, 0);
    DeviceArray<unsigned char> out_device(out.bytes);
    DeviceArray<float> work(std::vector<float>(1000));
    DeviceArray<quire_tile> tiles(problem.tiles(1));
    quire__attend_args sound = problem.device_args(out.tensor, out_device.data());
    sound.count = 1;
    sound.longest_context = 6;
    sound.split_tokens = 64;
    sound.work = work.data();
    sound.work_floats = 1000;
    sound.tiles = tiles.data();
    assert_int_equal(quire__cuda_attend_decode(&sound, nullptr), QUIRE_OK);
    assert_int_equal(quire__cuda_attend_prefill(&sound, nullptr), QUIRE_OK);

    quire__attend_args args = sound;
    args.pages.head_dim = 80;
    assert_int_equal(quire__cuda_attend_decode(&args, nullptr), QUIRE_EUNSUPPORTED);
    assert_int_equal(quire__cuda_attend_prefill(&args, nullptr), QUIRE_EUNSUPPORTED);
    args = sound;
    args.pages.dtype = static_cast<quire_dtype>(0);
    assert_int_equal(quire__cuda_attend_decode(&args, nullptr), QUIRE_EUNSUPPORTED);
    args = sound;
    args.q.dtype = QUIRE_DTYPE_FP8_E4M3;
    assert_int_equal(quire__cuda_attend_decode(&args, nullptr), QUIRE_EUNSUPPORTED);
    assert_int_equal(quire__cuda_attend_prefill(&args, nullptr), QUIRE_EUNSUPPORTED);

    args = sound;
    args.pages.arena += 4;
    assert_int_equal(quire__cuda_attend_decode(&args, nullptr), QUIRE_EINVAL);
    args = sound;
    args.pages.block_tokens = 3;
    assert_int_equal(quire__cuda_attend_prefill(&args, nullptr), QUIRE_EINVAL);
    args = sound;
    args.split_tokens = 96;
    assert_int_equal(quire__cuda_attend_decode(&args, nullptr), QUIRE_EINVAL);
    args = sound;
    args.work_floats = 64 + 1;
    assert_int_equal(quire__cuda_attend_decode(&args, nullptr), QUIRE_EINVAL);
    args = sound;
    args.query_heads = problem.heads() + 1;
    args.pages.kv_heads = 2;
    assert_int_equal(quire__cuda_attend_decode(&args, nullptr), QUIRE_EINVAL);
}

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(append_stores_the_bits_of_the_oracle),
        cmocka_unit_test(append_reads_k_and_v_out_of_one_interleaved_tensor),
        cmocka_unit_test(append_takes_more_tokens_than_a_short_grid_dimension),
        cmocka_unit_test(table_changes_exactly_the_named_entries),
        cmocka_unit_test(decode_is_within_3e_6_of_float64),
        cmocka_unit_test(decode_bits_do_not_depend_on_the_batch),
        cmocka_unit_test(decode_takes_contexts_that_end_where_a_split_ends),
        cmocka_unit_test(a_token_without_context_gets_zeros),
        cmocka_unit_test(decode_takes_more_tokens_than_a_short_grid_dimension),
        cmocka_unit_test(prefill_is_within_its_bound_of_float64),
        cmocka_unit_test(prefill_bits_do_not_depend_on_how_the_prompt_is_cut),
        cmocka_unit_test(prefill_takes_q_outside_the_range_of_f16),
        cmocka_unit_test(nothing_to_do_is_not_an_error),
        cmocka_unit_test(a_launcher_refuses_what_it_has_no_kernel_for),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
