/* device_host.h: the device that is always there. Memory is malloc, streams are immediate. */
#ifndef QUIRE_DEVICE_HOST_H
#define QUIRE_DEVICE_HOST_H

#include "device/device.h"
#include "device/host_attend.h"

quire_status quire__device_host_open(quire__device **device, const quire__device_config *config);

/* For the sim device too: */

/* Runs a kernel on host memory, before it returns. */
quire_status quire__host_launch(quire__host_attend *attend, quire__kernel kernel, const quire__kernel_args *args);
/* What this process may have: physical memory, or its control group's limit where that is lower. */
uint64_t quire__host_memory_limit(void);
/* Takes the pages behind [memory, memory + bytes) now, rather than one by one when they are first written; what was in them
 * is lost. QUIRE_ENOMEM. */
quire_status quire__host_memory_populate(void *memory, size_t bytes);
/* 256-byte aligned at least, on huge pages where they help; refused where it exceeds the limit. Freed by free(). */
quire_status quire__host_memory_alloc(size_t bytes, void **memory);

#endif
