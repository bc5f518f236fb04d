/* attend_prefill.cu: the entry of prefill attention: checks, and the kernel of the cache's dtype (attend_prefill.cuh,
 * attend_prefill_f32.cu). */
#include "attend_mma.cuh"
#include "attend_prefill.h"

extern "C" quire_status quire__cuda_attend_prefill(const quire__attend_args *args, void *stream)
{
    const quire_status status = qk::check_attend(*args);
    if (status != QUIRE_OK || args->count == 0)
        return status;
    if (!args->tiles || args->pages.kv_heads > 65535 || args->query_heads / args->pages.kv_heads > 8191)
        return QUIRE_EINVAL;
    const bool twice = qk::query_terms(*args) == 2;
    switch (args->pages.dtype) {
    case QUIRE_DTYPE_F32: return qk::prefill_f32(*args, stream);
    case QUIRE_DTYPE_F16: return twice ? qk::prefill_f16_twice(*args, stream) : qk::prefill_f16(*args, stream);
    case QUIRE_DTYPE_BF16: return twice ? qk::prefill_bf16_twice(*args, stream) : qk::prefill_bf16(*args, stream);
    case QUIRE_DTYPE_FP8_E4M3: return qk::prefill_fp8(*args, stream);
    case QUIRE_DTYPE_FP8_E5M2: return qk::prefill_fp8_e5m2(*args, stream);
    case QUIRE_DTYPE_INT8: return qk::prefill_int8(*args, stream);
    case QUIRE_DTYPE_INT4: return qk::prefill_int4(*args, stream);
    default: return QUIRE_EUNSUPPORTED;
    }
}
