/* host_formats.h: what K and V are in a page: elements, rows, scales. Scalar, and the definition: every other writer and
 * reader of a page (kernels/formats.cuh, host_simd.h) is tested to agree with this one, codes bit for bit.
 *
 * A row is the K or the V of one token and kv head: head_dim codes side by side, then bytes of no meaning up to
 * token_stride. The scales of a head's tokens follow its rows (quire__pages.scale_offset).
 *
 *   format             code                                         value                  bytes at head_dim 128
 *   f32 f16 bf16       the number                                   code                   512  256  256
 *   fp8, fp8_e5m2      8-bit float, saturating; K rotated (below)   code * scale           128 (+ 2)
 *   int8               -127..127, two's complement                  code * scale           128 + 2
 *   int4               0..15; K rotated (below)                     (code - zero) * step    64 + 16
 *
 * The scale of fp8 is the caller's, one a layer, K/V and kv head, or, where he gives none, one a token like int8's. A
 * token's scales are f16, made from the values alone:
 *
 *   fp8                one a row            s = f16(max |x| / 448)              448: the largest e4m3, and exact in e5m2
 *   int8               one a row            s = f16(max |x| / 127)
 *
 * with products for the quotients, s limited to +-65504, and code = round(x * (1 / s)) to nearest even, limited to the
 * codes there are. A scale of 0 gives the codes of 0. NaN counts for no maximum, and has the code of 0 (fp8: of NaN).
 *
 * fp8 with its own scales has the one of eight, s above and s of 2^(1/8), 2^(2/8) .. 2^(7/8) times the quotient, whose codes
 * are nearest, by the sum of the squares of |x * (1 / s) - code|, each rounded to a 64th and limited to 32, times s * s; of
 * equals the first. What an 8-bit float loses depends on where its large values lie between powers of 2.
 *
 * int4 has a word of 32 bits for each run of 32 elements, four groups of 8 (absent elements count as zeros):
 *
 *   bits 0..7          unit     a float of 5 bits of exponent and 3 of mantissa, no sign: an f16 less its last 7 bits
 *   bits 8 + 2 g..     part     of group g, 0..3: its step is unit * (8 - part) / 8
 *   bits 16 + 4 g..    zero     of group g: its code that stands for 0
 *
 * A group's range is its most less its least, 0 among them. unit is f16(range / 15.5) of the widest group, rounded up and
 * limited to 61440. Of the four parts a group has the one whose values lie nearest to the given ones, by the sum of
 * squares in f32, element 0 first; of equals the lowest. Its zero is round(7.5 - middle / step), its codes are
 * round(x / step) + zero, both limited to 0..15, with products by 1 / unit times 1, 8/7, 4/3 or 8/5 for the quotients.
 * Codes less zero, steps and their products are exact in f16. NaN counts as 0.
 *
 * K of int4, and of fp8 with its own scales, is rotated before it is quantised: in runs of `rotation` dims (the largest
 * power of two that divides head_dim) by the Hadamard matrix in Sylvester's order over its square root. That is
 * orthonormal and its own inverse, so attention rotates q the same way and scores are what they were; channels of large
 * values, which K has, are spread over all dims (Ashkboos et al., QuaRot, 2024). V has no such channels.
 *
 * Element i of an int4 row is in the 32-bit little-endian word i / 8, at bits 4 * (i % 8 / 2) + 16 * (i % 2): even
 * elements below, odd ones above, so that a shift and a mask give pairs of neighbours as the halves of a word. */
#ifndef QUIRE_HOST_FORMATS_H
#define QUIRE_HOST_FORMATS_H

#include <stdbool.h>

#include "kernels/launch.h"

enum { QUIRE__INT4_RUN = 32, QUIRE__INT4_GROUP = 8, QUIRE__INT4_GROUPS = QUIRE__INT4_RUN / QUIRE__INT4_GROUP };

/* ---- elements: not int4 ---------------------------------------------------------------------------------------- */

float quire__dtype_load(quire_dtype dtype, const void *element);        /* the code's number, without a scale */
void quire__dtype_store(quire_dtype dtype, void *element, float value); /* rounds to nearest even; fp8, int8 saturate */
size_t quire__dtype_bytes(quire_dtype dtype);                           /* int4: 0 */

/* ---- rows ------------------------------------------------------------------------------------------------------ */

typedef struct quire__format {
    int32_t row_bytes;   /* of a token: head_dim codes; of 8 bits and less, up to a multiple of 16 */
    int32_t scale_bytes; /* of a token; 0: no scales in the page */
    int32_t scale_group; /* elements that share one scale, int4: one word; of the last ones there may be fewer */
    int32_t rotation;    /* of K, in dims; 0: none */
} quire__format;

/* `given_scales`: fp8 with the caller's scales. */
quire__format quire__format_of(quire_dtype dtype, int32_t head_dim, bool given_scales);
/* Sets what the format decides: rows of a head one behind the other, then its scales up to a multiple of 16 bytes. */
void quire__pages_set_format(quire__pages *pages, quire__format format);

/* Where the row of a token is, and its scales (which 0: K, 1: V). */
unsigned char *quire__page_row(const quire__pages *pages, int64_t block, int32_t layer, int which, int32_t head,
                               int64_t offset);
unsigned char *quire__page_row_scales(const quire__pages *pages, int64_t block, int32_t layer, int which, int32_t head,
                                      int64_t offset);
/* head_dim values to a row, and back: what the cache stands for, K of int4 rotated. `values` may be changed. */
void quire__row_encode(const quire__pages *pages, int which, int32_t head, float *values, unsigned char *row,
                       unsigned char *scales);
void quire__row_decode(const quire__pages *pages, int which, int32_t head, const unsigned char *row,
                       const unsigned char *scales, float *values);

/* A scale as a page holds it. */
uint16_t quire__scale_half(float scale);

/* What fp8 tries for a scale, by what the largest magnitude asks for. */
enum { QUIRE__FP8_SCALES = 8 };
extern const float quire__fp8_factors[QUIRE__FP8_SCALES];

/* Multiplies every run of `block` (a power of two) of the `dims` values with the Hadamard matrix over its root. Sums in
 * the order of the butterflies, distance 1 first: the same bits everywhere. */
void quire__rotate(float *values, int32_t dims, int32_t block);

#endif
