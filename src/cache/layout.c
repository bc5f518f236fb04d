#include "cache/layout.h"

#include "base/config.h"
#include "base/status.h"
#include "device/host_formats.h"

enum { BLOCK_ALIGNMENT = 256, LATENT_MOST = 576 };

static quire_status check_latent(const quire_group *group, quire_dtype dtype)
{
    if (group->head_dim < 8 || group->head_dim > LATENT_MOST || group->head_dim % 8 != 0)
        return quire__fail(QUIRE_EINVAL, "group.head_dim is %u; of a latent group it must be a multiple of 8 in 8..%d",
                           group->head_dim, LATENT_MOST);
    if (group->value_dim % 8 != 0 || group->value_dim > group->head_dim)
        return quire__fail(QUIRE_EINVAL, "group.value_dim is %u; it must be a multiple of 8, at most head_dim (%u)",
                           group->value_dim, group->head_dim);
    if (group->kv_heads != 1)
        return quire__fail(QUIRE_EINVAL, "group.kv_heads is %u; a latent group (value_dim is set) has 1",
                           group->kv_heads);
    if (dtype > QUIRE_DTYPE_BF16)
        return quire__fail(QUIRE_EUNSUPPORTED, "a latent group's dtype must be F32, F16 or BF16");
    return QUIRE_OK;
}

static quire_status check_group(const quire_group *group, quire_dtype dtype)
{
    if (group->layers < 1 || group->layers > 1024)
        return quire__fail(QUIRE_EINVAL, "group.layers is %u; it must be 1..1024", group->layers);
    if (group->kv_heads < 1 || group->kv_heads > 1024)
        return quire__fail(QUIRE_EINVAL, "group.kv_heads is %u; it must be 1..1024", group->kv_heads);
    if (group->value_dim > 0)
        QUIRE__TRY(check_latent(group, dtype));
    else if (group->head_dim < 8 || group->head_dim > 512 || group->head_dim % 8 != 0)
        return quire__fail(QUIRE_EINVAL, "group.head_dim is %u; it must be a multiple of 8 in 8..512",
                           group->head_dim);
    if (group->query_heads % group->kv_heads != 0 || group->query_heads > 64 * 1024)
        return quire__fail(QUIRE_EINVAL, "group.query_heads is %u; it must be a multiple of kv_heads (%u)",
                           group->query_heads, group->kv_heads);
    if (dtype < QUIRE_DTYPE_F32 || dtype > QUIRE_DTYPE_INT4)
        return quire__fail(QUIRE_EINVAL, "group.dtype is %d; it must be a quire_dtype", (int)dtype);
    if (group->scales == NULL)
        return QUIRE_OK;
    if (dtype != QUIRE_DTYPE_FP8_E4M3 && dtype != QUIRE_DTYPE_FP8_E5M2)
        return quire__fail(QUIRE_EINVAL, "group.scales is set, but the dtype is not fp8; leave it NULL");
    for (uint32_t i = 0; i < group->layers * 2 * group->kv_heads; i++)
        if (!(group->scales[i] > 0.0f && group->scales[i] <= 1e30f))
            return quire__fail(QUIRE_EINVAL, "group.scales[%u] is %g; a scale must be positive and finite", i,
                               (double)group->scales[i]);
    return QUIRE_OK;
}

static quire_status check_lifetime(const quire_options *options, uint32_t index)
{
    const quire_group *group = &options->groups[index];

    if (index == 0 && (group->window > 0 || group->state_bytes > 0 || group->rollback > 0 || group->blocks > 0))
        return quire__fail(QUIRE_EINVAL, "the first group keeps all tokens: its window, rollback, blocks and state_bytes must be "
                           "0; put a group with them behind it");
    if (group->window > INT32_MAX || group->rollback > INT32_MAX / 2)
        return quire__fail(QUIRE_EINVAL, "group.window is %u and rollback %u; they may be at most %d and %d", group->window,
                           group->rollback, INT32_MAX, INT32_MAX / 2);
    if (group->window > 0 && group->value_dim > 0)
        return quire__fail(QUIRE_EUNSUPPORTED, "group %u is latent and has a window; attention over latent rows has none", index);
    return QUIRE_OK;
}

/* A group with a state, whatever the state is. */
static quire_status make_state(quire__layout *layout, const quire_options *options, const quire_group *group)
{
    if (group->layers < 1 || group->layers > 1024 || group->state_bytes % 16 != 0)
        return quire__fail(QUIRE_EINVAL, "group.layers is %u, state_bytes %u; they must be 1..1024 and a multiple of 16",
                           group->layers, group->state_bytes);
    if (group->kv_heads > 0 || group->head_dim > 0 || group->query_heads > 0 || group->value_dim > 0 || group->window > 0 ||
        group->scales != NULL)
        return quire__fail(QUIRE_EINVAL, "a group with state_bytes has neither heads nor dims, window or scales: set them to 0");
    size_t bytes = (size_t)group->state_bytes * group->layers;
    *layout = (quire__layout){.dtype = group->dtype != 0 ? group->dtype : options->dtype,
                              .layers = group->layers,
                              .block_tokens = options->block_tokens,
                              .layer_stride = group->state_bytes,
                              .window = 2, /* the state before a token's */
                              .state_bytes = group->state_bytes,
                              .block_bytes = (bytes + BLOCK_ALIGNMENT - 1) / BLOCK_ALIGNMENT * BLOCK_ALIGNMENT};
    return QUIRE_OK;
}

quire_status quire__layout_make(quire__layout *layout, const quire_options *options, uint32_t index)
{
    if (options->groups == NULL || options->group_count == 0)
        return quire__fail(QUIRE_EINVAL, "options.groups is empty; describe the model's layers in one quire_group");
    if (options->group_count > QUIRE_GROUPS)
        return quire__fail(QUIRE_EUNSUPPORTED, "options.group_count is %u; at most %d", options->group_count, QUIRE_GROUPS);
    const quire_group *group = &options->groups[index];
    quire_dtype dtype = group->dtype != 0 ? group->dtype : options->dtype;
    QUIRE__TRY(check_lifetime(options, index));
    if (group->state_bytes > 0)
        return make_state(layout, options, group);
    QUIRE__TRY(check_group(group, dtype));

    quire__layout made = {.dtype = dtype,
                          .layers = group->layers,
                          .kv_heads = group->kv_heads,
                          .head_dim = group->head_dim,
                          .query_heads = group->query_heads != 0 ? group->query_heads : group->kv_heads,
                          .block_tokens = options->block_tokens,
                          .window = group->window};
    quire__pages pages = {.block_tokens = (int32_t)made.block_tokens, .kv_heads = (int32_t)made.kv_heads};
    quire__pages_set_format(&pages, quire__format_of(dtype, (int32_t)made.head_dim, group->scales != NULL));
    made.token_stride = pages.token_stride;
    made.head_stride = pages.head_stride;
    made.kv_stride = pages.kv_stride;
    made.layer_stride = pages.layer_stride;
    made.scale_offset = pages.scale_offset;
    made.scale_stride = pages.scale_stride;
    made.scale_group = (uint32_t)pages.scale_group;
    made.rotation = (uint32_t)pages.rotation;
    made.value_dim = group->value_dim;
    if (made.value_dim > 0) {
        made.layer_stride = made.kv_stride;
        made.kv_stride = 0;
    }
    size_t bytes = (size_t)made.layer_stride * made.layers;
    made.block_bytes = (bytes + BLOCK_ALIGNMENT - 1) / BLOCK_ALIGNMENT * BLOCK_ALIGNMENT;
    *layout = made;
    return QUIRE_OK;
}

quire_status quire_block_bytes(const quire_options *options, uint64_t *bytes)
{
    quire__layout layout;
    uint64_t sum = 0;

    if (options == NULL || bytes == NULL)
        return quire__fail(QUIRE_EINVAL, "options and bytes must not be NULL");
    QUIRE__TRY(quire__config_validate(options));
    QUIRE__TRY(quire__layout_make(&layout, options, 0));
    for (uint32_t i = 1; i < options->group_count; i++) {
        sum += layout.block_bytes;
        QUIRE__TRY(quire__layout_make(&layout, options, i));
    }
    *bytes = sum + layout.block_bytes;
    return QUIRE_OK;
}
