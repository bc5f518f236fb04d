#include "curve.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bounds.h"
#include "drive.h"
#include "planner.h"
#include "progress.h"
#include "timing.h"

enum { PASSES = 20 }; /* capacities, where each takes a run */

/* ---- capacities ---------------------------------------------------------------------------------------- */

/* All blocks that the trace ever stores: those of prompts once, outputs. More than that changes nothing. */
static uint64_t everything(const replay_paths *paths)
{
    uint64_t blocks = 0;
    for (size_t i = 0; i < paths->trace->request_count; i++)
        blocks += replay_paths_length(paths, &paths->trace->requests[i]);
    return blocks - replay_infinite(paths);
}

static uint32_t longest_path(const replay_job *job)
{
    uint32_t most = 0;
    for (size_t i = 0; i < job->trace.request_count; i++) {
        const replay_request *request = &job->trace.requests[i];
        uint32_t tokens = request->input + (job->options->output ? request->output : 0);
        uint32_t blocks = job->options->pieces ? request->count : tokens / job->block_tokens + 2;
        most = blocks > most ? blocks : most;
    }
    return most;
}

static void place_points(replay_curve *curve, const replay_job *job, uint64_t least, int points)
{
    uint64_t most = everything(&job->paths) + 2, from = longest_path(job);
    from = least > from ? least : from;
    most = most > from ? most : from;
    double step = pow((double)most / (double)from, 1.0 / (points - 1));
    curve->points = 0;
    for (int i = 0; i < points; i++) {
        uint64_t blocks = i + 1 == points ? most : (uint64_t)((double)from * pow(step, i));
        if (curve->points == 0 || blocks > curve->capacities[curve->points - 1])
            curve->capacities[curve->points++] = blocks;
    }
}

/* ---- the two ways -------------------------------------------------------------------------------------- */

static int from_stack(replay_curve *curve, const replay_job *job, replay_error *error)
{
    if (replay_lru_hits(&job->paths, curve->capacities, curve->points, curve->request_hits, error))
        return -1;
    for (size_t r = 0; r < job->trace.request_count; r++) {
        for (size_t i = 0; i < curve->points; i++)
            curve->hits[i] += curve->request_hits[r * curve->points + i] *= job->block_tokens;
    }
    return 0;
}

/* Blocks up to 64 tokens long, with 64 of them in a prompt still. Longer ones distort policies that look at
 * where a request ends: measured, the learned policy's curve is 3 points off with blocks of 128. */
static uint32_t coarse_tokens(const replay_job *job)
{
    uint32_t tokens = job->block_tokens;
    uint64_t mean = job->trace.input_tokens / job->trace.request_count;
    while (tokens < 64 && 2 * tokens <= mean / 64 &&
           (job->trace.token_count > 0 || job->trace.piece_tokens % (2 * tokens) == 0))
        tokens *= 2;
    return tokens;
}

typedef struct noted {
    uint32_t *hits;
    size_t stride;
} noted;

static void note(void *user, uint32_t request, uint32_t hit)
{
    const noted *noted = user;
    noted->hits[request * noted->stride] = hit;
}

static int from_passes(replay_curve *curve, const replay_job *job, replay_error *error)
{
    replay_progress progress;
    uint32_t times = 1;
    curve->coarse = job->block_tokens;
    if (!job->options->pieces) {
        curve->coarse = coarse_tokens(job);
        times = curve->coarse / job->block_tokens;
    }
    replay_progress_begin(&progress, curve->policy, job->options->quiet);
    int status = 0;
    for (size_t i = 0; status == 0 && i < curve->points; i++) {
        noted noted = {curve->request_hits + i, curve->points};
        replay_outcome outcome;
        uint64_t blocks =
            (curve->capacities[i] + times - 1) / times + (times > 1 ? 2 : 0); /* the longest must fit */
        replay_setup setup = {.geometry = {curve->coarse, job->block_bytes * times, (uint32_t)blocks, 0},
                              .policy = curve->policy,
                              .pieces = job->options->pieces,
                              .output = job->options->output,
                              .hints = job->options->hints,
                              .note = note,
                              .note_user = &noted};
        status = replay_drive(&job->trace, &setup, &outcome, error);
        curve->hits[i] = outcome.hit_device;
        replay_progress_show(&progress, i + 1, curve->points);
    }
    replay_progress_end(&progress);
    return status;
}

int replay_curve_make(replay_curve *curve, const replay_job *job, const char *policy, uint64_t least,
                      replay_error *error)
{
    *curve = (replay_curve){.policy = policy};
    bool stack = strcmp(policy, "lru") == 0;
    place_points(curve, job, least, stack ? REPLAY_CURVE_POINTS : PASSES);
    curve->request_hits = calloc(job->trace.request_count, curve->points * sizeof(uint32_t));
    if (!curve->request_hits)
        return replay_fail(error, "no memory for the hits of %zu requests at %zu capacities",
                           job->trace.request_count, curve->points);
    double begin = bench_now();
    int status = stack ? from_stack(curve, job, error) : from_passes(curve, job, error);
    curve->seconds = bench_now() - begin;
    if (status)
        replay_curve_close(curve);
    return status;
}

void replay_curve_close(replay_curve *curve)
{
    free(curve->request_hits);
    curve->request_hits = NULL;
}

double replay_curve_at(const replay_curve *curve, double blocks)
{
    size_t i = 1;
    if (blocks <= (double)curve->capacities[0] || curve->points == 1)
        return (double)curve->hits[0];
    while (i + 1 < curve->points && (double)curve->capacities[i] < blocks)
        i++;
    double from = (double)curve->capacities[i - 1], to = (double)curve->capacities[i];
    double part = blocks < to ? (blocks - from) / (to - from) : 1;
    return (double)curve->hits[i - 1] + part * ((double)curve->hits[i] - (double)curve->hits[i - 1]);
}

/* ---- CSV and check ------------------------------------------------------------------------------------- */

typedef struct sheet {
    const replay_job *job;
    FILE *file; /* NULL: none */
} sheet;

static double percent(const sheet *sheet, double found)
{
    return 100 * found / (double)sheet->job->paths.input_units;
}

static void row(const sheet *sheet, const char *series, const char *method, uint64_t blocks, double found)
{
    if (sheet->file)
        fprintf(sheet->file, "%s,%s,%" PRIu64 ",%.4f,%.4f,%.4f\n", series, method, blocks,
                replay_job_gib(sheet->job, blocks),
                100 * (double)blocks / (double)sheet->job->paths.distinct_blocks, percent(sheet, found));
}

static void write_curve(const sheet *sheet, const replay_curve *curve)
{
    char method[48] = "stack distances";
    if (curve->coarse > 0)
        snprintf(method, sizeof method, "blocks of %" PRIu32, curve->coarse);
    for (size_t i = 0; i < curve->points; i++)
        row(sheet, curve->policy, method, curve->capacities[i], (double)curve->hits[i]);
}

static int write_bounds(const sheet *sheet, const replay_curve *curve, replay_error *error)
{
    for (size_t i = 0; i < curve->points; i++) {
        uint64_t found;
        if (replay_clairvoyant(&sheet->job->paths, curve->capacities[i], true, &found, error))
            return -1;
        row(sheet, "clairvoyant", "with bypass", curve->capacities[i],
            (double)found * sheet->job->block_tokens);
        row(sheet, "infinite", "", curve->capacities[i],
            (double)replay_infinite(&sheet->job->paths) * sheet->job->block_tokens);
    }
    return 0;
}

/* Exact runs at capacities spread over the curve, where each is still a step from the last. */
static int check(const sheet *sheet, const replay_curve *curve, uint32_t count, replay_error *error)
{
    const replay_job *job = sheet->job;
    double worst = 0;
    printf("%-10s %12s %12s %12s %8s\n", curve->policy, "GiB", "curve %", "exact %", "error");
    for (uint32_t k = 0; k < count; k++) {
        size_t i = count > 1 ? (size_t)k * (curve->points - 1) / (count - 1) : curve->points / 2;
        replay_progress progress;
        replay_outcome outcome;
        replay_setup setup = {
            .geometry = {job->block_tokens, job->block_bytes, (uint32_t)curve->capacities[i], 0},
            .policy = curve->policy,
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
        double exact = percent(sheet, (double)outcome.hit_device),
               drawn = percent(sheet, (double)curve->hits[i]);
        worst = fmax(worst, fabs(exact - drawn));
        row(sheet, curve->policy, "exact", curve->capacities[i], (double)outcome.hit_device);
        printf("%-10s %12.1f %12.2f %12.2f %8.2f\n", "", replay_job_gib(job, curve->capacities[i]), drawn,
               exact, drawn - exact);
        fflush(stdout);
    }
    printf("%s: at %" PRIu32 " capacities the curve is within %.2f points of exact runs; it took %.2f s\n\n",
           curve->policy, count, worst, curve->seconds);
    return 0;
}

static int one_policy(const sheet *sheet, const char *policy, bool first, replay_error *error)
{
    const replay_job *job = sheet->job;
    replay_curve curve;
    if (replay_curve_make(&curve, job, policy, 0, error))
        return -1;
    write_curve(sheet, &curve);
    int status = first ? write_bounds(sheet, &curve, error) : 0;
    if (status == 0 && job->options->check > 0)
        status = check(sheet, &curve, job->options->check, error);
    replay_curve_close(&curve);
    if (status == 0 && first && job->options->plan)
        status = replay_plan(job, policy, error);
    return status;
}

int replay_curves(const replay_job *job, replay_error *error)
{
    sheet sheet = {.job = job};
    const char *path = job->options->curve;
    if (path && !(sheet.file = fopen(path, "w")))
        return replay_fail(error, "cannot write %s: %s", path, strerror(errno));
    if (sheet.file)
        fputs("series,method,blocks,gib,percent_of_prompts,hit_percent\n", sheet.file);
    int status = 0;
    for (uint32_t i = 0; status == 0 && i < job->options->policy_count; i++)
        status = one_policy(&sheet, job->options->policies[i], i == 0, error);
    if (sheet.file && fclose(sheet.file) != 0 && status == 0)
        status = replay_fail(error, "cannot write %s: %s", path, strerror(errno));
    if (path && status == 0 && !job->options->quiet)
        printf("%s has the curves: bench/replay/plot %s OUT.svg draws them\n", path, path);
    return status;
}
