/* host_ops.h: the scalar twin of every kernel. Plain loops, no vector code, no threads: the oracle that the CUDA
 * kernels, the emulated kernels and the vectorised host kernels are tested against. Same structs as kernels/launch.h,
 * with host pointers. Attention accumulates in double and rounds once. */
#ifndef QUIRE_HOST_OPS_H
#define QUIRE_HOST_OPS_H

#include "device/host_formats.h"
#include "kernels/launch.h"

/* Turns head_dim values of the token: each product and sum rounds, so that every version gives the same bits. */
void quire__rope_turn(const quire__rope *rope, int64_t token, float *values);
void quire__host_append(const quire__append_args *args);
void quire__host_convert(const quire__convert_args *args);
void quire__host_block_copy(const quire__block_copy_args *args);
void quire__host_gather(const quire__pieces_args *args);
void quire__host_scatter(const quire__pieces_args *args);
void quire__host_table(const quire__table_args *args);
void quire__host_attend_decode(const quire__attend_args *args);
void quire__host_attend_prefill(const quire__attend_args *args);

#endif
