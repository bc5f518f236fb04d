/* curve.h: hit ratio against capacity, from a pass or a few.
 *
 * LRU: stack distances, exact for requests one after another, all capacities in one pass (bounds.h). Other
 * policies: the deciding half itself, on blocks so many times as long and a cache of so many times fewer of
 * them, a pass a capacity. */
#ifndef REPLAY_CURVE_H
#define REPLAY_CURVE_H

#include "job.h"

enum { REPLAY_CURVE_POINTS = 40 }; /* at most */

typedef struct replay_curve {
    const char *policy;
    size_t points;
    uint64_t capacities[REPLAY_CURVE_POINTS]; /* blocks, rising */
    uint64_t hits[REPLAY_CURVE_POINTS]; /* tokens (pieces) found */
    uint32_t *request_hits; /* tokens: [requests][points] */
    uint32_t coarse; /* tokens of a block of the passes; 0: stack distances */
    double seconds;
} replay_curve;

/* From `least` blocks (at least what the longest request takes) to all that the trace ever stores. */
int replay_curve_make(replay_curve *curve, const replay_job *job, const char *policy, uint64_t least,
                      replay_error *error);
void replay_curve_close(replay_curve *curve);
/* Tokens found at a capacity between the points, by the straight line between them. */
double replay_curve_at(const replay_curve *curve, double blocks);

/* Makes a curve for each policy of the options, writes them to options->curve beside the bounds, checks them
 * against exact runs, and says what to buy. */
int replay_curves(const replay_job *job, replay_error *error);

#endif
