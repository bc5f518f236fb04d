/* frames.h: what rank 0 and the other ranks say to each other.
 *
 *   rank 0  -> rank      welcome                    how many slots, sequences, tokens; the rank's number
 *   rank    -> rank 0    ready                      or why not
 *   rank 0  -> rank      frames of records          moves (one plan's), steps (rows, then copies), farewell
 *   rank    -> rank 0    reports                    what has ended, in the order of its start; steps that are enqueued
 *
 * Records are one stream of bytes, cut into frames wherever one is full; a frame has a checksum. Every rank gets the same
 * bytes. Nothing is answered one by one: frames go out as decisions are made, reports come back as copies end.
 *
 * A decode step is 32 bytes a row, 4 more where it begins a block; a move is 16 bytes. */
#ifndef QUIRE_FRAMES_H
#define QUIRE_FRAMES_H

#include "block/plan.h"
#include "kernels/launch.h"

enum { QUIRE__FRAME_BYTES = 64 * 1024, QUIRE__FRAMES_VERSION = 1, QUIRE__FRAMES_TEXT = 160 };
#define QUIRE__FRAME_MAGIC 0x51465231u   /* "1RFQ" */
#define QUIRE__REPORT_MAGIC 0x51525031u  /* "1PRQ" */
#define QUIRE__WELCOME_MAGIC UINT64_C(0x3152414e4b455251)

typedef struct quire__welcome {
    uint64_t magic;
    uint32_t version, rank, ranks, block_tokens;
    uint32_t device_slots, host_slots, max_sequences, max_seq_tokens, max_step_tokens, move_timeout_ms;
    uint64_t timeout_us; /* of an exchange: rank 0 wants to hear more often than that where it waits for something */
} quire__welcome;

typedef struct quire__rank_ready {
    uint64_t magic;
    int64_t status;
    char text[QUIRE__FRAMES_TEXT];
} quire__rank_ready;

typedef struct quire__frame_head {
    uint32_t magic, bytes;
    uint64_t checksum; /* of the bytes that follow */
} quire__frame_head;

typedef enum quire__record_kind { QUIRE__RECORD_MOVES = 1, QUIRE__RECORD_STEP, QUIRE__RECORD_FAREWELL } quire__record_kind;

typedef struct quire__record_head {
    uint32_t kind;
    uint32_t count;  /* moves, or rows */
    uint32_t copies; /* of a step */
    uint32_t graph_rows, graph_context, zero; /* of a step for a graph */
    uint64_t step;   /* its number */
} quire__record_head;

typedef struct quire__wire_move {
    uint32_t source, destination;
    uint64_t ticket_restore; /* ticket * 2, and 1 for a restore */
} quire__wire_move;

typedef struct quire__wire_row { /* then slots [changed, blocks) of the sequence's table, int32 */
    uint64_t owner;
    uint32_t seq, blocks, changed, length, added, zero;
} quire__wire_row;

typedef enum quire__report_kind {
    QUIRE__REPORT_ALIVE = 1, /* nothing new */
    QUIRE__REPORT_STEP,      /* `step` is enqueued */
    QUIRE__REPORT_DONE,      /* the next `count` moves of the direction have ended */
    QUIRE__REPORT_FAILED,
    QUIRE__REPORT_LATE,      /* their time is up; they end later */
    QUIRE__REPORT_FAREWELL   /* the last one */
} quire__report_kind;

typedef struct quire__report {
    uint32_t magic, kind, restore, count;
    uint64_t step;
} quire__report;

/* ---- writing: rank 0 ----------------------------------------------------------------------------------------- */

typedef struct quire__frame_out {
    unsigned char *memory; /* QUIRE__FRAME_BYTES behind a head */
    uint32_t used;
    quire_status (*send)(void *arg, const void *data, size_t bytes);
    void *arg;
    quire_status status; /* the first failure; nothing is sent after it */
} quire__frame_out;

void quire__frame_put(quire__frame_out *out, const void *data, size_t bytes);
/* Sends what has not been sent yet. */
quire_status quire__frame_flush(quire__frame_out *out);

/* ---- reading: the others ------------------------------------------------------------------------------------- */

typedef struct quire__frame_in {
    unsigned char *memory; /* QUIRE__FRAME_BYTES */
    uint32_t bytes, at;
    quire_status (*receive)(void *arg, void *data, size_t bytes);
    void *arg;
} quire__frame_in;

/* Has every byte that was received been taken? */
bool quire__frame_empty(const quire__frame_in *in);
/* The rest of a frame whose first byte has come, since a wait for that is done by the caller. */
quire_status quire__frame_rest(quire__frame_in *in, unsigned char first);
/* The next bytes of the stream, with further frames where they go on. QUIRE_EPEER: what came is no frame. */
quire_status quire__frame_take(quire__frame_in *in, void *data, size_t bytes);

#endif
