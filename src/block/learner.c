/* learner.c: reuse times by kind of block, with ghosts and right-censoring.
 *
 *    use (key, kind) -> sample --- ages through the bins ---> used again: `back` of its kind and bin rises
 *                          each bin it passes: `alive` rises    too old, or too many: forgotten, and counted in no
 *                                                               later bin (censored)
 *
 * What is followed is a sample of blocks by their key, whether they are cached or not: a ghost is nothing special here,
 * and what the cache does has no influence on what is learned. When the table is full, every second followed block is
 * let go and the sample is half as dense from then on (as in SHARDS, Waldspurger et al., FAST 2015); and so when a path has
 * more followed blocks than TOGETHER on average, which would say the same and cost time.
 *
 * The hazard of a (kind, bin) is back / alive: the chance to come back within the bin for who has reached it. Who is still
 * in the bin counts half (the actuarial estimate of a life table). Kinds form a tree, one feature a level, and most have
 * few data, so each is drawn towards its parent: the parent's curve, scaled by how much more often this kind came back
 * altogether, counts as so many observations. At the root every bin is drawn towards the one before it: without data the
 * chance is the same in each bin of a logarithmic scale, and then the order is that of age, LRU. Blocks of one request
 * come back together, so the weight of the prior is per request, not per block. In the tail, when nearly all who come back
 * have done so, a kind needs TAIL_EVENTS returns of its own: none in a hundred says nothing where one in a thousand is usual.
 *
 * The index of a kind and age is Gittins' (for caching: hit density, Beckmann et al., NSDI 2018): the most that holding
 * the block brings per time, max over t of P(back within t) / E[time held up to t]. Whoever has the lowest goes first.
 *
 * Estimates are renewed kind by kind, a few for each request, parents before children; so no call takes long.
 *
 * Counts are halved once in a while, so that what is learned follows a load that changes.
 */
#include "block/learner.h"

#include <string.h>

#include "base/check.h"
#include "base/status.h"
#include "block/plan.h"

enum { BINS = QUIRE__LEARNER_BINS, KINDS = QUIRE__LEARNER_KINDS, SAMPLES = QUIRE__LEARNER_SAMPLES };
enum { TABLE = QUIRE__LEARNER_TABLE, FEATURES = QUIRE__LEARNER_FEATURES };
enum { YOUNG_BITS = 4, YOUNG = 1 << YOUNG_BITS }; /* ms: the first bin */
enum { MOST_SHIFT = 14, MOST_USES = 255, FREE = 255 };
enum {
    RENEWED = 4,   /* kinds, for each request */
    MOVED = 1024,  /* samples that grow older, at most */
    SWEPT = 16     /* samples looked at for each use, after thinning out */
};

#define ROOT_PRIOR 0.05f    /* the chance to come back in one bin, before anything is known */
#define ROOT_WEIGHT 200.0f  /* observations that a bin's neighbour counts for */
#define PATH_WEIGHT 16.0f   /* requests that the parent's curve counts for */
#define TAIL_EVENTS 8.0f    /* requests that come back, that the parent's curve counts for where few do any more */
#define RARE 0.0005f        /* as if that were the least chance */
#define LEAST 1e-7f         /* chance: none is ruled out, and no float denormal */
#define HALVE_AT 100000.0f  /* uses of samples */
#define TOGETHER 64.0f      /* samples of a path, on average: more would say the same */

uint32_t quire__learner_bin(uint32_t age)
{
    if (age < YOUNG)
        return 0;
    uint32_t octave = 31 - (uint32_t)__builtin_clz(age);
    uint32_t upper = (uint64_t)age * age >= UINT64_C(2) << (2 * octave); /* past the octave's middle, sqrt(2) */
    uint32_t bin = 1 + 2 * (octave - YOUNG_BITS) + upper;
    return bin < BINS ? bin : BINS - 1;
}

uint32_t quire__learner_edge(uint32_t bin)
{
    static const uint64_t root_two = 1518500250; /* 2^30 sqrt(2), rounded up: an edge is in its own bin */
    if (bin == 0)
        return 0;
    uint64_t octave = (uint64_t)YOUNG << ((bin - 1) / 2);
    return (uint32_t)((bin - 1) % 2 ? (octave * root_two + (UINT32_C(1) << 30) - 1) >> 30 : octave);
}

static float width_of(uint32_t bin)
{
    uint32_t from = quire__learner_edge(bin);
    return (float)(bin + 1 < BINS ? quire__learner_edge(bin + 1) - from : from);
}

quire_status quire__learner_open(quire__learner *learner, const quire__allocator *allocator)
{
    void *memory[4] = {0};
    const struct { size_t count, size; } parts[4] = {{KINDS, sizeof(quire__kind)}, {TABLE, sizeof(uint16_t)},
                                                     {SAMPLES, sizeof(quire__sample)}, {SAMPLES, sizeof(uint32_t)}};
    quire_status status = QUIRE_OK;
    for (int i = 0; i < 4 && status == QUIRE_OK; i++)
        status = quire__memory_take(allocator, parts[i].count, parts[i].size, "what eviction learns", &memory[i]);
    learner->kinds = memory[0];
    learner->table = memory[1];
    learner->samples = memory[2];
    learner->buckets = memory[3];
    if (status != QUIRE_OK)
        return status;
    for (uint32_t i = 0; i < SAMPLES; i++) {
        learner->buckets[i] = QUIRE__NONE;
        learner->samples[i].bin = FREE;
        learner->samples[i].next = i + 1 < SAMPLES ? i + 1 : QUIRE__NONE;
    }
    for (uint32_t bin = 0; bin < BINS; bin++)
        learner->oldest[bin] = learner->newest[bin] = QUIRE__NONE;
    for (uint32_t bin = 0; bin < BINS; bin++)
        learner->width[bin] = width_of(bin);
    learner->together = 1;
    learner->sweep = SAMPLES;
    const uint8_t none[FEATURES] = {0};
    (void)quire__learner_kind(learner, none);
    return QUIRE_OK;
}

void quire__learner_close(quire__learner *learner, const quire__allocator *allocator)
{
    quire__memory_give(allocator, learner->buckets);
    quire__memory_give(allocator, learner->samples);
    quire__memory_give(allocator, learner->table);
    quire__memory_give(allocator, learner->kinds);
}

/* ---- what follows from the counts ------------------------------------------------------------------------------ */

static float least(float a, float b)
{
    return a < b ? a : b;
}

/* Counts are halved when next they are looked at. */
static void halve(const quire__learner *learner, quire__kind *kind)
{
    for (; kind->halvings != learner->halvings; kind->halvings++) {
        for (uint32_t bin = 0; bin < BINS; bin++) {
            kind->back[bin] *= 0.5f;
            kind->alive[bin] *= 0.5f;
        }
    }
}

/* The share of all that came back which had done so by the end of the bin, to the 64th power: about 0 where much is to come,
 * 1 in the tail. */
static void find_tail(quire__learner *learner)
{
    const float *back = learner->kinds[0].back;
    float all = 0, so_far = 0;
    for (uint32_t bin = 0; bin < BINS; bin++)
        all += back[bin];
    for (uint32_t bin = 0; bin < BINS && all > 0; bin++) {
        so_far += back[bin];
        float share = so_far / all;
        for (int doubling = 0; doubling < 6; doubling++)
            share *= share;
        learner->tail[bin] = share;
    }
}

static void estimate_root(quire__learner *learner)
{
    quire__kind *root = learner->kinds;
    float before = ROOT_PRIOR;
    for (uint32_t bin = 0; bin < BINS; bin++) {
        before = (root->back[bin] + ROOT_WEIGHT * before) / (root->alive[bin] + ROOT_WEIGHT);
        root->hazard[bin] = least(0.99f, before);
    }
    find_tail(learner);
}

/* Four at a time. */
typedef float quads __attribute__((vector_size(16)));
typedef int32_t masks __attribute__((vector_size(16)));
_Static_assert(QUIRE__LEARNER_BINS % 4 == 0, "whole quads");

static quads quad_at(const float *values)
{
    quads four;
    memcpy(&four, values, sizeof(four));
    return four;
}

static quads least_of(quads a, float b)
{
    const quads all = {b, b, b, b};
    const masks less = a < all;
    return (quads)(((masks)a & less) | ((masks)all & ~less));
}

/* Of all that a request costs, this was most when it went bin by bin. */
static void estimate(quire__kind *kind, const float *parent, float weight, const float *tail)
{
    float back[BINS + 2], alive[BINS + 2]; /* with nothing on either side */
    float came = weight, expected = weight;
    back[0] = back[BINS + 1] = alive[0] = alive[BINS + 1] = 0;
    memcpy(back + 1, kind->back, sizeof(kind->back));
    memcpy(alive + 1, kind->alive, sizeof(kind->alive));
    for (uint32_t bin = 0; bin < BINS; bin++) {
        came += kind->back[bin];
        expected += kind->alive[bin] * parent[bin];
    }
    const float scale = came / expected, event_weight = weight * (TAIL_EVENTS / PATH_WEIGHT);
    for (uint32_t bin = 0; bin < BINS; bin += 4) {
        const quads prior = least_of(quad_at(parent + bin) * scale + LEAST, 0.99f);
        const quads b = quad_at(back + bin + 1) + 0.5f * quad_at(back + bin) + 0.5f * quad_at(back + bin + 2);
        const quads a = quad_at(alive + bin + 1) + 0.5f * quad_at(alive + bin) + 0.5f * quad_at(alive + bin + 2);
        const quads counts = weight + event_weight * quad_at(tail + bin) / (prior + RARE);
        const quads hazard = least_of((b + counts * prior) / (a + counts), 0.99f);
        memcpy(kind->hazard + bin, &hazard, sizeof(hazard));
    }
}

/* The index at a bin's beginning is the slope of the first edge of the upper hull of (time held, chance to be back) over
 * all later bins' ends: the hull grows from the last bin, an edge swallowing those after it that are steeper. */
static void find_worth(quire__kind *kind, const float *width)
{
    float back[BINS], held[BINS], alive[BINS];
    uint32_t top = 0;
    for (uint32_t bin = BINS; bin-- > 0;) {
        float hazard = kind->hazard[bin];
        back[top] = hazard;
        held[top] = (1 - 0.5f * hazard) * width[bin];
        alive[top] = 1 - hazard;
        while (top > 0 && back[top - 1] * held[top] >= back[top] * held[top - 1]) {
            back[top - 1] = back[top] + alive[top] * back[top - 1];
            held[top - 1] = held[top] + alive[top] * held[top - 1];
            alive[top - 1] *= alive[top];
            top--;
        }
        kind->worth[bin] = back[top] / held[top];
        top++;
    }
    kind->worth[BINS] = kind->worth[BINS - 1];
}

static void renew(quire__learner *learner, uint32_t number)
{
    quire__kind *kind = &learner->kinds[number];
    halve(learner, kind);
    if (number == 0)
        estimate_root(learner);
    else
        estimate(kind, learner->kinds[kind->parent].hazard, PATH_WEIGHT * learner->together, learner->tail);
    find_worth(kind, learner->width);
}

float quire__learner_worth(const quire__learner *learner, uint32_t kind, uint32_t bin, uint32_t age)
{
    const float *worth = &learner->kinds[kind].worth[bin];
    float part = (float)(age - quire__learner_edge(bin)) / learner->width[bin];
    return worth[0] + (worth[1] - worth[0]) * least(part, 1);
}

/* ---- kinds ----------------------------------------------------------------------------------------------------- */

/* The kind of that key, new if need be; KINDS: there is none and it cannot be. */
static uint32_t kind_at(quire__learner *learner, uint32_t key, uint32_t parent)
{
    uint32_t at = key * 2654435761u >> 21;
    for (; learner->table[at] != 0; at = (at + 1) % TABLE) {
        uint32_t number = learner->table[at] - 1u;
        if (learner->kinds[number].key == key)
            return number;
    }
    if (learner->kind_count == KINDS)
        return KINDS;
    uint32_t number = learner->kind_count++;
    learner->table[at] = (uint16_t)(number + 1);
    learner->kinds[number].key = key;
    learner->kinds[number].parent = (uint16_t)parent;
    learner->kinds[number].halvings = learner->halvings;
    renew(learner, number);
    return number;
}

uint32_t quire__learner_kind(quire__learner *learner, const uint8_t *features)
{
    uint32_t key = 1, kind = kind_at(learner, key, 0);
    for (uint32_t i = 0; i < FEATURES; i++) {
        QUIRE__ASSERT(features[i] < 16);
        key = key << 4 | features[i];
        uint32_t next = kind_at(learner, key, kind);
        if (next == KINDS)
            break;
        kind = next;
    }
    return kind;
}

/* ---- counting -------------------------------------------------------------------------------------------------- */

/* One of who was in the bin came back. */
static void count_back(quire__learner *learner, uint32_t kind, uint32_t bin)
{
    for (;; kind = learner->kinds[kind].parent) {
        halve(learner, &learner->kinds[kind]);
        learner->kinds[kind].back[bin] += 1;
        learner->kinds[kind].alive[bin] += 0.5f;
        if (kind == 0)
            return;
    }
}

static void count_new(quire__learner *learner, uint32_t kind)
{
    for (;; kind = learner->kinds[kind].parent) {
        halve(learner, &learner->kinds[kind]);
        learner->kinds[kind].alive[0] += 0.5f;
        if (kind == 0)
            return;
    }
}

/* One has passed from a bin to a later one: it was there for the second half of that one, and is for the first of this. */
static void count_passed(quire__learner *learner, uint32_t kind, uint32_t from, uint32_t to)
{
    for (;; kind = learner->kinds[kind].parent) {
        halve(learner, &learner->kinds[kind]);
        float *alive = learner->kinds[kind].alive;
        alive[from] += 0.5f;
        for (uint32_t bin = from + 1; bin < to; bin++)
            alive[bin] += 1;
        alive[to] += 0.5f;
        if (kind == 0)
            return;
    }
}

/* ---- samples --------------------------------------------------------------------------------------------------- */

static bool follows(const quire__learner *learner, uint32_t key)
{
    return (key & ((UINT32_C(1) << learner->shift) - 1)) == 0;
}

static uint32_t *bucket_of(const quire__learner *learner, uint32_t key)
{
    return &learner->buckets[(key * 2654435761u >> 16) % SAMPLES];
}

static void bin_add(quire__learner *learner, uint32_t at, uint32_t bin)
{
    quire__sample *sample = &learner->samples[at];
    sample->bin = (uint8_t)bin;
    sample->newer = QUIRE__NONE;
    sample->older = learner->newest[bin];
    if (sample->older == QUIRE__NONE)
        learner->oldest[bin] = at;
    else
        learner->samples[sample->older].newer = at;
    learner->newest[bin] = at;
}

static void bin_remove(quire__learner *learner, uint32_t at)
{
    const quire__sample *sample = &learner->samples[at];
    if (sample->older == QUIRE__NONE)
        learner->oldest[sample->bin] = sample->newer;
    else
        learner->samples[sample->older].newer = sample->newer;
    if (sample->newer == QUIRE__NONE)
        learner->newest[sample->bin] = sample->older;
    else
        learner->samples[sample->newer].older = sample->older;
}

static void forget(quire__learner *learner, uint32_t at)
{
    uint32_t *link = bucket_of(learner, learner->samples[at].key);
    while (*link != at)
        link = &learner->samples[*link].next;
    *link = learner->samples[at].next;
    bin_remove(learner, at);
    learner->samples[at].bin = FREE;
    learner->samples[at].next = learner->free;
    learner->free = at;
    learner->count--;
}

/* Some more of those that are followed no more, since the sample is half as dense, are let go. */
static void thin_out(quire__learner *learner)
{
    for (uint32_t i = 0; i < SWEPT && learner->sweep < SAMPLES; i++, learner->sweep++) {
        const quire__sample *sample = &learner->samples[learner->sweep];
        if (sample->bin != FREE && !follows(learner, sample->key))
            forget(learner, learner->sweep);
    }
}

static uint32_t find(const quire__learner *learner, uint32_t key)
{
    uint32_t at = *bucket_of(learner, key);
    while (at != QUIRE__NONE && learner->samples[at].key != key)
        at = learner->samples[at].next;
    return at;
}

uint32_t quire__learner_uses(const quire__learner *learner, uint32_t key)
{
    uint32_t at = find(learner, key);
    return at == QUIRE__NONE ? 0 : learner->samples[at].uses;
}

/* The sample moves on to the bin of its age. */
static void catch_up(quire__learner *learner, uint32_t at, uint32_t now)
{
    const quire__sample *sample = &learner->samples[at];
    const uint32_t from = sample->bin, reached = quire__learner_bin(now - sample->since);
    const uint32_t to = reached > from + 1 ? reached : from + 1;
    bin_remove(learner, at);
    count_passed(learner, sample->kind, from, to);
    bin_add(learner, at, to);
}

void quire__learner_use(quire__learner *learner, uint32_t key, uint32_t kind, uint32_t now)
{
    thin_out(learner);
    uint32_t at = find(learner, key);
    if (at != QUIRE__NONE) {
        if (quire__learner_bin(now - learner->samples[at].since) > learner->samples[at].bin)
            catch_up(learner, at, now);
        count_back(learner, learner->samples[at].kind, learner->samples[at].bin);
        bin_remove(learner, at);
        if (learner->samples[at].uses < MOST_USES)
            learner->samples[at].uses++;
    } else {
        if (learner->free == QUIRE__NONE && learner->sweep == SAMPLES && learner->shift < MOST_SHIFT) {
            learner->shift++;
            learner->sweep = 0;
        }
        if (learner->free == QUIRE__NONE || !follows(learner, key))
            return;
        at = learner->free;
        learner->free = learner->samples[at].next;
        uint32_t *bucket = bucket_of(learner, key);
        learner->samples[at].key = key;
        learner->samples[at].next = *bucket;
        learner->samples[at].uses = 1;
        *bucket = at;
        learner->count++;
    }
    learner->samples[at].kind = (uint16_t)kind;
    learner->samples[at].since = now;
    count_new(learner, kind);
    bin_add(learner, at, 0);
    learner->weight += 1;
    if (learner->weight >= HALVE_AT) {
        learner->weight = 0;
        learner->halvings++;
    }
}

void quire__learner_path(quire__learner *learner, uint32_t followed)
{
    if (followed > 0)
        learner->together += ((float)followed - learner->together) / 64;
    if (learner->together <= TOGETHER || learner->sweep < SAMPLES)
        return;
    for (; learner->together > TOGETHER && learner->shift < MOST_SHIFT; learner->shift++)
        learner->together *= 0.5f;
    learner->sweep = 0;
}

void quire__learner_advance(quire__learner *learner, uint32_t now)
{
    uint32_t left = MOVED;
    for (uint32_t bin = 0; bin + 1 < BINS && left > 0; bin++) {
        uint32_t edge = quire__learner_edge(bin + 1), at;
        while ((at = learner->oldest[bin]) != QUIRE__NONE && now - learner->samples[at].since >= edge && left > 0) {
            catch_up(learner, at, now);
            left--;
        }
    }
    if (learner->oldest[BINS - 1] != QUIRE__NONE)
        forget(learner, learner->oldest[BINS - 1]);
    for (uint32_t i = 0; i < RENEWED; i++) {
        renew(learner, learner->turn);
        learner->turn = learner->turn + 1 < learner->kind_count ? learner->turn + 1 : 0;
    }
}
