/* naive_book.h: what the deciding half should decide, said as plainly as can be: one struct a block, flat lists, every
 * question answered by looking at all of them. No reference counts (sequences are searched), no hash (prompts are
 * compared), no links (a tier's eviction order is an array), no free lists (slots are counted).
 *
 * It predicts results, moves, events and statistics exactly. It does not predict slot numbers: those it is told. */
#ifndef QUIRE_TESTS_NAIVE_BOOK_H
#define QUIRE_TESTS_NAIVE_BOOK_H

#include <stdbool.h>

#include "block/book.h"

enum {
    NAIVE_BLOCKS = 512,
    NAIVE_SEQUENCES = 16,
    NAIVE_TOKENS = 16,     /* of a block, at most */
    NAIVE_LENGTH = 64,     /* blocks of a sequence, at most */
    NAIVE_MOVES = 512,
    NAIVE_EVENTS = 2048,
    NAIVE_DOMAINS = 8,
    NAIVE_NONE = -1
};

typedef enum naive_place { NAIVE_NOWHERE, NAIVE_ARRIVING, NAIVE_RESIDENT } naive_place;
typedef enum naive_kind { NAIVE_GONE, NAIVE_OPEN, NAIVE_SEALED, NAIVE_DEAD } naive_kind;

typedef struct naive_block {
    naive_kind kind;
    int parent;
    uint64_t domain;
    int32_t tokens[NAIVE_TOKENS];
    naive_place place[2];
    uint32_t slot[2]; /* as the caller learned it */
    uint64_t born;    /* when it was sealed */
    uint64_t let_go;  /* the step then */
    quire_block handle;
} naive_block;

typedef struct naive_seq {
    bool open;
    uint64_t domain;
    int blocks[NAIVE_LENGTH], count;
    uint32_t length, matched, pending;
    int kept, source;
} naive_seq;

/* In flight. side[tier]: the block whose slot the move has there, or NAIVE_NONE when it has lost it. */
typedef struct naive_move {
    quire__move_type type;
    int side[2];
} naive_move;

typedef struct naive_event {
    quire_event_type type;
    quire_tier tier;
    int block, above; /* and its parent */
    /* as of the event, for a block that was removed: it may be gone when the event is read */
    quire_block handle, parent;
    uint64_t domain;
    uint32_t first_token;
} naive_event;

typedef struct naive_book {
    quire__book_config config;
    naive_block block[NAIVE_BLOCKS];
    naive_seq seq[NAIVE_SEQUENCES];
    int order[2][NAIVE_BLOCKS], ordered[2]; /* the first goes first */
    naive_move move[NAIVE_MOVES];
    int moves;
    naive_event event[NAIVE_EVENTS];
    int events;
    int planned[NAIVE_MOVES], plans; /* blocks of the moves that the last call asked for */
    uint64_t clock;                  /* of births and idleness */
    struct {
        uint64_t domain, since;
    } idle[NAIVE_DOMAINS];
    int idles;
    quire_stats stats;
    uint64_t secured, secured_at, looked_at; /* of write-back: blocks found ready to go, and when */
    int cold[NAIVE_BLOCKS], colds, cold_next; /* what the last look named, and which of them goes next */
    uint64_t cold_step;                       /* and the step then */
    uint64_t step;                            /* the last that began, as the caller says */
} naive_book;

void naive_open(naive_book *book, const quire__book_config *config);

/* False: QUIRE_EFULL. */
bool naive_can_open(naive_book *book, uint64_t domain);
void naive_seq_open(naive_book *book, int seq, uint64_t domain);
void naive_match(naive_book *book, int seq, const int32_t *tokens, uint32_t count, quire_hit *hit);
void naive_probe(const naive_book *book, uint64_t domain, const int32_t *tokens, uint32_t count, quire_hit *hit);
bool naive_ready(naive_book *book, int seq);
void naive_fork(naive_book *book, int seq, int child);
void naive_truncate(naive_book *book, int seq, uint32_t length);
void naive_close(naive_book *book, int seq);
/* False: QUIRE_EFULL, and *moving. The new blocks' slots are for the caller to set. */
bool naive_reserve(naive_book *book, int seq, uint32_t count, uint32_t *moving);
void naive_name(naive_book *book, int seq, const int32_t *tokens);
void naive_commit(naive_book *book, int seq);
void naive_cancel(naive_book *book, int seq);
void naive_offload_ahead(naive_book *book, bool restoring);
/* Answers move `index` and forgets it. */
void naive_complete(naive_book *book, int index, bool ok);
void naive_expire(naive_book *book, int index);
void naive_clear(naive_book *book);
void naive_stats(const naive_book *book, quire_stats *stats);

int naive_refs(const naive_book *book, int block);

#endif
