/* test_device_range.c: addresses whose memory comes and goes, on every device. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "device/device.h"

enum { GRANULES = 5, SEEDS = 20 };

static const size_t granule = 2 * 1024 * 1024; /* a multiple of each device's */

typedef struct range {
    quire__device *device;
    quire__stream *stream;
    unsigned char *memory;       /* GRANULES of addresses */
    unsigned char *sent, *got;   /* pinned, one granule each */
} range;

static range range_open(const char *name)
{
    range r = {0};
    void *memory;
    quire__device_config config = {.threads = 1};
    if (quire__device_open(&r.device, name, &config) != QUIRE_OK)
        fail_msg("%s: %s", name, quire_error_text());
    assert_int_equal(granule % quire__device_granule(r.device), 0);
    assert_int_equal(quire__device_stream_open(r.device, &r.stream), QUIRE_OK);
    assert_int_equal(quire__device_reserve(r.device, GRANULES * granule, &memory), QUIRE_OK);
    r.memory = memory;
    assert_int_equal(quire__device_alloc(r.device, QUIRE__MEMORY_PINNED, granule, &memory), QUIRE_OK);
    r.sent = memory;
    assert_int_equal(quire__device_alloc(r.device, QUIRE__MEMORY_PINNED, granule, &memory), QUIRE_OK);
    r.got = memory;
    return r;
}

static void range_close(range *r)
{
    quire__device_release(r->device, r->memory, GRANULES * granule);
    quire__device_free(r->device, QUIRE__MEMORY_PINNED, r->sent);
    quire__device_free(r->device, QUIRE__MEMORY_PINNED, r->got);
    quire__device_stream_close(r->device, r->stream);
    quire__device_close(r->device);
}

static void fill(range *r, int at, unsigned char value)
{
    quire__copy copy = {r->memory + (size_t)at * granule, r->sent, granule};
    memset(r->sent, value, granule);
    assert_int_equal(quire__device_copy(r->device, r->stream, &copy, 1), QUIRE_OK);
    assert_int_equal(quire__device_stream_synchronize(r->device, r->stream), QUIRE_OK);
}

static bool holds(range *r, int at, unsigned char value)
{
    quire__copy copy = {r->got, r->memory + (size_t)at * granule, granule};
    assert_int_equal(quire__device_copy(r->device, r->stream, &copy, 1), QUIRE_OK);
    assert_int_equal(quire__device_stream_synchronize(r->device, r->stream), QUIRE_OK);
    for (size_t i = 0; i < granule; i++)
        if (r->got[i] != value)
            return false;
    return true;
}

static void map(range *r, int at, int count)
{
    assert_int_equal(quire__device_map(r->device, r->memory + (size_t)at * granule, (size_t)count * granule), QUIRE_OK);
}

static void unmap(range *r, int at, int count)
{
    assert_int_equal(quire__device_unmap(r->device, r->memory + (size_t)at * granule, (size_t)count * granule),
                     QUIRE_OK);
}

static void comes_and_goes(const char *name)
{
    range r = range_open(name);
    map(&r, 0, 1);
    map(&r, 2, 2);
    fill(&r, 0, 10);
    fill(&r, 2, 12);
    fill(&r, 3, 13);
    unmap(&r, 0, 1);
    assert_true(holds(&r, 2, 12) && holds(&r, 3, 13));
    map(&r, 4, 1);
    map(&r, 0, 1);
    fill(&r, 0, 20);
    fill(&r, 4, 14);
    assert_true(holds(&r, 0, 20) && holds(&r, 2, 12) && holds(&r, 3, 13) && holds(&r, 4, 14));
    unmap(&r, 2, 2);
    assert_true(holds(&r, 0, 20) && holds(&r, 4, 14));
    unmap(&r, 0, 1);
    unmap(&r, 4, 1);
    range_close(&r);
}

static void memory_comes_and_goes_behind_addresses_that_stay(void **state)
{
    (void)state;
    comes_and_goes("host");
    for (int seed = 0; seed < SEEDS; seed++) {
        char name[32];
        snprintf(name, sizeof name, "sim:%d", seed);
        comes_and_goes(name);
    }
    if (quire__device_cuda_count() > 0)
        comes_and_goes("cuda:0");
    else
        print_message("cuda: skipped, no CUDA device in this build or machine\n");
}

static size_t resident_pages(void)
{
    size_t total = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%zu %zu", &total, &resident), 2);
    fclose(file);
    return resident;
}

static void unmapping_gives_the_memory_of_the_host_device_back(void **state)
{
    size_t full, empty, pages = 4 * granule / 4096;
    range r = range_open("host");
    (void)state;
    map(&r, 0, 4);
    for (int i = 0; i < 4; i++)
        fill(&r, i, 1);
    full = resident_pages();
    unmap(&r, 0, 4);
    empty = resident_pages();
    assert_true(full >= empty + pages * 9 / 10);
    range_close(&r);
}

/* A kernel or a copy that meets an address after its memory went is what fences are for, so the sim must see it. */
static void the_sim_sees_a_copy_that_comes_too_late(void **state)
{
    int seen = 0;
    (void)state;
    for (int seed = 0; seed < SEEDS; seed++) {
        char name[32];
        snprintf(name, sizeof name, "sim:%d", seed);
        range r = range_open(name);
        map(&r, 1, 1);
        memset(r.sent, 1, granule);
        quire__copy copy = {r.memory + granule, r.sent, granule};
        assert_int_equal(quire__device_copy(r.device, r.stream, &copy, 1), QUIRE_OK);
        unmap(&r, 1, 1); /* nobody waited */
        if (quire__device_stream_synchronize(r.device, r.stream) == QUIRE_EDEVICE) {
            assert_non_null(strstr(quire_error_text(), "given back"));
            seen++;
        }
        range_close(&r);
    }
    assert_true(seen > 0 && seen < SEEDS); /* some seeds copy at once */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_comes_and_goes_behind_addresses_that_stay),
        cmocka_unit_test(unmapping_gives_the_memory_of_the_host_device_back),
        cmocka_unit_test(the_sim_sees_a_copy_that_comes_too_late),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
