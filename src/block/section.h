/* section.h: an arena that grows and shrinks. Its slots come in sections of equal size, each there or not there. */
#ifndef QUIRE_SECTION_H
#define QUIRE_SECTION_H

#include "block/state.h"

uint32_t quire__section_count(const quire__book *book); /* that are there */
/* Puts the lowest section that is not there in: its slots are free. QUIRE__NONE: all are there. */
uint32_t quire__section_add(quire__book *book);
/* Can all but `count` sections leave? QUIRE_EFULL: sequences hold too much. `*moving`: blocks that a move in flight has; wait
 * for those first. */
quire_status quire__section_check(const quire__book *book, uint32_t count, uint32_t *moving);
/* Picks a section and empties it, as far as bookkeeping goes: evicts what will have no room, and plans a copy to another
 * section for each block that stays. After quire__section_check, with no move in flight. The plan needs room for a section's
 * slots. Nothing but quire__section_left may follow. */
uint32_t quire__section_leave(quire__book *book, quire__plan *plan);
/* ok: the planned copies are done; the section is not there any more. Else all stays where it is. */
void quire__section_left(quire__book *book, uint32_t section, const quire__plan *plan, bool ok);

#endif
