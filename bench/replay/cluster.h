/* cluster.h: several nodes behind a router, on the trace scaled up. */
#ifndef REPLAY_CLUSTER_H
#define REPLAY_CLUSTER_H

#include "job.h"

typedef enum replay_route {
    REPLAY_ROUTE_PREFIX,
    REPLAY_ROUTE_LOAD,
    REPLAY_ROUTE_ROUND_ROBIN,
    REPLAY_ROUTES
} replay_route;

extern const char *const replay_route_names[REPLAY_ROUTES];

typedef struct replay_cluster_result {
    uint64_t requests, refused, input_tokens, hit_device, hit_host;
    double work_spread; /* prefill seconds of the busiest node over the mean of all */
    double request_spread; /* and requests */
    double ttft_mean, ttft_p50, ttft_p95, ttft_p99;
    double router_seconds, book_seconds; /* of this program */
} replay_cluster_result;

/* `nodes` copies of the trace on as many nodes, each with a device tier of `device` and a host tier of `host`
 * blocks. */
int replay_cluster(const replay_job *job, uint32_t nodes, replay_route route, const char *policy,
                   uint32_t device, uint32_t host, replay_cluster_result *result, replay_error *error);
/* Every number of nodes and route of the options, as a table or as JSON. */
int replay_clusters(const replay_job *job, replay_error *error);

#endif
