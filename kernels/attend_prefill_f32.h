/* attend_prefill_f32.h: prefill over caches of f32; attend_prefill.cu hands them on, its arguments checked.
 */
#ifndef QUIRE_KERNELS_ATTEND_PREFILL_F32_H
#define QUIRE_KERNELS_ATTEND_PREFILL_F32_H

#include "launch.h"

extern "C" quire_status quire__cuda_attend_prefill_f32(const quire__attend_args *args, void *stream);

#endif
