/* ceilings_batch.h: many pieces at scattered places, in batches. */
#ifndef BENCH_CEILINGS_BATCH_H
#define BENCH_CEILINGS_BATCH_H

#include "bytes.h"
#include "verdicts.h"

/* Pieces of 4 KiB to 8 MiB, 16 to 4096 of them: between a GPU and the host, or within host memory. The verdict is of
 * batches from the host to a GPU. */
bench_verdict bench_ceilings_batch(bench_bed *bed);

#endif
