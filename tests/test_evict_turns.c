/* How much was generated in a turn: what policies are told of it, and what `learned` makes of it. */
#include "support/served.h"

#include "block/evict_lru.h"

static uint32_t generated; /* as the policy was told last */

static void note_generated(void *state, const uint32_t *path, uint32_t count, const quire_policy_use *use)
{
    generated = use->generated;
    quire__evict_lru.insert(state, path, count, use);
}

static void what_follows_the_matched_prompt_was_generated(void **state)
{
    (void)state;
    desk d;
    quire_policy own = quire__evict_lru;
    quire__book_config config = config_of("lru", 40, 0);
    own.insert = note_generated;
    config.custom_policy = &own;
    open_desk(&d, &config);
    ask(&d, 1, document(1), 9); /* a prompt of ten, of which nine are computed */
    assert_int_equal(generated, 0);
    uint32_t seq = open_seq(&d, 0), child;
    match(&d, seq, document(1), 10);
    add(&d, seq, document(1) + 9, 8);
    assert_int_equal(quire__book_seq_fork(d.book, seq, &child), QUIRE_OK);
    add(&d, child, document(1) + 17, 3);
    quire__book_seq_close(d.book, child);
    assert_int_equal(generated, 10);
    quire__book_seq_close(d.book, seq);
    assert_int_equal(generated, 7);
    seq = open_seq(&d, 0); /* no prompt was matched: nobody knows */
    add(&d, seq, document(2), 9);
    quire__book_seq_close(d.book, seq);
    assert_int_equal(generated, 0);
    quire_hint said = {.size = sizeof(said), .generated = 33}; /* and were not appended */
    ask_as(&d, 2, 0, document(3), 9, &said);
    assert_int_equal(generated, 33);
    close_desk(&d);
}

/* Of twelve conversations at a time eight end with a long answer and go on no more; the others call tools with a few tokens
 * and come back at once, three times. Returns how many blocks of the next turns are found. */
static uint32_t blocks_found_of_turns(const char *policy, bool told)
{
    desk d;
    uint32_t found = 0;
    quire__book_config config = config_of(policy, 70, 0);
    open_desk(&d, &config);
    for (int32_t round = 0; round < 400; round++)
        for (int32_t turn = 1; turn <= 4; turn++)
            for (int32_t i = 0; i < 12; i++) {
                const bool tool = i % 3 == 0;
                quire_hint answer = {.size = sizeof(answer), .generated = !told ? 0 : tool ? 10 : 900};
                const uint64_t now = (uint64_t)((round * 4 + turn) * 12 + i) * 1000000;
                if (!tool && turn > 1)
                    ask_as(&d, now, 0, document(100000 + (round * 4 + turn) * 12 + i), 9, &answer); /* others, all new */
                else
                    found += ask_as(&d, now, 0, document(round * 12 + i), 4 + 2 * (uint32_t)turn, &answer);
            }
    close_desk(&d);
    return found;
}

static void learned_tells_turns_by_how_much_was_generated(void **state)
{
    (void)state;
    const uint32_t told = blocks_found_of_turns("learned", true), untold = blocks_found_of_turns("learned", false);
    const uint32_t lru = blocks_found_of_turns("lru", true);
    print_message("%u blocks found, %u without a word of what was generated, %u by LRU\n", told, untold, lru);
    assert_true(told > untold && told > lru);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_follows_the_matched_prompt_was_generated),
        cmocka_unit_test(learned_tells_turns_by_how_much_was_generated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
