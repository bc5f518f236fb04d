/* cluster.c: N nodes, each the real deciding half, and N copies of the trace.
 *
 *    copies --sorted by time--> router --> node 0 .. N - 1: match, compute, close
 *                                 ^                |
 *                                 +---- events ----+
 *
 * A copy has the trace's sessions under a domain of its own, so copies share nothing; copy c comes c / N of
 * ten minutes later. A node prefills one request after another: it is free again after the tokens that were
 * not found, at the prefill rate, and the bytes restored, at the restore rate. What it has before it is its
 * load, and a request's time to the first token is the load it meets and its own part.
 *
 *    prefix        the node where the first token would come soonest, by load and by what events say that it
 *    has load          the node with the least load
 *    round-robin   the next node
 */
#include "cluster.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cputime.h"
#include "drive.h"
#include "expand.h"
#include "infer/json_write.h"
#include "progress.h"
#include "router.h"

enum { SPREAD_SECONDS = 600, PROGRESS_EVERY = 64 };

const char *const replay_route_names[REPLAY_ROUTES] = {"prefix", "load", "round-robin"};

typedef struct arrival {
    double time;
    uint32_t request, copy;
} arrival;

typedef struct member {
    replay_node cache;
    double free_at, work;
    uint64_t requests;
} member;

typedef struct cluster {
    const replay_job *job;
    uint32_t count;
    replay_route route;
    member members[REPLAY_MOST_NODES];
    replay_router router;
    arrival *arrivals;
    size_t arrival_count;
    double *times; /* to the first token */
    int32_t *tokens;
    uint32_t matched[REPLAY_MOST_NODES];
    uint32_t turn;
    replay_cluster_result *result;
} cluster;

static int by_time(const void *a, const void *b)
{
    const arrival *x = a, *y = b;
    if (x->time != y->time)
        return x->time < y->time ? -1 : 1;
    if (x->request != y->request)
        return x->request < y->request ? -1 : 1;
    return x->copy < y->copy ? -1 : x->copy > y->copy;
}

static void make_arrivals(cluster *cluster)
{
    const replay_trace *trace = &cluster->job->trace;
    double speed = cluster->job->options->model.speed;
    int64_t first = trace->requests[0].time_us;
    for (uint32_t copy = 0; copy < cluster->count; copy++) {
        double shift = (double)copy / cluster->count * SPREAD_SECONDS;
        for (size_t i = 0; i < trace->request_count; i++)
            cluster->arrivals[cluster->arrival_count++] = (arrival){
                ((double)(trace->requests[i].time_us - first) * 1e-6 + shift) / speed, (uint32_t)i, copy};
    }
    qsort(cluster->arrivals, cluster->arrival_count, sizeof(arrival), by_time);
}

static double load(const member *member, double now)
{
    return member->free_at > now ? member->free_at - now : 0;
}

static uint32_t least(const cluster *cluster, const double *costs)
{
    uint32_t best = cluster->turn; /* of equals not always the same */
    for (uint32_t k = 1; k < cluster->count; k++) {
        uint32_t n = (cluster->turn + k) % cluster->count;
        if (costs[n] < costs[best])
            best = n;
    }
    return best;
}

static uint32_t choose(cluster *cluster, const arrival *arrival, uint64_t domain, uint32_t input)
{
    double costs[REPLAY_MOST_NODES], rate = cluster->job->options->model.prefill_rate;
    cluster->turn = (cluster->turn + 1) % cluster->count;
    if (cluster->route == REPLAY_ROUTE_ROUND_ROBIN)
        return cluster->turn;
    if (cluster->route == REPLAY_ROUTE_PREFIX)
        replay_router_look(&cluster->router, domain, cluster->tokens, input, cluster->matched);
    for (uint32_t n = 0; n < cluster->count; n++) {
        costs[n] = load(&cluster->members[n], arrival->time);
        if (cluster->route == REPLAY_ROUTE_PREFIX)
            costs[n] += (input - cluster->matched[n]) / rate;
    }
    return least(cluster, costs);
}

static int serve(cluster *cluster, size_t at, replay_error *error)
{
    const arrival *arrival = &cluster->arrivals[at];
    const replay_job *job = cluster->job;
    const replay_request *request = &job->trace.requests[arrival->request];
    const replay_engine_model *model = &job->options->model;
    uint32_t total = request->input + (job->options->output ? request->output : 0);
    uint64_t domain = request->domain * REPLAY_MOST_NODES + arrival->copy;
    replay_served served;

    replay_expand(&job->trace, arrival->request, 0, total, cluster->tokens);
    double begin = replay_cpu_now();
    uint32_t node = choose(cluster, arrival, domain, request->input);
    member *member = &cluster->members[node];
    double chosen = replay_cpu_now();
    quire__book_set_time(member->cache.book, (uint64_t)(arrival->time * 1e6));
    member->cache.generated = total > request->input ? 0 : request->output;
    if (replay_node_serve(&member->cache, domain, cluster->tokens, request->input, total, &served, error))
        return -1;
    double ended = replay_cpu_now();
    if (cluster->route == REPLAY_ROUTE_PREFIX &&
        replay_router_learn(&cluster->router, node, &member->cache, error))
        return -1;
    cluster->result->router_seconds += chosen - begin + replay_cpu_now() - ended;
    cluster->result->book_seconds += ended - chosen;

    double seconds = (request->input - (uint32_t)served.hit.tokens) / model->prefill_rate +
                     (double)served.hit.host * job->token_bytes / model->restore_rate;
    member->free_at = fmax(member->free_at, arrival->time) + seconds;
    member->work += seconds;
    member->requests++;
    cluster->times[at] = member->free_at - arrival->time;
    cluster->result->requests++;
    cluster->result->refused += served.refused;
    cluster->result->input_tokens += request->input;
    cluster->result->hit_device += served.hit.device;
    cluster->result->hit_host += served.hit.host;
    return 0;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void sum_up(cluster *cluster)
{
    replay_cluster_result *result = cluster->result;
    double work = 0, most_work = 0, most_requests = 0, sum = 0;
    for (uint32_t n = 0; n < cluster->count; n++) {
        work += cluster->members[n].work;
        most_work = fmax(most_work, cluster->members[n].work);
        most_requests = fmax(most_requests, (double)cluster->members[n].requests);
    }
    result->work_spread = work > 0 ? most_work * cluster->count / work : 1;
    result->request_spread = most_requests * cluster->count / (double)result->requests;
    for (size_t i = 0; i < cluster->arrival_count; i++)
        sum += cluster->times[i];
    qsort(cluster->times, cluster->arrival_count, sizeof(double), by_value);
    result->ttft_mean = sum / (double)cluster->arrival_count;
    result->ttft_p50 = cluster->times[cluster->arrival_count / 2];
    result->ttft_p95 = cluster->times[cluster->arrival_count * 95 / 100];
    result->ttft_p99 = cluster->times[cluster->arrival_count * 99 / 100];
}

static int open_members(cluster *cluster, const char *policy, uint32_t device, uint32_t host,
                        replay_error *error)
{
    const replay_trace *trace = &cluster->job->trace;
    size_t events = 4 * ((size_t)trace->longest / cluster->job->block_tokens + 2);
    bool learns = cluster->route == REPLAY_ROUTE_PREFIX;
    replay_node_config config = {
        .geometry = {cluster->job->block_tokens, cluster->job->block_bytes, device, host},
        .policy = policy,
        .offload = cluster->job->options->offloads[0],
        .max_sequences = 1,
        .longest = trace->longest + 1,
        .max_domains = replay_domains(trace) > 1 ? 1 << 20 : REPLAY_MOST_NODES + 1,
        .events = learns ? (uint32_t)events : 0};
    for (uint32_t n = 0; n < cluster->count; n++) {
        if (replay_node_open(&cluster->members[n].cache, &config, error))
            return -1;
    }
    return learns ? replay_router_open(&cluster->router, cluster->count, cluster->job->block_tokens, events,
                                       error)
                  : 0;
}

static int serve_all(cluster *cluster, replay_error *error)
{
    replay_progress progress;
    char what[48];
    int status = 0;
    snprintf(what, sizeof what, "%" PRIu32 " nodes, %s", cluster->count, replay_route_names[cluster->route]);
    replay_progress_begin(&progress, what, cluster->job->options->quiet);
    for (size_t i = 0; status == 0 && i < cluster->arrival_count; i++) {
        status = serve(cluster, i, error);
        if (i % PROGRESS_EVERY == 0)
            replay_progress_show(&progress, i, cluster->arrival_count);
    }
    replay_progress_end(&progress);
    return status;
}

int replay_cluster(const replay_job *job, uint32_t nodes, replay_route route, const char *policy,
                   uint32_t device, uint32_t host, replay_cluster_result *result, replay_error *error)
{
    size_t arrivals = (size_t)nodes * job->trace.request_count;
    cluster *cluster = calloc(1, sizeof *cluster);
    int status = 0;
    *result = (replay_cluster_result){0};
    if (!cluster)
        return replay_fail(error, "no memory for a cluster of %u nodes", nodes);
    cluster->job = job;
    cluster->count = nodes;
    cluster->route = route;
    cluster->result = result;
    cluster->arrivals = malloc(arrivals * sizeof *cluster->arrivals);
    cluster->times = malloc(arrivals * sizeof *cluster->times);
    cluster->tokens = malloc(((size_t)job->trace.longest + 1) * sizeof *cluster->tokens);
    if (!cluster->arrivals || !cluster->times || !cluster->tokens)
        status = replay_fail(error, "no memory for %zu requests", arrivals);
    if (status == 0)
        status = open_members(cluster, policy, device, host, error);
    if (status == 0) {
        make_arrivals(cluster);
        status = serve_all(cluster, error);
    }
    if (status == 0)
        sum_up(cluster);
    for (uint32_t n = 0; n < nodes; n++) {
        if (cluster->members[n].cache.book)
            replay_node_close(&cluster->members[n].cache);
    }
    replay_router_close(&cluster->router);
    free(cluster->tokens);
    free(cluster->times);
    free(cluster->arrivals);
    free(cluster);
    return status;
}

/* ---- the table ----------------------------------------------------------------------------------------- */

static double percent(uint64_t part, uint64_t whole)
{
    return whole > 0 ? 100.0 * (double)part / (double)whole : 0;
}

static void show(const replay_job *job, json_writer *json, uint32_t nodes, replay_route route,
                 const replay_cluster_result *r)
{
    double hit = percent(r->hit_device + r->hit_host, r->input_tokens);
    double router_us = 1e6 * r->router_seconds / (double)r->requests;
    if (!job->options->json) {
        printf("%-6" PRIu32 " %-12s %8.2f %8.2f %8.2f %12.3f %12.3f %10.2f %10.2f %10.2f %10.2f\n", nodes,
               replay_route_names[route], hit, percent(r->hit_device, r->input_tokens),
               percent(r->hit_host, r->input_tokens), r->work_spread, r->request_spread, r->ttft_mean,
               r->ttft_p50, r->ttft_p95, router_us);
        if (r->refused > 0)
            printf("  %" PRIu64 " requests are longer than a node's device tier\n", r->refused);
        fflush(stdout);
        return;
    }
    json_begin(json, NULL, '{');
    json_count(json, "nodes", nodes);
    json_string(json, "route", replay_route_names[route]);
    json_count(json, "requests", r->requests);
    json_count(json, "refused", r->refused);
    json_real(json, "hit_percent", hit);
    json_real(json, "hit_device_percent", percent(r->hit_device, r->input_tokens));
    json_real(json, "hit_host_percent", percent(r->hit_host, r->input_tokens));
    json_real(json, "work_most_over_mean", r->work_spread);
    json_real(json, "requests_most_over_mean", r->request_spread);
    json_real(json, "ttft_mean_seconds", r->ttft_mean);
    json_real(json, "ttft_p50_seconds", r->ttft_p50);
    json_real(json, "ttft_p95_seconds", r->ttft_p95);
    json_real(json, "ttft_p99_seconds", r->ttft_p99);
    json_real(json, "router_us_per_request", router_us);
    json_real(json, "book_us_per_request", 1e6 * r->book_seconds / (double)r->requests);
    json_end(json, '}');
}

int replay_clusters(const replay_job *job, replay_error *error)
{
    const replay_options *options = job->options;
    json_writer json = {.file = stdout};
    uint32_t device, host;
    if (options->pieces)
        return replay_fail(error, "--nodes does not go with --pieces");
    if (replay_job_blocks(job, options->device.list[0], &device, error) ||
        replay_job_blocks(job, options->host.list[0], &host, error))
        return -1;
    if (options->json)
        json_begin(&json, NULL, '[');
    else
        printf("Each node has %.1f GiB of device and %.1f GiB of host, policy %s; a copy of the trace for "
               "each.\n"
               "%-6s %-12s %8s %8s %8s %12s %12s %10s %10s %10s %10s\n",
               replay_job_gib(job, device), replay_job_gib(job, host), options->policies[0], "nodes", "route",
               "hit %", "device %", "host %", "most work", "most reqs", "ttft mean", "p50 s", "p95 s",
               "router us");
    int status = 0;
    for (uint32_t i = 0; status == 0 && i < options->node_count; i++) {
        for (uint32_t route = 0; status == 0 && route < REPLAY_ROUTES; route++) {
            replay_cluster_result result;
            if (options->nodes[i] == 1 && route > 0)
                continue; /* one node is one way */
            status = replay_cluster(job, options->nodes[i], (replay_route)route, options->policies[0], device,
                                    host, &result, error);
            if (status == 0)
                show(job, &json, options->nodes[i], (replay_route)route, &result);
        }
    }
    if (options->json) {
        json_end(&json, ']');
        putchar('\n');
    }
    return status;
}
