/* attend_prefill_int8.cu: attend_prefill.cuh for caches of this dtype, q as one operand. */
#include "attend_prefill.cuh"

quire_status qk::prefill_int8(const quire__attend_args &args, void *stream)
{
    return prefill_dim<QUIRE_DTYPE_INT8, 1>(args, stream);
}
