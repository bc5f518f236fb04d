/* pack_data.h: elements that packing must bring back, from the likely to the hostile. */
#ifndef QUIRE_TESTS_PACK_DATA_H
#define QUIRE_TESTS_PACK_DATA_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    PACK_DATA_ZEROS,
    PACK_DATA_NORMAL,   /* one scale: what most heads look like */
    PACK_DATA_SCALES,   /* a scale for each of 64 channels, over 2^8 */
    PACK_DATA_OUTLIERS, /* and now and then infinity, NaN with a payload, a denormal, zeros of both signs */
    PACK_DATA_EVERY,    /* all 65,536 patterns in turn, in runs of 4: with many escapes */
    PACK_DATA_LONELY,   /* every pattern once in a sea of one value */
    PACK_DATA_NOISE,    /* random bits: nothing can be saved */
    PACK_DATA_KINDS
};

/* May not fit a slot of 78 %. */
static inline int pack_data_is_noise(int kind)
{
    return kind == PACK_DATA_EVERY || kind == PACK_DATA_NOISE;
}

static inline uint64_t pack_data_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static inline uint16_t pack_data_value(uint64_t *seed, double scale)
{
    double sum = -6; /* twelve uniform numbers are nearly normal */
    uint32_t bits;
    for (int i = 0; i < 12; i++)
        sum += (double)(pack_data_next(seed) >> 11) * 0x1p-53;
    const float value = (float)(sum * scale);
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)(bits >> 16);
}

static inline uint16_t pack_data_element(int kind, size_t i, uint64_t *seed)
{
    static const uint16_t odd[] = {0x7f80, 0xff80, 0x7f81, 0xffff, 0x7fc0, 0x0001, 0x8001, 0x007f, 0x0000, 0x8000};
    const uint64_t random = pack_data_next(seed);
    switch (kind) {
    case PACK_DATA_ZEROS:
        return 0;
    case PACK_DATA_NORMAL:
        return pack_data_value(seed, 1);
    case PACK_DATA_SCALES:
        return pack_data_value(seed, ldexp(1, (int)(i % 64 * 5 % 9) - 4));
    case PACK_DATA_OUTLIERS:
        return random % 512 == 0 ? odd[random / 512 % 10] : pack_data_value(seed, 1);
    case PACK_DATA_EVERY:
        return (uint16_t)(i / 4);
    case PACK_DATA_LONELY:
        return i % 512 == 0 ? (uint16_t)(i / 512 * 257 + random) : 0x3f80;
    default:
        return (uint16_t)random;
    }
}

static inline void pack_data_fill(int kind, unsigned char *to, size_t elements, uint64_t *seed)
{
    for (size_t i = 0; i < elements; i++) {
        const uint16_t element = pack_data_element(kind, i, seed);
        memcpy(to + 2 * i, &element, sizeof element);
    }
}

#endif
