// SPDX-License-Identifier: Apache-2.0
/*
 * service_state.h: the inside of a service, for service.c (life, changes of state), service_call.c (requests through the ring) and
 * service_ask.c (questions over the socket).
 */
#ifndef CLIENT_SERVICE_STATE_H
#define CLIENT_SERVICE_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/list.h"
#include "client/guest.h"
#include "client/service.h"
#include "door/door.h"

enum { PENDINGS_MAX = 16384 };

/* A thread that waits for something that another thread may bring: it sleeps on the word. */
struct waiter {
    struct list
        link; /* in service.waiters while it sleeps, else in none; initialised before anybody knows of it */
    _Atomic uint32_t word;
};

enum pending_state {
    PENDING_FREE = 0,
    PENDING_UNSENT,   /* in service.unsent; nothing of it is in the ring */
    PENDING_PARTLY,   /* in service.unsent, first; some of it is */
    PENDING_SENT,     /* in service.sent */
    PENDING_ANSWERED, /* the waiting thread is to take the answer */
    PENDING_LOCAL,    /* this process has become the node: the waiting thread is to turn to that */
};

/* A request on its way. */
struct pending {
    struct list link;
    enum pending_state state;
    uint32_t generation;          /* how often this place was used: half of the tag */
    struct node_request *request; /* the caller's; NULL: given up, nobody waits for the answer */
    struct waiter *waiter;        /* NULL: asynchronous, request->done() is called */
    struct guest_cargo cargo;
    bool again;                /* an earlier node had it, and may have executed it */
    struct node_request local; /* of an asynchronous one, when this process has become the node */
    struct service *service;   /* ... for that */
    struct pending *next_free;
};

/* A question that was sent. */
struct ask {
    struct list link; /* in service.asks */
    uint64_t id;
    uint16_t kind;
    void *answer; /* the caller's, of size_max bytes */
    size_t size_max;
    ssize_t size; /* of what came; 0: nothing yet; -1: the attachment ended */
    int fds[GUEST_FDS_MAX];
    struct waiter *waiter;
};

enum service_state { SERVICE_NODE, SERVICE_ATTACHED, SERVICE_DOWN };

struct service {
    _Atomic(struct node *) node; /* with SERVICE_NODE; never changes again */
    struct door *door;
    struct tx_host *host;
    char path[4096]; /* of the directory, or of the socket */
    char socket_path[4200];
    bool directory;
    struct shelf_options options;

    pthread_mutex_t mutex; /* what follows */
    enum service_state state;
    bool closing;         /* its thread is to end, whatever it has become meanwhile */
    struct guest *guest;  /* with SERVICE_NODE: NULL; with SERVICE_DOWN: the last one */
    struct list retired;  /* guests that transactions or the receiver may still use */
    struct guest *in_use; /* by the receiver */
    bool receiving;       /* somebody is the receiver: takes replies and answers for all */
    struct list waiters;
    struct list sleepers; /* struct service_sleeper */
    struct pending *pendings, *pending_free;
    uint32_t pending_used; /* places that have ever been used */
    struct list unsent, sent;
    uint32_t async_count; /* pendings without a waiter */
    struct list asks;
    uint32_t ask_count; /* sent to this node and not answered, also if nobody waits any more */
    uint64_t ask_id;
    _Atomic int poll_fd; /* service_poll.c; -1: the program does not poll */
    uint32_t poll_holds; /* threads that wait for the thread to receive */
    uint64_t lost_ns;
    uint64_t reply_ns; /* what an answer has taken, lately: how long it is worth to spin */
    uint64_t reconnects, takeovers;
    char fault[256]; /* why nobody serves, as far as is known */

    pthread_t thread;
    int kick_fd; /* eventfd: the thread has something to look at */
    bool thread_begun;
};

/* ---- service.c ---------------------------------------------------------------------------------------------------- */

void service_kick(struct service *service);
/* The guest's node is gone, or mad. Without the mutex. */
void service_lost(struct service *service, struct guest *guest);
void waiter_wake(struct waiter *waiter);
void waiters_wake_all(struct service *service);

/* ---- service_call.c ----------------------------------------------------------------------------------------------- */

/* Waits, with the mutex held, until `done` says so; receives meanwhile, if nobody else does. False: `until_ns` has passed. */
bool service_await(struct service *service, struct waiter *waiter, bool (*done)(void *context), void *context,
                   uint64_t until_ns);
/* Of the thread: receives as long as anything asynchronous is under way. */
void service_receive_async(struct service *service);
/* Sends what waits to be sent, as far as there is room. With the mutex, ATTACHED. */
void service_pump(struct service *service);
/* A new guest: all that was not answered is to be sent to it, in order. With the mutex. */
void pendings_resend(struct service *service);
/* This process is the node: those who wait are told, the others are returned as a chain. With the mutex. */
struct node_request *pendings_hand_over(struct service *service);

/* What has come by socket and ring; asynchronous requests that it answers are left in a chain, for after the mutex. With the
 * mutex, and nobody else receives. False: the node is gone, or mad. */
bool service_take(struct service *service, struct guest *guest, struct node_request **ret_done);

/* ---- service_poll.c ----------------------------------------------------------------------------------------------- */

/* Does the program take replies itself, whenever nobody receives? With the mutex, as all but service_poll_look(). */
bool service_polled(const struct service *service);
/* False: there is something to look at. */
bool service_poll_rest(struct service *service);
/* The guest has changed: NULL: there was, or is, none. */
void service_poll_guest(struct service *service, const struct guest *before, const struct guest *guest);

/* ---- service_ask.c ------------------------------------------------------------------------------------------------ */

/* A packet that is no doorbell. With the mutex. False: it makes no sense. */
bool ask_on_answer(struct service *service, const void *packet, size_t size, const int fds[GUEST_FDS_MAX]);
void asks_end(struct service *service); /* with the mutex: the attachment has ended */

#endif
