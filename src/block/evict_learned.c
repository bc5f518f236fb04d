/* evict_learned.c: learns how soon blocks of a kind come back (learner.c) and evicts what is least worth its place.
 *
 *    path let go -> each block gets a kind; the last one, if nothing is below it, joins the list of its (kind, age bin)
 *
 *    cells     kind 3, bin 0:  leaf <-> leaf         ranked by index, once in a while     bitmap of the ranks whose list
 *              kind 3, bin 7:  leaf                  for all of them together             is not empty
 *              kind 8, bin 2:  leaf <-> leaf <-> leaf
 *
 * A victim is the oldest of the first list by rank: the exact minimum over everything, found by two scans for a set bit.
 * Blocks age from bin to bin: the oldest of each list are moved on when time has passed, before anything is asked.
 *
 * A kind is what is known when a block is let go: whether the engine said that the turn has ended; how many turns the
 * conversation has had; the block's place (the last, found in the cache, or new); how much the conversation has grown in
 * this turn, beside what is usual; how long it had been since the turn before. Turns are counted by marks: the last two blocks of a sequence carry the number
 * of its turn, and a sequence that has a mark in its path is the next turn of that conversation (and takes the mark away,
 * so that a prefix that many share is not taken for a conversation). A mark survives the eviction of its block, by key.
 *
 * Invariants
 *  1. In the lists are exactly the blocks of the order without children: `listed` says so. A block joins when it is let
 *     go last of its path, or when its last child is dropped; so whoever is named as the victim is a leaf.
 *  2. The bit of a rank is set when the list of its cell is not empty.
 *  3. Within a list blocks are about in the order of their last use: a parent that joins is as old as the oldest or
 *     older, or goes to the recent end, where it ages at most a bin late.
 */
#include "block/evict_learned.h"

#include "base/check.h"
#include "base/status.h"
#include "block/learner.h"
#include "block/leaves.h"
#include "block/plan.h"
#include "block/worth.h"

enum {
    BINS = QUIRE__LEARNER_BINS,
    CELLS = QUIRE__LEARNER_CELLS,
    WORDS = (CELLS + 63) / 64,
    TOPS = (WORDS + 63) / 64,
    MARK_SETS = 16384, /* of four marks that outlived their block */
    MARK_WAYS = 4,
    BUSY_TRIES = 8,      /* victims passed over because a copy has them */
    LEAST_EVENTS = 256, /* evictions between two rankings: few at first, then many */
    MOST_EVENTS = 65536,
    TICK = 16 /* ms */
};

enum { IN = 1, LISTED = 2, FOUND = 4 };

typedef struct entry {
    uint64_t key; /* of the block and all before it; 0: not worked out */
    uint32_t older, newer;
    uint32_t used; /* ms */
    uint16_t kind;
    uint8_t bin, flags;
    uint8_t turn; /* a mark; 0: none */
} entry;

typedef struct learned {
    quire__allocator allocator;
    quire_policy_tree tree;
    entry *entries;
    uint32_t *oldest, *newest; /* of a cell */
    uint64_t *marks;           /* [MARK_SETS][MARK_WAYS]: key above 8 bits of turn, the newest first */
    uint64_t words[WORDS], tops[TOPS];
    uint32_t count, ticked;
    uint64_t events, next_rank;
    float growth; /* log2 of what sequences grow by, on average */
    quire__learner learner;
} learned;

/* ---- lists --------------------------------------------------------------------------------------------------- */

static void mark_rank(learned *p, uint32_t cell)
{
    uint32_t rank = p->learner.rank[cell];
    p->words[rank / 64] |= UINT64_C(1) << rank % 64;
    p->tops[rank / 4096] |= UINT64_C(1) << rank / 64 % 64;
}

static void clear_rank(learned *p, uint32_t cell)
{
    uint32_t rank = p->learner.rank[cell];
    p->words[rank / 64] &= ~(UINT64_C(1) << rank % 64);
    if (p->words[rank / 64] == 0)
        p->tops[rank / 4096] &= ~(UINT64_C(1) << rank / 64 % 64);
}

static void list(learned *p, uint32_t node, uint32_t bin)
{
    entry *own = &p->entries[node];
    uint32_t cell = own->kind * (uint32_t)BINS + bin, oldest = p->oldest[cell];
    QUIRE__ASSERT((own->flags & (IN | LISTED)) == IN);
    own->bin = (uint8_t)bin;
    own->flags |= LISTED;
    if (oldest == QUIRE__NONE) {
        own->older = own->newer = QUIRE__NONE;
        p->oldest[cell] = p->newest[cell] = node;
        mark_rank(p, cell);
    } else if ((int32_t)(own->used - p->entries[oldest].used) <= 0) {
        own->older = QUIRE__NONE;
        own->newer = oldest;
        p->entries[oldest].older = p->oldest[cell] = node;
    } else {
        own->newer = QUIRE__NONE;
        own->older = p->newest[cell];
        p->entries[own->older].newer = p->newest[cell] = node;
    }
}

static void unlist(learned *p, uint32_t node)
{
    entry *own = &p->entries[node];
    uint32_t cell = own->kind * (uint32_t)BINS + own->bin;
    own->flags &= (uint8_t)~LISTED;
    if (own->older == QUIRE__NONE)
        p->oldest[cell] = own->newer;
    else
        p->entries[own->older].newer = own->newer;
    if (own->newer == QUIRE__NONE)
        p->newest[cell] = own->older;
    else
        p->entries[own->newer].older = own->older;
    if (p->oldest[cell] == QUIRE__NONE)
        clear_rank(p, cell);
}

static void rank_anew(learned *p)
{
    quire__learner_rank(&p->learner);
    for (uint32_t i = 0; i < WORDS; i++)
        p->words[i] = 0;
    for (uint32_t i = 0; i < TOPS; i++)
        p->tops[i] = 0;
    for (uint32_t rank = 0; rank < p->learner.ranked; rank++) {
        if (p->oldest[p->learner.at[rank]] != QUIRE__NONE)
            mark_rank(p, p->learner.at[rank]);
    }
    uint64_t pause = p->events / 8;
    pause = pause < LEAST_EVENTS ? LEAST_EVENTS : pause;
    p->next_rank = p->events + (pause < MOST_EVENTS ? pause : MOST_EVENTS);
}

/* The oldest of each list move on to the bins that they have reached. */
static void age(learned *p, uint32_t now)
{
    if (now - p->ticked < TICK)
        return;
    p->ticked = now;
    quire__learner_advance(&p->learner, now);
    for (uint32_t word = 0; word < WORDS; word++) {
        for (uint64_t bits = p->words[word]; bits; bits &= bits - 1) {
            uint32_t cell = p->learner.at[word * 64 + (uint32_t)__builtin_ctzll(bits)], bin = cell % BINS;
            if (bin == BINS - 1)
                continue;
            uint32_t edge = quire__learner_edge(bin + 1);
            for (uint32_t node = p->oldest[cell]; node != QUIRE__NONE && now - p->entries[node].used >= edge;
                 node = p->oldest[cell]) {
                unlist(p, node);
                list(p, node, quire__learner_bin(now - p->entries[node].used));
            }
        }
    }
}

/* ---- keys and marks ------------------------------------------------------------------------------------------ */

static uint64_t key_below(const learned *p, uint32_t parent, uint32_t node)
{
    uint64_t above = parent == QUIRE_NO_BLOCK ? 1 : p->entries[parent].key;
    return quire__policy_key(above, p->tree.stamp(p->tree.self, node));
}

static void keep_mark(learned *p, uint64_t key, uint8_t turn, uint32_t used)
{
    uint64_t *set = &p->marks[(key >> 40) % MARK_SETS * MARK_WAYS];
    for (int i = MARK_WAYS - 1; i > 0; i--)
        set[i] = set[i - 1];
    set[0] = key << 32 | (uint64_t)(used >> 6 & 0xffffff) << 8 | turn;
}

static uint8_t take_mark(learned *p, uint64_t key, uint32_t *used)
{
    uint64_t *set = &p->marks[(key >> 40) % MARK_SETS * MARK_WAYS];
    for (int i = 0; i < MARK_WAYS; i++) {
        if (set[i] != 0 && set[i] >> 32 == (key & UINT32_MAX)) {
            *used = (uint32_t)(set[i] >> 8 & 0xffffff) << 6;
            uint8_t turn = (uint8_t)set[i];
            set[i] = 0;
            return turn;
        }
    }
    return 0;
}

/* The turn that the conversation has had before, and `*end` blocks of the path before its mark's end. */
static uint8_t find_turn(learned *p, const uint32_t *path, uint32_t count, uint32_t *end, uint32_t *used)
{
    for (uint32_t i = count; i-- > 0;) {
        entry *own = &p->entries[path[i]];
        uint8_t turn = own->turn;
        *used = own->used;
        if (!turn && !(own->flags & FOUND))
            turn = take_mark(p, own->key, used);
        own->turn = 0;
        if (turn) {
            if (i > 0)
                p->entries[path[i - 1]].turn = 0;
            *end = i + 1;
            return turn;
        }
    }
    *end = 0;
    return 0;
}

/* ---- kinds --------------------------------------------------------------------------------------------------- */

static uint32_t turn_class(uint32_t turn)
{
    return turn < 3 ? turn : turn <= 6 ? 3 : 4;
}

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

static uint32_t gap_class(uint32_t gap)
{
    uint32_t bin = quire__learner_bin(gap);
    return bin < 9 ? 0 : bin < 30 ? (bin - 9) / 3 : 7;
}

static uint32_t kind_of(uint32_t ended, uint32_t turn, uint32_t place, uint32_t gap, uint32_t growth)
{
    return (((ended * QUIRE__LEARNER_TURNS + turn) * QUIRE__LEARNER_PLACES + place) * QUIRE__LEARNER_GROWTHS + growth) *
           QUIRE__LEARNER_GAPS + gap;
}

static void set_kind(learned *p, entry *own, uint32_t kind, uint32_t now)
{
    if (!p->learner.seen[kind]) {
        p->learner.seen[kind] = true;
        rank_anew(p);
    }
    own->kind = (uint16_t)kind;
    own->used = now;
    own->flags = IN | FOUND;
    p->count++;
}

/* ---- the policy ---------------------------------------------------------------------------------------------- */

static uint32_t clock_of(const quire_policy_use *use)
{
    return (uint32_t)(use->now / 1000);
}

static void learned_insert(void *state, const uint32_t *path, uint32_t count, const quire_policy_use *use)
{
    learned *p = state;
    const uint32_t now = clock_of(use);
    age(p, now);
    if (p->events >= p->next_rank)
        rank_anew(p);

    uint32_t parent = p->tree.parent(p->tree.self, path[0]);
    for (uint32_t i = 0; i < count; parent = path[i], i++) {
        if (p->entries[path[i]].key == 0)
            p->entries[path[i]].key = key_below(p, parent, path[i]);
    }
    const bool whole = use->blocks >= count && use->blocks > 0;
    const uint32_t above = whole ? use->blocks - count : 0;
    uint32_t end = 0, last_used = 0, turn = whole ? find_turn(p, path, count, &end, &last_used) : 0;
    uint32_t gap = turn ? 1 + gap_class(now - last_used) : 0;
    uint32_t growth = whole ? growth_class(p, count - end) : 0;
    const bool useless = use->hints & QUIRE_HINT_NO_REUSE; /* as if it had been there for long: taken at its word */
    uint32_t ended = use->hints & QUIRE_HINT_TURN_ENDED ? 1 : 0, followed = 0;
    for (uint32_t i = 0; i < count; i++) {
        entry *own = &p->entries[path[i]];
        bool hit = (own->flags & FOUND) || above + i < use->matched;
        uint32_t kind = kind_of(ended, turn_class(turn), whole && i + 1 == count ? 2 : hit, gap, growth);
        set_kind(p, own, kind, useless && !hit ? now - quire__learner_edge(BINS - 1) : now);
        if (quire__learner_follows(&p->learner, own->key)) {
            quire__learner_use(&p->learner, own->key, kind, now);
            followed++;
        }
    }
    quire__learner_path(&p->learner, followed);
    for (uint32_t i = count > 2 ? count - 2 : 0; whole && i < count; i++)
        p->entries[path[i]].turn = (uint8_t)(turn < 255 ? turn + 1 : 255);
    if (p->tree.children(p->tree.self, path[count - 1]) == 0)
        list(p, path[count - 1], quire__learner_bin(now - p->entries[path[count - 1]].used));
}

static void learned_insert_below(void *state, uint32_t node, uint32_t above, const quire_policy_use *use)
{
    learned *p = state;
    entry *own = &p->entries[node];
    if (p->entries[above].flags & LISTED)
        unlist(p, above);
    own->key = key_below(p, above, node);
    own->turn = 0;
    set_kind(p, own, kind_of(0, 0, 0, 0, 0), clock_of(use));
    list(p, node, 0);
}

static void learned_take(void *state, const uint32_t *path, uint32_t count, uint64_t now)
{
    learned *p = state;
    (void)now;
    QUIRE__ASSERT(p->count >= count);
    for (uint32_t i = 0; i < count; i++) {
        if (p->entries[path[i]].flags & LISTED)
            unlist(p, path[i]);
        p->entries[path[i]].flags = FOUND;
    }
    p->count -= count;
}

static void learned_drop(void *state, uint32_t node)
{
    learned *p = state;
    entry *own = &p->entries[node];
    QUIRE__ASSERT(own->flags & IN);
    if (own->flags & LISTED)
        unlist(p, node);
    if (own->turn)
        keep_mark(p, own->key, own->turn, own->used);
    *own = (entry){0};
    p->count--;
    p->events++;

    uint32_t parent = p->tree.parent(p->tree.self, node);
    if (parent != QUIRE_NO_BLOCK && (p->entries[parent].flags & (IN | LISTED)) == IN &&
        p->tree.children(p->tree.self, parent) == 1)
        list(p, parent, quire__learner_bin(p->ticked - p->entries[parent].used));
}

static void learned_sealed(void *state, const uint32_t *path, uint32_t count)
{
    learned *p = state;
    uint32_t parent = p->tree.parent(p->tree.self, path[0]);
    for (uint32_t i = 0; i < count; parent = path[i], i++)
        p->entries[path[i]] = (entry){.key = key_below(p, parent, path[i])};
}

/* The first rank at or after `rank` whose list has a block, or `ranked`. */
static uint32_t next_rank(const learned *p, uint32_t rank)
{
    uint32_t word = rank / 64;
    if (rank % 64 != 0) {
        uint64_t rest = p->words[word] >> rank % 64;
        if (rest)
            return rank + (uint32_t)__builtin_ctzll(rest);
        word++;
    }
    while (word < WORDS) {
        uint64_t tops = p->tops[word / 64] >> word % 64;
        if (tops) {
            word += (uint32_t)__builtin_ctzll(tops);
            return word * 64 + (uint32_t)__builtin_ctzll(p->words[word]);
        }
        word = (word / 64 + 1) * 64;
    }
    return CELLS;
}

static uint32_t learned_victim(void *state)
{
    learned *p = state;
    uint32_t first = QUIRE_NO_BLOCK, tries = 0;
    for (uint32_t rank = next_rank(p, 0); rank < CELLS; rank = next_rank(p, rank + 1)) {
        const uint32_t cell = p->learner.at[rank];
        const bool rising = p->learner.rising[cell / 64] >> cell % 64 & 1;
        for (uint32_t node = rising ? p->newest[cell] : p->oldest[cell]; node != QUIRE__NONE;
             node = rising ? p->entries[node].older : p->entries[node].newer) {
            if (!p->tree.busy(p->tree.self, node))
                return node;
            first = first == QUIRE_NO_BLOCK ? node : first;
            if (++tries == BUSY_TRIES)
                return first;
        }
    }
    return first;
}

/* In about the order of its going: after a leaf come those above it that would rank no later than it does. */
static uint32_t name_with_parents(const learned *p, uint32_t node, uint32_t rank, uint32_t *nodes, uint32_t most)
{
    uint32_t count = 0;
    while (count < most) {
        nodes[count++] = node;
        node = p->tree.parent(p->tree.self, node);
        if (node == QUIRE_NO_BLOCK || (p->entries[node].flags & (IN | LISTED)) != IN ||
            p->tree.children(p->tree.self, node) != 1)
            break;
        const entry *own = &p->entries[node];
        if (p->learner.rank[own->kind * (uint32_t)BINS + quire__learner_bin(p->ticked - own->used)] > rank)
            break;
    }
    return count;
}

static uint32_t learned_coldest(void *state, uint32_t *nodes, uint32_t most, uint64_t now)
{
    const learned *p = state;
    (void)now;
    uint32_t count = 0;
    for (uint32_t rank = next_rank(p, 0); rank < CELLS && count < most; rank = next_rank(p, rank + 1)) {
        const uint32_t cell = p->learner.at[rank];
        const bool rising = p->learner.rising[cell / 64] >> cell % 64 & 1;
        for (uint32_t node = rising ? p->newest[cell] : p->oldest[cell]; node != QUIRE__NONE && count < most;
             node = rising ? p->entries[node].older : p->entries[node].newer)
            count += name_with_parents(p, node, rank, nodes + count, most - count);
    }
    return count;
}

static int learned_worth_offload(void *state, uint32_t node, const quire_policy_use *use)
{
    const learned *p = state;
    const entry *own = &p->entries[node];
    return quire__worth_offload(&p->learner, own->kind, clock_of(use) - own->used, use->host_holds / 1000);
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
    if (setup->blocks == 0)
        return QUIRE_OK;
    QUIRE__TRY(quire__memory_take(&p->allocator, setup->blocks, sizeof(entry), "the eviction order", &memory));
    p->entries = memory;
    QUIRE__TRY(quire__memory_take(&p->allocator, 2 * (size_t)CELLS, sizeof(uint32_t), "eviction lists", &memory));
    p->oldest = memory;
    p->newest = p->oldest + CELLS;
    for (uint32_t i = 0; i < 2 * (uint32_t)CELLS; i++)
        p->oldest[i] = QUIRE__NONE;
    QUIRE__TRY(quire__memory_take(&p->allocator, (size_t)MARK_SETS * MARK_WAYS, sizeof(uint64_t), "marks", &memory));
    p->marks = memory;
    QUIRE__TRY(quire__learner_open(&p->learner, &p->allocator));
    p->growth = 3;
    p->next_rank = LEAST_EVENTS;
    return QUIRE_OK;
}

static void learned_close(void *state)
{
    learned *p = state;
    quire__learner_close(&p->learner, &p->allocator);
    quire__memory_give(&p->allocator, p->marks);
    quire__memory_give(&p->allocator, p->oldest);
    quire__memory_give(&p->allocator, p->entries);
}

static void learned_each(const void *state, void (*fn)(void *arg, uint32_t node), void *arg)
{
    const learned *p = state;
    uint32_t left = p->count;
    for (uint32_t node = 0; left > 0; node++) {
        if (p->entries[node].flags & IN) {
            left--;
            fn(arg, node);
        }
    }
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
