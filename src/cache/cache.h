/* cache.h: the cache's inside, for the files of this folder.
 *
 *   quire.h calls -> sequence.c, step.c, compute.c, observe.c
 *                        |  book   (decides)          |  tables (what kernels read)
 *                        +---------- plan ----------> |  mover  (moves)  -> device
 *                        |  record (a trace of the calls, where one is asked for)
 */
#ifndef QUIRE_CACHE_H
#define QUIRE_CACHE_H

#include <stdbool.h>

#include "base/lock.h"
#include "block/book.h"
#include "cache/layout.h"
#include "cache/prefixes.h"
#include "cache/record.h"
#include "cache/tables.h"
#include "device/device.h"
#include "move/mover.h"

enum { QUIRE__SECTIONS_MOST = 256 };

/* Tests only: drop one protection, to prove that the tests would see it missing. */
typedef enum quire__cache_hole {
    QUIRE__CACHE_HOLE_NONE = 0,
    QUIRE__CACHE_HOLE_UNMAP = 1 /* give a section's memory back without waiting for what may touch it */
} quire__cache_hole;

/* A sequence's public face: the book knows the rest under the same index. */
typedef struct quire__face {
    uint32_t generation; /* of the handle; rises at every close */
    uint32_t last_row;   /* of the device's block table */
    uint64_t owner;      /* of that row: never used twice */
    uint64_t restore;    /* the mover's mark behind its match; 0: it restored nothing */
    bool open, in_step;
    bool busy; /* a call on it is under way that has given the lock back for a while */
} quire__face;

typedef enum quire__step_state {
    QUIRE__STEP_NONE, /* no step */
    QUIRE__STEP_ADDING,
    QUIRE__STEP_SUBMITTED
} quire__step_state;

typedef struct quire__step_row {
    uint32_t seq; /* index */
    uint32_t added;
    bool early; /* runs ahead of its restore */
} quire__step_row;

struct quire_step {
    quire_cache *cache;
    quire__step_state state;
    uint64_t number; /* the ticket */
    quire__stream *stream;
    quire__step_row *rows; /* [max_sequences], in order of adding */
    quire__row *sent;      /* [max_sequences], scratch of submit */
    uint32_t row_count, tokens;
    uint64_t restore;     /* the newest restore that a row runs ahead of; 0: none does */
    uint32_t graph_rows, graph_context; /* quire_step_graph; 0: not asked for */
    uint32_t parts_ready; /* of that restore, the stream waits for so many parts already */
    quire__plan plan;         /* copies, at most one a row and group */
    quire__block_pair *pairs; /* the same, for the kernel */
    quire_view view;
    quire_view side_views[QUIRE__SIDES_MOST];
    quire__row *side_sent; /* [max_sequences], of one group after the other */
    quire__prefixes prefixes;
    bool prefixes_found;
    quire__shared_args shared; /* of the prefixes, once they were sent; its group_count is 0 before */
};

/* A group beside the first: groups.c. */
typedef struct quire__cache_side {
    quire__layout layout;
    uint32_t slots;
    unsigned char *arena;
    float *scales;
    quire__tables *tables;
    uint32_t *last_rows; /* [max_sequences]: as quire__face.last_row */
} quire__cache_side;

struct quire_cache {
    quire__lock lock; /* see cache.c */
    quire_options options; /* resolved; strings and the groups are our own */
    quire_group groups[QUIRE_GROUPS];
    char device_name[32], policy_name[32];
    quire__allocator allocator;
    quire__layout layout; /* of the first group; what follows is its own too, unless it says otherwise */
    uint32_t device_slots, host_slots; /* both with those that have no memory now */
    quire__path path;       /* of blocks to the host and back: paths.c */
    quire__pack_shape shape; /* where they are packed */
    size_t host_slot_bytes;
    uint32_t host_ready; /* host slots that the book has been told of */
    bool host_short, host_tell; /* there will be no more of them; the log is to be told so, without the lock */

    uint32_t sections, section_slots; /* of an arena that changes its size (resize.c); 0: it does not */
    size_t section_bytes;
    bool section_mapped[QUIRE__SECTIONS_MOST];
    quire__plan resize_plan;
    quire__event *resized; /* behind a section's copies */
    uint32_t holes;
    uint32_t part_layers; /* of one part of a restore */

    quire__device *device;
    quire__stream *stream; /* what NULL stands for */
    unsigned char *arena;
    float *scales; /* on the device; NULL unless the caller gave some */
    uint64_t scales_checksum; /* 0: none */
    float *work;   /* on the device: partial results of decode attention */
    size_t work_floats;

    uint32_t side_count; /* groups beside the first */
    quire__cache_side sides[QUIRE__SIDES_MOST];

    quire__book *book;
    quire__mover *mover;
    quire__tables *tables;
    quire__record *record; /* NULL: nothing is recorded */
    quire__plan moves; /* scratch of match and commit */
    quire__face *faces; /* [max_sequences] */
    uint64_t next_owner, steps;
    uint64_t share_least; /* tokens of K and V that quire_attend must save to read shared prefixes once; 0: it never does */
    double prefill_rate; /* tokens a second; 0: not known */
    const struct quire__followers *followers; /* follow.h; NULL: there are none */
    bool follows; /* another process decides: there is no book */
    uint32_t sending; /* sequences whose blocks a peer reads: they must stay where they are */
    struct quire_step step;
};

/* All below but the lock itself: with the lock held. */
void quire__cache_lock(quire_cache *cache);
void quire__cache_unlock(quire_cache *cache);
/* Takes in what the mover has finished. */
void quire__cache_take_in(quire_cache *cache);
/* Starts what `cache->moves` holds and empties it. */
void quire__cache_start_moves(quire_cache *cache);
/* Tells the book what a restore costs just now, for the match that follows. */
void quire__cache_tell_costs(quire_cache *cache);
/* The index of an open sequence; QUIRE_ESTALE otherwise, QUIRE_ESTATE when another thread's call has it. */
quire_status quire__cache_find(const quire_cache *cache, quire_seq seq, uint32_t *index);
/* Waits a little for moves in flight; QUIRE_ETIMEOUT once `deadline_us` has passed. Whoever has the lock keeps it. */
quire_status quire__cache_pause(uint64_t deadline_us, const char *what);
/* The same, with the lock given back meanwhile. */
quire_status quire__cache_pause_unlocked(quire_cache *cache, uint64_t deadline_us, const char *what);
/* Without the lock. Makes the step's stream wait until the layer's part of all restores that rows run ahead of is there. */
quire_status quire__step_await_layer(quire_step *step, uint32_t layer);
/* The view but for its tables; the copies of pairs[0 .. count) that the step begins with. */
void quire__step_fill_view(quire_step *step);
void quire__step_shape_view(quire_step *step); /* for a graph, behind the tables */
quire_status quire__step_copy_blocks(quire_step *step, uint32_t count);
/* FP8 with the caller's scales: sends them to the device. */
quire_status quire__cache_send_scales(quire_cache *cache, const quire_group *group, const quire__layout *layout, float **scales,
                                      uint64_t *checksum);
quire__tables_config quire__cache_tables_config(const quire_cache *cache);
/* The part of a view that is not the step's rows. */
void quire__cache_fill_view(quire_cache *cache, quire__stream *stream, const quire__layout *layout, unsigned char *arena,
                            uint32_t slots, const float *scales, quire_view *view);
/* Enqueues the copies of the step's plan that are of this group. */
quire_status quire__step_copy_group(quire_step *step, uint32_t group, quire__tables *tables, unsigned char *arena,
                                    size_t block_bytes);
/* The end of a step, however it ended. */
void quire__step_finish(quire_step *step);

#endif
