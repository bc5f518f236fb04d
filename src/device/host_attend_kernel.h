/* host_attend_kernel.h: between host_attend.c, which cuts the work into parts, and host_attend_kernel.inc, which
 * does a part and is compiled once for each instruction set. */
#ifndef QUIRE_HOST_ATTEND_KERNEL_H
#define QUIRE_HOST_ATTEND_KERNEL_H

#include "kernels/launch.h"

enum {
    QUIRE__PART_QUERIES = 64,    /* most (token, query head) pairs of one part */
    QUIRE__HEAD_DIM_MOST = 576,  /* of a latent row; of K and V 512 */
    QUIRE__TILE_KEYS_MOST = 32,
    /* floats of work space a part needs: queries and sums, then a tile of K and V, then the rest */
    QUIRE__SCRATCH_FLOATS = 2 * QUIRE__PART_QUERIES * QUIRE__HEAD_DIM_MOST +
                            2 * QUIRE__TILE_KEYS_MOST * QUIRE__HEAD_DIM_MOST + QUIRE__PART_QUERIES * 64
};

/* Some query heads, all of one kv head, of some consecutive tokens of one row. */
typedef struct quire__attend_part {
    int32_t row, first_token, tokens;
    int32_t first_head, heads; /* tokens * heads <= QUIRE__PART_QUERIES */
} quire__attend_part;

typedef struct quire__host_kernels {
    const char *isa;
    /* scratch: QUIRE__SCRATCH_FLOATS, 64-byte aligned */
    void (*attend)(const quire__attend_args *args, const quire__attend_part *part, float *scratch);
    void (*append)(const quire__append_args *args, int32_t token);
    void (*convert)(const quire__convert_args *args, int32_t pair, int32_t layer);
} quire__host_kernels;

extern const quire__host_kernels quire__host_kernels_baseline;
#if defined(__x86_64__)
extern const quire__host_kernels quire__host_kernels_avx2;
extern const quire__host_kernels quire__host_kernels_avx512;
#endif

#endif
