/* compute.c: quire_append and quire_attend: from a view to the arguments of a kernel. */
#include <math.h>

#include "base/status.h"
#include "cache/cache.h"
#include "cache/compute.h"
#include "cache/groups.h"
#include "cache/shared.h"

enum {
    DETERMINISTIC_SPLIT = 512, /* tokens of context a thread block, whatever the batch: one way to cut a context */
    MOST_WORKERS = 1056        /* thread blocks of decode: 8 a multiprocessor of 132; the launcher takes what is resident */
};

quire_status quire__compute_view(const quire_view *view, uint32_t layer, quire_cache **cache)
{
    if (view == NULL || view->owner == NULL)
        return quire__fail(QUIRE_EINVAL, "view must come from quire_step_view");
    quire_cache *owner = view->owner;
    if (owner->step.state != QUIRE__STEP_SUBMITTED || quire__groups_of_view(&owner->step, view) == QUIRE__NONE)
        return quire__fail(QUIRE_ESTATE, "the view's step has ended");
    if (layer >= view->layers)
        return quire__fail(QUIRE_EINVAL, "layer is %u; the group has %u, counted from 0", layer, view->layers);
    if (view->state_bytes > 0)
        return quire__fail(QUIRE_EINVAL, "the group has a recurrent state, neither K nor V: its kernels are the engine's own");
    *cache = owner;
    return QUIRE_OK;
}

quire_status quire__compute_tensor(const quire_tensor *tensor, const char *name, uint32_t heads)
{
    if (tensor == NULL || tensor->data == NULL)
        return quire__fail(QUIRE_EINVAL, "%s must not be NULL", name);
    if (tensor->heads != heads)
        return quire__fail(QUIRE_EINVAL, "%s.heads is %u; the group has %u", name, tensor->heads, heads);
    if (tensor->dtype < QUIRE_DTYPE_F32 || tensor->dtype > QUIRE_DTYPE_BF16)
        return quire__fail(QUIRE_EINVAL, "%s.dtype must be F32, F16 or BF16", name);
    return QUIRE_OK;
}

static quire_status check_not_latent(const quire_view *view)
{
    if (view->value_dim > 0)
        return quire__fail(QUIRE_EINVAL, "the group is latent (value_dim %u); call quire_append_latent and "
                           "quire_attend_latent", view->value_dim);
    return QUIRE_OK;
}

quire__pages quire__compute_pages(const quire_view *view, uint32_t layer)
{
    return (quire__pages){.arena = view->arena,
                          .block_stride = view->block_stride,
                          .layer_stride = view->layer_stride,
                          .kv_stride = view->kv_stride,
                          .head_stride = view->head_stride,
                          .token_stride = view->token_stride,
                          .block_tokens = (int32_t)view->block_tokens,
                          .kv_heads = (int32_t)view->kv_heads,
                          .head_dim = (int32_t)view->head_dim,
                          .dtype = view->dtype,
                          .scales = view->scales == NULL ? NULL : view->scales + (size_t)layer * 2 * view->kv_heads,
                          .scale_offset = view->scale_offset,
                          .scale_stride = (int32_t)view->scale_stride,
                          .scale_group = (int32_t)view->scale_group,
                          .rotation = (int32_t)view->rotation,
                          .value_dim = (int32_t)view->value_dim};
}

static quire_status append(const quire_view *view, uint32_t layer, const quire_tensor *k, const quire_tensor *v,
                           const quire__rope *rope)
{
    quire_cache *cache = NULL;

    QUIRE__TRY(quire__compute_view(view, layer, &cache));
    QUIRE__TRY(check_not_latent(view));
    QUIRE__TRY(quire__compute_tensor(k, "k", view->kv_heads));
    QUIRE__TRY(quire__compute_tensor(v, "v", view->kv_heads));
    quire__kernel_args args = {.append = {.pages = quire__compute_pages(view, layer),
                                          .layer = (int32_t)layer,
                                          .tokens = (int32_t)view->tokens,
                                          .k = *k,
                                          .v = *v,
                                          .slots = view->slot_mapping,
                                          .rope = *rope}};
    return quire__device_launch(cache->device, view->stream, QUIRE__KERNEL_APPEND, &args);
}

quire_status quire_append(const quire_view *view, uint32_t layer, const quire_tensor *k, const quire_tensor *v)
{
    return append(view, layer, k, v, &(quire__rope){.table = NULL});
}

static quire_status check_rope(const quire_view *view, const quire_rope *rope)
{
    if (rope == NULL || rope->size != sizeof *rope)
        return quire__fail(QUIRE_EINVAL, "rope must not be NULL, and rope.size must be %zu", sizeof *rope);
    if (rope->table == NULL)
        return quire__fail(QUIRE_EINVAL, "rope.table must not be NULL; quire_append turns nothing");
    if (rope->dims < 8 || rope->dims % 8 != 0 || rope->dims > view->head_dim)
        return quire__fail(QUIRE_EINVAL, "rope.dims is %u; it must be a multiple of 8, at most head_dim (%u)", rope->dims,
                           view->head_dim);
    if (rope->positions < view->longest_context)
        return quire__fail(QUIRE_EINVAL, "rope.positions is %u, but the step's longest context is %u tokens",
                           rope->positions, view->longest_context);
    if ((rope->q == NULL) != (rope->q_out == NULL))
        return quire__fail(QUIRE_EINVAL, "rope.q and rope.q_out must both be NULL or both be given");
    if (rope->q == NULL)
        return QUIRE_OK;
    QUIRE__TRY(quire__compute_tensor(rope->q, "rope.q", view->query_heads));
    return quire__compute_tensor(rope->q_out, "rope.q_out", view->query_heads);
}

quire_status quire_append_rope(const quire_view *view, uint32_t layer, const quire_tensor *k, const quire_tensor *v,
                               const quire_rope *rope)
{
    quire_cache *cache = NULL;

    QUIRE__TRY(quire__compute_view(view, layer, &cache));
    QUIRE__TRY(check_rope(view, rope));
    quire__rope made = {.table = rope->table,
                        .positions = view->positions,
                        .dims = (int32_t)rope->dims,
                        .interleaved = rope->interleaved != 0};
    if (rope->q != NULL) {
        made.q = *rope->q;
        made.q_out = *rope->q_out;
    }
    return append(view, layer, k, v, &made);
}

/* Pieces of attend_decode: evenly shared out in one launch, or, where bits must depend on a token's own context only,
 * cut at fixed places. Gives how many tokens a launch has work space for. */
static int64_t share_contexts(const quire_cache *cache, quire__attend_args args, quire__attend_args *shared)
{
    args.workers = 1;
    if (!cache->options.deterministic) { /* the work space that it takes grows by as much with each thread block */
        int64_t fitting = args.work_floats / quire__attend_work_floats(&args);
        shared->workers = (int32_t)(fitting < MOST_WORKERS ? fitting : MOST_WORKERS);
        return args.count;
    }
    shared->split_tokens = args.split_tokens = DETERMINISTIC_SPLIT;
    args.count = 1; /* which there is room for, see open_memory */
    return args.work_floats / quire__attend_work_floats(&args);
}

static int32_t round_up(int64_t value, int64_t unit)
{
    return (int32_t)((value + unit - 1) / unit * unit);
}

/* How much context one thread block takes. Deterministic: always the same. Otherwise short enough to fill the GPU. */
static int32_t split_tokens(const quire_cache *cache, int32_t kv_heads, int32_t count, int32_t longest)
{
    int32_t unit = (int32_t)(cache->layout.block_tokens > 64 ? cache->layout.block_tokens : 64);
    int64_t split = DETERMINISTIC_SPLIT;

    if (!cache->options.deterministic) {
        int64_t blocks_without_split = (int64_t)count * kv_heads;
        int64_t splits = (MOST_WORKERS + blocks_without_split - 1) / blocks_without_split;
        split = (longest + splits - 1) / splits;
        split = split < 128 ? 128 : split;
    }
    return round_up(split, unit);
}

/* Pieces of kernels that give each (token, split) a thread block, and what share_contexts gives. */
static int64_t cut_contexts(const quire_cache *cache, const quire__attend_args *args, int32_t *split)
{
    int64_t floats_a_split = (int64_t)args->query_heads * (args->pages.head_dim + 2);

    *split = split_tokens(cache, args->pages.kv_heads, args->count, args->longest_context);
    int64_t at_once = args->work_floats / ((args->longest_context + *split - 1) / *split * floats_a_split);
    if (at_once >= 1)
        return at_once;
    /* the work space holds a longest sequence cut the deterministic way, so this split is finer */
    *split = round_up(args->longest_context / (args->work_floats / floats_a_split) + 1, *split);
    return 1;
}

/* Decode attention over `count` tokens, in as many launches as the work space asks for. */
quire_status quire__compute_decode(const quire_cache *cache, quire__stream *stream, quire__kernel kernel,
                                   quire__attend_args args)
{
    const int32_t *select = args.select;
    int32_t first = args.first_token, count = args.count;
    int64_t at_once = count; /* the host kernels need no work space */

    args.work = cache->work;
    args.work_floats = (int64_t)cache->work_floats;
    if (cache->work != NULL)
        at_once = kernel == QUIRE__KERNEL_ATTEND_DECODE ? share_contexts(cache, args, &args)
                                                        : cut_contexts(cache, &args, &args.split_tokens);
    for (int32_t done = 0; done < count; done += args.count) {
        int64_t left = count - done;
        args.count = (int32_t)(left < at_once ? left : at_once);
        args.select = select != NULL ? select + done : NULL;
        args.first_token = first + done;
        quire__kernel_args launch = {.attend = args};
        QUIRE__TRY(quire__device_launch(cache->device, stream, kernel, &launch));
    }
    return QUIRE_OK;
}

static quire_status check_params(const quire_attend_params *params)
{
    if (params == NULL || params->size != sizeof *params)
        return quire__fail(QUIRE_EINVAL, "params must not be NULL, and params.size must be %zu", sizeof *params);
    if (!isfinite(params->scale))
        return quire__fail(QUIRE_EINVAL, "params.scale is %g; it must be finite", (double)params->scale);
    if (params->window > INT32_MAX)
        return quire__fail(QUIRE_EINVAL, "params.window is %u tokens; it may be 0 (none) or 1..%d", params->window,
                           INT32_MAX);
    if (!isfinite(params->soft_cap) || params->soft_cap < 0)
        return quire__fail(QUIRE_EINVAL, "params.soft_cap is %g; it must be finite, and 0 (none) or more",
                           (double)params->soft_cap);
    return QUIRE_OK;
}

quire_status quire_attend(const quire_view *view, uint32_t layer, const quire_tensor *q, const quire_tensor *out,
                          float scale)
{
    quire_attend_params params = {.size = sizeof params, .scale = scale};
    return quire_attend_with(view, layer, q, out, &params);
}

quire_status quire_attend_with(const quire_view *view, uint32_t layer, const quire_tensor *q, const quire_tensor *out,
                               const quire_attend_params *params)
{
    quire_cache *cache = NULL;

    QUIRE__TRY(quire__compute_view(view, layer, &cache));
    QUIRE__TRY(check_not_latent(view));
    QUIRE__TRY(check_params(params));
    if (view->window > 0 && (params->window == 0 || params->window > view->window))
        return quire__fail(QUIRE_EINVAL, "params.window is %u; the group keeps %u tokens (quire_group.window): 1..%u",
                           params->window, view->window, view->window);
    QUIRE__TRY(quire__compute_tensor(q, "q", view->query_heads));
    QUIRE__TRY(quire__compute_tensor(out, "out", view->query_heads));
    QUIRE__TRY(quire__step_await_layer(&cache->step, layer));
    quire__attend_args args = {.pages = quire__compute_pages(view, layer),
                               .layer = (int32_t)layer,
                               .query_heads = (int32_t)view->query_heads,
                               .scale = params->scale,
                               .window = (int32_t)params->window,
                               .soft_cap = params->soft_cap,
                               .sinks = params->sinks,
                               .q = *q,
                               .out = *out,
                               .block_table = view->block_table,
                               .table_stride = (int32_t)view->table_stride,
                               .token_rows = view->token_rows,
                               .positions = view->positions,
                               .longest_context = (int32_t)view->longest_context};

    /* On the GPU, decode and prefill kernels round differently; where bits must not depend on how a prompt was cut, every
     * token takes the decode kernel. The host kernels agree by construction. */
    if (cache->options.deterministic && quire__device_is_cuda(cache->device)) {
        args.count = (int32_t)view->tokens;
        return view->tokens > 0 ? quire__compute_decode(cache, view->stream, QUIRE__KERNEL_ATTEND_DECODE, args) : QUIRE_OK;
    }
    if (view->decodes > 0) {
        args.select = view->decode_tokens;
        args.count = (int32_t)view->decodes;
        QUIRE__TRY(quire__shared_attend(cache, &args));
        if (args.count > 0)
            QUIRE__TRY(quire__compute_decode(cache, view->stream, QUIRE__KERNEL_ATTEND_DECODE, args));
    }
    if (view->tiles > 0) {
        args.select = NULL;
        args.tiles = view->tile_list;
        args.count = (int32_t)view->tiles;
        quire__kernel_args launch = {.attend = args};
        QUIRE__TRY(quire__device_launch(cache->device, view->stream, QUIRE__KERNEL_ATTEND_PREFILL, &launch));
    }
    return QUIRE_OK;
}
