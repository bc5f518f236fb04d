#include "cache/follow.h"

#include <string.h>

#include "base/status.h"

/* Steps that were cancelled before they were submitted are never heard of here, but slots carry their numbers as tickets.
 * What such a ticket waits for is everything before it: so they are marked where the next step begins. */
static quire_status mark_skipped(quire_cache *cache, quire__stream *stream, uint64_t number)
{
    enum { MARKS = 16 }; /* the mover keeps no more */
    uint64_t first = cache->steps + 1 + MARKS < number ? number - MARKS : cache->steps + 1;

    for (uint64_t step = first; step < number; step++)
        QUIRE__TRY(quire__mover_step_mark(cache->mover, step, stream));
    return QUIRE_OK;
}

quire_status quire__follow_step(quire_cache *cache, quire__stream *stream, uint64_t number, const quire__row *rows,
                                uint32_t row_count, const quire__block_pair *pairs, uint32_t pair_count)
{
    quire_step *step = &cache->step;

    step->stream = stream != NULL ? stream : cache->stream;
    QUIRE__TRY(quire__mover_step_chain(cache->mover, step->stream));
    QUIRE__TRY(mark_skipped(cache, step->stream, number));
    step->number = cache->steps = number;
    step->row_count = row_count;
    memmove(step->sent, rows, row_count * sizeof *rows);
    memcpy(step->pairs, pairs, pair_count * sizeof *pairs);
    quire__step_fill_view(step);
    quire__tables_pad(cache->tables, step->graph_rows);
    quire_status status = quire__tables_send(cache->tables, step->stream, step->sent, row_count, &step->view);
    if (status == QUIRE_OK)
        status = quire__step_copy_blocks(step, pair_count);
    if (status != QUIRE_OK) {
        quire__tables_forget(cache->tables);
        return status;
    }
    quire__step_shape_view(step);
    step->prefixes_found = false;
    step->shared.group_count = 0;
    step->state = QUIRE__STEP_SUBMITTED;
    return QUIRE_OK;
}

quire_status quire__follow_end(quire_cache *cache)
{
    cache->step.state = QUIRE__STEP_NONE;
    return quire__mover_step_mark(cache->mover, cache->step.number, cache->step.stream);
}
