/*
 * tensor_core.h - ldmatrix and mma.m16n8k16: what the warp's registers hold, as the PTX manual lays it out.
 *
 * With g = lane / 4 and t = lane % 4, a lane holds pairs of neighbouring elements (two 16-bit values in a word, the
 * lower column or row in the lower half):
 *
 *      A, 16x16, row major      a[0] row g,   columns 2t, 2t+1        a[2] row g,   columns 2t+8, 2t+9
 *                               a[1] row g+8, columns 2t, 2t+1        a[3] row g+8, columns 2t+8, 2t+9
 *      B, 16x8,  column major   b[0] column g, rows 2t, 2t+1          b[1] column g, rows 2t+8, 2t+9
 *      C, D, 16x8, f32          d[0], d[1] row g, columns 2t, 2t+1    d[2], d[3] row g+8, the same columns
 *
 * ldmatrix.x4 loads four 8x8 matrices of 16-bit values: lane i names the address of row i % 8 of matrix i / 8 (16 bytes,
 * aligned to 16, in shared memory), and r[j] of a lane is row g, columns 2t and 2t+1 of matrix j; with .trans, of its
 * transpose.
 *
 * Products are exact and added to the accumulator in order of k. A tensor core adds them in another order and with a few
 * bits less, so a comparison with a GPU needs a tolerance.
 */
#pragma once

#include "warp.h"

#include <cstdint>

namespace emu {

using Widen = float (*)(uint16_t bits);

float widen_bf16(uint16_t bits);
float widen_f16(uint16_t bits);

/* d += a * b; all 32 lanes of the warp call it. */
void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Widen widen, const Place &where);

void ldmatrix_x4(uint32_t (&r)[4], const void *row, bool transposed, const Place &where);

}  // namespace emu
