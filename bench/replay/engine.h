/* engine.h: a trace through one cache as an inference engine would use it: requests arrive at their times,
 * run side by side, grow token by token, wait when there is no room and are preempted when it gets short.
 * Time is virtual. */
#ifndef REPLAY_ENGINE_H
#define REPLAY_ENGINE_H

#include "drive.h"

typedef struct replay_engine_model {
    double prefill_rate; /* prompt tokens a second */
    double decode_seconds; /* of a step in which sequences decode */
    double offload_rate, restore_rate; /* bytes a second */
    double speed; /* arrivals come so many times as fast */
    uint32_t batch; /* most sequences that run */
    uint32_t step_tokens; /* most prompt tokens of a step */
} replay_engine_model;

/* setup->output and setup->pieces mean nothing here: outputs are generated, blocks are of tokens. */
int replay_engine(const replay_trace *trace, const replay_setup *setup, const replay_engine_model *model,
                  replay_outcome *outcome, replay_error *error);

#endif
