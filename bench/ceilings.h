/* ceilings.h: what the machine's memory and links reach, and the claims that Quire's design rests on. */
#ifndef BENCH_CEILINGS_H
#define BENCH_CEILINGS_H

#include "kit.h"

void bench_ceilings(const bench_options *options);

#endif
