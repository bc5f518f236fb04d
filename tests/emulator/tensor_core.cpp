/* tensor_core.cpp - see tensor_core.h. */
#include "tensor_core.h"

#include "block.h"

#include <cstring>
#include <cuda_fp16.h>

namespace emu {

struct Operands {
    uint32_t a[4];
    uint32_t b[2];
};
static_assert(sizeof(Operands) <= kLaneBytes, "a meeting must carry the operands of mma");

float widen_bf16(uint16_t bits) {
    const uint32_t word = uint32_t(bits) << 16;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

float widen_f16(uint16_t bits) {
    __half_raw raw;
    raw.x = bits;
    return __half2float(__half(raw));
}

/* The two elements of a word, the lower half first. */
static void widen_pair(uint32_t word, Widen widen, float *out) {
    out[0] = widen(uint16_t(word & 0xffff));
    out[1] = widen(uint16_t(word >> 16));
}

/* A lane computes two elements of row g and two of row g + 8, so it needs these rows of A and two columns of B. */
struct Tile {
    float a[2][16]; /* rows g and g + 8 */
    float b[2][16]; /* columns 2t and 2t + 1 */
};

static void read_tile(Tile &tile, const Meeting &meeting, Widen widen) {
    const unsigned g = this_lane() / 4;
    const unsigned t = this_lane() % 4;
    for (unsigned pair = 0; pair < 4; pair++) { /* elements 2 pair and 2 pair + 1, and the same plus 8 */
        Operands theirs;
        read_lane(meeting, g * 4 + pair, &theirs, sizeof theirs);
        for (int row = 0; row < 2; row++) {
            widen_pair(theirs.a[row], widen, &tile.a[row][2 * pair]);
            widen_pair(theirs.a[row + 2], widen, &tile.a[row][2 * pair + 8]);
        }
        for (unsigned column = 0; column < 2; column++) {
            read_lane(meeting, (2 * t + column) * 4 + pair, &theirs, sizeof theirs);
            widen_pair(theirs.b[0], widen, &tile.b[column][2 * pair]);
            widen_pair(theirs.b[1], widen, &tile.b[column][2 * pair + 8]);
        }
    }
}

void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Widen widen, const Place &where) {
    Operands mine;
    memcpy(mine.a, a, sizeof mine.a);
    memcpy(mine.b, b, sizeof mine.b);
    Meeting &meeting = meet(kWholeWarp, &mine, sizeof mine, where);
    Tile tile;
    read_tile(tile, meeting, widen);
    leave(meeting);
    for (int i = 0; i < 4; i++) {
        for (int k = 0; k < 16; k++) {
            d[i] += tile.a[i / 2][k] * tile.b[i % 2][k];
        }
    }
}

EMU_UNCHECKED static void require_legal_row(const void *row, const Place &where) {
    const Block &block = this_block();
    if (reinterpret_cast<uintptr_t>(row) % 16 != 0 || !block.is_shared(row, 16)) {
        block.die("ldmatrix: a row's address is outside shared memory or not a multiple of 16", &where);
    }
}

void ldmatrix_x4(uint32_t (&r)[4], const void *row, bool transposed, const Place &where) {
    require_legal_row(row, where);
    Meeting &meeting = meet(kWholeWarp, &row, sizeof row, where);
    const unsigned g = this_lane() / 4;
    const unsigned t = this_lane() % 4;
    for (unsigned j = 0; j < 4; j++) {
        uint16_t element[2];
        for (unsigned i = 0; i < 2; i++) {
            const unsigned matrix_row = transposed ? 2 * t + i : g;
            const unsigned matrix_column = transposed ? g : 2 * t + i;
            const char *address;
            read_lane(meeting, j * 8 + matrix_row, &address, sizeof address);
            memcpy(&element[i], address + 2 * matrix_column, 2);
        }
        r[j] = uint32_t(element[1]) << 16 | element[0];
    }
    leave(meeting);
}

}  // namespace emu
