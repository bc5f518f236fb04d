#include "ceilings.h"

#include "bytes.h"
#include "ceilings_batch.h"
#include "ceilings_link.h"
#include "ceilings_pages.h"
#include "verdicts.h"

static void report_verdict(bench_bed *bed, const char *name, const bench_verdict *verdict)
{
    if (verdict->known)
        bench_report_note(bed->report, "verdict, %s: %s", name, verdict->text);
}

void bench_ceilings(const bench_options *options)
{
    bench_bed bed;

    bench_bed_open(&bed, options);
    bench_bed_report_open(&bed, "quire-bench ceilings");
    bench_verdict stores = bench_ceilings_link(&bed);
    bench_verdict batches = bench_ceilings_batch(&bed);
    bench_verdict pages = bench_ceilings_pages(&bed);
    bench_report_note(bed.report, "GB/s within the device and within host memory count bytes read and bytes written; "
                                  "between the two they count once.");
    if (bench_bed_on_gpu(&bed)) {
        report_verdict(&bed, "stores", &stores);
        report_verdict(&bed, "batches", &batches);
        report_verdict(&bed, "pages", &pages);
    } else {
        bench_report_note(bed.report, "The verdicts on a GPU's stores, batches and pages need a GPU: "
                                      "QUIRE_DEVICE=cuda:0.");
    }
    bench_report_close(bed.report, options->json);
    bench_bed_close(&bed);
}
