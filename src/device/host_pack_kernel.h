/* host_pack_kernel.h: the three loops over a unit's elements, between host_pack.c, which writes and checks what is
 * around them, and the instruction sets that have a faster one. */
#ifndef QUIRE_HOST_PACK_KERNEL_H
#define QUIRE_HOST_PACK_KERNEL_H

#include <stdint.h>

enum { QUIRE__PACK_NO_CODE = 0x10 }; /* in a table of codes: this exponent has none */

/* `count` is a multiple of 32. No pointer need be aligned. */
typedef struct quire__pack_loops {
    const char *isa;
    /* Fills counts, all zeros before. `scratch`: [count] bytes. */
    void (*count)(const unsigned char *elements, int32_t count, uint32_t counts[256], unsigned char *scratch);
    /* Fills bytes[count], codes[count / 2] and the escapes, and returns how many of those there are. */
    int32_t (*code)(const unsigned char *elements, int32_t count, const uint8_t code_of[256], unsigned char *bytes,
                    unsigned char *codes, unsigned char *escapes);
    void (*decode)(const unsigned char *bytes, const unsigned char *codes, int32_t count, const uint8_t exponents[16],
                   unsigned char *elements);
} quire__pack_loops;

extern const quire__pack_loops quire__pack_loops_baseline;
#if defined(__x86_64__)
extern const quire__pack_loops quire__pack_loops_avx2;
#endif

#endif
