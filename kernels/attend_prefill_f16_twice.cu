/* attend_prefill_f16_twice.cu: attend_prefill.cuh for caches of this dtype, q as a sum of two operands. */
#include "attend_prefill.cuh"

quire_status qk::prefill_f16_twice(const quire__attend_args &args, void *stream)
{
    return prefill_dim<QUIRE_DTYPE_F16, 2>(args, stream);
}
