/* attend_prefill_fp8_twice.cu: attend_prefill.cuh for caches of this dtype, q as a sum of two operands. */
#include "attend_prefill.cuh"

quire_status qk::prefill_fp8_twice(const quire__attend_args &args, void *stream)
{
    return prefill_dim<QUIRE_DTYPE_FP8_E4M3, 2>(args, stream);
}
