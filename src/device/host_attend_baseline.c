/* host_attend_baseline.c: host_attend_kernel.inc for what every CPU of the architecture has (x86-64: SSE2; aarch64: NEON). */
#define QUIRE__ISA baseline
#include "device/host_attend_kernel.inc"
