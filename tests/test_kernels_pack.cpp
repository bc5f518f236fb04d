/* test_kernels_pack.cpp: the pack and unpack kernels write the bytes that their scalar twins write; linked to the
 * emulated kernels, and, with QUIRE_TEST_GPU, to those that nvcc compiled. */
#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
extern "C" {
#include "support/testing.h"

#include "device/host_pack.h"
#include "support/pack_data.h"
}
#include "support/device_memory.h"

typedef std::vector<unsigned char> Bytes;

static void need_device()
{
    const char *why = device_missing();
    if (why)
        SKIP_BECAUSE("%s", why);
}

/* Pages, slots and status words on the host and on the device. */
struct PackProblem {
    PackProblem(int kind, int64_t page_bytes, int unit_elements, int slot_bytes, uint64_t *seed)
        : units(static_cast<size_t>((page_bytes / 2 + unit_elements - 1) / unit_elements) * 2),
          arena(static_cast<size_t>(2 * page_bytes + 96)), packed(units * static_cast<size_t>(slot_bytes), 0xaa),
          status(units, -1), page_status(2, -1), offsets{page_bytes + 48, 16}
    {
        pack_data_fill(kind, arena.data(), arena.size() / 2, seed);
        args.page_bytes = page_bytes;
        args.unit_elements = unit_elements;
        args.slot_bytes = slot_bytes;
        args.count = 2;
    }

    /* Runs the kernel over copies of the arrays, reads them back into `self`. */
    quire_status on_device(quire_status (*kernel)(const quire__pack_args *, void *))
    {
        DeviceArray<unsigned char> arena_device(arena), packed_device(packed);
        DeviceArray<int32_t> status_device(status), page_status_device(page_status);
        DeviceArray<int64_t> offsets_device(offsets);
        args.arena = arena_device.data();
        args.packed = packed_device.data();
        args.status = status_device.data();
        args.page_status = page_status_device.data();
        args.offsets = offsets_device.data();
        const quire_status result = kernel(&args, nullptr);
        arena = arena_device.read();
        packed = packed_device.read();
        status = status_device.read();
        page_status = page_status_device.read();
        return result;
    }
    void on_host(void (*twin)(const quire__pack_args *))
    {
        args.arena = arena.data();
        args.packed = packed.data();
        args.status = status.data();
        args.page_status = page_status.data();
        args.offsets = offsets.data();
        twin(&args);
    }
    bool same(const PackProblem &other) const
    {
        return arena == other.arena && packed == other.packed && status == other.status && pages_agree() &&
               other.pages_agree();
    }
    /* A page's word is untouched where all its units are done, and else what one of them has. */
    bool pages_agree() const
    {
        for (size_t page = 0; page < 2; page++) {
            bool done = true, found = false;
            for (size_t unit = page * units / 2; unit < (page + 1) * units / 2; unit++) {
                done = done && status[unit] == QUIRE__PACK_DONE;
                found = found || (status[unit] != QUIRE__PACK_DONE && status[unit] == page_status[page]);
            }
            if (done ? page_status[page] != -1 : !found)
                return false;
        }
        return true;
    }

    size_t units;
    Bytes arena, packed;
    std::vector<int32_t> status, page_status;
    std::vector<int64_t> offsets;
    quire__pack_args args = {};
};

static void check_both_ways(PackProblem problem)
{
    PackProblem twin = problem;
    assert_int_equal(problem.on_device(quire__cuda_pack), QUIRE_OK);
    twin.on_host(quire__host_pack);
    assert_true(problem.same(twin));
    problem.arena.assign(problem.arena.size(), 0xee);
    twin.arena = problem.arena;
    problem.page_status = twin.page_status = {-1, -1};
    assert_int_equal(problem.on_device(quire__cuda_unpack), QUIRE_OK);
    twin.on_host(quire__host_unpack);
    assert_true(problem.same(twin));
}

static void packing_writes_the_bytes_of_the_twin_and_unpacking_too(void **)
{
    need_device();
    uint64_t seed = test_seed("pack kernel", 81);
    for (int kind = 0; kind < PACK_DATA_KINDS; kind++) {
        check_both_ways(PackProblem(kind, 2 * 3072 * 2, 3072, 3072 * 156 / 100 / 16 * 16, &seed));
        check_both_ways(PackProblem(kind, 2 * (1024 + 32), 1024, 1584, &seed)); /* a last unit of 32 elements */
    }
    check_both_ways(PackProblem(PACK_DATA_SCALES, 32768, 16384, 25552, &seed));
    check_both_ways(PackProblem(PACK_DATA_EVERY, 131072, 16384, 25552, &seed));
    check_both_ways(PackProblem(PACK_DATA_NOISE, 4096, 2048, 4096 + QUIRE__PACK_HEADER_BYTES, &seed));
}

static void a_few_blocks_of_threads_do_all_units(void **)
{
    need_device();
    uint64_t seed = test_seed("pack few blocks", 82);
    for (int blocks : {1, 3}) {
        PackProblem problem(PACK_DATA_OUTLIERS, 5 * 2048, 1024, 1584, &seed);
        problem.args.most_blocks = blocks;
        check_both_ways(problem);
    }
}

static void a_damaged_slot_is_found_and_nothing_is_written(void **)
{
    need_device();
    uint64_t seed = test_seed("pack kernel damage", 83);
    PackProblem sound(PACK_DATA_SCALES, 4 * 2048, 1024, 1584 + 64, &seed);
    assert_int_equal(sound.on_device(quire__cuda_pack), QUIRE_OK);
    sound.arena.assign(sound.arena.size(), 0xee);
    int corrupt = 0;
    for (int round = 0; round < 40; round++) {
        PackProblem damaged = sound;
        damaged.page_status = {-1, -1};
        for (size_t unit = 0; unit < damaged.units; unit++) {
            unsigned char *slot = damaged.packed.data() + unit * 1648;
            const uint64_t random = pack_data_next(&seed);
            if (round % 4 == 0) { /* more escapes than there are: those behind them are zeros, not ascending */
                slot[12] = static_cast<unsigned char>(slot[12] + 2);
            } else if (round % 4 == 1) {
                slot[12] = static_cast<unsigned char>(random);
                slot[13] = static_cast<unsigned char>(random >> 8);
            } else {
                slot[random % 16] ^= static_cast<unsigned char>(1u << (random >> 8) % 8);
            }
        }
        PackProblem twin = damaged;
        assert_int_equal(damaged.on_device(quire__cuda_unpack), QUIRE_OK);
        twin.on_host(quire__host_unpack);
        assert_true(damaged.same(twin));
        for (int32_t status : damaged.status)
            corrupt += status == QUIRE__PACK_CORRUPT;
    }
    assert_true(corrupt > 100);
}

static void pack_refuses_shapes_that_have_no_format(void **)
{
    need_device();
    uint64_t seed = 1;
    const PackProblem sound(PACK_DATA_NORMAL, 4096, 1024, 1584, &seed);
    const auto refused = [&](void (*spoil)(PackProblem &)) {
        PackProblem problem = sound;
        spoil(problem);
        return problem.on_device(quire__cuda_pack) == QUIRE_EINVAL &&
               problem.on_device(quire__cuda_unpack) == QUIRE_EINVAL;
    };
    assert_true(refused([](PackProblem &p) { p.args.page_bytes = 4080; }));
    assert_true(refused([](PackProblem &p) { p.args.unit_elements = 960; }));
    assert_true(refused([](PackProblem &p) { p.args.unit_elements = 16384 + 64; }));
    assert_true(refused([](PackProblem &p) { p.args.slot_bytes = 1536 + 16; }));
    assert_true(refused([](PackProblem &p) { p.args.slot_bytes += 4; }));
    assert_true(refused([](PackProblem &p) { p.args.count = -1; }));
    const quire__pack_args nothing = {};
    assert_int_equal(quire__cuda_pack(&nothing, nullptr), QUIRE_OK);
    assert_int_equal(quire__cuda_unpack(&nothing, nullptr), QUIRE_OK);
}

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packing_writes_the_bytes_of_the_twin_and_unpacking_too),
        cmocka_unit_test(a_few_blocks_of_threads_do_all_units),
        cmocka_unit_test(a_damaged_slot_is_found_and_nothing_is_written),
        cmocka_unit_test(pack_refuses_shapes_that_have_no_format),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
