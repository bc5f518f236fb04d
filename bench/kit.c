#include "kit.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/hash.h"
#include "cache/layout.h"
#include "device/device_host.h"

void bench_die(const char *format, ...)
{
    va_list arguments;

    fflush(stdout);
    fprintf(stderr, "quire-bench: ");
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\n");
    exit(1);
}

void bench_must(quire_status status)
{
    if (status != QUIRE_OK)
        bench_die("%s (%s)", quire_error_text(), quire_status_name(status));
}

void *bench_alloc(size_t bytes)
{
    void *memory = malloc(bytes > 0 ? bytes : 1);

    if (memory == NULL)
        bench_die("no memory for %zu bytes", bytes);
    return memory;
}

uint64_t bench_memory(void)
{
    return quire__host_memory_limit();
}

void bench_random_tokens(uint64_t *seed, int32_t *tokens, size_t count)
{
    for (size_t i = 0; i < count; i++)
        tokens[i] = (int32_t)(quire__random(seed) % 128000);
}

size_t bench_block_bytes(const quire_options *options)
{
    quire__layout layout;

    bench_must(quire__layout_make(&layout, options, 0));
    return layout.block_bytes;
}

void bench_bookkeeping(quire_options *options, quire_group *group, uint64_t blocks)
{
    bench_must(quire_options_init(options, sizeof *options));
    *group = (quire_group){.layers = 1, .kv_heads = 1, .head_dim = 8, .query_heads = 1};
    options->groups = group;
    options->group_count = 1;
    options->device = "host";
    options->offload = QUIRE_OFFLOAD_NONE;
    options->host_bytes = 0;
    options->watermark_blocks = 0;
    options->event_capacity = 0;
    options->device_bytes = blocks * bench_block_bytes(options);
}

void bench_prefill(quire_cache *cache, quire_seq seq, const int32_t *tokens, size_t count)
{
    size_t most = quire_cache_options(cache)->max_step_tokens;

    for (size_t done = 0; done < count;) {
        size_t part = count - done < most ? count - done : most;
        quire_step *step;
        bench_must(quire_step_begin(cache, NULL, &step));
        bench_must(quire_step_add(step, seq, tokens + done, part));
        bench_must(quire_step_submit(step));
        bench_must(quire_step_commit(step));
        done += part;
    }
}

const char *bench_count(char *text, size_t capacity, uint64_t count)
{
    if (count >= 1 << 20 && count % (1 << 20) == 0)
        snprintf(text, capacity, "%lluM", (unsigned long long)count >> 20);
    else if (count >= 1024 && count % 1024 == 0)
        snprintf(text, capacity, "%lluk", (unsigned long long)count >> 10);
    else
        snprintf(text, capacity, "%llu", (unsigned long long)count);
    return text;
}
