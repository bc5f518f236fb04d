/* device_tiers.c: offload and restore as an application meets them.
 *
 * Two prompts that each fill the arena take turns. Offload is the time from the commit that seals a prompt's blocks
 * until the host has them all; restore the time from a match until the sequence is ready, which includes making room.
 * Both include the checksums where they are on. */
#include "device_tiers.h"

#include <stdio.h>
#include <stdlib.h>

enum { PROMPTS = 2 };

typedef struct race {
    bench_bed *bed;
    quire_cache *cache;
    uint32_t blocks, block_tokens;
    int32_t *tokens[PROMPTS]; /* of whole blocks, and one to leave */
    uint64_t checksums[PROMPTS];
    int turn;
    quire_tensor kv;
    quire_seq seq;
    quire_step *step;
    quire_hit hit;
    uint64_t moved; /* offloads before the body */
} race;

static uint64_t timeout_us(const race *race)
{
    return (uint64_t)race->bed->cache.move_timeout_ms * 1000;
}

static void append_all(race *race)
{
    const quire_view *view = quire_step_view(race->step, 0);

    for (uint32_t layer = 0; layer < view->layers; layer++)
        bench_must(quire_append(view, layer, &race->kv, &race->kv));
    bench_must(quire__device_stream_synchronize(race->bed->device, view->stream));
}

static quire_stats stats_of(race *race)
{
    quire_stats stats = {.size = sizeof stats};

    bench_must(quire_cache_stats(race->cache, &stats));
    return stats;
}

static void offload_prepare(void *arg)
{
    race *race = arg;
    size_t count = (size_t)race->blocks * race->block_tokens;

    bench_must(quire_cache_clear(race->cache));
    bench_must(quire_seq_open(race->cache, NULL, &race->seq));
    bench_must(quire_step_begin(race->cache, NULL, &race->step));
    bench_must(quire_step_add(race->step, race->seq, race->tokens[race->turn], count));
    bench_must(quire_step_submit(race->step));
    append_all(race);
    race->moved = stats_of(race).offloads;
}

static void offload_body(void *arg)
{
    race *race = arg;

    bench_must(quire_step_commit(race->step));
    bench_must(quire_cache_drain(race->cache, timeout_us(race)));
}

static void offload_finish(void *arg)
{
    race *race = arg;

    if (stats_of(race).offloads - race->moved != race->blocks)
        bench_die("%llu of %u blocks were offloaded", (unsigned long long)(stats_of(race).offloads - race->moved),
                  race->blocks);
    bench_must(quire_seq_close(race->cache, race->seq));
}

static void restore_prepare(void *arg)
{
    race *race = arg;

    race->turn = (race->turn + 1) % PROMPTS;
    bench_must(quire_seq_open(race->cache, NULL, &race->seq));
}

static void restore_body(void *arg)
{
    race *race = arg;
    size_t count = (size_t)race->blocks * race->block_tokens;

    bench_must(quire_seq_match(race->cache, race->seq, race->tokens[race->turn], count + 1, &race->hit));
    bench_must(quire_seq_wait(race->cache, race->seq, timeout_us(race)));
}

static void restore_finish(void *arg)
{
    race *race = arg;
    size_t count = (size_t)race->blocks * race->block_tokens;

    if (race->hit.tokens != count || race->hit.host < count - 2 * race->block_tokens)
        bench_die("a restore of %zu tokens brought back %zu", count, race->hit.host);
    bench_must(quire_seq_close(race->cache, race->seq));
}

/* What the sequence's blocks hold, as a step sees them. */
static uint64_t checksum(race *race)
{
    bench_must(quire_step_begin(race->cache, NULL, &race->step));
    bench_must(quire_step_add(race->step, race->seq, race->tokens[race->turn], 1));
    bench_must(quire_step_submit(race->step));
    uint64_t sum = bench_bed_checksum(race->bed, quire_step_view(race->step, 0), 0, race->blocks);
    quire_step_cancel(race->step);
    return sum;
}

/* Both prompts into the host tier, the second one also on the device; then each comes back once. */
static void fill_and_check(race *race)
{
    for (race->turn = 0; race->turn < PROMPTS; race->turn++) {
        size_t count = (size_t)race->blocks * race->block_tokens;
        bench_must(quire_seq_open(race->cache, NULL, &race->seq));
        bench_must(quire_step_begin(race->cache, NULL, &race->step));
        bench_must(quire_step_add(race->step, race->seq, race->tokens[race->turn], count));
        bench_must(quire_step_submit(race->step));
        append_all(race);
        offload_body(race);
        race->checksums[race->turn] = checksum(race);
        bench_must(quire_seq_close(race->cache, race->seq));
    }
    race->turn = PROMPTS - 1;
    for (int i = 0; i < PROMPTS; i++) {
        restore_prepare(race);
        restore_body(race);
        if (checksum(race) != race->checksums[race->turn])
            bench_die("prompt %d came back from the host with other bytes", race->turn);
        restore_finish(race);
    }
}

static void cache_open(race *race)
{
    bench_bed *bed = race->bed;
    quire_options options = bed->cache;

    race->block_tokens = options.block_tokens;
    race->blocks = (uint32_t)(bed->host_bytes / PROMPTS / bed->block_bytes);
    if ((race->blocks + 1) * bed->block_bytes > bed->arena_bytes)
        race->blocks = (uint32_t)(bed->arena_bytes / bed->block_bytes) - 1;
    if (race->blocks < 4)
        bench_die("offload and restore need %d x 4 blocks of %zu bytes in the host tier and 5 in the arena; raise "
                  "QUIRE_HOST_BYTES and QUIRE_DEVICE_BYTES",
                  PROMPTS, bed->block_bytes);
    options.device_bytes = (uint64_t)(race->blocks + 1) * bed->block_bytes;
    options.host_bytes = (uint64_t)PROMPTS * race->blocks * bed->block_bytes;
    options.offload = QUIRE_OFFLOAD_WRITE_THROUGH;
    options.host_pin = QUIRE_HOST_PIN_OPEN;
    if (options.pack == QUIRE_PACK_AUTO) /* figures of one path, whatever a calibration says */
        options.pack = QUIRE_PACK_OFF;
    if (options.pieces == QUIRE_PIECES_AUTO)
        options.pieces = QUIRE_PIECES_COPY;
    options.max_seq_tokens = 0;
    options.max_sequences = 2;
    options.max_step_tokens = race->blocks * options.block_tokens;
    bench_must(quire_cache_open(&race->cache, &options));
}

static void race_and_report(race *race, bench_racer *racer, const char *name, bench_copy *copy, const char *limit)
{
    bench_racer racers[] = {*racer, bench_enter(NULL, bench_copy_body, NULL, copy, 1)};
    char size[40];

    bench_race(&race->bed->options->effort, racers, 2);
    double bytes = (double)copy->bytes;
    if (racer->body == restore_body) /* the prompt's first block may have stayed */
        bytes = (double)(race->hit.host / race->block_tokens) * (double)race->bed->block_bytes;
    snprintf(size, sizeof size, "%u x %.2f MiB", race->blocks, (double)race->bed->block_bytes / (1 << 20));
    bench_bed_report(race->bed, name, size, racers[0].sample, bytes, racers[1].sample, (double)copy->bytes, limit);
}

void bench_device_tiers(bench_bed *bed)
{
    race race = {.bed = bed};
    void *mirror;

    cache_open(&race);
    size_t count = (size_t)race.blocks * race.block_tokens;
    size_t width = (size_t)bed->group.kv_heads * bed->group.head_dim;
    quire_dtype dtype = bed->cache.dtype > QUIRE_DTYPE_BF16 ? QUIRE_DTYPE_BF16 : bed->cache.dtype;
    race.kv = (quire_tensor){.data = bench_bed_random(bed, dtype, count * width, &mirror),
                             .dtype = dtype,
                             .heads = bed->group.kv_heads,
                             .token_stride = (int64_t)width,
                             .head_stride = bed->group.head_dim};
    free(mirror);
    for (int i = 0; i < PROMPTS; i++) {
        race.tokens[i] = bench_alloc((count + 1) * sizeof(int32_t));
        bench_random_tokens(&bed->seed, race.tokens[i], count + 1);
    }
    size_t bytes = race.blocks * bed->block_bytes;
    void *device = bench_bed_take(bed, QUIRE__MEMORY_DEVICE, bytes);
    void *host = bench_bed_take(bed, QUIRE__MEMORY_PINNED, bytes);
    bench_copy out = {bed, host, device, bytes}, in = {bed, device, host, bytes};
    bench_copy_body(&out);
    fill_and_check(&race);

    bench_racer restore = bench_enter(restore_prepare, restore_body, restore_finish, &race, 1);
    race_and_report(&race, &restore, "restore", &in, "one copy from the host");
    race.turn = 0;
    bench_racer offload = bench_enter(offload_prepare, offload_body, offload_finish, &race, 1);
    race_and_report(&race, &offload, "offload", &out, "one copy to the host");

    bench_bed_give(bed, QUIRE__MEMORY_PINNED, host);
    bench_bed_give(bed, QUIRE__MEMORY_DEVICE, device);
    bench_bed_give(bed, QUIRE__MEMORY_DEVICE, race.kv.data);
    for (int i = 0; i < PROMPTS; i++)
        free(race.tokens[i]);
    quire_cache_close(race.cache);
}
