/* evict_learned.c: learns how soon blocks of a kind come back (learner.c) and evicts what is least worth its place.
 *
 *    path let go -> each block gets a kind; the last one, if nothing is below it, joins the list of its (kind, age bin)
 *
 *    cells     kind 3, bin 0:  leaf <-> leaf           in the bucket of what its        bitmap of the buckets that
 *              kind 3, bin 7:  leaf                    least leaf is worth: 64 an       are not empty
 *              kind 8, bin 2:  leaf <-> leaf <-> leaf  octave
 *
 * A victim is the least leaf of the first cell of the lowest bucket, found by two scans for a set bit. The least of a cell
 * is the oldest; where blocks are worth more the older they are, the youngest. What a leaf is worth follows from its exact
 * age. A cell finds its bucket when its least leaf changes, and when it is looked at: each request looks at the next few
 * cells in turn, and moves on those of their blocks that have reached the next bin.
 *
 * A kind is what is known when a block is let go: the block's place (the last, found in the cache, or new); how the turn
 * ended (whether the engine said so, and how much was generated, beside what is usual: a call of a tool is short); how often
 * the block has been used; how much the conversation has grown in this turn, beside what is usual; how long it had been since
 * the turn before. Turns are found by marks: the last two blocks of a sequence are marked, and a sequence that has a mark in
 * its path is the next turn of that conversation (and takes the mark away, so that a prefix that many share is not taken for a
 * conversation). A mark survives the eviction of its block, by key. Uses of a block that was evicted are known from the
 * learner's samples: a block has been used at least as often as one below it, so the samples of a path say enough.
 *
 * Of two tiers the upper one learns. The lower one has lists of its own, over the same kinds: of a block that comes down, or
 * whose path is counted as used there, it takes over what the upper one knows, and between two such times the block is as
 * old as its last use makes it. Blocks that are in use above are of the kind that they last were, and used now.
 *
 * Invariants
 *  1. In the lists are exactly the blocks of the order without children: `listed` says so. A block joins when it is let
 *     go last of its path, or when its last child is dropped; so whoever is named as the victim is a leaf. Of a path that
 *     is taken only the last block can be in a list, so the others are not touched: whether they are in the order the tree
 *     knows (`waiting`).
 *  2. A cell is in a bucket when its list is not empty, and the bit of a bucket is set when it has a cell.
 *  3. Within a list blocks are in the order of their last use, but for one that has joined after PASSED younger ones: it
 *     is at most a bin late when it ages.
 */
#include "block/evict_learned.h"

#include <string.h>

#include "base/check.h"
#include "base/status.h"
#include "block/learner.h"
#include "block/leaves.h"
#include "block/plan.h"
#include "block/worth.h"

enum {
    BINS = QUIRE__LEARNER_BINS,
    CELLS = QUIRE__LEARNER_KINDS * BINS,
    CELL_WORDS = (CELLS + 63) / 64,
    BUCKETS = 4096, /* 64 an octave, from 2^-48 to 2^16 a ms */
    BUCKET_WORDS = BUCKETS / 64,
    MARK_SETS = 16384, /* of four marks that outlived their block */
    MARK_WAYS = 4,
    BUSY_TRIES = 8, /* victims passed over because a copy has them */
    LOOKED_AT = 256, /* cells, for each request */
    MOST_USES = 8,
    MOST_LEVEL = 15,
    PASSED = 64,     /* younger blocks that one passes on its way into a list */
    MOVED = 16       /* blocks of a cell that move on when it is looked at */
};

enum { PLACE, ENDED, USES, GROWTH, GAP }; /* the features, in the order of the learner's tree */

typedef struct entry {
    uint32_t used; /* ms */
    uint32_t kind : 10, bin : 6;
    uint32_t uses : 4;
    uint32_t level : 4;  /* 1 + zero bits that its stamp ends in; 0: not looked at. The learner follows those of a level above
                          * its shift */
    uint32_t listed : 1, found : 1; /* in a list; in the order before */
    uint32_t marked : 1; /* of the last two of a sequence */
} entry;

_Static_assert(QUIRE__LEARNER_KINDS <= 1 << 10 && QUIRE__LEARNER_BINS <= 1 << 6, "fit an entry");
_Static_assert(sizeof(entry) == sizeof(uint64_t), "an entry is read and written as a word");

/* Of a leaf in its list. Apart from the entries: these are written block by block when a path is let go, and links are not. */
typedef struct link {
    uint32_t older, newer;
} link;

/* Leaves of a kind and a bin of age. */
typedef struct cell {
    uint32_t oldest, newest;
    uint32_t before, after; /* in its bucket */
    uint32_t bucket;
} cell;

typedef struct learned {
    quire__allocator allocator;
    quire_policy_tree tree;
    entry *entries;
    link *links; /* of the same blocks */
    cell *cells;
    uint64_t *marks; /* [MARK_SETS][MARK_WAYS]: key, time, and a 1; the newest first */
    uint32_t bucket[BUCKETS]; /* its first cell */
    uint64_t filled[BUCKET_WORDS], tops; /* buckets with a cell; words of `filled` with a bit */
    uint64_t lively[CELL_WORDS]; /* cells with a leaf */
    uint32_t looked; /* the word of `lively` to look at next */
    uint32_t blocks, count, ticked;
    uint32_t lowest; /* the first cell of the lowest bucket, or QUIRE__NONE: it has to be looked for */
    float growth; /* log2 of what sequences grow by, on average */
    float generated; /* log2 of how many tokens are generated in a turn, on average */
    const struct learned *above; /* of the tier above, or NULL; then it is the one that learns */
    quire__learner *learner;     /* of the uppermost tier */
    quire__learner own;
} learned;

/* ---- buckets ------------------------------------------------------------------------------------------------- */

static uint32_t bucket_of(float worth)
{
    uint32_t bits;
    memcpy(&bits, &worth, sizeof(bits)); /* not negative: its bits are in the order of its value */
    const uint32_t least = (127u - 48) << 6;
    uint32_t step = bits >> 17;
    return step < least ? 0 : step - least < BUCKETS ? step - least : BUCKETS - 1;
}

static void leave_bucket(learned *p, uint32_t at)
{
    cell *own = &p->cells[at];
    p->lowest = QUIRE__NONE;
    if (own->before == QUIRE__NONE)
        p->bucket[own->bucket] = own->after;
    else
        p->cells[own->before].after = own->after;
    if (own->after != QUIRE__NONE)
        p->cells[own->after].before = own->before;
    if (p->bucket[own->bucket] == QUIRE__NONE) {
        p->filled[own->bucket / 64] &= ~(UINT64_C(1) << own->bucket % 64);
        if (p->filled[own->bucket / 64] == 0)
            p->tops &= ~(UINT64_C(1) << own->bucket / 64);
    }
    own->bucket = QUIRE__NONE;
}

static void join_bucket(learned *p, uint32_t at, uint32_t bucket)
{
    cell *own = &p->cells[at];
    p->lowest = QUIRE__NONE;
    own->bucket = bucket;
    own->before = QUIRE__NONE;
    own->after = p->bucket[bucket];
    if (own->after != QUIRE__NONE)
        p->cells[own->after].before = at;
    p->bucket[bucket] = at;
    p->filled[bucket / 64] |= UINT64_C(1) << bucket % 64;
    p->tops |= UINT64_C(1) << bucket / 64;
}

static uint32_t age_of(const learned *p, uint32_t node)
{
    return p->ticked - p->entries[node].used;
}

/* Whether blocks of the cell are worth more the older they are. */
static bool rising(const learned *p, uint32_t at)
{
    const float *worth = &p->learner->kinds[at / BINS].worth[at % BINS];
    return worth[1] > worth[0];
}

/* The cell's least leaf has changed, or what it is worth. */
static void place_cell(learned *p, uint32_t at)
{
    cell *own = &p->cells[at];
    uint32_t bucket = QUIRE__NONE;
    if (own->oldest != QUIRE__NONE) {
        uint32_t age = age_of(p, rising(p, at) ? own->newest : own->oldest), from = quire__learner_edge(at % BINS);
        bucket = bucket_of(quire__learner_worth(p->learner, at / BINS, at % BINS, age > from ? age : from));
    }
    if (bucket == own->bucket)
        return;
    if (own->bucket != QUIRE__NONE)
        leave_bucket(p, at);
    if (bucket != QUIRE__NONE)
        join_bucket(p, at, bucket);
}

/* ---- lists --------------------------------------------------------------------------------------------------- */

static void list(learned *p, uint32_t node, uint32_t bin)
{
    entry *own = &p->entries[node];
    link *links = p->links, *place = &links[node];
    const uint32_t at = own->kind * (uint32_t)BINS + bin;
    cell *cell = &p->cells[at];
    QUIRE__ASSERT(own->listed == 0);
    own->bin = bin & 63;
    own->listed = 1;
    if (cell->oldest == QUIRE__NONE) {
        place->older = place->newer = QUIRE__NONE;
        cell->oldest = cell->newest = node;
        p->lively[at / 64] |= UINT64_C(1) << at % 64;
    } else if ((int32_t)(own->used - p->entries[cell->oldest].used) <= 0) {
        place->older = QUIRE__NONE;
        place->newer = cell->oldest;
        links[cell->oldest].older = node;
        cell->oldest = node;
    } else {
        uint32_t older = cell->newest;
        for (uint32_t i = 0; i < PASSED && (int32_t)(own->used - p->entries[older].used) < 0; i++)
            older = links[older].older;
        place->older = older;
        place->newer = links[older].newer;
        links[older].newer = node;
        if (place->newer == QUIRE__NONE)
            cell->newest = node;
        else
            links[place->newer].older = node;
    }
    if (node == (rising(p, at) ? cell->newest : cell->oldest))
        place_cell(p, at);
}

static void unlist(learned *p, uint32_t node)
{
    entry *own = &p->entries[node];
    const link place = p->links[node];
    const uint32_t at = own->kind * (uint32_t)BINS + own->bin;
    cell *cell = &p->cells[at];
    own->listed = 0;
    if (place.older == QUIRE__NONE)
        cell->oldest = place.newer;
    else
        p->links[place.older].newer = place.newer;
    if (place.newer == QUIRE__NONE)
        cell->newest = place.older;
    else
        p->links[place.newer].older = place.older;
    if (cell->oldest == QUIRE__NONE)
        p->lively[at / 64] &= ~(UINT64_C(1) << at % 64);
    if (place.older == QUIRE__NONE || place.newer == QUIRE__NONE)
        place_cell(p, at);
}

static void look_at(learned *p, uint32_t at)
{
    const uint32_t bin = at % BINS;
    if (bin + 1 < BINS) {
        uint32_t edge = quire__learner_edge(bin + 1), node;
        for (uint32_t i = 0; i < MOVED && (node = p->cells[at].oldest) != QUIRE__NONE && age_of(p, node) >= edge; i++) {
            unlist(p, node);
            list(p, node, quire__learner_bin(age_of(p, node)));
        }
    }
    place_cell(p, at);
}

/* Time has passed: the next cells in turn are looked at, once around at most. */
static void age(learned *p, uint32_t now)
{
    p->ticked = now;
    if (!p->above)
        quire__learner_advance(p->learner, now);
    uint32_t left = LOOKED_AT, words = (p->learner->kind_count * BINS + 63) / 64;
    for (uint32_t i = 0; i < words && left > 0; i++) {
        p->looked = p->looked + 1 < words ? p->looked + 1 : 0;
        for (uint64_t bits = p->lively[p->looked]; bits; bits &= bits - 1, left -= left > 0)
            look_at(p, p->looked * 64 + (uint32_t)__builtin_ctzll(bits));
    }
}

/* ---- keys and marks ------------------------------------------------------------------------------------------ */

static uint32_t stamp_of(const learned *p, uint32_t node)
{
    return p->tree.stamp(p->tree.self, node);
}

static uint64_t *marks_of(const learned *p, uint32_t stamp)
{
    return &p->marks[(stamp * 2654435761u >> 18) % MARK_SETS * MARK_WAYS];
}

static void keep_mark(learned *p, uint32_t stamp, uint32_t used)
{
    uint64_t *set = marks_of(p, stamp);
    for (int i = MARK_WAYS - 1; i > 0; i--)
        set[i] = set[i - 1];
    set[0] = (uint64_t)stamp << 32 | (uint64_t)(used >> 6 & 0xffffff) << 8 | 1;
}

static bool take_mark(learned *p, uint32_t stamp, uint32_t *used)
{
    uint64_t *set = marks_of(p, stamp);
    for (int i = 0; i < MARK_WAYS; i++) {
        if (set[i] != 0 && set[i] >> 32 == stamp) {
            *used = (uint32_t)(set[i] >> 8 & 0xffffff) << 6;
            set[i] = 0;
            return true;
        }
    }
    return false;
}

/* How many blocks of the path its conversation had after its last turn, and when that was. 0: it is the first turn. */
static uint32_t find_mark(learned *p, const uint32_t *path, uint32_t count, uint32_t *used)
{
    for (uint32_t i = count; i-- > 0;) {
        entry *own = &p->entries[path[i]];
        bool marked = own->marked;
        *used = own->used;
        if (!marked && !own->found)
            marked = take_mark(p, stamp_of(p, path[i]), used);
        own->marked = 0;
        if (marked) {
            if (i > 0)
                p->entries[path[i - 1]].marked = 0;
            return i + 1;
        }
    }
    return 0;
}

/* ---- kinds --------------------------------------------------------------------------------------------------- */

static float log2_of(uint32_t value)
{
    uint32_t whole = 31 - (uint32_t)__builtin_clz(value | 1);
    return (float)whole + (float)value / (float)(UINT32_C(1) << whole) - 1; /* straight between powers of two */
}

/* Five classes of three octaves in all, the middle one about the average. */
static uint32_t growth_class(learned *p, uint32_t blocks)
{
    float size = log2_of(blocks + 1), beside = size - p->growth;
    p->growth += beside / 64;
    return beside < -3 ? 0 : beside < -1 ? 1 : beside < 1 ? 2 : beside < 2 ? 3 : 4;
}

/* Three classes of how much was generated, the middle one three octaves and about the average; the engine's word doubles them. */
static uint32_t ended_class(learned *p, const quire_policy_use *use)
{
    float size = log2_of(use->generated + 1), beside = size - p->generated;
    p->generated += beside / 64;
    return (beside < -1.75f ? 0 : beside < 1.5f ? 1 : 2) + (use->hints & QUIRE_HINT_TURN_ENDED ? 3 : 0);
}

static uint32_t gap_class(uint32_t gap)
{
    uint32_t bin = quire__learner_bin(gap);
    return bin < 9 ? 0 : bin < 30 ? (bin - 9) / 3 : 7;
}

/* Six classes of how often a block has been used before. */
static uint32_t uses_class(uint32_t uses)
{
    return uses < 4 ? uses : uses < 8 ? 4 : 5;
}

static entry used_entry(entry own, uint32_t kind, uint32_t now)
{
    own.kind = kind & 1023;
    own.used = now;
    own.found = 1;
    own.uses += own.uses < MOST_USES;
    return own;
}

static uint64_t word_of(entry own)
{
    uint64_t word;
    memcpy(&word, &own, sizeof(word));
    return word;
}

static bool followed(const learned *p, entry own)
{
    return own.level > p->learner->shift;
}

/* Levels of a path's new blocks, and how often they have been used: as often as one below them, at least. */
static void know(learned *p, const uint32_t *path, uint32_t count)
{
    uint32_t below = 0;
    for (uint32_t i = count; i-- > 0;) {
        entry *own = &p->entries[path[i]];
        if (own->found)
            return;
        const uint32_t stamp = stamp_of(p, path[i]), level = 1 + (uint32_t)__builtin_ctz(stamp | UINT32_C(1) << 31);
        own->level = (level < MOST_LEVEL ? level : MOST_LEVEL) & 15;
        if (followed(p, *own)) {
            uint32_t uses = quire__learner_uses(p->learner, stamp);
            uses = uses < MOST_USES ? uses : MOST_USES;
            below = uses > below ? uses : below;
        }
        own->uses = below & 15;
    }
}

/* Blocks of the path from `from` on, up to `most`, that are known as path[from] is have been used, and are of that kind now.
 * Returns the first that is not. */
static uint32_t use_alike(learned *p, const uint32_t *path, uint32_t from, uint32_t most, uint32_t kind, uint32_t used,
                          uint32_t now, uint32_t *samples)
{
    entry *entries = p->entries; /* in locals: the stores below could be to anything, as the compiler sees it */
    uint32_t shift = p->learner->shift;
    entry next = used_entry(entries[path[from]], kind, used);
    next.level = next.marked = 0;
    const uint64_t alike = word_of((entry){.found = 1, .uses = 15}), kept = word_of((entry){.level = 15, .marked = 1});
    const uint64_t key = word_of(entries[path[from]]) & alike, written = word_of(next);
    uint32_t i = from;
    for (; i < most; i++) {
        entry own = entries[path[i]];
        const uint64_t word = word_of(own);
        if ((word & alike) != key)
            break;
        const uint64_t after = (word & kept) | written;
        memcpy(&entries[path[i]], &after, sizeof(after));
        if (own.level > shift) { /* followed */
            quire__learner_use(p->learner, stamp_of(p, path[i]), kind, now);
            shift = p->learner->shift;
            ++*samples;
        }
    }
    return i;
}

/* ---- the policy ---------------------------------------------------------------------------------------------- */

static uint32_t clock_of(const quire_policy_use *use)
{
    return (uint32_t)(use->now / 1000);
}

/* A block of a lower tier is what the tier above says of it; `then`: when it was used, if nobody above knows. */
static entry described(const learned *p, uint32_t node, uint32_t then)
{
    const entry *above = &p->above->entries[node], *own = &p->entries[node];
    if (p->above->tree.waiting(p->above->tree.self, node))
        return (entry){.used = above->used, .kind = above->kind, .uses = above->uses, .found = 1};
    const entry *known = above->found || !own->found ? above : own;
    return (entry){.used = then, .kind = known->kind, .uses = known->uses, .found = 1};
}

static void insert_lower(learned *p, const uint32_t *path, uint32_t count, uint32_t now)
{
    age(p, now);
    for (uint32_t i = 0; i < count; i++)
        p->entries[path[i]] = described(p, path[i], now);
    p->count += count;
    if (p->tree.children(p->tree.self, path[count - 1]) == 0)
        list(p, path[count - 1], quire__learner_bin(age_of(p, path[count - 1])));
}

static void learned_insert(void *state, const uint32_t *path, uint32_t count, const quire_policy_use *use)
{
    learned *p = state;
    const uint32_t now = clock_of(use);
    if (p->above) {
        insert_lower(p, path, count, now);
        return;
    }
    if (use->blocks > 0 || p->ticked != now) /* a rollback is no request: its upkeep would be a hundred times its work */
        age(p, now);
    know(p, path, count);
    const bool whole = use->blocks >= count && use->blocks > 0;
    const uint32_t above = whole ? use->blocks - count : 0;
    uint32_t last_used = 0, end = whole ? find_mark(p, path, count, &last_used) : 0;
    const bool useless = use->hints & QUIRE_HINT_NO_REUSE; /* as if it had been there for long: taken at its word */
    uint8_t features[QUIRE__LEARNER_FEATURES] = {
        [ENDED] = (uint8_t)(whole ? ended_class(p, use) : 1),
        [GROWTH] = (uint8_t)(whole ? growth_class(p, count - end) : 0),
        [GAP] = (uint8_t)(end ? 1 + gap_class(now - last_used) : 0)};
    const uint32_t matched = use->matched > above ? use->matched - above : 0;
    uint32_t samples = 0;
    for (uint32_t i = 0; i < count;) {
        const entry own = p->entries[path[i]];
        const bool last = whole && i + 1 == count, hit = own.found || i < matched;
        features[PLACE] = last ? 2 : hit;
        features[USES] = (uint8_t)uses_class(own.uses);
        const uint32_t kind = quire__learner_kind(p->learner, features);
        const uint32_t used = useless && !hit ? now - quire__learner_edge(BINS - 1) : now;
        const uint32_t most = !own.found && i < matched && matched < count - whole ? matched : last ? count : count - whole;
        i = use_alike(p, path, i, most, kind, used, now, &samples);
    }
    p->count += count;
    quire__learner_path(p->learner, samples);
    for (uint32_t i = count > 2 ? count - 2 : 0; whole && i < count; i++)
        p->entries[path[i]].marked = 1;
    if (p->tree.children(p->tree.self, path[count - 1]) == 0)
        list(p, path[count - 1], quire__learner_bin(age_of(p, path[count - 1])));
}

static void learned_insert_below(void *state, uint32_t node, uint32_t above, const quire_policy_use *use)
{
    learned *p = state;
    const uint32_t now = clock_of(use);
    if (p->entries[above].listed)
        unlist(p, above);
    if (p->ticked != now)
        age(p, now);
    p->entries[node] = p->above ? described(p, node, now) : used_entry((entry){0}, 0, now);
    p->count++;
    list(p, node, quire__learner_bin(age_of(p, node)));
}

static void learned_take(void *state, const uint32_t *path, uint32_t count, uint64_t now)
{
    learned *p = state;
    if (p->ticked != (uint32_t)(now / 1000)) /* evictions follow, and go by ages of now */
        age(p, (uint32_t)(now / 1000));
    QUIRE__ASSERT(p->count >= count);
    for (uint32_t i = 0; i + 1 < count; i++)
        QUIRE__ASSERT(p->entries[path[i]].listed == 0);
    if (p->entries[path[count - 1]].listed)
        unlist(p, path[count - 1]);
    p->count -= count;
}

/* A parent of the same kind and age takes its child's place in the list: what the cell is worth does not change. */
static void inherit(learned *p, uint32_t parent, uint32_t node)
{
    entry own = p->entries[parent]; /* written whole: a part that is read with its neighbours at once would be waited for */
    const link place = p->links[parent] = p->links[node];
    own.bin = p->entries[node].bin;
    own.listed = 1;
    p->entries[parent] = own;
    cell *cell = &p->cells[own.kind * (uint32_t)BINS + own.bin];
    if (place.older == QUIRE__NONE)
        cell->oldest = parent;
    else
        p->links[place.older].newer = parent;
    if (place.newer == QUIRE__NONE)
        cell->newest = parent;
    else
        p->links[place.newer].older = parent;
}

static void learned_drop(void *state, uint32_t node)
{
    learned *p = state;
    entry *own = &p->entries[node];
    QUIRE__ASSERT(p->tree.waiting(p->tree.self, node));
    uint32_t parent = p->tree.heir(p->tree.self, node);
    bool inherits = own->listed && parent != QUIRE_NO_BLOCK && p->entries[parent].kind == own->kind &&
                    p->entries[parent].used == own->used;
    if (inherits)
        inherit(p, parent, node);
    else if (own->listed)
        unlist(p, node);
    if (own->marked)
        keep_mark(p, stamp_of(p, node), own->used);
    *own = (entry){0};
    p->count--;
    if (parent != QUIRE_NO_BLOCK && !inherits)
        list(p, parent, quire__learner_bin(age_of(p, parent)));
}

static void learned_sealed(void *state, const uint32_t *path, uint32_t count)
{
    learned *p = state;
    for (uint32_t i = 0; i < count; i++)
        p->entries[path[i]] = (entry){0};
}

/* The first bucket at or after `bucket` with a cell, or BUCKETS. */
static uint32_t next_bucket(const learned *p, uint32_t bucket)
{
    if (bucket >= BUCKETS)
        return BUCKETS;
    uint32_t word = bucket / 64;
    uint64_t rest = p->filled[word] >> bucket % 64;
    if (rest)
        return bucket + (uint32_t)__builtin_ctzll(rest);
    uint64_t tops = word + 1 < BUCKET_WORDS ? p->tops >> (word + 1) : 0;
    if (!tops)
        return BUCKETS;
    word += 1 + (uint32_t)__builtin_ctzll(tops);
    return word * 64 + (uint32_t)__builtin_ctzll(p->filled[word]);
}

/* Who goes first of a cell. */
static uint32_t first_of(const learned *p, uint32_t at)
{
    return rising(p, at) ? p->cells[at].newest : p->cells[at].oldest;
}

static uint32_t learned_victim(void *state)
{
    learned *p = state;
    uint32_t first = p->lowest == QUIRE__NONE ? QUIRE_NO_BLOCK : first_of(p, p->lowest), tries = 0;
    if (first != QUIRE_NO_BLOCK && !p->tree.busy(p->tree.self, first))
        return first;
    first = QUIRE_NO_BLOCK;
    for (uint32_t bucket = next_bucket(p, 0); bucket < BUCKETS; bucket = next_bucket(p, bucket + 1)) {
        p->lowest = p->lowest == QUIRE__NONE ? p->bucket[bucket] : p->lowest;
        for (uint32_t at = p->bucket[bucket]; at != QUIRE__NONE; at = p->cells[at].after) {
            const bool upward = rising(p, at);
            for (uint32_t node = first_of(p, at); node != QUIRE__NONE;
                 node = upward ? p->links[node].older : p->links[node].newer) {
                if (!p->tree.busy(p->tree.self, node))
                    return node;
                first = first == QUIRE_NO_BLOCK ? node : first;
                if (++tries == BUSY_TRIES)
                    return first;
            }
        }
    }
    return first;
}

/* In about the order of its going: after a leaf come those above it whose bucket is no higher. */
static uint32_t name_with_parents(const learned *p, uint32_t node, uint32_t bucket, uint32_t *nodes, uint32_t most)
{
    uint32_t count = 0;
    while (count < most) {
        nodes[count++] = node;
        node = p->tree.heir(p->tree.self, node);
        if (node == QUIRE_NO_BLOCK)
            break;
        const entry *own = &p->entries[node];
        const uint32_t age = p->ticked - own->used;
        if (bucket_of(quire__learner_worth(p->learner, own->kind, quire__learner_bin(age), age)) > bucket)
            break;
    }
    return count;
}

static uint32_t learned_coldest(void *state, uint32_t *nodes, uint32_t most, uint64_t now)
{
    const learned *p = state;
    (void)now;
    uint32_t count = 0;
    for (uint32_t bucket = next_bucket(p, 0); bucket < BUCKETS && count < most; bucket = next_bucket(p, bucket + 1)) {
        for (uint32_t at = p->bucket[bucket]; at != QUIRE__NONE && count < most; at = p->cells[at].after) {
            const bool upward = rising(p, at);
            for (uint32_t node = upward ? p->cells[at].newest : p->cells[at].oldest; node != QUIRE__NONE && count < most;
                 node = upward ? p->links[node].older : p->links[node].newer)
                count += name_with_parents(p, node, bucket, nodes + count, most - count);
        }
    }
    return count;
}

static int learned_worth_offload(void *state, uint32_t node, const quire_policy_use *use)
{
    const learned *p = state;
    const entry *own = &p->entries[node];
    const uint32_t age = p->tree.waiting(p->tree.self, node) ? clock_of(use) - own->used : 0; /* else it is in use */
    return quire__worth_offload(p->learner, own->kind, age, use->host_holds / 1000);
}

static uint32_t learned_count(const void *state)
{
    const learned *p = state;
    return p->count;
}

static quire_status learned_open(void *state, const quire_policy_setup *setup)
{
    learned *p = state;
    void *memory = NULL;
    p->allocator = (quire__allocator){setup->alloc, setup->free, setup->alloc_user};
    p->tree = setup->tree;
    p->blocks = setup->blocks;
    p->lowest = QUIRE__NONE;
    if (setup->blocks == 0)
        return QUIRE_OK;
    QUIRE__TRY(quire__memory_take(&p->allocator, setup->blocks, sizeof(entry), "the eviction order", &memory));
    p->entries = memory;
    QUIRE__TRY(quire__memory_take(&p->allocator, setup->blocks, sizeof(link), "the eviction order", &memory));
    p->links = memory;
    QUIRE__TRY(quire__memory_take(&p->allocator, CELLS, sizeof(cell), "eviction lists", &memory));
    p->cells = memory;
    for (uint32_t i = 0; i < CELLS; i++)
        p->cells[i] = (cell){QUIRE__NONE, QUIRE__NONE, QUIRE__NONE, QUIRE__NONE, QUIRE__NONE};
    for (uint32_t i = 0; i < BUCKETS; i++)
        p->bucket[i] = QUIRE__NONE;
    p->above = setup->above;
    p->learner = p->above ? p->above->learner : &p->own;
    if (p->above)
        return QUIRE_OK;
    QUIRE__TRY(quire__memory_take(&p->allocator, (size_t)MARK_SETS * MARK_WAYS, sizeof(uint64_t), "marks", &memory));
    p->marks = memory;
    QUIRE__TRY(quire__learner_open(&p->own, &p->allocator));
    p->growth = 3;
    p->generated = 7;
    return QUIRE_OK;
}

static void learned_close(void *state)
{
    learned *p = state;
    quire__learner_close(&p->own, &p->allocator);
    quire__memory_give(&p->allocator, p->marks);
    quire__memory_give(&p->allocator, p->cells);
    quire__memory_give(&p->allocator, p->links);
    quire__memory_give(&p->allocator, p->entries);
}

/* The leaves from their lists, so that who is in none, or in two, shows. */
static void learned_each(const void *state, void (*fn)(void *arg, uint32_t node), void *arg)
{
    const learned *p = state;
    for (uint32_t at = 0; at < CELLS && p->cells; at++)
        for (uint32_t node = p->cells[at].oldest; node != QUIRE__NONE; node = p->links[node].newer)
            fn(arg, node);
    for (uint32_t node = 0; node < p->blocks; node++)
        if (p->tree.waiting(p->tree.self, node) && p->tree.children(p->tree.self, node) > 0)
            fn(arg, node);
}

const quire_policy quire__evict_learned = {
    .size = sizeof(quire_policy),
    .name = "learned",
    .state_bytes = sizeof(learned),
    .open = learned_open,
    .close = learned_close,
    .insert = learned_insert,
    .insert_below = learned_insert_below,
    .take = learned_take,
    .drop = learned_drop,
    .victim = learned_victim,
    .count = learned_count,
    .each = learned_each,
    .sealed = learned_sealed,
    .worth_offload = learned_worth_offload,
    .coldest = learned_coldest,
};
