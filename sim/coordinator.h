// SPDX-License-Identifier: Apache-2.0
//
// The simulated coordinator: a store, and for each node a way to it on which requests and answers are late or lost, by a seeded
// generator. Nothing happens but in sim_coordinator_step(), one thing at a time. It keeps the promises of
// core/coordinator.h and makes use of all their freedom:
//
//     a request waits as long as chance wants; so do its answer and the news
//     request lost      a get is UNAVAILABLE, a swap UNKNOWN, and it never happens
//     answer lost       the same, but it has happened
//     late              the asker hears UNKNOWN first; the swap happens later, when others' have happened meanwhile
//     gone              asks are UNAVAILABLE; what was on its way is lost or late
//     restored          the store goes back to what it was at the last backup; nodes that know better are told REFUSED

#ifndef SIM_COORDINATOR_H
#define SIM_COORDINATOR_H

#include "base/random.h"
#include "core/coordinator.h"

#define SIM_COORDINATOR_NODES_MAX 16u

struct sim_coordinator;

struct sim_coordinator_plan { // chances out of 1000
    uint32_t request_lost, answer_lost, late;
};

// The generator is the caller's.
struct sim_coordinator *sim_coordinator_new(struct random *random, const struct sim_coordinator_plan *plan);
void sim_coordinator_free(struct sim_coordinator *coordinator);
void sim_coordinator_plan_set(struct sim_coordinator *coordinator, const struct sim_coordinator_plan *plan);

// From the view of node `number`. A restarted node has lost its asks, which may happen all the same, and what it had been told;
// with `wiped`, also what it remembered durably.
void sim_coordinator_node_start(struct sim_coordinator *coordinator, uint32_t number, bool wiped);
void sim_coordinator_start(struct sim_coordinator *coordinator, uint32_t number, struct coordinator_ask *ask);
struct coordinator_ask *sim_coordinator_take(struct sim_coordinator *coordinator,
                                             uint32_t number); // NULL: none
bool sim_coordinator_news_take(struct sim_coordinator *coordinator, uint32_t number,
                               struct coordinator_news *ret_news);
bool sim_coordinator_reachable(const struct sim_coordinator *coordinator, uint32_t number);
bool sim_coordinator_refused(const struct sim_coordinator *coordinator, uint32_t number);

// One of the things that are under way happens. False: nothing is.
bool sim_coordinator_step(struct sim_coordinator *coordinator);

void sim_coordinator_gone_set(struct sim_coordinator *coordinator, bool gone);
void sim_coordinator_cut_set(struct sim_coordinator *coordinator, uint32_t number,
                             bool cut); // for one node only
void sim_coordinator_backup(struct sim_coordinator *coordinator);
void sim_coordinator_restore(struct sim_coordinator *coordinator);

// What the store holds, for checkers.
void sim_coordinator_look(const struct sim_coordinator *coordinator, struct register_id id,
                          struct register_state *ret_state);

#endif
