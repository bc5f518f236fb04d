/* prefixes.h: which rows of a step begin with the same blocks. */
#ifndef QUIRE_PREFIXES_H
#define QUIRE_PREFIXES_H

#include "base/memory.h"
#include "cache/tables.h"
#include "quire/quire.h"

/* All arrays are sized at open, for max_rows rows. */
typedef struct quire__prefixes {
    uint32_t *rows, *scratch;    /* [max_rows] */
    uint32_t *common;            /* [max_rows]: blocks that rows[i] and rows[i + 1] begin with */
    uint64_t *best;              /* [max_rows + 1]: what the first rows save, in blocks */
    uint32_t *begin;             /* [max_rows + 1]: where the last run of those rows begins */
    quire_prefix *groups;        /* [max_rows / 2 + 1] */
    uint32_t max_rows, count, group_count;
    uint64_t saved; /* tokens of K and V that one read for all of a group saves */
} quire__prefixes;

quire_status quire__prefixes_open(quire__prefixes *prefixes, const quire__allocator *allocator, uint32_t max_rows);
void quire__prefixes_close(quire__prefixes *prefixes, const quire__allocator *allocator);
/* Finds the groups among the rows with one new token: fills rows, count, groups, group_count and saved. */
void quire__prefixes_find(quire__prefixes *prefixes, const quire__row *rows, uint32_t count, uint32_t block_tokens);

#endif
