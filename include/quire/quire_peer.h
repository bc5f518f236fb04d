/* quire_peer.h: blocks from one cache to another: prefill in one process and decode in the next, or one prefix for many.
 *
 *   both sides   quire_transport_socket, quire_peer_open        once a link; they compare the geometry of their blocks
 *   sender       quire_peer_send(peer, sequence)                or quire_peer_broadcast to many peers
 *   receiver     quire_peer_receive(peer, &sequence)            a new sequence of the same tokens, ready for a step
 *   both sides   quire_peer_close
 *
 * Only what the receiver has not cached travels. Each block comes with a checksum that is compared before a step commits
 * the block: nothing is matchable before it was verified and written. What was received before a failure stays cached.
 *
 * Every call ends by its timeout, whatever the other side does or does not do. After a failure on the link the peer is
 * broken: each further call says QUIRE_EPEER, and quire_peer_close is all that is left to do. The cache is as good as ever.
 *
 * THREADS   One thread at a time per peer, and none in an open step of the same cache; quire_peer_cancel may be called
 *           from any thread.
 */
#ifndef QUIRE_PEER_H
#define QUIRE_PEER_H

#include "quire/quire.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A reliable stream of bytes in both directions, in order, between two processes or threads. */
typedef struct quire_transport {
    size_t size; /* sizeof(quire_transport) */
    void *user;
    /* All `bytes` of them, or QUIRE_ETIMEOUT after timeout_us, or QUIRE_EPEER: the other side is gone or the link was
     * interrupted. */
    quire_status (*send)(void *user, const void *data, size_t bytes, uint64_t timeout_us);
    quire_status (*receive)(void *user, void *data, size_t bytes, uint64_t timeout_us);
    /* From any thread: both of the above, running or to come, say QUIRE_EPEER. */
    void (*interrupt)(void *user);
    void (*close)(void *user);
} quire_transport;

/* A connected stream socket (TCP, Unix). The transport owns it from here: it is made non-blocking, and closed by `close`.
 * QUIRE_EINVAL: not a socket (the caller keeps it); QUIRE_ENOMEM. */
QUIRE_API quire_status quire_transport_socket(quire_transport *transport, int socket);

typedef struct quire_peer quire_peer;

/* What a transfer did. */
typedef struct quire_transfer {
    size_t tokens; /* of the sequence */
    size_t cached; /* of them, the receiver had already */
    size_t blocks, bytes; /* of KV that travelled */
} quire_transfer;

/* Meets the other side, which calls the same, and compares the geometry: QUIRE_EINVAL names the field that differs. On
 * success the peer owns the transport; on failure the caller keeps it. Takes pinned memory for a few blocks. */
QUIRE_API quire_status quire_peer_open(quire_peer **peer, quire_cache *cache, const quire_transport *transport,
                                       uint64_t timeout_us);
/* Closes the transport too. NULL is allowed. */
QUIRE_API void quire_peer_close(quire_peer *peer);
/* From any thread: a call that runs ends with QUIRE_EPEER, and so does every later one. */
QUIRE_API void quire_peer_cancel(quire_peer *peer);

/* Sends the sequence's tokens and the KV that the other side lacks. The sequence stays as it is. QUIRE_EINVAL: it is empty;
 * QUIRE_EAGAIN: its restore is under way; QUIRE_ESTATE: it is in an open step; QUIRE_EPEER: the other side refused (the
 * text has its reason) or is gone; QUIRE_ETIMEOUT. `transfer` may be NULL. */
QUIRE_API quire_status quire_peer_send(quire_peer *peer, quire_seq seq, quire_transfer *transfer, uint64_t timeout_us);
/* The same sequence to `count` peers of one cache, each block read from the device once. A peer that fails drops out and the
 * rest go on. `results[i]` says what became of peers[i]; the status is the first failure. */
QUIRE_API quire_status quire_peer_broadcast(quire_peer *const *peers, size_t count, quire_seq seq,
                                            quire_status *results, uint64_t timeout_us);
/* Waits for a sequence and makes it here, in the sender's domain. QUIRE_EFULL, QUIRE_ERANGE: it does not fit this cache
 * (the sender is told, and the peer stays good); QUIRE_ECORRUPT: a block did not arrive as it was sent; QUIRE_EPEER,
 * QUIRE_ETIMEOUT. On failure there is no sequence. `transfer` may be NULL. */
QUIRE_API quire_status quire_peer_receive(quire_peer *peer, quire_seq *seq, quire_transfer *transfer,
                                          uint64_t timeout_us);

#ifdef __cplusplus
}
#endif
#endif
