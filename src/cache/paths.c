#include "cache/paths.h"

#include "base/status.h"

/* May blocks of this cache be packed? The text says why not. */
static quire_status may_pack(const quire_cache *cache, uint32_t parts, size_t part_bytes, quire__pack_shape *shape)
{
    const quire__layout *layout = &cache->layout;
    int64_t together = layout->kv_stride > 0 ? layout->kv_stride : layout->layer_stride; /* K or V; or a latent row's layer */

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

quire_status quire__paths_choose(quire_cache *cache, uint32_t parts, size_t part_bytes)
{
    quire_options *options = &cache->options;
    bool host = options->host_bytes > 0 && options->offload != QUIRE_OFFLOAD_NONE;
    quire_status status = may_pack(cache, parts, part_bytes, &cache->shape);

    cache->path = QUIRE__PATH_COPY;
    cache->host_slot_bytes = cache->layout.block_bytes;
    if (options->pack == QUIRE_PACK_ON && status != QUIRE_OK)
        return status;
    if (options->pack == QUIRE_PACK_ON && host)
        cache->path = QUIRE__PATH_PACK;
    else if (options->pieces == QUIRE_PIECES_GATHER && host)
        cache->path = QUIRE__PATH_GATHER;
    if (cache->path == QUIRE__PATH_PACK)
        cache->host_slot_bytes = (size_t)cache->shape.packed_bytes;
    options->pack = cache->path == QUIRE__PATH_PACK ? QUIRE_PACK_ON : QUIRE_PACK_OFF;
    options->pieces = cache->path == QUIRE__PATH_GATHER ? QUIRE_PIECES_GATHER : QUIRE_PIECES_COPY;
    return QUIRE_OK;
}
