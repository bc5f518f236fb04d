/* outcome.h: what a replay came to. Tokens, unless a name says otherwise; with --pieces a token is a piece.
 * */
#ifndef REPLAY_OUTCOME_H
#define REPLAY_OUTCOME_H

#include <stdint.h>

typedef struct replay_outcome {
    uint64_t requests, refused; /* refused: never fit this cache; computed whole, beside it */
    uint64_t input_tokens;
    uint64_t hit_device, hit_host; /* of the prompts: found on the device, restored from the host */
    uint64_t computed; /* prompts and outputs, with what a preemption made to be computed again */
    uint64_t blocks; /* that prompts and outputs fill: found or new */
    uint64_t found_blocks;
    uint64_t evictions_device, evictions_host, offloads, restores; /* blocks */
    uint64_t offloads_missed, offloads_declined;
    uint64_t preemptions;
    double book_seconds, whole_seconds; /* CPU time: inside the deciding half, and in all */
    /* timed only */
    double virtual_seconds;
    double ttft_mean, ttft_p50, ttft_p95, ttft_p99; /* seconds from arrival to the first token */
    uint32_t most_running, most_waiting;
} replay_outcome;

#endif
