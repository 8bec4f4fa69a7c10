// SPDX-License-Identifier: Apache-2.0
/*
 * peer_state.h: what the parts of the transport share. Private to src/peer.
 *
 *     peer_net.c       the table of peers, status, and the one round of work
 *     peer_out.c       the connection that this node makes to a peer: it only sends there
 *     peer_in.c        the connections that peers make to this node: it only receives there
 *     peer_stream.c    messages from bytes
 *     peer_address.c   HOST:PORT
 *
 *  One connection for each ordered pair of nodes, so that there is nothing to agree on. On each, the node that made it says HELLO,
 *  the other one answers with its own HELLO, and after that only the one that made it speaks. The answer is sent also to those
 *  that are refused for their cluster or version, so that both sides can say what is wrong.
 *
 *  Invariants:
 *  W1  Slots of peers are never freed before the end. A slot's `life` changes whenever it gets or loses a node, and is what
 *      connections and events remember of it.
 *  W2  `fd`, the state and the queue of a peer are changed with its lock. Only the owner's thread opens, reads and
 *      closes connections, except that peer_net_peer_remove() and peer_net_peer_set() close one that is not wanted any more.
 *  W3  What lies in a queue follows what was sent: nobody sends past it. A connection's end is the end of its queue.
 *  W4  `ins` belongs to the owner's thread.
 */
#ifndef PEER_PEER_STATE_H
#define PEER_PEER_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "peer/peer_address.h"
#include "peer/peer_net.h"
#include "peer/peer_stream.h"

#define PEERS_MAX     128u
#define ANONYMOUS_MAX 64u /* connections that have not said HELLO */
#define INS_MAX       (PEERS_MAX + ANONYMOUS_MAX)

#define GREETING_MS      5000u /* a new connection's time to say HELLO */
#define CONNECT_MS_MAX   3000u /* an attempt's time until HELLO was answered */
#define ACCEPT_PAUSE_MS  100u  /* when there are no descriptors */
#define USER_TIMEOUT_MS  10000u
#define QUEUE_BYTES      ((size_t)64 << 20)
#define CONNECT_PAUSE_MS 100u

#define TIME_NEVER UINT64_MAX

enum out_state {
    OUT_IDLE,    /* waits for `attempt_ns` */
    OUT_LOOKUP,  /* for the name */
    OUT_CONNECT, /* for the connection */
    OUT_HELLO,   /* for the answer */
    OUT_UP,
};

struct chunk { /* owned by the queue */
    struct chunk *next;
    size_t size, sent;
    uint8_t bytes[];
};

struct in;

struct peer {
    pthread_mutex_t lock;      /* what follows, unless it says otherwise */
    _Atomic uint64_t node;     /* 0: the slot is free. Written with the lock */
    _Atomic uint32_t life;     /* W1; written with the lock */
    _Atomic uint64_t heard_ns; /* 0: never */
    _Atomic bool gone;         /* its machine refused a connection, and that was not told yet */
    char address[PEER_ADDRESS_MAX];
    char host[PEER_HOST_MAX], port[PEER_PORT_MAX];

    enum out_state state;
    _Atomic bool up; /* state == OUT_UP, for a look without the lock */
    int fd;          /* -1: none */
    uint32_t serial; /* of the connection, which its events carry */
    uint64_t attempt_ns, deadline_ns;
    struct peer_lookup *lookup;
    struct peer_place place;
    uint32_t place_next; /* the address to try; place.count: look it up again */
    size_t hello_size;
    uint8_t hello[sizeof(struct peer_header)];

    struct chunk *queue, *queue_last;
    uint64_t queued_bytes, dropped;

    bool in_up;        /* it has greeted us */
    struct in *in;     /* the owner's thread only */
    bool connected;    /* in both directions */
    uint64_t since_ns; /* of that */
    char out_text[PEER_TEXT_MAX], in_text[PEER_TEXT_MAX];
};

struct in { /* the owner's thread only */
    int fd; /* -1: the slot is free */
    uint32_t serial;
    uint64_t deadline_ns; /* of HELLO */
    struct peer *peer;    /* NULL: anonymous */
    uint32_t life;        /* of the peer's slot */
    size_t hello_size;
    uint8_t hello[sizeof(struct peer_header)];
    struct peer_stream stream;
    char from[PEER_ADDRESS_MAX];
};

struct peer_net {
    uint8_t cluster[16];
    uint16_t group;
    uint64_t node;
    size_t queue_bytes_max;
    uint32_t connect_ms;
    char address[PEER_ADDRESS_MAX];
    uint8_t hello[sizeof(struct peer_header)];

    int epoll_fd, listen_fd, wake_fd;
    uint64_t now_ns;    /* of this round of work */
    uint64_t next_ns;   /* the next deadline; 0: look for it */
    uint64_t accept_ns; /* not before; 0: accepting */
    uint32_t serial;
    void (*deliver)(void *context, const struct peer_message *message);
    void *deliver_context;

    pthread_mutex_t lock; /* which slots are taken; the two below */
    uint64_t refused;
    char refused_text[PEER_TEXT_MAX];

    uint32_t anonymous;
    struct peer peers[PEERS_MAX];
    struct in ins[INS_MAX];
};

/* ---- peer_net.c ----------------------------------------------------------------------------------------------------- */

enum event_kind { EVENT_WAKE, EVENT_LISTEN, EVENT_OUT, EVENT_IN };

uint64_t peer_now_ns(void);
void peer_text(char ret_text[PEER_TEXT_MAX], const char *format, ...) __attribute__((format(printf, 2, 3)));
/* NULL: no such peer. Its slot may get another node at any time. */
struct peer *peer_find(struct peer_net *net, uint64_t node);
void peer_wake(const struct peer_net *net);
/* With the peer's lock, after a change of `state` or `in_up`. */
void peer_connected_update(struct peer *peer);
/* A connection was cut off. */
void peer_refused(struct peer_net *net, const char *text);
/* Else the text is a sentence that begins with `who`. */
bool peer_hello_good(const struct peer_net *net, const uint8_t *hello, const char *who,
                     char ret_text[PEER_TEXT_MAX]);
bool peer_event_add(const struct peer_net *net, int fd, uint32_t events, enum event_kind kind, uint32_t slot,
                    uint32_t serial);
void peer_socket_options_set(int fd);

/* ---- peer_out.c: the owner's thread, without the lock, unless it says otherwise ---------------------------------------------- */

void peer_out_event(struct peer_net *net, struct peer *peer, uint32_t serial, uint32_t events);
/* Whatever time asks for. Returns when it wants to be asked again. */
uint64_t peer_out_due(struct peer_net *net, struct peer *peer);
/* Any thread, with the lock. */
bool peer_out_send(const struct peer_net *net, struct peer *peer, const uint8_t *head, size_t head_size,
                   const uint8_t *body, size_t body_size);
void peer_out_close(struct peer *peer);

/* ---- peer_in.c: the owner's thread ---------------------------------------------------------------------------------- */

void peer_in_accept(struct peer_net *net);
void peer_in_event(struct peer_net *net, struct in *in);
/* Whatever time asks for, and connections of peers that are no more. Returns when it wants to be asked again. */
uint64_t peer_in_due(struct peer_net *net);
void peer_in_close_all(struct peer_net *net);

#endif
