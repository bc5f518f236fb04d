/* chain.h: a sequence's blocks: how they grow, branch and shrink. */
#ifndef QUIRE_CHAIN_H
#define QUIRE_CHAIN_H

#include "block/state.h"

/* Blocks that `tokens` tokens fill or begin. */
static inline uint32_t quire__chain_blocks_of(const quire__book *book, uint64_t tokens)
{
    return (uint32_t)((tokens + book->config.block_tokens - 1) / book->config.block_tokens);
}

/* Of the blocks that `length` tokens fill or begin, `blocks` in all, those that are full. A decode step asks several times for
 * each sequence, and divisions were a seventh of its time. */
static inline uint32_t quire__chain_full_of(const quire__book *book, uint32_t blocks, uint32_t length)
{
    return blocks - ((uint64_t)blocks * book->config.block_tokens > length);
}

/* Blocks that must stay available after the chain has taken some. */
uint32_t quire__chain_watermark(const quire__book *book, const quire__chain *chain);

void quire__chain_fork(quire__book *book, const quire__chain *chain, quire__chain *child);
void quire__chain_truncate(quire__book *book, quire__chain *chain, uint32_t length);
/* Takes in what completions did: slots that became known, blocks that were lost. True: nothing is arriving any more. */
bool quire__chain_refresh(quire__book *book, quire__chain *chain);
/* Reads the table again after blocks have moved to other slots. */
void quire__chain_resettle(const quire__book *book, quire__chain *chain);

/* May a step run on the chain although blocks of it are arriving? Not when it would have to copy one of them. */
bool quire__chain_may_run(const quire__book *book, const quire__chain *chain);
/* What became of those blocks, of a chain that is in a step. See quire__book_settle. */
quire__settled quire__chain_settle(quire__book *book, quire__chain *chain);

/* Room for `count` more tokens, all or nothing. See quire__book_reserve. */
quire_status quire__chain_reserve(quire__book *book, quire__chain *chain, uint32_t count, quire__plan *plan,
                                  uint32_t *moving);
void quire__chain_cancel(quire__book *book, quire__chain *chain);
/* Writes the tokens that the open step has reserved room for. */
void quire__chain_write(quire__book *book, quire__chain *chain, const int32_t *tokens, uint32_t count);
/* Reads tokens from position `first` on; all of them must have a block. */
void quire__chain_read(const quire__book *book, const quire__chain *chain, uint32_t first, int32_t *tokens,
                       uint32_t count);

#endif
