/* input.c: bytes come in through one function (`more`) whatever the compression is; lines are cut from what
 * has come.
 *
 *    file --read--> raw --decoder--> text[begin .. end)       a line is moved to the front only when the text
 *    runs out
 *
 * A line that does not fit the limit is passed over without being kept, so that no input can make the program
 * take more memory than the limit.
 */
#define _POSIX_C_SOURCE 200809L
#include "input.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#if REPLAY_XZ
#include <lzma.h>
#endif
#if REPLAY_ZSTD
#include <zstd.h>
#endif

enum { RAW = 1 << 16, FIRST_TEXT = 1 << 17 };

typedef enum kind { PLAIN, XZ, ZSTD } kind;

struct replay_input {
    FILE *file;
    const char *path;
    kind kind;
    unsigned char raw[RAW];
    size_t raw_begin, raw_end;
    bool file_ended, ended;
    char *text;
    size_t begin, end, room, longest;
    uint64_t at, size;
#if REPLAY_XZ
    lzma_stream xz;
#endif
#if REPLAY_ZSTD
    ZSTD_DStream *zstd;
    size_t zstd_wants; /* 0: at the end of a frame */
#endif
};

const char *replay_input_kinds(void)
{
#if REPLAY_XZ && REPLAY_ZSTD
    return "plain, xz, zstd";
#elif REPLAY_XZ
    return "plain, xz";
#elif REPLAY_ZSTD
    return "plain, zstd";
#else
    return "plain";
#endif
}

uint64_t replay_input_at(const replay_input *input, uint64_t *size)
{
    *size = input->size;
    return input->at;
}

/* ---- decoders ------------------------------------------------------------------------------------------ */

static int refill(replay_input *input, replay_error *error)
{
    if (input->raw_begin < input->raw_end || input->file_ended)
        return 0;
    input->raw_begin = 0;
    input->raw_end = fread(input->raw, 1, RAW, input->file);
    input->at += input->raw_end;
    if (ferror(input->file))
        return replay_fail(error, "cannot read %s: %s", input->path, strerror(errno));
    input->file_ended = input->raw_end == 0;
    return 0;
}

static size_t take_plain(replay_input *input, char *out, size_t room)
{
    size_t count = input->raw_end - input->raw_begin;
    count = count < room ? count : room;
    memcpy(out, input->raw + input->raw_begin, count);
    input->raw_begin += count;
    input->ended = input->file_ended;
    return count;
}

#if REPLAY_XZ
static int take_xz(replay_input *input, char *out, size_t room, size_t *count, replay_error *error)
{
    input->xz.next_in = input->raw + input->raw_begin;
    input->xz.avail_in = input->raw_end - input->raw_begin;
    input->xz.next_out = (unsigned char *)out;
    input->xz.avail_out = room;
    lzma_ret result = lzma_code(&input->xz, input->file_ended ? LZMA_FINISH : LZMA_RUN);
    input->raw_begin = input->raw_end - input->xz.avail_in;
    *count = room - input->xz.avail_out;
    if (result == LZMA_STREAM_END)
        input->ended = true;
    else if (result != LZMA_OK)
        return replay_fail(error, "%s is not a whole xz file (liblzma says %d)", input->path, (int)result);
    return 0;
}
#endif

#if REPLAY_ZSTD
static int take_zstd(replay_input *input, char *out, size_t room, size_t *count, replay_error *error)
{
    ZSTD_inBuffer from = {input->raw + input->raw_begin, input->raw_end - input->raw_begin, 0};
    ZSTD_outBuffer to = {out, room, 0};
    if (from.size == 0 && input->file_ended) {
        input->ended = true;
        *count = 0;
        return input->zstd_wants == 0
                   ? 0
                   : replay_fail(error, "%s is cut off: its last zstd frame has no end", input->path);
    }
    size_t result = ZSTD_decompressStream(input->zstd, &to, &from);
    if (ZSTD_isError(result))
        return replay_fail(error, "%s is not a whole zstd file: %s", input->path, ZSTD_getErrorName(result));
    input->zstd_wants = result;
    input->raw_begin += from.pos;
    *count = to.pos;
    return 0;
}
#endif

/* Some more text, or `ended`. */
static int more(replay_input *input, char *out, size_t room, size_t *count, replay_error *error)
{
    if (refill(input, error))
        return -1;
    switch (input->kind) {
#if REPLAY_XZ
    case XZ: return take_xz(input, out, room, count, error);
#endif
#if REPLAY_ZSTD
    case ZSTD: return take_zstd(input, out, room, count, error);
#endif
    default: *count = take_plain(input, out, room); return 0;
    }
}

static int choose_decoder(replay_input *input, replay_error *error)
{
    static const unsigned char xz[] = {0xfd, '7', 'z', 'X', 'Z', 0}, zstd[] = {0x28, 0xb5, 0x2f, 0xfd};
    if (refill(input, error))
        return -1;
    if (input->raw_end >= sizeof xz && memcmp(input->raw, xz, sizeof xz) == 0) {
#if REPLAY_XZ
        input->kind = XZ;
        if (lzma_stream_decoder(&input->xz, UINT64_C(1) << 30, LZMA_CONCATENATED) != LZMA_OK)
            return replay_fail(error, "no memory to decode %s", input->path);
#else
        return replay_fail(
            error, "%s is compressed, and this build has no liblzma; use: xz -dc FILE | quire-replay -",
            input->path);
#endif
    } else if (input->raw_end >= sizeof zstd && memcmp(input->raw, zstd, sizeof zstd) == 0) {
#if REPLAY_ZSTD
        input->kind = ZSTD;
        input->zstd = ZSTD_createDStream();
        if (!input->zstd)
            return replay_fail(error, "no memory to decode %s", input->path);
#else
        return replay_fail(error,
                           "%s is compressed, and this build has no libzstd; use: zstd -dc FILE | "
                           "quire-replay -",
                           input->path);
#endif
    }
    return 0;
}

/* ---- lines --------------------------------------------------------------------------------------------- */

int replay_input_open(replay_input **out, const char *path, size_t longest, replay_error *error)
{
    struct stat about;
    bool standard = strcmp(path, "-") == 0;
    replay_input *input = calloc(1, sizeof *input);
    if (!input)
        return replay_fail(error, "no memory to read %s", path);
    input->path = standard ? "standard input" : path;
    input->longest = longest;
    input->room = FIRST_TEXT;
    input->text = malloc(input->room + 1);
    input->file = standard ? stdin : fopen(path, "rb");
    int status = 0;
    if (!input->file)
        status = replay_fail(error, "cannot read %s: %s", path, strerror(errno));
    else if (!input->text)
        status = replay_fail(error, "no memory to read %s", path);
    else
        status = choose_decoder(input, error);
    if (status) {
        replay_input_close(input);
        return -1;
    }
    if (fstat(fileno(input->file), &about) == 0 && S_ISREG(about.st_mode))
        input->size = (uint64_t)about.st_size;
    *out = input;
    return 0;
}

void replay_input_close(replay_input *input)
{
    if (!input)
        return;
#if REPLAY_XZ
    if (input->kind == XZ)
        lzma_end(&input->xz);
#endif
#if REPLAY_ZSTD
    ZSTD_freeDStream(input->zstd);
#endif
    if (input->file && input->file != stdin)
        fclose(input->file);
    free(input->text);
    free(input);
}

/* Room behind `end`: by moving the text to the front, or by taking more. False: the line is too long. */
static int make_room(replay_input *input, bool *too_long, replay_error *error)
{
    if (input->begin > 0) {
        memmove(input->text, input->text + input->begin, input->end - input->begin);
        input->end -= input->begin;
        input->begin = 0;
    }
    if (input->end < input->room)
        return 0;
    if (input->room >= input->longest) {
        *too_long = true;
        input->end = 0; /* what has come of it is not needed */
        return 0;
    }
    size_t room = 2 * input->room < input->longest ? 2 * input->room : input->longest;
    char *text = realloc(input->text, room + 1);
    if (!text)
        return replay_fail(error, "no memory for a line of %zu bytes", room);
    input->text = text;
    input->room = room;
    return 0;
}

replay_line replay_input_next(replay_input *input, char **line, size_t *length, replay_error *error)
{
    bool too_long = false;
    size_t looked = 0;
    for (;;) {
        char *from = input->text + input->begin;
        size_t have = input->end - input->begin;
        char *stop = memchr(from + looked, '\n', have - looked);
        if (!stop && !input->ended) {
            size_t count = 0;
            looked = have;
            if (make_room(input, &too_long, error))
                return REPLAY_LINE_ERROR;
            looked = looked < input->end ? looked : input->end;
            if (more(input, input->text + input->end, input->room - input->end, &count, error))
                return REPLAY_LINE_ERROR;
            input->end += count;
            continue;
        }
        if (!stop && have == 0 && !too_long)
            return REPLAY_LINE_END;
        *length = stop ? (size_t)(stop - from) : have;
        *line = from;
        input->begin += *length + (stop ? 1 : 0);
        if (*length > input->longest)
            too_long = true;
        from[*length] = '\0'; /* `room` leaves a byte for it */
        if (*length > 0 && from[*length - 1] == '\r')
            from[--*length] = '\0';
        return too_long ? REPLAY_LINE_LONG : REPLAY_LINE_READ;
    }
}
