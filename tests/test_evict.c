/* Eviction policies: one conformance test over all of them, and what is particular to each. */
#include "support/testing.h"

#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "block/evict.h"
#include "block/plan.h"

enum { NODES = 40 };
static const char *const policies[] = {"learned", "lru", "slru", "s3fifo", "lfu", "gdsf", "priority"};
enum { POLICIES = sizeof(policies) / sizeof(*policies) };

typedef struct listing {
    uint32_t node[NODES], count;
} listing;

static void note(void *arg, uint32_t node)
{
    listing *list = arg;
    assert_true(list->count < NODES);
    list->node[list->count++] = node;
}

/* A prefix tree as policies see it. */
typedef struct grove {
    uint32_t parent[NODES];
    bool in[NODES];
} grove;

static uint32_t grove_parent(const void *self, uint32_t node)
{
    return ((const grove *)self)->parent[node];
}

static uint32_t grove_children(const void *self, uint32_t node)
{
    const grove *trees = self;
    uint32_t children = 0;
    for (uint32_t n = 0; n < NODES; n++)
        children += trees->in[n] && trees->parent[n] == node;
    return children;
}

static uint32_t grove_stamp(const void *self, uint32_t node)
{
    (void)self;
    return node * 2654435761u;
}

static int grove_busy(const void *self, uint32_t node)
{
    (void)self;
    (void)node;
    return 0;
}

static int grove_waiting(const void *self, uint32_t node)
{
    return ((const grove *)self)->in[node];
}

static uint32_t grove_heir(const void *self, uint32_t node)
{
    uint32_t parent = grove_parent(self, node);
    return parent != QUIRE__NONE && grove_waiting(self, parent) && grove_children(self, parent) == 1 ? parent : QUIRE__NONE;
}

static quire_policy_setup setup_of(const grove *trees)
{
    return (quire_policy_setup){.blocks = NODES, .slots = NODES, .block_tokens = 16,
        .tree = {trees, grove_parent, grove_children, grove_stamp, grove_busy, grove_waiting, grove_heir}};
}

static quire__evict open_policy(const char *name, grove *trees)
{
    quire__evict evict = {0};
    quire_policy_setup setup = setup_of(trees);
    assert_int_equal(quire__evict_open(&evict, &quire__allocator_default, name, NULL, &setup), QUIRE_OK);
    return evict;
}

static void plant(grove *trees)
{
    *trees = (grove){.in = {false}};
    for (uint32_t n = 0; n < NODES; n++)
        trees->parent[n] = QUIRE__NONE;
}

static void an_unknown_policy_is_refused_and_the_known_ones_are_named(void **state)
{
    (void)state;
    quire__evict evict = {0};
    quire_policy_setup setup = setup_of(NULL);
    assert_int_equal(quire__evict_open(&evict, &quire__allocator_default, "magic", NULL, &setup), QUIRE_EINVAL);
    assert_non_null(strstr(quire_error_text(), "\"magic\""));
    for (int p = 0; p < POLICIES; p++)
        assert_non_null(strstr(quire_error_text(), policies[p]));
    assert_int_equal(quire__evict_open(&evict, &quire__allocator_default, NULL, NULL, &setup), QUIRE_EINVAL);
    quire__evict_close(&evict, &quire__allocator_default);
}

static void an_empty_order_has_no_victim(void **state)
{
    (void)state;
    for (int p = 0; p < POLICIES; p++) {
        grove trees;
        plant(&trees);
        quire__evict evict = open_policy(policies[p], &trees);
        assert_int_equal(quire__evict_victim(&evict), QUIRE__NONE);
        trees.in[3] = true;
        quire__evict_insert_path(&evict, &(uint32_t){3}, 1);
        assert_int_equal(quire__evict_victim(&evict), 3);
        quire__evict_remove(&evict, 3);
        assert_int_equal(quire__evict_victim(&evict), QUIRE__NONE);
        assert_int_equal(quire__evict_count(&evict), 0);
        quire__evict_close(&evict, &quire__allocator_default);
    }
}

/* A random forest whose nodes come and go as the deciding half does it, a path at a time. No victim has a node below it
 * in the order. */
static void no_policy_names_a_victim_before_what_is_below_it(void **state)
{
    (void)state;
    uint64_t random = test_seed("evict", 23);
    for (int p = 0; p < POLICIES; p++) {
        grove trees;
        plant(&trees);
        quire__evict evict = open_policy(policies[p], &trees);
        uint32_t *parent = trees.parent;
        bool *in = trees.in;
        for (uint32_t n = 0; n < NODES; n++)
            parent[n] = n < 4 ? QUIRE__NONE : (uint32_t)(quire__random(&random) % n);
        for (int i = 0; i < 100000; i++) {
            uint32_t path[NODES], depth = 0, node = (uint32_t)(quire__random(&random) % NODES);
            for (uint32_t up = node; up != QUIRE__NONE; up = parent[up])
                depth++;
            uint32_t at = depth;
            for (uint32_t up = node; up != QUIRE__NONE; up = parent[up])
                path[--at] = up;
            uint32_t listed = 0; /* the rest was evicted before */
            while (listed < depth && in[path[listed]])
                listed++;
            evict.use.now += quire__random(&random) % 200000;
            quire_policy_use use = {.blocks = depth, .matched = listed, .hints = i % 3 == 0};
            quire__evict_context(&evict, i % 5 == 0 ? NULL : &use);
            quire__evict_remove_path(&evict, path, listed);
            if (listed < depth)
                quire__evict_sealed(&evict, path + listed, depth - listed);
            for (uint32_t k = 0; k < depth; k++)
                in[path[k]] = true;
            quire__evict_insert_path(&evict, path, depth);

            uint64_t evictions = quire__random(&random) % 4;
            for (uint64_t k = 0; k < evictions; k++) {
                uint32_t victim = quire__evict_victim(&evict);
                if (victim == QUIRE__NONE)
                    break;
                for (uint32_t n = 0; n < NODES; n++)
                    assert_false(in[n] && parent[n] == victim);
                quire__evict_drop(&evict, victim);
                in[victim] = false;
            }
        }
        quire__evict_close(&evict, &quire__allocator_default);
    }
}

/* LRU against an array. */
static void lru_keeps_the_order_of_use_exactly(void **state)
{
    (void)state;
    uint64_t random = test_seed("lru", 29);
    grove trees;
    plant(&trees);
    quire__evict evict = open_policy("lru", &trees);
    uint32_t order[NODES], count = 0; /* the oldest first */
    for (int i = 0; i < 200000; i++) {
        uint64_t what = quire__random(&random) % 3, pick = quire__random(&random);
        bool in[NODES] = {false};
        for (uint32_t k = 0; k < count; k++)
            in[order[k]] = true;
        if (what == 0) {
            uint32_t path[NODES], length = 0, most = 1 + (uint32_t)(pick % 6);
            for (uint32_t n = (uint32_t)(pick >> 32) % NODES; n < NODES && length < most; n++) {
                if (!in[n])
                    path[length++] = n;
            }
            quire__evict_insert_path(&evict, path, length);
            for (uint32_t k = length; k-- > 0;)
                order[count++] = path[k];
        } else if (what == 1 && count > 0) {
            uint32_t at = (uint32_t)(pick % count), node = (uint32_t)(pick >> 32) % NODES;
            if (in[node])
                continue;
            quire__evict_insert_below(&evict, node, order[at]);
            memmove(&order[at + 1], &order[at], sizeof(*order) * (count - at));
            order[at] = node;
            count++;
        } else if (count > 0) { /* some that lie side by side, newest first, and some that do not */
            uint32_t path[NODES], length = 0, at = (uint32_t)(pick % count), stride = 1 + (uint32_t)(pick >> 40) % 2;
            for (uint32_t k = at + 1; k-- > 0 && length < 5; k = k >= stride - 1 ? k - (stride - 1) : 0)
                path[length++] = order[k];
            if (stride > 1)
                length = 1;
            quire__evict_remove_path(&evict, path, length);
            memmove(&order[at + 1 - length], &order[at + 1], sizeof(*order) * (count - at - 1));
            count -= length;
        }
        listing list = {.count = 0};
        quire__evict_each(&evict, note, &list);
        assert_int_equal(list.count, count);
        assert_int_equal(quire__evict_count(&evict), count);
        assert_memory_equal(list.node, order, count * sizeof(*order));
        assert_int_equal(quire__evict_victim(&evict), count > 0 ? order[0] : QUIRE__NONE);
    }
    quire__evict_close(&evict, &quire__allocator_default);
}

static quire__evict open_below(const char *policy, grove *trees, const quire__evict *above)
{
    quire__evict evict = {0};
    quire_policy_setup setup = setup_of(trees);
    setup.tier = QUIRE_TIER_HOST;
    setup.above = above->state;
    assert_int_equal(quire__evict_open(&evict, &quire__allocator_default, policy, NULL, &setup), QUIRE_OK);
    return evict;
}

/* Blocks that come down from the device, where the older of two was let go first. */
static void a_block_that_comes_down_is_as_old_as_it_was_above(void **state)
{
    (void)state;
    grove device, host;
    plant(&device);
    plant(&host);
    quire__evict above = open_policy("learned", &device), below = open_below("learned", &host, &above);
    for (uint32_t n = 0; n < 4; n++) { /* 0 .. 3, the oldest first, the first above all others */
        above.use.now = (n + 1) * UINT64_C(60000000);
        device.in[n] = true;
        device.parent[n] = host.parent[n] = n == 0 ? QUIRE__NONE : 0;
        quire__evict_insert_path(&above, &n, 1);
    }
    below.use.now = above.use.now;
    host.in[0] = true;
    quire__evict_insert_path(&below, &(uint32_t){0}, 1);
    for (uint32_t n = 3; n > 0; n--) { /* they come in the other order */
        host.in[n] = true;
        quire__evict_insert_below(&below, n, 0);
    }
    for (uint32_t n = 1; n < 4; n++) {
        assert_int_equal(quire__evict_victim(&below), n);
        quire__evict_drop(&below, n);
        host.in[n] = false;
    }
    assert_int_equal(quire__evict_victim(&below), 0);
    quire__evict_close(&below, &quire__allocator_default);
    quire__evict_close(&above, &quire__allocator_default);
}

/* Of blocks new to the host the first has been let go on the device, the others are in use there. */
static void s3fifo_gives_what_comes_down_no_second_trial(void **state)
{
    (void)state;
    grove device, host;
    plant(&device);
    plant(&host);
    quire__evict above = open_policy("s3fifo", &device), below = open_below("s3fifo", &host, &above);
    device.in[0] = true;
    quire__evict_insert_path(&above, &(uint32_t){0}, 1);
    for (uint32_t n = 0; n < 8; n++) { /* more than the trial has room for */
        host.in[n] = true;
        quire__evict_insert_path(&below, &n, 1);
    }
    assert_int_equal(quire__evict_victim(&below), 1);
    quire__evict_close(&below, &quire__allocator_default);
    quire__evict_close(&above, &quire__allocator_default);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unknown_policy_is_refused_and_the_known_ones_are_named),
        cmocka_unit_test(an_empty_order_has_no_victim),
        cmocka_unit_test(no_policy_names_a_victim_before_what_is_below_it),
        cmocka_unit_test(lru_keeps_the_order_of_use_exactly),
        cmocka_unit_test(s3fifo_gives_what_comes_down_no_second_trial),
        cmocka_unit_test(a_block_that_comes_down_is_as_old_as_it_was_above),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
