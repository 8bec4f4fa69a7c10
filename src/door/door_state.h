// SPDX-License-Identifier: Apache-2.0
/*
 * door_state.h: what a door is made of. Private to src/door.
 *
 *     door.c          its life, its thread: events, rounds, rest
 *     door_listen.c   sockets that programs connect to
 *     door_fork.c     a child of this process has none of the door's descriptors
 *     door_client.c   a client comes and goes
 *     door_message.c  what it says over the socket, and the answers
 *     door_ring.c     what it submits through its ring, and the replies
 *
 *   D1  Everything belongs to the door's thread but what is said to be guarded by a lock, or is atomic.
 *   D2  A client that has broken a rule is only marked where that is found; the thread's round disconnects it.
 *   D3  A request keeps its client's memory (`references`) until it is done, which any thread may do; whether there still is somebody
 *       to be told is asked under the client's lock.
 *   D4  Locks: door.lock, client.lock; never one inside of the other, nothing of the node called with either.
 */
#ifndef DOOR_DOOR_STATE_H
#define DOOR_DOOR_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/list.h"
#include "core/core.h"
#include "door/door.h"
#include "node/node.h"
#include "wire/door.h"
#include "wire/ring.h"

enum {
    CLIENTS_MAX = 1024,
    HELLO_MS = 5000,  /* a connection that has not said HELLO by then ends */
    UNREAD_MS = 5000, /* an answer that the client does not read ends it after that time */
};
#define CLIENT_BYTES_MAX ((uint64_t)64 << 20)

enum source_kind { SOURCE_LISTENER = 1, SOURCE_BELL, SOURCE_SOCKET, SOURCE_PROCESS };
struct client;
struct source { /* what an event of epoll is about */
    enum source_kind kind;
    int fd; /* -1: none */
    struct client *client;
};

/* A request on its way through the node. Owned by the node until it is done. */
struct parcel {
    struct node_request request;
    struct client *client;
    uint64_t tag;
    bool orphan; /* the door's own: nobody is told */
    size_t size;
    _Alignas(8) uint8_t bytes[];
};

/* A checkpoint that a client has asked for. Owned by the node until it is done, then by the client. */
struct ask {
    struct node_request request;
    struct list link; /* in client.asks_done; guarded by its lock */
    struct client *client;
    uint64_t id;
    uint16_t kind;           /* CHECKPOINT, FRESH */
    bool answered;           /* the disk is full: the client has been told */
    struct list client_link; /* in client.asks */
};

/* A packet that the socket has no room for yet. */
struct unsent {
    struct list link;
    int fds[REGION_FILES];
    uint32_t fd_count;
    uint32_t size;
    uint8_t bytes[];
};

struct owned_session {
    uint64_t session, holder;
};

/* Why the submit ring is not read further, although there may be something in it. */
enum blocked {
    BLOCKED_NOT = 0,
    BLOCKED_TURN,    /* others come first */
    BLOCKED_BYTES,   /* too many bytes under way: parcel_done() tells */
    BLOCKED_REPLIES, /* too many answers not taken: the client's bell tells */
    BLOCKED_TAB,     /* it has cost more than its share: time tells */
};

struct client {
    struct list link;        /* in door.clients; guarded by door.lock */
    struct list active_link; /* in door.active, or none */
    struct door *door;       /* valid until `gone` */
    struct node *node;
    uint64_t id;
    struct source socket, process;
    struct credentials credentials;
    uint32_t *groups;
    uint32_t process_id;
    bool attached;      /* it has said HELLO */
    const char *broken; /* D2: what it did; "" if it just went */
    uint64_t begin_ns;
    char program[32];
    _Atomic uint32_t references; /* D3: the door's, and one for each request */

    /* The submit ring. */
    struct ring *ring;
    uint64_t submit_head;      /* G1 */
    uint64_t submit_tail_seen; /* the client's, as last believed */
    uint64_t reply_head_seen;
    uint64_t taken;          /* requests ever; each has one reply */
    struct ring_frame frame; /* of the request that is being taken, */
    bool framed;             /* ... if there is one */
    struct parcel *partial;  /* ... and room for it, */
    size_t partial_done;     /* ... of which so much is there, padding included */
    enum blocked blocked;
    uint64_t active_ns; /* when it last submitted something */

    /* R6. */
    uint64_t
        cost_ns; /* of what it has submitted since `taken_costed`; the node adds to it, in the door's thread */
    uint64_t taken_costed;
    uint64_t usual_ns;   /* cost of a request, lately */
    uint64_t tab_ns;     /* door.share_ns up to which it has used its share */
    uint64_t charged_ns; /* all that was ever put on its tab */

    /* The reply ring, and what the client is to be told. */
    pthread_mutex_t lock;
    bool gone;
    _Atomic uint64_t given;      /* written with the lock: G1 */
    struct owned_session *owned; /* unnamed sessions that it opened, or has kept; with the lock */
    uint32_t owned_count, owned_max;
    uint32_t opening;      /* ... and those that it is about to; with the lock */
    struct list asks_done; /* with the lock */

    _Atomic uint32_t starved; /* BLOCKED_BYTES, and the thread sleeps: it wants to be told */
    _Atomic uint32_t told;    /* there is something in asks_done */

    /* The socket. */
    struct list unsent; /* while there are any, nothing is read */
    uint64_t unsent_ns; /* since when */
    struct list asks;   /* checkpoints under way */
    uint32_t ask_count;

    /* For those who look. */
    _Atomic uint64_t commits, bytes, pending_bytes;
    _Atomic uint32_t pending, regions;
    struct node_waiters waiters;
    uint64_t mapped[REGION_NUMBERS / 64]; /* a bit a region */
};

struct door {
    struct node *node;
    struct door_options options;
    struct node_driver *driver;
    int epoll;
    int directory; /* -1: none */
    int reserve;   /* a descriptor to be given up when there are no others */
    struct source listeners[DOOR_LISTEN_MAX + 1];
    uint32_t listener_count;
    uint64_t accept_pause_ns; /* until then; 0: none */
    struct source bell;       /* an eventfd: parcel_done(), ask_done(), door_close() */
    pthread_t thread;
    _Atomic bool quit;

    pthread_mutex_t lock;
    struct list fork_link; /* in the list of all doors */
    struct list clients;   /* by id; their descriptors are opened and closed with the lock, too */
    uint32_t client_count;
    uint64_t id_next;

    uint32_t broken_count;                             /* clients to be disconnected */
    uint32_t silent_count;                             /* clients without HELLO */
    uint32_t unsent_count;                             /* ... with something in `unsent` */
    uint32_t ask_count;                                /* checkpoints under way */
    struct list active;                                /* clients whose rings are looked at */
    struct list ghosts;                                /* gone, with requests under way */
    uint64_t busy_ns;                                  /* when something was last found in a ring */
    uint64_t share_ns, share_time_ns;                  /* R6: what each has been due in all; as of then */
    uint32_t sharers;                                  /* clients that want something, lately */
    uint32_t waiting;                                  /* ... and have used up their shares */
    _Atomic uint32_t hello_ms, unread_ms;              /* HELLO_MS, UNREAD_MS; tests are less patient */
    uint64_t watch_ns;                                 /* when the clients' clocks are to be looked at next */
    struct shelf_region_info infos[SHELF_REGIONS_MAX]; /* for LIST */
};

/* ---- door.c ------------------------------------------------------------------------------------------------------- */

void door_log(const struct door *door, const char *event, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
bool door_watch(struct door *door, struct source *source, uint32_t events); /* false: no memory */
void door_unwatch(struct door *door, struct source *source);
void bell_ring(struct door *door);

/* ---- door_listen.c ------------------------------------------------------------------------------------------------ */

void listeners_adopt(struct door *door); /* those that were handed in */
shelf_result listeners_open(struct door *door);
void listeners_close(struct door *door);
void listener_accept(struct door *door, struct source *listener);
void listeners_resume(struct door *door, uint64_t now_ns); /* after a pause */

/* ---- door_fork.c -------------------------------------------------------------------------------------------------- */

/* Between these two the door and its clients have descriptors. */
void fork_begin(struct door *door);
void fork_end(struct door *door);

/* ---- door_client.c ------------------------------------------------------------------------------------------------ */

/* With the door's lock: a client of this connection, in the list. NULL: no memory. */
struct client *client_make(struct door *door, int fd);
/* After that, without it. */
void client_come(struct client *client);
void client_attach(struct client *client, const struct door_hello *hello);
void client_break(struct client *client, const char *rule); /* D2 */
void client_disconnect(struct client *client);
void client_release(struct client *client);
void clients_watch(struct door *door, uint64_t now_ns); /* those whose time is over */

/* ---- door_message.c ----------------------------------------------------------------------------------------------- */

void messages_take(struct client *client);
/* Sends the packet, or keeps it for later. The descriptors are the function's. */
void message_send(struct client *client, const void *message, uint32_t size, const int *fds,
                  uint32_t fd_count);
void unsent_send(struct client *client);
void asks_finish(struct client *client);
void asks_give_up(struct client *client);
void messages_free(struct client *client);

/* ---- door_ring.c -------------------------------------------------------------------------------------------------- */

int ring_make(struct client *client); /* the descriptor for the client, or -1 */
void ring_unmap(struct client *client);
/* A round: something of each active client. */
struct node_request *rings_take(void *context); /* the door */
bool rings_rest(struct door *door);             /* G4. False: there is something */
void rings_wake(struct door *door);
void ring_activate(struct client *client);
/* R6: it has cost so much. Has it used up its share? */
void share_charge(struct client *client, uint64_t cost_ns);
bool share_is_used(const struct client *client);
void rings_settle(
    struct door *door); /* those that have not submitted anything for a while are not looked at any more */
/* Expires sessions that nobody will use any more. */
void sessions_orphan(struct client *client, const struct owned_session *owned, uint32_t count);

#endif
