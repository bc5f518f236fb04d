/* The deciding half in lockstep with a naive model (support/naive_book.h), over random operations: every result, move,
 * event and statistic is the model's, every invariant holds, and, with the moves carried out at random times, every
 * byte that a sequence would read is the byte that was written for that token. */
#include "support/testing.h"

#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "support/naive_book.h"

enum { DEVICE = QUIRE_TIER_DEVICE, HOST = QUIRE_TIER_HOST };
enum { SLOTS = 128, PROMPTS = 5, LONGEST = NAIVE_LENGTH * NAIVE_TOKENS, DOMAIN_CHOICES = 5 };

typedef struct setting {
    uint32_t block_tokens, device_slots, host_slots, max_sequences, max_blocks, max_domains, watermark, alphabet;
    quire_offload offload;
} setting;

/* What the engine knows of a sequence. */
typedef struct reader {
    int32_t tokens[LONGEST];
    uint64_t bytes[LONGEST]; /* the KV of each token: a number that depends on the whole prefix and the domain */
    int32_t table[NAIVE_LENGTH]; /* kept up to date by deltas */
    bool unnamed;
} reader;

typedef enum phase { IDLE, ADDING, SUBMITTED } phase;

typedef struct world {
    const setting *set;
    uint64_t random, step;
    quire__book *book;
    naive_book naive;
    quire__plan plan;
    reader reader[NAIVE_SEQUENCES];
    phase phase;
    bool in_step[NAIVE_SEQUENCES];
    quire__move copy[NAIVE_SEQUENCES]; /* type 0: none is waiting for the submit */
    quire__move flight[NAIVE_MOVES];   /* beside naive.move */
    bool carried_out[NAIVE_MOVES], expired[NAIVE_MOVES];
    uint64_t memory[2][SLOTS][NAIVE_TOKENS];
    uint64_t last_use[SLOTS]; /* the last step that had the slot in a table */
    int32_t prompt[PROMPTS][LONGEST];
    uint64_t events, operations;
    uint64_t seen_full, seen_moving, seen_failed, seen_lost, seen_offloads; /* that the interesting things happened */
} world;

static uint32_t below(world *w, uint64_t bound)
{
    return (uint32_t)(quire__random(&w->random) % bound);
}

static uint64_t kv(uint64_t before, int32_t token)
{
    uint64_t state = before * 31 + (uint64_t)token + 7;
    return quire__random(&state);
}

static uint64_t kv_of_domain(uint64_t domain)
{
    return domain + 1;
}

static uint32_t most_tokens(const world *w)
{
    return w->set->max_blocks * w->set->block_tokens;
}

static uint32_t longest_prompt(const world *w)
{
    uint32_t arena = w->set->device_slots * w->set->block_tokens;
    return arena < most_tokens(w) ? arena : most_tokens(w);
}

static void garble(world *w, int tier, uint32_t slot, uint32_t from)
{
    for (uint32_t i = from; i < w->set->block_tokens; i++)
        w->memory[tier][slot][i] = quire__random(&w->random);
}

/* ---- what must agree ----------------------------------------------------------------------------------------- */

static void expect_ok(quire_status status)
{
    if (status != QUIRE_OK)
        fail_msg("%s: %s", quire_status_name(status), quire_error_text());
}

static void read_table(world *w, int s)
{
    uint32_t blocks, changed;
    const int32_t *table = quire__book_seq_table(w->book, (uint32_t)s, &blocks, &changed, true);
    assert_int_equal(blocks, w->naive.seq[s].count);
    for (uint32_t i = changed; i < blocks; i++)
        w->reader[s].table[i] = table[i];
    assert_memory_equal(w->reader[s].table, table, blocks * sizeof(*table));
}

/* Every event is the model's, in its order (`ordered`) or in any. */
static void check_events(world *w, bool ordered)
{
    static quire_event events[NAIVE_EVENTS];
    naive_book *naive = &w->naive;
    size_t count = quire__book_events(w->book, events, NAIVE_EVENTS);
    assert_int_equal(count, naive->events);
    for (size_t i = 0; i < count; i++) {
        const quire_event *got = &events[i];
        size_t at = ordered ? i : 0;
        while (!ordered && at < count && !(naive->event[at].type == got->type && naive->event[at].tier == got->tier &&
                                           naive->event[at].handle == got->block))
            at++;
        assert_true(at < count);
        naive_event *expected = &naive->event[at];
        assert_int_equal(got->number, ++w->events);
        assert_int_equal(got->type, expected->type);
        assert_int_equal(got->tier, expected->tier);
        assert_int_equal(got->domain, expected->domain);
        assert_int_equal(got->first_token, expected->first_token);
        if (got->type == QUIRE_EVENT_STORED) {
            naive_block *block = &naive->block[expected->block];
            int above = expected->above;
            if (!expected->handle)
                block->handle = got->block;
            assert_int_equal(got->block, block->handle);
            assert_int_equal(got->parent, above == NAIVE_NONE ? 0 : naive->block[above].handle);
        } else {
            assert_int_equal(got->block, expected->handle);
            assert_int_equal(got->parent, expected->parent);
        }
        if (!ordered)
            expected->handle = 0; /* used up: no event has this handle */
    }
    naive->events = 0;
}

/* The moves that a call asked for are the model's; takes them in. */
static void take_moves(world *w, quire__move_type type)
{
    naive_book *naive = &w->naive;
    assert_int_equal(w->plan.count, naive->plans);
    int first = naive->moves - naive->plans;
    for (int i = 0; i < naive->plans; i++) {
        const quire__move *move = &w->plan.moves[i];
        naive_block *block = &naive->block[naive->planned[i]];
        assert_int_equal(move->type, type);
        if (type == QUIRE__MOVE_OFFLOAD) {
            assert_int_equal(move->source, block->slot[DEVICE]);
            assert_true(move->ticket >= w->last_use[move->source] && move->ticket <= w->step);
            assert_true(w->set->offload != QUIRE_OFFLOAD_WRITE_THROUGH || move->ticket == w->step);
            w->seen_offloads++;
            block->slot[HOST] = move->destination;
            garble(w, HOST, move->destination, 0);
        } else {
            assert_int_equal(move->source, block->slot[HOST]);
            assert_true(move->ticket >= w->last_use[move->destination] && move->ticket <= w->step);
            block->slot[DEVICE] = move->destination;
            garble(w, DEVICE, move->destination, 0);
        }
        w->flight[first + i] = *move;
        w->carried_out[first + i] = w->expired[first + i] = false;
    }
    w->plan.count = 0;
    naive->plans = 0;
}

static void check_stats(world *w)
{
    quire_stats got = {0}, expected = {0};
    naive_stats(&w->naive, &expected);
    quire__book_stats(w->book, &got);
    got.steps = 0;
    if (memcmp(&got, &expected, sizeof(got)) == 0)
        return;
    const uint64_t *a = (const uint64_t *)&got, *b = (const uint64_t *)&expected;
    for (size_t i = 0; i < sizeof(got) / sizeof(*a); i++) {
        if (a[i] != b[i])
            fail_msg("statistic %zu of quire_stats: %llu, the model says %llu", i, (unsigned long long)a[i],
                     (unsigned long long)b[i]);
    }
}

static void own_slot(bool *taken, uint32_t slot)
{
    assert_true(slot < SLOTS && !taken[slot]);
    taken[slot] = true;
}

/* No slot has two owners, in the model's eyes, with the slots that the book named. */
static void check_slots(const world *w, int tier)
{
    bool taken[SLOTS] = {false};
    for (int b = 0; b < NAIVE_BLOCKS; b++) {
        const naive_block *block = &w->naive.block[b];
        if (block->kind != NAIVE_GONE && block->place[tier] != NAIVE_NOWHERE)
            own_slot(taken, block->slot[tier]);
    }
    for (int i = 0; i < w->naive.moves; i++) {
        const quire__move *move = &w->flight[i];
        bool source = (move->type == QUIRE__MOVE_OFFLOAD) == (tier == DEVICE);
        if (w->naive.move[i].side[tier] == NAIVE_NONE)
            own_slot(taken, source ? move->source : move->destination);
    }
}

static uint64_t bytes_of_block(const world *w, int b, uint64_t *bytes)
{
    const naive_block *block = &w->naive.block[b];
    uint64_t at = block->parent == NAIVE_NONE ? kv_of_domain(block->domain) : bytes_of_block(w, block->parent, bytes);
    for (uint32_t i = 0; i < w->set->block_tokens; i++)
        bytes[i] = at = kv(at, block->tokens[i]);
    return at;
}

static void check_blocks(const world *w)
{
    for (int b = 0; b < NAIVE_BLOCKS; b++) {
        const naive_block *block = &w->naive.block[b];
        uint64_t bytes[NAIVE_TOKENS];
        int32_t tokens[NAIVE_TOKENS];
        if (block->kind == NAIVE_GONE && block->handle)
            assert_int_equal(quire__book_block_tokens(w->book, block->handle, tokens), QUIRE_ESTALE);
        if (block->kind != NAIVE_SEALED)
            continue;
        expect_ok(quire__book_block_tokens(w->book, block->handle, tokens));
        assert_memory_equal(tokens, block->tokens, w->set->block_tokens * sizeof(*tokens));
        bytes_of_block(w, b, bytes);
        for (int tier = 0; tier < 2; tier++) {
            if (block->place[tier] == NAIVE_RESIDENT)
                assert_memory_equal(w->memory[tier][block->slot[tier]], bytes, w->set->block_tokens * sizeof(*bytes));
        }
    }
}

/* What attention would read of a ready sequence. */
static void check_reader(const world *w, int s)
{
    const naive_seq *seq = &w->naive.seq[s];
    const uint32_t size = w->set->block_tokens;
    int32_t tokens[LONGEST];
    quire__book_seq_tokens(w->book, (uint32_t)s, 0, seq->length, tokens);
    assert_memory_equal(tokens, w->reader[s].tokens, seq->length * sizeof(*tokens));
    for (int i = 0; i < seq->count; i++)
        assert_int_equal(w->reader[s].table[i], w->naive.block[seq->blocks[i]].slot[DEVICE]);
    for (uint32_t i = 0; i < seq->length; i++)
        assert_int_equal(w->memory[DEVICE][w->reader[s].table[i / size]][i % size], w->reader[s].bytes[i]);
}

static void check_sequence(world *w, int s)
{
    const naive_seq *seq = &w->naive.seq[s];
    uint32_t before = seq->length;
    bool ready = quire__book_seq_ready(w->book, (uint32_t)s);
    assert_int_equal(ready, naive_ready(&w->naive, s));
    w->seen_lost += seq->length < before;
    quire_seq_info info;
    quire__book_seq_get(w->book, (uint32_t)s, &info);
    assert_int_equal(info.length, seq->length);
    assert_int_equal(info.computed, seq->length - seq->matched);
    assert_int_equal(info.blocks, seq->count);
    assert_int_equal(info.domain, seq->domain);
    assert_int_equal(info.ready, ready);
    read_table(w, s);
    if (ready && (w->phase != ADDING || w->copy[s].type == 0))
        check_reader(w, s);
}

static void check_everything(world *w)
{
    for (int s = 0; s < NAIVE_SEQUENCES; s++) {
        if (w->naive.seq[s].open)
            check_sequence(w, s);
    }
    expect_ok(quire__book_check(w->book));
    check_slots(w, DEVICE);
    check_slots(w, HOST);
    check_blocks(w);
}

/* ---- prompts ------------------------------------------------------------------------------------------------- */

static void scramble(world *w, int32_t *tokens, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++)
        tokens[i] = (int32_t)below(w, w->set->alphabet);
}

/* A prompt that shares a prefix with others. */
static uint32_t make_prompt(world *w, int32_t *tokens)
{
    uint32_t longest = longest_prompt(w), count = below(w, 3) ? below(w, longest + 1) : longest;
    memcpy(tokens, w->prompt[below(w, PROMPTS)], longest * sizeof(*tokens));
    if (below(w, 8) == 0)
        scramble(w, tokens, below(w, longest), longest);
    if (below(w, 50) == 0)
        memcpy(w->prompt[below(w, PROMPTS)], tokens, longest * sizeof(*tokens));
    return count;
}

static void append(world *w, int s, uint32_t at, const int32_t *tokens, uint32_t count)
{
    reader *r = &w->reader[s];
    uint64_t before = at == 0 ? kv_of_domain(w->naive.seq[s].domain) : r->bytes[at - 1];
    for (uint32_t i = 0; i < count; i++) {
        r->tokens[at + i] = tokens[i];
        r->bytes[at + i] = before = kv(before, tokens[i]);
    }
}

/* ---- operations ---------------------------------------------------------------------------------------------- */

typedef enum wish { ANY, EMPTY, OUT_OF_STEP, IN_STEP } wish;

/* An open sequence, one that the operation can do something with where there is one. */
static int pick(world *w, wish for_what)
{
    int found = NAIVE_NONE, s = (int)below(w, NAIVE_SEQUENCES);
    for (int i = 0; i < NAIVE_SEQUENCES; i++, s = (s + 1) % NAIVE_SEQUENCES) {
        const naive_seq *seq = &w->naive.seq[s];
        if (!seq->open)
            continue;
        found = s;
        if (for_what == ANY || (for_what == EMPTY && seq->length + seq->pending == 0) ||
            (for_what == OUT_OF_STEP && seq->pending == 0) || (for_what == IN_STEP && seq->pending > 0))
            break;
    }
    return found;
}

static void op_open(world *w)
{
    uint64_t domain = below(w, DOMAIN_CHOICES) * UINT64_C(1000003);
    uint32_t seq = 0;
    bool expected = naive_can_open(&w->naive, domain);
    quire_status status = quire__book_seq_open(w->book, domain, &seq);
    assert_int_equal(status, expected ? QUIRE_OK : QUIRE_EFULL);
    if (!expected)
        return;
    assert_false(w->naive.seq[seq].open);
    naive_seq_open(&w->naive, (int)seq, domain);
    w->copy[seq].type = 0;
    w->in_step[seq] = false;
}

static void check_hit(const quire_hit *got, const quire_hit *expected)
{
    assert_int_equal(got->tokens, expected->tokens);
    assert_int_equal(got->device, expected->device);
    assert_int_equal(got->host, expected->host);
    assert_int_equal(got->partial, expected->partial);
    assert_int_equal(got->ready, expected->ready);
}

static void op_match(world *w, int s)
{
    int32_t tokens[LONGEST + 1];
    quire_hit got = {0}, expected = {0};
    uint32_t count = make_prompt(w, tokens);
    if (w->naive.seq[s].length > 0 || w->naive.seq[s].pending > 0) {
        assert_int_equal(quire__book_seq_match(w->book, (uint32_t)s, tokens, count, &w->plan, &got), QUIRE_ESTATE);
        return;
    }
    if (below(w, 100) == 0) {
        assert_int_equal(quire__book_seq_match(w->book, (uint32_t)s, tokens, (size_t)longest_prompt(w) + 1, &w->plan,
                                               &got), QUIRE_ERANGE);
        return;
    }
    naive_match(&w->naive, s, tokens, count, &expected);
    expect_ok(quire__book_seq_match(w->book, (uint32_t)s, tokens, count, &w->plan, &got));
    check_hit(&got, &expected);
    take_moves(w, QUIRE__MOVE_RESTORE);
    append(w, s, 0, tokens, (uint32_t)got.tokens);
}

static void op_probe(world *w)
{
    int32_t tokens[LONGEST + 1];
    uint64_t domain = below(w, DOMAIN_CHOICES) * UINT64_C(1000003);
    uint32_t count = make_prompt(w, tokens);
    quire_hit got = {0}, expected = {0};
    naive_probe(&w->naive, domain, tokens, count, &expected);
    expect_ok(quire__book_probe(w->book, domain, tokens, count, &got));
    check_hit(&got, &expected);
}

static void op_fork(world *w, int s)
{
    uint32_t child = 0, open = 0;
    for (int i = 0; i < NAIVE_SEQUENCES; i++)
        open += w->naive.seq[i].open;
    quire_status status = quire__book_seq_fork(w->book, (uint32_t)s, &child);
    if (w->naive.seq[s].pending > 0 || open == w->set->max_sequences) {
        assert_int_equal(status, w->naive.seq[s].pending > 0 ? QUIRE_ESTATE : QUIRE_EFULL);
        return;
    }
    expect_ok(status);
    naive_fork(&w->naive, s, (int)child);
    memcpy(w->reader[child].tokens, w->reader[s].tokens, sizeof(w->reader[s].tokens));
    memcpy(w->reader[child].bytes, w->reader[s].bytes, sizeof(w->reader[s].bytes));
    w->copy[child].type = 0;
    w->in_step[child] = false;
}

static void op_truncate(world *w, int s)
{
    uint32_t length = below(w, w->naive.seq[s].length + 2);
    quire_status status = quire__book_seq_truncate(w->book, (uint32_t)s, length);
    if (w->naive.seq[s].pending > 0) {
        assert_int_equal(status, QUIRE_ESTATE);
        return;
    }
    naive_ready(&w->naive, s);
    bool fits = length <= w->naive.seq[s].length;
    assert_int_equal(status, fits ? QUIRE_OK : QUIRE_EINVAL);
    if (fits)
        naive_truncate(&w->naive, s, length);
}

static void op_close(world *w, int s)
{
    if (w->naive.seq[s].pending > 0)
        return;
    naive_close(&w->naive, s);
    quire__book_seq_close(w->book, (uint32_t)s);
}

/* The table's new entries tell which slots the new blocks have. */
static void learn_slots(world *w, int s)
{
    naive_seq *seq = &w->naive.seq[s];
    read_table(w, s);
    int first = seq->source == NAIVE_NONE ? seq->kept : seq->kept - 1;
    for (int i = first; i < seq->count; i++)
        w->naive.block[seq->blocks[i]].slot[DEVICE] = (uint32_t)w->reader[s].table[i];
    for (int i = 0; i < seq->count; i++)
        w->last_use[w->reader[s].table[i]] = w->step;
}

static void op_reserve(world *w, int s)
{
    naive_seq *seq = &w->naive.seq[s];
    int32_t tokens[2 * LONGEST] = {0};
    if (w->phase == SUBMITTED && !w->in_step[s])
        return; /* the caller's business: its kernels have been enqueued */
    uint32_t count = below(w, 3) ? 1 + below(w, 3) : 1 + below(w, 3 * w->set->block_tokens), moving = 77, waits = 77;
    make_prompt(w, tokens);
    memmove(tokens, tokens + seq->length, (longest_prompt(w) - seq->length) * sizeof(*tokens));
    bool named = below(w, 4) > 0;
    count = count <= longest_prompt(w) - seq->length || below(w, 8) == 0 ? count : 1;
    const int32_t *given = named ? tokens : NULL;
    quire_status status = quire__book_reserve(w->book, (uint32_t)s, given, count, &w->plan, &moving);
    if (w->phase != ADDING || w->in_step[s]) {
        assert_int_equal(status, QUIRE_ESTATE);
        return;
    }
    if (!naive_ready(&w->naive, s)) {
        assert_int_equal(status, QUIRE_EAGAIN);
        return;
    }
    if (seq->length + count > longest_prompt(w)) {
        assert_int_equal(status, QUIRE_ERANGE);
        return;
    }
    bool expected = naive_reserve(&w->naive, s, count, &waits);
    assert_int_equal(status, expected ? QUIRE_OK : QUIRE_EFULL);
    if (!expected) {
        assert_int_equal(moving, waits);
        w->seen_full++;
        w->seen_moving += moving > 0;
        return;
    }
    w->in_step[s] = true;
    w->reader[s].unnamed = !named;
    append(w, s, seq->length, tokens, count);
    learn_slots(w, s);
    assert_int_equal(w->plan.count, seq->source != NAIVE_NONE);
    if (seq->source != NAIVE_NONE) {
        w->copy[s] = w->plan.moves[0];
        assert_int_equal(w->copy[s].type, QUIRE__MOVE_COPY);
        assert_int_equal(w->copy[s].source, w->naive.block[seq->source].slot[DEVICE]);
        assert_int_equal(w->copy[s].destination, w->reader[s].table[seq->kept - 1]);
        garble(w, DEVICE, w->copy[s].destination, 0);
    }
    if (named)
        naive_name(&w->naive, s, tokens);
    w->plan.count = 0;
    w->naive.plans = 0;
}

/* The engine's kernels write the KV of the new tokens. */
static void write_tokens(world *w, int s, bool right)
{
    const naive_seq *seq = &w->naive.seq[s];
    const uint32_t size = w->set->block_tokens;
    for (uint32_t i = seq->length; i < seq->length + seq->pending; i++)
        w->memory[DEVICE][w->reader[s].table[i / size]][i % size] = right ? w->reader[s].bytes[i] : 0;
}

static void op_submit(world *w)
{
    for (int s = 0; s < NAIVE_SEQUENCES; s++) {
        if (w->in_step[s] && w->copy[s].type != 0)
            memcpy(w->memory[DEVICE][w->copy[s].destination], w->memory[DEVICE][w->copy[s].source],
                   w->set->block_tokens * sizeof(uint64_t));
        w->copy[s].type = 0;
    }
    w->phase = SUBMITTED;
}

static void op_settle(world *w, int s)
{
    naive_seq *seq = &w->naive.seq[s];
    if (!w->in_step[s])
        return;
    bool commit = w->phase == SUBMITTED && below(w, 8) > 0;
    assert_int_equal(quire__book_named(w->book, (uint32_t)s), !w->reader[s].unnamed);
    if (w->reader[s].unnamed && (commit || below(w, 2))) {
        const int32_t *names = w->reader[s].tokens + seq->length;
        assert_int_equal(quire__book_name(w->book, (uint32_t)s, names, seq->pending + 1), QUIRE_EINVAL);
        expect_ok(quire__book_name(w->book, (uint32_t)s, names, seq->pending));
        assert_int_equal(quire__book_name(w->book, (uint32_t)s, names, seq->pending), QUIRE_ESTATE);
        naive_name(&w->naive, s, names);
    }
    if (w->phase == SUBMITTED)
        write_tokens(w, s, commit);
    w->in_step[s] = false;
    w->copy[s].type = 0;
    if (commit) {
        naive_commit(&w->naive, s);
        quire__book_commit(w->book, (uint32_t)s, &w->plan);
        take_moves(w, QUIRE__MOVE_OFFLOAD);
    } else {
        naive_cancel(&w->naive, s);
        quire__book_cancel(w->book, (uint32_t)s);
    }
}

static void op_step(world *w)
{
    if (w->phase == IDLE) {
        quire__book_step_begin(w->book, ++w->step);
        w->naive.step = w->step;
        w->phase = ADDING;
    } else if (w->phase == ADDING) {
        op_submit(w);
    } else {
        for (int s = 0; s < NAIVE_SEQUENCES; s++) {
            if (w->in_step[s])
                return;
        }
        quire__book_step_end(w->book);
        w->phase = IDLE;
        if (below(w, 4) == 0)
            return; /* the last call's offloads are under way still */
        bool restoring = below(w, 4) == 0;
        naive_offload_ahead(&w->naive, restoring);
        quire__book_offload_ahead(w->book, restoring, &w->plan);
        take_moves(w, QUIRE__MOVE_OFFLOAD);
    }
}

static void carry_out(world *w, int i)
{
    const quire__move *move = &w->flight[i];
    int from = move->type == QUIRE__MOVE_OFFLOAD ? DEVICE : HOST;
    if (!w->carried_out[i])
        memcpy(w->memory[!from][move->destination], w->memory[from][move->source],
               w->set->block_tokens * sizeof(uint64_t));
    w->carried_out[i] = true;
}

static void op_move(world *w)
{
    if (w->naive.moves == 0)
        return;
    int i = (int)below(w, below(w, 2) ? 1 : (uint64_t)w->naive.moves);
    quire__move move = w->flight[i];
    if (below(w, 2)) {
        carry_out(w, i);
        return;
    }
    if (below(w, 16) == 0 && !w->expired[i]) {
        w->expired[i] = true;
        naive_expire(&w->naive, i);
        quire__book_expire(w->book, &move);
        return;
    }
    bool ok = below(w, move.type == QUIRE__MOVE_OFFLOAD ? 32 : 6) > 0;
    if (ok)
        carry_out(w, i);
    else
        garble(w, move.type == QUIRE__MOVE_OFFLOAD ? HOST : DEVICE, move.destination, 0);
    w->seen_failed += !ok;
    naive_complete(&w->naive, i, ok);
    size_t behind = (size_t)(w->naive.moves - i);
    memmove(&w->flight[i], &w->flight[i + 1], behind * sizeof(move));
    memmove(&w->carried_out[i], &w->carried_out[i + 1], behind * sizeof(bool));
    memmove(&w->expired[i], &w->expired[i + 1], behind * sizeof(bool));
    quire__book_complete(w->book, &move, ok);
}

/* The step goes on by a phase, or a sequence is added to it, or is committed or cancelled. */
static void op_step_on(world *w)
{
    int s = pick(w, below(w, 16) ? OUT_OF_STEP : ANY);
    uint64_t full = w->seen_full;
    if (w->phase == ADDING && below(w, 4) > 0)
        op_reserve(w, s);
    else if (w->phase != IDLE && below(w, 8) > 0)
        op_settle(w, pick(w, IN_STEP));
    if (w->phase != ADDING || below(w, 6) == 0)
        op_step(w);
    if (w->seen_full > full && below(w, 2))
        op_close(w, pick(w, OUT_OF_STEP)); /* as an engine preempts */
}

static void operate(world *w)
{
    int s = pick(w, ANY);
    uint32_t what = below(w, 1000);
    bool ordered = true;
    if (s == NAIVE_NONE || what < 60) {
        op_open(w);
    } else if (what < 150) {
        op_match(w, pick(w, below(w, 16) ? EMPTY : ANY));
    } else if (what < 180) {
        op_probe(w);
    } else if (what < 205) {
        op_fork(w, s);
    } else if (what < 225) {
        op_truncate(w, s);
    } else if (what < 275) {
        op_close(w, s);
    } else if (what < 750) {
        op_step_on(w);
    } else if (what < 950) {
        op_move(w);
    } else if (what < 999) {
        check_sequence(w, s);
    } else if (below(w, 4) == 0) {
        naive_clear(&w->naive);
        quire__book_clear(w->book);
        ordered = false;
    }
    check_events(w, ordered);
    check_stats(w);
    if (++w->operations % 8 == 0)
        check_everything(w);
}

/* ---- runs ---------------------------------------------------------------------------------------------------- */

static void open_world(world *w, const setting *set, uint64_t seed)
{
    memset(w, 0, sizeof(*w));
    w->set = set;
    w->random = seed;
    quire__book_config config = {
        .block_tokens = set->block_tokens,
        .device_slots = set->device_slots,
        .host_slots = set->host_slots,
        .max_sequences = set->max_sequences,
        .max_seq_tokens = most_tokens(w),
        .max_domains = set->max_domains,
        .watermark_blocks = set->watermark,
        .event_capacity = NAIVE_EVENTS,
        .hash_key = quire__random(&w->random),
        .policy = "lru",
        .offload = set->offload,
        .offload_low = set->device_slots / 3,
        .offload_high = set->device_slots / 2,
        .allocator = quire__allocator_default,
    };
    expect_ok(quire__book_open(&w->book, &config));
    expect_ok(quire__plan_open(&w->plan, &config.allocator, set->max_blocks + 4 + set->device_slots));
    naive_open(&w->naive, &config);
    for (int i = 0; i < PROMPTS; i++)
        scramble(w, w->prompt[i], 0, longest_prompt(w));
    /* Prompts that part at some token, so that the tree branches. */
    for (int i = 1; i < PROMPTS; i++)
        memcpy(w->prompt[i], w->prompt[below(w, (uint64_t)i)], below(w, longest_prompt(w)) * sizeof(int32_t));
}

/* Ends what is open and answers what is in flight: nothing must be left. */
static void close_world(world *w)
{
    for (int s = 0; s < NAIVE_SEQUENCES; s++) {
        if (w->in_step[s])
            quire__book_cancel(w->book, (uint32_t)s);
        if (w->naive.seq[s].open)
            quire__book_seq_close(w->book, (uint32_t)s);
    }
    for (int i = 0; i < w->naive.moves; i++)
        quire__book_complete(w->book, &w->flight[i], i % 2 == 0);
    quire__book_clear(w->book);
    expect_ok(quire__book_check(w->book));
    quire_stats stats = {0};
    quire__book_stats(w->book, &stats);
    assert_int_equal(stats.device_free, stats.device_total);
    assert_int_equal(stats.host_free, stats.host_total);
    assert_int_equal(stats.domains, 0);
    assert_int_equal(stats.sequences, 0);
    quire__plan_close(&w->plan, &quire__allocator_default);
    quire__book_close(w->book);
}

/*                                tokens device host seqs blocks domains watermark alphabet offload */
#define NONE QUIRE_OFFLOAD_NONE
#define THROUGH QUIRE_OFFLOAD_WRITE_THROUGH
#define BACK QUIRE_OFFLOAD_WRITE_BACK
static const setting settings[] = {{1, 8, 0, 4, 8, 3, 0, 2, THROUGH},      {1, 12, 6, 5, 10, 3, 1, 2, THROUGH},
                                   {2, 6, 4, 4, 6, 2, 0, 2, THROUGH},      {2, 10, 30, 6, 12, 3, 2, 2, THROUGH},
                                   {2, 16, 9, 8, 8, 4, 3, 3, NONE},    {4, 5, 3, 3, 5, 2, 0, 2, THROUGH},
                                   {4, 12, 40, 8, 14, 3, 1, 2, THROUGH},   {4, 24, 12, 12, 9, 3, 4, 2, THROUGH},
                                   {4, 40, 80, 16, 10, 5, 2, 2, THROUGH},  {16, 6, 10, 4, 6, 2, 1, 2, THROUGH},
                                   {16, 20, 16, 10, 8, 3, 0, 2, THROUGH},  {16, 2, 3, 3, 4, 2, 0, 2, THROUGH},
                                   {1, 1, 1, 2, 2, 1, 0, 2, THROUGH},      {8, 16, 48, 8, 16, 3, 2, 2, THROUGH},
                                   {1, 12, 40, 5, 10, 3, 1, 2, BACK},   {2, 16, 9, 8, 8, 4, 0, 3, BACK},
                                   {4, 24, 60, 12, 9, 3, 4, 2, BACK},   {4, 40, 20, 16, 10, 5, 2, 2, BACK}};
enum { SETTINGS = sizeof(settings) / sizeof(settings[0]) };

/* Operations in all, of all settings: a debug build checks everything after each of them, so it does fewer. */
#ifdef QUIRE_DEBUG
enum { OPERATIONS = 300000 };
#else
enum { OPERATIONS = 2500000 };
#endif
enum { ROUND = 5000 }; /* operations before everything is closed and opened anew */

static void the_book_decides_as_a_naive_model_does(void **state)
{
    (void)state;
    static world w;
    uint64_t seed = test_seed("book_model", 20251), done = 0, back = 0, missed = 0, full = 0, moving = 0, failed = 0, lost = 0;
    for (uint64_t round = 0; done < OPERATIONS; round++, done += ROUND) {
        open_world(&w, &settings[round % SETTINGS], seed + round * 7919);
        for (int i = 0; i < ROUND; i++)
            operate(&w);
        close_world(&w);
        full += w.seen_full;
        moving += w.seen_moving;
        failed += w.seen_failed;
        lost += w.seen_lost;
        back += w.set->offload == QUIRE_OFFLOAD_WRITE_BACK ? w.seen_offloads : 0;
        missed += w.naive.stats.offloads_missed;
    }
    print_message("%llu operations; full %llu times (%llu with moves in flight), %llu failed moves, %llu sequences "
                  "shortened by one\n",
                  (unsigned long long)done, (unsigned long long)full, (unsigned long long)moving,
                  (unsigned long long)failed, (unsigned long long)lost);
    print_message("write-back: %llu offloads, %llu blocks went without\n", (unsigned long long)back,
                  (unsigned long long)missed);
    assert_true(back > 0 && missed > 0);
    assert_true(full > 0 && moving > 0 && failed > 0 && lost > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_book_decides_as_a_naive_model_does)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
