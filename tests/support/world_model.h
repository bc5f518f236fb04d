/* world_model.h: between world.c and the model of a world. A test links one model: world_plain.c or world_groups.c. */
#ifndef QUIRE_TESTS_WORLD_MODEL_H
#define QUIRE_TESTS_WORLD_MODEL_H

#include "cache/cache.h"
#include "support/world.h"

enum { MOST_SEQUENCES = 12, LONGEST = 96, ALPHABET = 3, THEMES = 4, MOST_GROUPS = 4 };
enum { KIND_K = 0, KIND_V = 1, KIND_Q = 2, KIND_STATE = 3 };

typedef struct member {
    bool open, settled; /* settled: its restore has ended and `length` is final */
    quire_seq handle;
    uint64_t domain;
    int32_t tokens[LONGEST];
    uint32_t target, length; /* tokens wanted, tokens whose KV the cache has */
    uint32_t added;          /* in the step under way */
} member;

typedef struct reading reading;

typedef struct world {
    const world_options *options;
    world_result *result;
    quire_cache *cache;
    quire__stream *streams[2];
    member members[MOST_SEQUENCES];
    int32_t themes[THEMES][LONGEST]; /* prompts that come back again and again: what restores are for */
    reading *readings;
    uint32_t longest; /* tokens of a sequence */
    quire_group groups[MOST_GROUPS];
    uint32_t group_count;
    uint64_t random;
} world;

/* The enqueued reads of a step, whose results are compared after the next synchronisation. A model has what it read
 * behind it. */
struct reading {
    reading *next;
    quire__device *device;
    uint64_t step;
};

/* ---- of world.c */
uint32_t world_below(world *w, uint32_t bound);
bool world_chance(world *w, uint32_t percent);
/* Notes the first failure; false. */
bool world_wrong(world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool world_must(world *w, quire_status status, const char *what);
uint64_t world_mix(uint64_t a, uint64_t b);
/* What position `i` of a prompt is, given everything before it. */
void world_states(const member *m, uint32_t count, uint64_t *states);
/* Who is in row `row` of the step. */
member *world_member(world *w, uint32_t row);

/* ---- of the model */
/* Fills groups and group_count of the world, and device_bytes and host_bytes. */
bool model_open(world *w, quire_options *o);
/* One step of the model: appends, reads, and adds to w->readings what must be found. */
bool model_forward(world *w, quire_step *step);
/* What the newest reading has of that member is of no interest: its restore failed. Below 0: of all. */
void model_lost(world *w, int number);
bool model_compare(world *w, const reading *r);
void model_free(reading *r);

#endif
