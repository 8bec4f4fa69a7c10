// SPDX-License-Identifier: Apache-2.0
/*
 * door_message.c: what a client says over its socket, and the answers. The formats are in wire/door.h.
 *
 *   M1  A packet has exactly the size of its kind, and no descriptors with it; else the client has broken a rule.
 *   M2  While an answer waits for the client to read, nothing more is read from it; after UNREAD_MS it is disconnected.
 *       So a client costs at most the answers to what it may ask at once.
 *   M3  The answers to CHECKPOINT and FRESH come when the node has them; all others within this thread.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bits.h"
#include "core/rights.h"
#include "door/door_state.h"
#include "world/world.h"

enum { PACKETS_A_TURN = 32 };

/* ---- Sending ------------------------------------------------------------------------------------------------------ */

static void fds_close(const int *fds, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        (void)close(fds[i]);
    }
}

static ssize_t packet_send(int fd, const void *bytes, size_t size, const int *fds, uint32_t fd_count) {
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(REGION_FILES * sizeof(int))] = {0};
    struct iovec part = {.iov_base =
                             (void *)(uintptr_t)bytes, // NOLINT(performance-no-int-to-ptr): it is not written
                         .iov_len = size};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd_count > 0) {
        header.msg_control = control;
        header.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(rights), fds, fd_count * sizeof(int));
    }
    return sendmsg(fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static bool unsent_add(struct client *client, const void *message, uint32_t size, const int *fds,
                       uint32_t fd_count) {
    struct unsent *unsent = malloc(sizeof(*unsent) + size);
    if (!unsent) {
        return false;
    }
    unsent->size = size;
    unsent->fd_count = fd_count;
    memcpy(unsent->fds, fds, fd_count * sizeof(int));
    memcpy(unsent->bytes, message, size);
    if (list_is_empty(&client->unsent)) { /* M2 */
        client->unsent_ns = world_monotonic_ns();
        client->door->unsent_count++;
        (void)door_watch(client->door, &client->socket, EPOLLOUT);
    }
    list_push_back(&client->unsent, &unsent->link);
    return true;
}

void message_send(struct client *client, const void *message, uint32_t size, const int *fds,
                  uint32_t fd_count) {
    static const int none[REGION_FILES] = {-1, -1, -1};
    if (list_is_empty(&client->unsent)) {
        ssize_t sent = packet_send(client->socket.fd, message, size, fds, fd_count);
        if (sent == (ssize_t)size || errno != EAGAIN) {
            fds_close(fds, fd_count);
            if (sent != (ssize_t)size) {
                client_break(client, "");
            }
            return;
        }
    }
    if (!unsent_add(client, message, size, fd_count > 0 ? fds : none, fd_count)) {
        fds_close(fds, fd_count);
        client_break(client, "there is no memory for an answer to it");
    }
}

static void unsent_free(struct unsent *unsent) {
    fds_close(unsent->fds, unsent->fd_count);
    list_unlink(&unsent->link);
    free(unsent);
}

/* The socket has room again. */
void unsent_send(struct client *client) {
    LIST_FOREACH(link, &client->unsent) {
        struct unsent *unsent = LIST_ENTRY(link, struct unsent, link);
        ssize_t sent =
            packet_send(client->socket.fd, unsent->bytes, unsent->size, unsent->fds, unsent->fd_count);
        if (sent < 0 && errno == EAGAIN) {
            return;
        }
        if (sent != (ssize_t)unsent->size) {
            client_break(client, "");
            return;
        }
        client->unsent_ns = world_monotonic_ns();
        unsent_free(unsent);
    }
    client->door->unsent_count--;
    (void)door_watch(client->door, &client->socket, EPOLLIN);
}

void messages_free(struct client *client) {
    client->door->unsent_count -= !list_is_empty(&client->unsent);
    LIST_FOREACH(link, &client->unsent) {
        unsent_free(LIST_ENTRY(link, struct unsent, link));
    }
}

/* ---- What takes the node a while -------------------------------------------------------------------------------------------------- */

static void index_send(struct client *client, uint16_t kind, uint64_t id, uint32_t result, uint32_t reason,
                       uint64_t index) {
    const struct door_index answer = {.message = {.size = sizeof(answer), .kind = kind, .id = id},
                                      .result = result,
                                      .reason = reason,
                                      .index = index};
    message_send(client, &answer, sizeof(answer), NULL, 0);
}

static void ask_answered(struct ask *ask) {
    struct client *client = ask->client;
    (void)pthread_mutex_lock(&client->lock);
    bool gone = client->gone;
    if (!gone) {
        list_push_back(&client->asks_done, &ask->link);
        atomic_store(&client->told, 1);
        bell_ring(client->door);
    }
    (void)pthread_mutex_unlock(&client->lock);
    if (gone) {
        free(ask);
    }
    client_release(client);
}

static void ask_done(struct node_request *first) {
    for (struct node_request *request = first, *next; request; request = next) {
        next = request->next;
        ask_answered(LIST_ENTRY(request, struct ask, request));
    }
}

static void ask_begin(struct client *client, uint16_t kind, uint64_t id) {
    struct ask *ask = calloc(1, sizeof(*ask));
    if (!ask) {
        index_send(client, kind, id, SHELF_NO_MEMORY, REASON_NONE, 0);
        return;
    }
    ask->request.done = ask_done;
    ask->request.fresh = kind == DOOR_FRESH;
    ask->kind = kind;
    ask->client = client;
    ask->id = id;
    list_init(&ask->link);
    list_push_back(&client->asks, &ask->client_link);
    client->ask_count++;
    client->door->ask_count++;
    (void)atomic_fetch_add_explicit(&client->references, 1, memory_order_relaxed);
    if (kind == DOOR_CHECKPOINT) {
        node_disk_hope(client->node);
    }
    node_post(client->node, &ask->request);
}

/* Who has attached to a lone node sees all that was acknowledged, at once. */
static void fresh_ask(struct client *client, uint64_t id) {
    if (node_is_alone(client->node)) {
        index_send(client, DOOR_FRESH, id, SHELF_OK, REASON_NONE, 0);
    } else {
        ask_begin(client, DOOR_FRESH, id);
    }
}

static void ask_forget(struct ask *ask) {
    list_unlink(&ask->client_link);
    ask->client->ask_count--;
    ask->client->door->ask_count--;
    ask->answered = true;
}

void asks_finish(struct client *client) {
    struct list done;
    list_init(&done);
    (void)pthread_mutex_lock(&client->lock);
    for (struct list *link; (link = list_pop_front(&client->asks_done)) != NULL;) {
        list_push_back(&done, link);
    }
    atomic_store(&client->told, 0);
    (void)pthread_mutex_unlock(&client->lock);
    for (struct list *link; (link = list_pop_front(&done)) != NULL;) {
        struct ask *ask = LIST_ENTRY(link, struct ask, link);
        const struct reply *reply = &ask->request.reply;
        if (!ask->answered) {
            ask_forget(ask);
            bool stopped = reply->reason == REASON_NODE_STOPPED;
            index_send(client, ask->kind, ask->id, stopped ? SHELF_IO : reply->result, reply->reason,
                       reply->receipt.index);
        }
        free(ask);
    }
}

void asks_give_up(struct client *client) {
    LIST_FOREACH(link, &client->asks) {
        struct ask *ask = LIST_ENTRY(link, struct ask, client_link);
        if (ask->kind == DOOR_CHECKPOINT) {
            ask_forget(ask);
            index_send(client, ask->kind, ask->id, SHELF_NO_SPACE, REASON_DISK_FULL, 0);
        }
    }
}

/* ---- Answers ------------------------------------------------------------------------------------------------------ */

static bool name_ends(const struct door_ask *ask) {
    return memchr(ask->name, 0, sizeof(ask->name)) != NULL;
}

static uint32_t rights_in(const struct client *client, const struct shelf_region_info *info) {
    return rights_of(&client->credentials, info->owner, info->group, info->mode);
}

static void region_answer(struct client *client, const struct door_ask *ask) {
    struct door_region answer = {
        .message = {.size = sizeof(answer), .kind = ask->message.kind, .id = ask->message.id}};
    bool found = ask->message.kind == DOOR_FIND
                     ? name_ends(ask) && node_region_find(client->node, ask->name, &answer.info)
                     : ask->number < REGION_NUMBERS &&
                           node_region_get(client->node, (uint32_t)ask->number, &answer.info);
    int fds[REGION_FILES] = {-1, -1, -1};
    bool shared = false;
    if (!found) {
        answer.result = SHELF_NOT_FOUND;
    } else if (ask->message.kind == DOOR_MAP) {
        if ((rights_in(client, &answer.info) & RIGHT_READ) == 0) {
            answer.result = SHELF_DENIED;
        } else {
            shared = node_region_share(client->node, answer.info.region, fds);
            answer.result = shared ? SHELF_OK : SHELF_UNAVAILABLE;
        }
    }
    if (shared) {
        uint64_t bit = (uint64_t)1 << (ask->number & 63);
        uint64_t *word = &client->mapped[ask->number >> 6];
        (void)atomic_fetch_add_explicit(&client->regions, (*word & bit) == 0, memory_order_relaxed);
        *word |= bit;
    }
    message_send(client, &answer, sizeof(answer), fds, shared ? REGION_FILES : 0);
}

static void list_answer(struct client *client, const struct door_ask *ask) {
    struct door *door = client->door;
    struct door_regions answer = {.message = {.kind = DOOR_LIST, .id = ask->message.id}};
    answer.total = (uint32_t)node_region_list(client->node, door->infos, SHELF_REGIONS_MAX);
    for (uint32_t i = 0; i < answer.total && answer.count < DOOR_ITEMS_MAX; i++) {
        if (door->infos[i].region >= ask->number) {
            answer.infos[answer.count++] = door->infos[i];
        }
    }
    answer.message.size =
        (uint32_t)(offsetof(struct door_regions, infos) + answer.count * sizeof(answer.infos[0]));
    message_send(client, &answer, answer.message.size, NULL, 0);
}

static void info_answer(struct client *client, const struct door_ask *ask) {
    struct door_info answer = {.message = {.size = sizeof(answer), .kind = DOOR_INFO, .id = ask->message.id}};
    node_info(client->node, &answer.info);
    message_send(client, &answer, sizeof(answer), NULL, 0);
}

static void cluster_answer(struct client *client, const struct door_ask *ask) {
    struct door_cluster answer = {
        .message = {.size = sizeof(answer), .kind = DOOR_CLUSTER, .id = ask->message.id}};
    answer.result = node_cluster_info(client->node, &answer.info) ? SHELF_OK : SHELF_NOT_FOUND;
    message_send(client, &answer, sizeof(answer), NULL, 0);
}

static void clients_answer(struct client *client, const struct door_ask *ask) {
    struct door_clients answer = {.message = {.kind = DOOR_CLIENTS, .id = ask->message.id}};
    answer.total = (uint32_t)door_clients(client->door, ask->number, answer.infos, DOOR_ITEMS_MAX);
    while (answer.count < DOOR_ITEMS_MAX && answer.infos[answer.count].client != 0) {
        answer.count++;
    }
    answer.message.size =
        (uint32_t)(offsetof(struct door_clients, infos) + answer.count * sizeof(answer.infos[0]));
    message_send(client, &answer, answer.message.size, NULL, 0);
}

static void answer(struct client *client, const struct door_ask *ask) {
    switch ((enum door_kind)ask->message.kind) {
    case DOOR_FIND:
    case DOOR_GET:
    case DOOR_MAP:
        region_answer(client, ask);
        break;
    case DOOR_LIST:
        list_answer(client, ask);
        break;
    case DOOR_INFO:
        info_answer(client, ask);
        break;
    case DOOR_CLIENTS:
        clients_answer(client, ask);
        break;
    case DOOR_CLUSTER:
        cluster_answer(client, ask);
        break;
    case DOOR_CHECKPOINT:
    case DOOR_FRESH:
        if (client->ask_count == DOOR_ASKS_MAX) {
            client_break(client, "it asks too much at once");
        } else if (ask->message.kind == DOOR_FRESH) {
            fresh_ask(client, ask->message.id);
        } else {
            ask_begin(client, DOOR_CHECKPOINT, ask->message.id);
        }
        break;
    case DOOR_HELLO:
    case DOOR_WELCOME:
    case DOOR_REFUSED:
    default:
        client_break(client, "a message of no known kind");
        break;
    }
}

/* ---- Receiving ---------------------------------------------------------------------------------------------------- */

union packet {
    struct door_message message;
    struct door_hello hello;
    struct door_ask ask;
    uint8_t bytes[sizeof(struct door_ask) + 1];
};

/* It speaks another version, whose messages may have other sizes: what HELLO begins with is the same in all. */
static bool hello_is_foreign(const struct client *client, const union packet *packet, size_t size) {
    const struct door_hello *hello = &packet->hello;
    return !client->attached && size >= offsetof(struct door_hello, reserved) &&
           hello->message.kind == DOOR_HELLO && hello->magic == DOOR_MAGIC && hello->version != DOOR_VERSION;
}

/* M1. The packet is this thread's copy. */
static void packet_take(struct client *client, const union packet *packet, size_t size) {
    if (size == 1) {
        ring_activate(client);
        return;
    }
    if (size < sizeof(packet->message) || packet->message.size != size || packet->message.reserved != 0) {
        client_break(client, "a message of a wrong size");
    } else if (!client->attached) {
        if (packet->message.kind == DOOR_HELLO && size == sizeof(packet->hello)) {
            client_attach(client, &packet->hello);
        } else {
            client_break(client, "something else than HELLO comes first");
        }
    } else if (size != sizeof(packet->ask)) {
        client_break(client, "a message of a wrong size");
    } else {
        answer(client, &packet->ask);
    }
}

void messages_take(struct client *client) {
    uint32_t count_max = share_is_used(client) ? 1 : PACKETS_A_TURN;
    for (uint32_t i = 0; i < count_max && !client->broken && list_is_empty(&client->unsent); i++) {
        union packet packet;
        struct iovec part = {.iov_base = &packet, .iov_len = sizeof(packet.bytes)};
        struct msghdr header = {.msg_iov = &part,
                                .msg_iovlen = 1}; /* descriptors find no room: they are closed */
        ssize_t size = recvmsg(client->socket.fd, &header, MSG_DONTWAIT);
        if (size < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        if (size <= 0) {
            client_break(client, "");
        } else if (hello_is_foreign(client, &packet, (size_t)size)) {
            client_attach(client, &packet.hello);
        } else if ((header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
            client_break(client, "a packet with more than a message");
        } else {
            packet_take(client, &packet, (size_t)size);
        }
    }
}
