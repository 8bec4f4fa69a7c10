// SPDX-License-Identifier: Apache-2.0
/*
 * group.h: who leads a group of nodes, and which of its records are committed. A machine of its own inside of the core: it
 * knows records by index and epoch only; what is in them, where they lie and how messages travel is its host's business.
 *
 *     events  group_on_message, group_on_log, group_on_promise, group_on_swap, group_on_register, group_tick
 *     orders  the functions of struct group_host
 *
 * An order is not carried out before the event's function has returned to the host, as far as it can be heard: no order
 * calls back into the group. Every order that has an end is answered by its event; a host that dies answers none.
 *
 * The rules that it keeps (C1 .. S5, R1) are those of docs/protocol.md. The files: group.c the entrance and what all roles
 * share, follow.c, takeover.c, lead.c, change.c (of the set).
 */
#ifndef CORE_GROUP_H
#define CORE_GROUP_H

#include "base/random.h"
#include "wire/peer.h"

struct log_mark { /* of a record; index 0: before the first */
    uint64_t index;
    uint64_t epoch;
};

enum swap_result {
    SWAP_WON,
    SWAP_LOST,    /* the register held another epoch than was expected; it comes along */
    SWAP_UNKNOWN, /* it may happen yet, or never */
};

struct group_config {
    uint64_t node;
    uint8_t incarnation[16]; /* of the directory */
    uint8_t nonce[16];       /* of this process, random */
    uint64_t seed;           /* for back-offs */
    uint64_t heartbeat_ms;
    uint64_t suspect_ms; /* silence before a member is suspicious */
    uint64_t retry_ms;   /* before something unanswered is sent again */
    uint64_t remove_ms;  /* silence, or lagging behind, before the primary removes a member */
    uint64_t
        change_ms;    /* how long commits may be held back for a change of the set that is not possible yet */
    uint64_t disk_ms; /* a primary whose log hangs for so long gives up */
    uint32_t copies, min_copies;
    uint32_t flight_records_max; /* to one peer */
};

struct group_host {
    void *context;
    /* The log. `last` counts what is on its way to the disk; `mark` is false for what is not there (any more). */
    struct log_mark (*log_last)(void *context);
    uint64_t (*log_durable)(void *context);
    bool (*log_mark)(void *context, uint64_t index, struct log_mark *ret_mark);
    /* Index of the first record that can be sent from this log; all behind it can. */
    uint64_t (*log_first)(void *context);
    bool (*log_settled)(void *context); /* no cut is under way, nor what a process that led has left there */
    bool (*log_ready)(
        void *context); /* could log_open be obeyed now? While commits are held back it stays so */
    /* Is record index + 1 of the log this one? */
    bool (*log_same)(void *context, const void *record, size_t size);
    /* The record becomes the next one. False: not now. Its becoming durable is told by group_on_log. */
    bool (*log_receive)(void *context, const void *record, size_t size);
    /* All records after `index` go; not settled until that is durable. */
    void (*log_cut)(void *context, uint64_t index);
    /* Appends the opening record of the epoch. */
    void (*log_open)(void *context, uint64_t epoch);
    /* The log does not reach the peer any more: it is offered a checkpoint (rule D1). */
    void (*offer)(void *context, uint64_t node, const struct peer_message *message);
    /* `record`: the record after message->index goes along as its body; then the host knows index_epoch. */
    void (*send)(void *context, uint64_t node, const struct peer_message *message, bool record);
    void (*promise_write)(void *context, uint64_t epoch);
    void (*swap)(void *context, uint64_t epoch,
                 const struct configuration *wanted); /* if it holds `epoch` now */
    void (*look)(void *context);                      /* what does the register hold? */
    void (*commit)(void *context, uint64_t index);    /* everything up to there is committed */
    void (*lead_lost)(void *context); /* appends nothing more; what waits is UNKNOWN (rule K3) */
    void (*read_answer)(void *context, uint64_t round, uint64_t index, bool confirmed);
    void (*stop)(void *context, const char *reason); /* what is committed here is not what others have */
};

enum group_role {
    GROUP_FOLLOWS = 0,
    GROUP_SUSPECTS, /* asks others whether they hear the primary */
    GROUP_SWAPS,    /* wants the next epoch */
    GROUP_ASKS,     /* has it; asks for promises */
    GROUP_FETCHES,  /* what its log lacks */
    GROUP_LEADS,
    GROUP_STOPPED,
};

struct group_peer {
    struct configuration_member id; /* node 0: a free place */
    bool member;                    /* else a learner */
    bool known;                     /* it has acknowledged something in this epoch */
    uint64_t acked;                 /* its durable log equals ours up to here; in this epoch */
    uint64_t commit;                /* it knows as committed */
    uint64_t next;                  /* to be sent */
    uint64_t round;                 /* that it confirmed last */
    bool probed;     /* it was sent this log's first record, as its next is not there any more */
    bool far;        /* and does not have what is before that: it needs a checkpoint */
    uint64_t far_ms; /* when the one or the other began */
    uint64_t heard_ms, moved_ms, even_ms;
};

struct group_promise { /* the answer of a member to the candidate */
    bool given;
    struct log_mark last;
    uint64_t commit; /* it knows as committed */
};

struct group_node {
    struct group_config config;
    struct group_host host;
    struct random random;
    uint64_t now_ms;
    enum group_role role;
    struct configuration known; /* the newest that the register is known to have held */
    uint64_t promised;          /* durable */
    uint64_t promising;         /* on its way to the disk; else the same */
    uint64_t promise_asker;     /* node that waits for that promise; 0: none */
    uint64_t commit;            /* effective: everything up to there is committed and here */

    /* Following. */
    uint64_t leader;        /* node that sent the last message of ... */
    uint64_t leader_epoch;  /* ... the epoch that is followed */
    uint64_t leader_commit; /* it said */
    uint64_t leader_round;
    uint64_t checked; /* our log is the leader's up to here (rule L2) */
    uint64_t heard_ms, backoff_ms;
    bool resigned; /* gave the lead up by itself: others first */
    bool retires;  /* it is about to be closed: never tries to lead, changes no set */
    uint64_t sent_ms;

    /* Suspicion and takeover. */
    uint64_t since_ms; /* when the present role began */
    bool agreed[CONFIGURATION_MEMBERS_MAX];
    struct group_promise promises[CONFIGURATION_MEMBERS_MAX]; /* in the order of `known` */
    uint32_t source;                                          /* whose log is fetched */
    uint64_t fetch_checked, fetch_ms;

    /* The register. */
    bool swapping, swap_unknown;
    struct configuration wanted;
    uint64_t wanted_from, swap_ms;
    uint64_t look_ms;

    /* Leading. */
    uint64_t epoch;     /* that is led, or was last */
    uint64_t opening;   /* index of its opening record */
    uint64_t recovered; /* end of the log before the first opening record of this leadership (rule S2) */
    bool opened;        /* an opening record of this leadership is committed */
    bool hold;          /* rule S1 */
    uint64_t hold_ms;
    uint64_t round, round_confirmed, round_index;
    uint64_t durable_seen, durable_ms;
    struct group_peer peers[2 * CONFIGURATION_MEMBERS_MAX];
};

void group_init(struct group_node *group, const struct group_config *config, const struct group_host *host,
                uint64_t promised, uint64_t commit, uint64_t now_ms);

/* A message that peer_decode() has found right. Its sender is who it says: that is for the transport to know. */
void group_on_message(struct group_node *group, const struct peer_message *message);
void group_on_log(struct group_node *group);      /* the log is durable up to a higher index, or settled */
void group_on_appended(struct group_node *group); /* the primary's: there is a record to be sent */
void group_on_promise(struct group_node *group, uint64_t epoch);
/* `present`: what the register held then; with SWAP_WON what was wanted. An answer may be late, to an earlier swap. */
void group_on_swap(struct group_node *group, enum swap_result result, const struct configuration *present);
void group_on_register(struct group_node *group, const struct configuration *present);
void group_on_gone(struct group_node *group,
                   uint64_t node); /* its process is not there, as far as can be seen */
void group_tick(struct group_node *group, uint64_t now_ms); /* at least every heartbeat_ms / 2 */

/* The node is about to be closed. */
void group_retire(struct group_node *group);
/* ... and leads: the register is to name another member, which has all that is in this log. Tried again by calling it again. */
void group_hand_over(struct group_node *group);
void group_let_go(struct group_node *group); /* leads no more, whoever comes next */

/* May requests be admitted now (rule T5)? */
bool group_serves(const struct group_node *group);
/* A linearizable read (rule R1): 0: not now; else its round, answered by read_answer. An earlier one is superseded, and its
 * waiters may use the answer to the later. (In a set of one the answer comes at once, from within.) */
uint64_t group_read(struct group_node *group);

#endif
