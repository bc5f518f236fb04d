/* sim_backend.h: a forward pass on the sim device, so that the engine meets what only asynchronous devices do: restores
 * that are still under way, kernels and copies that run late. Activations are in the device's memory; every operation
 * first waits for the view's stream, then the host backend computes. */
#ifndef TEST_SIM_BACKEND_H
#define TEST_SIM_BACKEND_H

#include "backend.h"
#include "cache/cache.h"

typedef struct sim_backend {
    backend base;
    backend *host;       /* holds the weights */
    quire_cache *cache;  /* on a sim device; must outlive the activations */
    quire__stream *stream;
} sim_backend;

void sim_backend_init(sim_backend *sim, backend *host, quire_cache *cache);

#endif
