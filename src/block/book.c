/* book.c: the deciding half's one door: arguments are checked here, decisions are made in the parts.
 *
 *    book.c -----> match.c   which cached blocks spell a prompt
 *             |--> chain.c   a sequence's blocks grow, branch, shrink
 *             |--> seal.c    written blocks become the cache's
 *             |--> offload.c  which of them are copied to the host, and when
 *             +--> residency.c  references, eviction, moves that end
 *                     |--> prefix.c, evict.c, events.c
 *                     +--> pool.c   nodes, slots, counts
 *
 * A call that fails has changed nothing that a caller can see; a reserve that fails for want of a slot may have evicted
 * cached blocks before, which is a cache's right.
 */
#include "block/book.h"

#include <string.h>

#include "base/check.h"
#include "base/status.h"
#include "block/book_check.h"
#include "block/chain.h"
#include "block/match.h"
#include "block/offload.h"
#include "block/order.h"
#include "block/residency.h"
#include "block/seal.h"
#include "block/section.h"

static quire_status check_config(const quire__book_config *config)
{
    uint64_t nodes = (uint64_t)config->device_slots + config->host_slots;
    if (config->block_tokens == 0)
        return quire__fail(QUIRE_EINVAL, "block_tokens is 0: a block holds at least one token");
    if (config->device_slots == 0)
        return quire__fail(QUIRE_EINVAL, "device_slots is 0: the arena holds at least one block");
    if (nodes > QUIRE__MOST_SLOTS)
        return quire__fail(QUIRE_EINVAL, "%llu blocks in all tiers: at most %u", (unsigned long long)nodes,
                           QUIRE__MOST_SLOTS);
    if (config->section_slots > 0 && config->device_slots % config->section_slots != 0)
        return quire__fail(QUIRE_EINVAL, "device_slots is %u, no multiple of section_slots %u", config->device_slots,
                           config->section_slots);
    if (config->max_sequences == 0 || config->max_seq_tokens == 0)
        return quire__fail(QUIRE_EINVAL, "max_sequences is %u and max_seq_tokens %u: each is at least 1",
                           config->max_sequences, config->max_seq_tokens);
    if (config->max_domains == 0 || config->max_domains > INT32_MAX)
        return quire__fail(QUIRE_EINVAL, "max_domains is %u: 1 to %d", config->max_domains, INT32_MAX);
    return QUIRE_OK;
}

static quire_status open_chains(quire__book *book)
{
    const quire__allocator *allocator = &book->config.allocator;
    uint32_t sequences = book->config.max_sequences;
    void *chains = NULL, *nodes = NULL, *tables = NULL, *unused = NULL;
    uint32_t blocks = quire__chain_blocks_of(book, book->config.max_seq_tokens);
    book->max_blocks = blocks < book->config.device_slots ? blocks : book->config.device_slots;

    size_t row = book->max_blocks * sizeof(uint32_t);
    QUIRE__TRY(quire__memory_take(allocator, sequences, sizeof(quire__chain), "sequences", &chains));
    book->chains = chains;
    QUIRE__TRY(quire__memory_take(allocator, sequences, sizeof(uint32_t), "free sequences", &unused));
    book->free_chains = unused;
    QUIRE__TRY(quire__memory_take(allocator, sequences, row, "the sequences' blocks", &nodes));
    book->chain_nodes = nodes;
    QUIRE__TRY(quire__memory_take(allocator, sequences, row, "block tables", &tables));
    book->chain_tables = tables;
    for (uint32_t i = 0; i < sequences; i++) {
        book->chains[i].nodes = book->chain_nodes + (size_t)i * book->max_blocks;
        book->chains[i].table = book->chain_tables + (size_t)i * book->max_blocks;
        book->free_chains[i] = sequences - 1 - i;
    }
    book->free_chain_count = sequences;
    return quire__side_open(book, book->config.sides, book->config.side_count);
}

static quire_status open_parts(quire__book *book)
{
    const quire__book_config *config = &book->config;
    const quire__allocator *allocator = &config->allocator;
    QUIRE__TRY(quire__pool_open(&book->pool, allocator, config->block_tokens, config->device_slots,
                                config->host_slots));
    QUIRE__TRY(quire__prefix_open(&book->prefix, allocator, &book->pool, config->max_domains, config->hash_key));
    QUIRE__TRY(quire__order_open(book, QUIRE_TIER_DEVICE));
    QUIRE__TRY(quire__order_open(book, QUIRE_TIER_HOST));
    QUIRE__TRY(quire__events_open(&book->events, allocator, config->event_capacity));
    void *scratch = NULL;
    QUIRE__TRY(quire__memory_take(allocator, book->pool.node_count, sizeof(uint32_t), "the check", &scratch));
    book->scratch = scratch;
    QUIRE__TRY(open_chains(book));
    return quire__offload_open(book);
}

quire_status quire__book_open(quire__book **book, const quire__book_config *config)
{
    void *memory = NULL;
    QUIRE__TRY(check_config(config));
    QUIRE__TRY(quire__memory_take(&config->allocator, 1, sizeof(quire__book), "the book", &memory));
    quire__book *opened = memory;
    opened->config = *config;
    quire_status status = open_parts(opened);
    if (status != QUIRE_OK) {
        quire__book_close(opened);
        return status;
    }
    opened->config.policy = opened->evict[QUIRE_TIER_DEVICE].policy->name; /* the caller's string may go */
    *book = opened;
    return QUIRE_OK;
}

void quire__book_close(quire__book *book)
{
    if (!book)
        return;
    quire__allocator allocator = book->config.allocator;
    quire__side_close(book);
    quire__offload_close(book);
    quire__memory_give(&allocator, book->chain_tables);
    quire__memory_give(&allocator, book->chain_nodes);
    quire__memory_give(&allocator, book->free_chains);
    quire__memory_give(&allocator, book->chains);
    quire__memory_give(&allocator, book->scratch);
    quire__events_close(&book->events, &allocator);
    quire__evict_close(&book->evict[QUIRE_TIER_HOST], &allocator);
    quire__evict_close(&book->evict[QUIRE_TIER_DEVICE], &allocator);
    quire__prefix_close(&book->prefix, &allocator);
    quire__pool_close(&book->pool, &allocator);
    quire__memory_give(&allocator, book);
}

void quire__book_set_time(quire__book *book, uint64_t now_us)
{
    if (now_us <= book->now)
        return;
    book->now = now_us;
    for (int tier = 0; tier < QUIRE__TIERS; tier++)
        book->evict[tier].use.now = now_us;
}

void quire__book_set_costs(quire__book *book, const quire__costs *costs)
{
    book->costs = *costs;
}

uint64_t quire__book_time(const quire__book *book)
{
    return book->now;
}

/* ---- sequences ----------------------------------------------------------------------------------------------- */

static quire__chain *chain_of(const quire__book *book, uint32_t seq)
{
    QUIRE__ASSERT(seq < book->config.max_sequences && book->chains[seq].open);
    return &book->chains[seq];
}

static uint32_t longest(const quire__book *book)
{
    uint64_t arena = (uint64_t)quire__pool_present(&book->pool) * book->config.block_tokens;
    return arena < book->config.max_seq_tokens ? (uint32_t)arena : book->config.max_seq_tokens;
}

static quire_status no_sequence(const quire__book *book)
{
    return quire__fail(QUIRE_EFULL, "%u sequences are open, as many as max_sequences allows: close one",
                       book->config.max_sequences);
}

/* Gives the domain an index. When all are taken, the domain that has had no sequence for longest is forgotten: its
 * cached blocks must not keep everybody else out. */
static quire_status enter_domain(quire__book *book, uint64_t value, uint32_t *domain)
{
    *domain = quire__prefix_domain_enter(&book->prefix, value);
    if (*domain != QUIRE__NONE)
        return QUIRE_OK;
    uint32_t idle = quire__prefix_domain_idle(&book->prefix);
    if (idle == QUIRE__NONE)
        return quire__fail(QUIRE_EFULL, "%u domains have open sequences, as many as max_domains allows: close the "
                           "sequences of one", book->config.max_domains);
    quire__residency_clear(book, idle);
    *domain = quire__prefix_domain_enter(&book->prefix, value);
    QUIRE__ASSERT(*domain != QUIRE__NONE);
    return QUIRE_OK;
}

static uint32_t take_chain(quire__book *book)
{
    uint32_t seq = book->free_chains[--book->free_chain_count];
    quire__chain *chain = &book->chains[seq];
    *chain = (quire__chain){
        .nodes = chain->nodes, .table = chain->table, .spans = chain->spans, .source = QUIRE__NONE, .open = true};
    if (book->side_count > 0)
        quire__side_begin(book, chain);
    return seq;
}

quire_status quire__book_seq_open(quire__book *book, uint64_t domain, uint32_t *seq)
{
    if (book->free_chain_count == 0)
        return no_sequence(book);
    uint32_t index;
    QUIRE__TRY(enter_domain(book, domain, &index));
    *seq = take_chain(book);
    book->chains[*seq].domain = index;
    quire__book_check_quick(book);
    return QUIRE_OK;
}

static quire_status check_prompt(const quire__book *book, const int32_t *tokens, size_t count)
{
    if (!tokens && count > 0)
        return quire__fail(QUIRE_EINVAL, "tokens is NULL, count is %zu", count);
    if (count > longest(book))
        return quire__fail(QUIRE_ERANGE, "the prompt has %zu tokens: a sequence may have %u (max_seq_tokens %u, an "
                           "arena of %u blocks of %u)", count, longest(book), book->config.max_seq_tokens,
                           quire__pool_present(&book->pool), book->config.block_tokens);
    return QUIRE_OK;
}

quire_status quire__book_match_begin(const quire__book *book, uint32_t seq, const int32_t *tokens, size_t count)
{
    const quire__chain *chain = chain_of(book, seq);
    if (chain->length > 0 || chain->pending > 0)
        return quire__fail(QUIRE_ESTATE, "the sequence has %u tokens already: only an empty one can be matched",
                           chain->length + chain->pending);
    return check_prompt(book, tokens, count);
}

uint64_t quire__book_departures(const quire__book *book)
{
    return book->pool.departures;
}

bool quire__book_match_look(const quire__book *book, uint32_t seq, const int32_t *tokens, size_t count,
                            quire__look *look)
{
    return quire__match_look(book, chain_of(book, seq), tokens, (uint32_t)count, look);
}

bool quire__book_match_hold(quire__book *book, uint32_t seq, const int32_t *tokens, size_t count, quire__look *look)
{
    bool more = quire__match_hold(book, chain_of(book, seq), tokens, (uint32_t)count, look);
    quire__book_check_quick(book);
    return more;
}

void quire__book_match_end(quire__book *book, uint32_t seq, const int32_t *tokens, size_t count, quire__plan *plan,
                           quire_hit *hit)
{
    quire__chain *chain = chain_of(book, seq);
    quire__match_take(book, chain, tokens, (uint32_t)count, plan, hit);
    chain->prompt = (uint32_t)count;
    quire__book_check_quick(book);
}

quire_status quire__book_seq_match(quire__book *book, uint32_t seq, const int32_t *tokens, size_t count,
                                   quire__plan *plan, quire_hit *hit)
{
    quire_hit found;
    QUIRE__TRY(quire__book_match_begin(book, seq, tokens, count));
    quire__book_match_end(book, seq, tokens, count, plan, &found);
    if (hit)
        *hit = found;
    return QUIRE_OK;
}

quire_status quire__book_probe_begin(const quire__book *book, uint64_t domain, const int32_t *tokens, size_t count,
                                     quire__probe *probe)
{
    QUIRE__TRY(check_prompt(book, tokens, count));
    *probe = quire__match_probe_begin(book, domain, (uint32_t)count);
    return QUIRE_OK;
}

void quire__book_probe_look(const quire__book *book, const int32_t *tokens, quire__probe *probe)
{
    quire__match_probe_look(book, tokens, probe);
}

void quire__book_probe_end(const quire__book *book, const int32_t *tokens, quire__probe *probe, quire_hit *hit)
{
    quire__match_probe_end(book, tokens, probe);
    *hit = probe->hit;
}

quire_status quire__book_probe(quire__book *book, uint64_t domain, const int32_t *tokens, size_t count, quire_hit *hit)
{
    quire__probe probe;
    QUIRE__TRY(quire__book_probe_begin(book, domain, tokens, count, &probe));
    if (book->side_count == 0)
        quire__book_probe_look(book, tokens, &probe);
    quire__book_probe_end(book, tokens, &probe, hit);
    return QUIRE_OK;
}

bool quire__book_seq_ready(quire__book *book, uint32_t seq)
{
    quire__chain *chain = chain_of(book, seq);
    if (chain->ready == chain->blocks)
        return true;
    bool ready = quire__chain_refresh(book, chain);
    quire__book_check_quick(book);
    return ready;
}

uint32_t quire__book_seq_length(const quire__book *book, uint32_t seq)
{
    return chain_of(book, seq)->length;
}

quire_status quire__book_seq_fork(quire__book *book, uint32_t seq, uint32_t *child)
{
    const quire__chain *chain = chain_of(book, seq);
    if (chain->pending > 0)
        return quire__fail(QUIRE_ESTATE, "the sequence is in an open step: fork it before or after");
    if (book->free_chain_count == 0)
        return no_sequence(book);
    uint32_t forked = take_chain(book);
    quire__chain_fork(book, chain, &book->chains[forked]);
    quire__prefix_domain_share(&book->prefix, chain->domain);
    *child = forked;
    quire__book_check_quick(book);
    return QUIRE_OK;
}

quire_status quire__book_seq_truncate(quire__book *book, uint32_t seq, size_t length)
{
    quire__chain *chain = chain_of(book, seq);
    if (chain->pending > 0)
        return quire__fail(QUIRE_ESTATE, "the sequence is in an open step: truncate it before or after");
    quire__chain_refresh(book, chain);
    if (length > chain->length)
        return quire__fail(QUIRE_EINVAL, "a sequence of %u tokens cannot be truncated to %zu", chain->length, length);
    if (book->side_count > 0)
        QUIRE__TRY(quire__side_check_truncate(book, chain, (uint32_t)length));
    quire__chain_truncate(book, chain, (uint32_t)length);
    if (book->side_count > 0)
        quire__side_cover(book, chain);
    quire__book_check_quick(book);
    return QUIRE_OK;
}

void quire__book_seq_hint(quire__book *book, uint32_t seq, const quire_hint *hint)
{
    quire__chain *chain = chain_of(book, seq);
    chain->hint = *hint;
    if (hint->next_use_us)
        chain->hint.next_use_us += book->now;
}

quire_status quire__book_domain_ttl(quire__book *book, uint64_t domain, uint64_t ttl_us)
{
    quire__lifetime *place = NULL;
    for (int i = QUIRE__BOOK_LIFETIMES - 1; i >= 0; i--) {
        quire__lifetime *lifetime = &book->lifetimes[i];
        if (lifetime->ttl_us && lifetime->domain == domain) {
            place = lifetime;
            break;
        }
        if (lifetime->ttl_us == 0)
            place = lifetime;
    }
    if (!place && ttl_us)
        return quire__fail(QUIRE_EFULL, "%d domains have a time to live already: set another's to 0",
                           QUIRE__BOOK_LIFETIMES);
    if (!place)
        return QUIRE_OK;
    *place = (quire__lifetime){domain, ttl_us};
    int taken = (int)(place - book->lifetimes) + 1;
    book->lifetime_count = taken > book->lifetime_count ? taken : book->lifetime_count;
    return QUIRE_OK;
}

/* What policies are told of a sequence that ends. */
static void name_user(quire__book *book, const quire__chain *chain)
{
    const uint32_t appended = chain->prompt > 0 && chain->length > chain->prompt ? chain->length - chain->prompt : 0;
    quire_policy_use use = {
        .domain = book->prefix.domains[chain->domain].value,
        .blocks = chain->length / book->config.block_tokens,
        .matched = chain->matched / book->config.block_tokens,
        .hints = chain->hint.flags,
        .next_use = chain->hint.next_use_us,
        .range_count = chain->hint.range_count,
        .ranges = chain->hint.ranges,
        .generated = chain->hint.generated > 0 ? chain->hint.generated : appended,
    };
    for (int i = 0; i < book->lifetime_count; i++) {
        if (book->lifetimes[i].ttl_us && book->lifetimes[i].domain == use.domain)
            use.ttl_us = book->lifetimes[i].ttl_us;
    }
    for (int tier = 0; tier < QUIRE__TIERS; tier++)
        quire__evict_context(&book->evict[tier], &use);
}

void quire__book_seq_close(quire__book *book, uint32_t seq)
{
    quire__chain *chain = chain_of(book, seq);
    QUIRE__ASSERT(chain->pending == 0);
    if (chain->pending > 0)
        quire__chain_cancel(book, chain);
    const uint32_t blocks = chain->blocks;
    name_user(book, chain);
    quire__chain_truncate(book, chain, 0);
    quire__residency_touch_host(book, chain->nodes, blocks); /* the device's order knows by now what they are */
    for (int tier = 0; tier < QUIRE__TIERS; tier++)
        quire__evict_context(&book->evict[tier], NULL);
    quire__prefix_domain_leave(&book->prefix, chain->domain);
    chain->open = false;
    book->free_chains[book->free_chain_count++] = seq;
    quire__book_check_quick(book);
}

void quire__book_seq_get(quire__book *book, uint32_t seq, quire_seq_info *info)
{
    quire__chain *chain = chain_of(book, seq);
    bool ready = quire__chain_refresh(book, chain);
    *info = (quire_seq_info){
        .length = chain->length,
        .computed = chain->length - chain->matched,
        .blocks = chain->blocks,
        .domain = book->prefix.domains[chain->domain].value,
        .ready = ready,
    };
}

const int32_t *quire__book_seq_table(quire__book *book, uint32_t seq, uint32_t *blocks, uint32_t *changed, bool reset)
{
    quire__chain *chain = chain_of(book, seq);
    QUIRE__ASSERT(chain->changed <= chain->blocks);
    *blocks = chain->blocks;
    *changed = chain->changed;
    if (reset)
        chain->changed = chain->blocks;
    return chain->table;
}

const int32_t *quire__book_seq_side_table(quire__book *book, uint32_t seq, uint32_t group, uint32_t *first,
                                          uint32_t *blocks, uint32_t *changed, bool reset)
{
    quire__chain *chain = chain_of(book, seq);
    quire__span *span = &chain->spans[group - 1];
    QUIRE__ASSERT(group >= 1 && group <= book->side_count && span->changed <= chain->blocks);
    *first = span->first;
    *blocks = chain->blocks;
    *changed = span->changed;
    if (reset)
        span->changed = chain->blocks;
    return span->table;
}

void quire__book_seq_tokens(quire__book *book, uint32_t seq, size_t first, size_t count, int32_t *tokens)
{
    const quire__chain *chain = chain_of(book, seq);
    QUIRE__ASSERT(first + count <= (uint64_t)chain->length + (chain->named ? chain->pending : 0));
    quire__chain_read(book, chain, (uint32_t)first, tokens, (uint32_t)count);
}

void quire__book_seq_block(const quire__book *book, uint32_t seq, uint32_t at, int32_t *tokens)
{
    const quire__chain *chain = &book->chains[seq];
    QUIRE__ASSERT(seq < book->config.max_sequences && chain->open && at < chain->blocks);
    memcpy(tokens, quire__pool_tokens(&book->pool, chain->nodes[at]), book->config.block_tokens * sizeof(*tokens));
}

/* ---- steps --------------------------------------------------------------------------------------------------- */

void quire__book_step_begin(quire__book *book, uint64_t step)
{
    QUIRE__ASSERT(!book->stepping && step > book->step);
    book->step = step;
    book->stepping = true;
    book->counters.steps++;
}

void quire__book_step_end(quire__book *book)
{
    QUIRE__ASSERT(book->stepping);
    book->stepping = false;
}

void quire__book_offload_ahead(quire__book *book, bool restoring, quire__plan *plan)
{
    quire__offload_ahead(book, restoring, plan);
    quire__book_check_quick(book);
}

static quire_status reserve(quire__book *book, uint32_t seq, const int32_t *tokens, size_t count, bool early,
                            quire__plan *plan, uint32_t *moving)
{
    quire__chain *chain = chain_of(book, seq);
    if (!book->stepping || chain->pending > 0)
        return quire__fail(QUIRE_ESTATE, book->stepping ? "the sequence is in this step already"
                                                        : "no step has begun");
    if (count == 0)
        return quire__fail(QUIRE_EINVAL, "0 tokens to reserve: at least 1");
    uint32_t before = chain->length;
    bool ready = quire__chain_refresh(book, chain);
    if (early && chain->length < before) /* the caller's tokens would follow what is not there */
        return quire__fail(QUIRE_EAGAIN, "the sequence's restore has failed in part: it has %u tokens now and had %u; add "
                           "those from there on", chain->length, before);
    if (!ready && !(early && quire__chain_may_run(book, chain)))
        return quire__fail(QUIRE_EAGAIN, "blocks of the sequence are still arriving");
    if (count > longest(book) - chain->length)
        return quire__fail(QUIRE_ERANGE, "%u tokens and %zu more: a sequence may have %u (max_seq_tokens %u, an arena "
                           "of %u blocks of %u)", chain->length, count, longest(book), book->config.max_seq_tokens,
                           quire__pool_present(&book->pool), book->config.block_tokens);
    uint32_t waiting = 0;
    quire_status status = quire__chain_reserve(book, chain, (uint32_t)count, plan, &waiting);
    if (status == QUIRE_OK) {
        chain->named = tokens != NULL;
        if (tokens)
            quire__chain_write(book, chain, tokens, (uint32_t)count);
    } else if (moving) {
        *moving = waiting;
    }
    quire__book_check_quick(book);
    return status;
}

quire_status quire__book_reserve(quire__book *book, uint32_t seq, const int32_t *tokens, size_t count,
                                 quire__plan *plan, uint32_t *moving)
{
    return reserve(book, seq, tokens, count, false, plan, moving);
}

quire_status quire__book_reserve_early(quire__book *book, uint32_t seq, const int32_t *tokens, size_t count,
                                       quire__plan *plan, uint32_t *moving)
{
    return reserve(book, seq, tokens, count, true, plan, moving);
}

quire__settled quire__book_settle(quire__book *book, uint32_t seq)
{
    quire__chain *chain = chain_of(book, seq);
    QUIRE__ASSERT(chain->pending > 0);
    quire__settled settled = quire__chain_settle(book, chain);
    quire__book_check_quick(book);
    return settled;
}

quire_status quire__book_name(quire__book *book, uint32_t seq, const int32_t *tokens, size_t count)
{
    quire__chain *chain = chain_of(book, seq);
    if (chain->pending == 0 || chain->named)
        return quire__fail(QUIRE_ESTATE, "the sequence has no tokens without a name");
    if (!tokens || count != chain->pending)
        return quire__fail(QUIRE_EINVAL, "%zu names for %u tokens: name all of them at once", tokens ? count : 0,
                           chain->pending);
    quire__chain_write(book, chain, tokens, (uint32_t)count);
    chain->named = true;
    return QUIRE_OK;
}

bool quire__book_named(const quire__book *book, uint32_t seq)
{
    const quire__chain *chain = chain_of(book, seq);
    return chain->pending == 0 || chain->named;
}

void quire__book_commit(quire__book *book, uint32_t seq, quire__plan *plan)
{
    quire__chain *chain = chain_of(book, seq);
    QUIRE__ASSERT(chain->pending > 0 && chain->named);
    quire__seal_commit(book, chain, plan);
    quire__book_check_quick(book);
}

void quire__book_cancel(quire__book *book, uint32_t seq)
{
    quire__chain *chain = chain_of(book, seq);
    QUIRE__ASSERT(chain->pending > 0);
    quire__chain_cancel(book, chain);
    quire__book_check_quick(book);
}

/* ---- moves, the whole ---------------------------------------------------------------------------------------- */

void quire__book_complete(quire__book *book, const quire__move *move, bool ok)
{
    quire__residency_complete(book, move, ok);
    quire__book_check_quick(book);
}

void quire__book_expire(quire__book *book, const quire__move *move)
{
    quire__residency_expire(book, move);
    quire__book_check_quick(book);
}

/* ---- the arena's size ---------------------------------------------------------------------------------------- */

uint32_t quire__book_sections(const quire__book *book)
{
    return quire__section_count(book);
}

uint32_t quire__book_section_add(quire__book *book)
{
    QUIRE__ASSERT(!book->stepping);
    uint32_t section = quire__section_add(book);
    quire__book_check_quick(book);
    return section;
}

quire_status quire__book_section_check(const quire__book *book, uint32_t count, uint32_t *moving)
{
    return quire__section_check(book, count, moving);
}

uint32_t quire__book_section_leave(quire__book *book, quire__plan *plan)
{
    QUIRE__ASSERT(!book->stepping);
    return quire__section_leave(book, plan);
}

void quire__book_section_left(quire__book *book, uint32_t section, const quire__plan *plan, bool ok)
{
    quire__section_left(book, section, plan, ok);
    quire__book_check_quick(book);
}

/* ---- the host tier's size ------------------------------------------------------------------------------------ */

void quire__book_host_limit(quire__book *book, uint32_t slots)
{
    quire__pool_host_limit(&book->pool, slots);
    quire__book_check_quick(book);
}

void quire__book_host_grow(quire__book *book, uint32_t slots)
{
    quire__pool_host_grow(&book->pool, slots);
    quire__book_check_quick(book);
}

/* ---- the whole ----------------------------------------------------------------------------------------------- */

void quire__book_clear(quire__book *book)
{
    for (uint32_t domain = 0; domain < book->config.max_domains; domain++)
        quire__residency_clear(book, domain);
    quire__book_check_quick(book);
}

void quire__book_stats(const quire__book *book, quire_stats *stats)
{
    const quire_stats *counters = &book->counters;
    const quire__pool *pool = &book->pool;
    const uint32_t *device = pool->standing[QUIRE_TIER_DEVICE], *host = pool->standing[QUIRE_TIER_HOST];
    stats->matches = counters->matches;
    stats->match_tokens = counters->match_tokens;
    stats->hit_tokens_device = counters->hit_tokens_device;
    stats->hit_tokens_host = counters->hit_tokens_host;
    stats->hit_tokens_partial = counters->hit_tokens_partial;
    stats->miss_tokens = counters->miss_tokens;
    stats->computed_tokens = counters->computed_tokens;
    stats->steps = counters->steps;
    stats->blocks_sealed = counters->blocks_sealed;
    stats->blocks_deduplicated = counters->blocks_deduplicated;
    stats->copies_on_write = counters->copies_on_write;
    stats->evictions_device = counters->evictions_device;
    stats->evictions_host = counters->evictions_host;
    stats->restores_declined = counters->restores_declined;
    stats->tokens_declined = counters->tokens_declined;
    stats->tokens_no_room = counters->tokens_no_room;
    stats->tokens_busy = counters->tokens_busy;
    stats->offloads_missed = counters->offloads_missed;
    stats->offloads_declined = counters->offloads_declined;
    stats->events_lost = book->events.lost;

    stats->device_total = quire__pool_present(pool);
    stats->device_free = pool->free_count[QUIRE_TIER_DEVICE];
    stats->device_open = device[QUIRE__OPEN];
    stats->device_used = device[QUIRE__USED];
    stats->device_cached = device[QUIRE__CACHED];
    stats->device_moving = (uint64_t)device[QUIRE__EXPECTED] + device[QUIRE__LOOSE] + pool->orphans[QUIRE_TIER_DEVICE];
    stats->host_total = pool->total[QUIRE_TIER_HOST] - pool->missing[QUIRE_TIER_HOST];
    stats->host_free = pool->free_count[QUIRE_TIER_HOST];
    stats->host_cached = host[QUIRE__CACHED];
    stats->host_moving = (uint64_t)host[QUIRE__LOOSE] + pool->orphans[QUIRE_TIER_HOST];
    stats->sequences = book->config.max_sequences - book->free_chain_count;
    stats->domains = book->prefix.domain_count;
}

void quire__book_group_stats(const quire__book *book, uint32_t group, quire_group_stats *stats)
{
    if (group == 0) {
        const quire__pool *pool = &book->pool;
        const uint32_t *standing = pool->standing[QUIRE_TIER_DEVICE];
        stats->blocks = quire__pool_present(pool);
        stats->free = pool->free_count[QUIRE_TIER_DEVICE];
        stats->cached = standing[QUIRE__CACHED];
        stats->used = (uint64_t)standing[QUIRE__OPEN] + standing[QUIRE__USED] + standing[QUIRE__EXPECTED];
        stats->moving = (uint64_t)standing[QUIRE__LOOSE] + pool->orphans[QUIRE_TIER_DEVICE];
        stats->evictions = book->counters.evictions_device;
        return;
    }
    const quire__side *side = &book->sides[group - 1];
    stats->blocks = side->config.slots;
    stats->free = side->free_count;
    stats->cached = side->cached;
    stats->moving = (uint64_t)side->orphans + side->loose;
    stats->used = stats->blocks - stats->free - stats->cached - stats->moving;
    stats->given_back = side->given_back;
    stats->evictions = side->evicted;
    stats->restores = side->restored;
}

size_t quire__book_events(quire__book *book, quire_event *events, size_t capacity)
{
    return quire__events_take(&book->events, events, capacity);
}

quire_status quire__book_block_tokens(const quire__book *book, quire_block block, int32_t *tokens)
{
    uint32_t node = quire__pool_find(&book->pool, block);
    if (node == QUIRE__NONE)
        return quire__fail(QUIRE_ESTALE, "block %#llx is gone", (unsigned long long)block);
    memcpy(tokens, quire__pool_tokens(&book->pool, node), book->config.block_tokens * sizeof(*tokens));
    return QUIRE_OK;
}

void quire__book_each_host_slot(const quire__book *book, void (*fn)(void *arg, uint32_t slot), void *arg)
{
    for (uint32_t slot = 0; slot < book->config.host_slots; slot++) {
        uint32_t node = book->pool.owner[QUIRE_TIER_HOST][slot];
        if (node < book->pool.node_count && book->pool.nodes[node].state[QUIRE_TIER_HOST] == QUIRE__RESIDENT)
            fn(arg, slot);
    }
}

void quire__book_each_host_side(const quire__book *book, uint32_t group, void (*fn)(void *arg, uint32_t slot), void *arg)
{
    for (uint32_t slot = 0; slot < book->config.host_slots; slot++) {
        uint32_t node = book->pool.owner[QUIRE_TIER_HOST][slot];
        if (node < book->pool.node_count && book->sides[group - 1].blocks[node].host == QUIRE__RESIDENT)
            fn(arg, slot);
    }
}

void quire__book_set_holes(quire__book *book, uint32_t holes)
{
    book->holes = holes;
}
