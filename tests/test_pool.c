/* Nodes and slots: who owns what, and that the counts tell it. */
#include "support/testing.h"

#include "base/hash.h"
#include "base/memory.h"
#include "block/pool.h"

enum { DEVICE_SLOTS = 12, HOST_SLOTS = 7 };

static void open_pool(quire__pool *pool)
{
    *pool = (quire__pool){0};
    assert_int_equal(quire__pool_open(pool, &quire__allocator_default, 4, DEVICE_SLOTS, HOST_SLOTS), QUIRE_OK);
}

/* A sealed node on the device, as residency.c makes it. */
static uint32_t take_sealed(quire__pool *pool, uint32_t refs)
{
    uint32_t slot = quire__pool_slot_take(pool, QUIRE_TIER_DEVICE);
    assert_int_not_equal(slot, QUIRE__NONE);
    uint32_t node = quire__pool_node_take(pool);
    pool->nodes[node].kind = QUIRE__KIND_SEALED;
    pool->nodes[node].refs = refs;
    quire__pool_attach(pool, node, QUIRE_TIER_DEVICE, slot, QUIRE__RESIDENT);
    return node;
}

static void a_fresh_pool_gives_nodes_and_slots_in_ascending_order(void **state)
{
    (void)state;
    quire__pool pool;
    open_pool(&pool);
    for (uint32_t i = 0; i < DEVICE_SLOTS; i++) {
        uint32_t node = take_sealed(&pool, 1);
        assert_int_equal(node, i);
        assert_int_equal(pool.nodes[node].slot[QUIRE_TIER_DEVICE], i);
    }
    assert_int_equal(quire__pool_slot_take(&pool, QUIRE_TIER_DEVICE), QUIRE__NONE);
    assert_true(quire__pool_balanced(&pool));
    quire__pool_close(&pool, &quire__allocator_default);
}

static void what_is_given_back_tail_first_comes_again_in_ascending_order(void **state)
{
    (void)state;
    quire__pool pool;
    uint32_t node[6];
    open_pool(&pool);
    for (int i = 0; i < 6; i++)
        node[i] = take_sealed(&pool, 1);
    for (int i = 6; i-- > 0;) {
        quire__pool_detach(&pool, node[i], QUIRE_TIER_DEVICE);
        quire__pool_node_give(&pool, node[i]);
    }
    for (uint32_t i = 0; i < 6; i++) {
        assert_int_equal(take_sealed(&pool, 1), i);
        assert_int_equal(pool.nodes[i].slot[QUIRE_TIER_DEVICE], i);
    }
    quire__pool_close(&pool, &quire__allocator_default);
}

static void a_slot_that_a_move_has_becomes_an_orphan_and_not_free(void **state)
{
    (void)state;
    quire__pool pool;
    open_pool(&pool);
    uint32_t read = take_sealed(&pool, 0), written = take_sealed(&pool, 0);
    pool.nodes[read].reads = QUIRE__READS_DEVICE;
    pool.nodes[written].state[QUIRE_TIER_DEVICE] = QUIRE__ARRIVING;
    quire__pool_account(&pool, read);
    quire__pool_account(&pool, written);
    assert_int_equal(pool.standing[QUIRE_TIER_DEVICE][QUIRE__LOOSE], 2);

    uint32_t slots[] = {pool.nodes[read].slot[QUIRE_TIER_DEVICE], pool.nodes[written].slot[QUIRE_TIER_DEVICE]};
    quire__pool_detach(&pool, read, QUIRE_TIER_DEVICE);
    quire__pool_detach(&pool, written, QUIRE_TIER_DEVICE);
    quire__pool_node_give(&pool, read);
    quire__pool_node_give(&pool, written);
    assert_int_equal(pool.orphans[QUIRE_TIER_DEVICE], 2);
    assert_int_equal(pool.free_count[QUIRE_TIER_DEVICE], DEVICE_SLOTS - 2);
    assert_true(quire__pool_balanced(&pool));

    for (int i = 0; i < 2; i++)
        quire__pool_slot_give(&pool, QUIRE_TIER_DEVICE, slots[i]);
    assert_int_equal(pool.orphans[QUIRE_TIER_DEVICE], 0);
    assert_int_equal(pool.free_count[QUIRE_TIER_DEVICE], DEVICE_SLOTS);
    assert_true(quire__pool_balanced(&pool));
    quire__pool_close(&pool, &quire__allocator_default);
}

/* Tickets are kept by their lowest bits. */
static void a_ticket_is_exact_over_four_billion_steps_and_never_earlier_than_the_release(void **state)
{
    (void)state;
    quire__pool pool;
    open_pool(&pool);
    const uint64_t now = (UINT64_C(7) << 32) + 5, released[] = {now, now - 1, now - 6, now - UINT32_MAX};
    for (size_t i = 0; i < sizeof released / sizeof *released; i++) {
        pool.ticket[3] = (uint32_t)released[i];
        assert_int_equal(quire__pool_ticket(&pool, 3, now), released[i]);
    }
    pool.ticket[3] = (uint32_t)(now - UINT32_MAX - 10);
    assert_in_range(quire__pool_ticket(&pool, 3, now), now - UINT32_MAX, now);
    pool.ticket[3] = 0; /* never touched: as if by a step that has ended */
    assert_int_equal(quire__pool_ticket(&pool, 3, 9), 0);
    quire__pool_close(&pool, &quire__allocator_default);
}

static void free_slots_that_are_hidden_are_not_given_out_until_shown(void **state)
{
    (void)state;
    quire__pool pool;
    open_pool(&pool);
    quire__pool_slots_hide(&pool, 1, 2);
    assert_int_equal(pool.free_count[QUIRE_TIER_DEVICE], DEVICE_SLOTS - 2);
    assert_int_equal(quire__pool_slot_take(&pool, QUIRE_TIER_DEVICE), 0);
    assert_int_equal(quire__pool_slot_take(&pool, QUIRE_TIER_DEVICE), 3);
    quire__pool_slots_show(&pool, 1, 2);
    for (uint32_t slot = 1; slot < DEVICE_SLOTS; slot++)
        if (slot != 3)
            assert_int_equal(quire__pool_slot_take(&pool, QUIRE_TIER_DEVICE), slot);
    assert_int_equal(quire__pool_slot_take(&pool, QUIRE_TIER_DEVICE), QUIRE__NONE);
    quire__pool_slots_hide(&pool, 0, DEVICE_SLOTS); /* of none that is free */
    assert_int_equal(pool.free_count[QUIRE_TIER_DEVICE], 0);
    quire__pool_close(&pool, &quire__allocator_default);
}

static void a_handle_names_its_block_and_never_a_later_one(void **state)
{
    (void)state;
    quire__pool pool;
    open_pool(&pool);
    uint32_t node = take_sealed(&pool, 0);
    quire_block handle = quire__pool_handle(&pool, node);
    assert_int_not_equal(handle, 0);
    assert_int_equal(quire__pool_find(&pool, handle), node);
    quire__pool_detach(&pool, node, QUIRE_TIER_DEVICE);
    quire__pool_node_give(&pool, node);
    assert_int_equal(quire__pool_find(&pool, handle), QUIRE__NONE);
    assert_int_equal(take_sealed(&pool, 0), node);
    assert_int_equal(quire__pool_find(&pool, handle), QUIRE__NONE);
    assert_int_not_equal(quire__pool_handle(&pool, node), handle);

    assert_int_equal(quire__pool_find(&pool, 0), QUIRE__NONE);
    assert_int_equal(quire__pool_find(&pool, UINT64_MAX), QUIRE__NONE);
    assert_int_equal(quire__pool_find(&pool, DEVICE_SLOTS + HOST_SLOTS + 1), QUIRE__NONE);
    quire__pool_close(&pool, &quire__allocator_default);
}

static void an_open_block_has_no_handle_yet(void **state)
{
    (void)state;
    quire__pool pool;
    open_pool(&pool);
    uint32_t node = take_sealed(&pool, 1);
    pool.nodes[node].kind = QUIRE__KIND_OPEN;
    assert_int_equal(quire__pool_find(&pool, quire__pool_handle(&pool, node)), QUIRE__NONE);
    quire__pool_close(&pool, &quire__allocator_default);
}

/* What each combination of kind, references, state and reads counts as. */
static void every_slot_counts_as_exactly_one_thing(void **state)
{
    (void)state;
    static const struct {
        quire__kind kind;
        uint32_t refs;
        quire__residence state;
        uint8_t reads;
        quire__standing expected;
    } cases[] = {
        {QUIRE__KIND_OPEN, 1, QUIRE__RESIDENT, 0, QUIRE__OPEN},
        {QUIRE__KIND_OPEN, 3, QUIRE__RESIDENT, 0, QUIRE__OPEN},
        {QUIRE__KIND_SEALED, 1, QUIRE__RESIDENT, 0, QUIRE__USED},
        {QUIRE__KIND_SEALED, 1, QUIRE__RESIDENT, QUIRE__READS_DEVICE, QUIRE__USED},
        {QUIRE__KIND_SEALED, 2, QUIRE__ARRIVING, QUIRE__READS_HOST, QUIRE__EXPECTED},
        {QUIRE__KIND_SEALED, 0, QUIRE__RESIDENT, 0, QUIRE__CACHED},
        {QUIRE__KIND_SEALED, 0, QUIRE__RESIDENT, QUIRE__READS_HOST, QUIRE__CACHED},
        {QUIRE__KIND_SEALED, 0, QUIRE__RESIDENT, QUIRE__READS_DEVICE, QUIRE__LOOSE},
        {QUIRE__KIND_SEALED, 0, QUIRE__ARRIVING, 0, QUIRE__LOOSE},
        {QUIRE__KIND_DEAD, 1, QUIRE__SPOILED, 0, QUIRE__USED},
        {QUIRE__KIND_DEAD, 1, QUIRE__ARRIVING, 0, QUIRE__EXPECTED},
    };
    quire__pool pool;
    open_pool(&pool);
    uint32_t node = take_sealed(&pool, 0);
    quire__node *record = &pool.nodes[node];
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        record->kind = (uint8_t)cases[i].kind;
        record->refs = cases[i].refs;
        record->state[QUIRE_TIER_DEVICE] = (uint8_t)cases[i].state;
        record->reads = cases[i].reads;
        quire__pool_account(&pool, node);
        assert_int_equal(record->standing[QUIRE_TIER_DEVICE], cases[i].expected);
        assert_int_equal(pool.standing[QUIRE_TIER_DEVICE][cases[i].expected], 1);
        assert_true(quire__pool_balanced(&pool));
    }
    quire__pool_close(&pool, &quire__allocator_default);
}

/* Random takes, moves and gives; what is free, owned and orphaned is counted beside. */
static void slots_are_never_lost_nor_given_twice(void **state)
{
    (void)state;
    uint64_t random = test_seed("pool", 17);
    quire__pool pool;
    open_pool(&pool);
    uint32_t nodes[DEVICE_SLOTS], orphans[DEVICE_SLOTS], held = 0, lost = 0;
    for (int i = 0; i < 200000; i++) {
        uint64_t what = quire__random(&random) % 4, pick = quire__random(&random);
        if (what < 2 && held + lost < DEVICE_SLOTS) {
            nodes[held++] = take_sealed(&pool, what == 0);
        } else if (what == 2 && held > 0) {
            uint32_t at = (uint32_t)(pick % held), node = nodes[at];
            uint32_t slot = pool.nodes[node].slot[QUIRE_TIER_DEVICE];
            bool reads = pick >> 32 & 1;
            pool.nodes[node].reads = reads ? QUIRE__READS_DEVICE : 0;
            if (reads)
                orphans[lost++] = slot;
            quire__pool_detach(&pool, node, QUIRE_TIER_DEVICE);
            quire__pool_node_give(&pool, node);
            nodes[at] = nodes[--held];
        } else if (what == 3 && lost > 0) {
            uint32_t at = (uint32_t)(pick % lost);
            quire__pool_slot_give(&pool, QUIRE_TIER_DEVICE, orphans[at]);
            orphans[at] = orphans[--lost];
        }
        assert_int_equal(pool.free_count[QUIRE_TIER_DEVICE], DEVICE_SLOTS - held - lost);
        assert_int_equal(pool.orphans[QUIRE_TIER_DEVICE], lost);
        assert_true(quire__pool_balanced(&pool));
        for (uint32_t k = 0; k < held; k++)
            assert_int_equal(pool.owner[QUIRE_TIER_DEVICE][pool.nodes[nodes[k]].slot[QUIRE_TIER_DEVICE]], nodes[k]);
        for (uint32_t k = 0; k < lost; k++)
            assert_int_equal(pool.owner[QUIRE_TIER_DEVICE][orphans[k]], QUIRE__ORPHAN);
    }
    quire__pool_close(&pool, &quire__allocator_default);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fresh_pool_gives_nodes_and_slots_in_ascending_order),
        cmocka_unit_test(what_is_given_back_tail_first_comes_again_in_ascending_order),
        cmocka_unit_test(a_slot_that_a_move_has_becomes_an_orphan_and_not_free),
        cmocka_unit_test(a_ticket_is_exact_over_four_billion_steps_and_never_earlier_than_the_release),
        cmocka_unit_test(free_slots_that_are_hidden_are_not_given_out_until_shown),
        cmocka_unit_test(a_handle_names_its_block_and_never_a_later_one),
        cmocka_unit_test(an_open_block_has_no_handle_yet),
        cmocka_unit_test(every_slot_counts_as_exactly_one_thing),
        cmocka_unit_test(slots_are_never_lost_nor_given_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
