/* test_prefix_groups.c: groups of rows that begin with the same blocks are what they say and the best there are, and
 * attention that reads a shared prefix once gives the numbers that it gives without. */
#include "support/testing.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "cache/cache.h"

enum { MOST_ROWS = 64, MOST_BLOCKS = 40 };

/* ---- the search ---------------------------------------------------------------------------------------------- */

typedef struct batch {
    quire__row rows[MOST_ROWS];
    int32_t blocks[MOST_ROWS][MOST_BLOCKS];
    uint32_t count, block_tokens;
} batch;

/* Rows that begin like an earlier one and go on alone. Some have more than one new token. */
static void make_batch(batch *b, uint64_t *seed, uint32_t count)
{
    int32_t next = 1;
    b->count = count;
    b->block_tokens = 1u << quire__random(seed) % 5;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t blocks = 1 + (uint32_t)(quire__random(seed) % (MOST_BLOCKS - 1)), same = 0;
        if (i > 0 && quire__random(seed) % 4 != 0) {
            uint32_t like = (uint32_t)(quire__random(seed) % i);
            same = (uint32_t)(quire__random(seed) % b->rows[like].block_count);
            same = same < blocks ? same : blocks - 1; /* the last block is written, and so nobody else's */
            memcpy(b->blocks[i], b->blocks[like], same * sizeof(int32_t));
        }
        for (uint32_t j = same; j < blocks; j++)
            b->blocks[i][j] = next++;
        b->rows[i] = (quire__row){.blocks = b->blocks[i],
                                  .block_count = blocks,
                                  .length = (blocks - 1) * b->block_tokens + 1 +
                                            (uint32_t)(quire__random(seed) % b->block_tokens),
                                  .added = quire__random(seed) % 8 == 0 ? 2 : 1};
    }
}

static uint32_t shared_by(const batch *b, const uint32_t *rows, uint32_t count)
{
    uint32_t common = MOST_BLOCKS;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t limit = (b->rows[rows[i]].length - 1) / b->block_tokens, j = 0;
        while (j < limit && j < common && b->blocks[rows[i]][j] == b->blocks[rows[0]][j])
            j++;
        common = j < common ? j : common;
    }
    return common;
}

static void check_groups(const batch *b, const quire__prefixes *p)
{
    bool seen[MOST_ROWS] = {false};
    uint32_t next = 0, decodes = 0;
    uint64_t saved = 0;
    for (uint32_t i = 0; i < b->count; i++)
        decodes += b->rows[i].added == 1;
    assert_int_equal(p->count, decodes);
    for (uint32_t i = 0; i < p->count; i++) {
        assert_false(seen[p->rows[i]]);
        seen[p->rows[i]] = true;
        assert_int_equal(b->rows[p->rows[i]].added, 1);
    }
    for (uint32_t g = 0; g < p->group_count; g++) {
        const quire_prefix *group = &p->groups[g];
        assert_int_equal(group->first, next);
        assert_true(group->rows >= 2 && group->blocks >= 1);
        assert_int_equal(shared_by(b, p->rows + group->first, group->rows), group->blocks);
        saved += (uint64_t)(group->rows - 1) * group->blocks;
        next += group->rows;
    }
    assert_true(next <= p->count);
    assert_int_equal(saved * b->block_tokens, p->saved);
}

/* By block table, of two that begin alike the shorter first. */
static bool sorted_before(const batch *b, uint32_t x, uint32_t y)
{
    uint32_t pair[2] = {x, y}, common = shared_by(b, pair, 2);
    uint32_t xs = (b->rows[x].length - 1) / b->block_tokens, ys = (b->rows[y].length - 1) / b->block_tokens;
    return common == xs || common == ys ? xs < ys : b->blocks[x][common] < b->blocks[y][common];
}

/* The best of all ways to cut the sorted rows into runs: bit i of `cuts` is a cut behind row i. */
static uint64_t best_runs(const batch *b)
{
    uint32_t order[8], count = 0;
    uint64_t best = 0;
    for (uint32_t i = 0; i < b->count; i++) {
        uint32_t at = count;
        if (b->rows[i].added != 1)
            continue;
        for (; at > 0 && sorted_before(b, i, order[at - 1]); at--)
            order[at] = order[at - 1];
        order[at] = i;
        count++;
    }
    for (uint32_t cuts = 0; count > 0 && cuts < 1u << (count - 1); cuts++) {
        uint64_t saved = 0;
        for (uint32_t first = 0, i = 0; i < count; i++)
            if (i + 1 == count || (cuts >> i & 1)) {
                saved += (uint64_t)(i - first) * shared_by(b, order + first, i - first + 1);
                first = i + 1;
            }
        best = saved > best ? saved : best;
    }
    return best;
}

static void no_cut_into_runs_saves_more_than_the_one_found(void **state)
{
    (void)state;
    uint64_t seed = test_seed("prefix groups", 61);
    quire__prefixes p = {0};
    batch *b = malloc(sizeof *b);
    assert_int_equal(quire__prefixes_open(&p, &quire__allocator_default, MOST_ROWS), QUIRE_OK);
    for (int round = 0; round < 400; round++) {
        make_batch(b, &seed, 1 + (uint32_t)(quire__random(&seed) % 7));
        quire__prefixes_find(&p, b->rows, b->count, b->block_tokens);
        check_groups(b, &p);
        assert_int_equal(p.saved, best_runs(b) * b->block_tokens);
    }
    quire__prefixes_close(&p, &quire__allocator_default);
    free(b);
}

static void groups_of_many_rows_are_what_they_say(void **state)
{
    (void)state;
    uint64_t seed = test_seed("prefix groups, many", 62);
    quire__prefixes p = {0};
    batch *b = malloc(sizeof *b);
    assert_int_equal(quire__prefixes_open(&p, &quire__allocator_default, MOST_ROWS), QUIRE_OK);
    for (int round = 0; round < 200; round++) {
        make_batch(b, &seed, (uint32_t)(quire__random(&seed) % (MOST_ROWS + 1)));
        quire__prefixes_find(&p, b->rows, b->count, b->block_tokens);
        check_groups(b, &p);
    }
    quire__prefixes_close(&p, &quire__allocator_default);
    free(b);
}

/* ---- through the cache --------------------------------------------------------------------------------------- */

enum { HEADS = 4, KV_HEADS = 2, DIM = 64, BLOCK_TOKENS = 8, SEQUENCES = 6 };

static quire_cache *open_cache(void)
{
    static const quire_group group = {.layers = 1, .kv_heads = KV_HEADS, .head_dim = DIM, .query_heads = HEADS,
                                      .dtype = QUIRE_DTYPE_BF16};
    quire_options options;
    quire_cache *cache;
    assert_int_equal(quire_options_init(&options, sizeof options), QUIRE_OK);
    options.groups = &group;
    options.group_count = 1;
    options.device = "host";
    options.block_tokens = BLOCK_TOKENS;
    options.device_bytes = 1 << 20;
    options.host_bytes = 0;
    options.max_sequences = 16;
    options.threads = 1;
    assert_int_equal(quire_cache_open(&cache, &options), QUIRE_OK);
    return cache;
}

static void fill(float *values, size_t count, uint64_t *seed)
{
    for (size_t i = 0; i < count; i++)
        values[i] = (float)(quire__random(seed) >> 40) * 0x1p-23f - 1.0f;
}

/* A step of all the sequences, `count` new tokens each, of the given kind of K, V and q. */
static quire_step *run(quire_cache *cache, const quire_seq *seqs, uint32_t sequences, uint32_t count, uint64_t seed,
                       float *out)
{
    static float k[64 * KV_HEADS * DIM], v[64 * KV_HEADS * DIM], q[64 * HEADS * DIM];
    int32_t tokens[64];
    quire_step *step;
    fill(k, sizeof k / sizeof k[0], &seed), fill(v, sizeof v / sizeof v[0], &seed), fill(q, sizeof q / sizeof q[0], &seed);
    for (uint32_t i = 0; i < 64; i++)
        tokens[i] = (int32_t)(quire__random(&seed) % 1000);
    assert_int_equal(quire_step_begin(cache, NULL, &step), QUIRE_OK);
    for (uint32_t i = 0; i < sequences; i++)
        assert_int_equal(quire_step_add(step, seqs[i], tokens + i * count, count), QUIRE_OK);
    assert_int_equal(quire_step_submit(step), QUIRE_OK);
    const quire_view *view = quire_step_view(step, 0);
    quire_tensor kt = {k, QUIRE_DTYPE_F32, KV_HEADS, KV_HEADS * DIM, DIM}, vt = {v, QUIRE_DTYPE_F32, KV_HEADS, KV_HEADS * DIM, DIM};
    quire_tensor qt = {q, QUIRE_DTYPE_F32, HEADS, HEADS * DIM, DIM}, ot = {out, QUIRE_DTYPE_F32, HEADS, HEADS * DIM, DIM};
    assert_int_equal(quire_append(view, 0, &kt, &vt), QUIRE_OK);
    assert_int_equal(quire_attend(view, 0, &qt, &ot, 0.125f), QUIRE_OK);
    return step;
}

/* Two families of forks, and one that stands alone; then everyone decodes. */
static void decode_family(uint64_t share_least, float *out)
{
    quire_cache *cache = open_cache();
    static float unused[64 * HEADS * DIM];
    quire_seq seqs[SEQUENCES];
    const quire_prefix *groups;
    const uint32_t *rows;
    size_t count = 9;
    cache->share_least = share_least;
    for (int i = 0; i < SEQUENCES; i += 3)
        assert_int_equal(quire_seq_open(cache, NULL, &seqs[i]), QUIRE_OK);
    assert_int_equal(quire_step_commit(run(cache, &seqs[0], 1, 45, 1, unused)), QUIRE_OK);
    assert_int_equal(quire_step_commit(run(cache, &seqs[3], 1, 33, 2, unused)), QUIRE_OK);
    assert_int_equal(quire_seq_fork(cache, seqs[0], &seqs[1]), QUIRE_OK);
    assert_int_equal(quire_seq_fork(cache, seqs[0], &seqs[2]), QUIRE_OK);
    assert_int_equal(quire_seq_fork(cache, seqs[3], &seqs[4]), QUIRE_OK);
    assert_int_equal(quire_seq_open(cache, NULL, &seqs[5]), QUIRE_OK);
    for (uint64_t i = 0; i < 12; i++) {
        quire_step *step = run(cache, seqs, SEQUENCES, 1, 10 + i, out + i * SEQUENCES * HEADS * DIM);
        assert_int_equal(quire_step_prefixes(step, &groups, &count, &rows), QUIRE_OK);
        assert_int_equal(count, 2);
        for (size_t g = 0; g < count; g++) {
            bool first = rows[groups[g].first] < 3;
            assert_int_equal(groups[g].rows, first ? 3 : 2);
            assert_int_equal(groups[g].blocks, first ? 45 / BLOCK_TOKENS : 33 / BLOCK_TOKENS);
        }
        assert_int_equal(rows[5], 5);
        assert_int_equal(step->shared.group_count, share_least > 0 && share_least < 1000 ? 2 : 0);
        assert_int_equal(quire_step_commit(step), QUIRE_OK);
        assert_int_equal(quire_step_prefixes(step, &groups, &count, &rows), QUIRE_ESTATE);
    }
    quire_cache_close(cache);
}

static void attention_over_shared_prefixes_gives_every_row_its_own(void **state)
{
    (void)state;
    size_t bytes = 12 * SEQUENCES * HEADS * DIM * sizeof(float);
    float *alone = malloc(bytes), *shared = malloc(bytes);
    decode_family(0, alone);
    decode_family(1, shared); /* on the host the same arithmetic by other lists: the bits stay */
    assert_memory_equal(alone, shared, bytes);
    decode_family(100000, shared); /* too little to save */
    assert_memory_equal(alone, shared, bytes);
    free(alone);
    free(shared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_cut_into_runs_saves_more_than_the_one_found),
        cmocka_unit_test(groups_of_many_rows_are_what_they_say),
        cmocka_unit_test(attention_over_shared_prefixes_gives_every_row_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
