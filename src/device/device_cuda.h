/* device_cuda.h: one NVIDIA GPU through the CUDA runtime. Only in builds with QUIRE_HAVE_CUDA. */
#ifndef QUIRE_DEVICE_CUDA_H
#define QUIRE_DEVICE_CUDA_H

#include "device/device.h"

quire_status quire__device_cuda_open(quire__device **device, const quire__device_config *config);
/* GPUs that can be used; 0 without a driver. `why` may be NULL; set when there are none. */
int quire__device_cuda_probe(const char **why);

#endif
