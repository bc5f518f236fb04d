/* desk.h: a small book and the plan that goes with it, for tests that read like a story. */
#ifndef QUIRE_TESTS_DESK_H
#define QUIRE_TESTS_DESK_H

#include "support/testing.h"

#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "block/state.h"

enum { BLOCK = 4, MOVES = 64, TEXT = 64 };

typedef struct desk {
    quire__book *book;
    quire__plan plan;
    uint64_t step;
} desk;

static inline quire__book_config small_config(uint32_t device_slots, uint32_t host_slots)
{
    return (quire__book_config){
        .block_tokens = BLOCK, .device_slots = device_slots, .host_slots = host_slots, .max_sequences = 8,
        .max_seq_tokens = 64, .max_domains = 4, .event_capacity = 64, .hash_key = 5, .policy = "lru", .offload = QUIRE_OFFLOAD_WRITE_THROUGH,
        .allocator = quire__allocator_default,
    };
}

static inline void open_desk(desk *d, const quire__book_config *config)
{
    *d = (desk){0};
    assert_int_equal(quire__book_open(&d->book, config), QUIRE_OK);
    assert_int_equal(quire__plan_open(&d->plan, &config->allocator, MOVES), QUIRE_OK);
}

static inline void close_desk(desk *d)
{
    assert_int_equal(quire__book_check(d->book), QUIRE_OK);
    quire__plan_close(&d->plan, &quire__allocator_default);
    quire__book_close(d->book);
}

static inline uint32_t open_seq(desk *d, uint64_t domain)
{
    uint32_t seq = QUIRE__NONE;
    assert_int_equal(quire__book_seq_open(d->book, domain, &seq), QUIRE_OK);
    return seq;
}

/* first, first + 1, ...: 64 tokens */
static inline const int32_t *text(int32_t first)
{
    static int32_t tokens[4][TEXT];
    static int turn;
    turn = (turn + 1) % 4;
    for (int32_t i = 0; i < TEXT; i++)
        tokens[turn][i] = first + i;
    return tokens[turn];
}

static inline void add(desk *d, uint32_t seq, const int32_t *tokens, size_t count)
{
    uint32_t moving = 0;
    quire__book_step_begin(d->book, ++d->step);
    assert_int_equal(quire__book_reserve(d->book, seq, tokens, count, &d->plan, &moving), QUIRE_OK);
    quire__book_commit(d->book, seq, &d->plan);
    quire__book_step_end(d->book);
}

/* Answers everything in the plan and empties it. */
static inline void answer(desk *d, bool ok)
{
    for (uint32_t i = 0; i < d->plan.count; i++) {
        if (d->plan.moves[i].type != QUIRE__MOVE_COPY)
            quire__book_complete(d->book, &d->plan.moves[i], ok);
    }
    d->plan.count = 0;
}

static inline quire_hit match(desk *d, uint32_t seq, const int32_t *tokens, size_t count)
{
    quire_hit hit;
    assert_int_equal(quire__book_seq_match(d->book, seq, tokens, count, &d->plan, &hit), QUIRE_OK);
    return hit;
}

static inline quire_hit probe(desk *d, uint64_t domain, const int32_t *tokens, size_t count)
{
    quire_hit hit;
    assert_int_equal(quire__book_probe(d->book, domain, tokens, count, &hit), QUIRE_OK);
    return hit;
}

static inline quire_stats stats_of(desk *d)
{
    quire_stats stats = {0};
    quire__book_stats(d->book, &stats);
    return stats;
}

static inline int32_t slot_of(desk *d, uint32_t seq, uint32_t at)
{
    uint32_t blocks, changed;
    const int32_t *table = quire__book_seq_table(d->book, seq, &blocks, &changed, false);
    assert_true(at < blocks);
    return table[at];
}

/* Computes, caches and offloads a text: afterwards no sequence is open. */
static inline void cache_text(desk *d, uint64_t domain, const int32_t *tokens, size_t count)
{
    uint32_t seq = open_seq(d, domain);
    match(d, seq, tokens, count);
    quire_seq_info info;
    answer(d, true);
    quire__book_seq_get(d->book, seq, &info);
    add(d, seq, tokens + info.length, count - info.length);
    answer(d, true);
    quire__book_seq_close(d->book, seq);
}

#endif
