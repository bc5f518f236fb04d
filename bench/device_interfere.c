/* device_interfere.c: decode attention alone, and while blocks are copied to host memory and back at full rate.
 *
 * A thread keeps batches of block copies in flight, as the mover would: one stream a direction, both at once. It runs during
 * one racer and rests during the other, and the two take turns, so what else the machine does hits both. */
#define _GNU_SOURCE 1
#include "device_interfere.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
    DIRECTIONS = 2,
    TRAFFIC_BYTES = 64 << 20, /* of a batch and direction, at most */
    CHUNK = 1024,             /* tokens of a prefill step */
    LEAST_WORK = 64 << 20,    /* bytes that a timed body should read at least */
    LEAST_WORK_GPU = 512 << 20
};

typedef struct traffic {
    bench_bed *bed;
    pthread_t thread;
    atomic_bool wanted, flows, ends;
    atomic_uint batches; /* that have arrived, both directions of one counted as one */
    uint32_t blocks;     /* of a batch and direction */
    unsigned char *host[DIRECTIONS], *device[DIRECTIONS];
    quire__stream *streams[DIRECTIONS];
    quire__copy *copies;
    double seconds;
} traffic;

typedef struct race {
    bench_bed *bed;
    quire_cache *cache;
    quire_step *step;
    const quire_view *view;
    quire_tensor kv, q, out;
    uint32_t rows, context, repeats;
    quire_seq *seqs;
    traffic *traffic;
} race;

/* ---- the traffic --------------------------------------------------------------------------------------------- */

static void enqueue(traffic *t, int direction)
{
    for (uint32_t i = 0; i < t->blocks; i++) {
        unsigned char *host = t->host[direction] + i * t->bed->block_bytes;
        unsigned char *device = t->device[direction] + i * t->bed->block_bytes;
        t->copies[i] = (quire__copy){.destination = direction == 0 ? host : device,
                                     .source = direction == 0 ? device : host,
                                     .bytes = t->bed->block_bytes};
    }
    bench_must(quire__device_copy(t->bed->device, t->streams[direction], t->copies, t->blocks));
}

static void *traffic_main(void *arg)
{
    traffic *t = arg;

    while (!atomic_load(&t->ends)) {
        atomic_store(&t->flows, true);
        if (!atomic_load(&t->wanted)) { /* read behind the store: whoever waits for the end sees the last batch out */
            atomic_store(&t->flows, false);
            (void)nanosleep(&(struct timespec){.tv_nsec = 20 * 1000}, NULL);
            continue;
        }
        double began = bench_now();
        enqueue(t, 0);
        enqueue(t, 1);
        for (int i = 0; i < DIRECTIONS; i++)
            bench_must(quire__device_stream_synchronize(t->bed->device, t->streams[i]));
        t->seconds += bench_now() - began;
        atomic_fetch_add(&t->batches, 1);
    }
    return NULL;
}

/* It flows before the clock starts. */
static void traffic_start(void *arg)
{
    traffic *t = ((race *)arg)->traffic;
    uint32_t before = atomic_load(&t->batches);

    atomic_store(&t->wanted, true);
    while (atomic_load(&t->batches) == before)
        (void)nanosleep(&(struct timespec){.tv_nsec = 20 * 1000}, NULL);
}

static void traffic_stop(void *arg)
{
    traffic *t = ((race *)arg)->traffic;

    atomic_store(&t->wanted, false);
    while (atomic_load(&t->flows))
        (void)nanosleep(&(struct timespec){.tv_nsec = 20 * 1000}, NULL);
}

static void traffic_open(traffic *t, bench_bed *bed)
{
    size_t most = bed->arena_bytes / 8 < TRAFFIC_BYTES ? (size_t)bed->arena_bytes / 8 : TRAFFIC_BYTES;

    *t = (traffic){.bed = bed, .blocks = (uint32_t)(most / bed->block_bytes)};
    if (t->blocks == 0)
        t->blocks = 1;
    t->copies = bench_alloc(t->blocks * sizeof *t->copies);
    for (int i = 0; i < DIRECTIONS; i++) {
        t->host[i] = bench_bed_take(bed, QUIRE__MEMORY_PINNED, t->blocks * bed->block_bytes);
        t->device[i] = bench_bed_take(bed, QUIRE__MEMORY_DEVICE, t->blocks * bed->block_bytes);
        bench_must(quire__device_stream_open(bed->device, &t->streams[i]));
    }
    if (pthread_create(&t->thread, NULL, traffic_main, t) != 0)
        bench_die("no thread for the copies");
}

static void traffic_close(traffic *t)
{
    atomic_store(&t->ends, true);
    (void)pthread_join(t->thread, NULL);
    for (int i = 0; i < DIRECTIONS; i++) {
        quire__device_stream_close(t->bed->device, t->streams[i]);
        bench_bed_give(t->bed, QUIRE__MEMORY_DEVICE, t->device[i]);
        bench_bed_give(t->bed, QUIRE__MEMORY_PINNED, t->host[i]);
    }
    free(t->copies);
}

/* ---- the steps ----------------------------------------------------------------------------------------------- */

static void attend_body(void *arg)
{
    race *race = arg;
    float scale = 1.0f / sqrtf((float)race->bed->group.head_dim);

    for (uint32_t i = 0; i < race->repeats; i++)
        for (uint32_t layer = 0; layer < race->view->layers; layer++)
            bench_must(quire_attend(race->view, layer, &race->q, &race->out, scale));
    bench_bed_finish(race->bed);
}

static void submit(race *race)
{
    bench_must(quire_step_submit(race->step));
    race->view = quire_step_view(race->step, 0);
    for (uint32_t layer = 0; layer < race->view->layers; layer++)
        bench_must(quire_append(race->view, layer, &race->kv, &race->kv));
    bench_bed_finish(race->bed);
}

static void prefill(race *race, uint32_t row)
{
    int32_t *tokens = bench_alloc(race->context * sizeof *tokens);

    bench_random_tokens(&race->bed->seed, tokens, race->context);
    bench_must(quire_seq_open(race->cache, NULL, &race->seqs[row]));
    for (uint32_t done = 0; done + 1 < race->context;) {
        uint32_t left = race->context - 1 - done, part = left < CHUNK ? left : CHUNK;
        bench_must(quire_step_begin(race->cache, bench_bed_stream(race->bed), &race->step));
        bench_must(quire_step_add(race->step, race->seqs[row], tokens + done, part));
        submit(race);
        bench_must(quire_step_commit(race->step));
        done += part;
    }
    free(tokens);
}

static quire_tensor tensor(bench_bed *bed, uint32_t tokens, uint32_t heads)
{
    quire_dtype dtype = bed->cache.dtype > QUIRE_DTYPE_BF16 ? QUIRE_DTYPE_BF16 : bed->cache.dtype;
    size_t width = (size_t)heads * bed->group.head_dim;
    void *mirror;
    quire_tensor made = {.data = bench_bed_random(bed, dtype, tokens * width, &mirror),
                         .dtype = dtype,
                         .heads = heads,
                         .token_stride = (int64_t)width,
                         .head_stride = bed->group.head_dim};
    free(mirror);
    return made;
}

/* A batch of decode sequences, and its step left open. */
static void race_open(race *race)
{
    bench_bed *bed = race->bed;
    quire_options options = bed->cache;
    uint64_t tokens = bed->arena_bytes / 2 / bed->block_bytes * options.block_tokens;

    race->rows = bed->options->batch > 0 ? bed->options->batch : bench_bed_on_gpu(bed) ? 64 : 8;
    race->context = bed->options->context > 0 ? bed->options->context : bench_bed_on_gpu(bed) ? 4096 : 1024;
    while (race->rows > 1 && (uint64_t)race->rows * (race->context + options.block_tokens) > tokens)
        race->rows /= 2;
    if ((uint64_t)race->rows * (race->context + options.block_tokens) > tokens)
        bench_die("interfere needs room for a context of %u tokens in half of QUIRE_DEVICE_BYTES", race->context);
    options.device_bytes = bed->arena_bytes / 2;
    options.offload = QUIRE_OFFLOAD_NONE;
    options.host_bytes = 0;
    options.max_sequences = race->rows;
    options.max_seq_tokens = 0;
    options.max_step_tokens = CHUNK;
    bench_must(quire_cache_open(&race->cache, &options));
    race->kv = tensor(bed, CHUNK, bed->group.kv_heads);
    race->q = tensor(bed, race->rows, bed->group.query_heads);
    race->out = tensor(bed, race->rows, bed->group.query_heads);
    race->seqs = bench_alloc(race->rows * sizeof *race->seqs);
    for (uint32_t row = 0; row < race->rows; row++)
        prefill(race, row);
    bench_must(quire_step_begin(race->cache, bench_bed_stream(bed), &race->step));
    for (uint32_t row = 0; row < race->rows; row++)
        bench_must(quire_step_add(race->step, race->seqs[row], &(int32_t){1}, 1));
    submit(race);
}

static void race_close(race *race)
{
    quire_step_cancel(race->step);
    quire_cache_close(race->cache);
    free(race->seqs);
    bench_bed_give(race->bed, QUIRE__MEMORY_DEVICE, race->out.data);
    bench_bed_give(race->bed, QUIRE__MEMORY_DEVICE, race->q.data);
    bench_bed_give(race->bed, QUIRE__MEMORY_DEVICE, race->kv.data);
}

void bench_device_interfere(bench_bed *bed)
{
    traffic traffic;
    race race = {.bed = bed, .traffic = &traffic};
    char size[40], count[16];

    race_open(&race);
    traffic_open(&traffic, bed);
    double bytes = (double)race.rows * race.context / bed->cache.block_tokens * (double)bed->block_bytes;
    double least = bench_bed_on_gpu(bed) ? LEAST_WORK_GPU : LEAST_WORK;
    race.repeats = bytes < least ? (uint32_t)(least / bytes) + 1 : 1;
    bench_racer racers[] = {bench_enter(traffic_start, attend_body, traffic_stop, &race, race.repeats),
                            bench_enter(NULL, attend_body, NULL, &race, race.repeats)};
    bench_bed_race(bed, racers, 2);
    snprintf(size, sizeof size, "%u x %s tokens", race.rows, bench_count(count, sizeof count, race.context));
    bench_bed_report(bed, "attention beside copies", size, racers[0].sample, bytes, racers[1].sample, bytes,
                     "the same alone");
    uint32_t batches = atomic_load(&traffic.batches);
    traffic_close(&traffic);
    double moved = (double)batches * DIRECTIONS * traffic.blocks * (double)bed->block_bytes;
    bench_report_note(bed->report, "Beside attention, %.2f GB/s of blocks went to host memory and back, both directions "
                      "together.", moved / (traffic.seconds > 0 ? traffic.seconds : 1) * 1e-9);
    race_close(&race);
}
