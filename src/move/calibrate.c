/* calibrate.c: a mover of its own over scratch memory, for each path that may be chosen. */
#include "move/calibrate.h"

#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/status.h"

enum {
    HOST_BYTES = 4 << 20,  /* a millisecond of memcpy */
    CUDA_BYTES = 32 << 20, /* 600 us of a PCIe 5 link */
    MOST_BLOCKS = 64,
    ROUNDS = 4, /* the first one warms up */
    TIMEOUT_US = 1000 * 1000
};

typedef struct trial {
    quire__device *device;
    size_t block_bytes;
    uint32_t blocks; /* in every other slot of the arena */
    unsigned char *arena;
    quire__mover *mover;
    quire__plan plan;
    uint32_t ended;
    bool failed;
} trial;

static void note_end(void *arg, const quire__move *move, quire__outcome outcome)
{
    trial *trial = arg;
    (void)move;
    trial->ended += outcome != QUIRE__MOVE_LATE;
    trial->failed = trial->failed || outcome != QUIRE__MOVE_DONE;
}

/* All blocks one way. */
static bool cross(trial *trial, quire__move_type type)
{
    trial->plan.count = 0;
    trial->ended = 0;
    for (uint32_t i = 0; i < trial->blocks; i++)
        quire__plan_add(&trial->plan, (quire__move){.type = type,
                                                    .source = type == QUIRE__MOVE_OFFLOAD ? 2 * i : i,
                                                    .destination = type == QUIRE__MOVE_OFFLOAD ? i : 2 * i});
    quire__mover_start(trial->mover, &trial->plan);
    while (trial->ended < trial->blocks && !trial->failed)
        quire__mover_poll(trial->mover, note_end, trial);
    return !trial->failed;
}

/* Nearly normal numbers: what packing meets in K and V. Through pinned memory, as every copy to a device goes. */
static quire_status fill(trial *trial, quire__stream *stream)
{
    enum { PATTERN = 64 * 1024 };
    void *memory;
    uint64_t random = 1;
    quire_status status = QUIRE_OK;

    QUIRE__TRY(quire__device_alloc(trial->device, QUIRE__MEMORY_PINNED, PATTERN, &memory));
    for (size_t i = 0; i < PATTERN / 2; i++) {
        uint64_t bits = quire__random(&random);
        float sum = 0;
        uint32_t word;
        for (int j = 0; j < 4; j++)
            sum += (float)(bits >> (16 * j) & 0xffff) / 65536.0f - 0.5f;
        memcpy(&word, &sum, sizeof word);
        uint16_t half = (uint16_t)(word >> 16);
        memcpy((unsigned char *)memory + 2 * i, &half, sizeof half);
    }
    size_t bytes = 2 * trial->blocks * trial->block_bytes;
    for (size_t at = 0; at < bytes && status == QUIRE_OK; at += PATTERN) {
        quire__copy copy = {trial->arena + at, memory, bytes - at < PATTERN ? bytes - at : PATTERN};
        status = quire__device_copy(trial->device, stream, &copy, 1);
    }
    quire_status waited = quire__device_stream_synchronize(trial->device, stream);
    quire__device_free(trial->device, QUIRE__MEMORY_PINNED, memory);
    return status == QUIRE_OK ? waited : status;
}

static quire_status prepare(trial *trial, const quire__allocator *allocator, quire__path path,
                            const quire__pack_shape *shape)
{
    quire__stream *stream;
    void *arena;

    QUIRE__TRY(quire__plan_open(&trial->plan, allocator, trial->blocks));
    QUIRE__TRY(quire__device_alloc(trial->device, QUIRE__MEMORY_DEVICE, 2 * trial->blocks * trial->block_bytes, &arena));
    trial->arena = arena;
    QUIRE__TRY(quire__device_stream_open(trial->device, &stream));
    quire_status status = fill(trial, stream);
    quire__device_stream_close(trial->device, stream);
    if (status != QUIRE_OK)
        return status;
    quire__mover_config config = {.device = trial->device,
                                  .allocator = *allocator,
                                  .arena = trial->arena,
                                  .block_bytes = trial->block_bytes,
                                  .parts = 1,
                                  .part_bytes = trial->block_bytes,
                                  .device_slots = 2 * trial->blocks,
                                  .host_slots = trial->blocks,
                                  .path = path,
                                  .staging_bytes = QUIRE__STAGING_BYTES,
                                  .timeout_us = TIMEOUT_US};
    if (path == QUIRE__PATH_PACK)
        config.shape = *shape;
    return quire__mover_open(&trial->mover, &config);
}

static uint64_t least_ns(trial *trial)
{
    uint64_t least = UINT64_MAX;

    for (int round = 0; round < ROUNDS; round++) {
        uint64_t began = quire__clock_us();
        if (!cross(trial, QUIRE__MOVE_OFFLOAD) || !cross(trial, QUIRE__MOVE_RESTORE))
            return 0;
        uint64_t took = quire__clock_us() - began;
        if (round > 0 && took < least)
            least = took;
    }
    return least * 1000 / trial->blocks + 1;
}

uint64_t quire__calibrate_path(quire__device *device, const quire__allocator *allocator, size_t block_bytes,
                               quire__path path, const quire__pack_shape *shape)
{
    size_t bytes = quire__device_is_cuda(device) ? CUDA_BYTES : HOST_BYTES, blocks = bytes / block_bytes;
    trial trial = {.device = device, .block_bytes = block_bytes};
    uint64_t least = 0;

    trial.blocks = blocks < 2 ? 2 : blocks < MOST_BLOCKS ? (uint32_t)blocks : MOST_BLOCKS;
    if (prepare(&trial, allocator, path, shape) == QUIRE_OK)
        least = least_ns(&trial);
    quire__mover_close(trial.mover);
    quire__device_free(device, QUIRE__MEMORY_DEVICE, trial.arena);
    quire__plan_close(&trial.plan, allocator);
    return least;
}
