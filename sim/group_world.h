// SPDX-License-Identifier: Apache-2.0
//
// The machine that makes nodes agree (core/group.h), several of them, in one process: with logs and disks that are models, so
// that a seed takes milliseconds. Messages are encoded and decoded as between real nodes.
//
// Facts are kept outside of the nodes:
//   Q1  An epoch is led by one process, which its swap named.
//   Q2  What one node takes for committed at an index, every other does; and has it durably.
//   Q3  When a record is declared committed, q members of its epoch's set have it on their disks.
//   Q4  A new primary's log has every record that was committed in an epoch before its own.
//   Q5  A linearizable read sees everything that was answered before it began.
//   Q6  Once faults have ended, within bounded time, somebody serves, all nodes are in the set as far as the policy wants,
//       and all have the same log.

#ifndef SIM_GROUP_WORLD_H
#define SIM_GROUP_WORLD_H

#include "net.h"

#define NODES_MAX    NET_NODES_MAX
#define RECORDS_MAX  4096u
#define EPOCHS_MAX   NET_EPOCHS_MAX
#define GRAVES_MAX   32u
#define PENDING_MAX  64u
#define RECORD_BYTES 512u

struct sim_record {
    uint64_t epoch;
    uint64_t value; // 0: an opening record
};

struct sim_node {
    struct group_world *world;
    uint64_t id;
    bool alive;
    uint32_t life;
    uint8_t incarnation[16];
    struct group_node group;
    // On its disk.
    struct sim_record disk[RECORDS_MAX]; // [0] unused
    uint64_t disk_last;
    uint64_t disk_promise;
    uint64_t disk_hint; // a commit index
    // In its memory.
    struct sim_record log[RECORDS_MAX];
    uint64_t last, durable;
    bool cutting;
    uint64_t promise; // on its way to the disk; 0: none
    uint64_t commit_seen;
    bool doomed; // crashes at once
    bool hangs;  // its disk answers nothing
    uint64_t led_epoch;
    // What programs wait for.
    struct {
        uint64_t index, value;
    } pending[PENDING_MAX];
    uint32_t pending_count;
    bool reading;
    uint64_t read_round, read_floor;
};

struct group_plan {
    uint64_t seed;
    uint32_t steps;
    uint32_t nodes, members;
    uint32_t copies, min_copies;
    uint32_t tick_ms_max;
    uint32_t flight_records_max;
    uint32_t loss, duplicate, late; // out of 1000
    uint32_t doom;                  // of a primary at a commit, and when it begins to lead
    uint32_t crash, wipe, partition, hang, register_fault, register_down;
    uint32_t net_chance, disk_chance, client_chance;
};

struct group_world {
    struct random random;
    struct group_plan plan;
    struct sim_node nodes[NODES_MAX]; // id - 1
    struct net net;
    // Facts.
    struct sim_record committed[RECORDS_MAX];
    uint64_t committed_in[RECORDS_MAX]; // the epoch in which it was
    uint64_t committed_last;
    struct grave { // what was on a disk that is gone: its acknowledgements may still be under way
        uint8_t incarnation[16];
        uint64_t disk_last;
        struct sim_record disk[RECORDS_MAX];
    } graves[GRAVES_MAX];
    uint32_t grave_count;
    uint64_t answered_last; // the highest index that a program got an answer for
    uint64_t answered_count;
    uint64_t values;
};

struct group_result {
    uint64_t commits, epochs, steps;
};
struct group_plan group_plan_of_seed(uint64_t seed);
struct group_result group_world_run(const struct group_plan *plan);

// One thing at a time, for schedules.
void group_world_begin(struct group_world *world, const struct group_plan *plan);
void group_world_end(struct group_world *world);
void group_start(struct sim_node *node);
void group_crash(struct sim_node *node);
bool group_disk_promise(struct sim_node *node); // false: none is on its way
bool group_disk_log(struct sim_node *node);
void group_append(struct sim_node *node); // the node serves
void group_read_begin(struct sim_node *node);

// group_schedules.c: violations end the run as everywhere; else the schedule's name.
uint32_t group_schedule_count(void);
const char *group_schedule_run(uint32_t number);

// group_facts.c
void facts_lead(struct group_world *world, struct sim_node *node, uint64_t epoch);
void facts_commit(struct group_world *world, const struct sim_node *node, uint64_t from, uint64_t to);
void facts_answer(struct group_world *world, const struct sim_node *node, uint64_t index, uint64_t value);
bool facts_may_wipe(const struct group_world *world, const struct sim_node *node);
bool facts_healed(const struct group_world *world);

#endif
