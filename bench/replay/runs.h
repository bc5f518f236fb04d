/* runs.h: every policy at every capacity, beside what can be had at best: as a table or as JSON. */
#ifndef REPLAY_RUNS_H
#define REPLAY_RUNS_H

#include "job.h"

int replay_runs(const replay_job *job, replay_error *error);

#endif
