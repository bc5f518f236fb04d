/* worth.c: admission to the host tier. A block is offloaded if the chance that it comes back while the host would hold it
 * is at least LEAST: the chance of not coming back in any of the bins of age that it would pass through meanwhile, by the
 * learner's hazards (learner.c). Of the first and the last bin it passes a part. LEAST: ten blocks moved for one that is used;
 * about there what the moves take is as much as what they save.
 */
#include "block/worth.h"

enum { BINS = QUIRE__LEARNER_BINS };

#define LEAST 0.1f

static float width(uint32_t bin)
{
    uint32_t from = quire__learner_edge(bin);
    return bin + 1 < BINS ? (float)(quire__learner_edge(bin + 1) - from) : (float)from;
}

float quire__worth_back_within(const quire__learner *learner, uint32_t kind, uint32_t age, uint64_t time)
{
    const float *hazard = learner->kinds[kind].hazard;
    uint32_t bin = quire__learner_bin(age);
    float stays = 1, passed = (float)(age - quire__learner_edge(bin)), left = (float)time;
    for (; bin < BINS && left > 0; bin++, passed = 0) {
        float whole = width(bin), part = whole - passed < left ? whole - passed : left;
        if (part > 0)
            stays *= 1 - hazard[bin] * (part / whole);
        left -= part;
    }
    return 1 - stays;
}

bool quire__worth_offload(const quire__learner *learner, uint32_t kind, uint32_t age, uint64_t holds)
{
    return quire__worth_back_within(learner, kind, age, holds > 0 ? holds : UINT64_MAX) >= LEAST;
}
