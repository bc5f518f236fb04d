/*
 * planted_attend.cpp - the real attention kernels, compiled with a mistake in them (QK_PLANTED of attend.cuh), to show
 * that the emulator finds it.
 *
 *      QK_PLANTED 0    none
 *      QK_PLANTED 1    a __syncthreads is missing: ThreadSanitizer reports it
 *      QK_PLANTED 2    cp.async is waited for one group too few: results are wrong, since copies come as late as they may
 *
 * Runs decode and prefill for f16 and head_dim 64 and compares them with the float64 oracle. Exit status 0: both are
 * within their bounds, 3: they are not. planted_attend.sh says which to expect.
 */
#include "attend_combine.cu"
#include "attend_decode.cuh"
#include "attend_prefill.cuh"

#include "support/kernel_problem.h"

extern "C" quire_status quire__cuda_attend_decode(const quire__attend_args *args, void *stream)
{
    qk::split_plan plan = qk::make_split_plan(*args);
    const quire_status status = qk::decode_launch<QUIRE_DTYPE_F16, 64>(*args, plan, stream);
    return status == QUIRE_OK ? qk::decode_combine(*args, plan, stream) : status;
}

extern "C" quire_status quire__cuda_attend_prefill(const quire__attend_args *args, void *stream)
{
    return qk::prefill_launch<QUIRE_DTYPE_F16, 64, 1>(*args, stream);
}

int main()
{
    Random random(1);
    AttendShape shape = {};
    shape.pages = {QUIRE_DTYPE_F16, 2, 1, 64, 16, 0, 0};
    shape.group = 3;
    shape.q_dtype = QUIRE_DTYPE_BF16;
    shape.out_dtype = QUIRE_DTYPE_F32;
    shape.sharpness = 1;
    shape.rows = {{200, 1}, {90, 3}};
    AttendProblem problem(shape, random);
    quire_status status;
    const double decode = problem.error(problem.decode(nullptr, 0, problem.longest(), &status, 2));
    const double prefill = problem.error(problem.prefill(problem.tiles(QUIRE__PREFILL_TILE), &status));
    std::printf("relative error: decode %g, prefill %g\n", decode, prefill);
    if (decode <= 3e-6 && prefill <= 7e-4)
        return 0;
    return decode > 1e-2 && prefill > 1e-2 ? 3 : 4; /* 4: only one of them went wrong */
}
