/* ceilings_pages.h: what a page of all layers costs attention. */
#ifndef BENCH_CEILINGS_PAGES_H
#define BENCH_CEILINGS_PAGES_H

#include "bytes.h"
#include "verdicts.h"

/* Decode attention over one arena laid out in two ways. */
bench_verdict bench_ceilings_pages(bench_bed *bed);

#endif
