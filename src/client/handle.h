// SPDX-License-Identifier: Apache-2.0
/*
 * handle.h: the inside of a handle, for handle.c (open, close, begin), commit.c (commits and their completions), lane.c (sessions
 * to commit under), run.c, region.c and session.c. Thin: what is behind node.h does the work.
 */
#ifndef CLIENT_HANDLE_H
#define CLIENT_HANDLE_H

#include <pthread.h>
#include <stdatomic.h>

#include "client/service.h"
#include "client/tx_state.h"

/*
 * A session as its holder uses it, without locks.
 *
 *   L1  Bit s % 64 of `pending` is set while sequence s is outstanding; so sequence s is taken only when s - 64 has been
 *       answered, and the node can never have forgotten the result of a sequence that somebody waits for.
 *   L2  `next` moves from s to s + 1 only by the owner of the bit of s.
 */
struct lane {
    _Alignas(LINE_SIZE) _Atomic uint64_t next; /* sequence to be taken next */
    _Atomic uint64_t pending;
    _Atomic uint64_t last; /* highest sequence known to have committed */
    _Atomic bool dead;     /* the node has forgotten it: not to be used for anything new */
    uint64_t session;      /* id */
    uint64_t holder;
    struct lane *retired_next;
};

/* Places of one lane that are to be given back together. All zero: none. */
struct places {
    struct lane *lane;
    uint64_t bits;
    uint64_t committed; /* the highest sequence of them that has committed, or 0 */
};

enum { LANES_MAX = 64 };

struct commit; /* of commit.c */
struct commit_chain {
    struct commit *first, *last;
    size_t count;
};

struct shelf {
    struct tx_host host; /* first: transactions know it as that */
    struct service *service;
    uint32_t fork_generation; /* that it was opened in */
    uint32_t commit_deadline_ms;

    /* Unnamed sessions, opened as they are needed. A place in the array is set once, and again only when its lane is dead. */
    _Atomic(struct lane *) lanes[LANES_MAX];
    _Atomic uint32_t lane_count;
    pthread_mutex_t open_mutex;  /* one thread opens a lane, others wait for it; never taken by a `done` */
    pthread_mutex_t lanes_mutex; /* changes of the array, `retired` and `reopen`; held shortly */
    struct lane *retired;        /* dead lanes that somebody may still look at; freed at the end */
    struct {
        struct node_request request;
        struct session_request bytes;
        bool busy;
        struct commit *waiting; /* asynchronous commits that found their session forgotten */
    } reopen;
    struct keep { /* says to a new node that the lane's session is in use */
        struct node_request request;
        struct session_request bytes;
        _Atomic bool busy;
    } * keeps; /* LANES_MAX of them; made when there is a new node for the first time */

    /* Threads that wait for a free place in a window, or for asynchronous commits to end. */
    _Atomic uint32_t waiter_count;
    pthread_mutex_t wait_mutex;
    pthread_cond_t wait_condition;

    struct {
        _Atomic uint64_t commits, conflicts, failures, retries, commit_ns, commit_ns_max, waits, wakes;
    } stats;

    /* On a line of its own, as submitting threads and the one that answers change it all the time. */
    _Alignas(LINE_SIZE) _Atomic uint64_t async_count; /* submitted, and not yet in the queue of completions */

    _Alignas(LINE_SIZE) pthread_mutex_t queue_mutex; /* the following */
    struct commit_chain queue;
    int queue_fd; /* eventfd: 1 exactly while the queue is not empty */

    _Alignas(LINE_SIZE) pthread_mutex_t pool_mutex; /* the following */
    struct commit *pool; /* memory of asynchronous commits to come, the warmest first */
};

struct shelf_session {
    struct shelf *s;
    struct lane lane;
    char name[SHELF_NAME_MAX + 1];
};

/* What a transaction carries for its commit, in its host bytes; an asynchronous one has a copy of its own, with the request
 * behind it. */
struct commit {
    struct shelf_session *session; /* NULL: an unnamed one */
    uint64_t sequence_set;         /* the sequence that the program asked for; 0: the next */
    struct lane *lane;
    uint64_t sequence;
    /* From here on: asynchronous ones only. */
    struct shelf *s;
    struct commit *next;
    uint64_t tag;
    bool pooled;                 /* its memory is of the size that goes into the pool */
    struct node_request request; /* at the end, its reply is the answer */
};

/* ---- handle.c ----------------------------------------------------------------------------------------------------- */

/* INVALID and a detail in the child of a fork. */
shelf_result handle_check(const struct shelf *s);
shelf_result handle_begin(struct shelf *s, unsigned flags, struct shelf_session *session,
                          struct shelf_tx **ret_tx);
static inline struct commit *tx_commit_of(struct shelf_tx *tx) {
    return (struct commit *)(void *)tx->host_bytes;
}
/* Says in the thread's detail why the node refused. */
void reply_explain(const struct reply *reply);
/* Sends a request that is no commit, under the handle's deadline, and waits. */
shelf_result handle_call(struct shelf *s, const void *request, size_t size, struct reply *ret_reply);
/* shelf_session_outcome() within that time. */
shelf_result session_outcome(struct shelf_session *session, uint64_t sequence, uint32_t deadline_ms,
                             struct shelf_receipt *ret_receipt);
/* INVALID unless it is a name: 1 to SHELF_NAME_MAX bytes, none of them a control character. */
shelf_result name_check(const char *what, const char *name);
uint64_t clock_now_ms(void); /* monotonic */
/* For shelf_stats_get(): how a commit has ended, how long it was waited for. */
void stats_count(struct shelf *s, shelf_result result);
void stats_time(struct shelf *s, uint64_t took_ns);

/* ---- lane.c ------------------------------------------------------------------------------------------------------- */

void lane_begin(struct lane *lane, const struct reply *opened);
void lane_release(struct shelf *s, struct lane *lane, uint64_t sequence);
/* The same for several, when they are of one lane: added one by one, given back when one of another lane comes, or at last. */
void places_add(struct shelf *s, struct places *places, struct lane *lane, uint64_t sequence, bool committed);
void places_release(struct shelf *s, struct places *places);
/* The sequence has been used up by something else than a commit of this lane. */
void lane_skip(struct lane *lane, uint64_t sequence);
void lane_committed(struct lane *lane, uint64_t sequence);

/* A place in a window for this commit: in its session's, or in that of any lane. Opens a lane if all are full. TIMEOUT; what
 * the node says to the opening. */
shelf_result place_take(struct shelf *s, struct commit *commit, uint32_t deadline_ms);
/* The same without waiting or opening anything. */
bool place_try(struct shelf *s, struct commit *commit);
/* Puts a new lane in the place of a dead one, or at the end. */
shelf_result lanes_add(struct shelf *s, const struct reply *opened);
/* The node has forgotten the session. */
void lane_bury(struct shelf *s, struct lane *lane);
/* Tells a new node of all unnamed sessions; else it would expire them after a while. */
void lanes_keep(struct shelf *s);
/* Expires all unnamed sessions as far as the node is willing, and frees the lanes. */
void lanes_end(struct shelf *s);

/* Waits until condition(context) holds, which lane_release() and handle_wake() may have changed; false: time is over. */
bool handle_wait(struct shelf *s, bool (*condition)(void *context), void *context, uint32_t deadline_ms);
void handle_wake(struct shelf *s);

/* ---- commit.c ----------------------------------------------------------------------------------------------------- */

shelf_result commit_run(struct shelf_tx *tx, uint32_t deadline_ms, struct shelf_receipt *ret_receipt);
/* At the end: the queue, and the pool. */
void completions_discard(struct shelf *s);

#endif
