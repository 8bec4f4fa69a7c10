// SPDX-License-Identifier: Apache-2.0
//
// Programs of a simulated cluster. Each has a session and commits one transaction after the other: it adds one to a counter of
// its own and writes somewhere. It goes from node to node until it has an answer; what it is told is checked (Q8, Q9).

#include <string.h>

#include "base/assert.h"
#include "base/bits.h"
#include "base/sometimes.h"
#include "cluster.h"
#include "wire/request.h"

enum client_state { CLIENT_IDLE, CLIENT_OPENS, CLIENT_CREATES, CLIENT_COMMITS, CLIENT_READS };

#define REGION_PAGES_MAX 64u
#define WRITE_MAX        140000u
#define GIVE_UP_MS       900u

bool cluster_client_idle(const struct cluster_world *world, uint32_t number) {
    return world->clients[number].state == CLIENT_IDLE &&
           world->clients[number].sequence == world->clients[number].effects;
}

static uint64_t counter_address(const struct cluster_world *world, uint32_t number) {
    return shelf_addr_make((shelf_region)world->region, 2 * PAGE_SIZE + number * (uint64_t)LINE_SIZE);
}

static void attempt(struct cluster_world *world, struct cluster_client *client, enum client_state state) {
    client->state = state;
    client->since_ms = world->net.now_ms;
    client->attempt = ++world->attempts;
    client->token = client->attempt << 8 | (uint64_t)(client - world->clients);
}

static void submit(struct cluster_world *world, struct cluster_client *client, enum client_state state,
                   const void *bytes, size_t size) {
    struct cluster_node *node = &world->nodes[client->node - 1];
    attempt(world, client, state);
    if (!cluster_submit(node, bytes, size, client->token) && client->state == state) {
        client->state = CLIENT_IDLE; // no room now
    }
}

static void session_open(struct cluster_world *world, struct cluster_client *client) {
    struct session_request request = {.header = {.size = sizeof(request), .kind = REQUEST_SESSION_OPEN}};
    submit(world, client, CLIENT_OPENS, &request, sizeof(request));
}

static void region_create(struct cluster_world *world, struct cluster_client *client) {
    struct region_request request = {.header = {.size = sizeof(request), .kind = REQUEST_REGION_CREATE},
                                     .mode = 0666,
                                     .size = (uint64_t)world->plan.region_pages * PAGE_SIZE,
                                     .size_max = random_chance(&world->random, 1, 2)
                                                     ? (uint64_t)REGION_PAGES_MAX * PAGE_SIZE
                                                     : (uint64_t)2 * REGION_PAGES_MAX * PAGE_SIZE,
                                     .name = "books"};
    submit(world, client, CLIENT_CREATES, &request, sizeof(request));
}

static void commit(struct cluster_world *world, struct cluster_client *client) {
    static _Alignas(8) uint8_t bytes[sizeof(struct commit_request) + 256 + WRITE_MAX + 64];
    uint32_t number = (uint32_t)(client - world->clients);
    const struct cluster_node *node = &world->nodes[client->node - 1];
    bool large = net_chance(&world->net, world->plan.large_chance);
    bool reads = random_chance(&world->random, 1, 3);
    uint32_t size = (uint32_t)random_between(&world->random, 1, large ? world->plan.write_max : 100);
    struct commit_request head = {.session = client->session,
                                  .holder = client->holder,
                                  .sequence = client->sequence,
                                  .index = node->applied_seen,
                                  .epoch = atomic_load_explicit(&node->image->epoch, memory_order_relaxed),
                                  .line_count = reads,
                                  .operation_count = 1,
                                  .range_count = 1};
    size_t used = sizeof(head);
    memset(bytes, 0, sizeof(bytes));
    if (reads) {
        uint64_t line = counter_address(world, number) >> LINE_SHIFT;
        memcpy(bytes + used, &line, sizeof(line));
        used += sizeof(line);
    }
    struct request_operation operation = {
        .address = counter_address(world, number), .operand = 1, .code = OPERATION_ADD};
    memcpy(bytes + used, &operation, sizeof(operation));
    used += sizeof(operation);
    uint64_t offset =
        3 * PAGE_SIZE +
        random_below(&world->random, (world->plan.region_pages - 3) * (uint64_t)PAGE_SIZE - size);
    struct record_range range = {.address = shelf_addr_make((shelf_region)world->region, offset),
                                 .size = size};
    memcpy(bytes + used, &range, sizeof(range));
    random_fill(&world->random, bytes + used + sizeof(range), size);
    head.ranges_size = (uint32_t)(sizeof(range) + align_up(size, 8));
    used += head.ranges_size;
    head.header = (struct request_header){.size = (uint32_t)used, .kind = REQUEST_COMMIT};
    memcpy(bytes, &head, sizeof(head));
    submit(world, client, CLIENT_COMMITS, bytes, used);
}

static void read_begin(struct cluster_world *world, struct cluster_client *client) {
    attempt(world, client, CLIENT_READS);
    client->known_floor = world->answered_last;
    cluster_read(&world->nodes[client->node - 1], client->token);
}

// Q9: what it sees on any node at any time is as of that node's index; here just its own counter.
static void counter_look(const struct cluster_world *world, const struct cluster_client *client) {
    const struct cluster_node *node = &world->nodes[client->node - 1];
    if (!node->alive || world->region == 0 || node->maps[world->region].memory.data == NULL ||
        node->applied_seen < world->committed_last) {
        return;
    }
    uint64_t value;
    uint64_t offset = shelf_addr_offset(counter_address(world, (uint32_t)(client - world->clients)));
    memcpy(&value, node->maps[world->region].memory.data + offset, sizeof(value));
    SIM_CHECK(value == client->effects || value == client->sequence,
              "Q8: client %u has %llu transactions, and its counter says %llu",
              (uint32_t)(client - world->clients), (unsigned long long)client->effects,
              (unsigned long long)value);
}

void cluster_client_act(struct cluster_world *world, uint32_t number) {
    struct cluster_client *client = &world->clients[number];
    if (client->state != CLIENT_IDLE) {
        if (world->net.now_ms - client->since_ms < GIVE_UP_MS) {
            return;
        }
        client->state =
            CLIENT_IDLE; // perhaps it is slow, perhaps cut off: elsewhere, under the same sequence
        client->node = 0;
    }
    if (client->node == 0) {
        client->node = random_between(&world->random, 1, world->plan.nodes);
    }
    struct cluster_node *node = &world->nodes[client->node - 1];
    if (!node->alive || !node->opened) {
        client->node = 0;
        return;
    }
    counter_look(world, client);
    if (random_chance(&world->random, 1, 4)) {
        read_begin(world, client);
    } else if (world->region == 0) {
        if (number == 0) {
            region_create(world, client);
        }
    } else if (client->session == 0) {
        session_open(world, client);
    } else if (client->sequence != client->effects) {
        commit(world, client); // again
    } else if (world->net.faults || world->answered_count < 3) {
        client->sequence++;
        commit(world, client);
    }
}

static void commit_answered(struct cluster_world *world, struct cluster_client *client,
                            const struct reply *reply) {
    uint32_t number = (uint32_t)(client - world->clients);
    if (reply->result == SHELF_OK) {
        SIM_CHECK(reply->receipt.sequence == client->sequence && reply->receipt.result_count == 1 &&
                      reply->receipt.results[0] == client->effects + 1,
                  "Q8: client %u has %llu transactions; the next one's result is %llu", number,
                  (unsigned long long)client->effects, (unsigned long long)reply->receipt.results[0]);
        SIM_CHECK(reply->receipt.index <= world->committed_last,
                  "client %u is told of record %llu, which is not committed", number,
                  (unsigned long long)reply->receipt.index);
        client->effects++;
        world->answered_count++;
        world->answered_last = max_u64(world->answered_last, reply->receipt.index);
        if (reply->receipt.replayed) {
            SOMETIMES(CLUSTER_SIM_RETRY_COMMITTED_BEFORE);
        }
        return;
    }
    SIM_CHECK(reply->result == SHELF_CONFLICT || reply->result == SHELF_UNKNOWN ||
                  reply->result == SHELF_UNAVAILABLE || reply->result == SHELF_IO ||
                  reply->result == SHELF_NO_SPACE,
              "client %u gets %s, %u", number, shelf_result_name((shelf_result)reply->result), reply->reason);
    if (reply->result == SHELF_UNKNOWN) {
        SOMETIMES(CLUSTER_SIM_UNKNOWN);
    }
}

void cluster_client_on_reply(struct cluster_world *world, struct cluster_node *node,
                             const struct reply *reply) {
    uint32_t number = (uint32_t)(reply->token & 0xff);
    struct cluster_client *client = &world->clients[number];
    sim_trace("client %u on node %llu: %s, index %llu%s", number, (unsigned long long)node->id,
              shelf_result_name((shelf_result)reply->result), (unsigned long long)reply->receipt.index,
              reply->receipt.replayed ? ", replayed" : "");
    if (reply->token != client->token || client->state == CLIENT_IDLE) {
        return; // too late
    }
    uint32_t state = client->state;
    client->state = CLIENT_IDLE;
    if (reply->result != SHELF_OK && reply->result != SHELF_CONFLICT) {
        client->node = 0; // another one
    }
    if (state == CLIENT_COMMITS) {
        commit_answered(world, client, reply);
    } else if (state == CLIENT_OPENS && reply->result == SHELF_OK) {
        client->session = reply->session;
        client->holder = reply->holder;
    } else if (state == CLIENT_CREATES && (reply->result == SHELF_OK || reply->result == SHELF_EXISTS)) {
        struct shelf_region_info info;
        bool found = core_region_find(node->core, "books", &info);
        SIM_CHECK(found, "a region was made, and is not there");
        world->region = info.region;
        world->answered_last = max_u64(world->answered_last, reply->receipt.index);
    } else if (state == CLIENT_READS && reply->result == SHELF_OK) {
        SIM_CHECK(
            node->applied_seen >= client->known_floor,
            "Q5: a linearizable read on node %llu sees record %llu, but %llu had been answered before it",
            (unsigned long long)node->id, (unsigned long long)node->applied_seen,
            (unsigned long long)client->known_floor);
        world->reads_count++;
        SOMETIMES(CLUSTER_SIM_READ);
    }
}

void cluster_client_on_crash(struct cluster_world *world, const struct cluster_node *node) {
    for (uint32_t i = 0; i < world->plan.clients; i++) {
        if (world->clients[i].node == node->id) {
            world->clients[i].node = 0;
            world->clients[i].state = CLIENT_IDLE;
        }
    }
}
