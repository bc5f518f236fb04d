#include "core.h"

#include "core_match.h"
#include "core_steps.h"
#include "report.h"

void bench_core(const bench_options *options)
{
    bench_report *report = bench_report_open("quire-bench core", "host");
    quire_options defaults;

    bench_must(quire_options_init(&defaults, sizeof defaults));
    bench_report_setting(report, "block", "%u tokens; 1 layer, 1 kv head of 8 elements; no KV is computed",
                         defaults.block_tokens);
    bench_report_setting(report, "offload", "off");
    bench_report_setting(report, "tree", "%llu tokens", (unsigned long long)options->tree_tokens);
    bench_core_match(options, report);
    bench_core_steps(options, report);
    bench_report_note(report, "Blocks are tiny, so that the times are of bookkeeping alone. A limit is the time to "
                              "compare or to copy the same bytes once, measured in turn with the figure.");
    bench_report_note(report,
                      "hot: the same prompt again, its blocks held by nobody; shared: held by another sequence. "
                      "cold: a random prompt of the tree, after a walk over memory %u times the last-level cache.",
                      BENCH_FLUSH_FACTOR);
    bench_report_note(report, "chained hash: a hash a block, chained, and a table; it compares no tokens and counts "
                              "no references.");
    bench_report_close(report, options->json);
}
