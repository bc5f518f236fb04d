/* Clusters: the router's index against what nodes really have, and what routing must come to. */
#include "support/replay_kit.h"

#include "base/hash.h"
#include "cluster.h"
#include "drive.h"
#include "router.h"

enum { NODES = 3, SESSIONS = 8, LONGEST = 4000, BLOCK = 16 };

static void serve(replay_node *node, const int32_t *tokens, uint32_t count)
{
    replay_served served;
    replay_error error;
    if (replay_node_serve(node, 1, tokens, count, count, &served, &error))
        fail_msg("%s", error.text);
}

/* Of a stretch, the first block tells: a node's share is as many stretches as it has first blocks of. */
static uint32_t expected(replay_node *node, const replay_router *router, const int32_t *tokens,
                         uint32_t count)
{
    quire_hit hit;
    uint32_t matched = 0;
    assert_int_equal(quire__book_probe(node->book, 1, tokens, count, &hit), QUIRE_OK);
    uint32_t full = (uint32_t)(hit.tokens - hit.partial);
    while (matched + BLOCK <= full)
        matched += router->stride;
    return matched < count ? matched : count;
}

static void the_index_knows_what_the_nodes_have(void **state)
{
    (void)state;
    static int32_t said[SESSIONS][LONGEST];
    uint32_t lengths[SESSIONS] = {0}, matched[NODES];
    uint64_t seed = test_seed("router", 17), found = 0;
    replay_node nodes[NODES];
    replay_router router;
    replay_error error;
    replay_node_config config = {.geometry = {BLOCK, 1, 600, 0},
                                 .policy = "lru",
                                 .max_sequences = 1,
                                 .longest = LONGEST,
                                 .max_domains = 2,
                                 .events = 4096};
    for (int n = 0; n < NODES; n++)
        assert_int_equal(replay_node_open(&nodes[n], &config, &error), 0);
    assert_int_equal(replay_router_open(&router, NODES, BLOCK, 4096, &error), 0);
    for (int i = 0; i < (test_is_small() ? 300 : 3000); i++) {
        uint32_t s = (uint32_t)(quire__random(&seed) % SESSIONS),
                 n = (uint32_t)(quire__random(&seed) % NODES);
        if (lengths[s] > LONGEST - 700)
            lengths[s] = (uint32_t)(quire__random(&seed) % 600);
        for (uint32_t more = 1 + (uint32_t)(quire__random(&seed) % 700); more > 0; more--)
            said[s][lengths[s]++] = (int32_t)quire__random(&seed);
        replay_router_look(&router, 1, said[s], lengths[s], matched);
        for (int m = 0; m < NODES; m++) {
            assert_int_equal(matched[m], expected(&nodes[m], &router, said[s], lengths[s]));
            found += matched[m];
        }
        serve(&nodes[n], said[s], lengths[s]);
        assert_int_equal(replay_router_learn(&router, n, &nodes[n], &error), 0);
    }
    assert_true(found > 0 && router.taken > 0);
    for (int n = 0; n < NODES; n++)
        replay_node_close(&nodes[n]);
    replay_router_close(&router);
}

static replay_cluster_result route(const replay_job *job, uint32_t nodes, replay_route how)
{
    replay_cluster_result result;
    replay_error error;
    if (replay_cluster(job, nodes, how, "lru", 60000, 0, &result, &error))
        fail_msg("%s", error.text);
    assert_int_equal(result.requests, nodes * job->trace.request_count);
    assert_int_equal(result.input_tokens, nodes * job->trace.input_tokens);
    assert_true(result.work_spread >= 1 && result.request_spread >= 1);
    return result;
}

static void one_node_finds_what_the_cache_alone_finds(void **state)
{
    (void)state;
    replay_options options;
    replay_job job;
    replay_outcome alone;
    replay_error error;
    replay_open_fixture(&job, &options);
    replay_setup setup = {.geometry = {16, 1, 60000, 0}, .policy = "lru", .output = true};
    assert_int_equal(replay_drive(&job.trace, &setup, &alone, &error), 0);
    assert_int_equal(route(&job, 1, REPLAY_ROUTE_PREFIX).hit_device, alone.hit_device);
    assert_int_equal(route(&job, 1, REPLAY_ROUTE_ROUND_ROBIN).hit_device, alone.hit_device);
    replay_job_close(&job);
}

static void routing_by_prefix_finds_more_and_in_turn_is_even(void **state)
{
    (void)state;
    replay_options options;
    replay_job job;
    replay_open_fixture(&job, &options);
    options.model.prefill_rate = 60000; /* so that load is not all that counts */
    replay_cluster_result prefix = route(&job, 4, REPLAY_ROUTE_PREFIX),
                          load = route(&job, 4, REPLAY_ROUTE_LOAD);
    replay_cluster_result turn = route(&job, 4, REPLAY_ROUTE_ROUND_ROBIN);
    assert_true(prefix.hit_device > load.hit_device * 3 / 2);
    assert_true(prefix.hit_device > turn.hit_device * 3 / 2);
    assert_true(turn.request_spread == 1);
    assert_true(prefix.ttft_mean < turn.ttft_mean);
    replay_job_close(&job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_index_knows_what_the_nodes_have),
        cmocka_unit_test(one_node_finds_what_the_cache_alone_finds),
        cmocka_unit_test(routing_by_prefix_finds_more_and_in_turn_is_even),
    };
    return cmocka_run_group_tests_name("replay_cluster", tests, NULL, NULL);
}
