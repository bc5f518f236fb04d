/* staging.c: a ring of two buffers between kernels on one stream and copies on another.
 *
 *   offload   kernels   |wait drained 0| pack into 0 |F0|wait drained 1| pack into 1 |F1|...
 *             copies                      wait F0    | buffer 0 to host |E,D0| wait F1 | buffer 1 to host |E,D1|
 *   restore   copies    |wait drained 0| host to buffer 0 |A|wait drained 1| host to buffer 1 |A|
 *             kernels                         wait A      | unpack from 0 |D0|   wait A       | unpack from 1 |D1|
 *
 * So a kernel works on one buffer while the other is on the link. What may go wrong, and what keeps it from it:
 *
 *  1. A buffer is rewritten while its last reader still reads: whoever writes it waits for `drained`, recorded behind the
 *     reader. In an offload the reader is the copy, in a restore the kernel.
 *  2. A buffer is read before it is written: F, A.
 *  3. The kernel reads offsets, and writes `refused`, in pinned memory that the CPU writes when it enqueues. Both are
 *     indexed by the move's place in the mover's ring, and a place is used again only when its move has been answered.
 *  4. The arena's slots: the kernels' stream waits for their tickets, and the move has ended when the kernel has (restore) or
 *     the copy behind it (offload).
 *
 * A failed copy is seen by the first event behind it on its own stream, so the events that the mover asks (E, A) come first. */
#include "move/staging.h"

#include <string.h>

#include "base/check.h"
#include "base/status.h"

enum { MOST_BLOCKS = 64 }; /* of threads, in a kernel: 16 multiprocessors pack faster than a link moves what they pack */

/* ---- geometry ------------------------------------------------------------------------------------------------ */

/* Of a block's bytes, or of its packed ones, those of a part. */
typedef struct span {
    size_t from, bytes;
} span;

static span raw_part(const quire__staging *staging, uint32_t part)
{
    size_t from = part * staging->config.part_bytes;
    bool last = part + 1 == staging->config.parts;
    return (span){from, last ? staging->config.block_bytes - from : staging->config.part_bytes};
}

/* As a slot of the host tier has it. */
static span slot_part(const quire__staging *staging, uint32_t part)
{
    const quire__pack_shape *shape = &staging->config.shape;
    span raw = raw_part(staging, part);
    if (staging->config.path == QUIRE__PATH_GATHER)
        return raw;
    size_t unit = 2 * (size_t)shape->unit_elements, slot = (size_t)shape->slot_bytes;
    return (span){raw.from / unit * slot, (raw.bytes + unit - 1) / unit * slot};
}

/* ---- open and close ------------------------------------------------------------------------------------------ */

static quire_status take(quire__staging *staging, quire__memory kind, size_t bytes, void *out)
{
    void *memory;
    QUIRE__TRY(quire__device_alloc(staging->config.device, kind, bytes, &memory));
    memcpy(out, &memory, sizeof memory);
    return QUIRE_OK;
}

quire_status quire__staging_open(quire__staging *staging, const quire__staging_config *config)
{
    memset(staging, 0, sizeof *staging);
    staging->config = *config;
    size_t block = slot_part(staging, 0).bytes;
    for (uint32_t part = 1; part < config->parts; part++)
        block = slot_part(staging, part).bytes > block ? slot_part(staging, part).bytes : block;
    size_t group = config->buffer_bytes / block;
    group = group < 1 ? 1 : group < config->capacity ? group : config->capacity;
    staging->group = (uint32_t)group;
    for (int i = 0; i < QUIRE__STAGING_BUFFERS; i++) {
        QUIRE__TRY(take(staging, QUIRE__MEMORY_DEVICE, group * block, &staging->buffers[i]));
        if (config->path == QUIRE__PATH_PACK)
            QUIRE__TRY(take(staging, QUIRE__MEMORY_DEVICE, group * (size_t)config->shape.units * sizeof(int32_t),
                            &staging->unit_status[i]));
        QUIRE__TRY(quire__device_event_open(config->device, &staging->filled[i]));
        QUIRE__TRY(quire__device_event_open(config->device, &staging->drained[i]));
    }
    QUIRE__TRY(take(staging, QUIRE__MEMORY_PINNED, config->capacity * sizeof(int64_t), &staging->offsets));
    QUIRE__TRY(take(staging, QUIRE__MEMORY_PINNED, config->capacity * sizeof(int32_t), &staging->refused));
    return quire__device_stream_open(config->device, &staging->kernels);
}

void quire__staging_close(quire__staging *staging)
{
    quire__device *device = staging->config.device;

    if (device == NULL)
        return;
    if (staging->kernels != NULL) {
        (void)quire__device_stream_synchronize(device, staging->kernels);
        quire__device_stream_close(device, staging->kernels);
    }
    for (int i = 0; i < QUIRE__STAGING_BUFFERS; i++) {
        quire__device_event_close(device, staging->filled[i]);
        quire__device_event_close(device, staging->drained[i]);
        quire__device_free(device, QUIRE__MEMORY_DEVICE, staging->unit_status[i]);
        quire__device_free(device, QUIRE__MEMORY_DEVICE, staging->buffers[i]);
    }
    quire__device_free(device, QUIRE__MEMORY_PINNED, staging->refused);
    quire__device_free(device, QUIRE__MEMORY_PINNED, staging->offsets);
    memset(staging, 0, sizeof *staging);
}

/* ---- a group ------------------------------------------------------------------------------------------------- */

uint32_t quire__copies_add(quire__copy *copies, uint32_t count, quire__copy copy)
{
    quire__copy *last = count > 0 ? &copies[count - 1] : NULL;

    if (last != NULL && (unsigned char *)last->destination + last->bytes == copy.destination &&
        (const unsigned char *)last->source + last->bytes == copy.source) {
        last->bytes += copy.bytes;
        return count;
    }
    copies[count] = copy;
    return count + 1;
}

static quire_status run_kernel(quire__staging *staging, uint32_t buffer, uint32_t first, uint32_t count, uint32_t part)
{
    const quire__staging_config *config = &staging->config;
    span raw = raw_part(staging, part);
    quire__kernel_args args;

    if (config->path == QUIRE__PATH_GATHER) {
        args.pieces = (quire__pieces_args){.arena = config->arena + raw.from,
                                           .staging = staging->buffers[buffer],
                                           .offsets = staging->offsets + first,
                                           .piece_bytes = (int64_t)raw.bytes,
                                           .count = (int32_t)count};
        return quire__device_launch(config->device, staging->kernels,
                                    config->restore ? QUIRE__KERNEL_SCATTER : QUIRE__KERNEL_GATHER, &args);
    }
    args.pack = (quire__pack_args){.arena = config->arena + raw.from,
                                   .offsets = staging->offsets + first,
                                   .packed = staging->buffers[buffer],
                                   .status = staging->unit_status[buffer],
                                   .page_status = staging->refused + first,
                                   .page_bytes = (int64_t)raw.bytes,
                                   .unit_elements = config->shape.unit_elements,
                                   .slot_bytes = config->shape.slot_bytes,
                                   .count = (int32_t)count,
                                   .most_blocks = MOST_BLOCKS};
    return quire__device_launch(config->device, staging->kernels,
                                config->restore ? QUIRE__KERNEL_UNPACK : QUIRE__KERNEL_PACK, &args);
}

static uint32_t list_copies(const quire__staging *staging, uint32_t buffer, const quire__move *moves, uint32_t count,
                            uint32_t part, quire__copy *copies)
{
    span slot = slot_part(staging, part);
    uint32_t made = 0;

    for (uint32_t i = 0; i < count; i++) {
        unsigned char *staged = staging->buffers[buffer] + i * slot.bytes;
        uint32_t host_slot = staging->config.restore ? moves[i].source : moves[i].destination;
        unsigned char *at = (unsigned char *)quire__host_tier_slot(staging->config.host, host_slot) + slot.from;
        made = quire__copies_add(copies, made,
                                 staging->config.restore
                                     ? (quire__copy){.destination = staged, .source = at, .bytes = slot.bytes}
                                     : (quire__copy){.destination = at, .source = staged, .bytes = slot.bytes});
    }
    return made;
}

/* `stream` writes the next buffer from here on. */
static quire_status take_buffer(quire__staging *staging, quire__stream *stream, uint32_t *buffer)
{
    *buffer = staging->next;
    staging->next = (staging->next + 1) % QUIRE__STAGING_BUFFERS;
    return staging->no_wait ? QUIRE_OK
                            : quire__device_stream_wait(staging->config.device, stream, staging->drained[*buffer]);
}

static void write_lists(quire__staging *staging, const quire__move *ring, uint32_t first, uint32_t count)
{
    for (uint32_t i = first; i < first + count; i++) {
        uint32_t device_slot = staging->config.restore ? ring[i].destination : ring[i].source;
        staging->offsets[i] = (int64_t)(device_slot * (uint64_t)staging->config.block_bytes);
        staging->refused[i] = 0;
    }
}

static quire_status offload_group(quire__staging *staging, quire__stream *stream, const quire__move *ring, uint32_t first,
                                  uint32_t count, quire__copy *copies, quire__event *ended, uint64_t *made)
{
    quire__device *device = staging->config.device;
    uint32_t buffer, listed;

    QUIRE__TRY(take_buffer(staging, staging->kernels, &buffer));
    QUIRE__TRY(run_kernel(staging, buffer, first, count, 0));
    QUIRE__TRY(quire__device_event_record(device, staging->filled[buffer], staging->kernels));
    QUIRE__TRY(quire__device_stream_wait(device, stream, staging->filled[buffer]));
    listed = list_copies(staging, buffer, ring + first, count, 0, copies);
    *made += listed;
    QUIRE__TRY(quire__device_copy(device, stream, copies, listed));
    QUIRE__TRY(quire__device_event_record(device, ended, stream));
    return quire__device_event_record(device, staging->drained[buffer], stream);
}

static quire_status restore_group(quire__staging *staging, quire__stream *stream, const quire__move *ring, uint32_t first,
                                  uint32_t count, uint32_t part, quire__copy *copies, quire__event *arrived,
                                  uint64_t *made)
{
    quire__device *device = staging->config.device;
    uint32_t buffer, listed;

    QUIRE__TRY(take_buffer(staging, stream, &buffer));
    listed = list_copies(staging, buffer, ring + first, count, part, copies);
    *made += listed;
    QUIRE__TRY(quire__device_copy(device, stream, copies, listed));
    QUIRE__TRY(quire__device_event_record(device, arrived, stream));
    QUIRE__TRY(quire__device_stream_wait(device, staging->kernels, arrived));
    QUIRE__TRY(run_kernel(staging, buffer, first, count, part));
    return quire__device_event_record(device, staging->drained[buffer], staging->kernels);
}

/* ---- moves --------------------------------------------------------------------------------------------------- */

quire_status quire__staging_offload(quire__staging *staging, quire__stream *stream, const quire__move *ring, uint32_t first,
                                    uint32_t count, quire__copy *copies, quire__event *ended, uint64_t *made)
{
    write_lists(staging, ring, first, count);
    for (uint32_t done = 0, some; done < count; done += some) {
        some = count - done < staging->group ? count - done : staging->group;
        QUIRE__TRY(offload_group(staging, stream, ring, first + done, some, copies, ended, made));
    }
    return QUIRE_OK;
}

quire_status quire__staging_restore(quire__staging *staging, quire__stream *stream, const quire__move *ring, uint32_t first,
                                    uint32_t count, uint32_t part, quire__copy *copies, quire__event *arrived,
                                    uint64_t *made)
{
    if (part == 0)
        write_lists(staging, ring, first, count);
    for (uint32_t done = 0, some; done < count; done += some) {
        some = count - done < staging->group ? count - done : staging->group;
        QUIRE__TRY(restore_group(staging, stream, ring, first + done, some, part, copies, arrived, made));
    }
    return QUIRE_OK;
}
