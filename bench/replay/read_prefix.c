/* read_prefix.c: "prefix-trace v1". Two lines of '#', of which the first gives the piece size, then a request
 * a line:
 *
 *    t_ms input_tokens output_tokens flags ids          ids: runs separated by commas, 0-52,907,1000-1003
 */
#include <stdlib.h>
#include <string.h>

#include "read.h"

enum { MOST_PIECE_TOKENS = 1 << 20 };

/* Digits, and nothing else, from *at on. */
static bool whole(const char **at, uint64_t most, uint64_t *value)
{
    uint64_t sum = 0;
    const char *digit = *at;
    for (; *digit >= '0' && *digit <= '9'; digit++) {
        unsigned number = (unsigned)(*digit - '0');
        if (number > most || sum > (most - number) / 10)
            return false;
        sum = sum * 10 + number;
    }
    if (digit == *at)
        return false;
    *at = digit;
    *value = sum;
    return true;
}

int replay_read_prefix_header(replay_trace *trace, const char *line, replay_error *error)
{
    const char *at = strstr(line, "block=");
    uint64_t tokens = 0;
    if (at)
        at += strlen("block=");
    if (!at || !whole(&at, MOST_PIECE_TOKENS, &tokens) || tokens == 0)
        return replay_fail(error, "the header of a prefix-trace has no block=N with N from 1 to %d",
                           MOST_PIECE_TOKENS);
    trace->piece_tokens = (uint32_t)tokens;
    return 0;
}

static int take_runs(replay_trace *trace, const char *at, uint32_t most, replay_error *error)
{
    uint64_t first, last;
    const replay_request *request = &trace->requests[trace->request_count];
    for (;; at++) {
        if (!whole(&at, UINT64_MAX - 1, &first))
            return replay_fail(error, "no id where one is expected, at \"%.20s\"", at);
        last = first;
        if (*at == '-' && (at++, !whole(&at, UINT64_MAX - 1, &last) || last < first))
            return replay_fail(error,
                               "a run of ids must be FIRST-LAST with LAST not below FIRST, at \"%.20s\"", at);
        if (last - first >= most - request->count)
            return replay_fail(error, "more ids than the input has pieces (%u)", most);
        for (uint64_t name = first; name <= last; name++) {
            int status = replay_trace_add_id(trace, name, error);
            if (status)
                return status;
        }
        if (*at == '\0')
            return 0;
        if (*at != ',')
            return replay_fail(error, "ids are separated by commas; there is \"%.20s\"", at);
    }
}

int replay_read_prefix(replay_trace *trace, const char *line, size_t length, replay_error *error)
{
    static const char *const names[] = {"time", "input", "output", "flags"};
    static const uint64_t most[] = {INT64_MAX / 1000, UINT32_MAX, UINT32_MAX, UINT32_MAX};
    uint64_t values[4];
    const char *at = line;
    (void)length;
    for (int i = 0; i < 4; i++) {
        if (!whole(&at, most[i], &values[i]) || *at++ != ' ')
            return replay_fail(error,
                               "the %s is no whole number followed by a space; a line is: t_ms input_tokens "
                               "output_tokens flags ids",
                               names[i]);
    }
    replay_request *request = &trace->requests[trace->request_count];
    request->time_us = (int64_t)values[0] * 1000;
    request->input = (uint32_t)values[1];
    request->output = (uint32_t)values[2];
    request->flags = (uint32_t)values[3];
    if (values[1] == 0)
        return replay_fail(error, "an input of 0 tokens");
    return take_runs(trace, at, (request->input - 1) / trace->piece_tokens + 1, error);
}
