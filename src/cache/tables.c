#include "cache/tables.h"

#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/status.h"
#include "cache/prefixes.h"

enum {
    STAGING_BUFFERS = 4,
    CHANGES_A_ROUND = 16384, /* table entries sent by one copy and one launch */
    ALIGNMENT = 256
};

/* Offsets of the arrays in a header, which is laid out alike in staging and on the device. */
typedef struct header {
    size_t context_lens, query_start, slot_mapping, positions, token_rows, decode_tokens, tiles, bytes;
} header;

typedef struct staging {
    unsigned char *memory; /* pinned */
    quire__event *event;   /* after the last copy from it */
} staging;

struct quire__tables {
    quire__tables_config config;
    header header;
    uint32_t max_tiles;
    staging ring[STAGING_BUFFERS];
    uint32_t next;
    unsigned char *device_header, *device_prefixes;
    quire__table_change *device_changes;
    quire__block_pair *device_pairs;
    int32_t *device_table;
    uint32_t pad; /* rows of the next send */
    uint64_t *owners; /* by row: whose table the device has there */
    bool hole_staging;
};

static size_t place(size_t *end, size_t count, size_t size)
{
    size_t at = *end;

    *end = (at + count * size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return at;
}

/* A row of t tokens makes ceil(t / QUIRE__PREFILL_TILE) tiles, so rows + tokens / QUIRE__PREFILL_TILE bounds them all. */
static void lay_out(quire__tables *tables)
{
    size_t rows = tables->config.max_rows, tokens = tables->config.max_tokens, end = 0;
    header *h = &tables->header;

    tables->max_tiles = (uint32_t)(rows + tokens / QUIRE__PREFILL_TILE);
    h->context_lens = place(&end, rows, sizeof(int32_t));
    h->query_start = place(&end, rows + 1, sizeof(int32_t));
    h->slot_mapping = place(&end, tokens, sizeof(int64_t));
    h->positions = place(&end, tokens, sizeof(int32_t));
    h->token_rows = place(&end, tokens, sizeof(int32_t));
    h->decode_tokens = place(&end, rows, sizeof(int32_t));
    h->tiles = place(&end, tables->max_tiles, sizeof(quire_tile));
    h->bytes = end;
}

/* select[rows], prefix_tokens[rows], groups[rows / 2 + 1]. */
static size_t prefix_bytes(const quire__tables *tables)
{
    size_t rows = tables->config.max_rows;

    return 2 * rows * sizeof(int32_t) + (rows / 2 + 1) * sizeof(quire__shared_group);
}

static size_t staging_bytes(const quire__tables *tables)
{
    size_t bytes = tables->header.bytes;
    size_t changes = CHANGES_A_ROUND * sizeof(quire__table_change);
    size_t pairs = tables->config.max_rows * sizeof(quire__block_pair);

    bytes = changes > bytes ? changes : bytes;
    bytes = prefix_bytes(tables) > bytes ? prefix_bytes(tables) : bytes;
    return pairs > bytes ? pairs : bytes;
}

static quire_status tables_fill(quire__tables *tables)
{
    quire__device *device = tables->config.device;
    size_t rows = tables->config.max_rows;
    void *memory;

    lay_out(tables);
    QUIRE__TRY(quire__memory_take(&tables->config.allocator, rows, sizeof(uint64_t), "table owners", &memory));
    tables->owners = memory;
    for (int i = 0; i < STAGING_BUFFERS; i++) {
        QUIRE__TRY(quire__device_alloc(device, QUIRE__MEMORY_PINNED, staging_bytes(tables), &memory));
        tables->ring[i].memory = memory;
        QUIRE__TRY(quire__device_event_open(device, &tables->ring[i].event));
    }
    QUIRE__TRY(quire__device_alloc(device, QUIRE__MEMORY_DEVICE, tables->header.bytes, &memory));
    tables->device_header = memory;
    QUIRE__TRY(quire__device_alloc(device, QUIRE__MEMORY_DEVICE, prefix_bytes(tables), &memory));
    tables->device_prefixes = memory;
    QUIRE__TRY(quire__device_alloc(device, QUIRE__MEMORY_DEVICE, CHANGES_A_ROUND * sizeof(quire__table_change),
                                   &memory));
    tables->device_changes = memory;
    QUIRE__TRY(quire__device_alloc(device, QUIRE__MEMORY_DEVICE, rows * sizeof(quire__block_pair), &memory));
    tables->device_pairs = memory;
    QUIRE__TRY(quire__device_alloc(device, QUIRE__MEMORY_DEVICE,
                                   rows * tables->config.table_stride * sizeof(int32_t), &memory));
    tables->device_table = memory;
    return QUIRE_OK;
}

quire_status quire__tables_open(quire__tables **out, const quire__tables_config *config)
{
    void *memory;

    QUIRE__TRY(quire__memory_take(&config->allocator, 1, sizeof(quire__tables), "tables", &memory));
    quire__tables *tables = memory;
    tables->config = *config;
    quire_status status = tables_fill(tables);
    if (status != QUIRE_OK) {
        quire__tables_close(tables);
        return status;
    }
    *out = tables;
    return QUIRE_OK;
}

void quire__tables_close(quire__tables *tables)
{
    if (tables == NULL)
        return;
    quire__allocator allocator = tables->config.allocator;
    quire__device *device = tables->config.device;

    quire__device_free(device, QUIRE__MEMORY_DEVICE, tables->device_table);
    quire__device_free(device, QUIRE__MEMORY_DEVICE, tables->device_pairs);
    quire__device_free(device, QUIRE__MEMORY_DEVICE, tables->device_changes);
    quire__device_free(device, QUIRE__MEMORY_DEVICE, tables->device_prefixes);
    quire__device_free(device, QUIRE__MEMORY_DEVICE, tables->device_header);
    for (int i = 0; i < STAGING_BUFFERS; i++) {
        if (tables->ring[i].event != NULL)
            quire__device_event_close(device, tables->ring[i].event);
        quire__device_free(device, QUIRE__MEMORY_PINNED, tables->ring[i].memory);
    }
    quire__memory_give(&allocator, tables->owners);
    quire__memory_give(&allocator, tables);
}

/* ---- staging ----------------------------------------------------------------------------------------------- */

static quire_status staging_take(quire__tables *tables, staging **out)
{
    staging *taken = &tables->ring[tables->next];
    uint64_t deadline = quire__clock_us() + tables->config.timeout_us;
    bool done = tables->hole_staging;

    while (!done) {
        QUIRE__TRY(quire__device_event_query(tables->config.device, taken->event, &done));
        if (!done && quire__clock_us() > deadline)
            return quire__fail(QUIRE_ETIMEOUT, "the device has not finished the copies of %d steps ago; it hangs",
                               STAGING_BUFFERS);
    }
    tables->next = (tables->next + 1) % STAGING_BUFFERS;
    *out = taken;
    return QUIRE_OK;
}

static quire_status staging_send(quire__tables *tables, quire__stream *stream, staging *from, void *to, size_t bytes)
{
    quire__copy copy = {.destination = to, .source = from->memory, .bytes = bytes};

    QUIRE__TRY(quire__device_copy(tables->config.device, stream, &copy, 1));
    return quire__device_event_record(tables->config.device, from->event, stream);
}

/* ---- block table ------------------------------------------------------------------------------------------- */

static quire_status send_changes(quire__tables *tables, quire__stream *stream, staging *from, uint32_t count)
{
    quire__kernel_args args = {.table = {.table = tables->device_table,
                                         .table_stride = (int32_t)tables->config.table_stride,
                                         .count = (int32_t)count,
                                         .changes = tables->device_changes}};

    QUIRE__TRY(staging_send(tables, stream, from, tables->device_changes, count * sizeof(quire__table_change)));
    return quire__device_launch(tables->config.device, stream, QUIRE__KERNEL_TABLE, &args);
}

/* An owner that moves to another row must not be believed to be in its old one as well. */
static void take_row(quire__tables *tables, uint32_t row, const quire__row *from)
{
    uint32_t last = *from->last_row;

    if (last < tables->config.max_rows && tables->owners[last] == from->owner)
        tables->owners[last] = 0;
    tables->owners[row] = from->owner;
    *from->last_row = row;
}

static quire_status send_table(quire__tables *tables, quire__stream *stream, const quire__row *rows, uint32_t count)
{
    staging *from = NULL;
    quire__table_change *changes = NULL;
    uint32_t filled = 0;

    for (uint32_t row = 0; row < count; row++) {
        bool known = tables->owners[row] == rows[row].owner;
        if (!known)
            take_row(tables, row, &rows[row]);
        for (uint32_t i = known ? rows[row].changed : 0; i < rows[row].block_count; i++) {
            if (from == NULL) {
                QUIRE__TRY(staging_take(tables, &from));
                changes = (quire__table_change *)(void *)from->memory;
                filled = 0;
            }
            changes[filled++] = (quire__table_change){(int32_t)row, (int32_t)i, rows[row].blocks[i]};
            if (filled == CHANGES_A_ROUND) {
                QUIRE__TRY(send_changes(tables, stream, from, filled));
                from = NULL;
            }
        }
    }
    return from != NULL ? send_changes(tables, stream, from, filled) : QUIRE_OK;
}

/* ---- header ------------------------------------------------------------------------------------------------ */

typedef struct cursor {
    unsigned char *memory;
    uint32_t tokens, decodes, tiles, longest;
} cursor;

static void write_row(const quire__tables *tables, cursor *at, uint32_t index, const quire__row *row)
{
    const header *h = &tables->header;
    int32_t *context_lens = (int32_t *)(void *)(at->memory + h->context_lens);
    int32_t *query_start = (int32_t *)(void *)(at->memory + h->query_start);
    int64_t *slot_mapping = (int64_t *)(void *)(at->memory + h->slot_mapping);
    int32_t *positions = (int32_t *)(void *)(at->memory + h->positions);
    int32_t *token_rows = (int32_t *)(void *)(at->memory + h->token_rows);
    int32_t *decode_tokens = (int32_t *)(void *)(at->memory + h->decode_tokens);
    quire_tile *tiles = (quire_tile *)(void *)(at->memory + h->tiles);
    uint32_t first = row->length - row->added, block_tokens = tables->config.block_tokens;

    context_lens[index] = (int32_t)row->length;
    query_start[index] = (int32_t)at->tokens;
    query_start[index + 1] = (int32_t)(at->tokens + row->added);
    for (uint32_t i = 0; i < row->added; i++) {
        uint32_t position = first + i;
        slot_mapping[at->tokens + i] =
            (int64_t)row->blocks[position / block_tokens] * block_tokens + position % block_tokens;
        positions[at->tokens + i] = (int32_t)position;
        token_rows[at->tokens + i] = (int32_t)index;
    }
    if (row->added == 1) {
        decode_tokens[at->decodes++] = (int32_t)at->tokens;
    } else {
        for (uint32_t i = 0; i < row->added; i += QUIRE__PREFILL_TILE) {
            uint32_t left = row->added - i;
            tiles[at->tiles++] =
                (quire_tile){.row = (int32_t)index,
                             .first_token = (int32_t)(at->tokens + i),
                             .tokens = (int32_t)(left < QUIRE__PREFILL_TILE ? left : QUIRE__PREFILL_TILE)};
        }
    }
    at->tokens += row->added;
    at->longest = row->length > at->longest ? row->length : at->longest;
}

/* Kernels store nothing in slot -1, and see nothing from position -1. */
static void write_empty_row(const quire__tables *tables, cursor *at, uint32_t index)
{
    const header *h = &tables->header;

    ((int32_t *)(void *)(at->memory + h->context_lens))[index] = 0;
    ((int32_t *)(void *)(at->memory + h->query_start))[index] = (int32_t)at->tokens;
    ((int32_t *)(void *)(at->memory + h->query_start))[index + 1] = (int32_t)at->tokens + 1;
    ((int64_t *)(void *)(at->memory + h->slot_mapping))[at->tokens] = -1;
    ((int32_t *)(void *)(at->memory + h->positions))[at->tokens] = -1;
    ((int32_t *)(void *)(at->memory + h->token_rows))[at->tokens] = (int32_t)index;
    ((int32_t *)(void *)(at->memory + h->decode_tokens))[at->decodes++] = (int32_t)at->tokens;
    at->tokens++;
}

static void point_view(const quire__tables *tables, const cursor *at, uint32_t rows, quire_view *view)
{
    const header *h = &tables->header;
    unsigned char *base = tables->device_header;

    view->rows = rows;
    view->tokens = at->tokens;
    view->decodes = at->decodes;
    view->tiles = at->tiles;
    view->longest_context = at->longest;
    view->table_stride = tables->config.table_stride;
    view->block_table = tables->device_table;
    view->context_lens = (const int32_t *)(void *)(base + h->context_lens);
    view->query_start = (const int32_t *)(void *)(base + h->query_start);
    view->slot_mapping = (const int64_t *)(void *)(base + h->slot_mapping);
    view->positions = (const int32_t *)(void *)(base + h->positions);
    view->token_rows = (const int32_t *)(void *)(base + h->token_rows);
    view->decode_tokens = (const int32_t *)(void *)(base + h->decode_tokens);
    view->tile_list = (const quire_tile *)(void *)(base + h->tiles);
}

/* Only what this step uses of each array travels, in one batch. */
static quire_status send_header(quire__tables *tables, quire__stream *stream, staging *from, const cursor *at,
                                uint32_t rows)
{
    const header *h = &tables->header;
    const struct {
        size_t offset, bytes;
    } used[] = {
        {h->context_lens, rows * sizeof(int32_t)},        {h->query_start, (rows + 1) * sizeof(int32_t)},
        {h->slot_mapping, at->tokens * sizeof(int64_t)},  {h->positions, at->tokens * sizeof(int32_t)},
        {h->token_rows, at->tokens * sizeof(int32_t)},    {h->decode_tokens, at->decodes * sizeof(int32_t)},
        {h->tiles, at->tiles * sizeof(quire_tile)},
    };
    quire__copy copies[sizeof used / sizeof used[0]];
    size_t count = 0;

    for (size_t i = 0; i < sizeof used / sizeof used[0]; i++)
        if (used[i].bytes > 0)
            copies[count++] = (quire__copy){.destination = tables->device_header + used[i].offset,
                                            .source = from->memory + used[i].offset,
                                            .bytes = used[i].bytes};
    QUIRE__TRY(quire__device_copy(tables->config.device, stream, copies, count));
    return quire__device_event_record(tables->config.device, from->event, stream);
}

quire_status quire__tables_send(quire__tables *tables, quire__stream *stream, const quire__row *rows, uint32_t count,
                                quire_view *view)
{
    staging *from = NULL;
    cursor at = {0};
    uint32_t whole = count > tables->pad ? count : tables->pad;

    tables->pad = 0;
    QUIRE__ASSERT(whole <= tables->config.max_rows);
    QUIRE__TRY(send_table(tables, stream, rows, count));
    QUIRE__TRY(staging_take(tables, &from));
    at.memory = from->memory;
    for (uint32_t i = 0; i < count; i++)
        write_row(tables, &at, i, &rows[i]);
    for (uint32_t i = count; i < whole; i++)
        write_empty_row(tables, &at, i);
    QUIRE__ASSERT(at.tokens <= tables->config.max_tokens && at.tiles <= tables->max_tiles);
    if (whole > 0)
        QUIRE__TRY(send_header(tables, stream, from, &at, whole));
    point_view(tables, &at, whole, view);
    return QUIRE_OK;
}

void quire__tables_pad(quire__tables *tables, uint32_t rows)
{
    tables->pad = rows;
}

quire_status quire__tables_send_pairs(quire__tables *tables, quire__stream *stream, const quire__block_pair *pairs,
                                      uint32_t count)
{
    staging *from = NULL;

    QUIRE__ASSERT(count <= tables->config.max_rows);
    QUIRE__TRY(staging_take(tables, &from));
    memcpy(from->memory, pairs, count * sizeof *pairs);
    return staging_send(tables, stream, from, tables->device_pairs, count * sizeof *pairs);
}

quire_status quire__tables_send_prefixes(quire__tables *tables, quire__stream *stream, const quire__prefixes *prefixes,
                                         const quire__row *rows, quire__shared_args *args)
{
    const uint32_t max_rows = tables->config.max_rows;
    staging *from = NULL;

    QUIRE__TRY(staging_take(tables, &from));
    int32_t *select = (int32_t *)(void *)from->memory, *prefix_tokens = select + max_rows;
    quire__shared_group *groups = (quire__shared_group *)(void *)(prefix_tokens + max_rows);
    uint32_t members = 0;
    quire__shared_args made = {.group_count = (int32_t)prefixes->group_count};
    for (uint32_t i = 0; i < prefixes->group_count; i++) {
        const quire_prefix *group = &prefixes->groups[i];
        int32_t shared = (int32_t)(group->blocks * tables->config.block_tokens);
        groups[i] = (quire__shared_group){(int32_t)group->first, (int32_t)group->rows};
        for (uint32_t j = 0; j < group->rows; j++, members++) {
            int32_t tail = (int32_t)rows[prefixes->rows[members]].length - shared;
            prefix_tokens[members] = shared;
            made.longest_tail = tail > made.longest_tail ? tail : made.longest_tail;
        }
        made.longest_prefix = shared > made.longest_prefix ? shared : made.longest_prefix;
        made.most_members = (int32_t)group->rows > made.most_members ? (int32_t)group->rows : made.most_members;
    }
    for (uint32_t i = 0; i < prefixes->count; i++) /* the other rows are behind the members */
        select[i] = (int32_t)rows[prefixes->rows[i]].first;
    QUIRE__TRY(staging_send(tables, stream, from, tables->device_prefixes, prefix_bytes(tables)));
    made.attend.select = (const int32_t *)(void *)tables->device_prefixes;
    made.attend.count = (int32_t)members;
    made.prefix_tokens = made.attend.select + max_rows;
    made.groups = (const quire__shared_group *)(const void *)(made.prefix_tokens + max_rows);
    *args = made;
    return QUIRE_OK;
}

const quire__block_pair *quire__tables_pairs(const quire__tables *tables)
{
    return tables->device_pairs;
}

void quire__tables_forget(quire__tables *tables)
{
    memset(tables->owners, 0, tables->config.max_rows * sizeof(uint64_t));
}

void quire__tables_set_hole(quire__tables *tables, bool staging_reuse)
{
    tables->hole_staging = staging_reuse;
}
