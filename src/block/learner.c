/* learner.c: reuse times by kind of block, with ghosts and right-censoring.
 *
 *    use (key, kind) -> sample --- ages through the bins ---> used again: `back` of its kind and bin rises
 *                          each bin it enters: `alive` rises    too old, or too many: forgotten, and counted in no
 *                                                               later bin (censored)
 *
 * What is followed is a sample of blocks by their key, whether they are cached or not: a ghost is nothing special here,
 * and what the cache does has no influence on what is learned. When the table is full, every second followed block is
 * let go and the sample is half as dense from then on (as in SHARDS, Waldspurger et al., FAST 2015).
 *
 * The hazard of a (kind, bin) is back / alive: the chance to come back within the bin for who has reached it. Kinds form
 * a tree by their features, and most have few data, so each is drawn towards its parent: the parent's curve, scaled by
 * how much more often this kind came back altogether, counts as so many observations. Two features, growth and gap, are
 * learned beside each other, and where they meet their effects multiply until data say otherwise. At the root every bin is drawn
 * towards the one before it: without data the chance is the same in each bin of a logarithmic scale, and then the order
 * is that of age, LRU. Blocks of one request come back together, so the weight of the prior is per request, not per
 * block.
 *
 * The index of a cell is Gittins' (for caching: hit density, Beckmann et al., NSDI 2018): the most that holding the block
 * brings per time, max over t of P(back within t) / E[time held up to t]. Whoever has the lowest goes first.
 *
 * Counts are halved once in a while, so that what is learned follows a load that changes.
 */
#include "block/learner.h"

#include <string.h>

#include "base/check.h"
#include "base/status.h"
#include "block/plan.h"

enum { BINS = QUIRE__LEARNER_BINS, KINDS = QUIRE__LEARNER_KINDS, SAMPLES = QUIRE__LEARNER_SAMPLES };
enum { GROWTHS = QUIRE__LEARNER_GROWTHS, GAPS = QUIRE__LEARNER_GAPS };
enum { MOST_SHIFT = 40 };

static const uint32_t level_rows[QUIRE__LEARNER_LEVELS] = {1, 2, 10, 30, 150, 270, KINDS};
static const uint32_t level_start[QUIRE__LEARNER_LEVELS] = {0, 1, 3, 13, 43, 193, 463};

#define ROOT_PRIOR 0.05f    /* the chance to come back in one bin, before anything is known */
#define ROOT_WEIGHT 200.0f  /* observations that a bin's neighbour counts for */
#define PATH_WEIGHT 20.0f   /* requests that the parent's curve counts for */
#define JOINT_WEIGHT 80.0f  /* the same where growth and gap meet, which is where data are fewest */
#define HALVE_AT 400000.0f  /* uses */

uint32_t quire__learner_bin(uint32_t age)
{
    uint32_t units = age >> 4;
    if (units == 0)
        return 0;
    uint32_t octave = 31 - (uint32_t)__builtin_clz(units);
    uint32_t upper = (uint64_t)units * units >= (UINT64_C(2) << (2 * octave)); /* past the octave's middle, sqrt(2) */
    uint32_t bin = 1 + 2 * octave + upper;
    return bin < BINS ? bin : BINS - 1;
}

uint32_t quire__learner_edge(uint32_t bin)
{
    static const uint32_t root_two = 92682; /* 2^16 sqrt(2), rounded up: an edge is in its own bin */
    if (bin == 0)
        return 0;
    uint64_t units = UINT64_C(1) << ((bin - 1) / 2);
    return (uint32_t)((bin - 1) % 2 ? ((units * root_two + 65535) >> 16) << 4 : units << 4);
}

quire_status quire__learner_open(quire__learner *learner, const quire__allocator *allocator)
{
    void *memory[8] = {0};
    const size_t row = sizeof(float[BINS]), rows = QUIRE__LEARNER_ROWS, cells = QUIRE__LEARNER_CELLS;
    const struct { size_t count, size; } parts[8] = {
        {rows, row}, {rows, row}, {rows, row}, {cells, sizeof(uint64_t)}, {cells, sizeof(uint32_t)},
        {cells, sizeof(uint32_t)}, {SAMPLES, sizeof(quire__sample)}, {SAMPLES, sizeof(uint32_t)}};
    quire_status status = QUIRE_OK;
    for (int i = 0; i < 8 && status == QUIRE_OK; i++)
        status = quire__memory_take(allocator, parts[i].count, parts[i].size, "what eviction learns", &memory[i]);
    learner->back = memory[0];
    learner->alive = memory[1];
    learner->hazard = memory[2];
    learner->order = memory[3];
    learner->rank = memory[4];
    learner->at = memory[5];
    learner->samples = memory[6];
    learner->buckets = memory[7];
    if (status != QUIRE_OK)
        return status;
    for (uint32_t i = 0; i < SAMPLES; i++) {
        learner->buckets[i] = QUIRE__NONE;
        learner->samples[i].next = i + 1 < SAMPLES ? i + 1 : QUIRE__NONE;
    }
    for (uint32_t bin = 0; bin < BINS; bin++)
        learner->oldest[bin] = learner->newest[bin] = QUIRE__NONE;
    learner->together = 1;
    return QUIRE_OK;
}

void quire__learner_close(quire__learner *learner, const quire__allocator *allocator)
{
    void *memory[8] = {learner->back, learner->alive, learner->hazard, learner->order, learner->rank, learner->at,
                       learner->samples, learner->buckets};
    for (int i = 0; i < 8; i++)
        quire__memory_give(allocator, memory[i]);
}

/* ---- counting ------------------------------------------------------------------------------------------------ */

/* Levels: all, ended, turn, place; then growth and gap, each without the other; then both. */
enum { ALONE = 3, GROWTH = 4, GAP = 5, JOINT = 6 };

static uint32_t row_of(int level, uint32_t kind)
{
    if (level == GAP)
        return level_start[GAP] + kind / (GROWTHS * GAPS) * GAPS + kind % GAPS;
    return level_start[level] + kind / (KINDS / level_rows[level]);
}

static void count(float (*table)[BINS], uint32_t kind, uint32_t bin)
{
    for (int level = 0; level < QUIRE__LEARNER_LEVELS; level++)
        table[row_of(level, kind)][bin] += 1;
}

static void halve(quire__learner *learner)
{
    for (uint32_t row = 0; row < QUIRE__LEARNER_ROWS; row++) {
        for (uint32_t bin = 0; bin < BINS; bin++) {
            learner->back[row][bin] *= 0.5f;
            learner->alive[row][bin] *= 0.5f;
        }
    }
    learner->weight = 0;
}

/* ---- samples ------------------------------------------------------------------------------------------------- */

static uint32_t *bucket_of(quire__learner *learner, uint64_t key)
{
    return &learner->buckets[(key >> 44) % SAMPLES];
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
    learner->samples[at].next = learner->free;
    learner->free = at;
    learner->count--;
}

/* Half of what is followed, by key, is followed no more. */
static void thin_out(quire__learner *learner)
{
    if (learner->shift < MOST_SHIFT)
        learner->shift++;
    for (uint32_t bin = 0; bin < BINS; bin++) {
        for (uint32_t at = learner->oldest[bin], next; at != QUIRE__NONE; at = next) {
            next = learner->samples[at].newer;
            if (!quire__learner_follows(learner, learner->samples[at].key))
                forget(learner, at);
        }
    }
}

static uint32_t find(quire__learner *learner, uint64_t key)
{
    uint32_t at = *bucket_of(learner, key);
    while (at != QUIRE__NONE && learner->samples[at].key != key)
        at = learner->samples[at].next;
    return at;
}

void quire__learner_use(quire__learner *learner, uint64_t key, uint32_t kind, uint32_t now)
{
    uint32_t at = find(learner, key);
    if (at != QUIRE__NONE) {
        count(learner->back, learner->samples[at].kind, learner->samples[at].bin);
        bin_remove(learner, at);
    } else {
        while (learner->count == SAMPLES && learner->shift < MOST_SHIFT)
            thin_out(learner);
        if (learner->count == SAMPLES || !quire__learner_follows(learner, key))
            return;
        at = learner->free;
        learner->free = learner->samples[at].next;
        uint32_t *bucket = bucket_of(learner, key);
        learner->samples[at].key = key;
        learner->samples[at].next = *bucket;
        *bucket = at;
        learner->count++;
    }
    learner->samples[at].kind = (uint16_t)kind;
    learner->samples[at].since = now;
    bin_add(learner, at, 0);
    count(learner->alive, kind, 0);
    learner->weight += 1;
    if (learner->weight >= HALVE_AT)
        halve(learner);
}

void quire__learner_path(quire__learner *learner, uint32_t followed)
{
    if (followed > 0)
        learner->together += ((float)followed - learner->together) / 64;
}

void quire__learner_advance(quire__learner *learner, uint32_t now)
{
    for (uint32_t bin = 0; bin < BINS; bin++) {
        uint32_t at = learner->oldest[bin];
        if (bin == BINS - 1) {
            if (at != QUIRE__NONE)
                forget(learner, at);
            break;
        }
        uint32_t edge = quire__learner_edge(bin + 1);
        for (; at != QUIRE__NONE && now - learner->samples[at].since >= edge; at = learner->oldest[bin]) {
            bin_remove(learner, at);
            bin_add(learner, at, bin + 1);
            count(learner->alive, learner->samples[at].kind, bin + 1);
        }
    }
}

/* ---- what follows from it ------------------------------------------------------------------------------------ */

static float least(float a, float b)
{
    return a < b ? a : b;
}

static void estimate(quire__learner *learner, uint32_t row, const float *parent, float weight)
{
    const float *back = learner->back[row], *alive = learner->alive[row];
    float *hazard = learner->hazard[row], came = weight, expected = weight;
    for (uint32_t bin = 0; bin < BINS; bin++) {
        came += back[bin];
        expected += alive[bin] * parent[bin];
    }
    for (uint32_t bin = 0; bin < BINS; bin++) {
        float prior = least(0.99f, parent[bin] * (came / expected)), b = back[bin], a = alive[bin];
        if (bin > 0) {
            b += 0.5f * back[bin - 1];
            a += 0.5f * alive[bin - 1];
        }
        if (bin + 1 < BINS) {
            b += 0.5f * back[bin + 1];
            a += 0.5f * alive[bin + 1];
        }
        hazard[bin] = least(0.99f, (b + weight * prior) / (a + weight));
    }
}

static void estimate_all(quire__learner *learner)
{
    float before = ROOT_PRIOR, weight = PATH_WEIGHT * learner->together;
    for (uint32_t bin = 0; bin < BINS; bin++) {
        before = (learner->back[0][bin] + ROOT_WEIGHT * before) / (learner->alive[0][bin] + ROOT_WEIGHT);
        learner->hazard[0][bin] = before;
    }
    for (int level = 1; level <= GROWTH; level++) {
        uint32_t ratio = level_rows[level] / level_rows[level - 1];
        for (uint32_t i = 0; i < level_rows[level]; i++)
            estimate(learner, level_start[level] + i, learner->hazard[level_start[level - 1] + i / ratio], weight);
    }
    for (uint32_t i = 0; i < level_rows[GAP]; i++)
        estimate(learner, level_start[GAP] + i, learner->hazard[level_start[ALONE] + i / GAPS], weight);
    for (uint32_t kind = 0; kind < KINDS; kind++) {
        if (!learner->seen[kind])
            continue;
        const float *alone = learner->hazard[row_of(ALONE, kind)], *growth = learner->hazard[row_of(GROWTH, kind)];
        const float *gap = learner->hazard[row_of(GAP, kind)];
        float prior[BINS];
        for (uint32_t bin = 0; bin < BINS; bin++)
            prior[bin] = least(0.99f, growth[bin] * gap[bin] / (alone[bin] + 1e-9f));
        estimate(learner, row_of(JOINT, kind), prior, JOINT_WEIGHT * learner->together);
    }
}

/* Of one who is in the bin, three quarters of it being still to come on average of those who are asked. */
static float gittins(const float *hazard, uint32_t bin)
{
    float alive = 1, back = 0, held = 0, best = 0;
    for (uint32_t at = bin; at < BINS && alive > 1e-3f; at++) {
        float from = (float)quire__learner_edge(at);
        float width = at + 1 < BINS ? (float)quire__learner_edge(at + 1) - from : from;
        if (at == bin)
            width *= 0.75f;
        back += alive * hazard[at];
        held += alive * (1 - 0.5f * hazard[at]) * width;
        alive *= 1 - hazard[at];
        if (back > best * held)
            best = back / held;
    }
    return best;
}

/* Shell's sort with Ciura's gaps: no memory, no recursion. */
static void sort(uint64_t *values, uint32_t count)
{
    static const uint32_t gaps[] = {8861, 3938, 1750, 701, 301, 132, 57, 23, 10, 4, 1};
    for (size_t g = 0; g < sizeof(gaps) / sizeof(*gaps); g++) {
        for (uint32_t i = gaps[g]; i < count; i++) {
            uint64_t value = values[i];
            uint32_t at = i;
            for (; at >= gaps[g] && values[at - gaps[g]] > value; at -= gaps[g])
                values[at] = values[at - gaps[g]];
            values[at] = value;
        }
    }
}

void quire__learner_rank(quire__learner *learner)
{
    uint32_t ranked = 0;
    estimate_all(learner);
    for (uint32_t kind = 0; kind < KINDS; kind++) {
        if (!learner->seen[kind])
            continue;
        const float *hazard = learner->hazard[row_of(JOINT, kind)];
        float later = 0;
        for (uint32_t bin = BINS; bin-- > 0;) {
            float index = gittins(hazard, bin); /* not negative: its bits are in the order of its value */
            const uint32_t cell = kind * BINS + bin;
            learner->rising[cell / 64] &= ~(UINT64_C(1) << cell % 64);
            learner->rising[cell / 64] |= (uint64_t)(later > index) << cell % 64;
            later = index;
            uint32_t bits;
            memcpy(&bits, &index, sizeof(bits));
            learner->order[ranked++] = (uint64_t)bits << 32 | (uint64_t)(BINS - 1 - bin) << 16 | kind;
        }
    }
    sort(learner->order, ranked);
    for (uint32_t i = 0; i < ranked; i++) {
        uint32_t bin = BINS - 1 - (uint32_t)(learner->order[i] >> 16 & 0xffff);
        uint32_t cell = (uint32_t)(learner->order[i] & 0xffff) * BINS + bin;
        learner->rank[cell] = i;
        learner->at[i] = cell;
    }
    learner->ranked = ranked;
}
