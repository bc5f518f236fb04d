#include "trace.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "recorded.h"

#define MOST_TOKENS (UINT32_C(1) << 30)

void replay_trace_open(replay_trace *trace, uint64_t memory_limit)
{
    *trace = (replay_trace){.memory_limit = memory_limit, .format = "no"};
}

void replay_trace_close(replay_trace *trace)
{
    free(trace->requests);
    free(trace->ids);
    free(trace->parents);
    free(trace->tokens);
    replay_map_close(&trace->names);
    replay_recorded_close(trace->recorded);
    *trace = (replay_trace){0};
}

static int no_room(const replay_trace *trace, replay_error *error)
{
    replay_fail(
        error,
        "the trace does not fit %llu MiB after %zu requests; give more with --memory, or read a part of it "
        "with --requests",
        (unsigned long long)trace->memory_limit >> 20, trace->request_count);
    return REPLAY_NO_ROOM;
}

int replay_trace_grow(replay_trace *trace, void **array, size_t *room, size_t need, size_t size,
                      replay_error *error)
{
    if (need <= *room)
        return 0;
    size_t more = *room < 1024 ? 1024 : *room + *room / 2;
    more = more < need ? need : more;
    uint64_t map = trace->names.places * (uint64_t)(sizeof(uint64_t) + sizeof(uint32_t));
    if (trace->memory + map + (more - *room) * size > trace->memory_limit)
        return no_room(trace, error);
    void *grown = realloc(*array, more * size);
    if (!grown)
        return no_room(trace, error);
    trace->memory += (more - *room) * size;
    *array = grown;
    *room = more;
    return 0;
}

/* Typed arrays through a void pointer, without aliasing it. */
#define GROW(trace, member, room, need, error)                                                               \
    grow_member(trace, &(trace)->member, sizeof((trace)->member), &(trace)->room, need,                      \
                sizeof(*(trace)->member), error)

static int grow_member(replay_trace *trace, void *member, size_t pointer, size_t *room, size_t need,
                       size_t size, replay_error *error)
{
    void *array;
    memcpy(&array, member, pointer);
    int status = replay_trace_grow(trace, &array, room, need, size, error);
    memcpy(member, &array, pointer);
    return status;
}

int replay_trace_begin(replay_trace *trace, replay_error *error)
{
    int status = GROW(trace, requests, request_room, trace->request_count + 1, error);
    if (status)
        return status;
    trace->requests[trace->request_count] =
        (replay_request){.first = trace->id_count, .first_token = trace->token_count};
    return 0;
}

/* The id of a name under a parent; new ones are entered. */
static int id_of(replay_trace *trace, uint64_t name, uint32_t parent, uint32_t *id, replay_error *error)
{
    *id = replay_map_find(&trace->names, name);
    if (*id != REPLAY_MAP_NONE) {
        if (trace->parents[*id] == parent)
            return 0;
        return replay_fail(
            error,
            "id %llu follows another id than where it was first seen; the same id must mean the "
            "same prompt up to there",
            (unsigned long long)name);
    }
    if (trace->memory + replay_map_bytes(&trace->names) > trace->memory_limit ||
        !replay_map_add(&trace->names, name, trace->units))
        return no_room(trace, error);
    int status = GROW(trace, parents, parent_room, (size_t)trace->units + 1, error);
    if (status)
        return status;
    trace->parents[trace->units] = parent;
    *id = trace->units++;
    return 0;
}

int replay_trace_add_id(replay_trace *trace, uint64_t name, replay_error *error)
{
    replay_request *request = &trace->requests[trace->request_count];
    uint32_t parent = request->count == 0 ? REPLAY_NO_PARENT : trace->ids[trace->id_count - 1], id;
    if (trace->units >= REPLAY_MAP_NONE - 1)
        return replay_fail(error, "more than %u different ids", trace->units);
    int status = id_of(trace, name, parent, &id, error);
    if (status == 0)
        status = GROW(trace, ids, id_room, trace->id_count + 1, error);
    if (status)
        return status;
    trace->ids[trace->id_count++] = id;
    request->count++;
    return 0;
}

int replay_trace_add_token(replay_trace *trace, int32_t token, replay_error *error)
{
    int status = GROW(trace, tokens, token_room, trace->token_count + 1, error);
    if (status)
        return status;
    trace->tokens[trace->token_count++] = token;
    return 0;
}

static int judge(const replay_trace *trace, const replay_request *request, replay_error *error)
{
    uint64_t covered = request->count == 0 ? 0 : (uint64_t)(request->count - 1) * trace->piece_tokens + 1;
    if (request->input == 0 || request->input > MOST_TOKENS)
        return replay_fail(error, "an input of %u tokens; expected 1 to %u", request->input, MOST_TOKENS);
    if (request->output > MOST_TOKENS)
        return replay_fail(error, "an output of %u tokens; expected 0 to %u", request->output, MOST_TOKENS);
    if (covered > request->input)
        return replay_fail(error, "%u ids of %u tokens for an input of %u tokens; expected %u ids at most",
                           request->count, trace->piece_tokens, request->input,
                           (request->input - 1) / trace->piece_tokens + 1);
    return 0;
}

int replay_trace_end(replay_trace *trace, replay_error *error)
{
    replay_request *request = &trace->requests[trace->request_count];
    if (judge(trace, request, error))
        return -1;
    trace->input_tokens += request->input;
    trace->output_tokens += request->output;
    if (request->input + request->output > trace->longest)
        trace->longest = request->input + request->output;
    trace->request_count++;
    return 0;
}

void replay_trace_drop(replay_trace *trace)
{
    const replay_request *request = &trace->requests[trace->request_count];
    trace->id_count = request->first;
    trace->token_count = request->first_token;
}

/* Merge sort of requests by time: stable, and linear when they are sorted already. */
static void merge(replay_request *requests, replay_request *spare, size_t count)
{
    if (count < 2)
        return;
    size_t half = count / 2, left = 0, right = half;
    merge(requests, spare, half);
    merge(requests + half, spare, count - half);
    if (requests[half - 1].time_us <= requests[half].time_us)
        return;
    memcpy(spare, requests, count * sizeof *requests);
    for (size_t i = 0; i < count; i++) {
        bool from_left = right == count || (left < half && spare[left].time_us <= spare[right].time_us);
        requests[i] = spare[from_left ? left++ : right++];
    }
}

int replay_trace_finish(replay_trace *trace, replay_error *error)
{
    replay_map_close(&trace->names);
    if (trace->request_count == 0)
        return replay_fail(error, "the trace has no request");
    replay_request *spare = malloc(trace->request_count * sizeof *spare);
    if (!spare)
        return replay_fail(error, "no memory to sort %zu requests", trace->request_count);
    merge(trace->requests, spare, trace->request_count);
    free(spare);
    return 0;
}

int replay_trace_cut(replay_trace *trace, uint32_t piece_tokens, replay_error *error)
{
    const uint64_t key = 0x71756972652d7265u; /* any: the trace is not hostile to its own reader */
    replay_map_close(&trace->names);
    trace->id_count = 0;
    trace->units = 0;
    trace->piece_tokens = piece_tokens;
    for (size_t i = 0; i < trace->request_count; i++) {
        replay_request *request = &trace->requests[i];
        const int32_t *tokens = trace->tokens + request->first_token;
        uint64_t name = request->domain;
        uint32_t parent = REPLAY_NO_PARENT, id = 0;
        request->first = trace->id_count;
        request->count = request->input / piece_tokens;
        for (uint32_t k = 0; k < request->count; k++, parent = id, tokens += piece_tokens) {
            name = quire__hash_tokens(key, name, tokens, piece_tokens);
            if (id_of(trace, name, parent, &id, error) ||
                GROW(trace, ids, id_room, trace->id_count + 1, error))
                return -1;
            trace->ids[trace->id_count++] = id;
        }
    }
    replay_map_close(&trace->names);
    return 0;
}
