// SPDX-License-Identifier: Apache-2.0
/* peer_net.c: the table of peers, their status, and the round of work. See peer_net.h and peer_state.h. */
#include "peer/peer_net.h"

#include <errno.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "peer/peer_state.h"

#define EVENTS_MAX 64

/* ---- Small things --------------------------------------------------------------------------------------------------- */

uint64_t peer_now_ns(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void peer_text(char ret_text[PEER_TEXT_MAX], const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(ret_text, PEER_TEXT_MAX, format, arguments);
    va_end(arguments);
}

void peer_wake(const struct peer_net *net) {
    uint64_t one = 1;
    (void)!write(net->wake_fd, &one, sizeof(one));
}

bool peer_event_add(const struct peer_net *net, int fd, uint32_t events, enum event_kind kind, uint32_t slot,
                    uint32_t serial) {
    struct epoll_event event = {.events = events,
                                .data.u64 = (uint64_t)kind << 56 | (uint64_t)slot << 32 | serial};
    return epoll_ctl(net->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

/* A connection that says nothing may be half open: the kernel asks, and gives up what is not acknowledged. */
void peer_socket_options_set(int fd) {
    static const struct {
        int level, name, value;
    } options[] = {{IPPROTO_TCP, TCP_NODELAY, 1},  {SOL_SOCKET, SO_KEEPALIVE, 1},
                   {IPPROTO_TCP, TCP_KEEPIDLE, 2}, {IPPROTO_TCP, TCP_KEEPINTVL, 2},
                   {IPPROTO_TCP, TCP_KEEPCNT, 3},  {IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS}};
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        (void)setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof(options[i].value));
    }
}

bool peer_hello_good(const struct peer_net *net, const uint8_t *hello, const char *who,
                     char ret_text[PEER_TEXT_MAX]) {
    struct peer_header header;
    struct peer_message message;
    size_t body_size = 0;
    memcpy(&header, hello, sizeof(header));
    if (!peer_header_whole(hello)) {
        peer_text(ret_text, "%s is no node of a shelf, or what it said was damaged", who);
    } else if (header.version != PEER_VERSION) {
        peer_text(ret_text, "%s speaks version %u of the protocol, this node version %u", who, header.version,
                  PEER_VERSION);
    } else if (memcmp(header.cluster, net->cluster, sizeof(header.cluster)) != 0) {
        peer_text(ret_text, "%s belongs to another cluster", who);
    } else if (header.group != net->group) {
        peer_text(ret_text, "%s is of group %u, this node of group %u", who, header.group, net->group);
    } else if (header.kind != PEER_HELLO) {
        peer_text(ret_text, "%s did not say HELLO first", who);
    } else {
        const char *problem = peer_header_decode(hello, net->cluster, net->group, &body_size);
        problem = problem ? problem : peer_decode(hello, NULL, &message);
        if (!problem) {
            return true;
        }
        peer_text(ret_text, "%s says HELLO, but: %s", who, problem);
    }
    return false;
}

/* ---- Opening and closing ------------------------------------------------------------------------------------------- */

/* The first address that can be had. */
static bool listen_at(struct peer_net *net, const struct peer_place *place) {
    for (uint32_t i = 0; i < place->count; i++) {
        const struct peer_socket_address *address = &place->addresses[i];
        int one = 1, fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0) {
            continue;
        }
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        if (bind(fd, &address->any, address->size) == 0 && listen(fd, SOMAXCONN) == 0) {
            net->listen_fd = fd;
            return true;
        }
        int error = errno;
        (void)close(fd);
        errno = error;
    }
    return false;
}

static uint16_t port_of(int fd) {
    struct peer_socket_address address = {.size = sizeof(address.storage)};
    (void)getsockname(fd, &address.any, &address.size);
    return ntohs(address.any.sa_family == AF_INET6 ? address.v6.sin6_port : address.v4.sin_port);
}

static shelf_result net_listen(struct peer_net *net, const char *address, char ret_text[PEER_TEXT_MAX]) {
    char host[PEER_HOST_MAX], port[PEER_PORT_MAX];
    struct peer_place place;
    const char *problem = peer_address_split(address, host, port);
    if (problem) {
        peer_text(ret_text, "%s: %s", address, problem);
        return SHELF_INVALID;
    }
    problem = peer_place_find(host, port, false, true, &place);
    if (problem) {
        peer_text(ret_text, "the address %s is not known: %s", address, problem);
        return SHELF_INVALID;
    }
    if (!listen_at(net, &place)) {
        peer_text(ret_text, "cannot listen at %s: %s. It must be an address of this machine and free",
                  address, strerror(errno));
        return SHELF_IO;
    }
    (void)snprintf(net->address, sizeof(net->address), strchr(host, ':') ? "[%s]:%u" : "%s:%u", host,
                   port_of(net->listen_fd));
    return SHELF_OK;
}

static shelf_result events_open(struct peer_net *net, char ret_text[PEER_TEXT_MAX]) {
    net->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    net->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (net->epoll_fd < 0 || net->wake_fd < 0 ||
        !peer_event_add(net, net->wake_fd, EPOLLIN, EVENT_WAKE, 0, 0) ||
        !peer_event_add(net, net->listen_fd, EPOLLIN, EVENT_LISTEN, 0, 0)) {
        peer_text(ret_text, "cannot wait for the other nodes: %s", strerror(errno));
        return SHELF_IO;
    }
    return SHELF_OK;
}

static struct peer_net *net_new(const struct peer_net_options *options) {
    struct peer_net *net = calloc(1, sizeof(*net));
    if (!net) {
        return NULL;
    }
    net->group = options->group;
    net->node = options->node;
    net->queue_bytes_max = options->queue_bytes_max ? options->queue_bytes_max : QUEUE_BYTES;
    net->connect_ms = options->connect_ms ? options->connect_ms : CONNECT_PAUSE_MS;
    net->epoll_fd = net->listen_fd = net->wake_fd = -1;
    memcpy(net->cluster, options->cluster, sizeof(net->cluster));
    (void)pthread_mutex_init(&net->lock, NULL);
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        net->peers[i].fd = -1;
        (void)pthread_mutex_init(&net->peers[i].lock, NULL);
    }
    for (uint32_t i = 0; i < INS_MAX; i++) {
        net->ins[i].fd = -1;
    }
    uint8_t bytes[PEER_HEAD_BYTES_MAX];
    struct peer_message hello = {.kind = PEER_HELLO, .from = options->node};
    memcpy(hello.incarnation, options->incarnation, sizeof(hello.incarnation));
    size_t size = peer_encode(&hello, net->cluster, net->group, bytes);
    ASSERT(size == sizeof(net->hello));
    memcpy(net->hello, bytes, size);
    return net;
}

shelf_result peer_net_open(const struct peer_net_options *options, struct peer_net **ret_net,
                           char ret_text[PEER_TEXT_MAX]) {
    if (options->node == 0 || !options->address) {
        peer_text(ret_text, "a node has a number from 1 on and an address");
        return SHELF_INVALID;
    }
    struct peer_net *net = net_new(options);
    if (!net) {
        peer_text(ret_text, "there is no memory for the connections between nodes");
        return SHELF_NO_MEMORY;
    }
    shelf_result result = net_listen(net, options->address, ret_text);
    if (result == SHELF_OK) {
        result = events_open(net, ret_text);
    }
    if (result != SHELF_OK) {
        peer_net_close(net);
        return result;
    }
    *ret_net = net;
    return SHELF_OK;
}

void peer_net_close(struct peer_net *net) {
    const int fds[] = {net->epoll_fd, net->listen_fd, net->wake_fd};
    peer_in_close_all(net);
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        (void)pthread_mutex_lock(&net->peers[i].lock);
        peer_out_close(&net->peers[i]);
        (void)pthread_mutex_unlock(&net->peers[i].lock);
        (void)pthread_mutex_destroy(&net->peers[i].lock);
    }
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        if (fds[i] >= 0) {
            (void)close(fds[i]);
        }
    }
    (void)pthread_mutex_destroy(&net->lock);
    free(net);
}

const char *peer_net_address(const struct peer_net *net) {
    return net->address;
}

int peer_net_fd(const struct peer_net *net) {
    return net->epoll_fd;
}

/* ---- Peers ---------------------------------------------------------------------------------------------------------- */

struct peer *peer_find(struct peer_net *net, uint64_t node) {
    for (uint32_t i = 0; i < PEERS_MAX && node != 0; i++) {
        if (atomic_load_explicit(&net->peers[i].node, memory_order_relaxed) == node) {
            return &net->peers[i];
        }
    }
    return NULL;
}

/* With the net's lock. */
static struct peer *free_find(struct peer_net *net) {
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        if (atomic_load(&net->peers[i].node) == 0) {
            return &net->peers[i];
        }
    }
    return NULL;
}

/* With the peer's lock. */
static void peer_begin(struct peer *peer, uint64_t node) {
    peer->dropped = 0;
    peer->since_ns = peer_now_ns();
    peer->address[0] = 0;
    atomic_store(&peer->heard_ns, 0);
    atomic_store(&peer->gone, false);
    peer_text(peer->in_text, "node %llu has not connected to this node yet", (unsigned long long)node);
    atomic_fetch_add(&peer->life, 1);
    atomic_store(&peer->node, node);
}

/* With the peer's lock. */
static void peer_address_set(struct peer *peer, const char *address, const char *host, const char *port) {
    peer_out_close(peer);
    (void)snprintf(peer->address, sizeof(peer->address), "%s", address);
    (void)snprintf(peer->host, sizeof(peer->host), "%s", host);
    (void)snprintf(peer->port, sizeof(peer->port), "%s", port);
    peer->place.count = peer->place_next = 0;
    peer->attempt_ns = 0;
    peer_text(peer->out_text, "node %llu at %s was not tried yet",
              (unsigned long long)atomic_load(&peer->node), address);
}

shelf_result peer_net_peer_set(struct peer_net *net, uint64_t node, const char *address) {
    char host[PEER_HOST_MAX], port[PEER_PORT_MAX];
    if (node == 0 || node == net->node || strlen(address) >= PEER_ADDRESS_MAX ||
        peer_address_split(address, host, port) || strtoul(port, NULL, 10) == 0) {
        return SHELF_INVALID;
    }
    (void)pthread_mutex_lock(&net->lock);
    struct peer *known = peer_find(net, node), *peer = known ? known : free_find(net);
    if (peer) {
        (void)pthread_mutex_lock(&peer->lock);
        if (!known) {
            peer_begin(peer, node);
        }
        if (strcmp(peer->address, address) != 0) {
            peer_address_set(peer, address, host, port);
        }
        (void)pthread_mutex_unlock(&peer->lock);
    }
    (void)pthread_mutex_unlock(&net->lock);
    peer_wake(net);
    return peer ? SHELF_OK : SHELF_NO_MEMORY;
}

void peer_net_peer_remove(struct peer_net *net, uint64_t node) {
    (void)pthread_mutex_lock(&net->lock);
    struct peer *peer = peer_find(net, node);
    if (peer) {
        (void)pthread_mutex_lock(&peer->lock);
        peer_out_close(peer);
        peer->in_up = false;
        peer_connected_update(peer);
        atomic_store(&peer->node, 0);
        atomic_fetch_add(&peer->life, 1);
        (void)pthread_mutex_unlock(&peer->lock);
    }
    (void)pthread_mutex_unlock(&net->lock);
    peer_wake(net);
}

bool peer_net_send(struct peer_net *net, uint64_t node, const struct peer_message *message) {
    uint8_t head[PEER_HEAD_BYTES_MAX];
    struct peer *peer = peer_find(net, node);
    bool sent = false;
    ASSERT(message->from == net->node && message->kind != PEER_HELLO);
    if (!peer) {
        return false;
    }
    if (atomic_load(&peer->up)) { /* else the checksum would be for nothing */
        size_t head_size = peer_encode(message, net->cluster, net->group, head);
        (void)pthread_mutex_lock(&peer->lock);
        sent = atomic_load(&peer->node) == node &&
               peer_out_send(net, peer, head, head_size, message->body,
                             message->kind == PEER_PROMISE_ASK ? 0 : message->body_size);
    } else {
        (void)pthread_mutex_lock(&peer->lock);
    }
    if (!sent && atomic_load(&peer->node) == node) {
        peer->dropped++;
    }
    (void)pthread_mutex_unlock(&peer->lock);
    return sent;
}

uint64_t peer_net_gone_take(struct peer_net *net) {
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        if (atomic_load_explicit(&net->peers[i].gone, memory_order_relaxed) &&
            atomic_exchange(&net->peers[i].gone, false)) {
            return atomic_load(&net->peers[i].node);
        }
    }
    return 0;
}

/* ---- Status --------------------------------------------------------------------------------------------------------- */

void peer_connected_update(struct peer *peer) {
    bool connected = peer->state == OUT_UP && peer->in_up;
    if (connected != peer->connected) {
        peer->connected = connected;
        peer->since_ns = peer_now_ns();
    }
}

void peer_refused(struct peer_net *net, const char *text) {
    (void)pthread_mutex_lock(&net->lock);
    net->refused++;
    peer_text(net->refused_text, "%s", text);
    (void)pthread_mutex_unlock(&net->lock);
}

void peer_net_refused_get(struct peer_net *net, uint64_t *ret_count, char ret_text[PEER_TEXT_MAX]) {
    (void)pthread_mutex_lock(&net->lock);
    *ret_count = net->refused;
    peer_text(ret_text, "%s", net->refused_text);
    (void)pthread_mutex_unlock(&net->lock);
}

void peer_net_status_get(struct peer_net *net, uint64_t node, struct peer_net_status *ret_status) {
    struct peer *peer = peer_find(net, node);
    *ret_status = (struct peer_net_status){.heard_ms = UINT64_MAX};
    if (!peer) {
        return;
    }
    (void)pthread_mutex_lock(&peer->lock);
    if (atomic_load(&peer->node) == node) {
        uint64_t heard_ns = atomic_load(&peer->heard_ns), now_ns = peer_now_ns();
        ret_status->known = true;
        ret_status->connected = peer->connected;
        ret_status->for_ms = (now_ns - peer->since_ns) / 1000000;
        ret_status->heard_ms = heard_ns == 0        ? UINT64_MAX
                               : heard_ns >= now_ns ? 0
                                                    : (now_ns - heard_ns) / 1000000;
        ret_status->queued_bytes = peer->queued_bytes;
        ret_status->dropped = peer->dropped;
        peer_text(ret_status->text, "%s", peer->out_text[0] ? peer->out_text : peer->in_text);
    }
    (void)pthread_mutex_unlock(&peer->lock);
}

/* ---- Work ----------------------------------------------------------------------------------------------------------- */

static void event_do(struct peer_net *net, const struct epoll_event *event) {
    enum event_kind kind = event->data.u64 >> 56;
    uint32_t slot = event->data.u64 >> 32 & 0xffffff, serial = (uint32_t)event->data.u64;
    uint64_t count = 0;
    switch (kind) {
    case EVENT_WAKE:
        (void)!read(net->wake_fd, &count, sizeof(count));
        net->next_ns = 0;
        break;
    case EVENT_LISTEN:
        peer_in_accept(net);
        break;
    case EVENT_OUT:
        peer_out_event(net, &net->peers[slot], serial, event->events);
        break;
    case EVENT_IN: /* another event may have closed it */
        if (net->ins[slot].fd >= 0 && net->ins[slot].serial == serial) {
            peer_in_event(net, &net->ins[slot]);
        }
        break;
    }
}

static uint64_t accept_due(struct peer_net *net) {
    if (net->accept_ns != 0 && net->accept_ns <= net->now_ns) {
        bool again = peer_event_add(net, net->listen_fd, EPOLLIN, EVENT_LISTEN, 0, 0);
        net->accept_ns = again ? 0 : net->now_ns + ACCEPT_PAUSE_MS * 1000000ull;
    }
    return net->accept_ns != 0 ? net->accept_ns : TIME_NEVER;
}

static uint64_t all_due(struct peer_net *net) {
    uint64_t next = accept_due(net), due = peer_in_due(net);
    next = due < next ? due : next;
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        due = peer_out_due(net, &net->peers[i]);
        next = due < next ? due : next;
    }
    return next;
}

int peer_net_work(struct peer_net *net, void (*deliver)(void *context, const struct peer_message *message),
                  void *context) {
    struct epoll_event events[EVENTS_MAX];
    int count = epoll_wait(net->epoll_fd, events, EVENTS_MAX, 0);
    net->now_ns = peer_now_ns();
    net->deliver = deliver;
    net->deliver_context = context;
    for (int i = 0; i < count; i++) {
        event_do(net, &events[i]);
    }
    if (net->next_ns <= net->now_ns) {
        net->next_ns = all_due(net);
    }
    if (net->next_ns == TIME_NEVER) {
        return -1;
    }
    uint64_t wait_ms = net->next_ns > net->now_ns ? (net->next_ns - net->now_ns + 999999) / 1000000 : 0;
    return wait_ms < INT_MAX ? (int)wait_ms : INT_MAX;
}
