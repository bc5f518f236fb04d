/* ceilings_link.c: the host's memory, by one thread to all of them. A GPU has ceilings_link_cuda.c. */
#include "ceilings_link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#ifdef QUIRE_HAVE_CUDA
#include "ceilings_link_cuda.h"
#endif

enum {
    BYTES = 64 << 20,
    PIECE = 1 << 20 /* that a thread takes at a time */
};

void bench_ceilings_fill(bench_bed *bed, void *memory, size_t bytes)
{
    uint64_t *words = bench_alloc(PIECE);

    for (size_t i = 0; i < PIECE / sizeof *words; i++)
        words[i] = quire__random(&bed->seed);
    for (size_t done = 0; done < bytes; done += PIECE)
        bench_bed_move(bed, (unsigned char *)memory + done, words, PIECE, true);
    free(words);
}

typedef struct thread_work {
    quire__parallel *parallel;
    unsigned char *to, *from;
    uint64_t sums[BYTES / PIECE]; /* what reading found, so that it is not left out */
} thread_work;

static void copy_piece(void *arg, size_t index)
{
    thread_work *work = arg;

    memcpy(work->to + index * PIECE, work->from + index * PIECE, PIECE);
}

static void read_piece(void *arg, size_t index)
{
    thread_work *work = arg;
    const uint64_t *words = (const uint64_t *)(const void *)(work->from + index * PIECE);
    uint64_t sum = 0;

    for (size_t i = 0; i < PIECE / sizeof *words; i++)
        sum += words[i];
    work->sums[index] = sum;
}

static void write_piece(void *arg, size_t index)
{
    thread_work *work = arg;

    memset(work->to + index * PIECE, (int)index, PIECE);
}

static void copy_pieces(void *work)
{
    quire__parallel_for(((thread_work *)work)->parallel, BYTES / PIECE, copy_piece, work);
}

static void read_pieces(void *work)
{
    quire__parallel_for(((thread_work *)work)->parallel, BYTES / PIECE, read_piece, work);
}

static void write_pieces(void *work)
{
    quire__parallel_for(((thread_work *)work)->parallel, BYTES / PIECE, write_piece, work);
}

/* The limit of all is a copy by all threads. */
static void race_threads(bench_bed *bed, thread_work *all, uint32_t threads)
{
    thread_work work = *all;
    char size[40];

    bench_must(quire__parallel_open(&work.parallel, threads, NULL, NULL));
    bench_racer racers[] = {bench_enter(NULL, copy_pieces, NULL, &work, 1),
                            bench_enter(NULL, read_pieces, NULL, &work, 1),
                            bench_enter(NULL, write_pieces, NULL, &work, 1),
                            bench_enter(NULL, copy_pieces, NULL, all, 1)};
    bench_race(&bed->options->effort, racers, 4);
    quire__parallel_close(work.parallel);
    static const char *const names[] = {"copy", "read", "write"};
    snprintf(size, sizeof size, "%u thread%s", threads, threads == 1 ? "" : "s");
    for (size_t i = 0; i < 3; i++)
        bench_bed_report(bed, names[i], size, racers[i].sample, (i == 0 ? 2.0 : 1.0) * BYTES, racers[3].sample,
                         2.0 * BYTES, "copy by all threads");
}

static void host_link(bench_bed *bed)
{
    uint32_t most = quire__parallel_threads(bed->parallel);
    unsigned char *memory = bench_bed_take(bed, QUIRE__MEMORY_DEVICE, 2 * (size_t)BYTES);
    thread_work *all = bench_alloc(sizeof *all);

    *all = (thread_work){.parallel = bed->parallel, .to = memory + BYTES, .from = memory};
    bench_ceilings_fill(bed, memory, 2 * (size_t)BYTES);
    for (uint32_t threads = 1; threads < most; threads *= 2)
        race_threads(bed, all, threads);
    race_threads(bed, all, most);
    free(all);
    bench_bed_give(bed, QUIRE__MEMORY_DEVICE, memory);
}

bench_verdict bench_ceilings_link(bench_bed *bed)
{
#ifdef QUIRE_HAVE_CUDA
    if (bench_bed_on_gpu(bed))
        return bench_ceilings_link_cuda(bed);
#endif
    host_link(bed);
    return (bench_verdict){.known = false};
}
