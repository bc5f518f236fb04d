/* send.c: a sequence from this cache to one peer or many.
 *
 * Each block is copied from the device once, to staging, and sent from there to every peer that lacks it. While one window
 * of blocks is sent the next is copied. The sequence holds its blocks, so none can be evicted meanwhile; no step can begin,
 * so none can change. A peer that fails is left out from then on. */
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/status.h"
#include "peer/peer.h"

typedef struct sending {
    quire_cache *cache;
    quire_peer *const *peers;
    size_t count;
    quire_peer *staging; /* the peer whose stream and staging are used */
    const int32_t *slots;
    size_t tokens;
    uint32_t first, end; /* blocks */
} sending;

static bool alive(const quire_peer *peer)
{
    return peer->outcome == QUIRE_OK;
}

/* Keeps the text too: the next peer's failure would overwrite it. */
static void note(quire_peer *peer, quire_status status)
{
    peer->outcome = status;
    if (status != QUIRE_OK)
        snprintf(peer->reason, sizeof peer->reason, "%s", quire_error_text());
}

/* ---- talk ---------------------------------------------------------------------------------------------------- */

static quire_status offer(quire_peer *peer, uint64_t domain, const int32_t *tokens, size_t count)
{
    quire__wire_offer words = {QUIRE__WIRE_MAGIC, domain, count,
                               quire__wire_checksum(domain, tokens, count * sizeof *tokens)};
    QUIRE__TRY(quire__peer_put(peer, &words, sizeof words));
    return quire__peer_put(peer, tokens, count * sizeof *tokens);
}

static quire_status take_answer(quire_peer *peer, size_t tokens)
{
    quire__wire_answer answer;
    QUIRE__TRY(quire__peer_get(peer, &answer, sizeof answer));
    if (answer.magic != QUIRE__WIRE_MAGIC || answer.have > tokens)
        return quire__peer_confused(peer, "an answer");
    if (answer.status != QUIRE_OK)
        return quire__fail(QUIRE_EPEER, "the other side could not take the sequence: %.*s", QUIRE__WIRE_TEXT - 1,
                           answer.text);
    peer->have = (size_t)answer.have;
    return QUIRE_OK;
}

static quire_status send_block(quire_peer *peer, uint32_t index, const unsigned char *bytes, uint64_t checksum)
{
    size_t block_bytes = peer->cache->layout.block_bytes;
    quire__wire_block header = {QUIRE__WIRE_MAGIC, index, checksum};
    QUIRE__TRY(quire__peer_put(peer, &header, sizeof header));
    QUIRE__TRY(quire__peer_put(peer, bytes, block_bytes));
    peer->transfer.blocks++;
    peer->transfer.bytes += block_bytes;
    return QUIRE_OK;
}

/* ---- windows ------------------------------------------------------------------------------------------------- */

static uint32_t window_end(const sending *s, uint32_t first)
{
    uint32_t end = first + s->staging->window_blocks;
    return end < s->end ? end : s->end;
}

static quire_status fetch_window(const sending *s, uint32_t first, int window)
{
    size_t block_bytes = s->cache->layout.block_bytes;
    quire_peer *staging = s->staging;

    for (uint32_t i = first; i < window_end(s, first); i++) {
        quire__copy copy = {.destination = staging->staging[window] + (i - first) * block_bytes,
                            .source = s->cache->arena + (size_t)s->slots[i] * block_bytes,
                            .bytes = block_bytes};
        QUIRE__TRY(quire__device_copy(s->cache->device, staging->stream, &copy, 1));
    }
    return quire__device_event_record(s->cache->device, staging->events[window], staging->stream);
}

static void send_window(const sending *s, uint32_t first, int window)
{
    size_t block_bytes = s->cache->layout.block_bytes;
    uint32_t block_tokens = s->cache->layout.block_tokens;

    for (uint32_t i = first; i < window_end(s, first); i++) {
        const unsigned char *bytes = s->staging->staging[window] + (i - first) * block_bytes;
        uint64_t checksum = quire__wire_checksum(i, bytes, block_bytes);
        for (size_t p = 0; p < s->count; p++)
            if (alive(s->peers[p]) && i >= s->peers[p]->have / block_tokens)
                note(s->peers[p], send_block(s->peers[p], i, bytes, checksum));
    }
}

static bool any_alive(const sending *s)
{
    for (size_t p = 0; p < s->count; p++)
        if (alive(s->peers[p]))
            return true;
    return false;
}

/* The device's own failures end it for all; the link's end it for one. */
static quire_status send_windows(sending *s)
{
    int window = 0;

    quire__cache_lock(s->cache);
    quire_status status = quire__mover_step_chain(s->cache->mover, s->staging->stream);
    quire__cache_unlock(s->cache);
    if (status != QUIRE_OK)
        return status;
    if (s->first < s->end)
        QUIRE__TRY(fetch_window(s, s->first, window));
    for (uint32_t first = s->first; first < s->end && any_alive(s); first = window_end(s, first)) {
        QUIRE__TRY(quire__peer_await(s->staging, s->staging->events[window]));
        if (window_end(s, first) < s->end)
            QUIRE__TRY(fetch_window(s, window_end(s, first), 1 - window));
        send_window(s, first, window);
        window = 1 - window;
    }
    return QUIRE_OK;
}

/* ---- the whole ----------------------------------------------------------------------------------------------- */

static quire_status check_sequence(quire_cache *cache, quire_seq seq, uint32_t *index, quire_seq_info *info)
{
    QUIRE__TRY(quire__cache_find(cache, seq, index));
    quire__cache_take_in(cache);
    if (!quire__book_seq_ready(cache->book, *index))
        return quire__fail(QUIRE_EAGAIN, "the sequence's restore is still under way; quire_seq_wait for it");
    quire__book_seq_get(cache->book, *index, info);
    if (info->length == 0)
        return quire__fail(QUIRE_EINVAL, "the sequence is empty; there is nothing to send");
    return QUIRE_OK;
}

static quire_status check_peers(quire_peer *const *peers, size_t count, uint64_t timeout_us)
{
    if (peers == NULL || count == 0)
        return quire__fail(QUIRE_EINVAL, "there must be at least one peer");
    for (size_t p = 0; p < count; p++) {
        if (peers[p] != NULL && peers[p]->cache != peers[0]->cache)
            return quire__fail(QUIRE_EINVAL, "peers %zu and 0 are of different caches", p);
        for (size_t other = 0; other < p; other++)
            if (peers[other] == peers[p])
                return quire__fail(QUIRE_EINVAL, "peers %zu and %zu are the same", other, p);
        QUIRE__TRY(quire__peer_begin(peers[p], timeout_us));
    }
    return QUIRE_OK;
}

/* Offers to all, and finds out what each lacks. */
static void negotiate(sending *s, uint64_t domain)
{
    uint32_t block_tokens = s->cache->layout.block_tokens;

    for (size_t p = 0; p < s->count; p++) {
        s->peers[p]->transfer = (quire_transfer){.tokens = s->tokens};
        note(s->peers[p], offer(s->peers[p], domain, s->staging->tokens, s->tokens));
    }
    s->first = s->end;
    for (size_t p = 0; p < s->count; p++) {
        quire_peer *peer = s->peers[p];
        if (alive(peer))
            note(peer, take_answer(peer, s->tokens));
        if (!alive(peer))
            continue;
        peer->transfer.cached = peer->have;
        if (peer->have / block_tokens < s->first)
            s->first = (uint32_t)(peer->have / block_tokens);
    }
}

/* Nobody else may change the sequence, nor move its blocks, until give_sequence. */
static quire_status take_sequence(sending *s, quire_seq seq, uint32_t *index, quire_seq_info *info)
{
    quire_cache *cache = s->cache;
    uint32_t blocks = 0, changed = 0;

    quire__cache_lock(cache);
    quire_status status = check_sequence(cache, seq, index, info);
    if (status == QUIRE_OK) {
        cache->faces[*index].busy = true;
        cache->sending++;
        s->tokens = info->length;
        s->end = quire__peer_block_count(s->staging, info->length);
        s->slots = quire__book_seq_table(cache->book, *index, &blocks, &changed, false);
        quire__book_seq_tokens(cache->book, *index, 0, info->length, s->staging->tokens);
    }
    quire__cache_unlock(cache);
    return status;
}

static void give_sequence(sending *s, uint32_t index)
{
    quire__cache_lock(s->cache);
    s->cache->faces[index].busy = false;
    s->cache->sending--;
    quire__cache_unlock(s->cache);
}

static quire_status send_to_all(sending *s, quire_seq seq)
{
    quire_seq_info info;
    uint32_t index = 0;

    QUIRE__TRY(take_sequence(s, seq, &index, &info));
    negotiate(s, info.domain);
    quire_status status = send_windows(s);
    if (status != QUIRE_OK) { /* the others wait for blocks that will not come */
        (void)quire__device_stream_synchronize(s->cache->device, s->staging->stream);
        for (size_t p = 0; p < s->count; p++) {
            s->peers[p]->broken = true;
            s->peers[p]->transport.interrupt(s->peers[p]->transport.user);
        }
    }
    give_sequence(s, index);
    for (size_t p = 0; p < s->count && status == QUIRE_OK; p++)
        if (alive(s->peers[p]))
            note(s->peers[p], take_answer(s->peers[p], s->tokens));
    return status;
}

quire_status quire_peer_broadcast(quire_peer *const *peers, size_t count, quire_seq seq, quire_status *results,
                                  uint64_t timeout_us)
{
    QUIRE__TRY(check_peers(peers, count, timeout_us));
    sending s = {.cache = peers[0]->cache, .peers = peers, .count = count, .staging = peers[0]};
    quire_status first = QUIRE_OK, all = send_to_all(&s, seq);
    const char *reason = NULL;

    for (size_t p = 0; p < count; p++) {
        quire_status status = all != QUIRE_OK ? all : peers[p]->outcome;
        if (results != NULL)
            results[p] = status;
        if (first == QUIRE_OK && status != QUIRE_OK) {
            first = status;
            reason = all != QUIRE_OK ? NULL : peers[p]->reason;
        }
    }
    return reason == NULL ? first : quire__fail(first, "%s", reason);
}

quire_status quire_peer_send(quire_peer *peer, quire_seq seq, quire_transfer *transfer, uint64_t timeout_us)
{
    QUIRE__TRY(quire_peer_broadcast(&peer, 1, seq, NULL, timeout_us));
    if (transfer != NULL)
        *transfer = peer->transfer;
    return QUIRE_OK;
}
