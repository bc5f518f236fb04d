/* planner.h: what to buy, in words. */
#ifndef REPLAY_PLANNER_H
#define REPLAY_PLANNER_H

#include "job.h"

/* For the first policy of the options, to stdout. */
int replay_plan(const replay_job *job, const char *policy, replay_error *error);

#endif
