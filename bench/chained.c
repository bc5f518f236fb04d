#include "chained.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "kit.h"

typedef struct entry {
    uint64_t hash; /* 0: empty */
    int32_t block;
} entry;

struct bench_chained {
    entry *entries; /* at most half of them taken */
    uint64_t mask, key;
    uint32_t block_tokens;
    int32_t next_block;
};

bench_chained *bench_chained_open(size_t blocks, uint32_t block_tokens)
{
    bench_chained *table = bench_alloc(sizeof *table);
    uint64_t size = 64;

    while (size < 2 * blocks)
        size *= 2;
    *table = (bench_chained){.mask = size - 1, .key = 12345, .block_tokens = block_tokens};
    table->entries = bench_alloc(size * sizeof *table->entries);
    memset(table->entries, 0, size * sizeof *table->entries);
    return table;
}

void bench_chained_close(bench_chained *table)
{
    free(table->entries);
    free(table);
}

static entry *find(const bench_chained *table, uint64_t hash)
{
    uint64_t at = hash & table->mask;

    while (table->entries[at].hash != 0 && table->entries[at].hash != hash)
        at = (at + 1) & table->mask;
    return &table->entries[at];
}

static uint64_t next_hash(const bench_chained *table, uint64_t hash, const int32_t *tokens)
{
    return quire__hash_tokens(table->key, hash, tokens, table->block_tokens) | 1;
}

void bench_chained_insert(bench_chained *table, const int32_t *tokens, size_t count)
{
    uint64_t hash = 0;

    for (size_t i = 0; i + table->block_tokens <= count; i += table->block_tokens) {
        hash = next_hash(table, hash, tokens + i);
        entry *at = find(table, hash);
        if (at->hash == 0)
            *at = (entry){hash, table->next_block++};
    }
}

size_t bench_chained_match(const bench_chained *table, const int32_t *tokens, size_t count, int32_t *blocks)
{
    uint64_t hash = 0;
    size_t found = 0;

    for (size_t i = 0; i + table->block_tokens <= count; i += table->block_tokens) {
        hash = next_hash(table, hash, tokens + i);
        const entry *at = find(table, hash);
        if (at->hash == 0)
            break;
        blocks[found++] = at->block;
    }
    return found;
}
