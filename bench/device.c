#include "device.h"

#include <string.h>

#include "bytes.h"
#include "device_attend.h"
#include "device_convert.h"
#include "device_copy.h"
#include "device_interfere.h"
#include "device_latent.h"
#include "device_open.h"
#include "device_pack.h"
#include "device_prefill.h"
#include "device_shared.h"
#include "device_tiers.h"

static const struct part {
    const char *name;
    void (*run)(bench_bed *bed);
} parts[] = {
    {"attend", bench_device_attend},
    {"prefill", bench_device_prefill},
    {"shared", bench_device_shared},
    {"latent", bench_device_latent},
    {"copy", bench_device_copy},
    {"convert", bench_device_convert},
    {"pack", bench_device_pack},
    {"open", bench_device_open},
    {"tiers", bench_device_tiers},
    {"interfere", bench_device_interfere},
};

/* Is this part among those asked for? */
static bool wanted(const char *only, const char *name)
{
    size_t length = strlen(name);

    if (only == NULL)
        return true;
    for (const char *at = only; (at = strstr(at, name)) != NULL; at += length)
        if ((at == only || at[-1] == ',') && (at[length] == ',' || at[length] == '\0'))
            return true;
    return false;
}

static void check_parts(const char *only)
{
    for (const char *at = only; at != NULL && *at != '\0'; at += strcspn(at, ","), at += *at == ',') {
        bool known = false;
        for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
            known |= strlen(parts[i].name) == strcspn(at, ",") &&
                     strncmp(at, parts[i].name, strlen(parts[i].name)) == 0;
        if (!known)
            bench_die("--only has no part '%.*s'; the parts are attend, prefill, shared, latent, copy, convert, "
                      "pack, open, tiers and interfere",
                      (int)strcspn(at, ","), at);
    }
}

void bench_device(const bench_options *options)
{
    bench_bed bed;

    check_parts(options->only);

    bench_bed_open(&bed, options);
    bench_bed_report_open(&bed, "quire-bench device");
    bench_report_setting(bed.report, "deterministic", "%d", bed.cache.deterministic);
    bench_report_setting(bed.report, "checksum",
                         bed.cache.checksum == QUIRE_CHECKSUM_RESTORE ? "of every block in the host tier" : "off");
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (wanted(options->only, parts[i].name))
            parts[i].run(&bed);
    bench_report_note(bed.report, "GB/s count what an operation must read and write; offload and restore count what "
                                  "crosses to the host. Calls go round all layers; what all of them touch may still "
                                  "fit a CPU's or GPU's cache where the batch is small.");
    bench_report_note(bed.report, "The limit is one large copy%s, in turn with the figure.",
                      bench_bed_on_gpu(&bed) ? " by the device" : " shared by all threads");
    bench_report_close(bed.report, options->json);
    bench_bed_close(&bed);
}
