#include "recorded_run.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cputime.h"
#include "infer/json_write.h"

enum { MOVES = 1 << 16 };

typedef struct track {
    uint32_t seq; /* the book's */
    uint32_t length; /* ours: a match may have found more or less than the program's did */
    uint32_t *blocks; /* [room] */
    uint32_t room;
    bool reserved;
} track;

typedef struct rerun {
    const replay_recorded *recorded;
    replay_rerun *result;
    replay_node node;
    track *tracks;
    const replay_event **rows; /* of the step */
    uint32_t row_count;
    int32_t *tokens; /* of the longest sequence */
} rerun;

static int take_blocks(rerun *rerun, const replay_event *event, replay_error *error)
{
    track *track = &rerun->tracks[event->sequence];
    uint32_t end = event->first_block + event->block_count;
    if (end > track->room) {
        uint32_t room = end + end / 2 + 16, *blocks = realloc(track->blocks, room * sizeof *blocks);
        if (!blocks)
            return replay_fail(error, "no memory for a sequence of %u blocks", end);
        track->blocks = blocks;
        track->room = room;
    }
    if (event->block_count > 0)
        memcpy(track->blocks + event->first_block, rerun->recorded->blocks + event->blocks,
               event->block_count * sizeof *track->blocks);
    return 0;
}

static void expand(const rerun *rerun, const track *track, uint32_t first, uint32_t end)
{
    const uint32_t size = rerun->recorded->block_tokens;
    for (uint32_t at = first; at < end; at++)
        rerun->tokens[at - first] =
            replay_recorded_token(rerun->recorded, track->blocks[at / size], at % size);
}

static int match(rerun *rerun, const replay_event *event, replay_error *error)
{
    track *track = &rerun->tracks[event->sequence];
    replay_rerun *result = rerun->result;
    quire_hit hit;
    if (take_blocks(rerun, event, error))
        return -1;
    expand(rerun, track, 0, event->tokens);
    double begin = replay_cpu_now();
    if (quire__book_seq_match(rerun->node.book, track->seq, rerun->tokens, event->tokens, &rerun->node.plan,
                              &hit))
        return replay_fail(error, "%s", quire_error_text());
    replay_node_settle(&rerun->node);
    (void)quire__book_seq_ready(rerun->node.book, track->seq);
    result->book_seconds += replay_cpu_now() - begin;
    track->length = (uint32_t)hit.tokens;
    result->matches++;
    result->match_tokens += event->tokens;
    result->hit_device += hit.device;
    result->hit_host += hit.host;
    result->hit_partial += hit.partial;
    result->differing += hit.tokens != event->number;
    return 0;
}

/* All rows reserve, then all commit: as quire_step_add and quire_step_commit do. */
static int step(rerun *rerun, replay_error *error)
{
    double begin = replay_cpu_now();
    quire__book_step_begin(rerun->node.book, ++rerun->node.step);
    for (uint32_t i = 0; i < rerun->row_count; i++) {
        track *track = &rerun->tracks[rerun->rows[i]->sequence];
        uint32_t target = rerun->rows[i]->tokens, moving = 0;
        if (target <= track->length)
            continue;
        expand(rerun, track, track->length, target);
        quire_status status = quire__book_reserve(rerun->node.book, track->seq, rerun->tokens,
                                                  target - track->length, &rerun->node.plan, &moving);
        if (status != QUIRE_OK && status != QUIRE_EFULL && status != QUIRE_ERANGE)
            return replay_fail(error, "%s", quire_error_text());
        track->reserved = status == QUIRE_OK;
        rerun->result->left_out += status != QUIRE_OK;
    }
    for (uint32_t i = 0; i < rerun->row_count; i++) {
        track *track = &rerun->tracks[rerun->rows[i]->sequence];
        if (!track->reserved)
            continue;
        quire__book_commit(rerun->node.book, track->seq, &rerun->node.plan);
        track->length = rerun->rows[i]->tokens;
        track->reserved = false;
    }
    quire__book_step_end(rerun->node.book);
    replay_node_settle(&rerun->node);
    replay_node_offload(&rerun->node, false);
    replay_node_settle(&rerun->node);
    rerun->row_count = 0;
    rerun->result->book_seconds += replay_cpu_now() - begin;
    return 0;
}

static int fork_sequence(rerun *rerun, const replay_event *event, replay_error *error)
{
    const track *from = &rerun->tracks[event->sequence];
    track *to = &rerun->tracks[event->number];
    if (quire__book_seq_fork(rerun->node.book, from->seq, &to->seq))
        return replay_fail(error, "%s", quire_error_text());
    to->length = from->length;
    if (from->room > to->room) {
        uint32_t *blocks = realloc(to->blocks, from->room * sizeof *blocks);
        if (!blocks)
            return replay_fail(error, "no memory for a sequence of %u blocks", from->room);
        to->blocks = blocks;
        to->room = from->room;
    }
    if (from->room > 0)
        memcpy(to->blocks, from->blocks, from->room * sizeof *to->blocks);
    return 0;
}

static int truncate_to(rerun *rerun, const replay_event *event, replay_error *error)
{
    track *track = &rerun->tracks[event->sequence];
    if (event->tokens >= track->length)
        return 0;
    track->length = event->tokens;
    if (quire__book_seq_truncate(rerun->node.book, track->seq, event->tokens))
        return replay_fail(error, "%s", quire_error_text());
    return 0;
}

static int take(rerun *rerun, const replay_event *event, replay_error *error)
{
    track *track = &rerun->tracks[event->sequence];
    quire__book_set_time(rerun->node.book, event->time_us);
    switch (event->type) {
    case REPLAY_OPEN:
        track->length = 0;
        return quire__book_seq_open(rerun->node.book, event->number, &track->seq)
                   ? replay_fail(error, "%s", quire_error_text())
                   : 0;
    case REPLAY_MATCH: return match(rerun, event, error);
    case REPLAY_ROW:
        if (rerun->row_count == rerun->recorded->max_sequences)
            return replay_fail(error, "a step with more rows than sequences");
        rerun->rows[rerun->row_count++] = event;
        return take_blocks(rerun, event, error);
    case REPLAY_STEP_END: return step(rerun, error);
    case REPLAY_FORK: return fork_sequence(rerun, event, error);
    case REPLAY_TRUNCATE: return truncate_to(rerun, event, error);
    case REPLAY_CLOSE: quire__book_seq_close(rerun->node.book, track->seq); return 0;
    case REPLAY_CLEAR: quire__book_clear(rerun->node.book); return 0;
    }
    return 0;
}

static uint32_t longest_sequence(const replay_recorded *recorded)
{
    uint32_t longest = recorded->max_seq_tokens;
    uint64_t most = 1;
    for (size_t i = 0; i < recorded->event_count; i++) {
        const replay_event *event = &recorded->events[i];
        if ((event->type == REPLAY_MATCH || event->type == REPLAY_ROW) && event->tokens > most)
            most = event->tokens;
    }
    return most < longest ? (uint32_t)most : longest;
}

static void count(rerun *rerun)
{
    quire_stats stats = {.size = sizeof stats};
    quire__book_stats(rerun->node.book, &stats);
    rerun->result->evictions_device = stats.evictions_device;
    rerun->result->evictions_host = stats.evictions_host;
    rerun->result->offloads = rerun->node.offloads;
    rerun->result->restores = rerun->node.restores;
}

int replay_recorded_rerun(const replay_recorded *recorded, const char *policy, uint32_t device_blocks,
                          uint32_t host_blocks, replay_rerun *result, replay_error *error)
{
    rerun rerun = {.recorded = recorded, .result = result};
    uint32_t longest = longest_sequence(recorded);
    replay_node_config config = {.geometry = {recorded->block_tokens, recorded->block_bytes, device_blocks,
                                              recorded->offload ? host_blocks : 0},
                                 .policy = policy,
                                 .offload = recorded->offload,
                                 .max_sequences = recorded->max_sequences,
                                 .longest = longest,
                                 .max_domains = recorded->max_domains,
                                 .watermark = recorded->watermark,
                                 .plan = MOVES + 2 * (longest / recorded->block_tokens)};
    *result = (replay_rerun){0};
    rerun.tracks = calloc(recorded->max_sequences, sizeof *rerun.tracks);
    rerun.rows = calloc(recorded->max_sequences, sizeof *rerun.rows);
    rerun.tokens = malloc(((size_t)longest + 1) * sizeof *rerun.tokens);
    int status = rerun.tracks && rerun.rows && rerun.tokens
                     ? replay_node_open(&rerun.node, &config, error)
                     : replay_fail(error, "no memory to replay a recording");
    for (size_t i = 0; status == 0 && i < recorded->event_count; i++)
        status = take(&rerun, &recorded->events[i], error);
    if (status == 0)
        count(&rerun);
    if (rerun.node.book)
        replay_node_close(&rerun.node);
    for (uint32_t i = 0; rerun.tracks && i < recorded->max_sequences; i++)
        free(rerun.tracks[i].blocks);
    free(rerun.tracks);
    free(rerun.rows);
    free(rerun.tokens);
    return status;
}

/* ---- the table ----------------------------------------------------------------------------------------- */

static void write_run(json_writer *json, const char *name, uint32_t device, uint32_t host,
                      const replay_rerun *run)
{
    json_begin(json, NULL, '{');
    json_string(json, "policy", name);
    json_count(json, "device_blocks", device);
    json_count(json, "host_blocks", host);
    json_count(json, "matches", run->matches);
    json_count(json, "match_tokens", run->match_tokens);
    json_count(json, "hit_tokens_device", run->hit_device);
    json_count(json, "hit_tokens_host", run->hit_host);
    json_count(json, "hit_tokens_partial", run->hit_partial);
    json_count(json, "differing_matches", run->differing);
    json_count(json, "rows_without_room", run->left_out);
    json_count(json, "evictions_device", run->evictions_device);
    json_count(json, "evictions_host", run->evictions_host);
    json_count(json, "offloads", run->offloads);
    json_count(json, "restores", run->restores);
    json_end(json, '}');
}

static void show_run(const replay_job *job, const char *name, uint32_t device, uint32_t host,
                     const replay_rerun *run)
{
    printf("%-22s %10.2f %10.2f %10" PRIu64 " %12" PRIu64 " %12" PRIu64 " %12" PRIu64 " %10" PRIu64
           " %10" PRIu64 " %10" PRIu64 "\n",
           name, (double)device * (double)job->trace.recorded->block_bytes / (1 << 30),
           (double)host * (double)job->trace.recorded->block_bytes / (1 << 30), run->matches, run->hit_device,
           run->hit_host, run->hit_partial, run->differing, run->left_out, run->evictions_device);
}

static int run_all(const replay_job *job, json_writer *json, replay_error *error)
{
    const replay_options *options = job->options;
    const replay_recorded *recorded = job->trace.recorded;
    uint32_t devices = options->device_given ? options->device.count : 1,
             hosts = options->host_given ? options->host.count : 1;
    uint32_t policies = options->policy_given ? options->policy_count : 1;
    for (uint32_t i = 0; i < devices * hosts * policies; i++) {
        uint32_t device = recorded->device_blocks, host = recorded->host_blocks, at = i / policies;
        const char *policy = options->policy_given ? options->policies[i % policies] : recorded->policy;
        replay_rerun run;
        if ((options->device_given &&
             replay_job_blocks(job, options->device.list[at / hosts], &device, error)) ||
            (options->host_given && replay_job_blocks(job, options->host.list[at % hosts], &host, error)) ||
            replay_recorded_rerun(recorded, policy, device, host, &run, error))
            return -1;
        if (options->json)
            write_run(json, policy, device, host, &run);
        else
            show_run(job, policy, device, host, &run);
    }
    return 0;
}

int replay_recorded_runs(const replay_job *job, replay_error *error)
{
    const replay_recorded *recorded = job->trace.recorded;
    json_writer json = {.file = stdout};
    if (!recorded)
        return replay_fail(error, "--as-recorded is for recordings of Quire's own; %s is %s",
                           job->options->path, job->trace.format);
    replay_rerun was = {.matches = recorded->matches,
                        .match_tokens = recorded->match_tokens,
                        .hit_device = recorded->hit_device,
                        .hit_host = recorded->hit_host,
                        .hit_partial = recorded->hit_partial};
    if (job->options->json) {
        json_begin(&json, NULL, '[');
        write_run(&json, "recorded", recorded->device_blocks, recorded->host_blocks, &was);
    } else {
        printf("%-22s %10s %10s %10s %12s %12s %12s %10s %10s %10s\n", "policy", "device GiB", "host GiB",
               "matches", "device tok", "host tok", "partial tok", "differing", "no room", "evictions");
        show_run(job, "as it was", recorded->device_blocks, recorded->host_blocks, &was);
    }
    int status = run_all(job, &json, error);
    if (job->options->json) {
        json_end(&json, ']');
        putchar('\n');
    }
    return status;
}
