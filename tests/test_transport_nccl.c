/* test_transport_nccl.c: the NCCL transport on one GPU: a communicator of one side, which sends to itself. Skipped where
 * there is no NCCL or no GPU; what must hold without them is tested anywhere. */
#include "support/testing.h"

#include <stdbool.h>
#include <string.h>

#include "base/hash.h"
#include "device/device.h"
#include "quire/quire_peer.h"

enum { TIMEOUT_US = 60 * 1000 * 1000, MOST_BYTES = 3 * 1024 * 1024 };

static unsigned char id[QUIRE_NCCL_ID_BYTES];

static quire_transport open_self(void)
{
    quire_transport transport;

    if (quire__device_cuda_count() == 0)
        SKIP_BECAUSE("no GPU here");
    if (quire_transport_nccl_id(id) == QUIRE_EUNSUPPORTED)
        SKIP_BECAUSE("%s", quire_error_text());
    if (quire_transport_nccl(&transport, id, 0, 0, 1, TIMEOUT_US) != QUIRE_OK)
        fail_msg("%s", quire_error_text());
    return transport;
}

static void what_is_sent_arrives_in_order_whatever_the_pieces(void **state)
{
    quire_transport t = open_self();
    uint64_t random = test_seed("nccl", 1);
    unsigned char *sent = malloc(MOST_BYTES), *got = malloc(MOST_BYTES);
    (void)state;
    for (int round = 0; round < 40; round++) {
        size_t bytes = round % 4 == 0 ? 1 + quire__random(&random) % MOST_BYTES : 1 + quire__random(&random) % 600;
        for (size_t i = 0; i < bytes; i++)
            sent[i] = (unsigned char)quire__random(&random);
        assert_int_equal(t.send(t.user, sent, bytes, TIMEOUT_US), QUIRE_OK);
        for (size_t at = 0; at < bytes;) { /* taken in other pieces than it was sent in */
            size_t some = 1 + quire__random(&random) % (bytes - at);
            assert_int_equal(t.receive(t.user, got + at, some, TIMEOUT_US), QUIRE_OK);
            at += some;
        }
        assert_memory_equal(sent, got, bytes);
    }
    t.close(t.user);
    free(sent);
    free(got);
}

static void silence_ends_by_the_timeout_and_the_link_is_gone(void **state)
{
    quire_transport t = open_self();
    char byte = 1;
    (void)state;
    assert_int_equal(t.receive(t.user, &byte, 1, 50 * 1000), QUIRE_ETIMEOUT);
    assert_int_equal(t.send(t.user, &byte, 1, TIMEOUT_US), QUIRE_EPEER);
    t.close(t.user);
}

static void an_interrupted_link_says_so(void **state)
{
    quire_transport t = open_self();
    char byte = 1;
    (void)state;
    t.interrupt(t.user);
    assert_int_equal(t.receive(t.user, &byte, 1, TIMEOUT_US), QUIRE_EPEER);
    t.close(t.user);
}

static void what_cannot_be_is_refused_with_a_reason(void **state)
{
    quire_transport transport;
    quire_status status = quire_transport_nccl_id(id);
    (void)state;
    assert_true(status == QUIRE_OK || status == QUIRE_EDEVICE || status == QUIRE_EUNSUPPORTED);
    if (status == QUIRE_EUNSUPPORTED) {
        assert_non_null(strstr(quire_error_text(), "NCCL"));
        assert_int_equal(quire_transport_nccl(&transport, id, 0, 0, 1, 1), QUIRE_EUNSUPPORTED);
        return;
    }
    assert_int_equal(quire_transport_nccl_id(NULL), QUIRE_EINVAL);
    assert_int_equal(quire_transport_nccl(&transport, id, 0, 2, 2, 1), QUIRE_EINVAL);
    assert_int_equal(quire_transport_nccl(&transport, NULL, 0, 0, 1, 1), QUIRE_EINVAL);
    assert_int_equal(quire_transport_nccl(&transport, id, 1000, 0, 1, 1), QUIRE_EUNSUPPORTED);
    assert_non_null(strstr(quire_error_text(), "no GPU 1000"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_sent_arrives_in_order_whatever_the_pieces),
        cmocka_unit_test(silence_ends_by_the_timeout_and_the_link_is_gone),
        cmocka_unit_test(an_interrupted_link_says_so),
        cmocka_unit_test(what_cannot_be_is_refused_with_a_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
