#include "cache/paths.h"

#include <string.h>

#include "base/calibration.h"
#include "base/log.h"
#include "base/status.h"
#include "move/calibrate.h"

/* May blocks of this cache be packed? The text says why not. */
static quire_status may_pack(const quire_cache *cache, uint32_t parts, size_t part_bytes, quire__pack_shape *shape)
{
    const quire__layout *layout = &cache->layout;
    int64_t together = layout->kv_stride > 0 ? layout->kv_stride : layout->layer_stride; /* K or V; or a latent row's layer */

    if (cache->side_count > 0)
        return quire__fail(QUIRE_EUNSUPPORTED, "pack is on, but the cache has %u groups of layers; only one group packs: leave it "
                           "auto or off", cache->side_count + 1);
    if (layout->dtype != QUIRE_DTYPE_BF16)
        return quire__fail(QUIRE_EUNSUPPORTED, "pack is on, but the cache holds %s; only bf16 packs: leave it auto or off",
                           quire_dtype_name(layout->dtype));
    QUIRE__TRY(quire__pack_shape_make(shape, (int64_t)layout->block_bytes, together));
    if ((uint64_t)shape->packed_bytes >= layout->block_bytes)
        return quire__fail(QUIRE_EUNSUPPORTED, "pack is on, but a block of %zu bytes is too small to gain from it (it would "
                           "take %lld); give it more tokens, or set pack off", layout->block_bytes,
                           (long long)shape->packed_bytes);
    if (parts > 1 && part_bytes % (2 * (size_t)shape->unit_elements) != 0)
        return quire__fail(QUIRE_EUNSUPPORTED, "pack is on with restores in %u parts, but layers of %lld bytes are packed "
                           "together; set restore_parts to 1, or pack off", parts, (long long)layout->layer_stride);
    return QUIRE_OK;
}

/* ---- auto ---------------------------------------------------------------------------------------------------- */

enum { LEAST_BYTES = 16 << 20 }; /* of a host tier, for the milliseconds of a calibration to matter */

/* Measures what is wanted and missing. */
static void measure(quire_cache *cache, quire__calibration *entry, bool gather, bool pack)
{
    size_t block = cache->layout.block_bytes;

    if (entry->copy_ns == 0)
        entry->copy_ns = quire__calibrate_path(cache->device, &cache->allocator, block, QUIRE__PATH_COPY, NULL);
    if (gather && entry->gather_ns == 0)
        entry->gather_ns = quire__calibrate_path(cache->device, &cache->allocator, block, QUIRE__PATH_GATHER, NULL);
    if (pack && entry->pack_ns == 0)
        entry->pack_ns = quire__calibrate_path(cache->device, &cache->allocator, block, QUIRE__PATH_PACK, &cache->shape);
}

/* What is known of blocks like these on this device, or found out now. copy_ns 0: nothing. */
static quire__calibration calibrate(quire_cache *cache, bool gather, bool pack)
{
    quire__calibration entry = {.block_bytes = cache->layout.block_bytes,
                                .unit_elements = pack ? (uint32_t)cache->shape.unit_elements : 0};
    char device[200], path[4096];
    const char *setting = cache->options.calibration;

    quire__device_identity(cache->device, device, sizeof device);
    if (device[0] == '\0' || (setting != NULL && strcmp(setting, "off") == 0))
        return entry;
    bool kept = quire__calibration_path(setting, device, path, sizeof path);
    bool known = kept && quire__calibration_load(path, device, &entry) && (!gather || entry.gather_ns > 0) &&
                 (!pack || entry.pack_ns > 0);
    if (!known) {
        measure(cache, &entry, gather, pack);
        if (kept && entry.copy_ns > 0)
            quire__calibration_store(path, device, &entry);
    }
    const quire__log log = {cache->options.log_level, cache->options.log, cache->options.log_user};
    quire__log_line(&log, QUIRE_LOG_INFO, "a block there and back: copy %.1f us, gather %.1f, pack %.1f (0: not measured); %s",
                    (double)entry.copy_ns / 1e3, (double)entry.gather_ns / 1e3, (double)entry.pack_ns / 1e3,
                    known ? path : "measured now");
    return entry;
}

/* The path that is faster by a margin: packing's is small, for it also makes room. */
static quire__path fastest(const quire__calibration *known, bool gather, bool pack)
{
    if (known->copy_ns == 0)
        return QUIRE__PATH_COPY;
    double copy = (double)known->copy_ns, gathered = gather && known->gather_ns > 0 ? (double)known->gather_ns : copy;
    double unpacked = gathered < 0.9 * copy ? gathered : copy;
    if (pack && known->pack_ns > 0 && (double)known->pack_ns < 0.97 * unpacked)
        return QUIRE__PATH_PACK;
    return unpacked < copy ? QUIRE__PATH_GATHER : QUIRE__PATH_COPY;
}

/* ---- the choice ---------------------------------------------------------------------------------------------- */

static quire__path choose(quire_cache *cache, bool packable)
{
    const quire_options *options = &cache->options;
    quire__path asked = options->pack == QUIRE_PACK_ON               ? QUIRE__PATH_PACK
                        : options->pieces == QUIRE_PIECES_GATHER ? QUIRE__PATH_GATHER
                                                                     : QUIRE__PATH_COPY;
    /* On the host a gather is a copy more. */
    bool gather = options->pieces == QUIRE_PIECES_AUTO && quire__device_is_cuda(cache->device);
    bool pack = options->pack == QUIRE_PACK_AUTO && packable;

    if (options->pack == QUIRE_PACK_ON || (!gather && !pack) || options->host_bytes < LEAST_BYTES)
        return asked;
    quire__calibration known = calibrate(cache, gather || asked == QUIRE__PATH_GATHER, pack);
    quire__path path = fastest(&known, gather || asked == QUIRE__PATH_GATHER, pack);
    return path == QUIRE__PATH_PACK || gather ? path : asked;
}

quire_status quire__paths_choose(quire_cache *cache, uint32_t parts, size_t part_bytes)
{
    quire_options *options = &cache->options;
    bool host = options->host_bytes > 0 && options->offload != QUIRE_OFFLOAD_NONE;
    quire_status status = may_pack(cache, parts, part_bytes, &cache->shape);

    if (options->pack == QUIRE_PACK_ON && status != QUIRE_OK)
        return status;
    cache->path = host && cache->side_count == 0 ? choose(cache, status == QUIRE_OK) : QUIRE__PATH_COPY;
    cache->host_slot_bytes = cache->path == QUIRE__PATH_PACK ? (size_t)cache->shape.packed_bytes : cache->layout.block_bytes;
    options->pack = cache->path == QUIRE__PATH_PACK ? QUIRE_PACK_ON : QUIRE_PACK_OFF;
    options->pieces = cache->path == QUIRE__PATH_GATHER ? QUIRE_PIECES_GATHER : QUIRE_PIECES_COPY;
    options->calibration = ""; /* the caller's text was lent for the call */
    return QUIRE_OK;
}
