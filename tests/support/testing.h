/* testing.h: what every test includes first: cmocka with the headers that it wants, and seeds. */
#ifndef QUIRE_TESTING_H
#define QUIRE_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Why a test cannot run here, then skip. Never returns. */
#define SKIP_BECAUSE(...)                 \
    do {                                  \
        print_message("[  REASON  ] ");   \
        print_message(__VA_ARGS__);       \
        print_message("\n");              \
        skip();                           \
    } while (0)

/* The seed of a random test: QUIRE_TEST_SEED where set, else the test's own; printed, so that a failure can be run
 * again. */
static inline uint64_t test_seed(const char *test, uint64_t standard)
{
    const char *text = getenv("QUIRE_TEST_SEED");
    uint64_t seed = text && text[0] ? strtoull(text, NULL, 0) : 0;
    seed = seed ? seed : standard;
    print_message("%s: QUIRE_TEST_SEED=%llu\n", test, (unsigned long long)seed);
    return seed;
}

/* QUIRE_TEST_SMALL=1 asks for a short run, as under sanitizers. */
static inline bool test_is_small(void)
{
    const char *small = getenv("QUIRE_TEST_SMALL");
    return small && strcmp(small, "1") == 0;
}

/* How many seeds a random test runs: QUIRE_TEST_SEEDS where set, else `standard`, a fifth of it in a short run. */
static inline uint32_t seed_count(uint32_t standard)
{
    const char *text = getenv("QUIRE_TEST_SEEDS");
    if (text && text[0])
        return (uint32_t)strtoul(text, NULL, 10);
    return test_is_small() ? (standard + 4) / 5 : standard;
}

#endif
