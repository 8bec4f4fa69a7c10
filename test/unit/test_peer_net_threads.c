// SPDX-License-Identifier: Apache-2.0
//
// Messages between nodes over TCP: order and sizes, both directions, several senders, peers that go and come, move, or do not
// read; versions, clusters and nodes that do not fit. What strangers do is in test_peer_hostile.c.

#include "peer_fixture.h"

#include <stdatomic.h>

// ---- What is sent arrives

static void test_many_small_in_order(void **state) {
    struct bed bed;
    (void)state;
    bed_make(&bed, 2, 0);
    for (uint64_t round = 1; round <= 20000; round++) {
        BED_UNTIL(&bed, node_send(&bed, 1, 2, round, BODY_BYTES_MIN + round % 300));
        BED_UNTIL(&bed, node_send(&bed, 2, 1, round, BODY_BYTES_MIN + round * 7 % 1000));
        if (round % 100 == 0) {
            bed_work(&bed);
        }
    }
    BED_UNTIL(&bed, bed.nodes[2].heard[1].count == 20000 && bed.nodes[1].heard[2].count == 20000);
    assert_int_equal(status_of(&bed, 1, 2).dropped, 0);
    assert_int_equal(status_of(&bed, 1, 2).queued_bytes, 0);
    assert_true(status_of(&bed, 1, 2).heard_ms < PATIENCE_MS);
    assert_string_equal(status_of(&bed, 1, 2).text, "");
    bed_free(&bed);
}

static void test_large_bodies_both_ways(void **state) {
    static const size_t sizes[] = {16u << 20, 25, 200000, 262144 - 192, 262144 - 191, 26u << 20, 24, 70001};
    const uint64_t count = sizeof(sizes) / sizeof(sizes[0]);
    struct bed bed;
    size_t whole = 0;
    (void)state;
    bed_make(&bed, 3, 0);
    for (uint64_t i = 0; i < count; i++) {
        whole += sizes[i];
        assert_true(node_send(&bed, 1, 2, i + 1, sizes[i]));
        assert_true(node_send(&bed, 2, 1, i + 1, sizes[i]));
        assert_true(node_send(&bed, 1, 3, i + 1, sizes[i]));
    }
    BED_UNTIL(&bed, bed.nodes[2].heard[1].count == count && bed.nodes[1].heard[2].count == count &&
                        bed.nodes[3].heard[1].count == count);
    assert_int_equal(bed.nodes[2].heard[1].bytes, whole);
    assert_int_equal(bed.nodes[1].heard[2].bytes, whole);
    assert_int_equal(bed.nodes[3].heard[1].bytes, whole);
    bed_free(&bed);
}

static void test_answers_from_within_delivery(void **state) {
    struct bed bed;
    (void)state;
    bed_make(&bed, 3, 0);
    bed.nodes[2].answers = bed.nodes[3].answers = 300;
    for (uint64_t round = 1; round <= 300; round++) {
        assert_true(node_send(&bed, 1, 2, round, 600));
        assert_true(node_send(&bed, 1, 3, round, 600));
        BED_UNTIL(&bed, bed.nodes[1].heard[2].last == round && bed.nodes[1].heard[3].last == round);
    }
    bed_free(&bed);
}

// All kinds of messages, a set among them, whose bytes are not the message's body.
static void deliver_set(void *context, const struct peer_message *message) {
    struct configuration *configuration = context;
    assert_int_equal(message->kind, PEER_PROMISE_ASK);
    *configuration = message->configuration;
}

static void test_a_set_is_sent(void **state) {
    struct bed bed;
    struct configuration got = {0};
    struct peer_message message = {
        .kind = PEER_PROMISE_ASK,
        .from = 1,
        .epoch = 4,
        .nonce = "process",
        .configuration = {.epoch = 4, .primary = 1, .nonce = "process", .member_count = 2}};
    (void)state;
    message.configuration.members[0].node = 1;
    message.configuration.members[1].node = 2;
    bed_make(&bed, 2, 0);
    assert_true(peer_net_send(bed.nodes[1].net, 2, &message));
    for (uint64_t until = now_ms() + PATIENCE_MS; got.epoch == 0;) {
        assert_true(now_ms() < until);
        (void)peer_net_work(bed.nodes[2].net, deliver_set, &got);
    }
    assert_true(configuration_equal(&got, &message.configuration));
    bed_free(&bed);
}

// ---- Threads

struct sender {
    struct bed *bed;
    pthread_mutex_t *lock; // rounds count in the order of sending
    uint64_t *round;
    uint64_t count, sent;
};

static void *sender_main(void *context) {
    struct sender *sender = context;
    for (uint64_t i = 0; i < sender->count; i++) {
        (void)pthread_mutex_lock(sender->lock);
        *sender->round += 1;
        bool sent = node_send(sender->bed, 1, 2, *sender->round, BODY_BYTES_MIN + *sender->round * 37 % 3000);
        (void)pthread_mutex_unlock(sender->lock);
        sender->sent += sent ? 1 : 0;
    }
    return NULL;
}

static void test_several_threads_send(void **state) {
    struct bed bed;
    struct sender senders[4];
    pthread_t threads[4];
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    uint64_t round = 0, sent = 0;
    (void)state;
    bed_make(&bed, 2, 0);
    for (uint32_t i = 0; i < 4; i++) {
        senders[i] = (struct sender){.bed = &bed, .lock = &lock, .round = &round, .count = 5000};
        assert_int_equal(pthread_create(&threads[i], NULL, sender_main, &senders[i]), 0);
    }
    BED_UNTIL(&bed, bed.nodes[2].heard[1].last > 10000);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        sent += senders[i].sent;
    }
    assert_int_equal(sent + status_of(&bed, 1, 2).dropped, 20000);
    BED_UNTIL(&bed, bed.nodes[2].heard[1].count == sent);
    bed_free(&bed);
}

// Threads that send without a lock of their own while peers come, go and move: nothing is altered or doubled.
static atomic_bool churn_stop;
static _Atomic uint64_t churn_heard;

static void *churn_main(void *context) {
    struct bed *bed = context;
    while (!atomic_load(&churn_stop)) {
        uint8_t body[2000];
        struct peer_net_status status;
        body_fill(body, sizeof(body), 5);
        struct peer_message message = message_make(1, 5, body, sizeof(body));
        (void)peer_net_send(bed->nodes[1].net, 2, &message);
        peer_net_status_get(bed->nodes[1].net, 2, &status);
    }
    return NULL;
}

static void churn_deliver(void *context, const struct peer_message *message) {
    (void)context;
    assert_true(message->from == 1 && message->round == 5 && body_good(message));
    atomic_fetch_add(&churn_heard, 1);
}

static void test_peers_change_while_threads_send(void **state) {
    struct bed bed;
    pthread_t threads[2];
    (void)state;
    bed_make(&bed, 2, 0);
    atomic_store(&churn_stop, false);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, churn_main, &bed), 0);
    }
    for (uint64_t i = 0; i < 60; i++) {
        uint64_t before = atomic_load(&churn_heard), until = now_ms() + PATIENCE_MS;
        while (atomic_load(&churn_heard) < before + 20) {
            assert_true(now_ms() < until);
            (void)peer_net_work(bed.nodes[1].net, churn_deliver, NULL);
            (void)peer_net_work(bed.nodes[2].net, churn_deliver, NULL);
        }
        if (i % 3 == 0) {
            peer_net_peer_remove(bed.nodes[1].net, 2);
        } else if (i % 3 == 1) {
            char localhost[64];
            (void)snprintf(localhost, sizeof(localhost), "127.0.0.1:%05u", port_of(bed.nodes[2].address));
            assert_int_equal(peer_net_peer_set(bed.nodes[1].net, 2, localhost), SHELF_OK);
        } else {
            peer_net_peer_remove(bed.nodes[2].net, 1);
            assert_int_equal(peer_net_peer_set(bed.nodes[2].net, 1, bed.nodes[1].address), SHELF_OK);
        }
        assert_int_equal(peer_net_peer_set(bed.nodes[1].net, 2, bed.nodes[2].address), SHELF_OK);
    }
    atomic_store(&churn_stop, true);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    bed_free(&bed);
}

// ---- Peers that go and come

static void test_a_node_returns(void **state) {
    struct bed bed;
    uint64_t round = 0;
    (void)state;
    bed_make(&bed, 3, 0);
    for (int i = 0; i < 10; i++) {
        node_close(&bed, 2);
        BED_UNTIL(&bed, !status_of(&bed, 1, 2).connected && status_of(&bed, 1, 2).text[0] != 0);
        assert_true(status_of(&bed, 1, 2).known);
        BED_UNTIL(&bed, strstr(status_of(&bed, 1, 2).text, "refused"));
        assert_false(node_send(&bed, 1, 2, ++round, 100));
        node_open(&bed, 2); // at the same address
        node_introduce(&bed, 2);
        BED_UNTIL(&bed, connected(&bed, 1, 2) && connected(&bed, 2, 3));
        assert_string_equal(status_of(&bed, 1, 2).text, "");
        assert_true(node_send(&bed, 1, 2, ++round, 100));
        assert_true(node_send(&bed, 2, 1, ++round, 100));
        assert_true(node_send(&bed, 1, 3, round, 100)); // who never noticed
        BED_UNTIL(&bed, bed.nodes[2].heard[1].last == round - 1 && bed.nodes[1].heard[2].last == round &&
                            bed.nodes[3].heard[1].last == round);
    }
    bed_free(&bed);
}

static void test_a_node_that_moves(void **state) {
    struct bed bed;
    (void)state;
    bed_make(&bed, 2, 0);
    node_close(&bed, 2);
    (void)snprintf(bed.nodes[2].address, PEER_ADDRESS_MAX, "[::1]:0");
    node_open(&bed, 2);
    assert_non_null(strstr(bed.nodes[2].address, "[::1]:"));
    assert_int_equal(peer_net_peer_set(bed.nodes[1].net, 2, bed.nodes[2].address), SHELF_OK);
    node_introduce(&bed, 2);
    BED_UNTIL(&bed, connected(&bed, 1, 2));
    // And by a name, which a thread finds.
    char address[PEER_ADDRESS_MAX];
    node_close(&bed, 2);
    (void)snprintf(bed.nodes[2].address, PEER_ADDRESS_MAX, "localhost:0");
    node_open(&bed, 2);
    (void)snprintf(address, sizeof(address), "localhost:%u", port_of(bed.nodes[2].address));
    assert_string_equal(bed.nodes[2].address, address);
    assert_int_equal(peer_net_peer_set(bed.nodes[1].net, 2, address), SHELF_OK);
    node_introduce(&bed, 2);
    BED_UNTIL(&bed, connected(&bed, 1, 2));
    assert_true(node_send(&bed, 1, 2, 1, 100));
    BED_UNTIL(&bed, bed.nodes[2].heard[1].last == 1);
    bed_free(&bed);
}

static void test_a_removed_peer_is_cut_off(void **state) {
    struct bed bed;
    (void)state;
    bed_make(&bed, 3, 0);
    peer_net_peer_remove(bed.nodes[1].net, 2);
    assert_false(status_of(&bed, 1, 2).known);
    assert_false(node_send(&bed, 1, 2, 1, 100));
    BED_UNTIL(&bed, strstr(status_of(&bed, 2, 1).text, "may not know this node yet"));
    assert_true(refused_text_has(&bed, 1, "is not known here"));
    assert_false(node_send(&bed, 2, 1, 1, 100));
    assert_true(connected(&bed, 1, 3));
    assert_int_equal(peer_net_peer_set(bed.nodes[1].net, 2, bed.nodes[2].address), SHELF_OK);
    BED_UNTIL(&bed, connected(&bed, 1, 2));
    assert_true(node_send(&bed, 1, 2, 2, 100));
    BED_UNTIL(&bed, bed.nodes[2].heard[1].last == 2);
    bed_free(&bed);
}

// ---- A peer that does not read

static void test_who_does_not_read_costs_the_bound(void **state) {
    const size_t bound = 4u << 20;
    struct bed bed;
    uint64_t round = 0, fast = 0;
    (void)state;
    bed_make(&bed, 3, bound);
    // Node 3 stands still: its sockets fill, then the queue before it.
    uint64_t began_ms = now_ms();
    for (uint64_t refused = 0; refused < 50;) {
        refused += node_send(&bed, 1, 3, ++round, 100000) ? 0 : 1;
        assert_true(status_of(&bed, 1, 3).queued_bytes <= bound);
        assert_true(node_send(&bed, 1, 2, ++fast, 100));
        for (uint64_t until = now_ms() + PATIENCE_MS; bed.nodes[2].heard[1].last < fast;) {
            assert_true(now_ms() < until);
            node_work(&bed, 1);
            node_work(&bed, 2);
        }
    }
    assert_int_equal(status_of(&bed, 1, 3).dropped, 50);
    assert_true(status_of(&bed, 1, 3).queued_bytes > bound - 200000);
    assert_true(now_ms() - began_ms < PATIENCE_MS);
    // It reads again: what was accepted arrives, in order.
    BED_UNTIL(&bed, bed.nodes[3].heard[1].count == round - 50);
    assert_int_equal(status_of(&bed, 1, 3).queued_bytes, 0);
    assert_true(node_send(&bed, 1, 3, ++round, 100));
    BED_UNTIL(&bed, bed.nodes[3].heard[1].last == round);
    // Larger than the bound: never.
    assert_false(node_send(&bed, 1, 2, ++fast, bound));
    bed_free(&bed);
}

// ---- Who does not fit

struct other { // a node of its own kind
    uint8_t cluster[16];
    uint16_t group;
    uint64_t node;
};

static struct peer_net *other_open(struct bed *bed, const struct other *other) {
    struct peer_net *net = NULL;
    char text[PEER_TEXT_MAX];
    struct peer_net_options options = {
        .group = other->group, .node = other->node, .address = "127.0.0.1:0", .connect_ms = 5};
    memcpy(options.cluster, other->cluster, sizeof(options.cluster));
    assert_int_equal(peer_net_open(&options, &net, text), SHELF_OK);
    assert_int_equal(peer_net_peer_set(net, 1, bed->nodes[1].address), SHELF_OK);
    assert_int_equal(peer_net_peer_set(bed->nodes[1].net, 3, peer_net_address(net)), SHELF_OK);
    return net;
}

static bool other_is_told(struct peer_net *net, uint64_t node, const char *text) {
    struct peer_net_status status;
    (void)peer_net_work(net, churn_deliver, NULL);
    peer_net_status_get(net, node, &status);
    return !status.connected && strstr(status.text, text);
}

static void other_refused(const struct other *other, const char *text) {
    struct bed bed;
    bed_make(&bed, 2, 0);
    struct peer_net *net = other_open(&bed, other);
    // Both sides say it.
    BED_UNTIL(&bed, other_is_told(net, 1, text));
    BED_UNTIL(&bed, (other_is_told(net, 1, text), strstr(status_of(&bed, 1, 3).text, text)));
    BED_UNTIL(&bed, (other_is_told(net, 1, text), refused_text_has(&bed, 1, text)));
    assert_false(node_send(&bed, 1, 3, 1, 100));
    assert_true(node_send(&bed, 1, 2, 1, 100));
    BED_UNTIL(&bed, bed.nodes[2].heard[1].last == 1);
    peer_net_close(net);
    bed_free(&bed);
}

static void test_another_cluster(void **state) {
    (void)state;
    other_refused(&(struct other){.cluster = "another's id...", .node = 3}, "belongs to another cluster");
}

static void test_another_group(void **state) {
    struct other other = {.group = 2, .node = 3};
    (void)state;
    memcpy(other.cluster, bed_cluster, sizeof(other.cluster));
    other_refused(&other, "of group 2");
}

// Node 1 is sent to the place of node 3, but node 4 is there.
static void test_another_node_is_there(void **state) {
    struct bed bed;
    struct other other = {.node = 4};
    (void)state;
    memcpy(other.cluster, bed_cluster, sizeof(other.cluster));
    bed_make(&bed, 2, 0);
    struct peer_net *net = other_open(&bed, &other);
    BED_UNTIL(&bed, (other_is_told(net, 1, ""), strstr(status_of(&bed, 1, 3).text, "is node 4, not node 3")));
    BED_UNTIL(&bed, other_is_told(net, 1, "said nothing"));
    assert_true(refused_text_has(&bed, 1, "node 4, connecting from 127.0.0.1:"));
    peer_net_close(net);
    bed_free(&bed);
}

// ---- Options

static void test_what_cannot_be_opened(void **state) {
    static const char *const addresses[] = {
        "127.0.0.1",       "::1:5",  ":5",         "127.0.0.1:x", "[::1]5",
        "127.0.0.1:65536", "[::1:5", "127.0.0.1:", "no such:0",   "[]:5"};
    struct peer_net *net = NULL;
    char text[PEER_TEXT_MAX] = "";
    struct bed bed;
    (void)state;
    for (size_t i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++) {
        struct peer_net_options options = {.node = 1, .address = addresses[i]};
        text[0] = 0;
        assert_int_equal(peer_net_open(&options, &net, text), SHELF_INVALID);
        assert_true(text[0] != 0 && net == NULL);
    }
    bed_make(&bed, 1, 0);
    struct peer_net_options taken = {.node = 2, .address = bed.nodes[1].address};
    assert_int_equal(peer_net_open(&taken, &net, text), SHELF_IO);
    assert_non_null(strstr(text, "in use"));
    assert_int_equal(peer_net_peer_set(bed.nodes[1].net, 1, "127.0.0.1:5"), SHELF_INVALID);
    assert_int_equal(peer_net_peer_set(bed.nodes[1].net, 0, "127.0.0.1:5"), SHELF_INVALID);
    assert_int_equal(peer_net_peer_set(bed.nodes[1].net, 2, "127.0.0.1:0"), SHELF_INVALID);
    assert_int_equal(peer_net_peer_set(bed.nodes[1].net, 2, "127.0.0.1"), SHELF_INVALID);
    assert_false(status_of(&bed, 1, 2).known);
    // A name that does not exist is no reason to wait, and is told.
    assert_int_equal(peer_net_peer_set(bed.nodes[1].net, 2, "nowhere.invalid:5"), SHELF_OK);
    assert_string_equal(status_of(&bed, 1, 2).text, "node 2 at nowhere.invalid:5 was not tried yet");
    BED_UNTIL(&bed, !strstr(status_of(&bed, 1, 2).text, "not tried") && status_of(&bed, 1, 2).text[0]);
    for (uint64_t node = 3; node < 130; node++) {
        assert_int_equal(peer_net_peer_set(bed.nodes[1].net, node, "127.0.0.1:5"), SHELF_OK);
    }
    assert_int_equal(peer_net_peer_set(bed.nodes[1].net, 130, "127.0.0.1:5"), SHELF_NO_MEMORY);
    peer_net_peer_remove(bed.nodes[1].net, 77);
    assert_int_equal(peer_net_peer_set(bed.nodes[1].net, 130, "127.0.0.1:5"), SHELF_OK);
    bed_free(&bed);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_small_in_order),
        cmocka_unit_test(test_large_bodies_both_ways),
        cmocka_unit_test(test_answers_from_within_delivery),
        cmocka_unit_test(test_a_set_is_sent),
        cmocka_unit_test(test_several_threads_send),
        cmocka_unit_test(test_peers_change_while_threads_send),
        cmocka_unit_test(test_a_node_returns),
        cmocka_unit_test(test_a_node_that_moves),
        cmocka_unit_test(test_a_removed_peer_is_cut_off),
        cmocka_unit_test(test_who_does_not_read_costs_the_bound),
        cmocka_unit_test(test_another_cluster),
        cmocka_unit_test(test_another_group),
        cmocka_unit_test(test_another_node_is_there),
        cmocka_unit_test(test_what_cannot_be_opened),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
