/* Symbols stay at their positions, linked to their living neighbours; a merge gives the left one the new id
 * and unlinks the right one. Candidates wait in a binary heap ordered by (rank, position). A candidate
 * remembers the two ids that it was made for: when the symbols at its position are no longer these, some merge
 * has taken one of them and the candidate is dropped when it surfaces. Each merge pops one candidate and adds
 * at most two, so the heap never holds more than 2 * count.
 */
#include "bpe.h"

#include <stdlib.h>

#define BPE_TAKEN (-2)            /* the symbol has been merged into its left neighbour */

typedef struct bpe_candidate {
    int32_t rank;
    int32_t position;             /* of the left symbol */
    int32_t left, right, result;
} bpe_candidate;

typedef struct work {
    bpe_find_fn find;
    const void *rules;
    int32_t *ids, *previous, *next;
    bpe_candidate *heap;
    size_t heap_count;
} work;

static size_t slot_of(const bpe_table *table, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    key *= 0x9e3779b97f4a7c15u;
    key ^= key >> 32;
    size_t slot = (size_t)key & table->mask;
    while (table->slots[slot].left != BPE_NO_TOKEN &&
           (table->slots[slot].left != left || table->slots[slot].right != right))
        slot = (slot + 1) & table->mask;
    return slot;
}

int bpe_table_init(bpe_table *table, size_t merges)
{
    size_t size = 16;
    while (size < 2 * merges) size *= 2;
    table->slots = malloc(size * sizeof *table->slots);
    if (!table->slots) return -1;
    table->mask = size - 1;
    for (size_t i = 0; i < size; i++) table->slots[i].left = BPE_NO_TOKEN;
    return 0;
}

void bpe_table_free(bpe_table *table)
{
    free(table->slots);
    *table = (bpe_table){ 0 };
}

void bpe_table_add(bpe_table *table, bpe_merge merge)
{
    bpe_merge *slot = &table->slots[slot_of(table, merge.left, merge.right)];
    if (slot->left == BPE_NO_TOKEN) *slot = merge;
}

bool bpe_table_find(const void *rules, int32_t left, int32_t right, bpe_merge *merge)
{
    const bpe_table *table = rules;
    *merge = table->slots[slot_of(table, left, right)];
    return merge->left != BPE_NO_TOKEN;
}

void bpe_scratch_free(bpe_scratch *scratch)
{
    free(scratch->links);
    free(scratch->heap);
    *scratch = (bpe_scratch){ 0 };
}

static int scratch_reserve(bpe_scratch *scratch, size_t count)
{
    if (count <= scratch->capacity) return 0;
    size_t capacity = scratch->capacity ? scratch->capacity : 64;
    while (capacity < count) capacity *= 2;
    bpe_scratch_free(scratch);
    scratch->links = malloc(2 * capacity * sizeof *scratch->links);
    scratch->heap = malloc(2 * capacity * sizeof *scratch->heap);
    if (!scratch->links || !scratch->heap) {
        bpe_scratch_free(scratch);
        return -1;
    }
    scratch->capacity = capacity;
    return 0;
}

static bool before(const bpe_candidate *a, const bpe_candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->position < b->position;
}

static void heap_push(work *w, bpe_candidate item)
{
    size_t at = w->heap_count++;
    while (at && before(&item, &w->heap[(at - 1) / 2])) {
        w->heap[at] = w->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    w->heap[at] = item;
}

static bpe_candidate heap_pop(work *w)
{
    bpe_candidate top = w->heap[0], item = w->heap[--w->heap_count];
    size_t at = 0;
    for (size_t child = 1; child < w->heap_count; child = 2 * at + 1) {
        if (child + 1 < w->heap_count && before(&w->heap[child + 1], &w->heap[child])) child++;
        if (!before(&w->heap[child], &item)) break;
        w->heap[at] = w->heap[child];
        at = child;
    }
    w->heap[at] = item;
    return top;
}

/* Adds the merge of the symbol at `position` with its right neighbour, where there is one. */
static void consider(work *w, int32_t position)
{
    if (position < 0 || w->next[position] < 0) return;
    int32_t left = w->ids[position], right = w->ids[w->next[position]];
    if (left == BPE_NO_TOKEN || right == BPE_NO_TOKEN) return;
    bpe_merge merge;
    if (w->find(w->rules, left, right, &merge))
        heap_push(w, (bpe_candidate){ merge.rank, position, left, right, merge.result });
}

static void apply(work *w, const bpe_candidate *merge)
{
    int32_t position = merge->position, right = w->next[position];
    if (w->ids[position] != merge->left || right < 0 || w->ids[right] != merge->right) return;
    w->ids[position] = merge->result;
    w->ids[right] = BPE_TAKEN;
    w->next[position] = w->next[right];
    if (w->next[right] >= 0) w->previous[w->next[right]] = position;
    consider(w, w->previous[position]);
    consider(w, position);
}

int bpe_apply(bpe_find_fn find, const void *rules, bpe_scratch *scratch, int32_t *ids, size_t count,
              size_t *merged)
{
    if (scratch_reserve(scratch, count)) return -1;
    work w = { find, rules, ids, scratch->links, scratch->links + scratch->capacity, scratch->heap, 0 };
    for (size_t i = 0; i < count; i++) {
        w.previous[i] = (int32_t)i - 1;
        w.next[i] = i + 1 < count ? (int32_t)i + 1 : -1;
    }
    for (size_t i = 0; i < count; i++) consider(&w, (int32_t)i);
    while (w.heap_count) {
        bpe_candidate merge = heap_pop(&w);
        apply(&w, &merge);
    }
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (ids[i] >= 0) ids[kept++] = ids[i];
    *merged = kept;
    return 0;
}
