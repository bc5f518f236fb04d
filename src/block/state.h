/* state.h: struct quire__book as its own parts see it. Outside block/ only book.h is included. */
#ifndef QUIRE_BLOCK_STATE_H
#define QUIRE_BLOCK_STATE_H

#include "block/book.h"
#include "block/events.h"
#include "block/evict.h"
#include "block/pool.h"
#include "block/prefix.h"
#include "block/side.h"

/* A sequence's blocks, from the root of its domain down. Sealed ones first; after them at most one that is open, or
 * several while a step is writing them, or dead ones until the sequence has taken their loss in. */
struct quire__chain {
    uint32_t *nodes; /* [max_blocks] */
    int32_t *table;  /* [max_blocks]: device slots of the same */
    uint32_t domain; /* index */
    uint32_t blocks;
    uint32_t length;  /* tokens; the last block may hold more than this sequence has of it */
    uint32_t matched; /* of them, found by a match */
    uint32_t prompt;  /* tokens of the prompt that was matched, found or not; what is longer was generated. 0: none was */
    uint32_t ready;   /* blocks before this one are resident */
    uint32_t offloaded; /* about where the host tier's part of the chain ends: a hint */
    uint32_t changed; /* the first table entry that the reader has not seen */
    uint32_t pending; /* tokens reserved in the open step; 0: not in a step */
    uint32_t kept;    /* blocks before the reserve */
    uint32_t source;  /* what the reserve copied its first block from, still referred to; or QUIRE__NONE */
    quire_hint hint;   /* of the engine; next_use_us as a time of the book */
    quire__span *spans; /* [side groups] */
    bool open, named;
};

/* What a domain leaves behind expires. */
typedef struct quire__lifetime {
    uint64_t domain, ttl_us; /* ttl_us 0: the place is free */
} quire__lifetime;

struct quire__book {
    quire__book_config config;
    quire__pool pool;
    quire__prefix prefix;
    quire__evict evict[QUIRE__TIERS];
    quire__events events;

    quire__chain *chains;
    uint32_t *chain_nodes, *free_chains; /* free_chains is a stack */
    int32_t *chain_tables;
    uint32_t max_blocks;       /* of one sequence */
    uint32_t free_chain_count;
    uint32_t holders;          /* sequences with at least one block */

    uint32_t side_count; /* groups beside the first; 0: none of side.h runs */
    quire__side *sides;
    quire__span *spans;
    int32_t *span_tables;
    uint32_t *host_moves; /* of a host slot: moves in flight that have any part of it */

    quire__costs costs;
    uint32_t declined; /* restores in a row that were not worth it */
    uint64_t now;  /* microseconds, as the caller says */
    quire__lifetime lifetimes[QUIRE__BOOK_LIFETIMES];
    int lifetime_count; /* places from there on were never taken */
    uint64_t step; /* the last one that began */
    bool stepping;
    uint32_t holes;
    quire_stats counters; /* only those that count up */
    uint32_t *scratch;    /* [nodes]: book_check's own */

    uint32_t *cold, *path; /* offload.c's own: [offload_high], [max_blocks] */
    uint32_t cold_count, cold_next; /* blocks of `cold` that the last look named, and which of them goes next */
    uint64_t cold_step;    /* the last step that had begun then */
    uint32_t secured;      /* blocks at the cold end of the device's order that may go, as of the last look */
    uint32_t looked_at;    /* blocks in the order, when all of them were found secured; else 0 */
    uint64_t secured_at;   /* evictions_device then */
    uint32_t host_arrivals; /* in the host tier since host_since */
    uint64_t host_since, host_holds; /* host_holds: of quire_policy_use */
};

#endif
