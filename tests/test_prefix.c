/* The prefix tree: what is found is what was put in, by its tokens and nothing else. */
#include "support/testing.h"

#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "block/prefix.h"

enum { TOKENS = 4, NODES = 48, DOMAINS = 3 };

typedef struct tree {
    quire__pool pool;
    quire__prefix prefix;
} tree;

static void open_tree(tree *t)
{
    memset(t, 0, sizeof(*t));
    assert_int_equal(quire__pool_open(&t->pool, &quire__allocator_default, TOKENS, NODES, 0), QUIRE_OK);
    assert_int_equal(quire__prefix_open(&t->prefix, &quire__allocator_default, &t->pool, DOMAINS, 99), QUIRE_OK);
}

static void close_tree(tree *t)
{
    quire__prefix_close(&t->prefix, &quire__allocator_default);
    quire__pool_close(&t->pool, &quire__allocator_default);
}

static uint32_t add(tree *t, uint32_t domain, uint32_t parent, const int32_t *tokens)
{
    uint32_t node = quire__pool_node_take(&t->pool);
    memcpy(quire__pool_tokens(&t->pool, node), tokens, TOKENS * sizeof(*tokens));
    t->pool.nodes[node].kind = QUIRE__KIND_SEALED;
    quire__prefix_link(&t->prefix, node, domain, parent);
    return node;
}

static void equal_hashes_do_not_make_equal_blocks(void **state)
{
    (void)state;
    tree t;
    open_tree(&t);
    t.prefix.mask = 0; /* all in one bucket */
    uint32_t domain = quire__prefix_domain_enter(&t.prefix, 7);
    const int32_t one[] = {1, 2, 3, 4}, two[] = {1, 2, 3, 5}, three[] = {9, 9, 9, 9}, four[] = {0, 0, 0, 0};
    uint32_t a = add(&t, domain, QUIRE__NONE, one);
    uint32_t b = add(&t, domain, QUIRE__NONE, two);
    uint32_t c = add(&t, domain, a, one); /* the same tokens, below another block */
    uint32_t d = add(&t, domain, QUIRE__NONE, four), e = add(&t, domain, a, four);
    assert_int_equal(quire__prefix_child(&t.prefix, domain, QUIRE__NONE, one), a);
    assert_int_equal(quire__prefix_child(&t.prefix, domain, QUIRE__NONE, two), b);
    assert_int_equal(quire__prefix_child(&t.prefix, domain, a, one), c);
    assert_int_equal(quire__prefix_child(&t.prefix, domain, QUIRE__NONE, four), d);
    assert_int_equal(quire__prefix_child(&t.prefix, domain, a, four), e);
    assert_int_equal(quire__prefix_child(&t.prefix, domain, b, one), QUIRE__NONE);
    assert_int_equal(quire__prefix_child(&t.prefix, domain, QUIRE__NONE, three), QUIRE__NONE);
    assert_int_equal(quire__prefix_child(&t.prefix, domain + 1, QUIRE__NONE, one), QUIRE__NONE);
    assert_true(quire__prefix_table_right(&t.prefix, 3)); /* a and b have newer siblings, and c has */
    close_tree(&t);
}

static void a_domain_sees_nothing_of_another(void **state)
{
    (void)state;
    tree t;
    open_tree(&t);
    uint32_t mine = quire__prefix_domain_enter(&t.prefix, 1), yours = quire__prefix_domain_enter(&t.prefix, 2);
    const int32_t tokens[] = {1, 2, 3, 4};
    uint32_t common = 0, node = add(&t, mine, QUIRE__NONE, tokens);
    assert_int_equal(quire__prefix_child(&t.prefix, mine, QUIRE__NONE, tokens), node);
    assert_int_equal(quire__prefix_child(&t.prefix, yours, QUIRE__NONE, tokens), QUIRE__NONE);
    assert_int_equal(quire__prefix_nearest(&t.prefix, yours, QUIRE__NONE, tokens, 3, &common), QUIRE__NONE);
    assert_int_equal(common, 0);
    close_tree(&t);
}

static void the_nearest_child_shares_most_and_is_the_newest_of_equals(void **state)
{
    (void)state;
    tree t;
    open_tree(&t);
    uint32_t domain = quire__prefix_domain_enter(&t.prefix, 1), common = 0;
    const int32_t prompt[] = {1, 2, 3, 4};
    const int32_t two[] = {1, 2, 0, 0}, other_two[] = {1, 2, 9, 9}, three[] = {1, 2, 3, 0}, none[] = {5, 2, 3, 4};
    add(&t, domain, QUIRE__NONE, two);
    uint32_t newer = add(&t, domain, QUIRE__NONE, other_two);
    add(&t, domain, QUIRE__NONE, none);
    assert_int_equal(quire__prefix_nearest(&t.prefix, domain, QUIRE__NONE, prompt, 4, &common), newer);
    assert_int_equal(common, 2);
    uint32_t best = add(&t, domain, QUIRE__NONE, three);
    assert_int_equal(quire__prefix_nearest(&t.prefix, domain, QUIRE__NONE, prompt, 4, &common), best);
    assert_int_equal(common, 3);
    /* With two tokens to go by, all three are equal. */
    assert_int_equal(quire__prefix_nearest(&t.prefix, domain, QUIRE__NONE, prompt, 2, &common), best);
    assert_int_equal(common, 2);
    /* Eight newer ones hide it. */
    for (int32_t i = 0; i < QUIRE__PREFIX_NEAREST; i++)
        add(&t, domain, QUIRE__NONE, (const int32_t[]){100 + i, 0, 0, 0});
    assert_int_equal(quire__prefix_nearest(&t.prefix, domain, QUIRE__NONE, prompt, 4, &common), QUIRE__NONE);
    close_tree(&t);
}

static void a_domain_lasts_as_long_as_it_has_a_sequence_or_a_block(void **state)
{
    (void)state;
    tree t;
    open_tree(&t);
    const int32_t tokens[] = {1, 2, 3, 4};
    uint32_t domain = quire__prefix_domain_enter(&t.prefix, 42);
    quire__prefix_domain_share(&t.prefix, domain);
    uint32_t node = add(&t, domain, QUIRE__NONE, tokens);
    quire__prefix_domain_leave(&t.prefix, domain);
    assert_int_equal(quire__prefix_domain_idle(&t.prefix), QUIRE__NONE);
    quire__prefix_domain_leave(&t.prefix, domain);
    assert_int_equal(quire__prefix_domain_idle(&t.prefix), domain);
    assert_int_equal(quire__prefix_domain_find(&t.prefix, 42), domain);
    quire__prefix_unlink(&t.prefix, node);
    assert_int_equal(quire__prefix_domain_find(&t.prefix, 42), QUIRE__NONE);
    assert_int_equal(quire__prefix_domain_idle(&t.prefix), QUIRE__NONE);
    assert_int_equal(t.prefix.domain_count, 0);
    close_tree(&t);
}

static void domains_have_a_limit_and_the_longest_idle_is_named(void **state)
{
    (void)state;
    tree t;
    open_tree(&t);
    const int32_t tokens[] = {1, 2, 3, 4};
    uint32_t domain[DOMAINS];
    for (uint32_t i = 0; i < DOMAINS; i++) {
        domain[i] = quire__prefix_domain_enter(&t.prefix, 1000 + i);
        add(&t, domain[i], QUIRE__NONE, tokens);
    }
    assert_int_equal(quire__prefix_domain_enter(&t.prefix, 2000), QUIRE__NONE);
    assert_int_equal(quire__prefix_domain_enter(&t.prefix, 1001), domain[1]);
    quire__prefix_domain_leave(&t.prefix, domain[2]);
    quire__prefix_domain_leave(&t.prefix, domain[0]);
    assert_int_equal(quire__prefix_domain_idle(&t.prefix), domain[2]);
    assert_int_equal(quire__prefix_domain_enter(&t.prefix, 1002), domain[2]);
    assert_int_equal(quire__prefix_domain_idle(&t.prefix), domain[0]);
    close_tree(&t);
}

static void blocks_of_any_size_are_compared_to_the_last_token(void **state)
{
    (void)state;
    for (uint32_t count = 1; count <= 256; count++) {
        int32_t a[256], b[256];
        for (uint32_t i = 0; i < count; i++)
            a[i] = b[i] = (int32_t)(i * 77);
        assert_true(quire__tokens_equal(a, b, count));
        for (uint32_t i = 0; i < count; i++) {
            b[i] ^= (int32_t)(UINT32_C(1) << (i % 32));
            assert_false(quire__tokens_equal(a, b, count));
            b[i] = a[i];
        }
    }
}

/* Random links and unlinks of leaves, against a list of what there is. */
static void the_tree_finds_what_a_list_of_all_blocks_finds(void **state)
{
    (void)state;
    uint64_t random = test_seed("prefix", 31);
    tree t;
    open_tree(&t);
    uint32_t domain[2] = {quire__prefix_domain_enter(&t.prefix, 5), quire__prefix_domain_enter(&t.prefix, 6)};
    uint32_t list[NODES], count = 0;
    for (int i = 0; i < 300000; i++) {
        uint64_t pick = quire__random(&random);
        uint32_t place = domain[pick & 1], parent = QUIRE__NONE, found = QUIRE__NONE, at = 0;
        if (count > 0 && (pick >> 1) % 4 > 0) {
            parent = list[(pick >> 8) % count];
            place = t.pool.kin[parent].domain;
        }
        int32_t tokens[TOKENS];
        for (int k = 0; k < TOKENS; k++)
            tokens[k] = (int32_t)(quire__random(&random) % 2);
        for (uint32_t k = 0; k < count; k++) {
            const quire__kin *kin = &t.pool.kin[list[k]];
            if (kin->parent == parent && kin->domain == place &&
                memcmp(quire__pool_tokens(&t.pool, list[k]), tokens, sizeof(tokens)) == 0) {
                found = list[k];
                at = k;
            }
        }
        assert_int_equal(quire__prefix_child(&t.prefix, place, parent, tokens), found);
        if (found == QUIRE__NONE && count < NODES - 1) {
            list[count++] = add(&t, place, parent, tokens);
            assert_int_equal(quire__prefix_newest(&t.prefix, place, parent), list[count - 1]);
        } else if (found != QUIRE__NONE && t.pool.nodes[found].child == QUIRE__NONE) {
            quire__prefix_unlink(&t.prefix, found);
            quire__pool_node_give(&t.pool, found);
            list[at] = list[--count];
        }
        uint32_t hashed = 0;
        for (uint32_t k = 0; k < count; k++)
            hashed += t.pool.kin[list[k]].newer != QUIRE__NONE;
        assert_true(quire__prefix_table_right(&t.prefix, hashed));
    }
    close_tree(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_hashes_do_not_make_equal_blocks),
        cmocka_unit_test(a_domain_sees_nothing_of_another),
        cmocka_unit_test(the_nearest_child_shares_most_and_is_the_newest_of_equals),
        cmocka_unit_test(a_domain_lasts_as_long_as_it_has_a_sequence_or_a_block),
        cmocka_unit_test(domains_have_a_limit_and_the_longest_idle_is_named),
        cmocka_unit_test(blocks_of_any_size_are_compared_to_the_last_token),
        cmocka_unit_test(the_tree_finds_what_a_list_of_all_blocks_finds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
