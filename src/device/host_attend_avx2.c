/* host_attend_avx2.c: host_attend_kernel.inc for x86-64-v3: AVX2 and FMA. Compiled with -march=x86-64-v3. */
#include "device/host_attend_kernel.h"

#if defined(__x86_64__)
#if !defined(__AVX2__)
#error "compile this file with -march=x86-64-v3"
#endif
#define QUIRE__ISA avx2
#include "device/host_attend_kernel.inc"
#endif
