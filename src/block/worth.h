/* worth.h: what is worth a place in the host tier, by what the learner knows. */
#ifndef QUIRE_WORTH_H
#define QUIRE_WORTH_H

#include "block/learner.h"

/* The chance that a block of that kind, unused for `age`, comes back within `time`; ms. */
float quire__worth_back_within(const quire__learner *learner, uint32_t kind, uint32_t age, uint64_t time);
/* `holds`: how long the host tier keeps what nobody uses; 0: not known. */
bool quire__worth_offload(const quire__learner *learner, uint32_t kind, uint32_t age, uint64_t holds);

#endif
