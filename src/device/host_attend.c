/* host_attend.c: cuts attention and append into parts that threads can do in any order.
 *
 * A part of attention is up to 64 (token, query head) pairs that share a kv head and a row, so that a tile of K and V
 * is converted to float once for all of them; a decode token is a part for each kv head. The arithmetic of a pair does
 * not depend on the part it is in (host_attend_kernel.inc), so the cut is free to follow speed alone.
 *
 * A part needs work space, more than a stack that is not ours may have. There is one for each thread we expect, taken
 * and returned by one atomic exchange; where the caller's `parallel` brings more threads than it said, the extra ones
 * yield until one comes back, which it does, since who holds one never waits. */
#define _GNU_SOURCE 1
#include "device/host_attend.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "device/host_attend_kernel.h"

struct quire__host_attend {
    quire__parallel *parallel;
    const quire__host_kernels *kernels;
    uint32_t spaces;
    float *scratch;      /* [spaces][QUIRE__SCRATCH_FLOATS] */
    atomic_bool *taken;  /* [spaces] */
};

/* ---- instruction sets ---------------------------------------------------------------------------------------- */

static const quire__host_kernels *kernels_best(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
        __builtin_cpu_supports("bmi2")) {
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
            __builtin_cpu_supports("avx512vl"))
            return &quire__host_kernels_avx512;
        return &quire__host_kernels_avx2;
    }
#endif
    return &quire__host_kernels_baseline;
}

const char *quire__host_attend_isa(void)
{
    return kernels_best()->isa;
}

quire_status quire__host_attend_use(quire__host_attend *attend, const char *isa)
{
    const quire__host_kernels *best = kernels_best();
    if (strcmp(isa, quire__host_kernels_baseline.isa) == 0) {
        attend->kernels = &quire__host_kernels_baseline;
        return QUIRE_OK;
    }
#if defined(__x86_64__)
    if (strcmp(isa, quire__host_kernels_avx2.isa) == 0 && best != &quire__host_kernels_baseline) {
        attend->kernels = &quire__host_kernels_avx2;
        return QUIRE_OK;
    }
#endif
    if (strcmp(isa, best->isa) == 0) {
        attend->kernels = best;
        return QUIRE_OK;
    }
    return quire__fail(QUIRE_EUNSUPPORTED, "this CPU does not run \"%s\"; the best it has is \"%s\"", isa, best->isa);
}

/* ---- work space ---------------------------------------------------------------------------------------------- */

quire_status quire__host_attend_open(quire__host_attend **attend, quire__parallel *parallel)
{
    void *scratch = NULL;
    quire__host_attend *made = calloc(1, sizeof *made);
    if (made == NULL)
        return quire__fail(QUIRE_ENOMEM, "no memory for attention on the host");
    made->parallel = parallel;
    made->kernels = kernels_best();
    made->spaces = quire__parallel_threads(parallel);
    made->taken = calloc(made->spaces, sizeof *made->taken);
    if (made->taken == NULL ||
        posix_memalign(&scratch, 64, made->spaces * QUIRE__SCRATCH_FLOATS * sizeof(float)) != 0) {
        quire__host_attend_close(made);
        return quire__fail(QUIRE_ENOMEM, "no memory for the work space of %u threads",
                           quire__parallel_threads(parallel));
    }
    made->scratch = scratch;
    *attend = made;
    return QUIRE_OK;
}

void quire__host_attend_close(quire__host_attend *attend)
{
    if (attend == NULL)
        return;
    free(attend->scratch);
    free(attend->taken);
    free(attend);
}

quire__parallel *quire__host_attend_parallel(const quire__host_attend *attend)
{
    return attend->parallel;
}

static uint32_t space_take(quire__host_attend *attend)
{
    for (;;) {
        for (uint32_t i = 0; i < attend->spaces; i++)
            if (!atomic_load_explicit(&attend->taken[i], memory_order_relaxed) &&
                !atomic_exchange_explicit(&attend->taken[i], true, memory_order_acquire))
                return i;
        sched_yield();
    }
}

static void space_return(quire__host_attend *attend, uint32_t space)
{
    atomic_store_explicit(&attend->taken[space], false, memory_order_release);
}

/* ---- attention ----------------------------------------------------------------------------------------------- */

/* How a call is cut: item = ((selected * token_cuts + token cut) * kv_heads + kv head) * head_cuts + head cut. */
typedef struct attend_job {
    quire__host_attend *attend;
    const quire__attend_args *args;
    int32_t group;            /* query heads of a kv head */
    int32_t heads, head_cuts; /* query heads of a part, parts of a group */
    int32_t tokens, token_cuts;
} attend_job;

static void attend_item(void *arg, size_t item)
{
    const attend_job *job = arg;
    const quire__attend_args *args = job->args;
    int32_t head_cut = (int32_t)(item % (size_t)job->head_cuts);
    int32_t kv_head = (int32_t)(item / (size_t)job->head_cuts % (size_t)args->pages.kv_heads);
    size_t rest = item / (size_t)job->head_cuts / (size_t)args->pages.kv_heads;
    int32_t token_cut = (int32_t)(rest % (size_t)job->token_cuts);
    size_t selected = rest / (size_t)job->token_cuts;
    quire__attend_part part = {.tokens = 1};

    if (args->tiles != NULL) {
        const quire_tile *tile = &args->tiles[selected];
        int32_t skipped = token_cut * job->tokens;
        if (skipped >= tile->tokens)
            return;
        part.row = tile->row;
        part.first_token = tile->first_token + skipped;
        part.tokens = tile->tokens - skipped < job->tokens ? tile->tokens - skipped : job->tokens;
    } else {
        part.first_token = args->select != NULL ? args->select[selected] : args->first_token + (int32_t)selected;
        part.row = args->token_rows[part.first_token];
    }
    part.first_head = kv_head * job->group + head_cut * job->heads;
    part.heads = job->group - head_cut * job->heads < job->heads ? job->group - head_cut * job->heads : job->heads;

    uint32_t space = space_take(job->attend);
    job->attend->kernels->attend(args, &part, job->attend->scratch + (size_t)space * QUIRE__SCRATCH_FLOATS);
    space_return(job->attend, space);
}

static quire_status head_dim_check(const quire__pages *pages)
{
    const int32_t most = pages->value_dim > 0 ? QUIRE__HEAD_DIM_MOST : QUIRE__HEAD_DIM_MOST - 64;
    if (pages->head_dim < 8 || pages->head_dim > most || pages->head_dim % 8 != 0)
        return quire__fail(QUIRE_EUNSUPPORTED, "head_dim is %d; the host has 8..%d, multiples of 8", pages->head_dim,
                           most);
    return QUIRE_OK;
}

quire_status quire__host_attend_check(const quire__attend_args *args)
{
    QUIRE__TRY(head_dim_check(&args->pages));
    if (args->pages.kv_heads < 1 || args->query_heads < 1 || args->query_heads % args->pages.kv_heads != 0)
        return quire__fail(QUIRE_EINVAL, "%d query heads are not a multiple of %d kv heads", args->query_heads,
                           args->pages.kv_heads);
    return QUIRE_OK;
}

quire_status quire__host_attend_run(quire__host_attend *attend, const quire__attend_args *args)
{
    attend_job job = {.attend = attend, .args = args, .tokens = 1, .token_cuts = 1};
    int32_t most = 1;
    int64_t pairs;
    size_t items;

    QUIRE__TRY(quire__host_attend_check(args));
    if (args->count <= 0)
        return QUIRE_OK;
    job.group = args->query_heads / args->pages.kv_heads;
    job.heads = job.group < QUIRE__PART_QUERIES ? job.group : QUIRE__PART_QUERIES;
    job.head_cuts = (job.group + job.heads - 1) / job.heads;
    if (args->tiles != NULL) {
        job.tokens = QUIRE__PART_QUERIES / job.heads;
        for (int32_t i = 0; i < args->count; i++)
            most = args->tiles[i].tokens > most ? args->tiles[i].tokens : most;
        job.token_cuts = (most + job.tokens - 1) / job.tokens;
    }
    items = (size_t)args->count * (size_t)job.token_cuts * (size_t)args->pages.kv_heads * (size_t)job.head_cuts;

    /* Waking a thread costs what about 2^17 multiplications do. */
    int64_t seen = args->longest_context;
    if (args->window > 0 && seen > args->window)
        seen = args->window;
    pairs = (int64_t)args->count * most * args->query_heads;
    if (pairs * seen * args->pages.head_dim < 1 << 17) {
        for (size_t i = 0; i < items; i++)
            attend_item(&job, i);
    } else {
        quire__parallel_for(attend->parallel, items, attend_item, &job);
    }
    return QUIRE_OK;
}

/* ---- append -------------------------------------------------------------------------------------------------- */

enum { APPEND_TOKENS = 8 }; /* of one item */

typedef struct append_job {
    const quire__host_kernels *kernels;
    const quire__append_args *args;
} append_job;

static void append_item(void *arg, size_t item)
{
    const append_job *job = arg;
    int32_t first = (int32_t)item * APPEND_TOKENS;
    for (int32_t token = first; token < job->args->tokens && token < first + APPEND_TOKENS; token++)
        job->kernels->append(job->args, token);
}

quire_status quire__host_append_check(const quire__append_args *args)
{
    return head_dim_check(&args->pages);
}

quire_status quire__host_append_run(quire__host_attend *attend, const quire__append_args *args)
{
    append_job job = {.kernels = attend->kernels, .args = args};
    size_t items = args->tokens > 0 ? ((size_t)args->tokens + APPEND_TOKENS - 1) / APPEND_TOKENS : 0;
    int64_t elements = (int64_t)args->tokens * args->pages.kv_heads * args->pages.head_dim;

    QUIRE__TRY(quire__host_append_check(args));
    if (elements < 1 << 15) { /* 256 KB of float K and V: less is done before a thread wakes */
        for (size_t i = 0; i < items; i++)
            append_item(&job, i);
    } else {
        quire__parallel_for(attend->parallel, items, append_item, &job);
    }
    return QUIRE_OK;
}

/* ---- from one format to another ------------------------------------------------------------------------------ */

typedef struct convert_job {
    const quire__host_kernels *kernels;
    const quire__convert_args *args;
} convert_job;

static void convert_item(void *arg, size_t item)
{
    const convert_job *job = arg;
    job->kernels->convert(job->args, (int32_t)(item / (size_t)job->args->layers),
                          (int32_t)(item % (size_t)job->args->layers));
}

quire_status quire__host_convert_run(quire__host_attend *attend, const quire__convert_args *args)
{
    convert_job job = {.kernels = attend->kernels, .args = args};

    QUIRE__TRY(head_dim_check(&args->from));
    if (args->count > 0 && args->layers > 0)
        quire__parallel_for(attend->parallel, (size_t)args->count * (size_t)args->layers, convert_item, &job);
    return QUIRE_OK;
}
