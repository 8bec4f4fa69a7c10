// SPDX-License-Identifier: Apache-2.0
//
// See cluster.h.

#include "cluster.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bits.h"
#include "base/sometimes.h"

static bool chance(struct cluster_world *world, uint64_t per_1000) {
    return net_chance(&world->net, per_1000);
}

// ---- Events

static void flight_add(struct cluster_node *node, struct io *io) {
    ASSERT(node->flight_count < CLUSTER_FLIGHTS_MAX);
    node->flights[node->flight_count++] = (struct cluster_flight){.io = io, .stamp = node->stamp++};
    if (io->kind == IO_WRITE) {
        cluster_facts_write(node, io);
    }
}

static void fault_check(struct cluster_node *node) {
    const struct core_fault *fault = core_fault_get(node->core);
    SIM_CHECK(fault, "node %llu stopped and does not say why", (unsigned long long)node->id);
    SIM_CHECK(node->eio && fault->result == SHELF_IO,
              "node %llu stopped: %s, %s: %s (offset %llu, index %llu)", (unsigned long long)node->id,
              shelf_result_name(fault->result), fault->what, fault->reason, (unsigned long long)fault->offset,
              (unsigned long long)fault->index);
}

static bool node_event(struct cluster_node *node, struct event *event) {
    struct cluster_world *world = node->world;
    struct effects effects;
    event->now_ms = event->steady_ms = world->net.now_ms;
    node->more = false;
    core_step(node->core, event, &effects);
    bool stopped_now = effects.stopped && !node->stopped;
    node->stopped = effects.stopped;
    node->restarts = effects.restart;
    if (effects.look && !node->running) { // recovery has read its log, and synced it
        node->running = true;
        cluster_facts_recovered(node);
    }
    cluster_facts_step(node);
    for (uint32_t i = 0; i < effects.message_count; i++) {
        net_send(&world->net, node->id, effects.messages[i].node, &effects.messages[i].message);
    }
    for (uint32_t i = 0; i < effects.io_count; i++) {
        flight_add(node, effects.ios[i]);
    }
    if (effects.swap) {
        register_swap(&world->net, node->id, node->life, effects.swap_from, effects.swap);
    }
    if (effects.look) {
        register_look(&world->net, node->id, node->life);
    }
    node->more = effects.more;
    if (effects.opened) {
        node->opened = true;
        sim_trace("node %llu: opened at %llu", (unsigned long long)node->id,
                  (unsigned long long)node->status.applied);
    }
    if (stopped_now) {
        fault_check(node);
    }
    struct reply replies[64];
    while (effects.reply_count > 0) { // clients may not step the core in between
        uint32_t count = (uint32_t)min_u64(effects.reply_count, ARRAY_COUNT(replies));
        memcpy(replies, effects.replies, count * sizeof(replies[0]));
        effects.replies += count;
        effects.reply_count -= count;
        for (uint32_t i = 0; i < count; i++) {
            if (world->on_reply) {
                world->on_reply(&replies[i]);
            } else {
                cluster_client_on_reply(world, node, &replies[i]);
            }
        }
    }
    node->closed = effects.closed;
    return effects.refused;
}

bool cluster_submit(struct cluster_node *node, const void *bytes, size_t size, uint64_t token,
                    const struct credentials *credentials) {
    struct event event = {.kind = EVENT_SUBMIT,
                          .request = bytes,
                          .request_size = size,
                          .token = token,
                          .credentials = credentials};
    return !node_event(node, &event);
}

void cluster_read(struct cluster_node *node, uint64_t token) {
    struct event event = {.kind = EVENT_READ, .token = token};
    node_event(node, &event);
}

// ---- Ios

static void io_unmap(struct cluster_node *node, const struct io *io) {
    struct map *map = &node->maps[io->file.region];
    SIM_CHECK(node->map_old_count < ARRAY_COUNT(node->maps_old), "too many regions go");
    if (map->memory.data) {
        node->maps_old[node->map_old_count++] = *map;
    }
    *map = (struct map){0};
}

static void io_perform(struct cluster_node *node, const struct cluster_flight *flight) {
    struct cluster_world *world = node->world;
    struct io *io = flight->io;
    io->result = IO_RESULT_OK;
    if (world->net.faults && io->kind <= IO_REMOVE && chance(world, world->plan.eio)) {
        io->result = IO_RESULT_ERROR;
        node->eio = true;
        SOMETIMES(CLUSTER_SIM_EIO);
        return;
    }
    switch ((enum io_kind)io->kind) {
    case IO_MAP:
        map_io(node->maps, CLUSTER_REGIONS_MAX, io);
        break;
    case IO_UNMAP:
        io_unmap(node, io);
        break;
    case IO_SWAP_EPOCH:
        sim_fail("a node of a cluster takes an epoch by itself");
        break;
    default:
        disk_io(node->disk, io, flight->stamp, node->stamp);
        cluster_facts_written(node, io);
        break;
    }
}

static void io_complete(struct cluster_node *node, uint32_t place) {
    struct cluster_flight flight = node->flights[place];
    node->flights[place] = node->flights[--node->flight_count];
    io_perform(node, &flight);
    node->stamp++;
    struct event event = {.kind = EVENT_IO_DONE, .io = flight.io};
    node_event(node, &event);
}

static void io_perform_partly(struct cluster_node *node, const struct cluster_flight *flight) {
    struct cluster_world *world = node->world;
    struct io *io = flight->io;
    if (io->kind == IO_WRITE) {
        (void)disk_write_torn(node->disk, &world->random, io->file, io->offset, io->buffer, io->size,
                              node->stamp++);
    } else if (random_chance(&world->random, 1, 2) && disk_io_changes(io)) {
        disk_io(node->disk, io, flight->stamp, node->stamp);
    }
}

// ---- Life and death

void cluster_node_start(struct cluster_node *node) {
    struct cluster_world *world = node->world;
    const struct cluster_plan *plan = &world->plan;
    uint32_t log_segments = node->id % 3 == 1 ? plan->log_segments : plan->log_segments_others;
    struct core_config *config = &node->config;
    *config = (struct core_config){.create = !disk_published(node->disk),
                                   .shelf_id = "simulated group",
                                   .alignment = world->plan.alignment,
                                   .log_bytes_max = log_segments * LOG_SEGMENT_BYTES,
                                   .checkpoint_log_bytes = min_u64(4, log_segments / 2) * LOG_SEGMENT_BYTES,
                                   .checkpoint_interval_ms = 3600000,
                                   .session_idle_ms = 36000000,
                                   .session_named_idle_ms = 36000000,
                                   .cluster = true,
                                   .group = net_group_config(&world->net, node->id, world->plan.copies,
                                                             world->plan.min_copies,
                                                             world->plan.flight_records_max),
                                   .forward_ms = world->plan.forward_ms,
                                   .cheap_memory = true};
    memcpy(config->incarnation, node->incarnation, sizeof(config->incarnation));
    node->memory_size = core_size(config);
    node->memory = pages_take(node->memory_size);
    node->image = pages_take(sizeof(struct image));
    node->maps_readers = pages_take(REGION_NUMBERS * sizeof(struct region_map));
    node->core = core_init(node->memory, config, node->image, node->maps_readers);
    node->alive = true;
    node->life++;
    node->stopped = node->opened = node->running = node->hangs = node->doomed = node->eio = false;
    node->restarts = node->closing = node->closed = false;
    node->commit_seen = node->applied_seen = 0;
    sim_trace("node %llu: starts, life %u%s", (unsigned long long)node->id, node->life,
              config->create ? ", with a new directory" : "");
    struct event event = {.kind = EVENT_START};
    node_event(node, &event);
}

static void node_free(struct cluster_node *node) {
    if (!node->alive) {
        return;
    }
    node->alive = false;
    for (uint32_t i = 0; i < CLUSTER_REGIONS_MAX; i++) {
        map_free(&node->maps[i]);
    }
    for (uint32_t i = 0; i < node->map_old_count; i++) {
        map_free(&node->maps_old[i]);
    }
    node->map_old_count = 0;
    pages_give(node->memory, node->memory_size);
    pages_give(node->image, sizeof(struct image));
    pages_give(node->maps_readers, REGION_NUMBERS * sizeof(struct region_map));
    node->core = NULL;
    node->flight_count = 0;
}

void cluster_node_crash(struct cluster_node *node, bool power) {
    struct cluster_world *world = node->world;
    SOMETIMES(CLUSTER_SIM_CRASHED);
    if (node->status.installs) {
        SOMETIMES(CLUSTER_SIM_CRASHED_IN_INSTALL);
    }
    if (!node->opened && node->life > 1) {
        SOMETIMES(CLUSTER_SIM_CRASHED_IN_RECOVERY);
    }
    for (uint32_t i = 0; i < node->flight_count; i++) {
        io_perform_partly(node, &node->flights[i]);
    }
    if (power) {
        disk_power_cut(node->disk, &world->random);
    }
    cluster_client_on_crash(world, node);
    node_free(node);
    if (random_chance(&world->random, 1, 2)) {
        net_node_gone(&world->net, node->id);
    }
    sim_trace("node %llu: %s", (unsigned long long)node->id, power ? "loses its power" : "is killed");
}

// It has got a checkpoint from a peer.
void cluster_node_restart(struct cluster_node *node) {
    struct cluster_world *world = node->world;
    cluster_node_crash(node, world->net.faults && chance(world, world->plan.power));
    cluster_node_start(node);
}

static void node_wipe(struct cluster_node *node) {
    SOMETIMES(CLUSTER_SIM_WIPED);
    cluster_facts_wiped(node);
    disk_free(node->disk);
    node->disk = disk_new();
    random_fill(&node->world->random, node->incarnation, sizeof(node->incarnation));
}

// ---- What arrives

static bool on_lives(void *context, uint64_t id, uint32_t life) {
    const struct cluster_node *node = &((struct cluster_world *)context)->nodes[id - 1];
    return node->alive && node->life == life && !node->stopped;
}

static bool on_hears(void *context, uint64_t id) {
    const struct cluster_node *node = &((struct cluster_world *)context)->nodes[id - 1];
    return node->alive && !node->stopped;
}

static const uint8_t *on_incarnation(void *context, uint64_t id) {
    return ((struct cluster_world *)context)->nodes[id - 1].incarnation;
}

static void on_deliver(void *context, uint64_t id, const struct peer_message *message) {
    struct cluster_node *node = &((struct cluster_world *)context)->nodes[id - 1];
    if (node->restarts) {
        return;
    }
    struct event event = {.kind = EVENT_MESSAGE, .message = message};
    node_event(node, &event);
}

static void on_swap_answer(void *context, uint64_t id, enum swap_result result,
                           const struct configuration *present) {
    struct event event = {.kind = EVENT_SWAP, .swap_result = result, .configuration = present};
    node_event(&((struct cluster_world *)context)->nodes[id - 1], &event);
}

static void on_look_answer(void *context, uint64_t id, const struct configuration *present) {
    struct event event = {.kind = EVENT_REGISTER, .configuration = present};
    node_event(&((struct cluster_world *)context)->nodes[id - 1], &event);
}

// ---- Steps

bool cluster_node_moves(const struct cluster_node *node) {
    return node->alive && !node->stopped &&
           (node->restarts || node->closed || node->more || node->flight_count > 0);
}

void cluster_node_io(struct cluster_node *node) {
    struct cluster_world *world = node->world;
    if (!node->alive || node->stopped || (node->hangs && world->net.faults)) {
        return;
    }
    if (node->restarts) {
        cluster_node_restart(node);
        return;
    }
    if (node->closed) {
        cluster_facts_closed(node);
        cluster_client_on_crash(world, node);
        node_free(node);
        return;
    }
    if (node->more && random_chance(&world->random, 1, 2)) {
        struct event event = {.kind = EVENT_GO_ON};
        node_event(node, &event);
    } else if (node->flight_count > 0) {
        io_complete(node, (uint32_t)random_below(&world->random, node->flight_count));
    } else if (node->more) {
        struct event event = {.kind = EVENT_GO_ON};
        node_event(node, &event);
    }
}

static void fault_step(struct cluster_world *world) {
    struct cluster_node *node = &world->nodes[random_below(&world->random, world->plan.nodes)];
    bool strikes = chance(world, node->status.installs ? world->plan.crash_install : world->plan.crash);
    if (node->alive && (node->doomed || node->stopped || strikes)) {
        cluster_node_crash(node, chance(world, world->plan.power));
    }
    if (node->alive && node->opened && !node->stopped && !node->closing && chance(world, world->plan.close)) {
        cluster_node_close(node);
    }
    if (!node->alive && random_below(&world->random, 1000000) < world->plan.comeback) {
        if (chance(world, world->plan.wipe) && world->grave_count < 16 &&
            cluster_facts_may_wipe(world, node)) {
            node_wipe(node);
        }
        cluster_node_start(node);
    }
    if (chance(world, world->plan.partition)) {
        net_partition(&world->net);
    }
    if (chance(world, world->plan.hang)) {
        node->hangs = !node->hangs;
    }
    register_trouble(&world->net, node->id, world->plan.register_down);
    if (node->alive && node->status.role == GROUP_LEADS && chance(world, world->plan.doom)) {
        node->doomed = true;
    }
}

// Somebody is said to be gone: mostly who is, sometimes who is not.
static void gone_step(struct cluster_node *node) {
    struct cluster_world *world = node->world;
    uint64_t other = random_between(&world->random, 1, world->plan.nodes);
    if (other != node->id && random_chance(&world->random, 1, world->nodes[other - 1].alive ? 200 : 4)) {
        struct event event = {.kind = EVENT_GONE, .peer = other};
        node_event(node, &event);
    }
}

void cluster_node_tick(struct cluster_node *node) {
    if (node->alive && !node->stopped) {
        struct event event = {.kind = EVENT_TICK};
        node_event(node, &event);
    }
    if (node->alive && !node->stopped && node->world->net.faults) {
        gone_step(node);
    }
}

void cluster_node_checkpoint(struct cluster_node *node) {
    if (node->alive && node->opened && !node->stopped) {
        struct event event = {.kind = EVENT_CHECKPOINT, .token = (uint64_t)1 << 60};
        node_event(node, &event);
    }
}

void cluster_node_close(struct cluster_node *node) {
    node->closing = true;
    node->close_ms = node->world->net.now_ms;
    sim_trace("node %llu: is closed", (unsigned long long)node->id);
    struct event event = {.kind = EVENT_CLOSE, .checkpoint = random_chance(&node->world->random, 1, 2)};
    node_event(node, &event);
}

static void tick_step(struct cluster_world *world) {
    world->net.now_ms += random_between(&world->random, 1, world->plan.tick_ms_max);
    for (uint32_t i = 0; i < world->plan.nodes; i++) {
        struct cluster_node *node = &world->nodes[i];
        if (!(world->net.faults && chance(world, 100))) {
            cluster_node_tick(node);
        }
    }
}

static void client_step(struct cluster_world *world) {
    cluster_client_act(world, (uint32_t)random_below(&world->random, world->plan.clients));
    if (chance(world, world->plan.checkpoint_chance)) {
        cluster_node_checkpoint(&world->nodes[random_below(&world->random, world->plan.nodes)]);
    }
}

static void world_step(struct cluster_world *world) {
    report.step++;
    if (!world->net.faults) { // everything moves
        for (uint32_t i = 0; i < 3 * world->plan.nodes; i++) {
            net_step(&world->net);
            register_step(&world->net);
            cluster_node_io(&world->nodes[i / 3]);
        }
        client_step(world);
        if (chance(world, 300)) {
            tick_step(world);
        }
        if (chance(world, 20)) {
            register_news(&world->net);
        }
        return;
    }
    fault_step(world);
    uint64_t dice = random_below(&world->random, 1000);
    uint64_t net = world->plan.net_chance;
    uint64_t disk = net + world->plan.io_chance;
    uint64_t client = disk + world->plan.client_chance;
    if (dice < net) {
        net_step(&world->net);
    } else if (dice < disk) {
        cluster_node_io(&world->nodes[random_below(&world->random, world->plan.nodes)]);
    } else if (dice < client) {
        client_step(world);
    } else if (chance(world, 300)) {
        tick_step(world);
    } else {
        register_step(&world->net);
    }
    if (chance(world, 2)) {
        register_news(&world->net);
    }
    if (chance(world, 3)) {
        cluster_facts_image(&world->nodes[random_below(&world->random, world->plan.nodes)]);
    }
}

// ---- A whole run

struct cluster_plan cluster_plan_of_seed(uint64_t seed) {
    struct random random;
    random_seed(&random, seed ^ 0xc105e4);
    static const uint32_t members[] = {1, 2, 2, 3, 3, 3, 3, 5};
    struct cluster_plan plan = {.seed = seed};
    plan.steps = (uint32_t)random_between(&random, 3000, 12000);
    plan.members = members[random_below(&random, ARRAY_COUNT(members))];
    plan.nodes = (uint32_t)min_u64(plan.members + random_below(&random, 3), NET_NODES_MAX);
    plan.copies = (uint32_t)random_between(&random, plan.members, plan.nodes);
    plan.min_copies = random_chance(&random, 1, 2) ? 1 : (uint32_t)min_u64(2, plan.copies);
    plan.clients = (uint32_t)random_between(&random, 1, plan.nodes);
    plan.alignment = random_chance(&random, 2, 3) ? 512 : 4096;
    plan.flight_records_max = (uint32_t)random_between(&random, 1, 3);
    plan.tick_ms_max = (uint32_t)random_between(&random, 4, 20);
    plan.forward_ms = (uint32_t)random_between(&random, 100, 2000);
    plan.net_chance = (uint32_t)random_between(&random, 300, 450);
    plan.io_chance = (uint32_t)random_between(&random, 250, 400);
    plan.client_chance = (uint32_t)random_between(&random, 20, 150);
    plan.large_chance = random_chance(&random, 1, 3) ? 200 : 5;
    plan.checkpoint_chance = random_chance(&random, 1, 2) ? (uint32_t)random_between(&random, 2, 60) : 0;
    bool small = false;
    plan.log_segments = plan.log_segments_others = 64;
    plan.region_pages = 8;
    plan.write_max = 20000;
    plan.comeback = 30000;
    if (random_chance(&random, 1, 2)) { // logs are trimmed, and who was away needs a checkpoint
        plan.log_segments = random_chance(&random, 5, 6) ? 3 : 4;
        plan.log_segments_others = random_chance(&random, 1, 2) ? 64 : plan.log_segments;
        plan.region_pages = 40;
        plan.write_min = 40000;
        plan.write_max = 60000;
        plan.large_chance = (uint32_t)random_between(&random, 700, 1000);
        plan.steps *= 3;
        plan.client_chance = (uint32_t)random_between(&random, 150, 250);
        plan.checkpoint_chance = (uint32_t)random_between(&random, 2, 20);
        plan.comeback = random_chance(&random, 1, 2) ? 600 : 6000;
        plan.damage = random_chance(&random, 1, 2) ? 30 : 0;
        small = true;
        if (plan.members > 2 && random_chance(&random, 1, 2)) { // who is away stays a member
            plan.min_copies = plan.members;
        }
    }
    if (random_chance(&random, 1, 10)) {
        return plan; // only the scheduling is against it
    }
    plan.loss = random_chance(&random, 1, 2) ? (uint32_t)random_between(&random, 1, 100) : 0;
    plan.duplicate = random_chance(&random, 1, 2) ? (uint32_t)random_between(&random, 1, 200) : 0;
    plan.late = random_chance(&random, 1, 2) ? (uint32_t)random_between(&random, 1, 100) : 0;
    plan.crash = random_chance(&random, 2, 3) ? (uint32_t)random_between(&random, 1, 5) : 0;
    plan.close = random_chance(&random, 1, 3) ? (uint32_t)random_between(&random, 1, 5) : 0;
    plan.crash_install = random_chance(&random, 1, 2) ? 60 : plan.crash;
    plan.power = (uint32_t)random_between(&random, 0, 1000);
    plan.wipe = random_chance(&random, 1, 2) ? 300 : 0;
    plan.partition = random_chance(&random, 2, 3) ? (uint32_t)random_between(&random, 1, 6) : 0;
    plan.hang = random_chance(&random, 1, 5) ? (uint32_t)random_between(&random, 1, 4) : 0;
    plan.doom = random_chance(&random, small ? 2 : 1, 3) ? (uint32_t)random_between(&random, 1, 6) : 0;
    plan.eio = random_chance(&random, 1, 6) ? 2 : 0;
    plan.register_fault = random_chance(&random, 2, 3) ? (uint32_t)random_between(&random, 50, 600) : 0;
    plan.register_down = random_chance(&random, 1, 4) ? 2 : 0;
    return plan;
}

void cluster_world_begin(struct cluster_world *world, const struct cluster_plan *plan) {
    cluster_world_end(world); // (of a run that failed)
    world->plan = *plan;
    if (world->plan.log_segments == 0) { // of a schedule that does not care
        world->plan.log_segments = world->plan.log_segments_others = 64;
        world->plan.region_pages = 8;
        world->plan.write_max = 20000;
    }
    random_seed(&world->random, plan->seed);
    world->net = (struct net){.random = &world->random,
                              .nodes = plan->nodes,
                              .loss = plan->loss,
                              .duplicate = plan->duplicate,
                              .late = plan->late,
                              .damage = plan->damage,
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
        struct cluster_node *node = &world->nodes[i];
        node->world = world;
        node->id = i + 1;
        node->disk = disk_new();
        random_fill(&world->random, node->incarnation, sizeof(node->incarnation));
    }
    register_begin(&world->net, plan->members);
    for (uint32_t i = 0; i < plan->nodes; i++) {
        cluster_node_start(&world->nodes[i]);
    }
}

void cluster_world_end(struct cluster_world *world) {
    for (uint32_t i = 0; i < NET_NODES_MAX; i++) {
        node_free(&world->nodes[i]);
        if (world->nodes[i].disk) {
            disk_free(world->nodes[i].disk);
        }
    }
    for (uint32_t i = 0; i < CLUSTER_REGIONS_MAX; i++) {
        free(world->image[i]);
    }
    for (size_t i = 0; i < world->payload_count; i++) {
        free(world->payloads[i]);
    }
    free(world->payloads);
    free(world->attempts);
    free(world->graves);
    net_free(&world->net);
    memset(world, 0, sizeof(*world));
}

// ---- For schedules

void cluster_node_run(struct cluster_node *node) {
    while (node->alive && (node->more || node->flight_count > 0)) {
        struct event event = {.kind = EVENT_GO_ON};
        if (node->more) {
            node_event(node, &event);
        } else {
            io_complete(node, 0);
        }
    }
}

// Q6: faults end, and everything that was down comes back.
static void heal(struct cluster_world *world) {
    net_heal(&world->net);
    uint64_t begin_ms = world->net.now_ms;
    world->answered_count = 0;
    for (uint32_t i = 0; i < world->plan.nodes; i++) {
        if (world->nodes[i].alive && (world->nodes[i].stopped || world->nodes[i].closing)) {
            cluster_node_crash(&world->nodes[i], false);
        }
        if (!world->nodes[i].alive) {
            cluster_node_start(&world->nodes[i]);
        }
    }
    for (uint64_t steps = 0; world->answered_count < 3 || !cluster_facts_healed(world); steps++) {
        net_healing(&world->net, steps, begin_ms);
        world_step(world);
    }
    for (uint32_t i = 0; i < world->plan.nodes; i++) {
        cluster_facts_image(&world->nodes[i]);
    }
}

struct cluster_result cluster_world_run(const struct cluster_plan *plan) {
    static struct cluster_world world;
    cluster_world_begin(&world, plan);
    for (uint32_t steps = 0; steps < plan->steps; steps++) {
        world_step(&world);
    }
    heal(&world);
    sim_trace("end: %llu records committed, epoch %llu", (unsigned long long)world.committed_last,
              (unsigned long long)world.net.present.epoch);
    struct cluster_result result = {.commits = world.committed_last, .epochs = world.net.present.epoch};
    cluster_world_end(&world);
    return result;
}
