#include "paths.h"

#include <stdlib.h>
#include <string.h>

uint32_t replay_paths_blocks(const replay_paths *paths, const replay_request *request, uint32_t count)
{
    if (paths->pieces)
        return count;
    uint64_t tokens = (uint64_t)count * paths->trace->piece_tokens;
    return (uint32_t)((tokens < request->input ? tokens : request->input) / paths->block_tokens);
}

uint32_t replay_paths_length(const replay_paths *paths, const replay_request *request)
{
    if (paths->pieces)
        return request->count;
    return (request->input + (paths->output ? request->output : 0)) / paths->block_tokens;
}

uint32_t replay_paths_findable(const replay_paths *paths, const replay_request *request)
{
    return paths->pieces ? request->count : (request->input - 1) / paths->block_tokens;
}

static int add_stretch(replay_paths *paths, size_t *room, replay_stretch stretch, replay_error *error)
{
    if (stretch.begin == stretch.end)
        return 0;
    if (paths->stretch_count == *room) {
        size_t more = *room ? 2 * *room : 4096;
        void *grown = realloc(paths->stretches, more * sizeof *paths->stretches);
        if (!grown)
            return replay_fail(error, "no memory for %zu stretches of prompts", more);
        paths->stretches = grown;
        *room = more;
    }
    paths->stretches[paths->stretch_count++] = stretch;
    return 0;
}

/* `last[id]`: the request that used the id last, or REPLAY_NO_PARENT. Along a path it never rises. */
static int cut(replay_paths *paths, uint32_t index, uint32_t *last, size_t *room, replay_error *error)
{
    const replay_request *request = &paths->trace->requests[index];
    const uint32_t *ids = paths->trace->ids + request->first;
    uint32_t at = 0, begin = 0;
    while (at < request->count && last[ids[at]] != REPLAY_NO_PARENT) {
        uint32_t before = last[ids[at]];
        for (; at < request->count && last[ids[at]] == before; at++)
            last[ids[at]] = index;
        uint32_t end = replay_paths_blocks(paths, request, at);
        if (add_stretch(paths, room, (replay_stretch){before, index, begin, end}, error))
            return -1;
        begin = end;
    }
    for (; at < request->count; at++)
        last[ids[at]] = index;
    paths->distinct_blocks += replay_paths_blocks(paths, request, request->count) - begin;
    paths->input_units += paths->pieces ? request->count : request->input;
    return 0;
}

int replay_paths_open(replay_paths *paths, const replay_trace *trace, uint32_t block_tokens, bool pieces,
                      bool output, replay_error *error)
{
    *paths = (replay_paths){.trace = trace, .block_tokens = block_tokens, .pieces = pieces, .output = output};
    if (!pieces && trace->piece_tokens % block_tokens != 0)
        return replay_fail(
            error,
            "blocks of %u tokens do not divide the trace's pieces of %u tokens; give --block-tokens "
            "that does",
            block_tokens, trace->piece_tokens);
    uint32_t *last = malloc(((size_t)trace->units + 1) * sizeof *last);
    if (!last)
        return replay_fail(error, "no memory for %u ids", trace->units);
    memset(last, 0xff, ((size_t)trace->units + 1) * sizeof *last);
    size_t room = 0;
    int status = 0;
    for (size_t i = 0; status == 0 && i < trace->request_count; i++)
        status = cut(paths, (uint32_t)i, last, &room, error);
    free(last);
    if (status)
        replay_paths_close(paths);
    return status;
}

void replay_paths_close(replay_paths *paths)
{
    free(paths->stretches);
    paths->stretches = NULL;
}
