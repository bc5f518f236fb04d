/* main.c: quire-replay. */
#include <stdio.h>

#include "cluster.h"
#include "curve.h"
#include "job.h"
#include "recorded_run.h"
#include "runs.h"

int main(int argc, char **argv)
{
    replay_error error;
    replay_options options;
    replay_job job;
    if (replay_options_parse(&options, argc, argv, &error)) {
        fprintf(stderr, "quire-replay: %s\n", error.text);
        return 2;
    }
    int status = replay_job_open(&job, &options, &error);
    if (status == 0) {
        if (options.node_count > 0)
            status = replay_clusters(&job, &error);
        else if (options.as_recorded)
            status = replay_recorded_runs(&job, &error);
        else if (options.curve || options.check || options.plan)
            status = replay_curves(&job, &error);
        else
            status = replay_runs(&job, &error);
        replay_job_close(&job);
    }
    if (status)
        fprintf(stderr, "quire-replay: %s\n", error.text);
    return status ? 1 : 0;
}
