/* batch_cuda.h: many copies in one call of the driver. Builds without CUDA leave it out. */
#ifndef BENCH_BATCH_CUDA_H
#define BENCH_BATCH_CUDA_H

#include <stdbool.h>
#include <stddef.h>

/* Looks the driver's function up. false: this toolkit (before 12.8) or this driver has none; *why says which. */
bool bench_batch_find(const char **why);
/* Enqueues `count` copies, unordered among themselves; the arrays are read during the call. Dies when it fails. */
void bench_batch_copy(void **to, const void **from, size_t *bytes, size_t count, void *stream);
/* The same, one call each. */
void bench_batch_copy_each(void **to, const void **from, const size_t *bytes, size_t count, void *stream);

#endif
