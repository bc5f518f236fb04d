/* ceilings_link.h: large copies, within the device and across the link to the host. */
#ifndef BENCH_CEILINGS_LINK_H
#define BENCH_CEILINGS_LINK_H

#include "bytes.h"
#include "verdicts.h"

/* On the host: memcpy, reading and writing by 1 to all threads. The verdict is of a GPU's stores to host memory. */
bench_verdict bench_ceilings_link(bench_bed *bed);
/* Random bytes, the same ones again every MiB; `bytes` is a multiple of it. */
void bench_ceilings_fill(bench_bed *bed, void *memory, size_t bytes);

#endif
