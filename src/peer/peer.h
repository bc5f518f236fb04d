/* peer.h: a peer's inside, for the files of this folder.
 *
 *   send.c      device -> pinned staging -> transport        two windows of blocks: one fills while the other is sent
 *   receive.c   transport -> pinned staging -> device        a window is verified, then written and committed as a step
 *
 * A peer is broken from the first failure of its transport on: the two sides no longer agree on where in the protocol they
 * are. A refusal is part of the protocol and breaks nothing.
 */
#ifndef QUIRE_PEER_INSIDE_H
#define QUIRE_PEER_INSIDE_H

#include "cache/cache.h"
#include "peer/wire.h"
#include "quire/quire_peer.h"

enum { QUIRE__PEER_WINDOWS = 2 };

struct quire_peer {
    quire_cache *cache;
    quire_transport transport;
    bool broken;
    quire__stream *stream;
    quire__event *events[QUIRE__PEER_WINDOWS];
    uint32_t window_blocks;
    unsigned char *staging[QUIRE__PEER_WINDOWS]; /* pinned, window_blocks each */
    int32_t *tokens;                             /* [max_seq_tokens]: of the sequence under way */
    uint64_t deadline_us;                        /* of the call under way */
    /* of the transfer that this peer takes part in as a receiver of a sender's broadcast */
    quire_status outcome;
    char reason[QUIRE__WIRE_TEXT]; /* the text of that */
    size_t have;                   /* tokens that the other side has */
    quire_transfer transfer;
};

/* Begins a call: QUIRE_EINVAL, QUIRE_EPEER (broken). */
quire_status quire__peer_begin(quire_peer *peer, uint64_t timeout_us);
/* Through the transport, up to the call's deadline; a failure breaks the peer. */
quire_status quire__peer_put(quire_peer *peer, const void *data, size_t bytes);
quire_status quire__peer_get(quire_peer *peer, void *data, size_t bytes);
/* What was received is not what the protocol has here: breaks the peer. */
quire_status quire__peer_confused(quire_peer *peer, const char *wanted);
/* Waits for an event of this peer, up to the call's deadline. */
quire_status quire__peer_await(quire_peer *peer, quire__event *event);

static inline uint32_t quire__peer_block_count(const quire_peer *peer, size_t tokens)
{
    uint32_t block_tokens = peer->cache->layout.block_tokens;
    return (uint32_t)((tokens + block_tokens - 1) / block_tokens);
}

#endif
