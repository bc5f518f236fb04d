/* backend_cuda.h: the forward pass on an NVIDIA GPU: cuBLAS for matrix products, our own small kernels for the rest. */
#ifndef INFER_BACKEND_CUDA_H
#define INFER_BACKEND_CUDA_H

#include "backend.h"

/* deterministic: matrix products in tiles of one fixed shape, so that a token's bits do not depend on the batch.
 * Fails where there is no such GPU. */
int backend_cuda_open(backend **out, int device, bool deterministic, infer_error *error);

#endif
