/* read.h: a trace file to a replay_trace. The first line that says something tells the format:
 *
 *    Mooncake JSONL   {"timestamp": ms, "input_length": n, "output_length": n, "hash_ids": [...]}
 *    token JSONL      {"timestamp": ms, "tokens": [...], "output_length": n, "domain": n, "turn_ended": bool}
 *    prefix-trace v1  # prefix-trace v1 block=256 ...        then  t_ms input output flags ids
 *    quire-trace v1   # quire-trace v1 block=16 ...          then what a cache was asked (recorded.h)
 */
#ifndef REPLAY_READ_H
#define REPLAY_READ_H

#include <stdio.h>

#include "trace.h"

typedef struct replay_read_options {
    bool strict; /* a malformed line is an error, not a warning */
    uint32_t piece_tokens; /* of Mooncake JSONL */
    uint64_t memory; /* bytes that the trace may take */
    size_t longest_line; /* bytes */
    uint64_t most_requests; /* the rest of the file is not read; 0: all */
    FILE *warnings; /* where malformed lines are named; NULL: nowhere */
    void (*progress)(void *user, uint64_t at, uint64_t size); /* of the file, in bytes; NULL: none */
    void *progress_user;
} replay_read_options;

typedef struct replay_read_result {
    uint64_t lines, skipped;
} replay_read_result;

/* The trace is opened here. On an error it is closed again. */
int replay_read(replay_trace *trace, const char *path, const replay_read_options *options,
                replay_read_result *result, replay_error *error);

/* ---- for the formats: what a line says, between begin and end of a request. -1: malformed; or
 * REPLAY_NO_ROOM. */
int replay_read_json(replay_trace *trace, const char *line, size_t length, replay_error *error);
bool replay_read_json_supported(void);
int replay_read_prefix(replay_trace *trace, const char *line, size_t length, replay_error *error);
/* "# prefix-trace v1 block=256 src=..." */
int replay_read_prefix_header(replay_trace *trace, const char *line, replay_error *error);

#endif
