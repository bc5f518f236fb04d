/* device_sim.c: host memory under an adversarial asynchronous scheduler. For tests.
 *
 * A stream is a queue of operations. Nothing runs because it was enqueued: each call lets the scheduler run some steps,
 * and a seed decides how many and of which streams. So an operation may happen at once, much later, or only when
 * someone waits for it, and code that forgot to order two streams sees, for some seed, the wrong order.
 *
 *     stream A   [copy  p3 p1 p2][record e]          a step is one piece of a copy, or one whole other operation
 *     stream B   [wait e][kernel]                    runnable: A's p3; B stands until `record e` has run
 *
 * What may happen, and no more than CUDA allows:
 *   1. Operations of one stream run in order. A wait stands until the point it names has run.
 *   2. A batch of copies is cut into pieces, and the pieces of all its copies are shuffled; sources are read, and
 *      destinations written, when a piece runs. Other streams run between pieces.
 *   3. A wait means the event's last record before the wait was enqueued: a record makes a point, and event, wait and
 *      record share it by count.
 *   4. Synchronising a stream, and asking an event often enough, ends: both then run what is needed, through waits to
 *      other streams, and by the seed's mood also what is not.
 *
 * The link to the host may be given a speed (quire__device_sim_set_link). A copy that crosses it then takes its time, from
 * when it is the first of its stream on; that time is real, so that what a caller measures is what it would measure. Each stream
 * has that speed, or all of them share it (quire__device_sim_share_link): then copies cross one after another in the order in
 * which they were enqueued, whatever stream they are on. That ends, for a wait names an earlier record, and so do those before
 * it.
 *
 * A seed also picks a character (struct mood), since a uniform scheduler would rarely be late enough to matter: some
 * seeds run nothing until forced, some everything at once, some starve one stream.
 *
 * Memory starts as 0xff and is filled with it again before it is freed: NaN in every type, -1 in every index. A kernel
 * that would leave the device's memory is not run; it breaks the device, and every call after says QUIRE_EDEVICE. */
#define _GNU_SOURCE 1
#include "device/device_sim.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/status.h"
#include "device/device_base.h"
#include "device/device_host.h"
#include "device/parallel.h"
#include "device/sim_bounds.h"

enum {
    POISON = 0xff,
    GRANULE = 256, /* small, so that small tests can map and unmap */
    HUGE_BYTES = 2 * 1024 * 1024,
    QUEUE_MOST = 1024,   /* operations of a stream; a full queue makes its caller wait, as on a GPU */
    QUERIES_MOST = 32,   /* of one point before it is forced */
    PIECES_MOST = 4,     /* of one copy */
    OVERLAP_CHECKED = 512 /* copies of a batch that are compared with each other */
};

/* A record: somewhere in a stream. */
typedef struct sim_point {
    struct sim_stream *stream;
    uint32_t holders, queries, patience;
    bool done;
} sim_point;

typedef enum sim_kind { SIM_COPY, SIM_LAUNCH, SIM_RECORD, SIM_WAIT } sim_kind;

typedef struct sim_operation {
    struct sim_operation *next;
    sim_kind kind;
    sim_point *point; /* RECORD, WAIT */
    quire__kernel kernel;
    quire__kernel_args args;
    size_t pieces, run; /* COPY: how many there are, how many have run */
    uint64_t takes_us;  /* COPY: over the link */
    uint64_t until_us;  /* when that is over; 0: it has not begun */
    uint64_t turn;      /* COPY: on a shared link, counted from 0 */
    quire__copy piece[];
} sim_operation;

typedef struct sim_stream {
    struct sim_stream *next;
    sim_operation *first, *last;
    size_t length;
} sim_stream;

typedef struct sim_event {
    quire__event base;
    sim_point *point; /* the last record; NULL: none */
} sim_event;

/* Probabilities are sixteenths. */
typedef struct mood {
    uint32_t eager;    /* of one more step after a call */
    uint32_t generous; /* of a step for somebody else while somebody waits */
    uint32_t biased;   /* of the favourite, where it can run */
    uint32_t torn;     /* of a copy in pieces */
    uint32_t favourite;
} mood;

typedef struct sim_device {
    quire__device base;
    quire__parallel *parallel;
    quire__host_attend *attend;
    uint64_t random;
    mood mood;
    sim_stream *streams;
    uint32_t stream_count;
    quire__sim_memory *memory;
    uint64_t link_bytes_per_s; /* 0: no time passes */
    bool link_shared;
    uint64_t link_enqueued, link_begun, link_free_us; /* shared: copies so far, and when the last that began is over */
    char fault[160]; /* why the device is broken; empty: it is not */
} sim_device;

/* ---- chance -------------------------------------------------------------------------------------------------- */

static uint32_t sim_pick(sim_device *sim, uint32_t count)
{
    return (uint32_t)((quire__random(&sim->random) >> 32) % count);
}

static bool sim_chance(sim_device *sim, uint32_t sixteenths)
{
    return sim_pick(sim, 16) < sixteenths;
}

static void sim_character(sim_device *sim, uint64_t seed)
{
    static const uint32_t eager[] = {0, 2, 8, 13, 15};
    static const uint32_t generous[] = {0, 4, 12};
    static const uint32_t biased[] = {0, 12, 16};
    static const uint32_t torn[] = {0, 8, 16};
    sim->random = seed;
    sim->mood.eager = eager[sim_pick(sim, 5)];
    sim->mood.generous = generous[sim_pick(sim, 3)];
    sim->mood.biased = biased[sim_pick(sim, 3)];
    sim->mood.torn = torn[sim_pick(sim, 3)];
    sim->mood.favourite = sim_pick(sim, 8);
}

/* ---- points and operations ----------------------------------------------------------------------------------- */

static void point_drop(sim_point *point)
{
    if (point != NULL && --point->holders == 0)
        free(point);
}

__attribute__((format(printf, 2, 3))) static void sim_break(sim_device *sim, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(sim->fault, sizeof sim->fault, format, list);
    va_end(list);
}

static quire_status sim_health(const sim_device *sim)
{
    if (sim->fault[0] != '\0')
        return quire__fail(QUIRE_EDEVICE, "device %s: %s", sim->base.name, sim->fault);
    return QUIRE_OK;
}

static sim_operation *operation_make(sim_kind kind, size_t pieces)
{
    sim_operation *made = calloc(1, sizeof *made + pieces * sizeof made->piece[0]);
    if (made != NULL)
        made->kind = kind;
    else
        (void)quire__fail(QUIRE_ENOMEM, "no memory for an operation of the sim device");
    return made;
}

static void operation_launch(sim_device *sim, const sim_operation *operation)
{
    const char *fault = quire__sim_bounds(sim->memory, operation->kernel, &operation->args);
    if (fault != NULL)
        sim_break(sim, "a kernel left the device's memory (%s)", fault);
    else if (quire__host_launch(sim->attend, operation->kernel, &operation->args) != QUIRE_OK)
        sim_break(sim, "a kernel failed: %.100s", quire_error_text());
}

/* Is the first operation, a copy, still on the link? */
static bool on_the_link(sim_device *sim, sim_operation *operation)
{
    if (operation->kind != SIM_COPY || operation->takes_us == 0)
        return false;
    uint64_t now = quire__clock_us();
    if (operation->until_us == 0) {
        uint64_t from = now;
        if (sim->link_shared) {
            if (operation->turn != sim->link_begun)
                return true;
            sim->link_begun++;
            from = sim->link_free_us > now ? sim->link_free_us : now;
            sim->link_free_us = from + operation->takes_us;
        }
        operation->until_us = from + operation->takes_us;
    }
    return now < operation->until_us;
}

/* Can the stream's first operation take a step now? */
static bool stream_runnable(sim_device *sim, const sim_stream *stream)
{
    return stream->first != NULL && (stream->first->kind != SIM_WAIT || stream->first->point->done) &&
           !on_the_link(sim, stream->first);
}

/* One step of a runnable stream. A broken device goes through the motions, so that whoever waits is released. */
static void stream_step(sim_device *sim, sim_stream *stream)
{
    sim_operation *operation = stream->first;
    bool broken = sim->fault[0] != '\0';
    switch (operation->kind) {
    case SIM_COPY:
        if (!broken && !(quire__sim_there(sim->memory, operation->piece[operation->run].destination,
                                          operation->piece[operation->run].bytes) &&
                         quire__sim_there(sim->memory, operation->piece[operation->run].source,
                                          operation->piece[operation->run].bytes)))
            sim_break(sim, "a copy met an address whose memory was given back"), broken = true;
        if (!broken)
            memcpy(operation->piece[operation->run].destination, operation->piece[operation->run].source,
                   operation->piece[operation->run].bytes);
        if (++operation->run < operation->pieces)
            return;
        break;
    case SIM_LAUNCH:
        if (!broken)
            operation_launch(sim, operation);
        break;
    case SIM_RECORD:
        operation->point->done = true;
        break;
    case SIM_WAIT:
        break;
    }
    stream->first = operation->next;
    if (stream->first == NULL)
        stream->last = NULL;
    stream->length--;
    point_drop(operation->point);
    free(operation);
}

/* ---- the scheduler ------------------------------------------------------------------------------------------- */

/* A runnable stream by the seed's choice, or NULL. */
static sim_stream *sim_choose(sim_device *sim)
{
    uint32_t start, i = 0;
    sim_stream *after = NULL, *wrapped = NULL;
    if (sim->stream_count == 0)
        return NULL;
    start = sim_chance(sim, sim->mood.biased) ? sim->mood.favourite % sim->stream_count
                                              : sim_pick(sim, sim->stream_count);
    for (sim_stream *stream = sim->streams; stream != NULL; stream = stream->next, i++) {
        if (!stream_runnable(sim, stream))
            continue;
        if (i >= start && after == NULL)
            after = stream;
        if (wrapped == NULL)
            wrapped = stream;
    }
    return after != NULL ? after : wrapped;
}

/* After every call: as many steps as the seed feels like. */
static void sim_tick(sim_device *sim)
{
    while (sim->link_bytes_per_s > 0 || sim_chance(sim, sim->mood.eager)) { /* with time, nothing dawdles beside */
        sim_stream *stream = sim_choose(sim);
        if (stream == NULL)
            return;
        stream_step(sim, stream);
    }
}

/* One step towards running the first operation of a stream, which may be one of a stream that it waits for. That ends:
 * a point that is not done has its record in its stream's queue, and a wait names an earlier record than itself. */
static void sim_push(sim_device *sim, sim_stream *stream)
{
    while (sim_chance(sim, sim->mood.generous)) {
        sim_stream *other = sim_choose(sim);
        if (other != NULL)
            stream_step(sim, other);
    }
    while (stream->first != NULL && stream->first->kind == SIM_WAIT && !stream->first->point->done)
        stream = stream->first->point->stream;
    while (stream->first != NULL && on_the_link(sim, stream->first)) {
        quire__clock_sleep_us(20);
        if (sim->link_shared)
            sim_tick(sim); /* it may be another stream's turn */
    }
    if (stream->first != NULL && stream_runnable(sim, stream))
        stream_step(sim, stream);
}

static void sim_drain(sim_device *sim, sim_stream *stream)
{
    while (stream->first != NULL)
        sim_push(sim, stream);
}

static void sim_drain_all(sim_device *sim)
{
    for (sim_stream *stream = sim->streams; stream != NULL; stream = stream->next)
        sim_drain(sim, stream);
}

static void sim_enqueue(sim_device *sim, sim_stream *stream, sim_operation *operation)
{
    while (stream->length >= QUEUE_MOST)
        sim_push(sim, stream);
    if (stream->last != NULL)
        stream->last->next = operation;
    else
        stream->first = operation;
    stream->last = operation;
    stream->length++;
    sim_tick(sim);
}

/* ---- memory -------------------------------------------------------------------------------------------------- */

static quire_status sim_memory_limit(quire__device *device, quire__memory kind, uint64_t *bytes)
{
    (void)device, (void)kind;
    *bytes = quire__host_memory_limit();
    return QUIRE_OK;
}

/* With a granule none of it is mapped yet. */
static quire_status sim_take(sim_device *sim, size_t bytes, size_t granule, bool pinned, void **memory)
{
    void *made;
    quire__sim_memory *entry;
    QUIRE__TRY(quire__host_memory_alloc(bytes, &made));
    entry = calloc(1, sizeof *entry);
    bool *mapped = granule == 0 ? NULL : calloc((bytes + granule - 1) / granule, sizeof *mapped);
    if (entry == NULL || (mapped == NULL && granule != 0)) {
        free(entry);
        free(mapped);
        free(made);
        return quire__fail(QUIRE_ENOMEM, "no memory for an allocation of the sim device");
    }
    *entry = (quire__sim_memory){
        .next = sim->memory, .base = made, .bytes = bytes, .pinned = pinned, .granule = granule, .mapped = mapped};
    sim->memory = entry;
    *memory = made;
    return QUIRE_OK;
}

static quire_status sim_alloc(quire__device *device, quire__memory kind, size_t bytes, void **memory)
{
    QUIRE__TRY(sim_take((sim_device *)device, bytes, 0, kind == QUIRE__MEMORY_PINNED, memory));
    memset(*memory, POISON, bytes);
    return QUIRE_OK;
}

/* Waits for everything first, as cudaFree does. */
static void sim_free(quire__device *device, quire__memory kind, void *memory)
{
    sim_device *sim = (sim_device *)device;
    (void)kind;
    sim_drain_all(sim);
    for (quire__sim_memory **link = &sim->memory; *link != NULL; link = &(*link)->next) {
        quire__sim_memory *entry = *link;
        if (entry->base == memory) {
            *link = entry->next;
            if (entry->granule == 0)
                memset(entry->base, POISON, entry->bytes);
            free(entry->base);
            free(entry->mapped);
            free(entry);
            return;
        }
    }
}

/* Reserved addresses are real memory all along; what is mapped is kept in the books, and poison comes and goes with it. */
static quire_status sim_reserve(quire__device *device, size_t bytes, void **memory)
{
    return sim_take((sim_device *)device, bytes, GRANULE, false, memory);
}

static void sim_release(quire__device *device, void *memory, size_t bytes)
{
    (void)bytes;
    sim_free(device, QUIRE__MEMORY_DEVICE, memory);
}

static quire_status sim_set_mapped(sim_device *sim, void *memory, size_t bytes, bool mapped)
{
    for (quire__sim_memory *entry = sim->memory; entry != NULL; entry = entry->next) {
        size_t first = (size_t)((uintptr_t)memory - (uintptr_t)entry->base);
        if (first >= entry->bytes || entry->granule == 0)
            continue;
        for (size_t i = first / entry->granule; i * entry->granule < first + bytes; i++) {
            QUIRE__ASSERT(entry->mapped[i] != mapped);
            entry->mapped[i] = mapped;
        }
        memset(memory, POISON, bytes);
        return QUIRE_OK;
    }
    return quire__fail(QUIRE_EINVAL, "device %s: no reserved range has this address", sim->base.name);
}

static quire_status sim_map(quire__device *device, void *memory, size_t bytes)
{
    return sim_set_mapped((sim_device *)device, memory, bytes, true);
}

/* At once, whatever is still queued: that is the caller's to see to. */
static quire_status sim_unmap(quire__device *device, void *memory, size_t bytes)
{
    return sim_set_mapped((sim_device *)device, memory, bytes, false);
}

static quire_status sim_pool_open(quire__device *device, size_t bytes, void **memory)
{
    return sim_take((sim_device *)device, bytes < HUGE_BYTES ? HUGE_BYTES : bytes, QUIRE__POOL_ALIGNMENT, true, memory);
}

static void sim_pool_close(quire__device *device, void *memory)
{
    sim_free(device, QUIRE__MEMORY_PINNED, memory);
}

/* How pins go, of all devices; counted from the last set on. */
static atomic_uint pins_allowed = UINT32_MAX, pins_good = UINT32_MAX, pins_asked;

void quire__device_sim_set_pins(uint32_t allowed, uint32_t good)
{
    pins_asked = 0;
    pins_good = good;
    pins_allowed = allowed;
}

void quire__device_sim_allow_pins(uint32_t allowed)
{
    pins_allowed = allowed;
}

/* From any thread: only the books are shared. */
static quire_status sim_pool_pin(quire__device *device, void *memory, size_t bytes)
{
    uint32_t turn = pins_asked++;
    while (turn >= pins_allowed)
        quire__clock_sleep_us(100);
    if (turn >= pins_good)
        return quire__fail(QUIRE_ENOMEM, "device %s: no more memory can be pinned, as a test asked", device->name);
    pthread_mutex_lock(&device->serial);
    quire_status status = sim_set_mapped((sim_device *)device, memory, bytes, true);
    pthread_mutex_unlock(&device->serial);
    return status;
}

static void sim_pool_unpin(quire__device *device, void *memory, size_t bytes)
{
    (void)sim_set_mapped((sim_device *)device, memory, bytes, false);
}

/* ---- streams and events -------------------------------------------------------------------------------------- */

static quire_status sim_stream_open(quire__device *device, quire__stream **stream)
{
    sim_device *sim = (sim_device *)device;
    sim_stream *made = calloc(1, sizeof *made);
    if (made == NULL)
        return quire__fail(QUIRE_ENOMEM, "no memory for a stream");
    made->next = sim->streams;
    sim->streams = made;
    sim->stream_count++;
    *stream = (quire__stream *)made;
    return QUIRE_OK;
}

static void sim_stream_close(quire__device *device, quire__stream *stream)
{
    sim_device *sim = (sim_device *)device;
    sim_stream *closed = (sim_stream *)stream, **link = &sim->streams;
    sim_drain(sim, closed);
    while (*link != closed)
        link = &(*link)->next;
    *link = closed->next;
    sim->stream_count--;
    free(closed);
}

static quire_status sim_stream_synchronize(quire__device *device, quire__stream *stream)
{
    sim_device *sim = (sim_device *)device;
    sim_drain(sim, (sim_stream *)stream);
    return sim_health(sim);
}

static quire_status sim_stream_wait(quire__device *device, quire__stream *stream, quire__event *event)
{
    sim_device *sim = (sim_device *)device;
    sim_point *point = ((sim_event *)event)->point;
    sim_operation *operation;
    QUIRE__TRY(sim_health(sim));
    if (point == NULL)
        return QUIRE_OK;
    operation = operation_make(SIM_WAIT, 0);
    if (operation == NULL)
        return QUIRE_ENOMEM;
    operation->point = point;
    point->holders++;
    sim_enqueue(sim, (sim_stream *)stream, operation);
    return QUIRE_OK;
}

static quire_status sim_event_open(quire__device *device, quire__event **event)
{
    sim_event *made = calloc(1, sizeof *made);
    (void)device;
    if (made == NULL)
        return quire__fail(QUIRE_ENOMEM, "no memory for an event");
    *event = &made->base;
    return QUIRE_OK;
}

static void sim_event_close(quire__device *device, quire__event *event)
{
    (void)device;
    point_drop(((sim_event *)event)->point);
    free(event);
}

static quire_status sim_event_record(quire__device *device, quire__event *event, quire__stream *stream)
{
    sim_device *sim = (sim_device *)device;
    sim_event *recorded = (sim_event *)event;
    sim_operation *operation;
    sim_point *point;
    QUIRE__TRY(sim_health(sim));
    point = calloc(1, sizeof *point);
    operation = operation_make(SIM_RECORD, 0);
    if (point == NULL || operation == NULL) {
        free(point);
        free(operation);
        return quire__fail(QUIRE_ENOMEM, "no memory for a record");
    }
    *point = (sim_point){.stream = (sim_stream *)stream, .holders = 2, .patience = sim_pick(sim, QUERIES_MOST)};
    operation->point = point;
    point_drop(recorded->point);
    recorded->point = point;
    sim_enqueue(sim, (sim_stream *)stream, operation);
    return QUIRE_OK;
}

static quire_status sim_event_query(quire__device *device, quire__event *event, bool *done)
{
    sim_device *sim = (sim_device *)device;
    sim_point *point = ((sim_event *)event)->point;
    sim_tick(sim);
    if (point != NULL && sim->link_bytes_per_s == 0 && point->queries++ >= point->patience)
        while (!point->done)
            sim_push(sim, point->stream);
    QUIRE__TRY(sim_health(sim));
    *done = point == NULL || point->done;
    return QUIRE_OK;
}

/* ---- work ---------------------------------------------------------------------------------------------------- */

static bool overlap(const void *a, size_t a_bytes, const void *b, size_t b_bytes)
{
    return (uintptr_t)a < (uintptr_t)b + b_bytes && (uintptr_t)b < (uintptr_t)a + a_bytes;
}

/* The contract of a batch: all in the device's memory, and no copy depends on another. */
static quire_status copies_check(const sim_device *sim, const quire__copy *copies, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const quire__copy *a = &copies[i];
        if (quire__sim_reach(sim->memory, a->destination) < a->bytes ||
            quire__sim_reach(sim->memory, a->source) < a->bytes)
            return quire__fail(QUIRE_EINVAL, "copy %zu of %zu: both ends must be memory of device %s", i, count,
                               sim->base.name);
        for (size_t j = 0; j < count && count <= OVERLAP_CHECKED; j++)
            if (overlap(a->destination, a->bytes, copies[j].source, copies[j].bytes) ||
                (i != j && overlap(a->destination, a->bytes, copies[j].destination, copies[j].bytes)))
                return quire__fail(QUIRE_EINVAL, "copies %zu and %zu of one batch overlap", i, j);
    }
    return QUIRE_OK;
}

/* Cuts a copy in up to PIECES_MOST, and gives how many. */
static size_t copy_tear(sim_device *sim, const quire__copy *copy, quire__copy *pieces)
{
    size_t made = 0, from = 0, cuts = sim_chance(sim, sim->mood.torn) ? sim_pick(sim, PIECES_MOST) : 0;
    for (; cuts > 0 && copy->bytes - from > 1; cuts--) {
        size_t bytes = 1 + (size_t)(quire__random(&sim->random) % (copy->bytes - from - 1));
        pieces[made++] = (quire__copy){(char *)copy->destination + from, (const char *)copy->source + from, bytes};
        from += bytes;
    }
    pieces[made++] = (quire__copy){(char *)copy->destination + from, (const char *)copy->source + from,
                                   copy->bytes - from};
    return made;
}

/* Bytes between device memory and the host's, at the link's speed. */
static uint64_t copy_time(const sim_device *sim, const quire__copy *copies, size_t count)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < count && sim->link_bytes_per_s > 0; i++)
        if (quire__sim_is_pinned(sim->memory, copies[i].destination) !=
            quire__sim_is_pinned(sim->memory, copies[i].source))
            bytes += copies[i].bytes;
    return bytes == 0 ? 0 : bytes * 1000000 / sim->link_bytes_per_s + 1;
}

static quire_status sim_copy(quire__device *device, quire__stream *stream, const quire__copy *copies, size_t count)
{
    sim_device *sim = (sim_device *)device;
    sim_operation *operation;
    QUIRE__TRY(sim_health(sim));
    QUIRE__TRY(copies_check(sim, copies, count));
    operation = operation_make(SIM_COPY, count * PIECES_MOST);
    if (operation == NULL)
        return QUIRE_ENOMEM;
    operation->takes_us = copy_time(sim, copies, count);
    if (operation->takes_us > 0 && sim->link_shared)
        operation->turn = sim->link_enqueued++;
    for (size_t i = 0; i < count; i++)
        operation->pieces += copy_tear(sim, &copies[i], &operation->piece[operation->pieces]);
    for (size_t i = operation->pieces; i > 1; i--) {
        size_t at = (size_t)(quire__random(&sim->random) % i);
        quire__copy other = operation->piece[at];
        operation->piece[at] = operation->piece[i - 1];
        operation->piece[i - 1] = other;
    }
    sim_enqueue(sim, (sim_stream *)stream, operation);
    return QUIRE_OK;
}

static quire_status sim_launch(quire__device *device, quire__stream *stream, quire__kernel kernel,
                               const quire__kernel_args *args)
{
    sim_device *sim = (sim_device *)device;
    sim_operation *operation;
    QUIRE__TRY(sim_health(sim));
    if (kernel == QUIRE__KERNEL_ATTEND_DECODE || kernel == QUIRE__KERNEL_ATTEND_PREFILL ||
        kernel == QUIRE__KERNEL_LATENT_ATTEND)
        QUIRE__TRY(quire__host_attend_check(&args->attend));
    if (kernel == QUIRE__KERNEL_ATTEND_SHARED)
        QUIRE__TRY(quire__host_attend_check(&args->shared.attend));
    if (kernel == QUIRE__KERNEL_APPEND || kernel == QUIRE__KERNEL_LATENT_APPEND)
        QUIRE__TRY(quire__host_append_check(&args->append));
    operation = operation_make(SIM_LAUNCH, 0);
    if (operation == NULL)
        return QUIRE_ENOMEM;
    operation->kernel = kernel;
    operation->args = *args;
    sim_enqueue(sim, (sim_stream *)stream, operation);
    return QUIRE_OK;
}

/* ---- the table ----------------------------------------------------------------------------------------------- */

static void sim_close(quire__device *device)
{
    sim_device *sim = (sim_device *)device;
    quire__host_attend_close(sim->attend);
    quire__parallel_close(sim->parallel);
    free(sim);
}

static const quire__device_ops sim_ops = {
    .name = "sim",
    .size = sizeof(quire__device_ops),
    .capabilities = QUIRE__DEVICE_CPU_VISIBLE | QUIRE__DEVICE_SERIAL,
    .granule = GRANULE,
    .close = sim_close,
    .memory_limit = sim_memory_limit,
    .alloc = sim_alloc,
    .free = sim_free,
    .reserve = sim_reserve,
    .release = sim_release,
    .map = sim_map,
    .unmap = sim_unmap,
    .pool_open = sim_pool_open,
    .pool_close = sim_pool_close,
    .pool_pin = sim_pool_pin,
    .pool_unpin = sim_pool_unpin,
    .stream_open = sim_stream_open,
    .stream_close = sim_stream_close,
    .stream_synchronize = sim_stream_synchronize,
    .stream_wait = sim_stream_wait,
    .event_open = sim_event_open,
    .event_close = sim_event_close,
    .event_record = sim_event_record,
    .event_query = sim_event_query,
    .copy = sim_copy,
    .launch = sim_launch,
};

void quire__device_sim_set_link(quire__device *device, uint64_t bytes_per_s)
{
    QUIRE__ASSERT(device->ops == &sim_ops);
    ((sim_device *)device)->link_bytes_per_s = bytes_per_s;
}

void quire__device_sim_share_link(quire__device *device)
{
    sim_device *sim = (sim_device *)device;
    QUIRE__ASSERT(device->ops == &sim_ops);
    sim_drain_all(sim);
    sim->link_shared = true;
}

quire_status quire__device_sim_open(quire__device **device, const quire__device_config *config)
{
    quire_status status;
    sim_device *made = calloc(1, sizeof *made);
    if (made == NULL)
        return quire__fail(QUIRE_ENOMEM, "no memory for the sim device");
    made->base.ops = &sim_ops;
    sim_character(made, config->seed);
    status = quire__parallel_open(&made->parallel, config->threads, config->parallel, config->parallel_user);
    if (status == QUIRE_OK)
        status = quire__host_attend_open(&made->attend, made->parallel);
    if (status != QUIRE_OK) {
        sim_close(&made->base);
        return status;
    }
    *device = &made->base;
    return QUIRE_OK;
}
