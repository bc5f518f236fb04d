/* attend_decode_int8.cu: attend_decode.cuh for caches of this dtype, a file of its own so that compilers work side by side. */
#include "attend_decode.cuh"

quire_status qk::decode_int8(const quire__attend_args &args, split_plan &plan, void *stream)
{
    return decode_dim<QUIRE_DTYPE_INT8>(args, plan, stream);
}
