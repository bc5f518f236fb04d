/* test_handoff.c: a real model, its prompt computed in one process and answered in another: the same tokens as in one. Then
 * either side dies, or falls silent, at several moments of the transfer: the other gets an error in time, its cache is whole,
 * and it answers the same by computing what is missing. Needs QUIRE_MODEL. */
#define _GNU_SOURCE 1
#include "support/testing.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "handoff.h"
#include "prompt.h"
#include "session.h"

enum { ANSWER = 4, BLOCK_TOKENS = 4, SILENT_US = 300 * 1000, TIMEOUT_US = 60 * 1000 * 1000 };

static const char text[] = "The lighthouse keeper wrote in his book every evening what the sea had brought him, and";

static session whole; /* has computed the prompt; forked children send from its cache, or to it */
static token_list prompt;
static int32_t expected[ANSWER];
static const char *why_not; /* the reason to skip */

/* ---- a link on which this process dies or falls silent ------------------------------------------------------- */

typedef struct bad_link {
    quire_transport inside;
    uint64_t passed, until; /* bytes of both directions */
    bool silent;            /* then it does not die but hang, until it is killed */
} bad_link;

static void count_bytes(bad_link *link, size_t bytes)
{
    link->passed += bytes;
    if (link->passed < link->until) return;
    while (link->silent) pause();
    raise(SIGKILL);
}

static quire_status bad_send(void *user, const void *data, size_t bytes, uint64_t timeout_us)
{
    bad_link *link = user;
    size_t first = link->passed + bytes >= link->until && link->until > link->passed ? link->until - link->passed : bytes;
    quire_status status = link->inside.send(link->inside.user, data, first, timeout_us);
    count_bytes(link, bytes); /* dies in the middle of what it sends */
    return status;
}

static quire_status bad_receive(void *user, void *data, size_t bytes, uint64_t timeout_us)
{
    bad_link *link = user;
    quire_status status = link->inside.receive(link->inside.user, data, bytes, timeout_us);
    count_bytes(link, bytes);
    return status;
}

static void bad_interrupt(void *user)
{
    bad_link *link = user;
    link->inside.interrupt(link->inside.user);
}

static void bad_close(void *user)
{
    bad_link *link = user;
    link->inside.close(link->inside.user);
}

/* ---- engines ------------------------------------------------------------------------------------------------- */

static engine_request request_of_prompt(void)
{
    return (engine_request){ .tokens = prompt.ids, .count = prompt.count, .most_tokens = ANSWER, .branches = 1,
                             .sampling = { .top_p = 1.0f } };
}

static engine_result answer(session *s, int32_t tokens[ANSWER])
{
    infer_error error = { "" };
    engine_request request = request_of_prompt();
    uint32_t number;
    if (engine_submit(s->engine, &request, &number, &error) || engine_run(s->engine, &error)) fail_msg("%s", error.text);
    engine_result result = engine_result_of(s->engine, number);
    engine_output output = engine_output_of(s->engine, number, 0);
    assert_null(result.error);
    assert_int_equal(output.count, ANSWER);
    memcpy(tokens, output.tokens, sizeof(int32_t) * ANSWER);
    engine_forget(s->engine);
    return result;
}

/* Answers as one process does, and says how much of the prompt it took from the cache. */
static size_t answers_the_same(session *s)
{
    int32_t tokens[ANSWER];
    engine_result result = answer(s, tokens);
    assert_memory_equal(tokens, expected, sizeof expected);
    assert_int_equal(quire_cache_check(s->cache), QUIRE_OK);
    return result.device + result.host;
}

/* An engine with an empty cache; the model is that of `whole`. */
static session twin(void)
{
    infer_error error = { "" };
    session s = whole;
    s.cache = NULL;
    s.engine = NULL;
    if (session_reopen(&s, &whole.options, &error)) fail_msg("%s", error.text);
    return s;
}

static void close_twin(session *s)
{
    engine_close(s->engine);
    quire_cache_close(s->cache);
}

static int open_whole(void **state)
{
    infer_error error = { "" };
    session_options options;
    (void)state;
    const char *path = getenv("QUIRE_MODEL");
    if (!path || !*path) {
        why_not = "QUIRE_MODEL is not set";
        return 0;
    }
    setenv("QUIRE_THREADS", "1", 1); /* children are forked, and threads would stay behind */
    setenv("QUIRE_DEVICE", "host", 1);
    session_defaults(&options);
    options.model_path = path;
    options.device_bytes = 8 << 20;
    options.host_bytes = 0;
    options.block_tokens = BLOCK_TOKENS;
    options.context = 64;
    if (session_open(&whole, &options, &error) || prompt_from_text(whole.tokenizer, text, &prompt, &error)) {
        print_message("%s\n", error.text);
        return -1;
    }
    (void)answer(&whole, expected);
    return 0;
}

static int close_whole(void **state)
{
    (void)state;
    token_list_free(&prompt);
    session_close(&whole);
    return 0;
}

/* ---- two processes ------------------------------------------------------------------------------------------- */

static int over(handoff *h, session *s, bad_link *link, int socket, uint64_t timeout_us, infer_error *error)
{
    quire_transport transport = { sizeof transport, link, bad_send, bad_receive, bad_interrupt, bad_close };
    assert_int_equal(quire_transport_socket(&link->inside, socket), QUIRE_OK);
    return handoff_open(h, s->cache, s->model, &transport, timeout_us, error);
}

static _Noreturn void child_runs(bool sends, int socket, uint64_t until, bool silent)
{
    infer_error error;
    handoff h = { 0 };
    bad_link link = { .until = until ? until : UINT64_MAX, .silent = silent };
    engine_request request = request_of_prompt();
    session s = sends ? whole : twin();
    int32_t tokens[ANSWER];
    if (over(&h, &s, &link, socket, TIMEOUT_US, &error)) _exit(2);
    if (sends ? handoff_send(&h, &request, &error) : handoff_receive(&h, &error)) _exit(3);
    handoff_close(&h);
    engine_result result = answer(&s, tokens);
    if (memcmp(tokens, expected, sizeof expected) || quire_cache_check(s.cache)) _exit(4);
    _exit(result.device + BLOCK_TOKENS >= prompt.count ? 0 : 5);
}

static int start_child(bool sends, uint64_t until, bool silent, pid_t *child)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    fflush(NULL);
    *child = fork();
    assert_true(*child >= 0);
    if (*child == 0) {
        close(ends[0]);
        child_runs(sends, ends[1], until, silent);
    }
    close(ends[1]);
    return ends[0];
}

static int exit_of(pid_t child)
{
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* Bytes that go over the link in a whole transfer, both directions. */
static uint64_t transfer_bytes(void)
{
    uint64_t block = 0;
    assert_int_equal(quire_block_bytes(quire_cache_options(whole.cache), &block), QUIRE_OK);
    return (prompt.count + BLOCK_TOKENS - 1) / BLOCK_TOKENS * (block + 24);
}

/* ---- the promises -------------------------------------------------------------------------------------------- */

static void a_prompt_computed_in_one_process_is_answered_the_same_in_another(void **state)
{
    infer_error error = { "" };
    handoff h;
    bad_link link = { .until = UINT64_MAX };
    pid_t child;
    (void)state;
    if (why_not) SKIP_BECAUSE("%s", why_not);
    session s = twin();
    int socket = start_child(true, 0, false, &child);
    if (over(&h, &s, &link, socket, TIMEOUT_US, &error) || handoff_receive(&h, &error)) fail_msg("%s", error.text);
    assert_int_equal(exit_of(child), 0);
    handoff_close(&h);
    assert_int_equal(h.tokens, prompt.count);
    size_t reused = answers_the_same(&s);
    assert_true(reused + BLOCK_TOKENS >= prompt.count && reused < prompt.count);
    close_twin(&s);
}

static void a_sender_that_dies_or_hangs_leaves_a_receiver_that_answers_the_same(void **state)
{
    uint64_t bytes;
    (void)state;
    if (why_not) SKIP_BECAUSE("%s", why_not);
    bytes = transfer_bytes();
    /* in the meeting, with the offer out, in the first block, in the middle, with the last block; then silence */
    const struct {
        uint64_t until;
        bool silent;
    } moments[] = { { 20, false }, { 200, false }, { 5000, false }, { bytes / 2, false }, { bytes - 10, false },
                    { 200, true }, { bytes / 2, true } };
    for (size_t i = 0; i < sizeof moments / sizeof moments[0]; i++) {
        infer_error error = { "" };
        handoff h = { 0 };
        bad_link link = { .until = UINT64_MAX };
        pid_t child;
        session s = twin();
        int socket = start_child(true, moments[i].until, moments[i].silent, &child);
        uint64_t timeout_us = moments[i].silent ? SILENT_US : TIMEOUT_US;
        assert_true(over(&h, &s, &link, socket, timeout_us, &error) != 0 || handoff_receive(&h, &error) != 0);
        assert_true(strlen(error.text) > 0);
        handoff_close(&h);
        if (moments[i].silent) assert_int_equal(kill(child, SIGKILL), 0);
        assert_int_equal(exit_of(child), 1000 + SIGKILL);
        assert_int_equal(quire_cache_check(s.cache), QUIRE_OK);
        (void)answers_the_same(&s);
        close_twin(&s);
    }
}

static void a_receiver_that_dies_or_hangs_leaves_a_sender_that_answers_the_same(void **state)
{
    uint64_t bytes;
    (void)state;
    if (why_not) SKIP_BECAUSE("%s", why_not);
    bytes = transfer_bytes();
    const struct {
        uint64_t until;
        bool silent;
    } moments[] = { { 20, false }, { 200, false }, { 5000, false }, { bytes / 2, false }, { bytes - 10, false },
                    { bytes / 2, true } };
    for (size_t i = 0; i < sizeof moments / sizeof moments[0]; i++) {
        infer_error error = { "" };
        handoff h = { 0 };
        bad_link link = { .until = UINT64_MAX };
        pid_t child;
        engine_request request = request_of_prompt();
        int socket = start_child(false, moments[i].until, moments[i].silent, &child);
        uint64_t timeout_us = moments[i].silent ? SILENT_US : TIMEOUT_US;
        assert_true(over(&h, &whole, &link, socket, timeout_us, &error) != 0 || handoff_send(&h, &request, &error) != 0);
        assert_true(strlen(error.text) > 0);
        handoff_close(&h);
        if (moments[i].silent) assert_int_equal(kill(child, SIGKILL), 0);
        assert_int_equal(exit_of(child), 1000 + SIGKILL);
        assert_true(answers_the_same(&whole) + BLOCK_TOKENS >= prompt.count);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_computed_in_one_process_is_answered_the_same_in_another),
        cmocka_unit_test(a_sender_that_dies_or_hangs_leaves_a_receiver_that_answers_the_same),
        cmocka_unit_test(a_receiver_that_dies_or_hangs_leaves_a_sender_that_answers_the_same),
    };
    return cmocka_run_group_tests(tests, open_whole, close_whole);
}
