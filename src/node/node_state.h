// SPDX-License-Identifier: Apache-2.0
/*
 * node_state.h: what a node is made of. Private to node.c (its life: open, background thread, close), node_drive.c (how
 * requests get through the core) and node_cluster.c (how its peers do).
 */
#ifndef CLIENT_NODE_STATE_H
#define CLIENT_NODE_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/list.h"
#include "core/core.h"
#include "node/node.h"
#include "world/world.h"

enum { SLOTS_MAX = 16384 }; /* requests in the core at one time; it has room for half as many commits */

enum request_state {
    REQUEST_POSTED = 0, /* in node.posted, or on its way into the core */
    REQUEST_REFUSED,    /* in node.refused */
    REQUEST_ADMITTED,   /* in a slot */
    REQUEST_ANSWERED,   /* in node.answered, or done */
    REQUEST_WITHDRAWN,  /* its thread is about to leave: never to be admitted */
};

enum call_word {
    CALL_AWAKE = 0,
    CALL_ASLEEP, /* on the futex */
    CALL_TOLD,   /* a duty has fallen to it */
    CALL_DONE,   /* the node knows it no more */
};

/* A thread in node_call(), on its stack; or the background thread, which counts as a call that is never answered. */
struct call {
    struct node_request request;
    struct list link; /* in node.callers while admitted */
    struct io *io;    /* with DUTY_FLY: what it is to write */
    _Atomic uint32_t word;
};

struct node_driver { /* counts as a call that is never answered, too */
    struct call call;
    struct node *node;
    struct node_request *(*more)(void *context);
    void *context;
};

/* Regions whose event words moved, and somebody may sleep on them. */
enum { WAKES_MAX = 32 };
struct wakes {
    uint32_t count;
    uint16_t regions[WAKES_MAX];
};

/* What must not be left undone when the core is released. Each falls to one call. */
enum duty {
    DUTY_NONE = 0,
    DUTY_FLY,  /* write the record in flight */
    DUTY_HOLD, /* end the hold, if nobody else has until then */
};

struct slot {                     /* a token's request */
    struct node_request *request; /* NULL: nobody waits for the answer any more */
    uint32_t next_free;
};

struct request_chain { /* in order of coming, by `next` */
    struct node_request *first, *last;
};

struct io_chain { /* by `world` */
    struct io *first, *last;
};

/* How long a record is held back for more requests; node_drive.c says why. */
struct gather {
    _Atomic uint32_t target;    /* requests that the record waits for; up to 1: it does not wait */
    uint32_t misses;            /* in a row: the target was not reached in time */
    _Atomic uint32_t skip;      /* so many records do not wait now, after misses */
    _Atomic uint64_t flight_ns; /* what a log write takes, lately */
    uint64_t end_ns;            /* when the last one ended */
};

struct node {
    struct world *world;
    struct core *core;
    size_t core_bytes;
    struct region_map *maps; /* of the replica */
    struct replica replica;
    struct shelf_options options;
    bool uring_always; /* the program asked for io_uring: then the log has no write calls at all */

    /* Requests that found the core taken: a stack, the newest first. */
    _Alignas(LINE_SIZE) _Atomic(struct node_request *) posted;

    /* The core's lock: 0 free, 1 taken, 2 taken and somebody may sleep for it. Its holder is the driver. */
    _Alignas(LINE_SIZE) _Atomic uint32_t lock;

    /* The driver's; atomic ones are looked at by others, too. */
    _Alignas(LINE_SIZE) struct effects effects;
    struct io *flight; /* the log write, from its issue to its end */
    struct call
        *flight_call;       /* who writes it; may be gone before the write ends, if it was answered by then */
    bool flight_begun;      /* ... and does so already */
    _Atomic bool held;      /* the log is idle, and the core has requests and was told to begin no record */
    struct call *hold_call; /* who ends that at the latest */
    _Atomic uint32_t building; /* requests in the record that is being built */
    uint32_t flying;           /* ... in the one in flight */
    struct gather gather;
    struct request_chain answered; /* done() is to be called once the lock is released */
    struct request_chain refused;  /* the core had no room for them */
    uint32_t refused_commits;
    struct list callers;    /* struct call: admitted, not answered, the oldest first */
    _Atomic uint32_t *told; /* word of a call that a duty fell to while it slept */
    bool told_background;
    struct slot *slots;     /* token - 1 is the place */
    uint32_t slot_free;     /* first free one; SLOTS_MAX: none */
    struct io_chain chores; /* for the background thread */
    bool chores_new;        /* since it was told last */
    bool
        dozing; /* the background thread sleeps for longer than a tick: it wants to be told of the next request */
    const struct node_cluster *cluster; /* NULL: a lone node */
    bool more;                          /* of a cluster: EVENT_GO_ON is wanted */
    struct list waiters;                /* struct node_waiters */
    struct wakes wakes;                 /* to be woken once the lock is released */
    bool opened, stopped, closed, closing;
    bool renewed;            /* it stopped because the directory holds a newer checkpoint */
    uint32_t no_space_count; /* chores in a row that met a full disk */
    char fault[256];         /* why it stopped; written once, before `stopped` */

    _Atomic uint32_t waiters_here; /* threads of this process that wait for changes */

    /* The background thread. */
    pthread_t thread;
    struct call background;
    struct io_queue *queue;       /* its own */
    struct io_queue *log_queue;   /* of whoever flies, if uring_always */
    uint64_t tick_ns;             /* when the next one is due */
    uint64_t duty_ns;             /* when it had one last */
    uint64_t settle_ns;           /* when memory is to be settled next; UINT64_MAX: a tick will say */
    uint64_t settle_applied;      /* what was applied at the last tick */
    uint64_t flight_ns;           /* when its own flight in `queue` began */
    _Atomic bool background_told; /* it was told something; for looking at it without sleeping */
    _Atomic bool quit;
    _Atomic uint32_t over; /* closed or stopped: a futex for node_close() */
};

/* ---- node_drive.c ------------------------------------------------------------------------------------------------- */

void core_enter(struct node *node);
bool core_try(struct node *node);

/* Releases the core. Before, what was posted meanwhile is admitted, and each duty is given to somebody: to `self` (the
 * calling thread's own, may be NULL) if its request is not answered yet, which then must go on with it. Afterwards
 * those concerned are told, answers are delivered. */
enum duty core_leave(struct node *node, struct call *self);

/* One step of the core. `hold`: begin no record. */
void node_step(struct node *node, struct event *event, bool hold);
void node_io_done(struct node *node, struct io *io);

/* Something has ended: there may be room for what was refused. */
void refused_retry(struct node *node);

/* Nothing comes out of the core any more; whoever waits for an answer is told so. */
void node_stop(struct node *node);

/* Does its duties until there are none left. The background thread may put a flight into its queue instead. */
void duty_do(struct node *node, struct call *self, enum duty duty);
void flight_end(struct node *node, const struct call *self, struct io *io, uint64_t begin_ns);

/* A call: begun; waited for (false: `deadline_ns` of world_monotonic_ns() has passed, wait again or withdraw it);
 * withdrawn (TIMEOUT: it was not admitted; UNKNOWN: it was; OK: it has been answered meanwhile). It ends with CALL_DONE or
 * by being withdrawn. */
void call_begin(struct node *node, struct call *call, const void *bytes, size_t size);
bool call_wait(struct node *node, struct call *call, uint64_t deadline_ns);
shelf_result call_withdraw(struct node *node, struct call *call);

/* ---- node_cluster.c ----------------------------------------------------------------------------------------------- */

void cluster_effects(struct node *node);    /* of a step */
void cluster_go_on_more(struct node *node); /* before the core is released */

/* ---- node_wake.c -------------------------------------------------------------------------------------------------- */

/* After a step, with the core held: notes who is to be woken. */
void wakes_note(struct node *node);
/* Without it: wakes them. */
void wakes_do(struct node *node, const struct wakes *wakes);

/* ---- node.c ------------------------------------------------------------------------------------------------------- */

void fault_describe(struct node *node);

/* node_cluster.c: EVENT_CLOSE */
void node_cluster_end(struct node *node, bool checkpoint);

#endif
