/* paths.h: what any leaf-first cache must make of a trace, worked out on whole stretches of prompts.
 *
 * A prompt is a path of blocks. Of two requests that share a start, the blocks of that start were last used
 * by the later one. So when request r comes, its path falls into stretches whose blocks were last used by the
 * same request:
 *
 *    path of r     | 0 ............ 40 | 40 ..... 52 | 52 ........ 90 |
 *    last used by        r - 1              r - 7          nobody
 *
 * A conversation of a hundred thousand tokens is a handful of stretches, and LRU's stack distances, the
 * clairvoyant bound and the infinite cache need no more than them: each takes time in proportion to the
 * stretches, not to the blocks.
 */
#ifndef REPLAY_PATHS_H
#define REPLAY_PATHS_H

#include "trace.h"

typedef struct replay_stretch {
    uint32_t before, request; /* the last request that used these blocks, and the one that uses them now */
    uint32_t begin, end; /* block indexes in the path */
} replay_stretch;

typedef struct replay_paths {
    const replay_trace *trace;
    uint32_t block_tokens;
    bool pieces; /* a block is a piece, however long */
    bool output; /* generated tokens become blocks too */
    replay_stretch *stretches; /* by request, then by begin */
    size_t stretch_count;
    uint64_t distinct_blocks; /* of prompts: what an infinite cache of them holds */
    uint64_t input_units; /* tokens of all prompts, or pieces */
} replay_paths;

/* `block_tokens` must divide the trace's pieces; with `pieces` it does not matter. */
int replay_paths_open(replay_paths *paths, const replay_trace *trace, uint32_t block_tokens, bool pieces,
                      bool output, replay_error *error);
void replay_paths_close(replay_paths *paths);

/* Blocks that the first `count` ids of a request fill. */
uint32_t replay_paths_blocks(const replay_paths *paths, const replay_request *request, uint32_t count);
/* Blocks of a request's whole path, and the most of them that a match may find (one token is left to
 * compute). */
uint32_t replay_paths_length(const replay_paths *paths, const replay_request *request);
uint32_t replay_paths_findable(const replay_paths *paths, const replay_request *request);

#endif
