/* transport_socket.c: a connected stream socket as a transport. Non-blocking, with poll() up to the deadline; a pipe to
 * itself wakes a poll that is to be interrupted. */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/status.h"
#include "quire/quire_peer.h"

enum { LONGEST_POLL_MS = 1000 * 1000 };

typedef struct socket_link {
    int socket;
    int wake[2]; /* a byte in it: interrupted, for good */
} socket_link;

/* Waits until the socket can go on. */
static quire_status link_wait(const socket_link *link, short events, uint64_t deadline_us, const char *doing)
{
    for (;;) {
        uint64_t now = quire__clock_us();
        uint64_t left_ms = now < deadline_us ? (deadline_us - now + 999) / 1000 : 0;
        struct pollfd wanted[2] = {{.fd = link->socket, .events = events}, {.fd = link->wake[0], .events = POLLIN}};
        int ready = poll(wanted, 2, left_ms < LONGEST_POLL_MS ? (int)left_ms : LONGEST_POLL_MS);
        if (ready < 0 && errno != EINTR)
            return quire__fail(QUIRE_EPEER, "poll: %s", strerror(errno));
        if (ready > 0 && wanted[1].revents != 0)
            return quire__fail(QUIRE_EPEER, "the link was interrupted");
        if (ready > 0)
            return QUIRE_OK;
        if (quire__clock_us() >= deadline_us)
            return quire__fail(QUIRE_ETIMEOUT, "%s the other side did not end in time", doing);
    }
}

static bool passing(int error)
{
    return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

static uint64_t deadline_of(uint64_t timeout_us)
{
    uint64_t now = quire__clock_us();
    return timeout_us < UINT64_MAX - now ? now + timeout_us : UINT64_MAX;
}

static quire_status link_send(void *user, const void *data, size_t bytes, uint64_t timeout_us)
{
    const socket_link *link = user;
    uint64_t deadline = deadline_of(timeout_us);
    for (const char *at = data; bytes > 0;) {
        QUIRE__TRY(link_wait(link, POLLOUT, deadline, "sending to"));
        ssize_t sent = send(link->socket, at, bytes, MSG_NOSIGNAL);
        if (sent < 0 && !passing(errno))
            return quire__fail(QUIRE_EPEER, "sending to the other side: %s", strerror(errno));
        if (sent > 0) {
            at += sent;
            bytes -= (size_t)sent;
        }
    }
    return QUIRE_OK;
}

static quire_status link_receive(void *user, void *data, size_t bytes, uint64_t timeout_us)
{
    const socket_link *link = user;
    uint64_t deadline = deadline_of(timeout_us);
    for (char *at = data; bytes > 0;) {
        QUIRE__TRY(link_wait(link, POLLIN, deadline, "receiving from"));
        ssize_t got = recv(link->socket, at, bytes, 0);
        if (got == 0)
            return quire__fail(QUIRE_EPEER, "the other side has closed the link");
        if (got < 0 && !passing(errno))
            return quire__fail(QUIRE_EPEER, "receiving from the other side: %s", strerror(errno));
        if (got > 0) {
            at += got;
            bytes -= (size_t)got;
        }
    }
    return QUIRE_OK;
}

static void link_interrupt(void *user)
{
    const socket_link *link = user;
    while (write(link->wake[1], "", 1) < 0 && errno == EINTR)
        ; /* a full pipe is as good */
}

static void link_close(void *user)
{
    socket_link *link = user;
    close(link->socket);
    close(link->wake[0]);
    close(link->wake[1]);
    free(link);
}

quire_status quire_transport_socket(quire_transport *transport, int socket)
{
    int type = 0;
    socklen_t length = sizeof type;
    if (transport == NULL)
        return quire__fail(QUIRE_EINVAL, "transport must not be NULL");
    if (getsockopt(socket, SOL_SOCKET, SO_TYPE, &type, &length) != 0 || type != SOCK_STREAM)
        return quire__fail(QUIRE_EINVAL, "file descriptor %d is not a stream socket", socket);
    socket_link *link = calloc(1, sizeof *link);
    if (link == NULL)
        return quire__fail(QUIRE_ENOMEM, "no memory for a transport");
    if (pipe2(link->wake, O_CLOEXEC | O_NONBLOCK) != 0) {
        free(link);
        return quire__fail(QUIRE_ENOMEM, "no pipe for a transport: %s", strerror(errno));
    }
    link->socket = socket;
    if (fcntl(socket, F_SETFL, fcntl(socket, F_GETFL) | O_NONBLOCK) != 0) {
        close(link->wake[0]);
        close(link->wake[1]);
        free(link);
        return quire__fail(QUIRE_EINVAL, "the socket cannot be made non-blocking: %s", strerror(errno));
    }
    *transport = (quire_transport){.size = sizeof *transport,
                                   .user = link,
                                   .send = link_send,
                                   .receive = link_receive,
                                   .interrupt = link_interrupt,
                                   .close = link_close};
    return QUIRE_OK;
}
