/* test_host_pack.c: packed pages come back bit for bit whatever they hold, from the scalar twin and from what the host
 * device runs, which write the same slots; and no slot, however damaged, makes unpack leave its unit. */
#define _GNU_SOURCE 1
#include "support/testing.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "device/host_pack.h"
#include "support/pack_data.h"

typedef struct fixture {
    quire__pack_args args;
    quire__pack_shape shape;
    int64_t offsets[4];
    size_t arena_bytes, packed_bytes, units;
    unsigned char *arena, *packed;
    int32_t *status;
} fixture;

enum { PAGES = 3, PAGE_BYTES = 3 * 2 * 6144 + 64 };

static quire__parallel *parallel;

/* Pages apart from each other and from both ends of the arena. */
static void fixture_open(fixture *f, int64_t page_bytes, const quire__pack_shape *shape)
{
    *f = (fixture){.shape = *shape};
    f->units = (size_t)(PAGES * shape->units);
    f->arena_bytes = (size_t)PAGES * (size_t)(page_bytes + 32) + 64;
    f->packed_bytes = f->units * (size_t)shape->slot_bytes;
    f->arena = malloc(f->arena_bytes);
    f->packed = malloc(f->packed_bytes);
    f->status = malloc(f->units * sizeof *f->status);
    for (int i = 0; i < PAGES; i++)
        f->offsets[i] = 16 + (PAGES - 1 - i) * (page_bytes + 32);
    f->args = (quire__pack_args){.arena = f->arena,
                                 .offsets = f->offsets,
                                 .packed = f->packed,
                                 .status = f->status,
                                 .page_bytes = page_bytes,
                                 .unit_elements = shape->unit_elements,
                                 .slot_bytes = shape->slot_bytes,
                                 .count = PAGES};
}

static void fixture_close(fixture *f)
{
    free(f->arena);
    free(f->packed);
    free(f->status);
}

static int64_t page_units(const fixture *f)
{
    return f->shape.units;
}

/* Where unit u's elements are, and how many bytes. */
static unsigned char *unit_place(const fixture *f, size_t u, size_t *bytes)
{
    int64_t page = (int64_t)u / page_units(f), first = (int64_t)u % page_units(f) * f->shape.unit_elements * 2;
    int64_t left = f->args.page_bytes - first;
    *bytes = (size_t)(left < f->shape.unit_elements * 2 ? left : f->shape.unit_elements * 2);
    return f->arena + f->offsets[page] + first;
}

static bool untouched(const unsigned char *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (bytes[i] != 0xee)
            return false;
    return true;
}

static void round_trip(fixture *f, bool may_be_absent)
{
    unsigned char *before = malloc(f->arena_bytes), *slots = malloc(f->packed_bytes);
    memcpy(before, f->arena, f->arena_bytes);
    memset(f->packed, 0xaa, f->packed_bytes);
    quire__host_pack(&f->args);
    memcpy(slots, f->packed, f->packed_bytes);
    memset(f->packed, 0x55, f->packed_bytes);
    assert_int_equal(quire__host_pack_run(parallel, &f->args), QUIRE_OK);
    assert_memory_equal(f->packed, slots, f->packed_bytes);
    assert_memory_equal(f->arena, before, f->arena_bytes);
    for (int fast = 0; fast < 2; fast++) {
        memset(f->arena, 0xee, f->arena_bytes);
        memset(f->status, 0xff, f->units * sizeof *f->status);
        if (fast)
            assert_int_equal(quire__host_unpack_run(parallel, &f->args), QUIRE_OK);
        else
            quire__host_unpack(&f->args);
        assert_memory_equal(f->packed, slots, f->packed_bytes);
        for (size_t u = 0; u < f->units; u++) {
            size_t bytes;
            unsigned char *unit = unit_place(f, u, &bytes);
            if (f->status[u] == QUIRE__PACK_RAW) { /* absent: untouched */
                assert_true(may_be_absent);
                assert_true(untouched(unit, bytes));
            } else {
                assert_int_equal(f->status[u], QUIRE__PACK_DONE);
                assert_memory_equal(unit, before + (unit - f->arena), bytes);
            }
            memset(unit, 0xee, bytes);
        }
        assert_true(untouched(f->arena, f->arena_bytes)); /* nothing beside the pages */
    }
    memcpy(f->arena, before, f->arena_bytes);
    free(before);
    free(slots);
}

static void every_kind_of_data_comes_back_bit_for_bit(void **state)
{
    (void)state;
    uint64_t seed = test_seed("pack", 71);
    static const struct {
        int64_t page, part;
    } cuts[] = {{PAGE_BYTES, 6144}, {2 * 32768, 32768}, {65536 + 2048, 65536}, {4096, 128}, {131072, 131072}};
    for (size_t c = 0; c < sizeof cuts / sizeof cuts[0]; c++) {
        quire__pack_shape shape;
        fixture f;
        assert_int_equal(quire__pack_shape_make(&shape, cuts[c].page, cuts[c].part), QUIRE_OK);
        assert_true(shape.slot_bytes <= shape.unit_elements * 2 * 78 / 100);
        fixture_open(&f, cuts[c].page, &shape);
        for (int kind = 0; kind < PACK_DATA_KINDS; kind++) {
            pack_data_fill(kind, f.arena, f.arena_bytes / 2, &seed);
            round_trip(&f, pack_data_is_noise(kind));
        }
        fixture_close(&f);
    }
}

/* A slot as large as its unit takes anything. */
static void a_full_slot_stores_what_cannot_be_coded(void **state)
{
    (void)state;
    uint64_t seed = test_seed("pack stored", 72);
    quire__pack_shape shape = {.unit_elements = 2048, .units = 3, .slot_bytes = 4096 + QUIRE__PACK_HEADER_BYTES};
    fixture f;
    fixture_open(&f, 3 * 4096 - 64, &shape);
    for (int kind = 0; kind < PACK_DATA_KINDS; kind++) {
        pack_data_fill(kind, f.arena, f.arena_bytes / 2, &seed);
        round_trip(&f, false);
    }
    fixture_close(&f);
}

static void exactly_the_escapes_that_fit_are_coded(void **state)
{
    (void)state;
    quire__pack_shape shape;
    fixture f;
    assert_int_equal(quire__pack_shape_make(&shape, 32768, 32768), QUIRE_OK);
    fixture_open(&f, 32768, &shape);
    int room = (shape.slot_bytes - QUIRE__PACK_HEADER_BYTES - shape.unit_elements / 2 * 3) / 4;
    assert_in_range(room, 200, 256);
    for (int escapes = room - 1; escapes <= room + 1; escapes++) {
        memset(f.arena, 0, f.arena_bytes);
        for (int i = 0; i < shape.unit_elements; i++) { /* 16 exponents of many elements, then others of one each */
            uint16_t element = (uint16_t)((i % 16 + 100) << 7 | 5);
            if (i >= 1000 && i < 1000 + escapes)
                element = (uint16_t)(((i % 2 ? 200 : 40) + i % 13) << 7 | 0x8000);
            memcpy(f.arena + f.offsets[0] + 2 * i, &element, sizeof element);
        }
        quire__host_pack(&f.args);
        assert_int_equal(f.status[0], escapes <= room ? QUIRE__PACK_DONE : QUIRE__PACK_RAW);
        assert_int_equal(f.status[1], QUIRE__PACK_DONE);
        round_trip(&f, true);
    }
    fixture_close(&f);
}

/* Flips bits of a sound slot; whatever comes of it stays in its unit and is told apart from nothing written. */
static void a_damaged_slot_writes_its_unit_whole_or_not_at_all(void **state)
{
    (void)state;
    uint64_t seed = test_seed("pack damage", 73);
    quire__pack_shape shape;
    fixture f;
    assert_int_equal(quire__pack_shape_make(&shape, 2 * 4096, 4096), QUIRE_OK);
    fixture_open(&f, 2 * 4096, &shape);
    unsigned char *slots = malloc(f.packed_bytes);
    int corrupt = 0;
    pack_data_fill(PACK_DATA_SCALES, f.arena, f.arena_bytes / 2, &seed);
    quire__host_pack(&f.args);
    memcpy(slots, f.packed, f.packed_bytes);
    for (int round = 0; round < 400; round++) {
        size_t slot = (size_t)shape.slot_bytes * (quire__random(&seed) % f.units);
        size_t span = round % 2 ? QUIRE__PACK_HEADER_BYTES : (size_t)shape.slot_bytes;
        memcpy(f.packed, slots, f.packed_bytes);
        f.packed[slot + quire__random(&seed) % span] ^= (unsigned char)(1u << quire__random(&seed) % 8);
        if (round % 5 == 0)
            for (size_t i = 0; i < QUIRE__PACK_HEADER_BYTES; i++)
                f.packed[slot + i] = (unsigned char)quire__random(&seed);
        if (round % 7 == 0) { /* a sound header whose escapes are not */
            uint32_t most = 4;
            memcpy(f.packed + slot + 12, &most, sizeof most);
        }
        for (int fast = 0; fast < 2; fast++) {
            memset(f.arena, 0xee, f.arena_bytes);
            if (fast)
                assert_int_equal(quire__host_unpack_run(parallel, &f.args), QUIRE_OK);
            else
                quire__host_unpack(&f.args);
            for (size_t u = 0; u < f.units; u++) {
                size_t bytes;
                unsigned char *unit = unit_place(&f, u, &bytes);
                if (f.status[u] != QUIRE__PACK_DONE)
                    assert_true(untouched(unit, bytes));
                corrupt += f.status[u] == QUIRE__PACK_CORRUPT;
                memset(unit, 0xee, bytes);
            }
            assert_true(untouched(f.arena, f.arena_bytes));
        }
    }
    assert_true(corrupt > 100);
    free(slots);
    fixture_close(&f);
}

static void a_page_without_whole_vectors_is_refused(void **state)
{
    (void)state;
    quire__pack_shape shape;
    fixture f;
    assert_int_equal(quire__pack_shape_make(&shape, 100, 100), QUIRE_EINVAL);
    assert_int_equal(quire__pack_shape_make(&shape, 8192, 4096), QUIRE_OK);
    assert_int_equal(shape.unit_elements, 2048);
    fixture_open(&f, 8192, &shape);
    memset(f.arena, 0, f.arena_bytes);
    f.args.page_bytes = 8190;
    assert_int_equal(quire__host_pack_run(parallel, &f.args), QUIRE_EINVAL);
    f.args.page_bytes = 8192;
    f.args.unit_elements = 100;
    assert_int_equal(quire__host_pack_run(parallel, &f.args), QUIRE_EINVAL);
    f.args.unit_elements = 2048;
    f.args.slot_bytes = 3072 + 16;
    assert_int_equal(quire__host_unpack_run(parallel, &f.args), QUIRE_EINVAL);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_data_comes_back_bit_for_bit),
        cmocka_unit_test(a_full_slot_stores_what_cannot_be_coded),
        cmocka_unit_test(exactly_the_escapes_that_fit_are_coded),
        cmocka_unit_test(a_damaged_slot_writes_its_unit_whole_or_not_at_all),
        cmocka_unit_test(a_page_without_whole_vectors_is_refused),
    };
    if (quire__parallel_open(&parallel, 2, NULL, NULL) != QUIRE_OK)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    quire__parallel_close(parallel);
    return failed;
}
