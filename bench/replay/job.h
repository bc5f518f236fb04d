/* job.h: a trace that has been read, its paths, and what sizes come to for it. */
#ifndef REPLAY_JOB_H
#define REPLAY_JOB_H

#include "node.h"
#include "options.h"
#include "paths.h"

typedef struct replay_job {
    const replay_options *options;
    replay_trace trace;
    replay_read_result read;
    replay_paths paths;
    double read_seconds;
    uint64_t block_bytes;
    double token_bytes;
    uint32_t block_tokens; /* 1 with --pieces */
} replay_job;

int replay_job_open(replay_job *job, const replay_options *options, replay_error *error);
void replay_job_close(replay_job *job);
/* A size in blocks. An error: more than the library can count. */
int replay_job_blocks(const replay_job *job, replay_size size, uint32_t *blocks, replay_error *error);
double replay_job_gib(const replay_job *job, uint64_t blocks);

#endif
