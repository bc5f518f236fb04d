#include "core.h"

#include "core_match.h"
#include "core_steps.h"
#include "core_threads.h"

enum { DEFAULT_TOKENS = 16 };

static const uint64_t arenas[] = {10 << 10, 1 << 20, 16 << 20};
static const uint32_t sizes[] = {1, 8, 16, 32, 64, 128};

/* Bookkeeping of the largest arenas, tokens included, leaves no room on small machines. */
static bool fits(uint64_t blocks, uint32_t block_tokens)
{
    return blocks * (block_tokens * sizeof(int32_t) + 128) < bench_memory() / 2;
}

static void run_world(const bench_options *options, bench_report *report, uint64_t blocks, uint32_t block_tokens)
{
    static bench_world world;
    char count[16];

    if (!fits(blocks, block_tokens)) {
        bench_report_note(report, "%s blocks of %u tokens: left out, they do not fit this machine's memory",
                          bench_count(count, sizeof count, blocks), block_tokens);
        return;
    }
    bench_world_open(&world, options, report, blocks, block_tokens);
    bench_core_take(&world);
    bench_world_fill(&world);
    bench_core_evict(&world);
    bench_core_match(&world);
    bench_core_decode(&world);
    bench_core_memory(&world);
    bench_world_close(&world);
}

static bool chosen(const bench_options *options, uint64_t blocks, uint32_t block_tokens)
{
    if (options->blocks > 0 && options->blocks != blocks)
        return false;
    if (options->block_tokens > 0)
        return options->block_tokens == block_tokens;
    if (options->full || options->blocks > 0)
        return options->full || block_tokens == DEFAULT_TOKENS;
    return block_tokens == DEFAULT_TOKENS || blocks == 1 << 20;
}

void bench_core(const bench_options *options)
{
    bench_report *report = bench_report_open("quire-bench core", "host");
    quire_options defaults;

    bench_report_setting(report, "KV", "1 layer, 1 kv head of 8 elements; none is computed");
    bench_report_setting(report, "offload", "off");
    bench_must(quire_options_init(&defaults, sizeof defaults));
    bench_report_setting(report, "policy", "%s (QUIRE_POLICY)", defaults.policy);
    for (size_t a = 0; !options->threads && a < sizeof arenas / sizeof arenas[0]; a++)
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
            if (chosen(options, arenas[a], sizes[s]))
                run_world(options, report, arenas[a], sizes[s]);
    if (options->threads || options->blocks + options->block_tokens == 0)
        bench_core_threads(options, report);
    bench_report_note(report, "A long prompt has 128k tokens, or four fifths of the arena where that is less. A limit is "
                              "the time to compare or to copy the same bytes once, in turn with the figure.");
    bench_report_note(report, "Of each operation the least of its repetitions counts; median, 99th percentile and worst "
                              "are over the operations, so what interrupts the program is not in them.");
    bench_report_note(report,
                      "hot: the same prompt again, its blocks held by nobody; shared: held by another sequence. "
                      "cold: after a walk over memory %u times the last-level cache.",
                      BENCH_FLUSH_FACTOR);
    bench_report_note(report, "of 256 requests: the prompt grew by so many, with other requests' blocks in between.");
    bench_report_note(report, "chained hash: a hash a block, chained, and a table; it compares no tokens and counts "
                              "no references.");
    bench_report_close(report, options->json);
}
