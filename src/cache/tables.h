/* tables.h: what a step tells the kernels, on the device: block tables, lengths, slots, work lists.
 *
 *   CPU            staging (pinned ring)        device (fixed addresses)
 *   row, tokens -> [ header arrays ]  --copy--> [ header arrays ]
 *   table delta -> [ changes ]        --copy--> [ changes ] --kernel--> block_table[max_rows][stride]
 *
 * The block table stays on the device from step to step; a step sends only the entries that changed, so a decode step of
 * a long context sends as little as one of a short one. Device buffers have one copy each: steps are chained, so one
 * stream order covers them all. Staging buffers are reused round robin, each after the event of its last copy. */
#ifndef QUIRE_TABLES_H
#define QUIRE_TABLES_H

#include "base/memory.h"
#include "device/device.h"

typedef struct quire__tables quire__tables;

typedef struct quire__tables_config {
    quire__device *device;
    quire__allocator allocator;
    uint32_t max_rows, max_tokens, table_stride; /* stride: entries a row */
    uint32_t block_tokens;
    uint64_t timeout_us;
} quire__tables_config;

/* One sequence's part of a step. */
typedef struct quire__row {
    uint64_t owner;        /* whose table: a number that is never used again; 0 is nobody */
    const int32_t *blocks; /* its slots */
    uint32_t block_count;
    uint32_t changed; /* first entry that differs from when this owner was last sent */
    uint32_t *last_row; /* the owner's own note of where it was last sent to; any value at first */
    uint32_t length;  /* tokens with this step's */
    uint32_t added;   /* of them, new */
    uint32_t first;   /* token of the step */
} quire__row;

quire_status quire__tables_open(quire__tables **tables, const quire__tables_config *config);
void quire__tables_close(quire__tables *tables); /* NULL is allowed */
/* Sends one step's rows and block copies on the stream, and fills the table part of the view. */
quire_status quire__tables_send(quire__tables *tables, quire__stream *stream, const quire__row *rows, uint32_t count,
                                quire_view *view);
/* The next send has at least so many rows: those behind its own are empty, with one token at no position. */
void quire__tables_pad(quire__tables *tables, uint32_t rows);
/* Sends pairs of blocks to copy; they are at quire__tables_pairs from then on. */
quire_status quire__tables_send_pairs(quire__tables *tables, quire__stream *stream, const quire__block_pair *pairs,
                                      uint32_t count);
const quire__block_pair *quire__tables_pairs(const quire__tables *tables);
/* Sends the groups that were found among the step's rows, and points `args` to them. */
struct quire__prefixes;
quire_status quire__tables_send_prefixes(quire__tables *tables, quire__stream *stream,
                                         const struct quire__prefixes *prefixes, const quire__row *rows,
                                         quire__shared_args *args);
/* Forgets what was sent: every row is sent whole next time (after a failure half way). */
void quire__tables_forget(quire__tables *tables);
/* Tests only: reuse staging memory without waiting for its last copy. */
void quire__tables_set_hole(quire__tables *tables, bool staging);

#endif
