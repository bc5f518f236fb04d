/* host_copy.h: copies of blocks and pieces, shared by threads; the same bytes as the twins in host_ops.h. */
#ifndef QUIRE_HOST_COPY_H
#define QUIRE_HOST_COPY_H

#include "device/parallel.h"
#include "kernels/launch.h"

void quire__host_block_copy_run(quire__parallel *parallel, const quire__block_copy_args *args);
void quire__host_gather_run(quire__parallel *parallel, const quire__pieces_args *args);
void quire__host_scatter_run(quire__parallel *parallel, const quire__pieces_args *args);

#endif
