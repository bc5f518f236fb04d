/* transport_nccl.c: a stream of bytes over NCCL, between two GPUs or from one GPU to itself.
 *
 *   sender     data -> pinned slot -> device slot -> ncclSend     a ring of slots: sends run behind the call that made them
 *   receiver   ncclRecv -> device slot -> pinned slot -> data     what a call does not take waits for the next
 *
 * NCCL has messages whose sizes both sides must know, and no stream. So a piece of the stream is a head of HEAD_BYTES, which
 * says how many bytes follow and carries them if they are few, and one message more if they are many.
 *
 * Each direction has a communicator and a stream of its own: operations of one communicator run in the order in which they
 * were enqueued, and two sides that both send first would otherwise wait for each other. To itself a GPU sends and receives
 * in one group, so the sends stay in their slots until somebody receives.
 *
 * NCCL's operations have no deadline. Communicators are non-blocking, so that its calls return; completion is polled, with
 * ncclCommGetAsyncError for the other side's death; and where time is up the communicators are aborted, which ends the
 * kernels that wait. After that the link is gone.
 *
 * The library is loaded at run time (libnccl.so.2): Quire runs where there is none. */
#define _GNU_SOURCE 1
#include "quire/quire_peer.h"

#include "base/status.h"

#ifdef QUIRE_HAVE_NCCL
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <nccl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

enum {
    SLOTS = 4,
    HEAD_BYTES = 256,
    INLINE_BYTES = HEAD_BYTES - 8,
    PIECE_BYTES = 1024 * 1024,
    SLOT_BYTES = HEAD_BYTES + PIECE_BYTES,
    PAUSE_US = 5,
    FLUSH_US = 2 * 1000 * 1000 /* that a close waits for sends */
};

_Static_assert(2 * sizeof(ncclUniqueId) == QUIRE_NCCL_ID_BYTES, "an id is that of each direction");

/* ---- the library --------------------------------------------------------------------------------------------- */

#define NCCL_FUNCTIONS(F)                                                                                             \
    F(ncclGetUniqueId) F(ncclCommInitRankConfig) F(ncclCommGetAsyncError) F(ncclCommAbort) F(ncclSend) F(ncclRecv)    \
    F(ncclGroupStart) F(ncclGroupEnd) F(ncclGetErrorString) F(ncclGetVersion)

#define DECLARE(name) __typeof__(name) *name;
static struct {
    NCCL_FUNCTIONS(DECLARE)
    int version;
    char fault[256]; /* empty: loaded */
} nccl;

static void load(void)
{
    void *library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL), *symbol;

    if (library == NULL) {
        const char *why = dlerror();
        strncpy(nccl.fault, why != NULL ? why : "dlopen failed", sizeof nccl.fault - 1);
        return;
    }
#define FIND(name)                                                             \
    symbol = dlsym(library, #name);                                            \
    if (symbol == NULL)                                                        \
        strncpy(nccl.fault, "libnccl.so.2 lacks " #name, sizeof nccl.fault - 1); \
    memcpy(&nccl.name, &symbol, sizeof symbol);
    NCCL_FUNCTIONS(FIND)
    if (nccl.fault[0] == '\0' && (nccl.ncclGetVersion(&nccl.version) != ncclSuccess || nccl.version < 21400))
        strncpy(nccl.fault, "libnccl.so.2 is older than 2.14", sizeof nccl.fault - 1);
}

static quire_status loaded(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, load);
    return nccl.fault[0] == '\0' ? QUIRE_OK : quire__fail(QUIRE_EUNSUPPORTED, "NCCL cannot be used: %s", nccl.fault);
}

/* ---- a link -------------------------------------------------------------------------------------------------- */

typedef struct slot {
    unsigned char *pinned, *device; /* SLOT_BYTES */
    cudaEvent_t event;              /* behind the last that used it */
} slot;

typedef struct way { /* a direction */
    ncclComm_t comm;
    cudaStream_t stream;
    slot slots[SLOTS];
    uint64_t next;
} way;

typedef struct nccl_link {
    int device;
    bool self;       /* one side: all of it goes through out.comm, and in.comm is NULL */
    int other;       /* the other side's rank in both communicators */
    way out, in;
    uint64_t taken;  /* self: slots of `out` that were received */
    const unsigned char *left; /* received and not yet asked for */
    size_t left_bytes;
    bool gone;       /* the communicators were aborted */
    atomic_bool interrupted;
} nccl_link;

static void abort_both(nccl_link *link)
{
    link->gone = true;
    if (link->out.comm != NULL)
        (void)nccl.ncclCommAbort(link->out.comm);
    if (link->in.comm != NULL)
        (void)nccl.ncclCommAbort(link->in.comm);
    link->out.comm = link->in.comm = NULL;
}

static quire_status cuda_says(nccl_link *link, cudaError_t error, const char *doing)
{
    if (error == cudaSuccess)
        return QUIRE_OK;
    abort_both(link);
    return quire__fail(QUIRE_EPEER, "%s: %s", doing, cudaGetErrorString(error));
}

/* Neither time nor the other side have run out. */
static quire_status go_on(nccl_link *link, uint64_t deadline_us, const char *doing)
{
    if (atomic_load(&link->interrupted)) {
        abort_both(link);
        return quire__fail(QUIRE_EPEER, "the link was interrupted");
    }
    if (quire__clock_us() >= deadline_us) {
        abort_both(link);
        return quire__fail(QUIRE_ETIMEOUT, "%s the other side over NCCL did not end in time; the link is gone", doing);
    }
    quire__clock_sleep_us(PAUSE_US);
    return QUIRE_OK;
}

/* A call on the communicator has returned `result`; if it goes on behind, until that has ended. */
static quire_status settle(nccl_link *link, ncclComm_t comm, ncclResult_t result, uint64_t deadline_us,
                           const char *doing)
{
    while (result == ncclInProgress) {
        if (nccl.ncclCommGetAsyncError(comm, &result) != ncclSuccess)
            result = ncclInternalError;
        if (result == ncclInProgress)
            QUIRE__TRY(go_on(link, deadline_us, doing));
    }
    if (result == ncclSuccess)
        return QUIRE_OK;
    const char *why = nccl.ncclGetErrorString(result);
    abort_both(link);
    return quire__fail(QUIRE_EPEER, "%s the other side over NCCL: %s", doing, why);
}

/* The slot's last use has ended. */
static quire_status await_slot(nccl_link *link, const way *w, const slot *s, uint64_t deadline_us, const char *doing)
{
    for (;;) {
        cudaError_t error = cudaEventQuery(s->event);
        ncclResult_t other = ncclSuccess;
        if (error == cudaSuccess)
            return QUIRE_OK;
        if (error != cudaErrorNotReady)
            return cuda_says(link, error, doing);
        if (w->comm != NULL && nccl.ncclCommGetAsyncError(w->comm, &other) == ncclSuccess && other != ncclSuccess &&
            other != ncclInProgress)
            return settle(link, w->comm, other, deadline_us, doing);
        QUIRE__TRY(go_on(link, deadline_us, doing));
    }
}

static uint64_t deadline_of(uint64_t timeout_us)
{
    uint64_t now = quire__clock_us();
    return timeout_us < UINT64_MAX - now ? now + timeout_us : UINT64_MAX;
}

static quire_status enter(const nccl_link *link, int *before)
{
    if (link->gone)
        return quire__fail(QUIRE_EPEER, "the NCCL link has failed before");
    if (cudaGetDevice(before) != cudaSuccess || cudaSetDevice(link->device) != cudaSuccess)
        return quire__fail(QUIRE_EDEVICE, "GPU %d cannot be made the current one", link->device);
    return QUIRE_OK;
}

/* ---- sending ------------------------------------------------------------------------------------------------- */

static quire_status send_message(nccl_link *link, const unsigned char *from, size_t bytes, uint64_t deadline_us)
{
    way *w = &link->out;
    return settle(link, w->comm, nccl.ncclSend(from, bytes, ncclInt8, link->other, w->comm, w->stream), deadline_us,
                  "sending to");
}

static quire_status send_piece(nccl_link *link, const unsigned char *data, size_t bytes, uint64_t deadline_us)
{
    way *w = &link->out;
    slot *s = &w->slots[w->next % SLOTS];
    uint64_t head = bytes;
    size_t whole = bytes <= INLINE_BYTES ? HEAD_BYTES : HEAD_BYTES + bytes;

    if (link->self && w->next - link->taken == SLOTS)
        return quire__fail(QUIRE_ETIMEOUT, "%d pieces were sent to this GPU itself and not received; receive first", SLOTS);
    QUIRE__TRY(await_slot(link, w, s, deadline_us, "sending to"));
    memcpy(s->pinned, &head, sizeof head);
    memcpy(s->pinned + (bytes <= INLINE_BYTES ? sizeof head : HEAD_BYTES), data, bytes);
    QUIRE__TRY(cuda_says(link, cudaMemcpyAsync(s->device, s->pinned, whole, cudaMemcpyHostToDevice, w->stream), "sending"));
    if (!link->self)
        QUIRE__TRY(send_message(link, s->device, HEAD_BYTES, deadline_us));
    if (!link->self && whole > HEAD_BYTES)
        QUIRE__TRY(send_message(link, s->device + HEAD_BYTES, bytes, deadline_us));
    w->next++;
    return cuda_says(link, cudaEventRecord(s->event, w->stream), "sending");
}

static quire_status link_send(void *user, const void *data, size_t bytes, uint64_t timeout_us)
{
    nccl_link *link = user;
    uint64_t deadline_us = deadline_of(timeout_us);
    quire_status status = QUIRE_OK;
    int before;

    QUIRE__TRY(enter(link, &before));
    for (const unsigned char *at = data; bytes > 0 && status == QUIRE_OK;) {
        size_t some = bytes < PIECE_BYTES ? bytes : PIECE_BYTES;
        status = send_piece(link, at, some, deadline_us);
        at += some;
        bytes -= some;
    }
    (void)cudaSetDevice(before);
    return status;
}

/* ---- receiving ----------------------------------------------------------------------------------------------- */

/* A message of so many bytes to the slot's `at`, on the device and then in pinned memory. From itself: the same place of the
 * slot that was sent. */
static quire_status receive_message(nccl_link *link, slot *to, size_t at, size_t bytes, uint64_t deadline_us)
{
    way *w = link->self ? &link->out : &link->in;
    ncclResult_t result, end;

    if (link->self) {
        const slot *from = &w->slots[link->taken % SLOTS];
        result = nccl.ncclGroupStart();
        if (result == ncclSuccess)
            result = nccl.ncclSend(from->device + at, bytes, ncclInt8, link->other, w->comm, w->stream);
        if (result == ncclSuccess || result == ncclInProgress)
            result = nccl.ncclRecv(to->device + at, bytes, ncclInt8, link->other, w->comm, w->stream);
        end = nccl.ncclGroupEnd();
        result = result == ncclSuccess || result == ncclInProgress ? end : result;
    } else {
        result = nccl.ncclRecv(to->device + at, bytes, ncclInt8, link->other, w->comm, w->stream);
    }
    QUIRE__TRY(settle(link, w->comm, result, deadline_us, "receiving from"));
    QUIRE__TRY(cuda_says(link, cudaMemcpyAsync(to->pinned + at, to->device + at, bytes, cudaMemcpyDeviceToHost, w->stream),
                         "receiving"));
    QUIRE__TRY(cuda_says(link, cudaEventRecord(to->event, w->stream), "receiving"));
    return await_slot(link, w, to, deadline_us, "receiving from");
}

/* The next piece, into link->left. */
static quire_status receive_piece(nccl_link *link, uint64_t deadline_us)
{
    slot *s = &link->in.slots[0];
    uint64_t bytes = 0;

    if (link->self && link->taken == link->out.next) {
        while (true) /* nobody else can send */
            QUIRE__TRY(go_on(link, deadline_us, "receiving from"));
    }
    QUIRE__TRY(receive_message(link, s, 0, HEAD_BYTES, deadline_us));
    memcpy(&bytes, s->pinned, sizeof bytes);
    if (bytes == 0 || bytes > PIECE_BYTES) {
        abort_both(link);
        return quire__fail(QUIRE_EPEER, "the other side does not keep to the protocol: the head of a piece was to come");
    }
    if (bytes > INLINE_BYTES)
        QUIRE__TRY(receive_message(link, s, HEAD_BYTES, (size_t)bytes, deadline_us));
    link->left = s->pinned + (bytes <= INLINE_BYTES ? sizeof bytes : HEAD_BYTES);
    link->left_bytes = (size_t)bytes;
    link->taken++;
    return QUIRE_OK;
}

static quire_status link_receive(void *user, void *data, size_t bytes, uint64_t timeout_us)
{
    nccl_link *link = user;
    uint64_t deadline_us = deadline_of(timeout_us);
    quire_status status = QUIRE_OK;
    int before;

    QUIRE__TRY(enter(link, &before));
    for (unsigned char *to = data; bytes > 0 && status == QUIRE_OK;) {
        if (link->left_bytes == 0)
            status = receive_piece(link, deadline_us);
        size_t some = bytes < link->left_bytes ? bytes : link->left_bytes;
        if (status == QUIRE_OK)
            memcpy(to, link->left, some);
        link->left += some;
        link->left_bytes -= some;
        to += some;
        bytes -= some;
    }
    (void)cudaSetDevice(before);
    return status;
}

/* ---- opening and closing ------------------------------------------------------------------------------------- */

static void link_interrupt(void *user)
{
    nccl_link *link = user;
    atomic_store(&link->interrupted, true);
}

static void way_close(way *w)
{
    if (w->stream != NULL)
        (void)cudaStreamSynchronize(w->stream); /* what NCCL had there has ended or was aborted */
    for (int i = 0; i < SLOTS; i++) {
        if (w->slots[i].event != NULL)
            (void)cudaEventDestroy(w->slots[i].event);
        (void)cudaFreeHost(w->slots[i].pinned);
        (void)cudaFree(w->slots[i].device);
    }
    if (w->stream != NULL)
        (void)cudaStreamDestroy(w->stream);
}

static void link_close(void *user)
{
    nccl_link *link = user;
    uint64_t deadline_us = deadline_of(FLUSH_US);
    int before = 0;
    bool entered = cudaGetDevice(&before) == cudaSuccess;

    (void)cudaSetDevice(link->device);
    for (int i = 0; i < SLOTS && !link->gone && !link->self; i++)
        if (link->out.slots[i].event != NULL) /* what was sent last is to arrive */
            (void)await_slot(link, &link->out, &link->out.slots[i], deadline_us, "sending to");
    abort_both(link);
    way_close(&link->out);
    way_close(&link->in);
    if (entered)
        (void)cudaSetDevice(before);
    free(link);
}

static quire_status way_open(nccl_link *link, way *w, int slots)
{
    cudaError_t error = cudaStreamCreateWithFlags(&w->stream, cudaStreamNonBlocking);

    for (int i = 0; i < slots && error == cudaSuccess; i++) {
        error = cudaMallocHost((void **)&w->slots[i].pinned, SLOT_BYTES);
        if (error == cudaSuccess)
            error = cudaMalloc((void **)&w->slots[i].device, SLOT_BYTES);
        if (error == cudaSuccess)
            error = cudaEventCreateWithFlags(&w->slots[i].event, cudaEventDisableTiming);
    }
    return cuda_says(link, error, "staging memory for an NCCL link");
}

static quire_status way_join(nccl_link *link, way *w, const unsigned char *id, int side, int sides, uint64_t deadline_us)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclUniqueId unique;

    config.blocking = 0;
    memcpy(&unique, id, sizeof unique);
    ncclResult_t result = nccl.ncclCommInitRankConfig(&w->comm, sides, unique, side, &config);
    return settle(link, w->comm, result, deadline_us, "meeting");
}

static quire_status link_open(nccl_link *link, const unsigned char *id, int side, int sides, uint64_t timeout_us)
{
    way *first = side == 0 ? &link->out : &link->in, *second = side == 0 ? &link->in : &link->out;
    uint64_t deadline_us = deadline_of(timeout_us);

    QUIRE__TRY(way_open(link, &link->out, SLOTS));
    QUIRE__TRY(way_open(link, &link->in, 1));
    QUIRE__TRY(way_join(link, first, id, side, sides, deadline_us));
    return link->self ? QUIRE_OK : way_join(link, second, id + sizeof(ncclUniqueId), side, sides, deadline_us);
}

quire_status quire_transport_nccl_id(unsigned char id[QUIRE_NCCL_ID_BYTES])
{
    if (id == NULL)
        return quire__fail(QUIRE_EINVAL, "id must not be NULL");
    QUIRE__TRY(loaded());
    for (int i = 0; i < 2; i++) {
        ncclUniqueId unique;
        ncclResult_t result = nccl.ncclGetUniqueId(&unique);
        if (result != ncclSuccess)
            return quire__fail(QUIRE_EDEVICE, "NCCL gives no id: %s", nccl.ncclGetErrorString(result));
        memcpy(id + (size_t)i * sizeof unique, &unique, sizeof unique);
    }
    return QUIRE_OK;
}

quire_status quire_transport_nccl(quire_transport *transport, const unsigned char id[QUIRE_NCCL_ID_BYTES], int device,
                                  int side, int sides, uint64_t timeout_us)
{
    int devices = 0, before;

    if (transport == NULL || id == NULL)
        return quire__fail(QUIRE_EINVAL, "transport and id must not be NULL");
    if (sides < 1 || sides > 2 || side < 0 || side >= sides)
        return quire__fail(QUIRE_EINVAL, "side is %d of %d; it must be 0 or 1 of 2, or 0 of 1: a GPU and itself", side,
                           sides);
    QUIRE__TRY(loaded());
    if (cudaGetDeviceCount(&devices) != cudaSuccess || device < 0 || device >= devices)
        return quire__fail(QUIRE_EUNSUPPORTED, "there is no GPU %d; this machine has %d", device, devices);
    nccl_link *link = calloc(1, sizeof *link);
    if (link == NULL)
        return quire__fail(QUIRE_ENOMEM, "no memory for a transport");
    *link = (nccl_link){.device = device, .self = sides == 1, .other = sides - 1 - side};
    quire_status status = enter(link, &before);
    if (status == QUIRE_OK) {
        status = link_open(link, id, side, sides, timeout_us);
        (void)cudaSetDevice(before);
    }
    if (status != QUIRE_OK) {
        link_close(link);
        return status;
    }
    *transport = (quire_transport){sizeof *transport, link, link_send, link_receive, link_interrupt, link_close};
    return QUIRE_OK;
}

#else

static quire_status absent(void)
{
    return quire__fail(QUIRE_EUNSUPPORTED, "this build has no NCCL: it was configured without CUDA, without nccl.h, or with "
                       "QUIRE_NCCL=OFF");
}

quire_status quire_transport_nccl_id(unsigned char id[QUIRE_NCCL_ID_BYTES])
{
    (void)id;
    return absent();
}

quire_status quire_transport_nccl(quire_transport *transport, const unsigned char id[QUIRE_NCCL_ID_BYTES], int device,
                                  int side, int sides, uint64_t timeout_us)
{
    (void)transport, (void)id, (void)device, (void)side, (void)sides, (void)timeout_us;
    return absent();
}
#endif
