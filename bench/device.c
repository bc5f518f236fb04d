#include "device.h"

#include "bytes.h"
#include "device_attend.h"
#include "device_copy.h"
#include "device_latent.h"
#include "device_pack.h"
#include "device_pieces.h"
#include "device_tiers.h"

void bench_device(const bench_options *options)
{
    bench_bed bed;

    bench_bed_open(&bed, options);
    bench_bed_report_open(&bed, "quire-bench device");
    bench_report_setting(bed.report, "deterministic", "%d", bed.cache.deterministic);
    bench_report_setting(bed.report, "checksum",
                         bed.cache.checksum == QUIRE_CHECKSUM_RESTORE ? "of every block in the host tier" : "off");
    bench_device_attend(&bed);
    bench_device_latent(&bed);
    bench_device_copy(&bed);
    bench_device_pack(&bed);
    bench_device_pieces(&bed);
    bench_device_tiers(&bed);
    bench_report_note(bed.report, "GB/s count what an operation must read and write; offload and restore count what "
                                  "crosses to the host. Calls go round all layers; what all of them touch may still "
                                  "fit a CPU's or GPU's cache where the batch is small.");
    bench_report_note(bed.report, "The limit is one large copy%s, in turn with the figure.",
                      bench_bed_on_gpu(&bed) ? " by the device" : " shared by all threads");
    bench_report_close(bed.report, options->json);
    bench_bed_close(&bed);
}
