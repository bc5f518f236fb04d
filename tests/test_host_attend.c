/* test_host_attend.c: the vectorised host path against the scalar oracle, and against itself: a token's bits depend on
 * its own context only. Every test runs with each instruction set that this CPU has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>

#include "attend_fixture.h"
#include "device/host_attend.h"

static const quire_dtype cache_types[] = {QUIRE_DTYPE_F32,      QUIRE_DTYPE_F16,  QUIRE_DTYPE_BF16, QUIRE_DTYPE_FP8_E4M3,
                                          QUIRE_DTYPE_FP8_E5M2, QUIRE_DTYPE_INT8, QUIRE_DTYPE_INT4};
static const quire_dtype tensor_types[] = {QUIRE_DTYPE_F32, QUIRE_DTYPE_F16, QUIRE_DTYPE_BF16};

typedef struct engine {
    quire__parallel *parallel;
    quire__host_attend *attend;
} engine;

static engine engine_open(uint32_t threads, quire_parallel_fn fn)
{
    engine e;
    assert_int_equal(quire__parallel_open(&e.parallel, threads, fn, NULL), QUIRE_OK);
    assert_int_equal(quire__host_attend_open(&e.attend, e.parallel), QUIRE_OK);
    return e;
}

static void engine_close(engine *e)
{
    quire__host_attend_close(e->attend);
    quire__parallel_close(e->parallel);
}

/* Runs `test` with every instruction set that this CPU and build have. */
static void each_isa(void (*test)(engine *e, uint64_t *random), uint64_t seed)
{
    static const char *const names[] = {"baseline", "avx2", "avx512"};
    for (size_t i = 0; i < 3; i++) {
        engine e = engine_open(2, NULL);
        uint64_t random = seed;
        if (quire__host_attend_use(e.attend, names[i]) == QUIRE_OK) {
            print_message("%s, seed %llu\n", names[i], (unsigned long long)seed);
            test(&e, &random);
        } else {
            print_message("%s: skipped, %s\n", names[i], quire_error_text());
        }
        engine_close(&e);
    }
}

static int32_t pick(uint64_t *random, int32_t least, int32_t most)
{
    return least + (int32_t)(quire__random(random) % (uint64_t)(most - least + 1));
}

static attend_shape random_shape(uint64_t *random)
{
    quire_dtype cache = cache_types[pick(random, 0, 6)];
    bool fp8 = cache == QUIRE_DTYPE_FP8_E4M3 || cache == QUIRE_DTYPE_FP8_E5M2;
    bool usual = pick(random, 0, 2) == 0; /* shapes that decode has a faster way for, where contexts have whole tiles */
    return (attend_shape){.cache = cache,
                          .given_scales = fp8 && pick(random, 0, 1),
                          .tensor = tensor_types[pick(random, 0, 2)],
                          .block_tokens = usual ? 16 * pick(random, 1, 4) : 1 << pick(random, 0, 6),
                          .head_dim = usual ? 64 * pick(random, 1, 2) : 8 * pick(random, 1, pick(random, 0, 4) ? 16 : 32),
                          .kv_heads = pick(random, 1, 3),
                          .group = pick(random, 1, 9),
                          .layers = pick(random, 1, 2)};
}

static void random_fixture(attend_fixture *f, const attend_shape *shape, uint64_t *random)
{
    int32_t contexts[4], news[4], rows = pick(random, 1, 4);
    for (int32_t i = 0; i < rows; i++) {
        contexts[i] = pick(random, 1, 150);
        news[i] = pick(random, 0, 1) ? 1 : pick(random, 1, contexts[i]);
    }
    fixture_open(f, shape, rows, contexts, news, random);
}

/* ---- against the oracle -------------------------------------------------------------------------------------- */

static void against_oracle(engine *e, uint64_t *random)
{
    for (int round = 0; round < 40; round++) {
        attend_shape shape = random_shape(random);
        attend_fixture f;
        random_fixture(&f, &shape, random);
        unsigned char *expected = malloc(f.out_bytes);
        int32_t layer = pick(random, 0, shape.layers - 1);
        quire__attend_args args = fixture_args(&f, layer, expected);
        fixture_feature(&f, &args, round % 8, pick(random, 1, pick(random, 0, 1) ? 160 : 20));
        quire__host_attend_prefill(&args);
        args.out.data = f.out;
        assert_int_equal(quire__host_attend_run(e->attend, &args), QUIRE_OK);
        double difference = fixture_difference(&f, expected, f.out);
        if (!(difference <= fixture_tolerance(shape.tensor)))
            fail_msg("%s cache, %s tensors, block %d, dim %d, %d x %d heads, window %d, cap %g, sinks %d: off by %g",
                     quire_dtype_name(shape.cache), quire_dtype_name(shape.tensor), shape.block_tokens,
                     shape.head_dim, shape.kv_heads, shape.group, args.window, (double)args.soft_cap,
                     args.sinks != NULL, difference);
        free(expected);
        fixture_close(&f);
    }
}

static void attention_with_window_cap_and_sinks_equals_the_oracle(void **state)
{
    (void)state;
    each_isa(against_oracle, 11);
}

static void large_scores(engine *e, uint64_t *random)
{
    attend_shape shape = {QUIRE_DTYPE_F32, QUIRE_DTYPE_F32, 16, 64, 1, 2, 1, false};
    attend_fixture f;
    fixture_open(&f, &shape, 1, (int32_t[]){100}, (int32_t[]){40}, random);
    unsigned char *expected = malloc(f.out_bytes);
    quire__attend_args args = fixture_args(&f, 0, expected);
    args.scale = 30; /* weights from 1 down to nothing; some tiles vanish whole */
    quire__host_attend_prefill(&args);
    args.out.data = f.out;
    assert_int_equal(quire__host_attend_run(e->attend, &args), QUIRE_OK);
    /* scores near 3000 have errors of 2e-4 in float, and weights the same */
    assert_true(fixture_difference(&f, expected, f.out) < 4e-3);
    free(expected);
    fixture_close(&f);
}

static void sharp_weights_do_not_overflow(void **state)
{
    (void)state;
    each_isa(large_scores, 12);
}

static void nothing_to_see(engine *e, uint64_t *random)
{
    attend_shape shape = {QUIRE_DTYPE_BF16, QUIRE_DTYPE_F32, 16, 24, 2, 3, 1, false};
    attend_fixture f;
    fixture_open(&f, &shape, 2, (int32_t[]){5, 9}, (int32_t[]){1, 1}, random);
    quire__attend_args args = fixture_args(&f, 0, f.out);
    f.positions[1] = -1;
    assert_int_equal(quire__host_attend_run(e->attend, &args), QUIRE_OK);
    for (size_t i = f.out_bytes / 2; i < f.out_bytes; i++)
        assert_int_equal(f.out[i], 0);
    memset(f.out, 0xff, f.out_bytes);
    quire__host_attend_prefill(&args);
    for (size_t i = f.out_bytes / 2; i < f.out_bytes; i++)
        assert_int_equal(f.out[i], 0);
    fixture_close(&f);
}

static void a_token_without_keys_gives_zeros(void **state)
{
    (void)state;
    each_isa(nothing_to_see, 13);
}

static void not_a_number(engine *e, uint64_t *random)
{
    attend_shape shape = {QUIRE_DTYPE_BF16, QUIRE_DTYPE_F32, 16, 64, 1, 1, 1, false};
    attend_fixture f;
    fixture_open(&f, &shape, 1, (int32_t[]){70}, (int32_t[]){70}, random);
    quire__pages pages = fixture_pages(&f);
    memset(f.arena + f.table[2] * pages.block_stride, 0xff, (size_t)pages.token_stride); /* K of key 32 */
    quire__attend_args args = fixture_args(&f, 0, f.out);
    assert_int_equal(quire__host_attend_run(e->attend, &args), QUIRE_OK);
    for (int32_t i = 0; i < 70; i++)
        assert_int_equal(isnan(((const float *)(const void *)f.out)[i * 64]) != 0, i >= 32);
    fixture_close(&f);
}

static void a_nan_in_the_cache_shows_where_it_is_seen_and_nowhere_else(void **state)
{
    (void)state;
    each_isa(not_a_number, 14);
}

/* Whole tiles with an e4m3 NaN in K or in V, by decode and by prefill. */
static void not_a_code(engine *e, uint64_t *random)
{
    for (int32_t group = 1; group <= 6; group += 2) {
        attend_shape shape = {QUIRE_DTYPE_FP8_E4M3, QUIRE_DTYPE_F32, 16, 128, 1, group, 1, false};
        attend_fixture f;
        fixture_open(&f, &shape, 1, (int32_t[]){140}, (int32_t[]){140}, random);
        quire__pages pages = fixture_pages(&f);
        unsigned char *expected = malloc(f.out_bytes);
        quire__page_row(&pages, f.table[2], 0, 1, 0, 8)[5] = 0x7f; /* V of key 40 */
        quire__page_row(&pages, f.table[6], 0, 0, 0, 4)[100] = 0xff; /* K of key 100 */
        quire__attend_args args = fixture_args(&f, 0, expected);
        assert_int_equal(quire__host_attend_run(e->attend, &args), QUIRE_OK);
        args.out.data = f.out;
        args.tiles = NULL;
        args.count = f.tokens;
        assert_int_equal(quire__host_attend_run(e->attend, &args), QUIRE_OK);
        assert_memory_equal(expected, f.out, f.out_bytes);
        for (int32_t i = 0; i < 140 * group; i++)
            for (int32_t d = 0; d < 128; d++)
                assert_int_equal(isnan(((const float *)(const void *)f.out)[i * 128 + d]) != 0,
                                 i / group >= 100 || (i / group >= 40 && d == 5));
        free(expected);
        fixture_close(&f);
    }
}

static void an_e4m3_nan_shows_in_whole_tiles_too(void **state)
{
    (void)state;
    each_isa(not_a_code, 15);
}

/* ---- the same bits ------------------------------------------------------------------------------------------- */

static void decode_prefill(engine *e, uint64_t *random)
{
    for (int round = 0; round < 25; round++) {
        attend_shape shape = random_shape(random);
        attend_fixture f;
        random_fixture(&f, &shape, random);
        unsigned char *expected = malloc(f.out_bytes);
        quire__attend_args args = fixture_args(&f, 0, expected);
        fixture_feature(&f, &args, round % 8, pick(random, 1, 70));
        assert_int_equal(quire__host_attend_run(e->attend, &args), QUIRE_OK);

        /* each token alone, in a run of tokens, or in small tiles */
        args.out.data = f.out;
        args.tiles = NULL;
        args.count = 1;
        for (args.first_token = 0; args.first_token < f.tokens; args.first_token++)
            assert_int_equal(quire__host_attend_run(e->attend, &args), QUIRE_OK);
        assert_memory_equal(expected, f.out, f.out_bytes);

        memset(f.out, 0xff, f.out_bytes);
        args.first_token = 0;
        args.count = f.tokens;
        assert_int_equal(quire__host_attend_run(e->attend, &args), QUIRE_OK);
        assert_memory_equal(expected, f.out, f.out_bytes);

        memset(f.out, 0xff, f.out_bytes);
        for (int32_t i = 0; i < f.rows; i++) {
            for (int32_t done = 0; done < f.tiles[i].tokens;) {
                int32_t some = pick(random, 1, f.tiles[i].tokens - done);
                quire_tile tile = {i, f.tiles[i].first_token + done, some};
                args.tiles = &tile;
                args.count = 1;
                assert_int_equal(quire__host_attend_run(e->attend, &args), QUIRE_OK);
                done += some;
            }
        }
        assert_memory_equal(expected, f.out, f.out_bytes);
        free(expected);
        fixture_close(&f);
    }
}

static void bits_do_not_depend_on_how_a_prefill_is_cut(void **state)
{
    (void)state;
    each_isa(decode_prefill, 21);
}

static void block_sizes(engine *e, uint64_t *random)
{
    uint64_t seed = quire__random(random);
    unsigned char *first = NULL;
    for (int32_t shift = 0; shift <= 6; shift++) {
        attend_shape shape = {QUIRE_DTYPE_BF16, QUIRE_DTYPE_F32, 1 << shift, 48, 2, 3, 1, false};
        attend_fixture f;
        uint64_t same = seed;
        fixture_open(&f, &shape, 1, (int32_t[]){123}, (int32_t[]){60}, &same);
        /* the same numbers whatever the blocks */
        for (size_t i = 0; i < f.q_bytes / 4; i++)
            ((float *)(void *)f.q)[i] = sinf((float)i);
        quire__pages pages = fixture_pages(&f);
        for (int32_t key = 0; key < 123; key++)
            for (int32_t i = 0; i < 4; i++)
                for (int32_t d = 0; d < 48; d++)
                    quire__dtype_store(shape.cache,
                                       f.arena + f.table[key >> shift] * pages.block_stride + i * pages.head_stride +
                                           (key & ((1 << shift) - 1)) * pages.token_stride + 2 * d,
                                       cosf((float)(key * 4 + i) * 1.7f + (float)d));
        quire__attend_args args = fixture_args(&f, 0, f.out);
        assert_int_equal(quire__host_attend_run(e->attend, &args), QUIRE_OK);
        if (first == NULL) {
            first = malloc(f.out_bytes);
            memcpy(first, f.out, f.out_bytes);
        }
        assert_memory_equal(first, f.out, f.out_bytes);
        fixture_close(&f);
    }
    free(first);
}

static void bits_do_not_depend_on_block_tokens(void **state)
{
    (void)state;
    each_isa(block_sizes, 22);
}

/* A caller's `parallel` with more threads than it said: one a call index, up to 8. */
typedef struct crowd_member {
    pthread_t thread;
    size_t first, count;
    void (*body)(void *arg, size_t index);
    void *arg;
} crowd_member;

static void *crowd_main(void *pointer)
{
    crowd_member *member = pointer;
    for (size_t i = member->first; i < member->count; i += 8)
        member->body(member->arg, i);
    return NULL;
}

static void crowd(void *user, size_t count, void (*body)(void *arg, size_t index), void *arg)
{
    crowd_member members[8];
    (void)user;
    for (size_t i = 0; i < 8; i++) {
        members[i] = (crowd_member){.first = i, .count = count, .body = body, .arg = arg};
        if (pthread_create(&members[i].thread, NULL, crowd_main, &members[i]) != 0)
            abort();
    }
    for (size_t i = 0; i < 8; i++)
        pthread_join(members[i].thread, NULL);
}

static void thread_counts(engine *e, uint64_t *random)
{
    engine others[] = {engine_open(1, NULL), engine_open(5, NULL), engine_open(2, crowd)};
    attend_shape shape = {QUIRE_DTYPE_F16, QUIRE_DTYPE_F32, 16, 64, 3, 3, 1, false};
    attend_fixture f;
    quire__attend_args args;
    fixture_open(&f, &shape, 3, (int32_t[]){300, 77, 200}, (int32_t[]){200, 1, 30}, random);
    unsigned char *expected = malloc(f.out_bytes);
    args = fixture_args(&f, 0, expected);
    assert_int_equal(quire__host_attend_run(e->attend, &args), QUIRE_OK);
    args = fixture_args(&f, 0, f.out);
    for (int i = 0; i < 3; i++) {
        for (const char *const *isa = (const char *const[]){"baseline", "avx2", "avx512", NULL}; *isa != NULL; isa++) {
            /* the variant of `e` is the one whose bits agree with a single-threaded run of the same */
            if (quire__host_attend_use(others[i].attend, *isa) != QUIRE_OK)
                continue;
            assert_int_equal(quire__host_attend_use(e->attend, *isa), QUIRE_OK);
            args.out.data = expected;
            assert_int_equal(quire__host_attend_run(e->attend, &args), QUIRE_OK);
            args.out.data = f.out;
            memset(f.out, 0xff, f.out_bytes);
            assert_int_equal(quire__host_attend_run(others[i].attend, &args), QUIRE_OK);
            assert_memory_equal(expected, f.out, f.out_bytes);
        }
        engine_close(&others[i]);
    }
    free(expected);
    fixture_close(&f);
}

static void bits_do_not_depend_on_the_threads(void **state)
{
    engine e = engine_open(2, NULL);
    uint64_t random = 23;
    (void)state;
    thread_counts(&e, &random);
    engine_close(&e);
}

static void batches(engine *e, uint64_t *random)
{
    for (int round = 0; round < 10; round++) {
        attend_shape shape = random_shape(random);
        attend_fixture f;
        fixture_open(&f, &shape, 4, (int32_t[]){90, 1, 33, 140}, (int32_t[]){1, 1, 20, 1}, random);
        unsigned char *expected = malloc(f.out_bytes);
        quire__attend_args args = fixture_args(&f, 0, expected);
        fixture_feature(&f, &args, round % 8, pick(random, 1, 80));
        args.tiles = NULL;
        args.count = f.tokens;
        assert_int_equal(quire__host_attend_run(e->attend, &args), QUIRE_OK);

        /* a mixed step: decodes by selection, backwards; the prefill as a tile */
        int32_t select[] = {f.tokens - 1, 1, 0};
        args.out.data = f.out;
        args.select = select;
        args.count = 3;
        assert_int_equal(quire__host_attend_run(e->attend, &args), QUIRE_OK);
        args.select = NULL;
        args.tiles = &f.tiles[2];
        args.count = 1;
        assert_int_equal(quire__host_attend_run(e->attend, &args), QUIRE_OK);
        assert_memory_equal(expected, f.out, f.out_bytes);
        free(expected);
        fixture_close(&f);
    }
}

static void bits_do_not_depend_on_the_batch(void **state)
{
    (void)state;
    each_isa(batches, 24);
}

/* ---- append -------------------------------------------------------------------------------------------------- */

static void append_random(engine *e, uint64_t *random)
{
    for (int round = 0; round < 60; round++) {
        attend_shape shape = random_shape(random);
        int32_t tokens = pick(random, 1, 40), slots_most = 64;
        size_t from = quire__dtype_bytes(shape.tensor), heads = (size_t)shape.kv_heads, dims = (size_t)shape.head_dim;
        size_t elements = (size_t)tokens * heads * dims;
        attend_fixture f;
        fixture_open(&f, &shape, 1, &slots_most, (int32_t[]){1}, random);
        unsigned char *kv = malloc(2 * elements * from), *expected = malloc(f.arena_bytes);
        int64_t *slots = malloc((size_t)tokens * sizeof *slots);
        for (size_t i = 0; i < 2 * elements; i++) { /* all magnitudes, specials and ties */
            uint32_t bits = (uint32_t)quire__random(random);
            float value;
            bits = pick(random, 0, 3) ? bits : bits & 0xfff80000u;
            memcpy(&value, &bits, sizeof value);
            quire__dtype_store(shape.tensor, kv + i * from,
                               pick(random, 0, 1) ? value : (float)(500 * fixture_uniform(random)));
        }
        for (int32_t i = 0; i < tokens; i++)
            slots[i] = pick(random, 0, 5) ? i : -1;
        quire__append_args args = {.pages = fixture_pages(&f), .layer = shape.layers - 1, .tokens = tokens};
        args.k = fixture_tensor(&f, kv, shape.kv_heads);
        args.v = fixture_tensor(&f, kv + elements * from, shape.kv_heads);
        args.slots = slots;
        memcpy(expected, f.arena, f.arena_bytes);
        assert_int_equal(quire__host_append_run(e->attend, &args), QUIRE_OK);
        args.pages.arena = expected;
        quire__host_append(&args);
        for (size_t i = 0; i < f.arena_bytes; i++)
            if (expected[i] != f.arena[i])
                fail_msg("%s to %s differs", quire_dtype_name(shape.tensor), quire_dtype_name(shape.cache));
        free(kv), free(expected), free(slots);
        fixture_close(&f);
    }
}

static void append_stores_the_bytes_of_the_oracle(void **state)
{
    (void)state;
    each_isa(append_random, 31);
}

/* ---- from one format to another ------------------------------------------------------------------------------ */

enum { CONVERT_BLOCKS = 3, CONVERT_LAYERS = 2 };

static quire__pages convert_pages(quire_dtype dtype, int32_t dims, int32_t heads, int32_t tokens, const float *scales)
{
    quire__pages pages = {.block_tokens = tokens, .kv_heads = heads, .head_dim = dims, .dtype = dtype, .scales = scales};
    quire__pages_set_format(&pages, quire__format_of(dtype, dims, scales != NULL));
    pages.kv_stride = heads * pages.head_stride;
    pages.layer_stride = 2 * pages.kv_stride;
    pages.block_stride = CONVERT_LAYERS * pages.layer_stride;
    pages.arena = calloc(CONVERT_BLOCKS, (size_t)pages.block_stride);
    return pages;
}

/* By the engine and by the scalar definition, into pages of zeros. */
static void assert_same_bytes(engine *e, quire__convert_args args, const quire__block_pair *pairs)
{
    size_t bytes = CONVERT_BLOCKS * (size_t)args.to.block_stride;
    unsigned char *expected = calloc(1, bytes), *got = args.to.arena;

    args.pairs = pairs;
    args.count = CONVERT_BLOCKS;
    args.layers = CONVERT_LAYERS;
    assert_int_equal(quire__host_convert_run(e->attend, &args), QUIRE_OK);
    args.to.arena = expected;
    quire__host_convert(&args);
    if (memcmp(got, expected, bytes) != 0)
        fail_msg("%s to %s, head_dim %d: differs", quire_dtype_name(args.from.dtype), quire_dtype_name(args.to.dtype),
                 args.to.head_dim);
    free(expected);
}

static void convert_random(engine *e, uint64_t *random)
{
    static const quire__block_pair out[CONVERT_BLOCKS] = {{0, 2}, {2, 1}, {1, 0}}, in[CONVERT_BLOCKS] = {{2, 1}, {0, 0}, {1, 2}};
    static const quire_dtype coded_types[] = {QUIRE_DTYPE_FP8_E4M3, QUIRE_DTYPE_FP8_E5M2, QUIRE_DTYPE_INT8, QUIRE_DTYPE_INT4};

    for (int round = 0; round < 24; round++) {
        quire_dtype raw = tensor_types[pick(random, 0, 2)], coded = coded_types[round % 4];
        int32_t dims = 8 * pick(random, 1, 24), heads = pick(random, 1, 3), tokens = 1 << pick(random, 0, 4);
        float scales[CONVERT_LAYERS * 2 * 3];
        for (size_t i = 0; i < sizeof scales / sizeof scales[0]; i++)
            scales[i] = (float)(0.06 + 0.05 * fixture_uniform(random));
        bool given = round % 8 < 2; /* fp8 only */
        quire__pages from = convert_pages(raw, dims, heads, tokens, NULL), back = convert_pages(raw, dims, heads, tokens, NULL);
        quire__pages to = convert_pages(coded, dims, heads, tokens, given ? scales : NULL);
        size_t bytes = quire__dtype_bytes(raw);
        for (size_t i = 0; i < CONVERT_BLOCKS * (size_t)from.block_stride; i += bytes)
            quire__dtype_store(raw, from.arena + i, (float)ldexp(fixture_uniform(random), pick(random, -20, 4)));
        assert_same_bytes(e, (quire__convert_args){.from = from, .to = to}, out);
        assert_same_bytes(e, (quire__convert_args){.from = to, .to = back}, in);
        free(from.arena), free(to.arena), free(back.arena);
    }
}

static void conversion_stores_the_bytes_of_the_oracle_both_ways(void **state)
{
    (void)state;
    each_isa(convert_random, 32);
}

static void a_head_dim_that_there_is_not_is_refused(void **state)
{
    engine e = engine_open(1, NULL);
    quire__attend_args attend = {.pages = {.head_dim = 12, .kv_heads = 1}, .query_heads = 1, .count = 1};
    quire__append_args append = {.pages = {.head_dim = 520, .kv_heads = 1}};
    (void)state;
    assert_int_equal(quire__host_attend_run(e.attend, &attend), QUIRE_EUNSUPPORTED);
    assert_int_equal(quire__host_append_run(e.attend, &append), QUIRE_EUNSUPPORTED);
    attend.pages.head_dim = 16;
    attend.pages.kv_heads = 2;
    attend.query_heads = 3;
    assert_int_equal(quire__host_attend_run(e.attend, &attend), QUIRE_EINVAL);
    assert_int_equal(quire__host_attend_use(e.attend, "mmx"), QUIRE_EUNSUPPORTED);
    assert_int_equal(quire__host_attend_use(e.attend, quire__host_attend_isa()), QUIRE_OK);
    engine_close(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_with_window_cap_and_sinks_equals_the_oracle),
        cmocka_unit_test(sharp_weights_do_not_overflow),
        cmocka_unit_test(a_token_without_keys_gives_zeros),
        cmocka_unit_test(a_nan_in_the_cache_shows_where_it_is_seen_and_nowhere_else),
        cmocka_unit_test(an_e4m3_nan_shows_in_whole_tiles_too),
        cmocka_unit_test(bits_do_not_depend_on_how_a_prefill_is_cut),
        cmocka_unit_test(bits_do_not_depend_on_block_tokens),
        cmocka_unit_test(bits_do_not_depend_on_the_threads),
        cmocka_unit_test(bits_do_not_depend_on_the_batch),
        cmocka_unit_test(append_stores_the_bytes_of_the_oracle),
        cmocka_unit_test(conversion_stores_the_bytes_of_the_oracle_both_ways),
        cmocka_unit_test(a_head_dim_that_there_is_not_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
