// SPDX-License-Identifier: Apache-2.0
/* peer_in.c: the connections that others make to this node. See peer_state.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "peer/peer_state.h"

#define MS          1000000ull
#define ACCEPTS_MAX 64u /* in one round of work */
#define READS_MAX   64u

/* ---- The end of a connection ---------------------------------------------------------------------------------------- */

static void in_close(struct peer_net *net, struct in *in, const char *text) {
    struct peer *peer = in->peer;
    (void)close(in->fd);
    in->fd = -1;
    if (!peer) {
        net->anonymous--;
        return;
    }
    peer_stream_free(&in->stream);
    in->peer = NULL;
    (void)pthread_mutex_lock(&peer->lock);
    if (atomic_load(&peer->life) == in->life) {
        peer->in = NULL;
        peer->in_up = false;
        (void)snprintf(peer->in_text, sizeof(peer->in_text), "%s", text);
        peer_connected_update(peer);
    } else if (peer->in == in) {
        peer->in = NULL;
    }
    (void)pthread_mutex_unlock(&peer->lock);
}

static void in_refuse(struct peer_net *net, struct in *in, const char *text) {
    peer_refused(net, text);
    in_close(net, in, text);
}

static void anonymous_refuse(struct peer_net *net, struct in *in, const char *why) {
    char text[PEER_TEXT_MAX];
    peer_text(text, "a connection from %.64s was cut off: %s", in->from, why);
    in_refuse(net, in, text);
}

void peer_in_close_all(struct peer_net *net) {
    for (uint32_t i = 0; i < INS_MAX; i++) {
        if (net->ins[i].fd >= 0) {
            in_close(net, &net->ins[i], "");
        }
    }
}

/* ---- Accepting ------------------------------------------------------------------------------------------------------ */

static void oldest_drop(struct peer_net *net) {
    struct in *oldest = NULL;
    for (uint32_t i = 0; i < INS_MAX; i++) {
        struct in *in = &net->ins[i];
        if (in->fd >= 0 && !in->peer && (!oldest || in->deadline_ns < oldest->deadline_ns)) {
            oldest = in;
        }
    }
    if (oldest) {
        anonymous_refuse(net, oldest, "too many connections have not said who they are");
    }
}

static struct in *slot_take(struct peer_net *net) {
    if (net->anonymous >= ANONYMOUS_MAX) {
        oldest_drop(net);
    }
    for (uint32_t i = 0; i < INS_MAX; i++) {
        if (net->ins[i].fd < 0) {
            return &net->ins[i];
        }
    }
    return NULL; /* cannot be: one of each peer, and the anonymous ones */
}

static void in_new(struct peer_net *net, int fd, const struct peer_socket_address *from) {
    struct in *in = slot_take(net);
    if (!in || !peer_event_add(net, fd, EPOLLIN, EVENT_IN, (uint32_t)(in - net->ins), net->serial + 1)) {
        (void)close(fd);
        return;
    }
    *in = (struct in){.fd = fd, .serial = ++net->serial, .deadline_ns = net->now_ns + GREETING_MS * MS};
    peer_socket_options_set(fd);
    peer_address_print(from, in->from, sizeof(in->from));
    net->anonymous++;
    net->next_ns = 0;
}

void peer_in_accept(struct peer_net *net) {
    for (uint32_t i = 0; i < ACCEPTS_MAX; i++) {
        struct peer_socket_address from = {.size = sizeof(from.storage)};
        int fd = accept4(net->listen_fd, &from.any, &from.size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            in_new(net, fd, &from);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            struct epoll_event none = {0};
            (void)epoll_ctl(net->epoll_fd, EPOLL_CTL_DEL, net->listen_fd, &none);
            net->accept_ns = net->now_ns + ACCEPT_PAUSE_MS * MS;
            net->next_ns = 0;
            return;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            return;
        }
    }
}

/* ---- HELLO ---------------------------------------------------------------------------------------------------------- */

/* Its peer's status tells it as well, if there is such a peer. */
static void hello_refuse(struct peer_net *net, struct in *in, uint64_t node, const char *text) {
    struct peer *peer = peer_find(net, node);
    if (peer) {
        (void)pthread_mutex_lock(&peer->lock);
        if (atomic_load(&peer->node) == node && !peer->in_up) {
            (void)snprintf(peer->in_text, sizeof(peer->in_text), "%s", text);
        }
        (void)pthread_mutex_unlock(&peer->lock);
    }
    in_refuse(net, in, text);
}

/* So far as it has come. Others are cut off at once; what they did not say counts as zeros. */
static bool magic_good(const struct in *in) {
    uint32_t magic = PEER_MAGIC;
    return memcmp(in->hello, &magic, in->hello_size < sizeof(magic) ? in->hello_size : sizeof(magic)) == 0;
}

/* The newest connection of a node is the one that counts; what was on its way on the old one is lost. */
static void peer_in_set(struct peer_net *net, struct in *in, struct peer *peer, uint64_t node) {
    if (peer->in) {
        in_close(net, peer->in, "it has connected anew");
    }
    (void)pthread_mutex_lock(&peer->lock);
    if (atomic_load(&peer->node) == node) {
        net->anonymous--;
        in->peer = peer;
        in->life = atomic_load(&peer->life);
        peer->in = in;
        peer->in_up = true;
        peer->in_text[0] = 0;
        peer_connected_update(peer);
    }
    (void)pthread_mutex_unlock(&peer->lock);
}

static void hello_judge(struct peer_net *net, struct in *in) {
    char who[PEER_ADDRESS_MAX + 48], text[PEER_TEXT_MAX];
    struct peer_header header;
    memcpy(&header, in->hello, sizeof(header));
    bool whole = peer_header_whole(in->hello);
    if (whole) {
        (void)snprintf(who, sizeof(who), "node %llu, connecting from %.64s,", (unsigned long long)header.from,
                       in->from);
    } else {
        (void)snprintf(who, sizeof(who), "what connects from %.64s", in->from);
    }
    bool good = peer_hello_good(net, in->hello, who, text);
    struct peer *peer = good ? peer_find(net, header.from) : NULL;
    if (good && !peer) {
        peer_text(text, header.from == net->node ? "%s says that it is this node" : "%s is not known here",
                  who);
    } else if (whole && send(in->fd, net->hello, sizeof(net->hello), MSG_NOSIGNAL | MSG_DONTWAIT) !=
                            (ssize_t)sizeof(net->hello)) {
        good = false;
        peer_text(text, "%s does not listen", who);
    }
    if (!peer || !good) {
        hello_refuse(net, in, whole ? header.from : 0, text);
        return;
    }
    if (!peer_stream_init(&in->stream, net->cluster, net->group)) {
        hello_refuse(net, in, header.from, "there is no memory for the connection of another node");
        return;
    }
    peer_in_set(net, in, peer, header.from);
    if (!in->peer) { /* it was removed just now */
        peer_stream_free(&in->stream);
        anonymous_refuse(net, in, "it is not known here any more");
    }
}

/* ---- Receiving ------------------------------------------------------------------------------------------------------ */

/* Whatever is whole. False: the connection is no more. */
static bool messages_deliver(struct peer_net *net, struct in *in) {
    struct peer_message message;
    for (;;) {
        char text[PEER_TEXT_MAX];
        enum peer_stream_result result = peer_stream_next(&in->stream, &message);
        struct peer *peer = in->peer;
        uint64_t node = atomic_load(&peer->node);
        if (atomic_load(&peer->life) != in->life) {
            in_close(net, in, "");
            return false;
        }
        if (result == PEER_STREAM_MORE) {
            return true;
        }
        const char *problem = result == PEER_STREAM_BAD    ? in->stream.problem
                              : message.from != node       ? "it speaks for another node"
                              : message.kind == PEER_HELLO ? "it says HELLO twice"
                                                           : NULL;
        if (problem) {
            peer_text(text, "node %llu, connected from %s, was cut off: %s", (unsigned long long)node,
                      in->from, problem);
            in_refuse(net, in, text);
            return false;
        }
        atomic_store(&peer->heard_ns, net->now_ns);
        net->deliver(net->deliver_context, &message);
    }
}

static void in_lost(struct peer_net *net, struct in *in, int error) {
    char text[PEER_TEXT_MAX];
    peer_text(text, "the connection from %s: %s", in->from, error ? strerror(error) : "it was closed");
    if (in->peer) {
        in_close(net, in, text);
    } else {
        anonymous_refuse(net, in, "it was closed before HELLO");
    }
}

/* So many bytes; 0: nothing more is there, or the connection is no more. */
static size_t in_read(struct peer_net *net, struct in *in, uint8_t *bytes, size_t size) {
    ssize_t got = 0;
    do {
        got = recv(in->fd, bytes, size, MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    if (got > 0) {
        return (size_t)got;
    }
    if (got == 0 || errno != EAGAIN) {
        in_lost(net, in, got == 0 ? 0 : errno);
    }
    return 0;
}

void peer_in_event(struct peer_net *net, struct in *in) {
    if (!in->peer) {
        size_t got = in_read(net, in, in->hello + in->hello_size, sizeof(in->hello) - in->hello_size);
        in->hello_size += got;
        if (got > 0 && (in->hello_size == sizeof(in->hello) || !magic_good(in))) {
            hello_judge(net, in);
        }
        return; /* what follows it is seen in the next round */
    }
    for (uint32_t i = 0; i < READS_MAX; i++) {
        size_t space = 0;
        uint8_t *bytes = peer_stream_space(&in->stream, &space);
        size_t got = in_read(net, in, bytes, space);
        if (got == 0) {
            return;
        }
        peer_stream_put(&in->stream, got);
        if (!messages_deliver(net, in) || got < space) {
            return;
        }
    }
}

uint64_t peer_in_due(struct peer_net *net) {
    uint64_t due = TIME_NEVER;
    for (uint32_t i = 0; i < INS_MAX; i++) {
        struct in *in = &net->ins[i];
        if (in->fd < 0) {
            continue;
        }
        if (in->peer) {
            if (atomic_load(&in->peer->life) != in->life) {
                in_close(net, in, "");
            }
        } else if (in->deadline_ns <= net->now_ns) {
            anonymous_refuse(net, in, "it has not said who it is");
        } else if (in->deadline_ns < due) {
            due = in->deadline_ns;
        }
    }
    return due;
}
