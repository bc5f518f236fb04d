/* attend_prefill_fp8_e5m2.cu: attend_prefill.cuh for caches of this dtype, q as one operand. */
#include "attend_prefill.cuh"

quire_status qk::prefill_fp8_e5m2(const quire__attend_args &args, void *stream)
{
    return prefill_dim<QUIRE_DTYPE_FP8_E5M2, 1>(args, stream);
}
