// SPDX-License-Identifier: Apache-2.0
/*
 * forward.h: requests of programs on nodes that do not lead. Private to src/core, part of state.h.
 *
 *     forward.c    the node of the program: keeps the request until it is settled, sends it to whoever leads
 *     forwarded.c  the primary: takes it once, answers it
 *
 * A *link* is what one life of a node and one leadership of a primary agree on before the first request. Each request of
 * the node's life has a *round*, a number; under one link a round is taken once, whatever the network does to it. So:
 *
 *   W1  A primary takes a request only under the link that it gave last to the sender's node, in an epoch of this leadership, and
 *       each round once: what comes again gets the answer that the first got, when it has got it.
 *   W2  A link that is new to the sender means that another leadership may have taken what was sent before. What may be done twice
 *       is sent again: commits, since their session tells whether they have been done (K1), and what is asked of sessions
 *       themselves. A change of the catalog is UNKNOWN.
 *   W3  An answer counts if it is of the link and not below the epoch in which the request was sent last (K2).
 *   W4  A program gets its answer when its node has applied all that the primary had applied when it answered: it reads what
 *       it has written, and what it has lost against.
 *   W5  A program is not told that its node does not lead. When the lead is lost, what was not appended is sent to who has it
 *       now, and of what was, all that may be done twice (K3).
 *   W6  What waits is bounded: FORWARDS_MAX requests, so many bytes, FORWARD_WINDOW under way. More is refused for now.
 */
#ifndef CORE_FORWARD_H
#define CORE_FORWARD_H

#include "base/list.h"
#include "core/core.h"
#include "wire/peer.h"

#ifdef SHELF_SIM /* small enough to be full now and then */
#define FORWARDS_MAX   4u
#define FORWARD_WINDOW 2u
#define FORWARD_BYTES  ((uint64_t)64 << 10)
#else
#define FORWARDS_MAX   8192u
#define FORWARD_WINDOW 1024u
#define FORWARD_BYTES  ((uint64_t)64 << 20)
#endif
#define FORWARDERS_MAX (2u * CONFIGURATION_MEMBERS_MAX)
#define FORWARD_MS     10000u /* if the configuration does not say */

_Static_assert((FORWARD_WINDOW & (FORWARD_WINDOW - 1)) == 0, "rounds are found by their low bits");

/* ---- The node of the program -------------------------------------------------------------------------------------- */

enum forward_state {
    FORWARD_FREE = 0,
    FORWARD_ADMITTED, /* this node leads: it is being admitted, or in a batch */
    FORWARD_QUEUED,   /* waits for a place in the window */
    FORWARD_SENT,     /* has a round */
    FORWARD_ANSWERED, /* the program is told once `applied` is applied here */
};
struct forward {
    struct list link; /* of those that are free, queued, or answered */
    uint32_t state;
    uint32_t generation; /* of this place, for tokens */
    bool reads;          /* EVENT_READ, else a request */
    bool twice;          /* W2: it may be done twice */
    bool other_life;     /* what it has read is not of this life's image */
    bool due;            /* to be sent now */
    uint64_t token;      /* of the program */
    uint64_t round;
    uint64_t sent_link; /* under which it was sent last; 0: no primary can have it */
    uint64_t sent_epoch;
    uint64_t begin_ms, sent_ms;
    uint64_t place; /* of its bytes: body_size of them */
    size_t body_size;
    uint64_t applied;
    struct reply reply;
};

struct forwarding {
    struct forward *forwards; /* FORWARDS_MAX */
    struct list free, queued, answered;
    struct forward *rounds[FORWARD_WINDOW]; /* NULL: done */
    uint64_t done, next;                    /* all rounds below `done` are; the next one that is given */
    bool due;                               /* some are */
    uint64_t primary, epoch;                /* who is asked; 0: nobody is known */
    uint64_t link;                          /* with it; 0: none yet */
    uint64_t asked_ms;
    /* The bytes of requests: a ring of blocks, given back in any order. */
    uint8_t *bytes;
    uint64_t head, tail, used;
};

/* ---- The primary -------------------------------------------------------------------------------------------------- */

enum forwarded_state { FORWARDED_NONE = 0, FORWARDED_PENDING, FORWARDED_ANSWERED };
struct forwarded {
    uint32_t state; /* enum forwarded_state */
    bool due;       /* to be answered (again) */
    uint64_t round;
    uint64_t epoch;   /* in which it was sent last */
    uint64_t applied; /* when it was answered */
    struct reply reply;
};
struct forwarder {
    uint64_t node;       /* 0: a free place */
    uint64_t lead;       /* the leadership that the rest is of */
    uint8_t nonce[16];   /* the life that the link was agreed on with */
    uint64_t link;       /* 0: none yet */
    uint8_t offered[16]; /* a life that has been offered another link, and has not used it yet */
    uint64_t offer;
    uint64_t done; /* rounds below are */
    uint16_t due_places[FORWARD_WINDOW];
    uint32_t due_first, due_count;
    struct forwarded window[FORWARD_WINDOW];
};

/* What the sender of a request had applied when it sent it. Certification compares that with the log (A2). It may be more than the
 * primary has applied, whose disk may be slower than those that made the commit. */
struct reader {
    uint64_t index;
    uint64_t epoch; /* of that record; 0: what it has read is of another life of its node */
};

/* forward.c */
void forward_init(struct core *core);
void forward_submit(struct core *core, const struct event *event);
void forward_read(struct core *core, uint64_t token);
void forward_on_answer(struct core *core, const struct peer_message *message);
void forward_tick(struct core *core);
void forward_continue(struct core *core);
/* An answer from admission, whose token is the core's own. True: it is the program's, and has its token now. */
bool forward_reply(struct core *core, struct reply *reply);
/* The same for many; returns how many are left. */
uint32_t forward_replies(struct core *core, struct reply *replies, uint32_t count);

/* forwarded.c */
#define TOKEN_FORWARDED ((uint64_t)1 << 63) /* of what came from another node */
void forwarded_on_message(struct core *core, const struct peer_message *message);
void forwarded_reply(struct core *core, const struct reply *reply);
void forwarded_drop(struct core *core, uint64_t token); /* not now: it comes again */
void forwarded_continue(struct core *core);

#endif
