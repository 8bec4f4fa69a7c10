// SPDX-License-Identifier: Apache-2.0
//
// A real etcd on loopback, with its data below the test's directory; it dies with the test. And a proxy before it, which is
// told what to do to the connections that go through it.

#ifndef SHELF_TEST_ETCD_FIXTURE_H
#define SHELF_TEST_ETCD_FIXTURE_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cmocka_program.h"
#include "world/world.h"

#define UNUSED __attribute__((unused))

#define PATIENCE_NS \
    ((uint64_t)30 * 1000000000) // for what must come; nothing waits that long when all is well

// ---- Sockets

// Listens on a free port of loopback.
UNUSED static int listener_open(uint16_t *port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(*port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 64), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

UNUSED static int port_connect(uint16_t port) { // -1: refused
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        close(fd);
        return -1;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return fd;
}

// One POST on a connection of its own; the whole answer with its headers. Empty: it cannot be reached.
UNUSED static void port_post(uint16_t port, const char *path, const char *token, const char *body,
                             char *ret_answer, size_t answer_size) {
    char request[4096];
    size_t size = 0;
    int fd = port_connect(port);
    ret_answer[0] = 0;
    if (fd < 0) {
        return;
    }
    snprintf(request, sizeof(request),
             "POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n%s%s%s\r\n%s", path,
             strlen(body), token ? "Authorization: " : "", token ? token : "", token ? "\r\n" : "", body);
    if (send(fd, request, strlen(request), MSG_NOSIGNAL) == (ssize_t)strlen(request)) {
        ssize_t part;
        while (size < answer_size - 1 &&
               (part = recv(fd, ret_answer + size, answer_size - 1 - size, 0)) > 0) {
            size += (size_t)part;
        }
    }
    ret_answer[size] = 0;
    close(fd);
}

// ---- etcd

struct etcd_server {
    char directory[512];
    uint16_t port, peer_port;
    pid_t pid;
    bool tls; // with a certificate that it makes itself
};

UNUSED static bool etcd_answers(const struct etcd_server *server) {
    char answer[2048];
    if (server->tls) { // whoever asks has to wait until it can answer
        int fd = port_connect(server->port);
        if (fd >= 0) {
            close(fd);
        }
        return fd >= 0;
    }
    port_post(server->port, "/v3/kv/range", NULL, "{\"key\":\"eA==\"}", answer, sizeof(answer));
    // With users switched on it refuses to say anything, which is an answer as well.
    return strstr(answer, " 200 OK") != NULL || strstr(answer, "user name is empty") != NULL;
}

// False: it ended, for instance because somebody else has taken the port meanwhile.
static bool etcd_try(struct etcd_server *server) {
    char client[64], peer[64], cluster[80];
    snprintf(client, sizeof(client), "%s://127.0.0.1:%u", server->tls ? "https" : "http", server->port);
    snprintf(peer, sizeof(peer), "http://127.0.0.1:%u", server->peer_port);
    snprintf(cluster, sizeof(cluster), "default=%s", peer);
    server->pid = fork();
    assert_true(server->pid >= 0);
    if (server->pid == 0) {
        int null = open("/dev/null", O_RDWR);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)dup2(null, 0);
        (void)dup2(null, 1);
        if (!getenv("SHELF_TEST_ETCD_LOG")) {
            (void)dup2(null, 2);
        }
        execlp("etcd", "etcd", "--data-dir", server->directory, "--listen-client-urls", client,
               "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls",
               peer, "--initial-cluster", cluster, "--logger", "zap", "--log-level", "error",
               "--heartbeat-interval", "20", "--election-timeout", "200",
               server->tls ? "--auto-tls" : "--auto-tls=false", (char *)NULL);
        _exit(127);
    }
    uint64_t end = world_monotonic_ns() + PATIENCE_NS;
    int status;
    while (!etcd_answers(server)) {
        if (waitpid(server->pid, &status, WNOHANG) == server->pid) {
            assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 127); // etcd-server is not installed
            return false;
        }
        assert_true(world_monotonic_ns() < end);
        (void)poll(NULL, 0, 10);
    }
    return true;
}

// On the ports it had before, if any.
UNUSED static void etcd_start(struct etcd_server *server) {
    for (int tries = 0; tries < 20; tries++) {
        if (server->port == 0) {
            int fds[2] = {listener_open(&server->port), listener_open(&server->peer_port)};
            close(fds[0]);
            close(fds[1]);
        }
        if (etcd_try(server)) {
            return;
        }
        (void)poll(NULL, 0, 50);
    }
    fail_msg("etcd does not start");
}

UNUSED static void etcd_stop(struct etcd_server *server, int signal_number) {
    int status;
    if (server->pid > 0) {
        assert_int_equal(kill(server->pid, signal_number), 0);
        assert_int_equal(waitpid(server->pid, &status, 0), server->pid);
        server->pid = 0;
    }
}

// Afterwards none of its threads runs any more.
UNUSED static void etcd_pause(const struct etcd_server *server) {
    int status;
    assert_int_equal(kill(server->pid, SIGSTOP), 0);
    assert_int_equal(waitpid(server->pid, &status, WUNTRACED), server->pid);
    assert_true(WIFSTOPPED(status));
}

// ---- Proxy

enum proxy_mode {
    PROXY_PASS,
    PROXY_REFUSE,      // connections are closed at once
    PROXY_CUT_REQUEST, // a request is read and thrown away with its connection
    PROXY_CUT_ANSWER,  // a request gets through, its answer does not
    PROXY_HOLD,        // requests wait here, also when the client has given up, until the mode is PASS again
};

#define PROXY_CONNECTIONS_MAX 64
struct proxy_connection {
    int client, server; // -1: closed
    bool watch, muted;  // muted: nothing of what the server says gets through
    size_t held;
    char bytes[65536];
};
struct proxy {
    uint16_t port, target;
    _Atomic int mode;
    _Atomic bool cut;  // all connections, once
    _Atomic bool mute; // the watches there are, once
    _Atomic uint32_t muted, muted_closed;
    _Atomic bool ends;
    _Atomic uint32_t requests; // pieces of requests that were seen in other modes than PASS
    int listener;
    pthread_t thread;
    struct proxy_connection *connections;
};

static void proxy_close(struct proxy_connection *connection) {
    if (connection->client >= 0) {
        close(connection->client);
    }
    if (connection->server >= 0) {
        close(connection->server);
    }
    connection->client = connection->server = -1;
    connection->held = 0;
}

static bool all_send(int fd, const char *bytes, size_t size) {
    while (size > 0) {
        ssize_t part = send(fd, bytes, size, MSG_NOSIGNAL);
        if (part <= 0) {
            return false;
        }
        bytes += part;
        size -= (size_t)part;
    }
    return true;
}

static void proxy_accept(struct proxy *proxy) {
    int client = accept4(proxy->listener, NULL, NULL, SOCK_CLOEXEC), one = 1;
    if (client < 0) {
        return;
    }
    int server = atomic_load(&proxy->mode) == PROXY_REFUSE ? -1 : port_connect(proxy->target);
    for (size_t i = 0; server >= 0 && i < PROXY_CONNECTIONS_MAX; i++) {
        struct proxy_connection *connection = &proxy->connections[i];
        if (connection->client < 0 && connection->server < 0) {
            (void)setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
            connection->client = client;
            connection->server = server;
            connection->watch = connection->muted = false;
            return;
        }
    }
    close(client);
    if (server >= 0) {
        close(server);
    }
}

static void proxy_from_client(struct proxy *proxy, struct proxy_connection *connection, int mode) {
    ssize_t size = recv(connection->client, connection->bytes + connection->held,
                        sizeof(connection->bytes) - connection->held, 0);
    if (size <= 0) {
        atomic_fetch_add(&proxy->muted_closed, connection->muted);
        close(connection->client);
        connection->client = -1;
        if (connection->held == 0) {
            proxy_close(connection);
        }
        return;
    }
    connection->held += (size_t)size;
    connection->watch = memmem(connection->bytes, connection->held, "/v3/watch", 9) != NULL;
    if (mode == PROXY_CUT_REQUEST || mode == PROXY_REFUSE) {
        proxy_close(connection);
    } else if (mode != PROXY_HOLD) {
        if (!all_send(connection->server, connection->bytes, connection->held)) {
            proxy_close(connection);
        }
        connection->held = 0;
    }
    if (mode != PROXY_PASS) {
        atomic_fetch_add(&proxy->requests, 1);
    }
}

static void proxy_from_server(struct proxy_connection *connection, int mode) {
    char bytes[65536];
    ssize_t size = recv(connection->server, bytes, sizeof(bytes), 0);
    if (size > 0 && connection->muted) {
        return;
    }
    bool pass = size > 0 && (mode == PROXY_PASS || mode == PROXY_HOLD) && connection->client >= 0;
    if (!pass || !all_send(connection->client, bytes, (size_t)size)) {
        proxy_close(connection);
    }
}

static void proxy_turn(struct proxy *proxy) {
    struct pollfd fds[1 + 2 * PROXY_CONNECTIONS_MAX];
    fds[0] = (struct pollfd){.fd = proxy->listener, .events = POLLIN};
    int mode = atomic_load(&proxy->mode);
    for (size_t i = 0; i < PROXY_CONNECTIONS_MAX; i++) {
        struct proxy_connection *connection = &proxy->connections[i];
        if (mode == PROXY_PASS && connection->held > 0) { // late, but there
            bool sent = all_send(connection->server, connection->bytes, connection->held);
            connection->held = 0;
            if (!sent) {
                proxy_close(connection);
            }
        }
        fds[1 + 2 * i] = (struct pollfd){.fd = connection->client, .events = POLLIN};
        fds[2 + 2 * i] = (struct pollfd){.fd = connection->server, .events = POLLIN};
    }
    (void)poll(fds, 1 + 2 * PROXY_CONNECTIONS_MAX, 2);
    mode = atomic_load(&proxy->mode);
    bool cut = atomic_exchange(&proxy->cut, false), mute = atomic_exchange(&proxy->mute, false);
    for (size_t i = 0; i < PROXY_CONNECTIONS_MAX; i++) {
        struct proxy_connection *connection = &proxy->connections[i];
        if (cut) {
            proxy_close(connection);
            continue;
        }
        if (mute && connection->client >= 0 && connection->watch) {
            connection->muted = true;
            atomic_fetch_add(&proxy->muted, 1);
        }
        if (fds[2 + 2 * i].fd >= 0 && fds[2 + 2 * i].revents) {
            proxy_from_server(connection, mode);
        }
        if (connection->client >= 0 && fds[1 + 2 * i].fd == connection->client && fds[1 + 2 * i].revents) {
            proxy_from_client(proxy, connection, mode);
        }
    }
    if (fds[0].revents) {
        proxy_accept(proxy);
    }
}

static void *proxy_main(void *context) {
    struct proxy *proxy = context;
    while (!atomic_load(&proxy->ends)) {
        proxy_turn(proxy);
    }
    return NULL;
}

UNUSED static struct proxy *proxy_start(uint16_t target) {
    struct proxy *proxy = calloc(1, sizeof(*proxy));
    assert_non_null(proxy);
    proxy->connections = calloc(PROXY_CONNECTIONS_MAX, sizeof(*proxy->connections));
    assert_non_null(proxy->connections);
    for (size_t i = 0; i < PROXY_CONNECTIONS_MAX; i++) {
        proxy->connections[i].client = proxy->connections[i].server = -1;
    }
    proxy->target = target;
    proxy->listener = listener_open(&proxy->port);
    assert_int_equal(pthread_create(&proxy->thread, NULL, proxy_main, proxy), 0);
    return proxy;
}

UNUSED static void proxy_stop(struct proxy *proxy) {
    atomic_store(&proxy->ends, true);
    assert_int_equal(pthread_join(proxy->thread, NULL), 0);
    for (size_t i = 0; i < PROXY_CONNECTIONS_MAX; i++) {
        proxy_close(&proxy->connections[i]);
    }
    close(proxy->listener);
    free(proxy->connections);
    free(proxy);
}

// Waits until so many pieces of requests have come to the proxy since it last was in mode PASS.
UNUSED static void proxy_requests_wait(struct proxy *proxy, uint32_t count) {
    uint64_t end = world_monotonic_ns() + PATIENCE_NS;
    while (atomic_load(&proxy->requests) < count) {
        assert_true(world_monotonic_ns() < end);
        (void)poll(NULL, 0, 1);
    }
}

#endif
