/* sim_bounds.c: would this kernel touch memory that is not the device's? */
#include "device/sim_bounds.h"

#include <stdint.h>

#include "device/host_ops.h"

size_t quire__sim_reach(const quire__sim_memory *memory, const void *address)
{
    const unsigned char *at = address;
    for (; memory != NULL; memory = memory->next)
        if ((uintptr_t)at >= (uintptr_t)memory->base && (size_t)(at - memory->base) < memory->bytes)
            return memory->bytes - (size_t)(at - memory->base);
    return 0;
}

bool quire__sim_is_pinned(const quire__sim_memory *memory, const void *address)
{
    const unsigned char *at = address;
    for (; memory != NULL; memory = memory->next)
        if ((size_t)((uintptr_t)at - (uintptr_t)memory->base) < memory->bytes)
            return memory->pinned;
    return false;
}

static bool bytes_mapped(const quire__sim_memory *memory, size_t first, size_t bytes)
{
    for (size_t i = first; i < first + bytes; i += memory->granule - i % memory->granule)
        if (!memory->mapped[i / memory->granule])
            return false;
    return true;
}

bool quire__sim_there(const quire__sim_memory *memory, const void *address, size_t bytes)
{
    const unsigned char *at = address;
    for (; memory != NULL; memory = memory->next) {
        size_t first = (size_t)((uintptr_t)at - (uintptr_t)memory->base); /* past the end where it is before the base */
        if (first >= memory->bytes)
            continue;
        if (bytes > memory->bytes - first)
            return false;
        return memory->granule == 0 || bytes_mapped(memory, first, bytes);
    }
    return false;
}

/* Are [address, address + count * bytes) all inside one allocation? An empty array always is. */
static bool inside(const quire__sim_memory *memory, const void *address, int64_t count, size_t bytes)
{
    return count <= 0 || (uint64_t)count <= quire__sim_reach(memory, address) / bytes;
}

static bool tensor_inside(const quire__sim_memory *memory, const quire_tensor *tensor, int64_t tokens, int32_t heads,
                          int32_t head_dim)
{
    int64_t elements = (tokens - 1) * tensor->token_stride + (heads - 1) * tensor->head_stride + head_dim;
    return tokens <= 0 || inside(memory, tensor->data, elements, quire__dtype_bytes(tensor->dtype));
}

/* The blocks from an arena's start to the end of its allocation. */
typedef struct arena_bounds {
    const quire__sim_memory *memory; /* the allocation; NULL: none */
    size_t first;                    /* the arena's first byte in it */
    size_t stride;
    int64_t count;
} arena_bounds;

static arena_bounds arena_of(const quire__sim_memory *memory, const void *arena, int64_t block_stride)
{
    while (memory != NULL && (size_t)((uintptr_t)arena - (uintptr_t)memory->base) >= memory->bytes)
        memory = memory->next;
    if (memory == NULL || block_stride <= 0)
        return (arena_bounds){0};
    size_t first = (size_t)((const unsigned char *)arena - (const unsigned char *)memory->base);
    return (arena_bounds){memory, first, (size_t)block_stride, (int64_t)((memory->bytes - first) / (size_t)block_stride)};
}

static bool block_there(const arena_bounds *arena, int64_t block)
{
    if (block < 0 || block >= arena->count)
        return false;
    return arena->memory->granule == 0 ||
           bytes_mapped(arena->memory, arena->first + (size_t)block * arena->stride, arena->stride);
}

/* Bytes from the arena's start on; the arena is looked up with a stride of 1. */
static bool bytes_there(const arena_bounds *arena, int64_t offset, int64_t bytes)
{
    return offset >= 0 && bytes <= arena->count && offset <= arena->count - bytes &&
           (arena->memory->granule == 0 || bytes_mapped(arena->memory, arena->first + (size_t)offset, (size_t)bytes));
}

static const char *rope_bounds(const quire__sim_memory *memory, const quire__append_args *args)
{
    const quire__rope *rope = &args->rope;
    if (rope->table == NULL)
        return NULL;
    if (!inside(memory, rope->positions, args->tokens, sizeof *rope->positions))
        return "append: positions";
    for (int32_t i = 0; i < args->tokens; i++)
        if (rope->positions[i] >= 0 &&
            !inside(memory, rope->table, ((int64_t)rope->positions[i] + 1) * rope->dims, sizeof *rope->table))
            return "append: a position past the rotary table";
    if (rope->q.data == NULL)
        return NULL;
    return tensor_inside(memory, &rope->q, args->tokens, (int32_t)rope->q.heads, args->pages.head_dim) &&
                   tensor_inside(memory, &rope->q_out, args->tokens, (int32_t)rope->q.heads, args->pages.head_dim)
               ? NULL
               : "append: q or q_out";
}

static const char *append_bounds(const quire__sim_memory *memory, const quire__append_args *args)
{
    const quire__pages *pages = &args->pages;
    if (!inside(memory, args->slots, args->tokens, sizeof *args->slots))
        return "append: slots";
    int32_t k_dim = pages->value_dim > 0 ? pages->value_dim : pages->head_dim;
    int32_t v_dim = pages->value_dim > 0 ? pages->head_dim - pages->value_dim : pages->head_dim;
    if (!tensor_inside(memory, &args->k, args->tokens, pages->kv_heads, k_dim) ||
        (v_dim > 0 && !tensor_inside(memory, &args->v, args->tokens, pages->kv_heads, v_dim)))
        return "append: k or v";
    arena_bounds arena = arena_of(memory, pages->arena, pages->block_stride);
    for (int32_t i = 0; i < args->tokens; i++)
        if (args->slots[i] >= 0 && !block_there(&arena, args->slots[i] / pages->block_tokens))
            return "append: a slot past the arena or without memory";
    return rope_bounds(memory, args);
}

static const char *convert_bounds(const quire__sim_memory *memory, const quire__convert_args *args)
{
    if (!inside(memory, args->pairs, args->count, sizeof *args->pairs))
        return "convert: pairs";
    arena_bounds from = arena_of(memory, args->from.arena, args->from.block_stride);
    arena_bounds to = arena_of(memory, args->to.arena, args->to.block_stride);
    for (int32_t i = 0; i < args->count; i++)
        if (!block_there(&from, args->pairs[i].source) || !block_there(&to, args->pairs[i].destination))
            return "convert: a block past the arena or without memory";
    return NULL;
}

static const char *block_copy_bounds(const quire__sim_memory *memory, const quire__block_copy_args *args)
{
    if (!inside(memory, args->pairs, args->count, sizeof *args->pairs))
        return "block copy: pairs";
    arena_bounds arena = arena_of(memory, args->arena, args->block_stride);
    for (int32_t i = 0; i < args->count; i++)
        if (!block_there(&arena, args->pairs[i].source) || !block_there(&arena, args->pairs[i].destination))
            return "block copy: a block past the arena or without memory";
    if (args->tokens == NULL)
        return args->block_bytes > args->block_stride ? "block copy: more than a block" : NULL;
    if (!inside(memory, args->tokens, args->count, sizeof *args->tokens))
        return "block copy: tokens";
    for (int32_t i = 0; i < args->count; i++)
        if (args->tokens[i] < 0 || args->tokens[i] > args->most_tokens)
            return "block copy: more tokens than it was told";
    if (args->rows * args->row_stride > args->block_stride || args->most_tokens * args->token_bytes > args->row_stride)
        return "block copy: rows past the block";
    return NULL;
}

static const char *pieces_bounds(const quire__sim_memory *memory, const quire__pieces_args *args)
{
    arena_bounds arena = arena_of(memory, args->arena, 1);
    if (!inside(memory, args->offsets, args->count, sizeof *args->offsets))
        return "gather or scatter: offsets";
    if (!inside(memory, args->staging, args->count * args->piece_bytes, 1))
        return "gather or scatter: staging";
    for (int32_t i = 0; i < args->count; i++)
        if (!bytes_there(&arena, args->offsets[i], args->piece_bytes))
            return "gather or scatter: a piece past the arena or without memory";
    return NULL;
}

static const char *table_bounds(const quire__sim_memory *memory, const quire__table_args *args)
{
    int64_t entries = (int64_t)(quire__sim_reach(memory, args->table) / sizeof *args->table);
    if (!inside(memory, args->changes, args->count, sizeof *args->changes))
        return "table: changes";
    for (int32_t i = 0; i < args->count; i++) {
        int64_t entry = (int64_t)args->changes[i].row * args->table_stride + args->changes[i].column;
        if (entry < 0 || entry >= entries)
            return "table: an entry past the table";
    }
    return NULL;
}

/* What attention's arrays must hold for all of its tokens, looked up once. */
typedef struct attend_bounds {
    const quire__attend_args *args;
    arena_bounds arena;
    int64_t entries; /* of the block table */
    int64_t rows;    /* of token_rows */
} attend_bounds;

/* The arrays up to the last token that is named. */
static const char *attend_begin(const quire__sim_memory *memory, const quire__attend_args *args, int64_t last,
                                attend_bounds *bounds)
{
    const quire__pages *pages = &args->pages;

    if (last >= 0 && !inside(memory, args->positions, last + 1, sizeof *args->positions))
        return "attention: positions";
    if (!tensor_inside(memory, &args->q, last + 1, args->query_heads, pages->head_dim) ||
        !tensor_inside(memory, &args->out, last + 1, args->query_heads,
                       pages->value_dim > 0 ? pages->value_dim : pages->head_dim))
        return "attention: q or out";
    if (args->sinks != NULL && !inside(memory, args->sinks, args->query_heads, sizeof *args->sinks))
        return "attention: sinks";
    *bounds = (attend_bounds){.args = args,
                              .arena = arena_of(memory, pages->arena, pages->block_stride),
                              .entries = (int64_t)(quire__sim_reach(memory, args->block_table) / sizeof(int32_t)),
                              .rows = (int64_t)(quire__sim_reach(memory, args->token_rows) / sizeof(int32_t))};
    return NULL;
}

/* Every page of a token's window. */
static const char *token_bounds(const attend_bounds *bounds, int64_t token, const int32_t *row)
{
    const quire__attend_args *args = bounds->args;
    int32_t block_tokens = args->pages.block_tokens, position = args->positions[token];

    if (row == NULL && token >= bounds->rows)
        return "attention: token_rows";
    if (position < 0)
        return NULL;
    int64_t entry = (int64_t)(row != NULL ? *row : args->token_rows[token]) * args->table_stride;
    if (entry < 0 || position / block_tokens >= args->table_stride || entry + position / block_tokens >= bounds->entries)
        return "attention: a row or a position past the block table";
    int32_t begin = args->window > 0 && position >= args->window ? position - args->window + 1 : 0;
    for (int32_t i = begin / block_tokens; i <= position / block_tokens; i++)
        if (!block_there(&bounds->arena, args->block_table[entry + i]))
            return "attention: a block past the arena or without memory";
    return NULL;
}

static const char *tile_bounds(const quire__sim_memory *memory, const quire__attend_args *args)
{
    attend_bounds bounds;
    int64_t last = -1;

    if (!inside(memory, args->tiles, args->count, sizeof *args->tiles))
        return "attention: tiles";
    for (int32_t i = 0; i < args->count; i++) {
        int64_t end = (int64_t)args->tiles[i].first_token + args->tiles[i].tokens - 1;
        if (args->tiles[i].tokens > 0 && args->tiles[i].first_token < 0)
            return "attention: a tile before the first token";
        last = args->tiles[i].tokens > 0 && end > last ? end : last;
    }
    const char *fault = attend_begin(memory, args, last, &bounds);
    for (int32_t i = 0; i < args->count && fault == NULL; i++)
        for (int32_t j = 0; j < args->tiles[i].tokens && fault == NULL; j++)
            fault = token_bounds(&bounds, (int64_t)args->tiles[i].first_token + j, &args->tiles[i].row);
    return fault;
}

static const char *select_bounds(const quire__sim_memory *memory, const quire__attend_args *args)
{
    attend_bounds bounds;
    int64_t last = args->select == NULL && args->count > 0 ? args->first_token + args->count - 1 : -1;

    if (args->select != NULL && !inside(memory, args->select, args->count, sizeof *args->select))
        return "attention: select";
    for (int32_t i = 0; args->select != NULL && i < args->count; i++) {
        if (args->select[i] < 0)
            return "attention: a token before the first";
        last = args->select[i] > last ? args->select[i] : last;
    }
    if (args->select == NULL && args->count > 0 && args->first_token < 0)
        return "attention: a token before the first";
    const char *fault = attend_begin(memory, args, last, &bounds);
    for (int32_t i = 0; i < args->count && fault == NULL; i++)
        fault = token_bounds(&bounds, args->select != NULL ? args->select[i] : args->first_token + i, NULL);
    return fault;
}

static const char *pack_bounds(const quire__sim_memory *memory, const quire__pack_args *args)
{
    arena_bounds arena = arena_of(memory, args->arena, 1);
    int64_t units = args->unit_elements > 0
                        ? (args->page_bytes / 2 + args->unit_elements - 1) / args->unit_elements * args->count
                        : 0;
    if (!inside(memory, args->offsets, args->count, sizeof *args->offsets))
        return "pack or unpack: offsets";
    if (!inside(memory, args->packed, units * args->slot_bytes, 1) ||
        !inside(memory, args->status, units, sizeof *args->status) ||
        (args->page_status != NULL && !inside(memory, args->page_status, args->count, sizeof *args->page_status)))
        return "pack or unpack: packed or status";
    for (int32_t i = 0; i < args->count; i++)
        if (!bytes_there(&arena, args->offsets[i], args->page_bytes))
            return "pack or unpack: a page past the arena or without memory";
    return NULL;
}

static const char *shared_bounds(const quire__sim_memory *memory, const quire__shared_args *args)
{
    const quire__attend_args *attend = &args->attend;
    const char *fault = select_bounds(memory, attend);
    int32_t members = 0;
    if (fault != NULL)
        return fault;
    if (!inside(memory, args->groups, args->group_count, sizeof *args->groups) ||
        !inside(memory, args->prefix_tokens, attend->count, sizeof *args->prefix_tokens))
        return "shared attention: groups or prefix_tokens";
    for (int32_t i = 0; i < args->group_count; members += args->groups[i++].members) {
        if (args->groups[i].first != members || args->groups[i].members < 1 ||
            args->groups[i].members > args->most_members || args->groups[i].members > attend->count - members)
            return "shared attention: groups that are not its members in order";
        for (int32_t j = members; j < members + args->groups[i].members; j++) {
            int32_t prefix = args->prefix_tokens[j], tail = attend->positions[attend->select[j]] + 1 - prefix;
            const int32_t *first = attend->block_table + (int64_t)attend->token_rows[attend->select[members]] *
                                                             attend->table_stride;
            const int32_t *row = attend->block_table + (int64_t)attend->token_rows[attend->select[j]] *
                                                           attend->table_stride;
            if (prefix != args->prefix_tokens[members] || prefix % attend->pages.block_tokens != 0 ||
                prefix > args->longest_prefix || tail < 1 || tail > args->longest_tail)
                return "shared attention: a prefix that is not its group's, or a tail of another length";
            for (int32_t b = 0; b < prefix / attend->pages.block_tokens; b++)
                if (row[b] != first[b])
                    return "shared attention: a prefix that is not shared";
        }
    }
    return members == attend->count ? NULL : "shared attention: members of no group";
}

const char *quire__sim_bounds(const quire__sim_memory *memory, quire__kernel kernel, const quire__kernel_args *args)
{
    switch (kernel) {
    case QUIRE__KERNEL_APPEND:
    case QUIRE__KERNEL_LATENT_APPEND:
        return append_bounds(memory, &args->append);
    case QUIRE__KERNEL_CONVERT:
        return convert_bounds(memory, &args->convert);
    case QUIRE__KERNEL_BLOCK_COPY:
        return block_copy_bounds(memory, &args->block_copy);
    case QUIRE__KERNEL_GATHER:
    case QUIRE__KERNEL_SCATTER:
        return pieces_bounds(memory, &args->pieces);
    case QUIRE__KERNEL_TABLE:
        return table_bounds(memory, &args->table);
    case QUIRE__KERNEL_ATTEND_DECODE:
    case QUIRE__KERNEL_LATENT_ATTEND:
        return select_bounds(memory, &args->attend);
    case QUIRE__KERNEL_ATTEND_SHARED:
        return shared_bounds(memory, &args->shared);
    case QUIRE__KERNEL_PACK:
    case QUIRE__KERNEL_UNPACK:
        return pack_bounds(memory, &args->pack);
    default:
        return tile_bounds(memory, &args->attend);
    }
}
