/* layout.h: the geometry of a block, from the options.
 *
 *   block   [layer][K,V][kv_head], one contiguous page of all layers; of a head: rows [token][head_dim], then, in formats
 *           that have them, scales [token][head_dim / scale_group] up to a multiple of 16 bytes
 *
 * A latent group (value_dim > 0) has one row a token instead: [layer][token][head_dim]. A group with a state (state_bytes > 0)
 * has one for each layer and block: [layer][state_bytes].
 *
 * One piece a block is what copies, eviction and transfers want; attention kernels take the strides. */
#ifndef QUIRE_LAYOUT_H
#define QUIRE_LAYOUT_H

#include "quire/quire.h"

typedef struct quire__layout {
    quire_dtype dtype;
    uint32_t layers, kv_heads, head_dim, query_heads, block_tokens;
    int64_t token_stride, head_stride, kv_stride, layer_stride; /* bytes */
    int64_t scale_offset, scale_stride;                         /* bytes; scale_stride 0: no scales in the block */
    uint32_t scale_group, rotation, value_dim;                  /* see quire_view */
    uint32_t window, state_bytes;                               /* the same */
    size_t block_bytes;                                         /* a multiple of 256 */
} quire__layout;

/* QUIRE_EINVAL, QUIRE_EUNSUPPORTED: the text says which field of the group and what would be right. */
quire_status quire__layout_make(quire__layout *layout, const quire_options *options, uint32_t group);

#endif
