#include "runs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/config.h"
#include "bounds.h"
#include "drive.h"
#include "engine.h"
#include "floor.h"
#include "infer/json_write.h"
#include "progress.h"

typedef struct runs {
    const replay_job *job;
    json_writer json;
    uint64_t infinite; /* blocks found by an infinite cache */
} runs;

static double percent(uint64_t part, uint64_t whole)
{
    return whole > 0 ? 100.0 * (double)part / (double)whole : 0;
}

/* Blocks of prompts as a share of all that prompts asked for. */
static double block_percent(const runs *runs, uint64_t blocks)
{
    return percent(blocks * runs->job->block_tokens, runs->job->paths.input_units);
}

static const char *unit(const runs *runs)
{
    return runs->job->options->pieces ? "pieces" : "tokens";
}

/* ---- the trace ----------------------------------------------------------------------------------------- */

static void show_trace(runs *runs)
{
    const replay_job *job = runs->job;
    const replay_trace *trace = &job->trace;
    if (job->options->json) {
        json_begin(&runs->json, "trace", '{');
        json_string(&runs->json, "format", trace->format);
        json_count(&runs->json, "requests", trace->request_count);
        json_count(&runs->json, "lines_skipped", job->read.skipped);
        json_count(&runs->json, "input_tokens", trace->input_tokens);
        json_count(&runs->json, "output_tokens", trace->output_tokens);
        json_count(&runs->json, "longest_tokens", trace->longest);
        json_count(&runs->json, "piece_tokens", trace->piece_tokens);
        json_count(&runs->json, "different_pieces", trace->units);
        json_count(&runs->json, "block_tokens", job->block_tokens);
        json_count(&runs->json, "block_bytes", job->block_bytes);
        json_count(&runs->json, "distinct_blocks", job->paths.distinct_blocks);
        json_real(&runs->json, "infinite_hit_percent", block_percent(runs, runs->infinite));
        json_real(&runs->json, "read_seconds", job->read_seconds);
        json_end(&runs->json, '}');
        return;
    }
    printf("%s: %s, %zu requests, %.1f M prompt tokens, %.1f M generated, the longest %u; %.2f s to read\n",
           job->options->path, trace->format, trace->request_count, (double)trace->input_tokens / 1e6,
           (double)trace->output_tokens / 1e6, trace->longest, job->read_seconds);
    printf("blocks of %u %s, %" PRIu64 " KiB each; different blocks in prompts: %" PRIu64 " (%.1f GiB)\n",
           job->block_tokens, unit(runs), job->block_bytes >> 10, job->paths.distinct_blocks,
           replay_job_gib(job, job->paths.distinct_blocks));
    printf("an infinite cache would find %.2f%% of the prompts' %s\n\n", block_percent(runs, runs->infinite),
           unit(runs));
    printf("%-22s %12s %12s %8s %8s %8s %10s %10s %10s %10s %10s\n", "policy", "device GiB", "host GiB",
           "hit %", "device %", "host %", "saved Mtok", "evictions", "moved GiB", "us/request", "Mblocks/s");
}

/* ---- a line -------------------------------------------------------------------------------------------- */

static void show_bound(runs *runs, const char *name, const replay_geometry *geometry, uint64_t found)
{
    const replay_job *job = runs->job;
    if (job->options->json) {
        json_begin(&runs->json, NULL, '{');
        json_string(&runs->json, "policy", name);
        json_count(&runs->json, "device_blocks", geometry->device_blocks);
        json_count(&runs->json, "host_blocks", geometry->host_blocks);
        json_real(&runs->json, "hit_percent", block_percent(runs, found));
        json_end(&runs->json, '}');
        return;
    }
    printf("%-22s %12.1f %12.1f %8.2f\n", name, replay_job_gib(job, geometry->device_blocks),
           replay_job_gib(job, geometry->host_blocks), block_percent(runs, found));
}

static void write_outcome(json_writer *json, const replay_job *job, const replay_outcome *o)
{
    json_real(json, "hit_percent", percent(o->hit_device + o->hit_host, o->input_tokens));
    json_real(json, "hit_device_percent", percent(o->hit_device, o->input_tokens));
    json_real(json, "hit_host_percent", percent(o->hit_host, o->input_tokens));
    json_count(json, "requests", o->requests);
    json_count(json, "refused", o->refused);
    json_count(json, "input_tokens", o->input_tokens);
    json_count(json, "saved_tokens", o->hit_device + o->hit_host);
    json_count(json, "computed_tokens", o->computed);
    json_count(json, "blocks", o->blocks);
    json_count(json, "evictions_device", o->evictions_device);
    json_count(json, "evictions_host", o->evictions_host);
    json_count(json, "offloads_missed", o->offloads_missed);
    json_count(json, "offloads_declined", o->offloads_declined);
    json_count(json, "offload_bytes", o->offloads * job->block_bytes);
    json_count(json, "restore_bytes", o->restores * job->block_bytes);
    json_real(json, "book_seconds", o->book_seconds);
    json_real(json, "whole_seconds", o->whole_seconds);
    json_real(json, "book_ns_per_request", o->book_seconds * 1e9 / (double)o->requests);
    json_real(json, "book_blocks_per_second", (double)o->blocks / o->book_seconds);
    json_real(json, "whole_blocks_per_second", (double)o->blocks / o->whole_seconds);
}

static void write_times(json_writer *json, const replay_outcome *o)
{
    json_real(json, "virtual_seconds", o->virtual_seconds);
    json_real(json, "ttft_mean_seconds", o->ttft_mean);
    json_real(json, "ttft_p50_seconds", o->ttft_p50);
    json_real(json, "ttft_p95_seconds", o->ttft_p95);
    json_real(json, "ttft_p99_seconds", o->ttft_p99);
    json_count(json, "preemptions", o->preemptions);
    json_count(json, "most_running", o->most_running);
    json_count(json, "most_waiting", o->most_waiting);
}

static void write_floor(json_writer *json, const replay_floor *floor, const replay_outcome *outcome)
{
    json_begin(json, "floor", '{');
    json_count(json, "compared_bytes", floor->compared);
    json_count(json, "copied_bytes", floor->copied);
    json_real(json, "seconds", floor->seconds);
    json_real(json, "book_times_floor", outcome->book_seconds / floor->seconds);
    json_end(json, '}');
}

static const char *offload_name(const replay_setup *setup)
{
    return setup->geometry.host_blocks > 0 ? quire__variable_find("QUIRE_OFFLOAD")->choices[setup->offload] : "none";
}

/* "lru", or with a host tier and another than the usual way to it "lru, write-back". */
static const char *line_name(const replay_setup *setup, char *name, size_t size)
{
    bool usual = setup->geometry.host_blocks == 0 || setup->offload == QUIRE_OFFLOAD_WRITE_THROUGH;
    snprintf(name, size, "%s%s%s", setup->policy, usual ? "" : ", ", usual ? "" : offload_name(setup));
    return name;
}

static void show_run(runs *runs, const replay_setup *setup, const replay_outcome *o,
                     const replay_floor *floor)
{
    const replay_job *job = runs->job;
    const replay_geometry *geometry = &setup->geometry;
    char name[48];
    if (job->options->json) {
        json_begin(&runs->json, NULL, '{');
        json_string(&runs->json, "policy", setup->policy);
        json_string(&runs->json, "offload", offload_name(setup));
        json_count(&runs->json, "device_blocks", geometry->device_blocks);
        json_count(&runs->json, "host_blocks", geometry->host_blocks);
        write_outcome(&runs->json, job, o);
        if (job->options->timed)
            write_times(&runs->json, o);
        if (floor)
            write_floor(&runs->json, floor, o);
        json_end(&runs->json, '}');
        return;
    }
    printf("%-22s %12.1f %12.1f %8.2f %8.2f %8.2f %10.2f %10" PRIu64 " %10.1f %10.1f %10.1f\n", line_name(setup, name, sizeof name),
           replay_job_gib(job, geometry->device_blocks), replay_job_gib(job, geometry->host_blocks),
           percent(o->hit_device + o->hit_host, o->input_tokens), percent(o->hit_device, o->input_tokens),
           percent(o->hit_host, o->input_tokens), (double)(o->hit_device + o->hit_host) / 1e6,
           o->evictions_device + o->evictions_host, replay_job_gib(job, o->offloads + o->restores),
           o->book_seconds * 1e6 / (double)o->requests, (double)o->blocks / o->book_seconds / 1e6);
    if (o->refused > 0)
        printf("  %" PRIu64 " requests are longer than this device tier: computed beside the cache\n",
               o->refused);
    if (job->options->timed)
        printf("  in %.0f s: first token after %.2f s in the mean, p50 %.2f, p95 %.2f, p99 %.2f; at most %u "
               "running, %u waiting; "
               "%" PRIu64 " preempted\n",
               o->virtual_seconds, o->ttft_mean, o->ttft_p50, o->ttft_p95, o->ttft_p99, o->most_running,
               o->most_waiting, o->preemptions);
    if (!floor)
        return;
    double bytes = (double)(floor->compared + floor->copied);
    printf("  floor: %.2f GB of tokens compared and %.2f GB copied take %.3f s (%.1f GB/s, %.1f Mblocks/s); "
           "the book %.3f s, "
           "%.1f times that; the whole run %.3f s, %.1f Mblocks/s\n",
           (double)floor->compared / 1e9, (double)floor->copied / 1e9, floor->seconds,
           bytes / floor->seconds / 1e9, (double)o->blocks / floor->seconds / 1e6, o->book_seconds,
           o->book_seconds / floor->seconds, o->whole_seconds, (double)o->blocks / o->whole_seconds / 1e6);
}

/* ---- all of them --------------------------------------------------------------------------------------- */

static int measure_floor(const runs *runs, const replay_setup *setup, replay_floor *floor,
                         replay_error *error)
{
    uint64_t capacity = setup->geometry.device_blocks;
    uint32_t *found = calloc(runs->job->trace.request_count, sizeof *found);
    if (!found)
        return replay_fail(error, "no memory for the hits of %zu requests", runs->job->trace.request_count);
    int status = replay_lru_hits(&runs->job->paths, &capacity, 1, found, error);
    if (status == 0)
        status = replay_floor_run(&runs->job->trace, setup, found, floor, error);
    free(found);
    return status;
}

static int run_policy(runs *runs, const replay_geometry *geometry, const char *policy, quire_offload offload,
                      replay_error *error)
{
    const replay_options *options = runs->job->options;
    replay_progress progress;
    replay_outcome outcome;
    replay_floor floor;
    replay_setup setup = {.geometry = *geometry,
                          .policy = policy,
                          .offload = offload,
                          .pieces = options->pieces,
                          .output = options->output,
                          .hints = options->hints,
                          .progress = replay_progress_show,
                          .progress_user = &progress};
    replay_progress_begin(&progress, policy, options->quiet);
    int status = options->timed ? replay_engine(&runs->job->trace, &setup, &options->model, &outcome, error)
                                : replay_drive(&runs->job->trace, &setup, &outcome, error);
    if (status == 0 && options->floor && !options->pieces)
        status = measure_floor(runs, &setup, &floor, error);
    replay_progress_end(&progress);
    if (status == 0)
        show_run(runs, &setup, &outcome, options->floor && !options->pieces ? &floor : NULL);
    fflush(stdout);
    return status;
}

static int run_capacity(runs *runs, replay_size device, replay_size host, replay_error *error)
{
    const replay_job *job = runs->job;
    replay_geometry geometry = {.block_tokens = job->block_tokens, .block_bytes = job->block_bytes};
    uint64_t found = 0;
    if (replay_job_blocks(job, device, &geometry.device_blocks, error) ||
        replay_job_blocks(job, host, &geometry.host_blocks, error))
        return -1;
    if (geometry.device_blocks < 2)
        return replay_fail(error, "a device tier of %u blocks of %" PRIu64 " bytes; give two at least",
                           geometry.device_blocks, job->block_bytes);
    uint32_t offloads = geometry.host_blocks > 0 ? job->options->offload_count : 1;
    for (uint32_t i = 0; i < job->options->policy_count * offloads; i++) {
        if (run_policy(runs, &geometry, job->options->policies[i / offloads], job->options->offloads[i % offloads],
                       error))
            return -1;
    }
    uint64_t both = (uint64_t)geometry.device_blocks + geometry.host_blocks;
    if (replay_clairvoyant(&job->paths, both, false, &found, error))
        return -1;
    show_bound(runs, "clairvoyant", &geometry, found);
    if (replay_clairvoyant(&job->paths, both, true, &found, error))
        return -1;
    show_bound(runs, "clairvoyant, bypass", &geometry, found);
    return 0;
}

int replay_runs(const replay_job *job, replay_error *error)
{
    runs runs = {.job = job, .json = {.file = stdout}, .infinite = replay_infinite(&job->paths)};
    const replay_options *options = job->options;
    if (options->json)
        json_begin(&runs.json, NULL, '{');
    show_trace(&runs);
    if (options->json)
        json_begin(&runs.json, "runs", '[');
    int status = 0;
    for (uint32_t d = 0; status == 0 && d < options->device.count; d++) {
        for (uint32_t h = 0; status == 0 && h < options->host.count; h++)
            status = run_capacity(&runs, options->device.list[d], options->host.list[h], error);
    }
    if (options->json) {
        json_end(&runs.json, ']');
        json_end(&runs.json, '}');
        putchar('\n');
    }
    return status;
}
