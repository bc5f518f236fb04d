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
     * interrupted. For ranks: a receive of one byte that ends by its timeout has taken nothing and may be repeated, and a
     * timeout of 0 looks without waiting. */
    quire_status (*send)(void *user, const void *data, size_t bytes, uint64_t timeout_us);
    quire_status (*receive)(void *user, void *data, size_t bytes, uint64_t timeout_us);
    /* From any thread: both of the above, running or to come, say QUIRE_EPEER. */
    void (*interrupt)(void *user);
    void (*close)(void *user);
} quire_transport;

/* A connected stream socket (TCP, Unix). The transport owns it from here: it is made non-blocking, and closed by `close`.
 * QUIRE_EINVAL: not a socket (the caller keeps it); QUIRE_ENOMEM. */
QUIRE_API quire_status quire_transport_socket(quire_transport *transport, int socket);

/* Two GPUs over NCCL: what it finds between them, NVLink or InfiniBand. What is sent passes through pinned memory and
 * device memory of the transport's own (5 MiB each). NCCL is loaded at run time, libnccl.so.2 of 2.14 or newer.
 *
 * One side makes an id and gives it to the other by other means, such as a socket. */
enum { QUIRE_NCCL_ID_BYTES = 256 };
/* QUIRE_EUNSUPPORTED: this build or this machine has no NCCL; the text says which. */
QUIRE_API quire_status quire_transport_nccl_id(unsigned char id[QUIRE_NCCL_ID_BYTES]);
/* Both sides call it with the same id, as side 0 and 1 of 2. 0 of 1: a GPU with itself; up to four pieces of 1 MiB are then
 * sent before they must be received. A call that runs out of time breaks the link for good, since NCCL's operations can
 * only be aborted; so it is no transport for quire_ranks_open, which looks for reports, but plans are small and go over
 * sockets. QUIRE_EINVAL; QUIRE_EUNSUPPORTED: no NCCL, no such GPU; QUIRE_EPEER, QUIRE_ETIMEOUT: the other side did not come.
 */
QUIRE_API quire_status quire_transport_nccl(quire_transport *transport, const unsigned char id[QUIRE_NCCL_ID_BYTES],
                                            int device, int side, int sides, uint64_t timeout_us);

typedef struct quire_peer quire_peer;

/* What a transfer did. */
typedef struct quire_transfer {
    size_t tokens; /* of the sequence */
    size_t cached; /* of them, the receiver had already */
    size_t blocks, bytes; /* of KV that travelled */
} quire_transfer;

/* Meets the other side, which calls the same, and compares the geometry: QUIRE_EINVAL names the field that differs. On
 * success the peer owns the transport; on failure the caller keeps it. Takes pinned memory for a few blocks.
 * QUIRE_EUNSUPPORTED: the cache has several groups of layers, or ranks. */
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

/* ---- ranks: one plan, several caches ----------------------------------------------------------------------------
 *
 * Tensor parallelism: every rank has its share of the kv heads of each block (or, with a pipeline, of the layers), in an arena
 * and a host tier of its own. Rank 0 has the whole quire_cache and decides; the others do as it decides, each with its own
 * bytes: blocks have the same numbers on every rank.
 *
 *   rank 0        quire_cache_open, quire_ranks_open; then the cache as ever
 *   each other    quire_rank_open
 *                 quire_rank_next, for each layer quire_append and quire_attend over its view, quire_rank_commit; again
 *                 quire_rank_close
 *
 * A step that rank 0 submits is the next view of every rank: the same rows in the same order, tables and positions; kv_heads,
 * head_dim, dtype and strides are the rank's. Which token ids those are is for the engine to share, as its results are.
 * Offloads, restores and copies need no calls. A move has succeeded when it has on all ranks: a restore that fails on one
 * is a miss on rank 0.
 *
 * A rank that dies, or is silent for the timeout while rank 0 waits for something, ends the group: rank 0's next
 * quire_step_begin or quire_step_submit says QUIRE_EPEER, waits end, and quire_ranks_close is what is left to do. Rank 0's
 * cache stays whole and may go on alone or, after quire_cache_clear, with new ranks. Ranks hear of it when rank 0 closes,
 * or by their own timeout.
 *
 * THREADS   Open and close of ranks exclude every other call on the cache. A quire_rank is one thread's at a time; cancel may
 *           be called from any thread. */
typedef struct quire_ranks quire_ranks; /* rank 0's links to the others */
typedef struct quire_rank quire_rank;   /* a rank that follows */

/* On rank 0. transports[i] leads to rank i + 1, which calls quire_rank_open; 1..63 of them. `timeout_us` bounds every
 * exchange: longer than a rank takes to open its memory (it pins all of its host tier there), and than its engine takes to
 * enqueue a step. On success the transports are the ranks', on failure the caller's. The cache must be empty, of one group,
 * with device_max_bytes 0 and restore_parts 1; quire_cache_resize and quire_peer_open on it are QUIRE_EUNSUPPORTED from here
 * on. QUIRE_EINVAL, QUIRE_ENOMEM, QUIRE_ESTATE (not empty), QUIRE_EUNSUPPORTED, QUIRE_EPEER (the text has the other side's
 * reason), QUIRE_ETIMEOUT. */
QUIRE_API quire_status quire_ranks_open(quire_ranks **ranks, quire_cache *cache, const quire_transport *transports,
                                        size_t count, uint64_t timeout_us);
/* Is the group whole? QUIRE_EPEER: the text says which rank is gone, and how. Also looks for reports now. */
QUIRE_API quire_status quire_ranks_check(quire_ranks *ranks);
/* From any thread: the group ends as if a rank had died. */
QUIRE_API void quire_ranks_cancel(quire_ranks *ranks);
/* Before quire_cache_close, and with no step open. Waits for moves in flight, up to the timeout, and tells the others that
 * it was all. NULL is allowed. */
QUIRE_API void quire_ranks_close(quire_ranks *ranks);

/* On every other rank. Of the options, the groups (its share of the heads), the device, dtype, checksum and threads are its
 * own; block_tokens, sizes and limits are rank 0's. On success the rank owns the transport; on failure the caller keeps it.
 * Errors as quire_cache_open, and QUIRE_EPEER, QUIRE_ETIMEOUT. */
QUIRE_API quire_status quire_rank_open(quire_rank **rank, const quire_options *options, const quire_transport *transport,
                                       uint64_t timeout_us);
/* Does what rank 0 decides, until it submits a step: then `*view` is that step's, its tables and copies enqueued on
 * `stream` (NULL: the rank's own), until quire_rank_commit. `*view` NULL: rank 0 has closed the group. QUIRE_ETIMEOUT: no
 * step came in time, call again; call it without long pauses, for moves end here. QUIRE_EPEER, QUIRE_EDEVICE: close the
 * rank. QUIRE_ESTATE: a step is under way. */
QUIRE_API quire_status quire_rank_next(quire_rank *rank, void *stream, const quire_view **view, uint64_t timeout_us);
/* The engine has enqueued the step's kernels. QUIRE_ESTATE: no step is under way; QUIRE_EPEER, QUIRE_EDEVICE: close it. */
QUIRE_API quire_status quire_rank_commit(quire_rank *rank);
/* From any thread: calls that run or come say QUIRE_EPEER. */
QUIRE_API void quire_rank_cancel(quire_rank *rank);
/* Waits for what is in flight here. NULL is allowed. */
QUIRE_API void quire_rank_close(quire_rank *rank);

#ifdef __cplusplus
}
#endif
#endif
