/* side.c: groups of layers beside the first, whose blocks may live shorter.
 *
 *    first group   0    1    2    3    4    5    6          the tree's blocks: whole prefixes, as if there were no other
 *    side group    -    c    c    h    h    h    h          h: held   c: cached, behind the window   -: given to others
 *                                 `-- window of the next token
 *
 * A side block belongs to a node of the tree (or to an open one) and goes with it at the latest. It can go before: a
 * sequence keeps side blocks of its last tokens only, as many as the group's window says, and gives those behind it back
 * as it grows. They stay cached as long as nobody wants their slots, since another prompt may end there. A match needs the
 * first group's blocks of a prefix and the side blocks of the prefix's last tokens; a group without a window is one whose
 * window is everything, and one with a recurrent state has a block for each boundary, of which a sequence keeps the last.
 *
 * Invariants
 *  1. A sequence holds, of each side group, exactly the blocks [first, blocks) of its own. `users` of a side block counts
 *     the sequences that hold it and the copy of the open step that reads it. One with users has a slot.
 *  2. A slot is free, owned by one node that names it, or an orphan: its node is gone and a move still has it.
 *  3. A side block that nobody uses is in one list: behind (1) or ended (2), or it is loose (3) as long as a move has it.
 *     Eviction takes the oldest of list 1, then of list 2; order means nothing for correctness, for any side block may go.
 *  4. Only nodes in the tree have unused side blocks that count: an open or dead node's goes with its last user.
 *  5. On the host a side block lies in its group's part of the node's host slot, and leaves with that slot. The slot is not
 *     given out again before the last move has ended that touches any part of it (host_moves).
 *  6. A restore that failed leaves its side block spoiled while somebody waits for it: he finds out (chain.c) and becomes
 *     shorter. What is on the host is not trusted again.
 *
 *  7. A recurrent state is written over in place as a block fills, where K and V are added to. So that a cancelled step leaves
 *     it as it was, a step writes into another slot, which begins as a copy; the one from before is nobody's to give out
 *     (QUIRE__MISSING) until commit or cancel says which of the two goes.
 *
 * All of it is one loop over few blocks: a window's. Nothing here runs where there is one group.
 */
#include "block/side.h"

#include "base/check.h"
#include "base/status.h"
#include "block/chain.h"
#include "block/residency.h"

enum { UNLISTED = 0, BEHIND = 1, ENDED = 2, LOOSE = 3 };

static quire__side_block *block_of(const quire__side *side, uint32_t node)
{
    return &side->blocks[node];
}

static bool in_flight(const quire__side_block *block)
{
    return (block->flags & (QUIRE__SIDE_READ | QUIRE__SIDE_WRITTEN)) != 0;
}

/* ---- open, close --------------------------------------------------------------------------------------------- */

static quire_status open_side(quire__book *book, quire__side *side, const quire__side_config *config)
{
    const quire__allocator *allocator = &book->config.allocator;
    const uint32_t nodes = book->pool.node_count, slots = config->slots;
    void *memory = NULL;

    side->config = *config;
    QUIRE__TRY(quire__memory_take(allocator, nodes, sizeof(quire__side_block), "side blocks", &memory));
    side->blocks = memory;
    QUIRE__TRY(quire__memory_take(allocator, slots, sizeof(uint32_t), "side slots' owners", &memory));
    side->owner = memory;
    QUIRE__TRY(quire__memory_take(allocator, slots, sizeof(uint64_t), "side slots' tickets", &memory));
    side->ticket = memory;
    QUIRE__TRY(quire__memory_take(allocator, (size_t)slots + QUIRE__SIDE_LISTS, 2 * sizeof(uint32_t), "side lists", &memory));
    side->links = memory;
    QUIRE__TRY(quire__memory_take(allocator, slots, sizeof(uint32_t), "free side slots", &memory));
    side->free = memory;
    for (uint32_t node = 0; node < nodes; node++)
        side->blocks[node].slot = QUIRE__NONE;
    for (uint32_t slot = 0; slot < slots; slot++) {
        side->owner[slot] = QUIRE__NONE;
        side->free[slot] = slots - 1 - slot;
    }
    side->free_count = slots;
    for (uint32_t end = slots; end < slots + QUIRE__SIDE_LISTS; end++)
        side->links[2 * end] = side->links[2 * end + 1] = end;
    return QUIRE_OK;
}

static quire_status open_spans(quire__book *book)
{
    const quire__allocator *allocator = &book->config.allocator;
    const size_t sequences = book->config.max_sequences, count = book->side_count;
    void *memory = NULL;

    QUIRE__TRY(quire__memory_take(allocator, sequences * count, sizeof(quire__span), "sequences' side blocks", &memory));
    book->spans = memory;
    QUIRE__TRY(quire__memory_take(allocator, sequences * count, book->max_blocks * sizeof(int32_t), "side tables", &memory));
    book->span_tables = memory;
    for (size_t i = 0; i < sequences * count; i++)
        book->spans[i] = (quire__span){.table = book->span_tables + i * book->max_blocks, .undo = QUIRE__NONE};
    for (size_t seq = 0; seq < sequences; seq++)
        book->chains[seq].spans = book->spans + seq * count;
    return QUIRE_OK;
}

quire_status quire__side_open(quire__book *book, const quire__side_config *configs, uint32_t count)
{
    const quire__allocator *allocator = &book->config.allocator;
    void *memory = NULL;

    if (count == 0)
        return QUIRE_OK;
    QUIRE__TRY(quire__memory_take(allocator, count, sizeof(quire__side), "side groups", &memory));
    book->sides = memory;
    book->side_count = count;
    for (uint32_t i = 0; i < count; i++)
        QUIRE__TRY(open_side(book, &book->sides[i], &configs[i]));
    if (book->config.host_slots > 0) {
        QUIRE__TRY(quire__memory_take(allocator, book->config.host_slots, sizeof(uint32_t), "host slots' moves", &memory));
        book->host_moves = memory;
    }
    return open_spans(book);
}

void quire__side_close(quire__book *book)
{
    const quire__allocator *allocator = &book->config.allocator;

    quire__memory_give(allocator, book->span_tables);
    quire__memory_give(allocator, book->spans);
    quire__memory_give(allocator, book->host_moves);
    for (uint32_t i = 0; i < book->side_count; i++) {
        quire__side *side = &book->sides[i];
        quire__memory_give(allocator, side->free);
        quire__memory_give(allocator, side->links);
        quire__memory_give(allocator, side->ticket);
        quire__memory_give(allocator, side->owner);
        quire__memory_give(allocator, side->blocks);
    }
    quire__memory_give(allocator, book->sides);
}

/* ---- slots --------------------------------------------------------------------------------------------------- */

uint32_t quire__side_needed(const quire__book *book, const quire__side *side, uint32_t length)
{
    uint32_t window = side->config.window;
    return length < window ? 0 : (length - (window - 1)) / book->config.block_tokens;
}

uint32_t quire__side_available(const quire__side *side)
{
    return side->free_count + side->cached;
}

static void unlist(quire__side *side, uint32_t node)
{
    quire__side_block *block = block_of(side, node);
    uint32_t *links = side->links, slot = block->slot;

    if (block->list == LOOSE)
        side->loose--;
    if (block->list == BEHIND || block->list == ENDED) {
        uint32_t older = links[2 * slot], newer = links[2 * slot + 1];
        links[2 * older + 1] = newer;
        links[2 * newer] = older;
        side->cached--;
    }
    block->list = UNLISTED;
}

/* The node has its side block no longer. */
static void drop(quire__side *side, uint32_t node)
{
    quire__side_block *block = block_of(side, node);
    uint32_t slot = block->slot;

    unlist(side, node);
    if (in_flight(block)) {
        side->owner[slot] = QUIRE__ORPHAN;
        side->orphans++;
    } else {
        side->owner[slot] = QUIRE__NONE;
        side->free[side->free_count++] = slot;
    }
    block->slot = QUIRE__NONE;
    block->state = QUIRE__ABSENT;
    block->flags = 0;
}

/* Nobody uses it: it goes where such side blocks are, as the newest. */
static void shelve(quire__book *book, quire__side *side, uint32_t node)
{
    quire__side_block *block = block_of(side, node);
    uint32_t *links = side->links, slot = block->slot;

    unlist(side, node);
    if (block->state == QUIRE__SPOILED || book->pool.nodes[node].kind != QUIRE__KIND_SEALED) {
        drop(side, node);
        return;
    }
    if (in_flight(block)) {
        block->list = LOOSE;
        side->loose++;
        return;
    }
    block->list = block->flags & QUIRE__SIDE_BEHIND ? BEHIND : ENDED;
    uint32_t end = side->config.slots + block->list, newest = links[2 * end]; /* the end's older one is the newest */
    links[2 * slot] = newest;
    links[2 * slot + 1] = end;
    links[2 * newest + 1] = slot;
    links[2 * end] = slot;
    side->cached++;
}

static uint32_t victim(const quire__side *side)
{
    for (uint32_t list = BEHIND; list <= ENDED; list++) {
        uint32_t end = side->config.slots + list, oldest = side->links[2 * end + 1];
        if (oldest != end)
            return side->owner[oldest];
    }
    return QUIRE__NONE;
}

/* There must be one: quire__side_available. */
static uint32_t take_slot(quire__side *side)
{
    if (side->free_count == 0) {
        side->evicted++;
        drop(side, victim(side));
    }
    return side->free[--side->free_count];
}

static void attach(quire__side *side, uint32_t node, uint32_t slot, quire__residence state)
{
    quire__side_block *block = block_of(side, node);
    QUIRE__ASSERT(block->slot == QUIRE__NONE && side->owner[slot] == QUIRE__NONE);
    block->slot = slot;
    block->state = (uint8_t)state;
    side->owner[slot] = node;
}

/* ---- a sequence's -------------------------------------------------------------------------------------------- */

static void note(quire__span *span, uint32_t at, uint32_t slot)
{
    if (span->table[at] == (int32_t)slot)
        return;
    span->table[at] = (int32_t)slot;
    span->changed = span->changed < at ? span->changed : at;
}

static void use(quire__side *side, uint32_t node)
{
    quire__side_block *block = block_of(side, node);
    QUIRE__ASSERT(block->slot != QUIRE__NONE);
    if (block->users++ == 0) {
        unlist(side, node);
        block->flags &= (uint8_t)~QUIRE__SIDE_BEHIND;
    }
}

static void let_go(quire__book *book, quire__side *side, uint32_t node, bool behind)
{
    quire__side_block *block = block_of(side, node);
    QUIRE__ASSERT(block->users > 0);
    if (--block->users > 0)
        return;
    side->ticket[block->slot] = book->step;
    block->flags |= behind ? QUIRE__SIDE_BEHIND : 0;
    shelve(book, side, node);
}

void quire__side_begin(quire__book *book, quire__chain *chain)
{
    for (uint32_t group = 0; group < book->side_count; group++)
        chain->spans[group].first = chain->spans[group].changed = 0;
}

void quire__side_hold(quire__book *book, quire__chain *chain, uint32_t group, uint32_t at)
{
    quire__side *side = &book->sides[group];
    uint32_t node = chain->nodes[at];
    use(side, node);
    note(&chain->spans[group], at, block_of(side, node)->slot);
}

void quire__side_shorten(quire__book *book, quire__chain *chain, uint32_t keep)
{
    for (uint32_t group = 0; group < book->side_count; group++) {
        quire__span *span = &chain->spans[group];
        uint32_t from = span->first > keep ? span->first : keep;
        for (uint32_t at = chain->blocks; at-- > from;)
            let_go(book, &book->sides[group], chain->nodes[at], false);
        span->first = span->first < keep ? span->first : keep;
        span->changed = span->changed < keep ? span->changed : keep;
    }
}

void quire__side_fork(quire__book *book, const quire__chain *chain, quire__chain *child)
{
    for (uint32_t group = 0; group < book->side_count; group++) {
        child->spans[group].first = chain->spans[group].first;
        for (uint32_t at = chain->spans[group].first; at < chain->blocks; at++) {
            use(&book->sides[group], chain->nodes[at]);
            child->spans[group].table[at] = chain->spans[group].table[at];
        }
        child->spans[group].changed = 0;
    }
}

quire_status quire__side_room(const quire__book *book, const quire__chain *chain, uint32_t added, bool copy,
                              const quire__plan *plan, uint32_t *moving)
{
    const bool inside = chain->length % book->config.block_tokens != 0;
    uint32_t waiting = 0, full = QUIRE__NONE, need = 0;

    if (inside && quire__plan_room(plan) <= book->side_count)
        return quire__fail(QUIRE_EINVAL, "the plan has no room for a copy of each group: it has %u moves", plan->capacity);
    for (uint32_t group = 0; group < book->side_count; group++) {
        const quire__side *side = &book->sides[group];
        uint32_t held = chain->blocks - chain->spans[group].first;
        need = added + (copy || (inside && side->config.whole));
        if ((uint64_t)held + need > side->config.slots)
            return quire__fail(QUIRE_ERANGE, "group %u: the sequence has %u blocks there and these tokens need %u more, of %u in "
                               "all: add fewer tokens at once", group + 1, held, need, side->config.slots);
        if (need <= quire__side_available(side))
            continue;
        uint32_t coming = side->orphans + side->loose;
        waiting = full == QUIRE__NONE ? coming : waiting == 0 || coming == 0 ? 0 : waiting + coming;
        full = group;
    }
    if (full == QUIRE__NONE)
        return QUIRE_OK;
    *moving = waiting;
    return quire__fail(QUIRE_EFULL, "group %u: %u blocks needed; of %u, %u are free and %u cached: close or preempt a sequence",
                       full + 1, added + inside, book->sides[full].config.slots, book->sides[full].free_count,
                       book->sides[full].cached);
}

/* Another slot for the last block's state, which begins as a copy. */
static void double_state(quire__book *book, quire__chain *chain, uint32_t group, uint32_t at, quire__plan *plan)
{
    quire__side *side = &book->sides[group];
    quire__span *span = &chain->spans[group];
    quire__side_block *block = block_of(side, chain->nodes[at]);

    QUIRE__ASSERT(block->users == 1 && block->state == QUIRE__RESIDENT && !in_flight(block));
    span->undo = block->slot;
    block->slot = take_slot(side);
    side->owner[span->undo] = QUIRE__MISSING;
    side->owner[block->slot] = chain->nodes[at];
    note(span, at, block->slot);
    quire__plan_add(plan, (quire__move){.type = QUIRE__MOVE_COPY,
                                        .source = span->undo,
                                        .destination = block->slot,
                                        .node = chain->nodes[at],
                                        .group = group + 1,
                                        .ticket = book->step});
}

static void free_undo(quire__book *book, quire__side *side, quire__span *span)
{
    side->ticket[span->undo] = book->step;
    side->owner[span->undo] = QUIRE__NONE;
    side->free[side->free_count++] = span->undo;
    span->undo = QUIRE__NONE;
}

void quire__side_cancel(quire__book *book, quire__chain *chain)
{
    for (uint32_t group = 0; group < book->side_count; group++) {
        quire__side *side = &book->sides[group];
        quire__span *span = &chain->spans[group];
        if (span->undo == QUIRE__NONE)
            continue;
        uint32_t at = chain->kept - 1, node = chain->nodes[at], before = span->undo;
        span->undo = block_of(side, node)->slot;
        block_of(side, node)->slot = before;
        side->owner[before] = node;
        note(span, at, before);
        free_undo(book, side, span);
    }
}

static void take_new(quire__side *side, uint32_t node)
{
    attach(side, node, take_slot(side), QUIRE__RESIDENT);
    block_of(side, node)->users = 1;
}

void quire__side_grow(quire__book *book, quire__chain *chain, uint32_t old_blocks, uint32_t source, quire__plan *plan)
{
    for (uint32_t group = 0; group < book->side_count; group++) {
        quire__side *side = &book->sides[group];
        quire__span *span = &chain->spans[group];
        if (side->config.whole && source == QUIRE__NONE && chain->length % book->config.block_tokens != 0)
            double_state(book, chain, group, old_blocks - 1, plan);
        for (uint32_t at = source == QUIRE__NONE ? old_blocks : old_blocks - 1; at < chain->blocks; at++) {
            uint32_t node = chain->nodes[at];
            take_new(side, node);
            uint32_t slot = block_of(side, node)->slot;
            if (at >= old_blocks || !(book->holes & QUIRE__BOOK_HOLE_SIDE_COPY))
                note(span, at, slot);
            if (at < old_blocks)
                quire__plan_add(plan, (quire__move){.type = QUIRE__MOVE_COPY,
                                                    .source = block_of(side, source)->slot,
                                                    .destination = slot,
                                                    .node = node,
                                                    .group = group + 1,
                                                    .ticket = book->step});
        }
    }
}

void quire__side_put_back(quire__book *book, quire__chain *chain, uint32_t at, uint32_t copy)
{
    for (uint32_t group = 0; group < book->side_count; group++) {
        quire__side *side = &book->sides[group];
        note(&chain->spans[group], at, block_of(side, chain->nodes[at])->slot);
        let_go(book, side, copy, false);
    }
}

void quire__side_release_source(quire__book *book, uint32_t source)
{

    for (uint32_t group = 0; group < book->side_count; group++)
        let_go(book, &book->sides[group], source, false);
}

/* Our bytes are as good as the twin's, and are there. Whoever waits for the twin's finds ours in their place. */
static void merge_one(quire__book *book, quire__side *side, quire__span *span, uint32_t at, uint32_t node, uint32_t twin)
{
    quire__side_block *mine = block_of(side, node), *theirs = block_of(side, twin);

    QUIRE__ASSERT(at >= span->first && mine->users == 1 && !in_flight(mine));
    if (theirs->state == QUIRE__RESIDENT) {
        use(side, twin);
        let_go(book, side, node, false); /* it is open: its slot is free */
        note(span, at, theirs->slot);
        return;
    }
    if (theirs->slot != QUIRE__NONE)
        drop(side, twin);
    uint32_t slot = mine->slot;
    side->owner[slot] = QUIRE__NONE;
    *mine = (quire__side_block){.slot = QUIRE__NONE};
    attach(side, twin, slot, QUIRE__RESIDENT);
    theirs->users++;
    note(span, at, slot);
}

void quire__side_merge(quire__book *book, quire__chain *chain, uint32_t at, uint32_t node, uint32_t twin)
{
    for (uint32_t group = 0; group < book->side_count; group++)
        merge_one(book, &book->sides[group], &chain->spans[group], at, node, twin);
}

void quire__side_commit(quire__book *book, quire__chain *chain)
{
    for (uint32_t group = 0; group < book->side_count; group++) {
        quire__side *side = &book->sides[group];
        quire__span *span = &chain->spans[group];
        uint32_t rollback = side->config.rollback < chain->length ? side->config.rollback : chain->length;
        uint32_t first = quire__side_needed(book, side, chain->length - rollback);
        if (span->undo != QUIRE__NONE)
            free_undo(book, side, span);
        for (; span->first < first; span->first++) {
            let_go(book, side, chain->nodes[span->first], true);
            side->given_back++;
        }
    }
}

/* ---- shorter sequences --------------------------------------------------------------------------------------- */

static bool here(const quire__side *side, uint32_t node)
{
    const quire__side_block *block = block_of(side, node);
    return block->state == QUIRE__RESIDENT || block->state == QUIRE__ARRIVING;
}

quire_status quire__side_check_truncate(const quire__book *book, const quire__chain *chain, uint32_t length)
{
    for (uint32_t group = 0; group < book->side_count; group++) {
        const quire__side *side = &book->sides[group];
        if (side->config.whole && length != chain->length && length % book->config.block_tokens != 0)
            return quire__fail(QUIRE_ESTATE, "group %u has a state for each block's end only: truncate to a multiple of %u tokens",
                               group + 1, book->config.block_tokens);
        uint32_t blocks = quire__chain_blocks_of(book, length), end = chain->spans[group].first;
        end = end < blocks ? end : blocks;
        for (uint32_t at = quire__side_needed(book, side, length); at < end; at++)
            if (!here(side, chain->nodes[at]))
                return quire__fail(QUIRE_ESTATE, "group %u has given back block %u, which a sequence of %u tokens needs: at most "
                                   "%u tokens can always be taken back (rollback)", group + 1, at, length,
                                   side->config.rollback);
    }
    return QUIRE_OK;
}

void quire__side_cover(quire__book *book, quire__chain *chain)
{
    for (uint32_t group = 0; group < book->side_count; group++) {
        quire__side *side = &book->sides[group];
        quire__span *span = &chain->spans[group];
        uint32_t first = quire__side_needed(book, side, chain->length);
        while (span->first > first) {
            span->first--;
            quire__side_hold(book, chain, group, span->first);
            if (block_of(side, chain->nodes[span->first])->state == QUIRE__ARRIVING && chain->ready > span->first)
                chain->ready = span->first;
        }
    }
}

quire__residence quire__side_arrived(quire__book *book, quire__chain *chain, uint32_t at)
{
    quire__residence worst = QUIRE__RESIDENT;
    for (uint32_t group = 0; group < book->side_count; group++) {
        if (at < chain->spans[group].first)
            continue;
        const quire__side_block *block = block_of(&book->sides[group], chain->nodes[at]);
        if (block->state == QUIRE__SPOILED)
            return QUIRE__SPOILED;
        if (block->state == QUIRE__ARRIVING)
            worst = QUIRE__ARRIVING;
        else
            note(&chain->spans[group], at, block->slot);
    }
    return worst;
}

uint32_t quire__side_fit_chain(const quire__book *book, const quire__chain *chain, uint32_t blocks)
{
    quire__side_want want = {.restoring = false};
    uint32_t most = 0;
    while (blocks > 0 && !quire__side_fits(book, chain->nodes[blocks - 1], blocks, blocks * book->config.block_tokens, &want,
                                           &most))
        blocks = most;
    return blocks;
}

/* ---- a prompt's ---------------------------------------------------------------------------------------------- */

static bool fits_one(const quire__book *book, const quire__side *side, uint32_t last, uint32_t blocks, uint32_t length,
                     quire__side_want *want, uint32_t *most)
{
    const uint32_t from = quire__side_needed(book, side, length);
    uint32_t missing = 0, cached = 0, node = last;

    for (uint32_t at = blocks; at > from; at--, node = book->pool.kin[node].parent) {
        const quire__side_block *block = block_of(side, node);
        if (here(side, node)) {
            cached += block->list == BEHIND || block->list == ENDED;
            continue;
        }
        *most = at - 1;
        if (!want->restoring || block->state != QUIRE__ABSENT || block->host != QUIRE__RESIDENT)
            return false;
        *most = blocks - 1;
        if (++missing > quire__side_available(side) - cached)
            return false;
    }
    if (missing > quire__side_available(side) - cached)
        return false;
    want->restores += missing;
    return true;
}

bool quire__side_fits(const quire__book *book, uint32_t last, uint32_t blocks, uint32_t length, quire__side_want *want,
                      uint32_t *most)
{
    want->restores = 0;
    *most = blocks > 0 ? blocks - 1 : 0;
    for (uint32_t group = 0; group < book->side_count; group++)
        if (!fits_one(book, &book->sides[group], last, blocks, length, want, most))
            return false;
    return true;
}

static void restore(quire__book *book, quire__chain *chain, uint32_t group, uint32_t at, quire__plan *plan)
{
    quire__side *side = &book->sides[group];
    uint32_t node = chain->nodes[at], slot = take_slot(side), source = book->pool.nodes[node].slot[QUIRE_TIER_HOST];
    quire__side_block *block = block_of(side, node);

    attach(side, node, slot, book->holes & QUIRE__BOOK_HOLE_SIDE_ARRIVING ? QUIRE__RESIDENT : QUIRE__ARRIVING);
    block->flags = QUIRE__SIDE_WRITTEN;
    side->restored++;
    quire__side_hold(book, chain, group, at);
    quire__side_host_move(book, source);
    if (!(book->holes & QUIRE__BOOK_HOLE_SIDE_RESTORE_SOURCE))
        book->pool.nodes[node].reads |= QUIRE__READS_SIDES;
    quire__pool_account(&book->pool, node);
    quire__plan_add(plan, (quire__move){.type = QUIRE__MOVE_RESTORE,
                                        .source = source,
                                        .destination = slot,
                                        .node = node,
                                        .group = group + 1,
                                        .ticket = book->holes & QUIRE__BOOK_HOLE_SIDE_TICKET ? 0 : side->ticket[slot]});
}

/* What is here is held before a slot is taken for what is not: it must not be what goes. */
void quire__side_take(quire__book *book, quire__chain *chain, quire__plan *plan)
{
    for (uint32_t group = 0; group < book->side_count; group++) {
        const quire__side *side = &book->sides[group];
        quire__span *span = &chain->spans[group];
        span->first = quire__side_needed(book, side, chain->length);
        span->changed = 0;
        for (uint32_t at = span->first; at < chain->blocks; at++)
            if (here(side, chain->nodes[at]))
                quire__side_hold(book, chain, group, at);
        for (uint32_t at = span->first; at < chain->blocks; at++)
            if (!here(side, chain->nodes[at]))
                restore(book, chain, group, at, plan);
    }
}

bool quire__side_whole(const quire__book *book)
{
    for (uint32_t group = 0; group < book->side_count; group++)
        if (book->sides[group].config.whole)
            return true;
    return false;
}

/* ---- a node's ------------------------------------------------------------------------------------------------ */

void quire__side_forget(quire__book *book, uint32_t node)
{
    for (uint32_t group = 0; group < book->side_count; group++) {
        quire__side *side = &book->sides[group];
        QUIRE__ASSERT(book->holes || (block_of(side, node)->users == 0 && block_of(side, node)->host == QUIRE__ABSENT));
        if (block_of(side, node)->slot != QUIRE__NONE)
            drop(side, node);
        *block_of(side, node) = (quire__side_block){.slot = QUIRE__NONE};
    }
}

void quire__side_host_lost(quire__book *book, uint32_t node)
{
    for (uint32_t group = 0; group < book->side_count; group++)
        block_of(&book->sides[group], node)->host = QUIRE__ABSENT;
}

bool quire__side_quiet(const quire__book *book, uint32_t node)
{
    for (uint32_t group = 0; group < book->side_count; group++)
        if (block_of(&book->sides[group], node)->flags & QUIRE__SIDE_READ)
            return false;
    return true;
}

void quire__side_offload(quire__book *book, uint32_t node, quire__plan *plan)
{
    uint32_t slot = book->pool.nodes[node].slot[QUIRE_TIER_HOST];
    for (uint32_t group = 0; group < book->side_count; group++) {
        quire__side *side = &book->sides[group];
        quire__side_block *block = block_of(side, node);
        if (block->state != QUIRE__RESIDENT)
            continue;
        block->host = QUIRE__ARRIVING;
        if (!(book->holes & QUIRE__BOOK_HOLE_SIDE_OFFLOAD_SOURCE))
            block->flags |= QUIRE__SIDE_READ;
        if (block->users == 0)
            shelve(book, side, node);
        quire__side_host_move(book, slot);
        book->pool.nodes[node].reads |= QUIRE__READS_SIDES;
        quire__plan_add(plan, (quire__move){.type = QUIRE__MOVE_OFFLOAD,
                                            .source = block->slot,
                                            .destination = slot,
                                            .node = node,
                                            .group = group + 1,
                                            .ticket = book->step});
    }
    quire__pool_account(&book->pool, node);
}

/* ---- moves --------------------------------------------------------------------------------------------------- */

void quire__side_host_move(quire__book *book, uint32_t slot)
{
    book->host_moves[slot]++;
}

void quire__side_host_moved(quire__book *book, uint32_t slot)
{
    quire__pool *pool = &book->pool;
    uint32_t owner = pool->owner[QUIRE_TIER_HOST][slot];

    QUIRE__ASSERT(book->host_moves[slot] > 0);
    if (--book->host_moves[slot] > 0)
        return;
    if (owner == QUIRE__ORPHAN) {
        quire__pool_slot_give(pool, QUIRE_TIER_HOST, slot);
    } else if (owner < pool->node_count) {
        pool->nodes[owner].reads &= (uint8_t)~QUIRE__READS_SIDES;
        quire__pool_account(pool, owner);
    }
}

/* The move no longer has the slot. True when it is still the node's. */
static bool end_move(quire__side *side, uint32_t slot, uint32_t node, uint8_t flag)
{
    if (side->owner[slot] == QUIRE__ORPHAN) {
        side->owner[slot] = QUIRE__NONE;
        side->orphans--;
        side->free[side->free_count++] = slot;
        return false;
    }
    if (side->owner[slot] != node || !(block_of(side, node)->flags & flag))
        return false; /* only where a hole gave it away */
    block_of(side, node)->flags &= (uint8_t)~flag;
    return true;
}

static void complete_offload(quire__book *book, quire__side *side, const quire__move *move, bool ok)
{
    if (end_move(side, move->source, move->node, QUIRE__SIDE_READ) && block_of(side, move->node)->users == 0)
        shelve(book, side, move->node);
    if (book->pool.owner[QUIRE_TIER_HOST][move->destination] != move->node)
        return;
    quire__side_block *block = block_of(side, move->node);
    if (block->host == QUIRE__ARRIVING)
        block->host = ok ? QUIRE__RESIDENT : QUIRE__ABSENT;
}

static void complete_restore(quire__book *book, quire__side *side, const quire__move *move, bool ok)
{
    quire__side_block *block = block_of(side, move->node);

    if (!ok && book->pool.owner[QUIRE_TIER_HOST][move->source] == move->node)
        block->host = QUIRE__ABSENT; /* not to be trusted */
    if (!end_move(side, move->destination, move->node, QUIRE__SIDE_WRITTEN))
        return;
    if (block->state == QUIRE__ARRIVING)
        block->state = ok ? QUIRE__RESIDENT : QUIRE__SPOILED;
    if (block->users == 0)
        shelve(book, side, move->node);
}

void quire__side_complete(quire__book *book, const quire__move *move, bool ok)
{
    quire__side *side = &book->sides[move->group - 1];
    bool offload = move->type == QUIRE__MOVE_OFFLOAD;

    if (offload)
        complete_offload(book, side, move, ok);
    else
        complete_restore(book, side, move, ok);
    quire__side_host_moved(book, offload ? move->destination : move->source);
}

/* Whoever waits for it goes on without; the slots stay the move's. */
void quire__side_expire(quire__book *book, const quire__move *move)
{
    quire__side *side = &book->sides[move->group - 1];
    bool offload = move->type == QUIRE__MOVE_OFFLOAD;
    quire__side_block *block = block_of(side, move->node);

    if (offload && book->pool.owner[QUIRE_TIER_HOST][move->destination] == move->node)
        block->host = QUIRE__ABSENT;
    if (offload || side->owner[move->destination] != move->node || block->state != QUIRE__ARRIVING)
        return;
    block->state = QUIRE__SPOILED;
    if (block->users == 0)
        shelve(book, side, move->node);
}
