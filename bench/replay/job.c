#include "job.h"

#include <math.h>

#include "progress.h"
#include "recorded.h"
#include "timing.h"

static int read_trace(replay_job *job, replay_error *error)
{
    const replay_options *options = job->options;
    replay_progress progress;
    replay_read_options read = options->read;
    replay_progress_begin(&progress, "reading", options->quiet);
    read.progress = replay_progress_show;
    read.progress_user = &progress;
    double begin = bench_now();
    int status = replay_read(&job->trace, options->path, &read, &job->read, error);
    job->read_seconds = bench_now() - begin;
    replay_progress_end(&progress);
    return status;
}

/* A recording knows its model and its blocks; what the command line says comes first. */
static void size_blocks(replay_job *job)
{
    const replay_options *options = job->options;
    const replay_recorded *recorded = job->trace.recorded;
    job->block_tokens = recorded && !options->block_given ? recorded->block_tokens : options->block_tokens;
    job->token_bytes = recorded && !options->model_given
                           ? (double)recorded->block_bytes / recorded->block_tokens
                           : (double)replay_token_bytes(options);
    uint32_t tokens = options->pieces ? job->trace.piece_tokens : job->block_tokens;
    job->block_bytes = (uint64_t)(job->token_bytes * tokens);
    if (options->pieces)
        job->block_tokens = 1;
}

int replay_job_open(replay_job *job, const replay_options *options, replay_error *error)
{
    *job = (replay_job){.options = options};
    if (read_trace(job, error))
        return -1;
    int status = 0;
    if (job->trace.token_count > 0)
        status = options->pieces
                     ? replay_fail(error, "--pieces is for traces of pieces; %s has token ids", options->path)
                     : replay_trace_cut(&job->trace, options->block_tokens, error);
    size_blocks(job);
    if (status == 0)
        status = replay_paths_open(&job->paths, &job->trace, job->block_tokens, options->pieces,
                                   options->output, error);
    if (status)
        replay_trace_close(&job->trace);
    return status ? -1 : 0;
}

void replay_job_close(replay_job *job)
{
    replay_paths_close(&job->paths);
    replay_trace_close(&job->trace);
}

int replay_job_blocks(const replay_job *job, replay_size size, uint32_t *blocks, replay_error *error)
{
    double count = 0;
    switch (size.unit) {
    case REPLAY_BYTES: count = floor(size.value / (double)job->block_bytes); break;
    case REPLAY_TOKENS: count = floor(size.value / job->block_tokens); break;
    case REPLAY_BLOCKS: count = floor(size.value); break;
    case REPLAY_PERCENT: count = floor(size.value / 100 * (double)job->paths.distinct_blocks); break;
    }
    if (count > INT32_MAX / 4)
        return replay_fail(error, "a tier of %.0f blocks; the deciding half counts up to %d", count,
                           INT32_MAX / 4);
    *blocks = (uint32_t)count;
    return 0;
}

double replay_job_gib(const replay_job *job, uint64_t blocks)
{
    return (double)blocks * (double)job->block_bytes / (1 << 30);
}
