/* options.h: the command line of quire-replay. */
#ifndef REPLAY_OPTIONS_H
#define REPLAY_OPTIONS_H

#include "engine.h"
#include "error.h"
#include "read.h"

enum { REPLAY_MOST_SIZES = 32, REPLAY_MOST_POLICIES = 32, REPLAY_MOST_OFFLOADS = 3 };

typedef enum replay_unit { REPLAY_BYTES, REPLAY_TOKENS, REPLAY_BLOCKS, REPLAY_PERCENT } replay_unit;

/* A capacity as it was written; what it is in blocks depends on the model and the trace. */
typedef struct replay_size {
    double value;
    replay_unit unit;
} replay_size;

typedef struct replay_sizes {
    replay_size list[REPLAY_MOST_SIZES];
    uint32_t count;
} replay_sizes;

typedef struct replay_prices {
    double device, host; /* of a GiB */
    double ttft;         /* wanted seconds to the first token; 0: not asked */
    double percentile;   /* of the requests that are to have it */
    double share;        /* of what an infinite cache finds, 0..1 */
} replay_prices;

typedef struct replay_options {
    const char *path;
    replay_read_options read;
    /* the model and the cache */
    uint32_t layers, kv_heads, head_dim, element_bytes, block_tokens;
    uint64_t token_bytes; /* 0: of those four */
    bool pieces, output;
    replay_sizes device, host;
    const char *policies[REPLAY_MOST_POLICIES];
    uint32_t policy_count;
    quire_offload offloads[REPLAY_MOST_OFFLOADS];
    uint32_t offload_count;
    bool timed, as_recorded, hints;
    bool device_given, host_given, block_given, model_given, policy_given;
    replay_engine_model model;
    /* the curve and the plan */
    const char *curve; /* the CSV file; NULL: none */
    uint32_t check;    /* exact runs */
    bool plan;
    replay_prices prices;
    uint32_t nodes[REPLAY_MOST_SIZES], node_count; /* of clusters; 0: none */
    /* what to show */
    bool json, quiet, floor;
} replay_options;

/* Exits with 0 after --help and --version. */
int replay_options_parse(replay_options *options, int argc, char **argv, replay_error *error);
/* "64G", "2.1Mtok", "4096blk", "5%", several separated by commas. */
int replay_sizes_parse(const char *option, const char *text, replay_sizes *sizes, replay_error *error);
/* Bytes of KV that a token has. */
uint64_t replay_token_bytes(const replay_options *options);

#endif
