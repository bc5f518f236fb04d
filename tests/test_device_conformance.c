/* test_device_conformance.c: one contract, three devices. Every promise is checked on host, on sim with many seeds, and
 * on CUDA where there is one; what only an adversary shows is checked on sim. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "attend_fixture.h"
#include "device/device.h"

enum { SEEDS = 200, QUERIES_MOST = 1000000 };

/* ---- devices ------------------------------------------------------------------------------------------------- */

static quire__device *device_open(const char *name)
{
    quire__device *device = NULL;
    quire__device_config config = {.threads = 1};
    if (quire__device_open(&device, name, &config) != QUIRE_OK)
        fail_msg("%s: %s", name, quire_error_text());
    return device;
}

/* Runs `promise` on every device there is. */
static void each_device(void (*promise)(quire__device *device), int seeds)
{
    quire__device *device = device_open("host");
    promise(device);
    quire__device_close(device);
    for (int seed = 0; seed < seeds; seed++) {
        char name[32];
        snprintf(name, sizeof name, "sim:%d", seed);
        device = device_open(name);
        promise(device);
        quire__device_close(device);
    }
    if (quire__device_cuda_count() > 0) {
        device = device_open("cuda:0");
        promise(device);
        quire__device_close(device);
    } else {
        print_message("cuda: skipped, no CUDA device in this build or machine\n");
    }
}

static void *take(quire__device *device, quire__memory kind, size_t bytes)
{
    void *memory = NULL;
    assert_int_equal(quire__device_alloc(device, kind, bytes, &memory), QUIRE_OK);
    assert_non_null(memory);
    assert_int_equal((uintptr_t)memory % 256, 0);
    return memory;
}

static quire__stream *stream_open(quire__device *device)
{
    quire__stream *stream = NULL;
    assert_int_equal(quire__device_stream_open(device, &stream), QUIRE_OK);
    return stream;
}

static quire__event *event_open(quire__device *device)
{
    quire__event *event = NULL;
    assert_int_equal(quire__device_event_open(device, &event), QUIRE_OK);
    return event;
}

static void copy_one(quire__device *device, quire__stream *stream, void *to, const void *from, size_t bytes)
{
    quire__copy copy = {to, from, bytes};
    assert_int_equal(quire__device_copy(device, stream, &copy, 1), QUIRE_OK);
}

/* Queries until done. */
static void await(quire__device *device, quire__event *event)
{
    bool done = false;
    for (int i = 0; i < QUERIES_MOST && !done; i++)
        assert_int_equal(quire__device_event_query(device, event, &done), QUIRE_OK);
    assert_true(done);
}

/* Pinned and device buffers of some bytes each, and two streams. */
typedef struct bench {
    quire__device *device;
    quire__stream *a, *b;
    size_t bytes;
    unsigned char *pinned[4], *memory[4];
} bench;

static bench bench_open(quire__device *device, size_t bytes)
{
    bench b = {.device = device, .a = stream_open(device), .b = stream_open(device), .bytes = bytes};
    for (int i = 0; i < 4; i++) {
        b.pinned[i] = take(device, QUIRE__MEMORY_PINNED, bytes);
        b.memory[i] = take(device, QUIRE__MEMORY_DEVICE, bytes);
        memset(b.pinned[i], i + 1, bytes);
    }
    return b;
}

static void bench_close(bench *b)
{
    assert_int_equal(quire__device_stream_synchronize(b->device, b->a), QUIRE_OK);
    assert_int_equal(quire__device_stream_synchronize(b->device, b->b), QUIRE_OK);
    for (int i = 0; i < 4; i++) {
        quire__device_free(b->device, QUIRE__MEMORY_PINNED, b->pinned[i]);
        quire__device_free(b->device, QUIRE__MEMORY_DEVICE, b->memory[i]);
    }
    quire__device_stream_close(b->device, b->a);
    quire__device_stream_close(b->device, b->b);
}

static bool all_are(const unsigned char *bytes, size_t count, unsigned char value)
{
    for (size_t i = 0; i < count; i++)
        if (bytes[i] != value)
            return false;
    return true;
}

/* ---- order --------------------------------------------------------------------------------------------------- */

static void stream_order(quire__device *device)
{
    bench b = bench_open(device, 1000);
    for (int i = 0; i < 3; i++) /* the same destination three times, then back */
        copy_one(device, b.a, b.memory[0], b.pinned[i], b.bytes);
    copy_one(device, b.a, b.memory[1], b.memory[0], b.bytes);
    copy_one(device, b.a, b.pinned[3], b.memory[1], b.bytes);
    assert_int_equal(quire__device_stream_synchronize(device, b.a), QUIRE_OK);
    assert_true(all_are(b.pinned[3], b.bytes, 3));
    bench_close(&b);
}

static void a_stream_runs_in_order(void **state)
{
    (void)state;
    each_device(stream_order, SEEDS);
}

static void event_order(quire__device *device)
{
    bench b = bench_open(device, 1000);
    quire__event *written = event_open(device), *read = event_open(device);
    for (int round = 0; round < 3; round++) {
        /* a writes, b reads; then a writes again, but not before b has read */
        copy_one(device, b.a, b.memory[0], b.pinned[round], b.bytes);
        assert_int_equal(quire__device_event_record(device, written, b.a), QUIRE_OK);
        assert_int_equal(quire__device_stream_wait(device, b.b, written), QUIRE_OK);
        copy_one(device, b.b, b.memory[1], b.memory[0], b.bytes);
        assert_int_equal(quire__device_event_record(device, read, b.b), QUIRE_OK);
        assert_int_equal(quire__device_stream_wait(device, b.a, read), QUIRE_OK);
        copy_one(device, b.a, b.memory[0], b.pinned[3], b.bytes);
        copy_one(device, b.b, b.memory[2], b.memory[1], b.bytes);
    }
    copy_one(device, b.b, b.pinned[3], b.memory[2], b.bytes);
    assert_int_equal(quire__device_stream_synchronize(device, b.a), QUIRE_OK);
    assert_int_equal(quire__device_stream_synchronize(device, b.b), QUIRE_OK);
    assert_true(all_are(b.pinned[3], b.bytes, 3));
    quire__device_event_close(device, written);
    quire__device_event_close(device, read);
    bench_close(&b);
}

static void an_event_orders_two_streams(void **state)
{
    (void)state;
    each_device(event_order, SEEDS);
}

static void rerecord(quire__device *device)
{
    bench b = bench_open(device, 1000);
    quire__event *event = event_open(device);
    copy_one(device, b.a, b.memory[0], b.pinned[0], b.bytes);
    assert_int_equal(quire__device_event_record(device, event, b.a), QUIRE_OK);
    copy_one(device, b.a, b.memory[0], b.pinned[1], b.bytes);
    assert_int_equal(quire__device_event_record(device, event, b.a), QUIRE_OK);
    assert_int_equal(quire__device_stream_wait(device, b.b, event), QUIRE_OK); /* for the second */
    /* a later record, behind b's copy in effect, must not be what b waits for */
    copy_one(device, b.b, b.pinned[3], b.memory[0], b.bytes);
    assert_int_equal(quire__device_event_record(device, event, b.b), QUIRE_OK);
    await(device, event);
    assert_true(all_are(b.pinned[3], b.bytes, 2));
    quire__device_event_close(device, event);
    bench_close(&b);
}

static void a_wait_means_the_last_record_before_it(void **state)
{
    (void)state;
    each_device(rerecord, SEEDS);
}

static void never_recorded(quire__device *device)
{
    bench b = bench_open(device, 100);
    quire__event *event = event_open(device);
    await(device, event);
    assert_int_equal(quire__device_stream_wait(device, b.a, event), QUIRE_OK);
    copy_one(device, b.a, b.pinned[1], b.pinned[0], b.bytes);
    assert_int_equal(quire__device_stream_synchronize(device, b.a), QUIRE_OK);
    assert_true(all_are(b.pinned[1], b.bytes, 1));
    quire__device_event_close(device, event);
    bench_close(&b);
}

static void an_event_never_recorded_holds_nobody(void **state)
{
    (void)state;
    each_device(never_recorded, SEEDS);
}

static void closing_early(quire__device *device)
{
    bench b = bench_open(device, 4096);
    quire__event *event = event_open(device);
    copy_one(device, b.a, b.memory[0], b.pinned[1], b.bytes);
    assert_int_equal(quire__device_event_record(device, event, b.a), QUIRE_OK);
    assert_int_equal(quire__device_stream_wait(device, b.b, event), QUIRE_OK);
    quire__device_event_close(device, event); /* the wait stays */
    copy_one(device, b.b, b.pinned[3], b.memory[0], b.bytes);
    assert_int_equal(quire__device_stream_synchronize(device, b.b), QUIRE_OK);
    assert_true(all_are(b.pinned[3], b.bytes, 2));
    bench_close(&b);
}

static void closing_an_event_leaves_what_waits_for_it(void **state)
{
    (void)state;
    each_device(closing_early, SEEDS);
}

static void polling(quire__device *device)
{
    bench b = bench_open(device, 1 << 16);
    quire__event *events[3];
    for (int i = 0; i < 3; i++) {
        events[i] = event_open(device);
        copy_one(device, i % 2 ? b.a : b.b, b.memory[i], b.pinned[i], b.bytes);
        assert_int_equal(quire__device_event_record(device, events[i], i % 2 ? b.a : b.b), QUIRE_OK);
        assert_int_equal(quire__device_stream_wait(device, i % 2 ? b.b : b.a, events[i]), QUIRE_OK);
    }
    for (int i = 2; i >= 0; i--) {
        await(device, events[i]);
        quire__device_event_close(device, events[i]);
    }
    bench_close(&b);
}

static void polling_an_event_ends(void **state)
{
    (void)state;
    each_device(polling, SEEDS);
}

static void batches(quire__device *device)
{
    enum { COUNT = 300, BYTES = 48 };
    quire__stream *stream = stream_open(device);
    unsigned char *from = take(device, QUIRE__MEMORY_PINNED, COUNT * BYTES);
    unsigned char *to = take(device, QUIRE__MEMORY_PINNED, COUNT * BYTES);
    unsigned char *memory = take(device, QUIRE__MEMORY_DEVICE, COUNT * BYTES);
    quire__copy there[COUNT], back[COUNT];
    for (int i = 0; i < COUNT * BYTES; i++)
        from[i] = (unsigned char)(i * 7 + i / 256);
    for (int i = 0; i < COUNT; i++) {
        int other = (i * 7) % COUNT; /* 7 and 300 have no common divisor: a permutation */
        there[i] = (quire__copy){memory + other * BYTES, from + i * BYTES, BYTES};
        back[i] = (quire__copy){to + i * BYTES, memory + other * BYTES, BYTES};
    }
    assert_int_equal(quire__device_copy(device, stream, there, COUNT), QUIRE_OK);
    memset(there, 0, sizeof there); /* read during the call only */
    assert_int_equal(quire__device_copy(device, stream, back, COUNT), QUIRE_OK);
    assert_int_equal(quire__device_copy(device, stream, NULL, 0), QUIRE_OK);
    assert_int_equal(quire__device_stream_synchronize(device, stream), QUIRE_OK);
    assert_memory_equal(from, to, COUNT * BYTES);
    quire__device_free(device, QUIRE__MEMORY_PINNED, from);
    quire__device_free(device, QUIRE__MEMORY_PINNED, to);
    quire__device_free(device, QUIRE__MEMORY_DEVICE, memory);
    quire__device_stream_close(device, stream);
}

static void a_batch_of_copies_arrives_whole(void **state)
{
    (void)state;
    each_device(batches, 50);
}

/* ---- failures ------------------------------------------------------------------------------------------------ */

static void fault(quire__device *device)
{
    bench b = bench_open(device, 1000);
    quire__event *before = event_open(device), *after = event_open(device), *other = event_open(device);
    bool done = false;
    quire_status status;

    memset(b.pinned[3], 0xee, b.bytes);
    copy_one(device, b.a, b.memory[0], b.pinned[0], b.bytes);
    quire__device_fail_copy(device, 2);
    copy_one(device, b.a, b.memory[1], b.pinned[1], b.bytes);
    assert_int_equal(quire__device_event_record(device, before, b.a), QUIRE_OK);
    copy_one(device, b.a, b.pinned[3], b.memory[0], b.bytes); /* fails */
    assert_int_equal(quire__device_event_record(device, other, b.b), QUIRE_OK);
    assert_int_equal(quire__device_event_record(device, after, b.a), QUIRE_OK);
    await(device, before);
    await(device, other);
    do
        status = quire__device_event_query(device, after, &done);
    while (status == QUIRE_OK && !done);
    assert_int_equal(status, QUIRE_EDEVICE);
    assert_true(all_are(b.pinned[3], b.bytes, 0xee));
    await(device, after); /* once */
    copy_one(device, b.a, b.pinned[3], b.memory[1], b.bytes);
    assert_int_equal(quire__device_event_record(device, after, b.a), QUIRE_OK);
    await(device, after);
    assert_true(all_are(b.pinned[3], b.bytes, 2));
    quire__device_event_close(device, before);
    quire__device_event_close(device, after);
    quire__device_event_close(device, other);
    bench_close(&b);
}

static void an_injected_fault_is_seen_once_and_its_bytes_do_not_arrive(void **state)
{
    (void)state;
    each_device(fault, SEEDS);
}

static void too_much(quire__device *device)
{
    uint64_t limit = 0;
    void *memory = NULL;
    assert_int_equal(quire__device_memory_limit(device, QUIRE__MEMORY_DEVICE, &limit), QUIRE_OK);
    assert_true(limit > 1 << 20);
    assert_int_equal(quire__device_alloc(device, QUIRE__MEMORY_DEVICE, (size_t)limit + (1u << 30), &memory),
                     QUIRE_ENOMEM);
    assert_null(memory);
}

static void more_memory_than_there_is_is_refused(void **state)
{
    (void)state;
    each_device(too_much, 1);
}

static void names(void **state)
{
    static const char *const wrong[] = {"", "gpu", "cuda", "cuda:", "cuda:x", "cuda:-1", "cuda:99999", "sim", "sim:",
                                        "sim:1x", "sim:18446744073709551616", "host:0", "HOST"};
    quire__device *device = NULL;
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(quire__device_open(&device, wrong[i], NULL), QUIRE_EINVAL);
        assert_non_null(strstr(quire_error_text(), "sim:SEED"));
        assert_null(device);
    }
    assert_int_equal(quire__device_open(&device, "cuda:1023", NULL), QUIRE_EUNSUPPORTED);
    assert_int_equal(quire__device_open(&device, "sim:18446744073709551615", NULL), QUIRE_OK);
    assert_string_equal(quire__device_name(device), "sim:18446744073709551615");
    assert_false(quire__device_is_cuda(device));
    assert_int_equal(quire__device_capabilities(device), QUIRE__DEVICE_CPU_VISIBLE | QUIRE__DEVICE_SERIAL);
    quire__device_close(device);
    assert_int_equal(quire__device_open(&device, "auto", NULL), QUIRE_OK);
    assert_string_equal(quire__device_name(device), quire__device_cuda_count() > 0 ? "cuda:0" : "host");
    quire__device_close(device);
    quire__device_close(NULL);
}

static void a_name_that_is_no_device_is_an_error_that_lists_them(void **state)
{
    names(state);
}

/* ---- kernels ------------------------------------------------------------------------------------------------- */

/* Copies plain memory to the device and waits. */
static void *upload(quire__device *device, quire__stream *stream, const void *from, size_t bytes)
{
    void *pinned = take(device, QUIRE__MEMORY_PINNED, bytes), *memory = take(device, QUIRE__MEMORY_DEVICE, bytes);
    memcpy(pinned, from, bytes);
    copy_one(device, stream, memory, pinned, bytes);
    assert_int_equal(quire__device_stream_synchronize(device, stream), QUIRE_OK);
    quire__device_free(device, QUIRE__MEMORY_PINNED, pinned);
    return memory;
}

static void download(quire__device *device, quire__stream *stream, void *to, const void *memory, size_t bytes)
{
    void *pinned = take(device, QUIRE__MEMORY_PINNED, bytes);
    copy_one(device, stream, pinned, memory, bytes);
    assert_int_equal(quire__device_stream_synchronize(device, stream), QUIRE_OK);
    memcpy(to, pinned, bytes);
    quire__device_free(device, QUIRE__MEMORY_PINNED, pinned);
}

static void launch(quire__device *device, quire__stream *stream, quire__kernel kernel, const quire__kernel_args *args)
{
    if (quire__device_launch(device, stream, kernel, args) != QUIRE_OK)
        fail_msg("kernel %d on %s: %s", (int)kernel, quire__device_name(device), quire_error_text());
}

/* The fixture's arrays on the device, in `args`. */
typedef struct uploaded {
    void *memory[8];
    int count;
} uploaded;

static void *put(quire__device *device, quire__stream *stream, uploaded *all, const void *from, size_t bytes)
{
    return all->memory[all->count++] = upload(device, stream, from, bytes);
}

static void attention_on(quire__device *device, const attend_shape *shape, uint64_t *random)
{
    quire__stream *stream = stream_open(device);
    attend_fixture f;
    uploaded all = {.count = 0};
    quire__kernel_args args;
    fixture_open(&f, shape, 3, (int32_t[]){200, 33, 1}, (int32_t[]){1, 20, 1}, random);
    unsigned char *expected = malloc(f.out_bytes);
    quire__attend_args attend = fixture_args(&f, 0, expected);
    int32_t select[] = {0, 21};
    quire__host_attend_prefill(&attend);

    attend.pages.arena = put(device, stream, &all, f.arena, f.arena_bytes);
    if (f.scales != NULL)
        attend.pages.scales = put(device, stream, &all, f.scales, 2 * (size_t)shape->kv_heads * sizeof *f.scales);
    attend.q.data = put(device, stream, &all, f.q, f.q_bytes);
    attend.out.data = put(device, stream, &all, f.out, f.out_bytes);
    attend.block_table = put(device, stream, &all, f.table, 3 * (size_t)f.table_stride * sizeof *f.table);
    attend.token_rows = put(device, stream, &all, f.token_rows, (size_t)f.tokens * sizeof *f.token_rows);
    attend.positions = put(device, stream, &all, f.positions, (size_t)f.tokens * sizeof *f.positions);
    attend.tiles = put(device, stream, &all, &f.tiles[1], sizeof f.tiles[1]);
    attend.count = 1;
    args.attend = attend;
    launch(device, stream, QUIRE__KERNEL_ATTEND_PREFILL, &args);

    int32_t *selected = upload(device, stream, select, sizeof select);
    attend.select = selected;
    attend.tiles = NULL;
    attend.count = 2;
    attend.split_tokens = 64;
    attend.work_floats = quire__attend_work_floats(&attend);
    attend.work = take(device, QUIRE__MEMORY_DEVICE, (size_t)attend.work_floats * sizeof(float));
    args.attend = attend;
    launch(device, stream, QUIRE__KERNEL_ATTEND_DECODE, &args);
    download(device, stream, f.out, attend.out.data, f.out_bytes);
    double difference = fixture_difference(&f, expected, f.out);
    if (!(difference <= fixture_tolerance(shape->tensor)))
        fail_msg("%s: attention is off by %g", quire__device_name(device), difference);

    quire__device_free(device, QUIRE__MEMORY_DEVICE, selected);
    quire__device_free(device, QUIRE__MEMORY_DEVICE, attend.work);
    for (int i = 0; i < all.count; i++)
        quire__device_free(device, QUIRE__MEMORY_DEVICE, all.memory[i]);
    quire__device_stream_close(device, stream);
    free(expected);
    fixture_close(&f);
}

static void attention(quire__device *device)
{
    static const quire_dtype types[] = {QUIRE_DTYPE_F32, QUIRE_DTYPE_F16, QUIRE_DTYPE_BF16, QUIRE_DTYPE_FP8_E4M3};
    uint64_t random = 41;
    for (int i = 0; i < 4; i++) {
        attend_shape shape = {types[i], i % 2 ? QUIRE_DTYPE_F32 : QUIRE_DTYPE_BF16, 16, i == 3 ? 128 : 64, 2, 3, 1, i == 3};
        attention_on(device, &shape, &random);
    }
}

static void attention_equals_the_oracle_on_every_device(void **state)
{
    (void)state;
    each_device(attention, 4);
}

static void append_on(quire__device *device)
{
    static const quire_dtype types[] = {QUIRE_DTYPE_F32, QUIRE_DTYPE_F16, QUIRE_DTYPE_BF16, QUIRE_DTYPE_FP8_E4M3};
    enum { TOKENS = 9 };
    uint64_t random = 42;
    for (int i = 0; i < 4; i++) {
        attend_shape shape = {types[i], QUIRE_DTYPE_F32, 16, 64, 2, 1, 2, i == 3};
        quire__stream *stream = stream_open(device);
        attend_fixture f;
        float kv[2 * TOKENS * 2 * 64];
        int64_t slots[TOKENS];
        uploaded all = {.count = 0};
        fixture_open(&f, &shape, 1, (int32_t[]){40}, (int32_t[]){1}, &random);
        for (size_t j = 0; j < sizeof kv / sizeof kv[0]; j++)
            kv[j] = (float)(pow(10, 3 * fixture_uniform(&random)) * fixture_uniform(&random));
        for (int j = 0; j < TOKENS; j++)
            slots[j] = j == 4 ? -1 : j * 5;
        quire__append_args append = {.pages = fixture_pages(&f), .layer = 1, .tokens = TOKENS, .slots = slots};
        append.k = fixture_tensor(&f, kv, 2);
        append.v = fixture_tensor(&f, kv + TOKENS * 2 * 64, 2);
        void *arena = put(device, stream, &all, f.arena, f.arena_bytes);
        unsigned char *got = malloc(f.arena_bytes);
        quire__host_append(&append);

        float *memory = put(device, stream, &all, kv, sizeof kv);
        append.pages.arena = arena;
        append.k.data = memory;
        append.v.data = memory + TOKENS * 2 * 64;
        append.slots = put(device, stream, &all, slots, sizeof slots);
        if (f.scales != NULL)
            append.pages.scales = put(device, stream, &all, f.scales, 4 * sizeof *f.scales);
        quire__kernel_args args = {.append = append};
        launch(device, stream, QUIRE__KERNEL_APPEND, &args);
        download(device, stream, got, arena, f.arena_bytes);
        assert_memory_equal(got, f.arena, f.arena_bytes);
        for (int j = 0; j < all.count; j++)
            quire__device_free(device, QUIRE__MEMORY_DEVICE, all.memory[j]);
        quire__device_stream_close(device, stream);
        free(got);
        fixture_close(&f);
    }
}

static void append_stores_the_same_bytes_on_every_device(void **state)
{
    (void)state;
    each_device(append_on, 4);
}

static void moves(quire__device *device)
{
    enum { BLOCKS = 8, BYTES = 256 };
    quire__stream *stream = stream_open(device);
    unsigned char arena[BLOCKS * BYTES], expected[BLOCKS * BYTES], zeros[4 * 64] = {0};
    quire__block_pair pairs[] = {{1, 0}, {2, 5}};
    int64_t offsets[] = {256, 1024, 64, 1984};
    int32_t table[12];
    quire__table_change changes[] = {{0, 1, 7}, {2, 3, -5}};
    uploaded all = {.count = 0};
    quire__kernel_args args;

    for (int i = 0; i < BLOCKS * BYTES; i++)
        expected[i] = arena[i] = (unsigned char)(i * 13 + i / 256);
    memset(table, 0, sizeof table);
    unsigned char *memory = put(device, stream, &all, arena, sizeof arena);
    unsigned char *staging = put(device, stream, &all, zeros, sizeof zeros);
    int64_t *device_offsets = put(device, stream, &all, offsets, sizeof offsets);
    args.block_copy = (quire__block_copy_args){.arena = memory,
                                                .block_stride = BYTES,
                                                .block_bytes = BYTES,
                                                .pairs = put(device, stream, &all, pairs, sizeof pairs),
                                                .count = 2};
    launch(device, stream, QUIRE__KERNEL_BLOCK_COPY, &args);
    args.pieces = (quire__pieces_args){memory, staging, device_offsets, 64, 4};
    launch(device, stream, QUIRE__KERNEL_GATHER, &args);
    args.pieces.offsets = device_offsets + 2; /* pieces 0 and 1 to where 2 and 3 came from */
    args.pieces.count = 2;
    launch(device, stream, QUIRE__KERNEL_SCATTER, &args);
    memcpy(expected, expected + BYTES, BYTES);
    memcpy(expected + 5 * BYTES, expected + 2 * BYTES, BYTES);
    memcpy(expected + 64, expected + 256, 64);
    memcpy(expected + 1984, expected + 1024, 64);
    download(device, stream, arena, memory, sizeof arena);
    assert_memory_equal(arena, expected, sizeof arena);

    int32_t *device_table = put(device, stream, &all, table, sizeof table);
    args.table = (quire__table_args){device_table, 4, 2, put(device, stream, &all, changes, sizeof changes)};
    launch(device, stream, QUIRE__KERNEL_TABLE, &args);
    download(device, stream, table, device_table, sizeof table);
    for (int i = 0; i < 12; i++)
        assert_int_equal(table[i], i == 1 ? 7 : i == 11 ? -5 : 0);
    for (int i = 0; i < all.count; i++)
        quire__device_free(device, QUIRE__MEMORY_DEVICE, all.memory[i]);
    quire__device_stream_close(device, stream);
}

static void blocks_pieces_and_tables_move_on_every_device(void **state)
{
    (void)state;
    each_device(moves, 20);
}

/* ---- what only the adversary shows --------------------------------------------------------------------------- */

/* In how many of the seeds is `disorder` seen? */
static int seeds_that(bool (*disorder)(quire__device *device))
{
    int seen = 0;
    for (int seed = 0; seed < SEEDS; seed++) {
        char name[32];
        snprintf(name, sizeof name, "sim:%d", seed);
        quire__device *device = device_open(name);
        seen += disorder(device);
        quire__device_close(device);
    }
    return seen;
}

static bool unfenced(quire__device *device)
{
    bench b = bench_open(device, 1000);
    bool wrong;
    copy_one(device, b.a, b.memory[0], b.pinned[0], b.bytes);
    copy_one(device, b.b, b.pinned[3], b.memory[0], b.bytes); /* no event between */
    assert_int_equal(quire__device_stream_synchronize(device, b.a), QUIRE_OK);
    assert_int_equal(quire__device_stream_synchronize(device, b.b), QUIRE_OK);
    wrong = !all_are(b.pinned[3], b.bytes, 1);
    bench_close(&b);
    return wrong;
}

static bool overtaken(quire__device *device)
{
    bench b = bench_open(device, 1000);
    bool wrong;
    copy_one(device, b.a, b.memory[0], b.pinned[0], b.bytes);
    assert_int_equal(quire__device_stream_synchronize(device, b.a), QUIRE_OK);
    copy_one(device, b.b, b.pinned[3], b.memory[0], b.bytes); /* a reader ... */
    copy_one(device, b.a, b.memory[0], b.pinned[1], b.bytes); /* ... and a writer that does not wait for it */
    assert_int_equal(quire__device_stream_synchronize(device, b.a), QUIRE_OK);
    assert_int_equal(quire__device_stream_synchronize(device, b.b), QUIRE_OK);
    wrong = !all_are(b.pinned[3], b.bytes, 1);
    bench_close(&b);
    return wrong;
}

static bool torn(quire__device *device)
{
    bench b = bench_open(device, 1000);
    copy_one(device, b.a, b.memory[0], b.pinned[0], b.bytes);
    copy_one(device, b.b, b.memory[0], b.pinned[1], b.bytes);
    assert_int_equal(quire__device_stream_synchronize(device, b.a), QUIRE_OK);
    assert_int_equal(quire__device_stream_synchronize(device, b.b), QUIRE_OK);
    bool whole = all_are(b.memory[0], b.bytes, 1) || all_are(b.memory[0], b.bytes, 2); /* CPU-visible */
    bench_close(&b);
    return !whole;
}

static bool late_read(quire__device *device)
{
    bench b = bench_open(device, 1000);
    copy_one(device, b.a, b.memory[0], b.pinned[0], b.bytes);
    memset(b.pinned[0], 9, b.bytes); /* the source still belongs to the copy */
    assert_int_equal(quire__device_stream_synchronize(device, b.a), QUIRE_OK);
    bool wrong = !all_are(b.memory[0], b.bytes, 1);
    bench_close(&b);
    return wrong;
}

static void a_missing_event_shows_for_some_seed(void **state)
{
    int unfenced_seeds = seeds_that(unfenced), overtaken_seeds = seeds_that(overtaken);
    int torn_seeds = seeds_that(torn), late_seeds = seeds_that(late_read);
    (void)state;
    print_message("of %d seeds: reader too early %d, writer too early %d, torn %d, source reused too early %d\n", SEEDS,
                  unfenced_seeds, overtaken_seeds, torn_seeds, late_seeds);
    assert_true(unfenced_seeds > SEEDS / 10 && unfenced_seeds < SEEDS);
    assert_true(overtaken_seeds > SEEDS / 10 && overtaken_seeds < SEEDS);
    assert_true(torn_seeds > SEEDS / 50);
    assert_true(late_seeds > SEEDS / 10);
}

/* Two copies of a batch, and a reader that finds the second there while the first is not. */
static bool batch_disorder(quire__device *device)
{
    bench b = bench_open(device, 64);
    quire__copy copies[] = {{b.memory[0], b.pinned[0], b.bytes}, {b.memory[1], b.pinned[1], b.bytes}};
    quire__event *event = event_open(device);
    bool done = false, seen = false;
    assert_int_equal(quire__device_copy(device, b.a, copies, 2), QUIRE_OK);
    assert_int_equal(quire__device_event_record(device, event, b.a), QUIRE_OK);
    while (!done) {
        seen |= b.memory[1][63] == 2 && b.memory[0][0] != 1;
        assert_int_equal(quire__device_event_query(device, event, &done), QUIRE_OK);
    }
    quire__device_event_close(device, event);
    bench_close(&b);
    return seen;
}

static void copies_of_a_batch_are_unordered_for_some_seed(void **state)
{
    (void)state;
    assert_true(seeds_that(batch_disorder) > 0);
}

static void the_same_seed_is_the_same_order(void **state)
{
    (void)state;
    for (int seed = 0; seed < 20; seed++) {
        char name[32];
        bool results[2][3];
        snprintf(name, sizeof name, "sim:%d", seed);
        for (int i = 0; i < 2; i++) {
            quire__device *device = device_open(name);
            results[i][0] = unfenced(device);
            results[i][1] = torn(device);
            results[i][2] = batch_disorder(device);
            quire__device_close(device);
        }
        assert_memory_equal(results[0], results[1], sizeof results[0]);
    }
}

static void the_sim_refuses_copies_that_break_the_contract(void **state)
{
    quire__device *device = device_open("sim:1");
    bench b = bench_open(device, 100);
    unsigned char plain[100];
    (void)state;
    quire__copy foreign = {b.memory[0], plain, 100}, past = {b.memory[0], b.pinned[0], 101};
    quire__copy chain[] = {{b.memory[0], b.pinned[0], 100}, {b.memory[1], b.memory[0], 100}};
    quire__copy same[] = {{b.memory[0], b.pinned[0], 100}, {b.memory[0] + 50, b.pinned[1], 50}};
    assert_int_equal(quire__device_copy(device, b.a, &foreign, 1), QUIRE_EINVAL);
    assert_int_equal(quire__device_copy(device, b.a, &past, 1), QUIRE_EINVAL);
    assert_int_equal(quire__device_copy(device, b.a, chain, 2), QUIRE_EINVAL);
    assert_int_equal(quire__device_copy(device, b.a, same, 2), QUIRE_EINVAL);
    bench_close(&b);
    quire__device_close(device);
}

static void a_kernel_that_leaves_the_device_breaks_it_and_nothing_else(void **state)
{
    quire__device *device = device_open("sim:3");
    bench b = bench_open(device, 4096);
    quire__block_pair pair = {0, 1 << 20};
    quire__event *event = event_open(device);
    bool done = false;
    quire_status status;
    (void)state;
    quire__kernel_args args = {.block_copy = {.arena = b.memory[0],
                                              .block_stride = 1024,
                                              .block_bytes = 1024,
                                              .pairs = (quire__block_pair *)(void *)b.pinned[0],
                                              .count = 1}};
    memcpy(b.pinned[0], &pair, sizeof pair);
    assert_int_equal(quire__device_launch(device, b.a, QUIRE__KERNEL_BLOCK_COPY, &args), QUIRE_OK);
    status = quire__device_event_record(device, event, b.a);
    while (status == QUIRE_OK && !done)
        status = quire__device_event_query(device, event, &done);
    assert_int_equal(status, QUIRE_EDEVICE);
    assert_non_null(strstr(quire_error_text(), "block copy"));
    assert_int_equal(quire__device_stream_synchronize(device, b.a), QUIRE_EDEVICE);
    quire__device_event_close(device, event);
    for (int i = 0; i < 4; i++) {
        quire__device_free(device, QUIRE__MEMORY_PINNED, b.pinned[i]);
        quire__device_free(device, QUIRE__MEMORY_DEVICE, b.memory[i]);
    }
    quire__device_stream_close(device, b.a);
    quire__device_stream_close(device, b.b);
    quire__device_close(device);
}

static void a_queue_is_bounded(void **state)
{
    quire__device *device = device_open("sim:0");
    bench b = bench_open(device, 16);
    (void)state;
    for (int i = 0; i < 20000; i++)
        copy_one(device, b.a, b.memory[i % 4], b.pinned[i % 4], b.bytes);
    bench_close(&b);
    quire__device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_runs_in_order),
        cmocka_unit_test(an_event_orders_two_streams),
        cmocka_unit_test(a_wait_means_the_last_record_before_it),
        cmocka_unit_test(an_event_never_recorded_holds_nobody),
        cmocka_unit_test(closing_an_event_leaves_what_waits_for_it),
        cmocka_unit_test(polling_an_event_ends),
        cmocka_unit_test(a_batch_of_copies_arrives_whole),
        cmocka_unit_test(an_injected_fault_is_seen_once_and_its_bytes_do_not_arrive),
        cmocka_unit_test(more_memory_than_there_is_is_refused),
        cmocka_unit_test(a_name_that_is_no_device_is_an_error_that_lists_them),
        cmocka_unit_test(attention_equals_the_oracle_on_every_device),
        cmocka_unit_test(append_stores_the_same_bytes_on_every_device),
        cmocka_unit_test(blocks_pieces_and_tables_move_on_every_device),
        cmocka_unit_test(a_missing_event_shows_for_some_seed),
        cmocka_unit_test(copies_of_a_batch_are_unordered_for_some_seed),
        cmocka_unit_test(the_same_seed_is_the_same_order),
        cmocka_unit_test(the_sim_refuses_copies_that_break_the_contract),
        cmocka_unit_test(a_kernel_that_leaves_the_device_breaks_it_and_nothing_else),
        cmocka_unit_test(a_queue_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
