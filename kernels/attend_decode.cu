/* attend_decode.cu: the entry of decode attention: checks, the plan (attend_split.cuh), the kernel of the cache's dtype
 * (attend_decode.cuh, attend_decode_f32.cu), and combine. */
#include "attend_split.cuh"

namespace qk
{

static quire_status decode_dtype(const quire__attend_args &args, split_plan &plan, void *stream)
{
    switch (args.pages.dtype) {
    case QUIRE_DTYPE_F32: return decode_f32(args, plan, stream);
    case QUIRE_DTYPE_F16: return decode_f16(args, plan, stream);
    case QUIRE_DTYPE_BF16: return decode_bf16(args, plan, stream);
    case QUIRE_DTYPE_FP8_E4M3: return decode_fp8(args, plan, stream);
    case QUIRE_DTYPE_FP8_E5M2: return decode_fp8_e5m2(args, plan, stream);
    case QUIRE_DTYPE_INT8: return decode_int8(args, plan, stream);
    case QUIRE_DTYPE_INT4: return decode_int4(args, plan, stream);
    default: return QUIRE_EUNSUPPORTED;
    }
}

} /* namespace qk */

extern "C" quire_status quire__cuda_attend_decode(const quire__attend_args *args, void *stream)
{
    quire_status status = qk::check_attend(*args);
    if (status != QUIRE_OK || args->count == 0)
        return status;
    if (!args->token_rows || args->longest_context < 1 || args->split_tokens < 0 || args->split_tokens % 64 != 0 ||
        (args->split_tokens == 0 && args->workers < 1) || !qk::aligned(args->work, 16) || !args->work ||
        args->work_floats < quire__attend_work_floats(args))
        return QUIRE_EINVAL;
    qk::split_plan plan = qk::make_split_plan(*args);
    if (plan.contexts > INT32_MAX || plan.pieces > INT32_MAX)
        return QUIRE_EINVAL;
    status = qk::decode_dtype(*args, plan, stream);
    return status == QUIRE_OK ? qk::decode_combine(*args, plan, stream) : status;
}
