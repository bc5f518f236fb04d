/* receive.c: a sequence from a peer into this cache.
 *
 * What is cached here already is matched like any prompt; the rest comes window by window. A window's checksums are compared
 * in staging; then a step reserves its tokens, the bytes are copied where an engine's kernels would have written them, and
 * once the copy has ended, the step is committed. So what is matchable was verified and is written, and whatever fails
 * leaves the windows before it behind as a cached prefix.
 *
 * A failure on this side must not confuse the link: the rest is read and dropped, and the last answer says what it was. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "peer/peer.h"

/* ---- talk ---------------------------------------------------------------------------------------------------- */

static quire_status answer(quire_peer *peer, quire_status status, size_t have)
{
    quire__wire_answer words = {.magic = QUIRE__WIRE_MAGIC, .have = have, .status = status};
    if (status != QUIRE_OK)
        snprintf(words.text, sizeof words.text, "%s", quire_error_text());
    return quire__peer_put(peer, &words, sizeof words);
}

/* The offer and its tokens. More of them than a sequence may have are read and dropped. */
static quire_status take_offer(quire_peer *peer, quire__wire_offer *offer, quire_status *verdict)
{
    uint32_t most = peer->cache->options.max_seq_tokens;

    QUIRE__TRY(quire__peer_get(peer, offer, sizeof *offer));
    if (offer->magic != QUIRE__WIRE_MAGIC || offer->tokens == 0 || offer->tokens > INT32_MAX)
        return quire__peer_confused(peer, "an offer");
    for (uint64_t at = 0; at < offer->tokens;) {
        uint64_t some = offer->tokens - at < most ? offer->tokens - at : most;
        QUIRE__TRY(quire__peer_get(peer, peer->tokens, (size_t)some * sizeof *peer->tokens));
        at += some;
    }
    *verdict = QUIRE_OK;
    if (offer->tokens > most)
        *verdict = quire__fail(QUIRE_ERANGE, "the sequence has %llu tokens; this cache takes at most %u",
                               (unsigned long long)offer->tokens, most);
    else if (quire__wire_checksum(offer->domain, peer->tokens, offer->tokens * sizeof *peer->tokens) != offer->checksum)
        *verdict = quire__fail(QUIRE_ECORRUPT, "the tokens did not arrive as they were sent");
    return QUIRE_OK;
}

/* Blocks [first, end) into staging. `*verdict`: they are what was sent. */
static quire_status take_window(quire_peer *peer, uint32_t first, uint32_t end, quire_status *verdict)
{
    size_t block_bytes = peer->cache->layout.block_bytes;

    for (uint32_t i = first; i < end; i++) {
        unsigned char *bytes = peer->staging[0] + (i - first) * block_bytes;
        quire__wire_block header;
        QUIRE__TRY(quire__peer_get(peer, &header, sizeof header));
        if (header.magic != QUIRE__WIRE_MAGIC || header.index != i)
            return quire__peer_confused(peer, "a block");
        QUIRE__TRY(quire__peer_get(peer, bytes, block_bytes));
        if (*verdict == QUIRE_OK && quire__wire_checksum(i, bytes, block_bytes) != header.checksum)
            *verdict = quire__fail(QUIRE_ECORRUPT, "block %u did not arrive as it was sent", i);
        peer->transfer.blocks++;
        peer->transfer.bytes += block_bytes;
    }
    return QUIRE_OK;
}

/* ---- into the cache ------------------------------------------------------------------------------------------ */

/* An empty sequence with what is cached of the tokens; `*have` of them. */
static quire_status match(quire_peer *peer, const quire__wire_offer *offer, quire_seq *seq, size_t *have)
{
    quire_seq_options options = {.size = sizeof options, .domain = offer->domain};
    quire_seq_info info;
    quire_cache *cache = peer->cache;
    uint64_t now = quire__clock_us();

    QUIRE__TRY(quire_seq_open(cache, &options, seq));
    quire_status status = quire_seq_match(cache, *seq, peer->tokens, (size_t)offer->tokens, NULL);
    if (status == QUIRE_OK)
        status = quire_seq_wait(cache, *seq, now < peer->deadline_us ? peer->deadline_us - now : 0);
    if (status == QUIRE_OK)
        status = quire_seq_get(cache, *seq, &info);
    if (status == QUIRE_OK)
        *have = info.length;
    else
        (void)quire_seq_close(cache, *seq);
    return status;
}

/* Copies the staged blocks from `first` on to where tokens [from, to) of the sequence are, and waits until they are there. */
static quire_status write_blocks(quire_peer *peer, quire_step *step, uint32_t index, uint32_t first, size_t from, size_t to)
{
    quire_cache *cache = peer->cache;
    size_t block_bytes = cache->layout.block_bytes;
    uint32_t blocks = 0, changed = 0;
    quire__cache_lock(cache);
    const int32_t *slots = quire__book_seq_table(cache->book, index, &blocks, &changed, false);
    quire__cache_unlock(cache); /* the sequence is in our step: nobody else changes its table */

    for (uint32_t i = (uint32_t)(from / cache->layout.block_tokens); i < quire__peer_block_count(peer, to); i++) {
        quire__copy copy = {.destination = cache->arena + (size_t)slots[i] * block_bytes,
                            .source = peer->staging[0] + (i - first) * block_bytes,
                            .bytes = block_bytes};
        QUIRE__TRY(quire__device_copy(cache->device, step->stream, &copy, 1));
    }
    QUIRE__TRY(quire__device_event_record(cache->device, peer->events[0], step->stream));
    return quire__peer_await(peer, peer->events[0]);
}

/* Tokens [from, to) as a step of their own; the blocks from `first` on are staged. */
static quire_status write_step(quire_peer *peer, quire_seq seq, uint32_t first, size_t from, size_t to)
{
    quire_cache *cache = peer->cache;
    quire_step *step = NULL;
    uint32_t index = 0;

    quire__cache_lock(cache);
    quire_status found = quire__cache_find(cache, seq, &index);
    quire__cache_unlock(cache);
    if (found != QUIRE_OK)
        return found;
    QUIRE__TRY(quire_step_begin(cache, NULL, &step));
    quire_status status = quire_step_add(step, seq, peer->tokens + from, to - from);
    if (status == QUIRE_OK)
        status = quire_step_submit(step);
    if (status == QUIRE_OK)
        status = write_blocks(peer, step, index, first, from, to);
    if (status == QUIRE_OK)
        status = quire_step_commit(step);
    if (status != QUIRE_OK) {
        (void)quire__device_stream_synchronize(cache->device, step->stream); /* nothing may still read the staging */
        quire_step_cancel(step);
    }
    return status;
}

static quire_status write_window(quire_peer *peer, quire_seq seq, uint32_t first, size_t from, size_t to)
{
    size_t most = peer->cache->options.max_step_tokens;
    while (from < to) {
        size_t some = to - from < most ? to - from : most;
        QUIRE__TRY(write_step(peer, seq, first, from, from + some));
        from += some;
    }
    return QUIRE_OK;
}

/* The blocks that are missing. The status is the link's; `*verdict` is this side's. */
static quire_status take_blocks(quire_peer *peer, quire_seq seq, size_t have, size_t tokens, quire_status *verdict)
{
    uint32_t block_tokens = peer->cache->layout.block_tokens, end = quire__peer_block_count(peer, tokens);
    uint32_t next;

    for (uint32_t first = (uint32_t)(have / block_tokens); first < end; first = next) {
        next = end - first < peer->window_blocks ? end : first + peer->window_blocks;
        size_t to = (size_t)next * block_tokens < tokens ? (size_t)next * block_tokens : tokens;
        QUIRE__TRY(take_window(peer, first, next, verdict));
        if (*verdict == QUIRE_OK)
            *verdict = write_window(peer, seq, first, have, to);
        have = to;
    }
    return QUIRE_OK;
}

/* ---- the whole ----------------------------------------------------------------------------------------------- */

/* From the offer on. On failure the sequence is closed. */
static quire_status receive(quire_peer *peer, const quire__wire_offer *offer, quire_seq *seq)
{
    size_t have = 0, tokens = (size_t)offer->tokens;
    char text[QUIRE__WIRE_TEXT] = "";
    quire_status verdict = match(peer, offer, seq, &have), status;

    if (verdict != QUIRE_OK) {
        snprintf(text, sizeof text, "%s", quire_error_text());
        QUIRE__TRY(answer(peer, verdict, 0));
        return quire__fail(verdict, "%s", text);
    }
    peer->transfer = (quire_transfer){.tokens = tokens, .cached = have};
    status = answer(peer, QUIRE_OK, have);
    if (status == QUIRE_OK)
        status = take_blocks(peer, *seq, have, tokens, &verdict);
    if (status == QUIRE_OK) {
        if (verdict != QUIRE_OK)
            snprintf(text, sizeof text, "%s", quire_error_text());
        status = answer(peer, verdict, tokens);
    }
    if (status == QUIRE_OK && verdict == QUIRE_OK)
        return QUIRE_OK;
    if (status != QUIRE_OK)
        snprintf(text, sizeof text, "%s", quire_error_text());
    (void)quire_seq_close(peer->cache, *seq);
    return quire__fail(status != QUIRE_OK ? status : verdict, "%s", text);
}

quire_status quire_peer_receive(quire_peer *peer, quire_seq *out, quire_transfer *transfer, uint64_t timeout_us)
{
    quire__wire_offer offer;
    quire_status verdict = QUIRE_OK;
    quire_seq seq = 0;
    char text[QUIRE__WIRE_TEXT];

    QUIRE__TRY(quire__peer_begin(peer, timeout_us));
    if (out == NULL)
        return quire__fail(QUIRE_EINVAL, "seq must not be NULL");
    QUIRE__TRY(take_offer(peer, &offer, &verdict));
    if (verdict != QUIRE_OK) {
        snprintf(text, sizeof text, "%s", quire_error_text());
        QUIRE__TRY(answer(peer, verdict, 0));
        return quire__fail(verdict, "%s", text);
    }
    QUIRE__TRY(receive(peer, &offer, &seq));
    *out = seq;
    if (transfer != NULL)
        *transfer = peer->transfer;
    return QUIRE_OK;
}
