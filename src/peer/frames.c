#include "peer/frames.h"

#include <string.h>

#include "base/hash.h"
#include "base/status.h"

quire_status quire__frame_flush(quire__frame_out *out)
{
    quire__frame_head head = {QUIRE__FRAME_MAGIC, out->used, 0};

    if (out->status != QUIRE_OK || out->used == 0)
        return out->status;
    head.checksum = quire__checksum(out->memory + sizeof head, out->used);
    memcpy(out->memory, &head, sizeof head);
    out->status = out->send(out->arg, out->memory, sizeof head + out->used);
    out->used = 0;
    return out->status;
}

void quire__frame_put(quire__frame_out *out, const void *data, size_t bytes)
{
    const unsigned char *from = data;

    while (bytes > 0 && out->status == QUIRE_OK) {
        size_t room = QUIRE__FRAME_BYTES - out->used, some = bytes < room ? bytes : room;
        memcpy(out->memory + sizeof(quire__frame_head) + out->used, from, some);
        out->used += (uint32_t)some;
        from += some;
        bytes -= some;
        if (out->used == QUIRE__FRAME_BYTES)
            (void)quire__frame_flush(out);
    }
}

bool quire__frame_empty(const quire__frame_in *in)
{
    return in->at == in->bytes;
}

quire_status quire__frame_rest(quire__frame_in *in, unsigned char first)
{
    quire__frame_head head;

    memcpy(&head, &first, 1);
    QUIRE__TRY(in->receive(in->arg, (unsigned char *)&head + 1, sizeof head - 1));
    if (head.magic != QUIRE__FRAME_MAGIC || head.bytes == 0 || head.bytes > QUIRE__FRAME_BYTES)
        return quire__fail(QUIRE_EPEER, "rank 0 does not keep to the protocol: a frame was to come");
    QUIRE__TRY(in->receive(in->arg, in->memory, head.bytes));
    if (quire__checksum(in->memory, head.bytes) != head.checksum)
        return quire__fail(QUIRE_EPEER, "a frame of the plan did not arrive as it was sent");
    in->bytes = head.bytes;
    in->at = 0;
    return QUIRE_OK;
}

quire_status quire__frame_take(quire__frame_in *in, void *data, size_t bytes)
{
    unsigned char *to = data, first;

    while (bytes > 0) {
        if (quire__frame_empty(in)) {
            QUIRE__TRY(in->receive(in->arg, &first, 1));
            QUIRE__TRY(quire__frame_rest(in, first));
        }
        size_t left = in->bytes - in->at, some = bytes < left ? bytes : left;
        memcpy(to, in->memory + in->at, some);
        in->at += (uint32_t)some;
        to += some;
        bytes -= some;
    }
    return QUIRE_OK;
}
