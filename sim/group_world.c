// SPDX-License-Identifier: Apache-2.0
//
// See group_world.h.

#include "group_world.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bits.h"
#include "base/crc.h"
#include "base/sometimes.h"

// ---- The log of a node, as its group sees it

static struct log_mark log_last(void *context) {
    const struct sim_node *node = context;
    return (struct log_mark){.index = node->last, .epoch = node->log[node->last].epoch};
}

static uint64_t log_durable(void *context) {
    return ((const struct sim_node *)context)->durable;
}

static uint64_t log_first(void *context) {
    (void)context;
    return 1; // these logs are never trimmed: that is for the cluster's
}

static void on_offer(void *context, uint64_t node, const struct peer_message *message) {
    (void)context;
    (void)message;
    sim_fail("node %llu is offered a checkpoint", (unsigned long long)node);
}

static bool log_mark(void *context, uint64_t index, struct log_mark *ret_mark) {
    const struct sim_node *node = context;
    if (index > node->last) {
        return false;
    }
    *ret_mark = (struct log_mark){.index = index, .epoch = node->log[index].epoch};
    return true;
}

static bool log_settled(void *context) {
    return !((const struct sim_node *)context)->cutting;
}

static void record_bytes(const struct sim_node *node, uint64_t index, uint8_t bytes[RECORD_BYTES]) {
    struct record_header header = {.magic = RECORD_MAGIC,
                                   .index = index,
                                   .epoch = node->log[index].epoch,
                                   .previous_epoch = node->log[index - 1].epoch,
                                   .payload_size = sizeof(uint64_t),
                                   .kind = RECORD_DATA,
                                   .format = LOG_FORMAT_VERSION};
    memcpy(header.shelf_id, "simulated group", 16);
    header.header_crc = crc32c(0, &header, sizeof(header));
    memset(bytes, 0, RECORD_BYTES);
    memcpy(bytes, &header, sizeof(header));
    memcpy(bytes + sizeof(header), &node->log[index].value, sizeof(uint64_t));
}

static struct sim_record record_of(const void *bytes, uint64_t *ret_index) {
    struct record_header header;
    struct sim_record record;
    memcpy(&header, bytes, sizeof(header));
    memcpy(&record.value, (const uint8_t *)bytes + sizeof(header), sizeof(record.value));
    record.epoch = header.epoch;
    *ret_index = header.index;
    return record;
}

static bool log_same(void *context, const void *bytes, size_t size) {
    const struct sim_node *node = context;
    uint64_t index;
    ASSERT(size == RECORD_BYTES);
    struct sim_record record = record_of(bytes, &index);
    return index <= node->last && node->log[index].epoch == record.epoch &&
           node->log[index].value == record.value;
}

static bool log_receive(void *context, const void *bytes, size_t size) {
    struct sim_node *node = context;
    uint64_t index;
    ASSERT(size == RECORD_BYTES && !node->cutting);
    struct sim_record record = record_of(bytes, &index);
    if (node->last - node->durable >= 3 || index >= RECORDS_MAX) {
        return false; // no room
    }
    SIM_CHECK(index == node->last + 1, "record %llu is to follow record %llu", (unsigned long long)index,
              (unsigned long long)node->last);
    node->log[++node->last] = record;
    return true;
}

static void log_cut(void *context, uint64_t index) {
    struct sim_node *node = context;
    ASSERT(!node->cutting);
    sim_trace("node %llu: cuts its log from %llu to %llu", (unsigned long long)node->id,
              (unsigned long long)node->last, (unsigned long long)index);
    node->last = index;
    node->durable = min_u64(node->durable, index);
    node->cutting = true;
}

static void log_append(struct sim_node *node, struct sim_record record) {
    ASSERT(!node->cutting);
    SIM_CHECK(node->last + 1 < RECORDS_MAX, "too many records");
    node->log[++node->last] = record;
}

static void log_open(void *context, uint64_t epoch) {
    struct sim_node *node = context;
    facts_lead(node->world, node, epoch);
    node->doomed |= node->world->net.faults && net_chance(&node->world->net, node->world->plan.doom);
    log_append(node, (struct sim_record){.epoch = epoch});
}

// ---- The other orders

static void on_send(void *context, uint64_t to, const struct peer_message *message, bool record) {
    struct sim_node *node = context;
    uint8_t bytes[RECORD_BYTES];
    if (record) {
        ASSERT(message->index + 1 <= node->last);
        record_bytes(node, message->index + 1, bytes);
    }
    struct peer_message copy = *message;
    copy.body = record ? bytes : NULL;
    copy.body_size = record ? RECORD_BYTES : 0;
    net_send(&node->world->net, node->id, to, &copy);
}

static void on_promise_write(void *context, uint64_t epoch) {
    struct sim_node *node = context;
    ASSERT(node->promise == 0 && epoch > node->disk_promise);
    node->promise = epoch;
}

static void on_swap(void *context, uint64_t epoch, const struct configuration *wanted) {
    struct sim_node *node = context;
    register_swap(&node->world->net, node->id, node->life, epoch, wanted);
}

static void on_look(void *context) {
    struct sim_node *node = context;
    register_look(&node->world->net, node->id, node->life);
}

static void on_commit(void *context, uint64_t index) {
    struct sim_node *node = context;
    SIM_CHECK(index <= node->last, "node %llu commits record %llu, which it does not have",
              (unsigned long long)node->id, (unsigned long long)index);
    facts_commit(node->world, node, node->commit_seen + 1, index);
    node->commit_seen = index;
    node->doomed |= node->world->net.faults && node->group.role == GROUP_LEADS &&
                    net_chance(&node->world->net, node->world->plan.doom / 4);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < node->pending_count; i++) {
        if (node->pending[i].index <= index) {
            facts_answer(node->world, node, node->pending[i].index, node->pending[i].value);
        } else {
            node->pending[kept++] = node->pending[i];
        }
    }
    node->pending_count = kept;
    sim_trace("node %llu: committed up to %llu", (unsigned long long)node->id, (unsigned long long)index);
    if (random_chance(&node->world->random, 1, 8)) {
        node->disk_hint =
            max_u64(node->disk_hint, min_u64(index, node->durable)); // it is durable up to there
    }
}

static void on_lead_lost(void *context) {
    struct sim_node *node = context;
    sim_trace("node %llu: leads no more", (unsigned long long)node->id);
    node->pending_count = 0; // UNKNOWN
    node->reading = false;
}

static void on_read_answer(void *context, uint64_t round, uint64_t index, bool confirmed) {
    struct sim_node *node = context;
    if (!node->reading || round < node->read_round) {
        return;
    }
    node->reading = false;
    SIM_CHECK(!confirmed || index >= node->read_floor,
              "Q5: a linearizable read on node %llu sees record %llu, but %llu had been answered before it",
              (unsigned long long)node->id, (unsigned long long)index, (unsigned long long)node->read_floor);
}

static void on_stop(void *context, const char *reason) {
    const struct sim_node *node = context;
    sim_fail("node %llu stops: %s", (unsigned long long)node->id, reason);
}

// ---- Life and death

void group_start(struct sim_node *node) {
    struct group_world *world = node->world;
    const struct group_host host = {.context = node,
                                    .log_last = log_last,
                                    .log_durable = log_durable,
                                    .log_mark = log_mark,
                                    .log_first = log_first,
                                    .offer = on_offer,
                                    .log_settled = log_settled,
                                    .log_ready = log_settled,
                                    .log_same = log_same,
                                    .log_receive = log_receive,
                                    .log_cut = log_cut,
                                    .log_open = log_open,
                                    .send = on_send,
                                    .promise_write = on_promise_write,
                                    .swap = on_swap,
                                    .look = on_look,
                                    .commit = on_commit,
                                    .lead_lost = on_lead_lost,
                                    .read_answer = on_read_answer,
                                    .stop = on_stop};
    const struct group_config config = net_group_config(
        &world->net, node->id, world->plan.copies, world->plan.min_copies, world->plan.flight_records_max);
    node->alive = true;
    node->life++;
    node->hangs = node->cutting = node->reading = node->doomed = false;
    node->promise = 0;
    node->pending_count = 0;
    node->commit_seen = node->disk_hint;
    memcpy(node->log, node->disk, sizeof(node->log));
    node->last = node->durable = node->disk_last;
    sim_trace("node %llu: starts, life %u, last record %llu, promise %llu, hint %llu",
              (unsigned long long)node->id, node->life, (unsigned long long)node->last,
              (unsigned long long)node->disk_promise, (unsigned long long)node->disk_hint);
    group_init(&node->group, &config, &host, node->disk_promise, node->disk_hint, world->net.now_ms);
}

void group_crash(struct sim_node *node) {
    struct group_world *world = node->world;
    SOMETIMES(GROUP_SIM_CRASHED);
    if (node->cutting) { // from the end
        SOMETIMES(GROUP_SIM_CRASHED_IN_CUT);
        node->disk_last =
            random_between(&world->random, min_u64(node->last, node->disk_last), node->disk_last);
    } else if (node->durable < node->last && random_chance(&world->random, 1, 2)) {
        node->disk_last = node->durable + 1; // one write was under way
        node->disk[node->disk_last] = node->log[node->disk_last];
    }
    if (node->promise != 0 && random_chance(&world->random, 1, 2)) {
        node->disk_promise = node->promise;
    }
    node->alive = false;
    if (random_chance(&world->random, 1, 2)) { // what it had sent and nobody had got yet goes with it
        net_node_gone(&world->net, node->id);
    }
    sim_trace("node %llu: crashes", (unsigned long long)node->id);
}

static void node_wipe(struct group_world *world, struct sim_node *node) {
    SOMETIMES(GROUP_SIM_WIPED);
    struct grave *grave = &world->graves[world->grave_count++];
    memcpy(grave->incarnation, node->incarnation, sizeof(grave->incarnation));
    memcpy(grave->disk, node->disk, sizeof(grave->disk));
    grave->disk_last = node->disk_last;
    node->disk_last = node->disk_promise = node->disk_hint = 0;
    random_fill(&world->random, node->incarnation, sizeof(node->incarnation));
    sim_trace("node %llu: its directory is new", (unsigned long long)node->id);
}

// ---- Steps

bool group_disk_promise(struct sim_node *node) {
    uint64_t epoch = node->promise;
    if (!node->alive || epoch == 0) {
        return false;
    }
    node->disk_promise = epoch;
    node->promise = 0;
    sim_trace("node %llu: promise %llu is durable", (unsigned long long)node->id, (unsigned long long)epoch);
    group_on_promise(&node->group, epoch);
    return true;
}

bool group_disk_log(struct sim_node *node) {
    if (!node->alive || (!node->cutting && node->durable == node->last)) {
        return false;
    }
    if (node->cutting) {
        node->disk_last = node->last;
        node->cutting = false;
    } else {
        node->durable++;
        node->disk[node->durable] = node->log[node->durable];
        node->disk_last = node->durable;
        if (node->log[node->durable].epoch < node->disk_promise) {
            SOMETIMES(GROUP_SIM_OLD_RECORD_LANDED);
        }
        sim_trace("node %llu: record %llu of epoch %llu is durable", (unsigned long long)node->id,
                  (unsigned long long)node->durable, (unsigned long long)node->log[node->durable].epoch);
    }
    group_on_log(&node->group);
    return true;
}

static void disk_step(struct group_world *world, struct sim_node *node) {
    if (node->hangs && world->net.faults) {
        return;
    }
    bool promise = node->promise != 0 && random_chance(&world->random, 1, 2);
    if (!promise || !group_disk_promise(node)) {
        group_disk_log(node);
    }
}

void group_read_begin(struct sim_node *node) {
    node->read_floor = node->world->answered_last;
    node->reading = true; // (a lone node answers at once)
    node->read_round = 0;
    uint64_t round = group_read(&node->group);
    node->read_round = round;
    node->reading = node->reading && round != 0;
}

void group_append(struct sim_node *node) {
    struct group_world *world = node->world;
    struct sim_record record = {.epoch = node->group.epoch, .value = ++world->values};
    node->pending[node->pending_count].index = node->last + 1;
    node->pending[node->pending_count++].value = record.value;
    log_append(node, record);
    group_on_appended(&node->group);
}

static void client_step(struct group_world *world, struct sim_node *node) {
    if (!node->alive || !group_serves(&node->group)) {
        return;
    }
    if (random_chance(&world->random, 1, node->reading ? 8 : 3)) {
        group_read_begin(node);
    } else if (node->pending_count < PENDING_MAX && node->last - node->group.commit < 6 &&
               node->last < (world->net.faults ? RECORDS_MAX / 2 : RECORDS_MAX - 200)) {
        group_append(node);
        node->doomed |= world->net.faults && net_chance(&world->net, world->plan.doom / 4);
    }
}

static void fault_step(struct group_world *world) {
    struct sim_node *node = &world->nodes[random_below(&world->random, world->plan.nodes)];
    if (net_chance(&world->net, world->plan.crash)) {
        if (node->alive) {
            group_crash(node);
        }
    }
    for (uint32_t i = 0; i < world->plan.nodes; i++) {
        if (world->nodes[i].alive && world->nodes[i].doomed) {
            group_crash(&world->nodes[i]);
        }
    }
    if (!node->alive && net_chance(&world->net, 30)) {
        if (net_chance(&world->net, world->plan.wipe) && world->grave_count < GRAVES_MAX &&
            facts_may_wipe(world, node)) {
            node_wipe(world, node);
        }
        group_start(node);
    }
    if (net_chance(&world->net, world->plan.partition)) {
        net_partition(&world->net);
    }
    if (net_chance(&world->net, world->plan.hang)) {
        node->hangs = !node->hangs;
    }
    register_trouble(&world->net, node->id, world->plan.register_down);
}

static void tick_step(struct group_world *world) {
    world->net.now_ms += random_between(&world->random, 1, world->plan.tick_ms_max);
    for (uint32_t i = 0; i < world->plan.nodes; i++) {
        if (world->nodes[i].alive && !(world->net.faults && net_chance(&world->net, 100))) {
            group_tick(&world->nodes[i].group, world->net.now_ms);
        }
    }
}

// Without faults everything moves.
static void calm_step(struct group_world *world) {
    for (uint32_t i = 0; i < 2 * world->plan.nodes; i++) {
        net_step(&world->net);
        register_step(&world->net);
        disk_step(world, &world->nodes[i / 2]);
    }
    struct sim_node *node = &world->nodes[random_below(&world->random, world->plan.nodes)];
    if (world->answered_count < 3 || node->reading) {
        client_step(world, node);
    }
    if (net_chance(&world->net, 300)) {
        tick_step(world);
    }
    if (net_chance(&world->net, 20)) {
        register_news(&world->net);
    }
}

static void world_step(struct group_world *world) {
    report.step++;
    if (!world->net.faults) {
        calm_step(world);
        return;
    }
    fault_step(world);
    uint64_t dice = random_below(&world->random, 1000);
    uint64_t net = world->plan.net_chance;
    uint64_t disk = net + world->plan.disk_chance;
    uint64_t client = disk + world->plan.client_chance;
    struct sim_node *node = &world->nodes[random_below(&world->random, world->plan.nodes)];
    if (dice < net) {
        net_step(&world->net);
    } else if (dice < disk) {
        disk_step(world, node);
    } else if (dice < client) {
        client_step(world, node);
    } else if (net_chance(&world->net, 300)) {
        tick_step(world);
    } else {
        register_step(&world->net);
    }
}

// ---- A whole run

struct group_plan group_plan_of_seed(uint64_t seed) {
    struct random random;
    random_seed(&random, seed ^ 0x960b);
    static const uint32_t members[] = {1, 2, 2, 3, 3, 3, 3, 5};
    struct group_plan plan = {.seed = seed};
    plan.steps = (uint32_t)random_between(&random, 2000, 9000);
    plan.members = members[random_below(&random, ARRAY_COUNT(members))];
    plan.nodes = (uint32_t)min_u64(plan.members + random_below(&random, 3), NODES_MAX);
    plan.copies = (uint32_t)random_between(&random, plan.members, plan.nodes);
    plan.min_copies = random_chance(&random, 1, 2) ? 1 : (uint32_t)min_u64(2, plan.copies);
    plan.tick_ms_max = (uint32_t)random_between(&random, 4, 30);
    plan.net_chance = (uint32_t)random_between(&random, 400, 600);
    plan.disk_chance = (uint32_t)random_between(&random, random_chance(&random, 1, 2) ? 15 : 80, 250);
    plan.client_chance = (uint32_t)random_between(&random, 20, 80);
    plan.flight_records_max = (uint32_t)random_between(&random, 1, 3);
    if (random_chance(&random, 1, 10)) {
        return plan; // only the scheduling is against it
    }
    plan.loss = random_chance(&random, 1, 2) ? (uint32_t)random_between(&random, 1, 150) : 0;
    plan.duplicate = random_chance(&random, 1, 2) ? (uint32_t)random_between(&random, 1, 200) : 0;
    plan.late = random_chance(&random, 1, 2) ? (uint32_t)random_between(&random, 1, 100) : 0;
    plan.doom = random_chance(&random, 1, 3) ? (uint32_t)random_between(&random, 20, 300) : 0;
    plan.crash = random_chance(&random, 2, 3) ? (uint32_t)random_between(&random, 1, 8) : 0;
    plan.wipe = random_chance(&random, 1, 2) ? 400 : 0;
    plan.partition = random_chance(&random, 2, 3) ? (uint32_t)random_between(&random, 1, 8) : 0;
    plan.hang = random_chance(&random, 1, 4) ? (uint32_t)random_between(&random, 1, 5) : 0;
    plan.register_fault = random_chance(&random, 2, 3) ? (uint32_t)random_between(&random, 50, 600) : 0;
    plan.register_down = random_chance(&random, 1, 4) ? 2 : 0;
    return plan;
}

// ---- What arrives

static bool on_lives(void *context, uint64_t id, uint32_t life) {
    const struct sim_node *node = &((struct group_world *)context)->nodes[id - 1];
    return node->alive && node->life == life;
}

static bool on_hears(void *context, uint64_t id) {
    return ((struct group_world *)context)->nodes[id - 1].alive;
}

static const uint8_t *on_incarnation(void *context, uint64_t id) {
    return ((struct group_world *)context)->nodes[id - 1].incarnation;
}

static void on_deliver(void *context, uint64_t id, const struct peer_message *message) {
    group_on_message(&((struct group_world *)context)->nodes[id - 1].group, message);
}

static void on_swap_answer(void *context, uint64_t id, enum swap_result result,
                           const struct configuration *present) {
    group_on_swap(&((struct group_world *)context)->nodes[id - 1].group, result, present);
}

static void on_look_answer(void *context, uint64_t id, const struct configuration *present) {
    group_on_register(&((struct group_world *)context)->nodes[id - 1].group, present);
}

void group_world_end(struct group_world *world) {
    net_free(&world->net);
    memset(world, 0, sizeof(*world));
}

void group_world_begin(struct group_world *world, const struct group_plan *plan) {
    group_world_end(world); // (of a run that failed)
    world->plan = *plan;
    random_seed(&world->random, plan->seed);
    world->net = (struct net){.random = &world->random,
                              .nodes = plan->nodes,
                              .loss = plan->loss,
                              .duplicate = plan->duplicate,
                              .late = plan->late,
                              .register_fault = plan->register_fault,
                              .now_ms = 1000,
                              .faults = true,
                              .context = world,
                              .lives = on_lives,
                              .hears = on_hears,
                              .incarnation = on_incarnation,
                              .deliver = on_deliver,
                              .swap_answer = on_swap_answer,
                              .look_answer = on_look_answer};
    for (uint32_t i = 0; i < plan->nodes; i++) {
        struct sim_node *node = &world->nodes[i];
        node->world = world;
        node->id = i + 1;
        random_fill(&world->random, node->incarnation, sizeof(node->incarnation));
    }
    register_begin(&world->net, plan->members);
    for (uint32_t i = 0; i < plan->nodes; i++) {
        group_start(&world->nodes[i]);
    }
}

// Q6: faults end, and everything that was down comes back.
static void heal(struct group_world *world) {
    net_heal(&world->net);
    uint64_t begin_ms = world->net.now_ms;
    world->answered_count = 0;
    for (uint32_t i = 0; i < world->plan.nodes; i++) {
        if (!world->nodes[i].alive) {
            group_start(&world->nodes[i]);
        }
    }
    for (uint64_t steps = 0; world->answered_count < 3 || !facts_healed(world); steps++) {
        net_healing(&world->net, steps, begin_ms);
        world_step(world);
    }
}

struct group_result group_world_run(const struct group_plan *plan) {
    static struct group_world world;
    group_world_begin(&world, plan);
    for (uint32_t steps = 0; steps < plan->steps; steps++) {
        world_step(&world);
    }
    heal(&world);
    sim_trace("end: %llu records committed, epoch %llu", (unsigned long long)world.committed_last,
              (unsigned long long)world.net.present.epoch);
    return (struct group_result){
        .commits = world.committed_last, .epochs = world.net.present.epoch, .steps = report.step};
}
