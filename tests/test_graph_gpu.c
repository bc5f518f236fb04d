/* test_graph_gpu.c: a real model on a GPU, its decode steps captured as CUDA graphs and replayed, over an arena too small
 * for the requests: blocks are evicted, restored and copied on write between replays. The same tokens as without graphs, in
 * the deterministic mode. Needs a GPU and QUIRE_MODEL. */
#include "support/testing.h"

#include <stdio.h>
#include <string.h>

#include "device/device.h"
#include "prompt.h"
#include "session.h"

enum { REQUESTS = 10, BRANCHES = 2, ANSWER = 24 };

static const char *const subjects[] = { "the sea", "an old clock", "rain", "the night train", "bread" };

typedef struct answers {
    int32_t tokens[REQUESTS][BRANCHES][ANSWER];
    size_t counts[REQUESTS][BRANCHES];
    quire_stats stats;
} answers;

static void submit_all(session *s)
{
    for (int i = 0; i < REQUESTS; i++) {
        char text[512];
        token_list tokens = { 0 };
        infer_error error;
        uint32_t number;
        snprintf(text, sizeof text, "The keeper of the lighthouse had a book in which he wrote, every evening after the lamp "
                 "was lit, what the day had been. About %s he wrote%s", subjects[i % 5], i < 5 ? ":" : " once more:");
        if (prompt_from_text(s->tokenizer, text, &tokens, &error)) fail_msg("%s", error.text);
        engine_request request = { .tokens = tokens.ids, .count = tokens.count, .most_tokens = ANSWER - (uint32_t)i,
                                   .branches = BRANCHES, .prune_every = i % 3 == 0 ? 5 : 0,
                                   .sampling = { .temperature = 0.8f, .top_p = 1.0f, .seed = (uint64_t)i } };
        if (engine_submit(s->engine, &request, &number, &error)) fail_msg("%s", error.text);
        token_list_free(&tokens);
    }
}

static void serve(const char *device, bool graph, answers *out)
{
    static session s;
    session_options options;
    infer_error error;
    session_defaults(&options);
    options.model_path = getenv("QUIRE_MODEL");
    options.device = device;
    options.context = 256;
    options.block_tokens = 8;
    options.engine.graph = graph;
    options.engine.most_running = 6;
    options.device_bytes = 16 << 20;
    options.host_bytes = 64 << 20;
    if (session_open(&s, &options, &error)) fail_msg("%s", error.text);
    options.device_bytes = (uint64_t)(200 * session_token_bytes(&s, 0)); /* fewer tokens than run at once */
    if (session_reopen(&s, &options, &error)) fail_msg("%s", error.text);
    for (int again = 0; again < 2; again++) { /* the second time from the cache */
        engine_forget(s.engine);
        submit_all(&s);
        if (engine_run(s.engine, &error)) fail_msg("%s", error.text);
    }
    assert_int_equal(quire_cache_check(s.cache), QUIRE_OK);
    for (uint32_t i = 0; i < REQUESTS; i++)
        for (uint32_t j = 0; j < BRANCHES; j++) {
            engine_output output = engine_output_of(s.engine, i, j);
            out->counts[i][j] = output.count;
            memcpy(out->tokens[i][j], output.tokens, output.count * sizeof(int32_t));
        }
    out->stats.size = sizeof out->stats;
    assert_int_equal(quire_cache_stats(s.cache, &out->stats), QUIRE_OK);
    session_close(&s);
}

static void decode_steps_as_graphs_generate_the_same_tokens(void **state)
{
    static answers plain, graphs;
    (void)state;
    if (!getenv("QUIRE_MODEL")) SKIP_BECAUSE("QUIRE_MODEL is not set");
    if (quire__device_cuda_count() == 0) SKIP_BECAUSE("no GPU here");
    setenv("QUIRE_DETERMINISTIC", "1", 1);
    serve("cuda:0", false, &plain);
    serve("cuda:0", true, &graphs);
    assert_memory_equal(plain.counts, graphs.counts, sizeof plain.counts);
    assert_memory_equal(plain.tokens, graphs.tokens, sizeof plain.tokens);
    assert_true(graphs.stats.evictions_device > 0 && graphs.stats.restores > 0 && graphs.stats.copies_on_write > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decode_steps_as_graphs_generate_the_same_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
