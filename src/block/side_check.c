#include "block/side_check.h"

#include <string.h>

#include "base/status.h"
#include "block/chain.h"

static quire_status wrong(uint32_t group, uint32_t node, const char *what)
{
    return quire__fail(QUIRE_ECORRUPT, "group %u, node %u: %s", group + 1, node, what);
}

/* Every slot has one owner; the free ones are in the stack. */
static quire_status check_slots(const quire__book *book, uint32_t group)
{
    const quire__side *side = &book->sides[group];
    uint32_t unowned = 0, orphans = 0;
    for (uint32_t slot = 0; slot < side->config.slots; slot++) {
        uint32_t owner = side->owner[slot];
        unowned += owner == QUIRE__NONE;
        orphans += owner == QUIRE__ORPHAN;
        if (owner < QUIRE__MISSING && (owner >= book->pool.node_count || side->blocks[owner].slot != slot))
            return quire__fail(QUIRE_ECORRUPT, "group %u: slot %u belongs to node %u, which has another", group + 1, slot,
                               owner);
    }
    if (unowned != side->free_count || orphans != side->orphans)
        return quire__fail(QUIRE_ECORRUPT, "group %u: %u slots are free and %u orphans, counted as %u and %u", group + 1,
                           unowned, orphans, side->free_count, side->orphans);
    for (uint32_t i = 0; i < side->free_count; i++)
        if (side->free[i] >= side->config.slots || side->owner[side->free[i]] != QUIRE__NONE)
            return quire__fail(QUIRE_ECORRUPT, "group %u: slot %u is in the free stack and not free", group + 1, side->free[i]);
    return QUIRE_OK;
}

static quire_status check_block(const quire__book *book, uint32_t group, uint32_t node)
{
    const quire__side_block *block = &book->sides[group].blocks[node];
    const quire__node *record = &book->pool.nodes[node];
    bool there = block->slot != QUIRE__NONE, moving = (block->flags & (QUIRE__SIDE_READ | QUIRE__SIDE_WRITTEN)) != 0;
    if (there != (block->state != QUIRE__ABSENT) || (block->users > 0 && !there))
        return wrong(group, node, "a slot without a state, a state without a slot, or users without either");
    if (there && book->sides[group].owner[block->slot] != node)
        return wrong(group, node, "its slot is not its own");
    if (there && block->users == 0 && (block->list == 0 || block->state == QUIRE__SPOILED))
        return wrong(group, node, "nobody uses it, and it is in no list, or spoiled");
    if ((!there || block->users > 0) && block->list != 0)
        return wrong(group, node, "in a list, and used or nowhere");
    if (block->list != 0 && (block->list == QUIRE__SIDE_LISTS) != moving)
        return wrong(group, node, "evictable while a move has it, or the other way round");
    if (block->host != QUIRE__ABSENT && record->slot[QUIRE_TIER_HOST] == QUIRE__NONE)
        return wrong(group, node, "on the host, where the node has no slot");
    if (record->kind == QUIRE__KIND_FREE && (there || block->host != QUIRE__ABSENT))
        return wrong(group, node, "the node is free");
    return QUIRE_OK;
}

static quire_status check_lists(const quire__book *book, uint32_t group)
{
    const quire__side *side = &book->sides[group];
    uint32_t listed = 0, loose = 0, linked = 0;
    for (uint32_t node = 0; node < book->pool.node_count; node++) {
        loose += side->blocks[node].list == QUIRE__SIDE_LISTS;
        listed += side->blocks[node].list != 0 && side->blocks[node].list < QUIRE__SIDE_LISTS;
    }
    for (uint32_t list = 1; list < QUIRE__SIDE_LISTS; list++) {
        uint32_t end = side->config.slots + list, slot = side->links[2 * end + 1];
        for (; slot != end && linked <= listed; slot = side->links[2 * slot + 1], linked++)
            if (slot >= side->config.slots || side->owner[slot] >= book->pool.node_count ||
                side->blocks[side->owner[slot]].list != list)
                return quire__fail(QUIRE_ECORRUPT, "group %u: slot %u is in list %u wrongly", group + 1, slot, list);
    }
    if (listed != side->cached || linked != listed || loose != side->loose)
        return quire__fail(QUIRE_ECORRUPT, "group %u: %u cached, %u linked, %u loose, counted as %u and %u", group + 1, listed,
                           linked, loose, side->cached, side->loose);
    return QUIRE_OK;
}

static quire_status check_span(const quire__book *book, uint32_t group, uint32_t seq)
{
    const quire__side *side = &book->sides[group];
    const quire__chain *chain = &book->chains[seq];
    const quire__span *span = &chain->spans[group];
    if (span->first > chain->blocks || span->changed > chain->blocks ||
        (chain->length > 0 && span->first > quire__side_needed(book, side, chain->length)))
        return quire__fail(QUIRE_ECORRUPT, "sequence %u: of %u blocks group %u has those from %u on", seq, chain->blocks,
                           group + 1, span->first);
    for (uint32_t at = span->first; at < chain->blocks; at++) {
        const quire__side_block *block = &side->blocks[chain->nodes[at]];
        book->scratch[chain->nodes[at]]++;
        if (at < chain->ready && block->state != QUIRE__RESIDENT)
            return quire__fail(QUIRE_ECORRUPT, "sequence %u: block %u is called ready, and group %u has it not", seq, at,
                               group + 1);
        if (at < chain->ready && span->table[at] != (int32_t)block->slot && !(book->holes & QUIRE__BOOK_HOLE_SIDE_COPY))
            return quire__fail(QUIRE_ECORRUPT, "sequence %u: entry %u of group %u is %d, the slot is %u", seq, at, group + 1,
                               span->table[at], block->slot);
    }
    if (chain->source != QUIRE__NONE)
        book->scratch[chain->source]++;
    return QUIRE_OK;
}

static quire_status check_users(const quire__book *book, uint32_t group)
{
    memset(book->scratch, 0, book->pool.node_count * sizeof *book->scratch);
    for (uint32_t seq = 0; seq < book->config.max_sequences; seq++)
        if (book->chains[seq].open)
            QUIRE__TRY(check_span(book, group, seq));
    for (uint32_t node = 0; node < book->pool.node_count; node++)
        if (book->sides[group].blocks[node].users != book->scratch[node])
            return quire__fail(QUIRE_ECORRUPT, "group %u, node %u: %u users, counted as %u", group + 1, node,
                               book->scratch[node], book->sides[group].blocks[node].users);
    return QUIRE_OK;
}

/* A host slot that any move has is not free, and its node says that it is busy. */
static quire_status check_host(const quire__book *book)
{
    for (uint32_t slot = 0; slot < book->config.host_slots && !book->holes; slot++) {
        uint32_t owner = book->pool.owner[QUIRE_TIER_HOST][slot], moves = book->host_moves[slot];
        if (moves > 0 && (owner == QUIRE__NONE || (owner < book->pool.node_count &&
                                                    !quire__pool_in_flight(&book->pool.nodes[owner], QUIRE_TIER_HOST))))
            return quire__fail(QUIRE_ECORRUPT, "host slot %u: %u moves have it, and it may be given out", slot, moves);
        if (moves == 0 && owner == QUIRE__ORPHAN)
            return quire__fail(QUIRE_ECORRUPT, "host slot %u: an orphan that no move has", slot);
    }
    return QUIRE_OK;
}

quire_status quire__side_check(const quire__book *book)
{
    for (uint32_t group = 0; group < book->side_count; group++) {
        QUIRE__TRY(check_slots(book, group));
        for (uint32_t node = 0; node < book->pool.node_count; node++)
            QUIRE__TRY(check_block(book, group, node));
        QUIRE__TRY(check_lists(book, group));
        QUIRE__TRY(check_users(book, group));
    }
    return book->side_count > 0 ? check_host(book) : QUIRE_OK;
}
