/* record.h: what a cache was asked, written to a file as it happens, for quire-replay (QUIRE_TRACE=file). */
#ifndef QUIRE_RECORD_H
#define QUIRE_RECORD_H

#include <stdbool.h>

#include "base/log.h"
#include "block/book.h"

typedef struct quire__record quire__record;

typedef struct quire__record_config {
    const char *path;
    bool tokens; /* token ids too; else only secret hashes of them */
    const quire__allocator *allocator;
    quire__log log; /* of warnings; copied */
    quire__book *book;
    uint32_t block_tokens, device_slots, host_slots, max_sequences, max_seq_tokens, max_domains,
        watermark_blocks;
    uint64_t block_bytes;
    const char *policy;
    quire_offload offload;
} quire__record_config;

/* *record is NULL when the file cannot be had: a warning says why, and the cache does without. QUIRE_ENOMEM.
 * */
quire_status quire__record_open(quire__record **record, const quire__record_config *config);
/* Writes what is left. NULL is allowed here and below: then nothing is recorded. */
void quire__record_close(quire__record *record);
/* The file that it writes to; lent until the close. */
const char *quire__record_path(const quire__record *record);

/* Each is called when the book has done it, in the order of the calls and at the book's time. */
void quire__record_seq_open(quire__record *record, uint32_t seq, uint64_t domain);
void quire__record_match(quire__record *record, uint32_t seq, size_t count, const quire_hit *hit);
void quire__record_fork(quire__record *record, uint32_t seq, uint32_t child);
void quire__record_truncate(quire__record *record, uint32_t seq, size_t length);
/* Before the book closes it. */
void quire__record_seq_close(quire__record *record, uint32_t seq);
void quire__record_clear(quire__record *record);
/* A committed step: its rows one by one, then its end. */
void quire__record_row(quire__record *record, uint32_t seq, uint32_t added);
void quire__record_step_end(quire__record *record);

#endif
