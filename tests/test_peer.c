/* test_peer.c: sequences between caches of two processes over a socket, on the host and the sim device; then the same with
 * a side that dies, a link that changes bytes, a cache that is too small, and a call that is cancelled. Every block that
 * arrives is compared byte for byte: the K and V of a token are its number. */
#define _GNU_SOURCE 1
#include "support/testing.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/hash.h"
#include "cache/cache.h"
#include "quire/quire_peer.h"
#include "support/small_cache.h"

enum { TOKENS = 4 * 90 + 3, TIMEOUT_US = 20 * 1000 * 1000, DOMAIN = 7 };

/* ---- a cache, and what is in it ------------------------------------------------------------------------------ */

static quire_cache *cache_on(const char *device, uint32_t device_blocks, uint32_t host_blocks)
{
    quire_options options;
    quire_group group;
    quire_cache *cache = NULL;

    small_options(&options, &group, device_blocks, host_blocks);
    options.device = device;
    if (quire_cache_open(&cache, &options) != QUIRE_OK)
        return NULL;
    return cache;
}

/* Prefills in steps of up to 200 tokens; nobody waits for them, so on the sim device the KV may be written much later. The
 * caller sweeps in the end. */
static quire_seq prefill(quire_cache *cache, const int32_t *tokens, size_t count)
{
    quire_seq seq = small_open(cache, DOMAIN);
    for (size_t at = 0; at < count; at += 200)
        assert_int_equal(small_append(cache, seq, tokens + at, count - at < 200 ? count - at : 200), QUIRE_OK);
    return seq;
}

static void close_swept(quire_cache *cache)
{
    small_sweep(cache);
    quire_cache_close(cache);
}

/* Is the sequence of these tokens, with the KV that they have? Also used in child processes, so nothing is asserted. */
static bool holds(quire_cache *cache, quire_seq seq, const int32_t *tokens, size_t count)
{
    uint32_t index = 0, blocks = 0, changed = 0;
    int32_t spelled[TOKENS];
    quire_seq_info info;

    if (quire_seq_get(cache, seq, &info) != QUIRE_OK || info.length != count || info.domain != DOMAIN ||
        quire__cache_find(cache, seq, &index) != QUIRE_OK ||
        quire__device_stream_synchronize(cache->device, cache->stream) != QUIRE_OK)
        return false;
    quire__book_seq_tokens(cache->book, index, 0, count, spelled);
    if (memcmp(spelled, tokens, count * sizeof *tokens) != 0)
        return false;
    const int32_t *slots = quire__book_seq_table(cache->book, index, &blocks, &changed, false);
    for (size_t i = 0; i < count * 16; i++) {
        size_t token = i / 16, kv = i / 8 % 2, element = i % 8;
        const unsigned char *block = cache->arena + (size_t)slots[token / SMALL_BLOCK_TOKENS] * SMALL_BLOCK_BYTES;
        const float *row = (const float *)(const void *)(block + kv * SMALL_BLOCK_BYTES / 2) +
                           token % SMALL_BLOCK_TOKENS * 8;
        if (row[element] != (float)tokens[token])
            return false;
    }
    return true;
}

/* What is cached of the tokens is right, and no less than `least`. */
static bool cached_right(quire_cache *cache, const int32_t *tokens, size_t count, size_t least)
{
    quire_seq_options options = {.size = sizeof options, .domain = DOMAIN};
    quire_seq seq = 0;
    quire_hit hit;
    bool right = quire_seq_open(cache, &options, &seq) == QUIRE_OK &&
                 quire_seq_match(cache, seq, tokens, count, &hit) == QUIRE_OK &&
                 quire_seq_wait(cache, seq, TIMEOUT_US) == QUIRE_OK && hit.tokens >= least &&
                 holds(cache, seq, tokens, hit.tokens);
    (void)quire_seq_close(cache, seq);
    return right && quire_cache_check(cache) == QUIRE_OK;
}

/* ---- a link that misbehaves ---------------------------------------------------------------------------------- */

/* A transport around another, which after `at` bytes in one direction kills the process or changes a bit. */
typedef struct bad_link {
    quire_transport inside;
    uint64_t sent, received;
    uint64_t die_after; /* bytes of either direction; 0: never */
    uint64_t flip;      /* the number of a received byte; 0: none */
} bad_link;

static quire_status bad_send(void *user, const void *data, size_t bytes, uint64_t timeout_us)
{
    bad_link *link = user;
    link->sent += bytes;
    if (link->die_after != 0 && link->sent + link->received >= link->die_after) {
        (void)link->inside.send(link->inside.user, data, bytes / 2, timeout_us);
        raise(SIGKILL);
    }
    return link->inside.send(link->inside.user, data, bytes, timeout_us);
}

static quire_status bad_receive(void *user, void *data, size_t bytes, uint64_t timeout_us)
{
    bad_link *link = user;
    quire_status status = link->inside.receive(link->inside.user, data, bytes, timeout_us);
    if (link->flip > link->received && link->flip <= link->received + bytes)
        ((unsigned char *)data)[link->flip - link->received - 1] ^= 0x10;
    link->received += bytes;
    if (link->die_after != 0 && link->sent + link->received >= link->die_after)
        raise(SIGKILL);
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

static quire_transport bad_transport(bad_link *link, int socket)
{
    quire_transport made = {sizeof made, link, bad_send, bad_receive, bad_interrupt, bad_close};
    (void)quire_transport_socket(&link->inside, socket);
    return made;
}

/* ---- two processes ------------------------------------------------------------------------------------------- */

typedef struct task {
    int socket;
    const char *device;
    uint32_t device_blocks;
    const int32_t *tokens;
    size_t count;
    uint64_t die_after;
} task;

/* In the child: receives one sequence and says by the exit status what became of it. */
static int child_receives(const task *t)
{
    bad_link link = {.die_after = t->die_after};
    quire_transport transport = bad_transport(&link, t->socket);
    quire_cache *cache = cache_on(t->device, t->device_blocks, 0);
    quire_peer *peer = NULL;
    quire_seq seq = 0;
    quire_transfer transfer;

    if (cache == NULL || quire_peer_open(&peer, cache, &transport, TIMEOUT_US) != QUIRE_OK)
        return 2;
    quire_status status = quire_peer_receive(peer, &seq, &transfer, TIMEOUT_US);
    if (status != QUIRE_OK)
        return 100 + (int)status;
    if (!holds(cache, seq, t->tokens, t->count) || transfer.tokens != t->count)
        return 3;
    /* A second time: all but what must be computed is here, so only the last block travels. */
    if (quire_seq_close(cache, seq) != QUIRE_OK ||
        quire_peer_receive(peer, &seq, &transfer, TIMEOUT_US) != QUIRE_OK ||
        !holds(cache, seq, t->tokens, t->count) || transfer.blocks > 1)
        return 4;
    quire_peer_close(peer);
    if (quire_cache_check(cache) != QUIRE_OK)
        return 5;
    quire_cache_close(cache);
    return 0;
}

static int child_sends(const task *t)
{
    bad_link link = {.die_after = t->die_after};
    quire_transport transport = bad_transport(&link, t->socket);
    quire_cache *cache = cache_on(t->device, t->device_blocks, 0);
    quire_peer *peer = NULL;

    if (cache == NULL)
        return 2;
    quire_seq seq = prefill(cache, t->tokens, t->count);
    if (quire_peer_open(&peer, cache, &transport, TIMEOUT_US) != QUIRE_OK)
        return 2;
    quire_status status = quire_peer_send(peer, seq, NULL, TIMEOUT_US);
    return status == QUIRE_OK ? 0 : 100 + (int)status;
}

/* Runs `work` in a process of its own at the other end of a socket; gives our end. */
static int in_child(int (*work)(const task *t), task t, pid_t *child)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    fflush(NULL);
    *child = fork();
    assert_true(*child >= 0);
    if (*child == 0) {
        close(ends[0]);
        t.socket = ends[1];
        _exit(work(&t));
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

static quire_peer *peer_over(quire_cache *cache, int socket)
{
    quire_transport transport;
    quire_peer *peer = NULL;
    assert_int_equal(quire_transport_socket(&transport, socket), QUIRE_OK);
    if (quire_peer_open(&peer, cache, &transport, TIMEOUT_US) != QUIRE_OK)
        transport.close(transport.user);
    return peer;
}

/* ---- the promises -------------------------------------------------------------------------------------------- */

static void one_transfer(const char *device, size_t count)
{
    int32_t tokens[TOKENS];
    pid_t child;
    quire_transfer transfer;

    small_tokens(tokens, TOKENS, 1000);
    int socket = in_child(child_receives, (task){.device = device, .device_blocks = 128, .tokens = tokens, .count = count},
                          &child);
    quire_cache *cache = cache_on(device, 128, 16);
    assert_non_null(cache);
    quire_seq seq = prefill(cache, tokens, count);
    quire_peer *peer = peer_over(cache, socket);
    assert_non_null(peer);
    assert_int_equal(quire_peer_send(peer, seq, &transfer, TIMEOUT_US), QUIRE_OK);
    assert_int_equal(transfer.tokens, count);
    assert_int_equal(transfer.cached, 0);
    assert_int_equal(transfer.blocks, (count + SMALL_BLOCK_TOKENS - 1) / SMALL_BLOCK_TOKENS);
    assert_int_equal(transfer.bytes, transfer.blocks * SMALL_BLOCK_BYTES);
    assert_int_equal(quire_peer_send(peer, seq, &transfer, TIMEOUT_US), QUIRE_OK);
    assert_true(transfer.cached + SMALL_BLOCK_TOKENS >= count && transfer.blocks <= 1);
    assert_true(holds(cache, seq, tokens, count));
    assert_int_equal(exit_of(child), 0);
    quire_peer_close(peer);
    close_swept(cache);
}

static void a_sequence_arrives_in_another_process_byte_for_byte(void **state)
{
    (void)state;
    one_transfer("host", TOKENS);
    for (size_t count = 1; count < 10; count += 2)
        one_transfer("host", count);
    for (int seed = 0; seed < 10; seed++) {
        char device[32];
        snprintf(device, sizeof device, "sim:%d", seed);
        one_transfer(device, (size_t)(TOKENS - seed));
    }
}

static void a_receiver_that_dies_is_an_error_and_harms_nothing(void **state)
{
    uint64_t random = test_seed("receiver dies", 1);
    int32_t tokens[TOKENS];
    (void)state;
    small_tokens(tokens, TOKENS, 1000);
    for (int round = 0; round < 12; round++) {
        pid_t child;
        int socket = in_child(child_receives,
                              (task){.device = "sim:1", .device_blocks = 128, .tokens = tokens, .count = TOKENS,
                                     .die_after = 1 + quire__random(&random) % (TOKENS * 64)}, &child);
        quire_cache *cache = cache_on("sim:2", 128, 16);
        quire_seq seq = prefill(cache, tokens, TOKENS);
        quire_peer *peer = peer_over(cache, socket);
        if (peer != NULL) { /* or it died in the meeting */
            quire_status status = quire_peer_send(peer, seq, NULL, TIMEOUT_US);
            assert_int_equal(status, QUIRE_EPEER);
            assert_int_equal(quire_peer_send(peer, seq, NULL, TIMEOUT_US), QUIRE_EPEER);
        }
        assert_int_equal(exit_of(child), 1000 + SIGKILL);
        quire_peer_close(peer);
        assert_true(holds(cache, seq, tokens, TOKENS));
        assert_int_equal(quire_cache_check(cache), QUIRE_OK);
        close_swept(cache);
    }
}

static void a_sender_that_dies_leaves_what_was_verified(void **state)
{
    uint64_t random = test_seed("sender dies", 2);
    int32_t tokens[TOKENS];
    int some = 0;
    (void)state;
    small_tokens(tokens, TOKENS, 1000);
    for (int round = 0; round < 12; round++) {
        pid_t child;
        int socket = in_child(child_sends,
                              (task){.device = "host", .device_blocks = 128, .tokens = tokens, .count = TOKENS,
                                     .die_after = 1 + quire__random(&random) % (TOKENS * 64)}, &child);
        quire_cache *cache = cache_on("sim:5", 128, 0);
        quire_peer *peer = peer_over(cache, socket);
        quire_seq seq = 0;
        quire_hit hit;
        if (peer != NULL) {
            assert_int_equal(quire_peer_receive(peer, &seq, NULL, TIMEOUT_US), QUIRE_EPEER);
            assert_int_equal(seq, 0);
        }
        assert_int_equal(exit_of(child), 1000 + SIGKILL);
        quire_peer_close(peer);
        assert_true(cached_right(cache, tokens, TOKENS, 0));
        assert_int_equal(quire_cache_probe(cache, DOMAIN, tokens, TOKENS, &hit), QUIRE_OK);
        some += hit.tokens > 0;
        assert_int_equal(small_stats(cache).sequences, 0);
        quire_cache_close(cache);
    }
    assert_true(some > 0);
}

/* A wrong byte anywhere in the stream: never wrong KV. */
static void a_changed_byte_is_found(void **state)
{
    uint64_t random = test_seed("changed byte", 3);
    int32_t tokens[TOKENS];
    int corrupt = 0;
    (void)state;
    small_tokens(tokens, TOKENS, 1000);
    for (int round = 0; round < 24; round++) {
        pid_t child;
        bad_link link = {0};
        int socket = in_child(child_sends, (task){.device = "host", .device_blocks = 128, .tokens = tokens,
                                                  .count = TOKENS}, &child);
        quire_transport transport = bad_transport(&link, socket);
        quire_cache *cache = cache_on("sim:9", 128, 0);
        quire_peer *peer = NULL;
        quire_seq seq = 0;
        assert_int_equal(quire_peer_open(&peer, cache, &transport, TIMEOUT_US), QUIRE_OK);
        link.flip = link.received + 1 + quire__random(&random) % (TOKENS * 4 + TOKENS / 4 * (SMALL_BLOCK_BYTES + 24));
        quire_status status = quire_peer_receive(peer, &seq, NULL, TIMEOUT_US);
        assert_true(status == QUIRE_ECORRUPT || status == QUIRE_EPEER);
        corrupt += status == QUIRE_ECORRUPT;
        quire_peer_close(peer);
        assert_int_equal(exit_of(child), 100 + QUIRE_EPEER);
        assert_true(cached_right(cache, tokens, TOKENS, 0));
        quire_cache_close(cache);
    }
    assert_true(corrupt > 0);
}

static int child_is_too_small(const task *t)
{
    bad_link link = {0};
    quire_transport transport = bad_transport(&link, t->socket);
    quire_cache *cache = cache_on("host", 8, 0);
    quire_peer *peer = NULL;
    quire_seq seq = 0, held;
    int32_t other[16];

    small_tokens(other, 16, 5);
    held = prefill(cache, other, 16); /* half of the blocks are in use */
    if (held == 0 || quire_peer_open(&peer, cache, &transport, TIMEOUT_US) != QUIRE_OK)
        return 2;
    if (quire_peer_receive(peer, &seq, NULL, TIMEOUT_US) != QUIRE_ERANGE)
        return 3;
    if (quire_peer_receive(peer, &seq, NULL, TIMEOUT_US) != QUIRE_EFULL)
        return 4;
    if (quire_peer_receive(peer, &seq, NULL, TIMEOUT_US) != QUIRE_OK || !holds(cache, seq, t->tokens, 10))
        return 5;
    return quire_cache_check(cache) == QUIRE_OK ? 0 : 6;
}

static void a_cache_that_is_too_small_refuses_and_the_link_goes_on(void **state)
{
    int32_t tokens[TOKENS];
    pid_t child;
    (void)state;
    small_tokens(tokens, TOKENS, 1000);
    int socket = in_child(child_is_too_small, (task){.tokens = tokens}, &child);
    quire_cache *cache = cache_on("host", 256, 0);
    quire_peer *peer = peer_over(cache, socket);
    quire_seq huge = prefill(cache, tokens, 100), large = prefill(cache, tokens, 30), small = prefill(cache, tokens, 10);
    assert_int_equal(quire_peer_send(peer, huge, NULL, TIMEOUT_US), QUIRE_EPEER);
    assert_non_null(strstr(quire_error_text(), "at most 32"));
    assert_int_equal(quire_peer_send(peer, large, NULL, TIMEOUT_US), QUIRE_EPEER);
    assert_non_null(strstr(quire_error_text(), "could not take"));
    assert_int_equal(quire_peer_send(peer, small, NULL, TIMEOUT_US), QUIRE_OK);
    assert_int_equal(exit_of(child), 0);
    quire_peer_close(peer);
    quire_cache_close(cache);
}

static void a_prefix_goes_to_many_and_one_that_dies_holds_nobody_up(void **state)
{
    int32_t tokens[TOKENS];
    pid_t children[3];
    quire_peer *peers[3];
    quire_status results[3];
    (void)state;
    small_tokens(tokens, TOKENS, 1000);
    quire_cache *cache = cache_on("sim:4", 128, 16);
    quire_seq seq = prefill(cache, tokens, TOKENS);
    for (int i = 0; i < 3; i++) {
        task t = {.device = "host", .device_blocks = 128, .tokens = tokens, .count = TOKENS,
                  .die_after = i == 1 ? 9000 : 0};
        peers[i] = peer_over(cache, in_child(child_receives, t, &children[i]));
        assert_non_null(peers[i]);
    }
    assert_int_equal(quire_peer_broadcast(peers, 3, seq, results, TIMEOUT_US), QUIRE_EPEER);
    assert_int_equal(results[0], QUIRE_OK);
    assert_int_equal(results[1], QUIRE_EPEER);
    assert_int_equal(results[2], QUIRE_OK);
    quire_peer_close(peers[1]);
    peers[1] = peers[2];
    assert_int_equal(quire_peer_broadcast(peers, 2, seq, results, TIMEOUT_US), QUIRE_OK);
    assert_int_equal(exit_of(children[0]), 0);
    assert_int_equal(exit_of(children[1]), 1000 + SIGKILL);
    assert_int_equal(exit_of(children[2]), 0);
    quire_peer_close(peers[0]);
    quire_peer_close(peers[1]);
    close_swept(cache);
}

static int child_differs(const task *t)
{
    quire_options options;
    quire_group group;
    quire_cache *cache = NULL;
    quire_transport transport;
    quire_peer *peer = NULL;

    small_options(&options, &group, 8, 0);
    group.head_dim = 16;
    options.device_bytes *= 2;
    if (quire_cache_open(&cache, &options) != QUIRE_OK || quire_transport_socket(&transport, t->socket) != QUIRE_OK)
        return 2;
    return quire_peer_open(&peer, cache, &transport, TIMEOUT_US) == QUIRE_EINVAL && peer == NULL ? 0 : 3;
}

static void caches_of_another_geometry_do_not_meet(void **state)
{
    pid_t child;
    quire_transport transport;
    quire_peer *peer = NULL;
    (void)state;
    int socket = in_child(child_differs, (task){0}, &child);
    quire_cache *cache = cache_on("host", 8, 0);
    assert_int_equal(quire_transport_socket(&transport, socket), QUIRE_OK);
    assert_int_equal(quire_peer_open(&peer, cache, &transport, TIMEOUT_US), QUIRE_EINVAL);
    assert_non_null(strstr(quire_error_text(), "head_dim: 8 here, 16 there"));
    transport.close(transport.user);
    assert_int_equal(exit_of(child), 0);
    quire_cache_close(cache);
}

static int child_is_silent(const task *t)
{
    bad_link link = {0};
    quire_transport transport = bad_transport(&link, t->socket);
    quire_cache *cache = cache_on("host", 8, 0);
    quire_peer *peer = NULL;
    char byte;
    if (quire_peer_open(&peer, cache, &transport, TIMEOUT_US) != QUIRE_OK)
        return 2;
    while (link.inside.receive(link.inside.user, &byte, 1, TIMEOUT_US) == QUIRE_OK)
        ; /* until the other side closes */
    return 0;
}

static void *cancel_it(void *peer)
{
    usleep(20000);
    quire_peer_cancel(peer);
    return NULL;
}

static void silence_ends_by_the_timeout_or_a_cancel(void **state)
{
    int32_t tokens[8];
    (void)state;
    small_tokens(tokens, 8, 1);
    for (int cancelled = 0; cancelled < 2; cancelled++) {
        pid_t child;
        pthread_t thread;
        quire_seq seq = 0;
        int socket = in_child(child_is_silent, (task){0}, &child);
        quire_cache *cache = cache_on("host", 8, 0);
        quire_peer *peer = peer_over(cache, socket);
        if (cancelled)
            assert_int_equal(pthread_create(&thread, NULL, cancel_it, peer), 0);
        quire_status status = quire_peer_receive(peer, &seq, NULL, cancelled ? TIMEOUT_US : 20000);
        assert_int_equal(status, cancelled ? QUIRE_EPEER : QUIRE_ETIMEOUT);
        if (cancelled)
            assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(quire_peer_send(peer, prefill(cache, tokens, 8), NULL, TIMEOUT_US), QUIRE_EPEER);
        quire_peer_close(peer);
        assert_int_equal(exit_of(child), 0);
        assert_int_equal(quire_cache_check(cache), QUIRE_OK);
        quire_cache_close(cache);
    }
}

static void wrong_calls_are_refused_with_a_reason(void **state)
{
    quire_transport transport = {0};
    quire_peer *peer = NULL, *peers[2];
    quire_seq seq = 0;
    pid_t child;
    quire_step *step;
    (void)state;
    assert_int_equal(quire_transport_socket(&transport, STDERR_FILENO), QUIRE_EINVAL);
    quire_cache *cache = cache_on("host", 8, 0);
    assert_int_equal(quire_peer_open(&peer, cache, &transport, 1), QUIRE_EINVAL);
    peer = peer_over(cache, in_child(child_is_silent, (task){0}, &child));
    assert_int_equal(quire_peer_send(peer, small_open(cache, 0), NULL, 1), QUIRE_EINVAL);
    assert_non_null(strstr(quire_error_text(), "empty"));
    assert_int_equal(quire_peer_send(peer, 12345, NULL, 1), QUIRE_ESTALE);
    assert_int_equal(quire_peer_send(NULL, seq, NULL, 1), QUIRE_EINVAL);
    peers[0] = peers[1] = peer;
    assert_int_equal(quire_peer_broadcast(peers, 2, seq, NULL, 1), QUIRE_EINVAL);
    assert_int_equal(quire_step_begin(cache, NULL, &step), QUIRE_OK);
    assert_int_equal(quire_peer_receive(peer, &seq, NULL, 1), QUIRE_ESTATE);
    quire_step_cancel(step);
    assert_int_equal(quire_peer_receive(peer, NULL, NULL, 1), QUIRE_EINVAL);
    quire_peer_close(peer);
    quire_peer_close(NULL);
    assert_int_equal(exit_of(child), 0);
    quire_cache_close(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sequence_arrives_in_another_process_byte_for_byte),
        cmocka_unit_test(a_receiver_that_dies_is_an_error_and_harms_nothing),
        cmocka_unit_test(a_sender_that_dies_leaves_what_was_verified),
        cmocka_unit_test(a_changed_byte_is_found),
        cmocka_unit_test(a_cache_that_is_too_small_refuses_and_the_link_goes_on),
        cmocka_unit_test(a_prefix_goes_to_many_and_one_that_dies_holds_nobody_up),
        cmocka_unit_test(caches_of_another_geometry_do_not_meet),
        cmocka_unit_test(silence_ends_by_the_timeout_or_a_cancel),
        cmocka_unit_test(wrong_calls_are_refused_with_a_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
