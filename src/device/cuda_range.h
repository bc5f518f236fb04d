/* cuda_range.h: address ranges of one GPU whose memory comes and goes. For device_cuda.c only; the device is current. */
#ifndef QUIRE_CUDA_RANGE_H
#define QUIRE_CUDA_RANGE_H

#include <stddef.h>

#include "quire/quire.h"

enum { QUIRE__CUDA_GRANULE = 2 * 1024 * 1024 };

/* As quire__device_reserve and its like say. */
quire_status quire__cuda_range_reserve(int ordinal, size_t bytes, void **memory);
void quire__cuda_range_release(void *memory, size_t bytes);
quire_status quire__cuda_range_map(int ordinal, void *memory, size_t bytes);
quire_status quire__cuda_range_unmap(int ordinal, void *memory, size_t bytes);

#endif
