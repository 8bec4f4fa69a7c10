// SPDX-License-Identifier: Apache-2.0
//
// Named schedules of whole nodes: what happens when logs have been trimmed, and when nodes are closed. Each is driven to where the
// rule decides.

#include <string.h>

#include "base/bits.h"
#include "cluster.h"

#define ROUNDS_MAX 20000u

static struct cluster_world world;
static bool cut[5][5]; // from, to: nothing arrives

static struct cluster_node *node_of(uint64_t id) {
    return &world.nodes[id - 1];
}

// ---- Things that happen

static bool hears(uint64_t id) {
    return node_of(id)->alive && !node_of(id)->stopped;
}

static uint16_t kind_of(const struct letter *letter) {
    struct peer_header header;
    memcpy(&header, letter->bytes, sizeof(header));
    return header.kind;
}

// All letters that are under way now arrive; those of one kind from one node get lost (0: of all kinds).
static void letters(uint64_t lost_from, uint16_t lost_kind) {
    for (uint32_t left = world.net.letter_count; left > 0 && world.net.letter_count > 0; left--) {
        struct letter letter = world.net.letters[0];
        memmove(&world.net.letters[0], &world.net.letters[1],
                --world.net.letter_count * sizeof(world.net.letters[0]));
        bool lost = letter.from == lost_from && (lost_kind == 0 || kind_of(&letter) == lost_kind);
        lost |= cut[letter.from][letter.to];
        net_letter_end(&world.net, &letter, !lost && hears(letter.to));
    }
}

static void disks(void) {
    for (uint64_t id = 1; id <= world.plan.nodes; id++) {
        for (uint32_t i = 0; i < 200 && cluster_node_moves(node_of(id)); i++) {
            cluster_node_io(node_of(id));
        }
    }
}

static void round_of(uint64_t lost_from, uint16_t lost_kind) {
    letters(lost_from, lost_kind);
    disks();
    while (world.net.op_count > 0) {
        register_step(&world.net);
    }
    world.net.now_ms += 5;
    for (uint64_t id = 1; id <= world.plan.nodes; id++) {
        cluster_node_tick(node_of(id));
    }
}

#define UNTIL(condition, from, kind)                                       \
    for (uint32_t rounds_ = 0; !(condition); rounds_++) {                  \
        SIM_CHECK(rounds_ < ROUNDS_MAX, "it never happened: " #condition); \
        round_of(from, kind);                                              \
    }

static bool serves(uint64_t id) {
    return node_of(id)->alive && node_of(id)->status.serves;
}

static void commits(uint64_t id, uint64_t count) {
    struct cluster_client *client = &world.clients[0];
    uint64_t wanted = client->effects + count;
    for (uint32_t rounds = 0; client->effects < wanted; rounds++) {
        SIM_CHECK(rounds < ROUNDS_MAX, "node %llu should commit", (unsigned long long)id);
        client->node = id;
        cluster_client_act(&world, 0);
        round_of(0, 0);
    }
}

static void checkpoints(void) {
    for (uint64_t id = 1; id <= world.plan.nodes; id++) {
        cluster_node_checkpoint(node_of(id));
    }
}

// The logs of nodes 2 and 3 are of another size.
static void begin(uint32_t nodes, uint32_t members, uint32_t min_copies, uint32_t log_segments_others) {
    memset(cut, 0, sizeof(cut));
    const struct cluster_plan plan = {.seed = 1,
                                      .nodes = nodes,
                                      .members = members,
                                      .copies = nodes,
                                      .min_copies = min_copies,
                                      .clients = 1,
                                      .alignment = 512,
                                      .log_segments = 3,
                                      .log_segments_others = log_segments_others,
                                      .tick_ms_max = 5,
                                      .flight_records_max = 2,
                                      .region_pages = 40,
                                      .write_max = 60000,
                                      .large_chance = 1000};
    cluster_world_begin(&world, &plan);
    world.net.faults = false;
    UNTIL(serves(1) && world.net.present.member_count == nodes, 0, 0);
    world.net.faults = true; // (for the programs: they go on)
    world.net.loss = world.net.late = 0;
    commits(1, 3);
    UNTIL(node_of(nodes)->status.applied == node_of(1)->status.applied, 0, 0);
    checkpoints();
    UNTIL(node_of(nodes)->status.checkpoint > 0, 0, 0);
}

// Node `away` is gone for so long that no log of the others reaches it any more.
static void leave_behind(uint64_t away, uint64_t records) {
    cluster_node_crash(node_of(away), true);
    uint64_t before = node_of(1)->status.last;
    while (node_of(1)->status.last < before + records) {
        commits(1, 5);
        checkpoints();
    }
    UNTIL(node_of(2)->status.checkpoint > before + records / 2, 0, 0);
}

static void healed(void) {
    UNTIL(cluster_facts_healed(&world), 0, 0);
    for (uint64_t id = 1; id <= world.plan.nodes; id++) {
        cluster_facts_image(node_of(id));
    }
}

// ---- The schedules

// The primary dies while a member gets its checkpoint. The member must not lead with what it has, nor count for what it has
// not; the other one, whose log is whole, takes over, and the transfer begins anew from there.
static void takeover_while_installing(void) {
    begin(3, 3, 3, 3);
    leave_behind(3, 110);
    cluster_node_start(node_of(3));
    UNTIL(node_of(3)->status.installs, 0, 0);
    for (uint32_t i = 0; i < 3; i++) {
        round_of(0, 0);
    }
    SIM_CHECK(node_of(3)->status.installs, "node 3 should still be in the middle of it");
    uint64_t committed = world.committed_last;
    cluster_node_crash(node_of(1), false);
    UNTIL(world.net.present.primary == 3, 2, PEER_SUSPECT_ASK); // node 3 is the first to try
    UNTIL(serves(2), 3, PEER_SUSPECT_ASK);
    SIM_CHECK(world.committed_last >= committed, "something that was committed is not");
    commits(2, 2); // with node 3: it has caught up, or nothing could be committed
    cluster_node_start(node_of(1));
    healed();
}

// The set was changed, and then all logs were trimmed: what is left of the past is in superblocks and in the register. A
// member that was away comes back with a longer log than those seem to have, and tries to lead.
static void membership_rolled_back(void) {
    begin(4, 3, 4, 3);
    leave_behind(3, 110);
    for (uint64_t id = 2; id <= 4; id += 2) { // nothing behind their checkpoints
        cluster_node_checkpoint(node_of(id));
        UNTIL(node_of(id)->status.checkpoint == node_of(id)->status.last, 0, 0);
        cluster_node_crash(node_of(id), true);
        cluster_node_start(node_of(id));
        UNTIL(node_of(id)->opened, 0, 0);
    }
    cluster_node_crash(node_of(1), true);
    cluster_node_crash(node_of(4), true);
    cluster_node_start(node_of(3));
    UNTIL(world.net.present.primary == 3, 2, PEER_SUSPECT_ASK);
    cluster_node_start(node_of(4));
    UNTIL(serves(2) || serves(4), 3, PEER_SUSPECT_ASK);
    SIM_CHECK(world.net.present.member_count == 4, "the set should be that of the register");
    commits(serves(2) ? 2 : 4, 2);
    cluster_node_start(node_of(1));
    healed();
}

// Power is lost in the moment in which a checkpoint has been installed, and in which it nearly has been.
static void power_lost_around_the_superblock(void) {
    begin(3, 3, 3, 3);
    leave_behind(3, 110);
    cluster_node_start(node_of(3));
    UNTIL(node_of(3)->status.installs, 0, 0);
    for (uint32_t i = 0; i < ROUNDS_MAX && node_of(3)->status.installs && !node_of(3)->restarts; i++) {
        letters(0, 0);
        while (cluster_node_moves(node_of(3)) && !node_of(3)->restarts) {
            cluster_node_io(node_of(3));
        }
        cluster_node_io(node_of(1));
    }
    SIM_CHECK(node_of(3)->restarts, "node 3 should have a checkpoint");
    cluster_node_crash(node_of(3), true);
    cluster_node_start(node_of(3));
    UNTIL(node_of(3)->opened, 0, 0);
    commits(1, 2);
    healed();
}

// A primary whose log reaches further back takes over while a checkpoint is on its way. Its records are acknowledged, and
// committed by that; the checkpoint, which still could be had, is older than they are.
static void records_received_while_installing(void) {
    begin(3, 3, 3, 64);
    leave_behind(3, 80);
    cluster_node_start(node_of(3));
    UNTIL(node_of(3)->status.installs, 0, 0);
    cluster_node_crash(node_of(1), false);
    UNTIL(node_of(2)->status.role == GROUP_LEADS, 3, PEER_SUSPECT_ASK);
    cut[2][1] = true; // node 1 comes back and could donate, but gets no record; first, nothing of it arrives
    cut[1][3] = true;
    cluster_node_start(node_of(1));
    for (uint32_t i = 0; !serves(2) || node_of(3)->status.durable < node_of(2)->status.commit; i++) {
        SIM_CHECK(i < ROUNDS_MAX,
                  "node 2 should serve"); // so its opening record is committed, by nodes 2 and 3
        cut[1][3] = i % 150 != 149;       // (else the transfer would be given up)
        round_of(0, 0);
    }
    cut[1][3] = false;
    uint32_t life = node_of(3)->life;
    for (uint32_t i = 0; i < 100 && node_of(3)->life == life;
         i++) { // now the rest of the transfer could come
        round_of(0, 0);
    }
    cut[2][3] = true;
    UNTIL(serves(1) || serves(3), 0, 0);
    memset(cut, 0, sizeof(cut));
    healed();
}

// The receiver loses its power in the middle of the transfer, again and again, each time a little later.
static void power_lost_in_the_transfer(void) {
    begin(3, 3, 3, 3);
    leave_behind(3, 110);
    for (uint32_t later = 0; later < 12; later++) {
        cluster_node_start(node_of(3));
        UNTIL(node_of(3)->status.installs || node_of(3)->status.last >= node_of(1)->status.last, 0, 0);
        for (uint32_t i = 0; i < later; i++) {
            round_of(0, 0);
        }
        cluster_node_crash(node_of(3), true);
    }
    cluster_node_start(node_of(3));
    commits(1, 2);
    healed();
}

// Half of all parts are damaged where no checksum of a message tells.
static void damaged_parts(void) {
    begin(3, 3, 3, 3);
    leave_behind(3, 110);
    world.net.damage = 500;
    cluster_node_start(node_of(3));
    UNTIL(node_of(3)->life > 2 && node_of(3)->opened && !node_of(3)->status.installs, 0, 0);
    world.net.damage = 0;
    commits(1, 2);
    healed();
}

// The donor makes a later checkpoint in the middle of the transfer, and the peer hears of it by an offer first.
static void later_checkpoint_in_the_transfer(void) {
    begin(3, 3, 3, 3);
    leave_behind(3, 110);
    cluster_node_start(node_of(3));
    UNTIL(node_of(3)->status.installs, 0, 0);
    for (uint32_t i = 0; i < 8; i++) {
        round_of(0, 0);
    }
    SIM_CHECK(node_of(3)->status.installs && !node_of(3)->restarts, "node 3 should still be in the middle");
    uint64_t before = node_of(1)->status.checkpoint, last = node_of(1)->status.last;
    while (node_of(1)->status.last < last + 8) {
        struct cluster_client *client = &world.clients[0];
        client->node = 1;
        cluster_client_act(&world, 0);
        round_of(1, PEER_PART);
    }
    cluster_node_checkpoint(node_of(1));
    UNTIL(node_of(1)->status.checkpoint > before, 1, PEER_PART);
    for (uint32_t i = 0; i < 6; i++) { // the offer arrives, and what belongs to it is asked for
        round_of(1, PEER_PART);
    }
    commits(1, 2);
    healed();
}

// A primary that is closed hands over: another one serves long before its silence would have been noticed.
static void primary_closed(void) {
    begin(3, 3, 2, 3);
    uint64_t begin_ms = world.net.now_ms;
    cluster_node_close(node_of(1));
    while (!serves(2) && !serves(3)) {
        SIM_CHECK(world.net.now_ms < begin_ms + 100, "nobody serves %llu ms after the primary was closed",
                  (unsigned long long)(world.net.now_ms - begin_ms));
        round_of(0, 0);
    }
    UNTIL(!node_of(1)->alive, 0, 0);
    commits(serves(2) ? 2 : 3, 2);
    cluster_node_start(node_of(1));
    healed();
}

// Nobody is left to take over, or to commit what is in the log: a node closes all the same, and does not call it clean.
static void closed_alone(void) {
    begin(3, 3, 3, 3);
    cluster_node_crash(node_of(2), false);
    cluster_node_crash(node_of(3), false);
    struct cluster_client *client = &world.clients[0];
    uint64_t before = node_of(1)->status.last;
    while (node_of(1)->status.last == before) { // a record that nobody else has
        client->node = 1;
        cluster_client_act(&world, 0);
        round_of(0, 0);
    }
    uint64_t begin_ms = world.net.now_ms;
    cluster_node_close(node_of(1));
    while (node_of(1)->alive) {
        SIM_CHECK(world.net.now_ms < begin_ms + 2500, "node 1 does not close");
        round_of(0, 0);
    }
    for (uint64_t id = 1; id <= 3; id++) {
        cluster_node_start(node_of(id));
    }
    UNTIL(serves(1) || serves(2) || serves(3), 0, 0);
    commits(serves(1) ? 1 : serves(2) ? 2 : 3, 1);
    healed();
}

static const struct {
    const char *name;
    void (*run)(void);
} schedules[] = {
    {"takeover while installing a checkpoint", takeover_while_installing},
    {"membership rolled back after trimming", membership_rolled_back},
    {"records received while installing a checkpoint", records_received_while_installing},
    {"parts of a checkpoint damaged on their way", damaged_parts},
    {"later checkpoint in the middle of a transfer", later_checkpoint_in_the_transfer},
    {"primary closed, with others there", primary_closed},
    {"node closed alone, with a record of open fate", closed_alone},
    {"power lost in the transfer of a checkpoint", power_lost_in_the_transfer},
    {"power lost when a checkpoint has been installed", power_lost_around_the_superblock},
};

uint32_t trim_schedule_count(void) {
    return ARRAY_COUNT(schedules);
}

const char *trim_schedule_run(uint32_t number) {
    schedules[number].run();
    cluster_world_end(&world);
    return schedules[number].name;
}
