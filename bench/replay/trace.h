/* trace.h: a request trace in memory, whatever its format was.
 *
 *    requests   time, input and output length, and where its part of `ids` begins
 *    ids        one a piece of `piece_tokens` tokens of the prompt, counted from 0 in order of first
 *    appearance parents    of an id: the one before it in every prompt that has it
 *
 * The same id means the same piece and the same prompt before it, so ids are the nodes of a tree, and a
 * prompt is a path in it. What a prompt has beyond its ids is its own: unknown, and equal to nothing. The
 * last piece of a prompt may be shorter than the others; its id is then of the part.
 *
 * A trace of token ids keeps them (`tokens`); replay_trace_cut gives it ids, of any piece size.
 */
#ifndef REPLAY_TRACE_H
#define REPLAY_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "map.h"

enum {
    REPLAY_SUBAGENT = 1, /* issued by a sub-agent */
    REPLAY_TURN_ENDED = 2 /* the model ended its turn: a human speaks next */
};

#define REPLAY_NO_PARENT UINT32_MAX

typedef struct replay_request {
    int64_t time_us;
    uint32_t input, output; /* tokens */
    uint32_t flags;
    uint32_t count; /* ids */
    uint64_t first; /* of them, in ids */
    uint64_t first_token; /* of a token trace, in tokens: `input` of them */
    uint64_t domain;
} replay_request;

struct replay_recorded;

typedef struct replay_trace {
    replay_request *requests;
    uint32_t *ids;
    uint32_t *parents; /* [units] */
    int32_t *tokens;
    size_t request_count, id_count, token_count; /* no tokens: a trace of pieces */
    uint32_t units; /* different ids */
    uint32_t piece_tokens; /* 0: a token trace that has not been cut */
    uint32_t longest; /* input + output */
    uint64_t input_tokens, output_tokens;
    const char *format;

    uint64_t memory, memory_limit; /* bytes taken, and the most that may be */
    size_t request_room, id_room, parent_room, token_room;
    struct replay_recorded *recorded; /* NULL: it is no recording of Quire's own (recorded.h) */
    replay_map names; /* what the file calls an id -> ours; only while reading */
} replay_trace;

/* Beside 0 and -1: the trace does not fit its memory limit, so there is no use in going on to the next line.
 * */
#define REPLAY_NO_ROOM (-2)

void replay_trace_open(replay_trace *trace, uint64_t memory_limit);
void replay_trace_close(replay_trace *trace);

/* Grows an array that belongs to the trace, within the limit. */
int replay_trace_grow(replay_trace *trace, void **array, size_t *room, size_t need, size_t size,
                      replay_error *error);
/* Begins a request; ids or tokens are appended to it until it is ended or dropped. */
int replay_trace_begin(replay_trace *trace, replay_error *error);
/* Appends the id that the file calls `name`. An error: `name` has followed another id before. */
int replay_trace_add_id(replay_trace *trace, uint64_t name, replay_error *error);
int replay_trace_add_token(replay_trace *trace, int32_t token, replay_error *error);
/* The lengths are judged: input 1 .. 2^30, ids for no more than the input. */
int replay_trace_end(replay_trace *trace, replay_error *error);
/* Forgets the request that was begun. (Ids that it introduced stay known: harmless.) */
void replay_trace_drop(replay_trace *trace);
/* Sorts by time, keeping the order of equals, and frees what only reading needed. An error: no request. */
int replay_trace_finish(replay_trace *trace, replay_error *error);
/* Gives the requests of a token trace ids of `piece_tokens` tokens each, one for every full piece of the
 * prompt. */
int replay_trace_cut(replay_trace *trace, uint32_t piece_tokens, replay_error *error);

static inline uint32_t replay_larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static inline uint32_t replay_smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

#endif
