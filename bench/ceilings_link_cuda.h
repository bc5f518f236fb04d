/* ceilings_link_cuda.h: large copies of a GPU. Builds without CUDA leave it out. */
#ifndef BENCH_CEILINGS_LINK_CUDA_H
#define BENCH_CEILINGS_LINK_CUDA_H

#include "bytes.h"
#include "verdicts.h"

bench_verdict bench_ceilings_link_cuda(bench_bed *bed);

#endif
