// SPDX-License-Identifier: Apache-2.0
/*
 * join.c: a new directory becomes a node of the cluster.
 *
 *   1  a number and an incarnation are chosen and stored             (MEMBER_NEW)
 *   2  the number's register is made: nobody else has it
 *   3  the configuration is read, or made if there is none: a set of this node alone, of a shelf with a new id
 *   4  its shelf's id is stored                                      (MEMBER_JOINED)
 *
 * A crash anywhere in between is gone on from: what was stored is used again, and all that was made names the stored
 * incarnation, which has said nothing to anybody yet. A directory that has come to the end of this needs no coordinator to open.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bits.h"
#include "member/member_state.h"
#include "world/world.h"

enum { PAUSE_MS = 500, CONNECT_MS = 1000, NUMBERS = 65535, HOST_MAX = 256 };

/* ---- Waiting for the coordinator ----------------------------------------------------------------------------------- */

/* It cannot be reached, or nobody knows what has come of an ask: tried again after a while. */
static void pause_with(const struct member *member, const struct coordinator_ask *ask, bool *told) {
    struct coordinator_status status;
    coordinator_status_get(member->coordinator, &status);
    if (!*told) {
        member_log(member, ask->outcome == COORDINATOR_REFUSED ? "coordinator-refused" : "coordinator-lost",
                   "%s; a new directory waits for it", status.text[0] ? status.text : "it does not answer");
        *told = true;
    }
    (void)poll(NULL, 0, PAUSE_MS);
}

/* ---- The number ---------------------------------------------------------------------------------------------------- */

static bool connects(const struct addrinfo *address) {
    int error = 0;
    socklen_t size = sizeof(error);
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return false;
    }
    bool done = connect(fd, address->ai_addr, address->ai_addrlen) == 0;
    if (!done && errno == EINPROGRESS) {
        struct pollfd poll_fd = {.fd = fd, .events = POLLOUT};
        done = poll(&poll_fd, 1, CONNECT_MS) == 1 &&
               getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
    }
    (void)close(fd);
    return done;
}

/* Does anybody listen there? */
static bool address_answers(const char *text) {
    char host[HOST_MAX];
    const char *colon = strrchr(text, ':');
    if (!colon || (size_t)(colon - text) >= sizeof(host)) {
        return false;
    }
    bool brackets = text[0] == '[' && colon[-1] == ']';
    size_t length = (size_t)(colon - text) - (brackets ? 2 : 0);
    memcpy(host, text + brackets, length);
    host[length] = 0;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    if (getaddrinfo(host, colon + 1, &hints, &found) != 0) {
        return false;
    }
    bool answers = false;
    for (const struct addrinfo *address = found; address && !answers; address = address->ai_next) {
        answers = connects(address);
    }
    freeaddrinfo(found);
    return answers;
}

static shelf_result number_store(struct member *member, bool choose, char ret_text[MEMBER_TEXT_MAX]) {
    struct member_record record = member->identity.record;
    if (record.node == 0) {
        record = (struct member_record){.magic = MEMBER_MAGIC, .format = MEMBER_FORMAT, .state = MEMBER_NEW};
        world_random_fill(record.incarnation, sizeof(record.incarnation));
        world_random_fill(record.shelf_id, sizeof(record.shelf_id));
        (void)snprintf(record.cluster, sizeof(record.cluster), "%s", member->options.cluster);
        record.node = member->options.node;
    }
    if (choose || record.node == 0) {
        uint16_t number;
        world_random_fill(&number, sizeof(number));
        record.node = number % NUMBERS + 1u;
    }
    return identity_store(&member->identity, &record, ret_text);
}

/* The register of the number is another incarnation's. May it be taken? Only if the directory is the same, emptied, or whoever
 * chose the number says so; and never from somebody who lives. */
static shelf_result number_taken(struct member *member, const struct register_state *state, bool *ret_take,
                                 char ret_text[MEMBER_TEXT_MAX]) {
    struct node_record record;
    bool wanted = member->options.node != 0 || member->identity.emptied;
    const char *problem = node_record_decode(state->value, state->size, &record);
    *ret_take = wanted && (problem || !address_answers(record.address));
    if (*ret_take) {
        return SHELF_OK;
    }
    if (member->options.node != 0) {
        (void)snprintf(ret_text, MEMBER_TEXT_MAX,
                       "node %llu is there already, at %s; give another --node-id, or end it first",
                       (unsigned long long)member->options.node, record.address);
        return SHELF_EXISTS;
    }
    member->identity.emptied = false; /* from now on it is a new one */
    return number_store(member, true, ret_text);
}

static void number_swap(const struct member *member, struct coordinator_ask *ask, uint64_t expected) {
    struct node_record record = {.node = member->identity.record.node};
    memcpy(record.incarnation, member->identity.record.incarnation, sizeof(record.incarnation));
    (void)snprintf(record.address, sizeof(record.address), "%s", member->options.address);
    *ask = (struct coordinator_ask){
        .act = COORDINATOR_SWAP, .id = {.kind = REGISTER_NODE, .number = record.node}, .expected = expected};
    uint8_t bytes[NODE_RECORD_BYTES_MAX];
    ask->size = (uint32_t)node_record_encode(&record, bytes);
    memcpy(ask->value, bytes, ask->size);
}

static bool is_own(const struct member *member, const struct register_state *state) {
    struct node_record record;
    return state->revision != 0 && !node_record_decode(state->value, state->size, &record) &&
           memcmp(record.incarnation, member->identity.record.incarnation, sizeof(record.incarnation)) == 0;
}

static shelf_result number_claim(struct member *member, bool *told, char ret_text[MEMBER_TEXT_MAX]) {
    struct coordinator_ask ask;
    for (;;) {
        ask = (struct coordinator_ask){.act = COORDINATOR_GET,
                                       .id = {.kind = REGISTER_NODE, .number = member->identity.record.node}};
        register_ask(member, &ask);
        if (ask.outcome == COORDINATOR_OK && is_own(member, &ask.state)) {
            return SHELF_OK;
        }
        if (ask.outcome != COORDINATOR_OK) {
            pause_with(member, &ask, told);
            continue;
        }
        bool take = true;
        if (ask.state.revision != 0) {
            shelf_result result = number_taken(member, &ask.state, &take, ret_text);
            if (result != SHELF_OK) {
                return result;
            }
        }
        if (take) {
            number_swap(member, &ask, ask.state.revision);
            register_ask(member, &ask);
            if (ask.outcome != COORDINATOR_OK && ask.outcome != COORDINATOR_LOST) {
                pause_with(member, &ask, told);
            }
        }
    }
}

/* ---- The shelf ----------------------------------------------------------------------------------------------------- */

static void configuration_make(const struct member *member, struct coordinator_ask *ask) {
    const struct member_record *record = &member->identity.record;
    struct configuration configuration = {.group = GROUP_NUMBER,
                                          .epoch = 1,
                                          .primary = record->node, /* no process; it takes the next */
                                          .member_count = 1,
                                          .members = {{.node = record->node}}};
    memcpy(configuration.members[0].incarnation, record->incarnation, sizeof(record->incarnation));
    *ask = (struct coordinator_ask){.act = COORDINATOR_SWAP,
                                    .id = {.kind = REGISTER_CONFIGURATION, .number = GROUP_NUMBER}};
    uint8_t bytes[CONFIGURATION_BYTES_MAX];
    ask->size = (uint32_t)configuration_encode(&configuration, record->shelf_id, bytes);
    memcpy(ask->value, bytes, ask->size);
}

static shelf_result shelf_learn(struct member *member, const struct register_state *state,
                                char ret_text[MEMBER_TEXT_MAX]) {
    struct member_record record = member->identity.record;
    struct configuration configuration;
    uint8_t shelf_id[16];
    const char *problem = configuration_decode(state->value, state->size, &configuration, shelf_id);
    if (problem) {
        (void)snprintf(ret_text, MEMBER_TEXT_MAX,
                       "the configuration of the cluster '%s' at the coordinator cannot be used: %s",
                       member->options.cluster, problem);
        return SHELF_FORMAT;
    }
    memcpy(record.shelf_id, shelf_id, sizeof(shelf_id));
    record.state = MEMBER_JOINED;
    return identity_store(&member->identity, &record, ret_text);
}

static shelf_result shelf_find(struct member *member, bool *told, char ret_text[MEMBER_TEXT_MAX]) {
    struct coordinator_ask ask;
    for (;;) {
        ask = (struct coordinator_ask){.act = COORDINATOR_GET,
                                       .id = {.kind = REGISTER_CONFIGURATION, .number = GROUP_NUMBER}};
        register_ask(member, &ask);
        if (ask.outcome == COORDINATOR_OK && ask.state.revision == 0) {
            configuration_make(member, &ask);
            register_ask(member, &ask);
            if (ask.outcome == COORDINATOR_OK) {
                member_log(member, "cluster-made", "this node is its first; others may join '%s'",
                           member->options.cluster);
            }
        }
        bool known = ask.outcome == COORDINATOR_OK || ask.outcome == COORDINATOR_LOST;
        if (known && ask.state.revision != 0) {
            return shelf_learn(member, &ask.state, ret_text);
        }
        pause_with(member, &ask, told);
    }
}

shelf_result member_join(struct member *member, char ret_text[MEMBER_TEXT_MAX]) {
    bool told = false;
    if (member->identity.record.node != 0 && member->identity.record.state != MEMBER_NEW) {
        return SHELF_OK;
    }
    if (member->identity.emptied) {
        member_log(member, "node-emptied",
                   "the directory of node %llu has lost its shelf; it joins anew, with nothing",
                   (unsigned long long)member->identity.record.node);
    }
    shelf_result result = number_store(member, false, ret_text);
    if (result == SHELF_OK) {
        result = number_claim(member, &told, ret_text);
    }
    return result == SHELF_OK ? shelf_find(member, &told, ret_text) : result;
}
