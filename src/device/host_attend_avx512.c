/* host_attend_avx512.c: host_attend_kernel.inc for x86-64-v4: AVX-512 F, BW, CD, DQ, VL. Compiled with -march=x86-64-v4. */
#include "device/host_attend_kernel.h"

#if defined(__x86_64__)
#if !defined(__AVX512BW__)
#error "compile this file with -march=x86-64-v4"
#endif
#define QUIRE__ISA avx512
#include "device/host_attend_kernel.inc"
#endif
