/* testing.h: what every test includes first: cmocka with the headers that it wants, and seeds. */
#ifndef QUIRE_TESTING_H
#define QUIRE_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

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

#endif
