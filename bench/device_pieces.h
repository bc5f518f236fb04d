/* device_pieces.h: figures of gather and scatter. */
#ifndef BENCH_DEVICE_PIECES_H
#define BENCH_DEVICE_PIECES_H

#include "bytes.h"

void bench_device_pieces(bench_bed *bed);

#endif
