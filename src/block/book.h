/* book.h: the deciding half behind one door. Who holds which block, which prompt spells which blocks, what goes when
 * memory is short. Pure bookkeeping on flat arrays taken at open: no bytes, no I/O, no clock, no device. The same
 * calls, at the same times (quire__book_set_time), give the same decisions.
 *
 * Protocol of a step:   step_begin, reserve (a sequence)..., [name ...], commit or cancel (each of them), step_end.
 * Protocol of a move:   an offload or restore that a call put into a plan is answered by exactly one quire__book_complete.
 *                       Until then its two slots belong to it: neither is given out again.
 * Copies need no answer: they run on the step's stream, and the book keeps their source until commit or cancel.
 *
 * Sequences are named by index here; cache/ gives them generations.
 */
#ifndef QUIRE_BOOK_H
#define QUIRE_BOOK_H

#include "block/plan.h"
#include "block/side.h"
#include "block/walk.h"
#include "quire/quire_backend.h"

typedef struct quire__book_config {
    uint32_t block_tokens;
    uint32_t device_slots, host_slots; /* host_slots 0: nothing is offloaded */
    uint32_t section_slots; /* device_slots is a multiple; 0: the arena keeps its size */
    uint32_t max_sequences, max_seq_tokens, max_domains;
    uint32_t watermark_blocks, event_capacity;
    uint64_t hash_key;
    const char *policy;
    uint32_t pin_blocks;
    const quire_policy *custom_policy; /* NULL: the library's own of that name */
    quire_offload offload;
    uint32_t offload_low, offload_high; /* watermarks of write-back, in blocks; 0: a sixteenth of the arena, twice the low */
    const quire__side_config *sides; /* [side_count]: groups beside the first; read at open */
    uint32_t side_count;
    quire__allocator allocator;
} quire__book_config;

/* QUIRE_ENOMEM, QUIRE_EINVAL (an unknown policy: the text lists the known ones). */
quire_status quire__book_open(quire__book **book, const quire__book_config *config);
void quire__book_close(quire__book *book);

/* The time from here on, in microseconds from any start; eviction policies are told it. The book has no clock of its own,
 * so that a replay can bring its own time: the same calls with the same times give the same decisions. Time never goes
 * back: an earlier one than before is taken as that. */
void quire__book_set_time(quire__book *book, uint64_t now_us);
uint64_t quire__book_time(const quire__book *book);

/* What a block costs to fetch and to compute, as measured; microseconds. A match restores only where that is cheaper. All 0, as
 * at open: it always does. */
typedef struct quire__costs {
    double restore_block_us, restore_wait_us; /* wait: before the first block moves */
    double compute_block_us;
} quire__costs;
void quire__book_set_costs(quire__book *book, const quire__costs *costs);

/* ---- sequences */
quire_status quire__book_seq_open(quire__book *book, uint64_t domain, uint32_t *seq);
/* Most moves a match can plan: max_seq blocks. Restores stop (a shorter hit) where no slot can be had above the
 * watermark, or the plan is full. */
quire_status quire__book_seq_match(quire__book *book, uint32_t seq, const int32_t *tokens, size_t count,
                                   quire__plan *plan, quire_hit *hit);
/* The same in pieces, for a caller who locks: look may run while others use the book; the rest needs the book alone.
 * begin, then look and hold while both are true, then end, which takes the rest. No other call with this sequence in
 * between. Before each look, look->departures is set to quire__book_departures, as it is while the book is our own. */
quire_status quire__book_match_begin(const quire__book *book, uint32_t seq, const int32_t *tokens, size_t count);
uint64_t quire__book_departures(const quire__book *book);
bool quire__book_match_look(const quire__book *book, uint32_t seq, const int32_t *tokens, size_t count,
                            quire__look *look);
bool quire__book_match_hold(quire__book *book, uint32_t seq, const int32_t *tokens, size_t count, quire__look *look);
void quire__book_match_end(quire__book *book, uint32_t seq, const int32_t *tokens, size_t count, quire__plan *plan,
                           quire_hit *hit);
quire_status quire__book_probe(quire__book *book, uint64_t domain, const int32_t *tokens, size_t count, quire_hit *hit);
/* The same in pieces: look may run while others use the book. begin, look, end; not for books of several groups. */
quire_status quire__book_probe_begin(const quire__book *book, uint64_t domain, const int32_t *tokens, size_t count,
                                     quire__probe *probe);
void quire__book_probe_look(const quire__book *book, const int32_t *tokens, quire__probe *probe);
void quire__book_probe_end(const quire__book *book, const int32_t *tokens, quire__probe *probe, quire_hit *hit);
/* Takes in what completions did to this sequence: true when nothing of it is arriving any more; its length may then
 * have become shorter. */
bool quire__book_seq_ready(quire__book *book, uint32_t seq);
/* Tokens, as the last call that named the sequence left them. */
uint32_t quire__book_seq_length(const quire__book *book, uint32_t seq);
quire_status quire__book_seq_fork(quire__book *book, uint32_t seq, uint32_t *child);
quire_status quire__book_seq_truncate(quire__book *book, uint32_t seq, size_t length);
void quire__book_seq_close(quire__book *book, uint32_t seq);
/* Advice for the policies, read when the sequence closes. The caller has checked it. */
void quire__book_seq_hint(quire__book *book, uint32_t seq, const quire_hint *hint);
enum { QUIRE__BOOK_LIFETIMES = 64 };
/* QUIRE_EFULL: as many other domains have a time to live. */
quire_status quire__book_domain_ttl(quire__book *book, uint64_t domain, uint64_t ttl_us);
void quire__book_seq_get(quire__book *book, uint32_t seq, quire_seq_info *info);
/* Device slots of the sequence's blocks, `*blocks` of them. `*changed` is the first entry that differs from what it
 * was at the last call with reset, so that a device table can be brought up to date by a delta. */
const int32_t *quire__book_seq_table(quire__book *book, uint32_t seq, uint32_t *blocks, uint32_t *changed, bool reset);
/* The same of group 1 and up. Entries before `*first` are some valid slot: the sequence has no such blocks there. */
const int32_t *quire__book_seq_side_table(quire__book *book, uint32_t seq, uint32_t group, uint32_t *first,
                                          uint32_t *blocks, uint32_t *changed, bool reset);
/* Copies tokens [first, first + count) of the sequence. */
void quire__book_seq_tokens(quire__book *book, uint32_t seq, size_t first, size_t count, int32_t *tokens);
/* Copies all block_tokens tokens of the sequence's block `at`, which may be more of it than the sequence has. */
void quire__book_seq_block(const quire__book *book, uint32_t seq, uint32_t at, int32_t *tokens);

/* ---- steps */
/* `step` rises by one a step; it becomes the ticket of what the step touches. */
void quire__book_step_begin(quire__book *book, uint64_t step);
/* Room for `count` more tokens: blocks are taken (evicting cached ones), a shared tail block is replaced by a copy
 * (planned). All or nothing. QUIRE_EFULL: `*moving` says how many blocks become free or evictable when moves now in flight
 * complete: 0 means that waiting is useless. QUIRE_ERANGE. `tokens` NULL: named later. */
quire_status quire__book_reserve(quire__book *book, uint32_t seq, const int32_t *tokens, size_t count,
                                 quire__plan *plan, uint32_t *moving);
/* The same for a sequence whose restore is under way, if only whole blocks of it are still arriving; else QUIRE_EAGAIN. Before
 * commit, quire__book_settle must have said that all is there. */
quire_status quire__book_reserve_early(quire__book *book, uint32_t seq, const int32_t *tokens, size_t count,
                                       quire__plan *plan, uint32_t *moving);
typedef enum quire__settled { QUIRE__SETTLED, QUIRE__SETTLING, QUIRE__LOST } quire__settled;
/* What became of the restore that a reserve ran ahead of. LOST: it failed, or nobody can tell, since the
 * blocks are elsewhere now; cancel, and the sequence is as long as what it still has. */
quire__settled quire__book_settle(quire__book *book, uint32_t seq);
quire_status quire__book_name(quire__book *book, uint32_t seq, const int32_t *tokens, size_t count);
bool quire__book_named(const quire__book *book, uint32_t seq);
/* The reserved tokens are written: full blocks are sealed, deduplicated against the tree, and their offload is planned.
 * The plan needs room for one move a sealed block; it is used up to two, where the host lacks blocks of before. */
void quire__book_commit(quire__book *book, uint32_t seq, quire__plan *plan);
/* Undoes this step's reserve of the sequence. The copy it planned, if any, must not have been enqueued, or must be
 * harmless: its destination is given back with the step's ticket. */
void quire__book_cancel(quire__book *book, uint32_t seq);
void quire__book_step_end(quire__book *book);
/* After a step, under write-back: plans the offload of what eviction will come to next, where too little of that is on the
 * host already. `restoring`: restores are under way, and offloads must leave them the link. Not while offloads of the last
 * call are under way. */
void quire__book_offload_ahead(quire__book *book, bool restoring, quire__plan *plan);

/* ---- moves */
void quire__book_complete(quire__book *book, const quire__move *move, bool ok);
/* The move's time is up but its copy may still run: whoever waits for it goes on without (a restore becomes a miss, an
 * offload is forgotten); its two slots stay taken until quire__book_complete, which still follows. */
void quire__book_expire(quire__book *book, const quire__move *move);

/* ---- the arena's size. Only outside a step; see section.h. All sections are there at open. */
uint32_t quire__book_sections(const quire__book *book);
uint32_t quire__book_section_add(quire__book *book);
quire_status quire__book_section_check(const quire__book *book, uint32_t count, uint32_t *moving);
uint32_t quire__book_section_leave(quire__book *book, quire__plan *plan);
void quire__book_section_left(quire__book *book, uint32_t section, const quire__plan *plan, bool ok);

/* ---- a host tier whose memory comes bit by bit. All of it is there at open, unless told otherwise before the first
 * sequence; from then on it only grows, and only by these calls, so that the same calls give the same decisions. */
void quire__book_host_limit(quire__book *book, uint32_t slots);
void quire__book_host_grow(quire__book *book, uint32_t slots);

/* ---- the whole */
void quire__book_clear(quire__book *book);
/* Fills what the deciding half knows; the rest is left as it is. */
void quire__book_stats(const quire__book *book, quire_stats *stats);
void quire__book_group_stats(const quire__book *book, uint32_t group, quire_group_stats *stats);
size_t quire__book_events(quire__book *book, quire_event *events, size_t capacity);
quire_status quire__book_block_tokens(const quire__book *book, quire_block block, int32_t *tokens);
/* QUIRE_ECORRUPT: the text names the invariant and where it broke. */
quire_status quire__book_check(const quire__book *book);
/* Host slots that hold a resident block, for the caller who verifies their bytes: calls fn for each. */
void quire__book_each_host_slot(const quire__book *book, void (*fn)(void *arg, uint32_t slot), void *arg);
/* The same of the slots' parts of group 1 and up. */
void quire__book_each_host_side(const quire__book *book, uint32_t group, void (*fn)(void *arg, uint32_t slot), void *arg);

/* Tests only: drop one protection, to prove that the tests would see it missing. */
typedef enum quire__book_hole {
    QUIRE__BOOK_HOLE_NONE = 0,
    QUIRE__BOOK_HOLE_OFFLOAD_SOURCE = 1,  /* evict a block although its offload still reads it */
    QUIRE__BOOK_HOLE_RESTORE_SOURCE = 2,  /* give a host slot out although a restore still reads it */
    QUIRE__BOOK_HOLE_ARRIVING = 4,        /* call a block resident when its restore is planned, not when it completed */
    QUIRE__BOOK_HOLE_TICKET = 8,          /* plan restores with ticket 0 */
    QUIRE__BOOK_HOLE_COPY_ON_WRITE = 16,  /* write into a shared block */
    QUIRE__BOOK_HOLE_SIDE_OFFLOAD_SOURCE = 32, /* the same of side blocks */
    QUIRE__BOOK_HOLE_SIDE_RESTORE_SOURCE = 64,
    QUIRE__BOOK_HOLE_SIDE_ARRIVING = 128,
    QUIRE__BOOK_HOLE_SIDE_TICKET = 256,
    QUIRE__BOOK_HOLE_SIDE_COPY = 512
} quire__book_hole;
void quire__book_set_holes(quire__book *book, uint32_t holes);

#endif
