/* sampler.h: picks the next token from a row of logits.
 *
 * Deterministic: the same logits and the same state give the same token on every machine with the same arithmetic.
 * Ties go to the lowest id. The generator is our own, so that a seed means the same everywhere.
 */
#ifndef INFER_SAMPLER_H
#define INFER_SAMPLER_H

#include <stddef.h>
#include <stdint.h>

typedef struct sampler_options {
    float temperature; /* 0: the most likely token */
    float top_p;       /* in (0, 1]: only the likeliest tokens whose probabilities sum to at least this */
    uint64_t seed;
} sampler_options;

typedef struct sampler {
    sampler_options options;
    uint64_t state;
} sampler;

/* Branch 0, 1, ... of one request draw from different streams of the same seed. */
void sampler_init(sampler *sampler, const sampler_options *options, uint32_t branch);

/* `work` has room for `count` numbers. `*log_probability` is of the token that is returned, under the model's own
 * distribution (temperature 1, all tokens). */
int32_t sampler_pick(sampler *sampler, const float *logits, size_t count, double *work, double *log_probability);

#endif
