/* match.c: a prompt walks down the tree.
 *
 *    prompt   | 16 tokens | 16 tokens | 16 tokens | 16 tokens | 9 tokens
 *    found      on device   arriving    on host     (not found: the newest children are asked who shares most)
 *               held        held        restore     partial: a sealed block of which the sequence has a part
 *
 * The device tier is prefix-closed (residency.c), so the walk has three parts that follow each other: blocks that have
 * a device slot, blocks that have none and are restored, one block in part. The first is the hot one and has a file of
 * its own (walk.c). What it found is then referred to: a count at the end of what others hold already, a record and the
 * eviction order for each block of the rest, which is a tail.
 *
 * A long prompt may be walked in pieces: each is looked for without the lock (walk.c), then held with it. What was found
 * is true if no block has left meanwhile, which one number says (quire__pool.departures, read before the lock was given
 * back): a block's parent and tokens never change while it is there. Else it is looked for again, with the lock. What is
 * held cannot leave, so the next piece goes on from there. Whoever looks keeps nobody waiting, though it lose its core.
 *
 * A partial block is shared like any other, and copied when the sequence first writes into it. Nothing but the
 * sequence's length says that it has only a part.
 */
#include "block/match.h"

#include "base/check.h"
#include "base/lock.h"
#include "block/chain.h"
#include "block/residency.h"
#include "block/walk.h"

enum { ROUND = 128 /* blocks walked before their records are written, while those are in the nearest cache */ };

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* How much of a prompt may be found: one token at least is left to compute. */
static uint32_t findable(uint32_t count)
{
    return count > 0 ? count - 1 : 0;
}

/* A partial block needs, for the moment of its copy, a block more than the prompt itself: where the prompt fills the
 * whole arena that would never come. */
static bool partial_fits(const quire__book *book, uint32_t count)
{
    return quire__chain_blocks_of(book, count) < quire__pool_present(&book->pool);
}

/* Part of a block is worth a restore when computing it is not cheaper; where that is not known, when it is at least half. */
static bool partial_worth(const quire__book *book, uint32_t node, uint32_t common)
{
    const quire__costs *costs = &book->costs;
    if (book->pool.nodes[node].slot[QUIRE_TIER_DEVICE] != QUIRE__NONE)
        return true;
    if (costs->compute_block_us == 0 || costs->restore_block_us == 0)
        return common >= book->config.block_tokens / 2;
    return costs->compute_block_us * common / book->config.block_tokens > costs->restore_wait_us + costs->restore_block_us;
}

static uint32_t last_of(const quire__chain *chain)
{
    return chain->blocks == 0 ? QUIRE__NONE : chain->nodes[chain->blocks - 1];
}

/* The chain goes on to where the walk is. */
static void follow(quire__book *book, quire__chain *chain, const quire__walk *walk)
{
    if (walk->blocks == chain->blocks)
        return;
    uint32_t held =
        chain->blocks + quire__walk_held(book->pool.nodes, chain->nodes, chain->blocks, walk->blocks);
    quire__residency_use(book, chain->nodes + held, walk->blocks - held);
    quire__residency_hold_path(book, chain->nodes, chain->blocks, held, walk->blocks);
    book->holders += chain->blocks == 0;
    if (chain->ready == chain->blocks)
        chain->ready = smaller(walk->arriving, walk->blocks);
    chain->blocks = walk->blocks;
    chain->length = chain->matched = walk->blocks * book->config.block_tokens;
    chain->changed = 0;
}

/* Takes the blocks that have a device slot, at most `limit`, and returns the node that comes next and has none, or
 * QUIRE__NONE. */
static uint32_t take_present(quire__book *book, quire__chain *chain, const int32_t *tokens, uint32_t limit)
{
    quire__walk walk = quire__walk_from(&book->prefix, chain->domain, chain->nodes, chain->blocks);
    while (walk.blocks < limit && walk.next != QUIRE__NONE) {
        uint32_t round = smaller(limit, walk.blocks + ROUND);
        quire__walk_on(&book->prefix, chain->domain, tokens, round, &walk, chain->nodes, chain->table);
        follow(book, chain, &walk);
    }
    return walk.missing;
}

/* Can the node be restored? */
static bool restorable(const quire__book *book, uint32_t node)
{
    /* A restore that lost its destination (seal.c) still reads it: rare, so a miss. */
    return book->pool.nodes[node].state[QUIRE_TIER_HOST] == QUIRE__RESIDENT &&
           !(book->pool.nodes[node].reads & QUIRE__READS_HOST);
}

/* Plans the restore of a node that is on the host only. False: no slot for it (`spare` must stay available), or no room
 * in the plan. */
static bool restore(quire__book *book, quire__chain *chain, uint32_t node, uint32_t spare, quire__plan *plan)
{
    quire__node *record = &book->pool.nodes[node];
    if (!restorable(book, node))
        return false;
    if (quire__plan_room(plan) == 0 || quire__residency_available(book) <= spare)
        return false;
    uint32_t slot = quire__residency_device_slot(book);
    if (slot == QUIRE__NONE)
        return false;

    bool early = book->holes & QUIRE__BOOK_HOLE_ARRIVING;
    if (book->side_count > 0)
        quire__side_host_move(book, record->slot[QUIRE_TIER_HOST]);
    record->refs = 1;
    if (!(book->holes & QUIRE__BOOK_HOLE_RESTORE_SOURCE))
        record->reads |= QUIRE__READS_HOST;
    quire__residency_gain(book, node, QUIRE_TIER_DEVICE, slot, early ? QUIRE__RESIDENT : QUIRE__ARRIVING);
    quire__plan_add(plan, (quire__move){
        .type = QUIRE__MOVE_RESTORE,
        .source = record->slot[QUIRE_TIER_HOST],
        .destination = slot,
        .node = node,
        .ticket = book->holes & QUIRE__BOOK_HOLE_TICKET ? 0 : quire__pool_ticket(&book->pool, slot, book->step),
    });
    chain->nodes[chain->blocks] = node;
    chain->table[chain->blocks] = (int32_t)slot;
    chain->blocks++;
    return true;
}

enum { DECLINED_AT_MOST = 63 /* in a row; then one is restored all the same, or a link that became fast would never be seen */ };

/* How many blocks of the prompt could be restored, from `node` on, which is its block `from`. */
static uint32_t count_restorable(const quire__book *book, uint32_t domain, const int32_t *tokens, uint32_t from,
                                 uint32_t limit, uint32_t *node)
{
    uint32_t count = 0;
    while (*node != QUIRE__NONE && from + count < limit && restorable(book, *node)) {
        count++;
        *node = from + count < limit ? quire__prefix_child(&book->prefix, domain, *node, tokens + (size_t)(from + count) *
                                                                                             book->config.block_tokens)
                                     : QUIRE__NONE;
    }
    return count;
}

/* The prompt's tokens in the tree from its block `from` on, which is `node` and cannot be restored now. */
static void count_busy(quire__book *book, uint32_t domain, const int32_t *tokens, uint32_t from, uint32_t limit, uint32_t node)
{
    const uint32_t block_tokens = book->config.block_tokens;
    while (node != QUIRE__NONE && from < limit) {
        book->counters.tokens_busy += block_tokens;
        if (++from < limit)
            node = quire__prefix_child(&book->prefix, domain, node, tokens + (size_t)from * block_tokens);
    }
}

/* Is it cheaper to restore so many blocks, in so many moves, than to compute them? A restore waits for those in flight first;
 * the more blocks, the less that matters. */
static bool worth_restoring(quire__book *book, uint32_t blocks, uint32_t moves)
{
    const quire__costs *costs = &book->costs;
    if (blocks == 0 || costs->compute_block_us == 0 || costs->restore_block_us == 0)
        return true;
    bool cheaper = blocks * costs->compute_block_us - moves * costs->restore_block_us > costs->restore_wait_us;
    bool worth = cheaper || book->declined >= DECLINED_AT_MOST;
    book->declined = worth ? 0 : book->declined + 1;
    book->counters.restores_declined += !worth;
    book->counters.tokens_declined += worth ? 0 : (uint64_t)blocks * book->config.block_tokens;
    return worth;
}

/* Restores up to `count` blocks from `node` on, as far as there is room. The room is made first: slots are then given out in
 * the order of the path, as they lie in the host tier mostly, and what lies side by side in both is copied in one piece. */
static void take_missing(quire__book *book, quire__chain *chain, const int32_t *tokens, uint32_t count, uint32_t node,
                         uint32_t spare, quire__plan *plan)
{
    uint32_t room = quire__residency_available(book);
    room = smaller(smaller(count, quire__plan_room(plan)), room > spare ? room - spare : 0);
    (void)quire__residency_make_room(book, room); /* as much of it as can be made now */
    for (uint32_t i = 0; i < count && restore(book, chain, node, spare, plan); i++)
        if (i + 1 < count)
            node = quire__prefix_child(&book->prefix, chain->domain, node,
                                       tokens + (size_t)chain->blocks * book->config.block_tokens);
}

/* Restores the end of a path, of whose block the prompt has the start; else 0. A whole block has been counted before. */
static uint32_t restore_partial(quire__book *book, quire__chain *chain, uint32_t node, uint32_t common, uint32_t spare,
                                quire__plan *plan)
{
    if (restore(book, chain, node, spare, plan))
        return common;
    if (common < book->config.block_tokens)
        *(restorable(book, node) ? &book->counters.tokens_no_room : &book->counters.tokens_busy) += common;
    return 0;
}

/* Shares a block of which only the start is the prompt's. Returns how many tokens. */
static uint32_t take_partial(quire__book *book, quire__chain *chain, const int32_t *tokens, uint32_t count,
                             uint32_t spare, quire__plan *plan)
{
    uint32_t matched = chain->blocks * book->config.block_tokens, common = 0;
    uint32_t most = smaller(findable(count) - matched, book->config.block_tokens);
    uint32_t node = quire__prefix_nearest(&book->prefix, chain->domain, last_of(chain), tokens + matched, most,
                                          &common);
    if (node == QUIRE__NONE)
        return 0;
    if (!partial_worth(book, node, common)) {
        book->counters.tokens_declined += common;
        return 0;
    }
    bool present = book->pool.nodes[node].slot[QUIRE_TIER_DEVICE] != QUIRE__NONE;
    if (!partial_fits(book, count)) {
        book->counters.tokens_no_room += present || common == book->config.block_tokens ? 0 : common;
        return 0;
    }
    if (!present)
        return restore_partial(book, chain, node, common, spare, plan);
    quire__residency_hold(book, last_of(chain), node);
    chain->nodes[chain->blocks] = node;
    chain->table[chain->blocks] = (int32_t)book->pool.nodes[node].slot[QUIRE_TIER_DEVICE];
    chain->blocks++;
    return common;
}

/* Splits the found tokens by where their block is, and finds how far the chain is ready. */
static void describe(const quire__book *book, quire__chain *chain, uint32_t partial, quire_hit *hit)
{
    uint32_t ready = chain->blocks;
    *hit = (quire_hit){.tokens = chain->length, .partial = partial};
    for (uint32_t i = chain->ready; i < chain->blocks; i++) {
        if (book->pool.nodes[chain->nodes[i]].state[QUIRE_TIER_DEVICE] != QUIRE__ARRIVING)
            continue;
        hit->host += i + 1 == chain->blocks && partial ? partial : book->config.block_tokens;
        ready = smaller(ready, i);
    }
    hit->device = hit->tokens - hit->host;
    chain->ready = ready;
    hit->ready = ready == chain->blocks;
}

static void count_match(quire_stats *counters, uint32_t count, const quire_hit *hit)
{
    counters->matches++;
    counters->match_tokens += count;
    counters->hit_tokens_device += hit->device;
    counters->hit_tokens_host += hit->host;
    counters->hit_tokens_partial += hit->partial;
    counters->miss_tokens += count - hit->tokens;
}

/* ---- more than one group --------------------------------------------------------------------------------------- */

/* What of a prompt is in the tree and may be matched, as far as the first group goes. */
typedef struct quire__found {
    uint32_t blocks, present; /* in all; the first of them, which have a device slot */
    uint32_t last, last_present; /* their last nodes, or QUIRE__NONE */
    uint32_t missing;         /* the first one without a device slot, or QUIRE__NONE */
    uint32_t partial, common; /* the node that goes on with so many tokens of the prompt, or QUIRE__NONE */
    uint32_t busy;            /* the next one, which cannot be restored now, or QUIRE__NONE */
    uint32_t declined;        /* tokens of the next one that are not worth a restore */
} quire__found;

static quire__found find(const quire__book *book, uint32_t domain, const int32_t *tokens, uint32_t count)
{
    const uint32_t block_tokens = book->config.block_tokens, limit = findable(count) / block_tokens;
    quire__found found = {
        .last = QUIRE__NONE, .last_present = QUIRE__NONE, .missing = QUIRE__NONE, .partial = QUIRE__NONE, .busy = QUIRE__NONE};

    for (; found.blocks < limit; found.blocks++) {
        uint32_t node = quire__prefix_child(&book->prefix, domain, found.last, tokens + (size_t)found.blocks * block_tokens);
        if (node == QUIRE__NONE)
            break;
        bool present = book->pool.nodes[node].slot[QUIRE_TIER_DEVICE] != QUIRE__NONE;
        if (!present && !restorable(book, node)) {
            found.busy = node;
            break;
        }
        if (!present && found.missing == QUIRE__NONE)
            found.missing = node;
        found.last = node;
        if (present) {
            found.present++;
            found.last_present = node;
        }
    }
    uint32_t left = findable(count) - found.blocks * block_tokens;
    if (left > 0 && partial_fits(book, count) && !quire__side_whole(book))
        found.partial = quire__prefix_nearest(&book->prefix, domain, found.last, tokens + (size_t)found.blocks * block_tokens,
                                              smaller(left, block_tokens), &found.common);
    if (found.partial != QUIRE__NONE && !partial_worth(book, found.partial, found.common)) {
        found.declined = found.common;
        found.partial = QUIRE__NONE;
    } else if (found.partial != QUIRE__NONE && book->pool.nodes[found.partial].slot[QUIRE_TIER_DEVICE] == QUIRE__NONE &&
               !restorable(book, found.partial)) {
        found.partial = QUIRE__NONE;
    }
    return found;
}

/* The most of a path's blocks, whose last is *node, that a sequence could go on from. */
static uint32_t fitting(const quire__book *book, uint32_t *node, uint32_t blocks, quire__side_want *want)
{
    uint32_t most = 0;
    while (blocks > 0 &&
           !quire__side_fits(book, *node, blocks, blocks * book->config.block_tokens, want, &most))
        for (; blocks > most; blocks--)
            *node = book->pool.kin[*node].parent;
    if (blocks == 0)
        want->restores = 0;
    return blocks;
}

/* How many blocks to match, where what is restored pays. `worth` false: nothing is to be restored. */
static uint32_t choose(quire__book *book, const quire__found *found, bool *worth)
{
    quire__side_want all = {.restoring = true}, here = {.restoring = false};
    uint32_t node = found->last, blocks = fitting(book, &node, found->blocks, &all);
    uint32_t moves = all.restores + (blocks > found->present ? blocks - found->present : 0);

    *worth = true;
    if (moves == 0)
        return blocks;
    node = found->last_present;
    uint32_t without = fitting(book, &node, found->present, &here);
    if (blocks > without)
        *worth = worth_restoring(book, blocks - without, moves);
    return *worth ? blocks : without;
}

/* The chain goes on with the part of a block that the prompt begins, where all groups have it. */
static uint32_t take_groups_partial(quire__book *book, quire__chain *chain, const quire__found *found, bool worth,
                                    uint32_t spare, quire__plan *plan)
{
    quire__side_want want = {.restoring = worth};
    uint32_t most = 0, blocks = chain->blocks + 1, length = chain->blocks * book->config.block_tokens + found->common;
    bool present = found->partial != QUIRE__NONE && book->pool.nodes[found->partial].slot[QUIRE_TIER_DEVICE] != QUIRE__NONE;

    if (found->partial == QUIRE__NONE || chain->blocks < found->blocks || (!present && !worth) ||
        !quire__side_fits(book, found->partial, blocks, length, &want, &most))
        return 0;
    if (!present)
        return restore_partial(book, chain, found->partial, found->common, spare, plan);
    quire__residency_hold(book, last_of(chain), found->partial);
    chain->nodes[chain->blocks] = found->partial;
    chain->table[chain->blocks] = (int32_t)book->pool.nodes[found->partial].slot[QUIRE_TIER_DEVICE];
    chain->blocks++;
    return found->common;
}

/* As describe; a block is ready when all groups' bytes that the sequence keeps of it are. */
static void describe_groups(const quire__book *book, quire__chain *chain, uint32_t partial, quire_hit *hit)
{
    *hit = (quire_hit){.tokens = chain->length, .partial = partial};
    chain->ready = chain->blocks;
    for (uint32_t at = chain->blocks; at-- > 0;) {
        uint32_t node = chain->nodes[at];
        bool arriving = book->pool.nodes[node].state[QUIRE_TIER_DEVICE] == QUIRE__ARRIVING;
        for (uint32_t group = 0; group < book->side_count; group++)
            arriving |= at >= chain->spans[group].first &&
                        book->sides[group].blocks[node].state == QUIRE__ARRIVING;
        if (!arriving)
            continue;
        hit->host += at + 1 == chain->blocks && partial ? partial : book->config.block_tokens;
        chain->ready = at;
    }
    hit->device = hit->tokens - hit->host;
    hit->ready = chain->ready == chain->blocks;
}

/* A match of the first group's blocks goes as far as the side groups have what the sequence needs at its end. */
static void take_groups(quire__book *book, quire__chain *chain, const int32_t *tokens, uint32_t count, quire__plan *plan,
                        quire_hit *hit)
{
    const uint32_t spare = quire__chain_watermark(book, chain), moves = plan->count;
    quire__found found = find(book, chain->domain, tokens, count);
    bool worth = true;
    uint32_t blocks = choose(book, &found, &worth);

    (void)take_present(book, chain, tokens, smaller(blocks, found.present));
    const bool counted = chain->blocks > 0;
    if (blocks > found.present)
        take_missing(book, chain, tokens, blocks - found.present, found.missing, spare, plan);
    count_busy(book, chain->domain, tokens, found.blocks, findable(count) / book->config.block_tokens, found.busy);
    book->counters.tokens_declined += worth ? found.declined : 0;
    book->counters.tokens_no_room += (uint64_t)(blocks - chain->blocks) * book->config.block_tokens;
    if (chain->blocks < blocks) { /* no room for the rest; then the windows are others */
        quire__side_want want = {.restoring = worth};
        uint32_t node = last_of(chain), fit = fitting(book, &node, chain->blocks, &want);
        book->holders += !counted && chain->blocks > 0;
        chain->length = chain->blocks * book->config.block_tokens;
        for (uint32_t group = 0; group < book->side_count; group++)
            chain->spans[group].first = chain->blocks;
        quire__chain_truncate(book, chain, fit * book->config.block_tokens);
        book->holders -= !counted && chain->blocks > 0;
    }
    uint32_t full = chain->blocks, partial = take_groups_partial(book, chain, &found, worth, spare, plan);
    chain->length = chain->matched = full * book->config.block_tokens + partial;
    chain->changed = 0;
    book->holders += !counted && chain->blocks > 0;
    quire__side_take(book, chain, plan);
    describe_groups(book, chain, partial, hit);
    if (plan->count > moves)
        quire__residency_touch_host(book, chain->nodes, chain->blocks);
    count_match(&book->counters, count, hit);
}

static void probe_groups(const quire__book *book, uint32_t domain, const int32_t *tokens, uint32_t count, quire_hit *hit)
{
    quire__side_want want = {.restoring = true};
    quire__found found = find(book, domain, tokens, count);
    uint32_t node = found.last, blocks = fitting(book, &node, found.blocks, &want), most = 0;
    uint32_t length = blocks * book->config.block_tokens;

    if (found.partial != QUIRE__NONE && blocks == found.blocks &&
        quire__side_fits(book, found.partial, blocks + 1, length + found.common, &want, &most)) {
        hit->partial = found.common;
        length += found.common;
        node = found.partial;
        blocks++;
    }
    hit->tokens = length;
    for (uint32_t at = blocks; at-- > 0; node = book->pool.kin[node].parent) {
        bool here = book->pool.nodes[node].state[QUIRE_TIER_DEVICE] == QUIRE__RESIDENT;
        for (uint32_t group = 0; group < book->side_count; group++)
            here &= at < quire__side_needed(book, &book->sides[group], length) ||
                    book->sides[group].blocks[node].state == QUIRE__RESIDENT;
        if (!here)
            hit->host += at + 1 == blocks && hit->partial ? hit->partial : book->config.block_tokens;
    }
    hit->device = hit->tokens - hit->host;
    hit->ready = hit->host == 0;
}

/* ---- one group ------------------------------------------------------------------------------------------------- */

void quire__match_take(quire__book *book, quire__chain *chain, const int32_t *tokens, uint32_t count,
                       quire__plan *plan, quire_hit *hit)
{
    if (book->side_count > 0) {
        take_groups(book, chain, tokens, count, plan, hit);
        return;
    }
    const uint32_t block_tokens = book->config.block_tokens;
    const uint32_t limit = findable(count) / block_tokens, moves = plan->count;
    (void)quire__chain_refresh(book, chain); /* what was lost since quire__match_hold */
    const uint32_t spare = quire__chain_watermark(book, chain);
    uint32_t missing = take_present(book, chain, tokens, limit);
    const bool counted = chain->blocks > 0;
    uint32_t busy = missing, most = chain->blocks;
    most += count_restorable(book, chain->domain, tokens, chain->blocks, limit, &busy);
    count_busy(book, chain->domain, tokens, most, limit, busy);
    bool worth = worth_restoring(book, most - chain->blocks, most - chain->blocks);
    if (worth)
        take_missing(book, chain, tokens, most - chain->blocks, missing, spare, plan);
    uint32_t full = chain->blocks, partial = 0;
    if (worth)
        book->counters.tokens_no_room += (uint64_t)(most - full) * block_tokens;
    if (worth && findable(count) > full * block_tokens)
        partial = take_partial(book, chain, tokens, count, spare, plan);

    chain->length = chain->matched = full * block_tokens + partial;
    chain->changed = 0;
    book->holders += !counted && chain->blocks > 0;
    describe(book, chain, partial, hit);
    /* What is being restored must not be what the host tier gives away next: nobody could have its slot. */
    if (plan->count > moves)
        quire__residency_touch_host(book, chain->nodes, chain->blocks);
    count_match(&book->counters, count, hit);
}

/* ---- a long match in pieces ------------------------------------------------------------------------------------ */

QUIRE__UNLOCKED bool quire__match_look(const quire__book *book, const quire__chain *chain, const int32_t *tokens, uint32_t count,
                       quire__look *look)
{
    uint32_t limit = findable(count) / book->config.block_tokens;
    look->walk = quire__walk_from(&book->prefix, chain->domain, chain->nodes, chain->blocks);
    quire__walk_on(&book->prefix, chain->domain, tokens, smaller(limit, chain->blocks + QUIRE__LOOK_BLOCKS),
                   &look->walk, chain->nodes, chain->table);
    return look->walk.blocks > chain->blocks;
}

bool quire__match_hold(quire__book *book, quire__chain *chain, const int32_t *tokens, uint32_t count,
                       quire__look *look)
{
    if (look->departures != book->pool.departures)
        (void)quire__match_look(book, chain, tokens, count, look);
    QUIRE__ASSERT(quire__walk_true(&book->prefix, chain->domain, tokens, chain->nodes, chain->table, chain->blocks,
                                   look->walk.blocks));
    follow(book, chain, &look->walk);
    return look->walk.next != QUIRE__NONE && chain->blocks < findable(count) / book->config.block_tokens;
}

quire__probe quire__match_probe_begin(const quire__book *book, uint64_t domain, uint32_t count)
{
    return (quire__probe){.value = domain,
                          .domain = quire__prefix_domain_find(&book->prefix, domain),
                          .count = count,
                          .node = QUIRE__NONE,
                          .departures = book->pool.departures,
                          .hit = {.ready = 1}};
}

QUIRE__UNLOCKED void quire__match_probe_look(const quire__book *book, const int32_t *tokens, quire__probe *probe)
{
    const uint32_t block_tokens = book->config.block_tokens, limit = findable(probe->count);
    while (probe->domain != QUIRE__NONE && probe->hit.tokens + block_tokens <= limit) {
        uint32_t next = quire__prefix_child(&book->prefix, probe->domain, probe->node, tokens + probe->hit.tokens);
        if (next == QUIRE__NONE)
            return;
        bool here = book->pool.nodes[next].state[QUIRE_TIER_DEVICE] == QUIRE__RESIDENT;
        *(here ? &probe->hit.device : &probe->hit.host) += block_tokens;
        probe->hit.tokens += block_tokens;
        probe->hit.ready = probe->hit.ready && here;
        probe->node = next;
    }
}

void quire__match_probe_end(const quire__book *book, const int32_t *tokens, quire__probe *probe)
{
    quire_hit *hit = &probe->hit;
    if (probe->departures != book->pool.departures) /* what was found may be gone */
        *probe = quire__match_probe_begin(book, probe->value, probe->count);
    if (probe->domain == QUIRE__NONE)
        return;
    if (book->side_count > 0) {
        probe_groups(book, probe->domain, tokens, probe->count, hit);
        return;
    }
    quire__match_probe_look(book, tokens, probe); /* what has come since, too */

    uint32_t left = smaller(findable(probe->count) - (uint32_t)hit->tokens, book->config.block_tokens), common = 0;
    uint32_t next = left == 0 ? QUIRE__NONE
                              : quire__prefix_nearest(&book->prefix, probe->domain, probe->node, tokens + hit->tokens, left,
                                                      &common);
    if (next == QUIRE__NONE || !partial_worth(book, next, common) || !partial_fits(book, probe->count))
        return;
    bool here = book->pool.nodes[next].state[QUIRE_TIER_DEVICE] == QUIRE__RESIDENT;
    hit->partial = common;
    *(here ? &hit->device : &hit->host) += common;
    hit->tokens += common;
    hit->ready = hit->ready && here;
}
