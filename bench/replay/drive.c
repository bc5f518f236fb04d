#include "drive.h"

#include <stdlib.h>

#include "cputime.h"
#include "expand.h"

enum { PROGRESS_EVERY = 64 };

typedef struct drive {
    const replay_trace *trace;
    const replay_setup *setup;
    replay_node node;
    int32_t *tokens; /* of one request */
    replay_outcome *outcome;
} drive;

static int serve(drive *drive, uint32_t index, replay_error *error)
{
    const replay_request *request = &drive->trace->requests[index];
    replay_outcome *outcome = drive->outcome;
    uint32_t input = request->input, total = input + (drive->setup->output ? request->output : 0);
    replay_served served;
    if (drive->setup->pieces) {
        /* The last token is there to be left to compute. What does not fit is left out, as simulators do. */
        input = replay_expand_pieces(drive->trace, index, drive->tokens);
        input = replay_smaller(input, drive->setup->geometry.device_blocks);
        total = replay_smaller(request->count, input);
    } else {
        replay_expand(drive->trace, index, 0, total, drive->tokens);
    }
    double begin = replay_cpu_now();
    drive->node.hints = replay_hints(drive->setup, request);
    drive->node.generated = total > input ? 0 : request->output; /* what is served is counted by the cache */
    quire__book_set_time(drive->node.book, (uint64_t)request->time_us);
    int status =
        replay_node_serve(&drive->node, request->domain, drive->tokens, input, total, &served, error);
    outcome->book_seconds += replay_cpu_now() - begin;

    outcome->requests++;
    outcome->refused += served.refused;
    outcome->input_tokens += drive->setup->pieces ? request->count : input;
    outcome->hit_device += served.hit.device;
    outcome->hit_host += served.hit.host;
    outcome->computed += served.computed;
    outcome->blocks += total / drive->setup->geometry.block_tokens;
    if (drive->setup->note)
        drive->setup->note(drive->setup->note_user, index, (uint32_t)served.hit.tokens);
    outcome->found_blocks += served.hit.tokens / drive->setup->geometry.block_tokens;
    return status;
}

static int serve_all(drive *drive, replay_error *error)
{
    const replay_setup *setup = drive->setup;
    int status = 0;
    double begin = replay_cpu_now();
    for (size_t i = 0; status == 0 && i < drive->trace->request_count; i++) {
        status = serve(drive, (uint32_t)i, error);
        if (setup->progress && i % PROGRESS_EVERY == 0)
            setup->progress(setup->progress_user, i, drive->trace->request_count);
    }
    drive->outcome->whole_seconds = replay_cpu_now() - begin;
    return status;
}

uint32_t replay_hints(const replay_setup *setup, const replay_request *request)
{
    return setup->hints && (request->flags & REPLAY_TURN_ENDED) ? QUIRE_HINT_TURN_ENDED : 0;
}

void replay_outcome_count(replay_outcome *outcome, const replay_node *node)
{
    quire_stats stats = {.size = sizeof stats};
    quire__book_stats(node->book, &stats);
    outcome->evictions_device += stats.evictions_device;
    outcome->evictions_host += stats.evictions_host;
    outcome->offloads_missed += stats.offloads_missed;
    outcome->offloads_declined += stats.offloads_declined;
    outcome->offloads += node->offloads;
    outcome->restores += node->restores;
}

uint32_t replay_domains(const replay_trace *trace)
{
    for (size_t i = 0; i < trace->request_count; i++) {
        if (trace->requests[i].domain != trace->requests[0].domain)
            return 1 << 16;
    }
    return 1;
}

int replay_drive(const replay_trace *trace, const replay_setup *setup, replay_outcome *outcome,
                 replay_error *error)
{
    drive drive = {.trace = trace, .setup = setup, .outcome = outcome};
    replay_node_config config = {.geometry = setup->geometry,
                                 .policy = setup->policy,
                                 .offload = setup->offload,
                                 .max_sequences = 1,
                                 .longest = trace->longest + 1,
                                 .max_domains = replay_domains(trace)};
    *outcome = (replay_outcome){0};
    drive.tokens = malloc(((size_t)trace->longest + 1) * sizeof *drive.tokens);
    if (!drive.tokens)
        return replay_fail(error, "no memory for a prompt of %u tokens", trace->longest);
    int status = replay_node_open(&drive.node, &config, error);
    if (status == 0)
        status = serve_all(&drive, error);
    if (status == 0)
        replay_outcome_count(outcome, &drive.node);
    replay_node_close(&drive.node);
    free(drive.tokens);
    return status;
}
