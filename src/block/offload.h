/* offload.h: which blocks are copied to the host tier, and when. */
#ifndef QUIRE_OFFLOAD_H
#define QUIRE_OFFLOAD_H

#include "block/state.h"

/* Working memory, and watermarks where the configuration leaves them to us. */
quire_status quire__offload_open(quire__book *book);
void quire__offload_close(quire__book *book);

/* Plans the offload of what the host lacks of the chain's full blocks, `most` of them. How many it planned. Write-through,
 * after a commit. */
uint32_t quire__offload_chain(quire__book *book, quire__chain *chain, uint32_t most, quire__plan *plan);
/* Write-back: plans the offload of what eviction will come to next. */
void quire__offload_ahead(quire__book *book, bool restoring, quire__plan *plan);
/* Write-back: who goes in place of the order's first when the host lacks that one: one that was secured, else the first. */
uint32_t quire__offload_victim(quire__book *book, uint32_t first);
/* Write-back: a block leaves the device, and the host does not have it. */
void quire__offload_missed(quire__book *book, uint32_t node);

/* QUIRE_ECORRUPT: what is remembered of the last look cannot be. */
quire_status quire__offload_check(const quire__book *book);

static inline bool quire__offload_is_ahead(const quire__book *book)
{
    return book->config.offload >= QUIRE_OFFLOAD_WRITE_BACK;
}

#endif
