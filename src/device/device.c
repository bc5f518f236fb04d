/* device.c: opens a device by name, and the wrappers around its table.
 *
 * The wrappers hold what is the same on every device: the injected copy fault. The batch that is to fail is not handed
 * on, so its bytes do not arrive; the first event recorded behind it on its stream carries the failure, and the first
 * query that finds that event done reports it. Other events know nothing. */
#include "device/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/status.h"
#include "device/device_base.h"
#include "device/device_host.h"
#include "device/device_sim.h"
#ifdef QUIRE_HAVE_CUDA
#include "device/device_cuda.h"
#endif

int quire__device_cuda_count(void)
{
#ifdef QUIRE_HAVE_CUDA
    return quire__device_cuda_probe(NULL);
#else
    return 0;
#endif
}

static quire_status cuda_open(quire__device **device, const quire__device_config *config)
{
#ifdef QUIRE_HAVE_CUDA
    const char *why = NULL;
    int count = quire__device_cuda_probe(&why);
    if (config->ordinal < count)
        return quire__device_cuda_open(device, config);
    if (count == 0)
        return quire__fail(QUIRE_EUNSUPPORTED, "device \"cuda:%d\": no CUDA device is usable here (%s); there are "
                           "\"host\" and \"sim:SEED\"", config->ordinal, why);
    return quire__fail(QUIRE_EUNSUPPORTED, "device \"cuda:%d\": there are \"cuda:0\" to \"cuda:%d\", \"host\" and "
                       "\"sim:SEED\"", config->ordinal, count - 1);
#else
    (void)device;
    return quire__fail(QUIRE_EUNSUPPORTED, "device \"cuda:%d\": CUDA is not in this build; there are \"host\" and "
                       "\"sim:SEED\"", config->ordinal);
#endif
}

/* The number after `prefix`, digits only, at most `most`. */
static bool name_number(const char *name, const char *prefix, uint64_t most, uint64_t *number)
{
    size_t length = strlen(prefix);
    uint64_t value = 0;
    if (strncmp(name, prefix, length) != 0 || name[length] == '\0')
        return false;
    for (const char *at = name + length; *at != '\0'; at++) {
        uint64_t digit = (uint64_t)(*at - '0');
        if (*at < '0' || *at > '9' || value > (most - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *number = value;
    return true;
}

quire_status quire__device_open(quire__device **device, const char *name, const quire__device_config *config)
{
    quire__device_config given = {0};
    quire__device *made = NULL;
    uint64_t number;
    quire_status status;

    if (config != NULL)
        given = *config;
    if (name == NULL)
        name = "auto";
    if (strcmp(name, "auto") == 0)
        name = quire__device_cuda_count() > 0 ? "cuda:0" : "host";

    if (strcmp(name, "host") == 0) {
        status = quire__device_host_open(&made, &given);
    } else if (name_number(name, "sim:", UINT64_MAX, &number)) {
        given.seed = number;
        status = quire__device_sim_open(&made, &given);
    } else if (name_number(name, "cuda:", 1023, &number)) {
        given.ordinal = (int)number;
        status = cuda_open(&made, &given);
    } else {
        return quire__fail(QUIRE_EINVAL, "device \"%.64s\": there are \"host\", \"cuda:N\" (N from 0), \"sim:SEED\" (a "
                           "number) and \"auto\"", name);
    }
    if (status != QUIRE_OK)
        return status;
    QUIRE__ASSERT(made->ops->size == sizeof(quire__device_ops));
    pthread_mutex_init(&made->serial, NULL);
    snprintf(made->name, sizeof made->name, "%s", name);
    *device = made;
    return QUIRE_OK;
}

void quire__device_close(quire__device *device)
{
    if (device == NULL)
        return;
    pthread_mutex_destroy(&device->serial);
    device->ops->close(device);
}

const char *quire__device_name(const quire__device *device)
{
    return device->name;
}

void quire__device_identity(const quire__device *device, char *text, size_t capacity)
{
    text[0] = '\0';
    if (device->ops->identity != NULL)
        device->ops->identity(device, text, capacity);
}

uint32_t quire__device_capabilities(const quire__device *device)
{
    return device->ops->capabilities;
}

bool quire__device_is_cuda(const quire__device *device)
{
    return strcmp(device->ops->name, "cuda") == 0;
}

/* ---- one at a time ------------------------------------------------------------------------------------------- */

static void enter(quire__device *device)
{
    if (device->ops->capabilities & QUIRE__DEVICE_SERIAL)
        pthread_mutex_lock(&device->serial);
}

static void leave(quire__device *device)
{
    if (device->ops->capabilities & QUIRE__DEVICE_SERIAL)
        pthread_mutex_unlock(&device->serial);
}

/* ---- memory -------------------------------------------------------------------------------------------------- */

quire_status quire__device_memory_limit(quire__device *device, quire__memory kind, uint64_t *bytes)
{
    return device->ops->memory_limit(device, kind, bytes);
}

quire_status quire__device_alloc(quire__device *device, quire__memory kind, size_t bytes, void **memory)
{
    enter(device);
    quire_status status = device->ops->alloc(device, kind, bytes != 0 ? bytes : 1, memory);
    leave(device);
    return status;
}

void quire__device_free(quire__device *device, quire__memory kind, void *memory)
{
    if (memory == NULL)
        return;
    enter(device);
    device->ops->free(device, kind, memory);
    leave(device);
}

size_t quire__device_granule(const quire__device *device)
{
    return device->ops->granule;
}

quire_status quire__device_reserve(quire__device *device, size_t bytes, void **memory)
{
    QUIRE__ASSERT(bytes > 0 && bytes % device->ops->granule == 0);
    enter(device);
    quire_status status = device->ops->reserve(device, bytes, memory);
    leave(device);
    return status;
}

void quire__device_release(quire__device *device, void *memory, size_t bytes)
{
    if (memory == NULL)
        return;
    enter(device);
    device->ops->release(device, memory, bytes);
    leave(device);
}

quire_status quire__device_map(quire__device *device, void *memory, size_t bytes)
{
    QUIRE__ASSERT(bytes > 0 && bytes % device->ops->granule == 0);
    enter(device);
    quire_status status = device->ops->map(device, memory, bytes);
    leave(device);
    return status;
}

quire_status quire__device_unmap(quire__device *device, void *memory, size_t bytes)
{
    QUIRE__ASSERT(bytes > 0 && bytes % device->ops->granule == 0);
    enter(device);
    quire_status status = device->ops->unmap(device, memory, bytes);
    leave(device);
    return status;
}

quire_status quire__device_pool_open(quire__device *device, size_t bytes, void **memory)
{
    enter(device);
    quire_status status = device->ops->pool_open(device, bytes, memory);
    leave(device);
    return status;
}

void quire__device_pool_close(quire__device *device, void *memory)
{
    if (memory == NULL)
        return;
    enter(device);
    device->ops->pool_close(device, memory);
    leave(device);
}

quire_status quire__device_pool_pin(quire__device *device, void *memory, size_t bytes)
{
    QUIRE__ASSERT(bytes > 0 && (uintptr_t)memory % QUIRE__POOL_ALIGNMENT == 0);
    return device->ops->pool_pin(device, memory, bytes);
}

void quire__device_pool_unpin(quire__device *device, void *memory, size_t bytes)
{
    enter(device);
    device->ops->pool_unpin(device, memory, bytes);
    leave(device);
}

/* ---- streams and events -------------------------------------------------------------------------------------- */

quire_status quire__device_stream_open(quire__device *device, quire__stream **stream)
{
    return device->ops->stream_open(device, stream);
}

void quire__device_stream_close(quire__device *device, quire__stream *stream)
{
    if (stream == NULL)
        return;
    if (device->fault_stream == stream)
        device->fault_pending = false;
    device->ops->stream_close(device, stream);
}

quire_status quire__device_stream_synchronize(quire__device *device, quire__stream *stream)
{
    enter(device);
    quire_status status = device->ops->stream_synchronize(device, stream);
    leave(device);
    return status;
}

quire_status quire__device_stream_wait(quire__device *device, quire__stream *stream, quire__event *event)
{
    enter(device);
    quire_status status = device->ops->stream_wait(device, stream, event);
    leave(device);
    return status;
}

quire_status quire__device_event_open(quire__device *device, quire__event **event)
{
    return device->ops->event_open(device, event);
}

void quire__device_event_close(quire__device *device, quire__event *event)
{
    if (event != NULL)
        device->ops->event_close(device, event);
}

static quire_status record(quire__device *device, quire__event *event, quire__stream *stream)
{
    QUIRE__TRY(device->ops->event_record(device, event, stream));
    if (device->fault_pending && device->fault_stream == stream) {
        device->fault_pending = false;
        event->failed = true;
    }
    return QUIRE_OK;
}

quire_status quire__device_event_record(quire__device *device, quire__event *event, quire__stream *stream)
{
    enter(device);
    quire_status status = record(device, event, stream);
    leave(device);
    return status;
}

quire_status quire__device_event_query(quire__device *device, quire__event *event, bool *done)
{
    bool now;
    enter(device);
    quire_status status = device->ops->event_query(device, event, &now);
    leave(device);
    if (status != QUIRE_OK)
        return status;
    if (now && event->failed) {
        event->failed = false;
        return quire__fail(QUIRE_EDEVICE, "device %s: a copy failed, as a test asked", device->name);
    }
    *done = now;
    return QUIRE_OK;
}

/* ---- work ---------------------------------------------------------------------------------------------------- */

static quire_status copy(quire__device *device, quire__stream *stream, const quire__copy *copies, size_t count)
{
    if (device->fail_copy > 0 && --device->fail_copy == 0) {
        device->fault_pending = true;
        device->fault_stream = stream;
        return QUIRE_OK;
    }
    return device->ops->copy(device, stream, copies, count);
}

quire_status quire__device_copy(quire__device *device, quire__stream *stream, const quire__copy *copies, size_t count)
{
    if (count == 0)
        return QUIRE_OK;
    enter(device);
    quire_status status = copy(device, stream, copies, count);
    leave(device);
    return status;
}

quire_status quire__device_launch(quire__device *device, quire__stream *stream, quire__kernel kernel,
                                  const quire__kernel_args *args)
{
    QUIRE__ASSERT(kernel < QUIRE__KERNEL_COUNT);
    enter(device);
    quire_status status = device->ops->launch(device, stream, kernel, args);
    leave(device);
    return status;
}

void quire__device_fail_copy(quire__device *device, uint64_t nth)
{
    device->fail_copy = nth;
}
