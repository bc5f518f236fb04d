/* host_pack.h: lossless packing of bf16 pages on the CPU; the format is in kernels/launch.h. The scalar twins of the
 * kernels, and the vectorised, threaded versions that the host device runs. */
#ifndef QUIRE_HOST_PACK_H
#define QUIRE_HOST_PACK_H

#include "device/parallel.h"
#include "kernels/launch.h"

/* How pages of one geometry are cut. */
typedef struct quire__pack_shape {
    int32_t unit_elements, units, slot_bytes; /* of a page */
    int64_t packed_bytes;                     /* of a page: units * slot_bytes */
} quire__pack_shape;

/* `part_bytes`: what of a page belongs together, K or V of a layer; units do not mix parts where a part is large enough
 * to be one; else the page is cut evenly. A slot is 78 % of a unit. QUIRE_EINVAL: page_bytes is no multiple of 64. */
quire_status quire__pack_shape_make(quire__pack_shape *shape, int64_t page_bytes, int64_t part_bytes);

/* One element at a time. */
void quire__host_pack(const quire__pack_args *args);
void quire__host_unpack(const quire__pack_args *args);

/* The same bytes, faster. QUIRE_EINVAL: what the kernels refuse. */
quire_status quire__host_pack_run(quire__parallel *parallel, const quire__pack_args *args);
quire_status quire__host_unpack_run(quire__parallel *parallel, const quire__pack_args *args);
/* "avx2" or "baseline": what the two run on this CPU. */
const char *quire__host_pack_isa(void);

#endif
