/* naive_book.c: see naive_book.h. Written from the rules, not from the code that it judges. */
#include "support/testing.h"

#include "support/naive_book.h"
#include "support/naive_write_back.h"

#include <string.h>

enum { DEVICE = QUIRE_TIER_DEVICE, HOST = QUIRE_TIER_HOST };

/* ---- looking ------------------------------------------------------------------------------------------------- */

int naive_refs(const naive_book *book, int block)
{
    int refs = 0;
    for (int s = 0; s < NAIVE_SEQUENCES; s++) {
        const naive_seq *seq = &book->seq[s];
        if (!seq->open)
            continue;
        for (int i = 0; i < seq->count; i++)
            refs += seq->blocks[i] == block;
        refs += seq->source == block;
    }
    return refs;
}

bool naive_in_flight(const naive_book *book, int block, int tier)
{
    for (int i = 0; i < book->moves; i++) {
        if (book->move[i].side[tier] == block)
            return true;
    }
    return false;
}

static uint32_t orphans(const naive_book *book, int tier)
{
    uint32_t count = 0;
    for (int i = 0; i < book->moves; i++)
        count += book->move[i].side[tier] == NAIVE_NONE;
    return count;
}

uint32_t naive_free_slots(const naive_book *book, int tier)
{
    uint32_t taken = orphans(book, tier);
    for (int b = 0; b < NAIVE_BLOCKS; b++)
        taken += book->block[b].kind != NAIVE_GONE && book->block[b].place[tier] != NAIVE_NOWHERE;
    return (tier == DEVICE ? book->config.device_slots : book->config.host_slots) - taken;
}

static bool cached(const naive_book *book, int b)
{
    return book->block[b].kind == NAIVE_SEALED && book->block[b].place[DEVICE] == NAIVE_RESIDENT &&
           naive_refs(book, b) == 0 && !naive_in_flight(book, b, DEVICE);
}

static uint32_t cached_count(const naive_book *book)
{
    uint32_t count = 0;
    for (int b = 0; b < NAIVE_BLOCKS; b++)
        count += cached(book, b);
    return count;
}

static uint32_t moving_count(const naive_book *book)
{
    uint32_t count = orphans(book, DEVICE);
    for (int b = 0; b < NAIVE_BLOCKS; b++)
        count += book->block[b].kind == NAIVE_SEALED && book->block[b].place[DEVICE] != NAIVE_NOWHERE &&
                 naive_refs(book, b) == 0 && naive_in_flight(book, b, DEVICE);
    return count;
}

static int child_with(const naive_book *book, uint64_t domain, int parent, const int32_t *tokens)
{
    for (int b = 0; b < NAIVE_BLOCKS; b++) {
        const naive_block *block = &book->block[b];
        if (block->kind == NAIVE_SEALED && block->domain == domain && block->parent == parent &&
            memcmp(block->tokens, tokens, book->config.block_tokens * sizeof(*tokens)) == 0)
            return b;
    }
    return NAIVE_NONE;
}

/* The youngest child that was born before `before`. */
static int next_child(const naive_book *book, uint64_t domain, int parent, uint64_t before)
{
    int youngest = NAIVE_NONE;
    for (int b = 0; b < NAIVE_BLOCKS; b++) {
        const naive_block *block = &book->block[b];
        if (block->kind == NAIVE_SEALED && block->domain == domain && block->parent == parent &&
            block->born < before && (youngest == NAIVE_NONE || block->born > book->block[youngest].born))
            youngest = b;
    }
    return youngest;
}

static int nearest(const naive_book *book, uint64_t domain, int parent, const int32_t *tokens, uint32_t count,
                   uint32_t *common)
{
    int best = NAIVE_NONE, child = next_child(book, domain, parent, UINT64_MAX);
    *common = 0;
    for (int looks = 0; looks < 8 && child != NAIVE_NONE; looks++) {
        uint32_t same = 0;
        while (same < count && book->block[child].tokens[same] == tokens[same])
            same++;
        if (same > *common) {
            *common = same;
            best = child;
        }
        child = next_child(book, domain, parent, book->block[child].born);
    }
    return best;
}

static uint32_t blocks_of(const naive_book *book, uint32_t tokens)
{
    return tokens / book->config.block_tokens + (tokens % book->config.block_tokens != 0);
}

static uint32_t kept_free(const naive_book *book, int seq)
{
    if (book->seq[seq].length > book->seq[seq].matched)
        return 0;
    for (int s = 0; s < NAIVE_SEQUENCES; s++) {
        if (s != seq && book->seq[s].open && book->seq[s].count > 0)
            return book->config.watermark_blocks;
    }
    return 0;
}

static bool domain_has_root(const naive_book *book, uint64_t domain)
{
    for (int b = 0; b < NAIVE_BLOCKS; b++) {
        if (book->block[b].kind == NAIVE_SEALED && book->block[b].domain == domain)
            return true;
    }
    return false;
}

static bool domain_has_sequence(const naive_book *book, uint64_t domain)
{
    for (int s = 0; s < NAIVE_SEQUENCES; s++) {
        if (book->seq[s].open && book->seq[s].domain == domain)
            return true;
    }
    return false;
}

/* ---- orders, events ------------------------------------------------------------------------------------------ */

static int place_in_order(const naive_book *book, int tier, int block)
{
    for (int i = 0; i < book->ordered[tier]; i++) {
        if (book->order[tier][i] == block)
            return i;
    }
    return NAIVE_NONE;
}

static void leave_order(naive_book *book, int tier, int block)
{
    int at = place_in_order(book, tier, block);
    if (at == NAIVE_NONE)
        return;
    book->ordered[tier]--;
    memmove(&book->order[tier][at], &book->order[tier][at + 1], sizeof(int) * (size_t)(book->ordered[tier] - at));
}

static void enter_order(naive_book *book, int tier, int block, int at)
{
    assert_int_equal(place_in_order(book, tier, block), NAIVE_NONE);
    memmove(&book->order[tier][at + 1], &book->order[tier][at], sizeof(int) * (size_t)(book->ordered[tier] - at));
    book->order[tier][at] = block;
    book->ordered[tier]++;
}

static void event(naive_book *book, quire_event_type type, int tier, int block)
{
    uint32_t depth = 0;
    for (int up = book->block[block].parent; up != NAIVE_NONE; up = book->block[up].parent)
        depth++;
    int parent = book->block[block].parent;
    assert_true(book->events < NAIVE_EVENTS);
    book->event[book->events++] = (naive_event){
        .type = type, .tier = (quire_tier)tier, .block = block, .above = parent, .handle = book->block[block].handle,
        .parent = parent == NAIVE_NONE ? 0 : book->block[parent].handle, .domain = book->block[block].domain,
        .first_token = depth * book->config.block_tokens};
}

/* ---- blocks come and go -------------------------------------------------------------------------------------- */

static int new_block(naive_book *book)
{
    int b = 0;
    while (book->block[b].kind != NAIVE_GONE)
        b++;
    assert_true(b < NAIVE_BLOCKS);
    book->block[b] = (naive_block){.kind = NAIVE_OPEN, .parent = NAIVE_NONE, .place = {NAIVE_RESIDENT, NAIVE_NOWHERE}};
    return b;
}

/* The slot leaves the block; a move that has it goes on without. */
static void vacate(naive_book *book, int b, int tier)
{
    book->block[b].place[tier] = NAIVE_NOWHERE;
    for (int i = 0; i < book->moves; i++) {
        if (book->move[i].side[tier] == b)
            book->move[i].side[tier] = NAIVE_NONE;
    }
}

static void domain_left(naive_book *book, uint64_t domain)
{
    bool root = domain_has_root(book, domain), sequence = domain_has_sequence(book, domain);
    for (int i = 0; i < book->idles; i++) {
        if (book->idle[i].domain != domain)
            continue;
        if (!root || sequence) {
            book->idles--;
            memmove(&book->idle[i], &book->idle[i + 1], sizeof(book->idle[0]) * (size_t)(book->idles - i));
        }
        return;
    }
    if (root && !sequence) {
        book->idle[book->idles].domain = domain;
        book->idle[book->idles++].since = ++book->clock;
    }
}

static void lose(naive_book *book, int b, int tier)
{
    naive_block *block = &book->block[b];
    for (int child = 0; child < NAIVE_BLOCKS; child++) /* the leaf rule */
        assert_false(book->block[child].kind == NAIVE_SEALED && book->block[child].parent == b &&
                     book->block[child].place[tier] != NAIVE_NOWHERE);
    if (block->place[tier] == NAIVE_RESIDENT)
        event(book, QUIRE_EVENT_REMOVED, tier, b);
    leave_order(book, tier, b);
    vacate(book, b, tier);
    if (block->place[DEVICE] == NAIVE_NOWHERE && block->place[HOST] == NAIVE_NOWHERE) {
        assert_int_equal(naive_refs(book, b), 0);
        block->kind = NAIVE_GONE;
        domain_left(book, block->domain);
    }
}

static bool evict(naive_book *book, int tier, int spare)
{
    if (book->ordered[tier] == 0)
        return false;
    int b = book->order[tier][0];
    if (tier == DEVICE && book->config.offload >= QUIRE_OFFLOAD_WRITE_BACK)
        b = naive_secured_victim(book, b);
    if (b == spare || book->block[b].place[tier] != NAIVE_RESIDENT || naive_in_flight(book, b, tier))
        return false;
    if (tier == DEVICE)
        book->stats.evictions_device++;
    if (tier == DEVICE && book->config.offload >= QUIRE_OFFLOAD_WRITE_BACK && book->block[b].place[HOST] == NAIVE_NOWHERE) {
        book->stats.offloads_missed++;
        book->secured = book->looked_at = 0;
    }
    if (tier == HOST)
        book->stats.evictions_host++;
    lose(book, b, tier);
    return true;
}

static bool make_room(naive_book *book, int tier, int spare)
{
    return naive_free_slots(book, tier) > 0 || evict(book, tier, spare);
}

/* After a sequence let go of it. */
static void let_go(naive_book *book, int b)
{
    naive_block *block = &book->block[b];
    if (naive_refs(book, b) > 0)
        return;
    if (block->kind == NAIVE_SEALED) {
        block->let_go = book->step;
        enter_order(book, DEVICE, b, book->ordered[DEVICE]);
        return;
    }
    vacate(book, b, DEVICE);
    block->kind = NAIVE_GONE;
}

static void shorten(naive_book *book, int s, int count)
{
    naive_seq *seq = &book->seq[s];
    while (seq->count > count) {
        int b = seq->blocks[--seq->count];
        let_go(book, b);
    }
}

static void drop_host(naive_book *book, int b)
{
    int child;
    for (uint64_t before = UINT64_MAX;
         (child = next_child(book, book->block[b].domain, b, before)) != NAIVE_NONE;) {
        before = book->block[child].born;
        if (book->block[child].place[HOST] != NAIVE_NOWHERE)
            drop_host(book, child);
    }
    lose(book, b, HOST);
}

static void drop_all(naive_book *book, int b)
{
    naive_block *block = &book->block[b];
    int child;
    while ((child = next_child(book, block->domain, b, UINT64_MAX)) != NAIVE_NONE)
        drop_all(book, child);
    bool here = block->place[DEVICE] != NAIVE_NOWHERE;
    if (block->place[HOST] != NAIVE_NOWHERE)
        lose(book, b, HOST);
    if (!here)
        return;
    if (naive_refs(book, b) == 0) {
        lose(book, b, DEVICE);
        return;
    }
    if (block->place[DEVICE] == NAIVE_RESIDENT)
        event(book, QUIRE_EVENT_REMOVED, DEVICE, b);
    block->kind = NAIVE_DEAD;
    domain_left(book, block->domain);
}

/* ---- sequences ----------------------------------------------------------------------------------------------- */

void naive_open(naive_book *book, const quire__book_config *config)
{
    memset(book, 0, sizeof(*book));
    book->config = *config;
    for (int s = 0; s < NAIVE_SEQUENCES; s++)
        book->seq[s].source = NAIVE_NONE;
}

static uint32_t domain_count(const naive_book *book)
{
    uint64_t known[NAIVE_BLOCKS + NAIVE_SEQUENCES];
    uint32_t count = 0;
    for (int i = 0; i < NAIVE_BLOCKS + NAIVE_SEQUENCES; i++) {
        const naive_block *block = &book->block[i < NAIVE_BLOCKS ? i : 0];
        const naive_seq *seq = &book->seq[i < NAIVE_BLOCKS ? 0 : i - NAIVE_BLOCKS];
        if (i < NAIVE_BLOCKS ? block->kind != NAIVE_SEALED : !seq->open)
            continue;
        uint64_t domain = i < NAIVE_BLOCKS ? block->domain : seq->domain;
        uint32_t at = 0;
        while (at < count && known[at] != domain)
            at++;
        known[at] = domain;
        count += at == count;
    }
    return count;
}

bool naive_can_open(naive_book *book, uint64_t domain)
{
    uint32_t open = 0;
    for (int s = 0; s < NAIVE_SEQUENCES; s++)
        open += book->seq[s].open;
    if (open == book->config.max_sequences)
        return false;
    if (domain_has_root(book, domain) || domain_has_sequence(book, domain) ||
        domain_count(book) < book->config.max_domains)
        return true;
    if (book->idles == 0)
        return false;
    uint64_t oldest = book->idle[0].domain;
    int root;
    while ((root = next_child(book, oldest, NAIVE_NONE, UINT64_MAX)) != NAIVE_NONE)
        drop_all(book, root);
    return true;
}

void naive_seq_open(naive_book *book, int s, uint64_t domain)
{
    book->seq[s] = (naive_seq){.open = true, .domain = domain, .source = NAIVE_NONE};
    domain_left(book, domain);
}

static bool take_restore(naive_book *book, int s, int b, uint32_t spare)
{
    naive_seq *seq = &book->seq[s];
    if (naive_in_flight(book, b, HOST) || naive_free_slots(book, DEVICE) + cached_count(book) <= spare ||
        !make_room(book, DEVICE, NAIVE_NONE))
        return false;
    book->block[b].place[DEVICE] = NAIVE_ARRIVING;
    book->move[book->moves++] = (naive_move){.type = QUIRE__MOVE_RESTORE, .side = {b, b}};
    book->planned[book->plans++] = b;
    seq->blocks[seq->count++] = b;
    return true;
}

static void take_shared(naive_book *book, int s, int b)
{
    leave_order(book, DEVICE, b);
    book->seq[s].blocks[book->seq[s].count++] = b;
}

static void touch_host(naive_book *book, const int *blocks, int count)
{
    for (int i = count - 1; i >= 0; i--) {
        int b = blocks[i];
        if (book->block[b].place[HOST] == NAIVE_NOWHERE)
            continue;
        leave_order(book, HOST, b);
        enter_order(book, HOST, b, book->ordered[HOST]);
    }
}

/* Of a prompt that could not be restored from block `b` on: full blocks in the tree. */
static void count_left(naive_book *book, uint64_t domain, int b, const int32_t *tokens, uint32_t left)
{
    const uint32_t size = book->config.block_tokens;
    for (bool busy = false; b != NAIVE_NONE && left >= size; tokens += size, left -= size) {
        busy |= naive_in_flight(book, b, HOST);
        *(busy ? &book->stats.tokens_busy : &book->stats.tokens_no_room) += size;
        b = left >= 2 * size ? child_with(book, domain, b, tokens + size) : NAIVE_NONE;
    }
}

void naive_match(naive_book *book, int s, const int32_t *tokens, uint32_t count, quire_hit *hit)
{
    naive_seq *seq = &book->seq[s];
    const uint32_t size = book->config.block_tokens, spare = kept_free(book, s);
    uint32_t left = count > 0 ? count - 1 : 0, partial = 0, of_it = 0;
    int before = book->plans, parent = NAIVE_NONE;
    while (left >= size) {
        int b = child_with(book, seq->domain, parent, tokens + seq->length);
        if (b == NAIVE_NONE)
            break;
        if (book->block[b].place[DEVICE] != NAIVE_NOWHERE)
            take_shared(book, s, b);
        else if (!take_restore(book, s, b, spare)) {
            count_left(book, seq->domain, b, tokens + seq->length, left);
            break;
        }
        seq->length += size;
        left -= size;
        parent = b;
    }
    int b = left > 0 ? nearest(book, seq->domain, parent, tokens + seq->length, left < size ? left : size, &of_it) : NAIVE_NONE;
    bool here = b != NAIVE_NONE && book->block[b].place[DEVICE] != NAIVE_NOWHERE;
    bool fits = blocks_of(book, count) < book->config.device_slots;
    if (here && fits)
        take_shared(book, s, b);
    if (b != NAIVE_NONE && !here && of_it < size / 2)
        book->stats.tokens_declined += of_it;
    else if (b != NAIVE_NONE && fits && (here || take_restore(book, s, b, spare)))
        partial = of_it;
    else if (b != NAIVE_NONE && !here && of_it < size)
        *(fits && naive_in_flight(book, b, HOST) ? &book->stats.tokens_busy : &book->stats.tokens_no_room) += of_it;
    seq->length += partial;
    seq->matched = seq->length;
    *hit = (quire_hit){.tokens = seq->length, .partial = partial, .ready = 1};
    for (int i = 0; i < seq->count; i++) {
        uint32_t part = i == seq->count - 1 && partial ? partial : size;
        if (book->block[seq->blocks[i]].place[DEVICE] == NAIVE_RESIDENT) {
            hit->device += part;
        } else {
            hit->host += part;
            hit->ready = 0;
        }
    }
    if (book->plans > before)
        touch_host(book, seq->blocks, seq->count);
    book->stats.matches++;
    book->stats.match_tokens += count;
    book->stats.hit_tokens_device += hit->device;
    book->stats.hit_tokens_host += hit->host;
    book->stats.hit_tokens_partial += partial;
    book->stats.miss_tokens += count - hit->tokens;
}

void naive_probe(const naive_book *book, uint64_t domain, const int32_t *tokens, uint32_t count, quire_hit *hit)
{
    const uint32_t size = book->config.block_tokens;
    uint32_t left = count > 0 ? count - 1 : 0, of_it = size;
    int parent = NAIVE_NONE;
    *hit = (quire_hit){.ready = 1};
    while (left > 0) {
        int b = left >= size ? child_with(book, domain, parent, tokens + hit->tokens) : NAIVE_NONE;
        if (b == NAIVE_NONE) {
            b = nearest(book, domain, parent, tokens + hit->tokens, left < size ? left : size, &of_it);
            if (b == NAIVE_NONE || blocks_of(book, count) >= book->config.device_slots ||
                (book->block[b].place[DEVICE] == NAIVE_NOWHERE && of_it < size / 2))
                return;
            hit->partial = of_it;
        }
        if (book->block[b].place[DEVICE] == NAIVE_RESIDENT)
            hit->device += of_it;
        else
            hit->host += of_it;
        hit->ready = hit->host == 0;
        hit->tokens += of_it;
        left = hit->partial ? 0 : left - size;
        parent = b;
    }
}

bool naive_ready(naive_book *book, int s)
{
    naive_seq *seq = &book->seq[s];
    for (int i = 0; i < seq->count; i++) {
        const naive_block *block = &book->block[seq->blocks[i]];
        if (block->kind == NAIVE_DEAD) {
            naive_truncate(book, s, (uint32_t)i * book->config.block_tokens);
            return true;
        }
        if (block->place[DEVICE] == NAIVE_ARRIVING)
            return false;
    }
    return true;
}

void naive_fork(naive_book *book, int s, int child)
{
    book->seq[child] = book->seq[s];
}

void naive_truncate(naive_book *book, int s, uint32_t length)
{
    naive_seq *seq = &book->seq[s];
    shorten(book, s, (int)blocks_of(book, length));
    seq->length = length;
    seq->matched = seq->matched < length ? seq->matched : length;
}

void naive_close(naive_book *book, int s)
{
    touch_host(book, book->seq[s].blocks, book->seq[s].count);
    shorten(book, s, 0);
    book->seq[s].open = false;
    domain_left(book, book->seq[s].domain);
}

/* ---- steps --------------------------------------------------------------------------------------------------- */

bool naive_reserve(naive_book *book, int s, uint32_t count, uint32_t *moving)
{
    naive_seq *seq = &book->seq[s];
    const uint32_t size = book->config.block_tokens, part = seq->length % size;
    int last = seq->count > 0 ? seq->blocks[seq->count - 1] : NAIVE_NONE;
    bool copy = part > 0 && (book->block[last].kind != NAIVE_OPEN || naive_refs(book, last) > 1);
    uint32_t need = blocks_of(book, seq->length + count) - (uint32_t)seq->count + copy;
    bool full = need > 0 && need + kept_free(book, s) > naive_free_slots(book, DEVICE) + cached_count(book);
    int fresh[NAIVE_LENGTH + 1], taken = 0;
    while (!full && taken < (int)need) {
        full = !make_room(book, DEVICE, NAIVE_NONE);
        if (!full)
            fresh[taken++] = new_block(book);
    }
    if (full) {
        while (taken > 0)
            book->block[fresh[--taken]].kind = NAIVE_GONE;
        *moving = moving_count(book);
        return false;
    }

    seq->kept = seq->count;
    seq->pending = count;
    if (copy) {
        memcpy(book->block[fresh[0]].tokens, book->block[last].tokens, part * sizeof(int32_t));
        seq->source = last;
        seq->blocks[seq->count - 1] = fresh[0];
        book->planned[book->plans++] = fresh[0];
        book->stats.copies_on_write++;
    }
    for (int i = copy; i < taken; i++)
        seq->blocks[seq->count++] = fresh[i];
    return true;
}

void naive_name(naive_book *book, int s, const int32_t *tokens)
{
    const naive_seq *seq = &book->seq[s];
    for (uint32_t i = 0; i < seq->pending; i++) {
        uint32_t at = seq->length + i, size = book->config.block_tokens;
        book->block[seq->blocks[at / size]].tokens[at % size] = tokens[i];
    }
}

bool naive_offload(naive_book *book, const int *path, int count)
{
    int b = path[count - 1], parent = book->block[b].parent;
    if (naive_in_flight(book, b, DEVICE))
        return false;
    if (!make_room(book, HOST, parent)) {
        if (parent == NAIVE_NONE || book->order[HOST][0] != parent)
            return false;
        touch_host(book, path, count - 1);
        if (!make_room(book, HOST, parent))
            return false;
    }
    book->block[b].place[HOST] = NAIVE_ARRIVING;
    enter_order(book, HOST, b, parent == NAIVE_NONE ? book->ordered[HOST] : place_in_order(book, HOST, parent));
    book->move[book->moves++] = (naive_move){.type = QUIRE__MOVE_OFFLOAD, .side = {b, b}};
    book->planned[book->plans++] = b;
    return true;
}

static void seal(naive_book *book, int s, int at)
{
    naive_seq *seq = &book->seq[s];
    int ours = seq->blocks[at], parent = at == 0 ? NAIVE_NONE : seq->blocks[at - 1];
    naive_block *block = &book->block[ours];
    int twin = child_with(book, seq->domain, parent, block->tokens);
    if (twin == NAIVE_NONE) {
        block->kind = NAIVE_SEALED;
        block->parent = parent;
        block->domain = seq->domain;
        block->born = ++book->clock;
        book->stats.blocks_sealed++;
        event(book, QUIRE_EVENT_STORED, DEVICE, ours);
        return;
    }
    leave_order(book, DEVICE, twin);
    if (book->block[twin].place[DEVICE] == NAIVE_RESIDENT) {
        book->stats.blocks_deduplicated++;
    } else {
        vacate(book, twin, DEVICE);
        book->block[twin].place[DEVICE] = NAIVE_RESIDENT;
        book->block[twin].slot[DEVICE] = block->slot[DEVICE];
        book->stats.blocks_sealed++;
        event(book, QUIRE_EVENT_STORED, DEVICE, twin);
    }
    block->kind = NAIVE_GONE;
    seq->blocks[at] = twin;
}

void naive_commit(naive_book *book, int s)
{
    naive_seq *seq = &book->seq[s];
    uint32_t size = book->config.block_tokens, before = seq->length / size;
    seq->length += seq->pending;
    book->stats.computed_tokens += seq->pending;
    seq->pending = 0;
    uint32_t full = seq->length / size, most = 2 * (full - before);
    for (uint32_t i = before; i < full; i++)
        seal(book, s, (int)i);
    for (uint32_t i = 0; i < full && most > 0 && book->config.offload == QUIRE_OFFLOAD_WRITE_THROUGH && book->config.host_slots > 0; i++) {
        if (book->block[seq->blocks[i]].place[HOST] != NAIVE_NOWHERE)
            continue;
        if (!naive_offload(book, seq->blocks, (int)i + 1))
            break;
        most--;
    }
    int source = seq->source;
    seq->source = NAIVE_NONE;
    if (source != NAIVE_NONE)
        let_go(book, source);
}

void naive_cancel(naive_book *book, int s)
{
    naive_seq *seq = &book->seq[s];
    seq->pending = 0;
    shorten(book, s, seq->kept);
    if (seq->source == NAIVE_NONE)
        return;
    int copy = seq->blocks[seq->count - 1];
    seq->blocks[seq->count - 1] = seq->source;
    seq->source = NAIVE_NONE;
    let_go(book, copy);
}

/* ---- moves, the whole ---------------------------------------------------------------------------------------- */

void naive_complete(naive_book *book, int index, bool ok)
{
    naive_move move = book->move[index];
    int to = move.type == QUIRE__MOVE_OFFLOAD ? HOST : DEVICE;
    int written = move.side[to], source = move.side[!to];
    book->moves--;
    memmove(&book->move[index], &book->move[index + 1], sizeof(move) * (size_t)(book->moves - index));

    if (written == NAIVE_NONE) {
        if (!ok && to == DEVICE && source != NAIVE_NONE)
            drop_host(book, source);
        return;
    }
    naive_block *block = &book->block[written];
    if (block->kind == NAIVE_DEAD) {
        block->place[to] = NAIVE_RESIDENT; /* no move has its slot any more */
        return;
    }
    if (ok) {
        block->place[to] = NAIVE_RESIDENT;
        event(book, QUIRE_EVENT_STORED, to, written);
    } else if (to == HOST) {
        drop_host(book, written);
    } else {
        drop_all(book, written);
        if (block->kind == NAIVE_DEAD)
            block->place[to] = NAIVE_RESIDENT;
    }
}

void naive_expire(naive_book *book, int index)
{
    const naive_move *move = &book->move[index];
    int to = move->type == QUIRE__MOVE_OFFLOAD ? HOST : DEVICE;
    if (move->side[to] == NAIVE_NONE || book->block[move->side[to]].kind == NAIVE_DEAD)
        return;
    if (to == HOST)
        drop_host(book, move->side[to]);
    else
        drop_all(book, move->side[to]);
}

void naive_clear(naive_book *book)
{
    for (int b = 0; b < NAIVE_BLOCKS; b++) {
        if (book->block[b].kind == NAIVE_SEALED && naive_refs(book, b) == 0)
            drop_all(book, b);
    }
}

void naive_stats(const naive_book *book, quire_stats *stats)
{
    *stats = book->stats;
    stats->device_total = book->config.device_slots;
    stats->device_free = naive_free_slots(book, DEVICE);
    stats->device_moving = orphans(book, DEVICE);
    stats->host_total = book->config.host_slots;
    stats->host_free = naive_free_slots(book, HOST);
    stats->host_moving = orphans(book, HOST);
    stats->domains = domain_count(book);
    for (int b = 0; b < NAIVE_BLOCKS; b++) {
        const naive_block *block = &book->block[b];
        if (block->kind == NAIVE_GONE)
            continue;
        if (block->place[HOST] != NAIVE_NOWHERE)
            *(naive_in_flight(book, b, HOST) ? &stats->host_moving : &stats->host_cached) += 1;
        if (block->place[DEVICE] == NAIVE_NOWHERE)
            continue;
        bool held = naive_refs(book, b) > 0, waits = block->place[DEVICE] == NAIVE_ARRIVING;
        if (block->kind == NAIVE_OPEN)
            stats->device_open++;
        else if (waits || (!held && naive_in_flight(book, b, DEVICE)))
            stats->device_moving++;
        else if (held)
            stats->device_used++;
        else
            stats->device_cached++;
    }
    for (int s = 0; s < NAIVE_SEQUENCES; s++)
        stats->sequences += book->seq[s].open;
}
