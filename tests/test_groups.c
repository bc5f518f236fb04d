/* Groups of layers beside the first, end to end on the sim device: the random server of support/world with a window, a
 * recurrent state and latent rows beside plain layers, every byte of every group checked under hundreds of schedules; and
 * each fence of the new moves removed in turn, until some seed sees wrong bytes. */
#include "support/testing.h"

#include "cache/cache.h"
#include "support/fences.h"
#include "support/world_seeds.h"

/* Small enough that eviction, offload and restore happen all the time, in every group. */
static world_options world_of(uint64_t seed)
{
    static const uint32_t block_tokens[] = {4, 1, 8, 16, 2}, windows[] = {9, 1, 24, 5, 40, 16, 3};
    static const uint32_t device_tokens[] = {150, 250, 80, 110}, host_tokens[] = {100, 600, 300, 60};
    uint32_t tokens = block_tokens[seed % 5];

    return (world_options){.seed = seed,
                           .block_tokens = tokens,
                           .device_blocks = device_tokens[seed % 4] / tokens + 4,
                           .host_blocks = host_tokens[seed % 4] / tokens + 2,
                           .operations = 150,
                           .window = seed % 3 == 1 ? 0 : windows[seed % 7],
                           .rollback = (uint32_t)(seed % 4) * 3,
                           .state = seed % 3 != 0,
                           .latent = seed % 6 == 2,
                           .two_streams = true};
}

static void every_byte_of_every_group_is_the_byte_written_for_its_token(void **state)
{
    world_result sum;

    (void)state;
    run_seeds(seed_count(60), world_of, NO_TROUBLE, &sum);
    assert_true(sum.restored_tokens > 0 && sum.copies_on_write > 0 && sum.deduplicated > 0 && sum.given_back > 0 &&
                sum.side_restores > 0 && sum.side_evictions > 0 && sum.refused > 0);
}

static void a_failed_copy_of_any_group_is_a_miss_and_never_wrong_data(void **state)
{
    world_result sum;

    (void)state;
    run_seeds(seed_count(20), world_of, FAILING_COPIES, &sum);
    assert_true(sum.restore_failures > 0 && sum.offload_failures > 0);
}

static void a_late_copy_of_any_group_is_a_miss_and_never_wrong_data(void **state)
{
    world_result sum;

    (void)state;
    run_seeds(seed_count(20), world_of, LATE_COPIES, &sum);
    assert_true(sum.late > 0);
}

static void a_corrupt_host_block_of_any_group_is_a_miss_and_never_wrong_data(void **state)
{
    world_result sum;

    (void)state;
    run_seeds(seed_count(20), world_of, CORRUPT_HOST, &sum);
    assert_true(sum.checksum_failures > 0);
}

static world_options writing_back(uint64_t seed)
{
    static const char *const policies[] = {"lru", "learned", "s3fifo", "priority", "slru"};
    world_options options = world_of(seed);
    options.offload = seed % 3 == 0 ? QUIRE_OFFLOAD_SELECTIVE : QUIRE_OFFLOAD_WRITE_BACK;
    options.policy = policies[seed / 3 % 5];
    options.fail_copies = seed % 4 == 0;
    options.late_copies = seed % 4 == 1;
    options.corrupt_host = seed % 4 == 2;
    return options;
}

static void every_byte_is_right_under_write_back_and_selective_too(void **state)
{
    world_result sum;

    (void)state;
    run_seeds(seed_count(20), writing_back, NO_TROUBLE, &sum);
    print_message("%llu offloads, %llu blocks evicted before, %llu not worth it\n", (unsigned long long)sum.offloads,
                  (unsigned long long)sum.missed, (unsigned long long)sum.declined);
    assert_true(sum.restored_tokens > 0 && sum.side_restores > 0 && sum.offloads > 0 && sum.missed > 0);
}

/* ---- removed fences ---------------------------------------------------------------------------------------- */

/* Where a host tier is full of what comes back, its slots are given out again all the time. */
static world_options with_a_crowded_host(uint64_t seed)
{
    world_options options = world_of(seed);
    options.block_tokens = 1 + (seed % 2);
    options.device_blocks = 100 / options.block_tokens;
    options.host_blocks = (30 + 10 * (uint32_t)(seed % 3)) / options.block_tokens;
    options.window = 8;
    options.rollback = 0;
    options.state = options.latent = false;
    options.operations = 250;
    return options;
}

enum { MOST_SEEDS = 400 };

#define FENCE(name, text, hole, make)                                                           \
    static void removing_##name##_is_seen(void **state)                                         \
    {                                                                                           \
        (void)state;                                                                            \
        some_seed_must_fail(make, MOST_SEEDS, (missing_fence){.fence = text, .book_holes = hole}); \
    }

FENCE(a_side_offloads_hold, "the hold of a side block's offload on its slot", QUIRE__BOOK_HOLE_SIDE_OFFLOAD_SOURCE, world_of)
FENCE(a_side_restores_hold, "the hold of a side block's restore on its host slot", QUIRE__BOOK_HOLE_SIDE_RESTORE_SOURCE,
      with_a_crowded_host)
FENCE(the_wait_for_side_blocks, "the wait for an arriving side block", QUIRE__BOOK_HOLE_SIDE_ARRIVING, world_of)
FENCE(a_side_slots_ticket, "a side slot's ticket", QUIRE__BOOK_HOLE_SIDE_TICKET, world_of)
FENCE(copy_on_write_of_side_blocks, "copy-on-write of side blocks", QUIRE__BOOK_HOLE_SIDE_COPY, world_of)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_of_every_group_is_the_byte_written_for_its_token),
        cmocka_unit_test(a_failed_copy_of_any_group_is_a_miss_and_never_wrong_data),
        cmocka_unit_test(a_late_copy_of_any_group_is_a_miss_and_never_wrong_data),
        cmocka_unit_test(a_corrupt_host_block_of_any_group_is_a_miss_and_never_wrong_data),
        cmocka_unit_test(every_byte_is_right_under_write_back_and_selective_too),
        cmocka_unit_test(removing_a_side_offloads_hold_is_seen),
        cmocka_unit_test(removing_a_side_restores_hold_is_seen),
        cmocka_unit_test(removing_the_wait_for_side_blocks_is_seen),
        cmocka_unit_test(removing_a_side_slots_ticket_is_seen),
        cmocka_unit_test(removing_copy_on_write_of_side_blocks_is_seen),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
