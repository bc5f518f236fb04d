/* device_base.h: what every device starts with. For the files of src/device only. */
#ifndef QUIRE_DEVICE_BASE_H
#define QUIRE_DEVICE_BASE_H

#include <pthread.h>

#include "device/device.h"

/* First member of every device. The wrappers own all of it but `ops`, which the implementation sets. */
struct quire__device {
    const quire__device_ops *ops;
    char name[32];
    uint64_t fail_copy;            /* copy batches until one fails; 0: none will */
    bool fault_pending;            /* a batch has failed and no event has been recorded behind it */
    quire__stream *fault_stream;   /* where */
    pthread_mutex_t serial;        /* of a QUIRE__DEVICE_SERIAL: taken around each slot's work */
};

/* First member of every event; opened zeroed, then the wrappers' own. */
struct quire__event {
    bool failed; /* the next query that finds it done says QUIRE_EDEVICE, once */
};

#endif
