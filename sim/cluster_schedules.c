// SPDX-License-Identifier: Apache-2.0
//
// Named schedules of whole nodes: what a rule of forwarding exists for (src/core/forward.h), where chance would need too many
// seeds. Nodes 1 and 2 are the set, node 3 learns; its program may not write to a region, and later it may. So a refusal is
// right at one time and wrong at another, and a request that was refused must never come to life.

#include <string.h>

#include "base/bits.h"
#include "cluster.h"
#include "wire/request.h"

static struct cluster_world world;
static struct reply told[8];
static uint32_t told_count;

static void on_reply(const struct reply *reply) {
    SIM_CHECK(told_count < ARRAY_COUNT(told), "too many answers");
    told[told_count++] = *reply;
}

// ---- One thing at a time

static uint16_t kind_of(const struct letter *letter) {
    struct peer_header header;
    memcpy(&header, letter->bytes, sizeof(header));
    return header.kind;
}

static bool has_body(const struct letter *letter) {
    return letter->size > sizeof(struct peer_header);
}

static struct letter letter_take(uint32_t place) {
    struct letter letter = world.net.letters[place];
    memmove(&world.net.letters[place], &world.net.letters[place + 1],
            (world.net.letter_count - place - 1) * sizeof(world.net.letters[0]));
    world.net.letter_count--;
    return letter;
}

static void letter_end(struct letter *letter, bool arrive) {
    net_letter_end(&world.net, letter, arrive && world.nodes[letter->to - 1].alive);
}

// The first one of that kind with a body, if there is one, is taken out of the network.
static bool letter_keep(uint16_t kind, struct letter *ret_letter) {
    for (uint32_t i = 0; i < world.net.letter_count; i++) {
        if (kind_of(&world.net.letters[i]) == kind && has_body(&world.net.letters[i])) {
            *ret_letter = letter_take(i);
            return true;
        }
    }
    return false;
}

static struct letter letter_copy(const struct letter *letter) {
    net_letter_again(&world.net, letter);
    return letter_take(world.net.letter_count - 1);
}

static uint16_t lost; // kind of messages that do not arrive with a body; 0: none

static bool arrives(const struct letter *letter, uint64_t cut_off) {
    return letter->from != cut_off && letter->to != cut_off &&
           !(lost != 0 && kind_of(letter) == lost && has_body(letter));
}

// Everything that is under way arrives and every io ends, but for letters from and to this node (0: none).
static void settle(uint64_t cut_off) {
    for (uint32_t i = 0; i < 12; i++) {
        for (uint32_t left = world.net.letter_count; left > 0; left--) {
            struct letter letter = letter_take(0);
            letter_end(&letter, arrives(&letter, cut_off));
        }
        for (uint32_t node = 0; node < world.plan.nodes; node++) {
            cluster_node_run(&world.nodes[node]);
        }
        while (world.net.op_count > 0) {
            register_step(&world.net);
        }
    }
}

static void pass(uint64_t ms, uint64_t cut_off) {
    for (uint64_t i = 0; i < ms; i += 10) {
        world.net.now_ms += 10;
        for (uint64_t id = 1; id <= world.plan.nodes; id++) {
            if (id != cut_off) {
                cluster_node_tick(&world.nodes[id - 1]);
            }
        }
        settle(cut_off);
    }
}

static void serving(uint64_t id, uint64_t cut_off) {
    for (uint32_t i = 0; i < 300 && !world.nodes[id - 1].status.serves; i++) {
        pass(10, cut_off);
    }
    SIM_CHECK(world.nodes[id - 1].status.serves, "node %llu should serve", (unsigned long long)id);
}

// ---- Requests

static const struct credentials user = {.user = 1001, .group = 100};

static struct reply answer(shelf_result result) {
    SIM_CHECK(told_count == 1 && told[0].result == (uint32_t)result, "%u answers, the first is %s, not %s",
              told_count, shelf_result_name((shelf_result)told[0].result), shelf_result_name(result));
    told_count = 0;
    return told[0];
}

static void region_ask(uint64_t id, uint16_t kind, uint32_t mode) {
    struct region_request request = {.header = {.size = sizeof(request), .kind = kind},
                                     .region = (uint32_t)world.region,
                                     .owner = kind == REQUEST_REGION_CREATE ? 0 : SHELF_KEEP,
                                     .group = kind == REQUEST_REGION_CREATE ? 0 : SHELF_KEEP,
                                     .mode = mode};
    if (kind == REQUEST_REGION_CREATE) {
        request.size = request.size_max = (uint64_t)16 * PAGE_SIZE;
        memcpy(request.name, "books", 6);
    }
    cluster_submit(&world.nodes[id - 1], &request, sizeof(request), 1, NULL);
}

static struct session_request opening = {.header = {.size = sizeof(opening), .kind = REQUEST_SESSION_OPEN}};
static uint64_t session, holder;

static void write_ask(uint64_t id) {
    struct {
        struct commit_request head;
        struct record_range range;
        uint64_t bytes;
    } request = {.head = {.header = {.size = sizeof(request), .kind = REQUEST_COMMIT},
                          .session = session,
                          .holder = holder,
                          .sequence = 1,
                          .range_count = 1,
                          .ranges_size = sizeof(request) - sizeof(request.head)},
                 .range = {.address = shelf_addr_make((shelf_region)world.region, 64), .size = 8},
                 .bytes = 1};
    cluster_submit(&world.nodes[id - 1], &request, sizeof(request), 2, &user);
}

static uint64_t written(uint64_t id) {
    uint64_t value;
    memcpy(&value, world.nodes[id - 1].maps[world.region].memory.data + 64, sizeof(value));
    return value;
}

// Node 1 leads; there is a region to which the program of node 3 may not write; that has a session.
static void begin(void) {
    const struct cluster_plan plan = {.seed = 1,
                                      .nodes = 3,
                                      .members = 2,
                                      .copies = 2,
                                      .min_copies = 1,
                                      .alignment = 512,
                                      .tick_ms_max = 1,
                                      .forward_ms = 1000000,
                                      .flight_records_max = 2};
    cluster_world_begin(&world, &plan);
    world.net.faults = false;
    world.on_reply = on_reply;
    told_count = 0;
    lost = 0;
    serving(1, 0);
    pass(100, 0);
    region_ask(1, REQUEST_REGION_CREATE, 0600);
    pass(100, 0);
    world.region = answer(SHELF_OK).region;
    cluster_submit(&world.nodes[2], &opening, sizeof(opening), 3, &user);
    pass(100, 0);
    struct reply opened = answer(SHELF_OK);
    session = opened.session;
    holder = opened.holder;
}

// ---- The schedules

// The old primary's refusal arrives when the new one has the request already, and commits it.
static void refusal_of_an_older_epoch(void) {
    begin();
    struct letter refusal;
    struct letter again;
    write_ask(3);
    SIM_CHECK(letter_keep(PEER_FORWARD, &again), "node 3 should forward");
    letter_end(&again, true);
    SIM_CHECK(letter_keep(PEER_ANSWER, &refusal), "node 1 should answer");
    bool sent_again = false;
    for (uint32_t i = 0; i < 3000 && !sent_again; i++) { // node 2 takes over; the request is under way to it
        world.net.now_ms += 10;
        cluster_node_tick(&world.nodes[1]);
        cluster_node_tick(&world.nodes[2]);
        for (uint32_t step = 0; step < 20 && !sent_again; step++) {
            bool kept = letter_keep(PEER_FORWARD, &again);
            sent_again = kept && again.to == 2;
            if (kept && !sent_again) {
                letter_end(&again, false);
            }
            if (!sent_again && world.net.letter_count > 0) {
                struct letter letter = letter_take(0);
                letter_end(&letter, letter.from != 1 && letter.to != 1);
            }
            cluster_node_run(&world.nodes[1]);
            cluster_node_run(&world.nodes[2]);
            register_step(&world.net);
        }
    }
    SIM_CHECK(sent_again && world.nodes[1].status.serves, "node 3 should ask node 2");
    region_ask(2, REQUEST_REGION_ACCESS, 0666);
    lost = PEER_FORWARD;
    pass(100, 1);
    lost = 0;
    (void)answer(SHELF_OK);
    letter_end(&again, true);
    letter_end(&refusal, true);
    pass(100, 1);
    (void)answer(SHELF_OK);
    SIM_CHECK(written(3) == 1, "K2: the request should be committed");
}

// The network delivers a request twice, the second time after the refusal was told and its cause is gone.
static void request_again_after_its_refusal(void) {
    begin();
    struct letter request;
    write_ask(3);
    SIM_CHECK(letter_keep(PEER_FORWARD, &request), "node 3 should forward");
    struct letter again = letter_copy(&request);
    letter_end(&request, true);
    pass(100, 0);
    (void)answer(SHELF_DENIED);
    region_ask(1, REQUEST_REGION_ACCESS, 0666);
    pass(100, 0);
    (void)answer(SHELF_OK);
    letter_end(&again, true);
    pass(100, 0);
    SIM_CHECK(told_count == 0 && written(1) == 0, "W1: a request that was refused is committed");
}

// The same, but its node has been restarted, has asked again, and was refused.
static void request_of_an_earlier_life(void) {
    begin();
    struct letter request;
    write_ask(3);
    SIM_CHECK(letter_keep(PEER_FORWARD, &request), "node 3 should forward");
    cluster_node_restart(&world.nodes[2]);
    pass(100, 0);
    write_ask(3);
    pass(100, 0);
    (void)answer(SHELF_DENIED);
    region_ask(1, REQUEST_REGION_ACCESS, 0666);
    pass(100, 0);
    (void)answer(SHELF_OK);
    letter_end(&request, true);
    pass(100, 0);
    SIM_CHECK(told_count == 0 && written(1) == 0, "W1: a request that was refused is committed");
}

// A program changes the region's mode; its node does not learn whether that was done. The next primary changes it as well.
static void change_of_the_catalog_done_twice(void) {
    begin();
    struct shelf_region_info info;
    lost = PEER_ANSWER;
    region_ask(3, REQUEST_REGION_ACCESS, 0644);
    pass(200, 0);
    SIM_CHECK(core_region_get(world.nodes[2].core, (uint32_t)world.region, &info) && info.mode == 0644,
              "node 1 should have changed it");
    lost = PEER_FORWARD;
    serving(2, 1);
    pass(200, 1);
    told_count = 0; // (node 3 has told its program that nobody can know)
    region_ask(2, REQUEST_REGION_ACCESS, 0666);
    pass(100, 1);
    (void)answer(SHELF_OK);
    lost = 0;
    pass(300, 1);
    SIM_CHECK(core_region_get(world.nodes[1].core, (uint32_t)world.region, &info) && info.mode == 0666,
              "W2: a change of the catalog is done again after another one");
}

// No clock ticks from the request to its answer: each step makes the next one possible.
static void commit_needs_no_tick(void) {
    begin();
    region_ask(1, REQUEST_REGION_ACCESS, 0666);
    pass(100, 0);
    (void)answer(SHELF_OK);
    write_ask(3);
    settle(0);
    SIM_CHECK(told_count == 1, "a commit waits for time to pass");
    (void)answer(SHELF_OK);
    SIM_CHECK(written(3) == 1, "W4: the request should be applied");
}

static const struct {
    const char *name;
    void (*run)(void);
} schedules[] = {
    {"a commit needs no tick", commit_needs_no_tick},
    {"refusal of an older epoch after the request was sent again", refusal_of_an_older_epoch},
    {"request again after its refusal", request_again_after_its_refusal},
    {"request of an earlier life of its node", request_of_an_earlier_life},
    {"change of the catalog done twice", change_of_the_catalog_done_twice},
};

uint32_t cluster_schedule_count(void) {
    return ARRAY_COUNT(schedules);
}

const char *cluster_schedule_run(uint32_t number) {
    schedules[number].run();
    cluster_world_end(&world);
    return schedules[number].name;
}
