/* served.h: requests one after another through a book whose blocks are a token: a request is a path, served at once. */
#ifndef QUIRE_TESTS_SERVED_H
#define QUIRE_TESTS_SERVED_H

#include "support/desk.h"

enum { LONGEST = 48 };

static inline quire__book_config config_of(const char *policy, uint32_t device_slots, uint32_t host_slots)
{
    return (quire__book_config){
        .block_tokens = 1, .device_slots = device_slots, .host_slots = host_slots, .max_sequences = 4,
        .max_seq_tokens = 64, .max_domains = 4, .hash_key = 5, .policy = policy,
        .offload = host_slots > 0 ? QUIRE_OFFLOAD_WRITE_THROUGH : QUIRE_OFFLOAD_NONE,
        .pin_blocks = device_slots / 4, .allocator = quire__allocator_default,
    };
}

/* Serves a prompt at a time and returns how many of its blocks were found. */
static inline uint32_t ask_as(desk *d, uint64_t now, uint64_t domain, const int32_t *path, uint32_t count,
                       const quire_hint *hint)
{
    int32_t prompt[LONGEST + 1];
    memcpy(prompt, path, count * sizeof(*path));
    prompt[count] = -1; /* left to compute, and never computed */
    quire__book_set_time(d->book, now);
    uint32_t seq = open_seq(d, domain);
    uint32_t found = (uint32_t)match(d, seq, prompt, count + 1).tokens;
    answer(d, true);
    assert_true(quire__book_seq_ready(d->book, seq));
    if (found < count)
        add(d, seq, path + found, count - found);
    answer(d, true);
    quire__book_offload_ahead(d->book, now % 5 == 0, &d->plan);
    answer(d, true);
    if (hint)
        quire__book_seq_hint(d->book, seq, hint);
    quire__book_seq_close(d->book, seq);
    return found;
}

static inline uint32_t ask(desk *d, uint64_t now, const int32_t *path, uint32_t count)
{
    return ask_as(d, now, 0, path, count, NULL);
}

static inline const int32_t *document(int32_t name)
{
    static int32_t tokens[4][LONGEST];
    static int turn;
    turn = (turn + 1) % 4;
    for (int32_t i = 0; i < LONGEST; i++)
        tokens[turn][i] = name * 1000 + i;
    return tokens[turn];
}

static inline size_t cached(desk *d, uint64_t domain, int32_t name)
{
    return probe(d, domain, document(name), 11).tokens; /* of the first ten */
}

#endif
