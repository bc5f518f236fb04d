/* record.c: a trace of what a cache was asked. The format is in docs/replay.md.
 *
 * What a line names is blocks, by 64-bit hashes that take in all of the prompt before them, so that the hash
 * of a block says the whole prefix. The hash is SipHash-2-4 (Aumasson, Bernstein: 2012) under a key that is
 * drawn at open and written nowhere: equal prefixes can be told from different ones, and that is all.
 *
 * What decides over hits is only when blocks are opened (which may evict), sealed (which makes them
 * matchable), found and given back. So a token that opens and fills no block is not told at once, but with
 * the next thing that its sequence does: a decoding sequence costs two entries a block.
 *
 * Invariants
 *  1. `length` is what the file has said of a sequence; `untold` are tokens computed beyond it.
 *  2. `chain` is the hash of the sequence's first `hashed` blocks. It may be behind the length (after a fork
 *     or a truncation) and is then worked out anew from the book's tokens.
 *  3. A failure is a warning, once, and the end of the recording; the file has whole lines up to it. No
 *     function here fails, waits for anything but write(2), or changes what the book decides.
 */
#define _POSIX_C_SOURCE 200809L
#include "cache/record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/status.h"

enum { BUFFER = 1 << 18, SPARE = 512, PATH = 1024 };

typedef struct told {
    uint64_t domain, chain;
    uint32_t hashed; /* blocks */
    uint32_t length, untold;
    bool copies; /* its next token may have to copy a shared block first, which takes a slot */
} told;

struct quire__record {
    quire__book *book;
    const quire__allocator *allocator;
    quire__log log;
    char path[PATH];
    int file; /* -1: a write has failed */
    char *buffer;
    size_t used;
    uint64_t began_us, key[2];
    told *told; /* [max_sequences] */
    int32_t *tokens; /* of one block */
    uint32_t block_tokens;
    bool with_tokens, in_step;
};

/* ---- bytes --------------------------------------------------------------------------------------------- */

static void give_up(quire__record *record, int error)
{
    quire__log_line(&record->log, QUIRE_LOG_WARN, "recording to %s ends here: %s", record->path,
                    strerror(error));
    close(record->file);
    record->file = -1;
    record->used = 0;
}

/* Lines only, so that a full disk leaves a readable file: what follows the last line's end stays in the
 * buffer. */
static void flush(quire__record *record)
{
    size_t whole = record->used, done = 0;

    while (whole > 0 && record->buffer[whole - 1] != '\n')
        whole--;
    while (record->file >= 0 && done < whole) {
        ssize_t wrote = write(record->file, record->buffer + done, whole - done);
        if (wrote > 0)
            done += (size_t)wrote;
        else if (wrote == 0 || errno != EINTR)
            give_up(record, wrote == 0 ? ENOSPC : errno);
    }
    if (record->file < 0)
        return;
    memmove(record->buffer, record->buffer + whole, record->used - whole);
    record->used -= whole;
}

/* Room for one item; a line that is longer than the buffer ends the recording (a step of thousands of long
 * rows). */
static char *room(quire__record *record)
{
    if (record->used + SPARE > BUFFER)
        flush(record);
    if (record->used + SPARE > BUFFER && record->file >= 0)
        give_up(record, EMSGSIZE);
    return record->buffer + record->used;
}

static void put_character(quire__record *record, char character)
{
    *room(record) = character;
    record->used++;
}

static void put_number(quire__record *record, uint64_t number)
{
    char digits[24];
    size_t count = 0;
    char *at = room(record);

    do
        digits[count++] = (char)('0' + number % 10);
    while (number /= 10);
    for (size_t i = 0; i < count; i++)
        at[i] = digits[count - 1 - i];
    record->used += count;
}

static void put_hash(quire__record *record, uint64_t hash)
{
    char *at = room(record);

    for (int i = 0; i < 16; i++)
        at[i] = "0123456789abcdef"[hash >> (60 - 4 * i) & 15];
    record->used += 16;
}

/* "time letter", where the line begins. */
static void begin_line(quire__record *record, char letter)
{
    uint64_t now = quire__book_time(record->book);

    if (record->began_us == 0)
        record->began_us = now;
    put_number(record, now > record->began_us ? now - record->began_us : 0);
    put_character(record, ' ');
    put_character(record, letter);
}

static void put_field(quire__record *record, uint64_t number)
{
    put_character(record, ' ');
    put_number(record, number);
}

/* ---- hashes -------------------------------------------------------------------------------------------- */

static uint64_t rotated(uint64_t word, int by)
{
    return word << by | word >> (64 - by);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1], v[1] = rotated(v[1], 13) ^ v[0], v[0] = rotated(v[0], 32);
    v[2] += v[3], v[3] = rotated(v[3], 16) ^ v[2];
    v[0] += v[3], v[3] = rotated(v[3], 21) ^ v[0];
    v[2] += v[1], v[1] = rotated(v[1], 17) ^ v[2], v[2] = rotated(v[2], 32);
}

static void sip_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    sip_round(v);
    sip_round(v);
    v[0] ^= word;
}

/* SipHash-2-4 of a 64-bit word and the tokens; all messages of a file are of one length, which the key stands
 * in for. */
static uint64_t secret_hash(const uint64_t key[2], uint64_t before, const int32_t *tokens, uint32_t count)
{
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du, key[0] ^ 0x6c7967656e657261u,
                     key[1] ^ 0x7465646279746573u};

    sip_word(v, before);
    for (uint32_t i = 0; i < count; i += 2)
        sip_word(v, (uint32_t)tokens[i] | (i + 1 < count ? (uint64_t)(uint32_t)tokens[i + 1] << 32 : 0));
    v[2] ^= 0xff;
    for (int i = 0; i < 4; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static uint64_t root_hash(const quire__record *record, uint64_t domain)
{
    return secret_hash(record->key, domain, NULL, 0);
}

/* The block's tokens, where the caller asked for them: "=1.2.3". */
static void put_tokens(quire__record *record)
{
    for (uint32_t i = 0; i < record->block_tokens; i++) {
        int64_t token = record->tokens[i];
        put_character(record, i == 0 ? '=' : '.');
        if (token < 0)
            put_character(record, '-');
        put_number(record, (uint64_t)(token < 0 ? -token : token));
    }
}

/* Brings `chain` to the sequence's first `blocks` blocks. */
static void hash_up_to(quire__record *record, uint32_t seq, uint32_t blocks)
{
    told *told = &record->told[seq];
    const uint32_t size = record->block_tokens;

    if (told->hashed > blocks || told->hashed == 0) {
        told->hashed = 0;
        told->chain = root_hash(record, told->domain);
    }
    for (; told->hashed < blocks; told->hashed++) {
        quire__book_seq_tokens(record->book, seq, (size_t)told->hashed * size, size, record->tokens);
        told->chain = secret_hash(record->key, told->chain, record->tokens, size);
    }
}

/* ---- what happened ------------------------------------------------------------------------------------- */

static bool idle(const quire__record *record)
{
    return record == NULL || record->file < 0;
}

/* What a sequence has computed without being mentioned. */
static void tell(quire__record *record, uint32_t seq)
{
    told *told = &record->told[seq];

    if (told->untold == 0)
        return;
    begin_line(record, 's');
    put_field(record, seq);
    put_character(record, ':');
    put_number(record, told->untold);
    put_character(record, '\n');
    told->length += told->untold;
    told->untold = 0;
}

void quire__record_seq_open(quire__record *record, uint32_t seq, uint64_t domain)
{
    if (idle(record))
        return;
    record->told[seq] = (told){.domain = domain};
    begin_line(record, 'o');
    put_field(record, seq);
    put_field(record, domain);
    put_character(record, '\n');
}

void quire__record_match(quire__record *record, uint32_t seq, size_t count, const quire_hit *hit)
{
    if (idle(record))
        return;
    told *told = &record->told[seq];
    const uint32_t full = (uint32_t)(hit->tokens - hit->partial) / record->block_tokens;

    hash_up_to(record, seq, full);
    begin_line(record, 'm');
    put_field(record, seq);
    put_field(record, count);
    put_field(record, hit->device);
    put_field(record, hit->host);
    put_field(record, hit->partial);
    put_character(record, ' ');
    if (full > 0)
        put_hash(record, told->chain);
    else
        put_character(record, '-');
    put_character(record, ' ');
    if (hit->partial > 0) {
        quire__book_seq_block(record->book, seq, full, record->tokens);
        put_hash(record, secret_hash(record->key, told->chain, record->tokens, record->block_tokens));
    } else {
        put_character(record, '-');
    }
    put_character(record, '\n');
    told->length = (uint32_t)hit->tokens;
    told->copies = hit->partial > 0;
}

void quire__record_fork(quire__record *record, uint32_t seq, uint32_t child)
{
    if (idle(record))
        return;
    tell(record, seq);
    record->told[seq].copies = true;
    record->told[child] = record->told[seq];
    begin_line(record, 'f');
    put_field(record, seq);
    put_field(record, child);
    put_character(record, '\n');
}

static void put_truncate(quire__record *record, uint32_t seq, uint32_t length)
{
    begin_line(record, 't');
    put_field(record, seq);
    put_field(record, length);
    put_character(record, '\n');
    record->told[seq].length = length;
    record->told[seq].copies = true;
}

void quire__record_truncate(quire__record *record, uint32_t seq, size_t length)
{
    if (idle(record))
        return;
    tell(record, seq);
    if (record->told[seq].length != length)
        put_truncate(record, seq, (uint32_t)length);
    if (record->told[seq].hashed > length / record->block_tokens)
        record->told[seq].hashed = 0;
}

void quire__record_seq_close(quire__record *record, uint32_t seq)
{
    if (idle(record))
        return;
    tell(record, seq);
    begin_line(record, 'x');
    put_field(record, seq);
    put_character(record, '\n');
}

void quire__record_clear(quire__record *record)
{
    if (idle(record))
        return;
    begin_line(record, 'c');
    put_character(record, '\n');
}

/* A row within the step's line: the tokens since the last mention, and the hashes of the blocks that they
 * filled. */
static void put_row(quire__record *record, uint32_t seq, uint32_t first_full, uint32_t end_full)
{
    told *told = &record->told[seq];

    if (!record->in_step)
        begin_line(record, 's');
    record->in_step = true;
    put_field(record, seq);
    put_character(record, ':');
    put_number(record, told->untold);
    for (uint32_t i = first_full; i < end_full; i++) {
        put_character(record, i == first_full ? ':' : ',');
        hash_up_to(record, seq, i + 1);
        put_hash(record, told->chain);
        if (record->with_tokens)
            put_tokens(record); /* hash_up_to has left them */
    }
    told->length += told->untold;
    told->untold = 0;
}

void quire__record_row(quire__record *record, uint32_t seq, uint32_t added)
{
    if (idle(record))
        return;
    told *told = &record->told[seq];
    const uint32_t size = record->block_tokens;
    quire_seq_info info;
    quire__book_seq_get(record->book, seq, &info);
    const uint32_t end = (uint32_t)info.length, begin = end - added;

    if (begin != told->length + told->untold) { /* a restore failed, and the sequence became shorter */
        quire__record_step_end(record);
        told->untold = 0;
        put_truncate(record, seq, begin);
        told->hashed = 0;
    }
    const uint32_t first_full = told->length / size, end_full = end / size;
    told->untold += added;
    if (end_full == first_full && begin % size != 0 && !told->copies)
        return; /* neither opens nor fills a block */
    told->copies = false;
    put_row(record, seq, first_full, end_full);
}

void quire__record_step_end(quire__record *record)
{
    if (idle(record) || !record->in_step)
        return;
    put_character(record, '\n');
    record->in_step = false;
}

/* ---- open, close --------------------------------------------------------------------------------------- */

/* Several caches of a process: file, file.2, file.3 ... */
static void name_file(quire__record *record, const char *path)
{
    static atomic_uint caches;
    unsigned number = atomic_fetch_add(&caches, 1) + 1;

    if (number == 1)
        snprintf(record->path, sizeof record->path, "%s", path);
    else
        snprintf(record->path, sizeof record->path, "%.1000s.%u", path, number);
}

static void put_header(quire__record *record, const quire__record_config *config)
{
    record->used = (size_t)snprintf(record->buffer, BUFFER,
                                    "# quire-trace v1 block=%u device=%u host=%u bytes=%llu sequences=%u "
                                    "longest=%u domains=%u watermark=%u "
                                    "offload=%d policy=%s tokens=%s\n",
                                    config->block_tokens, config->device_slots, config->host_slots,
                                    (unsigned long long)config->block_bytes, config->max_sequences,
                                    config->max_seq_tokens, config->max_domains, config->watermark_blocks,
                                    (int)config->offload, config->policy, config->tokens ? "yes" : "no");
}

static quire_status take_memory(quire__record *record, const quire__record_config *config)
{
    void *memory;

    QUIRE__TRY(quire__memory_take(config->allocator, BUFFER, 1, "the recording's buffer", &memory));
    record->buffer = memory;
    QUIRE__TRY(
        quire__memory_take(config->allocator, config->max_sequences, sizeof(told), "the recording", &memory));
    record->told = memory;
    QUIRE__TRY(quire__memory_take(config->allocator, config->block_tokens, sizeof(int32_t), "the recording",
                                  &memory));
    record->tokens = memory;
    return QUIRE_OK;
}

quire_status quire__record_open(quire__record **out, const quire__record_config *config)
{
    void *memory;

    QUIRE__TRY(quire__memory_take(config->allocator, 1, sizeof(quire__record), "the recording", &memory));
    quire__record *record = memory;
    *record = (quire__record){.book = config->book,
                              .allocator = config->allocator,
                              .log = config->log,
                              .file = -1,
                              .block_tokens = config->block_tokens,
                              .with_tokens = config->tokens,
                              .key = {quire__random_key(), quire__random_key()}};
    quire_status status = take_memory(record, config);
    if (status != QUIRE_OK) {
        quire__record_close(record);
        return status;
    }
    name_file(record, config->path);
    record->file = open(record->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (record->file < 0)
        quire__log_line(&record->log, QUIRE_LOG_WARN, "nothing is recorded: cannot write %s: %s",
                        record->path, strerror(errno));
    else
        put_header(record, config);
    *out = record;
    return QUIRE_OK;
}

const char *quire__record_path(const quire__record *record)
{
    return record->path;
}

void quire__record_close(quire__record *record)
{
    if (record == NULL)
        return;
    const quire__allocator *allocator = record->allocator;

    if (record->file >= 0) {
        flush(record);
        if (record->file >= 0 && close(record->file) != 0)
            quire__log_line(&record->log, QUIRE_LOG_WARN, "recording to %s: %s", record->path,
                            strerror(errno));
    }
    quire__memory_give(allocator, record->tokens);
    quire__memory_give(allocator, record->told);
    quire__memory_give(allocator, record->buffer);
    quire__memory_give(allocator, record);
}
