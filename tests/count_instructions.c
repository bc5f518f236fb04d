/* The hot operations of the deciding half under a policy, each in a function of its own, for check_instructions to count.
 *
 *     count_instructions POLICY
 *
 * The comparison is the one that every x86-64 has, so that the count does not depend on the CPU at hand. */
#include <stdio.h>
#include <stdlib.h>

#include "base/hash.h"
#include "block/book.h"

enum { BLOCK = 16, BLOCKS = 1024, LENGTH = BLOCK * BLOCKS, SHORT = 64, ROUNDS = 8, LEARNT = 48, BETWEEN_US = 20000 };

typedef struct bench {
    quire__book *book;
    quire__plan plan;
    uint64_t seed, step, now;
    int32_t tokens[LENGTH + 1];
    uint32_t seq, other, shorts[SHORT];
} bench;

static void must(quire_status status)
{
    if (status != QUIRE_OK) {
        fprintf(stderr, "%s\n", quire_error_text());
        exit(1);
    }
}

#define OPERATION __attribute__((noinline, noclone)) static void

OPERATION operation_match_cached(bench *b)
{
    quire_hit hit;
    must(quire__book_seq_match(b->book, b->seq, b->tokens, LENGTH + 1, &b->plan, &hit));
    if (hit.tokens != LENGTH)
        exit(2);
}

OPERATION operation_match_shared(bench *b)
{
    quire_hit hit;
    must(quire__book_seq_match(b->book, b->other, b->tokens, LENGTH + 1, &b->plan, &hit));
    if (hit.tokens != LENGTH)
        exit(2);
}

OPERATION operation_miss(bench *b)
{
    quire_hit hit;
    b->tokens[0] ^= 1 << 30;
    must(quire__book_seq_match(b->book, b->other, b->tokens, LENGTH + 1, &b->plan, &hit));
    b->tokens[0] ^= 1 << 30;
    if (hit.tokens != 0)
        exit(2);
}

OPERATION operation_fork(bench *b)
{
    must(quire__book_seq_fork(b->book, b->seq, &b->other));
}

OPERATION operation_close_shared(bench *b)
{
    quire__book_seq_close(b->book, b->other);
}

OPERATION operation_close(bench *b)
{
    quire__book_seq_close(b->book, b->seq);
}

OPERATION operation_reserve_free(bench *b)
{
    uint32_t moving;
    must(quire__book_reserve(b->book, b->seq, b->tokens, LENGTH, &b->plan, &moving));
}

OPERATION operation_reserve_evicting(bench *b)
{
    uint32_t moving;
    must(quire__book_reserve(b->book, b->seq, b->tokens, LENGTH, &b->plan, &moving));
}

OPERATION operation_commit(bench *b)
{
    quire__book_commit(b->book, b->seq, &b->plan);
}

OPERATION operation_decode(bench *b)
{
    uint32_t moving;
    quire__book_step_begin(b->book, ++b->step);
    for (int i = 0; i < SHORT; i++)
        must(quire__book_reserve(b->book, b->shorts[i], b->tokens + i, 1, &b->plan, &moving));
    for (int i = 0; i < SHORT; i++)
        quire__book_commit(b->book, b->shorts[i], &b->plan);
    quire__book_step_end(b->book);
}

OPERATION operation_roll_back(bench *b)
{
    quire_seq_info info;
    for (int i = 0; i < SHORT; i++) {
        quire__book_seq_get(b->book, b->shorts[i], &info);
        must(quire__book_seq_truncate(b->book, b->shorts[i], info.length - 4));
    }
}

/* Policies that learn have something to do when time has passed. */
static void pass_time(bench *b)
{
    b->now += BETWEEN_US;
    quire__book_set_time(b->book, b->now);
}

static void grow(bench *b, void (*reserve)(bench *b))
{
    for (int i = 0; i <= LENGTH; i++)
        b->tokens[i] = (int32_t)(quire__random(&b->seed) % 128000);
    must(quire__book_seq_open(b->book, 0, &b->seq));
    quire__book_step_begin(b->book, ++b->step);
    reserve(b);
    operation_commit(b);
    quire__book_step_end(b->book);
    pass_time(b);
    operation_close(b);
}

/* Not counted: at first a policy that learns does more than later, which would hide what the rest costs. */
static void learn(bench *b)
{
    for (int i = 0; i < LEARNT; i++) {
        uint32_t moving;
        for (int k = 0; k <= LENGTH; k++)
            b->tokens[k] = (int32_t)(quire__random(&b->seed) % 128000);
        must(quire__book_seq_open(b->book, 0, &b->seq));
        quire__book_step_begin(b->book, ++b->step);
        must(quire__book_reserve(b->book, b->seq, b->tokens, LENGTH, &b->plan, &moving));
        quire__book_commit(b->book, b->seq, &b->plan);
        quire__book_step_end(b->book);
        pass_time(b);
        quire__book_seq_close(b->book, b->seq);
    }
    quire__book_clear(b->book);
}

static void use(bench *b)
{
    must(quire__book_seq_open(b->book, 0, &b->seq));
    pass_time(b);
    operation_match_cached(b);
    must(quire__book_seq_open(b->book, 0, &b->other));
    operation_match_shared(b);
    operation_close_shared(b);
    operation_fork(b);
    operation_close_shared(b);
    must(quire__book_seq_open(b->book, 0, &b->other));
    operation_miss(b);
    operation_close_shared(b);
    pass_time(b);
    operation_close(b);
}

int main(int argc, char **argv)
{
    static bench b = {.seed = 1};
    if (argc != 2) {
        fprintf(stderr, "usage: count_instructions POLICY\n");
        return 2;
    }
    quire__book_config config = {.block_tokens = BLOCK,
                                 .device_slots = ROUNDS * BLOCKS,
                                 .max_sequences = SHORT + 2,
                                 .max_seq_tokens = LENGTH + BLOCK,
                                 .max_domains = 2,
                                 .hash_key = 1,
                                 .policy = argv[1],
                                 .allocator = quire__allocator_default};
    quire__walk_plain(true);
    must(quire__book_open(&b.book, &config));
    must(quire__plan_open(&b.plan, &quire__allocator_default, SHORT));
    learn(&b);
    for (int i = 0; i < ROUNDS; i++)
        grow(&b, operation_reserve_free);
    for (int i = 0; i < ROUNDS; i++) {
        grow(&b, operation_reserve_evicting);
        use(&b);
    }
    for (int i = 0; i < SHORT; i++)
        must(quire__book_seq_open(b.book, 1, &b.shorts[i]));
    for (int i = 0; i < ROUNDS * BLOCK; i++)
        operation_decode(&b);
    pass_time(&b);
    operation_roll_back(&b);
    quire__plan_close(&b.plan, &quire__allocator_default);
    quire__book_close(b.book);
    return 0;
}
