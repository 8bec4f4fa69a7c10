// SPDX-License-Identifier: Apache-2.0
//
// What strangers and broken nodes do to the connections between nodes: everything that is not a message of a known node is cut
// off with a sentence that says why, and the others do not notice (P3).

#include "peer_fixture.h"

// The others live: messages go there and back.
static void others_live(struct bed *bed, uint64_t round) {
    assert_true(connected(bed, 1, 2));
    assert_true(node_send(bed, 1, 2, round, 5000));
    assert_true(node_send(bed, 2, 1, round, 5000));
    BED_UNTIL(bed, bed->nodes[2].heard[1].last == round && bed->nodes[1].heard[2].last == round);
    assert_int_equal(status_of(bed, 1, 2).dropped, 0);
}

// Says it, and is cut off for that reason.
static void said_and_cut(struct bed *bed, const void *bytes, size_t size, const char *reason) {
    int fd = stranger_connect(bed, 1);
    stranger_say(fd, bytes, size);
    BED_UNTIL(bed, stranger_is_cut(fd));
    BED_UNTIL(bed, refused_text_has(bed, 1, reason));
    (void)close(fd);
}

// ---- Instead of HELLO

static void test_no_hello(void **state) {
    struct bed bed;
    uint8_t garbage[500];
    (void)state;
    bed_make(&bed, 2, 0);
    memset(garbage, 0xa5, sizeof(garbage));
    said_and_cut(&bed, garbage, sizeof(garbage), "is no node of a shelf");
    static const char http[] =
        "GET / HTTP/1.1\r\nHost: somewhere.example\r\nUser-Agent: a program that is quite lost\r\nAccept: "
        "*/*\r\n"
        "X-Padding: ..............................................................................\r\n\r\n";
    said_and_cut(&bed, http, sizeof(http), "is no node of a shelf");
    // A message of a known node, before its HELLO.
    size_t size = 0;
    struct peer_message join = {.kind = PEER_JOIN, .from = 2, .epoch = 3};
    uint8_t *bytes = bytes_make(&join, &size);
    said_and_cut(&bed, bytes, size, "did not say HELLO first");
    free(bytes);
    others_live(&bed, 1);
    bed_free(&bed);
}

static void test_hello_that_does_not_fit(void **state) {
    struct bed bed;
    (void)state;
    bed_make(&bed, 2, 0);
    assert_int_equal(peer_net_peer_set(bed.nodes[1].net, 3, "127.0.0.1:1"), SHELF_OK); // nobody is there
    BED_UNTIL(&bed, strstr(status_of(&bed, 1, 3).text, "refused"));

    struct peer_header hello = hello_of(3);
    hello.cluster[3] ^= 1;
    header_seal(&hello);
    said_and_cut(&bed, &hello, sizeof(hello), "node 3, connecting from 127.0.0.1:");
    assert_true(refused_text_has(&bed, 1, "belongs to another cluster"));

    hello = hello_of(3);
    hello.version = 2;
    header_seal(&hello);
    said_and_cut(&bed, &hello, sizeof(hello), "speaks version 2 of the protocol, this node version 1");

    hello = hello_of(3);
    hello.from = 4; // and its checksum as it was
    said_and_cut(&bed, &hello, sizeof(hello), "what connects from 127.0.0.1:");

    hello = hello_of(77);
    said_and_cut(&bed, &hello, sizeof(hello), "node 77, connecting from");
    assert_true(refused_text_has(&bed, 1, "is not known here"));
    hello = hello_of(1);
    said_and_cut(&bed, &hello, sizeof(hello), "says that it is this node");
    hello = hello_of(0);
    said_and_cut(&bed, &hello, sizeof(hello), "says HELLO, but");

    hello = hello_of(3);
    hello.body_size = 1;
    header_seal(&hello);
    said_and_cut(&bed, &hello, sizeof(hello), "says HELLO, but");
    hello = hello_of(3);
    hello.body_crc = 1;
    header_seal(&hello);
    said_and_cut(&bed, &hello, sizeof(hello), "says HELLO, but");
    hello = hello_of(3);
    hello.reserved[4] = 1;
    header_seal(&hello);
    said_and_cut(&bed, &hello, sizeof(hello), "says HELLO, but");
    others_live(&bed, 1);
    bed_free(&bed);
}

// The refused side is answered, so that it can say what is wrong, too.
static void test_who_is_refused_is_answered(void **state) {
    struct bed bed;
    struct peer_header hello = hello_of(2), answer;
    (void)state;
    bed_make(&bed, 2, 0);
    hello.version = 9;
    header_seal(&hello);
    int fd = stranger_connect(&bed, 1);
    stranger_say(fd, &hello, sizeof(hello));
    BED_UNTIL(&bed, recv(fd, &answer, sizeof(answer), MSG_DONTWAIT | MSG_PEEK) == sizeof(answer));
    assert_int_equal(recv(fd, &answer, sizeof(answer), MSG_DONTWAIT), sizeof(answer));
    assert_true(peer_header_whole(&answer));
    assert_int_equal(answer.kind, PEER_HELLO);
    assert_int_equal(answer.version, PEER_VERSION);
    assert_int_equal(answer.from, 1);
    BED_UNTIL(&bed, stranger_is_cut(fd));
    (void)close(fd);
    others_live(&bed, 1);
    bed_free(&bed);
}

// ---- After HELLO

// As node 3, which is known to node 1; its HELLO was answered.
static int node_3_connect(struct bed *bed) {
    struct peer_header hello = hello_of(3), answer;
    int fd = stranger_connect(bed, 1);
    stranger_say(fd, &hello, sizeof(hello));
    BED_UNTIL(bed, recv(fd, &answer, sizeof(answer), MSG_DONTWAIT) == sizeof(answer));
    return fd;
}

static void node_3_cut(struct bed *bed, const void *bytes, size_t size, const char *reason) {
    struct heard before = bed->nodes[1].heard[3];
    int fd = node_3_connect(bed);
    stranger_say(fd, bytes, size);
    BED_UNTIL(bed, stranger_is_cut(fd));
    BED_UNTIL(bed, refused_text_has(bed, 1, reason));
    assert_true(refused_text_has(bed, 1, "node 3, connected from 127.0.0.1:"));
    assert_int_equal(before.count, bed->nodes[1].heard[3].count); // nothing of it was delivered
    (void)close(fd);
}

static void test_messages_that_are_none(void **state) {
    struct bed bed;
    uint8_t body[3000];
    size_t size = 0;
    struct peer_header header;
    (void)state;
    bed_make(&bed, 2, 0);
    assert_int_equal(peer_net_peer_set(bed.nodes[1].net, 3, "127.0.0.1:1"), SHELF_OK);
    body_fill(body, sizeof(body), 1);
    struct peer_message message = message_make(3, 1, body, sizeof(body));
    uint8_t *bytes = bytes_make(&message, &size);

    bytes[100] ^= 1; // the header
    node_3_cut(&bed, bytes, size, "damaged");
    bytes[100] ^= 1;
    bytes[size - 1] ^= 1; // the body
    node_3_cut(&bed, bytes, size, "its body was damaged");
    bytes[size - 1] ^= 1;

    memcpy(&header, bytes, sizeof(header));
    header.body_size = UINT32_MAX;
    header_seal(&header);
    node_3_cut(&bed, &header, sizeof(header), "larger than its kind");
    memcpy(&header, bytes, sizeof(header));
    header.kind = PEER_KIND_END;
    header_seal(&header);
    node_3_cut(&bed, &header, sizeof(header), "no such kind");
    memcpy(&header, bytes, sizeof(header));
    header.cluster[0] ^= 1;
    header_seal(&header);
    node_3_cut(&bed, &header, sizeof(header), "another cluster");
    memcpy(&header, bytes, sizeof(header));
    header.version = 2;
    header_seal(&header);
    node_3_cut(&bed, &header, sizeof(header), "another version");
    memcpy(&header, bytes, sizeof(header));
    header.from = 2;
    header_seal(&header);
    memcpy(bytes, &header, sizeof(header));
    node_3_cut(&bed, bytes, size, "speaks for another node");
    header = hello_of(3);
    node_3_cut(&bed, &header, sizeof(header), "says HELLO twice");
    free(bytes);
    others_live(&bed, 1);
    bed_free(&bed);
}

// Cut at any place, it is simply not there; and all of what came before it is.
static void test_truncated(void **state) {
    static const size_t cuts[] = {0, 1, 191, 192, 193, 2000, 3191};
    struct bed bed;
    uint8_t body[3000];
    (void)state;
    bed_make(&bed, 2, 0);
    assert_int_equal(peer_net_peer_set(bed.nodes[1].net, 3, "127.0.0.1:1"), SHELF_OK);
    for (uint64_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
        size_t size = 0;
        int fd = node_3_connect(&bed);
        for (uint64_t round = 2 * i + 1; round <= 2 * i + 2; round++) {
            body_fill(body, sizeof(body), round);
            struct peer_message message = message_make(3, round, body, sizeof(body));
            uint8_t *bytes = bytes_make(&message, &size);
            stranger_say(fd, bytes, round % 2 == 1 ? size : cuts[i]);
            free(bytes);
        }
        (void)close(fd);
        BED_UNTIL(&bed, bed.nodes[1].heard[3].last == 2 * i + 1);
        others_live(&bed, i + 1);
    }
    bed_free(&bed);
}

// Byte by byte, it is the same message.
static void test_bytes_one_by_one(void **state) {
    struct bed bed;
    uint8_t body[700];
    struct peer_header hello = hello_of(3);
    size_t size = 0;
    (void)state;
    bed_make(&bed, 2, 0);
    assert_int_equal(peer_net_peer_set(bed.nodes[1].net, 3, "127.0.0.1:1"), SHELF_OK);
    int fd = stranger_connect(&bed, 1);
    for (size_t i = 0; i < sizeof(hello); i++) {
        stranger_say(fd, (uint8_t *)&hello + i, 1);
        node_work(&bed, 1);
    }
    for (uint64_t round = 1; round <= 3; round++) {
        body_fill(body, sizeof(body), round);
        struct peer_message message = message_make(3, round, body, sizeof(body));
        uint8_t *bytes = bytes_make(&message, &size);
        for (size_t i = 0; i < size; i++) {
            stranger_say(fd, bytes + i, 1);
            node_work(&bed, 1);
        }
        free(bytes);
    }
    BED_UNTIL(&bed, bed.nodes[1].heard[3].count == 3);
    (void)close(fd);
    bed_free(&bed);
}

// A new connection of a node takes the place of the one before.
static void test_the_newest_connection_counts(void **state) {
    struct bed bed;
    uint8_t body[100];
    size_t size = 0;
    (void)state;
    bed_make(&bed, 2, 0);
    assert_int_equal(peer_net_peer_set(bed.nodes[1].net, 3, "127.0.0.1:1"), SHELF_OK);
    int old = node_3_connect(&bed), new = node_3_connect(&bed);
    BED_UNTIL(&bed, stranger_is_cut(old));
    body_fill(body, sizeof(body), 1);
    struct peer_message message = message_make(3, 1, body, sizeof(body));
    uint8_t *bytes = bytes_make(&message, &size);
    stranger_say(new, bytes, size);
    BED_UNTIL(&bed, bed.nodes[1].heard[3].last == 1);
    assert_false(stranger_is_cut(new));
    free(bytes);
    (void)close(old);
    (void)close(new);
    others_live(&bed, 1);
    bed_free(&bed);
}

// ---- Crowds and silence

static void test_a_crowd_that_says_nothing(void **state) {
    int fds[300];
    struct bed bed;
    uint32_t cut = 0;
    (void)state;
    bed_make(&bed, 2, 0);
    for (uint32_t i = 0; i < 300; i++) {
        fds[i] = stranger_connect(&bed, 1);
        stranger_say(fds[i], "PEER", i % 5);
        node_work(&bed, 1);
    }
    // All but the newest 64 are sent away at once.
    BED_UNTIL(&bed, refused_count(&bed, 1) >= 300 - 64);
    assert_int_equal(refused_count(&bed, 1), 300 - 64);
    assert_true(refused_text_has(&bed, 1, "too many connections have not said who they are"));
    for (uint32_t i = 0; i < 300; i++) {
        cut += stranger_is_cut(fds[i]) ? 1 : 0;
    }
    assert_int_equal(cut, 300 - 64);
    others_live(&bed, 1);
    // Who says HELLO is heard in spite of them.
    assert_int_equal(peer_net_peer_set(bed.nodes[1].net, 3, "127.0.0.1:1"), SHELF_OK);
    int fd = node_3_connect(&bed);
    // And the rest is sent away when its time is over.
    BED_UNTIL(&bed, refused_text_has(&bed, 1, "it has not said who it is"));
    BED_UNTIL(&bed, stranger_is_cut(fds[299]));
    assert_false(stranger_is_cut(fd));
    others_live(&bed, 2);
    for (uint32_t i = 0; i < 300; i++) {
        (void)close(fds[i]);
    }
    (void)close(fd);
    bed_free(&bed);
}

// ---- Whom a node connects to

static int listener_open(uint16_t *ret_port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 64), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    *ret_port = ntohs(address.sin_port);
    return fd;
}

// Node 1 connects to a listener as to node 3, and says HELLO there. Nobody else can connect to it any more.
static int as_node_3_accept(struct bed *bed) {
    char address[64];
    uint16_t port = 0;
    struct peer_header hello;
    int listener = listener_open(&port);
    (void)snprintf(address, sizeof(address), "127.0.0.1:%u", port);
    assert_int_equal(peer_net_peer_set(bed->nodes[1].net, 3, address), SHELF_OK);
    struct pollfd ready = {.fd = listener, .events = POLLIN};
    BED_UNTIL(bed, poll(&ready, 1, 0) == 1);
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    BED_UNTIL(bed, recv(fd, &hello, sizeof(hello), MSG_DONTWAIT) == sizeof(hello));
    assert_true(peer_header_whole(&hello) && hello.from == 1);
    (void)close(listener);
    return fd;
}

// It hears this, and its status says why that is no connection.
static void answered_and_told(const void *bytes, size_t size, bool closes, const char *text) {
    struct bed bed;
    bed_make(&bed, 2, 0);
    int fd = as_node_3_accept(&bed);
    if (size > 0) {
        stranger_say(fd, bytes, size);
    }
    if (closes) {
        (void)shutdown(fd, SHUT_RDWR);
    }
    BED_UNTIL(&bed, strstr(status_of(&bed, 1, 3).text, text));
    assert_false(status_of(&bed, 1, 3).connected);
    others_live(&bed, 1);
    (void)close(fd);
    bed_free(&bed);
}

static void test_answers_that_do_not_fit(void **state) {
    struct peer_header hello = hello_of(3);
    struct peer_header twice[2] = {hello, hello};
    (void)state;
    answered_and_told(twice, sizeof(twice), false, "speaks where it should only listen");
    answered_and_told(&hello, 100, true, "said nothing");
    answered_and_told(&hello, 0, false, "timed out");
    hello.version = 2;
    header_seal(&hello);
    answered_and_told(&hello, sizeof(hello), false, "speaks version 2 of the protocol, this node version 1");
    hello = hello_of(3);
    hello.cluster[0] ^= 1;
    header_seal(&hello);
    answered_and_told(&hello, sizeof(hello), false, "belongs to another cluster");
    hello = hello_of(5);
    answered_and_told(&hello, sizeof(hello), false, "is node 5, not node 3");
    memset(&hello, 'x', sizeof(hello));
    answered_and_told(&hello, sizeof(hello), false, "is no node of a shelf");
}

// The sockets of both sides fill, then the queue up to its bound, and that is all it costs.
static void test_who_answers_but_never_reads(void **state) {
    const size_t bound = 1u << 20;
    struct peer_header hello = hello_of(3);
    struct bed bed;
    uint64_t round = 0, dropped = 0;
    (void)state;
    bed_make(&bed, 2, bound);
    int fd = as_node_3_accept(&bed);
    stranger_say(fd, &hello, sizeof(hello));
    BED_UNTIL(&bed, node_send(&bed, 1, 3, ++round, 50000));
    while (dropped < 100) {
        dropped += node_send(&bed, 1, 3, ++round, 50000) ? 0 : 1;
        assert_true(status_of(&bed, 1, 3).queued_bytes <= bound);
        others_live(&bed, round);
    }
    assert_true(status_of(&bed, 1, 3).queued_bytes > bound - 100000);
    (void)close(fd);
    BED_UNTIL(&bed, status_of(&bed, 1, 3).queued_bytes == 0);
    assert_false(node_send(&bed, 1, 3, ++round, 50000));
    others_live(&bed, round);
    bed_free(&bed);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_hello),
        cmocka_unit_test(test_hello_that_does_not_fit),
        cmocka_unit_test(test_who_is_refused_is_answered),
        cmocka_unit_test(test_messages_that_are_none),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_bytes_one_by_one),
        cmocka_unit_test(test_the_newest_connection_counts),
        cmocka_unit_test(test_a_crowd_that_says_nothing),
        cmocka_unit_test(test_answers_that_do_not_fit),
        cmocka_unit_test(test_who_answers_but_never_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
