/* recorded_run.h: the very calls that a program made, through the deciding half again. */
#ifndef REPLAY_RECORDED_RUN_H
#define REPLAY_RECORDED_RUN_H

#include "job.h"
#include "recorded.h"

typedef struct replay_rerun {
    uint64_t matches, match_tokens, hit_device, hit_host, hit_partial;
    uint64_t differing; /* matches that found another number of tokens than the program's */
    uint64_t left_out; /* rows without room (a smaller cache): the program would have preempted */
    uint64_t evictions_device, evictions_host, offloads, restores;
    double book_seconds;
} replay_rerun;

/* Moves end at once. With the recorded sizes and LRU the hits are those of the program, where its own moves
 * ended before its next call (as on the host device), and no step was cancelled and no arena resized. */
int replay_recorded_rerun(const replay_recorded *recorded, const char *policy, uint32_t device_blocks,
                          uint32_t host_blocks, replay_rerun *rerun, replay_error *error);
/* For every size and policy of the options, as a table or as JSON. */
int replay_recorded_runs(const replay_job *job, replay_error *error);

#endif
