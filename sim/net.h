// SPDX-License-Identifier: Apache-2.0
//
// What lies between simulated nodes: a network whose letters get lost, arrive twice, late, in any order, with partitions of
// every shape; and the coordinator's register, which may be slow or gone, loses answers, and carries out a swap long after
// its outcome was called unknown.

#ifndef SIM_NET_H
#define SIM_NET_H

#include "core/group.h"
#include "report.h"

#define NET_NODES_MAX  6u
#define NET_EPOCHS_MAX 4096u
#define LETTERS_MAX    150u
#define HEAL_STEPS_MAX 60000u
#define HEAL_MS_MAX    60000u
#define OPS_MAX        64u

struct letter { // a message under way
    uint64_t from, to;
    uint8_t *bytes;
    size_t size;
    uint64_t late_ms; // it does not arrive before
};

struct register_op {
    bool swap; // else a look
    uint64_t node;
    uint32_t life;
    uint64_t expected;
    struct configuration wanted;
    bool executed, won, answered;
    struct configuration present; // as it was found
};

struct net {
    struct random *random;
    uint32_t nodes;
    uint32_t loss, duplicate, late, damage, register_fault; // out of 1000
    uint64_t now_ms;
    bool faults;
    bool cut[NET_NODES_MAX + 1][NET_NODES_MAX + 1]; // from, to
    bool register_down;
    bool register_cut[NET_NODES_MAX + 1]; // answers do not reach this node
    struct letter letters[LETTERS_MAX];
    uint32_t letter_count;
    struct configuration present;              // the register
    struct configuration sets[NET_EPOCHS_MAX]; // that it held, by epoch
    uint64_t leaders[NET_EPOCHS_MAX];          // the node that has led the epoch; 0: none yet
    struct register_op ops[OPS_MAX];
    uint32_t op_count;
    void *context;
    // Of the node, in the life in which it asked; false: it is gone.
    bool (*lives)(void *context, uint64_t node, uint32_t life);
    bool (*hears)(void *context, uint64_t node);
    const uint8_t *(*incarnation)(void *context, uint64_t node); // of its directory
    void (*deliver)(void *context, uint64_t node, const struct peer_message *message);
    void (*swap_answer)(void *context, uint64_t node, enum swap_result result,
                        const struct configuration *present);
    void (*look_answer)(void *context, uint64_t node, const struct configuration *present);
};

bool net_chance(struct net *net, uint64_t per_1000);
// Of a process that begins on the node.
struct group_config net_group_config(struct net *net, uint64_t node, uint32_t copies, uint32_t min_copies,
                                     uint32_t flight_records_max);
void net_send(struct net *net, uint64_t from, uint64_t to, const struct peer_message *message); // copied
void net_letter_again(struct net *net, const struct letter *letter);      // another one, the last of all
void net_letter_end(struct net *net, struct letter *letter, bool arrive); // taken out already
void net_step(struct net *net);                                           // one letter arrives, or gets lost
void net_partition(struct net *net);                                      // another one, or none
void net_node_gone(struct net *net, uint64_t node); // what it had sent and nobody had got yet goes with it
void net_free(struct net *net);
// Faults end. Until everything is in order again: net_healing(), a violation of Q6 if that takes too long.
void net_heal(struct net *net);
void net_healing(const struct net *net, uint64_t steps, uint64_t begin_ms);
void register_swap(struct net *net, uint64_t node, uint32_t life, uint64_t expected,
                   const struct configuration *wanted);
void register_look(struct net *net, uint64_t node, uint32_t life);
void register_step(struct net *net);
// What it holds at first: a set of the first `members` nodes, led by no process.
void register_begin(struct net *net, uint32_t members);
// It can be reached no more, or again: by this node, by all.
void register_trouble(struct net *net, uint64_t node, uint64_t per_1000);
// Q1: the epoch is the node's, and nobody has led it.
void register_lead(struct net *net, uint64_t node, const uint8_t nonce[16], uint64_t epoch);
// Would what is left of a set's directories without the node's be enough to go on without loss? Of the present set and of
// those that it may become by what has been sent.
bool register_set_survives(const struct net *net, const struct configuration *set, uint64_t wiped);
bool register_survives(const struct net *net, uint64_t wiped);
void register_news(struct net *net); // somebody who watches the register hears what it holds

#endif
