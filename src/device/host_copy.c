/* host_copy.c: cuts copies into parts of about PART bytes, which threads take in any order. Below two parts a thread
 * takes longer to wake than the copy does. */
#include "device/host_copy.h"

#include <stdbool.h>
#include <string.h>

enum { PART = 256 * 1024 };

static void run_parts(quire__parallel *parallel, size_t parts, void (*body)(void *arg, size_t index), void *job)
{
    if (parts == 1)
        body(job, 0);
    else if (parts > 1)
        quire__parallel_for(parallel, parts, body, job);
}

/* ---- blocks -------------------------------------------------------------------------------------------------- */

typedef struct block_job {
    const quire__block_copy_args *args;
    int64_t parts; /* of a pair */
} block_job;

static void copy_block_part(void *arg, size_t index)
{
    const block_job *job = arg;
    const quire__block_copy_args *args = job->args;
    int64_t pair = (int64_t)index / job->parts, part = (int64_t)index % job->parts;
    unsigned char *to = args->arena + args->pairs[pair].destination * args->block_stride;
    const unsigned char *from = args->arena + args->pairs[pair].source * args->block_stride;

    if (args->tokens != NULL) {
        int64_t first = args->rows * part / job->parts, end = args->rows * (part + 1) / job->parts;
        size_t bytes = (size_t)(args->tokens[pair] * args->token_bytes);
        for (int64_t row = first; row < end; row++)
            memcpy(to + row * args->row_stride, from + row * args->row_stride, bytes);
    } else {
        int64_t at = part * PART, left = args->block_bytes - at;
        memcpy(to + at, from + at, (size_t)(left < PART ? left : PART));
    }
}

void quire__host_block_copy_run(quire__parallel *parallel, const quire__block_copy_args *args)
{
    int64_t bytes = args->tokens != NULL ? args->rows * args->most_tokens * args->token_bytes : args->block_bytes;
    block_job job = {args, (bytes + PART - 1) / PART};

    if (args->count > 0 && bytes > 0)
        run_parts(parallel, (size_t)(args->count * job.parts), copy_block_part, &job);
}

/* ---- pieces -------------------------------------------------------------------------------------------------- */

typedef struct piece_job {
    const quire__pieces_args *args;
    int64_t pieces; /* of a part; 0: a piece is several parts */
    int64_t parts;  /* of a piece, then */
    bool gather;
} piece_job;

static void copy_piece(const piece_job *job, int64_t piece, int64_t at, int64_t bytes)
{
    unsigned char *in_arena = job->args->arena + job->args->offsets[piece] + at;
    unsigned char *in_staging = job->args->staging + piece * job->args->piece_bytes + at;
    memcpy(job->gather ? in_staging : in_arena, job->gather ? in_arena : in_staging, (size_t)bytes);
}

static void copy_pieces(void *arg, size_t index)
{
    const piece_job *job = arg;
    int64_t bytes = job->args->piece_bytes;

    if (job->pieces == 0) {
        int64_t at = (int64_t)index % job->parts * PART, left = bytes - at;
        copy_piece(job, (int64_t)index / job->parts, at, left < PART ? left : PART);
        return;
    }
    int64_t first = (int64_t)index * job->pieces, end = first + job->pieces;
    for (int64_t piece = first; piece < end && piece < job->args->count; piece++)
        copy_piece(job, piece, 0, bytes);
}

static void run_pieces(quire__parallel *parallel, const quire__pieces_args *args, bool gather)
{
    piece_job job = {.args = args, .gather = gather};
    int64_t parts;

    if (args->count <= 0 || args->piece_bytes <= 0)
        return;
    if (args->piece_bytes <= PART) {
        job.pieces = PART / args->piece_bytes;
        parts = (args->count + job.pieces - 1) / job.pieces;
    } else {
        job.parts = (args->piece_bytes + PART - 1) / PART;
        parts = args->count * job.parts;
    }
    run_parts(parallel, (size_t)parts, copy_pieces, &job);
}

void quire__host_gather_run(quire__parallel *parallel, const quire__pieces_args *args)
{
    run_pieces(parallel, args, true);
}

void quire__host_scatter_run(quire__parallel *parallel, const quire__pieces_args *args)
{
    run_pieces(parallel, args, false);
}
