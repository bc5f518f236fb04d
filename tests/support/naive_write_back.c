/* naive_write_back.c: what write-back copies ahead of eviction, and what goes then. Written from the rules, as naive_book.c. */
#include "support/naive_write_back.h"

#include <string.h>

enum { DEVICE = QUIRE_TIER_DEVICE, HOST = QUIRE_TIER_HOST, PASSED = 64 };

/* ---- what goes ----------------------------------------------------------------------------------------------- */

static bool has_child_on_device(const naive_book *book, int b)
{
    for (int child = 0; child < NAIVE_BLOCKS; child++)
        if (book->block[child].kind == NAIVE_SEALED && book->block[child].parent == b &&
            book->block[child].place[DEVICE] != NAIVE_NOWHERE)
            return true;
    return false;
}

int naive_secured_victim(naive_book *book, int first)
{
    const naive_block *block = &book->block[first];
    if (block->place[DEVICE] == NAIVE_RESIDENT && !naive_in_flight(book, first, DEVICE) && block->place[HOST] != NAIVE_NOWHERE)
        return first;
    for (int i = book->cold_next, tries = PASSED; i < book->colds && tries > 0; i++, tries--) {
        int b = book->cold[i];
        block = &book->block[b];
        bool used = block->kind != NAIVE_SEALED || block->place[DEVICE] == NAIVE_NOWHERE || naive_refs(book, b) > 0 ||
                    block->place[HOST] == NAIVE_NOWHERE || block->let_go >= book->cold_step;
        bool later = !used && (block->place[DEVICE] != NAIVE_RESIDENT || naive_in_flight(book, b, DEVICE) ||
                               block->place[HOST] != NAIVE_RESIDENT || has_child_on_device(book, b));
        if (i == book->cold_next && !later)
            book->cold_next++;
        if (!used && !later)
            return b;
    }
    return first;
}

/* ---- what is copied ------------------------------------------------------------------------------------------ */

typedef enum outcome { PLANNED, NOT_NOW, NO_ROOM } outcome;

static outcome offload_path(naive_book *book, int b, uint32_t *left)
{
    int path[NAIVE_LENGTH], count = 0;
    for (int at = b; at != NAIVE_NONE; at = book->block[at].parent) {
        memmove(path + 1, path, (size_t)count++ * sizeof(*path));
        path[0] = at;
    }
    for (int i = 0; i < count; i++) {
        if (book->block[path[i]].place[HOST] != NAIVE_NOWHERE)
            continue;
        if (book->block[path[i]].place[DEVICE] != NAIVE_RESIDENT || naive_in_flight(book, path[i], DEVICE))
            return NOT_NOW;
        if (*left == 0 || !naive_offload(book, path, i + 1))
            return NO_ROOM;
        --*left;
    }
    return PLANNED;
}

/* Returns how many more blocks may be offloaded; 0 if not all of the order has been secured. */
static uint32_t secure(naive_book *book, uint64_t most, uint32_t left)
{
    const uint64_t in_order = (uint64_t)book->ordered[DEVICE], count = most < in_order ? most : in_order;
    outcome ended = PLANNED;
    book->secured = 0;
    book->secured_at = book->stats.evictions_device;
    book->cold_step = book->step;
    book->cold_next = 0;
    book->colds = (int)count;
    memcpy(book->cold, book->order[DEVICE], sizeof(*book->cold) * count);
    for (uint64_t seen = 0; seen < count && ended != NO_ROOM; seen++) {
        ended = offload_path(book, book->cold[seen], &left);
        book->secured += ended == PLANNED;
    }
    bool all = in_order < most && book->secured == in_order;
    book->looked_at = all ? in_order : 0;
    return all ? left : 0;
}

void naive_offload_ahead(naive_book *book, bool restoring)
{
    const quire__book_config *config = &book->config;
    uint32_t low = restoring ? config->offload_low / 2 : config->offload_low, unused = naive_free_slots(book, DEVICE);
    uint32_t high = restoring ? low : config->offload_high, left = restoring ? config->offload_low / 8 : low;
    uint64_t gone = book->stats.evictions_device - book->secured_at, in_order = (uint64_t)book->ordered[DEVICE];
    if (config->offload < QUIRE_OFFLOAD_WRITE_BACK || config->host_slots == 0 ||
        unused + (gone < book->secured ? book->secured - gone : 0) >= low)
        return;
    left = left > 0 ? left : 1;
    if (book->looked_at == 0 || book->looked_at != in_order || gone > 0)
        left = secure(book, high - unused, left);
    for (int s = 0; s < NAIVE_SEQUENCES; s++) /* what is in use, when all else is secured */
        for (uint32_t i = 0; book->seq[s].open && i < book->seq[s].length / config->block_tokens && left > 0; i++) {
            const naive_block *block = &book->block[book->seq[s].blocks[i]];
            if (block->place[HOST] != NAIVE_NOWHERE)
                continue;
            if (block->kind != NAIVE_SEALED || block->place[DEVICE] != NAIVE_RESIDENT ||
                !naive_offload(book, book->seq[s].blocks, (int)i + 1))
                break;
            left--;
        }
}
