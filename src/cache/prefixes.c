/* prefixes.c: groups of rows that share their first blocks, such that reading those once for a group saves most.
 *
 * Rows are sorted by their block tables, so that rows with a common beginning are neighbours; common[i] is how many blocks
 * neighbours i and i + 1 share, of those that both have full and do not write. A group is a run of sorted rows, what it
 * shares is the least common[i] inside, and what it saves is (rows - 1) * that. With best[i] what the first i rows save,
 *
 *     best[i] = max(best[i - 1], best[j] + (i - j - 1) * least common of j .. i - 2)   over j < i - 1
 *
 * where j goes down only as long as something is shared. (Rows that are no neighbours could form a group around another
 * one, with less in common; that is given up for groups that are runs.)
 *
 * Block tables name slots, so equal entries are the same bytes, whatever tokens they hold. Cost: n log n comparisons, each
 * as long as what the two rows share, and for each row as many steps as rows share with it: where nothing is shared,
 * next to nothing. */
#include "cache/prefixes.h"

#include <stdbool.h>
#include <string.h>

#include "base/status.h"

quire_status quire__prefixes_open(quire__prefixes *prefixes, const quire__allocator *allocator, uint32_t max_rows)
{
    void *memory;

    prefixes->max_rows = max_rows;
    QUIRE__TRY(quire__memory_take(allocator, max_rows, sizeof(uint32_t), "prefixes", &memory));
    prefixes->rows = memory;
    QUIRE__TRY(quire__memory_take(allocator, max_rows, sizeof(uint32_t), "prefixes", &memory));
    prefixes->scratch = memory;
    QUIRE__TRY(quire__memory_take(allocator, max_rows, sizeof(uint32_t), "prefixes", &memory));
    prefixes->common = memory;
    QUIRE__TRY(quire__memory_take(allocator, max_rows + 1, sizeof(uint64_t), "prefixes", &memory));
    prefixes->best = memory;
    QUIRE__TRY(quire__memory_take(allocator, max_rows + 1, sizeof(uint32_t), "prefixes", &memory));
    prefixes->begin = memory;
    QUIRE__TRY(quire__memory_take(allocator, max_rows / 2 + 1, sizeof(quire_prefix), "prefixes", &memory));
    prefixes->groups = memory;
    return QUIRE_OK;
}

void quire__prefixes_close(quire__prefixes *prefixes, const quire__allocator *allocator)
{
    quire__memory_give(allocator, prefixes->groups);
    quire__memory_give(allocator, prefixes->begin);
    quire__memory_give(allocator, prefixes->best);
    quire__memory_give(allocator, prefixes->common);
    quire__memory_give(allocator, prefixes->scratch);
    quire__memory_give(allocator, prefixes->rows);
}

/* ---- order --------------------------------------------------------------------------------------------------- */

/* Full blocks before the one that the row's new token is written to. */
static uint32_t read_only_blocks(const quire__row *row, uint32_t block_tokens)
{
    return (row->length - 1) / block_tokens;
}

/* How many blocks both begin with. Equal runs are skipped many at a time. */
static uint32_t common_blocks(const quire__row *a, const quire__row *b, uint32_t block_tokens)
{
    enum { RUN = 64 };
    uint32_t most = read_only_blocks(a, block_tokens), other = read_only_blocks(b, block_tokens), i = 0;

    most = other < most ? other : most;
    while (i + RUN <= most && memcmp(a->blocks + i, b->blocks + i, RUN * sizeof(int32_t)) == 0)
        i += RUN;
    while (i < most && a->blocks[i] == b->blocks[i])
        i++;
    return i;
}

static bool comes_before(const quire__row *a, const quire__row *b, uint32_t block_tokens)
{
    uint32_t a_blocks = read_only_blocks(a, block_tokens), b_blocks = read_only_blocks(b, block_tokens);
    uint32_t common = common_blocks(a, b, block_tokens);

    if (common == a_blocks || common == b_blocks)
        return a_blocks < b_blocks;
    return a->blocks[common] < b->blocks[common];
}

/* Merges runs of `width`, from `from` to `to`. */
static void merge_runs(const quire__row *rows, uint32_t block_tokens, const uint32_t *from, uint32_t *to, uint32_t count,
                       uint32_t width)
{
    for (uint32_t begin = 0; begin < count; begin += 2 * width) {
        uint32_t middle = begin + width < count ? begin + width : count;
        uint32_t end = middle + width < count ? middle + width : count;
        uint32_t left = begin, right = middle;
        for (uint32_t i = begin; i < end; i++) {
            bool take_right = left == middle ||
                              (right < end && comes_before(&rows[from[right]], &rows[from[left]], block_tokens));
            to[i] = take_right ? from[right++] : from[left++];
        }
    }
}

static void sort_rows(quire__prefixes *prefixes, const quire__row *rows, uint32_t block_tokens)
{
    for (uint32_t width = 1; width < prefixes->count; width *= 2) {
        merge_runs(rows, block_tokens, prefixes->rows, prefixes->scratch, prefixes->count, width);
        uint32_t *sorted = prefixes->scratch;
        prefixes->scratch = prefixes->rows;
        prefixes->rows = sorted;
    }
}

/* ---- groups -------------------------------------------------------------------------------------------------- */

/* The groups of the best cut, from the last row back. */
static void take_groups(quire__prefixes *prefixes)
{
    uint32_t count = 0;

    for (uint32_t end = prefixes->count; end > 0; end = prefixes->begin[end]) {
        const uint32_t first = prefixes->begin[end];
        uint32_t blocks = UINT32_MAX;
        for (uint32_t i = first; i + 1 < end; i++)
            blocks = prefixes->common[i] < blocks ? prefixes->common[i] : blocks;
        if (end - first > 1)
            prefixes->groups[count++] = (quire_prefix){.first = first, .rows = end - first, .blocks = blocks};
    }
    for (uint32_t i = 0; i < count / 2; i++) {
        const quire_prefix other = prefixes->groups[i];
        prefixes->groups[i] = prefixes->groups[count - 1 - i];
        prefixes->groups[count - 1 - i] = other;
    }
    prefixes->group_count = count;
}

/* Gives what the groups save, in blocks. */
static uint64_t find_groups(quire__prefixes *prefixes)
{
    uint64_t *best = prefixes->best;

    best[0] = 0;
    for (uint32_t end = 1; end <= prefixes->count; end++) {
        uint32_t least = UINT32_MAX;
        best[end] = best[end - 1];
        prefixes->begin[end] = end - 1;
        for (uint32_t first = end - 1; first-- > 0;) {
            least = prefixes->common[first] < least ? prefixes->common[first] : least;
            if (least == 0)
                break;
            const uint64_t saved = best[first] + (uint64_t)(end - first - 1) * least;
            if (saved > best[end]) {
                best[end] = saved;
                prefixes->begin[end] = first;
            }
        }
    }
    take_groups(prefixes);
    return best[prefixes->count];
}

/* Members of the groups first, in the groups' order. */
static void move_members_first(quire__prefixes *prefixes)
{
    uint32_t group = 0, members = 0, others = 0;

    for (uint32_t i = 0; i < prefixes->count; i++) {
        while (group < prefixes->group_count && i >= prefixes->groups[group].first + prefixes->groups[group].rows)
            group++;
        bool member = group < prefixes->group_count && i >= prefixes->groups[group].first;
        if (member)
            prefixes->rows[members++] = prefixes->rows[i];
        else
            prefixes->scratch[others++] = prefixes->rows[i];
    }
    memcpy(prefixes->rows + members, prefixes->scratch, others * sizeof *prefixes->rows);
    for (uint32_t i = 0, first = 0; i < prefixes->group_count; first += prefixes->groups[i++].rows)
        prefixes->groups[i].first = first;
}

void quire__prefixes_find(quire__prefixes *prefixes, const quire__row *rows, uint32_t count, uint32_t block_tokens)
{
    prefixes->count = prefixes->group_count = 0;
    for (uint32_t i = 0; i < count; i++)
        if (rows[i].added == 1)
            prefixes->rows[prefixes->count++] = i;
    sort_rows(prefixes, rows, block_tokens);
    for (uint32_t i = 0; i + 1 < prefixes->count; i++)
        prefixes->common[i] = common_blocks(&rows[prefixes->rows[i]], &rows[prefixes->rows[i + 1]], block_tokens);
    prefixes->saved = find_groups(prefixes) * block_tokens;
    move_members_first(prefixes);
}
