/* device.h: where the bytes are. One vtable, three implementations: host, sim, cuda.
 *
 * A device has memory, streams (queues whose work runs in order), events (a point in a stream) and kernels. The
 * contract is CUDA's and no stronger: work on different streams is unordered unless an event orders it, copies of
 * one batch are unordered among themselves, and the memory of an enqueued operation belongs to it until an event
 * after it has completed. The host device runs everything at once, which is one legal order; the sim device picks
 * an order as unkind as the contract allows. device_conformance in tests/ runs over all three.
 *
 * Callers use the quire__device_* wrappers, never a slot. Several threads may use a device at the same time, each with
 * streams and events of its own; launches go in from one thread at a time. Opening and closing is for one thread.
 */
#ifndef QUIRE_DEVICE_H
#define QUIRE_DEVICE_H

#include <stdbool.h>

#include "kernels/launch.h"
#include "quire/quire.h"

typedef struct quire__device quire__device;
typedef struct quire__stream quire__stream; /* cuda: a cudaStream_t, cast */
typedef struct quire__event quire__event;

typedef enum quire__memory {
    QUIRE__MEMORY_DEVICE = 0, /* kernels read and write it; the CPU does not */
    QUIRE__MEMORY_PINNED = 1  /* host memory that copies reach asynchronously */
} quire__memory;

typedef struct quire__copy {
    void *destination;
    const void *source;
    size_t bytes; /* at least 1 */
} quire__copy;

enum {
    QUIRE__DEVICE_CPU_VISIBLE = 1u, /* the CPU may read device memory once an event says that it is written */
    QUIRE__DEVICE_IMMEDIATE = 2u,   /* every operation is complete when its call returns */
    QUIRE__DEVICE_SERIAL = 4u       /* its slots take one thread at a time: the wrappers see to it, but for pool_pin */
};

typedef struct quire__device_config {
    uint64_t seed;    /* sim: of its scheduler */
    int ordinal;      /* cuda: which GPU */
    uint32_t threads; /* host, sim: of the kernels; 0: one a core */
    bool deterministic;
    quire_parallel_fn parallel; /* host, sim: NULL: own threads */
    void *parallel_user;
} quire__device_config;

typedef struct quire__device_ops {
    const char *name;
    size_t size; /* sizeof(quire__device_ops): catches a stale table */
    uint32_t capabilities;
    size_t granule; /* of reserved ranges, bytes */
    void (*close)(quire__device *device);
    void (*identity)(const quire__device *device, char *text, size_t capacity); /* NULL: empty */
    quire_status (*memory_limit)(quire__device *device, quire__memory kind, uint64_t *bytes);
    quire_status (*alloc)(quire__device *device, quire__memory kind, size_t bytes, void **memory);
    void (*free)(quire__device *device, quire__memory kind, void *memory);
    quire_status (*reserve)(quire__device *device, size_t bytes, void **memory);
    void (*release)(quire__device *device, void *memory, size_t bytes);
    quire_status (*map)(quire__device *device, void *memory, size_t bytes);
    quire_status (*unmap)(quire__device *device, void *memory, size_t bytes);
    quire_status (*pool_open)(quire__device *device, size_t bytes, void **memory);
    void (*pool_close)(quire__device *device, void *memory);
    quire_status (*pool_pin)(quire__device *device, void *memory, size_t bytes);
    void (*pool_unpin)(quire__device *device, void *memory, size_t bytes);
    quire_status (*stream_open)(quire__device *device, quire__stream **stream);
    void (*stream_close)(quire__device *device, quire__stream *stream);
    quire_status (*stream_synchronize)(quire__device *device, quire__stream *stream);
    quire_status (*stream_wait)(quire__device *device, quire__stream *stream, quire__event *event);
    quire_status (*event_open)(quire__device *device, quire__event **event);
    void (*event_close)(quire__device *device, quire__event *event);
    quire_status (*event_record)(quire__device *device, quire__event *event, quire__stream *stream);
    quire_status (*event_query)(quire__device *device, quire__event *event, bool *done);
    quire_status (*copy)(quire__device *device, quire__stream *stream, const quire__copy *copies, size_t count);
    quire_status (*launch)(quire__device *device, quire__stream *stream, quire__kernel kernel,
                           const quire__kernel_args *args);
} quire__device_ops;

/* Opens "host", "cuda:N", "sim:SEED" or "auto". QUIRE_EINVAL: no such name; QUIRE_EUNSUPPORTED: not in this build, or
 * no such GPU; the text says which devices there are. */
quire_status quire__device_open(quire__device **device, const char *name, const quire__device_config *config);
void quire__device_close(quire__device *device); /* NULL is allowed; streams and events first */
const char *quire__device_name(const quire__device *device); /* "host", "sim:7", "cuda:0" */
/* What times measured on the device hold for: its make, its driver. Empty: times mean nothing on it. */
void quire__device_identity(const quire__device *device, char *text, size_t capacity);
uint32_t quire__device_capabilities(const quire__device *device);
bool quire__device_is_cuda(const quire__device *device);
quire_status quire__device_memory_limit(quire__device *device, quire__memory kind, uint64_t *bytes);
/* At least 256-byte aligned, not initialised. QUIRE_ENOMEM. */
quire_status quire__device_alloc(quire__device *device, quire__memory kind, size_t bytes, void **memory);
void quire__device_free(quire__device *device, quire__memory kind, void *memory);

/* A range of device addresses without memory behind them; memory is put behind granules of it and taken away again while
 * the rest is in use, and no address ever changes. */
size_t quire__device_granule(const quire__device *device); /* everything below is in multiples of so many bytes */
/* QUIRE_ENOMEM; QUIRE_EUNSUPPORTED: this GPU or its driver cannot. */
quire_status quire__device_reserve(quire__device *device, size_t bytes, void **memory);
/* The whole range, as it was reserved; nothing in it may be mapped any more. NULL is allowed. */
void quire__device_release(quire__device *device, void *memory, size_t bytes);
/* Memory behind [memory, memory + bytes), where there is none. Not initialised. QUIRE_ENOMEM: none of it is mapped. */
quire_status quire__device_map(quire__device *device, void *memory, size_t bytes);
/* Gives the memory of [memory, memory + bytes) back: one range as quire__device_map was given it. Nothing enqueued may
 * touch it any more; nobody waits here. */
quire_status quire__device_unmap(quire__device *device, void *memory, size_t bytes);

/* Host memory that becomes QUIRE__MEMORY_PINNED piece by piece, since pinning all of a large one takes seconds. Addresses
 * first, 2 MiB aligned, with nothing behind them. QUIRE_ENOMEM. */
quire_status quire__device_pool_open(quire__device *device, size_t bytes, void **memory);
/* Nothing in it may be pinned any more. NULL is allowed. */
void quire__device_pool_close(quire__device *device, void *memory);
enum { QUIRE__POOL_ALIGNMENT = 4096 }; /* of what is pinned */
/* Memory, pinned, behind [memory, memory + bytes), where there is none. From any thread, while others use the device. A copy
 * lies within one such range. QUIRE_ENOMEM. */
quire_status quire__device_pool_pin(quire__device *device, void *memory, size_t bytes);
/* One range as quire__device_pool_pin was given it. Nothing enqueued may touch it any more. */
void quire__device_pool_unpin(quire__device *device, void *memory, size_t bytes);

quire_status quire__device_stream_open(quire__device *device, quire__stream **stream);
void quire__device_stream_close(quire__device *device, quire__stream *stream);
quire_status quire__device_stream_synchronize(quire__device *device, quire__stream *stream);
/* Work enqueued on the stream from here on runs after the event's last record. Never recorded: no wait. */
quire_status quire__device_stream_wait(quire__device *device, quire__stream *stream, quire__event *event);
quire_status quire__device_event_open(quire__device *device, quire__event **event);
void quire__device_event_close(quire__device *device, quire__event *event);
quire_status quire__device_event_record(quire__device *device, quire__event *event, quire__stream *stream);
/* done: everything before the event's last record has completed. Never recorded: done. QUIRE_EDEVICE: it failed. */
quire_status quire__device_event_query(quire__device *device, quire__event *event, bool *done);
/* Enqueues copies between any two of the device's kinds of memory; unordered among themselves, no overlap.
 * The array is read during the call only. */
quire_status quire__device_copy(quire__device *device, quire__stream *stream, const quire__copy *copies, size_t count);
quire_status quire__device_launch(quire__device *device, quire__stream *stream, quire__kernel kernel,
                                  const quire__kernel_args *args);

/* Tests: make the n-th copy batch from now fail (1: the next; 0: never), seen as QUIRE_EDEVICE from the query of an
 * event recorded after it, once; its bytes do not arrive. On every device, in the wrapper's common state. */
void quire__device_fail_copy(quire__device *device, uint64_t nth);

/* Is there a CUDA device in this build and machine? 0: none. */
int quire__device_cuda_count(void);

#endif
