/* The deciding half, one promise a test; the host tier is test_book_tiers.c's, random behaviour test_book_model.c's. */
#include "support/desk.h"

/* ---- matching ------------------------------------------------------------------------------------------------ */

static void a_match_leaves_one_token_to_compute(void **state)
{
    (void)state;
    desk d;
    quire__book_config config = small_config(8, 0);
    open_desk(&d, &config);
    cache_text(&d, 0, text(1), 12);
    uint32_t seq = open_seq(&d, 0);
    quire_hit hit = match(&d, seq, text(1), 12);
    assert_int_equal(hit.tokens, 11);
    assert_int_equal(hit.partial, 3);
    assert_int_equal(hit.device, 11);
    assert_int_equal(hit.ready, 1);
    assert_int_equal(probe(&d, 0, text(1), 13).tokens, 12);
    assert_int_equal(probe(&d, 0, text(1), 1).tokens, 0);
    assert_int_equal(probe(&d, 0, NULL, 0).tokens, 0);
    close_desk(&d);
}

/* A look and a hold, with something in between. */
static quire_hit match_around(desk *d, const int32_t *tokens, size_t count, void (*between)(desk *d))
{
    uint32_t seq = open_seq(d, 0);
    quire__look look;
    quire_hit hit;
    assert_int_equal(quire__book_match_begin(d->book, seq, tokens, count), QUIRE_OK);
    look.departures = quire__book_departures(d->book);
    assert_true(quire__book_match_look(d->book, seq, tokens, count, &look));
    between(d);
    (void)quire__book_match_hold(d->book, seq, tokens, count, &look);
    quire__book_match_end(d->book, seq, tokens, count, &d->plan, &hit);
    quire__book_seq_close(d->book, seq);
    return hit;
}

static quire_hit probe_around(desk *d, const int32_t *tokens, size_t count, void (*between)(desk *d))
{
    quire__probe found;
    quire_hit hit;
    assert_int_equal(quire__book_probe_begin(d->book, 0, tokens, count, &found), QUIRE_OK);
    quire__book_probe_look(d->book, tokens, &found);
    between(d);
    quire__book_probe_end(d->book, tokens, &found, &hit);
    return hit;
}

static void cache_another(desk *d)
{
    cache_text(d, 0, text(2), 8);
}

/* The same nodes and slots, with other tokens. */
static void replace_all(desk *d)
{
    quire__book_clear(d->book);
    cache_text(d, 9, text(3), 20);
}

static void what_was_found_without_the_lock_counts_only_while_no_block_has_left(void **state)
{
    (void)state;
    desk d;
    quire__book_config config = small_config(8, 0);
    open_desk(&d, &config);
    cache_text(&d, 0, text(1), 12);
    assert_int_equal(match_around(&d, text(1), 13, cache_another).tokens, 12);
    assert_int_equal(probe_around(&d, text(1), 13, cache_another).tokens, 12);
    assert_int_equal(probe_around(&d, text(1), 13, replace_all).tokens, 0);
    quire__book_clear(d.book);
    cache_text(&d, 0, text(1), 12);
    assert_int_equal(match_around(&d, text(1), 13, replace_all).tokens, 0);
    assert_int_equal(quire__book_check(d.book), QUIRE_OK);
    close_desk(&d);
}

static void a_block_is_invisible_until_it_is_committed(void **state)
{
    (void)state;
    desk d;
    quire__book_config config = small_config(8, 0);
    open_desk(&d, &config);
    uint32_t seq = open_seq(&d, 0), moving;
    quire__book_step_begin(d.book, ++d.step);
    assert_int_equal(quire__book_reserve(d.book, seq, text(1), 8, &d.plan, &moving), QUIRE_OK);
    assert_int_equal(probe(&d, 0, text(1), 9).tokens, 0);
    quire__book_commit(d.book, seq, &d.plan);
    assert_int_equal(probe(&d, 0, text(1), 9).tokens, 8);
    quire__book_step_end(d.book);
    close_desk(&d);
}

static void a_prompt_that_parts_inside_a_block_shares_its_start_by_copy(void **state)
{
    (void)state;
    desk d;
    quire__book_config config = small_config(8, 0);
    open_desk(&d, &config);
    cache_text(&d, 0, text(1), 8);
    int32_t other[10];
    memcpy(other, text(1), sizeof(other));
    other[6] = 500;
    uint32_t seq = open_seq(&d, 0);
    quire_hit hit = match(&d, seq, other, 10);
    assert_int_equal(hit.tokens, 6);
    assert_int_equal(hit.partial, 2);
    int32_t shared = slot_of(&d, seq, 1);

    uint32_t moving;
    quire__book_step_begin(d.book, ++d.step);
    assert_int_equal(quire__book_reserve(d.book, seq, other + 6, 4, &d.plan, &moving), QUIRE_OK);
    assert_int_equal(d.plan.count, 1);
    assert_int_equal(d.plan.moves[0].type, QUIRE__MOVE_COPY);
    assert_int_equal(d.plan.moves[0].source, shared);
    assert_int_equal(d.plan.moves[0].destination, slot_of(&d, seq, 1));
    assert_int_not_equal(slot_of(&d, seq, 1), shared);
    quire__book_commit(d.book, seq, &d.plan);
    quire__book_step_end(d.book);
    assert_int_equal(probe(&d, 0, text(1), 9).tokens, 8); /* the source is as it was */
    assert_int_equal(probe(&d, 0, other, 10).tokens, 8);
    assert_int_equal(stats_of(&d).copies_on_write, 1);
    close_desk(&d);
}

static void domains_share_nothing(void **state)
{
    (void)state;
    desk d;
    quire__book_config config = small_config(8, 8);
    open_desk(&d, &config);
    cache_text(&d, 1, text(1), 8);
    assert_int_equal(probe(&d, 1, text(1), 9).tokens, 8);
    assert_int_equal(probe(&d, 2, text(1), 9).tokens, 0);
    uint32_t seq = open_seq(&d, 2);
    assert_int_equal(match(&d, seq, text(1), 9).tokens, 0);
    close_desk(&d);
}

static void a_probe_extends_no_lifetime(void **state)
{
    (void)state;
    desk d;
    quire__book_config config = small_config(4, 0);
    open_desk(&d, &config);
    cache_text(&d, 0, text(100), 8);
    cache_text(&d, 0, text(200), 8);
    assert_int_equal(probe(&d, 0, text(100), 9).tokens, 8);
    cache_text(&d, 0, text(300), 8);
    assert_int_equal(probe(&d, 0, text(100), 9).tokens, 0);
    assert_int_equal(probe(&d, 0, text(200), 9).tokens, 8);
    close_desk(&d);
}

static void what_a_match_used_is_evicted_last_and_leaves_before_roots(void **state)
{
    (void)state;
    desk d;
    quire__book_config config = small_config(6, 0);
    open_desk(&d, &config);
    cache_text(&d, 0, text(100), 12);
    cache_text(&d, 0, text(200), 12);
    uint32_t seq = open_seq(&d, 0);
    match(&d, seq, text(100), 13);
    quire__book_seq_close(d.book, seq);
    cache_text(&d, 0, text(300), 8);
    assert_int_equal(probe(&d, 0, text(100), 13).tokens, 12);
    assert_int_equal(probe(&d, 0, text(200), 13).tokens, 4); /* its root is still there */
    assert_int_equal(stats_of(&d).evictions_device, 2);
    close_desk(&d);
}

/* ---- sharing ------------------------------------------------------------------------------------------------- */

static void two_sequences_that_compute_the_same_block_end_up_with_one(void **state)
{
    (void)state;
    desk d;
    quire__book_config config = small_config(8, 0);
    open_desk(&d, &config);
    uint32_t one = open_seq(&d, 0), two = open_seq(&d, 0), moving;
    quire__book_step_begin(d.book, ++d.step);
    assert_int_equal(quire__book_reserve(d.book, one, text(1), 5, &d.plan, &moving), QUIRE_OK);
    assert_int_equal(quire__book_reserve(d.book, two, text(1), 6, &d.plan, &moving), QUIRE_OK);
    uint32_t blocks, changed;
    quire__book_seq_table(d.book, two, &blocks, &changed, true);
    quire__book_commit(d.book, one, &d.plan);
    quire__book_commit(d.book, two, &d.plan);
    quire__book_step_end(d.book);
    assert_int_equal(slot_of(&d, one, 0), slot_of(&d, two, 0));
    assert_int_not_equal(slot_of(&d, one, 1), slot_of(&d, two, 1));
    quire__book_seq_table(d.book, two, &blocks, &changed, false);
    assert_int_equal(changed, 0);
    quire_stats stats = stats_of(&d);
    assert_int_equal(stats.blocks_sealed, 1);
    assert_int_equal(stats.blocks_deduplicated, 1);
    assert_int_equal(stats.device_free, 5);
    close_desk(&d);
}

static void forks_share_until_one_writes_and_the_last_writes_in_place(void **state)
{
    (void)state;
    desk d;
    quire__book_config config = small_config(8, 0);
    open_desk(&d, &config);
    uint32_t parent = open_seq(&d, 0), child;
    add(&d, parent, text(1), 6);
    assert_int_equal(quire__book_seq_fork(d.book, parent, &child), QUIRE_OK);
    assert_int_equal(slot_of(&d, parent, 1), slot_of(&d, child, 1));
    assert_int_equal(stats_of(&d).device_free, 6);
    int32_t before = slot_of(&d, parent, 1);
    add(&d, child, text(50), 1);
    assert_int_equal(stats_of(&d).copies_on_write, 1);
    assert_int_equal(slot_of(&d, parent, 1), before);
    assert_int_not_equal(slot_of(&d, child, 1), before);
    add(&d, parent, text(60), 1);
    assert_int_equal(stats_of(&d).copies_on_write, 1);
    assert_int_equal(slot_of(&d, parent, 1), before);
    int32_t tokens[7];
    quire__book_seq_tokens(d.book, child, 0, 7, tokens);
    assert_memory_equal(tokens, text(1), 6 * sizeof(*tokens));
    assert_int_equal(tokens[6], 50);
    quire__book_seq_tokens(d.book, parent, 6, 1, tokens);
    assert_int_equal(tokens[0], 60);
    close_desk(&d);
}

static void a_truncated_sequence_copies_a_sealed_block_before_it_writes(void **state)
{
    (void)state;
    desk d;
    quire__book_config config = small_config(8, 0);
    open_desk(&d, &config);
    uint32_t seq = open_seq(&d, 0);
    add(&d, seq, text(1), 9);
    assert_int_equal(quire__book_seq_truncate(d.book, seq, 10), QUIRE_EINVAL);
    assert_int_equal(quire__book_seq_truncate(d.book, seq, 7), QUIRE_OK);
    quire_seq_info info;
    quire__book_seq_get(d.book, seq, &info);
    assert_int_equal(info.length, 7);
    assert_int_equal(info.blocks, 2);
    add(&d, seq, text(70), 1);
    assert_int_equal(stats_of(&d).copies_on_write, 1);
    assert_int_equal(probe(&d, 0, text(1), 9).tokens, 8); /* what was rolled back can still be found */
    close_desk(&d);
}

static void a_cancelled_step_leaves_every_sequence_as_before(void **state)
{
    (void)state;
    desk d;
    quire__book_config config = small_config(8, 0);
    open_desk(&d, &config);
    uint32_t parent = open_seq(&d, 0), child, moving;
    add(&d, parent, text(1), 6);
    assert_int_equal(quire__book_seq_fork(d.book, parent, &child), QUIRE_OK);
    int32_t before = slot_of(&d, child, 1);
    quire__book_step_begin(d.book, ++d.step);
    assert_int_equal(quire__book_reserve(d.book, child, NULL, 9, &d.plan, &moving), QUIRE_OK);
    assert_false(quire__book_named(d.book, child));
    assert_int_equal(quire__book_reserve(d.book, child, NULL, 1, &d.plan, &moving), QUIRE_ESTATE);
    assert_int_equal(quire__book_seq_fork(d.book, child, &moving), QUIRE_ESTATE);
    assert_int_equal(quire__book_seq_truncate(d.book, child, 0), QUIRE_ESTATE);
    quire__book_cancel(d.book, child);
    quire__book_step_end(d.book);
    assert_int_equal(slot_of(&d, child, 1), before);
    quire_seq_info info;
    quire__book_seq_get(d.book, child, &info);
    assert_int_equal(info.length, 6);
    assert_int_equal(info.blocks, 2);
    assert_int_equal(stats_of(&d).device_free, 6);
    close_desk(&d);
}

/* ---- limits -------------------------------------------------------------------------------------------------- */

static void a_full_arena_is_refused_with_the_numbers_and_changes_nothing(void **state)
{
    (void)state;
    desk d;
    quire__book_config config = small_config(4, 0);
    open_desk(&d, &config);
    uint32_t one = open_seq(&d, 0), two = open_seq(&d, 0), moving = 9;
    add(&d, one, text(1), 12);
    quire__book_step_begin(d.book, ++d.step);
    assert_int_equal(quire__book_reserve(d.book, two, text(100), 5, &d.plan, &moving), QUIRE_EFULL);
    assert_int_equal(moving, 0);
    assert_non_null(strstr(quire_error_text(), "2 blocks needed"));
    assert_non_null(strstr(quire_error_text(), "1 are free"));
    assert_non_null(strstr(quire_error_text(), "close or preempt"));
    assert_int_equal(stats_of(&d).device_free, 1);
    assert_int_equal(quire__book_reserve(d.book, two, text(100), 4, &d.plan, &moving), QUIRE_OK);
    quire__book_commit(d.book, two, &d.plan);
    quire__book_step_end(d.book);
    close_desk(&d);
}

static void a_sequence_that_could_never_fit_is_told_so(void **state)
{
    (void)state;
    desk d;
    quire__book_config config = small_config(4, 0);
    open_desk(&d, &config);
    uint32_t seq = open_seq(&d, 0), moving;
    quire_hit hit;
    assert_int_equal(quire__book_seq_match(d.book, seq, text(1), 17, &d.plan, &hit), QUIRE_ERANGE);
    assert_int_equal(quire__book_probe(d.book, 0, text(1), 17, &hit), QUIRE_ERANGE);
    assert_int_equal(quire__book_seq_match(d.book, seq, NULL, 3, &d.plan, &hit), QUIRE_EINVAL);
    quire__book_step_begin(d.book, ++d.step);
    assert_int_equal(quire__book_reserve(d.book, seq, text(1), 17, &d.plan, &moving), QUIRE_ERANGE);
    assert_int_equal(quire__book_reserve(d.book, seq, text(1), SIZE_MAX, &d.plan, &moving), QUIRE_ERANGE);
    assert_int_equal(quire__book_reserve(d.book, seq, text(1), 0, &d.plan, &moving), QUIRE_EINVAL);
    assert_int_equal(quire__book_reserve(d.book, seq, text(1), 16, &d.plan, &moving), QUIRE_OK);
    quire__book_commit(d.book, seq, &d.plan);
    quire__book_step_end(d.book);
    assert_int_equal(quire__book_reserve(d.book, seq, text(1), 1, &d.plan, &moving), QUIRE_ESTATE);
    close_desk(&d);
}

static void the_watermark_holds_newcomers_back_but_never_one_that_is_alone(void **state)
{
    (void)state;
    desk d;
    quire__book_config config = small_config(4, 0);
    config.watermark_blocks = 2;
    open_desk(&d, &config);
    uint32_t one = open_seq(&d, 0), two = open_seq(&d, 0), moving;
    add(&d, one, text(1), 4);
    quire__book_step_begin(d.book, ++d.step);
    assert_int_equal(quire__book_reserve(d.book, two, text(100), 8, &d.plan, &moving), QUIRE_EFULL);
    assert_int_equal(quire__book_reserve(d.book, two, text(100), 4, &d.plan, &moving), QUIRE_OK);
    quire__book_commit(d.book, two, &d.plan);
    quire__book_step_end(d.book);
    add(&d, one, text(5), 8); /* it runs already: the blocks that were kept are for it */
    quire__book_seq_close(d.book, one);
    quire__book_seq_close(d.book, two);
    one = open_seq(&d, 0);
    add(&d, one, text(200), 16);
    close_desk(&d);
}

static void a_prompt_as_long_as_the_arena_can_be_served_again_and_again(void **state)
{
    (void)state;
    desk d;
    quire__book_config config = small_config(4, 8);
    config.watermark_blocks = 2;
    open_desk(&d, &config);
    for (int i = 0; i < 4; i++) {
        if (i == 2)
            cache_text(&d, 0, text(500), 16);
        cache_text(&d, 0, text(1), 16); /* asserts that it never is told QUIRE_EFULL */
    }
    close_desk(&d);
}

static void a_domain_without_sequences_makes_room_for_a_new_one(void **state)
{
    (void)state;
    desk d;
    quire__book_config config = small_config(16, 4);
    config.max_domains = 2;
    open_desk(&d, &config);
    cache_text(&d, 10, text(1), 4);
    cache_text(&d, 11, text(1), 4);
    uint32_t a = open_seq(&d, 10), b = open_seq(&d, 12), c;
    assert_int_equal(probe(&d, 10, text(1), 5).tokens, 4);
    assert_int_equal(probe(&d, 11, text(1), 5).tokens, 0);
    assert_int_equal(stats_of(&d).domains, 2);
    assert_int_equal(quire__book_seq_open(d.book, 13, &c), QUIRE_EFULL);
    assert_non_null(strstr(quire_error_text(), "max_domains"));
    quire__book_seq_close(d.book, a);
    quire__book_seq_close(d.book, b);
    for (int i = 0; i < 8; i++)
        a = open_seq(&d, 13);
    assert_int_equal(quire__book_seq_open(d.book, 13, &c), QUIRE_EFULL);
    assert_non_null(strstr(quire_error_text(), "max_sequences"));
    assert_int_equal(quire__book_seq_fork(d.book, a, &c), QUIRE_EFULL);
    close_desk(&d);
}

static void clear_forgets_what_nobody_uses_and_nothing_else(void **state)
{
    (void)state;
    desk d;
    quire__book_config config = small_config(8, 8);
    open_desk(&d, &config);
    cache_text(&d, 0, text(1), 12);
    cache_text(&d, 3, text(100), 8);
    uint32_t seq = open_seq(&d, 0);
    match(&d, seq, text(1), 5);
    quire__book_clear(d.book);
    assert_int_equal(probe(&d, 0, text(1), 13).tokens, 4);
    assert_int_equal(probe(&d, 3, text(100), 9).tokens, 0);
    assert_int_equal(stats_of(&d).device_free, 7);
    assert_int_equal(stats_of(&d).host_free, 7);
    assert_int_equal(stats_of(&d).domains, 1);
    close_desk(&d);
}

/* ---- what is reported ---------------------------------------------------------------------------------------- */

static void events_tell_what_is_where_and_count_what_the_reader_missed(void **state)
{
    (void)state;
    desk d;
    quire__book_config config = small_config(2, 4);
    config.event_capacity = 6;
    open_desk(&d, &config);
    cache_text(&d, 77, text(1), 8);
    quire_event events[8];
    assert_int_equal(quire__book_events(d.book, events, 3), 3);
    assert_int_equal(events[0].number, 1);
    assert_int_equal(events[0].type, QUIRE_EVENT_STORED);
    assert_int_equal(events[0].tier, QUIRE_TIER_DEVICE);
    assert_int_equal(events[0].parent, 0);
    assert_int_equal(events[0].domain, 77);
    assert_int_equal(events[1].parent, events[0].block);
    assert_int_equal(events[1].first_token, BLOCK);
    assert_int_equal(events[2].tier, QUIRE_TIER_HOST);
    int32_t tokens[BLOCK];
    assert_int_equal(quire__book_block_tokens(d.book, events[1].block, tokens), QUIRE_OK);
    assert_memory_equal(tokens, text(1) + BLOCK, sizeof(tokens));
    assert_int_equal(quire__book_block_tokens(d.book, 0, tokens), QUIRE_ESTALE);

    cache_text(&d, 77, text(100), 8); /* 2 removed, 2 stored, 2 stored on the host; one of before was not read */
    assert_int_equal(quire__book_events(d.book, events, 8), 6);
    assert_int_equal(events[0].number, 5);
    assert_int_equal(events[0].type, QUIRE_EVENT_REMOVED);
    assert_int_equal(events[5].number, 10);
    assert_int_equal(stats_of(&d).events_lost, 1);
    close_desk(&d);
}

static void a_device_table_can_be_kept_by_deltas(void **state)
{
    (void)state;
    desk d;
    quire__book_config config = small_config(8, 0);
    open_desk(&d, &config);
    uint32_t seq = open_seq(&d, 0), blocks, changed;
    quire__book_seq_table(d.book, seq, &blocks, &changed, false);
    assert_int_equal(blocks + changed, 0);
    add(&d, seq, text(1), 10);
    quire__book_seq_table(d.book, seq, &blocks, &changed, true);
    assert_int_equal(blocks, 3);
    assert_int_equal(changed, 0);
    add(&d, seq, text(11), 1);
    quire__book_seq_table(d.book, seq, &blocks, &changed, true);
    assert_int_equal(changed, 3);
    add(&d, seq, text(12), 2);
    quire__book_seq_table(d.book, seq, &blocks, &changed, true);
    assert_int_equal(blocks, 4);
    assert_int_equal(changed, 3);
    assert_int_equal(quire__book_seq_truncate(d.book, seq, 5), QUIRE_OK);
    add(&d, seq, text(100), 4);
    quire__book_seq_table(d.book, seq, &blocks, &changed, true);
    assert_int_equal(changed, 1); /* the second block was copied */
    close_desk(&d);
}

/* ---- opening ------------------------------------------------------------------------------------------------- */

static void impossible_sizes_are_refused_by_name(void **state)
{
    (void)state;
    quire__book *book = NULL;
    quire__book_config good = small_config(8, 8), config;
    static const char *const names[] = {"block_tokens", "device_slots", "blocks in all tiers", "max_sequences",
                                        "max_domains", "nonsense"};
    for (int i = 0; i < 6; i++) {
        config = good;
        switch (i) {
        case 0: config.block_tokens = 0; break;
        case 1: config.device_slots = 0; break;
        case 2: config.host_slots = UINT32_MAX; break;
        case 3: config.max_sequences = 0; break;
        case 4: config.max_domains = 0; break;
        default: config.policy = "nonsense"; break;
        }
        assert_int_equal(quire__book_open(&book, &config), QUIRE_EINVAL);
        assert_non_null(strstr(quire_error_text(), names[i]));
        assert_null(book);
    }
}

typedef struct counting {
    long allowed, taken, live;
} counting;

static void *counting_alloc(void *user, size_t bytes)
{
    counting *c = user;
    if (c->taken == c->allowed)
        return NULL;
    c->taken++;
    c->live++;
    return malloc(bytes);
}

static void counting_free(void *user, void *memory)
{
    counting *c = user;
    c->live--;
    free(memory);
}

static void an_open_that_lacks_any_piece_of_memory_fails_and_leaks_nothing(void **state)
{
    (void)state;
    counting c = {.allowed = 0};
    quire__book_config config = small_config(8, 8);
    config.allocator = (quire__allocator){counting_alloc, counting_free, &c};
    quire__book *book = NULL;
    for (;; c.allowed++) {
        c.taken = 0;
        quire_status status = quire__book_open(&book, &config);
        if (status == QUIRE_OK)
            break;
        assert_int_equal(status, QUIRE_ENOMEM);
        assert_null(book);
        assert_int_equal(c.live, 0);
        assert_true(c.allowed < 1000);
    }
    assert_true(c.allowed > 10);
    quire__book_close(book);
    assert_int_equal(c.live, 0);
    quire__book_close(NULL);
}

static void nothing_is_allocated_after_open(void **state)
{
    (void)state;
    counting c = {.allowed = 1000};
    quire__book_config config = small_config(8, 8);
    config.allocator = (quire__allocator){counting_alloc, counting_free, &c};
    desk d;
    open_desk(&d, &config);
    c.allowed = c.taken;
    for (int i = 0; i < 20; i++)
        cache_text(&d, (uint64_t)i % 6, text(i * 7), 16);
    quire__book_clear(d.book);
    assert_int_equal(quire__book_check(d.book), QUIRE_OK);
    quire__plan_close(&d.plan, &config.allocator);
    quire__book_close(d.book);
    assert_int_equal(c.live, 0);
}

/* ---- the check ----------------------------------------------------------------------------------------------- */

/* One fault a number; 0: there is no fault of that number. */
static int plant(quire__book *book, int fault)
{
    quire__pool *pool = &book->pool;
    quire__chain *chain = &book->chains[0];
    quire__node *root = &pool->nodes[chain->nodes[0]], *second = &pool->nodes[chain->nodes[1]];
    switch (fault) {
    case 1: root->refs++; break;
    case 2: second->slot[QUIRE_TIER_DEVICE] = root->slot[QUIRE_TIER_DEVICE]; break;
    case 3: pool->free_count[QUIRE_TIER_DEVICE]--; break;
    case 4: pool->standing[QUIRE_TIER_DEVICE][QUIRE__USED]++; break;
    case 5: root->state[QUIRE_TIER_HOST] = QUIRE__ABSENT; break;
    case 6: quire__pool_tokens(pool, chain->nodes[1])[0] ^= 1; break;
    case 7: pool->kin[chain->nodes[1]].parent = QUIRE__NONE; break;
    case 8: pool->kin[chain->nodes[0]].children[QUIRE_TIER_HOST]++; break;
    case 9: root->child = QUIRE__NONE; break;
    case 10: pool->kin[chain->nodes[1]].depth++; break;
    case 11: book->prefix.domains[chain->domain].sequences++; break;
    case 12: quire__evict_insert_path(&book->evict[QUIRE_TIER_DEVICE], chain->nodes, 1); break;
    case 13: quire__evict_remove(&book->evict[QUIRE_TIER_HOST], chain->nodes[0]); break;
    case 14: chain->table[1]++; break;
    case 15: chain->length += BLOCK; break;
    case 16: book->holders++; break;
    case 17: pool->owner[QUIRE_TIER_HOST][root->slot[QUIRE_TIER_HOST]] = QUIRE__NONE; break;
    case 18: second->kind = QUIRE__KIND_DEAD; break;
    case 19: pool->free_node = chain->nodes[0]; break;
    case 20: book->prefix.buckets[0] = chain->nodes[1]; break;
    case 21: book->free_chain_count--; break;
    case 22: /* a child that is older than its parent becomes newer */
        quire__evict_remove(&book->evict[QUIRE_TIER_HOST], chain->nodes[1]);
        quire__evict_insert_path(&book->evict[QUIRE_TIER_HOST], &chain->nodes[1], 1);
        break;
    case 23: pool->free_top[QUIRE_TIER_DEVICE] = root->slot[QUIRE_TIER_DEVICE]; break;
    case 24: pool->owner[QUIRE_TIER_DEVICE][pool->free_top[QUIRE_TIER_DEVICE]] = QUIRE__NONE; break;
    default: return 0;
    }
    return fault;
}

static void the_check_sees_every_planted_fault(void **state)
{
    (void)state;
    for (int fault = 1;; fault++) {
        desk d;
        quire__book_config config = small_config(8, 8);
        open_desk(&d, &config);
        uint32_t seq = open_seq(&d, 0);
        add(&d, seq, text(1), 10);
        answer(&d, true);
        assert_int_equal(quire__book_check(d.book), QUIRE_OK);
        int planted = plant(d.book, fault);
        if (planted && quire__book_check(d.book) != QUIRE_ECORRUPT)
            fail_msg("fault %d was not seen", fault);
        quire__plan_close(&d.plan, &quire__allocator_default);
        quire__book_close(d.book);
        if (!planted) {
            assert_int_equal(fault, 25);
            return;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_match_leaves_one_token_to_compute),
        cmocka_unit_test(what_was_found_without_the_lock_counts_only_while_no_block_has_left),
        cmocka_unit_test(a_block_is_invisible_until_it_is_committed),
        cmocka_unit_test(a_prompt_that_parts_inside_a_block_shares_its_start_by_copy),
        cmocka_unit_test(domains_share_nothing),
        cmocka_unit_test(a_probe_extends_no_lifetime),
        cmocka_unit_test(what_a_match_used_is_evicted_last_and_leaves_before_roots),
        cmocka_unit_test(two_sequences_that_compute_the_same_block_end_up_with_one),
        cmocka_unit_test(forks_share_until_one_writes_and_the_last_writes_in_place),
        cmocka_unit_test(a_truncated_sequence_copies_a_sealed_block_before_it_writes),
        cmocka_unit_test(a_cancelled_step_leaves_every_sequence_as_before),
        cmocka_unit_test(a_full_arena_is_refused_with_the_numbers_and_changes_nothing),
        cmocka_unit_test(a_sequence_that_could_never_fit_is_told_so),
        cmocka_unit_test(the_watermark_holds_newcomers_back_but_never_one_that_is_alone),
        cmocka_unit_test(a_prompt_as_long_as_the_arena_can_be_served_again_and_again),
        cmocka_unit_test(a_domain_without_sequences_makes_room_for_a_new_one),
        cmocka_unit_test(clear_forgets_what_nobody_uses_and_nothing_else),
        cmocka_unit_test(events_tell_what_is_where_and_count_what_the_reader_missed),
        cmocka_unit_test(a_device_table_can_be_kept_by_deltas),
        cmocka_unit_test(impossible_sizes_are_refused_by_name),
        cmocka_unit_test(an_open_that_lacks_any_piece_of_memory_fails_and_leaks_nothing),
        cmocka_unit_test(nothing_is_allocated_after_open),
        cmocka_unit_test(the_check_sees_every_planted_fault),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
