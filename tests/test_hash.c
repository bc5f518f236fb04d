/* Quality of the hashes: bounds are about six standard deviations wide, so that a good hash passes with any seed. */
#include "support/testing.h"

#include <math.h>
#include <string.h>

#include "base/hash.h"

static uint64_t bits_of(uint64_t x)
{
    return (uint64_t)__builtin_popcountll(x);
}

static void fill_tokens(uint64_t *random, int32_t *tokens, size_t count)
{
    for (size_t i = 0; i < count; i++)
        tokens[i] = (int32_t)(quire__random(random) % 50000);
}

/* Flips `bit` of the input (key, parent, tokens in this order) and says which bits of the hash changed. */
static uint64_t flipped(uint64_t key, uint64_t parent, int32_t *tokens, size_t count, size_t bit)
{
    const uint64_t before = quire__hash_tokens(key, parent, tokens, count);
    if (bit < 64)
        return before ^ quire__hash_tokens(key ^ (uint64_t)1 << bit, parent, tokens, count);
    if (bit < 128)
        return before ^ quire__hash_tokens(key, parent ^ (uint64_t)1 << (bit - 64), tokens, count);
    int32_t *token = &tokens[(bit - 128) / 32];
    const int32_t mask = (int32_t)((uint32_t)1 << (bit % 32));
    *token ^= mask;
    const uint64_t after = quire__hash_tokens(key, parent, tokens, count);
    *token ^= mask;
    return before ^ after;
}

static void every_input_bit_flips_every_hash_bit_half_of_the_time(void **state)
{
    (void)state;
    enum { TRIALS = 2000 };
    uint64_t random = test_seed("avalanche", 11);
    static const size_t counts[] = {1, 3, 4, 7, 8, 16, 19};
    for (size_t c = 0; c < sizeof(counts) / sizeof(*counts); c++) {
        const size_t count = counts[c];
        for (size_t bit = 0; bit < 128 + 32 * count; bit++) {
            int32_t tokens[32];
            uint32_t changes[64] = {0};
            for (int trial = 0; trial < TRIALS; trial++) {
                fill_tokens(&random, tokens, count);
                const uint64_t key = quire__random(&random), parent = quire__random(&random);
                uint64_t difference = flipped(key, parent, tokens, count, bit);
                assert_int_not_equal(difference, 0);
                for (int i = 0; i < 64; i++)
                    changes[i] += difference >> i & 1;
            }
            for (int i = 0; i < 64; i++)
                assert_in_range(changes[i], TRIALS / 2 - 160, TRIALS / 2 + 160); /* sigma is 22 */
        }
    }
}

/* Chi-square of `counts` against a level distribution, in standard deviations from its mean. */
static double excess(const uint32_t *counts, size_t buckets, double expected)
{
    double sum = 0;
    for (size_t i = 0; i < buckets; i++)
        sum += (counts[i] - expected) * (counts[i] - expected) / expected;
    return (sum - (double)(buckets - 1)) / sqrt(2.0 * (double)(buckets - 1));
}

typedef struct layout {
    const char *name;
    void (*make)(uint64_t i, uint64_t *parent, int32_t *tokens);
} layout;

static void counting_first(uint64_t i, uint64_t *parent, int32_t *tokens)
{
    *parent = 0;
    tokens[0] = (int32_t)i;
}

static void counting_last(uint64_t i, uint64_t *parent, int32_t *tokens)
{
    *parent = 0;
    tokens[15] = (int32_t)i;
}

static void counting_parents(uint64_t i, uint64_t *parent, int32_t *tokens)
{
    (void)tokens;
    *parent = i;
}

static void small_digits(uint64_t i, uint64_t *parent, int32_t *tokens)
{
    *parent = 0;
    for (size_t t = 0; t < 16; t++, i /= 3)
        tokens[t] = (int32_t)(i % 3);
}

static void high_bits(uint64_t i, uint64_t *parent, int32_t *tokens)
{
    *parent = (i >> 12) << 52;
    tokens[3] = (int32_t)((uint32_t)i << 20);
}

static const layout layouts[] = {{"first token counts", counting_first},
                                 {"last token counts", counting_last},
                                 {"parents count", counting_parents},
                                 {"tokens of 0, 1, 2", small_digits},
                                 {"high bits only", high_bits}};

static void regular_prompts_spread_evenly_over_high_and_low_bits(void **state)
{
    (void)state;
    enum { BUCKETS = 1 << 14, KEYS = 1 << 18 };
    uint64_t random = test_seed("distribution", 12);
    uint32_t *low = calloc(BUCKETS, sizeof(*low)), *high = calloc(BUCKETS, sizeof(*high));
    assert_true(low && high);
    for (size_t l = 0; l < sizeof(layouts) / sizeof(*layouts); l++) {
        const uint64_t key = quire__random(&random);
        memset(low, 0, BUCKETS * sizeof(*low));
        memset(high, 0, BUCKETS * sizeof(*high));
        for (uint64_t i = 0; i < KEYS; i++) {
            int32_t tokens[16] = {0};
            uint64_t parent = 0;
            layouts[l].make(i, &parent, tokens);
            const uint64_t hash = quire__hash_tokens(key, parent, tokens, 16);
            low[hash % BUCKETS]++;
            high[hash >> 50]++;
        }
        if (fabs(excess(low, BUCKETS, (double)KEYS / BUCKETS)) > 6 ||
            fabs(excess(high, BUCKETS, (double)KEYS / BUCKETS)) > 6)
            fail_msg("%s: low bits %.1f sigma, high bits %.1f sigma from level", layouts[l].name,
                     excess(low, BUCKETS, (double)KEYS / BUCKETS), excess(high, BUCKETS, (double)KEYS / BUCKETS));
    }
    free(low);
    free(high);
}

static void another_key_is_another_hash(void **state)
{
    (void)state;
    uint64_t random = test_seed("keys", 13), agreeing = 0;
    int32_t tokens[16];
    for (int i = 0; i < 10000; i++) {
        fill_tokens(&random, tokens, 16);
        const uint64_t key = quire__random(&random);
        agreeing += 64 - bits_of(quire__hash_tokens(key, 1, tokens, 16) ^ quire__hash_tokens(key + 1, 1, tokens, 16));
    }
    assert_in_range(agreeing, 320000 - 2400, 320000 + 2400); /* sigma is 400 */
}

static void prompts_that_differ_in_length_order_or_zeros_differ(void **state)
{
    (void)state;
    const int32_t zeros[40] = {0};
    for (size_t a = 0; a < 40; a++) {
        for (size_t b = 0; b < a; b++)
            assert_int_not_equal(quire__hash_tokens(5, 0, zeros, a), quire__hash_tokens(5, 0, zeros, b));
    }
    for (size_t a = 0; a < 16; a++) {
        for (size_t b = 0; b < a; b++) {
            int32_t here[16] = {0}, there[16] = {0};
            here[a] = there[b] = 77;
            assert_int_not_equal(quire__hash_tokens(5, 0, here, 16), quire__hash_tokens(5, 0, there, 16));
        }
    }
}

/* ---- checksum ---------------------------------------------------------------------------------------------- */

static unsigned char *random_bytes(uint64_t *random, size_t count)
{
    unsigned char *bytes = malloc(count + 1);
    assert_non_null(bytes);
    for (size_t i = 0; i < count; i++)
        bytes[i] = (unsigned char)quire__random(random);
    return bytes;
}

static void a_flipped_bit_anywhere_is_found(void **state)
{
    (void)state;
    uint64_t random = test_seed("bits", 14);
    static const size_t counts[] = {1, 7, 8, 63, 64, 65, 511, 1024};
    for (size_t c = 0; c < sizeof(counts) / sizeof(*counts); c++) {
        unsigned char *bytes = random_bytes(&random, counts[c]);
        const uint64_t good = quire__checksum(bytes, counts[c]);
        uint64_t changed = 0;
        for (size_t bit = 0; bit < counts[c] * 8; bit++) {
            bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
            const uint64_t bad = quire__checksum(bytes, counts[c]);
            bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
            assert_int_not_equal(good, bad);
            changed += bits_of(good ^ bad);
        }
        const double mean = (double)changed / (double)(counts[c] * 8);
        assert_true(fabs(mean - 32) < 6 * 4 / sqrt((double)(counts[c] * 8)));
        free(bytes);
    }
}

static void damage_within_a_word_swaps_and_shifts_are_found(void **state)
{
    (void)state;
    enum { BYTES = 4096 };
    uint64_t random = test_seed("damage", 15);
    unsigned char *bytes = random_bytes(&random, BYTES), *bad = malloc(BYTES);
    assert_non_null(bad);
    const uint64_t good = quire__checksum(bytes, BYTES);
    for (int trial = 0; trial < 20000; trial++) {
        memcpy(bad, bytes, BYTES);
        const size_t a = quire__random(&random) % (BYTES / 8) * 8, b = quire__random(&random) % (BYTES / 8) * 8;
        const uint64_t word = quire__random(&random);
        switch (trial % 4) {
        case 0: memcpy(bad + a, &word, 8); break;
        case 1: memset(bad + a, 0, 8); break;
        case 2: memcpy(bad + a, bytes + b, 8), memcpy(bad + b, bytes + a, 8); break;
        default: memmove(bad + a, bytes + a + 1, BYTES - a - 1); break;
        }
        assert_true(memcmp(bad, bytes, BYTES) == 0 || quire__checksum(bad, BYTES) != good);
    }
    free(bad);
    free(bytes);
}

static void bytes_of_zero_differ_by_their_number(void **state)
{
    (void)state;
    enum { MOST = 300 };
    static const unsigned char zeros[MOST];
    uint64_t sums[MOST];
    for (size_t a = 0; a < MOST; a++) {
        sums[a] = quire__checksum(zeros, a);
        for (size_t b = 0; b < a; b++)
            assert_int_not_equal(sums[a], sums[b]);
    }
}

static void the_place_in_memory_does_not_matter(void **state)
{
    (void)state;
    uint64_t random = test_seed("place", 16);
    unsigned char *bytes = random_bytes(&random, 1000), moved[1100];
    for (size_t shift = 0; shift < 64; shift++) {
        memcpy(moved + shift, bytes, 1000);
        assert_int_equal(quire__checksum(moved + shift, 1000), quire__checksum(bytes, 1000));
    }
    free(bytes);
}

/* Frozen values: what one machine stores another must read, whatever its compiler and vector units. */
static void values_are_the_same_on_every_machine(void **state)
{
    (void)state;
    unsigned char bytes[1000];
    int32_t tokens[16];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (unsigned char)(i * 7 + 1);
    for (int32_t i = 0; i < 16; i++)
        tokens[i] = i * 1000 - 3;
    uint64_t random = 1;
    assert_int_equal(quire__random(&random), UINT64_C(0x910a2dec89025cc1));
    assert_int_equal(quire__checksum(bytes, 1000), UINT64_C(0x2b93f47a75df9409));
    assert_int_equal(quire__checksum(bytes, 0), UINT64_C(0x4760aa55d7fdd0df));
    assert_int_equal(quire__hash_tokens(1, 2, tokens, 16), UINT64_C(0x6de9de4a15dc1621));
    assert_int_equal(quire__hash_tokens(1, 2, tokens, 5), UINT64_C(0x3a95e855150e585a));
}

static void random_keys_differ_and_are_never_zero(void **state)
{
    (void)state;
    const uint64_t first = quire__random_key(), second = quire__random_key();
    assert_true(first != 0 && second != 0 && first != second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_input_bit_flips_every_hash_bit_half_of_the_time),
        cmocka_unit_test(regular_prompts_spread_evenly_over_high_and_low_bits),
        cmocka_unit_test(another_key_is_another_hash),
        cmocka_unit_test(prompts_that_differ_in_length_order_or_zeros_differ),
        cmocka_unit_test(a_flipped_bit_anywhere_is_found),
        cmocka_unit_test(damage_within_a_word_swaps_and_shifts_are_found),
        cmocka_unit_test(bytes_of_zero_differ_by_their_number),
        cmocka_unit_test(the_place_in_memory_does_not_matter),
        cmocka_unit_test(values_are_the_same_on_every_machine),
        cmocka_unit_test(random_keys_differ_and_are_never_zero),
    };
    return cmocka_run_group_tests_name("hash", tests, NULL, NULL);
}
