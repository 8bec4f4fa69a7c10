// SPDX-License-Identifier: Apache-2.0
// loopback.c: TCP between processes of this machine.
#include "bench.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int listener_open(struct sockaddr_in *ret_address) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof(address)) || listen(fd, 1) ||
        getsockname(fd, (struct sockaddr *)&address, &size))
        fail("cannot listen on loopback: %s", strerror(errno));
    *ret_address = address;
    return fd;
}

uint16_t loopback_port(void) {
    struct sockaddr_in address;
    (void)close(listener_open(&address));
    return ntohs(address.sin_port);
}

void loopback_pair(int ret_fds[2]) {
    struct sockaddr_in address;
    int listener = listener_open(&address), one = 1;
    ret_fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (ret_fds[0] < 0 || connect(ret_fds[0], (const struct sockaddr *)&address, sizeof(address)))
        fail("cannot connect over loopback: %s", strerror(errno));
    ret_fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (ret_fds[1] < 0)
        fail("cannot accept over loopback: %s", strerror(errno));
    for (size_t i = 0; i < 2; i++)
        (void)setsockopt(ret_fds[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    (void)close(listener);
}

void loopback_send(int fd, const void *bytes, size_t size) {
    const char *from = bytes;
    while (size > 0) {
        ssize_t part = send(fd, from, size, MSG_NOSIGNAL);
        if (part < 0 && errno == EINTR)
            continue;
        if (part < 0)
            fail("cannot send over loopback: %s", strerror(errno));
        from += part;
        size -= (size_t)part;
    }
}

bool loopback_receive(int fd, void *bytes, size_t size) {
    char *to = bytes;
    while (size > 0) {
        ssize_t part = recv(fd, to, size, MSG_WAITALL);
        if (part < 0 && errno == EINTR)
            continue;
        if (part < 0)
            fail("cannot receive over loopback: %s", strerror(errno));
        if (part == 0)
            return false;
        to += part;
        size -= (size_t)part;
    }
    return true;
}

double loopback_rate(uint64_t size) {
    static unsigned char chunk[1 << 20];
    int fds[2];
    unsigned char all = 1;
    loopback_pair(fds);
    pid_t process = process_begin();
    if (process == 0) {
        for (uint64_t at = 0; at < size; at += sizeof(chunk))
            if (!loopback_receive(fds[1], chunk, sizeof(chunk)))
                _exit(1);
        loopback_send(fds[1], &all, 1);
        _exit(0);
    }
    uint64_t start = now_ns(), sent = 0;
    for (; sent < size; sent += sizeof(chunk))
        loopback_send(fds[0], chunk, sizeof(chunk));
    (void)close(fds[1]);
    if (!loopback_receive(fds[0], &all, 1))
        fail("the receiver has ended");
    double rate = (double)sent / ((double)(now_ns() - start) / 1e9);
    (void)close(fds[0]);
    process_end(process);
    return rate;
}
