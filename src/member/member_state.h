// SPDX-License-Identifier: Apache-2.0
/*
 * member_state.h: what a member is made of. Private to src/member.
 *
 *     identity.c      who the node is
 *     address_book.c  where the others are
 *     join.c          a new directory becomes a node of the cluster
 *     register.c      registers: the configuration, asked for and changed as the core wants; addresses, the own one made known
 *     watch.c         what people are told of all that as it happens
 *     info.c          ... and when they ask
 *     member.c        life, threads
 *
 *   B1  What is not said to be guarded, or atomic, belongs to the timing thread (before member_run(), to the opening one).
 *   B2  The lock is never held while the node, the coordinator or the transport is called; the core may be held by whoever takes it.
 *   B3  The configuration as the coordinator has it never goes back here (coordinator.h, A6).
 */
#ifndef MEMBER_MEMBER_STATE_H
#define MEMBER_MEMBER_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "coordinator/coordinator.h"
#include "member/address_book.h"
#include "member/member.h"
#include "peer/peer_net.h"

enum { GROUP_NUMBER = 0 };

/* What the core wants of the register, until it is asked for; guarded. The newest swap counts: an older one's answer would
 * be no answer to what the core waits for. */
struct orders {
    bool look, swap;
    uint64_t swap_from;
    struct configuration wanted;
};

enum asking { ASKING_NOTHING = 0, ASKING_LOOK, ASKING_FIRST, ASKING_SWAP };

struct watched { /* as people were told last */
    bool began;
    uint32_t role;
    bool member, serves;
    uint64_t primary;
    struct configuration configuration;
    bool reachable, refused;
    uint32_t peer_count;
    struct {
        uint64_t node;
        bool connected;
    } peers[REGISTERS_MAX];
    uint64_t after_ns; /* not before */
};

struct member {
    struct member_options options; /* its texts are the caller's, until member_close() */
    struct identity_file identity;
    struct coordinator *coordinator;
    struct node_cluster cluster;
    struct node *node;
    struct node_driver *driver; /* the receiving thread's */
    struct peer_net *net;

    pthread_t receiver, timer;
    bool receiver_began, timer_began;
    _Atomic bool quit;
    int bell;     /* eventfd: orders, or the end; for the timing thread */
    int net_bell; /* ... the end; for the receiving one */

    pthread_mutex_t lock;
    struct orders orders;     /* guarded */
    struct address_book book; /* written with the lock */

    /* register.c */
    enum asking asking;
    struct coordinator_ask ask;
    uint64_t swap_from; /* ASKING_FIRST, ASKING_SWAP */
    struct configuration wanted;
    uint64_t revision;            /* 0: not known yet */
    struct configuration present; /* at that revision; written with the lock */
    bool foreign;                 /* the register is another shelf's; told once */

    bool publishing;
    struct coordinator_ask publish;
    uint64_t publish_after_ns;
    struct node_record own; /* as it should be */
    bool own_known;         /* what the register holds is: */
    uint64_t own_revision;
    bool own_right;  /* ... what it should */
    bool replaced;   /* ... another one's */
    uint64_t former; /* another number has our address: a former life of this place; 0: none */
    uint64_t former_revision;
    bool book_new; /* not stored yet */

    struct watched watched;
};

void member_log(const struct member *member, const char *event, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- join.c -------------------------------------------------------------------------------------------------------- */

shelf_result member_join(struct member *member, char ret_text[MEMBER_TEXT_MAX]);

/* ---- register.c ---------------------------------------------------------------------------------------------------- */

void registers_work(struct member *member); /* answers, news, orders; never waits */
/* Before the threads: one ask, to its answer. */
void register_ask(struct member *member, struct coordinator_ask *ask);
/* NULL, or what is wrong with the state as this cluster's configuration. */
const char *register_configuration(const struct member *member, const struct register_state *state,
                                   struct configuration *ret_configuration);

/* ---- info.c -------------------------------------------------------------------------------------------------------- */

void member_info(void *context, struct shelf_cluster_info *ret_info); /* any thread, from member_run() on */

/* ---- watch.c ------------------------------------------------------------------------------------------------------- */

void watch_work(struct member *member);

#endif
