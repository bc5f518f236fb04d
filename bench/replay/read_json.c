/* read_json.c: a JSON object a line, with "hash_ids" (Mooncake) or "tokens". */
#include "read.h"

#ifndef REPLAY_CJSON

bool replay_read_json_supported(void)
{
    return false;
}

int replay_read_json(replay_trace *trace, const char *line, size_t length, replay_error *error)
{
    (void)trace, (void)line, (void)length;
    return replay_fail(error, "this build cannot read JSON: cJSON (Debian: libcjson-dev) was not found");
}

#else

#include <cjson/cJSON.h>
#include <math.h>
#include <string.h>

bool replay_read_json_supported(void)
{
    return true;
}

/* JSON numbers are doubles: whole up to 2^53. */
static bool whole(const cJSON *item, double least, double most, double *value)
{
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= least && item->valuedouble <= most) ||
        floor(item->valuedouble) != item->valuedouble)
        return false;
    *value = item->valuedouble;
    return true;
}

static int read_whole(const cJSON *object, const char *name, bool needed, double most, double *value,
                      replay_error *error)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    if (!item && !needed)
        return 0;
    if (!whole(item, 0, most, value))
        return replay_fail(error, "\"%s\" must be a whole number from 0 to %.0f", name, most);
    return 0;
}

static int read_ids(replay_trace *trace, const cJSON *array, replay_error *error)
{
    const cJSON *item;
    const replay_request *request = &trace->requests[trace->request_count];
    uint32_t most = request->input == 0 ? 0 : (request->input - 1) / trace->piece_tokens + 1;
    cJSON_ArrayForEach(item, array)
    {
        double id = 0;
        if (!whole(item, 0, 0x1p53, &id))
            return replay_fail(error, "\"hash_ids\" holds what is no whole number from 0 to 2^53");
        if (request->count == most)
            return replay_fail(error,
                               "more hash_ids than pieces of %u tokens in an input of %u: at most %u "
                               "(--piece-tokens says how long a piece is)",
                               trace->piece_tokens, request->input, most);
        int status = replay_trace_add_id(trace, (uint64_t)id, error);
        if (status)
            return status;
    }
    return 0;
}

static int read_tokens(replay_trace *trace, const cJSON *array, replay_error *error)
{
    const cJSON *item;
    replay_request *request = &trace->requests[trace->request_count];
    request->input = 0;
    cJSON_ArrayForEach(item, array)
    {
        double token = 0;
        if (!whole(item, INT32_MIN, INT32_MAX, &token))
            return replay_fail(error, "\"tokens\" holds what is no token id, a whole number of 32 bits");
        int status = replay_trace_add_token(trace, (int32_t)token, error);
        if (status)
            return status;
        request->input++;
    }
    return 0;
}

/* A trace is of one kind: what the first request has, all have. */
static int judge_kind(replay_trace *trace, bool tokens, replay_error *error)
{
    if (trace->request_count == 0) {
        trace->format = tokens ? "token JSONL" : "Mooncake JSONL";
        return 0;
    }
    if (tokens != (trace->token_count > 0))
        return replay_fail(error, "a request with \"%s\" in a trace whose first has \"%s\"",
                           tokens ? "tokens" : "hash_ids", tokens ? "hash_ids" : "tokens");
    return 0;
}

static int read_object(replay_trace *trace, const cJSON *object, replay_error *error)
{
    replay_request *request = &trace->requests[trace->request_count];
    const cJSON *ids = cJSON_GetObjectItemCaseSensitive(object, "hash_ids");
    const cJSON *tokens = cJSON_GetObjectItemCaseSensitive(object, "tokens");
    double time = 0, input = 0, output = 0, domain = 0;
    if (!cJSON_IsObject(object))
        return replay_fail(error, "a request must be a JSON object");
    if (!cJSON_IsArray(ids) == !cJSON_IsArray(tokens))
        return replay_fail(error, "a request needs either the array \"hash_ids\" or the array \"tokens\"");
    const cJSON *stamp = cJSON_GetObjectItemCaseSensitive(object, "timestamp");
    if (!cJSON_IsNumber(stamp) || !(stamp->valuedouble >= 0 && stamp->valuedouble <= 0x1p53))
        return replay_fail(error, "\"timestamp\" must be a number of milliseconds, not negative");
    time = stamp->valuedouble;
    if (read_whole(object, "input_length", ids != NULL, 1 << 30, &input, error) ||
        read_whole(object, "output_length", false, 1 << 30, &output, error) ||
        read_whole(object, "domain", false, 0x1p53, &domain, error) ||
        judge_kind(trace, tokens != NULL, error))
        return -1;
    request->time_us = (int64_t)(time * 1000);
    request->input = (uint32_t)input;
    request->output = (uint32_t)output;
    request->domain = (uint64_t)domain;
    if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(object, "turn_ended")))
        request->flags |= REPLAY_TURN_ENDED;
    return ids ? read_ids(trace, ids, error) : read_tokens(trace, tokens, error);
}

int replay_read_json(replay_trace *trace, const char *line, size_t length, replay_error *error)
{
    const char *end = line;
    cJSON *object = cJSON_ParseWithLengthOpts(line, length, &end, 0);
    int status;
    if (!object || strspn(end, " \t") < (size_t)(line + length - end))
        status = replay_fail(error, "no JSON from character %zu on", (size_t)(end - line) + 1);
    else
        status = read_object(trace, object, error);
    cJSON_Delete(object);
    return status;
}

#endif
