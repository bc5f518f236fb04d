/* Speculative decoding and beam search through the public interface: over tiny random models, a Llama and a Gemma, and
 * over the demo's models where they are here (QUIRE_MODEL, QUIRE_MODEL_GEMMA). */
#include "support/testing.h"

#include "backend_host.h"
#include "beams.h"
#include "session.h"
#include "speculate.h"
#include "support/tiny_model.h"

#include <stdio.h>
#include <string.h>

enum { MOST_PROMPT = 160, MOST_GENERATED = 48, MOST_DRAFT = 8, MOST_BEAMS = 6 };

static const int32_t stop_id = 7;

typedef struct rig {
    uint8_t *bytes;
    gguf_file *file;
    backend *backend;
    model *model;
} rig;

static int open_rig(void **state, const tiny_fault *kind)
{
    rig *r = calloc(1, sizeof *r);
    size_t size;
    infer_error error;
    r->bytes = tiny_model_bytes(1, kind, &size);
    assert_int_equal(gguf_open_memory(&r->file, r->bytes, size, &error), 0);
    assert_int_equal(backend_host_open(&r->backend, 2, &error), 0);
    assert_int_equal(model_open(&r->model, r->file, r->backend, 0, &error), 0);
    *state = r;
    return 0;
}

static int open_llama(void **state)
{
    return open_rig(state, NULL);
}

static int open_gemma(void **state)
{
    return open_rig(state, &(tiny_fault){ .gemma = 1 });
}

static int close_rig(void **state)
{
    rig *r = *state;
    model_close(r->model);
    r->backend->ops->close(r->backend);
    gguf_close(r->file);
    free(r->bytes);
    free(r);
    return 0;
}

static quire_cache *open_cache(const model *m, uint32_t block_tokens, uint32_t blocks)
{
    quire_options options;
    quire_cache *cache;
    quire_group groups[MODEL_MOST_GROUPS];
    uint64_t bytes;
    assert_int_equal(quire_options_init(&options, sizeof options), QUIRE_OK);
    options.groups = groups;
    options.group_count = model_groups(m, groups);
    options.device = "host";
    options.block_tokens = block_tokens;
    options.max_sequences = 128;
    options.hash_key = 5;
    assert_int_equal(quire_block_bytes(&options, &bytes), QUIRE_OK);
    options.device_bytes = blocks * bytes;
    options.host_bytes = 0;
    options.parallel = backend_host_parallel;
    options.parallel_user = m->backend;
    assert_int_equal(quire_cache_open(&cache, &options), QUIRE_OK);
    return cache;
}

static uint32_t below(uint64_t *state, uint32_t limit)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((*state >> 33) % limit);
}

/* Of few different words, so that what was said before comes again. */
static size_t make_prompt(uint64_t *random, int32_t *prompt)
{
    size_t count = 1 + below(random, MOST_PROMPT);
    for (size_t i = 0; i < count; i++) prompt[i] = 10 + (int32_t)below(random, 6);
    return count;
}

/* Nothing is left open, every invariant holds. Returns the copies on write. */
static uint64_t check_and_close(quire_cache *cache)
{
    quire_stats stats = { .size = sizeof stats };
    assert_int_equal(quire_cache_check(cache), QUIRE_OK);
    assert_int_equal(quire_cache_stats(cache, &stats), QUIRE_OK);
    assert_int_equal(stats.sequences, 0);
    quire_cache_close(cache);
    return stats.copies_on_write;
}

/* ---- speculative decoding ---------------------------------------------------------------------------------- */

/* The engine's greedy answer, nothing of which comes from a cache. */
static size_t plain_greedy(const model *m, const speculate_request *given, int32_t *tokens, bool *stopped)
{
    quire_cache *cache = open_cache(m, 16, TINY_CONTEXT / 16 + 1);
    engine_options options = { .most_running = 1, .step_tokens = 512, .stop_ids = given->stop_ids,
                               .stop_count = given->stop_count };
    engine_request request = { .tokens = given->tokens, .count = given->count, .most_tokens = given->most_tokens,
                               .branches = 1, .sampling = { .top_p = 1.0f } };
    engine *e;
    infer_error error;
    uint32_t number;
    assert_int_equal(engine_open(&e, cache, m, &options, &error), 0);
    if (engine_submit(e, &request, &number, &error) || engine_run(e, &error)) fail_msg("%s", error.text);
    engine_output output = engine_output_of(e, number, 0);
    memcpy(tokens, output.tokens, output.count * sizeof *tokens);
    *stopped = output.finish == ENGINE_STOP;
    size_t count = output.count;
    engine_close(e);
    quire_cache_close(cache);
    return count;
}

static void test_speculation_gives_the_tokens_of_plain_greedy_decoding(void **state)
{
    const rig *r = *state;
    uint64_t drafted = 0, accepted = 0, steps = 0, generated = 0, copies = 0;
    int32_t prompt[MOST_PROMPT], want[MOST_GENERATED];
    for (uint64_t seed = 1; seed <= seed_count(40); seed++) {
        uint64_t random = seed;
        uint32_t block_tokens = 1u << below(&random, 5);
        quire_cache *cache = open_cache(r->model, block_tokens, 2 * TINY_CONTEXT / block_tokens);
        infer_error error;
        lanes l;
        assert_int_equal(lanes_open(&l, cache, r->model, MOST_DRAFT + 1, &error), 0);
        for (int round = 0; round < 3; round++) { /* the later ones find blocks of earlier drafts in the cache */
            speculate_request given = { .tokens = prompt, .count = make_prompt(&random, prompt),
                                        .most_tokens = 1 + below(&random, MOST_GENERATED),
                                        .draft = below(&random, MOST_DRAFT + 1), .stop_ids = &stop_id,
                                        .stop_count = seed % 2, .reuse = true };
            speculate_result got;
            bool stopped;
            if (speculate_run(&l, &given, &got, &error)) fail_msg("seed %d: %s", (int)seed, error.text);
            assert_int_equal(got.count, plain_greedy(r->model, &given, want, &stopped));
            if (got.count) assert_memory_equal(got.tokens, want, got.count * sizeof *want);
            assert_int_equal(got.stopped, stopped);
            drafted += got.drafted;
            accepted += got.accepted;
            steps += got.steps;
            generated += got.count;
            free(got.tokens);
        }
        lanes_close(&l);
        copies += check_and_close(cache);
    }
    print_message("%llu tokens in %llu steps; of %llu drafted tokens %llu were accepted; %llu copies on write\n",
                  (unsigned long long)generated, (unsigned long long)steps, (unsigned long long)drafted,
                  (unsigned long long)accepted, (unsigned long long)copies);
    assert_true(accepted > 0 && accepted < drafted && copies > 0);
}

/* ---- beams ------------------------------------------------------------------------------------------------- */

static void search(const model *m, uint64_t seed, bool reuse, beams_result *result, uint64_t *copies)
{
    int32_t prompt[MOST_PROMPT];
    uint64_t random = seed;
    uint32_t block_tokens = 1u << below(&random, 5);
    beams_request given = { .tokens = prompt, .count = make_prompt(&random, prompt),
                            .most_tokens = 1 + below(&random, MOST_GENERATED / 2),
                            .beams = 1 + below(&random, MOST_BEAMS), .stop_ids = &stop_id, .stop_count = seed % 2,
                            .reuse = reuse };
    /* Shared: room for the prompt and a few blocks a beam, by far not for the prompt as often as there are beams. */
    uint32_t blocks = (uint32_t)(given.count + (MOST_GENERATED / 2 + 2 * block_tokens) * given.beams) / block_tokens + 2;
    quire_cache *cache = open_cache(m, block_tokens, blocks);
    infer_error error;
    lanes l;
    assert_int_equal(lanes_open(&l, cache, m, MOST_BEAMS, &error), 0);
    if (beams_run(&l, &given, result, &error)) fail_msg("seed %d: %s", (int)seed, error.text);
    lanes_close(&l);
    *copies += check_and_close(cache);
}

static void expect_same_beams(const beams_result *a, const beams_result *b)
{
    assert_int_equal(a->count, b->count);
    assert_int_equal(a->steps, b->steps);
    for (uint32_t i = 0; i < a->count; i++) {
        const beam *x = &a->beams[i], *y = &b->beams[i];
        assert_int_equal(x->count, y->count);
        assert_int_equal(x->stopped, y->stopped);
        assert_memory_equal(x->tokens, y->tokens, x->count * sizeof *x->tokens);
        assert_memory_equal(&x->log_probability, &y->log_probability, sizeof x->log_probability);
        assert_true(i == 0 || x->log_probability <= a->beams[i - 1].log_probability);
    }
}

static void test_beams_that_share_and_split_are_those_of_a_search_without_a_cache(void **state)
{
    const rig *r = *state;
    uint64_t forks = 0, closes = 0, copies = 0, none = 0;
    for (uint64_t seed = 1; seed <= seed_count(24); seed++) {
        beams_result shared, alone;
        search(r->model, seed, true, &shared, &copies);
        search(r->model, seed, false, &alone, &none);
        expect_same_beams(&shared, &alone);
        assert_int_equal(alone.forks + alone.closes, 0);
        forks += shared.forks;
        closes += shared.closes;
        beams_free(&shared);
        beams_free(&alone);
    }
    print_message("%llu forks, %llu beams given up, %llu copies on write\n", (unsigned long long)forks,
                  (unsigned long long)closes, (unsigned long long)copies);
    assert_true(forks > 0 && closes > 0 && copies > 0);
    assert_int_equal(none, 0);
}

static void test_one_beam_is_greedy_decoding(void **state)
{
    const rig *r = *state;
    int32_t prompt[MOST_PROMPT], want[MOST_GENERATED];
    uint64_t random = 11;
    speculate_request plain = { .tokens = prompt, .count = make_prompt(&random, prompt), .most_tokens = 20 };
    beams_request given = { .tokens = prompt, .count = plain.count, .most_tokens = 20, .beams = 1, .reuse = true };
    quire_cache *cache = open_cache(r->model, 16, 32);
    beams_result result;
    infer_error error;
    bool stopped;
    lanes l;
    assert_int_equal(lanes_open(&l, cache, r->model, 1, &error), 0);
    assert_int_equal(beams_run(&l, &given, &result, &error), 0);
    assert_int_equal(result.beams[0].count, plain_greedy(r->model, &plain, want, &stopped));
    assert_memory_equal(result.beams[0].tokens, want, 20 * sizeof *want);
    beams_free(&result);
    lanes_close(&l);
    check_and_close(cache);
}

/* ---- what cannot be ---------------------------------------------------------------------------------------- */

static void test_a_search_that_does_not_fit_ends_with_a_message_and_leaves_nothing_open(void **state)
{
    const rig *r = *state;
    int32_t prompt[40];
    for (int i = 0; i < 40; i++) prompt[i] = 20 + i;
    speculate_request greedy = { .tokens = prompt, .count = 40, .most_tokens = 30, .draft = 4 };
    beams_request wide = { .tokens = prompt, .count = 40, .most_tokens = 30, .beams = 6, .reuse = true };
    quire_cache *cache = open_cache(r->model, 4, 14); /* 56 tokens */
    infer_error error;
    speculate_result text;
    beams_result beams;
    lanes l;
    assert_int_equal(lanes_open(&l, cache, r->model, 8, &error), 0);
    assert_int_equal(beams_run(&l, &wide, &beams, &error), -1);
    assert_non_null(strstr(error.text, "block"));
    greedy.draft = 8;
    assert_int_equal(speculate_run(&l, &greedy, &text, &error), -1);
    assert_non_null(strstr(error.text, "drafts of 8; it must be"));
    wide.beams = 9;
    assert_int_equal(beams_run(&l, &wide, &beams, &error), -1);
    assert_non_null(strstr(error.text, "9 beams; it must be"));
    greedy.draft = 7;
    assert_int_equal(speculate_run(&l, &greedy, &text, &error), 0); /* as long as the cache allows */
    assert_int_equal(text.count, 56 - 40);
    free(text.tokens);
    lanes_close(&l);
    check_and_close(cache);
}

/* ---- the demo's models ------------------------------------------------------------------------------------- */

static const char recall[] = "The keeper wrote: the lamp is lit at dusk, the log is kept in ink, the boat is never left "
                             "untied. The keeper wrote: the lamp is lit at dusk,";

static void search_real(const char *variable)
{
    const char *path = getenv(variable);
    if (!path || !*path) SKIP_BECAUSE("%s is not set", variable);
    if (test_is_small()) SKIP_BECAUSE("QUIRE_TEST_SMALL is set");
    static session s;
    session_options options;
    infer_error error;
    token_list tokens = { 0 };
    lanes l;
    session_defaults(&options);
    options.model_path = path;
    options.device = "host";
    options.context = 256;
    if (session_open(&s, &options, &error)) fail_msg("%s", error.text);
    if (tokenizer_encode(s.tokenizer, recall, sizeof recall - 1, false, &tokens, &error)) fail_msg("%s", error.text);
    assert_int_equal(lanes_open(&l, s.cache, s.model, MOST_DRAFT + 1, &error), 0);

    speculate_request given = { .tokens = tokens.ids, .count = tokens.count, .most_tokens = 32, .reuse = true };
    speculate_result plain, drafted;
    if (speculate_run(&l, &given, &plain, &error)) fail_msg("%s", error.text);
    given.draft = 6;
    if (speculate_run(&l, &given, &drafted, &error)) fail_msg("%s", error.text);
    print_message("%zu tokens: %llu steps plain, %llu with drafts, of whose %llu tokens %llu were accepted\n",
                  drafted.count, (unsigned long long)plain.steps, (unsigned long long)drafted.steps,
                  (unsigned long long)drafted.drafted, (unsigned long long)drafted.accepted);
    assert_int_equal(drafted.count, plain.count);
    assert_memory_equal(drafted.tokens, plain.tokens, plain.count * sizeof *plain.tokens);
    assert_int_equal(plain.steps, plain.count - 1);
    assert_int_equal(drafted.steps + drafted.accepted, plain.steps);
    assert_true(drafted.accepted > 0);
    free(plain.tokens);
    free(drafted.tokens);

    beams_request wide = { .tokens = tokens.ids, .count = tokens.count, .most_tokens = 6, .beams = 3, .reuse = true };
    beams_result shared, alone;
    if (beams_run(&l, &wide, &shared, &error)) fail_msg("%s", error.text);
    wide.reuse = false;
    if (beams_run(&l, &wide, &alone, &error)) fail_msg("%s", error.text);
    expect_same_beams(&shared, &alone);
    assert_true(shared.forks > 0);
    beams_free(&shared);
    beams_free(&alone);
    lanes_close(&l);
    token_list_free(&tokens);
    assert_int_equal(quire_cache_check(s.cache), QUIRE_OK);
    session_close(&s);
}

static void test_searches_on_smollm2_equal_plain_decoding(void **state)
{
    (void)state;
    search_real("QUIRE_MODEL");
}

static void test_searches_on_gemma_equal_plain_decoding(void **state)
{
    (void)state;
    search_real("QUIRE_MODEL_GEMMA");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_speculation_gives_the_tokens_of_plain_greedy_decoding),
        cmocka_unit_test(test_beams_that_share_and_split_are_those_of_a_search_without_a_cache),
        cmocka_unit_test(test_one_beam_is_greedy_decoding),
        cmocka_unit_test(test_a_search_that_does_not_fit_ends_with_a_message_and_leaves_nothing_open),
    };
    const struct CMUnitTest real[] = {
        cmocka_unit_test(test_searches_on_smollm2_equal_plain_decoding),
        cmocka_unit_test(test_searches_on_gemma_equal_plain_decoding),
    };
    int failed = cmocka_run_group_tests_name("llama", tests, open_llama, close_rig);
    failed += cmocka_run_group_tests_name("gemma", tests, open_gemma, close_rig);
    return failed + cmocka_run_group_tests_name("models", real, NULL, NULL);
}
