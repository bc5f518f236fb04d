/* planner.c: from a curve to what to buy.
 *
 * The host tier holds copies of what the device has, in the same order of use, so two tiers of D and H blocks
 * find what one of max(D, H) finds: of it the device has what one of D finds, and the rest is restored.
 * (Write-through; that this holds is checked by an exact run of the answer.)
 *
 * A request's time to its first token, without waiting for others:
 *
 *    tokens not found / prefill rate  +  bytes restored / restore rate
 *
 * Requests that run take room too. By Little's law they hold, on average,
 *
 *    sum over requests of (tokens held) * (time held)  /  duration of the trace
 *
 * and a device tier below twice that, or below the longest request, is not considered.
 */
#include "planner.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "bounds.h"
#include "curve.h"
#include "drive.h"
#include "progress.h"

enum { NEXT_GIB = 10 };

typedef struct planner {
    const replay_job *job;
    const replay_prices *prices;
    replay_curve curve;
    double infinite; /* tokens */
    uint64_t least; /* blocks of the device tier */
    double *times; /* [requests] */
} planner;

typedef struct offer {
    size_t device, host; /* points of the curve; host == device: no host tier */
    double cost, mean, at_percentile;
    bool valid;
} offer;

static double gib(const planner *planner, uint64_t blocks)
{
    return replay_job_gib(planner->job, blocks);
}

static uint64_t host_blocks(const planner *planner, const offer *offer)
{
    return offer->host > offer->device ? planner->curve.capacities[offer->host] : 0;
}

static double cost_of(const planner *planner, size_t device, size_t host)
{
    double cost = gib(planner, planner->curve.capacities[device]) * planner->prices->device;
    return host > device ? cost + gib(planner, planner->curve.capacities[host]) * planner->prices->host
                         : cost;
}

/* Blocks that running requests hold on average. */
static double held_on_average(const planner *planner)
{
    const replay_trace *trace = &planner->job->trace;
    const replay_engine_model *model = &planner->job->options->model;
    double sum = 0;
    for (size_t i = 0; i < trace->request_count; i++) {
        const replay_request *request = &trace->requests[i];
        sum += ((double)request->input + request->output) *
               (request->input / model->prefill_rate + request->output * model->decode_seconds);
    }
    double seconds =
        (double)(trace->requests[trace->request_count - 1].time_us - trace->requests[0].time_us) * 1e-6;
    return seconds > 0 ? sum / (seconds / model->speed) / planner->job->block_tokens : 0;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Mean and percentile of the time to the first token. */
static void time_requests(planner *planner, offer *offer)
{
    const replay_trace *trace = &planner->job->trace;
    const replay_options *options = planner->job->options;
    double restore = planner->job->token_bytes / options->model.restore_rate, sum = 0;
    for (size_t i = 0; i < trace->request_count; i++) {
        const uint32_t *hits = planner->curve.request_hits + i * planner->curve.points;
        uint32_t device = hits[offer->device], both = hits[offer->host] > device ? hits[offer->host] : device;
        double host = (both - device) * restore;
        planner->times[i] = (trace->requests[i].input - both) / options->model.prefill_rate + host;
        sum += planner->times[i];
    }
    qsort(planner->times, trace->request_count, sizeof(double), by_value);
    offer->mean = sum / (double)trace->request_count;
    size_t at = (size_t)((double)trace->request_count * planner->prices->percentile / 100);
    offer->at_percentile = planner->times[at < trace->request_count ? at : trace->request_count - 1];
}

/* The cheapest pair that finds `tokens`. */
static offer cheapest_for_hits(planner *planner, double tokens)
{
    offer best = {.valid = false};
    const replay_curve *curve = &planner->curve;
    for (size_t d = 0; d < curve->points; d++) {
        for (size_t h = d; h < curve->points; h++) {
            if ((double)curve->hits[h] < tokens)
                continue;
            double cost = cost_of(planner, d, h);
            if (!best.valid || cost < best.cost)
                best = (offer){.device = d, .host = h, .cost = cost, .valid = true};
            break;
        }
    }
    if (best.valid)
        time_requests(planner, &best);
    return best;
}

/* The cheapest pair whose percentile is within the wanted time. With more host it only gets better, so for
 * each device size the least host is found by halving. */
static offer cheapest_for_time(planner *planner)
{
    offer best = {.valid = false};
    for (size_t d = 0; d < planner->curve.points; d++) {
        size_t low = d, high = planner->curve.points;
        while (low < high) {
            offer middle = {.device = d, .host = (low + high) / 2, .valid = true};
            middle.cost = cost_of(planner, d, middle.host);
            if (best.valid && middle.cost >= best.cost) {
                high = middle.host; /* not cheaper, whatever its time */
                continue;
            }
            time_requests(planner, &middle);
            if (middle.at_percentile <= planner->prices->ttft) {
                best = middle;
                high = middle.host;
            } else {
                low = middle.host + 1;
            }
        }
    }
    return best;
}

/* ---- words --------------------------------------------------------------------------------------------- */

static void say_sizes(const planner *planner, const offer *offer)
{
    printf("%.1f GiB of device", gib(planner, planner->curve.capacities[offer->device]));
    if (host_blocks(planner, offer) > 0)
        printf(" and %.1f GiB of host", gib(planner, host_blocks(planner, offer)));
}

static double percent(const planner *planner, double tokens)
{
    return 100 * tokens / (double)planner->job->paths.input_units;
}

static void say_next(const planner *planner, const offer *offer)
{
    const replay_curve *curve = &planner->curve;
    double blocks = (double)curve->capacities[offer->host];
    double more = NEXT_GIB * (double)(1 << 30) / (double)planner->job->block_bytes;
    double gain = replay_curve_at(curve, blocks + more) - replay_curve_at(curve, blocks);
    double device = replay_curve_at(curve, (double)curve->capacities[offer->device] + more) -
                    (double)curve->hits[offer->device];
    printf("  The next %d GiB of %s bring %.3f points more of the prompts' tokens (%.2f%% of what is to be "
           "had).\n",
           NEXT_GIB, offer->host > offer->device ? "host" : "device", percent(planner, gain),
           planner->infinite > 0 ? 100 * gain / planner->infinite : 0);
    if (offer->host > offer->device)
        printf("  The next %d GiB of device save the restore of %.3f points.\n", NEXT_GIB,
               percent(planner, device));
}

static void say_times(const planner *planner, const offer *offer)
{
    printf("  First token without waiting: %.2f s in the mean, %.2f s for %g%% of the requests; without a "
           "cache ",
           offer->mean, offer->at_percentile, planner->prices->percentile);
    const replay_trace *trace = &planner->job->trace;
    printf("%.2f s in the mean.\n", (double)trace->input_tokens / (double)trace->request_count /
                                        planner->job->options->model.prefill_rate);
}

/* The deciding half at the offered sizes, both tiers as they are. */
static int say_exact(const planner *planner, const offer *offer, replay_error *error)
{
    const replay_job *job = planner->job;
    replay_progress progress;
    replay_outcome outcome;
    replay_setup setup = {.geometry = {job->block_tokens, job->block_bytes,
                                       (uint32_t)planner->curve.capacities[offer->device],
                                       (uint32_t)host_blocks(planner, offer)},
                          .policy = planner->curve.policy,
                          .offload = job->options->offloads[0],
                          .pieces = job->options->pieces,
                          .output = job->options->output,
                          .hints = job->options->hints,
                          .progress = replay_progress_show,
                          .progress_user = &progress};
    replay_progress_begin(&progress, "exact run", job->options->quiet);
    int status = replay_drive(&job->trace, &setup, &outcome, error);
    replay_progress_end(&progress);
    if (status)
        return -1;
    printf("  An exact run at these sizes: %.2f%% of the tokens found, %.2f%% on the device and %.2f%% on "
           "the host "
           "(the curve says %.2f%% and %.2f%%).\n",
           percent(planner, (double)(outcome.hit_device + outcome.hit_host)),
           percent(planner, (double)outcome.hit_device), percent(planner, (double)outcome.hit_host),
           percent(planner, (double)planner->curve.hits[offer->device]),
           percent(planner, (double)(planner->curve.hits[offer->host] - planner->curve.hits[offer->device])));
    return 0;
}

static int say_hits(planner *planner, replay_error *error)
{
    offer offer = cheapest_for_hits(planner, planner->prices->share * planner->infinite);
    if (!offer.valid) {
        printf("%s does not reach %.0f%% of what is to be had at any size.\n", planner->curve.policy,
               100 * planner->prices->share);
        return 0;
    }
    say_sizes(planner, &offer);
    printf(" reach %.0f%% of what is to be had: %.2f%% of the prompts' tokens are found. That costs %.0f.\n",
           100 * planner->prices->share, percent(planner, (double)planner->curve.hits[offer.host]),
           offer.cost);
    say_next(planner, &offer);
    say_times(planner, &offer);
    return say_exact(planner, &offer, error);
}

static void say_wanted_time(planner *planner)
{
    const replay_prices *prices = planner->prices;
    offer offer = cheapest_for_time(planner);
    if (!offer.valid) {
        struct offer all = {.device = planner->curve.points - 1, .host = planner->curve.points - 1};
        time_requests(planner, &all);
        printf("A first token within %g s for %g%% of the requests is not to be had by caching: with "
               "everything on the "
               "device it takes %.2f s. A higher prefill rate is needed.\n",
               prices->ttft, prices->percentile, all.at_percentile);
        return;
    }
    printf("The cheapest for a first token within %g s for %g%% of the requests: ", prices->ttft,
           prices->percentile);
    say_sizes(planner, &offer);
    printf(", at a cost of %.0f; %.2f%% of the tokens are found.\n", offer.cost,
           percent(planner, (double)planner->curve.hits[offer.host]));
    say_times(planner, &offer);
}

static void say_setting(const planner *planner, double held)
{
    const replay_options *options = planner->job->options;
    double token = planner->job->token_bytes;
    printf("Plan for %s. A token takes %.1f KiB; prefill %.0f tokens/s, restore %.1f GiB/s; a GiB costs %g "
           "on the device, "
           "%g on the host.\n",
           planner->curve.policy, token / 1024, options->model.prefill_rate,
           options->model.restore_rate / (1 << 30), planner->prices->device, planner->prices->host);
    printf("What is to be had: an infinite cache finds %.2f%% of the prompts' tokens. Requests that run hold "
           "%.1f GiB on "
           "average; device tiers from %.1f GiB on are considered.\n",
           percent(planner, planner->infinite), gib(planner, (uint64_t)held),
           gib(planner, planner->curve.capacities[0]));
    if (token / options->model.restore_rate >= 1 / options->model.prefill_rate)
        printf("A token takes %.1f us to restore and %.1f us to compute: at these rates a host tier does not "
               "pay.\n",
               1e6 * token / options->model.restore_rate, 1e6 / options->model.prefill_rate);
}

int replay_plan(const replay_job *job, const char *policy, replay_error *error)
{
    planner planner = {.job = job,
                       .prices = &job->options->prices,
                       .infinite = (double)replay_infinite(&job->paths) * job->block_tokens};
    double held = held_on_average(&planner);
    if (replay_curve_make(&planner.curve, job, policy, (uint64_t)(2 * held), error))
        return -1;
    planner.times = malloc(job->trace.request_count * sizeof *planner.times);
    int status = planner.times ? 0
                               : replay_fail(error, "no memory for the times of %zu requests",
                                             job->trace.request_count);
    if (status == 0) {
        say_setting(&planner, held);
        status = say_hits(&planner, error);
    }
    if (status == 0 && planner.prices->ttft > 0)
        say_wanted_time(&planner);
    free(planner.times);
    replay_curve_close(&planner.curve);
    return status;
}
