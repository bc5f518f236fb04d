/* latent.c: quire_append_latent and quire_attend_latent. */
#include <math.h>

#include "base/status.h"
#include "cache/cache.h"
#include "cache/compute.h"

static quire_status check_latent(const quire_view *view, uint32_t layer, quire_cache **cache)
{
    QUIRE__TRY(quire__compute_view(view, layer, cache));
    if (view->value_dim == 0)
        return quire__fail(QUIRE_EINVAL, "the group is not latent (value_dim is 0); call quire_append and quire_attend");
    return QUIRE_OK;
}

quire_status quire_append_latent(const quire_view *view, uint32_t layer, const quire_tensor *latent,
                                 const quire_tensor *rope)
{
    quire_cache *cache = NULL;
    quire_tensor none = {.dtype = QUIRE_DTYPE_F32, .heads = 1};

    QUIRE__TRY(check_latent(view, layer, &cache));
    QUIRE__TRY(quire__compute_tensor(latent, "latent", 1));
    if (view->head_dim > view->value_dim)
        QUIRE__TRY(quire__compute_tensor(rope, "rope", 1));
    quire__kernel_args args = {.append = {.pages = quire__compute_pages(view, layer),
                                          .layer = (int32_t)layer,
                                          .tokens = (int32_t)view->tokens,
                                          .k = *latent,
                                          .v = view->head_dim > view->value_dim ? *rope : none,
                                          .slots = view->slot_mapping}};
    return quire__device_launch(cache->device, view->stream, QUIRE__KERNEL_LATENT_APPEND, &args);
}

/* One kernel for tokens of a prompt and of a decode alike, so how a prompt was cut into steps does not matter. */
quire_status quire_attend_latent(const quire_view *view, uint32_t layer, const quire_tensor *q, const quire_tensor *out,
                                 float scale)
{
    quire_cache *cache = NULL;

    QUIRE__TRY(check_latent(view, layer, &cache));
    QUIRE__TRY(quire__compute_tensor(q, "q", view->query_heads));
    QUIRE__TRY(quire__compute_tensor(out, "out", view->query_heads));
    if (!isfinite(scale))
        return quire__fail(QUIRE_EINVAL, "scale is %g; it must be finite", (double)scale);
    QUIRE__TRY(quire__step_await_layer(&cache->step, layer));
    quire__attend_args args = {.pages = quire__compute_pages(view, layer),
                               .layer = (int32_t)layer,
                               .query_heads = (int32_t)view->query_heads,
                               .scale = scale,
                               .q = *q,
                               .out = *out,
                               .block_table = view->block_table,
                               .table_stride = (int32_t)view->table_stride,
                               .token_rows = view->token_rows,
                               .positions = view->positions,
                               .count = (int32_t)view->tokens,
                               .longest_context = (int32_t)view->longest_context};
    return view->tokens > 0 ? quire__compute_decode(cache, view->stream, QUIRE__KERNEL_LATENT_ATTEND, args) : QUIRE_OK;
}
