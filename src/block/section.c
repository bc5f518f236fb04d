/* section.c: which part of the arena goes, and where its blocks go.
 *
 *    sections    0          1          2          3            8 slots each
 *                UU.U....   CC.U.C..   --------   CCCCCCC.     U used, C cached, . free, - not there
 *
 * To leave, a section must hold nothing. Blocks that are cached longest are evicted until the rest fits in the other
 * sections; whatever is left in the leaving one, used or cached, moves to free slots elsewhere. So the arena shrinks under
 * sequences that go on, and what is lost is what eviction would have taken. The section with the fewest blocks leaves:
 * fewest copies. Of equals the last, so that the arena's memory gathers at its start.
 *
 * It is done in two halves: leave plans the copies and takes their destinations out of the free ones; left is told how the
 * copies ended. Only then do nodes and tables change, so a copy that fails has changed nothing.
 *
 * A slot that is not there has the owner QUIRE__MISSING and is in no stack.
 */
#include "block/section.h"

#include "base/check.h"
#include "base/status.h"
#include "block/chain.h"
#include "block/residency.h"

static uint32_t section_size(const quire__book *book)
{
    return book->config.section_slots;
}

static uint32_t section_total(const quire__book *book)
{
    return book->config.device_slots / section_size(book);
}

static bool is_there(const quire__book *book, uint32_t section)
{
    return book->pool.owner[QUIRE_TIER_DEVICE][section * section_size(book)] != QUIRE__MISSING;
}

uint32_t quire__section_count(const quire__book *book)
{
    return quire__pool_present(&book->pool) / section_size(book);
}

uint32_t quire__section_add(quire__book *book)
{
    uint32_t section = 0;
    while (section < section_total(book) && is_there(book, section))
        section++;
    if (section == section_total(book))
        return QUIRE__NONE;
    quire__pool_slots_add(&book->pool, section * section_size(book), section_size(book));
    return section;
}

quire_status quire__section_check(const quire__book *book, uint32_t count, uint32_t *moving)
{
    const uint32_t *standing = book->pool.standing[QUIRE_TIER_DEVICE];
    uint64_t room = (uint64_t)count * section_size(book);
    uint32_t held = standing[QUIRE__OPEN] + standing[QUIRE__USED] + standing[QUIRE__EXPECTED];

    *moving = quire__residency_moving(book) + standing[QUIRE__EXPECTED];
    for (uint32_t slot = 0; slot < book->pool.total[QUIRE_TIER_DEVICE] && *moving == 0; slot++) {
        uint32_t owner = book->pool.owner[QUIRE_TIER_DEVICE][slot];
        if (owner < book->pool.node_count && quire__pool_in_flight(&book->pool.nodes[owner], QUIRE_TIER_DEVICE))
            *moving = 1;
    }
    if (held > room)
        return quire__fail(QUIRE_EFULL, "sequences hold %u blocks, and %llu would be left; close some first", held,
                           (unsigned long long)room);
    return QUIRE_OK;
}

/* The section with the fewest blocks, the last of equals. */
static uint32_t emptiest(const quire__book *book)
{
    const uint32_t *owner = book->pool.owner[QUIRE_TIER_DEVICE];
    uint32_t best = QUIRE__NONE, fewest = UINT32_MAX;

    for (uint32_t section = 0; section < section_total(book); section++) {
        uint32_t blocks = 0, first = section * section_size(book);
        if (!is_there(book, section))
            continue;
        for (uint32_t slot = first; slot < first + section_size(book); slot++)
            blocks += !quire__pool_unowned(owner[slot]);
        if (blocks <= fewest) {
            fewest = blocks;
            best = section;
        }
    }
    return best;
}

uint32_t quire__section_leave(quire__book *book, quire__plan *plan)
{
    const uint32_t *owner = book->pool.owner[QUIRE_TIER_DEVICE];
    bool roomy = quire__residency_make_room(book, section_size(book)); /* as many free slots as leave */
    uint32_t section = emptiest(book), first = section * section_size(book);

    QUIRE__ASSERT(roomy && section != QUIRE__NONE);
    (void)roomy;
    quire__pool_slots_hide(&book->pool, first, section_size(book));
    for (uint32_t slot = first; slot < first + section_size(book); slot++)
        if (owner[slot] != QUIRE__NONE) /* else it was hidden: nobody has it */
            quire__plan_add(plan, (quire__move){.type = QUIRE__MOVE_COPY,
                                                .source = slot,
                                                .destination = quire__pool_slot_take(&book->pool, QUIRE_TIER_DEVICE),
                                                .node = owner[slot],
                                                .ticket = book->step});
    return section;
}

void quire__section_left(quire__book *book, uint32_t section, const quire__plan *plan, bool ok)
{
    uint32_t first = section * section_size(book);

    for (uint32_t i = 0; i < plan->count; i++) {
        const quire__move *move = &plan->moves[i];
        if (ok)
            quire__pool_relocate(&book->pool, move->node, move->destination);
        else
            quire__pool_slot_give(&book->pool, QUIRE_TIER_DEVICE, move->destination);
        book->pool.ticket[move->destination] = (uint32_t)book->step;
    }
    if (!ok) {
        quire__pool_slots_show(&book->pool, first, section_size(book));
        return;
    }
    quire__pool_slots_remove(&book->pool, first, section_size(book));
    for (uint32_t seq = 0; plan->count > 0 && seq < book->config.max_sequences; seq++)
        if (book->chains[seq].open)
            quire__chain_resettle(book, &book->chains[seq]);
}
