/* Write-back: what is offloaded ahead of eviction, and what goes then. */
#include "support/served.h"

/* An arena of 40 blocks, a host tier of 100. */
static void open_writing_back(desk *d, const char *policy, uint32_t low, uint32_t high)
{
    quire__book_config config = config_of(policy, 40, 100);
    config.offload = QUIRE_OFFLOAD_WRITE_BACK;
    config.offload_low = low;
    config.offload_high = high;
    open_desk(d, &config);
}

static void look(desk *d, int times)
{
    for (int i = 0; i < times; i++) {
        quire__book_offload_ahead(d->book, false, &d->plan);
        answer(d, true);
    }
}

/* The first victims by the policy, and the host lacks them. */
static void close_as_useless(desk *d, uint32_t seq)
{
    quire_hint last = {.size = sizeof(last), .flags = QUIRE_HINT_NO_REUSE};
    quire__book_seq_hint(d->book, seq, &last);
    quire__book_seq_close(d->book, seq);
}

static void compute_and_close(desk *d, int32_t name, uint32_t blocks)
{
    uint32_t seq = open_seq(d, 0);
    add(d, seq, document(name), blocks);
    quire__book_seq_close(d->book, seq);
}

/* Blocks that a call plans to offload with so many free ones left in an arena of 40, the low watermark being 16. */
static uint32_t planned_with_free(uint32_t unused, bool restoring)
{
    desk d;
    open_writing_back(&d, "lru", 16, 20);
    for (uint32_t i = 0, left = 40 - unused; left > 0; i++) {
        const uint32_t count = left < 12 ? left : 12;
        compute_and_close(&d, (int32_t)i, count);
        left -= count;
    }
    assert_int_equal(d.plan.count, 0);
    quire__book_offload_ahead(d.book, restoring, &d.plan);
    uint32_t planned = d.plan.count;
    answer(&d, true);
    close_desk(&d);
    return planned;
}

static void offloads_wait_for_restores_until_half_the_low_watermark_is_used_up(void **state)
{
    (void)state;
    assert_int_equal(planned_with_free(16, false), 0); /* enough is free */
    assert_int_equal(planned_with_free(15, false), 12); /* five are wanted, and whole paths are taken, parents first */
    assert_int_equal(planned_with_free(8, true), 0);
    assert_int_equal(planned_with_free(7, true), 2); /* an eighth of the low watermark */
    assert_int_equal(planned_with_free(7, false), 16);
}

/* What a close leaves at the cold end after the last look waits there until the host has it: what is secured goes first. */
static void what_is_secured_goes_before_what_has_come_to_the_cold_end_since(void **state)
{
    (void)state;
    desk d;
    open_writing_back(&d, "priority", 16, 20);
    for (int32_t i = 0; i < 3; i++)
        ask(&d, (uint64_t)i, document(i), 9);
    uint32_t seq = open_seq(&d, 0);
    add(&d, seq, document(3), 9);
    look(&d, 3);
    close_as_useless(&d, seq);
    compute_and_close(&d, 4, 12);
    quire_stats stats = stats_of(&d);
    assert_int_equal(stats.evictions_device, 8);
    assert_int_equal(stats.offloads_missed, 0);
    for (int32_t i = 0; i < 4; i++)
        assert_int_equal(cached(&d, 0, i), 9);
    close_desk(&d);
}

/* A look names what goes next; a sequence that only matches, in no step, may pin some of that afterwards. */
static void what_is_pinned_after_the_last_look_stays(void **state)
{
    (void)state;
    desk d;
    open_writing_back(&d, "priority", 16, 20);
    quire_hint pin = {.size = sizeof(pin), .range_count = 1, .ranges = {{.priority = QUIRE_PRIORITY_PIN}}};
    uint32_t seq = open_seq(&d, 0);
    add(&d, seq, document(3), 9);
    for (int32_t i = 0; i < 3; i++)
        ask(&d, (uint64_t)i, document(i), 9);
    look(&d, 3);
    uint32_t reader = open_seq(&d, 0);
    assert_int_equal(match(&d, reader, document(0), 10).tokens, 9);
    quire__book_seq_hint(d.book, reader, &pin);
    quire__book_seq_close(d.book, reader);
    close_as_useless(&d, seq);
    compute_and_close(&d, 4, 8);
    assert_true(stats_of(&d).evictions_device > 0);
    assert_int_equal(probe(&d, 0, document(0), 10).device, 9);
    close_desk(&d);
}

/* An arena full of what runs: when the sequences end, the host has it, so the next ones evict nothing that is on the device
 * only. */
static void what_is_in_use_is_offloaded_when_there_is_nothing_else(void **state)
{
    (void)state;
    desk d;
    open_writing_back(&d, "lru", 8, 16);
    for (int32_t round = 0; round < 3; round++) {
        uint32_t seq[2];
        for (int32_t i = 0; i < 2; i++) {
            seq[i] = open_seq(&d, 0);
            add(&d, seq[i], document(2 * round + i), 18);
        }
        for (int times = 0; times < 6; times++) {
            quire__book_offload_ahead(d.book, false, &d.plan);
            assert_true(d.plan.count <= 8); /* a batch */
            answer(&d, true);
        }
        for (int i = 0; i < 2; i++)
            quire__book_seq_close(d.book, seq[i]);
    }
    assert_true(stats_of(&d).evictions_device > 2 * 18);
    assert_int_equal(stats_of(&d).offloads_missed, 0);
    close_desk(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(offloads_wait_for_restores_until_half_the_low_watermark_is_used_up),
        cmocka_unit_test(what_is_in_use_is_offloaded_when_there_is_nothing_else),
        cmocka_unit_test(what_is_pinned_after_the_last_look_stays),
        cmocka_unit_test(what_is_secured_goes_before_what_has_come_to_the_cold_end_since),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
