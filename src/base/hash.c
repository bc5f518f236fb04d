/* hash.c: a keyed hash of tokens, a checksum of bytes, a generator.
 *
 * Tokens. Four tokens make two 64-bit words; the words go through a folded multiply (the two halves of the 128-bit
 * product, xored), which spreads every input bit over the whole result in one step. Two chains run side by side, so
 * that 16 tokens wait for two multiplies, not four. The key enters both operands of every multiply: who does not know
 * it cannot make an operand zero, which is the one weak spot of a folded multiply.
 *
 * Checksum. Eight lanes; word i belongs to lane i mod 8. A lane's step, rotate((lane ^ word) * odd), is a bijection of
 * the lane for any word and of the word for any lane, and so are the steps that fold the lanes together. Hence damage
 * that stays within one aligned word is always found, wherever it is; any other damage is missed with a chance of about
 * 2^-64. Lanes depend on nothing but themselves, so the multiplier stays busy: a word a cycle.
 *
 * Both give the same value on every machine: words are little-endian by definition.
 */
#include "base/hash.h"

#include <string.h>
#include <sys/random.h>
#include <time.h>

__extension__ typedef unsigned __int128 wide;

enum { LANES = 8, WORD = 8, ROUND = LANES * WORD };

/* Odd, with about half of the bits set: the first digits of the fractions of sqrt 2, 3, 5, 7, last bit forced. */
static const uint64_t MIX_A = 0x6a09e667f3bcc909u;
static const uint64_t MIX_B = 0xbb67ae8584caa73bu;
static const uint64_t MIX_C = 0x3c6ef372fe94f82bu;
static const uint64_t MIX_D = 0xa54ff53a5f1d36f1u;

static inline uint64_t fold(uint64_t a, uint64_t b)
{
    wide product = (wide)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t rotate(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

/* Bijective, every input bit reaches every output bit: Stafford's 13th variant of the splitmix finaliser. */
static inline uint64_t finish(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static inline uint64_t token_pair(const int32_t *tokens)
{
    return (uint64_t)(uint32_t)tokens[0] | (uint64_t)(uint32_t)tokens[1] << 32;
}

uint64_t quire__hash_tokens(uint64_t key, uint64_t parent, const int32_t *tokens, size_t count)
{
    const uint64_t left = key ^ MIX_A;
    const uint64_t right = rotate(key, 32) ^ MIX_B;
    uint64_t even = parent ^ MIX_C, odd = rotate(parent, 29) + count;
    size_t i = 0;

    for (; i + 8 <= count; i += 8) {
        even = fold(token_pair(tokens + i) ^ left, token_pair(tokens + i + 2) ^ right ^ even);
        odd = fold(token_pair(tokens + i + 4) ^ right, token_pair(tokens + i + 6) ^ left ^ odd);
    }
    if (i < count) {
        int32_t rest[8] = {0}; /* `count` is in the state: zeros that fill up are not tokens that are zero */
        memcpy(rest, tokens + i, (count - i) * sizeof(*tokens));
        even = fold(token_pair(rest) ^ left, token_pair(rest + 2) ^ right ^ even);
        odd = fold(token_pair(rest + 4) ^ right, token_pair(rest + 6) ^ left ^ odd);
    }
    return fold(even ^ left, odd ^ MIX_D) ^ finish(even + rotate(odd, 21));
}

static inline uint64_t load_word(const unsigned char *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof(word));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

static inline uint64_t step(uint64_t lane, uint64_t word)
{
    return rotate((lane ^ word) * MIX_B, 29);
}

uint64_t quire__checksum(const void *bytes, size_t count)
{
    const unsigned char *at = bytes;
    uint64_t lanes[LANES];
    for (size_t i = 0; i < LANES; i++)
        lanes[i] = MIX_A * (2 * i + 1);

    size_t left = count;
    for (; left >= ROUND; left -= ROUND, at += ROUND) {
        for (size_t i = 0; i < LANES; i++)
            lanes[i] = step(lanes[i], load_word(at + i * WORD));
    }
    if (left > 0) {
        unsigned char rest[ROUND] = {0};
        memcpy(rest, at, left);
        for (size_t i = 0; i < LANES; i++)
            lanes[i] = step(lanes[i], load_word(rest + i * WORD));
    }

    uint64_t sum = finish(count ^ MIX_D);
    for (size_t i = 0; i < LANES; i++)
        sum = finish(sum ^ lanes[i]) + MIX_C;
    return sum;
}

uint64_t quire__random(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15u;
    return finish(*state);
}

uint64_t quire__random_key(void)
{
    uint64_t key = 0;
    if (getrandom(&key, sizeof(key), 0) != (ssize_t)sizeof(key)) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        key = (uint64_t)now.tv_sec << 30 ^ (uint64_t)now.tv_nsec ^ (uint64_t)(uintptr_t)&key;
        key = finish(key);
    }
    return key ? key : 1;
}
