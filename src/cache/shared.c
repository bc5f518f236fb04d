/* shared.c: when decode attention takes sequences with a common beginning together.
 *
 * It pays when the K and V that are not read again (of cache.share_least tokens at least) outweigh two more launches and
 * the partial results. Which rows share what is found once a step, by the first layer that asks. */
#include "cache/shared.h"

#include "base/status.h"

enum {
    WANTED_BLOCKS = 528, /* thread blocks that fill a large GPU: 4 a multiprocessor of 132 */
    UNIT = 64           /* tokens of a tile */
};

static void find(quire_step *step)
{
    if (step->prefixes_found)
        return;
    quire__prefixes_find(&step->prefixes, step->sent, step->row_count, step->cache->layout.block_tokens);
    step->prefixes_found = true;
}

quire_status quire_step_prefixes(quire_step *step, const quire_prefix **groups, size_t *count, const uint32_t **rows)
{
    if (step == NULL || step->state != QUIRE__STEP_SUBMITTED)
        return quire__fail(QUIRE_ESTATE, "quire_step_prefixes needs a submitted step");
    if (groups == NULL || count == NULL || rows == NULL)
        return quire__fail(QUIRE_EINVAL, "groups, count and rows must not be NULL");
    find(step);
    *groups = step->prefixes.groups;
    *count = step->prefixes.group_count;
    *rows = step->prefixes.rows;
    return QUIRE_OK;
}

static bool has_kernel(const quire__attend_args *args)
{
    const quire__pages *pages = &args->pages;

    return (pages->dtype == QUIRE_DTYPE_BF16 || pages->dtype == QUIRE_DTYPE_F16) &&
           (pages->head_dim == 64 || pages->head_dim == 128) && args->window == 0 && args->soft_cap == 0 &&
           args->sinks == NULL;
}

static int64_t pieces(int64_t whole, int64_t part)
{
    return (whole + part - 1) / part;
}

/* Tokens a thread block, so that `blocks` of them for each split fill the GPU. */
static int32_t split_of(int32_t longest, int64_t blocks, int32_t least)
{
    int64_t split = pieces(longest, pieces(WANTED_BLOCKS, blocks));

    return (int32_t)(pieces(split < least ? least : split, UNIT) * UNIT);
}

/* Cuts prefixes and tails; false: the work space is too small even for whole ones. */
static bool cut(const quire_cache *cache, quire__shared_args *args)
{
    const int64_t heads = args->attend.query_heads / args->attend.pages.kv_heads;
    const int64_t rows = pieces(args->attend.count * heads, 64) + args->group_count;
    const int64_t floats = (int64_t)args->attend.count * args->attend.query_heads * (args->attend.pages.head_dim + 2);

    args->prefix_split = split_of(args->longest_prefix, rows * args->attend.pages.kv_heads, 256);
    args->attend.split_tokens =
        split_of(args->longest_tail, args->attend.count * args->attend.pages.kv_heads * pieces(heads, 16), 128);
    for (;;) {
        int64_t prefix = pieces(args->longest_prefix, args->prefix_split);
        int64_t tail = pieces(args->longest_tail, args->attend.split_tokens);
        if (cache->work == NULL || (prefix + 4 * tail) * floats <= (int64_t)cache->work_floats)
            return true;
        if (prefix == 1 && tail == 1)
            return false;
        args->prefix_split *= prefix > 1 ? 2 : 1;
        args->attend.split_tokens *= tail > 1 ? 2 : 1;
    }
}

quire_status quire__shared_attend(quire_cache *cache, quire__attend_args *args)
{
    quire_step *step = &cache->step;

    if (step->graph_rows > 0) /* another step may share otherwise, and a capture takes no copies */
        return QUIRE_OK;
    if (cache->share_least == 0 || args->count < 2 || !has_kernel(args))
        return QUIRE_OK;
    find(step);
    if (step->prefixes.saved < cache->share_least)
        return QUIRE_OK;
    if (step->shared.group_count == 0)
        QUIRE__TRY(quire__tables_send_prefixes(cache->tables, step->stream, &step->prefixes, step->sent, &step->shared));
    quire__kernel_args launch = {.shared = step->shared};
    launch.shared.attend = *args;
    launch.shared.attend.select = step->shared.attend.select;
    launch.shared.attend.count = step->shared.attend.count;
    launch.shared.attend.work = cache->work;
    launch.shared.attend.work_floats = (int64_t)cache->work_floats;
    if (!cut(cache, &launch.shared))
        return QUIRE_OK;
    QUIRE__TRY(quire__device_launch(cache->device, step->stream, QUIRE__KERNEL_ATTEND_SHARED, &launch));
    args->select = step->shared.attend.select + step->shared.attend.count;
    args->count -= step->shared.attend.count;
    return QUIRE_OK;
}
