#include "floor.h"

#include <stdlib.h>
#include <string.h>

#include "cputime.h"
#include "expand.h"

typedef struct walk {
    int32_t *arena, *tokens;
    uint64_t blocks, at, differences;
    uint32_t block_tokens;
} walk;

static void compare(walk *walk, const int32_t *tokens, uint32_t blocks)
{
    size_t bytes = walk->block_tokens * sizeof *tokens;
    for (uint32_t i = 0; i < blocks; i++, tokens += walk->block_tokens) {
        walk->differences += memcmp(walk->arena + walk->at * walk->block_tokens, tokens, bytes) != 0;
        walk->at = walk->at + 1 < walk->blocks ? walk->at + 1 : 0;
    }
}

static void copy(walk *walk, const int32_t *tokens, uint32_t blocks)
{
    size_t bytes = walk->block_tokens * sizeof *tokens;
    for (uint32_t i = 0; i < blocks; i++, tokens += walk->block_tokens) {
        memcpy(walk->arena + walk->at * walk->block_tokens, tokens, bytes);
        walk->at = walk->at + 1 < walk->blocks ? walk->at + 1 : 0;
    }
}

/* What is found is laid down first, outside the time, so that the comparison goes to its end as a true one
 * does. */
static void request(walk *walk, const replay_trace *trace, const replay_setup *setup, uint32_t index,
                    uint32_t found, replay_floor *result)
{
    const replay_request *request = &trace->requests[index];
    uint32_t total = request->input + (setup->output ? request->output : 0),
             blocks = total / walk->block_tokens;
    if (blocks > walk->blocks)
        return;
    replay_expand(trace, index, 0, total, walk->tokens);
    uint64_t begin_at = walk->at;
    copy(walk, walk->tokens, found);
    walk->at = begin_at;
    double begin = replay_cpu_now();
    compare(walk, walk->tokens, found);
    copy(walk, walk->tokens + (size_t)found * walk->block_tokens, blocks - found);
    result->seconds += replay_cpu_now() - begin;
    result->compared += (uint64_t)found * walk->block_tokens * sizeof(int32_t);
    result->copied += (uint64_t)(blocks - found) * walk->block_tokens * sizeof(int32_t);
}

int replay_floor_run(const replay_trace *trace, const replay_setup *setup, const uint32_t *found_blocks,
                     replay_floor *result, replay_error *error)
{
    walk walk = {.blocks = setup->geometry.device_blocks, .block_tokens = setup->geometry.block_tokens};
    *result = (replay_floor){0};
    walk.arena = calloc(walk.blocks, walk.block_tokens * sizeof(int32_t));
    walk.tokens = malloc(((size_t)trace->longest + 1) * sizeof(int32_t));
    int status = walk.arena && walk.tokens ? 0 : replay_fail(error, "no memory for an arena of tokens");
    for (size_t i = 0; status == 0 && i < trace->request_count; i++)
        request(&walk, trace, setup, (uint32_t)i, found_blocks[i], result);
    if (status == 0 && walk.differences > 0)
        status = replay_fail(error, "the floor compared what is not equal: a bug");
    free(walk.arena);
    free(walk.tokens);
    return status;
}
