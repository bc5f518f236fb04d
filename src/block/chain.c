/* chain.c: a sequence's blocks.
 *
 *    tokens   0 ............ 31 | 32 ............ 47 | 48 .. 53                 length 54, block_tokens 16
 *    nodes    sealed    sealed    sealed                open (6 of 16)
 *    table    slot 4    slot 5    slot 9                slot 2
 *
 * Invariants
 *  1. Outside a step a chain has exactly the blocks that its length fills or begins, and one reference, to the last of
 *     them; that one keeps those before it (residency.c).
 *  2. The last block may hold more tokens than the chain's length says: a partial match, a truncation, a fork that was
 *     overtaken. The length alone says what is the chain's own.
 *  3. A chain writes only into open blocks to which it has the one reference. Any other block that it would have to
 *     write into it copies first (copy-on-write): a new open block takes the place in the table, a copy of the slot is
 *     planned, and the reference to the source is kept until commit or cancel, so that nobody takes or writes the
 *     source while the copy may still read it. Cancel puts the source back.
 *  4. In a step a chain may run ahead of its restore: its new blocks then follow blocks that are arriving. They stay open
 *     until the restore has settled; when it fails, the chain is cancelled and then shortened.
 *  5. Blocks before `ready` are resident and their table entries are right. Those from there on are read again when
 *     they have arrived: a block may have come to the device in another slot meanwhile (seal.c).
 *
 * The watermark keeps some blocks from sequences that have computed nothing yet, so that running ones can go on. It is
 * waived when no other sequence has a block: then there is nobody to keep them for, and a request that needs them
 * would wait for ever.
 */
#include "block/chain.h"

#include <string.h>

#include "base/check.h"
#include "base/status.h"
#include "block/residency.h"

uint32_t quire__chain_watermark(const quire__book *book, const quire__chain *chain)
{
    bool computed = chain->length > chain->matched;
    bool alone = book->holders == (chain->blocks > 0 ? 1u : 0u);
    return computed || alone ? 0 : book->config.watermark_blocks;
}

void quire__chain_fork(quire__book *book, const quire__chain *chain, quire__chain *child)
{
    memcpy(child->nodes, chain->nodes, chain->blocks * sizeof(*chain->nodes));
    memcpy(child->table, chain->table, chain->blocks * sizeof(*chain->table));
    child->domain = chain->domain;
    child->blocks = chain->blocks;
    child->length = chain->length;
    child->matched = chain->matched;
    child->prompt = chain->prompt;
    child->ready = chain->ready;
    child->offloaded = chain->offloaded;
    if (chain->blocks == 0)
        return;
    if (book->side_count > 0)
        quire__side_fork(book, chain, child);
    book->pool.nodes[chain->nodes[chain->blocks - 1]].refs++;
    book->holders++;
}

/* Gives the blocks from `keep` on back. */
static void shorten(quire__book *book, quire__chain *chain, uint32_t keep)
{
    if (keep >= chain->blocks)
        return;
    if (book->side_count > 0)
        quire__side_shorten(book, chain, keep);
    quire__residency_release(book, chain->nodes, keep, chain->blocks);
    book->holders -= keep == 0;
    chain->blocks = keep;
    chain->ready = chain->ready < keep ? chain->ready : keep;
    chain->changed = chain->changed < keep ? chain->changed : keep;
}

void quire__chain_truncate(quire__book *book, quire__chain *chain, uint32_t length)
{
    QUIRE__ASSERT(length <= chain->length && chain->pending == 0);
    shorten(book, chain, quire__chain_blocks_of(book, length));
    chain->length = length;
    if (chain->matched > length)
        chain->matched = length;
}

static void set_slot(quire__chain *chain, uint32_t at, uint32_t slot)
{
    if (chain->table[at] == (int32_t)slot)
        return;
    chain->table[at] = (int32_t)slot;
    chain->changed = chain->changed < at ? chain->changed : at;
}

void quire__chain_resettle(const quire__book *book, quire__chain *chain)
{
    for (uint32_t i = 0; i < chain->blocks; i++)
        set_slot(chain, i, book->pool.nodes[chain->nodes[i]].slot[QUIRE_TIER_DEVICE]);
}

bool quire__chain_may_run(const quire__book *book, const quire__chain *chain)
{
    return chain->length % book->config.block_tokens == 0 ||
           book->pool.nodes[chain->nodes[chain->blocks - 1]].state[QUIRE_TIER_DEVICE] != QUIRE__ARRIVING;
}

quire__settled quire__chain_settle(quire__book *book, quire__chain *chain)
{
    for (; chain->ready < chain->kept; chain->ready++) {
        const quire__node *record = &book->pool.nodes[chain->nodes[chain->ready]];
        /* A block that took over another's slot (seal.c) is resident whatever became of the restore, but the step read the
         * slot that the restore writes. */
        if (record->kind == QUIRE__KIND_DEAD ||
            chain->table[chain->ready] != (int32_t)record->slot[QUIRE_TIER_DEVICE])
            return QUIRE__LOST;
        if (record->state[QUIRE_TIER_DEVICE] == QUIRE__ARRIVING)
            return QUIRE__SETTLING;
    }
    chain->ready = chain->blocks;
    return QUIRE__SETTLED;
}

/* The block at `ready` is lost. What comes before it may want side blocks that nobody kept: then the chain becomes shorter
 * still. */
static void shrink(quire__book *book, quire__chain *chain)
{
    uint32_t blocks = book->side_count > 0 ? quire__side_fit_chain(book, chain, chain->ready) : chain->ready;
    quire__chain_truncate(book, chain, blocks * book->config.block_tokens);
    if (book->side_count > 0)
        quire__side_cover(book, chain);
}

/* Apart from the call that finds nothing to do, which is nearly every one. */
static __attribute__((noinline)) bool refresh(quire__book *book, quire__chain *chain)
{
    while (chain->ready < chain->blocks) {
        const quire__node *record = &book->pool.nodes[chain->nodes[chain->ready]];
        if (record->kind == QUIRE__KIND_DEAD) {
            shrink(book, chain);
            continue;
        }
        if (record->state[QUIRE_TIER_DEVICE] == QUIRE__ARRIVING)
            return false;
        if (book->side_count > 0) {
            quire__residence sides = quire__side_arrived(book, chain, chain->ready);
            if (sides == QUIRE__ARRIVING)
                return false;
            if (sides == QUIRE__SPOILED) {
                shrink(book, chain);
                continue;
            }
        }
        set_slot(chain, chain->ready++, record->slot[QUIRE_TIER_DEVICE]);
    }
    return true;
}

bool quire__chain_refresh(quire__book *book, quire__chain *chain)
{
    if (chain->ready == chain->blocks || chain->pending > 0) /* in a step it is settled, not refreshed */
        return chain->ready == chain->blocks;
    return refresh(book, chain);
}

/* ---- growth -------------------------------------------------------------------------------------------------- */

static quire_status no_room(const quire__book *book, uint32_t need, uint32_t spare, uint32_t *moving)
{
    const uint32_t *standing = book->pool.standing[QUIRE_TIER_DEVICE];
    uint32_t held = standing[QUIRE__OPEN] + standing[QUIRE__USED] + standing[QUIRE__EXPECTED];
    *moving = quire__residency_moving(book);
    return quire__fail(QUIRE_EFULL,
                       "%u blocks needed; of %u, %u are free, %u cached, %u in %u sequences, %u with moves in flight%s: "
                       "close or preempt a sequence%s",
                       need, quire__pool_present(&book->pool), book->pool.free_count[QUIRE_TIER_DEVICE],
                       standing[QUIRE__CACHED], held, book->holders, *moving,
                       spare ? ", and the watermark is kept" : "", *moving ? ", or wait for the moves" : "");
}

/* Puts `node`, a copy of what the chain has of its last block, in that block's place. The reference to that block stays,
 * as the copy's source; the block before it has one more child with references. */
static void replace_tail(quire__book *book, quire__chain *chain, uint32_t node, quire__plan *plan)
{
    quire__pool *pool = &book->pool;
    uint32_t last = chain->blocks - 1, source = chain->nodes[last];
    uint32_t filled = chain->length % book->config.block_tokens;
    uint32_t from = pool->nodes[source].slot[QUIRE_TIER_DEVICE], to = pool->nodes[node].slot[QUIRE_TIER_DEVICE];

    memcpy(quire__pool_tokens(pool, node), quire__pool_tokens(pool, source), filled * sizeof(int32_t));
    chain->source = source;
    chain->nodes[last] = node;
    if (last > 0)
        pool->nodes[chain->nodes[last - 1]].refs++;
    book->counters.copies_on_write++;
    if (book->holes & QUIRE__BOOK_HOLE_COPY_ON_WRITE)
        return; /* the table still says the source: that is where the step will write */
    set_slot(chain, last, to);
    quire__plan_add(plan, (quire__move){
        .type = QUIRE__MOVE_COPY, .source = from, .destination = to, .node = node, .ticket = book->step});
}

static bool must_copy(const quire__book *book, const quire__chain *chain)
{
    if (quire__chain_full_of(book, chain->blocks, chain->length) == chain->blocks)
        return false;
    const quire__node *last = &book->pool.nodes[chain->nodes[chain->blocks - 1]];
    return last->kind != QUIRE__KIND_OPEN || last->refs > 1;
}

quire_status quire__chain_reserve(quire__book *book, quire__chain *chain, uint32_t count, quire__plan *plan,
                                  uint32_t *moving)
{
    const uint32_t old_blocks = chain->blocks;
    const uint64_t length = (uint64_t)chain->length + count, room = (uint64_t)old_blocks * book->config.block_tokens;
    const uint32_t added = length > room ? quire__chain_blocks_of(book, length - room) : 0;
    const bool copy = must_copy(book, chain);
    const uint32_t need = added + copy, spare = quire__chain_watermark(book, chain);
    if (copy && quire__plan_room(plan) == 0)
        return quire__fail(QUIRE_EINVAL, "the plan has no room for a copy: it has %u moves", plan->capacity);
    if (need > 0 && (uint64_t)need + spare > quire__residency_available(book))
        return no_room(book, need, spare, moving);
    if (book->side_count > 0)
        QUIRE__TRY(quire__side_room(book, chain, added, copy, plan, moving));

    if (need > 0 && !quire__residency_make_room(book, need))
        return no_room(book, need, spare, moving);

    chain->kept = old_blocks;
    chain->pending = count;
    chain->source = QUIRE__NONE;
    if (copy) {
        uint32_t replacement;
        int32_t slot;
        quire__pool_open_take(&book->pool, 1, &replacement, &slot);
        replace_tail(book, chain, replacement, plan);
    }
    if (added > 0)
        quire__pool_open_take(&book->pool, added, chain->nodes + old_blocks, chain->table + old_blocks);
    chain->blocks = old_blocks + added;
    if (book->side_count > 0)
        quire__side_grow(book, chain, old_blocks, chain->source, plan);
    if (chain->ready == old_blocks) /* else it runs ahead of its restore */
        chain->ready = chain->blocks;
    book->holders += old_blocks == 0;
    return QUIRE_OK;
}

void quire__chain_cancel(quire__book *book, quire__chain *chain)
{
    chain->pending = 0;
    if (book->side_count > 0)
        quire__side_cancel(book, chain);
    shorten(book, chain, chain->kept);
    if (chain->source == QUIRE__NONE)
        return;
    uint32_t last = chain->blocks - 1, copy = chain->nodes[last];
    chain->nodes[last] = chain->source;
    chain->source = QUIRE__NONE;
    set_slot(chain, last, book->pool.nodes[chain->nodes[last]].slot[QUIRE_TIER_DEVICE]);
    if (book->side_count > 0)
        quire__side_put_back(book, chain, last, copy);
    quire__residency_release_one(book, last == 0 ? QUIRE__NONE : chain->nodes[last - 1], copy);
}

/* ---- tokens -------------------------------------------------------------------------------------------------- */

/* How many of the `most` blocks from `at` on are consecutive nodes: their tokens lie side by side. */
static uint32_t side_by_side(const quire__chain *chain, uint32_t at, uint32_t most)
{
    uint32_t run = 1;
    while (run < most && chain->nodes[at + run] == chain->nodes[at] + run)
        run++;
    return run;
}

void quire__chain_write(quire__book *book, quire__chain *chain, const int32_t *tokens, uint32_t count)
{
    const uint32_t block_tokens = book->config.block_tokens;
    uint32_t at = quire__chain_full_of(book, chain->kept, chain->length), offset = chain->length - at * block_tokens;
    while (count > 0) {
        uint64_t run = side_by_side(chain, at, chain->blocks - at);
        uint32_t part = run * block_tokens - offset < count ? (uint32_t)(run * block_tokens) - offset : count;
        for (uint32_t i = 0; i < run; i++)
            QUIRE__ASSERT(book->pool.nodes[chain->nodes[at + i]].kind == QUIRE__KIND_OPEN &&
                          book->pool.nodes[chain->nodes[at + i]].refs == 1);
        memcpy(quire__pool_tokens(&book->pool, chain->nodes[at]) + offset, tokens, part * sizeof(*tokens));
        at += (uint32_t)run;
        offset = 0;
        tokens += part;
        count -= part;
    }
}

void quire__chain_read(const quire__book *book, const quire__chain *chain, uint32_t first, int32_t *tokens,
                       uint32_t count)
{
    const uint32_t block_tokens = book->config.block_tokens;
    while (count > 0) {
        uint32_t offset = first % block_tokens, part = block_tokens - offset;
        part = part < count ? part : count;
        const int32_t *from = quire__pool_tokens(&book->pool, chain->nodes[first / block_tokens]) + offset;
        memcpy(tokens, from, part * sizeof(*tokens));
        first += part;
        tokens += part;
        count -= part;
    }
}
