/* recorded.h: "quire-trace v1", what a program recorded with QUIRE_TRACE=file (the format is in
 * docs/replay.md).
 *
 * The lines name blocks by hashes of their prefix. Here blocks are numbers; a block that is not full yet has
 * one too, and when the file later says what it became, the two are one (`same`). So a prompt's tokens are
 * known, as far as its sequence computed them, from its match on. */
#ifndef REPLAY_RECORDED_H
#define REPLAY_RECORDED_H

#include "quire/quire.h"
#include "trace.h"

typedef enum replay_event_type {
    REPLAY_OPEN, /* number: the domain */
    REPLAY_MATCH, /* tokens: of the prompt; blocks: of it; number: tokens that were found */
    REPLAY_ROW, /* tokens: the sequence's length after it; blocks: from that of its first token on */
    REPLAY_STEP_END, /* of the rows since the last one */
    REPLAY_FORK, /* number: the child */
    REPLAY_TRUNCATE, /* tokens: left */
    REPLAY_CLOSE,
    REPLAY_CLEAR
} replay_event_type;

typedef struct replay_event {
    replay_event_type type;
    uint32_t sequence, tokens;
    uint32_t block_count, first_block; /* first_block: index in the sequence */
    uint64_t blocks; /* into recorded->blocks */
    uint64_t number;
    uint64_t time_us;
} replay_event;

/* Two blocks under one parent that begin with the same tokens. */
typedef struct replay_shared {
    uint32_t block, other, tokens;
} replay_shared;

typedef struct replay_recorded {
    uint32_t block_tokens, device_blocks, host_blocks, max_sequences, max_seq_tokens, max_domains, watermark;
    uint64_t block_bytes;
    quire_offload offload;
    char policy[32];
    uint64_t matches, match_tokens, hit_device, hit_host, hit_partial; /* as the program had them */

    replay_event *events;
    uint32_t *blocks;
    uint32_t *same; /* of a block: another that it turned out to be, or itself */
    uint32_t *parent; /* of a block, or REPLAY_NO_PARENT */
    replay_shared *shared;
    uint32_t *
        token_root; /* [blocks * block_tokens], where anything is shared in part; see replay_recorded_token */
    size_t event_count, block_count, shared_count;
    uint32_t numbered; /* blocks that have a number */
    size_t event_room, block_room, same_room, parent_room, shared_room;
    replay_map names; /* hash -> block */
    struct replay_live *live; /* [max_sequences]: only while reading */
} replay_recorded;

/* From the header line. The lines' memory counts as the trace's. */
int replay_recorded_open(replay_recorded **recorded, const char *header, replay_error *error);
void replay_recorded_close(replay_recorded *recorded);
/* A line after the header. -1: malformed, and nothing was taken of it; or REPLAY_NO_ROOM. */
int replay_recorded_line(replay_recorded *recorded, replay_trace *trace, const char *line,
                         replay_error *error);
/* After the last line: makes the requests of the trace, one a match. */
int replay_recorded_finish(replay_recorded *recorded, replay_trace *trace, replay_error *error);

/* The block that this one is. */
uint32_t replay_recorded_same(const replay_recorded *recorded, uint32_t block);
/* A token id for the j-th token of a block: equal for equal prefixes, as far as the file tells. */
int32_t replay_recorded_token(const replay_recorded *recorded, uint32_t block, uint32_t j);

#endif
