/* input.h: lines of a file, plain or compressed by xz or zstd, which its first bytes tell. */
#ifndef REPLAY_INPUT_H
#define REPLAY_INPUT_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

typedef struct replay_input replay_input;

typedef enum replay_line {
    REPLAY_LINE_ERROR = -1,
    REPLAY_LINE_END = 0,
    REPLAY_LINE_READ = 1,
    REPLAY_LINE_LONG = 2 /* longer than the limit: it was passed over */
} replay_line;

/* `path` "-" is standard input. No line may be longer than `longest` bytes. */
int replay_input_open(replay_input **input, const char *path, size_t longest, replay_error *error);
void replay_input_close(replay_input *input);
/* The next line, without its end, closed by a 0 that `*length` does not count. Lent until the next call. */
replay_line replay_input_next(replay_input *input, char **line, size_t *length, replay_error *error);
/* Bytes read of the file, and its size; 0: not known. For a progress bar. */
uint64_t replay_input_at(const replay_input *input, uint64_t *size);
/* "plain, xz, zstd": what this build can read. */
const char *replay_input_kinds(void);

#endif
