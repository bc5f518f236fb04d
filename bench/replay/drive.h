/* drive.h: a trace through one cache, the requests one after another. */
#ifndef REPLAY_DRIVE_H
#define REPLAY_DRIVE_H

#include "node.h"
#include "outcome.h"
#include "trace.h"

typedef struct replay_setup {
    replay_geometry geometry;
    const char *policy;
    quire_offload offload; /* 0: write-through */
    bool pieces; /* a block is a piece; geometry.block_tokens is 1 then */
    bool hints; /* the cache is told of requests that end a turn, where the trace says so */
    bool output; /* generated tokens are computed, and cached, too */
    void (*note)(void *user, uint32_t request, uint32_t hit); /* tokens that each found; NULL: nobody asks */
    void *note_user;
    void (*progress)(void *user, uint64_t at, uint64_t of); /* requests; NULL: none */
    void *progress_user;
} replay_setup;

int replay_drive(const replay_trace *trace, const replay_setup *setup, replay_outcome *outcome,
                 replay_error *error);
/* What there is to say of a request, QUIRE_HINT_*. */
uint32_t replay_hints(const replay_setup *setup, const replay_request *request);
/* As many domains as a cache needs for the trace. */
uint32_t replay_domains(const replay_trace *trace);
/* Takes the node's counters into the outcome. */
void replay_outcome_count(replay_outcome *outcome, const replay_node *node);

#endif
