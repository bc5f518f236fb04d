#include "base/clock.h"
#include "base/status.h"
#include "cache/cache.h"

enum { LONG_BLOCKS = 64 /* from here on a match gives the lock back on its way */ };

quire_status quire__cache_find(const quire_cache *cache, quire_seq seq, uint32_t *index)
{
    uint32_t at = (uint32_t)seq - 1, generation = (uint32_t)(seq >> 32);

    if ((uint32_t)seq == 0 || at >= cache->options.max_sequences)
        return quire__fail(QUIRE_ESTALE, "0x%llx is no handle of a sequence; take one from quire_seq_open",
                           (unsigned long long)seq);
    if (!cache->faces[at].open || cache->faces[at].generation != generation)
        return quire__fail(QUIRE_ESTALE, "sequence 0x%llx has been closed", (unsigned long long)seq);
    if (cache->faces[at].busy)
        return quire__fail(QUIRE_ESTATE, "another thread's call on sequence 0x%llx is under way",
                           (unsigned long long)seq);
    *index = at;
    return QUIRE_OK;
}

/* Gives the book's new sequence its public handle. */
static quire_seq show(quire_cache *cache, uint32_t index)
{
    quire__face *face = &cache->faces[index];

    face->open = true;
    face->in_step = false;
    face->restore = 0;
    face->last_row = QUIRE__NONE;
    face->owner = ++cache->next_owner;
    return (uint64_t)face->generation << 32 | (index + 1);
}

static quire_status find_idle(const quire_cache *cache, quire_seq seq, const char *what, uint32_t *index)
{
    QUIRE__TRY(quire__cache_find(cache, seq, index));
    if (cache->faces[*index].in_step)
        return quire__fail(QUIRE_ESTATE, "cannot %s a sequence that is in an open step; commit or cancel the step first",
                           what);
    return QUIRE_OK;
}

static quire_status check_tokens(const int32_t *tokens, size_t count)
{
    if (tokens == NULL && count > 0)
        return quire__fail(QUIRE_EINVAL, "tokens is NULL but count is %zu", count);
    return QUIRE_OK;
}

/* ---- open, match ------------------------------------------------------------------------------------------- */

quire_status quire_seq_open(quire_cache *cache, const quire_seq_options *options, quire_seq *seq)
{
    uint32_t index = 0;

    if (cache == NULL || seq == NULL)
        return quire__fail(QUIRE_EINVAL, "cache and seq must not be NULL");
    if (options != NULL && options->size != sizeof *options)
        return quire__fail(QUIRE_EINVAL, "quire_seq_options.size is %zu; set it to sizeof(quire_seq_options), %zu",
                           options->size, sizeof *options);
    const uint64_t domain = options != NULL ? options->domain : 0;
    quire__cache_lock(cache);
    quire_status status = quire__book_seq_open(cache->book, domain, &index);
    if (status == QUIRE_OK) {
        quire__record_seq_open(cache->record, index, domain);
        *seq = show(cache, index);
    }
    quire__cache_unlock(cache);
    return status;
}

/* Long enough to give the lock back for? */
static bool is_long(const quire_cache *cache, size_t count)
{
    return cache->side_count == 0 && count / cache->layout.block_tokens >= LONG_BLOCKS;
}

/* Compares a long prompt piece by piece without the lock, and holds what it finds with it. */
static void match_long(quire_cache *cache, uint32_t index, const int32_t *tokens, size_t count)
{
    quire__look look;
    bool more = true;

    cache->faces[index].busy = true;
    while (more) {
        look.departures = quire__book_departures(cache->book);
        quire__cache_unlock(cache);
        more = quire__book_match_look(cache->book, index, tokens, count, &look);
        quire__cache_lock(cache);
        more = more && quire__book_match_hold(cache->book, index, tokens, count, &look);
    }
    cache->faces[index].busy = false;
}

static quire_status match(quire_cache *cache, quire_seq seq, const int32_t *tokens, size_t count, quire_hit *found)
{
    uint32_t index = 0;

    QUIRE__TRY(find_idle(cache, seq, "match", &index));
    QUIRE__TRY(check_tokens(tokens, count));
    quire__cache_take_in(cache);
    quire__cache_tell_costs(cache);
    QUIRE__TRY(quire__book_match_begin(cache->book, index, tokens, count));
    if (is_long(cache, count))
        match_long(cache, index, tokens, count);
    quire__book_match_end(cache->book, index, tokens, count, &cache->moves, found);
    quire__record_match(cache->record, index, count, found);
    quire__cache_start_moves(cache);
    cache->faces[index].restore = found->ready ? 0 : quire__mover_restore_mark(cache->mover);
    return QUIRE_OK;
}

quire_status quire_seq_match(quire_cache *cache, quire_seq seq, const int32_t *tokens, size_t count, quire_hit *hit)
{
    const uint64_t now = quire__clock_us(); /* before the lock: it takes as long as some sections do */
    quire_hit found;

    quire__cache_lock(cache);
    quire__book_set_time(cache->book, now);
    quire_status status = match(cache, seq, tokens, count, &found);
    quire__cache_unlock(cache);
    if (status == QUIRE_OK && hit != NULL)
        *hit = found;
    return status;
}

quire_status quire_cache_probe(quire_cache *cache, uint64_t domain, const int32_t *tokens, size_t count,
                               quire_hit *hit)
{
    if (cache == NULL || hit == NULL)
        return quire__fail(QUIRE_EINVAL, "cache and hit must not be NULL");
    quire__probe probe;

    QUIRE__TRY(check_tokens(tokens, count));
    quire__lock_take(&cache->lock);
    quire_status status = quire__book_probe_begin(cache->book, domain, tokens, count, &probe);
    if (status == QUIRE_OK) {
        if (is_long(cache, count)) {
            quire__lock_give(&cache->lock);
            quire__book_probe_look(cache->book, tokens, &probe);
            quire__lock_take(&cache->lock);
        }
        quire__book_probe_end(cache->book, tokens, &probe, hit);
    }
    quire__lock_give(&cache->lock);
    return status;
}

/* ---- the rest ---------------------------------------------------------------------------------------------- */

static quire_status wait(quire_cache *cache, quire_seq seq, uint64_t deadline_us)
{
    uint32_t index = 0;

    for (;;) {
        QUIRE__TRY(quire__cache_find(cache, seq, &index)); /* again: it may have been closed meanwhile */
        quire__cache_take_in(cache);
        if (quire__book_seq_ready(cache->book, index))
            return QUIRE_OK;
        QUIRE__TRY(quire__cache_pause_unlocked(cache, deadline_us, "the sequence's restore"));
    }
}

quire_status quire_seq_wait(quire_cache *cache, quire_seq seq, uint64_t timeout_us)
{
    uint64_t deadline = quire__clock_us() + timeout_us;

    quire__cache_lock(cache);
    quire_status status = wait(cache, seq, deadline);
    quire__cache_unlock(cache);
    return status;
}

static quire_status get(quire_cache *cache, quire_seq seq, quire_seq_info *info)
{
    uint32_t index = 0;

    QUIRE__TRY(quire__cache_find(cache, seq, &index));
    if (info == NULL)
        return quire__fail(QUIRE_EINVAL, "info must not be NULL");
    quire__cache_take_in(cache);
    (void)quire__book_seq_ready(cache->book, index);
    quire__book_seq_get(cache->book, index, info);
    return QUIRE_OK;
}

quire_status quire_seq_get(quire_cache *cache, quire_seq seq, quire_seq_info *info)
{
    quire__cache_lock(cache);
    quire_status status = get(cache, seq, info);
    quire__cache_unlock(cache);
    return status;
}

static quire_status fork_idle(quire_cache *cache, quire_seq seq, quire_seq *child)
{
    uint32_t index = 0, made = 0;

    QUIRE__TRY(find_idle(cache, seq, "fork", &index));
    if (child == NULL)
        return quire__fail(QUIRE_EINVAL, "child must not be NULL");
    QUIRE__TRY(quire__book_seq_fork(cache->book, index, &made));
    quire__record_fork(cache->record, index, made);
    *child = show(cache, made);
    cache->faces[made].restore = cache->faces[index].restore;
    return QUIRE_OK;
}

quire_status quire_seq_fork(quire_cache *cache, quire_seq seq, quire_seq *child)
{
    quire__cache_lock(cache);
    quire_status status = fork_idle(cache, seq, child);
    quire__cache_unlock(cache);
    return status;
}

quire_status quire_seq_truncate(quire_cache *cache, quire_seq seq, size_t length)
{
    uint32_t index = 0;

    quire__cache_lock(cache);
    quire_status status = find_idle(cache, seq, "truncate", &index);
    if (status == QUIRE_OK)
        status = quire__book_seq_truncate(cache->book, index, length);
    if (status == QUIRE_OK)
        quire__record_truncate(cache->record, index, length);
    quire__cache_unlock(cache);
    return status;
}

static quire_status check_hint(const quire_hint *hint)
{
    if (hint == NULL || hint->size != sizeof *hint)
        return quire__fail(QUIRE_EINVAL, "the hint is NULL or its size is not sizeof(quire_hint), %zu", sizeof *hint);
    if (hint->flags & ~(uint32_t)(QUIRE_HINT_TURN_ENDED | QUIRE_HINT_NO_REUSE))
        return quire__fail(QUIRE_EINVAL, "flags 0x%x of a hint: only QUIRE_HINT_TURN_ENDED and QUIRE_HINT_NO_REUSE are known",
                           hint->flags);
    if (hint->range_count > QUIRE_HINT_RANGES)
        return quire__fail(QUIRE_EINVAL, "%u ranges in a hint: at most %d", hint->range_count, QUIRE_HINT_RANGES);
    for (uint32_t i = 0; i < hint->range_count; i++) {
        int32_t value = hint->ranges[i].priority;
        if ((value < 0 || value > 100) && value != QUIRE_PRIORITY_PIN)
            return quire__fail(QUIRE_EINVAL, "priority %d of range %u: 0 to 100, or QUIRE_PRIORITY_PIN", value, i);
    }
    return QUIRE_OK;
}

quire_status quire_seq_hint(quire_cache *cache, quire_seq seq, const quire_hint *hint)
{
    uint32_t index = 0;

    quire__cache_lock(cache);
    quire_status status = quire__cache_find(cache, seq, &index);
    if (status == QUIRE_OK)
        status = check_hint(hint);
    if (status == QUIRE_OK) {
        quire__book_set_time(cache->book, quire__clock_us());
        quire__book_seq_hint(cache->book, index, hint);
    }
    quire__cache_unlock(cache);
    return status;
}

quire_status quire_domain_ttl(quire_cache *cache, uint64_t domain, uint64_t ttl_us)
{
    if (cache == NULL)
        return quire__fail(QUIRE_EINVAL, "cache must not be NULL");
    quire__cache_lock(cache);
    quire_status status = quire__book_domain_ttl(cache->book, domain, ttl_us);
    quire__cache_unlock(cache);
    return status;
}

quire_status quire_seq_close(quire_cache *cache, quire_seq seq)
{
    const uint64_t now = quire__clock_us();
    uint32_t index = 0;

    quire__cache_lock(cache);
    quire__book_set_time(cache->book, now);
    quire_status status = find_idle(cache, seq, "close", &index);
    if (status == QUIRE_OK) {
        quire__record_seq_close(cache->record, index);
        quire__book_seq_close(cache->book, index);
        cache->faces[index].open = false;
        cache->faces[index].generation++;
    }
    quire__cache_unlock(cache);
    return status;
}
