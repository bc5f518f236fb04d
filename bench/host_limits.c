#include "host_limits.h"

#include <string.h>

#include "device/host_attend.h"

enum {
    PIECE = 1 << 20,  /* bytes that a thread reads at a time */
    CHAINS = 12,      /* two units, four or five cycles each */
    ROUNDS = 1 << 17, /* of each chain in a piece */
    PIECES = 32       /* of a thread: as long as the others take */
};

/* ---- reading ----------------------------------------------------------------------------------------------- */

static volatile uint64_t found; /* so that reading is not left out */

static void read_piece(void *arg, size_t index)
{
    const bench_copy *copy = arg;
    size_t at = index * PIECE, left = copy->bytes - at, words = (left < PIECE ? left : PIECE) / sizeof(uint64_t);
    const uint64_t *from = (const uint64_t *)(const void *)((const unsigned char *)copy->from + at);
    uint64_t sums[8] = {0};

    for (size_t i = 0; i + 8 <= words; i += 8)
        for (size_t j = 0; j < 8; j++)
            sums[j] ^= from[i + j];
    for (size_t j = 1; j < 8; j++)
        sums[0] ^= sums[j];
    found = sums[0];
}

void bench_read_body(void *arg)
{
    bench_copy *copy = arg;

    quire__parallel_for(copy->bed->parallel, (copy->bytes + PIECE - 1) / PIECE, read_piece, copy);
}

/* ---- multiply-adds ----------------------------------------------------------------------------------------- */

static volatile float result;

/* A product and a sum in one expression become one instruction where there is one. */
#define MULTIPLY(name, width)                                                                                \
    static void name(void)                                                                                   \
    {                                                                                                        \
        typedef float vector __attribute__((vector_size(4 * (width))));                                      \
        const vector zero = {0}, x = zero + 0.999f, y = zero + 0.001f;                                       \
        vector a = x, b = y, c = x + 1, d = y + 1, e = x + 2, f = y + 2;                                     \
        vector g = x + 3, h = y + 3, i = x + 4, j = y + 4, k = x + 5, l = y + 5;                             \
        for (int round = 0; round < ROUNDS; round++) {                                                       \
            a = a * x + y, b = b * x + y, c = c * x + y, d = d * x + y, e = e * x + y, f = f * x + y;        \
            g = g * x + y, h = h * x + y, i = i * x + y, j = j * x + y, k = k * x + y, l = l * x + y;        \
        }                                                                                                    \
        a = a + b + c + d + e + f + g + h + i + j + k + l;                                                   \
        result = a[0];                                                                                       \
    }

MULTIPLY(multiply_four, 4)
#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) MULTIPLY(multiply_eight, 8)
__attribute__((target("avx512f,fma"))) MULTIPLY(multiply_sixteen, 16)
#endif

/* Floats in a vector of the library's. */
static int width(void)
{
    const char *isa = quire__host_attend_isa();

    return strcmp(isa, "avx512") == 0 ? 16 : strcmp(isa, "avx2") == 0 ? 8 : 4;
}

static void multiply_piece(void *arg, size_t index)
{
    (void)arg, (void)index;
#if defined(__x86_64__)
    if (width() == 16)
        multiply_sixteen();
    else if (width() == 8)
        multiply_eight();
    else
#endif
        multiply_four();
}

void bench_multiply_body(void *arg)
{
    bench_bed *bed = arg;

    quire__parallel_for(bed->parallel, (size_t)PIECES * quire__parallel_threads(bed->parallel), multiply_piece, NULL);
}

double bench_multiply_flops(const bench_bed *bed)
{
    return 2.0 * width() * CHAINS * ROUNDS * PIECES * quire__parallel_threads(bed->parallel);
}
