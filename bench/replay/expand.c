#include "expand.h"

#include <string.h>

/* The request's own tokens: the upper half of the ids, from a place that its number says. */
static uint32_t own_token(uint32_t request, uint32_t at)
{
    return 0x80000000u | (((request + 1) * 0x9e3779b1u >> 1) + at);
}

static void count_up(int32_t *tokens, uint32_t first, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        tokens[i] = (int32_t)(first + i);
}

static void expand_ids(const replay_trace *trace, const replay_request *request, uint32_t first, uint32_t end,
                       int32_t *tokens)
{
    const uint32_t piece = trace->piece_tokens;
    const uint32_t *ids = trace->ids + request->first;
    for (uint32_t at = first; at < end;) {
        uint32_t offset = at % piece, part = replay_smaller(piece - offset, end - at);
        count_up(tokens + (at - first), (ids[at / piece] * piece + offset) & 0x7fffffffu, part);
        at += part;
    }
}

void replay_expand(const replay_trace *trace, uint32_t index, uint32_t first, uint32_t count, int32_t *tokens)
{
    const replay_request *request = &trace->requests[index];
    uint64_t known = trace->token_count > 0 ? request->input : (uint64_t)request->count * trace->piece_tokens;
    uint32_t end = first + count;
    known = known < request->input ? known : request->input;
    uint32_t split = known < first ? first : replay_smaller((uint32_t)known, end);
    if (trace->token_count > 0)
        memcpy(tokens, trace->tokens + request->first_token + first, (split - first) * sizeof *tokens);
    else
        expand_ids(trace, request, first, split, tokens);
    for (uint32_t at = split; at < end; at++)
        tokens[at - first] = (int32_t)own_token(index, at);
}

uint32_t replay_expand_pieces(const replay_trace *trace, uint32_t index, int32_t *tokens)
{
    const replay_request *request = &trace->requests[index];
    memcpy(tokens, trace->ids + request->first, request->count * sizeof *tokens);
    tokens[request->count] = (int32_t)own_token(index, request->count);
    return request->count + 1;
}
