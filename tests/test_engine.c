/* The engine over tiny random models, a Llama and a Gemma: whatever the batch, the chunking, the cache and its size, every token of a branch
 * has the logits, bit for bit, that its own tokens have when they are computed alone, in one piece. */
#include "support/testing.h"

#include "backend_host.h"
#include "engine.h"
#include "forward.h"
#include "support/sim_backend.h"
#include "support/tiny_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_REQUESTS = 12, MOST_BRANCHES = 4, MOST_GENERATED = 40, MOST_POSITIONS = TINY_CONTEXT };

/* ---- what the tests run on --------------------------------------------------------------------------------- */

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
    assert_int_equal(backend_host_open(&r->backend, 3, &error), 0);
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

static quire_cache *open_cache(const rig *r, const char *device, quire_dtype dtype, uint32_t block_tokens,
                               uint32_t device_blocks, uint32_t host_blocks)
{
    quire_options options;
    quire_cache *cache;
    quire_group groups[MODEL_MOST_GROUPS];
    assert_int_equal(quire_options_init(&options, sizeof options), QUIRE_OK);
    uint64_t block;
    options.groups = groups;
    options.group_count = model_groups(r->model, groups);
    options.device = device;
    options.dtype = dtype;
    options.block_tokens = block_tokens;
    assert_int_equal(quire_block_bytes(&options, &block), QUIRE_OK);
    options.device_bytes = device_blocks * block;
    options.host_bytes = host_blocks * block;
    options.max_step_tokens = 1024;
    options.max_sequences = 32;
    options.hash_key = 5;
    options.parallel = backend_host_parallel;
    options.parallel_user = r->backend;
    assert_int_equal(quire_cache_open(&cache, &options), QUIRE_OK);
    return cache;
}

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint32_t below(uint64_t *state, uint32_t limit)
{
    return (uint32_t)(next_random(state) % limit);
}

/* ---- the oracle -------------------------------------------------------------------------------------------- */

/* Logits of every position of the tokens, computed alone in one step in a cache of its own. */
static void oracle_logits(const rig *r, quire_dtype dtype, const int32_t *tokens, uint32_t count, float *logits)
{
    quire_cache *cache = open_cache(r, "host", dtype, 16, MOST_POSITIONS / 16 + 2, 0);
    forward *f;
    infer_error error;
    quire_seq seq;
    quire_step *step;
    int32_t wanted[MOST_POSITIONS];
    for (uint32_t i = 0; i < count; i++) wanted[i] = (int32_t)i;
    assert_int_equal(forward_open(&f, r->model, MOST_POSITIONS, MOST_POSITIONS, &error), 0);
    assert_int_equal(quire_seq_open(cache, NULL, &seq), QUIRE_OK);
    assert_int_equal(quire_step_begin(cache, NULL, &step), QUIRE_OK);
    assert_int_equal(quire_step_add(step, seq, tokens, count), QUIRE_OK);
    assert_int_equal(quire_step_submit(step), QUIRE_OK);
    assert_int_equal(forward_run(f, step, tokens, wanted, count, logits, &error), 0);
    assert_int_equal(quire_step_commit(step), QUIRE_OK);
    forward_close(f);
    quire_cache_close(cache);
}

/* ---- a random server --------------------------------------------------------------------------------------- */

/* The logits that each token was drawn from. */
typedef struct record {
    float logits[MOST_REQUESTS][MOST_GENERATED][TINY_VOCABULARY];
    size_t prompt[MOST_REQUESTS];
} record;

static void keep_logits(void *user, const engine_token *token)
{
    record *all = user;
    memcpy(all->logits[token->request][token->position - all->prompt[token->request]], token->logits,
           sizeof all->logits[0][0]);
}

typedef struct scenario {
    uint64_t seed;
    char device[32];
    quire_dtype dtype;
    uint32_t block_tokens, device_blocks, host_blocks, most_running, step_tokens, requests;
    bool graph, reuse, alone; /* alone: a request is submitted when the last one has ended */
} scenario;

static const int32_t stop_id = 7;

typedef struct tally {
    uint64_t compared, preemptions, restored, evicted, hits;
} tally;

/* Prompts share prefixes: each is a piece of one long text, sometimes with a tail of its own. */
static uint32_t make_prompt(uint64_t *random, int32_t *tokens)
{
    uint64_t text = 99 + below(random, 3);
    uint32_t count = 1 + below(random, 120), own = below(random, 3) ? 0 : below(random, count);
    for (uint32_t i = 0; i < count; i++)
        tokens[i] = (int32_t)below(i < count - own ? &text : random, TINY_VOCABULARY);
    return count;
}

static void check_answer(const rig *r, const scenario *s, const record *all, const int32_t *prompt,
                         size_t prompt_count, uint32_t request, engine_output output, tally *sum)
{
    static float expected[MOST_POSITIONS * TINY_VOCABULARY];
    int32_t tokens[MOST_POSITIONS];
    memcpy(tokens, prompt, prompt_count * sizeof *tokens);
    memcpy(tokens + prompt_count, output.tokens, output.count * sizeof *tokens);
    oracle_logits(r, s->dtype, tokens, (uint32_t)(prompt_count + output.count), expected);
    for (size_t i = 0; i < output.count; i++) {
        const float *want = expected + (prompt_count + i - 1) * backend_stride(TINY_VOCABULARY);
        assert_memory_equal(all->logits[request][i], want, TINY_VOCABULARY * sizeof *want);
        sum->compared++;
    }
}

static void serve(const rig *r, const scenario *s, tally *sum)
{
    static record all;
    static int32_t prompts[MOST_REQUESTS][MOST_POSITIONS];
    uint64_t random = s->seed;
    infer_error error = { "" };
    engine *e;
    quire_cache *cache = open_cache(r, s->device, s->dtype, s->block_tokens, s->device_blocks, s->host_blocks);
    engine_options options = { .most_running = s->most_running, .step_tokens = s->step_tokens, .reuse = s->reuse, .graph = s->graph,
                               .stop_ids = &stop_id, .stop_count = s->seed % 2, .on_token = keep_logits, .user = &all };
    sim_backend sim;
    model model = *r->model;
    sim_backend_init(&sim, r->backend, cache);
    if (strcmp(s->device, "host")) model.backend = &sim.base;
    assert_int_equal(engine_open(&e, cache, &model, &options, &error), 0);
    for (uint32_t i = 0; i < s->requests; i++) {
        uint32_t number;
        engine_request request = { .tokens = prompts[i], .count = make_prompt(&random, prompts[i]),
                                   .most_tokens = 1 + below(&random, MOST_GENERATED), .branches = 1, .domain = below(&random, 2),
                                   .sampling = { .temperature = (float)below(&random, 2), .top_p = 0.9f,
                                                 .seed = below(&random, 100) } };
        all.prompt[i] = request.count;
        assert_int_equal(engine_submit(e, &request, &number, &error), 0);
        assert_int_equal(number, i);
        bool busy = true;
        for (uint32_t steps = s->alone ? UINT32_MAX : below(&random, 6); steps && busy; steps--)
            assert_int_equal(engine_step(e, &busy, &error), 0);
    }
    if (engine_run(e, &error)) fail_msg("seed %llu: %s", (unsigned long long)s->seed, error.text);
    assert_int_equal(quire_cache_check(cache), QUIRE_OK);
    for (uint32_t i = 0; i < s->requests; i++) {
        engine_result result = engine_result_of(e, i);
        assert_null(result.error);
        sum->preemptions += result.preemptions;
        check_answer(r, s, &all, prompts[i], all.prompt[i], i, engine_output_of(e, i, 0), sum);
    }
    quire_stats stats = { .size = sizeof stats };
    assert_int_equal(quire_cache_stats(cache, &stats), QUIRE_OK);
    assert_int_equal(stats.sequences, 0);
    sum->restored += stats.hit_tokens_host;
    sum->hits += stats.hit_tokens_device;
    sum->evicted += stats.evictions_device;
    engine_close(e);
    quire_cache_close(cache);
}

static const quire_dtype dtypes[] = { QUIRE_DTYPE_F32,      QUIRE_DTYPE_BF16, QUIRE_DTYPE_F16, QUIRE_DTYPE_FP8_E4M3,
                                      QUIRE_DTYPE_FP8_E5M2, QUIRE_DTYPE_INT8, QUIRE_DTYPE_INT4 };

static scenario random_scenario(uint64_t seed)
{
    uint64_t random = seed * 77 + 1;
    uint32_t block_tokens = 1u << below(&random, 6);
    uint32_t longest = 161 / block_tokens + 2; /* blocks of the longest request */
    return (scenario){ .seed = seed,
                       .device = "host",
                       .dtype = dtypes[below(&random, 7)],
                       .block_tokens = block_tokens,
                       .device_blocks = longest + below(&random, 3 * longest),
                       .host_blocks = below(&random, 3) ? 6 * longest : 0,
                       .most_running = 4 + below(&random, 8),
                       .step_tokens = 12 + below(&random, 200),
                       .requests = MOST_REQUESTS,
                       .graph = seed % 2 == 0,
                       .reuse = below(&random, 8) > 0 };
}

static void test_logits_have_the_same_bits_whatever_the_batch_the_chunks_and_the_cache(void **state)
{
    tally sum = { 0 };
    for (uint64_t seed = 1; seed <= 40; seed++) {
        scenario s = random_scenario(seed);
        serve(*state, &s, &sum);
    }
    print_message("%llu rows of logits compared, %llu tokens hit, %llu restored, %llu blocks evicted, %llu preemptions\n",
                  (unsigned long long)sum.compared, (unsigned long long)sum.hits, (unsigned long long)sum.restored,
                  (unsigned long long)sum.evicted, (unsigned long long)sum.preemptions);
    assert_true(sum.compared > 5000);
    assert_true(sum.hits > 0 && sum.restored > 0 && sum.evicted > 0 && sum.preemptions > 0);
}

static void test_restores_that_are_late_change_no_bit(void **state)
{
    tally sum = { 0 };
    for (uint64_t seed = 1; seed <= 60; seed++) {
        scenario s = random_scenario(seed);
        snprintf(s.device, sizeof s.device, "sim:%llu", (unsigned long long)seed);
        s.reuse = true;
        s.alone = seed % 2;
        s.host_blocks += 3 * s.device_blocks;
        serve(*state, &s, &sum);
    }
    print_message("%llu rows of logits compared, %llu tokens restored\n",
                  (unsigned long long)sum.compared, (unsigned long long)sum.restored);
    assert_true(sum.restored > 0);
}

/* ---- branches ---------------------------------------------------------------------------------------------- */

typedef struct answers {
    int32_t tokens[MOST_REQUESTS][MOST_BRANCHES][MOST_GENERATED];
    size_t count[MOST_REQUESTS][MOST_BRANCHES];
    double log_probability[MOST_REQUESTS][MOST_BRANCHES];
    uint64_t copies, prunings;
} answers;

static void serve_branches(const rig *r, const scenario *s, answers *out)
{
    int32_t prompt[MOST_POSITIONS];
    uint64_t random = s->seed;
    infer_error error = { "" };
    engine *e;
    quire_cache *cache = open_cache(r, s->device, s->dtype, s->block_tokens, s->device_blocks, s->host_blocks);
    engine_options options = { .most_running = s->most_running, .step_tokens = s->step_tokens, .reuse = s->reuse,
                               .stop_ids = &stop_id, .stop_count = s->seed % 2 };
    memset(out, 0, sizeof *out);
    assert_int_equal(engine_open(&e, cache, r->model, &options, &error), 0);
    for (uint32_t i = 0; i < s->requests; i++) {
        uint32_t number;
        engine_request request = { .tokens = prompt, .count = make_prompt(&random, prompt),
                                   .most_tokens = 1 + below(&random, MOST_GENERATED),
                                   .branches = 1 + below(&random, MOST_BRANCHES),
                                   .prune_every = below(&random, 9), .domain = below(&random, 2),
                                   .sampling = { .temperature = 1, .top_p = 0.9f, .seed = i } };
        assert_int_equal(engine_submit(e, &request, &number, &error), 0);
    }
    if (engine_run(e, &error)) fail_msg("seed %llu: %s", (unsigned long long)s->seed, error.text);
    assert_int_equal(quire_cache_check(cache), QUIRE_OK);
    for (uint32_t i = 0; i < s->requests; i++) {
        engine_result result = engine_result_of(e, i);
        assert_null(result.error);
        out->prunings += result.prunings;
        for (uint32_t b = 0; b < result.outputs; b++) {
            engine_output output = engine_output_of(e, i, b);
            out->count[i][b] = output.count;
            out->log_probability[i][b] = output.log_probability;
            memcpy(out->tokens[i][b], output.tokens, output.count * sizeof *output.tokens);
        }
    }
    quire_stats stats = { .size = sizeof stats };
    assert_int_equal(quire_cache_stats(cache, &stats), QUIRE_OK);
    out->copies = stats.copies_on_write;
    engine_close(e);
    quire_cache_close(cache);
}

static void test_forked_and_pruned_branches_generate_what_they_would_alone(void **state)
{
    static answers shared, alone;
    uint64_t copies = 0, prunings = 0;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        scenario s = random_scenario(seed);
        s.reuse = true;
        serve_branches(*state, &s, &shared);
        s.reuse = false;
        s.device_blocks += 200;
        s.step_tokens = 512;
        s.most_running = 16;
        serve_branches(*state, &s, &alone);
        copies += shared.copies;
        prunings += shared.prunings;
        assert_int_equal(shared.prunings, alone.prunings);
        assert_memory_equal(shared.count, alone.count, sizeof shared.count);
        assert_memory_equal(shared.tokens, alone.tokens, sizeof shared.tokens);
        assert_memory_equal(shared.log_probability, alone.log_probability, sizeof shared.log_probability);
    }
    assert_true(copies > 0 && prunings > 0);
}

/* ---- requests that cannot be served ------------------------------------------------------------------------ */

static void expect_refusal(engine *e, engine_request request, const char *text)
{
    infer_error error;
    uint32_t number;
    assert_int_equal(engine_submit(e, &request, &number, &error), -1);
    assert_non_null(strstr(error.text, text));
}

static void test_a_request_that_can_never_run_is_refused_with_the_reason(void **state)
{
    const rig *r = *state;
    static int32_t tokens[TINY_CONTEXT + 1];
    infer_error error;
    engine *e;
    quire_cache *cache = open_cache(r, "host", QUIRE_DTYPE_F32, 16, 8, 0);
    engine_options options = { .most_running = 4, .step_tokens = 64, .reuse = true };
    engine_request good = { .tokens = tokens, .count = 5, .most_tokens = 4, .branches = 1,
                            .sampling = { .top_p = 1 } }, bad;
    assert_int_equal(engine_open(&e, cache, r->model, &options, &error), 0);
    bad = good, bad.count = 0;
    expect_refusal(e, bad, "empty");
    bad = good, bad.count = TINY_CONTEXT + 1;
    expect_refusal(e, bad, "513 tokens");
    bad = good, bad.most_tokens = 0;
    expect_refusal(e, bad, "max_tokens");
    bad = good, bad.branches = 5;
    expect_refusal(e, bad, "n is 5");
    bad = good, bad.sampling.temperature = -1;
    expect_refusal(e, bad, "temperature");
    bad = good, bad.sampling.top_p = 0;
    expect_refusal(e, bad, "top_p");
    tokens[3] = TINY_VOCABULARY;
    expect_refusal(e, good, "token 3 of the prompt is 96");
    tokens[3] = 0;
    uint32_t number;
    assert_int_equal(engine_submit(e, &good, &number, &error), 0);
    assert_int_equal(engine_run(e, &error), 0);
    assert_null(engine_result_of(e, number).error);
    engine_close(e);
    quire_cache_close(cache);
}

static void test_branches_that_do_not_fit_together_run_one_after_another(void **state)
{
    const rig *r = *state;
    static int32_t tokens[100];
    infer_error error = { "" };
    engine *e;
    quire_cache *cache = open_cache(r, "host", QUIRE_DTYPE_F32, 16, 9, 0); /* one request needs 8 or 9 */
    engine_options options = { .most_running = 8, .step_tokens = 64, .reuse = true };
    assert_int_equal(engine_open(&e, cache, r->model, &options, &error), 0);
    for (int i = 0; i < 4; i++) {
        uint32_t number;
        tokens[0] = i;
        engine_request request = { .tokens = tokens, .count = 100, .most_tokens = 28, .branches = 2,
                                   .sampling = { .temperature = 1, .top_p = 1 } };
        assert_int_equal(engine_submit(e, &request, &number, &error), 0);
    }
    uint32_t preemptions = 0;
    if (engine_run(e, &error)) fail_msg("%s", error.text);
    for (uint32_t i = 0; i < 4; i++) {
        engine_result result = engine_result_of(e, i);
        assert_null(result.error);
        preemptions += result.preemptions;
        assert_int_equal(engine_output_of(e, i, 0).count, 28);
        assert_int_equal(engine_output_of(e, i, 1).count, 28);
    }
    assert_true(preemptions > 0);
    assert_int_equal(quire_cache_check(cache), QUIRE_OK);
    engine_close(e);
    quire_cache_close(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits_have_the_same_bits_whatever_the_batch_the_chunks_and_the_cache),
        cmocka_unit_test(test_restores_that_are_late_change_no_bit),
        cmocka_unit_test(test_forked_and_pruned_branches_generate_what_they_would_alone),
        cmocka_unit_test(test_a_request_that_can_never_run_is_refused_with_the_reason),
        cmocka_unit_test(test_branches_that_do_not_fit_together_run_one_after_another),
    };
    int failed = cmocka_run_group_tests_name("llama", tests, open_llama, close_rig);
    return failed + cmocka_run_group_tests_name("gemma", tests, open_gemma, close_rig);
}
