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
#include "wire/system_region.h"

enum client_state { CLIENT_IDLE, CLIENT_OPENS, CLIENT_CREATES, CLIENT_COMMITS, CLIENT_HAUNTS, CLIENT_READS };

#define REGION_PAGES_MAX 64u
#define WRITE_MAX        60000u
#define GIVE_UP_MS       900u
#define BOARD_LINES      3u

bool cluster_client_idle(const struct cluster_world *world, uint32_t number) {
    return world->clients[number].state == CLIENT_IDLE &&
           world->clients[number].sequence == world->clients[number].effects;
}

static uint64_t counter_address(const struct cluster_world *world, uint32_t number) {
    return shelf_addr_make((shelf_region)world->region, 2 * PAGE_SIZE + number * (uint64_t)LINE_SIZE);
}

// Lines that all programs read and write.
static uint64_t board_address(const struct cluster_world *world, uint64_t place) {
    return shelf_addr_make((shelf_region)world->region, PAGE_SIZE + place * LINE_SIZE);
}

static void await_answer(struct cluster_world *world, struct cluster_client *client,
                         enum client_state state) {
    client->state = state;
    client->since_ms = world->net.now_ms;
    client->token = ++world->tokens << 8 | (uint64_t)(client - world->clients);
}

// Every second program is a user's, the others are the node's own.
static uint32_t user_of(const struct cluster_world *world, const struct cluster_client *client) {
    uint64_t number = (uint64_t)(client - world->clients);
    return number % 2 == 1 ? (uint32_t)(1000 + number) : 0;
}

static void submit(struct cluster_world *world, struct cluster_client *client, enum client_state state,
                   const void *bytes, size_t size) {
    struct cluster_node *node = &world->nodes[client->node - 1];
    const uint32_t groups[3] = {7, 8, 9};
    const struct credentials credentials = {
        .user = user_of(world, client), .group = 100, .group_count = 3, .groups = groups};
    await_answer(world, client, state);
    if (!cluster_submit(node, bytes, size, client->token, credentials.user ? &credentials : NULL) &&
        client->state == state) {
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

// ---- Commits

// Mostly it reads now; sometimes it has read a while ago, there or elsewhere.
static void image_look(struct cluster_world *world, struct cluster_client *client) {
    const struct cluster_node *node = &world->nodes[client->node - 1];
    if (client->read_node == 0 || !random_chance(&world->random, 1, client->read_node == node->id ? 3 : 20)) {
        client->read_node = node->id;
        client->read_index = node->applied_seen;
        client->read_epoch = atomic_load_explicit(&node->image->epoch, memory_order_relaxed);
    }
}

static void bytes_add(struct cluster_client *client, const void *bytes, size_t size) {
    memcpy(client->request + client->request_size, bytes, size);
    client->request_size += size;
}

static void range_add(struct cluster_client *client, uint64_t address, const void *bytes, uint32_t size) {
    const struct record_range range = {.address = address, .size = size};
    const uint64_t zero = 0;
    bytes_add(client, &range, sizeof(range));
    bytes_add(client, bytes, size);
    bytes_add(client, &zero, align_up(size, 8) - size);
}

static void lines_choose(struct cluster_world *world, uint32_t number, struct cluster_attempt *attempt) {
    if (random_chance(&world->random, 1, 3)) {
        attempt->lines[attempt->line_count++] = counter_address(world, number) >> LINE_SHIFT;
    }
    if (random_chance(&world->random, 1, 2)) {
        attempt->lines[attempt->line_count++] =
            board_address(world, random_below(&world->random, BOARD_LINES)) >> LINE_SHIFT;
    }
}

static void request_make(struct cluster_world *world, struct cluster_client *client, uint64_t sequence) {
    static uint8_t bytes[WRITE_MAX];
    uint32_t number = (uint32_t)(client - world->clients);
    const struct cluster_node *node = &world->nodes[client->node - 1];
    struct cluster_attempt *attempt = cluster_attempt_new(world, number);
    image_look(world, client);
    lines_choose(world, number, attempt);
    attempt->sequence = sequence;
    attempt->index = client->read_index;
    attempt->other_life =
        client->read_epoch != atomic_load_explicit(&node->image->epoch, memory_order_relaxed);
    attempt->ghost = sequence != client->sequence;
    client->attempt = attempt->number;
    struct commit_request head = {.session = client->session,
                                  .holder = client->holder,
                                  .sequence = sequence,
                                  .index = client->read_index,
                                  .epoch = client->read_epoch,
                                  .line_count = attempt->line_count,
                                  .operation_count = 1};
    client->request_size = sizeof(head);
    bytes_add(client, attempt->lines, attempt->line_count * sizeof(attempt->lines[0]));
    struct request_operation operation = {
        .address = counter_address(world, number), .operand = 1, .code = OPERATION_ADD};
    bytes_add(client, &operation, sizeof(operation));
    size_t ranges_begin = client->request_size;
    bool large = net_chance(&world->net, world->plan.large_chance);
    uint32_t size = (uint32_t)(large ? random_between(&world->random, max_u64(world->plan.write_min, 8),
                                                      world->plan.write_max)
                                     : random_between(&world->random, 8, 100));
    uint64_t offset =
        3 * PAGE_SIZE +
        random_below(&world->random, (world->plan.region_pages - 3) * (uint64_t)PAGE_SIZE - size);
    random_fill(&world->random, bytes, size);
    memcpy(bytes, &attempt->number, sizeof(attempt->number));
    range_add(client, shelf_addr_make((shelf_region)world->region, offset), bytes, size);
    head.range_count = 1;
    if (random_chance(&world->random, 1, 3)) {
        range_add(client, board_address(world, random_below(&world->random, BOARD_LINES)), &attempt->number,
                  sizeof(attempt->number));
        head.range_count++;
    }
    head.ranges_size = (uint32_t)(client->request_size - ranges_begin);
    head.header = (struct request_header){.size = (uint32_t)client->request_size, .kind = REQUEST_COMMIT};
    memcpy(client->request, &head, sizeof(head));
    client->sent_node = node->id;
}

// What has no answer yet is sent again as it was, if the node is the same, or made anew.
static void commit(struct cluster_world *world, struct cluster_client *client, bool again) {
    if (!again || client->sent_node != client->node || random_chance(&world->random, 1, 3)) {
        request_make(world, client, client->sequence);
    } else {
        SOMETIMES(CLUSTER_SIM_SENT_AGAIN);
        struct cluster_attempt *attempt = cluster_attempt_of(world, client->attempt);
        const struct cluster_node *node = &world->nodes[client->node - 1];
        attempt->other_life |=
            client->read_epoch != atomic_load_explicit(&node->image->epoch, memory_order_relaxed);
    }
    submit(world, client, CLIENT_COMMITS, client->request, client->request_size);
}

// A sequence that was answered long ago comes once more: it has no effect (K4).
static void ghost(struct cluster_world *world, struct cluster_client *client) {
    uint64_t back = random_below(&world->random, min_u64(client->effects, 2 * SHELF_SESSION_WINDOW));
    client->ghost = client->effects - back;
    request_make(world, client, client->ghost);
    client->sent_node = 0;
    submit(world, client, CLIENT_HAUNTS, client->request, client->request_size);
}

static void read_begin(struct cluster_world *world, struct cluster_client *client) {
    await_answer(world, client, CLIENT_READS);
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

static void elsewhere(struct cluster_world *world, struct cluster_client *client) {
    if (random_chance(&world->random, 1, 2)) {
        client->node = 0;
    }
}

void cluster_client_act(struct cluster_world *world, uint32_t number) {
    struct cluster_client *client = &world->clients[number];
    if (client->state != CLIENT_IDLE) {
        if (world->net.now_ms - client->since_ms < GIVE_UP_MS) {
            return;
        }
        client->state = CLIENT_IDLE; // perhaps it is slow, perhaps cut off: under the same sequence
        elsewhere(world, client);
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
        commit(world, client, true);
    } else if (client->effects > 0 && random_chance(&world->random, 1, 6)) {
        ghost(world, client);
    } else if (world->net.faults || world->answered_count < 3) {
        client->sequence++;
        commit(world, client, false);
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
    if (reply->result == SHELF_CONFLICT) {
        SOMETIMES(CLUSTER_SIM_CONFLICT);
        cluster_attempt_refused(world, cluster_attempt_of(world, client->attempt));
        client->sent_node = 0;
        client->read_node = 0;
    }
}

static void ghost_answered(const struct cluster_client *client, const struct reply *reply) {
    uint32_t number = (uint32_t)(reply->token & 0xff);
    bool below = client->ghost + SHELF_SESSION_WINDOW <= client->effects;
    if (below && reply->result == SHELF_EXPIRED) {
        SOMETIMES(CLUSTER_SIM_BELOW_WINDOW);
        return;
    }
    SIM_CHECK(reply->result == SHELF_OK || reply->result == SHELF_UNKNOWN ||
                  reply->result == SHELF_UNAVAILABLE || reply->result == SHELF_IO ||
                  reply->result == SHELF_NO_SPACE,
              "Q8: client %u asks for sequence %llu again and gets %s", number,
              (unsigned long long)client->ghost, shelf_result_name((shelf_result)reply->result));
    SIM_CHECK(reply->result != SHELF_OK ||
                  (!below && reply->receipt.replayed && reply->receipt.results[0] == client->ghost),
              "Q8: sequence %llu of client %u comes again, and its result is %llu",
              (unsigned long long)client->ghost, number, (unsigned long long)reply->receipt.results[0]);
}

// Who asked has come along: the session is theirs.
static void owner_check(const struct cluster_world *world, const struct cluster_client *client,
                        const struct cluster_node *node) {
    struct session_header header;
    memcpy(&header,
           node->maps[REGION_SYSTEM].memory.data + SYSTEM_SESSIONS_OFFSET +
               (client->session & 0xffffu) * sizeof(header),
           sizeof(header));
    SIM_CHECK(header.id == client->session && header.owner == user_of(world, client),
              "session %llu belongs to user %u, but was opened by %u", (unsigned long long)client->session,
              header.owner, user_of(world, client));
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
        elsewhere(world, client);
    }
    SIM_CHECK(reply->result != SHELF_OK || node->applied_seen >= reply->receipt.index,
              "Q9: client %u is told of record %llu, but sees %llu on node %llu", number,
              (unsigned long long)reply->receipt.index, (unsigned long long)node->applied_seen,
              (unsigned long long)node->id);
    if (state == CLIENT_COMMITS) {
        commit_answered(world, client, reply);
    } else if (state == CLIENT_HAUNTS) {
        ghost_answered(client, reply);
    } else if (state == CLIENT_OPENS && reply->result == SHELF_OK) {
        client->session = reply->session;
        client->holder = reply->holder;
        owner_check(world, client, node);
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
