#include "handoff.h"
#include "address.h"
#include "lanes.h"

#include <unistd.h>

int handoff_open(handoff *h, quire_cache *cache, const model *model, const quire_transport *transport,
                 uint64_t timeout_us, infer_error *error)
{
    *h = (handoff){ .cache = cache, .model = model, .timeout_us = timeout_us };
    if (quire_peer_open(&h->peer, cache, transport, timeout_us)) {
        transport->close(transport->user);
        return infer_fail(error, "%s", quire_error_text());
    }
    return 0;
}

int handoff_meet(handoff *h, quire_cache *cache, const model *model, const char *address, bool receiver,
                 uint64_t timeout_us, infer_error *error)
{
    quire_transport transport;
    int socket;
    *h = (handoff){ .cache = cache };
    if (receiver ? address_await(address, timeout_us, &socket, error)
                 : address_reach(address, timeout_us, &socket, error))
        return -1;
    if (quire_transport_socket(&transport, socket)) {
        close(socket);
        return infer_fail(error, "%s", quire_error_text());
    }
    return handoff_open(h, cache, model, &transport, timeout_us, error);
}

void handoff_close(handoff *h)
{
    quire_peer_close(h->peer);
    h->peer = NULL;
}

static void count_transfer(handoff *h, const quire_transfer *t)
{
    h->sequences++;
    h->tokens += t->tokens;
    h->cached += t->cached;
    h->bytes += t->bytes;
}

int handoff_send(handoff *h, const engine_request *request, infer_error *error)
{
    quire_seq_options options = { .size = sizeof options, .domain = request->domain };
    quire_transfer transfer;
    quire_seq seq;
    lanes l;
    if (lanes_open(&l, h->cache, h->model, 1, error)) return -1;
    int status = quire_seq_open(h->cache, &options, &seq) ? infer_fail(error, "%s", quire_error_text()) : 0;
    if (!status) {
        status = lanes_prefill(&l, seq, request->tokens, request->count, true, error);
        if (!status) {
            if (quire_peer_send(h->peer, seq, &transfer, h->timeout_us))
                status = infer_fail(error, "%s", quire_error_text());
            else count_transfer(h, &transfer);
        }
        (void)quire_seq_close(h->cache, seq);
    }
    lanes_close(&l);
    return status;
}

int handoff_receive(handoff *h, infer_error *error)
{
    quire_transfer transfer;
    quire_seq seq;
    if (quire_peer_receive(h->peer, &seq, &transfer, h->timeout_us)) return infer_fail(error, "%s", quire_error_text());
    count_transfer(h, &transfer);
    (void)quire_seq_close(h->cache, seq);
    return 0;
}
