#define _GNU_SOURCE 1
#include "address.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

typedef struct place {
    struct sockaddr_storage at;
    socklen_t length;
    const char *path; /* of a Unix socket, else NULL */
} place;

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static int find_unix(const char *path, place *out, const char *address, infer_error *error)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    if (!*path || strlen(path) >= sizeof un.sun_path)
        return infer_fail(error, "the address \"%s\" needs a path of 1 to %zu bytes behind unix:", address,
                          sizeof un.sun_path - 1);
    strcpy(un.sun_path, path);
    memcpy(&out->at, &un, sizeof un);
    out->length = sizeof un;
    out->path = path;
    return 0;
}

static int find(const char *address, place *out, infer_error *error)
{
    struct addrinfo wanted = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM }, *found;
    char host[256];
    const char *colon = strrchr(address, ':');
    memset(out, 0, sizeof *out);
    if (!strncmp(address, "unix:", 5)) return find_unix(address + 5, out, address, error);
    if (!colon || colon == address || !colon[1] || (size_t)(colon - address) >= sizeof host)
        return infer_fail(error, "the address \"%s\" must be unix:PATH or HOST:PORT", address);
    snprintf(host, sizeof host, "%.*s", (int)(colon - address), address);
    int status = getaddrinfo(host, colon + 1, &wanted, &found);
    if (status) return infer_fail(error, "the address \"%s\": %s", address, gai_strerror(status));
    memcpy(&out->at, found->ai_addr, found->ai_addrlen);
    out->length = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

/* Small messages are not to wait for more of them. */
static void hurry(const place *p, int connected)
{
    int one = 1;
    if (!p->path) (void)setsockopt(connected, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static int listen_there(const place *p, const char *address, infer_error *error)
{
    int one = 1, s = socket(p->at.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s < 0) return infer_fail(error, "no socket for %s: %s", address, strerror(errno));
    if (p->path) (void)unlink(p->path);
    else (void)setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(s, (const struct sockaddr *)&p->at, p->length) || listen(s, 1)) {
        infer_fail(error, "cannot wait at %s: %s", address, strerror(errno));
        close(s);
        return -1;
    }
    return s;
}

int address_await(const char *address, uint64_t timeout_us, int *out, infer_error *error)
{
    place p;
    uint64_t end = now_us() + timeout_us;
    if (find(address, &p, error)) return -1;
    int door = listen_there(&p, address, error), taken = -1;
    if (door < 0) return -1;
    for (uint64_t now = now_us(); taken < 0 && now < end; now = now_us()) {
        struct pollfd wanted = { .fd = door, .events = POLLIN };
        uint64_t left_ms = (end - now + 999) / 1000;
        if (poll(&wanted, 1, left_ms < 1000 ? (int)left_ms : 1000) > 0) taken = accept4(door, NULL, NULL, SOCK_CLOEXEC);
    }
    close(door);
    if (p.path) (void)unlink(p.path);
    if (taken < 0) return infer_fail(error, "nobody came to %s in time", address);
    hurry(&p, taken);
    *out = taken;
    return 0;
}

int address_reach(const char *address, uint64_t timeout_us, int *out, infer_error *error)
{
    place p;
    uint64_t end = now_us() + timeout_us;
    if (find(address, &p, error)) return -1;
    for (;;) {
        int s = socket(p.at.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (s < 0) return infer_fail(error, "no socket for %s: %s", address, strerror(errno));
        if (connect(s, (const struct sockaddr *)&p.at, p.length) == 0) {
            hurry(&p, s);
            *out = s;
            return 0;
        }
        int reason = errno;
        close(s);
        if (now_us() >= end) return infer_fail(error, "nobody waits at %s: %s", address, strerror(reason));
        nanosleep(&(struct timespec){ .tv_nsec = 20 * 1000 * 1000 }, NULL);
    }
}
