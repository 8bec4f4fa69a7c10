// SPDX-License-Identifier: Apache-2.0
//
// Named schedules: failures of other implementations, and those that a rule of the protocol exists for, where chance would need
// too many seeds. Each is driven step by step to where the rule decides; with the rule left out, a fact is violated.

#include <string.h>

#include "base/bits.h"
#include "group_world.h"

static struct group_world world;

static struct sim_node *node_of(uint64_t id) {
    return &world.nodes[id - 1];
}

// ---- One thing at a time

static void letter_take(uint32_t place, struct letter *ret_letter) {
    *ret_letter = world.net.letters[place];
    memmove(&world.net.letters[place], &world.net.letters[place + 1],
            (world.net.letter_count - place - 1) * sizeof(world.net.letters[0]));
    world.net.letter_count--;
}

// All letters that are under way from one to the other now (0: any); or they get lost.
static void letters(uint64_t from, uint64_t to, bool arrive) {
    uint32_t left = world.net.letter_count;
    for (uint32_t place = 0; left > 0; left--) {
        const struct letter *letter = &world.net.letters[place];
        if ((from != 0 && letter->from != from) || (to != 0 && letter->to != to)) {
            place++;
            continue;
        }
        struct letter taken;
        letter_take(place, &taken);
        net_letter_end(&world.net, &taken, arrive && node_of(taken.to)->alive);
    }
}

static void registers(void) {
    while (world.net.op_count > 0) {
        register_step(&world.net);
    }
}

static void disk(uint64_t id) {
    while (group_disk_promise(node_of(id)) || group_disk_log(node_of(id))) {
    }
}

// Until nothing moves any more among two nodes; letters to and from others get lost.
static void settle(uint64_t a, uint64_t b) {
    for (uint32_t i = 0; i < 60; i++) {
        letters(a, b, true);
        letters(b, a, true);
        disk(a);
        disk(b);
        registers();
    }
    for (uint64_t other = 1; other <= world.plan.nodes; other++) {
        if (other != a && other != b) {
            letters(other, 0, false);
            letters(0, other, false);
        }
    }
}

static void tick(uint64_t id, uint64_t ms) {
    world.net.now_ms += ms;
    group_tick(&node_of(id)->group, world.net.now_ms);
}

// Time passes for two; `id` is the one to take over.
static void take_over(uint64_t id, uint64_t voter) {
    node_of(voter)->group.backoff_ms = 1000000;
    node_of(id)->group.backoff_ms = 0;
    tick(id, 1);
    registers();
    node_of(voter)->group.backoff_ms = 1000000;
    node_of(id)->group.backoff_ms = 0;
    tick(voter, 130);
    tick(id, 0);
}

static void begin(uint32_t nodes) {
    const struct group_plan plan = {.seed = 1,
                                    .nodes = nodes,
                                    .members = nodes,
                                    .copies = nodes,
                                    .min_copies = 1,
                                    .tick_ms_max = 1,
                                    .flight_records_max = 1};
    group_world_begin(&world, &plan);
    world.net.faults = false;
    registers();
    tick(1, 1); // it is named, so it takes the next epoch
    for (uint32_t i = 0; i < 20; i++) {
        letters(0, 0, true);
        registers();
        for (uint64_t id = 1; id <= nodes; id++) {
            disk(id);
        }
    }
    SIM_CHECK(group_serves(&node_of(1)->group) && world.net.present.epoch == 2,
              "the schedule does not begin as it should");
}

// ---- The schedules

// Ongaro's figure 8: a record of an older epoch is on a majority, and a log with a later epoch takes over.
static void elected(uint64_t id, uint64_t voter) {
    take_over(id, voter);
    for (uint32_t i = 0; i < 8 && node_of(id)->group.role != GROUP_LEADS; i++) {
        letters(id, voter, true);
        group_disk_promise(node_of(voter));
        letters(voter, id, true);
        registers();
        group_disk_promise(node_of(id));
    }
    SIM_CHECK(node_of(id)->group.role == GROUP_LEADS, "node %llu should lead", (unsigned long long)id);
}

static void old_epoch_committed_by_counting(void) {
    begin(3);
    group_append(node_of(1)); // nobody else gets it
    disk(1);
    group_crash(node_of(1));
    letters(1, 0, false);
    letters(0, 1, false);
    elected(2, 3); // its opening record takes the same index
    letters(2, 0, false);
    disk(2);
    group_crash(node_of(2));
    letters(0, 2, false);
    group_start(node_of(1));
    registers();
    elected(1, 3);
    for (uint32_t i = 0; i < 2;
         i++) { // the old record reaches a majority; the opening record behind it does not
        letters(1, 3, true);
        group_disk_log(node_of(3));
        letters(3, 1, true);
    }
    letters(1, 0, false);
    group_crash(node_of(1));
    letters(0, 1, false);
    group_start(node_of(2));
    registers();
    elected(2, 3);
}

// A backup has a record that nobody else has, and its index is given out again: what it says of its log's end counts for nothing.
static void stale_tail_acknowledged(void) {
    begin(3);
    group_append(node_of(1));
    letters(1, 2, true);
    letters(1, 3, false);
    disk(2);
    letters(2, 1, false);
    group_crash(node_of(1)); // its own disk did not get it
    group_start(node_of(1));
    registers();
    elected(3, 1); // r of 3, neither of which has it
    letters(3, 1, false);
    disk(3);
    letters(3, 2, true);
    disk(2);
    letters(2, 3, true);
    tick(3, 30);
    letters(3, 2, true);
    letters(2, 3, true);
}

// What was acknowledged to a primary in its former life comes late, when the index is another record's.
static void acknowledgement_of_an_earlier_epoch(void) {
    begin(3);
    group_append(node_of(1));
    letters(1, 2, true);
    letters(1, 3, false);
    disk(2);
    struct letter kept[8];
    uint32_t count = 0;
    while (world.net.letter_count > 0 && count < ARRAY_COUNT(kept)) {
        letter_take(0, &kept[count++]);
    }
    group_crash(node_of(1));
    group_start(node_of(1));
    registers();
    elected(1, 3);
    letters(1, 0, false);
    disk(1);
    for (uint32_t i = 0; i < count; i++) {
        net_letter_end(&world.net, &kept[i], kept[i].to == 1);
    }
}

// The others have what is committed, the primary's own disk does not yet; then the set is to be one that may be led by it alone.
static void primary_behind_the_floor_changes_the_set(void) {
    begin(3);
    for (uint32_t i = 0; i < 2; i++) { // (one may be on its disk after a crash all the same)
        group_append(node_of(1));
        for (uint64_t other = 2; other <= 3; other++) {
            letters(1, other, true);
            disk(other);
            letters(other, 1, true);
        }
    }
    SIM_CHECK(world.answered_last > 0, "node 1 should have answered");
    for (uint32_t i = 0; i < 20 && world.net.op_count == 0; i++) {
        tick(1, 30);
        letters(1, 2, true);
        letters(2, 1, true);
        letters(1, 3, false);
    }
    registers();
    letters(0, 0, false);
    group_crash(node_of(1));
    group_start(node_of(1));
    for (uint32_t i = 0; i < 20; i++) {
        registers();
        disk(1);
        letters(1, 0, false);
        tick(1, 30);
    }
}

// A record was on its way to a backup's disk when it promised a later epoch.
static void append_completes_in_a_newer_epoch(void) {
    begin(3);
    group_append(node_of(1));
    letters(1, 2, true); // received, not durable
    letters(1, 3, false);
    group_disk_log(node_of(1));
    letters(2, 1, false);
    node_of(2)->hangs = true;
    take_over(3, 2);
    letters(3, 2, true);
    letters(2, 3, true);
    registers();
    group_disk_promise(node_of(3));
    letters(3, 2, true);
    group_disk_promise(node_of(2));
    letters(2, 3, true);
    SIM_CHECK(node_of(3)->group.role == GROUP_LEADS, "node 3 should lead");
    letters(2, 1, false);
    group_disk_log(node_of(2));
    letters(2, 1, true); // does it acknowledge for the old epoch?
    settle(2, 3);
    settle(2, 3);
    tick(3, 30);
    settle(2, 3);
}

// A primary reads, confirmed by what a member said before the read began; another has the lead meanwhile.
static void read_confirmed_by_an_earlier_round(void) {
    begin(3);
    group_read(&node_of(1)->group);
    letters(1, 2, true);
    letters(2, 1, true);
    tick(1, 30);
    letters(1, 2, true); // its acknowledgement stays under way
    letters(1, 3, false);
    letters(3, 0, false);
    struct letter kept[8];
    uint32_t count = 0;
    while (world.net.letter_count > 0 && count < ARRAY_COUNT(kept)) {
        letter_take(0, &kept[count++]);
    }
    take_over(2, 3);
    settle(2, 3);
    tick(2, 30);
    settle(2, 3);
    group_append(node_of(2));
    settle(2, 3);
    SIM_CHECK(world.answered_last > 0, "node 2 should have answered");
    group_read_begin(node_of(1));
    for (uint32_t i = 0; i < count; i++) {
        net_letter_end(&world.net, &kept[i], kept[i].to == 1);
    }
}

// A set is changed, which the primary cannot know yet; a member that is no longer in it confirms a read.
static void read_confirmed_by_a_removed_member(void) {
    begin(3);
    letters(0, 3, false);
    for (uint32_t i = 0; i < 20 && world.net.op_count == 0; i++) {
        tick(1, 30);
        letters(1, 2, true);
        tick(2, 0);
        letters(2, 1, true);
        letters(1, 3, false);
    }
    SIM_CHECK(world.net.op_count == 1 && world.net.ops[0].swap, "node 1 should want a smaller set");
    world.net.present = world.net.ops[0].wanted; // done; the answer is lost
    world.net.sets[world.net.present.epoch] = world.net.present;
    world.net.op_count = 0;
    letters(0, 0, false);
    for (uint32_t i = 0; i < 60 && !group_serves(&node_of(2)->group); i++) {
        tick(2, 30);
        registers();
        disk(2);
        letters(2, 0, false);
    }
    SIM_CHECK(group_serves(&node_of(2)->group), "node 2 should serve alone");
    group_append(node_of(2));
    disk(2);
    letters(2, 0, false);
    SIM_CHECK(world.answered_last > 0, "node 2 should have answered");
    group_read_begin(node_of(1));
    letters(1, 3, true);
    letters(3, 1, true);
}

static const struct {
    const char *name;
    void (*run)(void);
} schedules[] = {
    {"old-epoch entry committed by counting", old_epoch_committed_by_counting},
    {"stale tail acknowledged", stale_tail_acknowledged},
    {"acknowledgement of an earlier epoch", acknowledgement_of_an_earlier_epoch},
    {"primary behind the floor changes the set", primary_behind_the_floor_changes_the_set},
    {"append completing in a newer epoch", append_completes_in_a_newer_epoch},
    {"read confirmed by an earlier round", read_confirmed_by_an_earlier_round},
    {"read confirmed by a removed member", read_confirmed_by_a_removed_member},
};

uint32_t group_schedule_count(void) {
    return ARRAY_COUNT(schedules);
}

const char *group_schedule_run(uint32_t number) {
    schedules[number].run();
    group_world_end(&world);
    return schedules[number].name;
}
