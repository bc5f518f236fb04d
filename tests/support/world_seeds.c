#include "world_seeds.h"

#include "testing.h"

void add_up(world_result *sum, const world_result *one)
{
    sum->steps += one->steps;
    sum->tokens += one->tokens;
    sum->restored_tokens += one->restored_tokens;
    sum->evictions += one->evictions;
    sum->copies_on_write += one->copies_on_write;
    sum->restore_failures += one->restore_failures;
    sum->offload_failures += one->offload_failures;
    sum->checksum_failures += one->checksum_failures;
    sum->deduplicated += one->deduplicated;
    sum->late += one->late;
    sum->resizes += one->resizes;
    sum->ahead += one->ahead;
    sum->lost += one->lost;
    sum->offloads += one->offloads;
    sum->missed += one->missed;
    sum->declined += one->declined;
    sum->given_back += one->given_back;
    sum->side_restores += one->side_restores;
    sum->side_evictions += one->side_evictions;
    sum->refused += one->refused;
}

static void print(uint64_t first, uint32_t count, const world_result *sum)
{
    print_message("seeds %llu..%llu: %llu steps, %llu tokens, %llu restored, %llu evictions, %llu copies on write, "
                  "%llu deduplicated, failed: %llu offloads, %llu restores, %llu checksums\n",
                  (unsigned long long)first, (unsigned long long)(first + count - 1), (unsigned long long)sum->steps,
                  (unsigned long long)sum->tokens, (unsigned long long)sum->restored_tokens,
                  (unsigned long long)sum->evictions, (unsigned long long)sum->copies_on_write,
                  (unsigned long long)sum->deduplicated, (unsigned long long)sum->offload_failures,
                  (unsigned long long)sum->restore_failures, (unsigned long long)sum->checksum_failures);
    if (sum->given_back + sum->side_restores + sum->side_evictions + sum->refused > 0)
        print_message("beside the first group: %llu given back, %llu restored, %llu evicted; %llu truncations refused\n",
                      (unsigned long long)sum->given_back, (unsigned long long)sum->side_restores,
                      (unsigned long long)sum->side_evictions, (unsigned long long)sum->refused);
    if (sum->resizes + sum->ahead + sum->lost > 0)
        print_message("%llu resizes; %llu rows ran ahead of a restore, %llu steps had rows that lost theirs\n",
                      (unsigned long long)sum->resizes, (unsigned long long)sum->ahead, (unsigned long long)sum->lost);
}

void run_seeds(uint32_t count, world_options (*make)(uint64_t seed), world_trouble trouble,
               world_result *sum)
{
    const uint64_t first = test_seed("worlds", 1);

    memset(sum, 0, sizeof *sum);
    for (uint64_t seed = first; seed < first + count; seed++) {
        world_options options = make(seed);
        world_result result;
        options.fail_copies = options.fail_copies || trouble == FAILING_COPIES;
        options.late_copies = options.late_copies || trouble == LATE_COPIES;
        options.corrupt_host = options.corrupt_host || trouble == CORRUPT_HOST;
        if (!world_run(&options, &result))
            fail_msg("seed %llu: %s", (unsigned long long)seed, result.failure);
        add_up(sum, &result);
    }
    print(first, count, sum);
}
