/* Blocks between the device and the host: restores, offloads, and what becomes of those that fail or are late. */
#include "support/desk.h"

/* Text 1 (8 tokens) on the host only, text 200 on the device. */
static void open_evicted(desk *d, uint32_t device_slots)
{
    quire__book_config config = small_config(device_slots, 16);
    open_desk(d, &config);
    cache_text(d, 0, text(1), 8);
    cache_text(d, 0, text(200), device_slots * BLOCK);
    assert_int_equal(probe(d, 0, text(1), 9).host, 8);
    assert_int_equal(probe(d, 0, text(1), 9).ready, 0);
}

static void an_evicted_block_comes_back_from_the_host(void **state)
{
    (void)state;
    desk d;
    open_evicted(&d, 4);
    uint32_t seq = open_seq(&d, 0), moving;
    quire_hit hit = match(&d, seq, text(1), 9);
    assert_int_equal(hit.tokens, 8);
    assert_int_equal(hit.host, 8);
    assert_int_equal(hit.ready, 0);
    assert_int_equal(d.plan.count, 2);
    assert_false(quire__book_seq_ready(d.book, seq));
    quire__book_step_begin(d.book, ++d.step);
    assert_int_equal(quire__book_reserve(d.book, seq, text(9), 1, &d.plan, &moving), QUIRE_EAGAIN);
    quire__book_step_end(d.book);
    answer(&d, true);
    assert_true(quire__book_seq_ready(d.book, seq));
    add(&d, seq, text(9), 1);
    assert_int_equal(stats_of(&d).hit_tokens_host, 8);
    close_desk(&d);
}

static void a_restore_waits_for_the_last_step_that_used_its_slot(void **state)
{
    (void)state;
    desk d;
    open_evicted(&d, 4);
    uint64_t used = d.step;
    quire__book_step_begin(d.book, ++d.step);
    quire__book_step_end(d.book);
    match(&d, open_seq(&d, 0), text(1), 9);
    assert_int_equal(d.plan.count, 2);
    assert_int_equal(d.plan.moves[0].ticket, used);
    answer(&d, true);
    close_desk(&d);
}

static void a_failed_restore_is_a_miss_for_all_who_wait_for_it(void **state)
{
    (void)state;
    desk d;
    open_evicted(&d, 4);
    uint32_t one = open_seq(&d, 0), two = open_seq(&d, 0), three;
    match(&d, one, text(1), 9);
    quire_hit hit = match(&d, two, text(1), 9);
    assert_int_equal(hit.host, 8);
    assert_int_equal(d.plan.count, 2);
    assert_int_equal(quire__book_seq_fork(d.book, two, &three), QUIRE_OK);
    quire__book_complete(d.book, &d.plan.moves[0], true);
    quire__book_complete(d.book, &d.plan.moves[1], false);
    d.plan.count = 0;
    const uint32_t waiting[] = {one, two, three};
    for (int i = 0; i < 3; i++) {
        quire_seq_info info;
        assert_true(quire__book_seq_ready(d.book, waiting[i]));
        quire__book_seq_get(d.book, waiting[i], &info);
        assert_int_equal(info.length, 4);
    }
    assert_int_equal(probe(&d, 0, text(1), 9).tokens, 4);
    close_desk(&d);
}

static void a_late_restore_is_given_up_and_its_slots_are_kept_until_it_ends(void **state)
{
    (void)state;
    desk d;
    open_evicted(&d, 4);
    uint32_t seq = open_seq(&d, 0);
    match(&d, seq, text(1), 9);
    uint64_t host_free = stats_of(&d).host_free;
    for (uint32_t i = 0; i < 2; i++)
        quire__book_expire(d.book, &d.plan.moves[i]);
    assert_true(quire__book_seq_ready(d.book, seq));
    quire_seq_info info;
    quire__book_seq_get(d.book, seq, &info);
    assert_int_equal(info.length, 0);
    assert_int_equal(stats_of(&d).device_moving, 2);
    assert_int_equal(stats_of(&d).host_free, host_free);
    answer(&d, true);
    assert_int_equal(stats_of(&d).device_moving, 0);
    assert_int_equal(stats_of(&d).host_free, host_free + 2);
    assert_int_equal(probe(&d, 0, text(1), 9).tokens, 0);
    close_desk(&d);
}

static void a_block_computed_while_its_restore_runs_takes_the_restores_place(void **state)
{
    (void)state;
    desk d;
    open_evicted(&d, 8);
    uint32_t waiting = open_seq(&d, 0), computing = open_seq(&d, 0);
    match(&d, waiting, text(1), 5);
    assert_int_equal(d.plan.count, 1);
    quire__move restore = d.plan.moves[0];
    d.plan.count = 0;
    add(&d, computing, text(1), 4);
    assert_int_equal(d.plan.count, 0); /* the host has it already */
    assert_true(quire__book_seq_ready(d.book, waiting));
    assert_int_equal(slot_of(&d, waiting, 0), slot_of(&d, computing, 0));
    assert_int_not_equal(slot_of(&d, waiting, 0), restore.destination);
    assert_int_equal(stats_of(&d).device_moving, 1);
    quire__book_complete(d.book, &restore, false); /* the host copy is bad; the block is not */
    assert_int_equal(probe(&d, 0, text(1), 6).device, 4);
    assert_int_equal(stats_of(&d).device_moving, 0);
    close_desk(&d);
}

static void a_host_slot_is_read_by_one_restore_at_a_time(void **state)
{
    (void)state;
    desk d;
    open_evicted(&d, 4);
    uint32_t waiting = open_seq(&d, 0), computing = open_seq(&d, 0);
    match(&d, waiting, text(1), 5);
    quire__move restore = d.plan.moves[0];
    d.plan.count = 0;
    add(&d, computing, text(1), 4);
    quire__book_seq_close(d.book, waiting);
    quire__book_seq_close(d.book, computing);
    cache_text(&d, 0, text(300), 12); /* evicts it: now its only bytes are those that the first restore still reads */
    uint32_t seq = open_seq(&d, 0);
    assert_int_equal(match(&d, seq, text(1), 5).tokens, 0);
    quire__book_complete(d.book, &restore, true);
    assert_int_equal(match(&d, seq, text(1), 5).host, 4);
    answer(&d, true);
    close_desk(&d);
}

static void what_an_offload_reads_is_not_evicted_and_full_says_wait(void **state)
{
    (void)state;
    desk d;
    quire__book_config config = small_config(2, 4);
    open_desk(&d, &config);
    uint32_t seq = open_seq(&d, 0), moving = 0;
    add(&d, seq, text(1), 8);
    quire__book_seq_close(d.book, seq);
    assert_int_equal(d.plan.count, 2);
    seq = open_seq(&d, 0);
    quire__book_step_begin(d.book, ++d.step);
    assert_int_equal(quire__book_reserve(d.book, seq, text(100), 1, &d.plan, &moving), QUIRE_EFULL);
    assert_int_equal(moving, 2);
    answer(&d, true);
    assert_int_equal(quire__book_reserve(d.book, seq, text(100), 1, &d.plan, &moving), QUIRE_OK);
    quire__book_cancel(d.book, seq);
    quire__book_step_end(d.book);
    close_desk(&d);
}

static void the_host_never_holds_a_block_without_the_one_before(void **state)
{
    (void)state;
    desk d;
    quire__book_config config = small_config(8, 8);
    open_desk(&d, &config);
    uint32_t seq = open_seq(&d, 0);
    add(&d, seq, text(1), 12);
    assert_int_equal(d.plan.count, 3);
    quire__book_complete(d.book, &d.plan.moves[2], true); /* the last block first */
    quire__book_complete(d.book, &d.plan.moves[0], true);
    assert_int_equal(stats_of(&d).host_cached, 2);
    quire__book_complete(d.book, &d.plan.moves[1], false);
    assert_int_equal(stats_of(&d).host_cached, 1);
    assert_int_equal(stats_of(&d).host_free, 7);
    close_desk(&d);
}

static void what_the_host_missed_is_caught_up_with_at_most_twice_as_fast(void **state)
{
    (void)state;
    desk d;
    quire__book_config config = small_config(16, 16);
    open_desk(&d, &config);
    uint32_t seq = open_seq(&d, 0);
    add(&d, seq, text(1), 12);
    answer(&d, false);
    assert_int_equal(stats_of(&d).host_free, 16);
    add(&d, seq, text(13), 4);
    assert_int_equal(d.plan.count, 2);
    answer(&d, true);
    assert_int_equal(stats_of(&d).host_cached, 2);
    add(&d, seq, text(17), 3); /* nothing sealed */
    assert_int_equal(d.plan.count, 0);
    add(&d, seq, text(20), 5);
    assert_int_equal(d.plan.count, 4);
    answer(&d, true);
    assert_int_equal(stats_of(&d).host_cached, 6);
    close_desk(&d);
}

static void a_block_whose_offload_was_given_up_is_not_read_twice_at_once(void **state)
{
    (void)state;
    desk d;
    quire__book_config config = small_config(16, 16);
    open_desk(&d, &config);
    uint32_t seq = open_seq(&d, 0);
    add(&d, seq, text(1), 4);
    quire__move late = d.plan.moves[0];
    quire__book_expire(d.book, &late);
    d.plan.count = 0;
    add(&d, seq, text(5), 4);
    assert_int_equal(d.plan.count, 0);
    quire__book_complete(d.book, &late, true);
    assert_int_equal(stats_of(&d).host_free, 16);
    add(&d, seq, text(9), 4);
    assert_int_equal(d.plan.count, 2);
    assert_int_equal(d.plan.moves[0].source, slot_of(&d, seq, 0));
    answer(&d, true);
    close_desk(&d);
}

static void a_long_running_sequence_does_not_lose_its_place_in_the_host(void **state)
{
    (void)state;
    desk d;
    quire__book_config config = small_config(16, 4);
    open_desk(&d, &config);
    uint32_t seq = open_seq(&d, 0);
    add(&d, seq, text(1), 8);
    answer(&d, true);
    cache_text(&d, 1, text(100), 8); /* later used, so the running sequence is the oldest in the host */
    assert_int_equal(stats_of(&d).host_free, 0);
    add(&d, seq, text(9), 8);
    assert_int_equal(d.plan.count, 2);
    answer(&d, true);
    quire__book_clear(d.book);
    assert_int_equal(stats_of(&d).host_cached, 4); /* all four are the running sequence's */
    close_desk(&d);
}

static void note_slot(void *arg, uint32_t slot)
{
    uint32_t *seen = arg;
    *seen |= UINT32_C(1) << slot;
}

static void host_slots_with_a_block_are_all_shown(void **state)
{
    (void)state;
    desk d;
    quire__book_config config = small_config(8, 8);
    open_desk(&d, &config);
    uint32_t seq = open_seq(&d, 0), seen = 0, expected = 0;
    add(&d, seq, text(1), 12);
    quire__book_each_host_slot(d.book, note_slot, &seen);
    assert_int_equal(seen, 0);
    for (uint32_t i = 0; i < d.plan.count; i++)
        expected |= UINT32_C(1) << d.plan.moves[i].destination;
    answer(&d, true);
    quire__book_each_host_slot(d.book, note_slot, &seen);
    assert_int_equal(seen, expected);
    close_desk(&d);
}

/* ---- holes --------------------------------------------------------------------------------------------------- */

static void shut(desk *d)
{
    quire__plan_close(&d->plan, &quire__allocator_default);
    quire__book_close(d->book);
}

static void each_hole_drops_the_protection_that_it_names(void **state)
{
    (void)state;
    desk d;
    uint32_t moving, child;
    quire__book_config config = small_config(2, 4);
    open_desk(&d, &config);
    quire__book_set_holes(d.book, QUIRE__BOOK_HOLE_OFFLOAD_SOURCE);
    uint32_t seq = open_seq(&d, 0);
    add(&d, seq, text(1), 8);
    quire__book_seq_close(d.book, seq);
    seq = open_seq(&d, 0);
    quire__book_step_begin(d.book, ++d.step);
    assert_int_equal(quire__book_reserve(d.book, seq, text(100), 1, &d.plan, &moving), QUIRE_OK);
    quire__book_commit(d.book, seq, &d.plan);
    answer(&d, true);
    shut(&d);

    open_evicted(&d, 4);
    quire__book_set_holes(d.book, QUIRE__BOOK_HOLE_ARRIVING | QUIRE__BOOK_HOLE_TICKET);
    seq = open_seq(&d, 0);
    assert_int_equal(match(&d, seq, text(1), 9).ready, 1);
    assert_int_equal(d.plan.moves[0].ticket, 0);
    answer(&d, true);
    shut(&d);

    config = small_config(8, 0);
    open_desk(&d, &config);
    quire__book_set_holes(d.book, QUIRE__BOOK_HOLE_COPY_ON_WRITE);
    seq = open_seq(&d, 0);
    add(&d, seq, text(1), 6);
    assert_int_equal(quire__book_seq_fork(d.book, seq, &child), QUIRE_OK);
    add(&d, child, text(50), 1);
    assert_int_equal(d.plan.count, 0);
    assert_int_equal(slot_of(&d, seq, 1), slot_of(&d, child, 1));
    shut(&d);
}

static void a_host_slot_is_not_given_out_while_a_restore_reads_it(void **state)
{
    (void)state;
    for (int hole = 0; hole < 2; hole++) {
        desk d;
        quire__book_config config = small_config(3, 1);
        open_desk(&d, &config);
        cache_text(&d, 0, text(1), 4);
        uint32_t seq = open_seq(&d, 1);
        d.book->config.offload = QUIRE_OFFLOAD_NONE; /* so that the host's one block stays what it is */
        add(&d, seq, text(100), 12);
        quire__book_seq_close(d.book, seq);
        d.book->config.offload = QUIRE_OFFLOAD_WRITE_THROUGH;
        quire__book_set_holes(d.book, hole ? QUIRE__BOOK_HOLE_RESTORE_SOURCE : QUIRE__BOOK_HOLE_NONE);
        assert_int_equal(match(&d, open_seq(&d, 0), text(1), 5).host, 4);
        add(&d, open_seq(&d, 2), text(200), 4);
        assert_int_equal(d.plan.count, hole ? 2 : 1);
        answer(&d, true);
        shut(&d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_evicted_block_comes_back_from_the_host),
        cmocka_unit_test(a_restore_waits_for_the_last_step_that_used_its_slot),
        cmocka_unit_test(a_failed_restore_is_a_miss_for_all_who_wait_for_it),
        cmocka_unit_test(a_late_restore_is_given_up_and_its_slots_are_kept_until_it_ends),
        cmocka_unit_test(a_block_computed_while_its_restore_runs_takes_the_restores_place),
        cmocka_unit_test(a_host_slot_is_read_by_one_restore_at_a_time),
        cmocka_unit_test(what_an_offload_reads_is_not_evicted_and_full_says_wait),
        cmocka_unit_test(the_host_never_holds_a_block_without_the_one_before),
        cmocka_unit_test(what_the_host_missed_is_caught_up_with_at_most_twice_as_fast),
        cmocka_unit_test(a_block_whose_offload_was_given_up_is_not_read_twice_at_once),
        cmocka_unit_test(a_long_running_sequence_does_not_lose_its_place_in_the_host),
        cmocka_unit_test(host_slots_with_a_block_are_all_shown),
        cmocka_unit_test(each_hole_drops_the_protection_that_it_names),
        cmocka_unit_test(a_host_slot_is_not_given_out_while_a_restore_reads_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
