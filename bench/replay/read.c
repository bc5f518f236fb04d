#include "read.h"

#include <inttypes.h>
#include <string.h>

#include "input.h"
#include "recorded.h"

enum {
    MOST_NAMED = 10,
    PROGRESS_EVERY = 256
}; /* malformed lines that are named, the rest is counted; lines */

typedef struct reader {
    replay_trace *trace;
    const replay_read_options *options;
    const char *path;
    int (*take)(replay_trace *trace, const char *line, size_t length,
                replay_error *error); /* NULL: not known yet */
    replay_read_result result;
} reader;

static int take_recorded(replay_trace *trace, const char *line, size_t length, replay_error *error)
{
    (void)length;
    return replay_recorded_line(trace->recorded, trace, line, error);
}

static int choose_format(reader *reader, const char *line, replay_error *error)
{
    replay_trace *trace = reader->trace;
    const char *text = line + strspn(line, " \t");
    if (*text == '{') {
        if (!replay_read_json_supported())
            return replay_fail(error,
                               "this build cannot read JSON: cJSON (Debian: libcjson-dev) was not found");
        trace->format = "JSONL";
        trace->piece_tokens = reader->options->piece_tokens;
        reader->take = replay_read_json;
        return 0;
    }
    if (strncmp(text, "# prefix-trace v1", 17) == 0) {
        trace->format = "prefix-trace v1";
        reader->take = replay_read_prefix;
        return replay_read_prefix_header(trace, text, error);
    }
    if (strncmp(text, "# quire-trace v1", 16) == 0) {
        trace->format = "quire-trace v1";
        reader->take = take_recorded;
        return replay_recorded_open(&trace->recorded, text, error);
    }
    return replay_fail(error,
                       "%s has no format that is known: its first line is neither a JSON object nor \"# "
                       "prefix-trace v1\" nor \"# quire-trace v1\"",
                       reader->path);
}

/* A malformed line: 0 goes on with the next one. */
static int malformed(reader *reader, const char *why, replay_error *error)
{
    FILE *warnings = reader->options->warnings;
    if (reader->options->strict)
        return replay_fail(error, "%s:%" PRIu64 ": %.400s", reader->path, reader->result.lines, why);
    reader->result.skipped++;
    if (warnings && reader->result.skipped <= MOST_NAMED)
        fprintf(warnings, "%s:%" PRIu64 ": skipped: %s\n", reader->path, reader->result.lines, why);
    return 0;
}

static int take_request(reader *reader, const char *line, size_t length, replay_error *error)
{
    replay_trace *trace = reader->trace;
    if (trace->recorded) /* its lines are not requests */
        return reader->take(trace, line, length, error);
    int status = replay_trace_begin(trace, error);
    if (status)
        return status;
    status = reader->take(trace, line, length, error);
    if (status == 0)
        status = replay_trace_end(trace, error);
    if (status)
        replay_trace_drop(trace);
    return status;
}

static int take_line(reader *reader, const char *line, size_t length, replay_error *error)
{
    if (strspn(line, " \t") >= length)
        return 0;
    if (!reader->take && choose_format(reader, line, error))
        return -1;
    if (*line == '#')
        return 0;
    replay_error why;
    int status = memchr(line, 0, length) ? replay_fail(&why, "there is a byte 0 in the line")
                                         : take_request(reader, line, length, &why);
    if (status == REPLAY_NO_ROOM)
        return replay_fail(error, "%s:%" PRIu64 ": %.400s", reader->path, reader->result.lines, why.text);
    return status ? malformed(reader, why.text, error) : 0;
}

static bool enough(const reader *reader)
{
    uint64_t most = reader->options->most_requests;
    return most > 0 && reader->trace->request_count >= most;
}

static int take_all(reader *reader, replay_input *input, replay_error *error)
{
    char *line = NULL;
    size_t length = 0;
    uint64_t size;
    while (!enough(reader)) {
        replay_line kind = replay_input_next(input, &line, &length, error);
        if (kind == REPLAY_LINE_ERROR)
            return -1;
        if (kind == REPLAY_LINE_END)
            break;
        reader->result.lines++;
        int status = kind == REPLAY_LINE_LONG
                         ? malformed(reader, "the line is longer than --longest-line", error)
                         : take_line(reader, line, length, error);
        if (status)
            return -1;
        if (reader->options->progress && reader->result.lines % PROGRESS_EVERY == 0)
            reader->options->progress(reader->options->progress_user, replay_input_at(input, &size), size);
    }
    return 0;
}

int replay_read(replay_trace *trace, const char *path, const replay_read_options *options,
                replay_read_result *result, replay_error *error)
{
    reader reader = {.trace = trace, .options = options, .path = path};
    replay_input *input = NULL;
    replay_trace_open(trace, options->memory);
    int status = replay_input_open(&input, path, options->longest_line, error);
    if (status == 0)
        status = take_all(&reader, input, error);
    replay_input_close(input);
    if (reader.result.skipped > MOST_NAMED && options->warnings)
        fprintf(options->warnings, "%s: %" PRIu64 " lines skipped in all\n", path, reader.result.skipped);
    if (status == 0 && trace->recorded)
        status = replay_recorded_finish(trace->recorded, trace, error);
    if (status == 0)
        status = replay_trace_finish(trace, error);
    if (status)
        replay_trace_close(trace);
    *result = reader.result;
    return status;
}
