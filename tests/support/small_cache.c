#include "support/small_cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cache/cache.h"

void small_options(quire_options *options, quire_group *group, uint32_t device_blocks, uint32_t host_blocks)
{
    assert_int_equal(quire_options_init(options, sizeof *options), QUIRE_OK);
    memset(group, 0, sizeof *group);
    group->layers = group->kv_heads = group->query_heads = 1;
    group->head_dim = 8;
    group->dtype = QUIRE_DTYPE_F32;
    options->groups = group;
    options->group_count = 1;
    options->device = "host";
    options->block_tokens = SMALL_BLOCK_TOKENS;
    options->device_bytes = (uint64_t)device_blocks * SMALL_BLOCK_BYTES;
    options->host_bytes = (uint64_t)host_blocks * SMALL_BLOCK_BYTES;
    options->max_sequences = 8;
    options->max_seq_tokens = 0;
    options->max_step_tokens = 256;
    options->event_capacity = 64;
    options->hash_key = 1;
    options->threads = 1;
    options->log_level = QUIRE_LOG_OFF;
}

quire_cache *small_cache(uint32_t device_blocks, uint32_t host_blocks)
{
    quire_options options;
    quire_group group;
    quire_cache *cache = NULL;

    small_options(&options, &group, device_blocks, host_blocks);
    assert_int_equal(quire_cache_open(&cache, &options), QUIRE_OK);
    return cache;
}

quire_seq small_open(quire_cache *cache, uint64_t domain)
{
    quire_seq_options options = {.size = sizeof options, .domain = domain};
    quire_seq seq = 0;

    assert_int_equal(quire_seq_open(cache, &options, &seq), QUIRE_OK);
    return seq;
}

/* Tensors live until the device has run what reads them. */
static void *tensors[64];
static int tensor_count;

void small_sweep(quire_cache *cache)
{
    assert_int_equal(quire__device_stream_synchronize(cache->device, cache->stream), QUIRE_OK);
    while (tensor_count > 0)
        quire__device_free(cache->device, QUIRE__MEMORY_DEVICE, tensors[--tensor_count]);
}

/* K and V of a token are its id. */
static void append_ids(quire_cache *cache, const quire_view *view, const int32_t *tokens, size_t count)
{
    void *memory = NULL;

    assert_true(tensor_count < 64);
    assert_int_equal(quire__device_alloc(cache->device, QUIRE__MEMORY_DEVICE, count * 8 * sizeof(float), &memory),
                     QUIRE_OK);
    tensors[tensor_count++] = memory;
    for (size_t i = 0; i < count * 8; i++)
        ((float *)memory)[i] = (float)tokens[i / 8];
    quire_tensor tensor = {memory, QUIRE_DTYPE_F32, 1, 8, 8};
    assert_int_equal(quire_append(view, 0, &tensor, &tensor), QUIRE_OK);
    if (quire__device_capabilities(cache->device) & QUIRE__DEVICE_IMMEDIATE)
        small_sweep(cache);
}

quire_status small_append(quire_cache *cache, quire_seq seq, const int32_t *tokens, size_t count)
{
    quire_step *step = NULL;

    assert_int_equal(quire_step_begin(cache, NULL, &step), QUIRE_OK);
    quire_status status = quire_step_add(step, seq, tokens, count);
    if (status != QUIRE_OK) {
        quire_step_cancel(step);
        return status;
    }
    assert_int_equal(quire_step_submit(step), QUIRE_OK);
    append_ids(cache, quire_step_view(step, 0), tokens, count);
    assert_int_equal(quire_step_commit(step), QUIRE_OK);
    return QUIRE_OK;
}

quire_seq small_prompt(quire_cache *cache, uint64_t domain, const int32_t *tokens, size_t count, quire_hit *hit)
{
    quire_seq seq = small_open(cache, domain);
    quire_hit found;

    assert_int_equal(quire_seq_match(cache, seq, tokens, count, &found), QUIRE_OK);
    assert_int_equal(quire_seq_wait(cache, seq, 1000000), QUIRE_OK);
    assert_int_equal(small_append(cache, seq, tokens + found.tokens, count - found.tokens), QUIRE_OK);
    if (hit != NULL)
        *hit = found;
    return seq;
}

void small_tokens(int32_t *tokens, size_t count, int32_t first)
{
    for (size_t i = 0; i < count; i++)
        tokens[i] = first + (int32_t)i;
}

quire_stats small_stats(quire_cache *cache)
{
    quire_stats stats = {.size = sizeof stats};

    assert_int_equal(quire_cache_stats(cache, &stats), QUIRE_OK);
    return stats;
}
