/* handoff.h: prompts computed in one process, answered in another.
 *
 * The sender computes a prompt and sends its KV (quire_peer_send). The receiver takes it into its cache and nothing more:
 * its engine then finds the prompt there like any other, and computes the last, partly filled block and the answer. So a
 * receiver whose sender dies computes what did not come, and answers the same.
 *
 * Errors: see error.h.
 */
#ifndef INFER_HANDOFF_H
#define INFER_HANDOFF_H

#include "engine.h"
#include "quire/quire_peer.h"

#include <stdbool.h>

typedef struct handoff {
    quire_cache *cache;
    const model *model;
    quire_peer *peer;
    uint64_t timeout_us; /* of each transfer */
    /* of all transfers */
    size_t sequences, tokens, cached, bytes;
} handoff;

/* Meets the other side over a connected transport, which is the handoff's from here on, also on failure. */
int handoff_open(handoff *h, quire_cache *cache, const model *model, const quire_transport *transport,
                 uint64_t timeout_us, infer_error *error);
/* The same over an address (address.h): the receiver waits there, the sender goes there. */
int handoff_meet(handoff *h, quire_cache *cache, const model *model, const char *address, bool receiver,
                 uint64_t timeout_us, infer_error *error);
void handoff_close(handoff *h); /* a zeroed one is allowed */

/* Computes the request's prompt, what the cache has of it first, and sends it. A receiver that refuses one takes the next. */
int handoff_send(handoff *h, const engine_request *request, infer_error *error);
/* Waits for one sequence. It stays cached; nobody holds it. */
int handoff_receive(handoff *h, infer_error *error);

#endif
