/* replay_kit.h: what the tests of quire-replay share. */
#ifndef REPLAY_KIT_H
#define REPLAY_KIT_H

#include "support/testing.h"

#include <string.h>

#include "job.h"

/* The excerpt of the conversation trace, with the model of the defaults and blocks of 16 tokens; LRU unless
 * the test sets another. Skips where JSON cannot be read. `options` must outlive the job. */
static inline void replay_open_fixture(replay_job *job, replay_options *options)
{
    char program[] = "test", path[] = QUIRE_TEST_FIXTURES "/conversation.jsonl", quiet[] = "--quiet";
    char policy[] = "--policy=lru", block[] = "--block-tokens=16";
    char *arguments[] = {program, path, quiet, policy, block, NULL};
    replay_error error;
    if (!replay_read_json_supported())
        SKIP_BECAUSE("this build has no cJSON");
    if (replay_options_parse(options, 5, arguments, &error) || replay_job_open(job, options, &error))
        fail_msg("%s", error.text);
}

#endif
