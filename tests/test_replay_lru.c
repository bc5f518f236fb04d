/* quire-replay's figures against simulators that share nothing with it: LRU request by request, the stack
 * distances against exact runs, the clairvoyant against one that looks at every future. */
#include "support/testing.h"

#include <stdio.h>
#include <string.h>

#include "base/config.h"
#include "base/hash.h"
#include "bounds.h"
#include "drive.h"
#include "expand.h"
#include "read.h"
#include "support/naive_lru.h"

static replay_trace read_trace(const char *path)
{
    replay_trace trace;
    replay_error error;
    replay_read_result result;
    replay_read_options options = {
        .strict = true, .piece_tokens = 512, .memory = UINT64_C(8) << 30, .longest_line = 64 << 20};
    if (!replay_read_json_supported())
        SKIP_BECAUSE("this build has no cJSON");
    if (replay_read(&trace, path, &options, &result, &error))
        fail_msg("%s", error.text);
    return trace;
}

/* Conversations of a few letters, so that prompts also part inside blocks; some end in the middle of what is
 * cached. */
static replay_trace random_trace(uint64_t seed, uint32_t requests, uint32_t letters)
{
    enum { SESSIONS = 12, LONGEST = 300 };
    static int32_t said[SESSIONS][LONGEST];
    uint32_t lengths[SESSIONS] = {0};
    replay_trace trace;
    replay_error error;
    replay_trace_open(&trace, UINT64_C(1) << 30);
    for (uint32_t i = 0; i < requests; i++) {
        uint32_t session = (uint32_t)(quire__random(&seed) % SESSIONS);
        if (lengths[session] == 0 || quire__random(&seed) % 10 == 0) {
            uint32_t other = (uint32_t)(quire__random(&seed) % SESSIONS);
            lengths[session] =
                (uint32_t)(quire__random(&seed) % (lengths[other] + 1)); /* a start of another's */
            memmove(said[session], said[other], lengths[session] * sizeof(int32_t));
        }
        uint32_t more = 1 + (uint32_t)(quire__random(&seed) % 40);
        for (; more > 0 && lengths[session] < LONGEST; more--)
            said[session][lengths[session]++] = (int32_t)(quire__random(&seed) % letters);
        assert_int_equal(replay_trace_begin(&trace, &error), 0);
        trace.requests[i].input = quire__random(&seed) % 4
                                      ? lengths[session]
                                      : 1 + (uint32_t)(quire__random(&seed) % lengths[session]);
        trace.requests[i].output = (uint32_t)(quire__random(&seed) % 20);
        trace.requests[i].time_us = i;
        for (uint32_t t = 0; t < trace.requests[i].input; t++)
            assert_int_equal(replay_trace_add_token(&trace, said[session][t], &error), 0);
        assert_int_equal(replay_trace_end(&trace, &error), 0);
    }
    assert_int_equal(replay_trace_finish(&trace, &error), 0);
    return trace;
}

/* Both caches serve the trace; every request must find the same. Returns the tokens found. */
static uint64_t compare(const replay_trace *trace, uint32_t block_tokens, uint32_t blocks, bool output)
{
    replay_node node;
    replay_error error;
    replay_node_config config = {.geometry = {block_tokens, 1, blocks, 0},
                                 .policy = "lru",
                                 .max_sequences = 1,
                                 .longest = trace->longest + 1,
                                 .max_domains = 1};
    if (replay_node_open(&node, &config, &error))
        fail_msg("%s", error.text);
    naive_lru *naive = naive_lru_open(block_tokens, blocks);
    int32_t *tokens = malloc(((size_t)trace->longest + 1) * sizeof *tokens);
    uint64_t found = 0;
    assert_non_null(tokens);
    for (uint32_t i = 0; i < trace->request_count; i++) {
        uint32_t input = trace->requests[i].input, total = input + (output ? trace->requests[i].output : 0);
        replay_served served;
        replay_expand(trace, i, 0, total, tokens);
        if (replay_node_serve(&node, 0, tokens, input, total, &served, &error))
            fail_msg("request %u: %s", i, error.text);
        if (served.refused)
            continue;
        naive_served wanted = naive_lru_serve(naive, tokens, input, total);
        if (served.hit.tokens != wanted.hit || served.hit.partial != wanted.partial)
            fail_msg(
                "request %u, blocks of %u, %u of them: found %zu tokens (%zu in part), the simulator %u (%u)",
                i, block_tokens, blocks, served.hit.tokens, served.hit.partial, wanted.hit, wanted.partial);
        found += wanted.hit;
    }
    quire_stats stats = {.size = sizeof stats};
    quire__book_stats(node.book, &stats);
    assert_int_equal(stats.evictions_device, naive_lru_evictions(naive));
    naive_lru_close(naive);
    replay_node_close(&node);
    free(tokens);
    return found;
}

static void lru_finds_what_a_simple_simulator_finds_in_random_traces(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {1, 4, 16, 32}, capacities[] = {340, 90, 30, 12};
    uint64_t seed = test_seed("lru", 7), found = 0;
    for (uint32_t i = 0; i < (test_is_small() ? 8 : 60); i++) {
        replay_trace trace = random_trace(seed + i, 300, 2 + i % 5);
        uint32_t at = i % 4, tight = (trace.longest + sizes[at] - 1) / sizes[at];
        found += compare(&trace, sizes[at], capacities[at] + i, i % 2);
        found += compare(&trace, sizes[at], tight, i % 2); /* the longest request takes all of it */
        replay_trace_close(&trace);
    }
    assert_true(found > 0);
}

static void lru_finds_what_a_simple_simulator_finds_in_conversations(void **state)
{
    (void)state;
    replay_trace trace = read_trace(QUIRE_TEST_FIXTURES "/conversation.jsonl");
    assert_int_equal(trace.request_count, 600);
    assert_true(compare(&trace, 16, 80000, true) > compare(&trace, 16, 20000, true));
    assert_true(compare(&trace, 128, 10000, false) > 0);
    replay_trace_close(&trace);
}

static void lru_finds_what_a_simple_simulator_finds_in_a_whole_trace(void **state)
{
    (void)state;
    const char *path = getenv("QUIRE_TEST_TRACE");
    if (!path || !*path)
        SKIP_BECAUSE("QUIRE_TEST_TRACE names no trace (the whole Mooncake conversation trace, say)");
    replay_trace trace = read_trace(path);
    uint64_t found = compare(&trace, 16, 131072, false);
    print_message("%zu requests, 131072 blocks of 16: %llu tokens found, %.3f%%\n", trace.request_count,
                  (unsigned long long)found, 100.0 * (double)found / (double)trace.input_tokens);
    replay_trace_close(&trace);
}

/* ---- stack distances ----------------------------------------------------------------------------------- */

static void the_stack_distances_are_exact_where_a_block_is_a_piece(void **state)
{
    (void)state;
    replay_trace trace = read_trace(QUIRE_TEST_FIXTURES "/conversation.jsonl");
    replay_paths paths;
    replay_error error;
    uint64_t capacities[] = {400, 700, 1500, 4000, 8000, 20000}, hits[6];
    assert_int_equal(replay_paths_open(&paths, &trace, 1, true, false, &error), 0);
    assert_int_equal(replay_lru_curve(&paths, capacities, 6, hits, &error), 0);
    for (int i = 0; i < 6; i++) {
        replay_outcome outcome;
        replay_setup setup = {
            .geometry = {1, 1, (uint32_t)capacities[i], 0}, .policy = "lru", .pieces = true};
        assert_int_equal(replay_drive(&trace, &setup, &outcome, &error), 0);
        assert_int_equal(outcome.hit_device, hits[i]);
    }
    assert_int_equal(hits[5], replay_infinite(&paths)); /* more than there are */
    replay_paths_close(&paths);
    replay_trace_close(&trace);
}

/* ---- the clairvoyant ----------------------------------------------------------------------------------- */

typedef struct oracle {
    const replay_trace *trace;
    bool *held;
    uint32_t count;
} oracle;

static uint32_t next_use(const replay_trace *trace, uint32_t from, uint32_t id)
{
    for (uint32_t r = from; r < trace->request_count; r++) {
        for (uint32_t k = 0; k < trace->requests[r].count; k++)
            if (trace->ids[trace->requests[r].first + k] == id)
                return r;
    }
    return UINT32_MAX;
}

static bool leaf(const oracle *oracle, uint32_t id)
{
    for (uint32_t other = 0; other < oracle->trace->units; other++)
        if (oracle->held[other] && oracle->trace->parents[other] == id)
            return false;
    return true;
}

/* Evicts the leaf that is used last, by looking at all of them; those of request `spare` stay. */
static void evict_latest(oracle *oracle, uint32_t now, uint32_t spare)
{
    uint32_t latest = 0, victim = UINT32_MAX;
    for (uint32_t id = 0; id < oracle->trace->units; id++) {
        if (!oracle->held[id] || !leaf(oracle, id) ||
            (spare != UINT32_MAX && next_use(oracle->trace, spare, id) == spare))
            continue;
        uint32_t next = next_use(oracle->trace, now, id);
        if (victim == UINT32_MAX || next > latest) {
            latest = next;
            victim = id;
        }
    }
    assert_true(victim != UINT32_MAX);
    oracle->held[victim] = false;
    oracle->count--;
}

static uint64_t naive_clairvoyant(const replay_trace *trace, uint32_t capacity, bool bypass)
{
    oracle oracle = {trace, calloc(trace->units, sizeof(bool)), 0};
    uint64_t hits = 0;
    for (uint32_t r = 0; r < trace->request_count; r++) {
        const replay_request *request = &trace->requests[r];
        uint32_t found = 0;
        while (found < request->count && oracle.held[trace->ids[request->first + found]])
            found++;
        hits += found;
        for (uint32_t k = found; k < request->count; k++) {
            if (!bypass && oracle.count == capacity)
                evict_latest(&oracle, r + 1, r);
            oracle.held[trace->ids[request->first + k]] = true;
            oracle.count++;
        }
        while (oracle.count > capacity)
            evict_latest(&oracle, r + 1, UINT32_MAX);
    }
    free(oracle.held);
    return hits;
}

static replay_trace random_pieces(uint64_t seed)
{
    replay_trace trace;
    replay_error error;
    replay_trace_open(&trace, 1 << 24);
    trace.piece_tokens = 4;
    for (int i = 0; i < 40; i++) {
        uint64_t name = 0;
        assert_int_equal(replay_trace_begin(&trace, &error), 0);
        uint32_t count = 1 + (uint32_t)(quire__random(&seed) % 6);
        trace.requests[i].input = count * 4;
        trace.requests[i].time_us = i;
        for (uint32_t k = 0; k < count; k++) {
            name = name * 3 + 1 + quire__random(&seed) % 3;
            assert_int_equal(replay_trace_add_id(&trace, name, &error), 0);
        }
        assert_int_equal(replay_trace_end(&trace, &error), 0);
    }
    assert_int_equal(replay_trace_finish(&trace, &error), 0);
    return trace;
}

static void the_clairvoyant_is_as_good_as_one_that_looks_at_every_future(void **state)
{
    (void)state;
    uint64_t seed = test_seed("clairvoyant", 11), gained = 0;
    for (uint32_t i = 0; i < (test_is_small() ? 10 : 60); i++) {
        replay_trace trace = random_pieces(seed + i);
        replay_paths paths;
        replay_error error;
        assert_int_equal(replay_paths_open(&paths, &trace, 1, true, false, &error), 0);
        for (uint32_t capacity = 6; capacity < 30; capacity += 4) {
            uint64_t always, bypass, c = capacity, lru;
            assert_int_equal(replay_clairvoyant(&paths, capacity, false, &always, &error), 0);
            assert_int_equal(replay_clairvoyant(&paths, capacity, true, &bypass, &error), 0);
            assert_int_equal(replay_lru_curve(&paths, &c, 1, &lru, &error), 0);
            assert_int_equal(always, naive_clairvoyant(&trace, capacity, false));
            assert_int_equal(bypass, naive_clairvoyant(&trace, capacity, true));
            assert_true(lru <= always && always <= bypass && bypass <= replay_infinite(&paths));
            gained += bypass - lru;
        }
        replay_paths_close(&paths);
        replay_trace_close(&trace);
    }
    assert_true(gained > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lru_finds_what_a_simple_simulator_finds_in_random_traces),
        cmocka_unit_test(lru_finds_what_a_simple_simulator_finds_in_conversations),
        cmocka_unit_test(lru_finds_what_a_simple_simulator_finds_in_a_whole_trace),
        cmocka_unit_test(the_stack_distances_are_exact_where_a_block_is_a_piece),
        cmocka_unit_test(the_clairvoyant_is_as_good_as_one_that_looks_at_every_future),
    };
    return cmocka_run_group_tests_name("replay_lru", tests, NULL, NULL);
}
