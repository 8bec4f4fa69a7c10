// SPDX-License-Identifier: Apache-2.0
/* member.c: the life of a member, and its two threads; see member.h. */
#include "member/member.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bits.h"
#include "member/member_state.h"
#include "world/world.h"

enum {
    FLIGHT_RECORDS = 2, /* to one peer: a backup holds so many (core/cluster.h) */
    URL_MAX = 256,
    PASSWORD_MAX = 256,
};

void member_log(const struct member *member, const char *event, const char *format, ...) {
    char text[MEMBER_TEXT_MAX];
    va_list arguments;
    if (!member->options.log) {
        return;
    }
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    member->options.log(member->options.log_context, event, text);
}

__attribute__((format(printf, 3, 4))) static shelf_result
refuse(char ret_text[MEMBER_TEXT_MAX], shelf_result result, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(ret_text, MEMBER_TEXT_MAX, format, arguments);
    va_end(arguments);
    return result;
}

/* ---- What the core wants: with the core held ------------------------------------------------------------------------ */

static void bell_ring(int fd) {
    uint64_t one = 1;
    (void)!write(fd, &one, sizeof(one)); /* it is full: rung already */
}

static void bell_silence(int fd) {
    uint64_t count;
    (void)!read(fd, &count, sizeof(count));
}

static void on_send(void *context, uint64_t node, const struct peer_message *message) {
    struct member *member = context;
    (void)peer_net_send(member->net, node, message); /* what is lost is sent again by the group */
}

static void on_swap(void *context, uint64_t epoch, const struct configuration *wanted) {
    struct member *member = context;
    (void)pthread_mutex_lock(&member->lock);
    member->orders.swap = true;
    member->orders.swap_from = epoch;
    member->orders.wanted = *wanted;
    (void)pthread_mutex_unlock(&member->lock);
    bell_ring(member->bell);
}

static void on_look(void *context) {
    struct member *member = context;
    (void)pthread_mutex_lock(&member->lock);
    member->orders.look = true;
    (void)pthread_mutex_unlock(&member->lock);
    bell_ring(member->bell);
}

/* ---- Threads ------------------------------------------------------------------------------------------------------- */

static void on_message(void *context, const struct peer_message *message) {
    struct member *member = context;
    node_cluster_message(member->driver, message);
}

static void *receiver_main(void *context) {
    struct member *member = context;
    struct pollfd poll_fds[2] = {{.fd = peer_net_fd(member->net), .events = POLLIN},
                                 {.fd = member->net_bell, .events = POLLIN}};
    while (!atomic_load(&member->quit)) {
        int timeout_ms = peer_net_work(member->net, on_message, member);
        for (uint64_t gone; (gone = peer_net_gone_take(member->net)) != 0;) {
            node_cluster_gone(member->driver, gone);
        }
        (void)poll(poll_fds, 2, timeout_ms);
    }
    return NULL;
}

/* Now and then; never more often than it has to be. */
static void *timer_main(void *context) {
    struct member *member = context;
    struct pollfd poll_fds[2] = {{.fd = coordinator_fd(member->coordinator), .events = POLLIN},
                                 {.fd = member->bell, .events = POLLIN}};
    const uint64_t period_ns = max_u64(member->options.heartbeat_ms * (uint64_t)1000000 / 2, 1000000);
    uint64_t tick_ns = world_monotonic_ns();
    while (!atomic_load(&member->quit)) {
        uint64_t now_ns = world_monotonic_ns();
        if (now_ns >= tick_ns) {
            node_cluster_tick(member->node);
            watch_work(member);
            tick_ns = now_ns + period_ns;
        }
        registers_work(member);
        now_ns = world_monotonic_ns();
        (void)poll(poll_fds, 2, now_ns >= tick_ns ? 0 : (int)((tick_ns - now_ns) / 1000000 + 1));
        if (poll_fds[1].revents & POLLIN) {
            bell_silence(member->bell);
        }
    }
    return NULL;
}

/* ---- Opening ------------------------------------------------------------------------------------------------------- */

static shelf_result password_read(const char *path, char ret_password[PASSWORD_MAX],
                                  char ret_text[MEMBER_TEXT_MAX]) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd >= 0 ? read(fd, ret_password, PASSWORD_MAX - 1) : -1;
    if (size < 0) {
        refuse(ret_text, SHELF_INVALID, "cannot read etcd's password from %.200s: %s", path, strerror(errno));
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    ret_password[size > 0 ? size : 0] = 0;
    ret_password[strcspn(ret_password, "\r\n")] = 0;
    return size < 0 ? SHELF_INVALID : SHELF_OK;
}

static shelf_result etcd_open(struct member *member, char ret_text[MEMBER_TEXT_MAX]) {
    const struct member_options *from = &member->options;
    char urls[COORDINATOR_ENDPOINTS_MAX][URL_MAX], password[PASSWORD_MAX] = "", text[COORDINATOR_TEXT_MAX];
    struct coordinator_etcd_options options = {.cluster = from->cluster,
                                               .directory = from->directory,
                                               .user = from->etcd_user,
                                               .password = from->etcd_password_file ? password : NULL,
                                               .ca_file = from->etcd_ca_file,
                                               .certificate_file = from->etcd_certificate_file,
                                               .key_file = from->etcd_key_file};
    for (const char *at = from->coordinator; *at;) {
        size_t length = strcspn(at, ",");
        if (options.endpoint_count == COORDINATOR_ENDPOINTS_MAX || length >= URL_MAX) {
            return refuse(ret_text, SHELF_INVALID, "--etcd has too many endpoints, or a too long one");
        }
        memcpy(urls[options.endpoint_count], at, length);
        urls[options.endpoint_count][length] = 0;
        options.endpoints[options.endpoint_count] = urls[options.endpoint_count];
        options.endpoint_count++;
        at += length + (at[length] == ',');
    }
    if (from->etcd_password_file && password_read(from->etcd_password_file, password, ret_text) != SHELF_OK) {
        return SHELF_INVALID;
    }
    shelf_result result = coordinator_open_etcd(&options, &member->coordinator, text);
    return result == SHELF_OK ? result : refuse(ret_text, result, "%s", text);
}

static shelf_result coordinator_begin(struct member *member, char ret_text[MEMBER_TEXT_MAX]) {
    static const char prefix[] = "file:";
    const char *place = member->options.coordinator;
    if (strncmp(place, prefix, sizeof(prefix) - 1) != 0) {
        return etcd_open(member, ret_text);
    }
    char text[COORDINATOR_TEXT_MAX];
    struct coordinator_file_options options = {.directory = place + sizeof(prefix) - 1};
    shelf_result result = coordinator_open_file(&options, &member->coordinator, text);
    return result == SHELF_OK ? result : refuse(ret_text, result, "%s", text);
}

static void cluster_fill(struct member *member) {
    const struct member_options *options = &member->options;
    const struct member_record *record = &member->identity.record;
    uint64_t suspect_ms = options->suspect_ms;
    struct group_config *group = &member->cluster.group;
    member->cluster.context = member;
    member->cluster.send = on_send;
    member->cluster.swap = on_swap;
    member->cluster.look = on_look;
    member->cluster.info = member_info;
    memcpy(member->cluster.shelf_id, record->shelf_id, sizeof(record->shelf_id));
    *group = (struct group_config){.node = record->node,
                                   .heartbeat_ms = options->heartbeat_ms,
                                   .suspect_ms = suspect_ms,
                                   .retry_ms = max_u64(suspect_ms / 3, options->heartbeat_ms),
                                   .remove_ms = suspect_ms * 7,
                                   .change_ms = suspect_ms * 4,
                                   .disk_ms = suspect_ms * 14,
                                   .copies = options->copies,
                                   .min_copies = options->min_copies,
                                   .flight_records_max = FLIGHT_RECORDS};
    memcpy(group->incarnation, record->incarnation, sizeof(group->incarnation));
    world_random_fill(group->nonce, sizeof(group->nonce));
    world_random_fill(&group->seed, sizeof(group->seed));
}

static shelf_result options_check(const struct member_options *options, char ret_text[MEMBER_TEXT_MAX]) {
    const char *problem = address_problem(options->address);
    if (problem) {
        return refuse(ret_text, SHELF_INVALID, "--node-address %.200s cannot be used: %s", options->address,
                      problem);
    }
    if (options->min_copies > options->copies) {
        return refuse(ret_text, SHELF_INVALID, "--min-copies %u is more than --copies %u",
                      options->min_copies, options->copies);
    }
    if (options->suspect_ms < 3 * options->heartbeat_ms) {
        return refuse(ret_text, SHELF_INVALID,
                      "--suspect must be three times --heartbeat at least: one late heartbeat is no failure");
    }
    return SHELF_OK;
}

static shelf_result net_begin(struct member *member, char ret_text[MEMBER_TEXT_MAX]) {
    const struct member_record *record = &member->identity.record;
    struct peer_net_options options = {
        .group = GROUP_NUMBER, .node = record->node, .address = member->options.address};
    memcpy(options.cluster, record->shelf_id, sizeof(options.cluster));
    memcpy(options.incarnation, record->incarnation, sizeof(options.incarnation));
    char text[PEER_TEXT_MAX] = "";
    shelf_result result = peer_net_open(&options, &member->net, text);
    if (result != SHELF_OK) {
        return refuse(ret_text, result, "%s", text);
    }
    member->own = (struct node_record){.node = record->node};
    memcpy(member->own.incarnation, record->incarnation, sizeof(record->incarnation));
    (void)snprintf(member->own.address, sizeof(member->own.address), "%s", peer_net_address(member->net));
    for (uint32_t i = 0; i < member->book.count; i++) {
        if (member->book.records[i].node != record->node) {
            (void)peer_net_peer_set(member->net, member->book.records[i].node,
                                    member->book.records[i].address);
        }
    }
    return SHELF_OK;
}

/* The ladder; what has been opened is closed by member_close(). */
static shelf_result open_parts(struct member *member, char ret_text[MEMBER_TEXT_MAX]) {
    const struct member_options *options = &member->options;
    char peers[REGISTER_VALUE_MAX + 1];
    member->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    member->net_bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (member->bell < 0 || member->net_bell < 0) {
        return refuse(ret_text, SHELF_NO_MEMORY, "the system refuses a descriptor: %s", strerror(errno));
    }
    shelf_result result = identity_open(&member->identity, options->directory, options->create,
                                        options->cluster, options->node, ret_text);
    if (result == SHELF_OK) {
        identity_peers_load(&member->identity, peers);
        address_book_parse(&member->book, peers);
        result = coordinator_begin(member, ret_text);
    }
    if (result == SHELF_OK) {
        result = member_join(member, ret_text);
    }
    if (result == SHELF_OK) {
        cluster_fill(member);
        result = net_begin(member, ret_text);
    }
    return result;
}

shelf_result member_open(const struct member_options *options, struct member **ret_member,
                         char ret_text[MEMBER_TEXT_MAX]) {
    shelf_result result = options_check(options, ret_text);
    if (result != SHELF_OK) {
        return result;
    }
    struct member *member = calloc(1, sizeof(*member));
    if (!member) {
        return refuse(ret_text, SHELF_NO_MEMORY, "no memory");
    }
    member->options = *options;
    member->bell = member->net_bell = -1;
    member->identity = (struct identity_file){.fd_directory = -1, .fd_lock = -1};
    (void)pthread_mutex_init(&member->lock, NULL);
    result = open_parts(member, ret_text);
    if (result != SHELF_OK) {
        member_close(member);
        return result;
    }
    *ret_member = member;
    return SHELF_OK;
}

const struct node_cluster *member_cluster(const struct member *member) {
    return &member->cluster;
}

/* ---- Taking part --------------------------------------------------------------------------------------------------- */

/* What was opened is the shelf of this identity; from now on the directory says that there is one (identity.h, I3). */
static shelf_result birth(struct member *member, char ret_text[MEMBER_TEXT_MAX]) {
    struct member_record record = member->identity.record;
    struct node_identity identity = node_identity(member->node);
    if (memcmp(identity.shelf_id, record.shelf_id, sizeof(record.shelf_id)) != 0 ||
        memcmp(identity.incarnation, record.incarnation, sizeof(record.incarnation)) != 0) {
        return refuse(ret_text, SHELF_FORMAT,
                      "the shelf in the directory is not the one that its file " MEMBER_FILE_NAME
                      " tells of; empty the directory, and the node joins anew");
    }
    record.state = MEMBER_BORN;
    return member->identity.record.state == MEMBER_BORN
               ? SHELF_OK
               : identity_store(&member->identity, &record, ret_text);
}

shelf_result member_run(struct member *member, struct node *node, char ret_text[MEMBER_TEXT_MAX]) {
    member->node = node;
    shelf_result result = birth(member, ret_text);
    if (result != SHELF_OK) {
        return result;
    }
    member->driver = node_driver_open(node, NULL, NULL);
    member->receiver_began =
        member->driver && world_thread_begin(&member->receiver, "shelf-receiver", receiver_main, member);
    member->timer_began =
        member->receiver_began && world_thread_begin(&member->timer, "shelf-timer", timer_main, member);
    return member->timer_began ? SHELF_OK : refuse(ret_text, SHELF_NO_MEMORY, "the system refuses a thread");
}

/* ---- The end ------------------------------------------------------------------------------------------------------- */

void member_halt(struct member *member) {
    atomic_store(&member->quit, true);
    bell_ring(member->bell);
    bell_ring(member->net_bell);
    if (member->receiver_began) {
        (void)pthread_join(member->receiver, NULL);
    }
    if (member->timer_began) {
        (void)pthread_join(member->timer, NULL);
    }
    member->receiver_began = member->timer_began = false;
    if (member->driver) {
        node_driver_close(member->driver);
        member->driver = NULL;
    }
}

void member_close(struct member *member) {
    if (member->net) {
        peer_net_close(member->net);
    }
    if (member->coordinator) {
        coordinator_close(member->coordinator);
    }
    identity_close(&member->identity);
    if (member->bell >= 0) {
        (void)close(member->bell);
    }
    if (member->net_bell >= 0) {
        (void)close(member->net_bell);
    }
    (void)pthread_mutex_destroy(&member->lock);
    free(member);
}
