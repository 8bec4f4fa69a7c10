// SPDX-License-Identifier: Apache-2.0
//
// Several nodes of a cluster in one process, over loopback, and strangers with bare sockets. A message is a FORWARD whose round
// counts from 1 for each pair of nodes and says what is in the body; what is delivered is checked against that (P1).

#ifndef SHELF_TEST_PEER_FIXTURE_H
#define SHELF_TEST_PEER_FIXTURE_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/crc.h"
#include "cmocka_program.h"
#include "peer/peer_net.h"
#include "wire/request.h"

#define UNUSED    __attribute__((unused))
#define NODES_MAX 4u // nodes 1 to 3

static const uint8_t bed_cluster[16] = "the shelf's id.";

struct heard { // at one node, from another
    uint64_t count, last;
    size_t bytes;
};

struct node {
    struct peer_net *net; // NULL: closed
    char address[PEER_ADDRESS_MAX];
    struct heard heard[NODES_MAX];
    uint64_t answers; // to send back for each message, see bed_echo()
};

struct bed {
    struct node nodes[NODES_MAX];
    size_t queue_bytes_max;
    struct node *now; // whose messages are delivered
};

// ---- Messages

// A message's body: a request of user 1 whose bytes follow from its round.
#define BODY_BYTES_MIN (sizeof(struct peer_request) + sizeof(struct request_header))
UNUSED static void body_fill(uint8_t *body, size_t size, uint64_t round) {
    struct peer_request who = {.user = 1};
    assert_true(size >= BODY_BYTES_MIN);
    struct request_header header = {.size = (uint32_t)(size - sizeof(who))};
    for (size_t i = BODY_BYTES_MIN; i < size; i++) {
        body[i] = (uint8_t)(i * 31 + (i >> 8) + round);
    }
    memcpy(body, &who, sizeof(who));
    memcpy(body + sizeof(who), &header, sizeof(header));
}

static bool body_good(const struct peer_message *message) {
    const uint8_t *body = message->body;
    for (size_t i = BODY_BYTES_MIN; i < message->body_size; i++) {
        if (body[i] != (uint8_t)(i * 31 + (i >> 8) + message->round)) {
            return false;
        }
    }
    return true;
}

static struct peer_message message_make(uint64_t from, uint64_t round, const void *body, size_t size) {
    return (struct peer_message){
        .kind = PEER_FORWARD, .from = from, .epoch = 1, .round = round, .body = body, .body_size = size};
}

// False: it was dropped.
static bool node_send(struct bed *bed, uint64_t from, uint64_t to, uint64_t round, size_t size) {
    uint8_t *body = malloc(size);
    assert_non_null(body);
    body_fill(body, size, round);
    struct peer_message message = message_make(from, round, body, size);
    bool sent = peer_net_send(bed->nodes[from].net, to, &message);
    free(body);
    return sent;
}

static void node_deliver(void *context, const struct peer_message *message) {
    struct bed *bed = context;
    struct node *node = bed->now;
    assert_true(message->from < NODES_MAX);
    struct heard *heard = &node->heard[message->from];
    assert_int_equal(message->kind, PEER_FORWARD);
    assert_true((uintptr_t)message->body % 8 == 0);
    assert_true(message->round > heard->last); // in order, never twice
    assert_true(body_good(message));
    heard->last = message->round;
    heard->count++;
    heard->bytes += message->body_size;
    if (node->answers > 0) {
        struct peer_message answer = *message;
        node->answers--;
        answer.from = (uint64_t)(node - bed->nodes);
        assert_true(peer_net_send(node->net, message->from, &answer));
    }
}

// ---- Nodes

static void node_open(struct bed *bed, uint64_t node) {
    char text[PEER_TEXT_MAX] = "";
    struct peer_net_options options = {.node = node,
                                       .address = bed->nodes[node].address,
                                       .queue_bytes_max = bed->queue_bytes_max,
                                       .connect_ms = 5};
    memcpy(options.cluster, bed_cluster, sizeof(options.cluster));
    if (peer_net_open(&options, &bed->nodes[node].net, text) != SHELF_OK) {
        fail_msg("%s", text);
    }
    (void)snprintf(bed->nodes[node].address, PEER_ADDRESS_MAX, "%s", peer_net_address(bed->nodes[node].net));
    memset(bed->nodes[node].heard, 0, sizeof(bed->nodes[node].heard));
}

static void node_close(struct bed *bed, uint64_t node) {
    peer_net_close(bed->nodes[node].net);
    bed->nodes[node].net = NULL;
}

// The nodes know each other.
static void node_introduce(struct bed *bed, uint64_t node) {
    for (uint64_t other = 1; other < NODES_MAX; other++) {
        if (other != node && bed->nodes[other].net) {
            assert_int_equal(peer_net_peer_set(bed->nodes[node].net, other, bed->nodes[other].address),
                             SHELF_OK);
        }
    }
}

static void node_work(struct bed *bed, uint64_t node) {
    bed->now = &bed->nodes[node];
    (void)peer_net_work(bed->nodes[node].net, node_deliver, bed);
}

// Lets something happen, or some milliseconds pass.
static void bed_work(struct bed *bed) {
    struct pollfd fds[NODES_MAX];
    nfds_t count = 0;
    for (uint64_t node = 1; node < NODES_MAX; node++) {
        if (bed->nodes[node].net) {
            fds[count++] = (struct pollfd){.fd = peer_net_fd(bed->nodes[node].net), .events = POLLIN};
        }
    }
    (void)poll(fds, count, 5);
    for (uint64_t node = 1; node < NODES_MAX; node++) {
        if (bed->nodes[node].net) {
            node_work(bed, node);
        }
    }
}

static uint64_t now_ms(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

#define PATIENCE_MS 60000u // for what must come; nothing waits that long when all is well
#define BED_UNTIL(bed, condition)                                   \
    for (uint64_t until_ = now_ms() + PATIENCE_MS; !(condition);) { \
        if (now_ms() > until_) {                                    \
            fail_msg("never: %s", #condition);                      \
        }                                                           \
        bed_work(bed);                                              \
    }

static struct peer_net_status status_of(struct bed *bed, uint64_t node, uint64_t other) {
    struct peer_net_status status;
    peer_net_status_get(bed->nodes[node].net, other, &status);
    return status;
}

static bool connected(struct bed *bed, uint64_t a, uint64_t b) {
    return status_of(bed, a, b).connected && status_of(bed, b, a).connected;
}

// Nodes 1 to `count`, all connected to each other.
UNUSED static void bed_make(struct bed *bed, uint64_t count, size_t queue_bytes_max) {
    *bed = (struct bed){.queue_bytes_max = queue_bytes_max};
    for (uint64_t node = 1; node <= count; node++) {
        (void)snprintf(bed->nodes[node].address, PEER_ADDRESS_MAX, "127.0.0.1:0");
        node_open(bed, node);
    }
    for (uint64_t node = 1; node <= count; node++) {
        node_introduce(bed, node);
    }
    for (uint64_t a = 1; a <= count; a++) {
        for (uint64_t b = 1; b < a; b++) {
            BED_UNTIL(bed, connected(bed, a, b));
        }
    }
}

UNUSED static void bed_free(struct bed *bed) {
    for (uint64_t node = 1; node < NODES_MAX; node++) {
        if (bed->nodes[node].net) {
            node_close(bed, node);
        }
    }
}

// ---- Strangers

static uint16_t port_of(const char *address) {
    return (uint16_t)strtoul(strrchr(address, ':') + 1, NULL, 10);
}

UNUSED static int stranger_connect(struct bed *bed, uint64_t node) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(port_of(bed->nodes[node].address)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

UNUSED static void stranger_say(int fd, const void *bytes, size_t size) {
    assert_int_equal(send(fd, bytes, size, MSG_NOSIGNAL), size);
}

// Everything that can be read now is thrown away. True: the other side has closed the connection.
UNUSED static bool stranger_is_cut(int fd) {
    uint8_t bytes[4096];
    ssize_t size = 0;
    do {
        size = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    } while (size > 0);
    return size == 0 || errno != EAGAIN;
}

UNUSED static uint64_t refused_count(struct bed *bed, uint64_t node) {
    uint64_t count = 0;
    char text[PEER_TEXT_MAX];
    peer_net_refused_get(bed->nodes[node].net, &count, text);
    return count;
}

UNUSED static bool refused_text_has(struct bed *bed, uint64_t node, const char *part) {
    uint64_t count = 0;
    char text[PEER_TEXT_MAX];
    peer_net_refused_get(bed->nodes[node].net, &count, text);
    return strstr(text, part) != NULL;
}

// What another node would send, whole: header and body; `size` is the body's.
UNUSED static uint8_t *bytes_make(const struct peer_message *message, size_t *ret_size) {
    uint8_t head[PEER_HEAD_BYTES_MAX];
    size_t size = peer_encode(message, bed_cluster, 0, head);
    uint8_t *bytes = malloc(size + message->body_size);
    assert_non_null(bytes);
    memcpy(bytes, head, size);
    if (message->body_size > 0) {
        memcpy(bytes + size, message->body, message->body_size);
    }
    *ret_size = size + message->body_size;
    return bytes;
}

UNUSED static struct peer_header hello_of(uint64_t node) {
    struct peer_message message = {.kind = PEER_HELLO, .from = node};
    uint8_t bytes[PEER_HEAD_BYTES_MAX];
    struct peer_header header;
    (void)peer_encode(&message, bed_cluster, 0, bytes);
    memcpy(&header, bytes, sizeof(header));
    return header;
}

UNUSED static void header_seal(struct peer_header *header) {
    header->header_crc = 0;
    header->header_crc = crc32c(0, header, sizeof(*header));
}

#endif
