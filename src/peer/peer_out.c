// SPDX-License-Identifier: Apache-2.0
/* peer_out.c: the connection that this node makes to a peer, and the queue before it. See peer_state.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/assert.h"
#include "peer/peer_state.h"

#define PIECES_MAX     64u
#define SEND_BYTES_MAX ((size_t)1 << 20) /* with the lock held once */
#define MS             1000000ull

/* ---- The end of a connection ---------------------------------------------------------------------------------------- */

static void queue_free(struct peer *peer) {
    while (peer->queue) {
        struct chunk *chunk = peer->queue;
        peer->queue = chunk->next;
        peer->dropped++;
        free(chunk);
    }
    peer->queue_last = NULL;
    peer->queued_bytes = 0;
}

void peer_out_close(struct peer *peer) {
    if (peer->fd >= 0) {
        (void)close(peer->fd);
        peer->fd = -1;
    }
    if (peer->lookup) {
        peer_lookup_end(peer->lookup);
        peer->lookup = NULL;
    }
    queue_free(peer);
    peer->state = OUT_IDLE;
    peer->serial = 0;
    atomic_store(&peer->up, false);
    peer_connected_update(peer);
}

/* With the lock; `attempt_ns` says when the next attempt may be made. */
static void out_lost(struct peer_net *net, struct peer *peer, const char *text) {
    peer_out_close(peer);
    (void)snprintf(peer->out_text, sizeof(peer->out_text), "%s", text);
    net->next_ns = 0;
}

#define OUT_LOST(net, peer, ...)        \
    do {                                \
        char text_[PEER_TEXT_MAX];      \
        peer_text(text_, __VA_ARGS__);  \
        out_lost((net), (peer), text_); \
    } while (0)

/* ---- Sending -------------------------------------------------------------------------------------------------------- */

/* The connection is not good any more: whoever owns it will find out and close it. Nothing more is sent. */
static void out_break(struct peer *peer) {
    atomic_store(&peer->up, false);
    (void)shutdown(peer->fd, SHUT_RDWR);
}

/* How much was sent, 0 if nothing can be now; -1: the connection is broken. */
static ssize_t pieces_send(const struct peer *peer, struct iovec *pieces, size_t count) {
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = count};
    ssize_t size = 0;
    do {
        size = sendmsg(peer->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (size < 0 && errno == EINTR);
    return size < 0 && (errno == EAGAIN || errno == ENOBUFS) ? 0 : size;
}

/* The part of head and body after the first `sent` bytes. */
static bool rest_queue(struct peer *peer, const uint8_t *head, size_t head_size, const uint8_t *body,
                       size_t body_size, size_t sent) {
    size_t of_head = sent < head_size ? head_size - sent : 0;
    size_t of_body = sent < head_size ? body_size : head_size + body_size - sent;
    struct chunk *chunk = malloc(sizeof(*chunk) + of_head + of_body);
    if (!chunk) {
        return false;
    }
    *chunk = (struct chunk){.size = of_head + of_body};
    if (of_head > 0) {
        memcpy(chunk->bytes, head + sent, of_head);
    }
    if (of_body > 0) {
        memcpy(chunk->bytes + of_head, body + (body_size - of_body), of_body);
    }
    *(peer->queue_last ? &peer->queue_last->next : &peer->queue) = chunk;
    peer->queue_last = chunk;
    peer->queued_bytes += chunk->size;
    return true;
}

bool peer_out_send(const struct peer_net *net, struct peer *peer, const uint8_t *head, size_t head_size,
                   const uint8_t *body, size_t body_size) {
    size_t size = head_size + body_size, sent = 0;
    if (!atomic_load(&peer->up) || size > net->queue_bytes_max - peer->queued_bytes) {
        return false;
    }
    if (!peer->queue) {
        // NOLINTBEGIN(performance-no-int-to-ptr): they are not written
        struct iovec pieces[2] = {{.iov_base = (void *)(uintptr_t)head, .iov_len = head_size},
                                  {.iov_base = (void *)(uintptr_t)body, .iov_len = body_size}};
        // NOLINTEND(performance-no-int-to-ptr)
        ssize_t now = pieces_send(peer, pieces, body_size > 0 ? 2 : 1);
        if (now < 0) {
            out_break(peer);
            return false;
        }
        sent = (size_t)now;
    }
    if (sent < size && !rest_queue(peer, head, head_size, body, body_size, sent)) {
        if (sent > 0) { /* half a message is there, and there is no memory for the rest */
            out_break(peer);
        }
        return false;
    }
    return true;
}

static void queue_sent(struct peer *peer, size_t size) {
    peer->queued_bytes -= size;
    while (size > 0) {
        struct chunk *chunk = peer->queue;
        size_t here = chunk->size - chunk->sent < size ? chunk->size - chunk->sent : size;
        chunk->sent += here;
        size -= here;
        if (chunk->sent == chunk->size) {
            peer->queue = chunk->next;
            free(chunk);
        }
    }
    if (!peer->queue) {
        peer->queue_last = NULL;
    }
}

/* With the lock. False: nothing more can be sent now. */
static bool queue_send_some(struct peer *peer) {
    struct iovec pieces[PIECES_MAX];
    size_t count = 0, size = 0;
    for (struct chunk *chunk = peer->queue; chunk && count < PIECES_MAX && size < SEND_BYTES_MAX;
         chunk = chunk->next) {
        size_t left = chunk->size - chunk->sent;
        left = left < SEND_BYTES_MAX - size ? left : SEND_BYTES_MAX - size;
        pieces[count++] = (struct iovec){.iov_base = chunk->bytes + chunk->sent, .iov_len = left};
        size += left;
    }
    if (count == 0) {
        return false;
    }
    ssize_t sent = pieces_send(peer, pieces, count);
    if (sent < 0) {
        out_break(peer);
        return false;
    }
    queue_sent(peer, (size_t)sent);
    return sent > 0;
}

/* The lock is let go between the pieces, for those who want to queue more. */
static void queue_send(struct peer *peer, uint32_t serial) {
    for (bool more = true; more;) {
        (void)pthread_mutex_lock(&peer->lock);
        more = peer->serial == serial && atomic_load(&peer->up) && queue_send_some(peer);
        (void)pthread_mutex_unlock(&peer->lock);
    }
}

/* ---- Connecting: with the lock ----------------------------------------------------------------------------------------- */

static void out_up(struct peer_net *net, struct peer *peer) {
    char who[PEER_ADDRESS_MAX + 32], text[PEER_TEXT_MAX];
    uint64_t node = atomic_load(&peer->node);
    struct peer_header header;
    memcpy(&header, peer->hello, sizeof(header));
    (void)snprintf(who, sizeof(who), "node %llu at %s", (unsigned long long)node, peer->address);
    if (!peer_hello_good(net, peer->hello, who, text)) {
        out_lost(net, peer, text);
        return;
    }
    if (header.from != node) {
        OUT_LOST(net, peer, "at %s is node %llu, not node %llu", peer->address,
                 (unsigned long long)header.from, (unsigned long long)node);
        return;
    }
    peer->state = OUT_UP;
    atomic_store(&peer->up, true);
    peer->out_text[0] = 0;
    peer_connected_update(peer);
}

static void lost_by_error(struct peer_net *net, struct peer *peer, int error) {
    if (error == ECONNREFUSED) {
        atomic_store(&peer->gone, true);
    }
    OUT_LOST(net, peer, "node %llu at %s: %s", (unsigned long long)atomic_load(&peer->node), peer->address,
             strerror(error));
}

/* Everything that a peer says here is its HELLO. */
static void out_read(struct peer_net *net, struct peer *peer) {
    uint8_t bytes[sizeof(peer->hello)];
    for (;;) {
        size_t wanted = peer->state == OUT_UP ? 1 : sizeof(peer->hello) - peer->hello_size;
        ssize_t size = recv(peer->fd, bytes, wanted, MSG_DONTWAIT);
        unsigned long long node = atomic_load(&peer->node);
        if (size < 0 && errno == EINTR) {
            continue;
        }
        if (size < 0 && errno == EAGAIN) {
            return;
        }
        if (size < 0) {
            lost_by_error(net, peer, errno);
            return;
        }
        if (size == 0) {
            OUT_LOST(net, peer,
                     peer->state == OUT_UP
                         ? "node %llu at %s has closed the connection"
                         : "node %llu at %s has closed the connection and said nothing: it may not "
                           "know this node yet",
                     node, peer->address);
            return;
        }
        if (peer->state == OUT_UP) {
            OUT_LOST(net, peer, "node %llu at %s speaks where it should only listen", node, peer->address);
            return;
        }
        memcpy(peer->hello + peer->hello_size, bytes, (size_t)size);
        peer->hello_size += (size_t)size;
        if (peer->hello_size == sizeof(peer->hello)) {
            out_up(net, peer);
            if (peer->state != OUT_UP) {
                return;
            }
        }
    }
}

static void out_hello(struct peer_net *net, struct peer *peer) {
    int error = 0;
    socklen_t size = sizeof(error);
    if (getsockopt(peer->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) {
        lost_by_error(net, peer, error ? error : errno);
        return;
    }
    struct iovec piece = {.iov_base = net->hello, .iov_len = sizeof(net->hello)};
    if (pieces_send(peer, &piece, 1) != (ssize_t)sizeof(net->hello)) {
        lost_by_error(net, peer, EPIPE);
        return;
    }
    peer->state = OUT_HELLO;
    peer->hello_size = 0;
}

static void out_connect(struct peer_net *net, struct peer *peer) {
    const struct peer_socket_address *address = &peer->place.addresses[peer->place_next++];
    peer->fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (peer->fd < 0) {
        lost_by_error(net, peer, errno);
        return;
    }
    peer_socket_options_set(peer->fd);
    peer->serial = ++net->serial;
    peer->state = OUT_CONNECT;
    peer->deadline_ns = net->now_ns + CONNECT_MS_MAX * MS;
    if ((connect(peer->fd, &address->any, address->size) != 0 && errno != EINPROGRESS) ||
        !peer_event_add(net, peer->fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, EVENT_OUT,
                        (uint32_t)(peer - net->peers), peer->serial)) {
        lost_by_error(net, peer, errno);
    }
}

static void out_begin(struct peer_net *net, struct peer *peer) {
    peer->attempt_ns = net->now_ns + net->connect_ms * MS;
    if (peer->place_next < peer->place.count) {
        out_connect(net, peer);
        return;
    }
    peer->place_next = 0;
    if (!peer_place_find(peer->host, peer->port, true, false, &peer->place)) {
        out_connect(net, peer);
        return;
    }
    peer->place.count = 0;
    peer->lookup = peer_lookup_begin(peer->host, peer->port, net->wake_fd);
    if (!peer->lookup) {
        lost_by_error(net, peer, ENOMEM);
        return;
    }
    peer->state = OUT_LOOKUP;
}

static void out_lookup(struct peer_net *net, struct peer *peer) {
    const char *problem = NULL;
    struct peer_place place;
    if (!peer_lookup_done(peer->lookup, &place, &problem)) {
        return;
    }
    peer_lookup_end(peer->lookup);
    peer->lookup = NULL;
    if (problem) {
        OUT_LOST(net, peer, "node %llu at %s: %s", (unsigned long long)atomic_load(&peer->node),
                 peer->address, problem);
        return;
    }
    peer->place = place;
    out_connect(net, peer);
}

/* ---- For peer_net.c ------------------------------------------------------------------------------------------------- */

uint64_t peer_out_due(struct peer_net *net, struct peer *peer) {
    uint64_t due = TIME_NEVER;
    if (atomic_load(&peer->node) == 0) {
        return due;
    }
    (void)pthread_mutex_lock(&peer->lock);
    if (atomic_load(&peer->node) != 0) {
        if (peer->state == OUT_LOOKUP) {
            out_lookup(net, peer);
        }
        if ((peer->state == OUT_CONNECT || peer->state == OUT_HELLO) && peer->deadline_ns <= net->now_ns) {
            lost_by_error(net, peer, ETIMEDOUT);
        }
        if (peer->state == OUT_IDLE && peer->attempt_ns <= net->now_ns) {
            out_begin(net, peer);
        }
        if (peer->state == OUT_IDLE) {
            due = peer->attempt_ns;
        } else if (peer->state == OUT_CONNECT || peer->state == OUT_HELLO) {
            due = peer->deadline_ns;
        }
    }
    (void)pthread_mutex_unlock(&peer->lock);
    return due;
}

void peer_out_event(struct peer_net *net, struct peer *peer, uint32_t serial, uint32_t events) {
    bool sends = false;
    (void)pthread_mutex_lock(&peer->lock);
    if (peer->serial == serial && peer->fd >= 0) {
        if (peer->state == OUT_CONNECT && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0) {
            out_hello(net, peer);
        }
        if (peer->state == OUT_HELLO || peer->state == OUT_UP) {
            out_read(net, peer);
        }
        sends = peer->state == OUT_UP && peer->queue != NULL;
    }
    (void)pthread_mutex_unlock(&peer->lock);
    if (sends) {
        queue_send(peer, serial);
    }
}
