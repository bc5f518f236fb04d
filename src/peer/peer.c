#include "peer/peer.h"

#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/status.h"

enum { WINDOW_BYTES = 8 * 1024 * 1024, WINDOW_BLOCKS = 64 };

/* ---- a call -------------------------------------------------------------------------------------------------- */

static void set_deadline(quire_peer *peer, uint64_t timeout_us)
{
    uint64_t now = quire__clock_us();
    peer->deadline_us = timeout_us < UINT64_MAX - now ? now + timeout_us : UINT64_MAX;
}

quire_status quire__peer_begin(quire_peer *peer, uint64_t timeout_us)
{
    if (peer == NULL)
        return quire__fail(QUIRE_EINVAL, "peer must not be NULL");
    if (peer->broken)
        return quire__fail(QUIRE_EPEER, "the link failed before; close the peer, and open one over a new transport");
    quire__lock_take(&peer->cache->lock);
    bool stepping = peer->cache->step.state != QUIRE__STEP_NONE;
    quire__lock_give(&peer->cache->lock);
    if (stepping)
        return quire__fail(QUIRE_ESTATE, "the cache has an open step; commit or cancel it first");
    set_deadline(peer, timeout_us);
    return QUIRE_OK;
}

static uint64_t time_left(const quire_peer *peer)
{
    uint64_t now = quire__clock_us();
    return now < peer->deadline_us ? peer->deadline_us - now : 0;
}

static quire_status linked(quire_peer *peer, quire_status status)
{
    if (status != QUIRE_OK)
        peer->broken = true;
    return status;
}

quire_status quire__peer_put(quire_peer *peer, const void *data, size_t bytes)
{
    return linked(peer, peer->transport.send(peer->transport.user, data, bytes, time_left(peer)));
}

quire_status quire__peer_get(quire_peer *peer, void *data, size_t bytes)
{
    return linked(peer, peer->transport.receive(peer->transport.user, data, bytes, time_left(peer)));
}

quire_status quire__peer_confused(quire_peer *peer, const char *wanted)
{
    return linked(peer, quire__fail(QUIRE_EPEER, "the other side does not keep to the protocol: %s was to come", wanted));
}

quire_status quire__peer_await(quire_peer *peer, quire__event *event)
{
    for (;;) {
        bool done = false;
        QUIRE__TRY(quire__device_event_query(peer->cache->device, event, &done));
        if (done)
            return QUIRE_OK;
        QUIRE__TRY(quire__cache_pause(peer->deadline_us, "a copy of blocks"));
    }
}

/* ---- opening and closing ------------------------------------------------------------------------------------- */

static quire__wire_meeting meeting_of(const quire_cache *cache)
{
    const quire__layout *layout = &cache->layout;
    quire__wire_meeting meeting = {.magic = QUIRE__WIRE_MAGIC,
                                   .version = QUIRE__WIRE_VERSION,
                                   .dtype = (uint32_t)layout->dtype,
                                   .block_tokens = layout->block_tokens,
                                   .layers = layout->layers,
                                   .kv_heads = layout->kv_heads,
                                   .head_dim = layout->head_dim,
                                   .block_bytes = layout->block_bytes,
                                   .scales = cache->scales_checksum};
    return meeting;
}

/* Both sides speak first: a meeting is small enough for any transport's buffer. */
static quire_status meet(quire_peer *peer)
{
    quire__wire_meeting ours = meeting_of(peer->cache), theirs = {0};
    QUIRE__TRY(quire__peer_put(peer, &ours, sizeof ours));
    QUIRE__TRY(quire__peer_get(peer, &theirs, sizeof theirs));
    return quire__wire_compare(&ours, &theirs);
}

static quire_status take_memory(quire_peer *peer)
{
    quire_cache *cache = peer->cache;
    size_t block_bytes = cache->layout.block_bytes;
    void *memory;

    peer->window_blocks = (uint32_t)(WINDOW_BYTES / block_bytes);
    if (peer->window_blocks == 0)
        peer->window_blocks = 1;
    if (peer->window_blocks > WINDOW_BLOCKS)
        peer->window_blocks = WINDOW_BLOCKS;
    QUIRE__TRY(quire__memory_take(&cache->allocator, cache->options.max_seq_tokens, sizeof(int32_t), "a peer's tokens",
                                  &memory));
    peer->tokens = memory;
    QUIRE__TRY(quire__device_stream_open(cache->device, &peer->stream));
    for (int i = 0; i < QUIRE__PEER_WINDOWS; i++) {
        QUIRE__TRY(quire__device_event_open(cache->device, &peer->events[i]));
        QUIRE__TRY(quire__device_alloc(cache->device, QUIRE__MEMORY_PINNED, peer->window_blocks * block_bytes,
                                       &memory));
        peer->staging[i] = memory;
    }
    return QUIRE_OK;
}

static void give_memory(quire_peer *peer)
{
    quire_cache *cache = peer->cache;
    quire__allocator allocator = cache->allocator;

    if (peer->stream != NULL)
        (void)quire__device_stream_synchronize(cache->device, peer->stream);
    for (int i = 0; i < QUIRE__PEER_WINDOWS; i++) {
        quire__device_event_close(cache->device, peer->events[i]);
        quire__device_free(cache->device, QUIRE__MEMORY_PINNED, peer->staging[i]);
    }
    quire__device_stream_close(cache->device, peer->stream);
    quire__memory_give(&allocator, peer->tokens);
    quire__memory_give(&allocator, peer);
}

quire_status quire_peer_open(quire_peer **out, quire_cache *cache, const quire_transport *transport, uint64_t timeout_us)
{
    void *memory;

    if (out == NULL || cache == NULL || transport == NULL)
        return quire__fail(QUIRE_EINVAL, "peer, cache and transport must not be NULL");
    if (transport->size != sizeof *transport || transport->send == NULL || transport->receive == NULL ||
        transport->interrupt == NULL || transport->close == NULL)
        return quire__fail(QUIRE_EINVAL, "transport.size must be sizeof(quire_transport), %zu, and each function be given",
                           sizeof *transport);
    if (cache->followers != NULL)
        return quire__fail(QUIRE_EUNSUPPORTED, "ranks follow this cache; it has only a part of what a peer would need");
    if (cache->side_count > 0)
        return quire__fail(QUIRE_EUNSUPPORTED, "the cache has %u groups of layers; peers send blocks of one group only",
                           cache->side_count + 1);
    QUIRE__TRY(quire__memory_take(&cache->allocator, 1, sizeof(quire_peer), "a peer", &memory));
    quire_peer *peer = memory;
    *peer = (quire_peer){.cache = cache, .transport = *transport};
    set_deadline(peer, timeout_us);
    quire_status status = take_memory(peer);
    if (status == QUIRE_OK)
        status = meet(peer);
    if (status != QUIRE_OK) {
        give_memory(peer);
        return status;
    }
    *out = peer;
    return QUIRE_OK;
}

void quire_peer_close(quire_peer *peer)
{
    if (peer == NULL)
        return;
    quire_transport transport = peer->transport;
    give_memory(peer);
    transport.close(transport.user);
}

void quire_peer_cancel(quire_peer *peer)
{
    if (peer != NULL)
        peer->transport.interrupt(peer->transport.user);
}
