#include "sampler.h"

#include <math.h>
#include <stdlib.h>

/* SplitMix64 (Steele, Lea, Flood 2014). */
static uint64_t mix(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

void sampler_init(sampler *s, const sampler_options *options, uint32_t branch)
{
    s->options = *options;
    uint64_t state = options->seed;
    s->state = mix(&state) + branch * 0xd1342543de82ef95u;
}

static size_t likeliest(const float *logits, size_t count)
{
    size_t best = 0;
    for (size_t i = 1; i < count; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

static int descending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* The least weight that belongs to the smallest set whose weights sum to at least top_p of all. Tokens of less than
 * (1 - top_p) / count of the whole cannot belong to it, since together they are less than what may be left out; that
 * leaves a handful to sort. */
static double least_weight(const double *weights, size_t count, double total, double top_p)
{
    double floor = (1.0 - top_p) * total / (double)count;
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) kept += weights[i] >= floor;
    double *sorted = malloc((kept ? kept : 1) * sizeof *sorted);
    if (!sorted) return 0.0; /* out of memory: draw from all of them */
    for (size_t i = 0, n = 0; i < count; i++)
        if (weights[i] >= floor) sorted[n++] = weights[i];
    qsort(sorted, kept, sizeof *sorted, descending);
    double sum = 0.0, least = 0.0;
    for (size_t i = 0; i < kept && sum < top_p * total; i++) sum += least = sorted[i];
    free(sorted);
    return least;
}

static size_t draw(sampler *s, double *weights, size_t count, double total)
{
    double least = 0.0;
    if (s->options.top_p < 1.0f) {
        least = least_weight(weights, count, total, (double)s->options.top_p);
        total = 0.0;
        for (size_t i = 0; i < count; i++)
            if (weights[i] >= least) total += weights[i];
    }
    double point = (double)(mix(&s->state) >> 11) * 0x1p-53 * total, sum = 0.0;
    size_t last = 0;
    for (size_t i = 0; i < count; i++) {
        if (weights[i] < least || weights[i] == 0.0) continue;
        sum += weights[i];
        last = i;
        if (sum > point) break;
    }
    return last;
}

int32_t sampler_pick(sampler *s, const float *logits, size_t count, double *work, double *log_probability)
{
    size_t best = likeliest(logits, count), chosen = best;
    double total = 0.0, largest = (double)logits[best];
    for (size_t i = 0; i < count; i++) total += (double)expf(logits[i] - logits[best]);
    if (s->options.temperature > 0.0f) {
        double weight_sum = 0.0, temperature = (double)s->options.temperature;
        for (size_t i = 0; i < count; i++)
            weight_sum += work[i] = (double)expf((float)(((double)logits[i] - largest) / temperature));
        chosen = draw(s, work, count, weight_sum);
    }
    *log_probability = (double)logits[chosen] - largest - log(total);
    return (int32_t)chosen;
}
