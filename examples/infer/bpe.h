/* bpe.h - the merge step of byte-pair encoding, on token ids.
 *
 * A *merge* says that the neighbours (left, right) become `result`; of all that apply, the one of the lowest
 * rank goes first, the leftmost among equals. A bpe_table is immutable once filled and may be shared by
 * threads; a bpe_scratch belongs to one thread.
 */
#ifndef INFER_BPE_H
#define INFER_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A symbol that takes part in no merge and is left out of the result: a byte without a token. */
#define BPE_NO_TOKEN (-1)

typedef struct bpe_merge {
    int32_t left, right;
    int32_t rank;
    int32_t result;
} bpe_merge;

/* Open addressing, at most half full; a free slot has left == BPE_NO_TOKEN. */
typedef struct bpe_table {
    bpe_merge *slots;
    size_t mask;
} bpe_table;

typedef struct bpe_scratch {
    int32_t *links;               /* two lists of `capacity` */
    struct bpe_candidate *heap;   /* 2 * capacity */
    size_t capacity;
} bpe_scratch;

/* Room for `merges` merges; -1 when out of memory. */
int bpe_table_init(bpe_table *table, size_t merges);
void bpe_table_free(bpe_table *table);

/* Adds a merge. Of two with the same neighbours the first counts. */
void bpe_table_add(bpe_table *table, bpe_merge merge);

void bpe_scratch_free(bpe_scratch *scratch);

/* Whether the neighbours (left, right) merge, and how; `rules` is what was given to bpe_apply. */
typedef bool (*bpe_find_fn)(const void *rules, int32_t left, int32_t right, bpe_merge *merge);

/* The bpe_find_fn of a bpe_table. */
bool bpe_table_find(const void *table, int32_t left, int32_t right, bpe_merge *merge);

/* Merges ids[0 .. count) in place, count below 2^30, until nothing applies. *merged is the number of ids left.
 * O(count log count). -1 when out of memory, the ids then unchanged. */
int bpe_apply(bpe_find_fn find, const void *rules, bpe_scratch *scratch, int32_t *ids, size_t count,
              size_t *merged);

#endif
