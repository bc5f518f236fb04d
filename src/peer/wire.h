/* wire.h: what two peers say to each other. Both are of one byte order: the magic number shows when they are not.
 *
 *   both         meeting                              the geometry of a block
 *   sender       offer, tokens
 *   receiver     answer                               how many tokens it has; or why it refuses
 *   sender       block header, bytes                  for each block from there on
 *   receiver     answer                               how many tokens it has now; or what went wrong
 *
 * A receiver that fails in the middle says so at once and reads on to the end, so that the link stays usable.
 */
#ifndef QUIRE_PEER_WIRE_H
#define QUIRE_PEER_WIRE_H

#include "cache/layout.h"

#define QUIRE__WIRE_MAGIC UINT64_C(0x3152454550495551) /* "QUIPEER1" */
enum { QUIRE__WIRE_VERSION = 1, QUIRE__WIRE_TEXT = 160 };

typedef struct quire__wire_meeting {
    uint64_t magic;
    uint32_t version, dtype, block_tokens, layers, kv_heads, head_dim;
    uint64_t block_bytes;
    uint64_t scales; /* checksum of them; 0: none */
} quire__wire_meeting;

typedef struct quire__wire_offer {
    uint64_t magic, domain, tokens;
    uint64_t checksum; /* of the tokens */
} quire__wire_offer;

typedef struct quire__wire_answer {
    uint64_t magic, have;
    int64_t status; /* a quire_status */
    char text[QUIRE__WIRE_TEXT];
} quire__wire_answer;

typedef struct quire__wire_block {
    uint64_t magic, index;
    uint64_t checksum; /* of the block's bytes, then of what is above */
} quire__wire_block;

/* QUIRE_EINVAL: the text names the first field that differs, and both values. */
quire_status quire__wire_compare(const quire__wire_meeting *ours, const quire__wire_meeting *theirs);
/* Never 0. */
uint64_t quire__wire_checksum(uint64_t index, const void *bytes, size_t count);

#endif
