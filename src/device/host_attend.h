/* host_attend.h: the vectorised, threaded host path of attention and append: what people without a GPU run.
 *
 * Batch invariance, by construction: one function computes one query head of one token over pages 0..position in
 * page order, in tiles of a fixed number of keys that start at multiples of that number; a prefill tile and a decode
 * token call the same arithmetic. Which thread does it, and what else is in the batch, cannot matter. */
#ifndef QUIRE_HOST_ATTEND_H
#define QUIRE_HOST_ATTEND_H

#include "device/parallel.h"
#include "kernels/launch.h"

/* Work space of the threads is allocated at open; nothing is allocated in a call. */
typedef struct quire__host_attend quire__host_attend;
quire_status quire__host_attend_open(quire__host_attend **attend, quire__parallel *parallel);
void quire__host_attend_close(quire__host_attend *attend);
/* The threads that it was opened with. */
quire__parallel *quire__host_attend_parallel(const quire__host_attend *attend);
/* Both selections of quire__attend_args: `tiles` where set, else `select`/`first_token`. */
quire_status quire__host_attend_run(quire__host_attend *attend, const quire__attend_args *args);
quire_status quire__host_append_run(quire__host_attend *attend, const quire__append_args *args);
quire_status quire__host_convert_run(quire__host_attend *attend, const quire__convert_args *args);
/* What they refuse: QUIRE_EUNSUPPORTED: head_dim; QUIRE_EINVAL: the heads do not divide. */
quire_status quire__host_attend_check(const quire__attend_args *args);
quire_status quire__host_append_check(const quire__append_args *args);
/* "avx512", "avx2", "baseline": what the CPU at hand selected. */
const char *quire__host_attend_isa(void);
/* Tests: use another variant than the best. QUIRE_EUNSUPPORTED: this CPU or build does not have it. */
quire_status quire__host_attend_use(quire__host_attend *attend, const char *isa);

#endif
