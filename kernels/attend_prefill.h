/* attend_prefill.h: prefill by dtype, in attend_prefill_*.cu, and the grid that all of it has. */
#ifndef QUIRE_KERNELS_ATTEND_PREFILL_H
#define QUIRE_KERNELS_ATTEND_PREFILL_H

#include "attend.cuh"

namespace qk
{

quire_status prefill_f32(const quire__attend_args &args, void *stream);
quire_status prefill_f16(const quire__attend_args &args, void *stream);
quire_status prefill_bf16(const quire__attend_args &args, void *stream);
quire_status prefill_fp8(const quire__attend_args &args, void *stream);
quire_status prefill_fp8_e5m2(const quire__attend_args &args, void *stream);
quire_status prefill_int8(const quire__attend_args &args, void *stream);
quire_status prefill_int4(const quire__attend_args &args, void *stream);
/* The same for a q that needs two operands (query_terms): files of their own, for compilers to work side by side. Codes
 * of 8 and 4 bits do without: what one f16 loses of q is far below what they lose of K. */
quire_status prefill_f16_twice(const quire__attend_args &args, void *stream);
quire_status prefill_bf16_twice(const quire__attend_args &args, void *stream);

/* x is the tile, y the kv head, z `rows` query rows of the tile. */
inline dim3 prefill_grid(const quire__attend_args &args, int rows)
{
    const int most = QUIRE__PREFILL_TILE * (args.query_heads / args.pages.kv_heads);
    return dim3(static_cast<unsigned>(args.count), static_cast<unsigned>(args.pages.kv_heads),
                static_cast<unsigned>((most + rows - 1) / rows));
}

} /* namespace qk */

#endif
