/* test_kernels.cpp: append and table kernels do what their scalar twins in device/host_ops.c do. Copies are in
 * test_kernels_copy.cpp, attention in test_attend_kernels.cpp.
 *
 * One source, two programs: linked to the emulated kernels, and, with QUIRE_TEST_GPU, to those that nvcc
 * compiled. Where there is no GPU the second skips. Results must agree bit for bit.
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
static const quire_dtype kFormats[] = {QUIRE_DTYPE_F32,      QUIRE_DTYPE_F16,  QUIRE_DTYPE_BF16, QUIRE_DTYPE_FP8_E4M3,
                                       QUIRE_DTYPE_FP8_E5M2, QUIRE_DTYPE_INT8, QUIRE_DTYPE_INT4};
static const quire_dtype kTensorTypes[] = {QUIRE_DTYPE_F32, QUIRE_DTYPE_F16, QUIRE_DTYPE_BF16};
static const int kBlockTokens[] = {1, 2, 4, 8, 16, 32, 64, 128, 256};

static bool is_fp8(quire_dtype dtype)
{
    return dtype == QUIRE_DTYPE_FP8_E4M3 || dtype == QUIRE_DTYPE_FP8_E5M2;
}

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
    int rope_dims, interleaved, query_heads; /* rope_dims 0: none */
};

/* A rotary table of random angles, positions, and q, which is turned in place every other time. */
struct RopeInput {
    RopeInput(const AppendCase &c, Random &random)
        : q(c.v_dtype, c.tokens, c.query_heads, c.shape.head_dim, c.head_gap, 0),
          q_out(c.k_dtype, c.tokens, c.query_heads, c.shape.head_dim, 0, c.token_gap),
          in_place(c.k_dtype == c.v_dtype && c.tokens % 2 == 1)
    {
        for (int i = 0; i < kPositions * c.rope_dims; i++)
            table.push_back(random.normal());
        for (int i = 0; i < c.tokens; i++)
            positions.push_back(random.below(kPositions));
        for (int i = 0; i < c.tokens * c.query_heads * c.shape.head_dim; i++)
            q.store(i / c.shape.head_dim / c.query_heads, i / c.shape.head_dim % c.query_heads, i % c.shape.head_dim,
                    random.normal());
        rope = {table.data(), positions.data(), c.rope_dims, c.interleaved, q.tensor, q_out.tensor};
        if (c.query_heads == 0)
            rope.q.data = nullptr;
        if (in_place)
            rope.q_out = q.tensor;
    }
    static constexpr int kPositions = 50;
    HostTensor q, q_out;
    bool in_place;
    std::vector<float> table;
    std::vector<int32_t> positions;
    quire__rope rope = {};
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

    RopeInput turn(c, random);
    DeviceArray<unsigned char> arena(host.bytes), k_device(k.bytes), v_device(v.bytes);
    DeviceArray<float> scales(host.scales), table(turn.table);
    DeviceArray<int64_t> slots_device(slots);
    DeviceArray<int32_t> positions(turn.positions);
    DeviceArray<unsigned char> q(turn.q.bytes), q_out(turn.q_out.bytes);
    quire__append_args args = {host.pages, 1, c.tokens, k.tensor, v.tensor, slots.data(), {}};
    if (c.rope_dims != 0)
        args.rope = turn.rope;
    quire__host_append(&args);
    if (c.rope_dims != 0) {
        args.rope.table = table.data();
        args.rope.positions = positions.data();
        args.rope.q.data = turn.rope.q.data ? q.data() : nullptr;
        args.rope.q_out.data = turn.in_place ? q.data() : q_out.data();
    }
    args.pages.arena = arena.data();
    args.pages.scales = host.pages.scales ? scales.data() : nullptr;
    args.k.data = k_device.data();
    args.v.data = v_device.data();
    args.slots = slots_device.data();
    assert_int_equal(quire__cuda_append(&args, nullptr), QUIRE_OK);
    assert_true(arena.read() == host.bytes);
    assert_true(q.read() == turn.q.bytes);
    assert_true(q_out.read() == turn.q_out.bytes);
}

static void append_stores_the_bits_of_the_oracle(void **)
{
    need_device();
    Random random(test_seed("append", 11));
    static const int dims[] = {8, 64, 80, 128, 256, 264, 512};
    int number = 0;
    for (quire_dtype cache : kFormats) {
        for (quire_dtype input : kTensorTypes) {
            for (int dim : dims) {
                AppendCase c = {};
                const int block_tokens = kBlockTokens[number % 9];
                c.shape = {cache,          2, 1 + number % 3, dim, block_tokens, 1 + 40 / block_tokens,
                           number % 2 * 16};
                c.shape.given_scales = is_fp8(cache) && number % 2 == 0;
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
    quire__append_args args = {host.pages, 0, tokens, part, part, slots.data(), {}};
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

static void append_turns_k_and_q_as_the_oracle_does(void **)
{
    need_device();
    Random random(test_seed("append rope", 14));
    static const int dims[] = {64, 80, 128, 264};
    int number = 0;
    for (quire_dtype cache : kFormats) {
        for (int dim : dims) {
            for (int interleaved : {0, 1}) {
                AppendCase c = {};
                c.shape = {cache, 2, 1 + number % 2, dim, 16, 4, number % 2 * 16};
                c.shape.given_scales = is_fp8(cache) && number % 3 == 0;
                c.k_dtype = kTensorTypes[number % 3];
                c.v_dtype = kTensorTypes[number / 2 % 3];
                c.tokens = small_run() ? 3 : 12 + number % 2;
                c.head_gap = number % 4 == 3 ? 3 : 0;
                c.rope_dims = number % 3 == 0 ? dim : number % 3 == 1 ? dim / 16 * 8 : 8;
                c.interleaved = interleaved;
                c.query_heads = number % 5 == 0 ? 0 : 3;
                check_append(c, random);
                number++;
            }
        }
    }
}

/* Blocks of every format from every raw dtype and back, at other places of another arena. */
static void check_convert(quire_dtype coded, quire_dtype raw, int dim, int number, Random &random)
{
    const int block_tokens = kBlockTokens[number % 7], heads = 1 + number % 2, layers = 2;
    PageShape raw_shape = {raw, layers, heads, dim, block_tokens, 4, 0};
    PageShape coded_shape = {coded, layers, heads, dim, block_tokens, 5, number % 2 * 16};
    HostPages from(raw_shape, random), to(coded_shape, random), back(raw_shape, random);
    std::vector<float> scales;
    for (int i = 0; i < layers * 2 * heads; i++)
        scales.push_back(static_cast<float>(0.01 + 0.05 * random.uniform()));
    if (is_fp8(coded) && number % 2 == 0) { /* the caller's scales, of all layers */
        quire__pages_set_format(&to.pages, quire__format_of(coded, dim, true));
        to.pages.scales = scales.data();
    }
    for (size_t i = 0; i < from.bytes.size(); i += quire__dtype_bytes(raw))
        quire__dtype_store(raw, &from.bytes[i], std::fmin(awkward(random), 1e30f)); /* the bits of a NaN vary */
    std::vector<quire__block_pair> out = {{0, 4}, {3, 0}, {1, 2}}, in = {{4, 1}, {0, 0}, {2, 3}};
    DeviceArray<unsigned char> from_device(from.bytes), to_device(to.bytes), back_device(back.bytes);
    DeviceArray<float> scales_device(scales);
    DeviceArray<quire__block_pair> out_device(out), in_device(in);
    quire__convert_args encode = {from.pages, to.pages, out.data(), 3, layers};
    quire__convert_args decode = {to.pages, back.pages, in.data(), 3, layers};
    quire__host_convert(&encode);
    quire__host_convert(&decode);
    encode.from.arena = from_device.data();
    encode.to.arena = decode.from.arena = to_device.data();
    decode.to.arena = back_device.data();
    if (to.pages.scales)
        encode.to.scales = decode.from.scales = scales_device.data();
    encode.pairs = out_device.data();
    decode.pairs = in_device.data();
    assert_int_equal(quire__cuda_convert(&encode, nullptr), QUIRE_OK);
    assert_true(to_device.read() == to.bytes);
    assert_int_equal(quire__cuda_convert(&decode, nullptr), QUIRE_OK);
    assert_true(back_device.read() == back.bytes);
}

static void convert_gives_the_bits_of_the_oracle_both_ways(void **)
{
    need_device();
    Random random(test_seed("convert", 15));
    int number = 0;
    for (quire_dtype coded : {QUIRE_DTYPE_FP8_E4M3, QUIRE_DTYPE_FP8_E5M2, QUIRE_DTYPE_INT8, QUIRE_DTYPE_INT4}) {
        for (quire_dtype raw : kTensorTypes) {
            for (int dim : {8, 64, 80, 128, 264}) {
                if (++number % (small_run() ? 5 : 1) == 0)
                    check_convert(coded, raw, dim, number, random);
            }
        }
    }
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

/* ---- what launchers refuse --------------------------------------------------------------------------- */

static void nothing_to_do_is_not_an_error(void **)
{
    need_device();
    Random random(1);
    HostPages host({QUIRE_DTYPE_F32, 2, 1, 64, 16, 1, 0}, random);
    quire_tensor none = {};
    const quire__append_args append = {host.pages, 0, 0, none, none, nullptr, {}};
    const quire__block_copy_args copy = {};
    const quire__pieces_args pieces = {};
    const quire__table_args table = {};
    assert_int_equal(quire__cuda_append(&append, nullptr), QUIRE_OK);
    assert_int_equal(quire__cuda_block_copy(&copy, nullptr), QUIRE_OK);
    assert_int_equal(quire__cuda_gather(&pieces, nullptr), QUIRE_OK);
    assert_int_equal(quire__cuda_scatter(&pieces, nullptr), QUIRE_OK);
    assert_int_equal(quire__cuda_table(&table, nullptr), QUIRE_OK);
}

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(append_stores_the_bits_of_the_oracle),
        cmocka_unit_test(append_reads_k_and_v_out_of_one_interleaved_tensor),
        cmocka_unit_test(append_turns_k_and_q_as_the_oracle_does),
        cmocka_unit_test(convert_gives_the_bits_of_the_oracle_both_ways),
        cmocka_unit_test(append_takes_more_tokens_than_a_short_grid_dimension),
        cmocka_unit_test(table_changes_exactly_the_named_entries),
        cmocka_unit_test(nothing_to_do_is_not_an_error),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
