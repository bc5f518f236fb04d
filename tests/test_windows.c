/* A model whose window layers live beside full ones: the example engine over a tiny Gemma, and over Gemma 3 270M where it is
 * here (QUIRE_MODEL_GEMMA). Prompts and answers are longer than the window, the arena is too small for two prompts. */
#include "support/testing.h"

#include "backend_host.h"
#include "engine.h"
#include "model.h"
#include "support/tiny_model.h"

#include <stdio.h>
#include <string.h>

enum { BLOCK_TOKENS = 16, MOST_ANSWER = 64 };

typedef struct rig {
    const model *model;
    uint32_t window, prompt, answer, chunk; /* tokens; chunk: of a step */
} rig;

/* Room for one prompt and answer in the first group, and in the group of windows for a window and a step. */
static quire_cache *open_cache(const rig *r, bool reuse)
{
    quire_options options;
    quire_cache *cache;
    quire_group groups[MODEL_MOST_GROUPS];
    uint64_t full, both;
    uint32_t blocks = (r->prompt + r->answer) / BLOCK_TOKENS + 3;
    assert_int_equal(quire_options_init(&options, sizeof options), QUIRE_OK);
    options.groups = groups;
    options.group_count = model_groups(r->model, groups);
    assert_int_equal(options.group_count, 2);
    assert_int_equal(groups[1].window, r->window);
    assert_int_equal(groups[0].layers + groups[1].layers, r->model->config.layers);
    groups[1].blocks = (r->window + MODEL_ROLLBACK + r->chunk) / BLOCK_TOKENS + 1;
    assert_true(groups[1].blocks < blocks);
    options.device = "host";
    options.block_tokens = BLOCK_TOKENS;
    options.hash_key = 5;
    options.group_count = 1;
    assert_int_equal(quire_block_bytes(&options, &full), QUIRE_OK);
    options.group_count = 2;
    assert_int_equal(quire_block_bytes(&options, &both), QUIRE_OK);
    options.device_bytes = blocks * full + groups[1].blocks * (both - full);
    options.host_bytes = reuse ? 4 * blocks * both : 0;
    options.parallel = backend_host_parallel;
    options.parallel_user = r->model->backend;
    assert_int_equal(quire_cache_open(&cache, &options), QUIRE_OK);
    return cache;
}

static void answer(engine *e, quire_cache *cache, const rig *r, const int32_t *prompt, int32_t *tokens, engine_result *result)
{
    engine_request request = { .tokens = prompt, .count = r->prompt, .most_tokens = r->answer, .branches = 1,
                               .sampling = { .top_p = 1.0f } };
    infer_error error;
    uint32_t number;
    if (engine_submit(e, &request, &number, &error) || engine_run(e, &error)) fail_msg("%s", error.text);
    engine_output output = engine_output_of(e, number, 0);
    *result = engine_result_of(e, number);
    assert_null(result->error);
    assert_int_equal(output.count, r->answer);
    memcpy(tokens, output.tokens, output.count * sizeof *tokens);
    assert_int_equal(quire_cache_drain(cache, 10000000), QUIRE_OK);
}

static void run(const rig *r, const int32_t *first, const int32_t *second)
{
    int32_t plain[MOST_ANSWER], got[MOST_ANSWER];
    engine_result result;
    infer_error error;
    for (int reuse = 0; reuse < 2; reuse++) {
        engine_options options = { .most_running = 1, .step_tokens = r->chunk, .reuse = reuse };
        quire_cache *cache = open_cache(r, reuse);
        quire_group_stats windows = { .size = sizeof windows };
        engine *e;
        assert_int_equal(engine_open(&e, cache, r->model, &options, &error), 0);
        answer(e, cache, r, first, reuse ? got : plain, &result);
        assert_int_equal(quire_cache_group_stats(cache, 1, &windows), QUIRE_OK);
        assert_true(windows.given_back >= (r->prompt + r->answer - r->window - MODEL_ROLLBACK) / BLOCK_TOKENS - 1);
        assert_int_equal(windows.used, 0);
        if (reuse) {
            assert_memory_equal(got, plain, r->answer * sizeof *got);
            answer(e, cache, r, second, got, &result); /* takes the arena */
            answer(e, cache, r, first, got, &result);
            assert_memory_equal(got, plain, r->answer * sizeof *got);
            assert_int_equal(quire_cache_group_stats(cache, 1, &windows), QUIRE_OK);
            print_message("prompt %zu: %zu from the host; of the windows' %llu blocks %llu were given back, %llu restored\n",
                          result.prompt_tokens, result.host, (unsigned long long)windows.blocks,
                          (unsigned long long)windows.given_back, (unsigned long long)windows.restores);
            assert_true(result.host > 0 && result.prompt_hit >= r->prompt - BLOCK_TOKENS && windows.restores > 0);
            assert_true(windows.restores <= r->window / BLOCK_TOKENS + 1); /* not those behind the window */
        }
        assert_int_equal(quire_cache_check(cache), QUIRE_OK);
        engine_close(e);
        quire_cache_close(cache);
    }
}

static int open_model(gguf_file *file, backend **host, model **m, infer_error *error)
{
    return backend_host_open(host, 2, error) || model_open(m, file, *host, 0, error);
}

static void test_a_tiny_gemma_gives_back_what_lies_behind_its_window_and_the_same_tokens(void **state)
{
    int32_t prompts[2][300];
    size_t size;
    gguf_file *file;
    backend *host;
    model *m;
    infer_error error;
    (void)state;
    uint8_t *bytes = tiny_model_bytes(1, &(tiny_fault){ .gemma = 1 }, &size);
    assert_int_equal(gguf_open_memory(&file, bytes, size, &error), 0);
    assert_int_equal(open_model(file, &host, &m, &error), 0);
    for (int i = 0; i < 300; i++)
        for (int j = 0; j < 2; j++) prompts[j][i] = (i * (37 + j) + 11 * i * i + j) % TINY_VOCABULARY;
    run(&(rig){ m, TINY_WINDOW, 300, 60, 48 }, prompts[0], prompts[1]);
    model_close(m);
    host->ops->close(host);
    gguf_close(file);
    free(bytes);
}

static void test_gemma_gives_back_what_lies_behind_its_window_and_the_same_tokens(void **state)
{
    static int32_t prompts[2][640];
    const char *path = getenv("QUIRE_MODEL_GEMMA");
    gguf_file *file;
    backend *host;
    model *m;
    infer_error error;
    (void)state;
    if (!path || !*path) SKIP_BECAUSE("QUIRE_MODEL_GEMMA is not set");
    if (test_is_small()) SKIP_BECAUSE("QUIRE_TEST_SMALL is set");
    if (gguf_open(&file, path, &error) || open_model(file, &host, &m, &error)) fail_msg("%s", error.text);
    for (int i = 0; i < 640; i++)
        for (int j = 0; j < 2; j++) prompts[j][i] = 1000 + (i * 7919 + j * 104729) % 200000;
    run(&(rig){ m, 512, 640, 8, 64 }, prompts[0], prompts[1]);
    model_close(m);
    host->ops->close(host);
    gguf_close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_tiny_gemma_gives_back_what_lies_behind_its_window_and_the_same_tokens),
        cmocka_unit_test(test_gemma_gives_back_what_lies_behind_its_window_and_the_same_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
