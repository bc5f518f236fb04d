/* backend_host.h: the forward pass on the CPU. */
#ifndef INFER_BACKEND_HOST_H
#define INFER_BACKEND_HOST_H

#include "backend.h"

/* `threads` 0: one a core. */
int backend_host_open(backend **out, unsigned threads, infer_error *error);

/* "avx512", "avx2", "baseline": the kernels that the CPU at hand selected. */
const char *backend_host_isa(const backend *backend);

/* A quire_parallel_fn whose user is the backend, so that the cache's kernels and ours share one pool. */
void backend_host_parallel(void *user, size_t count, void (*body)(void *arg, size_t index), void *arg);

#endif
