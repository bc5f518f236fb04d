/* step.c: one forward pass.
 *
 *   begin     the stream is chained behind the last step
 *   add       the book reserves blocks and plans copies-on-write; the bytes stay where they are
 *   submit    tables and copies are enqueued; from here the device may run the step
 *   commit    the step's end is marked on the stream, then the book seals full blocks and offloads start behind the mark
 *   cancel    the mark as well (something may have been enqueued), then the book takes everything back
 *
 * Why a commit need not wait for the device: whoever reads a block sealed here does so in a later step, and steps are
 * chained; an offload waits for the mark.
 */
#include "base/check.h"
#include "base/clock.h"
#include "base/status.h"
#include "cache/cache.h"
#include "cache/follow.h"
#include "cache/groups.h"

static quire_status begin(quire_cache *cache, void *stream)
{
    quire_step *step = &cache->step;

    if (step->state != QUIRE__STEP_NONE)
        return quire__fail(QUIRE_ESTATE, "a step is open already; commit or cancel it first");
    if (cache->followers != NULL)
        QUIRE__TRY(cache->followers->ready(cache->followers->arg));
    quire__cache_take_in(cache);
    step->stream = stream != NULL ? (quire__stream *)stream : cache->stream;
    QUIRE__TRY(quire__mover_step_chain(cache->mover, step->stream));
    step->number = ++cache->steps;
    step->row_count = step->tokens = step->parts_ready = 0;
    step->restore = 0;
    step->graph_rows = step->graph_context = 0;
    step->state = QUIRE__STEP_ADDING;
    quire__book_set_time(cache->book, quire__clock_us());
    quire__book_step_begin(cache->book, step->number);
    return QUIRE_OK;
}

quire_status quire_step_begin(quire_cache *cache, void *stream, quire_step **out)
{
    if (cache == NULL || out == NULL)
        return quire__fail(QUIRE_EINVAL, "cache and step must not be NULL");
    quire__cache_lock(cache);
    quire_status status = begin(cache, stream);
    quire__cache_unlock(cache);
    if (status == QUIRE_OK)
        *out = &cache->step;
    return status;
}

static quire_status check_add(quire_step *step, quire_seq seq, size_t count, uint32_t *index)
{
    const quire_options *options = &step->cache->options;

    QUIRE__TRY(quire__cache_find(step->cache, seq, index));
    if (step->cache->faces[*index].in_step)
        return quire__fail(QUIRE_ESTATE, "the sequence is in this step already; add all its tokens at once");
    if (count == 0)
        return quire__fail(QUIRE_EINVAL, "count is 0; a step computes at least one token of a sequence");
    if (count > options->max_step_tokens - step->tokens)
        return quire__fail(QUIRE_EINVAL, "%zu tokens do not fit this step: it has %u of max_step_tokens %u", count,
                           step->tokens, options->max_step_tokens);
    return QUIRE_OK;
}

/* Blocks whose copies are under way come back by themselves, so a cache that is full of them is worth waiting for. */
static quire_status reserve(quire_step *step, uint32_t index, const int32_t *tokens, size_t count, bool early)
{
    quire_cache *cache = step->cache;
    uint64_t deadline = 0;

    for (;;) {
        uint32_t moving = 0;
        quire_status status =
            early ? quire__book_reserve_early(cache->book, index, tokens, count, &step->plan, &moving)
                  : quire__book_reserve(cache->book, index, tokens, count, &step->plan, &moving);
        if (status != QUIRE_EFULL || moving == 0)
            return status;
        if (deadline == 0) /* here: asking for the time costs as much as the rest of a decode's reserve */
            deadline = quire__clock_us() + (uint64_t)cache->options.move_timeout_ms * 1000;
        cache->faces[index].busy = true;
        quire_status waited = quire__cache_pause_unlocked(cache, deadline, "blocks whose copies are under way");
        cache->faces[index].busy = false;
        if (waited != QUIRE_OK)
            return status;
        quire__cache_take_in(cache);
    }
}

/* With restores in parts a step needs the first of them only, to begin with. */
static bool may_run_ahead(quire_cache *cache, const quire__face *face)
{
    return cache->part_layers < cache->layout.layers && face->restore > 0 &&
           quire__mover_restore_begun(cache->mover, face->restore);
}

static quire_status add(quire_step *step, quire_seq seq, const int32_t *tokens, size_t count)
{
    uint32_t index = 0;

    QUIRE__TRY(check_add(step, seq, count, &index));
    quire_cache *cache = step->cache;
    quire__cache_take_in(cache);
    uint32_t before = quire__book_seq_length(cache->book, index); /* what the caller knows: only calls that name it change it */
    bool early = !quire__book_seq_ready(cache->book, index);
    if (quire__book_seq_length(cache->book, index) < before)
        return quire__fail(QUIRE_EAGAIN, "the sequence's restore has failed in part: it had %u tokens; read its length "
                           "(quire_seq_get), and add those from there on", before);
    if (early && !may_run_ahead(cache, &cache->faces[index]))
        return quire__fail(QUIRE_EAGAIN, "the sequence's restore is still under way; run others, or quire_seq_wait");
    QUIRE__TRY(reserve(step, index, tokens, count, early));
    if (early && cache->faces[index].restore > step->restore)
        step->restore = cache->faces[index].restore;
    cache->faces[index].in_step = true;
    step->rows[step->row_count++] = (quire__step_row){index, (uint32_t)count, early};
    step->tokens += (uint32_t)count;
    return QUIRE_OK;
}

quire_status quire_step_add(quire_step *step, quire_seq seq, const int32_t *tokens, size_t count)
{
    if (step == NULL || step->state != QUIRE__STEP_ADDING)
        return quire__fail(QUIRE_ESTATE, "quire_step_add needs a step that was begun and not submitted");
    quire__cache_lock(step->cache);
    quire_status status = add(step, seq, tokens, count);
    quire__cache_unlock(step->cache);
    return status;
}

/* The copies of pairs[0 .. count), within one group's arena. */
static quire_status copy_pairs(quire_step *step, uint32_t count, quire__tables *tables, unsigned char *arena, size_t block_bytes)
{
    if (count == 0)
        return QUIRE_OK;
    QUIRE__TRY(quire__tables_send_pairs(tables, step->stream, step->pairs, count));
    quire__kernel_args args = {.block_copy = {.arena = arena,
                                              .block_stride = (int64_t)block_bytes,
                                              .block_bytes = (int64_t)block_bytes,
                                              .pairs = quire__tables_pairs(tables),
                                              .count = (int32_t)count}};
    return quire__device_launch(step->cache->device, step->stream, QUIRE__KERNEL_BLOCK_COPY, &args);
}

quire_status quire__step_copy_blocks(quire_step *step, uint32_t count)
{
    return copy_pairs(step, count, step->cache->tables, step->cache->arena, step->cache->layout.block_bytes);
}

quire_status quire__step_copy_group(quire_step *step, uint32_t group, quire__tables *tables, unsigned char *arena,
                                    size_t block_bytes)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < step->plan.count; i++)
        if (step->plan.moves[i].group == group)
            step->pairs[count++] = (quire__block_pair){(int32_t)step->plan.moves[i].source,
                                                       (int32_t)step->plan.moves[i].destination};
    return copy_pairs(step, count, tables, arena, block_bytes);
}

void quire__cache_fill_view(quire_cache *cache, quire__stream *stream, const quire__layout *layout, unsigned char *arena,
                            uint32_t slots, const float *scales, quire_view *view)
{
    *view = (quire_view){.arena = arena,
                         .block_stride = (int64_t)layout->block_bytes,
                         .layer_stride = layout->layer_stride,
                         .kv_stride = layout->kv_stride,
                         .head_stride = layout->head_stride,
                         .token_stride = layout->token_stride,
                         .blocks = slots,
                         .block_tokens = layout->block_tokens,
                         .layers = layout->layers,
                         .kv_heads = layout->kv_heads,
                         .head_dim = layout->head_dim,
                         .query_heads = layout->query_heads,
                         .dtype = layout->dtype,
                         .scales = scales,
                         .scale_offset = layout->scale_offset,
                         .scale_stride = layout->scale_stride,
                         .scale_group = layout->scale_group,
                         .rotation = layout->rotation,
                         .value_dim = layout->value_dim,
                         .window = layout->window,
                         .state_bytes = layout->state_bytes,
                         .stream = stream,
                         .owner = cache};
}

void quire__step_fill_view(quire_step *step)
{
    quire_cache *cache = step->cache;
    quire__cache_fill_view(cache, step->stream, &cache->layout, cache->arena, cache->device_slots, cache->scales, &step->view);
}

static void gather_rows(quire_step *step)
{
    quire_cache *cache = step->cache;

    for (uint32_t i = 0, first = 0; i < step->row_count; first += step->rows[i++].added) {
        quire__face *face = &cache->faces[step->rows[i].seq];
        quire__row *row = &step->sent[i];
        quire_seq_info info;
        quire__book_seq_get(cache->book, step->rows[i].seq, &info);
        row->blocks =
            quire__book_seq_table(cache->book, step->rows[i].seq, &row->block_count, &row->changed, true);
        row->owner = face->owner;
        row->last_row = &face->last_row;
        row->first = first;
        row->added = step->rows[i].added;
        row->length = (uint32_t)info.length + row->added; /* reserved tokens count from the commit on */
    }
}

quire_status quire_step_graph(quire_step *step, uint32_t rows, uint32_t longest_context)
{
    if (step == NULL || step->state != QUIRE__STEP_ADDING)
        return quire__fail(QUIRE_ESTATE, "quire_step_graph needs a step that was begun and not submitted");
    const quire_options *options = &step->cache->options;
    if (options->group_count != 1)
        return quire__fail(QUIRE_EUNSUPPORTED, "steps for graphs are of one group of layers; the cache has %u",
                           options->group_count);
    if (rows == 0 || rows > options->max_sequences || rows > options->max_step_tokens)
        return quire__fail(QUIRE_EINVAL, "rows is %u; it must be 1 to max_sequences (%u) and max_step_tokens (%u)", rows,
                           options->max_sequences, options->max_step_tokens);
    if (longest_context == 0 || longest_context > options->max_seq_tokens)
        return quire__fail(QUIRE_EINVAL, "longest_context is %u; it must be 1 to max_seq_tokens (%u)", longest_context,
                           options->max_seq_tokens);
    step->graph_rows = rows;
    step->graph_context = longest_context;
    return QUIRE_OK;
}

/* Do the rows fit what a graph was promised? */
static quire_status check_graph(quire_step *step)
{
    if (step->graph_rows == 0)
        return QUIRE_OK;
    if (step->row_count > step->graph_rows)
        return quire__fail(QUIRE_EINVAL, "the step has %u rows, more than the %u that quire_step_graph was told",
                           step->row_count, step->graph_rows);
    for (uint32_t i = 0; i < step->row_count; i++) {
        uint32_t length = quire__book_seq_length(step->cache->book, step->rows[i].seq) + 1;
        if (step->rows[i].added != 1 || length > step->graph_context)
            return quire__fail(QUIRE_EINVAL, "row %u has %u new tokens and a context of %u; for a graph it must be 1, and "
                               "at most the %u that quire_step_graph was told", i, step->rows[i].added, length,
                               step->graph_context);
    }
    return QUIRE_OK;
}

void quire__step_shape_view(quire_step *step)
{
    if (step->graph_rows == 0)
        return;
    step->view.longest_context = step->graph_context;
    QUIRE__ASSERT(step->view.rows == step->graph_rows && step->view.decodes == step->graph_rows);
}

/* What is sent belongs to the step's sequences, which nobody else changes while they are in it: without the lock. */
quire_status quire_step_submit(quire_step *step)
{
    if (step == NULL || step->state != QUIRE__STEP_ADDING)
        return quire__fail(QUIRE_ESTATE, "quire_step_submit needs a step that was begun and not submitted");
    quire_cache *cache = step->cache;

    quire__cache_lock(cache);
    quire_status fits = check_graph(step);
    if (fits == QUIRE_OK)
        gather_rows(step);
    quire__cache_unlock(cache);
    if (fits != QUIRE_OK)
        return fits;
    quire__step_fill_view(step);
    quire__tables_pad(cache->tables, step->graph_rows);
    quire_status status = quire__tables_send(cache->tables, step->stream, step->sent, step->row_count, &step->view);
    if (status == QUIRE_OK)
        status = quire__step_copy_group(step, 0, cache->tables, cache->arena, cache->layout.block_bytes);
    if (status == QUIRE_OK)
        status = quire__groups_submit(step);
    if (status == QUIRE_OK && cache->followers != NULL)
        status = cache->followers->submit(cache->followers->arg, step);
    if (status != QUIRE_OK) {
        quire__tables_forget(cache->tables);
        if (cache->followers != NULL)
            cache->followers->forget(cache->followers->arg);
        return status;
    }
    quire__step_shape_view(step);
    step->prefixes_found = false;
    step->shared.group_count = 0;
    quire__cache_lock(cache);
    step->state = QUIRE__STEP_SUBMITTED;
    quire__cache_unlock(cache);
    return step->graph_rows > 0 ? quire__step_await_layer(step, cache->layout.layers - 1) : QUIRE_OK;
}

const quire_view *quire_step_view(quire_step *step, uint32_t group)
{
    if (step == NULL || step->state != QUIRE__STEP_SUBMITTED || group > step->cache->side_count)
        return NULL;
    return group == 0 ? &step->view : &step->side_views[group - 1];
}

quire_status quire__step_await_layer(quire_step *step, uint32_t layer)
{
    uint32_t part = layer / step->cache->part_layers;

    if (step->restore == 0 || part < step->parts_ready)
        return QUIRE_OK;
    quire__cache_lock(step->cache);
    quire_status status = quire__mover_restore_wait(step->cache->mover, step->restore, part, step->stream);
    quire__cache_unlock(step->cache);
    if (status != QUIRE_OK)
        return status;
    step->parts_ready = part + 1; /* parts arrive in order */
    return QUIRE_OK;
}

quire_status quire_step_await_layer(quire_step *step, uint32_t layer)
{
    if (step == NULL || step->state != QUIRE__STEP_SUBMITTED)
        return quire__fail(QUIRE_ESTATE, "quire_step_await_layer needs a submitted step");
    if (layer >= step->view.layers)
        return quire__fail(QUIRE_EINVAL, "layer is %u; the group has %u, counted from 0", layer, step->view.layers);
    return quire__step_await_layer(step, layer);
}

static quire_status name(quire_step *step, quire_seq seq, const int32_t *tokens, size_t count)
{
    uint32_t index = 0;

    QUIRE__TRY(quire__cache_find(step->cache, seq, &index));
    if (!step->cache->faces[index].in_step)
        return quire__fail(QUIRE_ESTATE, "the sequence is not in this step");
    if (tokens == NULL)
        return quire__fail(QUIRE_EINVAL, "tokens must not be NULL");
    return quire__book_name(step->cache->book, index, tokens, count);
}

quire_status quire_step_name(quire_step *step, quire_seq seq, const int32_t *tokens, size_t count)
{
    if (step == NULL || step->state == QUIRE__STEP_NONE)
        return quire__fail(QUIRE_ESTATE, "quire_step_name needs an open step");
    quire__cache_lock(step->cache);
    quire_status status = name(step, seq, tokens, count);
    quire__cache_unlock(step->cache);
    return status;
}

void quire__step_finish(quire_step *step)
{
    for (uint32_t i = 0; i < step->row_count; i++)
        step->cache->faces[step->rows[i].seq].in_step = false;
    quire__book_step_end(step->cache->book);
    step->plan.count = 0;
    step->row_count = step->tokens = 0;
    step->state = QUIRE__STEP_NONE;
}

/* Rows that ran ahead of their restores: nothing of theirs may become matchable before the CPU has seen those end. The copies
 * were enqueued before the step's kernels, which wait for them; so this waits for copies, and hardly ever long. Every restore
 * ends, by the mover's deadline; one that failed takes its row out of the step. */
static uint32_t settle_early_rows(quire_step *step)
{
    quire_cache *cache = step->cache;
    uint32_t kept = 0, lost = 0;

    for (uint32_t i = 0; i < step->row_count; i++) {
        quire__step_row row = step->rows[i];
        quire__settled settled = QUIRE__SETTLED;
        while (row.early && (settled = quire__book_settle(cache->book, row.seq)) == QUIRE__SETTLING) {
            quire__cache_unlock(cache);
            quire__clock_sleep_us(5);
            quire__cache_lock(cache);
            quire__cache_take_in(cache);
        }
        if (settled == QUIRE__LOST) {
            quire__book_cancel(cache->book, row.seq);
            (void)quire__book_seq_ready(cache->book, row.seq); /* takes the loss in */
            cache->faces[row.seq].in_step = false;
            lost++;
        } else {
            step->rows[kept++] = row;
        }
    }
    step->row_count = kept;
    return lost;
}

/* Write-back: makes sure that the next evictions find blocks which the host has. One batch at a time, so that a restore that
 * comes finds no more than that before it on the link. */
static void offload_ahead(quire_cache *cache)
{
    quire__mover_stats moved;

    if (cache->options.offload < QUIRE_OFFLOAD_WRITE_BACK)
        return;
    quire__mover_stats_get(cache->mover, &moved);
    if (moved.offloading > 0)
        return;
    quire__book_offload_ahead(cache->book, moved.restoring > 0, &cache->moves);
    quire__cache_start_moves(cache);
}

static quire_status commit(quire_step *step)
{
    quire_cache *cache = step->cache;

    for (uint32_t i = 0; i < step->row_count; i++)
        if (!quire__book_named(cache->book, step->rows[i].seq))
            return quire__fail(QUIRE_ESTATE, "row %u has tokens without a name; call quire_step_name first", i);
    QUIRE__TRY(quire__mover_step_mark(cache->mover, step->number, step->stream));
    quire__cache_take_in(cache);
    uint32_t lost = step->restore > 0 ? settle_early_rows(step) : 0;
    for (uint32_t i = 0; i < step->row_count; i++) {
        if (quire__plan_room(&cache->moves) < (step->rows[i].added + 1) * cache->options.group_count)
            quire__cache_start_moves(cache);
        quire__book_commit(cache->book, step->rows[i].seq, &cache->moves);
    }
    quire__cache_start_moves(cache);
    for (uint32_t i = 0; i < step->row_count; i++)
        quire__record_row(cache->record, step->rows[i].seq, step->rows[i].added);
    quire__record_step_end(cache->record);
    quire__step_finish(step);
    offload_ahead(cache);
    if (lost > 0)
        return quire__fail(QUIRE_EDEVICE, "the restores that %u of the step's sequences ran ahead of have failed; none of "
                           "this step's tokens are theirs, and they may be shorter now (quire_seq_get)", lost);
    return QUIRE_OK;
}

quire_status quire_step_commit(quire_step *step)
{
    if (step == NULL || step->state != QUIRE__STEP_SUBMITTED)
        return quire__fail(QUIRE_ESTATE, "quire_step_commit needs a submitted step");
    quire__cache_lock(step->cache);
    quire_status status = commit(step);
    quire__cache_unlock(step->cache);
    return status;
}

void quire_step_cancel(quire_step *step)
{
    if (step == NULL || step->state == QUIRE__STEP_NONE)
        return;
    quire_cache *cache = step->cache;

    quire__cache_lock(cache);
    /* Unmarked, the step's slots could be given to a restore while its kernels still run. */
    if (quire__mover_step_mark(cache->mover, step->number, step->stream) != QUIRE_OK)
        (void)quire__device_stream_synchronize(cache->device, step->stream);
    for (uint32_t i = step->row_count; i-- > 0;)
        quire__book_cancel(cache->book, step->rows[i].seq);
    quire__step_finish(step);
    quire__cache_unlock(cache);
}
