/* test_kernels_copy.cpp: block copies, gathers and scatters, on the device and by the host's threads, move the bytes
 * that their scalar twins move, and no others. Linked to the emulated kernels, and, with QUIRE_TEST_GPU, to those that
 * nvcc compiled. */
#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
extern "C" {
#include "support/testing.h"

#include "device/host_copy.h"
}
#include "support/kernel_problem.h"

static quire__parallel *parallel;

static void need_device()
{
    const char *why = device_missing();
    if (why)
        SKIP_BECAUSE("%s", why);
}

static Bytes random_bytes(size_t count, Random &random)
{
    Bytes bytes(count);
    for (unsigned char &byte : bytes)
        byte = static_cast<unsigned char>(random.next());
    return bytes;
}

/* The copy on the device and by threads, over copies of `host`; the twin over `host` itself. */
static void check_block_copy(Bytes &host, quire__block_copy_args args, const std::vector<quire__block_pair> &pairs,
                             const std::vector<int32_t> &tokens)
{
    DeviceArray<unsigned char> arena(host);
    DeviceArray<quire__block_pair> pairs_device(pairs);
    DeviceArray<int32_t> tokens_device(tokens);
    Bytes threaded = host;
    args.pairs = pairs_device.data();
    args.tokens = tokens.empty() ? nullptr : tokens_device.data();
    args.arena = arena.data();
    args.count = static_cast<int32_t>(pairs.size());
    assert_int_equal(quire__cuda_block_copy(&args, nullptr), QUIRE_OK);
    args.pairs = pairs.data();
    args.tokens = tokens.empty() ? nullptr : tokens.data();
    args.arena = threaded.data();
    quire__host_block_copy_run(parallel, &args);
    args.arena = host.data();
    quire__host_block_copy(&args);
    assert_true(arena.read() == host);
    assert_true(threaded == host);
}

static void block_copy_copies_whole_blocks_and_nothing_else(void **)
{
    need_device();
    Random random(test_seed("block copy", 21));
    for (const int64_t block_bytes : {16, 4096, 32768, 32784, 100000, 600000}) {
        quire__block_copy_args args = {};
        args.block_bytes = block_bytes;
        args.block_stride = block_bytes + (block_bytes == 4096 ? 48 : 0);
        Bytes host = random_bytes(static_cast<size_t>(args.block_stride * 9), random);
        check_block_copy(host, args, {{0, 5}, {0, 1}, {8, 3}, {2, 7}}, {});
    }
    quire__block_copy_args args = {}; /* enough for threads to take eight words each */
    args.block_bytes = args.block_stride = 256;
    std::vector<quire__block_pair> pairs;
    for (int i = 0; i < 1100; i++)
        pairs.push_back({i, 1100 + (i * 7) % 1100});
    Bytes host = random_bytes(2200 * 256, random);
    check_block_copy(host, args, pairs, {});
}

static void block_copy_takes_the_first_tokens_of_each_row_and_nothing_else(void **)
{
    need_device();
    Random random(test_seed("block copy parts", 24));
    for (const int64_t token_bytes : {16, 80, 256}) {
        for (const int rows : {1, 6, 64}) {
            quire__block_copy_args args = {};
            const int block_tokens = 16;
            args.token_bytes = token_bytes;
            args.row_stride = token_bytes * block_tokens + (rows == 6 ? 16 : 0);
            args.rows = rows;
            args.block_stride = args.row_stride * rows + (rows == 1 ? 32 : 0);
            args.block_bytes = args.block_stride;
            args.most_tokens = block_tokens;
            Bytes host = random_bytes(static_cast<size_t>(args.block_stride * 12), random);
            check_block_copy(host, args, {{0, 5}, {0, 1}, {8, 3}, {2, 7}, {9, 10}}, {1, 16, 0, random.below(15) + 1, 7});
        }
    }
}

static void gather_and_scatter_move_pieces_bit_for_bit(void **)
{
    need_device();
    Random random(test_seed("pieces", 22));
    for (const int64_t piece : {16, 512, 33792}) {
        Bytes host = random_bytes(static_cast<size_t>(piece * 12 + 160), random);
        Bytes staging = random_bytes(static_cast<size_t>(piece * 5 + 16), random);
        std::vector<int64_t> offsets = {piece * 3 + 16, 0, piece * 11 + 160, piece * 7 + 32, piece + 16};
        DeviceArray<unsigned char> arena_device(host), staging_device(staging);
        DeviceArray<int64_t> offsets_device(offsets);
        const quire__pieces_args on_host = {host.data(), staging.data(), offsets.data(), piece, 5};
        const quire__pieces_args on_device = {arena_device.data(), staging_device.data(),
                                              offsets_device.data(), piece, 5};
        quire__host_gather(&on_host);
        assert_int_equal(quire__cuda_gather(&on_device, nullptr), QUIRE_OK);
        assert_true(staging_device.read() == staging);
        assert_true(arena_device.read() == host);

        const Bytes others = random_bytes(staging.size(), random);
        DeviceArray<unsigned char> others_device(others);
        Bytes others_host = others;
        quire__pieces_args back = on_host;
        back.staging = others_host.data();
        quire__host_scatter(&back);
        back = on_device;
        back.staging = others_device.data();
        assert_int_equal(quire__cuda_scatter(&back, nullptr), QUIRE_OK);
        assert_true(arena_device.read() == host);
        assert_true(others_device.read() == others);
    }
}

static void gather_and_scatter_take_many_small_pieces_and_a_few_large_ones(void **)
{
    need_device();
    Random random(test_seed("many pieces", 25));
    const struct {
        int64_t bytes;
        int count;
    } shapes[] = {{16, 3000}, {48, 1000}, {1024, 600}, {300000, 3}};
    for (const auto &shape : shapes) {
        std::vector<int64_t> offsets;
        for (int i = 0; i < shape.count; i++)
            offsets.push_back(i * (shape.bytes + 16));
        random.shuffle(offsets);
        Bytes host = random_bytes(static_cast<size_t>(shape.count * (shape.bytes + 16)), random);
        Bytes staging(static_cast<size_t>(shape.count * shape.bytes));
        DeviceArray<unsigned char> arena_device(host), staging_device(staging);
        DeviceArray<int64_t> offsets_device(offsets);
        quire__pieces_args args = {host.data(), staging.data(), offsets.data(), shape.bytes, shape.count};
        quire__host_gather(&args);
        Bytes threaded(staging.size());
        args.staging = threaded.data();
        quire__host_gather_run(parallel, &args);
        assert_true(threaded == staging);
        const quire__pieces_args on_device = {arena_device.data(), staging_device.data(), offsets_device.data(),
                                              shape.bytes, shape.count};
        assert_int_equal(quire__cuda_gather(&on_device, nullptr), QUIRE_OK);
        assert_true(staging_device.read() == staging);

        Bytes back = random_bytes(host.size(), random), back_threaded = back;
        DeviceArray<unsigned char> back_device(back);
        quire__pieces_args scatter = on_device;
        scatter.arena = back_device.data();
        assert_int_equal(quire__cuda_scatter(&scatter, nullptr), QUIRE_OK);
        args.arena = back_threaded.data();
        quire__host_scatter_run(parallel, &args);
        args.arena = back.data();
        quire__host_scatter(&args);
        assert_true(back_threaded == back);
        assert_true(back_device.read() == back);
    }
}

static void a_copy_refuses_what_it_cannot_move(void **)
{
    need_device();
    Bytes host(4096);
    DeviceArray<unsigned char> arena(host);
    DeviceArray<quire__block_pair> pairs(std::vector<quire__block_pair>{{0, 1}});
    DeviceArray<int32_t> tokens(std::vector<int32_t>{1});
    quire__block_copy_args sound = {};
    sound.arena = arena.data();
    sound.block_stride = sound.block_bytes = 1024;
    sound.pairs = pairs.data();
    sound.count = 1;
    sound.tokens = tokens.data();
    sound.row_stride = 256;
    sound.token_bytes = 64;
    sound.rows = sound.most_tokens = 4;
    assert_int_equal(quire__cuda_block_copy(&sound, nullptr), QUIRE_OK);
    quire__block_copy_args args = sound;
    args.token_bytes = 24;
    assert_int_equal(quire__cuda_block_copy(&args, nullptr), QUIRE_EINVAL);
    args = sound;
    args.most_tokens = 5;
    assert_int_equal(quire__cuda_block_copy(&args, nullptr), QUIRE_EINVAL);
    args = sound;
    args.rows = 5;
    assert_int_equal(quire__cuda_block_copy(&args, nullptr), QUIRE_EINVAL);
    args = sound;
    args.tokens = nullptr;
    args.block_bytes = 1000;
    assert_int_equal(quire__cuda_block_copy(&args, nullptr), QUIRE_EINVAL);
}

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(block_copy_copies_whole_blocks_and_nothing_else),
        cmocka_unit_test(block_copy_takes_the_first_tokens_of_each_row_and_nothing_else),
        cmocka_unit_test(gather_and_scatter_move_pieces_bit_for_bit),
        cmocka_unit_test(gather_and_scatter_take_many_small_pieces_and_a_few_large_ones),
        cmocka_unit_test(a_copy_refuses_what_it_cannot_move),
    };
    if (quire__parallel_open(&parallel, 2, nullptr, nullptr) != QUIRE_OK)
        return 1;
    const int failed = cmocka_run_group_tests(tests, nullptr, nullptr);
    quire__parallel_close(parallel);
    return failed;
}
